"""Scaled dot-product attention of several heads (Vaswani et al. 2017 §3.2), in blocks of queries.

A block of queries is compared with the keys it may see. For long sequences nothing of the size T x S is kept: the
backward makes P again from the saved log-sum-exp of each row (Dao et al. 2022 §3.1), so memory grows with T, not with T².
Scores are held as (key, query), which makes the softmax a run of elementwise operations along rows of memory.

Letters in shape comments: B batch, T queries, S keys, H heads, d features of a head, N = B H, t queries and s keys of a block.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from ..checks import check_number
from ..engine import Op
from ..errors import ConfigError, ShapeError
from ..parallel import each
from .regularization import kept, scale_of

_QUERIES = (64, 128)  # least and most queries in a block: longer ones waste more on scores that the mask hides
_SCORES = 2**18  # scores in a block of heads: about what the cache of one core holds
_KEPT = 256  # keys up to which P is kept for the backward


def attention_forward(q, k, v, *, n_heads, n_kv_heads=None, causal=True, mask=None, drop_rate=0.0, rng=None):
    """y = P V,  P = dropout(softmax(Q Kᵀ / √d)), in each head; what may not be attended to gets -inf before the softmax

    q is (B, T, H d), k and v are (B, S, H_kv d); with fewer key heads, each serves H/H_kv query heads in a row. `causal` hides
    later keys, `mask` (boolean, broadcast to (B, H, T, S)) hides keys where it is False; a query that sees no key gets 0.
    """
    group = _check(q, k, v, n_heads, n_kv_heads)
    if drop_rate:
        drop_rate = check_number("attention: drop_rate", drop_rate, most=1)
    b, t, c = q.shape
    n_keys = k.shape[1]
    queries = _heads(q, n_heads)  # (N, T, d)
    queries *= 1 / math.sqrt(c // n_heads)
    keys, values = _heads(k, n_heads // group, group), _heads(v, n_heads // group, group)  # (N, S, d)
    if mask is not None:
        mask = np.broadcast_to(mask, (b, n_heads, t, n_keys)).reshape(-1, t, n_keys)  # (N, T, S)
    hidden = Hidden(causal, mask, drop_rate, int(rng.integers(2**63)) if drop_rate else 0)
    out = np.empty((b * n_heads, t, c // n_heads), q.dtype)  # (N, T, d)
    lse = np.empty((b * n_heads, t), q.dtype)  # log Σ e^score of each query
    probabilities: dict[tuple[int, int], np.ndarray] = {}
    each(partial(_attend, queries, keys, values, hidden, out, lse, probabilities), _head_blocks(queries, keys))
    y = _merge(out, b)
    return y, (queries, keys, values, hidden, y, lse, probabilities, group)


def _attend(queries, keys, values, hidden, out, lse, probabilities, h):
    """out = P V of the heads h, one block of queries after the other"""
    for i, end in _query_blocks(queries, keys, hidden.causal):
        p = _scores(queries[h, i], keys[h, :end], hidden, h, i)  # (n, s, t)
        m = p.max(-2, keepdims=True, initial=-math.inf)
        m[m == -math.inf] = 0
        p -= m
        np.exp(p, out=p)
        total = np.ones(end, p.dtype) @ p  # (n, t)
        total[total == 0] = 1
        p *= 1 / total[:, None]
        lse[h, i] = m[:, 0] + np.log(total)
        if keys.shape[1] <= _KEPT:
            probabilities[h.start, i.start] = p
        if hidden.drop_rate:
            p = p * _keep(p.shape, p.dtype, hidden, h, i)
        out[h, i] = p.swapaxes(-1, -2) @ values[h, :end]


def attention_backward(g, queries, keys, values, hidden, y, lse, probabilities, group):
    """dV = Pᵀ g,  dP = g Vᵀ,  dS = P (dP - δ),  δ = Σ g y,  dQ = dS K / √d,  dK = dSᵀ Q / √d"""
    n, t, d = queries.shape
    b = len(g)
    delta = np.vecdot(g.reshape(b, t, -1, d), y.reshape(b, t, -1, d)).swapaxes(1, 2).reshape(n, 1, t)
    g = _heads(g, n // b)  # (N, T, d)
    dq, dk, dv = np.empty_like(queries), np.zeros_like(keys), np.zeros_like(values)
    saved = queries, keys, values, hidden, lse, probabilities
    each(partial(_attend_backward, g, delta, *saved, dq, dk, dv), _head_blocks(queries, keys))
    dq *= 1 / math.sqrt(d)
    return _merge(dq, b), _merge(dk, b, group), _merge(dv, b, group)


def _attend_backward(g, delta, queries, keys, values, hidden, lse, probabilities, dq, dk, dv, h):
    """dQ, dK and dV of the heads h"""
    for i, end in _query_blocks(queries, keys, hidden.causal):
        p = probabilities.get((h.start, i.start))
        if p is None:
            p = _scores(queries[h, i], keys[h, :end], hidden, h, i)  # (n, s, t)
            p -= lse[h, None, i]
            np.exp(p, out=p)
        ds = values[h, :end] @ g[h, i].swapaxes(-1, -2)  # dP, (n, s, t)
        if hidden.drop_rate:
            keep = _keep(p.shape, p.dtype, hidden, h, i)
            ds *= keep
            dv[h, :end] += (p * keep) @ g[h, i]
        else:
            dv[h, :end] += p @ g[h, i]
        ds -= delta[h, :, i]
        ds *= p
        dq[h, i] = ds.swapaxes(-1, -2) @ keys[h, :end]
        dk[h, :end] += ds @ queries[h, i]


attention = Op(attention_forward, attention_backward)


class Hidden(NamedTuple):
    """What keeps a query from a key."""

    causal: bool
    mask: np.ndarray | None  # (N, T, S), False where hidden
    drop_rate: float
    seed: int  # of the weights that are dropped


def _head_blocks(queries, keys):
    """Slices of heads, each with no more scores at a time than the cache holds."""
    heads = max(1, _SCORES // max(1, _block(queries.shape[1]) * keys.shape[1]))
    starts = range(0, len(queries), heads)
    return list(map(slice, starts, [*starts[1:], len(queries)]))


def _query_blocks(queries, keys, causal):
    """A slice of queries, and how many keys the last of them sees."""
    t, n_keys = queries.shape[1], keys.shape[1]
    for i in range(0, t, _block(t)):
        last = min(i + _block(t), t)
        yield slice(i, last), max(0, n_keys - t + last) if causal else n_keys


def _block(t):
    return max(_QUERIES[0], min(t // 8, _QUERIES[1]))


def _scores(queries, keys, hidden, h, i):
    """K Qᵀ of a block, (n, s, t), with -inf where a key is hidden."""
    scores = keys @ queries.swapaxes(-1, -2)
    if (
        hidden.causal
    ):  # the last of these keys stands beside the last query: only the corner between them is hidden in part
        corner = scores[:, -scores.shape[2] :]
        corner += np.tril(np.full(corner.shape[1:], -math.inf, scores.dtype), scores.shape[2] - corner.shape[1] - 1)
    if hidden.mask is not None:
        scores[~hidden.mask[h, i, : scores.shape[1]].swapaxes(-1, -2)] = -math.inf
    return scores


def _keep(shape, dtype, hidden, h, i):
    """keep / (1 - p) of a block: drawn anew in the backward from the same seed instead of being saved."""
    stream = np.random.SFC64([hidden.seed, h.start, i.start])
    return kept(shape, hidden.drop_rate, stream) * dtype.type(scale_of(hidden.drop_rate))


def dropout_pattern(q, k, n_heads, causal, drop_rate, seed):
    """keep / (1 - p) of all blocks together, (B, H, T, S): what the twin needs to drop the same weights."""
    hidden = Hidden(causal, None, drop_rate, seed)
    queries, keys = _heads(q, n_heads), k.repeat(n_heads, axis=0)  # of keys only the shape (N, S) counts
    pattern = np.zeros((len(queries), q.shape[1], k.shape[1]), q.dtype)
    for h in _head_blocks(queries, keys):
        for i, end in _query_blocks(queries, keys, causal):
            pattern[h, i, :end] = _keep((h.stop - h.start, end, i.stop - i.start), q.dtype, hidden, h, i).swapaxes(
                -1, -2
            )
    return pattern.reshape(len(q), n_heads, *pattern.shape[1:])


def _heads(x, n_heads, group=1):
    """(B, T, H d) -> (B H, T, d), contiguous: products of strided views take twice as long; each head `group` times."""
    b, t, c = x.shape
    x = x.reshape(b, t, n_heads, c // n_heads).transpose(0, 2, 1, 3)  # (B, H, T, d)
    return x.repeat(group, axis=1).reshape(-1, t, c // n_heads) if group > 1 else x.reshape(-1, t, c // n_heads).copy()


def _merge(x, b, group=1):
    """(B H, T, d) -> (B, T, H d); of each `group` heads the sum."""
    n, t, d = x.shape
    x = x.reshape(b, -1, group, t, d).sum(2) if group > 1 else x.reshape(b, -1, t, d)  # (B, H, T, d)
    return x.transpose(0, 2, 1, 3).reshape(b, t, n // b // group * d)


def _check(q, k, v, n_heads: int, n_kv_heads: int | None) -> int:
    """How many query heads share a key head, or an error that names the shapes."""
    n_kv_heads = n_kv_heads or n_heads
    if n_heads < 1 or n_heads % n_kv_heads or q.shape[-1] % n_heads:
        raise ConfigError(
            f"attention: {q.shape[-1]} features in {n_heads} heads with {n_kv_heads} key heads: "
            "heads must divide the features, and key heads the heads"
        )
    width = q.shape[-1] // n_heads * n_kv_heads
    if q.ndim != 3 or k.shape != v.shape or k.ndim != 3 or (len(k), k.shape[2]) != (len(q), width):
        raise ShapeError(
            f"attention: q is {q.shape}, k is {k.shape}, v is {v.shape}: they must be (B, T, {q.shape[-1]}) "
            f"and twice (B, S, {width})"
        )
    return n_heads // n_kv_heads
