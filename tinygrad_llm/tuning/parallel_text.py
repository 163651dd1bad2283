"""The pairs of a translation run: of a file, of two files whose lines belong together, or what comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import ConfigError
from ..text.pairs import Pair, PairSplits, read_pairs, split_pairs
from ..text.phrases import PHRASE_SPLITS, pattern_of, phrases
from .translate_options import TranslateOptions

PHRASES = "phrases"  # the name of what comes with the package
_SIZES = (30_000, 1000, 2000)  # of which so many are to train on, to validate with and to test on


def pairs_of(files: Sequence[str], options: TranslateOptions) -> PairSplits:
    """Three parts, without a source in two of them, and lines about them."""
    if not 1 <= len(files) <= 2:
        raise ConfigError(f"{' '.join(files)!r:.80}: give one file of pairs, or two files whose lines belong together")
    if list(files) == [PHRASES]:
        if options.encoding:
            raise ConfigError(f"{PHRASES} comes with the package: encoding is for a file")
        sizes = (options.examples or _SIZES[0], *_SIZES[1:])
        train, validation, test = (
            [Pair(*pair) for pair in phrases(options.seed, n, part)]
            for n, part in zip(sizes, PHRASE_SPLITS, strict=True)
        )
        told = ", ".join(f"{n:,} {part}" for n, part in zip(sizes, PHRASE_SPLITS, strict=True))
        said = [
            f"{PHRASES}: English and German sentences that come with the package, {told}. Each of the latter two has a "
            "combination of two words that no sentence to train on has."
        ]
        return PairSplits(train, validation, test, said)
    found = read_pairs(*files, encoding=options.encoding or "utf-8")
    splits = split_pairs(found.pairs, options.seed)
    said = [f"{' and '.join(files)}: {'; '.join(found.said)}.", *splits.said]
    if 0 < options.examples < len(splits.train):
        said.append(f"The first {options.examples:,} of the former are taken.")
        splits = replace(splits, train=splits.train[: options.examples])
    return replace(splits, said=said)


def patterns_of(files: Sequence[str], pairs: Sequence[Pair]) -> list[str] | None:
    """Of what comes with the package, the pattern of each sentence."""
    return [pattern_of(pair.source) for pair in pairs] if list(files) == [PHRASES] else None
