"""Every op: a forward and a backward on plain NumPy arrays, side by side, one file a family."""

from .activation import erf, gelu, gelu_erf, log_sigmoid, relu, sigmoid, silu, swiglu, tanh
from .convolution import fft_conv
from .elementwise import (
    absolute,
    add,
    clip,
    cos,
    divide,
    exp,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    sin,
    sqrt,
    subtract,
    where,
)
from .loss import cross_entropy, linear_cross_entropy
from .matrix import embedding, linear, matmul
from .normalization import layer_norm, rms_norm
from .probability import log_softmax, softmax
from .recurrence import wkv
from .reduction import logsumexp, max, mean, norm, sum, var
from .regularization import dropout
from .rotation import rotary
from .scaled_dot_product import attention
from .shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    getitem,
    reshape,
    set_at,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
)

__all__ = [name for name in dir() if not name.startswith("_")]
