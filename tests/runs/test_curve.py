"""Curves as they should be, and as they should not."""

import math

import pytest

from tinygrad_llm.runs.curve import judge_fall, judge_numbers, judge_spikes, judge_start, judge_validation


def rows(train, val=None, lr=None):
    val, lr = val or train, lr or [1e-3] * len(train)
    return [
        {"step": 10 * i, "train_loss": t, "val_loss": v, "lr": r}
        for i, (t, v, r) in enumerate(zip(train, val, lr, strict=True))
    ]


@pytest.mark.parametrize(
    ("train", "verdict", "word"),
    [
        ([7.0, 6.0, 5.0, 4.5, 4.2, 4.0, 3.9], "ok", "7.00 -> 3.90"),
        ([7.0], "look", "first step"),
        ([7.0, 6.99, 7.0, 6.98], "wrong", "nothing is learned"),
        ([7.0, 6.0, 6.5, 9.0], "wrong", "diverges"),
        ([7.0, 6.2, 5.9, 5.85, 5.85, 5.85, 5.84, 5.85], "look", "flat since step 50"),
        ([7.0, 6.8, 6.5], "look", "counting tokens reaches 6.00"),
    ],
)
def test_the_fall_of_a_curve(train, verdict, word):
    found = judge_fall(rows(train), 6.0)
    assert found.verdict == verdict
    assert word in str(found)


def test_a_curve_that_is_flat_because_the_learning_rate_has_gone_down_is_normal():
    lr = [1e-3, 1e-3, 9e-4, 7e-4, 4e-4, 1e-4, 5e-5, 0.0]
    assert judge_fall(rows([7.0, 6.2, 5.9, 5.85, 5.85, 5.85, 5.84, 5.85], lr=lr), 6.0).verdict == "ok"


def test_jumps():
    assert judge_spikes(rows([7.0, 6.0, 6.4, 5.0])).verdict == "ok"
    found = judge_spikes(rows([7.0, 5.0, 6.4, 5.05, 4.0]))
    assert found.verdict == "look"
    assert "from 5.00 to 6.40 at step 20 and is back at step 30" in found.text
    assert judge_spikes(rows([7.0, 5.0, 6.4, 6.3, 6.0])).verdict == "wrong"


def test_validation():
    assert judge_validation(rows([7.0, 5.0, 4.0], [7.0, 5.5, 5.0]), 6.0).verdict == "ok"
    assert "counting tokens" in judge_validation(rows([7.0, 5.0, 4.0], [7.0, 6.5, 6.2]), 6.0).text
    by_heart = judge_validation(rows([7.0, 5.0, 4.0, 2.0], [7.0, 5.5, 5.0, 6.0]), 6.0)
    assert "since step 20" in by_heart.text
    assert "by heart" in by_heart.text
    assert "both losses" in judge_validation(rows([7.0, 5.0, 5.5], [7.0, 5.5, 6.5]), 6.0).text


@pytest.mark.parametrize(
    ("train", "val", "advice"),
    [
        ([7.0, 6.8, 6.6], [7.0, 6.8, 6.7], "train longer, or on more text"),
        ([7.0, 4.0, 1.0], [7.0, 6.5, 9.0], "give it more text"),
        ([7.0, 6.8, 6.9], [7.0, 6.5, 9.0], "try a lower learning rate"),
    ],
)
def test_only_who_may_still_learn_is_told_to_train_longer(train, val, advice):
    """Counting tokens reaches 6, below all of these."""
    found = judge_validation(rows(train, val), 6.0)
    assert (found.verdict, found.advice) == ("look", advice)
    assert ("counting tokens (6.50, 6.00)" in found.text) == (advice == "give it more text")


def test_beginnings():
    assert judge_start(rows([7.1]), 1024).verdict == "ok"
    assert judge_start(rows([9.8]), 1024).verdict == "wrong"
    assert judge_start(rows([3.0]), 1024).verdict == "look"  # from trained weights
    assert judge_numbers(rows([7.0, math.nan])).verdict == "wrong"
    assert judge_numbers([]).verdict == "look"
