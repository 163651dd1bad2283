"""How a tensor shows itself in a debugger: shape and dtype first, then what it is, then its values in a few numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..engine import Tensor

_WHOLE = 16  # arrays of up to this many elements are shown whole
_SAMPLE = 4096  # larger ones are summarised from at most this many elements, so that any size is cheap
_SEARCHED = 2**21  # up to which each element is looked at for NaN and infinities, in a millisecond


def sample(array: np.ndarray) -> np.ndarray:
    """At most 4096 elements of `array`, evenly spread, as a flat array; never a copy of the whole."""
    if array.size <= _SAMPLE:
        return array.reshape(-1)
    positions = np.linspace(0, array.size - 1, _SAMPLE).astype(np.int64)
    return array[np.unravel_index(positions, array.shape)]


def norm(array: np.ndarray) -> float:
    """The Euclidean norm, in float64."""
    with np.errstate(over="ignore"):
        return math.sqrt(float(np.square(array, dtype=np.float64).sum()))


def summarise(array: np.ndarray) -> str:
    """The values of `array` in words: whole up to 16 elements, else mean, std, range and counts of NaN and Inf.

    From a sample where the array has more than 4096 elements; that is then said by a leading `~`. NaN and Inf are counted in all
    of it up to 2 million elements; beyond, what is said of them ends in `sampled`.
    """
    if array.size == 0:
        return "empty"
    if array.size <= _WHOLE:
        return np.array2string(array, precision=4, separator=", ", max_line_width=10_000).replace("\n", "")
    values = sample(array)
    about = "~" if array.size > _SAMPLE else ""
    if array.dtype.kind not in "fc":
        return f"{about}range [{values.min()}, {values.max()}]"
    finite = values[np.isfinite(values)].astype(np.float64 if array.dtype.kind == "f" else np.complex128)
    words = []
    if finite.size:
        words.append(f"{about}mean {finite.mean():.3g} std {finite.std():.3g}")
        if array.dtype.kind == "f":
            words.append(f"range [{finite.min():.3g}, {finite.max():.3g}]")
    sampled = f" in {values.size} sampled" if array.size > _SEARCHED else ""
    searched = values if sampled else array
    with np.errstate(all="ignore"):
        all_finite = np.isfinite(searched.sum())  # in a third of the time of looking at each
    nans, infs = (0, 0) if all_finite else (int(np.isnan(searched).sum()), int(np.isinf(searched).sum()))
    if nans or infs or sampled:
        words.append(f"NaN {nans} Inf {infs}{sampled}")
    return " ".join(words)


def in_words(value: Any) -> str:
    """What a forward saved, array or not, on one line."""
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.shape} {summarise(np.asarray(value))}"
    text = f"a dict of {len(value)}" if isinstance(value, dict) else " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:99] + "…"


def describe(tensor: Tensor) -> str:
    """`Tensor((2, 3) float32, 'x', requires_grad, grad None, mean 0.1 std 0.9 range [-2, 2])`, under 200 characters."""
    words = [f"{tensor.shape} {tensor.dtype}"]
    if name := tensor.name:
        words.append(repr(name if len(name) <= 40 else "..." + name[-37:]))
    if tensor.node is not None:
        words.append(tensor.node.op.name)
    elif tensor.requires_grad:
        words.append("requires_grad")
    if tensor.node is None and (tensor.requires_grad or tensor.grad is not None):
        words.append("grad None" if tensor.grad is None else "grad set")
    head, values = f"Tensor({', '.join(words)}", summarise(tensor.data)
    room = max(40, 190 - len(head))
    if len(values) > room:  # sixteen long numbers: keep both ends
        values = values[: room - 40] + " ... " + values[-35:]
    return f"{head}, {values})"
