"""The tape as a table: what the backward of a loss does, step by step."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import byte_size
from ..engine import Tensor
from ..tape.display import norm
from .html import table_html


@dataclass(frozen=True)
class Row:
    """One step: `norm` is |g|, the norm of the gradient that comes in; `variable` what the user's code calls the output."""

    i: int
    op: str
    name: str
    shapes: str
    norm: float
    saved_bytes: int
    seconds: float
    line: str
    variable: str | None = None


class Explanation(Sequence):
    """Rows, one a step; printed, or in a notebook, a table."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __getitem__(self, i):  # type: ignore[no-untyped-def]
        return self.rows[i]

    def __len__(self) -> int:
        return len(self.rows)

    def _cells(self) -> list[tuple[str, ...]]:
        """The table, its header first."""
        return [
            ("step", "op", "name", "g -> gradients", "|g|", "saved", "ms", "line"),
            *(
                (
                    str(r.i + 1),
                    r.op,
                    r.name if r.variable is None else f"{r.name}, {r.variable}",
                    r.shapes,
                    f"{r.norm:.3g}",
                    byte_size(r.saved_bytes),
                    f"{1e3 * r.seconds:.2f}",
                    r.line,
                )
                for r in self.rows
            ),
        ]

    def __str__(self) -> str:
        header, *rows = self._cells()
        return table(header, rows, right=(0, 4, 5, 6))

    def __repr__(self) -> str:
        if not self.rows:
            return "Explanation of 0 steps"
        most, slowest = max(self.rows, key=lambda r: r.saved_bytes), max(self.rows, key=lambda r: r.seconds)
        return (
            f"Explanation of {len(self)} steps, print() it: {byte_size(sum(r.saved_bytes for r in self.rows))} saved, "
            f"the most by {most.name[-40:]}, the slowest {slowest.name[-40:]}"
        )

    def _repr_html_(self) -> str:
        return table_html(self._cells())


def explain(loss: Tensor) -> Explanation:
    """A row for each step of the backward of a scalar loss, which can still be called after; every `.grad` is left alone."""
    rows = []
    start = time.perf_counter()
    for step in loss.backward_steps(retain_graph=True, into={}):
        seconds = time.perf_counter() - start
        shapes = ", ".join("-" if d is None else str(np.shape(d)) for d in step.gradients)
        kept = sum(value.nbytes for value in step.saved.values() if isinstance(value, np.ndarray))
        file, _, function = step.site.rpartition(" in ")
        rows.append(
            Row(
                step.i,
                step.op,
                step.name,
                f"{step.grad_out.shape} -> {shapes}",
                norm(step.grad_out),
                kept,
                seconds,
                f"{os.path.basename(file)} in {function}",
                step.variable,
            )
        )
        start = time.perf_counter()
    return Explanation(rows)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> str:
    """Columns as wide as they need to be; those in `right` have numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(w) if k in right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
