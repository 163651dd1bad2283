"""From logits to probabilities, along one axis."""

import math

import numpy as np

from ..engine import Op


def softmax_of(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """e^(x - m) / Σ e^(x - m),  m = max x; a row of nothing but -inf (all masked) becomes zeros."""
    m = x.max(axis, keepdims=True, initial=-math.inf)
    p = np.exp(x - np.where(m == -math.inf, 0, m))
    total = p.sum(axis, keepdims=True)
    p /= np.where(total == 0, 1, total)
    return p


def softmax_forward(x, *, axis=-1):
    """p = e^x / Σ e^x, along an axis; 0 along a row in which every x is -inf"""
    p = softmax_of(x, axis)
    return p, (p, axis)


def softmax_backward(g, p, axis):
    """dx = p (g - Σ g p)"""
    return (p * (g - (g * p).sum(axis, keepdims=True)),)


softmax = Op(softmax_forward, softmax_backward)


def log_softmax_forward(x, *, axis=-1):
    """y = x - log Σ e^x, along an axis; -inf along a row in which every x is"""
    m = x.max(axis, keepdims=True, initial=-math.inf)
    y = x - np.where(m == -math.inf, 0, m)
    total = np.exp(y).sum(axis, keepdims=True)
    y -= np.log(np.where(total == 0, 1, total))
    return y, (y, axis)


def log_softmax_backward(g, y, axis):
    """dx = g - e^y Σ g"""
    return (g - np.exp(y) * g.sum(axis, keepdims=True),)


log_softmax = Op(log_softmax_forward, log_softmax_backward)
