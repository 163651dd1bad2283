"""How well a classifier does: which class it takes for which, and whether its probabilities can be believed.

scores = classification_scores(test.labels, probabilities, test.classes)
print("\\n".join(scores.lines()))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_integer
from ..errors import DataError, NonFiniteError, ShapeError

_SHOWN, _WIDTH = 8, 14  # classes whose confusions are shown as a table; characters of a name


@dataclass(frozen=True)
class Scores:
    """Fractions of 1. A value is None where it would be 0 / 0; `undefined` says which are, and why.

    With tp right and fp wrong predictions of a class, and fn of its texts taken for others: precision tp / (tp + fp), recall
    tp / (tp + fn), F1 2 tp / (2 tp + fp + fn). `confusion[i][j]` texts of class i were taken for class j. A macro average is the
    plain mean over classes, and None where one of them has no value (scikit-learn would count it as 0).
    """

    classes: tuple[str, ...]
    n: int
    accuracy: float
    standard_error: (
        float  # of the accuracy as a share of n texts, sqrt(a (1 - a) / n); 0 where all are right says little
    )
    confusion: tuple[tuple[int, ...], ...]  # rows are the true classes
    support: tuple[int, ...]  # texts of each class
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    calibration_error: (
        float  # how far, on average, the probability of what is predicted is from the share that is right
    )
    threshold: (
        float | None
    )  # of two classes: the second is predicted from this probability on for the best F1 on these texts
    threshold_f1: float | None  # that F1: chosen on these texts, so it flatters; choose on validation, use on test
    undefined: tuple[str, ...]

    def lines(self) -> list[str]:
        """A table of the classes and one of the confusions, for a terminal: at most 100 columns, if counts have 6 digits."""
        names = [_short(name) for name in self.classes]
        wide = max(map(len, [*names, "macro average"]))
        lines = [
            f"accuracy {self.accuracy:.3f} ± {self.standard_error:.3f} of {self.n:,} texts, "
            f"calibration error {self.calibration_error:.3f}",
            f"{'':{wide}}  precision  recall      F1  texts",
        ]
        rows = [*zip(names, self.precision, self.recall, self.f1, self.support, strict=True)]
        rows.append(("macro average", self.macro_precision, self.macro_recall, self.macro_f1, self.n))
        for name, precision, recall, f1, support in rows:
            lines.append(f"{name:{wide}}  {_share(precision):>9}  {_share(recall):>6}  {_share(f1):>6}  {support:5}")
        if len(names) <= _SHOWN:
            across = [name[:9] for name in names]
            lines.append(f"{'true, down':{wide}}  " + " ".join(f"{name:>9}" for name in across) + "  predicted")
            for name, counts in zip(names, self.confusion, strict=True):
                lines.append(f"{name:{wide}}  " + " ".join(f"{count:9}" for count in counts))
        else:
            taken = [
                (count, i, j) for i, row in enumerate(self.confusion) for j, count in enumerate(row) if i != j and count
            ]
            for count, i, j in sorted(taken, key=lambda one: (-one[0], one[1:]))[:_SHOWN]:
                lines.append(f"{count:5} {names[i]} taken for {names[j]}")
        if self.threshold is not None:
            lines.append(
                f"best F1 of {names[1]} on these texts: {_share(self.threshold_f1)}, from probability {self.threshold:.3g}"
            )
        shown = self.undefined[:_SHOWN]
        lines += [" ".join(one.split())[:94] for one in shown]
        if len(self.undefined) > len(shown):
            lines.append(f"and {len(self.undefined) - len(shown)} more values undefined")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON: what belongs to a class stands under its name."""
        by_class = {
            name: {"precision": precision, "recall": recall, "f1": f1, "support": support}
            for name, precision, recall, f1, support in zip(
                self.classes, self.precision, self.recall, self.f1, self.support, strict=True
            )
        }
        whole = (
            "n accuracy standard_error macro_precision macro_recall macro_f1 calibration_error threshold threshold_f1"
        )
        return {name: getattr(self, name) for name in whole.split()} | {
            "classes": by_class,
            "confusion": [list(row) for row in self.confusion],
            "undefined": list(self.undefined),
        }


