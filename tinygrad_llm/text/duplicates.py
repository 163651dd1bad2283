"""Texts that are there twice, to the byte or nearly: what a test set must not share with the training set.

    data = data.without(exact_duplicates(data.texts))
    for i, j, similarity in near_duplicates(train.texts, test.texts, threshold=0.8):
        ...

Two texts are as similar as the sets of their shingles, which are all runs of n characters or words: shared ones through all, the
Jaccard similarity. Comparing every pair would take N^2 steps. MinHash (Broder 1997) takes the least hash of a set under each of
128 hash functions; for two sets it is the same with the probability of their similarity. Texts that have r of these minima in
common, those of one of 128 // r bands, are compared in full (Indyk and Motwani 1998).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..checks import check_integer, check_number
from ..errors import ConfigError, DataError

UNITS = ("characters", "words")

_N_HASHES = 128
_MISSED = 1e-6  # of pairs that are just as similar as the threshold, this share may be missed
_AT_ONCE = 1 << 20  # shingles compared at a time
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio


def exact_duplicates(texts: Sequence[str]) -> np.ndarray:
    """The indices, int64 (D,), of the texts that equal an earlier one in every character: drop these."""
    first: dict[str, int] = {}
    return np.array([i for i, text in enumerate(texts) if first.setdefault(text, i) != i], np.int64)


def contradictions(texts: Sequence[str], labels: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """Pairs (first, later) of equal texts whose labels differ. One of the two is wrong, and dropping the later decides which."""
    if len(texts) != len(labels):
        raise DataError(f"contradictions: {len(texts)} texts and {len(labels)} labels: one for each is needed")
    first: dict[str, int] = {}
    pairs = ((first.setdefault(text, i), i) for i, text in enumerate(texts))
    return [(i, j) for i, j in pairs if labels[i] != labels[j]]


def near_duplicates(
    a: Sequence[str],
    b: Sequence[str] | None = None,
    threshold: float = 0.8,
    *,
    n: int = 5,
    unit: str = "characters",
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, similarity) of a[i] and b[j] whose similarity is `threshold` or more, in order; without `b`, of a[i] and a[j]
    with i < j. Nothing is drawn: the same texts give the same pairs.

    Shingles are `n` characters or words of the text in small letters, with one space for all white space; a text of fewer is one
    shingle, and one of none is like nothing. Similarities are exact but for shingles with the same hash of 64 bits. Of pairs
    right at the threshold less than one in a million is missed, above it fewer, as long as it is at least 0.11.
    ConfigError for a threshold that is not above 0, and at most 1.
    """
    if check_number("near_duplicates: threshold", threshold, most=1) == 0:
        raise ConfigError("near_duplicates: threshold is 0: every pair is as similar as that; use 0.8")
    check_integer("near_duplicates: n", n)
    if unit not in UNITS:
        raise ConfigError(f"near_duplicates: unit is {unit!r:.80}: use {' or '.join(UNITS)}")
    words: dict[str, int] = {}
    of_a = _Shingles(a, n, unit, words)
    of_b = of_a if b is None else _Shingles(b, n, unit, words)
    i, j = _candidates(of_a, of_b, threshold, within=b is None)
    similarity = _jaccard(of_a, of_b, i, j)
    kept = similarity >= threshold
    return [*zip(i[kept].tolist(), j[kept].tolist(), similarity[kept].tolist(), strict=True)]


