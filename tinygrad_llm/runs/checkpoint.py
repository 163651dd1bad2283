"""Checkpoints: everything that decides how a run goes on, in a folder of the run. Nothing in them is pickled.

RUN/latest                            the name of the newest checkpoint
RUN/step-000100/model.safetensors     the weights after 100 steps, under the book's names
RUN/step-000100/optimizer.safetensors AdamW's two moments of each weight: "0.m", "0.v", "1.m", ...
RUN/step-000100/trainer_state.json    where the run is (TrainerState), and what it is a run of
RUN/step-000100/SHA256SUMS            written last; `sha256sum -c SHA256SUMS` checks the others
RUN/best.safetensors                  the weights of the lowest validation loss, where no checkpoint is of that step
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..checks import byte_size, check_integer, is_integer
from ..errors import CheckpointError, ConfigError, CorruptCheckpoint, StorageError
from ..files import new_folder, remove_folder, replace_file, room, write_file
from ..formats.open import MODEL_FILE
from ..formats.safetensors import SafetensorsFile, encode_arrays, read_arrays
from ..formats.strict_json import check_is_file, read_json
from ..rng import Generator
from .fields import a_count, a_flag, a_number, a_text, an_object, an_object_of, list_of, naming, unless

FORMAT = 1
LATEST_FILE, BEST_FILE = "latest", "best.safetensors"
OPTIMIZER_FILE, STATE_FILE, SUMS_FILE = "optimizer.safetensors", "trainer_state.json", "SHA256SUMS"
METRICS_FILE, SAMPLES_FILE = "metrics.jsonl", "samples.txt"
_FOLDER = re.compile(r"step-([0-9]{6,})")
_SUM = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")


@dataclass
class TrainerState:
    """Where a run is, as plain data: all that weights and optimizer do not know."""

    step: int = 0  # steps taken
    epoch: int = 0  # the epoch under way or just over; 0 before the first
    epoch_batches: int = 0  # batches of that epoch
    batch: int = 0  # those of them that are done
    tokens: int = 0
    skipped: int = 0  # steps in which nothing was learned, for a loss or gradient that was not finite
    skipped_in_a_row: int = 0
    gradient_norm: float | None = None  # of the last step that learned, before clipping
    update_ratio: float | None = None  # |change| / |weights| of the step before an evaluation
    losses: list[float] = field(default_factory=list)  # of the last steps that learned
    stopped: bool = False  # for want of progress, before the last step
    recorded: bool = False  # whether the evaluation and the sample that are due after this step are in the logs
    val_loss: float | None = None  # at the last evaluation
    log_bytes: dict[str, int] = field(default_factory=lambda: {METRICS_FILE: 0, SAMPLES_FILE: 0})  # written up to here
    epoch_rng: dict[str, Any] = field(default_factory=dict)  # the generator before it shuffled the epoch
    rng: dict[str, Any] = field(default_factory=dict)  # the generator after `step` steps

    @property
    def epoch_is_over(self) -> bool:
        return self.batch == self.epoch_batches


_WORDS = an_object_of(
    {"seed": a_count, "key": list_of(a_count), "position": a_count, "spare_normal": unless(None, a_number)}
)


def _a_generator(name: str, value: Any) -> None:
    """What `Generator.get_state` gives."""
    _WORDS(name, value)
    try:
        Generator(0).set_state(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


_COUNTS = ("step", "epoch", "epoch_batches", "batch", "tokens", "skipped", "skipped_in_a_row")
_FIELDS = an_object_of(
    {
        "format": partial(check_integer, least=1),
        "state": an_object_of(
            {
                **dict.fromkeys(_COUNTS, a_count),
                "losses": list_of(a_number),
                "recorded": a_flag,
                "val_loss": unless(None, a_number),
                "log_bytes": an_object_of({METRICS_FILE: a_count, SAMPLES_FILE: a_count}),
                "epoch_rng": unless({}, _a_generator),
                "rng": _a_generator,
            },
            {
                **dict.fromkeys(("gradient_norm", "update_ratio"), unless(None, a_number)),
                "stopped": a_flag,
            },  # newer ones
        ),
        "optimizer": an_object_of(
            {
                "param_groups": list_of(an_object_of({"params": list_of(a_count)}, others=True)),
                "steps": list_of(a_count),
            }
        ),
        "schedule": an_object_of(  # of one kind or another
            {"total_steps": a_count},
            {
                **dict.fromkeys(("peak_lr", "min_lr", "factor"), a_number),
                **dict.fromkeys(("warmup_steps", "emb_dim"), a_count),
                "initial_lr": unless(None, a_number),
            },
        ),
        **dict.fromkeys(("model", "training", "data"), an_object),
        **dict.fromkeys(("tokenizer", "dtype"), a_text),
    },
    {
        **dict.fromkeys(("architecture", "task", "error"), a_text),
        **dict.fromkeys(("task_state", "versions"), an_object),
        "chance": a_number,
    },
    others=True,
)


def _contradictions(s: TrainerState, optimizer: Mapping[str, Any]) -> list[str]:
    """What does not fit the rest. A state that led to NaN counts the step under way among those skipped."""
    after, steps = f"after {s.step} steps", optimizer["steps"]
    numbers = sorted(i for group in optimizer["param_groups"] for i in group["params"])
    rules = [
        (s.epoch or not (s.step or s.tokens or s.epoch_batches), f"state.epoch is 0 {after} and {s.tokens} tokens"),
        (s.epoch_batches or not s.epoch, f"state.epoch_batches is 0 in epoch {s.epoch}"),
        (s.epoch_rng or not s.epoch, f"state.epoch_rng is empty in epoch {s.epoch}"),
        (s.batch <= s.epoch_batches, f"state.batch is {s.batch}, epoch_batches {s.epoch_batches}"),
        (s.batch + max(s.epoch - 1, 0) <= s.step, f"state.epoch is {s.epoch}, batch {s.batch} {after}"),
        (s.tokens >= s.step, f"state.tokens is {s.tokens} {after}"),
        (s.skipped <= s.step + 1, f"state.skipped is {s.skipped} {after}"),
        (s.skipped_in_a_row <= s.skipped, f"state.skipped_in_a_row is {s.skipped_in_a_row}, skipped {s.skipped}"),
        (len(s.losses) + s.skipped <= s.step + 1, f"state.losses are {len(s.losses)}, skipped {s.skipped} {after}"),
        (
            s.log_bytes[METRICS_FILE] or not s.recorded,
            "state.recorded is true, log_bytes say that nothing was recorded",
        ),
        (numbers == list(range(len(steps))), f"optimizer.param_groups have {len(numbers)} params, steps {len(steps)}"),
        (max(steps, default=0) <= s.step, f"optimizer.steps are up to {max(steps, default=0)} {after}"),
    ]
    return [problem for holds, problem in rules if not holds]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. `about` is what the run was when it was written: model, training, data, tokenizer, ..."""

    folder: Path
    state: TrainerState
    weights: dict[str, np.ndarray]
    optimizer: dict[str, Any]  # as AdamW.load_state_dict takes it
    about: dict[str, Any]


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / f"step-{step:06}"


