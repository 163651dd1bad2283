"""Derivatives by taking differences: what a backward is compared with.

central      (f(x+h) - f(x-h)) / 2h, right to about ten digits at best
richardson   central differences at h, h/2, h/4, ... extrapolated to h = 0 (Ridders 1982), about twelve digits
complex      Im f(x + ih) / h (Squire and Trapp 1998), all digits, where f is analytic and takes complex arrays
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

METHODS = ("richardson", "central", "complex")

_LEVELS = 6  # halvings of h in one extrapolation
_STARTS = (-4, -9, -14, -19, -26, -33, -40)  # log2 of the first h; the next is tried where this does not settle
_SETTLED = 1e-11
_EPS = 2.0**-52


class Derivative(NamedTuple):
    """What was measured, element by element of f's result."""

    value: np.ndarray
    error: np.ndarray  # of value, estimated
    size: np.ndarray  # |f| in the neighbourhood: f is rounded to its last digits, which limits what can be measured


def derivative(f: Callable[[Any], np.ndarray], scale: float = 1.0, method: str = "richardson") -> Derivative:
    """df/dh at h = 0 for `f(h) -> array`; `scale` is the distance over which f varies."""
    with np.errstate(all="ignore"):
        if method == "complex":
            h = scale * 2.0**-66
            moved = f(1j * h)
            return Derivative(np.imag(moved) / h, np.zeros(moved.shape), np.abs(moved))
        if method == "central":
            h = scale * 2.0**-17  # about the cube root of float64's epsilon
            ahead, behind = f(h), f(-h)
            value = (ahead - behind) / (2 * h)
            return Derivative(value, 1e-9 * np.abs(value), np.abs(ahead))
        value, error, size = _extrapolate(f, scale * 2.0 ** _STARTS[0])
        for power in _STARTS[1:]:
            if np.all(error <= _SETTLED * (np.abs(value) + size / scale)):
                break
            other, its_error, its_size = _extrapolate(f, scale * 2.0**power)
            better = its_error < error
            value, error = np.where(better, other, value), np.where(better, its_error, error)
            size = np.where(np.isfinite(size), size, its_size)
        return Derivative(value, error, size)


def _extrapolate(f: Callable[[float], np.ndarray], h: float) -> Derivative:
    """Ridders' table: each row halves h, each column removes the next even power of h from the error."""
    above: list[np.ndarray] = []
    value = error = size = np.asarray(np.inf)
    for level in range(_LEVELS):
        ahead, behind = f(h), f(-h)
        rounding = _EPS * np.maximum(np.abs(ahead), np.abs(behind)) / h
        row = [(ahead - behind) / (2 * h)]
        if level == 0:
            value, error = row[0], np.full(row[0].shape, np.inf)
            size = np.maximum(np.abs(ahead), np.abs(behind))
        for column, previous in enumerate(above):
            row.append(row[-1] + (row[-1] - previous) / (4.0 ** (column + 1) - 1))
            its_error = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - previous)) + rounding
            better = its_error < error
            value, error = np.where(better, row[-1], value), np.where(better, its_error, error)
        above, h = row, h / 2
    return Derivative(value, error, size)


def slopes(f: Callable[[float], np.ndarray], scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slope of f at 0 from the left, from the right, and whether they differ: a kink, a step, or the edge of f's domain."""
    with np.errstate(all="ignore"):
        at_zero = f(0.0)

        def both(h: float) -> tuple[np.ndarray, np.ndarray]:
            return (at_zero - f(-h)) / h, (f(h) - at_zero) / h

        before = both(scale * 2.0**-18)
        left, right = both(scale * 2.0**-22)
        jump = np.abs(right - left)
        # The slopes of a smooth f approach each other in proportion to h, here to a sixteenth; those of a kink do not.
        noise = 1e-6 * (np.abs(left) + np.abs(right)) + 2.0**-26 * np.abs(at_zero) / scale
        kink = (jump > 0.5 * np.abs(before[1] - before[0])) & (jump > noise)
        return left, right, kink | ~(np.isfinite(left) & np.isfinite(right))
