"""Scores of translations beside the formula of the paper and sacrebleu's own values, and the baselines beside plain loops."""

import builtins
import json
import math
import re
from collections import Counter, defaultdict

import pytest

from tinygrad_llm.errors import DataError
from tinygrad_llm.evaluation.answers import wilson_interval
from tinygrad_llm.evaluation.translation import (
    NO_SACREBLEU,
    bleu,
    translate_words,
    translation_baselines,
    translation_scores,
    word_table,
)
from tinygrad_llm.text.pairs import Pair
from tinygrad_llm.text.phrases import phrases

RIGHT = [
    ("The cat sat on the mat near the door.",),
    ("There is an old book on the table.", "An old book is on the table."),
    ("I do not know him",),
]
FOUND = ["The cat sat on a mat near the door.", "An old book is on that table.", "I do not know him"]
STORED = 69.72263686039095  # sacrebleu 2.6.0


def by_the_paper(right, found):
    """Papineni et al. 2002: clipped counts of runs of 1 to 4, the closest reference for the brevity penalty."""
    hits, runs, length, closest = Counter(), Counter(), 0, 0
    for targets, one in zip(right, found, strict=True):
        words = re.findall(r"\w+|[^\w\s]", one)
        others = [re.findall(r"\w+|[^\w\s]", target) for target in targets]
        length += len(words)
        closest += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in (1, 2, 3, 4):
            counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
            most = Counter()
            for other in others:
                most |= Counter(zip(*(other[i:] for i in range(n)), strict=False))
            hits[n] += (counts & most).total()
            runs[n] += counts.total()
    penalty = min(1.0, math.exp(1 - closest / length))
    return 100 * penalty * math.exp(sum(math.log(hits[n] / runs[n]) for n in (1, 2, 3, 4)) / 4)


def test_bleu_is_that_of_the_paper():
    pytest.importorskip("sacrebleu")
    score, signature = bleu(RIGHT, FOUND)
    assert score == pytest.approx(by_the_paper(RIGHT, FOUND), rel=1e-12)
    assert score == pytest.approx(STORED, rel=1e-9)
    assert signature.startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    score, signature = bleu([[targets[0]] for targets in RIGHT], FOUND)
    assert score == pytest.approx(by_the_paper([[targets[0]] for targets in RIGHT], FOUND), rel=1e-12)
    assert signature.startswith("nrefs:1|")
    assert bleu(RIGHT, [targets[-1] for targets in RIGHT])[0] == pytest.approx(100)
    assert bleu(RIGHT, [""] * 3)[0] == 0


def test_periods_that_stand_alone_are_not_warned_about(caplog):
    pytest.importorskip("sacrebleu")
    bleu([["a ."]] * 200, ["a ."] * 200)
    assert not caplog.records


def test_exact_match_and_kinds():
    scores = translation_scores(RIGHT, [" " + one for one in FOUND[:2]] + [RIGHT[2][0] + "\n"], ["x", "y", "x"])
    assert (scores.n, scores.exact_match, scores.interval) == (3, 1 / 3, wilson_interval(1, 3))
    assert {kind: (one.n, one.exact_match) for kind, one in scores.by_kind.items()} == {"x": (2, 0.5), "y": (1, 0.0)}
    assert translation_scores(RIGHT, [targets[-1] for targets in RIGHT]).exact_match == 1
    told = json.loads(json.dumps(scores.to_dict()))
    assert told["interval"] == [*scores.interval]
    assert told["by_kind"]["x"]["exact_match"] == 0.5
    lines = scores.lines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["all", "3", "0.333"],
        ["x", "2", "0.500"],
        ["y", "1", "0.000"],
    ]
    assert all(len(line) < 100 for line in lines)


