import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.generation import beam_search, generate, token_logprobs
from tinygrad_llm.generation.beam import _largest
from tinygrad_llm.models.gpt import GPTConfig, GPTModel


@pytest.fixture(scope="module")
def model():
    tg.manual_seed(1)
    return GPTModel(GPTConfig(4, 8, 8, 2, 1, drop_rate=0.2)).astype(np.float64)


def everything(model, prompt, n, alpha, stop):
    """All texts of up to n tokens that end in a stop id, and all of n tokens that have none, with their scores."""
    texts = []
    for length in range(1, n + 1):
        for text in itertools.product(range(4), repeat=length):
            ended = text[-1] in stop
            if any(i in stop for i in text[:-1]) or not (ended or length == n):
                continue
            logprob = token_logprobs(model, [*prompt, *text])[len(prompt) - 1 :].sum()
            texts.append((logprob / ((5 + length) / 6) ** alpha, list(text[:-1] if ended else text), ended))
    return sorted(texts, key=lambda text: -text[0])


@settings(max_examples=10)
@given(
    prompt=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    alpha=st.sampled_from([0.0, 0.6, 1.0, 3.0]),
    stop=st.sets(st.integers(0, 3), max_size=2),
    use_cache=st.booleans(),
)
def test_enough_beams_find_the_best_of_all_texts(model, prompt, alpha, stop, use_cache):
    expected = everything(model, prompt, 4, alpha, stop)
    found = beam_search(model, prompt, 4, 256, length_penalty=alpha, stop_ids=sorted(stop), use_cache=use_cache)
    np.testing.assert_allclose([h.score for h in found], [text[0] for text in expected], rtol=1e-9)
    for hypothesis, (_, ids, ended) in zip(found[:5], expected, strict=False):
        assert (hypothesis.ids, hypothesis.ended) == (ids, ended)


@given(
    prompt=st.lists(st.integers(0, 3), min_size=1, max_size=3), k=st.integers(1, 5), alpha=st.sampled_from([0.0, 1.0])
)
@settings(max_examples=15)
def test_few_beams_are_those_of_a_plain_search(model, prompt, k, alpha):
    stop, beams, done = 3, [([], 0.0)], []
    for n in range(1, 5):  # plainly: every continuation of every beam, read from the beginning, until the last step
        grown = [
            ([*ids, i], token_logprobs(model, [*prompt, *ids, i])[len(prompt) - 1 :].sum())
            for ids, _ in beams
            for i in range(4)
        ]
        grown = sorted(grown, key=lambda beam: -beam[1])[: 2 * k]
        done += [(total / ((5 + n) / 6) ** alpha, ids[:-1]) for ids, total in grown if ids[-1] == stop]
        beams = [beam for beam in grown if beam[0][-1] != stop][:k]
    done += [(total / (9 / 6) ** alpha, ids) for ids, total in beams]
    expected = sorted(done, key=lambda text: -text[0])[:k]
    found = beam_search(model, prompt, 4, k, length_penalty=alpha, stop_ids=[stop])
    np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], rtol=1e-9)
    assert found[0].ids == expected[0][1]


@given(
    prompt=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    k=st.integers(1, 4),
    alpha=st.sampled_from([0.0, 0.6, 1.0, 2.5]),
    n=st.integers(1, 6),
)
@settings(max_examples=25)
def test_few_beams_as_transformers_has_them(model, prompt, k, alpha, n):
    """Plainly, after transformers' own description: what ends counts if it is among the first k of 2k, its length is that of
    the new tokens with the stop id, and who has k texts stops as soon as the best beam at its length is no better than them.
    """
    stop, beams, done = 3, [([], 0.0)], []
    for length in range(1, n + 1):
        grown = [
            ([*ids, i], token_logprobs(model, [*prompt, *ids, i])[len(prompt) - 1 :].sum())
            for ids, _ in beams
            for i in range(4)
        ]
        grown = sorted(grown, key=lambda beam: -beam[1])[: 2 * k]
        ending = [beam for beam in grown[:k] if beam[0][-1] == stop or length == n]
        done = sorted(done + [(total / length**alpha, ids) for ids, total in ending], key=lambda text: -text[0])[:k]
        beams = [beam for beam in grown if beam[0][-1] != stop][:k]
        if len(done) == k and beams[0][1] / length**alpha <= done[-1][0]:
            break
    found = beam_search(model, prompt, n, k, length_penalty=alpha, penalty="hf", stop_ids=[stop])
    np.testing.assert_allclose([h.score for h in found][: len(done)], [score for score, _ in done], rtol=1e-9)
    for hypothesis, (_, ids) in zip(found, done, strict=False):
        assert [*hypothesis.ids, *([stop] if hypothesis.ended else [])] == ids


def test_one_beam_is_greedy_also_beyond_the_context(model):
    (hypothesis,) = beam_search(model, [1, 2], 12, 1)
    assert [1, 2, *hypothesis.ids] == generate(model, [[1, 2]], 12)[0].tolist()
    assert model.training
    assert model.drop_emb.training


def test_a_greater_penalty_prefers_longer_texts(model):
    lengths = [
        len(beam_search(model, [1], 6, 64, length_penalty=alpha, stop_ids=[0, 1])[0].ids) for alpha in (0.0, 9.0)
    ]
    assert lengths[0] < lengths[1]


def test_no_new_tokens(model):
    assert [h.ids for h in beam_search(model, [1], 0, 3)] == [[]]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_beams": 0}, ConfigError, "n_beams is 0"),
        ({"penalty": "none"}, ConfigError, "penalty is 'none': use 'gnmt' or 'hf'"),
        ({"length_penalty": -1}, ConfigError, "length_penalty is -1"),
        ({"length_penalty": float("nan")}, ConfigError, "length_penalty"),
        ({"stop_ids": [4]}, DataError, "stop_ids: id 4"),
        ({"max_new_tokens": -1}, ConfigError, "max_new_tokens"),
        ({"ids": [[1, 2]]}, DataError, r"\(1, 2\)"),
    ],
)
def test_bad_input(model, options, error, message):
    with pytest.raises(error, match=message):
        beam_search(model, **({"ids": [1], "max_new_tokens": 2, "n_beams": 2} | options))


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=20), n=st.integers(1, 25))
def test_the_largest_are_those_of_a_stable_sort(values, n):
    values = np.array(values, float)
    np.testing.assert_array_equal(_largest(values, n), np.argsort(-values, kind="stable")[:n])
