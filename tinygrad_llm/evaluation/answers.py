"""How good written answers are, beside the answers that were expected: no model and no network is asked.

found = [...]                                                  # what a model wrote to each of `test`
kinds = [lesson.kind for lesson in test]
scores = answer_scores([lesson.answer for lesson in test], found, kinds)
print("\\n".join(scores.lines()))
answer_scores(expected, most_frequent(train, test), kinds)     # what any model has to beat
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import DataError
from ..text.lessons import Lesson
from .losses import split_words

_Z = 1.959963984540054  # of the normal distribution: 95 % lie between -z and z
_NGRAM = 4
_SHOWN = 14  # characters of the name of a kind


@dataclass(frozen=True)
class AnswerScores:
    """Fractions of 1, means over `n` answers, but for `length`. A word is what white space separates, with its case and marks.

    exact_match     the share that is what was expected, white space at the ends aside
    interval        95 % interval of that share, by Wilson (1927): it is honest for few answers, and for shares of 0 and 1
    token_f1        words in common, each as often as it is in both: 2 c / (words expected + words found), as of Rajpurkar et al.
                    (2016); 1 if neither has any. Their normalisation, which drops case, marks and articles, is left out: by it
                    "lantern" would be right in capitals and letter by letter, and the answer "a" would be nothing
    rouge_l         F1 of the longest common subsequence of words: 2 l / (words expected + words found) (Lin 2004, beta 1)
    edit_distance   characters to insert, delete or replace (Levenshtein 1966) / characters of the longer; 0 is the same
    length          characters found / characters expected, of all answers together; None where nothing was expected
    repetition      share of an answer's runs of 4 words that it has had before (seq-rep-4 of Welleck et al. 2020)
    right           the share that was judged right, and `right_interval`; None where nobody judged
    """

    n: int
    exact_match: float
    interval: tuple[float, float]
    token_f1: float
    rouge_l: float
    edit_distance: float
    length: float | None
    repetition: float
    right: float | None = None
    right_interval: tuple[float, float] | None = None
    by_kind: dict[str, AnswerScores] = field(default_factory=dict)  # in the order in which kinds come first

    def lines(self) -> list[str]:
        """A table with a row a kind, for a terminal: under 100 columns."""
        judged = "" if self.right is None else "  right"
        lines = [f"{'':{_SHOWN}}      n{judged}  exact  95 % interval    F1  ROUGE-L  edits  length  repeated"]
        for name, scores in [("all", self), *self.by_kind.items()]:
            low, high = scores.interval
            length = "-" if scores.length is None else f"{scores.length:.2f}"
            right = "" if scores.right is None else f"  {scores.right:5.3f}"
            lines.append(
                f"{_short(name):{_SHOWN}} {scores.n:6}{right}  {scores.exact_match:5.3f}    {low:.3f}-{high:.3f} "
                f"{scores.token_f1:5.3f}    {scores.rouge_l:5.3f}  {scores.edit_distance:5.3f}  {length:>6}     "
                f"{scores.repetition:5.3f}"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the scores of a kind stand under its name in "by_kind"; "right" is there if somebody judged."""
        names = ["n", "exact_match", "interval", "token_f1", "rouge_l", "edit_distance", "length", "repetition"]
        names += [] if self.right is None else ["right", "right_interval"]
        values = {name: getattr(self, name) for name in names}
        values |= {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return values | {"by_kind": {kind: scores.to_dict() for kind, scores in self.by_kind.items()}}


def answer_scores(
    expected: Sequence[str],
    found: Sequence[str],
    kinds: Sequence[str] | None = None,
    right: Sequence[bool] | None = None,
) -> AnswerScores:
    """Scores of the answers `found` beside those `expected`, N each; `kinds` to have them for each kind too.

    `right` says of each answer whether `check_answer` or a person takes it for right, which is counted beside exact_match. White
    space at the ends of an answer does not count. DataError for no answers, unequal numbers, and answers that are no str.
    """
    n = len(expected)
    if n == 0:
        raise DataError("answer_scores: there are no answers")
    for name, given in {"found": found, "kinds": kinds, "right": right}.items():
        if given is not None and len(given) != n:
            raise DataError(f"answer_scores: {n} answers are expected, {name} has {len(given)}: give one for each")
    for name, answers in {"expected": expected, "found": found}.items():
        if isinstance(answers, str):
            raise DataError(f"answer_scores: {name} is {answers!r:.80}: it must be a list of answers")
        for i, answer in enumerate(answers):
            if not isinstance(answer, str):
                raise DataError(f"answer_scores: {name}[{i}] is a {type(answer).__name__}: it must be a str")
    rows = [_score(one, other) for one, other in zip(expected, found, strict=True)]
    judged = None if right is None else [bool(one) for one in right]
    places: dict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate([] if kinds is None else kinds):
        places[kind].append(i)
    by_kind = {kind: _together(rows, judged, at, {}) for kind, at in places.items()}
    return _together(rows, judged, range(n), by_kind)


def most_frequent(train: Sequence[Lesson], test: Sequence[Lesson]) -> list[str]:
    """The answers of one that has not read the question: for each of `test` the commonest answer of its kind in `train`, the
    first of equals.

    DataError for a kind that `train` has not.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for lesson in train:
        counts[lesson.kind][lesson.answer] += 1
    for lesson in test:
        if lesson.kind not in counts:
            raise DataError(
                f"most_frequent: no lesson to train on is of kind {lesson.kind!r:.80}: there are {', '.join(counts) or 'none'}"
            )
    best = {kind: of.most_common(1)[0][0] for kind, of in counts.items()}
    return [best[lesson.kind] for lesson in test]


def wilson_interval(k: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, of which k of n were seen (Wilson 1927): all p with |k/n - p| <= z sqrt(p (1 - p) / n)."""
    p, z2 = k / n, _Z * _Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half) if k else 0.0, min(1.0, middle + half) if k < n else 1.0


