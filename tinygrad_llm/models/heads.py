"""Heads that take the place of a language model's: here the classifier's (the book's chapter 6).

    model = make_model("gpt", config)                        # or load_pretrained(...)
    add_classifier(model, ["ham", "spam"])
    logits = class_logits(model, ids, lengths)               # (B, 2)

Letters in shape comments: B batch, T tokens, C features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..checks import check_flag
from ..engine import Tensor
from ..errors import ConfigError, DataError
from ..nn import Linear
from ..rng import Generator
from .base import LanguageModel

POSITIONS = ("last", "padded", "first", "mean")


class ClassifierHead(Linear):
    """Features (..., C) -> scores of classes (..., K), and which token's features a text is judged by.

    `position`: "last" is the last token of the text, which has seen all of it; "padded" the last of the row, where a text is
    filled up to a fixed length, as the book's code has it; "first" the first one, which in a causal model sees nothing
    but itself; "mean" averages the scores over the tokens of the text. transformers' classifiers have no `bias`.
    """

    def __init__(
        self,
        emb_dim: int,
        classes: Sequence[str],
        position: str = "last",
        bias: bool = True,
        *,
        rng: Generator | None = None,
    ) -> None:
        self.classes, self.position = tuple(classes), position
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"classes are {self.classes!s:.200}: there must be two or more, all different")
        if position not in POSITIONS:
            raise ConfigError(f"position is {position!r}: use one of {', '.join(POSITIONS)}")
        super().__init__(emb_dim, len(self.classes), check_flag("head: bias", bias), rng=rng)

    def to_dict(self) -> dict[str, Any]:
        """As in config.json, and as `add_classifier` takes it."""
        return {"classes": list(self.classes), "position": self.position, "bias": self.bias is not None}


def add_classifier(
    model: LanguageModel,
    classes: Sequence[str],
    position: str = "last",
    bias: bool = True,
    *,
    rng: Generator | None = None,
) -> ClassifierHead:
    """Put a new head that scores these classes in the place of the model's own, and return it.

    A head that shared the table of tokens leaves it to the embedding. Weights and bias are drawn as those of a Linear.
    ConfigError for less than two classes, a name that occurs twice, or an unknown position.
    """
    table = model.tok_emb.weight
    head = ClassifierHead(table.shape[1], classes, position, bias, rng=rng)
    if table.dtype != head.weight.dtype:
        head.astype(table.dtype)
    model.out_head = head
    return head


def classes_of(model: LanguageModel) -> tuple[str, ...] | None:
    """The names of the classes, or None for a model that scores tokens."""
    return model.out_head.classes if isinstance(model.out_head, ClassifierHead) else None


def class_logits(model: LanguageModel, ids: Any, lengths: np.ndarray) -> Tensor:
    """Scores (B, K) of texts of `lengths` (B,) tokens, which begin the rows of ids (B, T)."""
    head = model.out_head
    if not isinstance(head, ClassifierHead):
        raise ConfigError("class_logits: the model scores tokens: give it a classifier's head (add_classifier)")
    x = model.features(ids)  # (B, T, C)
    b, t = x.shape[:2]
    if np.shape(lengths) != (b,) or np.min(lengths) < 1 or np.max(lengths) > t:
        raise DataError(f"class_logits: lengths {np.shape(lengths)} must be ({b},), each from 1 to {t}")
    if head.position == "mean":
        share = (np.arange(t) < lengths[:, None]) / lengths[:, None]  # (B, T)
        return (model.head(x) * share[:, :, None].astype(x.dtype)).sum(axis=1)  # (B, K)
    at = {"last": lengths - 1, "padded": np.full(b, t - 1), "first": np.zeros(b, np.int64)}[head.position]
    return model.head(x[np.arange(b), at])  # (B, K)


def check_head(name: str, value: Any) -> None:
    """What config.json says of a head. ConfigError names the part that cannot be."""
    if not isinstance(value, Mapping) or not {"classes"} <= value.keys() <= {"classes", "position", "bias"}:
        raise ConfigError(f"{name} is {value!r:.80}: it must hold classes, and may hold position and bias")
    classes = value["classes"]
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ConfigError(f"{name}.classes is {classes!r:.80}: it must be a list of names")
