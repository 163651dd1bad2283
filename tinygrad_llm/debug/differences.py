"""Derivatives by taking differences: what a backward is compared with.

central      (f(x+h) - f(x-h)) / 2h, right to about ten digits at best
richardson   central differences at h, h/2, h/4, ... extrapolated to h = 0 (Ridders 1982), about twelve digits
complex      Im f(x + ih) / h (Squire and Trapp 1998), all digits, where f is analytic and takes complex arrays

The differences to the left and to the right are extrapolated too, each on its own. Where they end at two slopes, f has a kink
(relu at 0, a tie for the maximum), and any value between the two may be called its derivative. h shrinks until either that or one
slope is settled, so that a function which is merely steep is not taken for one with a kink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np

METHODS = ("richardson", "central", "complex")

_FIRST = 2.0**-4  # the first h, relative to the scale
_LEVELS, _LAST = 42, 46  # how often h may be halved to find a slope, and to see how well f keeps to it
_NEAR = 12  # how often, once more, where x itself is far smaller than the scale
_COLUMNS = 6  # of the table: so many powers of h are removed
_POWERS = np.array([[4.0], [2.0], [2.0]])  # central differences err by h², h⁴, ..., those to one side by h, h², ...
_SETTLED, _SIDES, _UNSETTLED = 1e-11, 1e-9, 2.0**-20  # relative errors: of a slope, of a smooth f's sides, too large
_EPS = 2.0**-52
_ROUNDED = 1024  # an error of that many roundings of f over the scale is of no account
_TINY, _SMALL = 2.0**-1022, 2.0**-400  # so small that a square is no number any more


class Derivative(NamedTuple):
    """What was measured, element by element of f's result."""

    value: np.ndarray  # NaN where f has no slope at all
    error: np.ndarray  # of value, low and high, estimated from how far the differences agree
    size: np.ndarray  # |f| in the neighbourhood: f is rounded to its last digits, which limits what can be measured
    low: np.ndarray  # the lesser slope at a kink, infinite where it grows without bound; `value` where f is smooth,
    high: np.ndarray  # and the greater one; `value` less and plus its error where the differences did not settle

    def of_sums(self, weights: np.ndarray) -> Derivative:
        """The same of Σ v f for each row v of `weights` (rows, size of f); an infinite slope of weight 0 does not count."""
        ends = _weighted(weights, self.low), _weighted(weights, self.high)
        return Derivative(
            _weighted(weights, self.value).sum(1),
            _weighted(np.abs(weights), self.error).sum(1),
            _weighted(np.abs(weights), self.size).sum(1),
            np.minimum(*ends).sum(1),
            np.maximum(*ends).sum(1),
        )

    def holds(self, analytic: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
        """Whether a gradient lies between the slopes: it may be infinite only where one of them is, and never NaN."""
        return (self.low - tolerance <= analytic) & (analytic <= self.high + tolerance)


def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(weights != 0, weights * values, 0.0)


def derivative(
    f: Callable[[Any], np.ndarray], scale: float = 1.0, method: str = "richardson", near: float = 0.0
) -> Derivative:
    """df/dh at h = 0 for `f(h) -> array of one axis`.

    Args:
        scale: the distance over which f varies, as far as one knows.
        method: one of METHODS. "central" sees a kink only roughly, "complex" never.
        near: |x|, if it is far smaller than the scale: differences at its own size are taken as well (log near 0).
    """
    scale = 2.0 ** math.ceil(math.log2(scale))  # so that x + h is exact
    with np.errstate(all="ignore"):
        if method == "complex":
            h = scale * 2.0**-66
            moved = f(1j * h)
            value = np.imag(moved) / h
            return Derivative(value, np.zeros(moved.shape), np.abs(moved), value, value)
        if method == "central":
            h = scale * 2.0**-17  # about the cube root of float64's epsilon
            ahead, behind, at_zero = f(h), f(-h), f(0.0)
            value, left, right = (ahead - behind) / (2 * h), (at_zero - behind) / h, (ahead - at_zero) / h
            noise = 2.0**-10 * (np.abs(left) + np.abs(right)) + 2.0**-30 * np.abs(at_zero) / scale
            smooth = np.abs(right - left) <= noise
            low, high = (np.where(smooth, value, pick(left, right)) for pick in (np.minimum, np.maximum))
            return Derivative(value, 1e-9 * np.abs(value), np.abs(ahead), low, high)
        return _extrapolate(f, scale, near)


class _Slopes(NamedTuple):
    """The central slope and those to the left and to the right (3, n), and whether the latter differ (n)."""

    value: np.ndarray
    error: np.ndarray
    rank: np.ndarray  # the error, relative; 0 where it is of no account
    size: np.ndarray  # |f| (n)
    kink: np.ndarray
    settled: np.ndarray


def _extrapolate(f: Callable[[float], np.ndarray], scale: float, near: float) -> Derivative:
    """From the distance of the scale, and from that of x where the one leaves a doubt: a kink seen from afar may lie beside x."""
    at_zero = f(0.0)
    found, raw = _approach(_Ladder(f, at_zero, scale * _FIRST), scale, _LEVELS)
    if _SMALL < near < scale * 2.0**-12 and not (found.settled & ~found.kink).all():
        closer, _ = _approach(_Ladder(f, at_zero, near * _FIRST), scale, _NEAR)
        surer = found.kink | (closer.rank.max(0) < found.rank.max(0))
        use = surer & ~closer.kink & (closer.rank.max(0) <= _UNSETTLED)
        found = _Slopes._make(np.where(use, new, old) for new, old in zip(closer, found, strict=True))
    return _conclude(found, np.where(found.rank[1:] > 2.0**-10, _without_bound(raw), np.nan))


class _Ladder:
    """f at x and at x ± h for h = start, start/2, start/4, ..., each taken when it is asked for, and once."""

    def __init__(self, f: Callable[[float], np.ndarray], at_zero: np.ndarray, start: float) -> None:
        self._f, self.at_zero, self._start = f, at_zero, start
        self._slopes: dict[int, np.ndarray] = {}
        self._sizes: dict[int, np.ndarray] = {}

    def h(self, level: int) -> float:
        return self._start * 2.0**-level

    def slopes(self, level: int) -> np.ndarray:
        """The difference across x, that to the left and that to the right, over h: (3, n)."""
        if level not in self._slopes:
            h = self.h(level)
            ahead, behind = self._f(h), self._f(-h)
            self._sizes[level] = np.fmax(np.fmax(np.abs(ahead), np.abs(behind)), np.abs(self.at_zero))
            across, left, right = (ahead - behind) / (2 * h), (self.at_zero - behind) / h, (ahead - self.at_zero) / h
            self._slopes[level] = np.stack([across, left, right])
        return self._slopes[level]

    def size(self, level: int) -> np.ndarray:
        """The largest |f| among them."""
        self.slopes(level)
        return self._sizes[level]

    def noise(self, level: int, slope: np.ndarray) -> np.ndarray:
        """How far f is from a line of that slope, much closer to x than h: by its own rounding, if the slope is right."""
        first = 8 * (level // 8) + 16
        closer = min(first, _LAST - 1), min(first + 4, _LAST)
        return np.fmax(*(np.abs(self.slopes(k)[0] - slope) * self.h(k) for k in closer))


def _approach(ladder: _Ladder, scale: float, levels: int) -> tuple[_Slopes, np.ndarray]:
    """Let h shrink until every slope is settled; each is taken from where it is the most certain.

    Also returns the differences to either side as they were taken (levels, 2, n).
    """
    largest = np.abs(ladder.at_zero)
    value = np.full((3, *largest.shape), np.nan)
    error, rank, size = np.full(value.shape, np.inf), np.full(value.shape, np.inf), np.zeros(value.shape)
    settled = kink = np.zeros(largest.shape, bool)
    # An output may be computed through numbers as large as x and the outputs that move with it (log_softmax).
    moving = (ladder.slopes(0) != 0).any(0)
    least = _EPS * min(float(largest.max(where=moving, initial=0)), scale)
    for level, (row, apart) in zip(range(levels), _table(ladder), strict=False):
        h, its_size = ladder.h(level), ladder.size(level)
        largest = np.fmax(largest, np.where(np.isfinite(its_size), its_size, 0))
        rounding = np.maximum(_EPS * its_size, least)
        # Where f no longer moves, after it had one clear slope, its steps are those of rounding.
        lost = (row[0] == 0).all(0) & ~kink & (rank.max(0) <= 2.0**-10) & (np.abs(value[0]) > 4 * error[0])
        for its_value, its_error in zip(row[1:], apart, strict=False):
            its_error = its_error + np.fmax(rounding, ladder.noise(level, its_value[1:].mean(0))) / h
            its_rank = its_error / (np.abs(its_value) + largest / scale + _TINY)
            better = (its_rank < rank) & ~settled & ~lost
            value, error = np.where(better, its_value, value), np.where(better, its_error, error)
            rank, size = np.where(better, its_rank, rank), np.where(better, its_size, size)
        of_account = error > _ROUNDED * least / scale
        relative = np.where(of_account, error / (np.abs(value) + size / scale + _TINY), 0)
        kink = np.abs(value[2] - value[1]) > 4 * (error[1] + error[2])
        smooth = (relative[0] <= _SETTLED) & (relative[1:].max(0) <= _SIDES)
        settled = settled | np.where(kink, relative[1:].max(0) <= _SETTLED, smooth)
        if settled.all():
            break
    found = _Slopes(value, error, np.where(of_account, rank, 0), size[0], kink, settled)
    return found, np.stack([ladder.slopes(k)[1:] for k in range(level + 1)])


def _table(ladder: _Ladder) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Ridders' table: each row halves h, each column removes the next power of h from the error.

    Yields a row, and how far each of its columns but the first is from its neighbours (from its second entry on).
    """
    above: list[np.ndarray] = []
    for level in count():
        row, apart = [ladder.slopes(level)], []
        for column, previous in enumerate(above[: _COLUMNS - 1], 1):
            row.append(row[-1] + (row[-1] - previous) / (_POWERS**column - 1))
            if column < len(above):
                apart.append(np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - above[column])))
        yield row, apart
        above = row


def _without_bound(side: np.ndarray) -> np.ndarray:
    """The last of the one-sided slopes (levels, n) where they grew with every h of the last twenty, NaN where they did not."""
    if len(side) < _LEVELS:
        return np.full(side.shape[1:], np.nan)
    grows = side[-20:] / side[-21:-1] > 1.02  # as h^-0.03 does, and any power above
    return np.where(grows.all(0), side[-1], np.nan)


def _conclude(found: _Slopes, steep: np.ndarray) -> Derivative:
    """One slope, or two. At the edge of its domain f has the slope of the one side."""
    sides = np.where(np.isnan(steep), found.value[1:], steep)
    edge = np.isnan(sides).any(0)
    bent = found.kink | ~np.isnan(steep).all(0)
    low, high = np.fmin(*sides), np.fmax(*sides)
    of_sides = np.where(np.isnan(sides) | ~np.isnan(steep), 0, found.error[1:]).sum(0)
    slope = np.where(bent | edge, (low + high) / 2, found.value[0])
    error = np.where(bent | edge, of_sides, found.error[0])
    doubt = np.where(np.where(edge, found.rank[1:].min(0), found.rank[0]) > _UNSETTLED, error, 0)
    low, high = np.where(bent, low, slope - doubt), np.where(bent, high, slope + doubt)
    low, high = np.where((steep < 0).any(0), -np.inf, low), np.where((steep > 0).any(0), np.inf, high)
    return Derivative(slope, error, found.size, low, high)


def ties(
    arrays: Sequence[np.ndarray | None], values: Iterable[float]
) -> Iterator[tuple[str, float, dict[int, np.ndarray]]]:
    """For each value that several elements have: (in words, value, {number of an array: the direction in which they move}).

    A maximum has a kink along each of the elements that tie for it, but none where they move together: there the gradients
    must add up to one slope.
    """
    for value in sorted(set(values)):
        together = {k: (a == value).astype(np.float64) for k, a in enumerate(arrays) if a is not None and value in a}
        n = sum(int(direction.sum()) for direction in together.values())
        if n > 1:
            yield f"all {n} elements equal to {value:.6g} together", value, together


def repeated(x: np.ndarray) -> np.ndarray:
    """The values that x has more than once, the most frequent first."""
    values, counts = np.unique(x, return_counts=True)
    return values[np.argsort(-counts, kind="stable")][: int((counts > 1).sum())]
