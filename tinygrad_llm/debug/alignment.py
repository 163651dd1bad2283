"""Where the tokens of a text have looked in another one that it was written from, as a report shows it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ShapeError
from .picture import encode

_CELLS = 200_000  # of all pictures of a text together


@dataclass(frozen=True, eq=False)
class AlignedText:
    """Weights of attention from each token that was written to those of its source. ShapeError for another number of either."""

    title: str
    about: str  # what it is, in a line
    source: Sequence[str]  # S tokens
    target: Sequence[str]  # T tokens
    layers: Sequence[str]  # names of the layers
    weights: np.ndarray  # (layers, heads, T, S), probabilities

    def __post_init__(self) -> None:
        wanted = len(self.layers), len(self.target), len(self.source)
        if self.weights.ndim != 4 or (self.weights.shape[0], *self.weights.shape[2:]) != wanted:
            raise ShapeError(
                f"weights are {self.weights.shape}: they must be ({wanted[0]}, heads, {wanted[1]}, {wanted[2]}), for each layer, "
                "token that was written and token of the source"
            )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: of each layer the mean of its heads, then each head, as pictures of the first tokens of either text."""
        n_maps = self.weights.shape[0] * (1 + self.weights.shape[1])
        most = max(1, math.isqrt(_CELLS // max(1, n_maps)))
        weights = self.weights[:, :, :most, :most]
        names = ["mean of the heads", *(f"head {k}" for k in range(weights.shape[1]))]
        attention = [
            {"layer": layer, "names": names, "heads": [codes(heads.mean(0)), *map(codes, heads)]}
            for layer, heads in zip(self.layers, weights, strict=True)
        ]
        cut = max(len(self.source), len(self.target)) > most
        return {
            "title": self.title,
            "about": self.about + (f" The first {most} tokens of either text are shown." if cut else ""),
            "source": list(self.source[:most]),
            "target": list(self.target[:most]),
            "attention": attention,
        }


def codes(weights: np.ndarray) -> str:
    """Probabilities (T, S) as the bytes of a picture whose largest magnitude is 1."""
    return base64.b64encode(encode(weights, 1.0).tobytes()).decode()
