"""Pretraining: a text, a tokenizer, a model, and the loop that makes the model predict the text (the book's chapter 5).

run = pretrain()                                              # the bundled story, into runs/story
run = pretrain(preset="tales")                                # tales told for the run, into runs/tales
run = pretrain("a.txt", "b.txt", preset="124M", epochs=10)    # your own files, into runs/a
run.val_loss, run.sample
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, StateDictError
from ..evaluation.losses import mean_loss, unigram_cross_entropy
from ..generation import stream_text
from ..models import LanguageModel, make_model, pretraining_of
from ..rng import Generator, use_generator
from ..runs.checkpoint import check_room
from ..runs.folder import FORMAT, new_run
from ..runs.loggers import Logger
from ..text import Tokenizer
from ..text.corpus import TOKENIZERS, Corpus, kind_of
from .loop import TrainingLoop
from .masked_words import MaskedResult, MaskedWords
from .pretrain_options import PretrainOptions
from .result import PretrainResult, judge
from .step import NEXT_TOKEN, Batch
from .task import Finished, Task, some_of


class Pretraining(Task):
    """Predict the next token of a text; judged on the part of it that was kept from training."""

    name, objective = "pretrain", NEXT_TOKEN

    def __init__(self, corpus: Corpus, options: PretrainOptions) -> None:
        self.corpus, self.options, self.windows = corpus, options, options.training_windows(corpus)
        self.chance = math.log(corpus.tokenizer.vocab_size)
        self._train_batches = options.evaluation_batches(corpus.train_ids[corpus.alike_from :], corpus.tokenizer)
        self._val_batches = options.evaluation_batches(corpus.val_ids, corpus.tokenizer)

    @classmethod
    def settle(cls, options: PretrainOptions, corpus: Corpus) -> PretrainOptions:
        """What the text decides of the options: without a prompt, samples go on from its first words."""
        if not options.prompt:
            return replace(options, prompt=corpus.opening())
        corpus.tokenizer.encode(options.prompt)  # TokenizerError now rather than after the first epoch
        return options

    @classmethod
    def measure(cls, model: LanguageModel, options: PretrainOptions, ids: Sequence[int], tokenizer: Tokenizer) -> float:
        """The loss of a text, which is cut as in training."""
        return mean_loss(model, options.evaluation_batches(list(ids), tokenizer))

    def __len__(self) -> int:
        return len(self.windows)

    def epoch(self, model: LanguageModel) -> Iterator[Batch]:
        return iter(self.windows.epoch())

    def evaluate(self, model: LanguageModel, final: bool) -> dict[str, float]:
        """Both losses without dropout, on a few batches of each text; in the end, on all of the validation text."""
        n = self.options.eval_batches
        val_batches = self._val_batches if final else some_of(self._val_batches, n)
        return {
            "train_loss": mean_loss(model, some_of(self._train_batches, n)),
            "val_loss": mean_loss(model, val_batches),
        }

    def about(self) -> dict[str, Any]:
        data = self.corpus.fingerprint()
        windows = self.options.stride if self.options.windows == "stride" else self.options.windows
        return {"data": data, "batches": [data["ids"], self.options.batch_size, windows]}

    def introduce(self) -> list[str]:
        corpus, options = self.corpus, self.options
        return [
            f"Text: {sum(map(len, corpus.train_texts)):,} characters to learn from, {sum(map(len, corpus.val_texts)):,} "
            f"kept for validation; {corpus.tokenizer.name} tokens: {len(corpus.train_ids):,} and {len(corpus.val_ids):,}, "
            f"{corpus.tokenizer.vocab_size:,} different ones, in batches of {options.batch_size} x {options.context_length}.",
            *corpus.introduce_marks(),
        ]

    def sample(self, model: LanguageModel, step: int, final: bool) -> str:
        """Let the model go on from the prompt, in a stream of its own; four times as far in the end."""
        options = self.options
        n_tokens = 4 * options.sample_tokens if final else options.sample_tokens
        tokenizer, rng = self.corpus.tokenizer, Generator((options.seed + step) % 2**64)
        stop_ids = [tokenizer.eot_id] if options.windows == "documents" else []
        pieces = stream_text(
            model,
            tokenizer,
            options.prompt,
            n_tokens,
            options.temperature,
            options.top_k,
            stop_ids=stop_ids,
            rng=rng,
        )
        return options.prompt + "".join(pieces)

    def guesses(self) -> dict[str, float]:
        corpus = self.corpus
        counts = unigram_cross_entropy(corpus.train_ids, corpus.val_ids, corpus.tokenizer.vocab_size)
        known = {} if corpus.entropy is None else {"the text's own entropy": corpus.entropy}
        return {"chance": self.chance, "token counts, on validation": counts} | known

    def conclude(self, finished: Finished) -> PretrainResult:
        return judge(finished, self.corpus, self.options.prompt)


# What an architecture is pretrained by, it says itself (Model.pretraining): a task by its name.
TASKS: dict[str, type[Pretraining] | type[MaskedWords]] = {task.name: task for task in (Pretraining, MaskedWords)}


def task_of(architecture: str) -> type[Pretraining] | type[MaskedWords]:
    return TASKS[pretraining_of(architecture)]


def pretrain(
    *files: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> PretrainResult | MaskedResult:
    """Train a model on text files, on the story or on tales (preset="tales"), and leave a run folder that `load_run` reads.

    `out` is the folder (runs/story, runs/tales, or runs/ and the name of the first file). `report` is given each line of the
    record until it raises OSError (training goes on without it), `loggers` hear of every step (loggers.py). `options` are those
    of PretrainOptions; with `config` they change what this JSON file holds: a run's config.json, or its training part. All input
    is checked before anything is written. Ctrl-C, SIGTERM or SIGHUP saves a checkpoint after the step under way and raises
    KeyboardInterrupt or SystemExit; a second one does not wait. `resume` goes on from the newest checkpoint.
    """
    if config is None:
        chosen = PretrainOptions.for_preset(of_files=bool(files), **options)
    else:
        chosen = PretrainOptions.from_file(config, of_files=bool(files), **options)
    corpus = chosen.corpus(files)
    if chosen.tokenizer not in TOKENIZERS:  # a folder: the run has a copy
        chosen = replace(chosen, tokenizer=kind_of(corpus.tokenizer), vocab_size=corpus.tokenizer.vocab_size)
    chosen = task_of(chosen.architecture).settle(chosen, corpus)
    own = chosen.preset if chosen.tells_tales(files) else "story"
    folder = Path(out) if out is not None else Path("runs", Path(files[0]).stem if files else own)
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
) -> PretrainResult | MaskedResult:
    """Train from the first step, in a new run folder, from fresh weights or the given ones.

    `config` is that of the model, if the options do not say all; `more` goes into config.json.
    """
    config = config or options.model_config(corpus.tokenizer.vocab_size)
    memory = options.memory(config, corpus)
    memory.check(report)
    check_room(folder, config.n_parameters(), options.keep, report)
    task = task_of(config.architecture)(corpus, options)
    options.lr_schedule(options.max_steps or options.epochs * len(task))  # an error now, before anything is written
    record = {
        "format": FORMAT,
        "architecture": config.architecture,
        "model": config.to_dict(),
        "task": task.name,
        "training": asdict(options),
        "files": [str(file) for file in files],
        "data": corpus.fingerprint(),
        **more,
    }
    with memory.explain(), use_generator(Generator(options.seed)):
        model = make_model(config.architecture, config)
        if weights is not None:
            try:
                model.load_state_dict(weights)
            except StateDictError as error:
                raise CheckpointError(f"{folder}: {error}") from error
        with new_run(folder, record, corpus.tokenizer) as previous:
            if previous is not None:
                report(f"The run that was in {folder} is now in {previous}.")
            return TrainingLoop(task, options, model, folder, report, loggers).run()
