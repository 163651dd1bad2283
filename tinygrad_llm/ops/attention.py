"""Scaled dot-product attention of several heads (Vaswani et al. 2017 §3.2).

Letters in shape comments: B batch, T queries, S keys, H heads, d features of a head, C = H d.
"""

import math

import numpy as np

from .. import composed
from ..engine import Op
from ..errors import ConfigError, ShapeError
from .dropout import check_rate, kept, scale_of
from .softmax import softmax_of


def split_heads(x: np.ndarray, n_heads: int) -> np.ndarray:
    """(B, T, H d) -> (B, H, T, d), contiguous: matrix products on strided views take twice as long."""
    b, t, c = x.shape
    return np.ascontiguousarray(x.reshape(b, t, n_heads, c // n_heads).transpose(0, 2, 1, 3))


def merge_heads(x: np.ndarray) -> np.ndarray:
    """(B, H, T, d) -> (B, T, H d)"""
    b, h, t, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, t, h * d)


def causal_mask(n_queries: int, n_keys: int) -> np.ndarray:
    """True where query t may attend to key s: not later than itself, when the last query stands beside the last key."""
    return np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool)  # (T, S)


def check_attention(q, k, v, n_heads: int, n_kv_heads: int | None) -> int:
    """The number of key and value heads, or an error that names the shapes."""
    n_kv_heads = n_kv_heads or n_heads
    if n_heads < 1 or n_heads % n_kv_heads or q.shape[-1] % n_heads:
        raise ConfigError(
            f"attention: {q.shape[-1]} features in {n_heads} heads with {n_kv_heads} key heads: "
            "heads must divide the features, and key heads the heads"
        )
    d = q.shape[-1] // n_heads
    if q.ndim != 3 or k.shape != v.shape or k.shape[:1] + k.shape[2:] != (q.shape[0], n_kv_heads * d):
        raise ShapeError(
            f"attention: q is {q.shape}, k is {k.shape}, v is {v.shape}: they must be (B, T, {n_heads * d}) "
            f"and twice (B, S, {n_kv_heads * d})"
        )
    return n_kv_heads


def attention_forward(q, k, v, *, n_heads, n_kv_heads=None, causal=True, mask=None, drop_rate=0.0, rng=None):
    """y = P V,  P = dropout(softmax(Q Kᵀ / √d)), in each head; what may not be attended to gets -inf before the softmax

    q is (B, T, H d), k and v are (B, S, H_kv d); with fewer key heads, each serves H/H_kv query heads in a row. `causal` hides
    later keys, `mask` (boolean, broadcast to (B, H, T, S)) hides keys where it is False; a query that sees no key gets 0.
    """
    n_kv_heads, drop_rate = check_attention(q, k, v, n_heads, n_kv_heads), check_rate(drop_rate, "attention")
    queries, keys, values = split_heads(q, n_heads), split_heads(k, n_kv_heads), split_heads(v, n_kv_heads)
    group = n_heads // n_kv_heads
    if group > 1:
        keys, values = keys.repeat(group, axis=1), values.repeat(group, axis=1)  # (B, H, S, d)
    scores = queries @ keys.swapaxes(-1, -2)  # (B, H, T, S)
    scores *= 1 / math.sqrt(queries.shape[-1])
    if causal:
        scores[..., ~causal_mask(*scores.shape[-2:])] = -math.inf
    if mask is not None:
        scores = np.where(mask, scores, -math.inf).astype(q.dtype)
    p = softmax_of(scores)
    keep, dropped = None, p
    if drop_rate > 0:
        keep = kept(p.shape, drop_rate, rng)
        dropped = p * keep * scale_of(drop_rate)
    return merge_heads(dropped @ values), (queries, keys, values, p, keep, drop_rate, group)


def attention_backward(g, queries, keys, values, p, keep, drop_rate, group):
    """dV = Pᵀ g,  dP = g Vᵀ,  dS = P (dP - Σ dP P),  dQ = dS K / √d,  dK = dSᵀ Q / √d"""
    b, h, _, d = queries.shape
    g = split_heads(g, h)  # (B, H, T, d)
    dp = g @ values.swapaxes(-1, -2)  # (B, H, T, S)
    if keep is None:
        dv = p.swapaxes(-1, -2) @ g  # (B, H, S, d)
    else:
        keep = keep * g.dtype.type(scale_of(drop_rate))
        dp *= keep
        dv = (p * keep).swapaxes(-1, -2) @ g
    ds = p * (dp - (dp * p).sum(-1, keepdims=True))
    ds *= 1 / math.sqrt(d)
    dq, dk = ds @ keys, ds.swapaxes(-1, -2) @ queries
    if group > 1:  # (B, H_kv, group, S, d) -> (B, H_kv, S, d)
        dk = dk.reshape(b, h // group, group, -1, d).sum(2)
        dv = dv.reshape(b, h // group, group, -1, d).sum(2)
    return merge_heads(dq), merge_heads(dk), merge_heads(dv)


attention = Op(attention_forward, attention_backward, composed=composed.attention)