def mean_interval(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean, (N,): z times its standard error; 0 for one value."""
    return 0.0 if len(values) < 2 else _Z * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def edit_distance(one: str, other: str) -> int:
    """The least number of characters to insert, delete or replace that turns one text into the other (Levenshtein 1966)."""
    a, b = _numbers(one, other)
    steps = np.arange(len(b) + 1)
    row = steps  # row[j]: from the characters of a so far to b[:j]
    for number in a.tolist():
        new = row + 1  # delete from a
        new[1:] = np.minimum(new[1:], row[:-1] + (b != number))  # replace, or keep
        row = np.minimum.accumulate(new - steps) + steps  # insert any number: the best of all before, and one for each
    return int(row[-1])


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest sequence that both have in this order, with gaps."""
    a, b = _numbers(one, other)
    row = np.zeros(len(b) + 1, np.int64)  # row[j]: of the words of a so far and b[:j]
    for number in a.tolist():
        new = row.copy()
        new[1:] = np.maximum(row[1:], row[:-1] + (b == number))
        row = np.maximum.accumulate(new)
    return int(row[-1])


def _numbers(one: Sequence[Hashable], other: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Both sequences as integers, equal where they are equal."""
    number = {item: i for i, item in enumerate(dict.fromkeys([*one, *other]))}
    a, b = (np.array([number[item] for item in items], np.int64) for items in (one, other))
    return a, b


@dataclass(frozen=True)
class _Score:
    """One answer."""

    exact: bool
    token_f1: float
    rouge_l: float
    edit_distance: float
    expected: int  # characters
    found: int
    repetition: float


def _score(expected: str, found: str) -> _Score:
    expected, found = expected.strip(), found.strip()
    one, other = split_words(expected), split_words(found)
    n_words = len(one) + len(other)
    in_common = (Counter(one) & Counter(other)).total()
    runs = list(zip(*(other[i:] for i in range(_NGRAM)), strict=False))
    return _Score(
        exact=expected == found,
        token_f1=2 * in_common / n_words if n_words else 1.0,
        rouge_l=2 * common_subsequence(one, other) / n_words if n_words else 1.0,
        edit_distance=edit_distance(expected, found) / max(1, len(expected), len(found)),
        expected=len(expected),
        found=len(found),
        repetition=1 - len(set(runs)) / len(runs) if runs else 0.0,
    )


def _together(
    rows: Sequence[_Score], judged: Sequence[bool] | None, at: Sequence[int], by_kind: dict[str, AnswerScores]
) -> AnswerScores:
    chosen, n = [rows[i] for i in at], len(at)

    def mean(value: Callable[[_Score], float]) -> float:
        return math.fsum(map(value, chosen)) / n

    exact, length = sum(row.exact for row in chosen), sum(row.expected for row in chosen)
    right = None if judged is None else sum(judged[i] for i in at)
    return AnswerScores(
        n=n,
        exact_match=exact / n,
        interval=wilson_interval(exact, n),
        token_f1=mean(lambda row: row.token_f1),
        rouge_l=mean(lambda row: row.rouge_l),
        edit_distance=mean(lambda row: row.edit_distance),
        length=sum(row.found for row in chosen) / length if length else None,
        repetition=mean(lambda row: row.repetition),
        right=None if right is None else right / n,
        right_interval=None if right is None else wilson_interval(right, n),
        by_kind=by_kind,
    )


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…"
