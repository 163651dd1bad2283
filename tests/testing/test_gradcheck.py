"""The checker is held to account: it passes what is right, finds what is a thousandth wrong, and says which element it was."""

import math
import re

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import Tensor, ops
from tinygrad_llm.errors import ConfigError, DTypeError, GraphError, NonFiniteError, TinygradLLMError
from tinygrad_llm.testing import (
    GradcheckError,
    assert_close,
    gradcheck,
    gradcheck_module,
    numerical_grad,
)

_rng = np.random.default_rng(0)
X = _rng.standard_normal((3, 4))
W = _rng.standard_normal((2, 4))


class WithGradient:
    """x -> x² with a gradient of one's choice: times `factor` at one element, or everywhere."""

    def __init__(self, factor, index=...):
        self.factor, self.index = factor, index

    def __call__(self, x):
        y = x * x
        error = np.zeros(x.shape)
        error[self.index] = (self.factor - 1) * 2 * x.data[self.index].real
        return y + (x - x.data) * error  # adds 0 to the value, and the error to the gradient


# ---- derivatives by differences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "digits"), [("richardson", 2e-12), ("central", 1e-9), ("complex", 1e-15)])
def test_numerical_grad_is_as_good_as_it_says(method, digits):
    x = np.linspace(0.3, 2, 12).reshape(3, 4)
    found = numerical_grad(lambda a: (np.sin(a) * np.exp(a) / (1 + a**2)).sum(), x, method=method)
    e, q = np.exp(x), 1 + x**2
    exact = e * (np.sin(x) + np.cos(x)) / q - np.sin(x) * e * 2 * x / q**2
    assert np.abs(found - exact).max() < digits * np.abs(exact).max()


def test_numerical_grad_takes_tensors_and_any_scale():
    x = Tensor(np.array([1e-6, 1e-3, 1.0, 1e3, 1e9]))
    assert_close(numerical_grad(lambda a: ops.log(a).sum(), x), 1 / x.data, rtol=1e-9, atol=0)


def test_numerical_grad_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="'forward'"):
        numerical_grad(np.sum, X, method="forward")
    with pytest.raises(NonFiniteError):
        numerical_grad(np.sum, [1.0, math.nan])


# ---- right functions --------------------------------------------------------------------------------------------------------


def test_a_right_function_passes_and_reports_how_well():
    result = gradcheck(lambda x, w: ops.linear(x, w), X, W)
    assert result
    assert result.checked == (12 + 8) * (1 + 6)  # each element, for the random cotangent and for each of the 6 outputs
    assert result.max_relative_error < 1e-10
    assert "140 derivatives agree" in str(result)


@pytest.mark.parametrize("method", ["richardson", "central", "complex"])
def test_all_methods(method):
    rtol = 1e-6 if method == "central" else 1e-10
    assert gradcheck(lambda x: (0.1 * x).exp() * ops.gelu(x), X, method=method, rtol=rtol)


def test_tensors_are_taken_and_left_as_they_were():
    x = Tensor(X.copy(), requires_grad=True)
    x.grad = np.full(X.shape, 7.0)
    gradcheck(ops.tanh, x)
    assert x.data.tobytes() == X.tobytes()
    assert_close(x.grad, np.full(X.shape, 7.0))


def test_several_results_and_results_that_do_not_depend():
    assert gradcheck(lambda x: ops.split(x, [1, 3], axis=1), X)
    assert gradcheck(lambda x, w: x * 2.0, X, W)  # the gradient of w is zero


def test_large_inputs_are_sampled():
    x = _rng.standard_normal((50, 60))
    result = gradcheck(ops.softmax, x)
    assert result
    assert result.checked == 15
    with pytest.raises(GradcheckError):
        gradcheck(WithGradient(1.001), x)
    with pytest.raises(GradcheckError, match="random direction"):
        gradcheck(WithGradient(5.0, (17, slice(0, 40))), x)  # elements that were not drawn, found by a direction


def test_values_of_any_size():
    assert gradcheck(ops.log, np.array([1e-9, 1e-3, 1.0, 1e6, 1e12]))
    assert gradcheck(lambda x: ops.layer_norm(x, np.ones(4), np.zeros(4)), X * 1e18)
    assert gradcheck(lambda x: ops.rms_norm(x, np.ones(4)), X * 1e-9)
    assert gradcheck(ops.var, np.ones((2, 3)))  # at its minimum: the gradient is zero, the function nearly so


def test_a_scalar_and_an_empty_array():
    assert gradcheck(ops.exp, np.float64(0.5))
    assert gradcheck(lambda x, y: ops.concatenate(x, y), np.zeros((0, 2)), np.ones((1, 2)))


