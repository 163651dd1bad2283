"""Texts that are there twice: beside a comparison of every pair with every other."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.text import contradictions, exact_duplicates, near_duplicates

WORDS = "the a cow sat on my mat and sang to Grandmother at noon, in her Red hat, for 10 coins".split()  # noqa: SIM905


def shingles(text, n, unit):
    pieces = text.lower().split()
    units = pieces if unit == "words" else list(" ".join(pieces))
    return {tuple(units[i : i + n]) for i in range(max(1, len(units) - n + 1))} if units else set()


def every_pair(a, b, threshold, n=5, unit="characters"):
    found = []
    for i, one in enumerate(a):
        for j, other in enumerate(a if b is None else b):
            if b is None and j <= i:
                continue
            one_set, other_set = shingles(one, n, unit), shingles(other, n, unit)
            if one_set and other_set:
                similarity = len(one_set & other_set) / len(one_set | other_set)
                if similarity >= threshold:
                    found.append((i, j, similarity))
    return found


def varied(seed, n):
    """Sentences, most of them a former one with a word or two changed."""
    rng = random.Random(seed)
    texts = []
    for _ in range(n):
        words = rng.choice(texts).split() if texts and rng.random() < 0.7 else rng.choices(WORDS, k=rng.randint(0, 30))
        for _ in range(rng.randint(0, 3)):
            if words:
                words[rng.randrange(len(words))] = rng.choice(WORDS)
        texts.append("  ".join(words))
    return texts


@given(st.lists(st.text("ab ", max_size=3), max_size=12))
def test_exact_duplicates_are_those_that_a_set_has_seen(texts):
    drop = set(exact_duplicates(texts).tolist())
    kept = [text for i, text in enumerate(texts) if i not in drop]
    assert kept == list(dict.fromkeys(texts))
    assert exact_duplicates(texts).dtype == np.int64


def test_the_smallest_difference_counts():
    assert exact_duplicates(["a", "a ", "A", "é", "e\u0301", "a"]).tolist() == [5]


def test_contradictions_are_seen():
    assert contradictions(["x", "y", "x", "x", "y"], [0, 1, 0, 1, 1]) == [(0, 3)]
    assert contradictions([], []) == []
    with pytest.raises(DataError, match="2 texts and 1 labels"):
        contradictions(["a", "b"], [1])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize(("n", "unit"), [(5, "characters"), (2, "words"), (1, "words")])
def test_the_pairs_are_those_of_comparing_every_pair(threshold, n, unit):
    a, b = varied(1, 120), varied(1, 60)[30:] + varied(2, 60)
    wanted = every_pair(a, b, threshold, n, unit)
    assert len(wanted) > 20
    assert near_duplicates(a, b, threshold, n=n, unit=unit) == wanted
    assert near_duplicates(a, threshold=threshold, n=n, unit=unit) == every_pair(a, None, threshold, n, unit)


@given(st.lists(st.text(max_size=12), max_size=8), st.lists(st.text(max_size=12), max_size=8))
def test_any_unicode(a, b):
    assert near_duplicates(a, b + a[:3], 0.5, n=2) == every_pair(a, b + a[:3], 0.5, 2)


def test_texts_of_nothing_and_of_little():
    assert near_duplicates(["", "  ", "a", "a", "A "]) == [(2, 3, 1.0), (2, 4, 1.0), (3, 4, 1.0)]
    assert near_duplicates([], ["a"]) == near_duplicates(["a"], []) == near_duplicates([]) == []
    assert near_duplicates(["ab"], ["abc"], 0.1) == []  # each of them one shingle, and not the same
    assert near_duplicates(["\ud800x\udfff"], ["\ud800x\udfff"]) == [(0, 0, 1.0)]


def test_more_pairs_than_are_compared_at_once(monkeypatch):
    texts = varied(3, 40)
    monkeypatch.setattr("tinygrad_llm.text.duplicates._AT_ONCE", 50)
    assert near_duplicates(texts, threshold=0.5) == every_pair(texts, None, 0.5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"threshold": 0}, "threshold is 0: every pair"),
        ({"threshold": 1.5}, r"threshold is 1.5: it must be a number from 0 to 1"),
        ({"n": 0}, "n is 0: it must be a positive integer"),
        ({"unit": "bytes"}, "unit is 'bytes': use characters or words"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ConfigError, match=match):
        near_duplicates(["a"], **options)


def test_what_is_no_text():
    with pytest.raises(DataError, match="text 1 is a bytes"):
        near_duplicates(["a", b"b"])