def write_checkpoint(
    folder: Path,
    weights: Mapping[str, np.ndarray],
    optimizer: Mapping[str, Any],
    state: TrainerState,
    about: Mapping[str, Any],
    **more: Mapping[str, np.ndarray],
) -> None:
    """Write a folder whole, or not at all (StorageError). `more`: arrays for files of their own.

    The numbers are hashed by other threads while they are written, from where they are: nothing is copied.
    """
    optimizer = dict(optimizer)
    arrays = {"model": weights, "optimizer": optimizer.pop("moments"), **more}
    versions = {"tinygrad_llm": __version__, "numpy": np.__version__, "python": platform.python_version()}
    contents = {"format": FORMAT, "state": vars(state), "optimizer": optimizer, **about, "versions": versions}
    files: dict[str, list[Any]] = {f"{name}.safetensors": encode_arrays(each) for name, each in arrays.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in contents.items())
    files[STATE_FILE] = [f"{{\n{lines}\n}}\n".encode()]
    n_bytes = sum(len(part) for parts in files.values() for part in parts)
    with new_folder(folder, n_bytes) as unfinished, ThreadPoolExecutor() as pool:
        sums = {name: pool.submit(_hash, parts) for name, parts in files.items()}
        for name, parts in files.items():
            write_file(unfinished / name, parts)
        lines = "".join(f"{sum.result()}  {name}\n" for name, sum in sums.items())
        write_file(unfinished / SUMS_FILE, [lines.encode()])