# ---- wrong functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.001, 1.0 + 1e-6])
def test_a_wrong_factor_is_found(factor):
    with pytest.raises(GradcheckError):
        gradcheck(WithGradient(factor), X)


def test_one_wrong_element_is_named_with_both_values():
    with pytest.raises(GradcheckError) as caught:
        gradcheck(WithGradient(1.001, (2, 1)), X)
    message = str(caught.value)
    assert message.startswith(
        "gradcheck of WithGradient: wrong gradient of argument 0 (x) at [2, 1] of output 9: analytic "
    )
    analytic, numeric, error = map(
        float, re.search(r"analytic (\S+), numeric (\S+), relative error (\S+) ", message).groups()
    )
    assert analytic == pytest.approx(2 * X[2, 1] * 1.001, rel=1e-11)
    assert numeric == pytest.approx(2 * X[2, 1], rel=1e-10)
    assert error == pytest.approx(0.001, rel=2e-3)


def test_the_reproducer_runs(tmp_path):
    fn = WithGradient(1.5)
    result = gradcheck(fn, X, raise_on_failure=False)
    assert not result
    lines = [line.strip() for line in result.reproducer.splitlines()[1:]]
    names = {"WithGradient": fn}
    with pytest.raises(GradcheckError) as caught:
        exec("\n".join(lines), names)
    assert names["x0"].tobytes() == X.tobytes()
    assert str(caught.value) == str(result)


def test_a_result_instead_of_an_error():
    result = gradcheck(WithGradient(1.01), X, raise_on_failure=False)
    assert not result
    assert len(result.mismatches) == 24  # 12 elements, each alone and in the random sum
    worst = result.mismatches[0]
    assert (worst.argument, worst.numeric) == ("argument 0 (x)", pytest.approx(worst.analytic / 1.01))


def test_a_gradient_that_hides_from_a_cotangent_of_ones():
    """softmax's gradient is zero for g = 1: a wrong one must be found all the same."""

    def half_softmax(x):
        y = ops.softmax(x)
        return Tensor(y.data) + 0.5 * (y - y.data)

    with pytest.raises(GradcheckError):
        gradcheck(half_softmax, X)


def test_the_error_is_an_assertion_and_one_of_ours():
    assert issubclass(GradcheckError, AssertionError)
    assert issubclass(GradcheckError, TinygradLLMError)


def test_a_forgotten_broadcast_sum_is_found():
    def first_copy_only(x, b):
        return x + b + (b.data - b) * np.array([[0.0], [1.0], [1.0]])  # the value of x + b

    assert gradcheck(lambda x, b: x + b, X, X[0])
    with pytest.raises(GradcheckError, match=r"argument 1 \(b\) at \["):
        gradcheck(first_copy_only, X, X[0])


# ---- kinks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "x", "at"),
    [
        (ops.absolute, [1.0, 0.0, -2.0], (1,)),
        (ops.relu, [1.0, 0.0, -2.0], (1,)),
        (lambda x: ops.max(x), [1.0, 2.0, 2.0], (1,)),
        (lambda x: ops.clip(x, low=0.0, high=1.0), [0.5, 1.0, 3.0], (1,)),
        (lambda x: ops.maximum(x, 2.0), [1.0, 2.0, 4.0], (1,)),
        (lambda x: ops.norm(x, axis=1), [[3.0, 4.0], [0.0, 0.0]], (1, 0)),
    ],
)
def test_a_kink_is_reported_and_is_no_failure(fn, x, at):
    result = gradcheck(fn, np.array(x))
    assert result
    assert result.kinks[0].index == at
    assert result.kinks[0].kink[0] != pytest.approx(result.kinks[0].kink[1])
    assert "at a kink" in str(result)


def test_beside_a_kink_the_gradient_is_checked():
    x = np.array([1e-4, -1e-3, 3e-7, 0.5])
    result = gradcheck(ops.absolute, x)
    assert result
    assert not result.kinks

    def wrong(x):
        y = ops.absolute(x)
        return Tensor(y.data) + 1.001 * (y - y.data)

    with pytest.raises(GradcheckError):
        gradcheck(wrong, x)


def test_the_edge_of_the_domain_is_a_kink():
    result = gradcheck(ops.sqrt, np.array([0.0, 4.0]))
    assert result
    assert {entry.index for entry in result.kinks} == {(0,)}


# ---- float32 ----------------------------------------------------------------------------------------------------------------


def test_right_float32_code_passes():
    x, w = X.astype(np.float32), W.astype(np.float32)
    assert gradcheck(lambda x, w: ops.softmax(ops.linear(x, w)), x, w)
    assert gradcheck(ops.gelu, _rng.standard_normal((40, 50)).astype(np.float32))


def test_wrong_float32_code_fails_as_float64_does():
    with pytest.raises(GradcheckError, match=r"relative error 0\.000999"):
        gradcheck(WithGradient(1.001), X.astype(np.float32))


