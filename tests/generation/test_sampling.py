import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from tinygrad_llm.errors import ConfigError, NonFiniteError
from tinygrad_llm.generation import sample_next

# The logits of the book's chapter 5, section 5.3.1, and what softmax makes of them at three temperatures.
BOOK = [4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]


def draw(logits, n, temperature=1.0, top_k=None, seed=0):
    rows = np.tile(np.asarray(logits, np.float32), (n, 1))
    return sample_next(rows, temperature, top_k, rng=np.random.default_rng(seed))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.0])
def test_draws_follow_the_softmax(temperature):
    n = 20_000
    counts = np.bincount(draw(BOOK, n, temperature), minlength=9)
    expected = n * softmax(np.array(BOOK) / temperature)
    order = np.argsort(-expected)
    counts, expected = counts[order], expected[order]
    n_large = max(2, int((expected > 5).sum()) - 1)  # the last of them takes in what is rarer
    observed, wanted = ([*row[:n_large], row[n_large:].sum()] for row in (counts, expected))
    assert chisquare(observed, wanted).pvalue > 1e-3


def test_top_k_keeps_the_three_of_the_book_with_its_probabilities():
    counts = np.bincount(draw(BOOK, 20_000, top_k=3), minlength=9) / 20_000
    np.testing.assert_allclose(counts, [0.061485, 0, 0, 0.577547, 0, 0, 0, 0.360968, 0], atol=0.015)


def test_top_k_keeps_all_ties_at_its_border():
    assert set(draw([3.0, 1.0, 1.0, 1.0, 0.0], 500, top_k=2)) == {0, 1, 2, 3}
    assert set(draw([2.0, 1.0, 0.0], 50, top_k=1)) == {0}
    assert set(draw([2.0, 1.9, 1.8], 500, top_k=99)) == {0, 1, 2}


@given(
    arrays(np.float32, (3, 7), elements=st.integers(-400, 400).map(lambda n: n / 8)), st.sampled_from([1e-8, 1e-300])
)
def test_temperature_towards_zero_is_argmax(logits, temperature):
    chosen = sample_next(logits, temperature, rng=np.random.default_rng(0))
    rows = np.arange(3)
    assert (logits[rows, chosen] == logits.max(-1)).all()
    assert (sample_next(logits, 0) == logits.argmax(-1)).all()


def test_a_large_vocabulary_never_fails_to_sum_to_one():
    logits = np.random.default_rng(0).normal(0, 1, 50_257).astype(np.float32)
    rows = np.broadcast_to(logits, (8, 50_257))
    rng = np.random.default_rng(1)
    drawn = np.concatenate([sample_next(rows, 1.0, rng=rng) for _ in range(30)])
    assert drawn.min() >= 0
    assert drawn.max() < 50_257
    assert np.log(softmax(logits)[drawn]).mean() == pytest.approx(
        softmax(logits) @ np.log(softmax(logits)), abs=0.3
    )  # the entropy: 240 draws with a standard deviation of 1


class Extreme:
    """Random numbers at the ends of [0, 1)."""

    def __init__(self, value):
        self.value = value

    def random(self, shape):
        return np.full(shape, self.value)


@given(arrays(np.float32, 6, elements=st.floats(-30, 30, width=32)), st.sampled_from([0.0, 1 - 2.0**-53]))
def test_the_ends_of_the_unit_interval_stay_inside_what_is_allowed(logits, u):
    masked = np.where(np.arange(6) % 2 == 0, -np.inf, logits)[None]
    assert sample_next(masked, 1.0, rng=Extreme(u))[0] % 2 == 1


def test_masked_tokens_are_never_drawn():
    assert set(draw([-math.inf, 0.0, -math.inf, 0.0], 200)) == {1, 3}


@pytest.mark.parametrize("row", [[math.nan, 0, 0], [-math.inf] * 3, [math.inf, 0, 0]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_without_an_answer(row, temperature):
    logits = np.array([[0, 1, 2], row], np.float32)
    with pytest.raises(NonFiniteError, match="row 1"):
        sample_next(logits, temperature, rng=np.random.default_rng(0))


def test_drawing_needs_a_stream():
    with pytest.raises(ConfigError, match="rng"):
        sample_next(np.zeros((1, 3)), 1.0)
