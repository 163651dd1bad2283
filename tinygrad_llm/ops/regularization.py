"""Dropout (Srivastava et al. 2014): zero some elements, and scale the others so that the expectation stays."""

import math

import numpy as np

from ..engine import Op
from ..errors import ConfigError


def check_rate(drop_rate: float, what: str = "dropout") -> float:
    """The rate as a Python float, or an error unless it is a number from 0 to 1."""
    number = isinstance(drop_rate, (int, float, np.integer, np.floating)) and not isinstance(drop_rate, bool)
    if not number or not 0 <= drop_rate <= 1:
        raise ConfigError(f"{what}: drop_rate is {drop_rate!r}: it must be a number from 0 to 1")
    return float(drop_rate)


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
    p = check_rate(drop_rate)
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
