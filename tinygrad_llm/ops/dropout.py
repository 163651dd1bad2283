"""Dropout (Srivastava et al. 2014): zero some elements, and scale the others so that the expectation stays."""

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


def kept(shape: tuple[int, ...], drop_rate: float, rng: np.random.Generator) -> np.ndarray:
    """True with probability 1 - drop_rate, of the given shape."""
    return rng.random(shape, dtype=np.float32) >= drop_rate


def dropout_forward(x, *, drop_rate, rng):
    """y = x keep / (1 - p),  keep drawn from rng (a np.random.Generator) with P(keep) = 1 - p,  p = drop_rate"""
    p = check_rate(drop_rate)
    keep = kept(x.shape, p, rng)
    scale = scale_of(p)
    return x * keep * scale, (keep, scale)


def dropout_backward(g, keep, scale):
    """dx = g keep / (1 - p)"""
    return (g * keep * scale,)


dropout = Op(dropout_forward, dropout_backward)
