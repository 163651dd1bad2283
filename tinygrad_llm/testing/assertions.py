"""What a test of numerical code says: close, not aliased, not changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import numpy as np

from ..engine import Tensor

_RTOL = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5, np.dtype(np.float16): 1e-2}


def assert_close(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None) -> None:
    """`actual` equals `expected` element by element within atol + rtol |expected|; NaN equals NaN, Inf equals Inf.

    Args:
        actual, expected: arrays, Tensors or numbers of equal shapes; one number goes with any shape.
        rtol: 1e-12 for float64, 1e-5 for float32, 1e-2 for float16 when None: the less precise of the two dtypes decides.
        atol: rtol times the largest finite |expected| when None, because sums cancel.

    The AssertionError names the worst index, both values, and their distance in ulps (steps between neighbouring floats).
    """
    a, e = _array(actual), _array(expected)
    if a.shape != e.shape and e.ndim and a.ndim:
        raise AssertionError(f"not close: shapes differ, actual {a.shape}, expected {e.shape}")
    floats = [x.dtype for x in (a, e) if x.dtype in _RTOL and (x.ndim or x.dtype != np.float64)]
    dtype = min(floats, key=lambda d: d.itemsize, default=np.dtype(np.float64))
    rtol = _RTOL[dtype] if rtol is None else rtol
    a, e = np.broadcast_arrays(*(x if x.dtype.kind == "c" else x.astype(np.float64) for x in (a, e)))
    finite = np.isfinite(a) & np.isfinite(e)
    if atol is None:
        atol = rtol * float(np.abs(e[finite]).max(initial=0.0))
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.where(finite, np.abs(a - e), np.where((a == e) | (np.isnan(a) & np.isnan(e)), 0.0, np.inf))
        excess = distance - np.where(finite, atol + rtol * np.abs(e), 0.0)
    if not (excess > 0).any():
        return
    worst = np.unravel_index(int(np.argmax(excess)), excess.shape)
    got, wanted, off = a[worst], e[worst], distance[worst]
    measure = ""
    if finite[worst]:
        ulps = off / float(np.spacing(dtype.type(max(abs(wanted), np.finfo(dtype).tiny))))
        measure = (
            f", off by {off:.3g}, relative {off / abs(wanted) if wanted else np.inf:.3g}, {ulps:.3g} ulps of {dtype}"
        )
    raise AssertionError(
        f"not close at {list(map(int, worst))}: actual {got!r}, expected {wanted!r}{measure}; "
        f"{int((excess > 0).sum())} of {excess.size} elements differ by more than {atol:.3g} + {rtol:.3g} |expected|"
    )


def assert_no_alias(*arrays: Any) -> None:
    """No two of the arrays (or Tensors; None is passed over) share memory. The AssertionError names the two."""
    present = [(i, _array(x)) for i, x in enumerate(arrays) if x is not None]
    for (i, x), (j, y) in combinations(present, 2):
        if np.shares_memory(x, y):
            raise AssertionError(
                f"arrays {i} {x.shape} and {j} {y.shape} share memory: writing to one changes the other"
            )


@contextmanager
def assert_unchanged(*arrays: Any) -> Iterator[None]:
    """`with assert_unchanged(x, w): ...`: not one bit of the arrays or Tensors is different afterwards."""
    before = [(x, _array(x), _array(x).copy()) for x in arrays]
    yield
    for i, (x, array, copy) in enumerate(before):
        if isinstance(x, Tensor) and x.data is not array:
            raise AssertionError(f"argument {i} was changed: its .data is another array now")
        if array.tobytes() != copy.tobytes():
            different = np.argwhere(~((array == copy) | ((array != array) & (copy != copy))))
            where = list(map(int, different[0])) if len(different) else "the sign or payload of a value"
            raise AssertionError(
                f"argument {i} {array.shape} was changed, first at {where}, {len(different)} elements in all"
            )


def _array(x: Any) -> np.ndarray:
    return x.data if isinstance(x, Tensor) else np.asarray(x)
