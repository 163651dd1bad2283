"""Byte-pair encoding: the figures of others, and the fast trainer against the one that counts everything again."""

import random
import time

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.text import story
from tinygrad_llm.text.bpe import (
    apply_merges,
    get_stats,
    merge,
    rank_merges,
    split_pieces,
    train_bpe,
    train_bpe_plain,
)

# OpenAI's encoder.py, as published with GPT-2
OPENAI_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Few letters, so that pairs repeat, overlap ("aaa") and tie; é and 😀 are two and four bytes.
repetitive = st.text(st.sampled_from("aab é😀\n1'"), max_size=80)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def test_get_stats_and_merge_of_the_books_example():
    assert get_stats([1, 2, 3, 1, 2]) == {(1, 2): 2, (2, 3): 1, (3, 1): 1}
    assert merge([1, 2, 3, 1, 2], (1, 2), 4) == [4, 3, 4]
    assert merge([1, 1, 1], (1, 1), 2) == [2, 1]  # from left to right
    assert get_stats([]) == {}
    assert merge([], (1, 2), 4) == []


@pytest.mark.parametrize("train", [train_bpe, train_bpe_plain])
def test_three_merges_of_wikipedias_example(train):
    merges = train("aaabdaaabac", 3)
    assert merges == [(97, 97), (97, 98), (256, 257)]
    assert apply_merges(b"aaabdaaabac", rank_merges(merges)) == [258, 100, 258, 97, 99]


@pytest.mark.parametrize("train", [train_bpe, train_bpe_plain])
@pytest.mark.parametrize(
    ("text", "merges"),
    [
        ("", []),
        ("ab", []),  # once is not enough
        ("cd ab cd ab", [(32, 97), (99, 100), (256, 98)]),  # all pairs tie, at two: smallest ids first
        ("xy xy zab zab zab", [(32, 122), (97, 98), (256, 257), (120, 121)]),  # most frequent first
        ("aaaa", [(97, 97)]),  # three overlapping pairs at first; of the new pair there is one only
    ],
)
def test_order_of_merges(train, text, merges):
    assert train(text, 10) == merges


@given(repetitive, st.integers(0, 30))
def test_incremental_trainer_equals_counting_again(text, n_merges):
    merges = train_bpe(text, n_merges)
    assert merges == train_bpe_plain(text, n_merges)
    assert len(merges) <= n_merges


def test_incremental_trainer_equals_counting_again_on_prose():
    text = story()[:6000]
    merges = train_bpe(text, 150)
    assert len(merges) == 150
    assert merges == train_bpe_plain(text, 150)


@given(unicode_text)
def test_pieces_join_to_the_text_and_are_openais(text):
    pieces = split_pieces(text)
    assert "".join(pieces) == text
    assert pieces == regex.findall(OPENAI_PATTERN, text)


@given(st.text(st.sampled_from(" \n\t\u00a0ab1!'s"), max_size=40))
def test_pieces_of_white_space_are_openais(text):
    assert split_pieces(text) == regex.findall(OPENAI_PATTERN, text)


def test_training_is_linear_in_one_endless_word():
    word = "".join(random.Random(0).choices("ACGT", k=200_000))
    started = time.process_time()
    assert len(train_bpe(word, 2000)) == 2000
    assert (
        time.process_time() - started < 15
    )  # about a second; with the whole word counted for each merge, most of a minute
