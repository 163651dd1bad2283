"""What the folders of runs say about them, for comparing runs: `tinygrad-llm runs`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, StorageError
from ..files import lock
from ..models import build_model, make_config
from ..rng import Zeros
from .checkpoint import METRICS_FILE, MODEL_FILE, list_checkpoints, read_state
from .folder import CONFIG_FILE, load_config, read_metrics


@dataclass(frozen=True)
class RunRecord:
    """One run. Losses are None before the first evaluation; `total_steps` is None where no checkpoint says it."""

    folder: Path
    state: str  # "finished", "under way" or "stopped"
    n_parameters: int
    step: int  # at the last evaluation
    total_steps: int | None
    tokens: int
    best_step: int | None
    best_val_loss: float | None
    val_loss: float | None  # at the last evaluation; None, too, if it is not finite
    seconds_ago: float  # since its record was last written
    options: dict[str, Any]
    rows: list[dict[str, float]]

    @property
    def name(self) -> str:
        """The folder, without a `runs/` before it."""
        return str(self.folder.relative_to("runs") if self.folder.is_relative_to("runs") else self.folder)

    def summary(self) -> dict[str, Any]:
        """All but the rows, as plain data."""
        values = asdict(self) | {"folder": str(self.folder)}
        del values["rows"]
        return values


def find_runs(folders: Sequence[str | os.PathLike[str]] = ("runs",)) -> list[Path]:
    """Each folder that is a run, and the folders in each that is not. CheckpointError for one that is not there."""
    found: list[Path] = []
    for folder in map(Path, folders):
        try:
            if (folder / CONFIG_FILE).exists():  # `read_run` says what is wrong with one that is not a run's
                found.append(folder)
            elif folder.is_dir():
                found += sorted(path for path in folder.glob("[!.]*") if path.is_dir())
            else:
                raise CheckpointError(f"{folder}: not a folder")
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return list(dict.fromkeys(found))


def read_run(folder: Path) -> RunRecord:
    """What is known of a run, also of one under way. CheckpointError saying what is wrong with the folder."""
    config = load_config(folder)
    try:
        n_parameters = make_config(config["architecture"], config["model"]).n_parameters()
        if config.keys() & {"head", "lora", "value"}:  # of which there is no formula; pages of zeros are not touched
            n_parameters = build_model(config, Zeros()).n_parameters()
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: not the configuration of a run: {error}") from error
    rows = read_metrics(folder)
    last = rows[-1] if rows else None
    best = min((row for row in rows if math.isfinite(row["val_loss"])), key=lambda row: row["val_loss"], default=None)
    options = config["training"] | {"files": config.get("files", [])}
    try:
        finished = (folder / MODEL_FILE).exists()
        seconds_ago = max(0.0, time.time() - (folder / METRICS_FILE).stat().st_mtime)
        total_steps = _total_steps(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return RunRecord(
        folder=folder,
        state="finished" if finished else "under way" if is_locked(folder) else "stopped",
        n_parameters=n_parameters,
        step=int(last["step"]) if last else 0,
        total_steps=int(last["step"]) if finished and last else total_steps,
        tokens=int(last["tokens"]) if last else 0,
        best_step=int(best["step"]) if best else None,
        best_val_loss=best["val_loss"] if best else None,
        val_loss=last["val_loss"] if last and math.isfinite(last["val_loss"]) else None,
        seconds_ago=seconds_ago,
        options=options,
        rows=rows,
    )


def is_locked(folder: Path) -> bool:
    """Whether a process is training in this folder."""
    try:
        with lock(folder):
            return False
    except StorageError:
        return True


def _total_steps(folder: Path) -> int | None:
    for checkpoint in list_checkpoints(folder):
        try:
            return int(read_state(checkpoint)["schedule"]["total_steps"])
        except (CheckpointError, KeyError, TypeError, ValueError):
            continue
    return None


def differing_options(records: Iterable[RunRecord]) -> list[str]:
    """The options that are not the same in all of these runs, in the order of config.json."""
    options = [record.options for record in records]
    names = list(dict.fromkeys(name for each in options for name in each))
    return [name for name in names if any(each.get(name) != options[0].get(name) for each in options)]
