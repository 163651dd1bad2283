"""Is one recorded op differentiated right, at the very values it had? What `step.check()` does.

The forward of the whole walk is run once more, which gives back the inputs that the tape did not keep. Forward and backward of
the one op are then run in float64 and compared with differences, and the gradients of the pass with those of float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import NonFiniteError
from ..tape.node import run_again, unseen
from .differences import derivative, repeated, ties

if TYPE_CHECKING:
    from ..tape.node import Node
    from ..tape.step import Step

_ALL = 32  # elements of an input up to which each is measured
_LARGEST, _RANDOM = 4, 8  # measured otherwise, besides one random direction
_FLOAT32 = 2.0**-10


@dataclass(frozen=True)
class Verdict:
    """What `step.check()` found: `verdict` is "ok", "wrong" or "kink"; false in a condition when it is wrong."""

    verdict: str
    op: str
    name: str
    site: str
    formula: str
    compared: int  # derivatives measured
    relative_error: float  # of the worst
    input: str = ""  # the worst: of which input
    index: tuple[int, ...] | str | None = (
        None  # at which element, or which moved together; None along a random direction
    )
    analytic: float = 0.0  # dL/d(element) by the backward
    numeric: float = 0.0  # by differences
    remark: str = ""

    def __bool__(self) -> bool:
        return self.verdict != "wrong"

    def __str__(self) -> str:
        head = f"{self.verdict}: {self.name}, {self.compared} derivatives measured"
        if self.verdict == "ok":
            return f"{head}, relative error {self.relative_error:.1g}"
        where = (
            f"at {list(self.index)}" if isinstance(self.index, tuple) else f"along {self.index or 'a random direction'}"
        )
        text = (
            f"{head}, worst d{self.input} {where}: {self.op}_backward says {self.analytic:.9g}, differences "
            f"{self.numeric:.9g}, relative error {self.relative_error:.2g} ({self.formula}; {self.site})"
        )
        return f"{text}: {self.remark}" if self.remark else text


@np.errstate(all="ignore")
def check_step(step: Step) -> Verdict:
    """Compare the gradients of a step with differences, at the actual inputs and output gradient, in float64."""
    node, g = step.node, step.grad_out.astype(np.float64)
    if not np.isfinite(g).all():
        raise NonFiniteError(
            f"check of {step.name}: the gradient that comes in is not finite: find where it arose with debug.anomaly()"
        )
    given = step.walk.inputs(node)
    arrays = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in given]
    out, gradients = _differentiate(step, arrays, g)
    rng = np.random.default_rng(step.i)

    def blurred(a: Any) -> Any:  # by a rounding of float32, to see how far that alone would take the gradient
        return a * (1 + 2.0**-22 * rng.choice([-1.0, 1.0], a.shape)) if a is not None and a.dtype.kind == "f" else a

    moved = [a if parent is None else blurred(a) for a, parent in zip(arrays, node.parents, strict=True)]
    _, nearby = _differentiate(step, moved, blurred(g))
    size = float(np.abs(np.where(np.isfinite(out), g * out, 0)).sum())
    broken = not all(np.isfinite(a).all() for a in (out, *arrays) if isinstance(a, np.ndarray))
    measured = _differentiate(step, arrays, np.where(np.isfinite(out), g, 0))[1] if broken else gradients
    findings: list[_Finding] = []
    at_kinks: list[float] = []

    def measure(directions: dict[int, np.ndarray], index: tuple[int, ...] | str | None) -> bool:
        """One derivative; whether it is at a kink."""
        moved = [(arrays[k][d != 0], d[d != 0], measured[k][d != 0]) for k, d in directions.items()]
        analytic = sum(float((d * gradient).sum()) for _, d, gradient in moved)
        if broken and not math.isfinite(analytic):
            return False  # it mixes with what is not finite
        near = max(float(np.abs(x).max(initial=0)) for x, _, _ in moved)
        found = _measure(_along(node, arrays, directions, out, g), near, analytic, size)
        findings.append(found.at(" and d".join(map(step.argument, directions)), index))
        return found.verdict == "kink"

    inputs = [k for k, parent in enumerate(node.parents) if parent is not None]
    for k in inputs:
        for index, direction in _probes(arrays[k], gradients[k], rng):
            if measure({k: direction}, index):
                at_kinks += repeated(arrays[k])[:_RANDOM].tolist() if index is None else [float(arrays[k][index])]
    for index, _, together in ties([a if k in inputs else None for k, a in enumerate(arrays)], at_kinks):
        measure(together, index)
    compared = len(findings)
    if step.gradients:
        findings += [_compare(step, k, gradients[k], nearby[k]) for k in inputs]
    worst = max(findings, key=_Finding.rank, default=_Finding("ok", 0.0))
    return Verdict(
        worst.verdict,
        node.op.name,
        step.name,
        node.site,
        step.formula,
        compared,
        worst.relative_error,
        worst.input,
        worst.index,
        worst.analytic,
        worst.numeric,
        worst.remark,
    )


@dataclass
class _Finding:
    verdict: str
    relative_error: float
    analytic: float = 0.0
    numeric: float = 0.0
    input: str = ""
    index: tuple[int, ...] | str | None = None
    remark: str = ""

    def at(self, argument: str, index: tuple[int, ...] | str | None) -> _Finding:
        self.input, self.index = argument, index
        return self

    def rank(self) -> tuple:
        return ("ok", "kink", "wrong").index(self.verdict), not self.remark, self.index is not None, self.relative_error


def _differentiate(step: Step, arrays: list, g: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The output and the gradient of each input, zeros where none came back."""
    node = step.node
    out, saved = run_again(node, arrays)
    needs = {"needs": tuple(p is not None for p in node.parents)} if "needs" in node.op.takes else {}
    gradients = unseen(node.op.backward)(g.copy(), *saved, **needs)
    return out, [
        np.zeros(np.shape(a)) if d is None else np.array(d, np.float64) for a, d in zip(arrays, gradients, strict=True)
    ]


