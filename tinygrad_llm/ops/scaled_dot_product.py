"""Scaled dot-product attention of several heads (Vaswani et al. 2017 §3.2), in blocks of queries.

A block of queries is compared with the keys it may see. For long sequences nothing of the size T x S is kept: the
backward makes P again from the saved log-sum-exp of each row (Dao et al. 2022 §3.1), so memory grows with T, not with T².
Scores are held as (key, query), which makes the softmax a run of elementwise operations along rows of memory.

Letters in shape comments: B batch, T queries, S keys, H heads, d features of a head, N = B H, t queries and s keys of a block.
"""

import math
from functools import partial

import numpy as np

from ..engine import Op
from ..parallel import each
from .arguments import check_heads, head_blocks, hidden_keys, merge_heads, query_blocks, split_all, split_heads

_KEPT = 256  # keys up to which P is kept for the backward


def attention_forward(q, k, v, *, n_heads, n_kv_heads=None, causal=True, mask=None, drop_rate=0.0, rng=None):
    """y = P V,  P = dropout(softmax(Q Kᵀ / √d)), in each head; what may not be attended to gets -inf before the softmax

    q is (B, T, H d), k and v are (B, S, H_kv d); with fewer key heads, each serves H/H_kv query heads in a row. `causal` hides
    later keys, `mask` (boolean, broadcast to (B, H, T, S)) hides keys where it is False; a query that sees no key gets 0.
    """
    group = check_heads(q, k, v, n_heads, n_kv_heads)
    hidden = hidden_keys(causal, mask, drop_rate, rng, (len(q), n_heads, q.shape[1], k.shape[1]))
    queries, keys, values = split_all(q, k, v, n_heads, group)  # (N, T, d), (N, S, d) twice
    queries *= 1 / math.sqrt(queries.shape[2])
    out, lse, probabilities = np.empty_like(queries), np.empty(queries.shape[:2], q.dtype), {}  # lse: log Σ e^score
    each(partial(_attend, queries, keys, values, hidden, out, lse, probabilities), head_blocks(queries, keys))
    y = merge_heads(out, len(q))
    return y, (queries, keys, values, hidden, y, lse, probabilities, group)


def _attend(queries, keys, values, hidden, out, lse, probabilities, h):
    """out = P V of the heads h, one block of queries after the other"""
    for i, end in query_blocks(queries, keys, hidden.causal):
        p = keys[h, :end] @ queries[h, i].swapaxes(-1, -2)  # K Qᵀ, (n, s, t)
        hidden.hide(p, h, i)
        m = p.max(-2, keepdims=True, initial=np.finfo(p.dtype).min)  # finite, where a query sees no key too
        p -= m
        np.exp(p, out=p)
        total = np.ones(end, p.dtype) @ p  # (n, t)
        total[total == 0] = 1
        p *= 1 / total[:, None]
        lse[h, i] = m[:, 0] + np.log(total)
        if keys.shape[1] <= _KEPT:
            probabilities[h.start, i.start] = p
        if hidden.drop_rate:
            p = p * hidden.keep(p.shape, p.dtype, h, i)
        out[h, i] = p.swapaxes(-1, -2) @ values[h, :end]


def attention_backward(g, queries, keys, values, hidden, y, lse, probabilities, group):
    """dV = Pᵀ g,  dP = g Vᵀ,  dS = P (dP - δ),  δ = Σ g y,  dQ = dS K / √d,  dK = dSᵀ Q / √d"""
    b, (n, t, d) = len(g), queries.shape
    delta = np.vecdot(g.reshape(b, t, -1, d), y.reshape(b, t, -1, d)).swapaxes(1, 2).reshape(n, 1, t)
    g, dq, dk, dv = split_heads(g, n // b), np.empty_like(queries), np.zeros_like(keys), np.zeros_like(values)
    task = partial(_attend_backward, g, delta, queries, keys, values, hidden, lse, probabilities, dq, dk, dv)
    each(task, head_blocks(queries, keys))
    dq *= 1 / math.sqrt(d)
    return merge_heads(dq, b), merge_heads(dk, b, group), merge_heads(dv, b, group)


def _attend_backward(g, delta, queries, keys, values, hidden, lse, probabilities, dq, dk, dv, h):
    """dQ, dK and dV of the heads h"""
    for i, end in query_blocks(queries, keys, hidden.causal):
        p = probabilities.get((h.start, i.start))  # (n, s, t)
        if p is None:
            p = keys[h, :end] @ queries[h, i].swapaxes(-1, -2)
            hidden.hide(p, h, i)
            p -= lse[h, None, i]
            np.exp(p, out=p)
        ds = values[h, :end] @ g[h, i].swapaxes(-1, -2)  # dP, (n, s, t)
        if hidden.drop_rate:
            keep = hidden.keep(p.shape, p.dtype, h, i)
            ds *= keep
        ds -= delta[h, :, i]
        ds *= p
        dq[h, i] = ds.swapaxes(-1, -2) @ keys[h, :end]
        dk[h, :end] += ds @ queries[h, i]
        dv[h, :end] += (p * keep if hidden.drop_rate else p) @ g[h, i]


attention = Op(attention_forward, attention_backward)
