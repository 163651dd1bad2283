"""The scores of answers beside plain loops written here, and beside what the papers print."""

import json
import math
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import DataError
from tinygrad_llm.evaluation import AnswerScores, answer_scores, most_frequent
from tinygrad_llm.evaluation.answers import common_subsequence, edit_distance, wilson_interval
from tinygrad_llm.text.lessons import Lesson, lessons

TEXTS = st.text("ab c.A", max_size=14) | st.text(max_size=10)
WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=9)
SENTENCES = WORDS.map(" ".join)


def by_recursion(one, other):
    """The longest common subsequence, by its definition."""

    @cache
    def longest(i, j):
        if i == len(one) or j == len(other):
            return 0
        if one[i] == other[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return longest(0, 0)


def by_table(one, other):
    """Levenshtein's distance, cell by cell (Wagner and Fischer 1974)."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one) + 1):
        for j in range(len(other) + 1):
            if i == 0 or j == 0:
                table[i][j] = i + j
            else:
                table[i][j] = min(
                    table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
                )
    return table[-1][-1]


def by_counting(one, other):
    """Precision and recall of words, as SQuAD's script has them."""
    left = {}
    for word in one:
        left[word] = left.get(word, 0) + 1
    same = 0
    for word in other:
        if left.get(word, 0) > 0:
            left[word] -= 1
            same += 1
    if not one or not other:
        return float(one == other)
    if same == 0:
        return 0.0
    precision, recall = same / len(other), same / len(one)
    return 2 * precision * recall / (precision + recall)


def lin(one, other):
    """ROUGE-L of Lin (2004), equations 2 to 4, with beta 1."""
    if not one or not other:
        return float(one == other)
    l = by_recursion(tuple(one), tuple(other))  # noqa: E741
    if l == 0:
        return 0.0
    recall, precision, beta = l / len(one), l / len(other), 1
    return (1 + beta**2) * recall * precision / (recall + beta**2 * precision)


def repeated(words):
    seen, again, n = [], 0, 0
    for i in range(len(words) - 3):
        run = words[i : i + 4]
        again += run in seen
        seen.append(run)
        n += 1
    return again / n if n else 0.0


@given(TEXTS, TEXTS)
def test_edit_distance_is_that_of_the_table(one, other):
    assert edit_distance(one, other) == by_table(one, other) == edit_distance(other, one)


@given(WORDS, WORDS)
def test_the_common_subsequence_is_that_of_the_recursion(one, other):
    assert common_subsequence(one, other) == by_recursion(tuple(one), tuple(other))


@given(st.lists(st.tuples(SENTENCES, SENTENCES, st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=8))
def test_scores_are_means_of_their_definitions(rows):
    expected, found, kinds, right = map(list, zip(*rows, strict=True))
    scores = answer_scores(expected, found, kinds, right)
    assert list(scores.by_kind) == list(dict.fromkeys(kinds))
    for kind, part in {None: scores, **scores.by_kind}.items():
        some = [row for row in rows if kind in (None, row[2])]
        n = len(some)
        assert part.n == n
        assert part.exact_match == sum(one == other for one, other, _, _ in some) / n
        assert part.right == sum(row[3] for row in some) / n
        pairs = [(one.split(), other.split()) for one, other, _, _ in some]
        assert part.token_f1 == pytest.approx(sum(by_counting(*pair) for pair in pairs) / n)
        assert part.rouge_l == pytest.approx(sum(lin(*pair) for pair in pairs) / n)
        edits = [by_table(one, other) / max(len(one), len(other), 1) for one, other, _, _ in some]
        assert part.edit_distance == pytest.approx(sum(edits) / n)
        total = sum(len(row[0]) for row in some)
        assert part.length == (sum(len(row[1]) for row in some) / total if total else None)
        assert part.repetition == pytest.approx(sum(repeated(words) for _, words in pairs) / n)
        assert part.rouge_l <= part.token_f1 + 1e-12  # an order is asked for on top
        assert part.interval == wilson_interval(round(part.exact_match * n), n)
        assert part.right_interval == wilson_interval(round(part.right * n), n)


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_what_was_expected_is_right(answers):
    scores = answer_scores(answers, [f" {answer}\n" for answer in answers])
    assert (scores.exact_match, scores.token_f1, scores.rouge_l, scores.edit_distance) == (1, 1, 1, 0)
    assert scores.length in (1, None)
    assert scores.by_kind == {}
    assert scores.right is scores.right_interval is None


def test_the_examples_of_lin():
    """ROUGE 2004, section 3.1: S1 "police killed the gunman", and S2 to S4 with 3/4, 2/4 and 2/4."""
    for summary, value in {
        "police kill the gunman": 3 / 4,
        "the gunman kill police": 2 / 4,
        "the gunman police killed": 2 / 4,
    }.items():
        assert answer_scores(["police killed the gunman"], [summary]).rouge_l == value


def test_known_edit_distances():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("intention", "execution") == 5  # Jurafsky and Martin, with substitution at 1
    assert edit_distance("", "abc") == edit_distance("abc", "") == 3
    assert edit_distance("", "") == 0
    assert answer_scores(["kitten"], ["sitting"]).edit_distance == 3 / 7


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_holds_the_shares_that_could_have_given_this(case):
    k, n = case
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for p in (low, high):
        if 0 < p < 1:
            assert abs(k / n - p) == pytest.approx(1.959963984540054 * math.sqrt(p * (1 - p) / n))
    assert (low == 0) == (k == 0)
    assert (high == 1) == (k == n)


def test_known_intervals():
    """Newcombe (1998), table I, method 3: 81 of 263 and 15 of 148, 0 of 20 and 1 of 29."""
    for (k, n), interval in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson_interval(k, n) == pytest.approx(interval, abs=5e-5)


def test_words_keep_their_case_and_marks():
    """By SQuAD's normalisation all of these would be right."""
    for expected, found in (("LANTERN", "lantern"), ("l-a-n", "lan"), ("a", "the")):
        assert answer_scores([expected], [found]).token_f1 == 0
    assert answer_scores(["in the mill"], ["the mill"]).token_f1 == pytest.approx(4 / 5)


def test_repetition():
    assert answer_scores(["x"], ["to be or not to be or not"]).repetition == pytest.approx(1 / 5)
    assert answer_scores(["x"], ["la " * 103]).repetition == 0.99
    assert answer_scores(["x"], ["la la la"]).repetition == 0


def test_json_and_a_table():
    scores = answer_scores(["a b", "c"] * 4, ["a b", "d"] * 4, ["one", "a kind with a long name"] * 4)
    told = scores.to_dict()
    keys = {"n", "exact_match", "interval", "token_f1", "rouge_l", "edit_distance", "length", "repetition", "by_kind"}
    assert told.keys() == keys
    assert told["by_kind"]["one"].keys() == keys
    assert told["by_kind"]["one"]["by_kind"] == {}
    assert json.loads(json.dumps(told)) == told
    assert told["exact_match"] == 0.5
    lines = scores.lines()
    assert len(lines) == 4
    assert lines[2].split() == ["one", "4", "1.000", "0.510-1.000", "1.000", "1.000", "0.000", "1.00", "0.000"]
    judged = answer_scores(["a", ""], ["b", ""], ["x", "empty"], [True, False])
    assert judged.to_dict().keys() == keys | {"right", "right_interval"}
    assert judged.lines()[2].split()[:4] == ["x", "1", "1.000", "0.000"]
    assert judged.by_kind["empty"].length is None
    wide = answer_scores(["a"] * 3, ["b " * 500] * 3, ["kind"] * 3, [True] * 3)
    for one in (scores, judged, wide):
        assert max(map(len, one.lines())) < 100
        assert len({len(line) for line in one.lines()}) == 1
    assert isinstance(scores, AnswerScores)


def test_the_commonest_answer_of_a_kind():
    train = [Lesson("x", "", answer=answer) for answer in "abbaa"] + [Lesson("y", "", answer=one) for one in "qrrq"]
    assert most_frequent(train, [Lesson("y", ""), Lesson("x", ""), Lesson("y", "")]) == ["q", "a", "q"]
    assert most_frequent(train, []) == []
    with pytest.raises(DataError, match="most_frequent: no lesson to train on is of kind 'z': there are x, y"):
        most_frequent(train, [Lesson("z", "")])
    with pytest.raises(DataError, match="there are none"):
        most_frequent([], [Lesson("z", "")])


def test_the_baseline_knows_hardly_anything():
    train, test = lessons(1, 2000), lessons(1, 500, "test")
    kinds = [lesson.kind for lesson in test]
    scores = answer_scores([lesson.answer for lesson in test], most_frequent(train, test), kinds)
    assert scores.by_kind["last"].exact_match == pytest.approx(0.2, abs=0.1)  # "e"
    for kind in ("upper", "spell", "reverse", "passive"):
        assert scores.by_kind[kind].exact_match == 0


def test_what_cannot_be_scored():
    with pytest.raises(DataError, match="answer_scores: there are no answers"):
        answer_scores([], [])
    with pytest.raises(DataError, match="2 answers are expected, found has 1: give one for each"):
        answer_scores(["a", "b"], ["a"])
    with pytest.raises(DataError, match="kinds has 3"):
        answer_scores(["a"], ["a"], ["x"] * 3)
    with pytest.raises(DataError, match="right has 0"):
        answer_scores(["a"], ["a"], right=[])
    with pytest.raises(DataError, match=r"answer_scores: found\[1\] is a NoneType: it must be a str"):
        answer_scores(["a", "b"], ["a", None])
    with pytest.raises(DataError, match="answer_scores: found is 'yes': it must be a list of answers"):
        answer_scores(["a", "b", "c"], "yes")
