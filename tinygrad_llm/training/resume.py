"""Going on with a run that was interrupted or killed, or that is to be longer than planned.

resume("runs/story")                                  # as if nothing had happened, to the bit
resume("runs/story", epochs=12, lr=1e-3)              # what is to be different is said, and noted in config.json
resume("runs/story", "longer.txt")                    # with other text, from the beginning of the epoch under way
resume("runs/story", weights_only=True)               # a new run from these weights; the old one is kept beside it
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, ConfigMismatch, CorruptCheckpoint, DataError
from ..files import check_writable, lock, remove_stale
from ..formats.safetensors import read_arrays
from ..models import build_model, make_config
from ..rng import Generator, Zeros, use_generator
from ..runs.checkpoint import (
    MODEL_FILE,
    STATE_FILE,
    Checkpoint,
    check_room,
    load_checkpoint,
    load_weights,
    newest_checkpoint,
    verify_checkpoint,
)
from ..runs.fields import a_text, an_object_of, list_of, naming
from ..runs.folder import CONFIG_FILE, FORMAT, load_config, tokenizer_sum, write_config
from ..runs.loggers import Logger
from ..text import load_tokenizer
from ..text.corpus import Corpus
from ..text.tokenizers import TOKENIZER_FILE
from .loop import TrainingLoop
from .masked_words import MaskedResult
from .options import LoopOptions
from .pretrain import TASKS, begin, task_of
from .pretrain_options import FORM, SIZES, PretrainOptions
from .result import PretrainResult

_DATA = an_object_of({"texts": list_of(a_text), "ids": a_text})
_FIELDS = an_object_of({"files": list_of(a_text), "data": _DATA}, others=True)  # of a run that is resumed
_FIXED = ("preset", "architecture", "tokenizer", "special_tokens", *SIZES, *FORM, "seed")


def resume(
    run: str | os.PathLike[str],
    *files: str | os.PathLike[str],
    weights_only: bool = False,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> PretrainResult | MaskedResult:
    """Go on with the run in folder `run` from its newest whole checkpoint; without changes, to the bit as if never stopped.

    `files` and `changes` (options of PretrainOptions) are what is to be different from now on; they are noted in config.json.
    The learning rate then follows the schedule of all steps, those taken included. Where the batches change, the epoch under
    way begins again. With `weights_only` a new run begins from these weights, with a new optimizer and schedule, and the old
    folder is kept beside it.

    ConfigMismatch, with the differences, for another architecture, tokenizer or seed; DataError for a text that is no longer
    what it was, unless it is among `files`; CorruptCheckpoint where no checkpoint is whole.
    """
    folder = Path(run)
    config = load_config(folder)
    with naming(folder / CONFIG_FILE):
        if config["task"] not in TASKS:
            raise ConfigError(
                f"task is {config['task']!r:.80}: only {' and '.join(map(repr, TASKS))} go on here, another with the command of "
                "its name"
            )
        _FIELDS("", config)
        before = PretrainOptions.of_run(config["training"])
        if len(config["data"]["texts"]) != max(1, len(config["files"])) + bool(before.val_file):
            raise ConfigError(f"files are {len(config['files'])}, data.texts {len(config['data']['texts'])}")
    options = before.changed(**changes)
    refuse_differences(folder, {name: (getattr(before, name), getattr(options, name)) for name in _FIXED})
    names = [str(file) for file in files or config["files"]]
    with lock(folder):
        remove_stale(folder)
        if not weights_only and (found := newest_checkpoint(folder, verify_checkpoint, report)) is not None:
            return _go_on(folder, load_checkpoint(found), config, before, options, names, bool(files), report, loggers)
        weights = load_weights(folder, report)
        if weights is None and (folder / MODEL_FILE).exists():
            weights = read_arrays(folder / MODEL_FILE)
    if weights_only and weights is None:
        raise CheckpointError(f"{folder}: no weights there: the run was stopped before it saved any")
    if weights is not None and not weights_only:
        raise CheckpointError(
            f"{folder}: no checkpoint there, only weights: weights_only (--weights-only) begins a new run from them"
        )
    if weights is None and "init_from" in config:
        raise CheckpointError(f"{folder}: no checkpoint there: begin it again, with --init-from {config['init_from']}")
    # Killed before its first checkpoint, a run is the same from its beginning.
    tokenizer = load_tokenizer(folder) if (folder / TOKENIZER_FILE).exists() else None
    corpus = options.corpus(names, tokenizer)
    _check_data(names, corpus, config, bool(files))
    more: dict[str, Any] = {}
    if "init_from" in config:
        more = {"config": _written(folder, config, options)}
        more |= {name: config[name] for name in ("init_from", "added_special") if name in config}
    return begin(folder, names, options, corpus, report, loggers, weights, **more)


def _written(folder: Path, config: dict[str, Any], options: PretrainOptions) -> Any:
    """The model of a config.json: of one made elsewhere, options do not tell all."""
    with naming(folder / CONFIG_FILE):
        return replace(make_config(config["architecture"], config["model"]), drop_rate=options.drop_rate)


def _go_on(
    folder: Path,
    checkpoint: Checkpoint,
    config: dict[str, Any],
    before: PretrainOptions,
    options: PretrainOptions,
    files: list[str],
    chosen: bool,
    report: Callable[[str], None],
    loggers: Sequence[Logger],
) -> PretrainResult | MaskedResult:
    """Everything is checked before anything in the folder is changed."""
    corpus = options.corpus(files, load_tokenizer(folder))
    _check_data(files, corpus, config, chosen)
    written = _written(folder, config, options)
    model_config = written if "init_from" in config else options.model_config(corpus.tokenizer.vocab_size)
    now = model_config.to_dict() | {TOKENIZER_FILE: tokenizer_sum(folder), "dtype": "float32"}
    with naming(checkpoint.folder / STATE_FILE):
        made = make_config(
            checkpoint.about.get("architecture", "gpt"), checkpoint.about["model"]
        )  # an older one says less
    then = made.to_dict() | {
        TOKENIZER_FILE: checkpoint.about["tokenizer"],
        "dtype": checkpoint.about["dtype"],
    }
    now["decay"], then["decay"] = options.decay, before.decay  # the optimizer keeps its weights in these groups
    refuse_differences(folder, {name: (then.get(name), now[name]) for name in now if name != "drop_rate"})
    if written != model_config:
        others = [name for name, value in written.to_dict().items() if value != now.get(name)] or ["architecture"]
        raise CorruptCheckpoint(
            f"{folder / CONFIG_FILE}: model has another {', '.join(others)} than its training options"
        )
    memory = options.memory(model_config, corpus)
    memory.check(report)
    check_room(folder, model_config.n_parameters(), options.keep, report)
    check_writable(folder)
    task = task_of(model_config.architecture)(corpus, options)
    about = checkpoint.about
    with naming(checkpoint.folder / STATE_FILE):
        _DATA("data", about["data"])
        trained = PretrainOptions.of_run(about["training"])
    batches = [about["data"]["ids"], trained.batch_size, trained.stride]  # as format 1 says it
    checkpoint = replace(checkpoint, about={"batches": batches} | about)
    with memory.explain(), use_generator(Generator(0)):
        model = build_model(config | {"model": model_config}, Zeros())
        loop = TrainingLoop(task, options, model, folder, report, loggers)
        changes = _changes(before, options, config, files, corpus)
        told = {"model": model_config.to_dict(), "files": files, "data": corpus.fingerprint()}
        return take_up(loop, checkpoint, before, config, changes, told)


def take_up(
    loop: TrainingLoop,
    checkpoint: Checkpoint,
    before: LoopOptions,
    config: dict[str, Any],
    changes: dict[str, list],
    told: dict[str, Any],
) -> Any:
    """Run a loop on from a checkpoint to its end; called with a current generator, which becomes that of the checkpoint.

    `changes` (name -> [what it was, what it is from now on]) are noted in config.json, whose contents are `config`, together with
    what it is `told`. ConfigError where nothing is left to do, before anything in the folder is changed.
    """
    folder, options = loop.folder, loop.options
    loop.restore(checkpoint)
    state = loop.state
    enders = {name: getattr(options, name) for name in options.enders if getattr(options, name)}
    state.stopped = state.stopped and all(getattr(options, n) == getattr(before, n) for n in options.enders)
    if state.stopped and (folder / MODEL_FILE).exists():
        what = " or ".join(f"{name} {value}" for name, value in enders.items())
        raise ConfigError(
            f"{folder}: the run has ended before its last step, by {what}: to go on, give another number, or 0 for the whole run"
        )
    if options.max_steps and loop.total_steps < state.step:
        raise ConfigError(f"{folder}: max_steps is {options.max_steps}: the run has taken {state.step} steps")
    if not options.max_steps and (loop.total_steps < state.step or options.epochs < state.epoch):
        raise ConfigError(f"{folder}: epochs is {options.epochs}: the run is in epoch {state.epoch}")
    if loop.total_steps == state.step and (folder / MODEL_FILE).exists():
        length = f"{options.max_steps} steps" if options.max_steps else f"{options.epochs} epochs"
        more = "max_steps, --max-steps" if options.max_steps else "epochs, --epochs"
        raise ConfigError(f"{folder}: the run has finished its {length}: to go on, give more ({more})")
    loop.rewind()
    loop.report(f"Going on after step {state.step} of {loop.total_steps}.")
    if changes:
        for name, (old, new) in changes.items():
            loop.report(f"  {name}: {old} until now, {new} from here on")
        loop.report(f"  the learning rate of the next step is {loop.schedule(state.step):.3g}")
        noted = [*config.get("changes", []), {"step": state.step} | changes]
        now = {"format": FORMAT, "training": asdict(options), "changes": noted}
        write_config(folder, config | told | now)
    return loop.run()


def refuse_differences(folder: Path, pairs: dict[str, tuple]) -> None:
    """ConfigMismatch for (what is there, what is asked for) that are not the same, as a table."""
    differences = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differences:
        table = "; ".join(
            f"{name}: {_brief(old)} there, {_brief(new)} here" for name, (old, new) in differences.items()
        )
        raise ConfigMismatch(f"{folder}: a run cannot go on as another one ({table}): begin a new run", differences)


def _check_data(files: list[str], corpus: Corpus, config: dict[str, Any], chosen: bool) -> None:
    """DataError if a text is not what it was, unless the files were chosen anew."""
    if chosen or corpus.val_file != config["training"].get("val_file", ""):
        return
    texts = corpus.fingerprint()["texts"]
    names = [*(files or ["the bundled story"]), *([corpus.val_file] if corpus.val_file else [])]
    changed = [name for name, old, new in zip(names, config["data"]["texts"], texts, strict=True) if old != new]
    if changed:
        raise DataError(
            f"{', '.join(changed)}: not the text any more that this run began with: put it back, or name the file to go on with "
            "the text as it is now"
        )


def _changes(
    before: PretrainOptions, options: PretrainOptions, config: dict[str, Any], files: list[str], corpus: Corpus
) -> dict[str, list]:
    """name -> [what it was, what it is from now on]."""
    changes = changed_options(before, options)
    if config["files"] != files or config["data"]["texts"] != corpus.fingerprint()["texts"]:
        changes["files"] = [config["files"], files]
    return changes


def changed_options(before: LoopOptions, options: LoopOptions) -> dict[str, list]:
    """name -> [what it was, what it is from now on], of options of one kind."""
    old, new = asdict(before), asdict(options)
    return {name: [old[name], new[name]] for name in old if old[name] != new[name]}


def _brief(value: Any) -> str:
    text = str(value)
    return text[:12] + "..." if len(text) > 24 else text
