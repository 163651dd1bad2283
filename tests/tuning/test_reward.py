"""The reward model's loss: its value for models that know nothing, its symmetry, gradients far out, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import DTypeError, NonFiniteError, ShapeError
from tinygrad_llm.testing import gradcheck
from tinygrad_llm.tuning import reward

scores = st.lists(st.floats(-50, 50), min_size=1, max_size=6).map(np.array)


def test_one_score_for_all_is_ln_2():
    assert reward.loss(np.ones(3), np.ones(3)).item() == pytest.approx(math.log(2), abs=1e-15)


@given(scores, st.floats(-3, 3))
def test_only_the_difference_counts(better, shift):
    worse = better[::-1].copy()
    loss = reward.loss(better, worse).item()
    assert loss == pytest.approx(np.log1p(np.exp(worse - better)).mean(), rel=1e-12)
    assert reward.loss(better + shift, worse + shift).item() == pytest.approx(loss, rel=1e-9, abs=1e-12)
    margins = np.full(len(better), shift)
    assert reward.loss(better, worse, margins).item() == pytest.approx(
        reward.loss(better - shift, worse).item(), rel=1e-12
    )


@given(scores)
def test_antisymmetry(better):
    """-log σ(x) and -log σ(-x) are x apart: the Bradley-Terry probabilities of both orders add up to 1."""
    worse = np.zeros(len(better))
    right, wrong = reward.losses(better, worse).data, reward.losses(worse, better).data
    np.testing.assert_allclose(np.exp(-right) + np.exp(-wrong), 1, rtol=1e-12)
    np.testing.assert_allclose(wrong - right, better, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_apart(dtype):
    better = tg.Tensor(np.array([1000.0, -1000.0, 0.0], dtype), requires_grad=True)
    loss = reward.losses(better, np.zeros(3, dtype))
    np.testing.assert_allclose(loss.data, [0, 1000, math.log(2)], rtol=1e-6)
    loss.sum().backward()
    np.testing.assert_allclose(better.grad, [0, -1, -0.5], rtol=1e-6)
    assert loss.dtype == better.grad.dtype == dtype


def test_gradients():
    rng = np.random.default_rng(0)
    better, worse, margin = rng.standard_normal((3, 5))
    assert gradcheck(lambda better, worse: reward.loss(better, worse, margin), better, worse)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.ones(2), np.ones(3)), ShapeError, r"worse is \(3,\), better is \(2,\): they must be equal"),
        ((np.ones(0), np.ones(0)), ShapeError, r"better is \(0,\): it must be \(rows,\), and not empty"),
        ((np.ones((2, 1)), np.ones((2, 1))), ShapeError, r"must be \(rows,\)"),
        ((np.ones(2), np.ones(2), np.ones(3)), ShapeError, r"margin is \(3,\)"),
        ((np.ones(2), np.ones(2), [1, math.nan]), NonFiniteError, r"margin\[1\] is nan"),
        ((np.ones(2), np.ones(2), ["much", "little"]), DTypeError, "must be one of numbers"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        reward.loss(*arguments)
