"""The gradient of a function by taking differences, one element at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..debug.differences import METHODS, derivative
from ..engine import Tensor, no_grad
from ..errors import ConfigError, NonFiniteError


def numerical_grad(fn: Callable[[Any], Any], x: Any, method: str = "richardson") -> np.ndarray:
    """The gradient of a scalar function at x, one element of x at a time, without any backward.

    At a kink it is the mean of the two slopes, at the edge of the function's domain the one slope there is.

    Args:
        fn: takes an array of x's shape (float64; complex128 for method "complex"), returns one number or a Tensor of one.
        x: an array or Tensor of any shape.
        method: "richardson" (about 1e-12), "central" (about 1e-10), or "complex" (exact to rounding, `fn` must be analytic).

    Raises ConfigError for another method, NonFiniteError where x is not finite.
    """
    if method not in METHODS:
        raise ConfigError(f"numerical_grad: method is {method!r}: use one of {', '.join(METHODS)}")
    x = np.array(x.data if isinstance(x, Tensor) else x, dtype=np.float64)
    if not np.isfinite(x).all():
        raise NonFiniteError(
            "numerical_grad: x has elements that are not finite, where there is no gradient to measure"
        )
    gradient = np.zeros_like(x)
    with no_grad():
        for index in np.ndindex(x.shape):

            def along(h, index=index):
                moved = x.astype(complex) if isinstance(h, complex) else x.copy()
                moved[index] += h
                y = fn(moved)
                return np.asarray(y.data if isinstance(y, Tensor) else y).reshape(1)

            gradient[index] = derivative(along, max(1.0, abs(x[index])), method, abs(x[index])).value[0]
    return gradient
