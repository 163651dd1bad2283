"""What gradcheck measures: the elements one by one, random directions, and elements that tie moved together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..debug.differences import Derivative, derivative, repeated, ties
from ..engine import Tensor, no_grad
from .layouts import Layout

FULL = 64  # the full Jacobian up to this many input elements, and outputs
_ELEMENTS, _DIRECTIONS = 12, 3  # probed otherwise
_ROUNDING = 2.0**-48  # of the terms of a sum of gradients, which may cancel


class Unusable(Exception):
    """The function under test cannot be checked; the text says why."""


@dataclass(frozen=True)
class Entry:
    """One derivative, analytic and measured. `output` is the flat index of the output, or None for Σ v f."""

    argument: str
    index: tuple[int, ...] | str  # of the element of the argument, or what moved: "a random direction"
    output: int | None
    analytic: float
    numeric: float
    relative_error: float
    kink: tuple[float, float] | None = None  # the slopes on either side, the lesser first, where they differ

    def __str__(self) -> str:
        where = f"at {list(self.index)}" if isinstance(self.index, tuple) else f"along {self.index}"
        of = "" if self.output is None else f" of output {self.output}"
        text = f"{self.argument} {where}{of}: analytic {self.analytic:.12g}, "
        if self.kink:
            return text + f"slopes {self.kink[0]:.6g} and {self.kink[1]:.6g} on either side"
        return text + f"numeric {self.numeric:.12g}, relative error {self.relative_error:.3g}"


class Leaf:
    """An input that is moved about: a tensor, and the numbers at the places of its layout."""

    def __init__(self, name: str, tensor: Tensor, data: np.ndarray) -> None:
        self.name, self.tensor, self.layout, self.dtype = name, tensor, Layout(data), data.dtype
        self.numbers = self.layout.numbers(data).astype(np.float64)

    def place(self, dtype: Any, moved: Any = 0.0) -> None:
        """Give the tensor its numbers, moved by as much, in its layout."""
        self.tensor.data = self.layout.array((self.numbers + moved).astype(dtype))


@dataclass(frozen=True)
class _Probe:
    argument: str
    index: tuple[int, ...] | str
    directions: dict[int, np.ndarray]  # number of a leaf -> how its places move
    near: float  # the largest number that moves

    @property
    def scale(self) -> float:
        return max(1.0, self.near)


class Comparison:
    """Every derivative of a function against differences, in float64; `compare()` fills what is public.

    Args:
        run: the function of the tensors of `leaves`, which hold float64.
        out: what it returned.
        cotangents: (rows, outputs), the v of Σ v f: the first is random, the others, if any, are single outputs.
        method, rtol, atol: as for `gradcheck`.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        leaves: list[Leaf],
        out: np.ndarray,
        cotangents: np.ndarray,
        method: str,
        rtol: float,
        atol: float,
    ) -> None:
        self._run, self._leaves, self._out, self._cotangents = run, leaves, out, cotangents
        self._method, self._rtol, self._atol = method, rtol, atol
        rows = gradients(run, leaves, cotangents)
        self.gradients = rows[0]
        self._gathered, self._magnitudes = (
            [[leaf.layout.gathered(of(g)) for leaf, g in zip(leaves, row, strict=True)] for row in rows]
            for of in (np.asarray, np.abs)
        )
        self.checked, self.worst = 0, 0.0  # derivatives that were held against one slope, the largest relative error
        self.whole = 0  # of these, those of all outputs together: a single output may be no function of what moved
        self.mismatches: list[Entry] = []
        self.kinks: list[Entry] = []

    def compare(self, rng: np.random.Generator) -> None:
        """Each leaf on its own, then those elements together that tie where there is a kink."""
        at_kinks: list[float] = []
        for number, leaf in enumerate(self._leaves):
            for probe in self._judge(list(_probes(number, leaf, rng))):
                moved = probe.directions[number] != 0
                at_kinks += (leaf.numbers[moved] if moved.sum() == 1 else repeated(leaf.numbers)[:_ELEMENTS]).tolist()
        for index, value, together in ties([leaf.numbers for leaf in self._leaves], at_kinks):
            names = ", ".join(self._leaves[k].name for k in together)
            self._judge([_Probe(names, index, together, abs(value))])
        # A single element of a single output says more than a sum of them.
        self.mismatches.sort(key=lambda e: (isinstance(e.index, str), e.output is None, -e.relative_error))

    @np.errstate(all="ignore")
    def _judge(self, probes: list[_Probe]) -> list[_Probe]:
        """Compare derivatives of like size; returns the probes at which there is a kink."""
        if not probes:
            return []
        v = self._cotangents
        exact = [self._analytic(probe) for probe in probes]
        found = [self._measure(probe, e) for probe, (e, _) in zip(probes, exact, strict=True)]
        sums = [derivatives.of_sums(v) for derivatives in found]
        sizes = np.array([[np.abs(p.scale * s.value), s.size] for p, s in zip(probes, sums, strict=True)])
        largest = np.max(sizes, axis=(0, 1), initial=0.0, where=np.isfinite(sizes))  # (rows,)
        for probe, (analytic, rounding), of_outputs, s in zip(probes, exact, found, sums, strict=True):
            within = self._rtol * np.abs(s.value) + self._atol * largest / probe.scale + 4 * s.error + rounding
            fits = s.holds(analytic, within)
            size = np.fmax(np.abs(analytic), np.abs(s.value))
            relative = np.divide(np.abs(analytic - s.value), size, out=np.zeros(len(v)), where=size > 0)
            relative[~np.isfinite(analytic)] = np.inf
            unbounded = ~np.isfinite(of_outputs.low + of_outputs.high)
            at_kink = np.zeros(len(v), bool)
            if self._method != "complex":
                # Without a slope there is nothing to differ from; an infinite one, times a weight of 0, is NaN.
                undefined = np.isnan(s.low) | (np.isnan(analytic) & ((v == 0) & unbounded).any(1))
                fits, at_kink = fits | undefined, undefined | (s.low < s.high)
            self.checked += int((~at_kink | ~fits).sum())
            self.whole += int(~at_kink[0] | ~fits[0])
            counted = fits & ~at_kink & (np.abs(probe.scale * s.value) > 1e-3 * largest)
            self.worst = max(self.worst, float(relative.max(where=counted, initial=0)))
            for row in np.flatnonzero(at_kink | ~fits):
                entry = Entry(
                    probe.argument,
                    probe.index,
                    None if row == 0 else int(row) - 1,
                    float(analytic[row]),
                    float(s.value[row]),
                    float(relative[row]),
                    (float(s.low[row]), float(s.high[row])) if at_kink[row] else None,
                )
                (self.kinks if fits[row] else self.mismatches).append(entry)
        return [p for p, derivatives in zip(probes, found, strict=True) if (derivatives.low < derivatives.high).any()]

    def _analytic(self, probe: _Probe) -> tuple[np.ndarray, np.ndarray]:
        """The derivative of Σ v f along a probe, for each v, by the gradients; and by how much its rounding may be off."""
        moved = [(k, d[d != 0], d != 0) for k, d in probe.directions.items()]  # what does not move may be infinite
        total = np.array([sum(row[k][at] @ d for k, d, at in moved) for row in self._gathered])
        size = np.array([sum(row[k][at] @ np.abs(d) for k, d, at in moved) for row in self._magnitudes])
        return total, np.where(np.isfinite(size), _ROUNDING * size, 0)

    def _measure(self, probe: _Probe, analytic: np.ndarray) -> Derivative:
        """The derivative of every output along a probe."""

        def f(h: Any) -> np.ndarray:
            if h == 0:
                return self._out
            before = [leaf.tensor.data for leaf in self._leaves]
            try:
                for k, leaf in enumerate(self._leaves):
                    if k in probe.directions or isinstance(h, complex):  # one dtype for the whole graph
                        leaf.place(np.result_type(h, np.float64), h * probe.directions.get(k, 0.0))
                with no_grad():
                    return values(self._run())
            finally:
                for leaf, data in zip(self._leaves, before, strict=True):
                    leaf.tensor.data = data

        found = derivative(f, probe.scale, self._method, probe.near)
        if self._method == "central":  # a first look, as good as its one h; what differs is measured with care
            s = found.of_sums(self._cotangents)
            close = np.abs(analytic - s.value) <= self._rtol * np.abs(s.value) + self._atol * s.size / probe.scale
            if not close.all() or (found.low != found.high).any():
                return derivative(f, probe.scale, near=probe.near)
        return found


