"""How well hidden words are guessed: by a model, and by who has only counted words, or which words stand beside each other.

Letters in shape comments: B batch, T tokens, V vocabulary, M hidden words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import no_grad
from ..errors import DataError
from ..nn.module import evaluating

_CHUNK = 2**22  # numbers of a table that is held at once

Guess = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids left and right of a hidden word, (M,) each -> (M, V)


@dataclass(frozen=True)
class MaskedScores:
    """Means over hidden words, in nats and as a share; and over texts, whose second part follows the first or does not."""

    word_loss: float
    word_accuracy: float
    next_loss: float | None = None
    next_accuracy: float | None = None


def masked_scores(model: Any, batches: Sequence[tuple[np.ndarray, ...]]) -> MaskedScores:
    """Of a model, without dropout, over batches as `MaskedWords` makes them. Every word counts the same, and every text.

    DataError where no word is hidden.
    """
    found: list[tuple[float, int, int]] = []
    texts: list[tuple[float, int, int]] = []
    with evaluating(model), no_grad():
        for ids, segments, lengths, targets, _, *more in batches:
            at = np.nonzero(targets != -100)
            words, follows = model(ids, segments, np.arange(ids.shape[1]) < lengths[:, None], at=at)  # (M, V), (B, 2)
            found.append(_judge(words.data, targets[at]))
            if more:
                texts.append(_judge(follows.data, more[0]))
    (word_loss, word_accuracy), next_ = _means(found), _means(texts) if texts else (None, None)
    return MaskedScores(word_loss, word_accuracy, *next_)


def counting_baselines(
    ids: Sequence[int] | np.ndarray,
    batches: Sequence[tuple[np.ndarray, ...]],
    vocab_size: int,
    marks: Sequence[int],
) -> dict[str, MaskedScores]:
    """Guesses without a model, counted on `ids` and judged on the same hidden words, with the same words shown beside them.

    "unigram" knows how often each word comes, "bigram" also which word stood to the left of it, "neighbours" which stood on both
    sides: p(w | left) p(w | right) / p(w), normalised. A pair that was counted n times weighs n beside one count of the word
    alone, so that what was never seen is not impossible, and a hidden neighbour says nothing. `marks` are counted as neighbours
    only.
    """
    row = np.asarray(ids, np.int64)
    counts = np.bincount(row, minlength=vocab_size).astype(np.float64) + 1.0  # (V,)
    counts[list(marks)] = 0.0
    alone = counts / counts.sum()  # (V,)
    left, right = (_Pairs(before, after, vocab_size) for before, after in ((row[:-1], row[1:]), (row[1:], row[:-1])))

    def unigram(at_left: np.ndarray, at_right: np.ndarray) -> np.ndarray:
        return np.broadcast_to(alone, (len(at_left), vocab_size))  # (M, V)

    def bigram(at_left: np.ndarray, at_right: np.ndarray) -> np.ndarray:
        return left.given(at_left, alone)

    def neighbours(at_left: np.ndarray, at_right: np.ndarray) -> np.ndarray:
        both = left.given(at_left, alone) * right.given(at_right, alone)  # (M, V)
        both = np.divide(both, alone, out=np.zeros_like(both), where=alone > 0)  # (M, V)
        return both / both.sum(1, keepdims=True)

    guesses: dict[str, Guess] = {"unigram": unigram, "bigram": bigram, "neighbours": neighbours}
    return {name: _score(guess, batches, vocab_size) for name, guess in guesses.items()}


class _Pairs:
    """How often each id stood on the other side of each id."""

    def __init__(self, given: np.ndarray, words: np.ndarray, vocab_size: int) -> None:
        keys, self._counts = np.unique(given * vocab_size + words, return_counts=True)
        self._words = keys % vocab_size
        self._borders = np.searchsorted(keys // vocab_size, np.arange(vocab_size + 1))  # (V + 1,)

    def given(self, ids: np.ndarray, alone: np.ndarray) -> np.ndarray:
        """p(w | id): (M,) -> (M, V)."""
        p = np.tile(alone, (len(ids), 1))  # (M, V): as one count
        for i, each in enumerate(ids.tolist()):
            start, end = self._borders[each : each + 2].tolist()
            p[i, self._words[start:end]] += self._counts[start:end] * (alone[self._words[start:end]] > 0)
        return p / p.sum(1, keepdims=True)


def _score(guess: Guess, batches: Sequence[tuple[np.ndarray, ...]], vocab_size: int) -> MaskedScores:
    found, most = [], max(1, _CHUNK // vocab_size)
    for ids, _, _, targets, *_ in batches:
        rows, places = np.nonzero(targets != -100)  # (M,) each; [CLS] is before the first and [SEP] behind the last
        for start in range(0, len(rows), most):
            i, j = rows[start : start + most], places[start : start + most]
            with np.errstate(divide="ignore"):
                logits = np.log(guess(ids[i, j - 1], ids[i, j + 1]))  # (M, V)
            found.append(_judge(logits, targets[i, j]))
    return MaskedScores(*_means(found))


def _judge(logits: np.ndarray, targets: np.ndarray) -> tuple[float, int, int]:
    """The sum of losses, how many are right, and of how many: of scores (M, V)."""
    logits = logits.astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(targets)), targets]  # (M,)
    return float(losses.sum()), int((logits.argmax(1) == targets).sum()), len(targets)


def _means(found: Sequence[tuple[float, int, int]]) -> tuple[float, float]:
    loss, right, n = map(sum, zip(*found, strict=True)) if found else (0.0, 0, 0)
    if not n:
        raise DataError("there is no hidden word to guess")
    return loss / n, right / n
