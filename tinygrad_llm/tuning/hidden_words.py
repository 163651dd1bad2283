"""Texts in which words are hidden, and the loss of guessing them: what a model of hidden words learns by, for looking into.

    found = open_hidden("runs/tales-bert")             # of texts that its run kept for validation
    found.loss().backward_steps()
    found.tables                                       # what it guesses: for `debug.report`

Letters in shape comments: B texts, T tokens, M hidden words, V vocabulary.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..debug import TokenTable
from ..debug.token_table import Row
from ..engine import Tensor, no_grad
from ..errors import ConfigError, ContextLengthError, DataError
from ..nn.module import evaluating
from ..rng import Generator
from ..runs.folder import find_run, load_config
from ..text.masked import frame_rows, hide_words
from ..text.view import visible
from ..training.masked_words import MaskedWords, masked_loss
from ..training.pretrain_options import PretrainOptions
from ..training.step import Batch
from .encoder import Encoder
from .predict import log_softmax

_TEXTS = 3  # of validation
_TOP = 5


@dataclass(frozen=True)
class HiddenTexts:
    """What was opened: the batch as `MaskedWords` makes it, and what the model guesses in it."""

    model: Any
    batch: Batch
    tables: list[TokenTable]

    def loss(self) -> Tensor:
        """The mean over the hidden words, on the tape."""
        return masked_loss(self.model, *self.batch)


def open_hidden(
    path: str | os.PathLike[str],
    text: str | None = None,
    checkpoint: str | int | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> HiddenTexts:
    """Some texts that a run kept for validation, with the words hidden that its evaluations hide; or `text`, of which 15 % are.

    ConfigError for weights that are no run, without a text; DataError for a text without a word to hide.
    """
    encoder = Encoder.load(path, checkpoint, adapter)
    model, tokenizer = encoder.model, encoder.tokenizer
    if text is None:
        batch = _of_run(path, encoder)
    else:
        rows = frame_rows(tokenizer, [(tokenizer.encode(text), None)])
        if not rows.words.any() or tokenizer.mask_id is None:
            raise DataError(f"the text {text!r:.60} has no word that can be hidden: give another")
        if (n := rows.ids.shape[1]) > (most := model.config.context_length):
            raise ContextLengthError(f"the text has {n} tokens with its marks, the model reads {most}: cut it")
        shown, hidden = hide_words(rows, tokenizer.mask_id, tokenizer.vocab_size, rng=Generator(0))
        weight = np.full(1, 1 / hidden.sum(), np.float32)
        batch = (shown, rows.segments, rows.lengths, np.where(hidden, rows.ids, -100), weight)
    return HiddenTexts(model, batch, _tables(encoder, batch))


def _of_run(path: str | os.PathLike[str], encoder: Encoder) -> Batch:
    found = find_run(path)
    config: dict[str, Any] = load_config(found[0]) if found else {"task": ""}
    if config["task"] != MaskedWords.name:
        raise ConfigError(f"{path}: it kept no text in which words are hidden: give one with --prompt")
    options = PretrainOptions.of_run(config["training"])
    task = MaskedWords(options.corpus(config.get("files", []), encoder.tokenizer), options)
    ids, segments, lengths, targets, *labels = (each[:_TEXTS] for each in task.val_batches[0])
    weights = np.full(len(ids), 1 / (targets != -100).sum(), np.float32)
    more = () if len(labels) < 3 else (labels[1], np.full(len(ids), 1 / len(ids), np.float32))
    return (ids, segments, lengths, targets, weights, *more)


def _tables(encoder: Encoder, batch: Batch) -> list[TokenTable]:
    """One for each text: the tokens it shows, which of them were hidden, and the likeliest words there."""
    ids, segments, lengths, targets, *_ = batch
    model, pieces = encoder.model, encoder.tokenizer.pieces
    at = np.nonzero(targets != -100)  # (M,) each
    with evaluating(model), no_grad():
        words, _ = model(ids, segments, np.arange(ids.shape[1]) < lengths[:, None], at=at)
        p = np.exp(log_softmax(words.data))  # (M, V)
    tables = []
    for b, length in enumerate(lengths.tolist()):
        right, facts = np.zeros(length), dict[str, str | float]()
        for row in np.flatnonzero(at[0] == b).tolist():
            place, word = int(at[1][row]), int(targets[b, at[1][row]])
            right[place] = p[row, word]
            best = np.argsort(-p[row], kind="stable")[:_TOP].tolist()
            guessed = ", ".join(f"{visible(pieces[i])} {p[row, i]:.3f}" for i in best)
            facts[f"token {place}, {visible(pieces[word])}"] = guessed
        tokens = [visible(pieces[i]) for i in ids[b, :length].tolist()]
        rows = [
            Row("hidden", targets[b, :length] != -100, "words that are to be guessed"),
            Row("probability", right, "of the word that was hidden", scale=1.0),
        ]
        tables.append(TokenTable(f"Hidden words, text {b + 1}", tokens, rows, facts))
    return tables
