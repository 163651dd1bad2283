"""Texts with labels, to learn to classify from: reading them, counting, splitting, balancing.

data = read_labelled("SMSSpamCollection")              # CSV, TSV, JSON lines, a JSON array, a folder of folders: found out
data.said                                              # ["TSV with a tab between columns", "encoding utf-8", ...]
data = data.without(exact_duplicates(data.texts))      # before splitting: a duplicate in two parts would be a leak
data, weights = data.balance("undersample", seed=123)
train, validation, test = data.split((0.7, 0.1, 0.2), seed=123)
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..checks import did_you_mean, is_integer, is_number
from ..errors import ConfigError, DataError
from ..rng import Generator
from .data_files import file_name
from .label_files import MISSING, Pairs, read_pairs

BALANCES = ("undersample", "weights", "none")
PARTS = ("training", "validation", "test")

_NOT_A_NUMBER = {"nan", "null", "<na>", "#n/a"}  # what spreadsheets and data frames write for nothing


@dataclass(frozen=True, eq=False)
class Labelled:
    """N texts, and for each the index of its class. `labels` is int64 (N,), 0 <= label < len(classes).

    `said` are lines about where the texts came from. DataError for labels that do not fit texts and classes.
    """

    texts: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.shape != (len(self.texts),) or (labels.size and labels.dtype.kind not in "iu"):
            raise DataError(
                f"Labelled: labels are {labels.dtype} of shape {labels.shape}: {len(self.texts)} texts need an integer each"
            )
        if labels.size and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise DataError(
                f"Labelled: labels go from {labels.min()} to {labels.max()}: the {len(self.classes)} classes are "
                f"0 to {len(self.classes) - 1}"
            )
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "classes", tuple(self.classes))

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """How many texts each class has, in the order of the classes."""
        return dict(zip(self.classes, np.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=True))

    def select(self, indices: Sequence[int] | np.ndarray) -> Labelled:
        """The texts at these indices, in this order."""
        chosen = np.asarray(indices, np.int64) if len(indices) else np.zeros(0, np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise DataError(f"select: indices go from {chosen.min()} to {chosen.max()}: there are {len(self)} texts")
        return replace(self, texts=[self.texts[i] for i in chosen.tolist()], labels=self.labels[chosen])

    def without(self, indices: Sequence[int] | np.ndarray) -> Labelled:
        """All texts but those at these indices, in their order."""
        return self.select(np.setdiff1d(np.arange(len(self)), indices))

    def split(
        self, ratios: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 123
    ) -> tuple[Labelled, Labelled, Labelled]:
        """Three parts, to train on, to validate with and to test on, shuffled by the seed as the book does (listing 6.3).

        Their sizes are int(N r0), int(N r1) and the rest. ConfigError for ratios that are not three above 0 with the sum 1;
        DataError for a part in which a class is missing.
        """
        parts = tuple(self.select(chosen) for chosen in cut_in_three(len(self), ratios, seed))
        for name, part in zip(PARTS, parts, strict=True):
            for wanted, n in part.counts().items():
                if n == 0:
                    raise DataError(
                        f"split: none of the {len(part)} texts of the {name} part is {wanted!r}, and "
                        f"{self.counts()[wanted]} of all {len(self)} are: take more texts of it, other ratios, or another seed"
                    )
        return parts[0], parts[1], parts[2]

    def balance(self, how: str = "undersample", seed: int = 123) -> tuple[Labelled, np.ndarray]:
        """Texts, and a weight for the loss of each class, float64 (K,), such that no class counts more than another.

        "undersample": of each class as many texts, drawn by the seed, as the smallest has, in their order, with weights of 1: as
        the book does (listing 6.2). "weights": all texts, with the weights N / (K n_k), whose mean over the texts is 1. "none":
        all texts, with weights of 1. DataError where a class has no text.
        """
        if how not in BALANCES:
            raise ConfigError(f"balance: how is {how!r:.80}: use one of {', '.join(BALANCES)}")
        counts = self.counts()
        ones = np.ones(len(self.classes))  # (K,)
        if how == "none":
            return self, ones
        empty = [name for name, n in counts.items() if n == 0]
        if empty:
            raise DataError(f"balance: no text is {empty[0]!r}: {how} needs one of each class, how='none' does not")
        if how == "weights":
            return self, len(self) / (len(self.classes) * np.array([*counts.values()], np.float64))
        rng, least = Generator(seed), min(counts.values())
        kept = [
            np.flatnonzero(self.labels == k)[rng.randperm(n)[:least]]  # (least,)
            for k, n in enumerate(counts.values())
        ]
        return self.select(np.sort(np.concatenate(kept))), ones


def cut_in_three(n: int, ratios: tuple[float, float, float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers 0 .. n-1 in an order that the seed draws, in three parts of int(n r0), int(n r1) and the rest."""
    given = list(ratios)
    if (
        len(given) != 3
        or not all(is_number(ratio) and ratio > 0 for ratio in given)
        or not math.isclose(sum(given), 1, abs_tol=1e-6)
    ):
        raise ConfigError(f"split: ratios are {ratios!r:.80}: three numbers above 0 with the sum 1, as 0.7, 0.1, 0.2")
    order = Generator(seed).randperm(n)
    first = int(n * given[0])
    second = first + int(n * given[1])
    return order[:first], order[first:second], order[second:]


