"""Figures of the tokens of a text, whatever they are of, as a report shows them beside the backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ShapeError
from .picture import number


@dataclass(frozen=True, eq=False)
class Row:
    """A figure of each token. Colours grow from `neutral`, up to `scale` away from it, or to the farthest value."""

    name: str
    values: np.ndarray  # (T,), numbers or flags
    about: str  # what it is, in a line
    neutral: float = 0.0
    scale: float = 0.0
    summed: bool = False  # whether the sum over tokens says something


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Rows of figures, one for each token, and facts about all of them together. ShapeError for a row of another length."""

    title: str
    tokens: Sequence[str]
    rows: Sequence[Row]
    facts: Mapping[str, str | float]

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.values.shape != (len(self.tokens),):
                raise ShapeError(
                    f"{row.name} is {row.values.shape}: it must be ({len(self.tokens)},), one for each token"
                )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: NaN and infinities are words."""
        facts = {name: value if isinstance(value, str) else number(value) for name, value in self.facts.items()}
        return {"title": self.title, "facts": facts, "tokens": list(self.tokens), "rows": [*map(_described, self.rows)]}


def _described(row: Row) -> dict[str, Any]:
    flags = row.values.dtype == bool
    away = np.abs(np.nan_to_num(row.values - row.neutral, posinf=0, neginf=0)) if row.values.size and not flags else 1.0
    return {
        "name": row.name,
        "about": row.about,
        "values": row.values.tolist() if flags else [number(value) for value in row.values],
        "neutral": row.neutral,
        "scale": row.scale or number(np.max(away)),
        **({"sum": number(row.values.sum())} if row.summed else {}),
    }
