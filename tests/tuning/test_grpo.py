"""GRPO: advantages of groups, what each kind weighs, the first step, sums of parts, gradients, bad input."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError, NonFiniteError, ShapeError
from tinygrad_llm.testing import gradcheck
from tinygrad_llm.tuning import grpo

MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 1]])
RNG = np.random.default_rng(0)
LOGPROBS, OLD, REF = 0.3 * RNG.standard_normal((3, 4, 4)) - 1
ADVANTAGES = np.array([1.0, -1.0, 0.5, -0.5])
KINDS = [{"kind": "grpo"}, {"kind": "bnpo"}, {"kind": "dapo", "n_tokens": 20}, {"kind": "dr_grpo", "max_length": 5}]
groups = st.integers(2, 5).flatmap(
    lambda g: st.lists(st.lists(st.floats(-9, 9), min_size=g, max_size=g), min_size=1, max_size=4)
)


# ---- advantages


@given(groups)
def test_advantages(rewards):
    for scale in (True, False):
        found = grpo.advantages(rewards, scale)
        for row, a in zip(rewards, found, strict=True):
            mean, spread = statistics.fmean(row), statistics.stdev(row)
            if len(set(row)) == 1:
                assert not a.any()
            else:
                expected = [(r - mean) / (spread + 1e-4 if scale else 1) for r in row]
                np.testing.assert_allclose(a, expected, rtol=1e-6, atol=1e-9)


def test_a_group_without_spread_has_no_signal():
    assert not grpo.advantages(np.full((2, 7), 0.1)).any()  # whose mean is not 0.1
    np.testing.assert_allclose(grpo.advantages([[1, 0], [1, 1]], scale=False), [[0.5, -0.5], [0, 0]])
    assert grpo.advantages(np.eye(2, dtype=np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("rewards", "error", "message"),
    [
        ([[1.0], [2.0]], DataError, "groups of one answer"),
        ([1.0, 2.0], ShapeError, r"rewards are \(2,\): they must be \(groups, G\)"),
        (np.zeros((0, 4)), ShapeError, "not empty"),
        ([[1.0, 2.0], [3.0]], ShapeError, "unequal length"),
        ([[1.0, math.nan]], NonFiniteError, r"rewards\[0, 1\] is nan"),
        ([[1.0, 0.0], [math.inf, 0.0]], NonFiniteError, r"rewards\[1, 0\] is inf"),
    ],
)
def test_rewards_that_cannot_be(rewards, error, message):
    with pytest.raises(error, match=message):
        grpo.advantages(rewards)


# ---- weights


def test_weights_by_hand():
    def weights(**options):
        return grpo.token_weights(MASK, **options)

    np.testing.assert_allclose(weights(), MASK / np.array([[12], [4], [8], [16]]))
    np.testing.assert_allclose(weights(kind="bnpo"), MASK / 10)
    np.testing.assert_allclose(weights(kind="dapo", n_tokens=40), MASK / 40)
    np.testing.assert_allclose(weights(kind="dr_grpo", max_length=5), MASK / 20)
    silent = MASK * [[1], [0], [1], [1]]
    np.testing.assert_allclose(grpo.token_weights(silent).sum(1), [0.25, 0, 0.25, 0.25])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "ppo"}, ConfigError, "kind is 'ppo': use one of grpo, bnpo, dapo, dr_grpo"),
        ({"kind": "dapo"}, ConfigError, "dapo divides by n_tokens, which is None"),
        ({"kind": "dr_grpo"}, ConfigError, "dr_grpo divides by max_length, which is None"),
        ({"kind": "dapo", "n_tokens": 9}, ConfigError, "n_tokens is 9, and the mask holds 10"),
        ({"kind": "dr_grpo", "max_length": 3}, ConfigError, "max_length is 3, and the mask holds 4"),
        ({"kind": "dapo", "n_tokens": 10.5}, ConfigError, "n_tokens is 10.5"),
        ({"mask": MASK * 0}, DataError, "no token counts"),
        ({"mask": MASK * 0.5}, DataError, "other than 0 and 1"),
        ({"mask": MASK[0]}, ShapeError, r"mask is \(4,\)"),
    ],
)
def test_weights_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        grpo.token_weights(**{"mask": MASK} | options)


# ---- the loss


@pytest.mark.parametrize("options", KINDS)
def test_the_first_step(options):
    """ρ is 1: nothing is clipped, the loss is -Σ w A, and its gradient that of -Σ w A log π, the policy gradient."""
    x = tg.Tensor(OLD, requires_grad=True)
    loss, stats = grpo.loss(x, OLD, None, ADVANTAGES, MASK, **options)
    weights = grpo.token_weights(MASK, **options)
    assert stats == {"clip_ratio": 0}
    assert loss.item() == pytest.approx(-(weights * ADVANTAGES[:, None]).sum(), abs=1e-15)
    loss.backward()
    np.testing.assert_allclose(x.grad, -weights * ADVANTAGES[:, None], rtol=1e-14)


def test_the_kl_at_the_start_is_0_and_has_no_gradient():
    x = tg.Tensor(OLD, requires_grad=True)
    loss, stats = grpo.loss(x, OLD, OLD, np.zeros(4), MASK, beta=0.5)
    assert loss.item() == stats["kl"] == 0
    loss.backward()
    assert not x.grad.any()


@pytest.mark.parametrize("options", KINDS)
def test_the_kl_is_added_to_the_loss(options):
    plain, kl = (grpo.loss(LOGPROBS, OLD, REF, ADVANTAGES, MASK, beta=beta, **options)[0].item() for beta in (0, 0.5))
    weights, x = grpo.token_weights(MASK, **options), REF - LOGPROBS
    assert kl - plain == pytest.approx(0.5 * (weights * (np.exp(x) - 1 - x)).sum(), rel=1e-12)


@pytest.mark.parametrize("options", KINDS)
def test_parts_add_up(options):
    weights = grpo.token_weights(MASK, **options)
    whole, parts = tg.Tensor(LOGPROBS, requires_grad=True), tg.Tensor(LOGPROBS, requires_grad=True)
    loss, stats = grpo.loss(whole, OLD, REF, ADVANTAGES, MASK, beta=0.1, **options)
    loss.backward()
    total, sums = 0.0, dict.fromkeys(stats, 0.0)
    for rows in (slice(0, 1), slice(1, 3), slice(3, 4)):
        part, more = grpo.weighted_loss(parts[rows], OLD[rows], REF[rows], ADVANTAGES[rows], weights[rows], beta=0.1)
        part.backward()
        total += part.item()
        sums = {name: sums[name] + more[name] for name in sums}
    assert total == pytest.approx(loss.item(), rel=1e-14)
    np.testing.assert_allclose(parts.grad, whole.grad, rtol=1e-14)
    for name, value in stats.items():
        assert sums[name] / weights.sum() == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("filling", [math.nan, math.inf, -math.inf, -1e5])
def test_what_stands_outside_the_mask_changes_nothing(filling, options):
    def run(fill):
        x, old, ref = (np.where(MASK, array, fill) for array in (LOGPROBS, OLD, REF))
        x = tg.Tensor(x, requires_grad=True)
        loss, stats = grpo.loss(x, old, ref, ADVANTAGES, MASK, beta=0.3, **options)
        loss.backward()
        assert not x.grad[MASK == 0].any()
        return loss.item(), stats, x.grad

    for a, b in zip(run(0.0), run(filling), strict=True):
        np.testing.assert_equal(a, b)


@pytest.mark.parametrize("options", KINDS)
def test_gradients(options):
    assert gradcheck(lambda x: grpo.loss(x, OLD, REF, ADVANTAGES, MASK, beta=0.3, **options)[0], LOGPROBS)


def test_clipping_takes_the_gradient_of_what_went_far_enough():
    """Better and already likelier, or worse and already less likely: nothing is pushed on; the other way it is."""
    old = np.zeros((4, 1))
    x = tg.Tensor(np.log([[1.3], [0.7], [0.7], [1.3]]), requires_grad=True)
    loss, stats = grpo.loss(x, old, None, [1.0, -1.0, 1.0, -1.0], np.ones((4, 1)))
    loss.backward()
    np.testing.assert_allclose(x.grad[:, 0], [0, 0, -0.7 / 4, 1.3 / 4])
    assert stats["clip_ratio"] == 0.5


def test_float32_stays():
    x = tg.Tensor(LOGPROBS.astype(np.float32), requires_grad=True)
    loss, _ = grpo.loss(x, OLD, REF, ADVANTAGES, MASK, beta=0.1)
    loss.backward()
    assert loss.dtype == x.grad.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta": 0.1, "ref_logprobs": None}, ConfigError, "beta is 0.1 and ref_logprobs None"),
        ({"beta": -0.1}, ConfigError, "beta is -0.1"),
        ({"clip": -1}, ConfigError, "clip is -1"),
        ({"advantages": ADVANTAGES[:3]}, ShapeError, r"advantages are \(3,\): they must be \(4,\)"),
        ({"advantages": [0, 1, math.nan, 2]}, NonFiniteError, r"advantages\[2\] is nan"),
        ({"old_logprobs": OLD[:, :3]}, ShapeError, r"old_logprobs is \(4, 3\)"),
        ({"ref_logprobs": OLD[:, :3]}, ShapeError, r"ref_logprobs is \(4, 3\)"),
        ({"mask": MASK[:, :3]}, ShapeError, r"mask is \(4, 3\), the tokens are \(4, 4\)"),
        ({"mask": MASK * 0}, DataError, "no token counts"),
    ],
)
def test_bad_input(arguments, error, message):
    given = {"logprobs": LOGPROBS, "old_logprobs": OLD, "ref_logprobs": REF, "advantages": ADVANTAGES, "mask": MASK}
    with pytest.raises(error, match=message):
        grpo.loss(**given | arguments)
