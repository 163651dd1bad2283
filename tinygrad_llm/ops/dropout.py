"""Dropout (Srivastava et al. 2014): zero some elements, and scale the others so that the expectation stays."""

import numpy as np

from ..engine import Op
from ..errors import ConfigError


def check_rate(drop_rate: float, what: str = "dropout") -> float:
    """The rate itself, or an error unless it lies between 0 and 1."""
    if not 0 <= drop_rate <= 1:
        raise ConfigError(f"{what}: drop_rate is {drop_rate}: it must lie between 0 and 1")
    return drop_rate


def kept(shape: tuple[int, ...], drop_rate: float, rng: np.random.Generator) -> np.ndarray:
    """True with probability 1 - drop_rate, of the given shape."""
    return rng.random(shape, dtype=np.float32) >= drop_rate


def dropout_forward(x, *, drop_rate, rng):
    """y = x keep / (1 - p),  keep drawn from rng (a np.random.Generator) with P(keep) = 1 - p,  p = drop_rate"""
    p = check_rate(drop_rate)
    keep = kept(x.shape, p, rng)
    scale = 1 / (1 - p) if p < 1 else 0.0
    return x * keep * scale, (keep, scale)


def dropout_backward(g, keep, scale):
    """dx = g keep / (1 - p)"""
    return (g * keep * scale,)


dropout = Op(dropout_forward, dropout_backward)
