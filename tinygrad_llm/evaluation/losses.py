"""How well a model does, how well it could do without learning anything, and how much of it is memory.

Losses are in nats per token: with natural logarithms, so that chance among V tokens is ln V.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..engine import no_grad
from ..errors import DataError
from ..nn import Module
from ..ops import cross_entropy
from ..text.corpus import DocumentWindows

Batch = tuple[np.ndarray, np.ndarray]  # ids and targets, both (B, T)

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese and Japanese, with their punctuation.
_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3001-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f"
    "\U00020000-\U000323af"
)
_WORD = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")


def all_windows(ids: Sequence[int] | np.ndarray, context_length: int, batch_size: int) -> list[Batch]:
    """Batches in which each token of `ids` but the first is a target once: windows side by side, the last one shorter."""
    row = np.asarray(ids, np.int64)  # (N,)
    n = (len(row) - 1) // context_length * context_length
    inputs, targets = (row[i : i + n].reshape(-1, context_length) for i in (0, 1))  # (W, T) each
    batches = [(inputs[i : i + batch_size], targets[i : i + batch_size]) for i in range(0, len(inputs), batch_size)]
    if n < len(row) - 1:
        batches.append((row[None, n:-1], row[None, n + 1 :]))  # (1, T') each
    return batches


def evaluation_batches(
    ids: Sequence[int], context_length: int, batch_size: int, windows: str = "stride", eot_id: int | None = None
) -> list[Batch]:
    """`all_windows`; for a model trained with windows="documents", a document a row, whose rest does not count."""
    if windows == "documents":
        return list(DocumentWindows(ids, context_length, batch_size, eot_id).epoch())
    return all_windows(ids, context_length, batch_size)


def mean_loss(model: Module, batches: Iterable[Batch]) -> float:
    """The loss per token over batches of ids and targets (B, T), without dropout; every token counts the same, but
    none where the target is -100.

    The mode of the model is left as it was. DataError if there is no token.
    """
    total, n_tokens = 0.0, 0
    training = model.training
    model.eval()
    try:
        with no_grad():
            for ids, targets in batches:
                counted = int((targets != -100).sum())
                total += cross_entropy(model(ids), targets=targets).item() * counted
                n_tokens += counted
    finally:
        model.train(training)
    if n_tokens == 0:
        raise DataError("mean_loss: there are no batches")
    return total / n_tokens


def bits_per_byte(loss: float, n_tokens: int, n_bytes: int) -> float:
    """Nats per token -> bits per byte of text, by which models with different tokenizers can be compared."""
    return loss * n_tokens / (math.log(2) * n_bytes)


def unigram_entropy(ids: Sequence[int] | np.ndarray) -> float:
    """-Σ p ln p over the frequencies p of the ids: the loss of a model that knows how often each comes, and no more."""
    counts = np.unique(ids, return_counts=True)[1]
    p = counts / counts.sum()
    return -float(p @ np.log(p))


def unigram_cross_entropy(
    train_ids: Sequence[int] | np.ndarray, ids: Sequence[int] | np.ndarray, vocab_size: int
) -> float:
    """The loss on `ids` of that same model, counted on `train_ids`; each id counts once more, so that none is impossible."""
    counts = np.bincount(np.asarray(train_ids), minlength=vocab_size) + 1
    return -float(np.log(counts[np.asarray(ids)] / counts.sum()).mean())


def longest_copied_run(text: str, source: str) -> list[str]:
    """The longest run of words of `text` that stands in `source` word for word.

    Of several, the first. The work is one pass of NumPy over the source for each word of the text.
    """
    found = _longest_copy(text, source)
    return [word.group() for word in found]


def split_words(text: str) -> list[str]:
    """What white space separates; of scripts that are written without spaces, each character."""
    return _WORD.findall(text)


def words_or_characters(text: str) -> str:
    """What `split_words` mostly finds in a text, in the plural."""
    spaceless = len(re.findall(f"[{_SPACELESS}]", text))
    return "characters" if 2 * spaceless > len(split_words(text)) else "words"


def _longest_copy(text: str, source: str) -> list[re.Match[str]]:
    matches, source_words = list(_WORD.finditer(text)), split_words(source)
    words = [match.group() for match in matches]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(source_words))}
    row = np.array([numbers[word] for word in source_words], np.int32)  # (S,)
    # run[j + 1]: length of the common run that ends at source word j, 0 before it
    run = np.zeros(len(row) + 1, np.int32)
    longest, end = 0, 0
    for i, word in enumerate(words):
        run[1:] = np.where(row == numbers.get(word, -1), run[:-1] + 1, 0)
        if run.max() > longest:
            longest, end = int(run.max()), i + 1
    return matches[end - longest : end]


def copied_run(text: str, sources: Iterable[str]) -> str:
    """The longest run of words that `text` has in common with any of the sources."""
    longest: list[re.Match[str]] = []
    for source in sources:
        run = _longest_copy(text, source)
        longest = run if len(run) > len(longest) else longest
    return " ".join(text[longest[0].start() : longest[-1].end()].split()) if longest else ""
