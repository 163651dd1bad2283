"""Arithmetic and functions of one element, with NumPy's broadcasting.

In every backward g is dL/d(output), and dx is dL/dx. Where an input was broadcast, its gradient is summed over the copies.
"""

import math

import numpy as np

from ..engine import Op
from ..errors import ConfigError


def sum_to(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum g over the axes along which an array of `shape` was broadcast: the transpose of broadcasting."""
    if g.shape == shape:
        return g
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    stretched = []
    for i, n in enumerate(shape):
        if n == 1 != g.shape[i]:
            stretched.append(i)
    return g.sum(axis=tuple(stretched), keepdims=True)


def add_forward(x, y):
    """z = x + y"""
    return x + y, (x.shape, y.shape)


def add_backward(g, x_shape, y_shape):
    """dx = g,  dy = g"""
    return sum_to(g, x_shape), sum_to(g, y_shape)


add = Op(add_forward, add_backward, view=True)


def subtract_forward(x, y):
    """z = x - y"""
    return x - y, (x.shape, y.shape)


def subtract_backward(g, x_shape, y_shape):
    """dx = g,  dy = -g"""
    return sum_to(g, x_shape), sum_to(-g, y_shape)


subtract = Op(subtract_forward, subtract_backward, view=True)


def multiply_forward(x, y):
    """z = x y"""
    return x * y, (x, y)


def multiply_backward(g, x, y, needs=(True, True)):
    """dx = g y,  dy = g x"""
    dx = sum_to(g * y, x.shape) if needs[0] else None
    dy = sum_to(g * x, y.shape) if needs[1] else None
    return dx, dy


multiply = Op(multiply_forward, multiply_backward)


def divide_forward(x, y):
    """z = x / y"""
    return x / y, (x, y)


def divide_backward(g, x, y, needs=(True, True)):
    """dx = g / y,  dy = -g (x / y) / y, in which nothing is squared that could leave the dtype's range"""
    dx = sum_to(g / y, x.shape) if needs[0] else None
    dy = sum_to(-g * (x / y / y), y.shape) if needs[1] else None
    return dx, dy


divide = Op(divide_forward, divide_backward)


def power_forward(x, y):
    """z = x^y"""
    z = x ** (y.item() if y.ndim == 0 else y)  # NumPy squares and takes roots quickly where the exponent is one number
    return z, (x, y, z)


def power_backward(g, x, y, z, needs=(True, True)):
    """dx = g y x^(y-1), which is 0 where y = 0;  dy = g z log x, which is 0 where x = 0"""
    dx = dy = None
    if needs[0]:
        exponent = y.item() - 1 if y.ndim == 0 else y - 1
        dx = sum_to(np.where(y == 0, 0, g * y * x**exponent), x.shape)
    if needs[1]:
        dy = sum_to(np.where(x == 0, 0, g * z * np.log(x)), y.shape)
    return dx, dy


power = Op(power_forward, power_backward)


def negative_forward(x):
    """y = -x"""
    return -x, ()


def negative_backward(g):
    """dx = -g"""
    return (-g,)


negative = Op(negative_forward, negative_backward)


def absolute_forward(x):
    """y = |x|"""
    return np.abs(x), (x,)


def absolute_backward(g, x):
    """dx = g sign(x), 0 at x = 0"""
    return (g * np.sign(x),)


absolute = Op(absolute_forward, absolute_backward)


def exp_forward(x):
    """y = e^x"""
    y = np.exp(x)
    return y, (y,)


def exp_backward(g, y):
    """dx = g y"""
    return (g * y,)


exp = Op(exp_forward, exp_backward)


def log_forward(x):
    """y = log x; -inf at 0, NaN below"""
    return np.log(x), (x,)


def log_backward(g, x):
    """dx = g / x"""
    return (g / x,)


log = Op(log_forward, log_backward)


def sqrt_forward(x):
    """y = √x; NaN below 0"""
    y = np.sqrt(x)
    return y, (y,)


def sqrt_backward(g, y):
    """dx = g / (2 y), which is infinite at x = 0"""
    return (g * 0.5 / y,)


sqrt = Op(sqrt_forward, sqrt_backward)


def sin_forward(x):
    """y = sin x"""
    return np.sin(x), (x,)


def sin_backward(g, x):
    """dx = g cos x"""
    return (g * np.cos(x),)


sin = Op(sin_forward, sin_backward)


def cos_forward(x):
    """y = cos x"""
    return np.cos(x), (x,)


def cos_backward(g, x):
    """dx = -g sin x"""
    return (-g * np.sin(x),)


cos = Op(cos_forward, cos_backward)


def maximum_forward(x, y):
    """z = max(x, y), element by element"""
    return np.maximum(x, y), (x, y)


def maximum_backward(g, x, y):
    """dx = g where x > y, g/2 where they tie, else 0;  dy = the rest of g"""
    share = (x > y) + 0.5 * (x == y)  # of x
    share = share.astype(g.dtype)
    return sum_to(g * share, x.shape), sum_to(g * (1 - share), y.shape)


maximum = Op(maximum_forward, maximum_backward)


def minimum_forward(x, y):
    """z = min(x, y), element by element"""
    return np.minimum(x, y), (x, y)


def minimum_backward(g, x, y):
    """dx = g where x < y, g/2 where they tie, else 0;  dy = the rest of g"""
    share = (x < y) + 0.5 * (x == y)  # of x
    share = share.astype(g.dtype)
    return sum_to(g * share, x.shape), sum_to(g * (1 - share), y.shape)


minimum = Op(minimum_forward, minimum_backward)


def where_forward(x, y, *, condition):
    """z = x where the condition (a boolean array) holds, else y"""
    return np.where(condition, x, y), (condition, x.shape, y.shape)


def where_backward(g, condition, x_shape, y_shape):
    """dx = g where the condition holds, else 0;  dy = g where it does not, else 0"""
    zero = np.zeros((), g.dtype)
    return sum_to(np.where(condition, g, zero), x_shape), sum_to(np.where(condition, zero, g), y_shape)


where = Op(where_forward, where_backward)


def clip_forward(x, *, low=None, high=None):
    """y = min(max(x, low), high); low and high are Python numbers, or None for no bound"""
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not low <= high:
        raise ConfigError(f"clip: low is {low}, high is {high}: low must not be above high, nor NaN")
    return np.clip(x, low, high), (x, low, high)


def clip_backward(g, x, low, high):
    """dx = g where low <= x <= high, else 0"""
    return (g * ((x >= low) & (x <= high)),)


clip = Op(clip_forward, clip_backward)
