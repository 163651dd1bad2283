"""What BERT learns from (Devlin et al. 2018, §3.1): texts in two parts, of which the second may be another's, and words hidden.

    documents = SplitDocuments(ids, tokenizer.eot_id, 253, sentence_ends(tokenizer), pairs=True)
    for pair in documents.epoch(): ...                       # (first, second, whether it follows)
    rows = frame_rows(tokenizer, [(first, second), ...])
    shown, hidden = hide_words(rows, tokenizer.mask_id, tokenizer.vocab_size)

Everything is drawn anew in every epoch, with the current generator if none is given. After create_pretraining_data.py of
https://github.com/google-research/bert, which draws once and stores it; what else is done in another way is said where it is.

Letters in shape comments: B batch, T tokens, N tokens of a text, D documents, W windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..checks import check_integer, check_number
from ..errors import ConfigError, DataError
from ..rng import Generator, get_generator
from .tokenizers import Tokenizer
from .wordpiece import WordPieceTokenizer

SHARE = 0.15  # of the tokens of a text that are hidden
_NEAR = 500  # documents after one, from which the second part of another comes where they are not shuffled
_MASKED, _KEPT = 0.8, 0.1  # of these, those that become [MASK], and those that stay; the others become any token

Ids = Sequence[int] | np.ndarray


class Rows(NamedTuple):
    """Framed texts, filled up to the longest."""

    ids: np.ndarray  # (B, T)
    segments: np.ndarray  # (B, T)
    lengths: np.ndarray  # (B,)
    words: np.ndarray  # (B, T) bool: tokens of text, and no marks


class Pair(NamedTuple):
    """What follows [CLS], and what follows the first [SEP], if there is a second part."""

    first: np.ndarray
    second: np.ndarray | None
    follows: bool  # whether the second is what comes next in the document of the first


def frame_rows(tokenizer: WordPieceTokenizer, texts: Sequence[tuple[Ids, Ids | None]]) -> Rows:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP], a row each, filled up with [PAD]."""
    framed = [tokenizer.frame(list(first), None if second is None else list(second)) for first, second in texts]
    lengths = np.array([len(ids) for ids, _ in framed])  # (B,)
    shape = len(framed), int(lengths.max())
    ids, segments = np.full(shape, tokenizer.pad_id or 0, np.int64), np.zeros(shape, np.int64)  # (B, T)
    for i, (row, of) in enumerate(framed):
        ids[i, : len(row)], segments[i, : len(row)] = row, of
    words = (np.arange(shape[1]) < lengths[:, None]) & ~np.isin(ids, list(tokenizer.special.values()))  # (B, T)
    return Rows(ids, segments, lengths, words)


