"""Normalisation over the last axis. Letters in shape comments: D features, ... all leading axes."""

import numpy as np

from .. import composed
from ..engine import Op
from ..errors import ShapeError


def _check(name, x, *parameters):
    for p in parameters:
        if x.ndim == 0 or p.shape != x.shape[-1:]:
            raise ShapeError(
                f"{name}: x is {x.shape}, a parameter is {p.shape}: it must be {x.shape[-1:]}, x's last axis"
            )


def _rows_to_one(g):
    """Σ g over all axes but the last."""
    rows = g.reshape(-1, g.shape[-1])
    return np.ones(len(rows), g.dtype) @ rows


def _mean_square(x):
    """Mean of x² over the last axis, kept as an axis; in float64 where x² does not fit into x's dtype."""
    square = (x * x).mean(-1, keepdims=True)
    if not np.isfinite(square).all():
        square = np.square(x, dtype=np.float64).mean(-1, keepdims=True)
    return square


def layer_norm_forward(x, scale, shift, *, eps=1e-5):
    """y = scale z + shift,  z = (x - mean x) r,  r = 1/√(var x + eps),  var with divisor D (Ba et al. 2016)"""
    _check("layer_norm", x, scale, shift)
    z = x - x.mean(-1, keepdims=True)
    r = (1 / np.sqrt(_mean_square(z) + eps)).astype(x.dtype)  # (..., 1)
    z *= r
    return scale * z + shift, (z, r, scale)


def layer_norm_backward(g, z, r, scale):
    """dx = r [ dz - mean dz - z mean(dz z) ],  dz = g scale;  dscale = Σ g z,  dshift = Σ g over the rows"""
    dz = g * scale
    dx = r * (dz - dz.mean(-1, keepdims=True) - z * (dz * z).mean(-1, keepdims=True))
    return dx, _rows_to_one(g * z), _rows_to_one(g)


layer_norm = Op(layer_norm_forward, layer_norm_backward, composed=composed.layer_norm)


def rms_norm_forward(x, scale, *, eps=1e-5):
    """y = scale z,  z = x r,  r = 1/√(mean x² + eps) (Zhang and Sennrich 2019)"""
    _check("rms_norm", x, scale)
    r = (1 / np.sqrt(_mean_square(x) + eps)).astype(x.dtype)  # (..., 1)
    z = x * r
    return scale * z, (z, r, scale)


def rms_norm_backward(g, z, r, scale):
    """dx = r [ dz - z mean(dz z) ],  dz = g scale;  dscale = Σ g z over the rows"""
    dz = g * scale
    return r * (dz - z * (dz * z).mean(-1, keepdims=True)), _rows_to_one(g * z)


rms_norm = Op(rms_norm_forward, rms_norm_backward, composed=composed.rms_norm)
