"""The nonlinearities between two linear layers."""

import math

import numpy as np

from ..engine import Op
from ..errors import ShapeError
from .error_function import erf_of


def tanh_forward(x):
    """y = tanh x"""
    y = np.tanh(x)
    return y, (y,)


def tanh_backward(g, y):
    """dx = g (1 - y²)"""
    return (g * (1 - y * y),)


tanh = Op(tanh_forward, tanh_backward)


def sigmoid_forward(x):
    """y = 1 / (1 + e^-x)"""
    y = 1 / (1 + np.exp(-x))
    return y, (y,)


def sigmoid_backward(g, y):
    """dx = g y (1 - y)"""
    return (g * y * (1 - y),)


sigmoid = Op(sigmoid_forward, sigmoid_backward)


def log_sigmoid_forward(x):
    """y = log σ(x) = -log(1 + e^-x), finite for every finite x; -y is also called softplus(-x)"""
    y = -np.logaddexp(0, -x)
    return y, (y,)


def log_sigmoid_backward(g, y):
    """dx = g (1 - e^y) = g σ(-x)"""
    return (-g * np.expm1(y),)


log_sigmoid = Op(log_sigmoid_forward, log_sigmoid_backward)


def relu_forward(x):
    """y = max(x, 0)"""
    return np.maximum(x, 0), (x,)


def relu_backward(g, x):
    """dx = g (x > 0), so 0 at x = 0"""
    return (np.where(x <= 0, 0, g),)


relu = Op(relu_forward, relu_backward)


_C = math.sqrt(2 / math.pi)


def gelu_forward(x):
    """y = x s,  s = 1 / (1 + e^-2u) = (1 + tanh u) / 2,  u = C (x + 0.044715 x³),  C = √(2/π)

    The tanh form of Hendrycks and Gimpel 2016 §2, which GPT-2 uses, with the tanh written as a sigmoid: one exponential.
    """
    s = np.asarray(x * x)  # NumPy makes a scalar of a 0-d product, which `out=` refuses
    s *= -2 * _C * 0.044715
    s += -2 * _C
    s *= x  # -2u
    np.exp(s, out=s)
    s += 1
    np.divide(1, s, out=s)
    return x * s, (x, s)


def gelu_backward(g, x, s):
    """dx = g s [ 1 + x (1 - s) 2u' ],  u' = C (1 + 0.134145 x²)"""
    dx = x * x
    dx *= 2 * _C * 0.134145
    dx += 2 * _C  # 2u'
    dx *= x
    dx *= 1 - s
    dx += 1
    dx *= s
    dx *= g
    return (dx,)


gelu = Op(gelu_forward, gelu_backward)


def erf_forward(x):
    """y = erf x = 2/√π ∫₀ˣ e^-t² dt"""
    return erf_of(x), (x,)


def erf_backward(g, x):
    """dx = g 2/√π e^-x²"""
    return (g * (2 / math.sqrt(math.pi)) * np.exp(-x * x),)


erf = Op(erf_forward, erf_backward)


def gelu_erf_forward(x):
    """y = x Φ,  Φ = (1 + erf(x/√2)) / 2, the exact form (Hendrycks and Gimpel 2016 §2); BERT and ViT use it"""
    phi = 0.5 * (1 + erf_of(x * math.sqrt(0.5)))
    return x * phi, (x, phi)


def gelu_erf_backward(g, x, phi):
    """dx = g [ Φ + x e^(-x²/2) / √(2π) ]"""
    return (g * (phi + x * np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))),)


gelu_erf = Op(gelu_erf_forward, gelu_erf_backward)


def silu_forward(x):
    """y = x s,  s = 1 / (1 + e^-x); also called swish (Hendrycks and Gimpel 2016; Ramachandran 2017)"""
    s = np.asarray(np.exp(-x))
    s += 1
    np.divide(1, s, out=s)
    return x * s, (x, s)


def silu_backward(g, x, s):
    """dx = g s [ 1 + x (1 - s) ]"""
    dx = 1 - s
    dx *= x
    dx += 1
    dx *= s
    dx *= g
    return (dx,)


silu = Op(silu_forward, silu_backward)


def swiglu_forward(x, y):
    """z = x s y,  s = 1 / (1 + e^-x): silu(x) as a gate on y (Shazeer 2020)"""
    if x.shape != y.shape:
        raise ShapeError(f"swiglu: x is {x.shape}, y is {y.shape}: each feature has one gate")
    z, (_, s) = silu_forward(x)
    z *= y
    return z, (x, y, s)


def swiglu_backward(g, x, y, s):
    """dx = g y s [ 1 + x (1 - s) ],  dy = g x s"""
    (dx,) = silu_backward(g, x, s)
    dx *= y
    dy = g * x
    dy *= s
    return dx, dy


swiglu = Op(swiglu_forward, swiglu_backward)
