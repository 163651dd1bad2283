"""The WKV of RWKV-4 (Peng et al. 2023 §3.1, appendix D): a weighted mean of all values so far, by two sums that are carried on.

Written with A_t = Σ_{i≤t} e^{(t-i) w + k_i} v_i and B_t, the same without v, where w = -e^decay < 0 and u = first:

    y_t = (A_{t-1} + e^{u+k_t} v_t) / (B_{t-1} + e^{u+k_t}),    A_t = e^w A_{t-1} + e^{k_t} v_t

The sums would overflow, so they are held as A_t = e^{p_t} a_t with p_t, the largest exponent in them; every exponential below is
of a number that is 0 or less. What is done token by token is no more than these sums; the rest is done for all tokens at once.

Letters in shape comments: B batch, T tokens, C features; time comes first inside, (T, B, C), so that a token lies in order.
"""

import numpy as np

from ..engine import Op
from ..errors import ShapeError

NEVER = -1e38  # the exponent of a sum of nothing; -inf less itself would be NaN


def wkv_forward(k, v, decay, first):
    """y_t = Σ_{i≤t} e^{s_i} v_i / Σ_{i≤t} e^{s_i},  s_i = k_i + (t-1-i) w for i < t,  s_t = k_t + u;  w = -e^decay,  u = first

    k and v are (B, T, C), decay and first (C,).
    """
    _check(k, v, decay, first)
    y, sums, p, q, m = wkv_scan(k, v, decay, first, *nothing_yet(len(k), k.shape[2], k.dtype))
    return y, (_by_time(k), _by_time(v), _by_time(y), sums, p, q, m, -np.exp(decay), first)


def nothing_yet(b, c, dtype):
    """a and b (2, B, C), and p (B, C), before the first token."""
    return np.zeros((2, b, c), dtype), np.full((b, c), NEVER, dtype)


def wkv_scan(k, v, decay, first, sums, p):
    """y (B, T, C), and what is carried on: a and b (T + 1, 2, B, C), p (T + 1, B, C), each from before the first token on;
    then q (T, B, C) and M (T, B, C), with which y_t = N_t / M_t, both held as e^{q_t} times a number."""
    k, v, w = _by_time(k), _by_time(v), -np.exp(decay)  # (T, B, C) twice, (C,)
    p = _largest(k, w, p)  # (T + 1, B, C)
    keep, gain = np.exp(p[:-1] + w - p[1:]), np.exp(k - p[1:])  # (T, B, C) each
    sums = _carry(keep, np.stack([gain * v, gain], 1), sums)  # (T + 1, 2, B, C)
    q = np.maximum(p[:-1], k + first)
    before, now = np.exp(p[:-1] - q), np.exp(k + first - q)
    m = before * sums[:-1, 1] + now
    y = (before * sums[:-1, 0] + now * v) / m
    return np.ascontiguousarray(y.swapaxes(0, 1)), sums, p, q, m


def wkv_backward(g, k, v, y, sums, p, q, m, w, first):
    """dN_t = g_t / M_t,  dM_t = -g_t y_t / M_t,  and those of A_{t-1} and B_{t-1} are these, carried back with e^w:
    dA_t = dN_{t+1} + e^w dA_{t+1}.  dv_t = dN_t e^{u+k_t} + dA_t e^{k_t},  du = Σ (dN_t v_t + dM_t) e^{u+k_t},
    dk_t = the same at t + (dA_t v_t + dB_t) e^{k_t},  dw = Σ (dA_t A_{t-1} + dB_t B_{t-1}) e^w,  ddecay = w dw
    """
    dn = _by_time(g) / m  # times e^{-q}
    dm = -dn * y
    # the largest exponent r_t in dA_t, and dA_t = e^{r_t} da_t; both are 0 after the last token
    r = _largest(-q[:0:-1], w, np.full(q.shape[1:], NEVER, q.dtype))[::-1]  # (T, B, C)
    keep, gain = np.exp(r[1:] + w - r[:-1]), np.exp(-q[1:] - r[:-1])  # (T - 1, B, C)
    late = np.stack([gain * dn[1:], gain * dm[1:]], 1)[::-1]  # (T - 1, 2, B, C)
    d = _carry(keep[::-1], late, np.zeros_like(sums[0]))[::-1]  # da and db, (T, 2, B, C)
    now, later = np.exp(k + first - q), np.exp(r + k)
    at_once = (dn * v + dm) * now
    dv = dn * now + d[:, 0] * later
    dk = at_once + (d[:, 0] * v + d[:, 1]) * later
    dw = ((d * sums[:-1]).sum(1) * np.exp(r + w + p[:-1])).sum((0, 1))  # (C,)
    return dk.swapaxes(0, 1), dv.swapaxes(0, 1), w * dw, at_once.sum((0, 1))


wkv = Op(wkv_forward, wkv_backward)


def _by_time(x):
    """(B, T, C) -> (T, B, C), in order."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


def _largest(x, w, p):
    """p_t = max(p_{t-1} + w, x_t), from the given one on: (T, B, C) -> (T + 1, B, C)"""
    out = np.empty((len(x) + 1, *x.shape[1:]), x.dtype)
    out[0] = p
    for before, new, after in zip(out, x, out[1:], strict=False):
        np.add(before, w, out=after)
        np.maximum(after, new, out=after)
    return out


def _carry(keep, gain, sums):
    """s_t = keep_t s_{t-1} + gain_t, from the given ones on: (T, B, C) and (T, 2, B, C) -> (T + 1, 2, B, C)"""
    out = np.empty((len(gain) + 1, *gain.shape[1:]), gain.dtype)
    out[0] = sums
    for before, kept, new, after in zip(out, keep, gain, out[1:], strict=False):
        np.multiply(before, kept, out=after)
        after += new
    return out


def _check(k, v, decay, first):
    if k.ndim != 3 or k.shape != v.shape or not decay.shape == first.shape == k.shape[2:]:
        raise ShapeError(
            f"wkv: k is {k.shape}, v is {v.shape}, decay is {decay.shape}, first is {first.shape}: they must be twice (B, T, C) "
            "and twice (C,)"
        )
