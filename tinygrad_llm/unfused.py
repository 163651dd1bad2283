"""Every fused op again, built from small ones: the documentation of what it computes, and the oracle it is tested against.

Under `with tg.composed():` a whole model runs on these, and its backward can be stepped through one elementary operation at a
time. A function here may use another fused op: it then runs as that op's own twin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import ops
from .engine import Tensor
from .ops.arguments import dropout_pattern


@ops.sigmoid.twin
def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), below 0 as e^x / (1 + e^x): an infinite e^-x has the gradient 0 * inf, which is NaN."""
    x = _tensor(x)
    negative = x < 0
    e = ops.where(x, -x, condition=negative).exp()
    return ops.where(e, 1.0, condition=negative) / (1 + e)


@ops.log_sigmoid.twin
def log_sigmoid(x: Tensor) -> Tensor:
    """min(x, 0) - log(1 + e^-|x|): no exponential is above 1."""
    x = _tensor(x)
    return ops.minimum(x, 0.0) - (1 + (-ops.absolute(x)).exp()).log()


@ops.relu.twin
def relu(x: Tensor) -> Tensor:
    x = _tensor(x)
    return ops.where(0.0, x, condition=x <= 0)


@ops.gelu.twin
def gelu(x: Tensor) -> Tensor:
    x = _tensor(x)
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
    return 0.5 * x * (1 + u.tanh())


@ops.gelu_erf.twin
def gelu_erf(x: Tensor) -> Tensor:
    x = _tensor(x)
    return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))


@ops.silu.twin
def silu(x: Tensor) -> Tensor:
    return x * ops.sigmoid(x)


@ops.swiglu.twin
def swiglu(x: Tensor, y: Tensor) -> Tensor:
    return ops.silu(x) * y


