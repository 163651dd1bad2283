"""Long convolutions by the fast Fourier transform (Poli et al. 2023 §3.3): T log T in place of T², memory in proportion to T.

Letters in shape comments: ... leading axes, C channels, T time, F frequencies: of a transform of 2 T, so that what would come
round from the end meets zeros.
"""

import numpy as np

from ..engine import Op
from ..errors import ShapeError


def fft_conv_forward(u, h, d):
    """y_t = Σ_{s≤t} h_{t-s} u_s + d u_t, along the last axis, of each channel

    u is (..., C, T), h (C, T), d (C,); or (T,), (T,) and a number.
    """
    _check(u, h, d)
    n = _round_length(2 * u.shape[-1] - 1)
    u_f, h_f = np.fft.rfft(u, n), np.fft.rfft(h, n)  # (..., C, F), (C, F)
    y = _back(u_f * h_f, n, u)
    y += d[..., None] * u
    return y, (u, d, u_f, h_f, n)


def fft_conv_backward(g, u, d, u_f, h_f, n):
    """du_s = Σ_{t≥s} h_{t-s} g_t + d g_s,  dh_s = Σ_{t≥s} u_{t-s} g_t,  dd = Σ g u, over the leading axes too"""
    g_f = np.fft.rfft(g, n)  # (..., C, F)
    du = _back(g_f * h_f.conj(), n, u)
    du += d[..., None] * g
    leading = tuple(range(u.ndim - d.ndim - 1))
    dh = _back((g_f * u_f.conj()).sum(leading), n, u)
    return du, dh, np.vecdot(g, u).sum(leading)


fft_conv = Op(fft_conv_forward, fft_conv_backward)


def _back(spectrum, n, like):
    """What of a transform of n are the first T, in the dtype of `like`"""
    return np.fft.irfft(spectrum, n)[..., : like.shape[-1]].astype(like.dtype, copy=False)


def _round_length(least):
    """The least length from `least` on with no prime factor but 2, 3 and 5, for which the transform is fast."""
    best = 1 << max(0, least - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            two = three << max(0, -(-least // three) - 1).bit_length()
            best = min(best, two)
            three *= 3
        five *= 5
    return best


def _check(u, h, d):
    if u.ndim == 0 or h.shape != u.shape[max(0, u.ndim - 2) :] or d.shape != h.shape[:-1] or u.shape[-1] == 0:
        raise ShapeError(
            f"fft_conv: u is {u.shape}, h is {h.shape}, d is {d.shape}: they must be (..., C, T), (C, T) and (C,), or (T,), (T,) "
            "and a number; T is 1 or more"
        )
