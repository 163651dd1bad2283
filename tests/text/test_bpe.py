"""Byte-pair encoding: the figures of others, and the fast trainer against the one that counts everything again."""

import ast
import inspect
import random
import time
from itertools import pairwise

import pytest
import regex
import tiktoken_ext.openai_public
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.text import story
from tinygrad_llm.text.bpe import (
    GPT4_SPLIT_PATTERN,
    SPLIT_PATTERN,
    apply_merges,
    get_stats,
    merge,
    merge_steps,
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


# ---- other patterns, several texts, one merge at a time


def tiktokens_pattern(encoding):
    """The expression with which tiktoken cuts text, as it stands in its source: calling it would ask the network."""
    tree = ast.parse(inspect.getsource(getattr(tiktoken_ext.openai_public, encoding)))
    (returned,) = (node.value for node in ast.walk(tree) if isinstance(node, ast.Return))
    return next(v.value for k, v in zip(returned.keys, returned.values, strict=True) if k.value == "pat_str")


@given(unicode_text | st.text(st.sampled_from(" \n\r\t\u00a0aB1!'sLl"), max_size=40))
def test_pieces_of_gpt4_are_tiktokens(text):
    pieces = split_pieces(text, GPT4_SPLIT_PATTERN)
    assert "".join(pieces) == text
    assert pieces == regex.findall(tiktokens_pattern("cl100k_base"), text)


def test_gpt4_cuts_otherwise_than_gpt2():
    text = "I'LL pay(1234567)...\n\n  you"
    assert split_pieces(text) == ["I", "'", "LL", " pay", "(", "1234567", ")...", "\n\n ", " you"]
    expected = ["I", "'LL", " pay", "(", "123", "456", "7", ")...\n\n", " ", " you"]
    assert split_pieces(text, GPT4_SPLIT_PATTERN) == expected


@given(unicode_text, st.sampled_from([r"\w+", r"(a|b)+|\s", r"\b", r"(?<=a)b*", r"[^\S\n]*\w+"]))
def test_what_an_own_pattern_leaves_out_is_a_piece_too(text, pattern):
    pieces = split_pieces(text, pattern)
    assert "".join(pieces) == text
    assert "" not in pieces


def test_pieces_of_an_own_pattern():
    assert split_pieces("a1, b22", r"[a-z]+|\d") == ["a", "1", ", ", "b", "2", "2"]


@given(repetitive, st.sampled_from([SPLIT_PATTERN, GPT4_SPLIT_PATTERN, r"\w+", r"[\s\S]+"]))
def test_incremental_trainer_equals_counting_again_with_every_pattern(text, pattern):
    assert train_bpe(text, 20, pattern) == train_bpe_plain(text, 20, pattern)


@given(st.lists(repetitive, max_size=5))
def test_training_on_several_texts_counts_all_their_pieces(texts):
    """No piece of one text reaches into the next; the order of texts makes no difference, and each is asked for once."""
    pieces = [piece for text in texts for piece in split_pieces(text)]
    alone = train_bpe_plain("\x00".join(pieces), 20, r"[^\x00]+")  # the pieces of a text whose border is a character
    assert train_bpe(iter(texts), 20) == train_bpe(reversed(texts), 20) == alone


@given(repetitive, repetitive)
def test_each_merge_of_a_piece_can_be_seen(training_text, text):
    new_ids = rank_merges(train_bpe(training_text, 20))
    ids = list(text.encode())
    for pair, after in merge_steps(list(ids), new_ids):
        possible = [other for other in pairwise(ids) if other in new_ids]
        assert new_ids[pair] == min(new_ids[other] for other in possible)  # the one that was learned first
        assert after == merge(ids, pair, new_ids[pair])
        ids = after
    assert not any(pair in new_ids for pair in pairwise(ids))
    assert apply_merges(text.encode(), new_ids) == ids