class _Shingles:
    """For N texts the different shingles of each, as hashes: those of text i are hashes[starts[i] : starts[i + 1]], sorted."""

    def __init__(self, texts: Sequence[str], n: int, unit: str, words: dict[str, int]) -> None:
        rows = []
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"near_duplicates: text {i} is a {type(text).__name__}: it must be a str")
            pieces = text.lower().split()
            if unit == "words":
                row = np.array([words.setdefault(word, len(words)) for word in pieces], np.uint64)
            else:
                row = np.frombuffer(" ".join(pieces).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
            rows.append(row)
        length = np.array([len(row) for row in rows], np.int64)  # (N,)
        units = _mix(np.concatenate([*rows, np.zeros(n, np.uint64)]) + np.uint64(1))  # (U + n,)
        begins = np.cumsum(length) - length  # (N,)
        n_each = np.where(length >= n, length - n + 1, (length > 0).astype(np.int64))
        text_of = np.repeat(np.arange(len(rows)), n_each)  # (S,)
        at = _ranges(begins, n_each)
        hashes = np.zeros(len(at), np.uint64)
        for k in range(n):
            inside = k < length[text_of]  # a text of fewer than n ends where it ends
            hashes = hashes * _ODD + np.where(inside, units[at + k], np.uint64(0))
        hashes = _mix(hashes)
        order = np.lexsort((hashes, text_of))
        hashes, text_of = hashes[order], text_of[order]
        new = np.ones(len(hashes), bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (text_of[1:] != text_of[:-1])
        self.hashes, text_of = hashes[new], text_of[new]
        self.counts = np.bincount(text_of, minlength=len(rows))  # (N,)
        self.starts = np.concatenate([[0], np.cumsum(self.counts)])  # (N + 1,)

    def minima(self) -> tuple[np.ndarray, np.ndarray]:
        """Texts that have shingles, (M,), and the least of their hashes under each hash function, uint64 (128, M)."""
        texts = np.flatnonzero(self.counts)
        seeds = _mix(np.arange(1, _N_HASHES + 1, dtype=np.uint64))
        least = np.empty((_N_HASHES, len(texts)), np.uint64)
        for k, seed in enumerate(seeds if len(texts) else ()):
            least[k] = np.minimum.reduceat(_mix(self.hashes ^ seed), self.starts[texts])
        return texts, least


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): each bit of the result depends on each bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, ... (counts[0] of them), starts[1], ..."""
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(starts - before, counts)


def _rows_of_a_band(threshold: float) -> int:
    """The most with which so few pairs are missed; the more, the fewer are compared in vain."""
    fit = [r for r in range(1, 17) if (1 - threshold**r) ** (_N_HASHES // r) <= _MISSED]
    return max(fit, default=1)


def _candidates(a: _Shingles, b: _Shingles, threshold: float, within: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in a band, sorted."""
    n_rows = _rows_of_a_band(threshold)
    (texts_a, least_a), (texts_b, least_b) = a.minima(), b.minima()
    found = np.zeros(0, np.int64)  # i * len(b) + j
    for k in range(0, _N_HASHES - n_rows + 1, n_rows):
        key_a, key_b = (_band(least[k : k + n_rows]) for least in (least_a, least_b))
        order = np.argsort(key_b, kind="stable")
        low = np.searchsorted(key_b[order], key_a, "left")
        counts = np.searchsorted(key_b[order], key_a, "right") - low
        i = np.repeat(texts_a, counts)
        j = texts_b[order[_ranges(low, counts)]]
        small, large = np.minimum(a.counts[i], b.counts[j]), np.maximum(a.counts[i], b.counts[j])
        likely = small >= threshold * large - 1  # the similarity is at most small / large
        if within:
            likely &= i < j
        i, j = i[likely], j[likely]
        found = np.union1d(found, i * len(b.counts) + j)
    return np.divmod(found, max(1, len(b.counts)))


def _band(least: np.ndarray) -> np.ndarray:
    """One number for the minima of a band: (r, M) -> (M,)."""
    key = np.zeros(least.shape[1], np.uint64)
    for row in least:
        key = _mix(key * _ODD + row)
    return key


def _jaccard(a: _Shingles, b: _Shingles, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """|A and B| / |A or B| of pairs of sets, float64 (P,)."""
    n_both = a.counts[i] + b.counts[j]  # (P,)
    shared = np.zeros(len(i), np.int64)
    begin, ends = 0, np.cumsum(n_both)
    while begin < len(i):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
        some = slice(begin, end)
        pair = np.concatenate([np.repeat(np.arange(begin, end), side[some]) for side in (a.counts[i], b.counts[j])])
        of_a = a.hashes[_ranges(a.starts[i[some]], a.counts[i[some]])]
        of_b = b.hashes[_ranges(b.starts[j[some]], b.counts[j[some]])]
        hashes = np.concatenate([of_a, of_b])
        order = np.lexsort((hashes, pair))
        pair, hashes = pair[order], hashes[order]
        twice = (hashes[1:] == hashes[:-1]) & (pair[1:] == pair[:-1])  # no set holds one twice
        shared[some] = np.bincount(pair[1:][twice] - begin, minlength=end - begin)
        begin = end
    return shared / np.maximum(1, n_both - shared)