def _probes(number: int, leaf: Leaf, rng: np.random.Generator) -> Iterator[_Probe]:
    """Every element of a leaf, or some and a few random directions."""
    x = leaf.numbers
    for place in range(x.size) if x.size <= FULL else np.sort(rng.choice(x.size, _ELEMENTS, replace=False)):
        direction = np.zeros(x.size)
        direction[place] = 1.0
        yield _Probe(leaf.name, leaf.layout.index(place), {number: direction}, abs(float(x[place])))
    if x.size > FULL:
        for _ in range(_DIRECTIONS):
            direction = rng.standard_normal(x.size)
            direction /= np.linalg.norm(direction)
            yield _Probe(leaf.name, "a random direction", {number: direction}, float(np.abs(x).max()))


def gradients(run: Callable[[], Any], leaves: list[Leaf], cotangents: np.ndarray) -> list[list[np.ndarray]]:
    """For each cotangent the gradient of each leaf; zeros where none came back."""
    results = outputs(run())
    found = []
    for i, cotangent in enumerate(cotangents):
        complete: dict[Tensor, np.ndarray] = {}
        ends = np.cumsum([0] + [o.size for o in results])
        for output, start, end in zip(results, ends[:-1], ends[1:], strict=True):
            if output.requires_grad:
                g = cotangent[start:end].reshape(output.shape).astype(output.dtype)
                output.backward(g, retain_graph=i + 1 < len(cotangents), into=complete)
        found.append([complete.get(leaf.tensor, np.zeros(leaf.tensor.shape)) for leaf in leaves])
    return found


def outputs(result: Any) -> list[Tensor]:
    """What a function returned, as a list of Tensors."""
    found = list(result) if isinstance(result, Sequence) else [result]
    for output in found:
        if not isinstance(output, Tensor):
            raise Unusable(f"the function returned {type(output).__name__}, not a Tensor: return what the ops gave")
    return found


def values(result: Any) -> np.ndarray:
    """The numbers of all outputs, flat."""
    return np.concatenate([o.data.reshape(-1) for o in outputs(result)])
