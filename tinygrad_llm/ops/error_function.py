"""The error function, which NumPy lacks, to the last digits of float64."""

import math
from functools import partial
from typing import Any

import numpy as np

from ..parallel import blocks, each

# Rational approximations of Cody 1969, "Rational Chebyshev approximations for the error function", Math. Comp. 23.
# |x| <= 0.46875: erf x = x P(x²)/Q(x²)
_P0 = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3)
_Q0 = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
# 0.46875 <= |x| <= 4: erfc x = e^-x² P(x)/Q(x)
_P1 = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
       8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3)  # fmt: skip
_Q1 = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
       3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip
# |x| >= 4: erfc x = e^-x² / x (1/√π - P(1/x²)/Q(1/x²)/x²)
_P2 = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
       1.60837851487422766e-2, 6.58749161529837803e-4)  # fmt: skip
_Q2 = (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
       2.33520497626869185e-3)  # fmt: skip


def erf_of(x: np.ndarray) -> np.ndarray:
    """erf of every element, in x's dtype."""
    y = np.empty_like(x)
    each(partial(_erf, x, y), blocks(y))
    return y


def _erf(x: np.ndarray, y: np.ndarray, rows: Any) -> None:
    """The middle formula for all elements, for choosing costs more than computing; the others where they hold."""
    signed = np.asarray(x[rows])
    z = np.abs(signed).reshape(-1)
    middle = np.clip(z, 0.46875, 4)
    size = 1 - np.exp(-middle * middle) * _ratio(_P1, _Q1, middle)
    near, far = z <= 0.46875, z > 4
    small = z[near]
    size[near] = small * _ratio(_P0, _Q0, small * small)
    if far.any():
        large = np.minimum(z[far], 30)  # erfc(30) is 0 in float64
        inverse = 1 / (large * large)
        tail = 1 / math.sqrt(math.pi) - inverse * _ratio(_P2, _Q2, inverse)
        size[far] = 1 - np.exp(-large * large) / large * tail
    y[rows] = np.copysign(size.reshape(signed.shape), signed)


def _ratio(numerator: tuple, denominator: tuple, x: np.ndarray) -> np.ndarray:
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: tuple, x: np.ndarray) -> np.ndarray:
    """Horner's rule; np.polyval would turn float32 into float64."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total *= x
        total += coefficient
    return total
