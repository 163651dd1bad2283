"""How a tensor shows itself in a debugger: shape and dtype first, then what it is, then its values in a few numbers."""

import math
from typing import Any

import numpy as np

_WHOLE = 16  # arrays of up to this many elements are shown whole
_SAMPLE = 4096  # larger ones are summarised from at most this many elements, so that any size is cheap


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

    From a sample where the array has more than 4096 elements; that is then said by a leading `~`.
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
    nans, infs = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if nans or infs:
        words.append(f"NaN {nans} Inf {infs}" + (f" of {values.size} sampled" if about else ""))
    return " ".join(words)


def in_words(value: Any) -> str:
    """What a forward saved, array or not, on one line."""
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.shape} {summarise(np.asarray(value))}"
    text = f"a dict of {len(value)}" if isinstance(value, dict) else " ".join(repr(value).split())
    return text if len(text) <= 100 else text[:99] + "…"


def describe(array: np.ndarray, name: str | None, op: str | None, requires_grad: bool) -> str:
    """`Tensor((2, 3) float32, 'trf_blocks.0', gelu, mean 0.1 std 0.9 range [-2, 2])`, under 200 characters."""
    words = [f"{array.shape} {array.dtype}"]
    if name:
        words.append(repr(name if len(name) <= 40 else "..." + name[-37:]))
    if op:
        words.append(op)
    elif requires_grad:
        words.append("requires_grad")
    values = summarise(array)
    if len(values) > 130:  # sixteen long numbers: keep both ends
        values = values[:80] + " ... " + values[-45:]
    return f"Tensor({', '.join(words)}, {values})"
