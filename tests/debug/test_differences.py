"""Slopes by differences against those by formula: one where a function is smooth, however steep, and two at a kink."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.debug.differences import derivative, repeated, ties

_numbers = st.floats(-3, 3).map(lambda x: round(x, 6))


def at(fn, x):
    """h -> fn(x + h), as an array."""
    return lambda h: np.atleast_1d(fn(np.float64(x) + h))


@given(_numbers, _numbers, _numbers, _numbers)
def test_a_kink_has_its_two_slopes(a, b, c, d):
    found = derivative(lambda h: np.array([d + a * h + b * abs(h) + c * h * h + math.sin(h)]))
    low, high = sorted((a + 1 - b, a + 1 + b))
    if abs(b) > 1e-6:
        assert found.low[0] == pytest.approx(low, abs=1e-9)
        assert found.high[0] == pytest.approx(high, abs=1e-9)
    assert found.low[0] <= found.value[0] <= found.high[0]


@given(st.floats(0, 9), _numbers, st.floats(0, 3), st.sampled_from([-1.0, 1.0]))
def test_a_steep_function_has_one_slope(steepness, u, offset, sign):
    """tanh s(x - x0), with s up to 1e9, and x within a few 1/s of x0."""
    s = sign * 10.0**steepness
    x = u / s
    found = derivative(at(lambda x: offset + np.tanh(s * x), x), near=abs(x))
    exact = s / math.cosh(s * x) ** 2
    rounding = 2.0**-52 * (1 + offset) * abs(s)  # of f, over the distance in which it turns
    assert found.low[0] == found.high[0] == found.value[0]
    assert abs(found.value[0] - exact) <= 1e-9 * abs(exact) + 100 * rounding
    assert abs(found.value[0] - exact) <= 4 * found.error[0] + 16 * rounding


@given(st.integers(1, 30), st.sampled_from([-1.0, 1.0]))
def test_beside_a_kink_there_is_one_slope(power, side):
    x = side * 10.0**-power
    found = derivative(at(np.abs, x), near=abs(x))
    assert found.low[0] == found.high[0] == pytest.approx(side, abs=1e-12)


@pytest.mark.parametrize(
    ("fn", "x", "low", "high"),
    [
        (np.sqrt, 0.0, 1e6, math.inf),
        (np.cbrt, 0.0, 1e8, math.inf),
        (lambda x: -np.cbrt(x), 0.0, -math.inf, -1e8),
        (lambda x: np.sqrt(np.abs(x)), 0.0, -math.inf, math.inf),
        (lambda x: np.where(x > 0, 1.0 + x, 0.0), 0.0, 0.0, math.inf),
        (lambda x: np.where(x < 0, 1.0, 0.0), 0.0, -math.inf, 0.0),
    ],
)
def test_a_slope_without_bound_is_infinite(fn, x, low, high):
    found = derivative(at(fn, x))
    assert found.high[0] == high or low < found.high[0] < 0
    assert found.low[0] == low or found.low[0] > low >= 1e6


def test_the_edge_of_a_domain_has_the_slope_of_the_one_side():
    found = derivative(at(lambda x: np.where(x >= 0, np.exp(2 * x), np.nan), 0.0))
    assert found.low[0] == found.high[0] == pytest.approx(2.0, rel=1e-9)
    found = derivative(at(lambda x: np.where(x == 1, 1.0, np.nan), 1.0))
    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()


@pytest.mark.parametrize("noise", [1e-13, 1e-11, 1e-9])
def test_the_error_of_a_function_that_is_not_precise_is_known(noise):
    """Rounding of its own, far above that of float64: the digits that are left, and no kink."""
    for x in np.linspace(0.1, 1.4, 40):
        found = derivative(at(lambda x: np.round(np.sin(x) / noise) * noise, x))
        assert abs(found.value[0] - math.cos(x)) <= 4 * found.error[0] <= 1e5 * noise
        assert found.high[0] - found.low[0] <= 8 * found.error[0]


def test_sums_of_outputs_of_which_several_have_a_kink():
    found = derivative(lambda h: np.array([max(h, 0), -max(-h, 0), 3 * h]))
    sums = found.of_sums(np.array([[1.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [0.0, 0.0, 2.0]]))
    assert sums.low == pytest.approx([3, 2, 6])
    assert sums.high == pytest.approx([5, 3, 6])
    tolerance = np.full(3, 1e-9)
    assert sums.holds(np.array([4.0, 2.5, 6.0]), tolerance).all()
    for outside in (math.nan, math.inf, -math.inf, 6.1):
        assert not sums.holds(np.full(3, outside), tolerance).any()


def test_ties_are_found_in_all_arrays():
    x, y = np.array([[1.0, 2.0], [2.0, 3.0]]), np.array([2.0, 5.0])
    ((index, value, together),) = ties([x, None, y], [2.0, 3.0, 5.0, 2.0])
    assert (index, value) == ("all 3 elements equal to 2 together", 2.0)
    assert {k: d.tolist() for k, d in together.items()} == {0: [[0, 1], [1, 0]], 2: [1, 0]}
    assert repeated(np.array([3.0, 1.0, 3.0, 2.0, 2.0, 3.0])).tolist() == [3.0, 2.0]
