"""What a model is trained to do. The one loop (loop.py) knows a task by this alone: pretraining is one, tuning/ has the others.

A task writes `name`, `objective`, `chance`, `__len__`, `epoch`, `evaluate` and `about`; the rest may stay as it is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.plots import plot_losses
from .step import Objective


class Task:
    """Batches, what is to become smaller on them, and how well it went."""

    name: str  # as in config.json
    objective: Objective
    chance: float  # the loss of who knows nothing: below it, no loss has exploded

    def __len__(self) -> int:
        """The batches of an epoch, as many in each."""
        raise TypeError(f"{type(self).__name__} must define __len__()")

    def epoch(self, model: Any) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches, drawn with the current generator; the objective takes what each holds, the rows of its arrays together.

        In a run that is resumed, an epoch is begun again from the generator that it began with, up to where the run was.
        """
        raise TypeError(f"{type(self).__name__} must define epoch(model)")

    def evaluate(self, model: Any, final: bool) -> dict[str, float]:
        """A row of metrics.jsonl: "train_loss", "val_loss" and more. `final`: after the last step, so on everything."""
        raise TypeError(f"{type(self).__name__} must define evaluate(model, final)")

    def headline(self, row: Mapping[str, float]) -> dict[str, float]:
        """What of `evaluate`'s row stands in the line on the terminal, besides both losses."""
        return {name: value for name, value in row.items() if name not in ("train_loss", "val_loss")}

    def is_done(self, row: Mapping[str, float]) -> str:
        """Why the run is to end after an evaluation that gave this row, though steps are left; "" to go on."""
        return ""

    def about(self) -> dict[str, Any]:
        """What the task learns from, as JSON: "data", a fingerprint, and "batches", which stays the same only if `epoch` gives
        the same batches from the same generator.
        """
        raise TypeError(f"{type(self).__name__} must define about()")

    def introduce(self) -> list[str]:
        """Lines about the data, for the beginning of the record."""
        return []

    def sample(self, model: Any, step: int, final: bool) -> str:
        """Something to look at: after each epoch, and once more after the last. It may not touch the current generator."""
        return ""

    def guesses(self) -> dict[str, float]:
        """Losses to put beside the curve."""
        return {"chance": self.chance}

    def plot(self, path: Path, rows: Sequence[dict[str, float]]) -> bool:
        """Draw the rows of metrics.jsonl, in the end: a PNG. False without matplotlib."""
        return plot_losses(path, rows, self.guesses())

    def state(self) -> dict[str, Any]:
        """What of the task changes while it runs, arrays and JSON values: stored in every checkpoint."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Be where `state()` was; called after the part of an epoch that is skipped."""

    def conclude(self, finished: Finished) -> Any:
        """What the run comes to: an object with `lines()`."""
        return finished


def some_of(batches: Sequence[Any], n: int) -> Sequence[Any]:
    """At most n of the batches, from all over the text."""
    return [batches[i * len(batches) // n] for i in range(n)] if len(batches) > n else batches


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    folder: Path
    model: Any
    metrics: list[dict[str, float]]  # the rows of metrics.jsonl
    sample: str  # the last one
    seconds: float
    tokens_per_second: float

    def lines(self) -> list[str]:
        last, best = self.metrics[-1], min(self.metrics, key=lambda row: row["val_loss"])
        others = ("step", "epoch", "tokens", "lr", "gradient_norm", "update_ratio")
        shown = {name: value for name, value in last.items() if name not in others}
        return [
            f"Trained in {self.seconds:.0f} s, {self.tokens_per_second:,.0f} tokens a second.",
            *(f"  {name.replace('_', ' '):24}{value:10.4f}" for name, value in shown.items()),
            f"  lowest validation loss  {best['val_loss']:10.4f}   (after step {best['step']})",
        ]