def _probes(x: np.ndarray, gradient: np.ndarray, rng: np.random.Generator) -> list[tuple]:
    """(index, direction) of the derivatives that are measured; elements that are not finite cannot be moved."""
    finite = np.flatnonzero(np.isfinite(x))
    probes: list[tuple] = []
    chosen = finite
    if finite.size > _ALL:
        largest = finite[np.argsort(-np.abs(gradient.reshape(-1)[finite]), kind="stable")[:_LARGEST]]
        chosen = np.union1d(largest, rng.choice(finite, _RANDOM, replace=False))
        probes.append((None, np.where(np.isfinite(x), rng.standard_normal(x.shape), 0)))
    for flat in chosen:
        index = tuple(map(int, np.unravel_index(flat, x.shape)))
        direction = np.zeros(x.shape)
        direction[index] = 1
        probes.append((index, direction))
    return probes


def _along(node: Node, arrays: list, directions: dict[int, np.ndarray], out: np.ndarray, g: np.ndarray) -> Callable:
    """h -> g f(x + h direction), element by element, where the output is finite and its gradient is not 0."""
    counted = np.isfinite(out) & (g != 0)

    def f(h: float) -> np.ndarray:
        if not h:
            return (out * g)[counted]
        moved = [a + h * directions[k] if k in directions else a for k, a in enumerate(arrays)]
        return (run_again(node, moved)[0] * g)[counted]

    return f


def _measure(f: Callable, near: float, analytic: float, size: float) -> _Finding:
    """One derivative: quickly, and once more with care where it seems to differ, or to be one of two slopes."""
    scale = max(1.0, near)
    size /= scale
    found = derivative(f, scale, "central")
    numeric = float(found.value.sum())
    if abs(analytic - numeric) <= 1e-6 * abs(numeric) + 1e-9 * size and (found.low == found.high).all():
        significant = abs(numeric) > 1e-6 * size
        return _Finding("ok", _relative(analytic, numeric) if significant else 0.0, analytic, numeric)
    measured = derivative(f, scale, near=near).of_sums(np.ones((1, found.value.size)))
    numeric = float(measured.value[0])
    tolerance = 1e-6 * abs(numeric) + 4 * measured.error + 1e-12 * size
    if measured.low[0] == measured.high[0] and abs(analytic - numeric) <= tolerance[0]:
        return _Finding("ok", 0.0)  # as far as differences can tell
    bent = np.isnan(measured.low) | measured.holds(np.array([analytic]), tolerance)
    verdict = "kink" if bent[0] else "wrong"
    return _Finding(verdict, _relative(analytic, numeric), analytic, numeric)


def _compare(step: Step, k: int, expected: np.ndarray, nearby: np.ndarray) -> _Finding:
    """The gradient that the pass goes on with, against the one of float64."""
    found = step.gradients[k]
    found = np.zeros(expected.shape) if found is None else found
    if found.shape != expected.shape or not found.size:
        return _Finding("ok", 0.0)  # the tape itself complains about a wrong shape
    precision = _FLOAT32 if found.dtype == np.float32 else 1e-10
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    off = np.where(same, 0, np.abs(found - expected))
    largest = np.abs(expected).max(where=np.isfinite(expected), initial=0)
    rounding = (
        64 * float(np.nan_to_num(np.abs(nearby - expected)).max()) * (1 if found.dtype == np.float32 else 2.0**-29)
    )
    if off.max() <= precision * largest + rounding:
        return _Finding("ok", 0.0)
    index = tuple(map(int, np.unravel_index(int(np.argmax(np.where(np.isnan(off), np.inf, off))), off.shape)))
    remark = (
        "the op itself is right, but this pass has another gradient: it was replaced, an input was changed since the forward, "
        f"or {found.dtype} loses it"
    )
    analytic, numeric = float(found[index]), float(expected[index])
    return _Finding("wrong", _relative(analytic, numeric), analytic, numeric, step.argument(k), index, remark)


def _relative(a: float, b: float) -> float:
    size = max(abs(a), abs(b))
    return abs(a - b) / size if size else 0.0
