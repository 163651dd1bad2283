"""A model that reads texts from both sides (BERT) at work: which word is hidden, and how near texts are to each other.

    encoder = Encoder.load("runs/tales-bert")
    encoder.candidates("Una [MASK] the lamp.")             # [("took", 0.61), ("sold", 0.12), ...]
    vectors = encoder.embed(["Una took the lamp.", ...])   # (N, C), each of length 1
    nearest(vectors, encoder.embed(["A lamp"])[0], 5)      # [(place, cosine), ...]

Letters in shape comments: N texts, T tokens, C features, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_integer
from ..engine import no_grad
from ..errors import CheckpointError, ConfigError, ContextLengthError, DataError
from ..models import Model
from ..nn.module import evaluating
from ..parallel import spread, threads
from ..text.masked import frame_rows
from ..text.wordpiece import MASK, WordPieceTokenizer
from ..weights.load import load_pretrained
from ..weights.peft import load_adapter
from ..weights.tokenizer_files import BESIDE
from .predict import log_softmax

_BATCH = 32


@dataclass(frozen=True)
class Encoder:
    """A model and its tokenizer, which frames what it reads."""

    model: Any
    tokenizer: WordPieceTokenizer

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        checkpoint: str | int | None = None,
        adapter: str | os.PathLike[str] | None = None,
    ) -> Encoder:
        """From a run of `pretrain --architecture bert`, or a BERT of transformers. CheckpointError for another model."""
        model, tokenizer = load_pretrained(path, checkpoint=checkpoint)
        if adapter is not None:
            load_adapter(model, adapter)
        return cls.of(model, tokenizer, path)

    @classmethod
    def of(cls, model: Model, tokenizer: Any, path: str | os.PathLike[str]) -> Encoder:
        """Of what was loaded from a path."""
        if not hasattr(model, "embed"):
            raise CheckpointError(
                f"{path}: a model ({model.architecture}) that does not read texts from both sides: "
                "tinygrad-llm pretrain --architecture bert makes one that does"
            )
        if tokenizer is None:
            raise CheckpointError(f"{path}: no tokenizer there: {BESIDE}")
        if not isinstance(tokenizer, WordPieceTokenizer):
            raise CheckpointError(
                f"{path}: its tokenizer is {tokenizer.name}, which has no [CLS] and [SEP]: put a vocab.txt beside it"
            )
        return cls(model, tokenizer)

    def candidates(self, text: str, top: int = 5) -> list[tuple[str, float]]:
        """The likeliest pieces for the one [MASK] of a text, the likeliest first, and their probabilities.

        DataError for a text with no [MASK] or several, ContextLengthError for one that is too long, ConfigError for a model
        without a head for words.
        """
        top = check_integer("top", top)
        if self.model.classes is not None or not self.model.config.masked_words:
            raise ConfigError(
                "the model has no head for hidden words: it was made into another one, or saved without it"
            )
        mask_id = self.tokenizer.mask_id
        if mask_id is None:
            raise DataError(f"this vocabulary of {self.tokenizer.vocab_size:,} pieces has no {MASK}")
        ids, _ = self.tokenizer.frame(self.tokenizer.encode(text, {MASK}))
        if (n := ids.count(mask_id)) != 1:
            raise DataError(f"the text {text!r:.60} has {n or 'no'} {MASK}: put one where the hidden word is")
        if len(ids) > self.model.config.context_length:
            raise ContextLengthError(
                f"the text {text!r:.60} has {len(ids)} tokens with its marks, the model reads "
                f"{self.model.config.context_length}: cut it"
            )
        row = np.array([ids])  # (1, T)
        with evaluating(self.model), no_grad(), threads(None):
            x = self.model.features(row)[:, ids.index(mask_id)]  # (1, C)
            scores = self.model.words(x).data[0]  # (V,)
        p = np.exp(log_softmax(scores))  # (V,)
        best = np.argsort(-p, kind="stable")[:top]
        pieces = self.tokenizer.pieces
        return [(pieces[i] if i < len(pieces) else f"[{i}]", float(p[i])) for i in best.tolist()]

    def rows(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """The ids of each text, without marks, cut where the model cannot read on; and how many were cut. DataError for none."""
        most = self.model.config.context_length - 2
        rows = [self.tokenizer.encode(text) for text in texts]
        for number, row in enumerate(rows, 1):
            if not row:
                raise DataError(f"line {number}: no token there: give each line a text")
        return [row[:most] for row in rows], sum(len(row) > most for row in rows)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of the features of each text's tokens, of length 1: (N, C) in float32. DataError for a text without tokens."""
        return self.embed_rows(self.rows(texts)[0])

    def embed_rows(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """As `embed`, of ids; texts of a length go together."""
        order = np.argsort([len(row) for row in rows], kind="stable")
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]

        def embed(batch: np.ndarray) -> np.ndarray:
            ids, _, lengths, _ = frame_rows(self.tokenizer, [(rows[i], None) for i in batch.tolist()])
            return self.model.embed(ids, np.arange(ids.shape[1]) < lengths[:, None]).data

        with evaluating(self.model), no_grad(), threads(None):
            found = np.concatenate(spread(embed, batches)).astype(np.float32)
        found[order] = found.copy()
        return found


def nearest(vectors: np.ndarray, query: np.ndarray, top: int) -> list[tuple[int, float]]:
    """The places of the vectors (N, C), each of length 1, that are nearest to another one (C,), and the cosines."""
    cosines = vectors @ query  # (N,)
    return [(i, float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[: check_integer("top", top)].tolist()]
