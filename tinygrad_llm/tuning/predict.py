"""A trained classifier at work: what it says of texts, and because of which words.

    classifier = Classifier.load("runs/spam")
    classifier.probabilities(["WINNER!! claim your prize"])     # (1, 2)
    classifier.explain("WINNER!! claim your prize")             # a number for each token

Letters in shape comments: B batch, T tokens, C features, K classes, N texts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import numpy as np

from ..engine import Tensor, no_grad
from ..errors import CheckpointError
from ..models import LanguageModel, TextModel
from ..models.heads import class_logits
from ..nn import Module
from ..nn.module import evaluating
from ..parallel import spread, threads
from ..runs.folder import find_run, load_config
from ..text import Tokenizer
from ..weights.load import load_pretrained
from ..weights.peft import load_adapter
from ..weights.tokenizer_files import BESIDE
from .splits import cut, encode_texts, frame_texts, pad, pad_id_of

_BATCH = 32


def score_texts(model: TextModel, rows: Sequence[Sequence[int]], pad_id: int, width: int = 0) -> np.ndarray:
    """Scores (N, K) of texts as ids, without dropout and without a graph. Texts of a length go together."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]

    def score(batch: np.ndarray) -> np.ndarray:
        return class_logits(model, *pad([rows[i] for i in batch], pad_id, width)).data

    with evaluating(model), no_grad(), threads(None):
        found = np.concatenate(spread(score, batches))
    found[order] = found.copy()
    return found


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """log p of each class, in float64: (N, K) -> (N, K)."""
    scores = scores.astype(np.float64)
    scores -= scores.max(-1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@dataclass(frozen=True)
class Explanation:
    """Tokens of a text, and how far each speaks for the class `label`: gradient x input, whose sum is no score."""

    label: str
    probability: float
    ids: list[int]
    tokens: list[bytes]
    shares: np.ndarray  # (T,), below 0 for what speaks against it


@dataclass(frozen=True)
class Classifier:
    """A model with a head for classes, its tokenizer, and how long its texts may be."""

    model: TextModel
    tokenizer: Tokenizer
    max_length: int
    width: int = 0  # to which texts are filled up, for a head that looks at the last place of the row

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        checkpoint: str | int | None = None,
        adapter: str | os.PathLike[str] | None = None,
    ) -> Classifier:
        """From a run of `classify`, a folder of transformers, or weights and an `adapter` in PEFT's form that makes a classifier
        of them. CheckpointError for a model that has no classes.
        """
        return cls.of(*load_pretrained(path, checkpoint=checkpoint), path, adapter)

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Tokenizer | None,
        path: str | os.PathLike[str],
        adapter: str | os.PathLike[str] | None = None,
    ) -> Classifier:
        """Of what was loaded from a path."""
        if model.predicts != "classes" and getattr(model, "classes", None) is None:
            raise CheckpointError(
                f"{path}: a model ({model.architecture}) without classes: tinygrad-llm predict asks it"
            )
        if adapter is not None:
            load_adapter(model, adapter)
        if not isinstance(model, TextModel) or model.classes is None:
            kind = "language model" if isinstance(model, LanguageModel) else type(model).__name__
            raise CheckpointError(f"{path}: a {kind}, which has no classes: tinygrad-llm classify makes one that has")
        if len(model.classes) == 1:
            raise CheckpointError(
                f"{path}: a model that scores answers, and has no classes: tinygrad-llm evaluate asks it"
            )
        if tokenizer is None:
            raise CheckpointError(f"{path}: no tokenizer there: {BESIDE}")
        run = find_run(path)
        said = load_config(run[0])["training"].get("max_length") if run else None
        context = model.config.reading_length
        if said is not None and not (type(said) is int and 1 <= said <= context):
            raise CheckpointError(f"{path}: training.max_length is {said!r:.40}: it must be from 1 to {context}")
        max_length = said or context
        return cls(model, tokenizer, max_length, max_length if model.position == "padded" else 0)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.classes or ()

    @property
    def pad_id(self) -> int:
        return pad_id_of(self.tokenizer)

    def rows(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """The ids of each text, up to max_length. DataError for a text without any."""
        framed = self.model.position == "pooled"
        encode = frame_texts if framed else encode_texts
        return [cut(row, self.max_length, framed) for row in encode(self.tokenizer, texts)]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """(N, K), float64, the classes in the order of `classes`."""
        if not texts:
            return np.zeros((0, len(self.classes)))
        return np.exp(log_softmax(score_texts(self.model, self.rows(texts), self.pad_id, self.width)))

    def explain(self, text: str, label: str | None = None) -> Explanation:
        """What each token has to do with the score of a class, by default the likeliest: d score / d x · x, of its embedding x.

        Simonyan et al. 2014 §3 for the gradient, Shrikumar et al. 2017 for the product. What the model would say without a word
        may be another matter: the product sees no more than the slope.
        """
        rows = self.rows([text])
        embedded: list[Tensor] = []
        here = get_ident()

        def begin_here(module: Module, args: tuple, out: Tensor) -> Tensor | None:
            if get_ident() != here:  # another thread reads a text of its own
                return None
            embedded.append(Tensor(out.data, requires_grad=True))  # (1, T, C)
            return embedded[0]

        with evaluating(self.model), self.model.tok_emb.on_forward(begin_here):
            scores = class_logits(self.model, *pad(rows, self.pad_id, self.width))  # (1, K)
        k = int(scores.data[0].argmax()) if label is None else self.classes.index(label)
        gradients: dict[Tensor, np.ndarray] = {}
        scores[0, k].backward(into=gradients)
        ids = list(rows[0])
        (x,) = embedded
        shares = (x.data * gradients[x]).sum(-1)[0, : len(ids)]  # (T,)
        p = float(np.exp(log_softmax(scores.data))[0, k])
        return Explanation(self.classes[k], p, ids, [self.tokenizer.tokens[i] for i in ids], shares)
