"""Parallel text, to learn to translate from: sentences with their translations, read and dealt to three parts without leaks.

    found = read_pairs("fra.txt")                      # a pair a line: source, tab, target, as Tatoeba's pairs come
    found = read_pairs("train.en", "train.de")         # or two files, line by line
    found.said                                         # ["190,206 pairs, a source, a tab and a target a line", ...]
    splits = split_pairs(found.pairs, seed=123)
    splits.train[0].source, splits.train[0].target, splits.train[0].also

The same English sentence often has many French ones in such files. If they were dealt one by one, sentences to test on would have
been trained on: so each source becomes one pair before anything is split.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from .data_files import decode, file_name, read_bytes
from .datasets import check_encoding
from .labelled import cut_in_three

# what Tatoeba's pairs (manythings.org/anki) have behind a second tab: "CC-BY 2.0 (France) Attribution: tatoeba.org #538123 (CM)"
_ATTRIBUTION = re.compile(r"CC-BY\b.*\bAttribution:")


@dataclass(frozen=True)
class Pair:
    """A sentence and its translation; `also` are other translations, which are as right when answers are judged."""

    source: str
    target: str
    also: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target, *self.also)


@dataclass(frozen=True)
class Pairs:
    """The pairs of a file in its order, and lines about what was found."""

    pairs: list[Pair]
    said: list[str]


@dataclass(frozen=True)
class PairSplits:
    """Pairs to train on, to validate with and to test on; no source is in two of them, or twice in one."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]
    said: list[str]

    def n_bytes(self) -> int:
        """Memory that the pairs take, and their ids."""
        parts = (self.train, self.validation, self.test)
        return sum(10 * len(text) for part in parts for pair in part for text in (pair.source, *pair.targets))

    def fingerprint(self) -> dict[str, Any]:
        """SHA-256 of all pairs in their order."""
        parts = [[[pair.source, *pair.targets] for pair in part] for part in (self.train, self.validation, self.test)]
        return {"pairs": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}


def read_pairs(
    path: str | os.PathLike[str], target: str | os.PathLike[str] | None = None, *, encoding: str = "utf-8"
) -> Pairs:
    """The pairs of a file with a source, a tab and a target a line; or, with `target`, those of two files line by line.

    A third column is left out if it is Tatoeba's, of who wrote the sentences; a quote is text. A byte-order mark, either kind of
    line end and spaces around a sentence do not count. DataError, with file and line, for a line of no or too many tabs, a side
    that is empty, bytes that are not of the encoding, a line of more than 1 MiB; with both numbers for files of unequal length.
    """
    check_encoding(encoding)
    path = file_name(path)
    lines = _lines(path, encoding)
    if target is not None:
        return _line_by_line(path, lines, file_name(target), encoding)
    pairs, n_attributions = list[Pair](), 0
    for i, line in enumerate(lines, 1):
        cells, here = [cell.strip() for cell in line.split("\t")], f"{path}: line {i}"
        if len(cells) == 3 and _ATTRIBUTION.match(cells[2]):
            n_attributions += 1
        elif len(cells) > 2:
            raise DataError(
                f"{here} has {len(cells)} columns: a source, a tab and a target are needed, and behind them at most "
                "Tatoeba's attribution: cut the others off"
            )
        elif len(cells) < 2:
            raise DataError(f"{here}, {line!r:.40}, has no tab: a source, a tab and a target are needed")
        for what, cell in zip(("source", "target"), cells, strict=False):
            if not cell:
                raise DataError(f"{here}: the {what} is empty: drop the line")
        pairs.append(Pair(cells[0], cells[1]))
    said = [f"{len(pairs):,} pairs, a source, a tab and a target a line"]
    if n_attributions:
        said.append(f"the third column, who wrote it, of {n_attributions:,} is left out")
    return Pairs(pairs, said)


def _line_by_line(path: Path, sources: list[str], target: Path, encoding: str) -> Pairs:
    targets = _lines(target, encoding)
    if len(sources) != len(targets):
        raise DataError(
            f"{path} has {len(sources):,} lines and {target} has {len(targets):,}: line by line one must be the "
            "translation of the other"
        )
    pairs = [Pair(one.strip(), other.strip()) for one, other in zip(sources, targets, strict=True)]
    for i, pair in enumerate(pairs, 1):
        for side, text in ((path, pair.source), (target, pair.target)):
            if not text:
                raise DataError(f"{side}: line {i} is empty: drop it, and line {i} of the other file")
    return Pairs(pairs, [f"{len(pairs):,} pairs, line by line"])


def _lines(path: Path, encoding: str) -> list[str]:
    """At \\n alone: str.splitlines would also cut at marks that stand within texts."""
    content, _ = decode(path, read_bytes(path), encoding)
    return content.rstrip("\n").split("\n")


def split_pairs(pairs: Sequence[Pair], seed: int, ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> PairSplits:
    """Three parts, shuffled by the seed, of the pairs with each source once: int(N r0), int(N r1) and the rest of N sources.

    Two sources are the same if they differ in capitals and spaces at most. The first pair of a source is kept, and the targets of
    the others are among those that count as right (`also`). ConfigError for ratios that are not three above 0 with the sum 1;
    DataError for a part without a pair.
    """
    merged: dict[str, Pair] = {}
    for pair in pairs:
        key = " ".join(pair.source.casefold().split())
        first = merged.setdefault(key, pair)
        new = dict.fromkeys(target for target in pair.targets if target not in first.targets)
        if new:
            merged[key] = replace(first, also=(*first.also, *new))
    kept = [*merged.values()]
    train, validation, test = ([kept[i] for i in part.tolist()] for part in cut_in_three(len(kept), ratios, seed))
    for name, part in {"to train on": train, "to validate with": validation, "to test on": test}.items():
        if not part:
            raise DataError(f"of {len(kept):,} sources none is left {name}: take more pairs, or other ratios")
    said = []
    if len(kept) < len(pairs):
        said.append(
            f"{len(pairs) - len(kept):,} of {len(pairs):,} pairs have a source that came before: the first target is kept, "
            "and the others count as right as well."
        )
    same = sum(pair.source == pair.target for pair in kept)
    if same:
        said.append(f"{same:,} targets are the same as their sources.")
    known = {pair.target for pair in train}
    seen = sum(pair.target in known for pair in (*validation, *test))
    said.append(
        f"{len(train):,} pairs to train on, {len(validation):,} to validate with, {len(test):,} to test on"
        + (f"; {seen:,} of the latter two have a target that is trained on, of another source." if seen else ".")
    )
    return PairSplits(train, validation, test, said)
