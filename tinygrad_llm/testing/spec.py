"""What there is to know about an op in order to test it: one row, from which every check is made."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import Op
from ..errors import ConfigError, DTypeError

# Shapes for an op that works element by element: 0-d, size 1, empty, and every kind of broadcasting.
_SHAPES: dict[int, list[tuple[tuple[int, ...], ...]]] = {
    1: [((3, 4),), ((),), ((1,),), ((0, 3),), ((2, 1, 3),)],
    2: [
        ((3, 4), (3, 4)),
        ((3, 1), (1, 4)),
        ((), (2, 3)),
        ((2, 3), ()),
        ((1,), (4,)),
        ((2, 3, 2), (3, 1)),
        ((0, 3), (1, 3)),
        ((), ()),
    ],
}


@dataclass(frozen=True)
class Sample:
    """One call of an op: float64 arrays (None for an optional one that is left out) and keyword options."""

    arrays: tuple[np.ndarray | None, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        arrays = ", ".join("None" if a is None else str(a.shape) for a in self.arrays)
        return f"inputs {arrays}" + (f", options {self.options}" if self.options else "")

    def fresh_options(self) -> dict[str, Any]:
        """A copy of the options for one call, so that a generator among them starts at the same place each time."""
        return copy.deepcopy(self.options)

    def astype(self, dtype: Any) -> Sample:
        return self.map(lambda a: a.astype(dtype))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Sample:
        """The same sample with every array changed by a function."""
        return Sample(tuple(None if a is None else np.asarray(function(a)) for a in self.arrays), self.options)


@dataclass(frozen=True)
class OpSpec:
    """One row of a table of ops.

    Args:
        op: the Op.
        samples: `rng -> [inputs, ...]`. Inputs are a tuple of float arrays, in the order of the op's arguments; a dict at its end
            holds options: `lambda rng: [(rng.standard_normal((3, 4)),), (x, w, {"axis": 0})]`. Small arrays check faster.
        reference: the same function from elsewhere, on arrays and options: `scipy.special.expit`. None: values are not checked.
        domain: the range in which the op may be tried; where samples are drawn by the battery or by hypothesis.
        elementwise: works on any shapes that broadcast; the battery then draws samples of its own (one or two arguments).
        analytic: the forward takes complex arrays, and the gradient is checked by a complex step too.
        rtol: of the values against the reference in float64.
        special: `(inputs, value, gradients)` rows at points that need saying; gradients are for g = 1, None where not pinned. The
            composed twin must agree there too, in float64 and float32.
        errors: `(inputs, error class, words)` rows: bad input and a part of the message it must get.
    """

    op: Op
    samples: Callable[[np.random.Generator], Sequence[tuple]] | None = None
    reference: Callable[..., Any] | None = None
    domain: tuple[float, float] = (-3.0, 3.0)
    elementwise: bool = False
    analytic: bool = False
    rtol: float = 1e-12
    special: Sequence[tuple] = ()
    errors: Sequence[tuple] = ()

    def __post_init__(self) -> None:
        if self.samples is None and not self.elementwise:
            raise ConfigError(f"OpSpec of {self.op.name}: give samples=, or elementwise=True to have them drawn")

    @property
    def name(self) -> str:
        return self.op.name

    def draw(self, seed: int = 0) -> list[Sample]:
        """The samples, the same for the same seed."""
        rng = np.random.default_rng(seed)
        samples = []
        if self.samples is not None:
            samples += [to_sample(inputs) for inputs in self.samples(rng)]
        if self.elementwise:
            for shapes in _SHAPES[_arity(self.op)]:
                samples.append(Sample(tuple(np.asarray(rng.uniform(*self.domain, shape)) for shape in shapes), {}))
        if not samples:
            raise ConfigError(f"OpSpec of {self.name}: samples(rng) gave no samples, so nothing would be checked")
        for i, sample in enumerate(samples):
            for j, a in enumerate(sample.arrays):
                if a is not None and a.dtype != np.float64:
                    raise DTypeError(
                        f"OpSpec of {self.name}: sample {i}, array {j} is {a.dtype}: arrays must be floats, "
                        "all else goes in the dict at the end"
                    )
        return samples


def to_sample(inputs: Iterable) -> Sample:
    """`(x, w, {"axis": 0})` taken apart."""
    inputs = tuple(inputs)
    *arrays, options = inputs if inputs and isinstance(inputs[-1], dict) else (*inputs, {})
    return Sample(tuple(None if a is None else _to_float64(a) for a in arrays), options)


def _to_float64(a: Any) -> np.ndarray:
    array = np.asarray(a)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _arity(op: Op) -> int:
    parameters = inspect.signature(op.forward).parameters.values()
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)
