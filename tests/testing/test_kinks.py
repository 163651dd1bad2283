"""At a kink a gradient lies between the two slopes, ties move together, and what is only steep has no kink."""

import copy
import math

import numpy as np
import pytest

from tinygrad_llm import Tensor, ops
from tinygrad_llm.testing import GradcheckError, gradcheck, gradcheck_module

_rng = np.random.default_rng(0)


def claiming(op, backward):
    """The op with another backward; it does not enter the registry."""
    claims = copy.copy(op)
    claims.backward = backward
    return claims


def with_factor(fn, factor):
    """The values of fn, and its gradient times a factor."""

    def wrong(*tensors):
        y = fn(*tensors)
        return Tensor(y.data) + factor * (y - y.data)

    wrong.__name__ = "wrong"
    return wrong


def relu_with(slope):
    return claiming(ops.relu, lambda g, x: (g * np.where(x == 0, slope, x > 0).astype(x.dtype),))


def absolute_with(slope):
    return claiming(ops.absolute, lambda g, x: (g * np.where(x == 0, slope, np.sign(x)).astype(x.dtype),))


def clip_with(slope):
    op = claiming(
        ops.clip,
        lambda g, x, low, high: (
            g * np.where((x == low) | (x == high), slope, (x > low) & (x < high)).astype(x.dtype),
        ),
    )
    return lambda x: op(x, low=0.0, high=1.0)


def maximum_with(slope):
    """Of x and 2, a number that takes no part in a tie."""
    return lambda x: relu_with(slope)(x - 2.0) + 2.0


def norm_with(slope):
    op = claiming(ops.norm, lambda g, x, y, axis: (g[:, None] * np.where(x == 0, slope, np.sign(x)).astype(x.dtype),))
    return lambda x: op(x, axis=-1)


# ---- the value at a kink ----------------------------------------------------------------------------------------------------

_KINKS = [
    (absolute_with, [1.0, 0.0, -2.0], (-1.0, 1.0)),
    (relu_with, [1.0, 0.0, -2.0], (0.0, 1.0)),
    (clip_with, [0.5, 0.0, 1.0, 3.0], (0.0, 1.0)),
    (maximum_with, [1.0, 2.0, 4.0], (0.0, 1.0)),
    (norm_with, [[3.0], [0.0]], (-1.0, 1.0)),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("fn", "x", "slopes"), _KINKS, ids=["absolute", "relu", "clip", "maximum", "norm"])
def test_between_the_slopes_is_right(fn, x, slopes, dtype):
    low, high = slopes
    for slope in (low, high, (low + high) / 2, low + 0.9 * (high - low)):
        result = gradcheck(fn(slope), np.array(x, dtype))
        assert result
        assert result.kinks
        assert all(e.kink == pytest.approx(slopes, abs=1e-9) for e in result.kinks if e.output is not None)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("fn", "x", "slopes"), _KINKS, ids=["absolute", "relu", "clip", "maximum", "norm"])
def test_what_is_not_between_the_slopes_is_wrong(fn, x, slopes, dtype):
    low, high = slopes
    for slope in (math.nan, math.inf, -math.inf, 1e6, -1e6, high + 1e-6, low - 1e-6):
        with pytest.raises(GradcheckError, match="wrong gradient of "):
            gradcheck(fn(slope), np.array(x, dtype))


def test_a_check_of_kinks_alone_has_compared_nothing():
    result = gradcheck(ops.relu, np.zeros(3), raise_on_failure=False)
    assert not result
    assert result.checked == 0
    assert len(result.kinks) == 3 * 2 + 4  # each element, for Σ v f and for its own output, and all three together
    assert not result.mismatches
    with pytest.raises(GradcheckError, match=r"nothing was compared, since all derivatives are at a kink.*at \[0\]"):
        gradcheck(ops.relu, np.zeros(3))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_a_check_without_elements_has_compared_nothing(shape):
    with pytest.raises(GradcheckError, match="nothing was compared, since the inputs are empty"):
        gradcheck(ops.exp, np.zeros(shape))


def test_kinks_that_cancel_leave_a_slope():
    """relu(x) - relu(-x) is x, also at 0, where the sum of two gradients of 0 is wrong."""
    with pytest.raises(GradcheckError, match="analytic 0, numeric 1"):
        gradcheck(lambda x: ops.relu(x) - ops.relu(-x), np.array([0.0, 1.0]))


