import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import DataError
from tinygrad_llm.evaluation.losses import (
    all_windows,
    bits_per_byte,
    copied_run,
    longest_copied_run,
    mean_loss,
    split_words,
    unigram_cross_entropy,
    unigram_entropy,
    words_or_characters,
)
from tinygrad_llm.models.gpt import GPTConfig, GPTModel


@given(n=st.integers(2, 40), context_length=st.integers(1, 12), batch_size=st.integers(1, 5))
def test_each_token_but_the_first_is_a_target_once(n, context_length, batch_size):
    batches = all_windows(np.arange(n), context_length, batch_size)
    targets = np.concatenate([targets.ravel() for _, targets in batches])
    assert targets.tolist() == list(range(1, n))
    for ids, targets in batches:
        assert (ids + 1 == targets).all()
        assert len(ids) <= batch_size
        assert ids.shape[1] <= context_length


def test_mean_loss_counts_every_token_the_same():
    tg.manual_seed(0)
    model = GPTModel(GPTConfig(11, 8, 8, 2, 1, drop_rate=0.5)).astype(np.float64)
    ids = np.random.default_rng(0).integers(0, 11, 22)
    batches = all_windows(ids, 8, 2)
    assert {targets.size for _, targets in batches} == {16, 5}
    model.eval()
    losses = []
    for inputs, targets in batches:
        for row, goals in zip(inputs, targets, strict=True):
            logits = model(row[None]).data[0]  # (T, V)
            losses += [math.log(np.exp(z).sum()) - z[goal] for z, goal in zip(logits, goals, strict=True)]
    model.train()
    assert mean_loss(model, batches) == pytest.approx(np.mean(losses), rel=1e-12)
    assert model.training
    assert model.drop_emb.training
    with pytest.raises(DataError, match="no batches"):
        mean_loss(model, [])


def test_bits_per_byte_of_uniform_bytes_is_eight():
    assert bits_per_byte(math.log(256), 100, 100) == pytest.approx(8)
    assert bits_per_byte(math.log(256), 50, 100) == pytest.approx(4)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=50), st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_unigram_figures_equal_their_definitions(train_ids, ids):
    counts = Counter(train_ids)
    entropy = -sum(n / len(train_ids) * math.log(n / len(train_ids)) for n in counts.values())
    assert unigram_entropy(train_ids) == pytest.approx(entropy, abs=1e-12)
    losses = [-math.log((counts[i] + 1) / (len(train_ids) + 7)) for i in ids]
    assert unigram_cross_entropy(train_ids, ids, 7) == pytest.approx(sum(losses) / len(ids))


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=14).map(" ".join)


@given(words, words)
def test_longest_copied_run_equals_brute_force(text, source):
    mine, theirs = text.split(), source.split()
    runs = [
        mine[i:j]
        for i in range(len(mine) + 1)
        for j in range(i, len(mine) + 1)
        if any(mine[i:j] == theirs[k : k + j - i] for k in range(len(theirs) + 1))
    ]
    longest = max(len(run) for run in runs)
    assert longest_copied_run(text, source) == next((run for run in runs if len(run) == longest), [])


def test_characters_are_counted_where_there_are_no_spaces():
    source = "从前有一只小猫，它住在山上。他说 hello world 和再见"
    assert longest_copied_run("一只小猫，它 住在", source) == list("一只小猫，它住在")
    assert copied_run("x一只小猫，它\n住在", [source]) == "一只小猫，它 住在"
    assert copied_run("上。他说  hello world 和", [source]) == "上。他说 hello world 和"
    assert split_words("ในครั้งหนึ่ง the cat") == [*"ในครั้งหนึ่ง", "the", "cat"]
    assert split_words("옛날 옛적에 the cat's") == ["옛날", "옛적에", "the", "cat's"]
    assert [words_or_characters(text) for text in (source, "the 猫 sat on it", "")] == ["characters", "words", "words"]


def test_longest_copied_run_of_large_texts_is_quick():
    source = " ".join(["to be or not"] * 50_000)  # the worst case: every word matches everywhere
    assert longest_copied_run("hark " + "not to be or " * 20 + "yes", source) == ("not to be or " * 20).split()


def test_the_longest_of_several_sources():
    sources = ["the dog ran to the log", "a cat sat on the mat", "the cat sat still"]
    assert copied_run("so the cat sat on the bed", sources) == "cat sat on the"
    assert copied_run("", sources) == copied_run("the", []) == ""
