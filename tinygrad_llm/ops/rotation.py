"""Rotary positions: each pair of features turned by an angle that grows with the token's position (Su et al. 2021 §3.2.2).

Letters in shape comments: B batch, T tokens, H heads of d features each, h = d/2 pairs.
"""

import numpy as np

from ..engine import Op
from ..errors import ConfigError, ShapeError


def rotary_forward(x, *, cos, sin, n_heads, interleaved=False):
    """a' = a cos - b sin,  b' = b cos + a sin  for each pair (a, b) of features of a head

    x is (B, T, H d), cos and sin are (T, d/2), or (B, T, d/2) where rows stand at different positions. The pairs are
    (i, i + d/2), as in files of transformers, or `interleaved` (2i, 2i + 1), as in the paper and in Meta's files.
    """
    _check(x, cos, sin, n_heads)
    return _turn(x, cos, sin, n_heads, interleaved), (cos, sin, n_heads, interleaved)


def rotary_backward(g, cos, sin, n_heads, interleaved):
    """da = ga cos + gb sin,  db = gb cos - ga sin: turned back"""
    return (_turn(g, cos, -sin, n_heads, interleaved),)


rotary = Op(rotary_forward, rotary_backward)


def _pairs(x, n_heads, interleaved):
    """The first and the second feature of every pair, (B, T, H, h) each; views where x lies in order."""
    b, t, c = x.shape
    h = c // n_heads // 2
    if interleaved:
        x = x.reshape(b, t, n_heads, h, 2)
        return x[..., 0], x[..., 1]
    x = x.reshape(b, t, n_heads, 2, h)
    return x[..., 0, :], x[..., 1, :]


def _turn(x, cos, sin, n_heads, interleaved):
    cos, sin = cos[..., None, :], sin[..., None, :]  # (..., T, 1, h): the same for every head
    y = np.empty(x.shape, x.dtype)  # in order, so that its pairs are views
    a, b = _pairs(x, n_heads, interleaved)
    y_a, y_b = _pairs(y, n_heads, interleaved)
    np.multiply(a, cos, out=y_a)
    y_a -= b * sin
    np.multiply(b, cos, out=y_b)
    y_b += a * sin
    return y


def _check(x, cos, sin, n_heads):
    if n_heads < 1 or x.ndim != 3 or x.shape[2] % (2 * n_heads):
        raise ConfigError(f"rotary: x is {x.shape} for {n_heads} heads: it must be (B, T, H d), d even")
    b, t, c = x.shape
    table = (t, c // n_heads // 2)
    if cos.shape != sin.shape or cos.shape not in (table, (b, *table)):
        raise ShapeError(f"rotary: cos is {cos.shape}, sin is {sin.shape}: they must be {table} or {(b, *table)}")
