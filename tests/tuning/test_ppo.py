"""PPO: rewards and advantages against loops and closed forms, whitening, the first step, sums of parts, gradients, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError, DTypeError, NonFiniteError, ShapeError
from tinygrad_llm.testing import gradcheck
from tinygrad_llm.tuning import ppo
from tinygrad_llm.tuning.sequences import k1, k2, k3

# what stands before an answer does not count, nor what comes after its end; one row has a hole, as between two answers
MASK = np.array([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 1, 0, 0], [1, 1, 0, 0, 1]])
LAST = np.array([3, 4, 2, 4])
SHAPE = MASK.shape
RNG = np.random.default_rng(0)
LOGPROBS, OLD, REF = 0.4 * RNG.standard_normal((3, *SHAPE)) - 1
VALUES, OLD_VALUES = 0.3 * RNG.standard_normal((2, *SHAPE))
ADVANTAGES, RETURNS = RNG.standard_normal((2, *SHAPE))
SCORES = np.array([2.0, -1.0, 0.5, 0.0])
BATCH = {
    "logprobs": LOGPROBS,
    "old_logprobs": OLD,
    "advantages": ADVANTAGES,
    "values": VALUES,
    "old_values": OLD_VALUES,
    "returns": RETURNS,
}

discounts = st.floats(0, 1)


@st.composite
def batches(draw):
    """A mask with a token at least, and numbers of its shape: values and rewards."""
    b, t = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    mask = np.array(draw(st.lists(st.booleans(), min_size=b * t, max_size=b * t).filter(any))).reshape(b, t)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return mask, rng.standard_normal((b, t)), rng.standard_normal((b, t))


# ---- rewards


@pytest.mark.parametrize("estimator", [k1, k2, k3])
@pytest.mark.parametrize("mask", [None, MASK])
def test_rewards(mask, estimator):
    found = ppo.rewards(LOGPROBS, REF, SCORES, LAST, 0.1, mask, estimator)
    for b in range(4):
        for t in range(5):
            counts = t <= LAST[b] and (mask is None or mask[b, t])
            expected = -0.1 * estimator(LOGPROBS[b, t], REF[b, t]) if counts else 0
            assert found[b, t] == pytest.approx(expected + (SCORES[b] if t == LAST[b] else 0), rel=1e-14)


def test_rewards_of_the_reference_are_the_scores():
    found = ppo.rewards(REF, REF, SCORES, LAST, 0.1)
    np.testing.assert_array_equal(found[np.arange(4), LAST], SCORES)
    assert found.sum() == SCORES.sum()
    filled = np.where(MASK, REF, -math.inf)  # what stands outside the mask changes nothing
    np.testing.assert_array_equal(ppo.rewards(filled, filled, SCORES, LAST, 0.1, MASK).sum(1), SCORES)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta": -1}, ConfigError, "beta is -1"),
        ({"ref_logprobs": REF[:3]}, ShapeError, r"ref_logprobs is \(3, 5\), logprobs is \(4, 5\)"),
        ({"scores": SCORES[:3]}, ShapeError, r"scores \(3,\) and last \(4,\) must be \(4,\)"),
        ({"scores": [1, 2, math.nan, 4]}, NonFiniteError, r"scores\[2\] is nan"),
        ({"scores": [1, 2, 3, math.inf]}, NonFiniteError, r"scores\[3\] is inf"),
        ({"scores": [1, None, 2, 3]}, DTypeError, "scores is an array of object"),
        ({"last": LAST[:3]}, ShapeError, r"last \(3,\)"),
        ({"last": LAST + 0.0}, DTypeError, "last is an array of float64"),
        ({"last": [3, 5, 2, 4]}, DataError, r"last\[1\] is 5: .* from 0 to 4"),
        ({"last": [3, 4, 2, -1]}, DataError, r"last\[3\] is -1"),
        ({"last": [4, 4, 2, 4], "mask": MASK}, DataError, r"last\[0\] is 4: .*in the mask"),
        ({"mask": MASK * 0}, DataError, "no token counts"),
        ({"logprobs": np.full(SHAPE, -math.inf)}, NonFiniteError, r"logprobs - ref_logprobs\[0, 0\] is -inf"),
    ],
)
def test_rewards_that_cannot_be(arguments, error, message):
    given = {"logprobs": LOGPROBS, "ref_logprobs": REF, "scores": SCORES, "last": LAST, "beta": 0.1}
    with pytest.raises(error, match=message):
        ppo.rewards(**given | arguments)


# ---- advantages


@given(batches(), discounts, discounts)
def test_gae_is_the_sum_of_discounted_errors(batch, gamma, lam):
    """Equation 16 as it stands: Σ_l (γλ)^l δ_{t+l}, over the tokens in the mask."""
    mask, values, rewards = batch
    advantages, returns = ppo.gae(values, rewards, mask, gamma, lam)
    for b, counts in enumerate(mask):
        v, r = [*values[b, counts], 0.0], rewards[b, counts]
        deltas = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(r))]
        expected = [sum((gamma * lam) ** k * d for k, d in enumerate(deltas[i:])) for i in range(len(r))]
        np.testing.assert_allclose(advantages[b, counts], expected, rtol=1e-10, atol=1e-12)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()
    np.testing.assert_allclose(returns[mask], (advantages + values)[mask])


@given(batches(), discounts)
def test_gae_at_both_ends_of_lambda(batch, gamma):
    mask, values, rewards = batch
    far, returns = ppo.gae(values, rewards, mask, gamma, 1)
    near, _ = ppo.gae(values, rewards, mask, gamma, 0)
    for b, counts in enumerate(mask):
        v, r = values[b, counts], rewards[b, counts]
        later = np.append(v[1:], 0)[: len(v)]
        np.testing.assert_allclose(near[b, counts], r + gamma * later - v, atol=1e-12)
        discounted = [sum(gamma**k * x for k, x in enumerate(r[i:])) for i in range(len(r))]
        np.testing.assert_allclose(returns[b, counts], discounted, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(far[b, counts], discounted - v, rtol=1e-10, atol=1e-12)


def test_gae_by_hand():
    advantages, returns = ppo.gae([[9, 1, 2, 9]], [[9, 0, 1, 9]], [[0, 1, 1, 0]], gamma=0.5, lam=0.5)
    np.testing.assert_allclose(advantages, [[0, -0.25, -1, 0]])
    np.testing.assert_allclose(returns, [[0, 0.75, 1, 0]])


def test_gae_reads_nothing_outside_the_mask():
    for filling in (math.nan, math.inf):
        v, r = (np.where(MASK, x, filling) for x in (VALUES, ADVANTAGES))
        for a, b in zip(ppo.gae(v, r, MASK, 1, 0.95), ppo.gae(VALUES, ADVANTAGES, MASK, 1, 0.95), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(NonFiniteError, match=r"ref_logprobs\[0, 0\] is inf"):
        ppo.rewards(np.full(SHAPE, -1e4), REF, SCORES, LAST, 0.1, estimator=k3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gamma": 1.1}, ConfigError, "gamma is 1.1"),
        ({"lam": -0.1}, ConfigError, "lam is -0.1"),
        ({"rewards": ADVANTAGES[:, :4]}, ShapeError, r"rewards is \(4, 4\), values is \(4, 5\)"),
        ({"mask": MASK[:, :4]}, ShapeError, r"mask is \(4, 4\), the tokens are \(4, 5\)"),
        ({"mask": MASK * 0}, DataError, "no token counts"),
        ({"rewards": np.full(SHAPE, math.inf)}, NonFiniteError, r"rewards\[0, 1\] is inf"),
        ({"values": np.full(SHAPE, math.nan)}, NonFiniteError, r"values\[0, 1\] is nan"),
        ({"values": VALUES[0], "rewards": ADVANTAGES[0]}, ShapeError, r"values is \(5,\): it must be \(rows, tokens\)"),
    ],
)
def test_advantages_that_cannot_be(arguments, error, message):
    given = {"values": VALUES, "rewards": ADVANTAGES, "mask": MASK, "gamma": 1, "lam": 0.95}
    with pytest.raises(error, match=message):
        ppo.gae(**given | arguments)


# ---- whitening


@given(batches(), st.booleans(), st.booleans())
def test_whitening(batch, unbiased, shift_mean):
    mask, x, _ = batch
    counted = [x[i] for i in np.ndindex(x.shape) if mask[i]]
    if unbiased and len(counted) == 1:
        with pytest.raises(DataError, match="one token"):
            ppo.whiten(x, mask, unbiased, shift_mean)
        return
    mean = math.fsum(counted) / len(counted)
    var = math.fsum((a - mean) ** 2 for a in counted) / (len(counted) - unbiased)
    found = ppo.whiten(x, mask, unbiased, shift_mean)
    for i in np.ndindex(x.shape):
        expected = (x[i] - mean) / math.sqrt(var + 1e-8) + (0 if shift_mean else mean)
        assert found[i] == pytest.approx(expected if mask[i] else 0, rel=1e-9, abs=1e-9)


def test_whitening_of_what_does_not_differ():
    np.testing.assert_array_equal(ppo.whiten(np.full((2, 2), 0.5), np.ones((2, 2))), 0)
    assert ppo.whiten(np.ones((1, 2), np.float32), np.ones((1, 2))).dtype == np.float32
    np.testing.assert_array_equal(ppo.whiten([[5, math.nan]], [[1, 0]], shift_mean=False), [[5, 0]])
    with pytest.raises(NonFiniteError, match=r"x\[0, 1\] is nan"):
        ppo.whiten([[5, math.nan]], [[1, 1]])
    with pytest.raises(ConfigError, match="unbiased is 1"):
        ppo.whiten([[5.0]], [[1]], 1)


# ---- the loss


def test_the_first_step():
    """ρ is 1: nothing is clipped, and the gradient is the policy gradient -A / n at each token of the mask."""
    x = tg.Tensor(OLD, requires_grad=True)
    loss, stats = ppo.loss(**BATCH | {"logprobs": x, "values": OLD_VALUES}, mask=MASK)
    assert stats["ratio"] == pytest.approx(1, abs=1e-15)
    assert stats["approxkl"] == stats["clipfrac"] == 0
    assert stats["policy_loss"] == pytest.approx(-ADVANTAGES[MASK == 1].mean())
    assert stats["value_loss"] == pytest.approx(0.5 * ((OLD_VALUES - RETURNS)[MASK == 1] ** 2).mean())
    assert loss.item() == pytest.approx(stats["policy_loss"] + 0.1 * stats["value_loss"])
    loss.backward()
    np.testing.assert_allclose(x.grad, -ADVANTAGES * MASK / MASK.sum(), rtol=1e-14)


def test_parts_add_up():
    weights = MASK / MASK.sum()
    leaves = [{name: tg.Tensor(BATCH[name], requires_grad=True) for name in ("logprobs", "values")} for _ in range(2)]
    loss, stats = ppo.loss(**BATCH | leaves[0], mask=MASK)
    loss.backward()
    total, sums = 0.0, dict.fromkeys(stats, 0.0)
    for rows in (slice(0, 2), slice(2, 3), slice(3, 4)):
        part = {name: array[rows] for name, array in (BATCH | leaves[1]).items()}
        found, more = ppo.weighted_loss(**part, weights=weights[rows])
        found.backward()
        total += found.item()
        sums = {name: sums[name] + more[name] for name in sums}
    assert total == pytest.approx(loss.item(), rel=1e-14)
    assert sums == pytest.approx(stats, rel=1e-14)
    for name, tensor in leaves[0].items():
        np.testing.assert_allclose(leaves[1][name].grad, tensor.grad, rtol=1e-14)


@pytest.mark.parametrize("filling", [math.nan, math.inf, -math.inf, -1e5])
def test_what_stands_outside_the_mask_changes_nothing(filling):
    def run(fill):
        batch = {name: np.where(MASK, array, fill) for name, array in BATCH.items()}
        leaves = {name: tg.Tensor(batch[name], requires_grad=True) for name in ("logprobs", "values")}
        loss, stats = ppo.loss(**batch | leaves, mask=MASK)
        loss.backward()
        for leaf in leaves.values():
            assert not leaf.grad[MASK == 0].any()
        return loss.item(), stats, *(leaf.grad for leaf in leaves.values())

    for a, b in zip(run(0.0), run(filling), strict=True):
        np.testing.assert_equal(a, b)


def test_gradients():
    def loss(logprobs, values):
        return ppo.loss(**BATCH | {"logprobs": logprobs, "values": values}, mask=MASK, vf_coef=0.7)[0]

    assert gradcheck(loss, LOGPROBS, VALUES)


def test_clipping_takes_the_gradient_of_what_went_far_enough():
    """The policy: better and likelier, or worse and less likely. The value: nearer to the return, by more than it may."""
    x = tg.Tensor(np.log([[1.3, 0.7, 0.7, 1.3]]), requires_grad=True)
    v = tg.Tensor([[0.3, 0.1, -0.3, 0.0]], requires_grad=True).astype(np.float64)
    zero, ones = np.zeros((1, 4)), np.ones((1, 4))
    loss, stats = ppo.loss(x, zero, [[1.0, -1.0, 1.0, -1.0]], v, zero, ones, ones, vf_coef=1.0)
    loss.backward()
    np.testing.assert_allclose(x.grad[0], [0, 0, -0.7 / 4, 1.3 / 4])
    np.testing.assert_allclose(v.grad[0], [0, -0.9 / 4, -1.3 / 4, -1 / 4])
    assert stats["clipfrac"] == 0.5
    assert stats["value_loss"] == pytest.approx(0.5 * (0.8**2 + 0.9**2 + 1.3**2 + 1) / 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
@pytest.mark.parametrize("apart", [-1000.0, 1000.0])
def test_far_apart(apart, advantage, dtype):
    x = tg.Tensor(np.full((1, 1), apart, dtype), requires_grad=True)
    one = np.ones((1, 1))
    loss, stats = ppo.loss(x, 0 * one, advantage * one, one, one, one, one)
    loss.backward()
    assert loss.dtype == x.grad.dtype == dtype
    assert np.isfinite(loss.data)
    assert np.isfinite(x.grad).all()
    assert all(map(math.isfinite, stats.values()))


@pytest.mark.parametrize("name", [*BATCH, "mask"])
def test_shapes_that_differ(name):
    arrays = BATCH | {"mask": MASK}
    with pytest.raises(ShapeError, match="they must be equal"):
        ppo.loss(**arrays | {name: arrays[name][:, :4]})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"clip": -0.2}, ConfigError, "clip is -0.2"),
        ({"value_clip": math.nan}, ConfigError, "value_clip is nan"),
        ({"vf_coef": -1}, ConfigError, "vf_coef is -1"),
        ({"mask": MASK * 0}, DataError, "no token counts"),
        ({"mask": MASK / 15}, DataError, "other than 0 and 1"),
        ({"returns": [["a"] * 5] * 4}, DTypeError, "returns is an array of <U1"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        ppo.loss(**BATCH | {"mask": MASK} | arguments)


# ---- the coefficient of the KL


def test_the_coefficient_follows_the_kl():
    assert ppo.kl_coefficient(0.1, 6.0, 64) == 0.1
    assert ppo.kl_coefficient(0.1, 6.6, 1000) == pytest.approx(0.1 * 1.01)
    assert ppo.kl_coefficient(0.1, 60.0, 1000) == pytest.approx(0.1 * 1.02)
    assert ppo.kl_coefficient(0.1, -60.0, 500, horizon=5000) == pytest.approx(0.1 * 0.98)
    assert ppo.kl_coefficient(0.1, 2.2, 1000, target=2) == pytest.approx(0.1 * 1.01)
    for options, message in (({"target": 0}, "target is 0"), ({"horizon": 0}, "horizon is 0"), ({"n": -1}, "n is -1")):
        with pytest.raises(ConfigError, match=message):
            ppo.kl_coefficient(**{"beta": 0.1, "kl": 1.0, "n": 1} | options)
    with pytest.raises(ConfigError, match="kl is nan"):
        ppo.kl_coefficient(0.1, math.nan, 1)
