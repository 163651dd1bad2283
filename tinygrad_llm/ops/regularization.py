"""Dropout (Srivastava et al. 2014): zero some elements, and scale the others so that the expectation stays."""

import math

import numpy as np

from ..checks import check_number
from ..engine import Op


def scale_of(p: float) -> float:
    """1 / (1 - p), what the kept elements are multiplied by; at p = 1 none is kept."""
    return 1 / (1 - p) if p < 1 else 0.0


def kept(shape: tuple[int, ...], drop_rate: float, bits: np.random.BitGenerator) -> np.ndarray:
    """True with probability 1 - drop_rate to the nearest 2⁻¹⁶: each 64-bit word of the stream decides four elements."""
    n = math.prod(shape)
    words = np.asarray(bits.random_raw(-(-n // 4))).view(np.uint16)[:n]
    return (words >= round(drop_rate * 65536)).reshape(shape)


def dropout_forward(x, *, drop_rate, rng):
    """y = x keep / (1 - p),  keep drawn from rng (a np.random.Generator) with P(keep) = 1 - p,  p = drop_rate"""
    p = check_number("dropout: drop_rate", drop_rate, most=1)
    keep = kept(x.shape, p, rng.bit_generator)
    y = x * keep
    y *= scale_of(p)
    return y, (np.packbits(keep), scale_of(p))  # one bit for each element until the backward


def dropout_backward(g, bits, scale):
    """dx = g keep / (1 - p)"""
    dx = g * np.unpackbits(bits, count=g.size).reshape(g.shape).view(bool)
    dx *= scale
    return (dx,)


dropout = Op(dropout_forward, dropout_backward)