def test_kinks_in_several_outputs_are_judged_one_by_one():
    assert gradcheck(lambda x: (ops.relu(x), -ops.relu(-x), x * 2.0), np.array([0.0, 1.0]))


def test_the_infinite_slope_of_a_root():
    """√x at 0: the slope grows without bound as h shrinks, and no number is right."""

    def root_with(slope):
        return claiming(ops.sqrt, lambda g, y: (g * np.where(y == 0, slope, 0.5 / np.where(y == 0, 1, y)),))

    x = np.array([0.0, 4.0])
    assert math.inf in {entry.kink[1] for entry in gradcheck(ops.sqrt, x).kinks}
    assert gradcheck(root_with(math.inf), x)
    for slope in (math.nan, -math.inf, 0.0, 1.0, 1e6):
        with pytest.raises(GradcheckError, match=r"argument 0 \(.*\) at \[0\]"):
            gradcheck(root_with(slope), x)


def test_with_a_complex_step_nothing_is_a_kink():
    assert not gradcheck(lambda x: x * x, np.array([0.0, 1.0]), method="complex").kinks
    with pytest.raises(GradcheckError, match="numeric"):
        gradcheck(relu_with(0.5), np.array([0.0, 1.0]), method="complex")


def test_central_differences_see_the_same_kinks():
    x = np.array([1.0, 0.0, -2.0])
    assert gradcheck(relu_with(0.25), x, method="central").kinks
    for slope in (1e6, math.nan, 1.1):
        with pytest.raises(GradcheckError, match="wrong gradient"):
            gradcheck(relu_with(slope), x, method="central")


# ---- ties -------------------------------------------------------------------------------------------------------------------


def max_with(share):
    """The maximum of all, of which each winner gets `share(number of winners)`, or one share each."""

    def backward(g, x, y, axis):
        winners = x == y
        return (g * winners * np.broadcast_to(share(int(winners.sum())), x.shape).astype(x.dtype),)

    return claiming(ops.max, backward)


def whole(n):
    return 1.0


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_winners_that_tie_share_the_gradient(dtype):
    x = np.array([1.0, 2.0, 2.0], dtype)
    assert gradcheck(ops.max, x)
    assert gradcheck(max_with(lambda n: 1 / n), x)
    assert gradcheck(max_with(lambda n: [0.0, 1.0, 0.0]), x)  # all to the first is right too
    with pytest.raises(
        GradcheckError, match="along all 2 elements equal to 2 together of output 0: analytic 2, numeric 1"
    ):
        gradcheck(max_with(whole), x)
    with pytest.raises(GradcheckError, match="together"):
        gradcheck(max_with(lambda n: 0.0), x)  # each lies between the slopes, their sum does not
    with pytest.raises(GradcheckError, match="on either side"):
        gradcheck(max_with(lambda n: [0.0, 1.2, -0.2]), x)  # the other way round


def test_every_row_with_a_tie_is_checked():
    x = np.array([[1.0, 3.0, 3.0], [5.0, 5.0, 5.0], [0.0, 1.0, 2.0]])
    assert gradcheck(lambda x: ops.max(x, axis=1), x)
    for row in range(2):

        def backward(g, x, y, axis, row=row):
            winners = x == y[:, None]
            shares = winners / winners.sum(1, keepdims=True)
            shares[row] = winners[row]
            return (g[:, None] * shares,)

        wrong = claiming(ops.max, backward)
        with pytest.raises(GradcheckError, match=f"equal to {x[row].max():.0f} together of output {row}"):
            gradcheck(lambda x, wrong=wrong: wrong(x, axis=1), x)


@pytest.mark.parametrize("x", [np.ones((10, 12)), np.concatenate([_rng.standard_normal(300), [7.0, 7.0]])])
def test_ties_in_a_large_input_are_found(x):
    assert gradcheck(ops.max, x)
    with pytest.raises(GradcheckError):
        gradcheck(max_with(whole), x)


