import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from tinygrad_llm.errors import ConfigError, NonFiniteError
from tinygrad_llm.generation import Strategy, sample_next
from tinygrad_llm.generation.sampling import (
    ban_repeated_ngrams,
    entropy,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    log_softmax,
    penalize_counts,
    penalize_repetition,
)

# The logits of the book's chapter 5, section 5.3.1.
BOOK = np.array([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
some_logits = arrays(np.float64, (2, 7), elements=st.integers(-64, 64).map(lambda n: n / 8))
shares = st.floats(0.01, 1)


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def draw(logits, n, seed=0, **options):
    rows = np.tile(np.asarray(logits, np.float32), (n, 1))
    return sample_next(rows, Strategy(**{"temperature": 1.0} | options), np.random.default_rng(seed))


def kept(logprobs):
    return [set(np.flatnonzero(row > -math.inf).tolist()) for row in logprobs]


def test_the_figures_of_the_book():
    p = np.exp(Strategy(temperature=1).distribution(BOOK))[0]
    figures = [0.060907, 0.001631, 0.000100, 0.572120, 0.003419, 0.000133, 0.000101, 0.357576, 0.004012]
    np.testing.assert_allclose(p, figures, atol=5e-7)
    assert np.exp(Strategy(temperature=0.1).distribution(BOOK)).max() == pytest.approx(0.990987, abs=5e-7)
    assert np.exp(Strategy(temperature=5).distribution(BOOK)).max() == pytest.approx(0.242052, abs=5e-7)
    p = np.exp(Strategy(temperature=1, top_k=3).distribution(BOOK))[0]
    np.testing.assert_allclose(p, [0.061485, 0, 0, 0.577547, 0, 0, 0, 0.360968, 0], atol=5e-7)
    assert entropy(log_softmax(BOOK))[0] == pytest.approx(0.9127147933, abs=5e-11)


def test_top_p_keeps_the_token_that_crosses():
    logprobs = np.log([[0.1, 0.5, 0.25, 0.15]])
    for p, expected in [
        (0.01, {1}),
        (0.49, {1}),
        (0.51, {1, 2}),
        (0.74, {1, 2}),
        (0.76, {1, 2, 3}),
        (0.95, {0, 1, 2, 3}),
    ]:
        assert kept(keep_top_p(logprobs, p)) == [expected]


@given(some_logits, shares, shares)
def test_top_p_sets_nest_and_are_the_smallest_that_reach_p(logits, p, q):
    p, q = sorted((p, q))
    logprobs = log_softmax(logits)
    for row, small, large in zip(logprobs, kept(keep_top_p(logprobs, p)), kept(keep_top_p(logprobs, q)), strict=True):
        assert small <= large
        probabilities = np.exp(row)
        assert probabilities[list(small)].sum() >= p - 1e-12
        assert probabilities[list(small)].sum() - probabilities[list(small)].min() < p + 1e-12
        out = set(range(7)) - small
        assert min(probabilities[list(small)]) >= max(probabilities[list(out)], default=0) - 1e-15


@given(some_logits, st.integers(1, 9))
def test_top_k_keeps_what_is_not_below_the_kth(logits, k):
    logprobs = log_softmax(logits)
    for row, ids in zip(logprobs, kept(keep_top_k(logprobs, k)), strict=True):
        kth = sorted(row, reverse=True)[min(k, 7) - 1]
        assert ids == {i for i in range(7) if row[i] >= kth}


@given(some_logits, shares)
def test_min_p_is_a_share_of_the_highest(logits, p):
    logprobs = log_softmax(logits)
    for row, ids in zip(logprobs, kept(keep_min_p(logprobs, p)), strict=True):
        ratios = np.exp(row - row.max()) / p
        assert ids >= {i for i in range(7) if ratios[i] > 1 + 1e-9}
        assert ids <= {i for i in range(7) if ratios[i] > 1 - 1e-9}


@given(some_logits, shares)
def test_typical_takes_the_nearest_to_the_entropy_first(logits, p):
    logprobs = log_softmax(logits)
    for row, ids in zip(logprobs, kept(keep_typical(logprobs, p)), strict=True):
        h = -sum(math.exp(x) * x for x in row)
        distance = np.abs(-row - h)
        assert np.exp(row[list(ids)]).sum() >= p - 1e-12
        out = set(range(7)) - ids
        assert max(distance[list(ids)]) <= min(distance[list(out)], default=math.inf) + 1e-12
        farthest = max(ids, key=lambda i: distance[i])
        assert np.exp(row[list(ids)]).sum() - math.exp(row[farthest]) < p + 1e-12


def test_typical_can_leave_out_the_likeliest():
    logprobs = np.log([[0.4, *[0.06] * 10]])
    assert 0 not in kept(keep_typical(logprobs, 0.3))[0]


def test_penalties_by_their_formulas():
    scores = np.array([2.0, -2.0, 0.5, 1.0, 0.0])
    penalize_repetition(scores, [0, 1, 1, 4], 2.0)
    assert scores.tolist() == [1.0, -4.0, 0.5, 1.0, 0.0]
    scores = np.array([2.0, -2.0, 0.5, 1.0])
    penalize_counts(scores, [1, 1, 3], 0.25, 1.0)
    assert scores.tolist() == [2.0, -3.5, 0.5, -0.25]


def test_counts_are_of_what_was_written_and_repetition_of_the_whole_text():
    logits = np.zeros((2, 4), np.float32)
    scores = Strategy(frequency_penalty=1).adjust(logits, [[0, 1, 2], [3, 3, 3]], [1, 2])
    assert scores.tolist() == [[0, -1, -1, 0], [0, 0, 0, -1]]
    scores = Strategy(repetition_penalty=2).adjust(logits + 1, [[0, 1], [3]], [1, 1])
    assert scores.tolist() == [[0.5, 0.5, 1, 1], [1, 1, 1, 0.5]]
    assert (logits == 0).all()
    assert Strategy(temperature=2, top_k=1).adjust(logits, [[0], [0]], [1, 1]) is logits


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_a_ban_is_for_every_ngram_that_would_come_twice(text, n):
    scores = np.zeros(4)
    ban_repeated_ngrams(scores, text, n)
    there = [text[i : i + n] for i in range(len(text) - n + 1)]
    for i in range(4):
        begun = text[len(text) - n + 1 :] if n > 1 else []
        assert (scores[i] == -math.inf) == (len(text) >= n - 1 and [*begun, i] in there)


def test_the_order_of_a_strategy():
    # top_p sees what top_k has left, scaled to sum to 1: of 0.4, 0.3 and 0.2 the first two are 0.78, of all four 0.7
    logits = np.log([[0.4, 0.3, 0.2, 0.1]])
    assert kept(Strategy(temperature=1, top_p=0.75).distribution(logits)) == [{0, 1, 2}]
    assert kept(Strategy(temperature=1, top_k=3, top_p=0.75).distribution(logits)) == [{0, 1}]
    assert kept(Strategy(temperature=9, top_p=0.5).distribution(logits)) == [{0, 1}]
    biased = Strategy(logit_bias={3: 5.0, 0: -math.inf}).adjust(logits, [[0]], [1])
    assert biased[0].tolist() == [-math.inf, *logits[0, 1:3], logits[0, 3] + 5]


@pytest.mark.parametrize(
    "options", [{"temperature": 0.5}, {}, {"temperature": 5.0}, {"top_p": 0.95}, {"typical_p": 0.6}]
)
def test_draws_follow_the_distribution(options):
    n = 20_000
    counts = np.bincount(draw(BOOK[0], n, **options), minlength=9)
    expected = n * np.exp(Strategy(**{"temperature": 1.0} | options).distribution(BOOK))[0]
    assert counts[expected == 0].sum() == 0
    order = np.argsort(-expected)
    counts, expected = counts[order], expected[order]
    n_large = max(1, int((expected > 5).sum()) - 1)  # the last of them takes in what is rarer
    observed, wanted = ([*row[:n_large], row[n_large:].sum()] for row in (counts, expected))
    assert chisquare(observed, wanted).pvalue > 1e-3


@given(some_logits, st.sampled_from([1e-8, 1e-300]))
def test_temperature_towards_zero_is_argmax(logits, temperature):
    chosen = sample_next(logits, Strategy(temperature=temperature), np.random.default_rng(0))
    assert (logits[np.arange(2), chosen] == logits.max(-1)).all()
    assert (sample_next(logits, Strategy()) == logits.argmax(-1)).all()


def test_a_large_vocabulary_never_fails_to_sum_to_one():
    logits = np.random.default_rng(0).normal(0, 1, (1, 50_257)).astype(np.float32)
    rng = np.random.default_rng(1)
    drawn = [sample_next(logits, Strategy(temperature=1), rng)[0] for _ in range(500)]
    assert 0 <= min(drawn) <= max(drawn) < 50_257
    p = softmax(logits[0].astype(np.float64))
    decile = np.minimum((10 * p.cumsum()).astype(int), 9)  # ten groups of about the same probability
    assert chisquare(np.bincount(decile[drawn], minlength=10), 500 * np.bincount(decile, p, 10)).pvalue > 1e-3


class Extreme:
    """Random numbers at the ends of [0, 1)."""

    def __init__(self, value):
        self.value = value

    def random(self, shape):
        return np.full(shape, self.value)


@given(arrays(np.float32, 6, elements=st.floats(-30, 30, width=32)), st.sampled_from([0.0, 1 - 2.0**-53]))
def test_the_ends_of_the_unit_interval_stay_inside_what_is_allowed(logits, u):
    masked = np.where(np.arange(6) % 2 == 0, -np.inf, logits)[None]
    assert sample_next(masked, Strategy(temperature=1), Extreme(u))[0] % 2 == 1


@pytest.mark.parametrize(
    ("row", "why"), [([math.nan, 0, 0], "NaN"), ([-math.inf] * 3, "forbidden"), ([math.inf, 0, 0], "inf")]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_without_an_answer(row, why, temperature):
    logits = np.array([[0, 1, 2], row], np.float32)
    with pytest.raises(NonFiniteError, match=f"row 1.*{why}"):
        sample_next(logits, Strategy(temperature=temperature), np.random.default_rng(0))


def test_drawing_needs_a_stream():
    with pytest.raises(ConfigError, match="rng"):
        sample_next(np.zeros((1, 3)), Strategy(temperature=1.0))


@pytest.mark.parametrize(
    "options",
    [
        *({"temperature": t} for t in (-0.1, math.nan, math.inf, "hot", True)),
        *({"top_k": k} for k in (0, -1, 2.0, True)),
        *({name: p} for name in ("top_p", "min_p", "typical_p") for p in (0, 1.1, -0.5, math.nan, "1")),
        *({"repetition_penalty": p} for p in (0, -1, math.inf, math.nan)),
        *({name: p} for name in ("frequency_penalty", "presence_penalty") for p in (math.inf, math.nan, "1")),
        *({"no_repeat_ngram": n} for n in (0, -2, 1.5)),
        *({"logit_bias": bias} for bias in ({-1: 0}, {0.5: 1}, {1: math.inf}, {1: math.nan}, {1: "x"})),
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Strategy(**options)


def test_an_unknown_option_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"'top_kk' \(did you mean top_k\?\)"):
        Strategy.of(top_kk=3)