def read_labelled(
    path: str | os.PathLike[str],
    *,
    text: str | int | None = None,
    label: str | int | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    classes: Sequence[str] | None = None,
) -> Labelled:
    """The texts and labels of a file, or of a folder with a folder of .txt files for each class.

    Formats: CSV (comma, semicolon, bar) and TSV with a header, JSON lines, a JSON array of objects, and label, tab, text without
    a header, as the SMS Spam Collection comes. `text` and `label` name the columns, or are their numbers, from 1; by default
    usual names are looked for (`label_files.TEXT_COLUMNS`, `LABEL_COLUMNS`). `delimiter` and `encoding` are found (UTF-8, UTF-16,
    cp1252), unless given. `said` of what is returned tells all that was found.

    Labels are words, or integers, which are kept as words too; spaces around them do not count. `classes` is their order; without
    it they are sorted, integers by their size. DataError, with file, row and column, for a missing column, an empty or missing
    text or label, NaN, a label that is none of `classes`, labels that differ by case or by spaces alone, an id that stands
    there twice (in a column `id`), bytes that are not of the encoding, a line of more than 1 MiB; and, unless `classes` is
    given, for fewer than two classes.
    """
    given = _check_classes(classes)
    pairs = read_pairs(file_name(path), text, label, delimiter, encoding)
    if not pairs.texts:
        raise DataError(f"{path}: a header, and no rows under it")
    _check_ids(pairs)
    texts = [_text_of(value, f"{where}, column {pairs.text_column!r}") for where, value in _rows(pairs, pairs.texts)]
    at_label = [f"{where}, column {pairs.label_column!r}" for where in pairs.where]
    raw = [_label_of(value, where) for value, where in zip(pairs.labels, at_label, strict=True)]
    names = _check_spelling(raw, at_label)
    if given is None:
        found = set(names)
        whole = all(name.removeprefix("-").isdecimal() and len(name) < 20 for name in found)
        given = tuple(sorted(found, key=(lambda name: (int(name), name)) if whole else None))
        if len(given) < 2:
            raise DataError(f"{path}: all {len(texts)} labels are {given[0]!r}: two classes are needed to tell apart")
    place = {name: k for k, name in enumerate(given)}
    for name, where in zip(names, at_label, strict=True):
        if name not in place:
            listed = ", ".join(map(repr, given[:12]))
            raise DataError(f"{where}: {name!r:.80} is none of the classes {listed}{did_you_mean(name, given)}")
    data = Labelled(texts, np.array([place[name] for name in names], np.int64), given, pairs.said)
    counts = ", ".join(f"{n:,} {' '.join(name.split())[:40]}" for name, n in data.counts().items())
    pairs.said.append(
        f"{len(texts):,} texts: {counts}" if len(given) <= 12 else f"{len(texts):,} texts, {len(given)} classes"
    )
    return data


def _rows(pairs: Pairs, values: Sequence[Any]) -> zip[tuple[str, Any]]:
    return zip(pairs.where, values, strict=True)


def _check_classes(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    if classes is None:
        return None
    names = () if isinstance(classes, str) else tuple(classes)
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"classes are {classes!r:.80}: two or more different words are needed")
    return names


def _check_ids(pairs: Pairs) -> None:
    seen: dict[str, str] = {}
    for where, value in zip(pairs.where, pairs.ids, strict=False):
        if value is None or value is MISSING or not str(value).strip():
            continue
        first = seen.setdefault(str(value).strip(), where)
        if first != where:
            raise DataError(f"{where}, column 'id': {value!r:.80} stands there for the second time, first in {first}")


def _text_of(value: Any, where: str) -> str:
    if value is MISSING:
        raise DataError(f"{where}: there is none in this row")
    if value is None or value != value or (isinstance(value, str) and value in ("nan", "NaN", "null", "NULL", "<NA>")):
        raise DataError(f"{where}: {value!r} is no text: drop the row, or write what it says")
    if not isinstance(value, str):
        raise DataError(f"{where}: {value!r:.40} is a {type(value).__name__}: a text must be a string")
    if not value.strip():
        raise DataError(f"{where}: the text is empty: drop the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can say so, and no tokenizer can read it
        raise DataError(
            f"{where}: character {error.start + 1} is half of a surrogate pair: write the whole character"
        ) from None
    return value


def _label_of(value: Any, where: str) -> str:
    """The label as it is written; integers, and floats that are whole, as digits."""
    if value is MISSING:
        raise DataError(f"{where}: there is none in this row")
    if value is None or value != value or (isinstance(value, str) and value.strip().casefold() in _NOT_A_NUMBER):
        raise DataError(f"{where}: {value!r} is no label: drop the row, or give it one")
    if isinstance(value, bool):
        return str(value).lower()
    if is_integer(value) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if not isinstance(value, str):
        raise DataError(f"{where}: {value!r:.40} is a {type(value).__name__}: a label is a word or an integer")
    if not value.strip():
        raise DataError(f"{where}: the label is empty: drop the row, or give it one")
    return value


def _check_spelling(raw: Sequence[str], where: Sequence[str]) -> list[str]:
    """The labels without spaces around them; DataError for two that differ in nothing else, or in case."""
    written: dict[str, tuple[str, str]] = {}
    for value, place in zip(raw, where, strict=True):
        first, at = written.setdefault(value.strip().casefold(), (value, place))
        if first != value:
            raise DataError(
                f"{place}: {value!r:.60} differs from {first!r:.60} ({at}) by case or spaces: write them alike"
            )
    return [value.strip() for value in raw]
