"""How well pairs of answers are told apart, by what a model makes of the better one less what it makes of the worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .answers import wilson_interval

_BINS = 5


@dataclass(frozen=True, eq=False)
class PairScores:
    """`differences` (N,) of scores, better less worse; σ of one is how likely the pair is in order, by Bradley and Terry."""

    differences: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of pairs in order; those that tie are not."""
        return float((self.differences > 0).mean())

    @property
    def margin(self) -> float:
        return float(self.differences.mean())

    def calibration(self) -> list[dict[str, float]]:
        """Of pairs that the model is more and less sure about, σ(|difference|): how sure it is, and how often it is right."""
        sure = 1 / (1 + np.exp(-np.abs(self.differences)))
        found = []
        for part in np.array_split(np.argsort(sure, kind="stable"), min(_BINS, len(sure))):
            right = float((self.differences[part] > 0).mean())
            found.append({"n": len(part), "expected": float(sure[part].mean()), "right": right})
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        k, n = int((self.differences > 0).sum()), len(self.differences)
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": list(wilson_interval(k, n)),
            "margin": self.margin,
            "pairs": n,
            "calibration": self.calibration(),
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        low, high = self.to_dict()["accuracy_interval"]
        return [
            f"Of {len(self.differences):,} pairs {self.accuracy:.3f} ({low:.3f}-{high:.3f}) are in order; the mean difference is "
            f"{self.margin:.2f}.",
            "How sure it is of a pair, and how often it is right:",
            *(f"  {row['n']:6,} pairs  {row['expected']:.3f}  {row['right']:.3f}" for row in self.calibration()),
        ]