def test_without_sacrebleu_a_line_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def none(name, *args, **kwargs):
        if name.startswith("sacrebleu"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", none)
    scores = translation_scores(RIGHT, FOUND)
    assert scores.bleu is scores.signature is None
    assert scores.exact_match == 1 / 3
    assert scores.lines()[-1] == NO_SACREBLEU
    assert "pip install sacrebleu" in NO_SACREBLEU


@pytest.mark.parametrize(
    ("right", "found", "kinds", "match"),
    [
        ([], [], None, "there are no sentences"),
        (RIGHT, FOUND[:2], None, "3 sentences have translations, found has 2"),
        (RIGHT, FOUND, ["x"], "3 sentences have translations, kinds has 1"),
        (["a"], ["a"], None, r"right\[0\] is 'a': it must be a list"),
        ([[]], ["a"], None, r"right\[0\] is \[\]"),
        ([["a"]], [None], None, "of sentence 0, None is a NoneType, no str"),
        ([[b"a"]], ["a"], None, "is a bytes, no str"),
    ],
)
def test_what_does_not_fit(right, found, kinds, match):
    with pytest.raises(DataError, match=match):
        translation_scores(right, found, kinds)


# ---- the baselines


TRAIN = [
    Pair("The house", "das Haus"),
    Pair("the book", "Das Buch"),
    Pair("A book", "ein Buch"),
    Pair("a house, a book", "ein Haus, ein Buch"),
    Pair("A book.", "ein Buch"),
]


def by_loops(pairs, rounds):
    """t(f|e) of IBM's model 1, a word at a time."""
    sides = [
        (
            re.findall(r"\w+|[^\w\s]", pair.source.lower()),
            re.findall(r"\w+|[^\w\s]", pair.target[0].lower() + pair.target[1:]),
        )
        for pair in pairs
    ]
    t = {(f, e): 1.0 for es, fs in sides for e in es for f in fs}
    for _ in range(rounds):
        counts, totals = defaultdict(float), defaultdict(float)
        for es, fs in sides:
            for f in fs:
                of_all = sum(t[f, e] for e in es)
                for e in es:
                    counts[f, e] += t[f, e] / of_all
                    totals[e] += t[f, e] / of_all
        t = {(f, e): count / totals[e] for (f, e), count in counts.items()}
    best = {}
    for (f, e), value in t.items():
        if value > best.get(e, ("", 0.0))[1]:
            best[e] = (f, value)
    return {e: f for e, (f, _) in best.items()}


def test_the_table_is_that_of_plain_loops():
    assert word_table(TRAIN)["house"] == "Haus"
    assert word_table(TRAIN)["a"] == "ein"
    pairs = [Pair(*pair) for pair in phrases(1, 300)]
    found, wanted = word_table(pairs), by_loops(pairs, 10)
    assert found.keys() == wanted.keys()
    assert sum(found[word] == wanted[word] for word in wanted) >= len(wanted) - 2  # of equals, either


def test_words_of_the_world_find_their_own():
    table = word_table([Pair(*pair) for pair in phrases(1, 2000)])
    known = {
        "dog": "Hund",
        "cat": "Katze",
        "book": "Buch",
        "example": "Beispiel",
        "is": "ist",
        "not": "nicht",
        "who": "wer",
        "and": None,
    }
    assert {word: table.get(word) for word in known} == known


def test_word_by_word():
    table = {"is": "ist", "this": "das", "a": "ein", "book": "Buch", ",": ",", ".": "."}
    assert translate_words("This is a book, a book.", table) == "Das ist ein Buch, ein Buch."
    assert translate_words("is Anna here?", table) == "ist Anna here?"
    assert translate_words("", table) == ""


def test_the_three():
    found = translation_baselines(TRAIN, ["The book", "A new book"])
    assert [*found] == ["most_frequent", "copy", "word_by_word"]
    assert found["most_frequent"] == ["ein Buch"] * 2
    assert found["copy"] == ["The book", "A new book"]
    assert found["word_by_word"] == ["Das Buch", "Ein new Buch"]
    with pytest.raises(DataError, match="no pairs to train on"):
        translation_baselines([], ["a"])


def test_no_baseline_solves_the_world():
    train, test = ([Pair(*pair) for pair in phrases(1, n, split)] for n, split in ((2000, "train"), (400, "test")))
    exact = {
        name: translation_scores([pair.targets for pair in test], found).exact_match
        for name, found in translation_baselines(train, [pair.source for pair in test]).items()
    }
    assert exact["most_frequent"] == exact["copy"] == 0
    assert 0 < exact["word_by_word"] < 0.15
