"""Heads that take the place of a language model's: the classifier's (the book's chapter 6), and one number, a score or a value.

    model = make_model("gpt", config)                        # or load_pretrained(...)
    add_classifier(model, ["ham", "spam"])
    logits = class_logits(model, ids, lengths)               # (B, 2)
    add_score(other)
    scores = class_logits(other, ids, lengths)[:, 0]         # (B,): how good an answer is
    values = other(ids)[..., 0]                              # (B, T): what may be expected after each token
    pair = PolicyAndValue(policy, other)                     # one module for an optimizer

Letters in shape comments: B batch, T tokens, C features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..checks import check_flag
from ..engine import Tensor
from ..errors import ConfigError, DataError
from ..nn import Linear, Module, MultiHeadAttention
from ..rng import Generator, Zeros, get_generator
from .base import LanguageModel, Model, TextModel

POSITIONS = (*LanguageModel.positions, "pooled")  # of all kinds of models; "pooled" is BERT's
SCORE = "score"  # the one class of a head that gives a number


def add_classifier(
    model: Any,
    classes: Sequence[str],
    position: str | None = None,
    bias: bool = True,
    causal: bool = True,
    *,
    rng: Generator | None = None,
) -> Any:
    """Put a Linear that scores these classes in the place of a TextModel's own head; returns the model.

    `position` is the token by whose features a text is judged, by default the first of the model's `positions`. Of a language
    model, "last" is the last one of the text, which has seen all of it; "padded" the last of the row, where a text is filled up
    to a fixed length, as the book's code has it; "first" the first one, which sees nothing but itself; "mean" averages the
    scores over the tokens of the text. Of BERT, "pooled" is what the pooler makes of [CLS]. transformers' GPT-2 and Llama
    classifiers have no `bias`. Without `causal`, which is for rows filled up to one length ("padded"), every token sees all of
    its row. A head that shared the table of tokens leaves it to the embedding. One class alone is a score, which `add_score`
    makes. ConfigError for no classes, a name that occurs twice, or an unknown position.
    """
    names = tuple(classes)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"classes are {names!s:.200}: there must be one or more, all different")
    position = model.positions[0] if position is None else position
    if position not in model.positions:
        raise ConfigError(f"position is {position!r:.80}: use one of {', '.join(model.positions)}")
    if not check_flag("head: causal", causal) and position != "padded":
        raise ConfigError(
            f"causal is False and position is {position!r}: use 'padded', or texts see what fills them up"
        )
    table = model.tok_emb.weight
    head = Linear(table.shape[1], len(names), check_flag("head: bias", bias), rng=rng)
    if table.dtype != head.weight.dtype:
        head.astype(table.dtype)
    model.put_head(head)
    model.classes, model.position = names, position
    for attention in _attentions(model):
        attention.causal = causal
    return model


def _attentions(model: TextModel) -> list[MultiHeadAttention]:
    """Those of which a choice can be made whether a token sees later ones."""
    every = [module for _, module in model.named_modules() if isinstance(module, MultiHeadAttention)]
    return every if isinstance(model, LanguageModel) else []


def add_score(model: LanguageModel, zero: bool = False, *, rng: Generator | None = None) -> LanguageModel:
    """Put a Linear that gives one number in the place of the model's own head; returns the model.

    Its weights (1, C) are drawn from N(0, 1 / (C + 1)), as Stiennon et al. 2020 (appendix B.1) have it for a reward model, or are
    `zero`, as they have it for a value function; its bias is 0.
    """
    add_classifier(model, [SCORE], rng=Zeros())
    if not zero:
        (weight, *_) = model.out_head.parameters()
        std = (weight.shape[1] + 1) ** -0.5
        weight.data = (rng or get_generator()).normal(0.0, std, weight.shape).astype(weight.dtype)
    return model


class PolicyAndValue(Module):
    """What writes, and what says how good an answer will come out: two models that learn together, and share nothing.

    `value` is a language model with the head of `add_score`.
    """

    def __init__(self, policy: LanguageModel, value: LanguageModel) -> None:
        self.policy, self.value = policy, value

    @property
    def config(self) -> Any:
        """The policy's."""
        return self.policy.config

    def set_drop_rate(self, drop_rate: float) -> None:
        self.policy.set_drop_rate(drop_rate)
        self.value.set_drop_rate(drop_rate)


def policy_of(model: LanguageModel | PolicyAndValue) -> LanguageModel:
    """What writes."""
    return model.policy if isinstance(model, PolicyAndValue) else model


def describe_head(model: Model) -> dict[str, Any] | None:
    """What `add_classifier` makes the same head of, as in config.json; None for one that scores tokens."""
    if not isinstance(model, TextModel) or model.classes is None:
        return None
    bias = getattr(model.out_head, "bias", None) is not None
    causal = all(attention.causal for attention in _attentions(model))
    return {"classes": list(model.classes), "position": model.position, "bias": bias, "causal": causal}


def class_logits(model: TextModel, ids: Any, lengths: np.ndarray) -> Tensor:
    """Scores (B, K) of texts of `lengths` (B,) tokens, which begin the rows of ids (B, T)."""
    if model.classes is None:
        raise ConfigError("class_logits: the model scores tokens: give it a classifier's head (add_classifier)")
    b, t = model.check_ids(ids).shape
    if np.shape(lengths) != (b,) or np.min(lengths) < 1 or np.max(lengths) > t:
        raise DataError(f"class_logits: lengths {np.shape(lengths)} must be ({b},), each from 1 to {t}")
    return model.class_logits(ids, lengths)


def check_head(name: str, value: Any) -> None:
    """What config.json says of a head. ConfigError names the part that cannot be."""
    if not isinstance(value, Mapping) or not {"classes"} <= value.keys() <= {"classes", "position", "bias", "causal"}:
        raise ConfigError(f"{name} is {value!r:.80}: it must hold classes, and may hold position, bias and causal")
    classes = value["classes"]
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ConfigError(f"{name}.classes is {classes!r:.80}: it must be a list of names")