@pytest.mark.parametrize("op", [ops.maximum, ops.minimum])
def test_ties_between_arguments(op):
    def sharing(left, right):
        sign = 1 if op is ops.maximum else -1
        return claiming(
            op,
            lambda g, x, y: (
                g * np.where(x == y, left, sign * x > sign * y).astype(x.dtype),
                g * np.where(x == y, right, sign * x < sign * y).astype(x.dtype),
            ),
        )

    x, y = np.array([1.0, 2.0, 5.0, 2.0]), np.array([3.0, 2.0, 5.0, 1.0])
    assert gradcheck(op, x, y)
    for shares in [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (0.25, 0.75)]:
        assert gradcheck(sharing(*shares), x, y)
    for shares in [(1.0, 1.0), (0.0, 0.0), (0.5, 0.6), (-0.5, 1.5), (math.nan, 0.5)]:
        with pytest.raises(GradcheckError):
            gradcheck(sharing(*shares), x, y)
    with pytest.raises(GradcheckError, match=r"argument 0 \(x\), argument 1 \(y\) along all 3 elements equal to 2"):
        gradcheck(sharing(1.0, 1.0), np.array([1.0, 2.0, 2.0]), np.array([3.0, 2.0, 1.0]))


def test_the_ties_of_a_module():
    class Two:
        def __init__(self):
            self.a, self.b = Tensor(np.array([1.0, 2.0]), True), Tensor(np.array([1.0, 2.0]), True)

        def named_parameters(self):
            return [("a", self.a), ("b", self.b)]

        def astype(self, dtype):
            return self

    wrong = claiming(ops.maximum, lambda g, x, y: (g, g))
    assert gradcheck_module(Two(), lambda m: ops.maximum(m.a, m.b))
    with pytest.raises(GradcheckError, match=r"wrong gradient of a, b along all 2 elements equal to 1 together"):
        gradcheck_module(Two(), lambda m: wrong(m.a, m.b))


# ---- steep is no kink -------------------------------------------------------------------------------------------------------

_STEEP = [
    (lambda x: ops.tanh(1e6 * x), [1e-7, -3e-7, 2e-6]),
    (lambda x: ops.tanh(1e6 * (x - 0.5)), [0.5 + 1e-7, 0.25]),
    (lambda x: 100.0 + ops.tanh(1e6 * x), [1e-7]),
    (ops.log, [9e-7]),
    (ops.log, [1e-9, 1.0]),
    (ops.log, [1e-13, 1e-20, 2.0]),
    (lambda x: ops.sqrt(x * x + 1e-20), [1e-11, 3.0]),
    (lambda x: ops.sigmoid(1e8 * x), [1e-9, -1e-8]),
    (lambda x: 1.0 / x, [1e-8, 1.0]),
    (ops.absolute, [3e-7, -1e-12, 2.0]),
    (ops.relu, [1e-10, -1e-10]),
]


@pytest.mark.parametrize(("fn", "x"), _STEEP)
def test_a_steep_function_has_one_slope(fn, x):
    result = gradcheck(fn, np.array(x))
    assert result
    assert not result.kinks
    for factor in (3.0, 2.0, 1.001, 0.5, -1.0, math.nan):
        with pytest.raises(GradcheckError):
            gradcheck(with_factor(fn, factor), np.array(x))


def test_overflow_beside_the_point_is_no_difference():
    assert gradcheck(ops.exp, np.array([700.0, 709.0]))
    with pytest.raises(GradcheckError):
        gradcheck(with_factor(ops.exp, 1.001), np.array([700.0]))


@pytest.mark.parametrize("value", [3.0, 7.0, 0.1, -1e3])
def test_a_constant_row_of_layer_norm(value):
    """Its derivative turns within √eps of the constant: differences over a greater distance agree on a wrong one."""
    x, scale, shift = np.full((3, 5), value), np.ones(5), np.zeros(5)
    assert gradcheck(ops.layer_norm, x, scale, shift)
    with pytest.raises(GradcheckError):
        gradcheck(with_factor(ops.layer_norm, 1.00001), x, scale, shift)


def test_rounding_in_a_small_output_is_no_wrong_gradient():
    """log_softmax of a certain row: the largest output is -1e-9 and is computed through 1, to 2e-16."""
    for seed in range(20):
        assert gradcheck(ops.log_softmax, 30 * np.random.default_rng(seed).standard_normal(4))