def classification_scores(
    labels: Sequence[int] | np.ndarray, probabilities: np.ndarray, classes: Sequence[str], n_bins: int = 10
) -> Scores:
    """Scores of probabilities (N, K) for N texts of the classes `labels` (N,), 0 <= label < K.

    Predicted is the likeliest class, the first of equals. The calibration error is the expected calibration error of Guo et al.
    (2017): texts are put into `n_bins` bins of equal width by the probability of what is predicted, and the gaps between that
    probability's mean and the share of right predictions are averaged over the texts. The threshold for two classes is the one
    of the probabilities of the second that gives the best F1, the nearest to 0.5 among equals; None without a text of it.
    ShapeError or DataError for arrays that do not fit, NonFiniteError for NaN.
    """
    names = tuple(classes)
    true, p = np.asarray(labels), np.asarray(probabilities, np.float64)  # (N,), (N, K)
    if p.ndim != 2 or true.ndim != 1 or p.shape != (len(true), len(names)) or len(names) < 2:
        raise ShapeError(
            f"classification_scores: labels {true.shape}, probabilities {p.shape}, {len(names)} classes: need (N,), (N, K) and "
            "K classes, two or more"
        )
    check_integer("classification_scores: n_bins", n_bins)
    n, n_classes = p.shape
    if n == 0:
        raise DataError("classification_scores: there are no texts")
    if true.dtype.kind not in "iu" or true.min() < 0 or true.max() >= n_classes:
        raise DataError(
            f"classification_scores: labels are {true.dtype} from {true.min()} to {true.max()}: need 0 to {n_classes - 1}"
        )
    if not np.isfinite(p).all():
        row = int(np.flatnonzero(~np.isfinite(p).all(1))[0])
        raise NonFiniteError(f"classification_scores: the probabilities of text {row} are {p[row].tolist()!s:.80}")
    wrong = np.flatnonzero((p < 0).any(1) | (np.abs(p.sum(1) - 1) > 1e-3))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"classification_scores: the probabilities of text {row} are {p[row].tolist()!s:.80}: "
            "need 0 or more, and the sum 1"
        )
    predicted = p.argmax(1)  # (N,)
    confusion = np.bincount(true * n_classes + predicted, minlength=n_classes**2).reshape(
        n_classes, n_classes
    )  # (K, K)
    right, support, taken = confusion.diagonal(), confusion.sum(1), confusion.sum(0)  # (K,) each
    accuracy = float(right.sum() / n)
    undefined = [
        f"precision of {name}: nothing was taken for it" for name, m in zip(names, taken, strict=True) if not m
    ]
    undefined += [f"recall of {name}: no text is of it" for name, m in zip(names, support, strict=True) if not m]
    undefined += [f"F1 of {name}: neither" for name, m in zip(names, taken + support, strict=True) if not m]
    precision, recall, f1 = _ratios(right, taken), _ratios(right, support), _ratios(2 * right, taken + support)
    threshold, threshold_f1 = _best_threshold(true == 1, p[:, 1]) if n_classes == 2 else (None, None)
    if n_classes == 2 and threshold is None:
        undefined.append(f"threshold: no text is {names[1]}")
    return Scores(
        classes=names,
        n=n,
        accuracy=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / n),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        support=tuple(support.tolist()),
        precision=precision,
        recall=recall,
        f1=f1,
        macro_precision=_mean(precision),
        macro_recall=_mean(recall),
        macro_f1=_mean(f1),
        calibration_error=_calibration_error(p.max(1), predicted == true, n_bins),
        threshold=threshold,
        threshold_f1=threshold_f1,
        undefined=tuple(undefined),
    )


def _ratios(a: np.ndarray, b: np.ndarray) -> tuple[float | None, ...]:
    return tuple(x / y if y else None for x, y in zip(a.tolist(), b.tolist(), strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if len(there) == len(values) else None


def _calibration_error(confidence: np.ndarray, right: np.ndarray, n_bins: int) -> float:
    """sum over bins of (texts in it / N) |share right - mean confidence|; a confidence of exactly 1 is in the last bin."""
    bins = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)  # (N,)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)  # texts in it times the gap
    return float(np.abs(gaps).sum() / len(confidence))


def _best_threshold(positive: np.ndarray, p: np.ndarray) -> tuple[float | None, float | None]:
    if not positive.any():
        return None, None
    order = np.argsort(-p, kind="stable")
    p, right = (
        p[order],
        np.cumsum(positive[order]),
    )  # with a threshold of p[i], the first i + 1 and their equals are taken
    f1 = 2 * right / (np.arange(1, len(p) + 1) + positive.sum())
    last = np.append(p[1:] != p[:-1], True)
    p, f1 = p[last], f1[last]
    best = np.flatnonzero(f1 == f1.max())
    chosen = best[np.argmin(np.abs(p[best] - 0.5))]
    return float(p[chosen]), float(f1[chosen])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _short(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _WIDTH else name[: _WIDTH - 1] + "…"
