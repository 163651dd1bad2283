"""The scores of a classifier beside what their definitions give, one text at a time."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError, NonFiniteError, ShapeError
from tinygrad_llm.evaluation import classification_scores


@st.composite
def judged(draw):
    n_classes, n = draw(st.integers(2, 4)), draw(st.integers(1, 25))
    weights = np.array(
        draw(st.lists(st.lists(st.integers(0, 4), min_size=n_classes, max_size=n_classes), min_size=n, max_size=n))
    )
    weights[:, 0] += weights.sum(1) == 0
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n))
    return np.array(labels), weights / weights.sum(1, keepdims=True), [f"class {k}" for k in range(n_classes)]


def by_loops(labels, probabilities, classes):
    """scikit-learn's definitions, with None for 0 / 0."""
    predicted = [max(range(len(row)), key=lambda k: row[k]) for row in probabilities.tolist()]
    pairs = [*zip(labels.tolist(), predicted, strict=True)]
    found = {"confusion": [], "precision": [], "recall": [], "f1": [], "support": []}
    for k in range(len(classes)):
        tp = sum(t == k == p for t, p in pairs)
        fp = sum(p == k != t for t, p in pairs)
        fn = sum(t == k != p for t, p in pairs)
        found["confusion"].append([sum(t == k and p == j for t, p in pairs) for j in range(len(classes))])
        found["precision"].append(tp / (tp + fp) if tp + fp else None)
        found["recall"].append(tp / (tp + fn) if tp + fn else None)
        found["f1"].append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None)
        found["support"].append(tp + fn)
    return found, sum(t == p for t, p in pairs) / len(pairs), predicted


@given(judged())
def test_the_scores_are_their_definitions(case):
    labels, _, classes = case
    scores = classification_scores(*case)
    found, accuracy, predicted = by_loops(*case)
    assert scores.n == len(labels)
    assert scores.accuracy == accuracy
    assert scores.standard_error == pytest.approx(np.std(np.array(predicted) == labels) / math.sqrt(len(labels)))
    assert np.array(scores.confusion).tolist() == found["confusion"]
    for name in ("precision", "recall", "f1", "support"):
        assert list(getattr(scores, name)) == found[name]
    for name in ("precision", "recall", "f1"):
        macro = None if None in found[name] else pytest.approx(np.mean(found[name]))
        assert getattr(scores, f"macro_{name}") == macro
    nothing = sum(found[name].count(None) for name in ("precision", "recall", "f1"))
    assert len(scores.undefined) == nothing + (len(classes) == 2 and scores.threshold is None)


@given(judged(), st.integers(1, 7))
def test_the_calibration_error(case, n_bins):
    labels, probabilities, _ = case
    _, _, predicted = by_loops(*case)
    bins = [[] for _ in range(n_bins)]
    for row, label, k in zip(probabilities.tolist(), labels, predicted, strict=True):
        bins[min(int(row[k] * n_bins), n_bins - 1)].append((row[k], label == k))
    gaps = [abs(np.mean([c for c, _ in some]) - np.mean([r for _, r in some])) * len(some) for some in bins if some]
    assert classification_scores(*case, n_bins=n_bins).calibration_error == pytest.approx(sum(gaps) / len(labels))


@given(judged().filter(lambda case: len(case[2]) == 2))
def test_the_threshold_is_the_best_there_is(case):
    labels, probabilities, _ = case
    scores = classification_scores(*case)

    def f1(threshold):
        taken = probabilities[:, 1] >= threshold
        return 2 * (taken & (labels == 1)).sum() / (taken.sum() + labels.sum())

    if not labels.any():
        assert scores.threshold is scores.threshold_f1 is None
        assert "threshold: no text is class 1" in scores.undefined
        return
    best = max(f1(threshold) for threshold in [*probabilities[:, 1], 2])
    assert scores.threshold_f1 == pytest.approx(best)
    assert f1(scores.threshold) == pytest.approx(best)
    as_good = [t for t in probabilities[:, 1] if f1(t) == pytest.approx(best)]
    assert abs(scores.threshold - 0.5) == min(abs(t - 0.5) for t in as_good)


@given(judged())
def test_lines_fit_a_terminal_and_the_dictionary_is_json(case):
    scores = classification_scores(*case)
    assert all(len(line) <= 100 and "\n" not in line for line in scores.lines())
    assert all(not math.isnan(x) for x in _numbers(json.loads(json.dumps(scores.to_dict(), allow_nan=False))))


def _numbers(value):
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        return [x for one in value for x in _numbers(one)]
    return [value] if isinstance(value, (int, float)) else []


def test_a_known_case():
    p = np.array([0.1, 0.2, 0.6, 0.4, 0.8, 0.9])
    scores = classification_scores([0, 0, 0, 1, 1, 1], np.stack([1 - p, p], 1), ("ham", "spam"))
    assert scores.lines() == [
        "accuracy 0.667 ± 0.192 of 6 texts, calibration error 0.300",
        "               precision  recall      F1  texts",
        "ham                0.667   0.667   0.667      3",
        "spam               0.667   0.667   0.667      3",
        "macro average      0.667   0.667   0.667      6",
        "true, down           ham      spam  predicted",
        "ham                    2         1",
        "spam                   1         2",
        "best F1 of spam on these texts: 0.857, from probability 0.4",
    ]
    assert scores.to_dict()["classes"]["spam"] == {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    assert scores.to_dict()["confusion"] == [[2, 1], [1, 2]]


def test_many_classes_with_long_names():
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 30, 2000), rng.dirichlet(np.ones(60), 2000)
    scores = classification_scores(labels, p, [f"a class with\nthe number {k}" for k in range(60)])
    lines = scores.lines()
    assert all(len(line) <= 100 and "\n" not in line for line in lines)
    count = max(scores.confusion[i][j] for i in range(60) for j in range(60) if i != j)
    assert any(line.startswith(f"{count:5} a class with") and "taken for" in line for line in lines)
    assert f"recall of {scores.classes[40]}: no text is of it" in scores.undefined


@pytest.mark.parametrize(
    ("labels", "p", "classes", "error", "match"),
    [
        ([0], [[1, 0], [1, 0]], "ab", ShapeError, r"labels \(1,\), probabilities \(2, 2\), 2 classes"),
        ([0], [[1.0]], "a", ShapeError, "two or more"),
        ([0], [0.5], "ab", ShapeError, r"probabilities \(1,\)"),
        ([], np.zeros((0, 2)), "ab", DataError, "there are no texts"),
        ([2], [[1, 0]], "ab", DataError, "labels are int64 from 2 to 2: need 0 to 1"),
        ([0.5], [[1, 0]], "ab", DataError, "labels are float64"),
        ([0, 0], [[1, 0], [np.nan, 0]], "ab", NonFiniteError, "text 1 are"),
        ([0, 0], [[1, 0], [0.5, 0.6]], "ab", DataError, r"text 1 are \[0.5, 0.6\]: need 0 or more, and the sum 1"),
        ([0], [[2, -1]], "ab", DataError, "text 0"),
    ],
)
def test_what_does_not_fit(labels, p, classes, error, match):
    with pytest.raises(error, match=match):
        classification_scores(labels, np.array(p, float), classes)
    with pytest.raises(ConfigError, match="n_bins is 0"):
        classification_scores([0], np.array([[1.0, 0.0]]), "ab", n_bins=0)
