"""Matrix products and table look-up: where a language model spends its time.

Letters in shape comments: N rows (all leading axes flattened), I inputs, O outputs, V rows of a table, D its columns.
"""

import numpy as np

from ..engine import Op
from ..errors import DataError, DTypeError, ShapeError
from ..parallel import product
from .elementwise import sum_to


def matmul_forward(x, y):
    """z = x y, the matrix product over the last two axes; leading axes broadcast, a vector counts as one row or column"""
    if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[-min(2, y.ndim)]:
        raise ShapeError(f"matmul: x is {x.shape}, y is {y.shape}: the last axis of x must equal the last but one of y")
    return x @ y, (x, y)


def matmul_backward(g, x, y, needs=(True, True)):
    """dx = g yᵀ,  dy = xᵀ g"""
    rows = x if x.ndim > 1 else x[None, :]
    columns = y if y.ndim > 1 else y[:, None]
    g = g if x.ndim > 1 else np.expand_dims(g, -1 if y.ndim == 1 else -2)
    g = g if y.ndim > 1 else np.expand_dims(g, -1)
    dx = sum_to(g @ columns.swapaxes(-1, -2), rows.shape).reshape(x.shape) if needs[0] else None
    dy = sum_to(rows.swapaxes(-1, -2) @ g, columns.shape).reshape(y.shape) if needs[1] else None
    return dx, dy


matmul = Op(matmul_forward, matmul_backward)


def linear_forward(x, weight, bias=None, *, needs=(True, True, True)):
    """y = x Wᵀ + b,  W is (outputs, inputs)"""
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x is {x.shape}, weight is {weight.shape}: the last axis of x must be {weight.shape[-1]}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"linear: weight is {weight.shape}, bias is {bias.shape}: bias must be {weight.shape[:1]}")
    y = product(x.reshape(-1, x.shape[-1]), weight.T)  # (N, O)
    if bias is not None:
        y += bias
    kept = x if needs[1] else None  # which only dW uses: beside a frozen weight nobody holds on to it
    return y.reshape(*x.shape[:-1], len(weight)), (kept, weight, bias)  # (..., O)


def linear_backward(g, x, weight, bias, needs=(True, True, True)):
    """dx = g W,  dW = gᵀ x,  db = Σ g over the rows"""
    rows = g.reshape(-1, g.shape[-1])  # (N, O)
    dx = product(rows, weight).reshape(*g.shape[:-1], weight.shape[1]) if needs[0] else None  # (..., I)
    dw = product(rows.T, x.reshape(-1, x.shape[-1])) if needs[1] else None  # (O, I)
    if bias is None:
        return (dx, dw, None)[: len(needs)]
    db = np.ones(len(rows), g.dtype) @ rows if needs[2] else None  # (O,)
    return dx, dw, db


linear = Op(linear_forward, linear_backward)


def check_ids(ids: np.ndarray, n_rows: int, what: str) -> np.ndarray:
    """Token ids as an integer array, or an error that names the first bad one; NumPy itself would wrap -1 silently."""
    try:
        ids = np.asarray(ids)
    except ValueError:
        raise DataError(f"{what}: the ids are a ragged list: pad the sequences to one length") from None
    if ids.size == 0:
        return ids.astype(np.int64)  # NumPy takes an empty list for floats
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"{what}: ids are {ids.dtype}, they must be integers: use ids.astype(np.int64)")
    if ids.min() < 0 or ids.max() >= n_rows:
        position = tuple(int(i) for i in np.argwhere((ids < 0) | (ids >= n_rows))[0])
        raise DataError(
            f"{what}: id {ids[position]} at position {position} is out of range: ids go from 0 to {n_rows - 1}"
        )
    return ids


def embedding_forward(weight, *, ids):
    """y = rows of the table, W[ids]; W is (V, D), ids are integers of any shape"""
    if weight.ndim != 2:
        raise ShapeError(f"embedding: weight is {weight.shape}: it must be a table (V, D), one row for each of V ids")
    ids = check_ids(ids, len(weight), "embedding")
    return weight[ids], (weight.shape, ids)


def embedding_backward(g, shape, ids):
    """dW[i] = Σ g over the places where ids = i"""
    flat, rows = ids.reshape(-1), g.reshape(-1, shape[1])  # (N,), (N, D)
    dw = np.zeros(shape, g.dtype)  # (V, D)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        used, starts = np.unique(flat[order], return_index=True)
        dw[used] = np.add.reduceat(rows[order], starts, axis=0)
    return (dw,)


embedding = Op(embedding_forward, embedding_backward)
