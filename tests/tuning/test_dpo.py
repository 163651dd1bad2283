"""DPO's losses: the start, the symmetry of a pair, what each kind makes smaller, gradients far out, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ShapeError
from tinygrad_llm.testing import gradcheck
from tinygrad_llm.tuning import dpo

REF = np.array([-12.5, -3.25, -40.0])
CHOSEN, REJECTED = np.array([-10.0, -5.0, -40.0]), np.array([-13.0, -2.0, -39.0])
numbers = st.lists(st.floats(-60, 0), min_size=4, max_size=4).map(lambda x: np.array(x)[:, None])
betas = st.floats(0.01, 5)


def losses(*arguments, **options):
    return dpo.loss(*arguments, **options)[0].data


def test_the_start_is_ln_2():
    """Where the model is the reference, whatever the pairs are, and whichever of both answers is chosen."""
    found, chosen, rejected = dpo.loss(CHOSEN, REJECTED, CHOSEN, REJECTED, beta=0.1)
    np.testing.assert_allclose(found.data, math.log(2), rtol=1e-15)
    assert not chosen.any()
    assert not rejected.any()
    np.testing.assert_allclose(losses(CHOSEN, REJECTED, CHOSEN, REJECTED, 0.5, "ipo"), 1)
    np.testing.assert_allclose(losses(CHOSEN, REJECTED, CHOSEN, REJECTED, 0.5, "hinge"), 1)


def test_rewards_have_beta_and_no_graph():
    chosen = tg.Tensor(CHOSEN, requires_grad=True)
    found, better, worse = dpo.loss(chosen, REJECTED, REF, REF, beta=0.5)
    np.testing.assert_allclose(better, 0.5 * (CHOSEN - REF))
    np.testing.assert_allclose(worse, 0.5 * (REJECTED - REF))
    assert type(better) is type(worse) is np.ndarray
    assert found.shape == (3,)
    assert found.requires_grad


@given(numbers, betas)
def test_the_two_orders_of_a_pair_are_two_sides_of_one_probability(x, beta):
    chosen, rejected, ref_chosen, ref_rejected = x
    right = losses(chosen, rejected, ref_chosen, ref_rejected, beta)
    wrong = losses(rejected, chosen, ref_rejected, ref_chosen, beta)
    h = chosen - ref_chosen - rejected + ref_rejected
    np.testing.assert_allclose(np.exp(-right) + np.exp(-wrong), 1, rtol=1e-12)
    np.testing.assert_allclose(wrong - right, beta * h, rtol=1e-9, atol=1e-9)
    # smoothed, as often right as wrong in a half: the same whichever is chosen
    halves = losses(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing=0.5)
    np.testing.assert_allclose(halves, (right + wrong) / 2, rtol=1e-12)


@given(numbers, betas, st.floats(0, 0.45))
def test_robust_undoes_wrong_labels(x, beta, eps):
    """In the mean over labels of which ε are wrong, it is the loss of the right ones (Chowdhury et al. 2024, lemma 3.1)."""
    pi, ref = x[:2], x[2:]
    right = losses(*pi, *ref, beta, "robust", eps)
    wrong = losses(*pi[::-1], *ref[::-1], beta, "robust", eps)
    np.testing.assert_allclose((1 - eps) * right + eps * wrong, losses(*pi, *ref, beta), rtol=1e-7, atol=1e-9)


@given(numbers, betas)
def test_ipo_is_least_where_the_difference_is_half_the_inverse_of_beta(x, beta):
    chosen, rejected, ref_chosen, ref_rejected = x
    best = rejected + ref_chosen - ref_rejected + 1 / (2 * beta)
    np.testing.assert_allclose(losses(best, rejected, ref_chosen, ref_rejected, beta, "ipo"), 0, atol=1e-20)
    assert (losses(chosen, rejected, ref_chosen, ref_rejected, beta, "ipo") >= 0).all()


def test_hinge_stops_at_a_margin_of_one():
    far = losses([1.0, 9.0, 11.0], np.zeros(3), np.zeros(3), np.zeros(3), 0.1, "hinge")
    np.testing.assert_allclose(far, [0.9, 0.1, 0])


def test_rpo_adds_the_likelihood_of_the_chosen():
    nll = np.array([0.5, 1.0, 2.0])
    plain = losses(CHOSEN, REJECTED, REF, REF, 0.1)
    np.testing.assert_allclose(losses(CHOSEN, REJECTED, REF, REF, 0.1, nll=nll, alpha=0.5), plain + 0.5 * nll)
    np.testing.assert_array_equal(losses(CHOSEN, REJECTED, REF, REF, 0.1, nll=nll), plain)


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2}, {"kind": "robust", "label_smoothing": 0.2}, {"kind": "hinge"}, {"kind": "ipo"}],
)
def test_gradients(options):
    nll = np.array([0.5, 1.0, 2.0])
    assert gradcheck(
        lambda chosen, rejected, nll: dpo.loss(chosen, rejected, REF, REF, 0.3, nll=nll, alpha=0.5, **options)[0],
        CHOSEN,
        REJECTED,
        nll,
    )


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"kind": "robust", "label_smoothing": 0.1}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_apart(dtype, options):
    chosen = tg.Tensor(np.array([1000.0, -1000.0], dtype), requires_grad=True)
    zero = np.zeros(2, dtype)
    found, better, _ = dpo.loss(chosen, zero, zero, zero, beta=1.0, **options)
    found.sum().backward()
    assert np.isfinite(found.data).all()
    assert np.isfinite(chosen.grad).all()
    assert chosen.grad[1] < -0.8
    assert found.dtype == better.dtype == dtype


def test_beta_of_zero_is_a_finite_loss_without_a_gradient():
    chosen = tg.Tensor(CHOSEN, requires_grad=True)
    found, _, _ = dpo.loss(chosen, REJECTED, REF, REF, beta=0)
    found.sum().backward()
    np.testing.assert_allclose(found.data, math.log(2))
    assert not chosen.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "kto"}, "kind is 'kto': use one of sigmoid, ipo, hinge, robust"),
        ({"beta": -0.1}, "beta is -0.1"),
        ({"beta": math.nan}, "beta is nan"),
        ({"beta": 0, "kind": "ipo"}, "beta is 0, and ipo divides by it"),
        ({"label_smoothing": 0.5, "kind": "robust"}, "label_smoothing is 0.5: .*0.5 excluded"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0: .*1.0 excluded"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"label_smoothing": 0.1, "kind": "ipo"}, "label_smoothing is 0.1, and ipo has none"),
        ({"label_smoothing": 0.1, "kind": "hinge"}, "label_smoothing is 0.1, and hinge has none"),
        ({"alpha": 1.0}, "alpha is 1.0 without nll"),
        ({"alpha": -1.0, "nll": np.ones(3)}, "alpha is -1.0"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        dpo.loss(CHOSEN, REJECTED, REF, REF, **{"beta": 0.1} | options)


@pytest.mark.parametrize("place", range(4))
def test_lengths_that_differ(place):
    arguments = [CHOSEN, REJECTED, REF, REF]
    arguments[place] = np.ones(2)
    with pytest.raises(ShapeError, match="they must be equal"):
        dpo.loss(*arguments, beta=0.1)
    with pytest.raises(ShapeError, match=r"nll is \(2,\)"):
        dpo.loss(CHOSEN, REJECTED, REF, REF, 0.1, nll=np.ones(2), alpha=1)
    with pytest.raises(ShapeError, match=r"must be \(rows,\), and not empty"):
        dpo.loss(*[np.ones((2, 2))] * 4, beta=0.1)