@ops.mean.twin
def mean(x: Tensor, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = _tensor(x)
    total = x.sum(axis=axis, keepdims=keepdims)
    return total * (total.size / max(1, x.size))


@ops.var.twin
def var(x: Tensor, *, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    x = _tensor(x)
    centered = x - x.mean(axis=axis, keepdims=True)
    squares = (centered * centered).sum(axis=axis, keepdims=keepdims)
    return squares / (x.size / max(1, squares.size) - ddof)


@ops.norm.twin
def norm(x: Tensor, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = _tensor(x)
    squares = (x * x).sum(axis=axis, keepdims=keepdims)
    zero = squares == 0  # where the root has no slope: a constant there, whose gradient is 0
    return ops.where(0.0, ops.where(1.0, squares, condition=zero).sqrt(), condition=zero)


def _shift(x: Tensor, axis: Any) -> np.ndarray:
    """max x along the axis, as a constant: it cancels in what follows, and so does its gradient."""
    m = x.data.max(axis=axis, keepdims=True, initial=-math.inf)
    return np.where(m == -math.inf, 0, m)


@ops.logsumexp.twin
def logsumexp(x: Tensor, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = _tensor(x)
    m = _shift(x, axis)
    total = (x - m).exp().sum(axis=axis, keepdims=True)
    nothing = total == 0  # where every x is -inf, the logarithm has no slope: a constant there, whose gradient is 0
    y = ops.where(-math.inf, ops.where(1.0, total, condition=nothing).log(), condition=nothing) + m
    return y if keepdims else y.squeeze(axis)


@ops.softmax.twin
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    x = _tensor(x)
    e = (x - _shift(x, axis)).exp()
    total = e.sum(axis=axis, keepdims=True)
    return e / ops.where(1.0, total, condition=total == 0)


@ops.log_softmax.twin
def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    x = _tensor(x)
    y = x - _shift(x, axis)
    total = y.exp().sum(axis=axis, keepdims=True)
    return y - ops.where(1.0, total, condition=total == 0).log()


@ops.cross_entropy.twin
def cross_entropy(
    logits: Tensor, *, targets: Any, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    logits = _tensor(logits)
    targets = np.asarray(targets)
    counted = targets != ignore_index
    log_p = ops.log_softmax(logits)  # (..., V)
    places = (*np.indices(targets.shape), np.where(counted, targets, 0))
    picked = log_p[places]  # (...)
    losses = (label_smoothing - 1) * picked
    if label_smoothing:  # or a logit of -inf, which a mask has hidden, would be 0 * inf
        losses = losses - label_smoothing * log_p.mean(axis=-1)
    losses = ops.where(losses, 0.0, condition=counted)
    if reduction == "none":
        return losses
    return losses.sum() / (max(1, int(counted.sum())) if reduction == "mean" else 1)


@ops.linear_cross_entropy.twin
def linear_cross_entropy(x: Tensor, weight: Tensor, *, rows: int = 256, **options: Any) -> Tensor:
    return ops.cross_entropy(ops.linear(x, weight), **options)


@ops.linear.twin
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = ops.matmul(x, ops.transpose(weight))
    return y if bias is None else y + bias


@ops.embedding.twin
def embedding(weight: Tensor, *, ids: Any) -> Tensor:
    return ops.getitem(weight, index=np.asarray(ids))


@ops.layer_norm.twin
def layer_norm(x: Tensor, scale: Tensor, shift: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    x = _tensor(x)
    centered = x - x.mean(axis=-1, keepdims=True)
    variance = (centered * centered).mean(axis=-1, keepdims=True)
    y = scale * (centered / (variance + eps).sqrt())
    return y if shift is None else y + shift


@ops.rms_norm.twin
def rms_norm(x: Tensor, scale: Tensor, *, eps: float = 1e-5) -> Tensor:
    x = _tensor(x)
    return scale * (x / ((x * x).mean(axis=-1, keepdims=True) + eps).sqrt())


@ops.rotary.twin
def rotary(x: Tensor, *, cos: Any, sin: Any, n_heads: int, interleaved: bool = False) -> Tensor:
    x, cos, sin = _tensor(x), cos[..., None, :], sin[..., None, :]  # (..., T, 1, h)
    b, t, c = x.shape
    h = c // n_heads // 2
    axis = -1 if interleaved else -2  # the one along which the two of a pair lie
    pairs = x.reshape(b, t, n_heads, h, 2) if interleaved else x.reshape(b, t, n_heads, 2, h)
    first, second = (part.squeeze(axis) for part in ops.split(pairs, 2, axis=axis))  # (B, T, H, h) each
    turned = ops.stack(first * cos - second * sin, second * cos + first * sin, axis=axis)
    return turned.reshape(b, t, c)


@ops.attention.twin
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    n_heads: int,
    n_kv_heads: int | None = None,
    causal: bool = True,
    mask: Any = None,
    drop_rate: float = 0.0,
    rng: Any = None,
) -> Tensor:
    q, k, v = _tensor(q), _tensor(k), _tensor(v)
    b, t, c = q.shape
    n_kv_heads = n_kv_heads or n_heads
    queries = q.reshape(b, t, n_heads, -1).transpose(0, 2, 1, 3)  # (B, H, T, d)
    keys = k.reshape(b, k.shape[1], n_kv_heads, -1).transpose(0, 2, 1, 3)  # (B, H_kv, S, d)
    values = v.reshape(b, v.shape[1], n_kv_heads, -1).transpose(0, 2, 1, 3)
    if n_kv_heads != n_heads:  # key head i serves the query heads i n, ..., i n + n - 1
        heads = np.arange(n_heads) // (n_heads // n_kv_heads)
        keys, values = keys[:, heads], values[:, heads]  # (B, H, S, d)
    scores = queries @ keys.swapaxes(-1, -2) / math.sqrt(c // n_heads)  # (B, H, T, S)
    visible = np.ones(scores.shape[-2:], bool) if mask is None else np.asarray(mask)
    if causal:
        visible = visible & np.tri(t, k.shape[1], k.shape[1] - t, dtype=bool)
    scores = ops.where(scores, -math.inf, condition=visible)
    p = ops.softmax(scores)
    if drop_rate:
        p = p * dropout_pattern(q.data, k.data, n_heads, causal, drop_rate, int(rng.integers(2**63)))
    return (p @ values).transpose(0, 2, 1, 3).reshape(b, t, c)  # (B, T, C)


@ops.wkv.twin
def wkv(k: Tensor, v: Tensor, decay: Tensor, first: Tensor) -> Tensor:
    """A softmax over the tokens so far, whose scores fall with their age: attention without a query."""
    k, v, decay, first = map(_tensor, (k, v, decay, first))
    t = k.shape[1]
    age = np.arange(t)[:, None] - 1 - np.arange(t)  # (T, S): t - 1 - s; -1 for the token itself
    fall = -decay.exp() * np.maximum(age, 0)[..., None].astype(k.dtype)  # (T, S, C)
    own = (age == -1)[..., None]  # (T, S, 1)
    scores = k.expand_dims(1) + ops.where(first, fall, condition=own)  # (B, T, S, C)
    scores = ops.where(scores, -math.inf, condition=(age >= -1)[..., None])
    return (ops.softmax(scores, axis=2) * v.expand_dims(1)).sum(axis=2)  # (B, T, C)


@ops.fft_conv.twin
def fft_conv(u: Tensor, h: Tensor, d: Tensor) -> Tensor:
    """The sum itself, as a product with the matrix that has h_{t-s} in row t and column s."""
    u, h, d = map(_tensor, (u, h, d))
    t = u.shape[-1]
    lag = np.arange(t)[:, None] - np.arange(t)  # (T, S)
    matrix = ops.where(h[..., np.maximum(lag, 0)], 0.0, condition=lag >= 0)  # (C, T, S)
    return (matrix @ u.expand_dims(-1)).squeeze(-1) + d.expand_dims(-1) * u  # (..., C, T)


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)
