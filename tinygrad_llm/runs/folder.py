"""The folder of a run: what is in it, how it is begun, written and read.

config.json          the model (its sizes, head, LoRA), task, every option of the run, its files, what resuming changed
tokenizer.txt        written by the tokenizer itself
metrics.jsonl        one line for each evaluation: the same, to the bit, in every run of the same seed
speed.jsonl          what the clock said there: tokens per second since the run began or went on
samples.txt          what the model wrote after each epoch
step-000100/, latest the checkpoints: see checkpoint.py
best.safetensors     the weights of the lowest validation loss, if no checkpoint has them
loss.png             the losses as a picture, or what else shows how it went
model.safetensors    the weights at the end, under the book's names: written last
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import is_integer, is_number
from ..errors import CheckpointError, ConfigError, StateDictError
from ..files import lock, make_folder, remove_stale, replace_file, storing
from ..formats.open import CONFIG_FILE, MODEL_FILE
from ..formats.safetensors import encode_arrays, read_arrays
from ..formats.strict_json import check_is_file, read_json
from ..models import LanguageModel, build_model
from ..models.heads import PolicyAndValue, policy_of
from ..nn import Module
from ..rng import Zeros
from ..text import Tokenizer, load_tokenizer
from ..text.tokenizers import TOKENIZER_FILE
from .checkpoint import (
    BEST_FILE,
    METRICS_FILE,
    SAMPLES_FILE,
    best_file_step,
    checkpoint_folder,
    is_checkpoint_name,
    list_checkpoints,
    load_weights,
    step_of,
    verify_checkpoint,
)
from .curve import CLEARLY
from .fields import a_count, a_number, a_text, an_object, an_object_of, list_of, naming

FORMAT = 2  # of config.json: with the names of architecture and task
# What is called to train a task, where that is not its name alone.
_COMMANDS = {"masked_words": "pretrain"} | {name: f"prefer {name}" for name in ("reward", "dpo", "ppo", "grpo")}
SPEED_FILE, PLOT_FILE = "speed.jsonl", "loss.png"
_ROW = ("step", "tokens", "lr", "train_loss", "val_loss")
_OPTIONS = {
    "val_ratio": a_number,
    **dict.fromkeys(("prompt", "val_file", "encoding", "preset", "windows"), a_text),
    "seed": a_count,
}
_FIELDS = an_object_of(
    {"model": an_object, "training": an_object_of({}, _OPTIONS, others=True)},
    {
        "architecture": a_text,
        "task": a_text,
        "files": list_of(a_text),
        "data": an_object,
        "changes": list_of(an_object),
        "init_from": a_text,
        **dict.fromkeys(("head", "lora", "template"), an_object),
        "value": an_object_of({"model": an_object}, dict.fromkeys(("head", "lora"), an_object), others=True),
    },
    others=True,
)


@contextmanager
def new_run(folder: Path, config: dict[str, Any], tokenizer: Tokenizer) -> Iterator[Path | None]:
    """`start_run` in a folder that nobody else writes into until the block ends: gives what it returns."""
    with storing(folder):
        make_folder(folder)
    with lock(folder):  # a run that is under way stays where it is
        previous = start_run(folder, config, tokenizer)
        if previous is None:
            yield None
            return
    with lock(folder):
        yield previous


def start_run(folder: str | os.PathLike[str], config: dict[str, Any], tokenizer: Tokenizer) -> Path | None:
    """Make the folder and write what is known before training. A run already there that has saved weights is kept beside it as
    `folder.1`, `folder.2`, ...: that path is returned. CheckpointError if the folder holds something else or cannot be
    written.
    """
    folder, previous = Path(folder), None
    with storing(folder):
        make_folder(folder)
        remove_stale(folder)
        if any(folder.iterdir()):
            if not is_run(folder):
                raise CheckpointError(f"{folder}: holds files that are not those of a run: choose another folder")
            if (folder / MODEL_FILE).exists() or any(path.is_dir() for path in folder.iterdir()):
                previous = _free_name(folder)
                folder.rename(previous)
                make_folder(folder)
        write_config(folder, config)  # first: from now on it is a run
        for name in (METRICS_FILE, SAMPLES_FILE):
            replace_file(folder / name, [])
    tokenizer.save(folder)
    return previous


def write_config(folder: Path, config: dict[str, Any]) -> None:
    replace_file(folder / CONFIG_FILE, [(json.dumps(config, indent=2) + "\n").encode()])


def save_model(folder: str | os.PathLike[str], model: Module) -> None:
    """Write the weights; the file is complete or not there, and an older one stays until the new one is."""
    arrays = {name: parameter.data for name, parameter in model.named_parameters()}
    replace_file(Path(folder, MODEL_FILE), encode_arrays(arrays))


def find_run(path: str | os.PathLike[str], checkpoint: str | int | None = None) -> tuple[Path, str | int] | None:
    """The run that this folder is, or is a checkpoint of (RUN/step-000118), and which of its weights are meant: "best",
    "last" (if nothing is said), or those after a number of steps. None for another folder. ConfigError for another word.
    """
    path = Path(path)
    number = isinstance(checkpoint, str) and re.fullmatch(r"\d{1,12}", checkpoint)
    checkpoint = int(checkpoint) if number and checkpoint else checkpoint
    if checkpoint not in (None, "best", "last") and not is_integer(checkpoint):
        raise ConfigError(f"checkpoint is {checkpoint!r:.80}: use best, last, or a number of steps")
    if is_run(path):
        return path, "last" if checkpoint is None else checkpoint
    if is_checkpoint_name(path.name) and is_run(path.parent):
        if checkpoint is not None:
            raise ConfigError(
                f"{path} is a checkpoint, and checkpoint is {checkpoint!r}: name the run, or leave that out"
            )
        return path.parent, step_of(path)
    if checkpoint is not None:
        raise ConfigError(f"{path} is not a run, and checkpoint is {checkpoint!r}: other weights are there only once")
    return None


def better_weights(path: str | os.PathLike[str]) -> tuple[dict[str, float], dict[str, float]] | None:
    """The rows of the best and the last evaluation of a run, if validation was clearly better there and the weights are kept."""
    path = Path(path)
    try:
        rows = read_metrics(path) if is_run(path) else []
    except CheckpointError:
        return None
    best = best_row(rows)
    if best is None or best["val_loss"] >= rows[-1]["val_loss"] - CLEARLY or _file_of(path, int(best["step"])) is None:
        return None
    return best, rows[-1]


def best_row(rows: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """The first evaluation with the lowest validation loss; None if there is none that is a number."""
    finite = [row for row in rows if math.isfinite(row["val_loss"])]
    return min(finite, key=lambda row: row["val_loss"], default=None)


def _file_of(run: Path, step: int) -> Path | None:
    """The file with the weights after a step."""
    if not 0 <= step < 10**12:  # a number in metrics.jsonl that is no name of a file
        return None
    if (folder := checkpoint_folder(run, step)).is_dir():
        return folder / MODEL_FILE
    if best_file_step(run) == step:
        return run / BEST_FILE
    if (run / MODEL_FILE).exists() and [row["step"] for row in read_metrics(run)[-1:]] == [step]:
        return run / MODEL_FILE
    return None


def _read_weights(run: Path, checkpoint: str | int) -> dict[str, np.ndarray]:
    if checkpoint == "last":
        path = run / MODEL_FILE
        weights = read_arrays(path) if path.exists() else load_weights(run)
        if weights is None:
            raise CheckpointError(f"{path}: not there: the run was stopped before it saved its weights")
        return weights
    best = best_row(read_metrics(run)) if checkpoint == "best" else None
    if checkpoint == "best" and best is None:
        raise CheckpointError(
            f"{run}: no evaluation there, so none is the best: --checkpoint last takes the newest weights"
        )
    step = int(best["step"]) if best else int(checkpoint)
    file = _file_of(run, step)
    if file is None:
        steps = {step_of(folder) for folder in list_checkpoints(run)}
        if (kept := best_file_step(run)) is not None:
            steps.add(kept)
        there = ", ".join(map(str, sorted(steps))) or "none"
        raise CheckpointError(
            f"{run}: the weights after step {step} are not kept: of those saved there are {there}, and last"
        )
    if file.parent != run:
        verify_checkpoint(file.parent, weights_only=True)
    return read_arrays(file)


def load_run(folder: str | os.PathLike[str], checkpoint: str | int | None = None) -> tuple[LanguageModel, Tokenizer]:
    """The model, ready to write (in evaluation mode), and its tokenizer; of a policy with its value function the policy.
    CheckpointError naming the file that is wrong.

    `folder` and `checkpoint` as in `find_run`. The last weights of a run that is not finished are those of its newest
    checkpoint.
    """
    model, tokenizer = load_whole(folder, checkpoint)
    return policy_of(model), tokenizer


def load_whole(
    folder: str | os.PathLike[str], checkpoint: str | int | None = None
) -> tuple[LanguageModel | PolicyAndValue, Tokenizer]:
    """As `load_run`, but a policy comes with its value function."""
    folder, checkpoint = find_run(folder, checkpoint) or (folder, "last")
    config = load_config(folder)
    path, weights = Path(folder, MODEL_FILE), _read_weights(Path(folder), checkpoint)
    try:
        model = build_model(config, Zeros())
        model.load_state_dict(weights)
    except (StateDictError, ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: does not fit {CONFIG_FILE}: {error}") from error
    tokenizer = load_tokenizer(folder)
    padded = "init_from" in config and tokenizer.vocab_size < model.config.vocab_size  # as it was published
    if tokenizer.vocab_size != model.config.vocab_size and not padded:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, the model {model.config.vocab_size}: "
            "they are not of one run"
        )
    model.eval()
    return model, tokenizer


def load_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of config.json: {"model": {...}, "training": {...}, ...}."""
    path = Path(folder, CONFIG_FILE)
    if not path.exists():
        raise CheckpointError(f"{folder}: no run there: {CONFIG_FILE} is missing")
    config = {"format": 1, "architecture": "gpt", "task": "pretrain"} | read_json(path)  # which format 1 does not say
    if "model" not in config and "model_type" in config:
        raise CheckpointError(
            f"{folder}: no run there, but weights of transformers: tinygrad-llm inspect looks at these"
        )
    if config["format"] not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"{path}: written by format {config['format']!r:.40}, this reads up to {FORMAT}: use a newer tinygrad_llm"
        )
    with naming(path):
        _FIELDS("", config)
    return config


