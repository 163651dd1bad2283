"""Many elements into one: over all axes, one axis or a tuple of them. `keepdims` leaves each as an axis of length 1."""

import math

import numpy as np

from ..engine import Op
from ..errors import ConfigError


def spread(a: np.ndarray, shape: tuple[int, ...], axis) -> np.ndarray:
    """A reduced array laid out again over the axes it was reduced from, as a view."""
    if axis is None:
        return np.broadcast_to(a.reshape((1,) * len(shape)), shape)
    if a.ndim < len(shape):
        a = np.expand_dims(a, axis)
    return np.broadcast_to(a, shape)


def count(shape: tuple[int, ...], axis) -> int:
    """How many elements go into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))


def sum_forward(x, *, axis=None, keepdims=False):
    """y = Σ x"""
    return x.sum(axis=axis, keepdims=keepdims), (x.shape, axis)


def sum_backward(g, shape, axis):
    """dx = g, for every x in the sum"""
    return (spread(g, shape, axis),)


sum = Op(sum_forward, sum_backward, view=True)


def mean_forward(x, *, axis=None, keepdims=False):
    """y = Σ x / n"""
    return x.mean(axis=axis, keepdims=keepdims), (x.shape, axis)


def mean_backward(g, shape, axis):
    """dx = g / n"""
    return (spread(g / (count(shape, axis) or 1), shape, axis),)


mean = Op(mean_forward, mean_backward, view=True)


def max_forward(x, *, axis=None, keepdims=False):
    """y = max x"""
    y = x.max(axis=axis, keepdims=keepdims)
    return y, (x, y, axis)


def max_backward(g, x, y, axis):
    """dx = g / k for each of the k elements that tie for the maximum, else 0"""
    winners = x == spread(y, x.shape, axis)
    share = winners / spread(winners.sum(axis=axis), x.shape, axis)
    return (spread(g, x.shape, axis) * share.astype(g.dtype),)


max = Op(max_forward, max_backward)


def var_forward(x, *, axis=None, keepdims=False, ddof=0):
    """y = Σ (x - mean x)² / (n - ddof)"""
    if count(x.shape, axis) - ddof <= 0:
        raise ConfigError(
            f"var: {count(x.shape, axis)} elements with ddof {ddof}: the divisor n - ddof must be positive"
        )
    centered = x - x.mean(axis=axis, keepdims=True)
    return (centered * centered).sum(axis=axis, keepdims=keepdims) / (count(x.shape, axis) - ddof), (
        centered,
        axis,
        ddof,
    )


def var_backward(g, centered, axis, ddof):
    """dx = 2 g (x - mean x) / (n - ddof)"""
    return (spread(g, centered.shape, axis) * centered * (2 / (count(centered.shape, axis) - ddof)),)


var = Op(var_forward, var_backward)


def norm_forward(x, *, axis=None, keepdims=False):
    """y = √(Σ x²)"""
    y = np.sqrt((x * x).sum(axis=axis, keepdims=keepdims))
    return y, (x, y, axis)


def norm_backward(g, x, y, axis):
    """dx = g x / y, which is taken as 0 where y = 0"""
    y = spread(y, x.shape, axis)
    return (spread(g, x.shape, axis) * x / np.where(y == 0, 1, y).astype(x.dtype),)


norm = Op(norm_forward, norm_backward)


def logsumexp_forward(x, *, axis=None, keepdims=False):
    """y = log Σ e^x = m + log Σ e^(x - m),  m = max x;  -inf where every x is"""
    m = x.max(axis=axis, keepdims=True)
    m = np.where(m == -math.inf, 0, m).astype(x.dtype)
    total = np.exp(x - m).sum(axis=axis, keepdims=True)
    y = m + np.log(total)
    return y if keepdims else y.squeeze(axis), (x, m, total, axis)


def logsumexp_backward(g, x, m, total, axis):
    """dx = g e^(x - m) / Σ e^(x - m), the softmax of x; 0 where every x is -inf

    Not e^(x - y): in float32 a y of 10000 is a multiple of 0.001, and e^(x - y) off by as much.
    """
    total = np.where(total == 0, 1, total)
    return (spread(g, x.shape, axis) * np.exp(x - m) / total,)


logsumexp = Op(logsumexp_forward, logsumexp_backward)
