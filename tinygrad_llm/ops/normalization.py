"""Normalisation over the last axis. Letters in shape comments: D features, ... all leading axes."""

import numpy as np

from ..engine import Op
from ..errors import ShapeError


def _misfit(name, x, *parameters):
    shapes = ", ".join(str(p.shape) for p in parameters if p.shape != x.shape[-1:] or x.ndim == 0)
    return ShapeError(f"{name}: x is {x.shape}, a parameter is {shapes}: it must be {x.shape[-1:]}, x's last axis")


def _mean(x):
    """The mean over the last axis, as (..., 1). A product with 1/D is four times as fast as x.mean(-1)."""
    return (x @ np.full(x.shape[-1], 1 / x.shape[-1], x.dtype))[..., None]


def _mean_product(x, y):
    """The mean of x y over the last axis, as (..., 1)."""
    return (np.vecdot(x, y) * (1 / x.shape[-1]))[..., None]


def _sum_rows(x):
    """The sum over all axes but the last, (D,)."""
    rows = x.reshape(-1, x.shape[-1])
    return np.ones(len(rows), x.dtype) @ rows


def _inverse_root(square, x, eps):
    """1/√(mean square + eps), in float64 where the squares of x overflow x's dtype."""
    if not np.isfinite(square).all():
        square = np.square(x, dtype=np.float64).mean(-1, keepdims=True)
    return (1 / np.sqrt(square + eps)).astype(x.dtype)


def layer_norm_forward(x, scale, shift=None, *, eps=1e-5):
    """y = scale z + shift,  z = (x - mean x) r,  r = 1/√(var x + eps),  var with divisor D (Ba et al. 2016)"""
    if not x.shape[-1:] == scale.shape == (scale if shift is None else shift).shape != ():
        raise _misfit("layer_norm", x, *(p for p in (scale, shift) if p is not None))
    z = x - _mean(x)
    r = _inverse_root(_mean_product(z, z), z, eps)  # (..., 1)
    z *= r
    y = z * scale
    if shift is not None:
        y += shift
    return y, (z, r, scale)


def layer_norm_backward(g, z, r, scale, needs=(True, True, True)):
    """dx = r [ dz - mean dz - z mean(dz z) ],  dz = g scale;  dscale = Σ g z,  dshift = Σ g over the rows"""
    dx = g * scale  # dz
    mean, slope = _mean(dx), _mean_product(dx, z)  # (..., 1)
    gz = z * slope
    dx -= gz
    dx -= mean
    dx *= r
    dscale = _sum_rows(np.multiply(g, z, out=gz)) if needs[1] else None
    dshift = _sum_rows(g) if any(needs[2:]) else None
    return (dx, dscale, dshift)[: len(needs)]


layer_norm = Op(layer_norm_forward, layer_norm_backward)


def rms_norm_forward(x, scale, *, eps=1e-5):
    """y = scale z,  z = x r,  r = 1/√(mean x² + eps) (Zhang and Sennrich 2019)"""
    if not x.shape[-1:] == scale.shape != ():
        raise _misfit("rms_norm", x, scale)
    r = _inverse_root(_mean_product(x, x), x, eps)  # (..., 1)
    z = x * r
    return z * scale, (z, r, scale)


def rms_norm_backward(g, z, r, scale, needs=(True, True)):
    """dx = r [ dz - z mean(dz z) ],  dz = g scale;  dscale = Σ g z over the rows"""
    dx = g * scale  # dz
    gz = z * _mean_product(dx, z)
    dx -= gz
    dx *= r
    return dx, _sum_rows(np.multiply(g, z, out=gz)) if needs[1] else None


rms_norm = Op(rms_norm_forward, rms_norm_backward)
