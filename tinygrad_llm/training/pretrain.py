"""Pretraining: a text, a tokenizer, a model, and the loop that makes the model predict the text (the book's chapter 5).

run = pretrain()                                              # the bundled story, into runs/story
run = pretrain("a.txt", "b.txt", preset="124M", epochs=10)    # your own files, into runs/a
run.val_loss, run.sample
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, StateDictError
from ..models import make_model
from ..rng import Generator, use_generator
from ..runs.checkpoint import check_room
from ..runs.folder import FORMAT, new_run
from ..runs.loggers import Logger
from ..text.corpus import Corpus
from .loop import TrainingLoop
from .memory import check_memory, explain_memory
from .options import PretrainOptions
from .result import PretrainResult


def pretrain(
    *files: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> PretrainResult:
    """Train a GPT on UTF-8 text files, or on the bundled story, and leave a run folder that `load_run` reads.

    `out` is the folder (runs/story, or runs/ and the name of the first file), `report` is given each line of the record,
    `loggers` hear of every step (loggers.py), `options` are those of PretrainOptions. All input is checked before anything
    is written. Ctrl-C or SIGTERM saves a checkpoint after the step under way and raises KeyboardInterrupt or SystemExit; a
    second one does not wait. `resume` goes on from the newest checkpoint.
    """
    chosen = PretrainOptions.for_preset(**options)
    corpus = chosen.corpus(files)
    if chosen.prompt:
        corpus.tokenizer.encode(chosen.prompt)  # TokenizerError now rather than after the first epoch
    else:
        chosen = replace(chosen, prompt=corpus.opening())
    folder = Path(out) if out is not None else Path("runs", Path(files[0]).stem if files else "story")
    return begin(folder, files, chosen, corpus, report, loggers)


def begin(
    folder: Path,
    files: Sequence[str | os.PathLike[str]],
    options: PretrainOptions,
    corpus: Corpus,
    report: Callable[[str], None],
    loggers: Sequence[Logger] = (),
    weights: Mapping[str, np.ndarray] | None = None,
    config: Any = None,
    **more: Any,
) -> PretrainResult:
    """Train from the first step, in a new run folder, from fresh weights or the given ones.

    `config` is that of the model, if the options do not say all; `more` goes into config.json.
    """
    config = config or options.model_config(corpus.tokenizer.vocab_size)
    check_memory(config, options.batch_size)
    check_room(folder, config.n_parameters(), options.keep, report)
    windows = options.windows(corpus.train_ids)
    record = {
        "format": FORMAT,
        "architecture": config.architecture,
        "model": config.to_dict(),
        "task": "pretrain",
        "training": asdict(options),
        "files": [str(file) for file in files],
        "data": corpus.fingerprint(),
        **more,
    }
    with explain_memory(config, options.batch_size), use_generator(Generator(options.seed)):
        model = make_model(config.architecture, config)
        if weights is not None:
            try:
                model.load_state_dict(weights)
            except StateDictError as error:
                raise CheckpointError(f"{folder}: {error}") from error
        with new_run(folder, record, corpus.tokenizer) as previous:
            if previous is not None:
                report(f"The run that was in {folder} is now in {previous}.")
            return TrainingLoop(options, corpus, windows, model, folder, report, loggers).run()