def save_checkpoint(run: Path, keep: int, state: TrainerState, **contents: Any) -> Path:
    """Write the checkpoint of this step, point `latest` to it, and remove those that are not to be kept."""
    folder = checkpoint_folder(run, state.step)
    write_checkpoint(folder, state=state, **contents)
    replace_file(run / LATEST_FILE, [f"{folder.name}\n".encode()])
    prune(run, keep, state.step)
    return folder


def check_room(run: Path, n_parameters: int, keep: int, report: Callable[[str], None]) -> None:
    """StorageError where the disk has no room for one checkpoint and the final weights; a report if not for all of them."""
    weights, checkpoint = 4 * n_parameters, 12 * n_parameters
    there = room(run)
    # The newest, the best, and the one that is being written.
    kept = keep + 2 - (len(list_checkpoints(run)) if os.path.isdir(run) else 0)
    if there < checkpoint + weights:
        raise StorageError(
            f"{run}: a checkpoint and the final weights take {byte_size(checkpoint + weights)}, {byte_size(there)} are free "
            "on this disk: free space there, or choose another folder"
        )
    if there < kept * checkpoint + weights:
        report(
            f"{run}: the checkpoints of this run will take {byte_size(kept * checkpoint + weights)}, {byte_size(there)} are free "
            f"on this disk: free space there, or keep fewer than {keep}."
        )


def prune(run: Path, keep: int, step: int) -> None:
    """Keep the `keep` newest checkpoints and the one with the lowest validation loss.

    What is newer than `step` belongs to a run that was given up when this one went on from an earlier checkpoint.
    """
    there = [folder for folder in list_checkpoints(run) if step_of(folder) <= step]  # newest first
    losses = {folder: loss for folder in reversed(there) if (loss := _val_loss(folder)) is not None}
    kept = {*there[:keep], *([min(losses, key=lambda folder: losses[folder])] if losses else [])}
    for folder in list_checkpoints(run):
        if folder not in kept:
            remove_folder(folder)


def list_checkpoints(run: Path) -> list[Path]:
    """The folders of all checkpoints of a run, valid or not, the newest first."""
    folders = [path for path in run.iterdir() if _FOLDER.fullmatch(path.name) and path.is_dir()]
    return sorted(folders, key=step_of, reverse=True)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def newest_checkpoint(
    run: Path, check: Callable[[Path], Any], report: Callable[[str], None] = lambda line: None
) -> Path | None:
    """The checkpoint that `latest` names, or the newest other one that `check` has nothing against; None if there is none.

    What is wrong with those before it is reported. CorruptCheckpoint when something is wrong with each.
    """
    folders, name = list_checkpoints(run), _latest(run)
    latest = run / name
    problems = []
    if latest in folders:
        folders = [latest, *(folder for folder in folders if folder != latest)]
    elif folders and name:
        problems.append(f"{run / LATEST_FILE} names {ascii(name)[:40]}, which is not there")
    for folder in folders:
        try:
            check(folder)
        except CorruptCheckpoint as error:
            problems.append(str(error))
            continue
        for problem in problems:
            report(f"{problem}: {folder.name} is used instead.")
        return folder
    if problems:
        raise CorruptCheckpoint("; ".join(problems))
    return None


def _latest(run: Path) -> str:
    """The name in `latest`; "" if there is none, or nothing to read."""
    try:
        check_is_file(run / LATEST_FILE)
        with (run / LATEST_FILE).open("rb") as file:
            return file.read(1000).decode(errors="replace").strip()
    except (CheckpointError, OSError):
        return ""


