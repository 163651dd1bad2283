"""The texts of a classifier, from a file to three parts without leaks, and from texts to rows of ids."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError
from ..rng import Generator
from ..text import Tokenizer, WordPieceTokenizer
from ..text.duplicates import contradictions, exact_duplicates, near_duplicates
from ..text.labelled import Labelled, read_labelled
from ..text.messages import messages
from ..text.moods import mood_items

# What comes with the package: a name for DATA, what makes it, and how many texts to train on, validate with and test on.
BUNDLED: dict[str, tuple[Callable[[int, int, str], Labelled], tuple[int, int, int]]] = {
    "messages": (messages, (700, 100, 400)),
    "moods": (mood_items, (1000, 200, 1000)),
}
_PARTS = ("train", "validation", "test")
_NEAR = 0.8  # Jaccard similarity from which two texts are told to be near duplicates


@dataclass(frozen=True)
class Splits:
    """Texts to train on, to validate with and to test on, and what became of the others."""

    train: Labelled
    validation: Labelled
    test: Labelled
    class_weights: np.ndarray  # (K,) in the training loss
    duplicates_removed: int
    near_duplicates: int  # texts of validation and test that are much like one of those trained on
    said: list[str]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes

    def n_bytes(self) -> int:
        """Memory that the texts take, and their ids."""
        return sum(10 * len(text) for part in (self.train, self.validation, self.test) for text in part.texts)

    def fingerprint(self) -> dict[str, Any]:
        """SHA-256 of all texts and labels in their order."""
        parts = [[part.texts, part.labels.tolist()] for part in (self.train, self.validation, self.test)]
        told = json.dumps([self.classes, self.class_weights.tolist(), parts])
        return {"texts": hashlib.sha256(told.encode()).hexdigest(), "classes": list(self.classes)}


def make_splits(
    data: str | os.PathLike[str],
    seed: int,
    *,
    balance: str,
    keep_duplicates: bool,
    examples: int,
    text: str = "",
    label: str = "",
    delimiter: str = "",
    encoding: str = "",
) -> Splits:
    """The parts of a file or folder (`read_labelled`), or of what comes with the package: "messages" or "moods".

    Of a file, texts that occur again are left out, then classes balanced, then 70, 10 and 20 % of the rest put into the three
    parts. What comes with the package has wordings of its own for each part. `examples`: at most so many to train on.
    """
    if str(data) in BUNDLED:
        if text or label or delimiter or encoding:
            raise ConfigError(f"{data} comes with the package: text, label, delimiter and encoding are for a file")
        tell, sizes = BUNDLED[str(data)]
        sizes = (examples or sizes[0], *sizes[1:])
        parts = tuple(tell(seed, n, part) for n, part in zip(sizes, _PARTS, strict=True))
        told = ", ".join(f"{n:,} {part}" for n, part in zip(sizes, _PARTS, strict=True))
        _check_classes(parts[0])
        weights = parts[0].balance("weights" if balance == "weights" else "none")[1]
        return _splits(parts, weights, 0, [f"{data}: texts that come with the package, {told}"])
    found = read_labelled(
        data, text=text or None, label=label or None, delimiter=delimiter or None, encoding=encoding or None
    )
    said, again = [f"{data}: {'; '.join(found.said)}."], exact_duplicates(found.texts)
    if len(again):
        of_two = len(contradictions(found.texts, found.labels))
        said.append(
            f"{len(again):,} texts occur again, to the byte, and are {'kept' if keep_duplicates else 'left out'}"
            + (f"; {of_two:,} of them with another label." if of_two else ".")
        )
    if not keep_duplicates:
        found = found.without(again)
    balanced, class_weights = found.balance(balance, seed)
    if len(balanced) < len(found):
        counts = ", ".join(f"{n:,} {name}" for name, n in balanced.counts().items())
        said.append(f"Balanced: {counts}.")
    train, validation, test = balanced.split((0.7, 0.1, 0.2), seed)
    if 0 < examples < len(train):
        train = train.select(Generator(seed).randperm(len(train))[:examples])
        _check_classes(train)
    return _splits((train, validation, test), class_weights, 0 if keep_duplicates else len(again), said)


def _check_classes(train: Labelled) -> None:
    if missing := [name for name, count in train.counts().items() if not count]:
        raise DataError(
            f"of {len(train)} texts to learn from none is {missing[0]!r}: take more (examples), or another seed"
        )


def _splits(parts: tuple[Labelled, ...], class_weights: np.ndarray, duplicates_removed: int, said: list[str]) -> Splits:
    train, validation, test = parts
    kept = [*validation.texts, *test.texts]
    near = len({i for i, _, _ in near_duplicates(kept, train.texts, _NEAR)})
    said.append(
        f"{len(train):,} texts to train on, {len(validation):,} to validate with, {len(test):,} to test on"
        + (f"; {near:,} of the latter two are much like one that is trained on." if near else ".")
    )
    return Splits(train, validation, test, class_weights, duplicates_removed, near, said)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text. DataError names one that has none."""
    rows = [tokenizer.encode_prompt(text) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise DataError(f"the text {text!r:.60} has no token to judge it by: give one with a letter in it")
    return rows


def frame_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text between [CLS] and [SEP]. DataError names one that has none."""
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise ConfigError(
            f"tokenizer is {tokenizer.name}: it has no [CLS] and [SEP], between which texts are read here"
        )
    return [tokenizer.frame(row)[0] for row in encode_texts(tokenizer.marking_prompts(False), texts)]


def cut(row: Sequence[int], most: int, framed: bool) -> Sequence[int]:
    """The first ids of a text; a frame stays whole."""
    if len(row) <= most:
        return row
    return [*row[: most - 1], row[-1]] if framed else row[:most]


def pad_id_of(tokenizer: Tokenizer) -> int:
    """What rows are filled up with, which says nothing."""
    own = getattr(tokenizer, "pad_id", None)
    return (tokenizer.eot_id or 0) if own is None else own


def pad(rows: Sequence[Sequence[int]], pad_id: int, width: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids (B, T) filled up to the longest of them, or to `width`, and their lengths (B,)."""
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), max(width, int(lengths.max()))), pad_id)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, lengths


def by_length(order: np.ndarray, lengths: np.ndarray, size: int, bucket: int) -> Iterator[np.ndarray]:
    """Batches of `size` places, in the given order, but that of so many batches in a row those of like length go together."""
    wide = size * bucket
    if bucket > 1:
        chunks = [order[i : i + wide] for i in range(0, len(order), wide)]
        order = np.concatenate([chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in chunks])
    for start in range(0, len(order), size):
        yield order[start : start + size]