def read_metrics(folder: Path, n_bytes: int | None = None) -> list[dict[str, float]]:
    """The rows of metrics.jsonl, or of its first `n_bytes`, without a last one that is not written to its end. CheckpointError
    names a wrong line.
    """
    path = folder / METRICS_FILE
    try:
        check_is_file(path)
        lines = path.read_bytes()[:n_bytes].split(b"\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if n_bytes is not None and lines[-1]:
        raise CheckpointError(f"{path}: line {len(lines)} does not end within {n_bytes:,} bytes: put it back as it was")
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
            numbers = {name: float(row[name]) for name in _ROW if is_number(row[name])}
            fits = len(numbers) == len(_ROW) and math.isfinite(numbers["step"] + numbers["tokens"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            fits = False
        if not fits:
            raise CheckpointError(f"{path}: line {number} is not a row of {', '.join(_ROW)}")
        rows.append(row)
    return rows


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: its config.json tells what it was trained with. CheckpointError if that is not JSON."""
    if not (folder / CONFIG_FILE).is_file():
        return False
    config = read_json(folder / CONFIG_FILE)
    return all(isinstance(config.get(key), dict) for key in ("model", "training"))


def tokenizer_sum(folder: Path) -> str:
    """SHA-256 of tokenizer.txt: which tokenizer this is."""
    check_is_file(folder / TOKENIZER_FILE)
    return hashlib.sha256((folder / TOKENIZER_FILE).read_bytes()).hexdigest()


def command_of(task: str) -> str:
    """What is called to train a task: `tinygrad-llm classify`, `tinygrad-llm prefer dpo`."""
    return f"tinygrad-llm {_COMMANDS.get(task, task)}"


def resume_command(folder: Path, task: str) -> str:
    return f"{command_of(task)} --resume {shlex.quote(str(folder))}"


def _free_name(folder: Path) -> Path:
    n = 1
    while os.path.lexists(name := folder.with_name(f"{folder.name}.{n}")):
        n += 1
    return name