def verify_checkpoint(folder: Path, weights_only: bool = False) -> None:
    """CorruptCheckpoint, naming the file, where one is missing or not, to the bit, what was written."""
    sums = folder / SUMS_FILE
    if not sums.is_file():
        raise CorruptCheckpoint(f"{sums}: missing")
    try:
        lines = sums.read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint(f"{sums}: damaged: {error}") from None
    matches = [_SUM.fullmatch(line) for line in lines.removesuffix("\n").split("\n")]
    expected = {match[2]: match[1] for match in matches if match}
    if len(expected) != len(matches) or not lines.endswith("\n"):
        raise CorruptCheckpoint(f"{sums}: damaged: not lines of a sum and the name of a file")
    needed = {MODEL_FILE} if weights_only else {MODEL_FILE, OPTIMIZER_FILE, STATE_FILE}
    if missing := sorted(needed - expected.keys()):
        raise CorruptCheckpoint(f"{sums}: damaged: says nothing of {missing[0]}")
    for name in needed if weights_only else expected:
        if not (folder / name).is_file():
            raise CorruptCheckpoint(f"{folder / name}: missing")
        if _hash_file(folder / name) != expected[name]:
            raise CorruptCheckpoint(f"{folder / name}: damaged: its sum is not that in {SUMS_FILE}")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint that `verify_checkpoint` found whole. CorruptCheckpoint names a field that cannot be, CheckpointError
    is one of a newer format."""
    about = read_state(folder)
    optimizer, state = about.pop("optimizer"), TrainerState(**about.pop("state"))
    optimizer["moments"] = read_arrays(folder / OPTIMIZER_FILE)
    return Checkpoint(folder, state, read_arrays(folder / MODEL_FILE), optimizer, about)


def read_state(folder: Path) -> dict[str, Any]:
    """The contents of trainer_state.json. CorruptCheckpoint names a field that cannot be, CheckpointError is a newer format."""
    path = folder / STATE_FILE
    contents = read_json(path)
    if is_integer(contents.get("format")) and contents["format"] > FORMAT:
        raise CheckpointError(
            f"{path}: written by format {contents['format']}, this reads up to {FORMAT}: use a newer tinygrad_llm"
        )
    with naming(path):
        _FIELDS("", contents)
        state = TrainerState(**contents["state"])
        problems = _contradictions(state, contents["optimizer"])
        if _FOLDER.fullmatch(folder.name) and state.step != step_of(folder):
            problems.append(f"state.step is {state.step} in {folder.name}")
        if problems:
            raise ConfigError(f"{problems[0]}: they do not belong together")
    return contents


def load_weights(run: Path, report: Callable[[str], None] = lambda line: None) -> dict[str, np.ndarray] | None:
    """The weights of the newest checkpoint where they are whole, whatever became of the other files; None without one."""
    folder = newest_checkpoint(run, _verify_weights, report)
    return None if folder is None else read_arrays(folder / MODEL_FILE)


def save_best(run: Path, step: int, weights: Mapping[str, np.ndarray]) -> None:
    """Keep the weights of the lowest validation loss so far."""
    replace_file(run / BEST_FILE, encode_arrays(weights, {"step": str(step)}))


def best_file_step(run: Path) -> int | None:
    """The step whose weights are in BEST_FILE; None where it is not there, or damaged."""
    try:
        with SafetensorsFile(run / BEST_FILE) as file:
            return int(file.metadata["step"])
    except (CheckpointError, KeyError, ValueError):
        return None


def is_checkpoint_name(name: str) -> bool:
    return _FOLDER.fullmatch(name) is not None


def _verify_weights(folder: Path) -> None:
    if (folder / SUMS_FILE).exists():
        verify_checkpoint(folder, weights_only=True)
    else:
        read_arrays(folder / MODEL_FILE)


def _val_loss(folder: Path) -> float | None:
    try:
        return read_state(folder)["state"]["val_loss"]
    except CheckpointError:  # damaged, or of a newer format
        return None


def _hash(parts: list[Any]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def _hash_file(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(partial(file.read, 2**20), b""):
            sha.update(block)
    return sha.hexdigest()