def test_what_only_float32_gets_wrong_is_named():
    def cancels(x):
        return (x + 1e6) * (x + 1e6) - 1e12  # right, but not in float32

    assert gradcheck(cancels, X, rtol=1e-5, atol=1e-6)

    def loses(x):
        big = x * 1e30
        return big * big * 1e-60  # overflows float32: the gradient is infinite

    with pytest.raises(GradcheckError, match=r"float64 gradients are right, but float32 loses argument 0 \(x\) at \["):
        gradcheck(loses, X.astype(np.float32))


# ---- what cannot be checked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ((np.array([1, 2]),), DTypeError, r"argument 0 \(x\) is int64: only float32 and float64"),
        ((np.array([1.0], np.float16),), DTypeError, "is float16"),
        ((Tensor(np.ones(2)),), GraphError, r"argument 0 \(x\) \(2,\) does not require a gradient: pass Tensor"),
        ((np.array([1.0, math.nan]),), NonFiniteError, r"is nan at \[1\]"),
        ((np.array([[1.0, math.inf]]),), NonFiniteError, r"is inf at \[0, 1\]"),
    ],
)
def test_bad_inputs(inputs, error, words):
    with pytest.raises(error, match=words):
        gradcheck(lambda x: x * 2.0, *inputs)


def test_an_unknown_method():
    with pytest.raises(ConfigError, match="use one of richardson, central, complex"):
        gradcheck(ops.exp, X, method="forward")


def _writes(x):
    x.data[0, 0] += 1
    return x * 2.0


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda x: ops.dropout(x, drop_rate=0.5, rng=_rng), "not deterministic"),
        (lambda x: x.data.sum(), "returned float64, not a Tensor"),
        (lambda x: None, "returned NoneType, not a Tensor"),
        (lambda x: Tensor(x.data * 2), "not on the tape"),
        (lambda x: x.detach() * 2.0, "not on the tape"),
        (_writes, r"writes to its input argument 0 \(x\)"),
        (lambda x: ops.log(x), r"output \d is nan"),
    ],
)
def test_functions_that_cannot_be_checked_are_named_as_such(fn, words):
    with pytest.raises(GradcheckError, match=words):
        gradcheck(fn, X)
    result = gradcheck(fn, X, raise_on_failure=False)
    assert not result
    assert not result.mismatches
    assert re.search(words, result.complaint)


def test_a_path_off_the_tape_is_a_wrong_gradient():
    with pytest.raises(GradcheckError, match="wrong gradient"):
        gradcheck(lambda x: x * Tensor(x.data), X)


# ---- modules ----------------------------------------------------------------------------------------------------------------


class Affine:
    """The two methods that gradcheck_module needs."""

    def __init__(self, dtype=np.float32):
        self.weight = Tensor(W.astype(dtype), requires_grad=True)
        self.bias = Tensor(np.zeros(2, dtype), requires_grad=True)

    def named_parameters(self):
        return iter([("weight", self.weight), ("bias", self.bias)])

    def astype(self, dtype):
        for _, p in self.named_parameters():
            p.data = p.data.astype(dtype)
        return self


def _loss(model):
    return (ops.linear(X.astype(model.weight.dtype), model.weight, model.bias) ** 2.0).mean()


def test_a_module_is_checked_and_given_back_as_it_was():
    model = Affine()
    data = model.weight.data
    result = gradcheck_module(model, _loss)
    assert result
    assert result.function == "Affine"
    assert model.weight.data is data
    assert model.weight.data.dtype == np.float32
    assert model.weight.grad is None


def test_a_wrong_module_names_the_parameter():
    def wrong(model):
        return _loss(model) + ((model.bias - model.bias.data) * np.array([0.0, 1e-3])).sum()

    model = Affine()
    with pytest.raises(GradcheckError, match=r"wrong gradient of bias at \[1\]"):
        gradcheck_module(model, wrong)
    assert model.weight.data.dtype == np.float32


def test_a_module_without_parameters():
    class Empty(Affine):
        def named_parameters(self):
            return iter([])

    with pytest.raises(ConfigError, match="Empty has no parameters"):
        gradcheck_module(Empty(), _loss)


def test_a_small_gpt():
    from tinygrad_llm.models.gpt import GPTConfig, GPTModel

    tg.manual_seed(0)
    model = GPTModel(GPTConfig(vocab_size=11, context_length=6, emb_dim=8, n_heads=2, n_layers=1, drop_rate=0.0))
    ids = np.array([[1, 5, 3, 10], [0, 2, 2, 7]])
    result = gradcheck_module(model, lambda m: ops.cross_entropy(m(ids[:, :-1]), targets=ids[:, 1:]))
    assert result
    assert result.checked > 100