def hide_words(
    rows: Rows,
    mask_id: int,
    vocab_size: int,
    share: float = SHARE,
    most: int | None = None,
    rng: Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Hide some words of each row: what is shown instead of its ids (B, T), and which places were chosen, (B, T) bool.

    Of a row of n tokens, marks and all, min(most, max(1, round(share n))) words are chosen, or all if there are not as many;
    halves are rounded to the even number. Of those chosen 80 % become [MASK], 10 % stay, and 10 % become any id of the
    vocabulary: a mark too, if it is drawn, as in Google's code. Marks in the text, [UNK] among them, are never chosen; there
    [UNK] may be.
    """
    check_number("hide_words: share", share, most=1)
    rng, shape, n_words = rng or get_generator(), rows.ids.shape, rows.words.sum(1)
    n = np.maximum(1, np.rint(share * rows.lengths).astype(np.int64))  # (B,)
    n = np.minimum(n, n_words if most is None else np.minimum(n_words, check_integer("hide_words: most", most)))
    order = np.where(rows.words, rng.rand(*shape), 2.0).argsort(axis=1, kind="stable")  # (B, T)
    chosen = np.empty(shape, bool)
    np.put_along_axis(chosen, order, np.arange(shape[1]) < n[:, None], axis=1)  # (B, T): the first n of a random order
    what, anything = rng.rand(*shape), rng.randint(0, vocab_size, shape)  # (B, T) each
    shown = np.where(chosen & (what < _MASKED), mask_id, rows.ids)  # (B, T)
    return np.where(chosen & (what >= _MASKED + _KEPT), anything, shown), chosen


def sentence_ends(tokenizer: Tokenizer) -> np.ndarray:
    """The ids of the tokens with which a sentence ends."""
    return np.array([i for i, token in enumerate(tokenizer.tokens) if token.strip() in (b".", b"!", b"?")], np.int64)


class SplitDocuments:
    """Documents, which end with the mark `eot_id`, in windows of whole sentences, as many as fit into `longest` tokens.

    A sentence ends with one of the ids `ends`; one that is longer goes on in the next window. So words stand in places that say
    something about them, from which a model finds their neighbours soonest. Windows come once an epoch, `shuffled` or in the
    order of the text. In `pairs`, a window is cut in two behind one of its ends, any of them alike, or anywhere if there is
    none. Half the second parts then give way to that of a window of another document (unless they are shuffled, one of the
    neighbourhood), cut at its end to what there is room for; so whether it follows cannot be told from either part alone.
    (Google's code takes what comes after a random place of the other document, and goes on with the part that gave way in the
    next window.) len() is the number of windows, the same in every epoch.
    """

    def __init__(
        self, ids: Ids, eot_id: int, longest: int, ends: Ids = (), pairs: bool = False, shuffled: bool = True
    ) -> None:
        row = np.asarray(ids, np.int64)  # (N,)
        least = 2 if pairs else 1
        longest = check_integer("longest", longest, least=least)
        marks = np.flatnonzero(row == eot_id)
        begins, stops = np.append(0, marks + 1), np.append(marks, len(row))  # of all documents, empty ones too
        self._row, self._longest, self._pairs, self._shuffled = row, longest, pairs, shuffled
        self._ends = np.flatnonzero(np.isin(row, np.asarray(ends, np.int64)))  # in the row
        found: list[tuple[int, int, int]] = []
        first, n_documents = [0], 0
        for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True):
            windows = [window for window in self._windows(begin, stop) if window[1] - window[0] >= least]
            if windows:
                found += [(n_documents, *window) for window in windows]
                n_documents += 1
                first.append(len(found))
        if not found:
            raise DataError("the text has no document to hide words in")
        if pairs and n_documents < 2:
            raise ConfigError(
                "next_sentence needs a second document, from which sentences come that do not follow: put <|endoftext|> between "
                "documents, give several files, or leave it out (--no-next-sentence)"
            )
        self._of, self._begins, self._stops = np.array(
            found
        ).T  # (W,) each: the document of each window, and where it is
        self._first, self._n_documents = np.array(first), n_documents  # (D + 1,): the first window of each document

    def _windows(self, begin: int, stop: int) -> Iterator[tuple[int, int]]:
        """Those of a document, from the first to behind the last place of each in the row."""
        while begin < stop:
            end = min(stop, begin + self._longest)
            if end < stop:
                last = np.searchsorted(self._ends, end) - 1  # the last sentence that ends in it
                if last >= 0 and self._ends[last] >= begin:
                    end = int(self._ends[last]) + 1
            yield begin, end
            begin = end

    def __len__(self) -> int:
        return len(self._of)

    def epoch(self, rng: Generator | None = None) -> Iterator[Pair]:
        rng, n = rng or get_generator(), len(self)
        order = rng.randperm(n) if self._shuffled else np.arange(n)
        begins, stops, row = self._begins, self._stops, self._row
        if not self._pairs:
            for i in order.tolist():
                yield Pair(row[begins[i] : stops[i]], None, True)
            return
        cuts, follows = self._cut(begins, stops, rng.rand(n)), rng.rand(n) < 0.5  # (W,)
        n_others = self._n_documents - 1
        further = rng.randint(0, n_others if self._shuffled else min(n_others, _NEAR), n)  # (W,)
        others = (self._of + 1 + further) % (n_others + 1)  # (W,): documents, any but its own
        first, end = self._first[others], self._first[others + 1]  # (W,): their windows, of which one is taken
        taken = first + (rng.rand(n) * (end - first)).astype(np.int64)  # (W,)
        taken_cuts = self._cut(begins[taken], stops[taken], rng.rand(n))  # (W,)
        for i in order.tolist():
            first_part, second = row[begins[i] : cuts[i]], row[cuts[i] : stops[i]]
            if not follows[i]:
                second = row[taken_cuts[i] : stops[taken[i]]][: self._longest - len(first_part)]
            yield Pair(first_part, second, bool(follows[i]))

    def _cut(self, begins: np.ndarray, stops: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Where each window is cut, (W,): behind one of the ends in it, of which `at`, from 0 to 1, says which one."""
        ends = self._ends
        first, n_ends = np.searchsorted(ends, begins), np.searchsorted(ends, stops - 1)
        n_ends = n_ends - first  # (W,): of those before the last place
        anywhere = begins + 1 + (at * (stops - begins - 1)).astype(np.int64)  # (W,)
        if not len(ends):
            return anywhere
        chosen = np.minimum(first + (at * n_ends).astype(np.int64), len(ends) - 1)  # (W,)
        return np.where(n_ends > 0, ends[chosen] + 1, anywhere)
