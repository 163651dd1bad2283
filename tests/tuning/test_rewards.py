"""Rewards: those of the package, those of a file of one's own, what they must not return, and judges that err."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.rng import Generator
from tinygrad_llm.tuning.rewards import check_rewards, label, reward_named, score

FILM = [{"role": "user", "content": "Review the film."}]


def by_length(prompts, completions, **columns):
    return [len(text) for text in completions]


def test_reviews_are_scored_as_what_is_asked_for():
    texts = ["the film was good and warm.", "the play was good.", "the film was goood.", " the film was bad.\n"]
    assert score(reward_named("reviews"), ["Review the film."] * 4, texts) == [2, -1, -1, -1]
    assert score(reward_named("reviews"), ["Say something."] * 2, texts[:2]) == [2, 1]
    assert score(reward_named("reviews"), [FILM], [[{"role": "assistant", "content": "the film was good."}]]) == [1]


def test_exact_looks_at_the_column_answer():
    exact = reward_named("exact")
    columns = {"answer": ["3", 4, "a b"], "level": [1, 2, 3]}
    assert score(exact, ["?"] * 3, [" 3\n", "4", "ab"], columns) == [1, 1, 0]
    with pytest.raises(ConfigError, match="reward exact: the prompts have no further columns: a column 'answer' is"):
        score(exact, ["?"], ["3"])
    with pytest.raises(ConfigError, match="the prompts have the columns level, size: a column 'answer'"):
        score(exact, ["?"], ["3"], {"level": [1], "size": [2]})


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "brevity_of_mine.py").write_text(
        "LIMIT = 3\n"
        "class Longest:\n"
        "    def __call__(self, prompts, completions, **columns):\n"
        "        return [len(text) > LIMIT for text in completions]\n"
        "longest = Longest()\n"
        "def short(prompts, completions, weight, **columns):\n"
        "    return [w / len(text) for text, w in zip(completions, weight)]\n"
    )
    (tmp_path / "broken_of_mine.py").write_text("import nowhere_at_all\n")
    (tmp_path / "torn_of_mine.py").write_text("def f(:\n")
    short = reward_named("brevity_of_mine:short")
    assert score(short, ["?"], ["four"], {"weight": [2]}) == [0.5]
    assert score(reward_named("brevity_of_mine:longest"), ["?"] * 2, ["abc", "abcd"]) == [0, 1]
    with pytest.raises(ConfigError, match="reward brevity_of_mine:short: ZeroDivisionError: division by zero"):
        score(short, ["?"], [""], {"weight": [2]})
    with pytest.raises(ConfigError, match=r"reward brevity_of_mine:short: TypeError: .*weight"):
        score(short, ["?"], ["four"])
    for name, said in {
        "brevity_of_mine:shrt": r"brevity_of_mine has no such function \(did you mean short\?\)",
        "brevity_of_mine:LIMIT": "brevity_of_mine has a int there, not a function",
        "brevity_of_yours:short": "no module 'brevity_of_yours': neither installed nor in ",
        "brevity_of_mine.part:short": "brevity_of_mine",
        "broken_of_mine:f": "broken_of_mine needs a module 'nowhere_at_all', which is not there",
        "torn_of_mine:f": "torn_of_mine cannot be imported: SyntaxError",
        "brevity_of_mine:": "it must be MODULE:FUNCTION",
        ":short": "it must be MODULE:FUNCTION",
        "..up:short": "it must be MODULE:FUNCTION",
        "exakt": r"reward is 'exakt' \(did you mean exact\?\): use reviews, exact, or MODULE:FUNCTION",
    }.items():
        with pytest.raises(ConfigError, match=said) as error:
            reward_named(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, math.nan], "reward f: completion 1 has nan: it must be a finite number"),
        ([-math.inf, 1], "completion 0 has -inf"),
        ([10**400, 1], "completion 0 has 1000"),
        ([1, None], "completion 1 has None"),
        ([1, "2"], "completion 1 has '2'"),
        ([[1], 2], r"completion 0 has \[1\]"),
        ([1], "reward f: returned 1 values for 2 completions: it must return one for each"),
        (1.0, "reward f: returned a float: it must return a list"),
        (None, "returned a NoneType"),
        (np.ones((2, 1)), "completion 0 has array"),
    ],
)
def test_what_a_reward_must_not_return(values, said):
    with pytest.raises(DataError, match=said):
        check_rewards(values, 2, "f")
    if not isinstance(values, np.ndarray):
        with pytest.raises(DataError, match=r"reward .*test_rewards:.*<lambda>"):
            score(lambda prompts, completions: values, ["?"] * 2, ["a", "b"])


def test_numbers_of_any_kind_are_plain_floats_afterwards():
    for values in (
        np.array([1, 0], np.float32),
        [np.int64(1), False],
        (x for x in (1, 0.0)),
        [np.True_, np.float64(0)],
    ):
        found = check_rewards(values, 2, "f")
        assert found == [1.0, 0.0]
        assert all(type(value) is float for value in found)


@given(st.lists(st.lists(st.text("ab", max_size=4), min_size=2, max_size=5), max_size=4))
def test_ranks_are_those_of_the_rewards(answers):
    ranked = label(["?"] * len(answers), answers, by_length, rng=Generator(1))
    for texts, ranks in zip(answers, ranked, strict=True):
        assert set(ranks) == set(range(1, len({len(text) for text in texts}) + 1))
        for (one, a), (other, b) in product(zip(texts, ranks, strict=True), repeat=2):
            assert (len(one) > len(other)) == (a < b)


def test_columns_go_with_each_answer():
    seen = {}

    def spy(prompts, completions, **columns):
        seen.update(prompts=prompts, completions=completions, **columns)
        return [0] * len(completions)

    assert label(["p", "q"], [["a", "b"], ["c"]], spy, columns={"answer": [1, 2]}) == [[1, 1], [1]]
    assert seen == {"prompts": ["p", "p", "q"], "completions": ["a", "b", "c"], "answer": [1, 1, 2]}


def test_a_judge_errs_as_often_as_told():
    n = 2000
    for noise, k in product((0.0, 0.2, 1.0), (2, 3)):
        answers = [["aaa", "a", "aa"][:k]] * n
        ranked = label(["?"] * n, answers, by_length, noise, Generator(3))
        wrong = sum(ranks[0] != 1 for ranks in ranked) / n  # the best is swapped in the first step
        assert abs(wrong - noise) < 0.03
        assert all(sorted(ranks) == list(range(1, k + 1)) for ranks in ranked)
    ties = label(["?"] * n, [["a", "b"]] * n, by_length, 0.5, Generator(3))
    assert ties == [[1, 1]] * n
    with pytest.raises(ConfigError, match=r"noise is 1\.5"):
        label([], [], by_length, 1.5)
