"""BERT (Devlin et al. 2018): an encoder that learns by guessing words that were hidden. It reads from top to bottom.

What differs from GPT-2: every token sees all of its text, before and after it; the norm comes after the shortcut, and once more
before the first block; a third table says of which of two texts a token is; and the heads: one for hidden words, one, on what
the pooler makes of [CLS], for whether the second text follows the first.

    model.features(ids, mask=mask)               # (B, T, C), after the last norm
    model(ids, segments, mask)                   # (B, T, V) of hidden words; of a classifier (B, K)
    model.pooled(ids, segments, mask)            # (B, C)
    model.embed(ids, mask)                       # (B, C), of length 1

Letters in shape comments: B batch, T tokens, C = emb_dim, V = vocab_size, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError, DataError
from ..nn import Dropout, Embedding, EncoderBlock, LayerNorm, Linear, Module, Sequential
from ..nn.initial import truncated_normal
from ..nn.layers import ACTIVATIONS
from ..rng import Generator, Zeros, get_generator
from .base import Config, TextModel, check_mask
from .costs import Cost, encoder_costs, repeated


@dataclass(frozen=True)
class BertConfig(Config):
    """The sizes of BERT base and a few options, checked when they are put together.

    `n_segments`: texts in a row that are told apart. `pooler`: a layer on [CLS]. `masked_words` and `next_sentence`: the two
    heads that it is pretrained with; the second one needs the pooler. `activation`: "gelu_erf" is the exact GELU, which files of
    transformers mean; Google's released code has the tanh form, "gelu". `init`: "bert" draws N(0, 0.02) without what is more than
    two deviations away, and biases of 0 (Google's modeling.py); "pytorch" each layer as PyTorch does.
    """

    architecture: ClassVar[str] = "bert"

    vocab_size: int = 30522
    context_length: int = 512
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    hidden_dim: int | None = None  # None: 4 emb_dim
    n_segments: int = 2
    drop_rate: float = 0.1
    activation: str = "gelu_erf"
    norm_eps: float = 1e-12
    pooler: bool = True
    masked_words: bool = True
    next_sentence: bool = True
    tie_weights: bool = True
    init: str = "bert"

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", "n_segments")
        for name in (*sizes, "hidden_dim"):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"BertConfig: {name}", getattr(self, name)))
        if self.emb_dim % self.n_heads:
            raise ConfigError(f"BertConfig: n_heads {self.n_heads} does not divide emb_dim {self.emb_dim}")
        for name in ("pooler", "masked_words", "next_sentence", "tie_weights"):
            check_flag(f"BertConfig: {name}", getattr(self, name))
        if self.next_sentence and not self.pooler:
            raise ConfigError("BertConfig: next_sentence without a pooler, on which its head stands")
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"BertConfig: activation is {self.activation!r}: use one of {', '.join(ACTIVATIONS)}")
        if self.init not in ("pytorch", "bert"):
            raise ConfigError(f"BertConfig: init is {self.init!r}: use 'pytorch' or 'bert'")
        object.__setattr__(self, "drop_rate", check_number("BertConfig: drop_rate", self.drop_rate, most=1))
        object.__setattr__(self, "norm_eps", check_number("BertConfig: norm_eps", self.norm_eps, below=1))

    @property
    def hidden_width(self) -> int:
        """The features between the feed-forward layers."""
        return self.hidden_dim or 4 * self.emb_dim

    def costs(self) -> list[Cost]:
        c, v, t = self.emb_dim, self.vocab_size, self.context_length
        costs = [
            Cost("tok_emb", v * c, flops=0),
            Cost("pos_emb", t * c, flops=0),
            Cost("seg_emb", self.n_segments * c, flops=0),
            Cost("emb_norm", 2 * c, kept=c + 1),
            *(
                cost._replace(cached=0)  # all of a text is read at once
                for cost in repeated("trf_blocks", self.n_layers, encoder_costs(c, self.n_heads, self.hidden_width, t))
            ),
        ]
        if self.pooler:  # of one token in T, which the costs of a token leave out
            costs.append(Cost("pooler", c * (c + 1), flops=0))
        if self.masked_words:
            costs += [
                Cost("transform.dense", c * (c + 1), kept=c),
                Cost("transform", kept=2 * c),
                Cost("transform.norm", 2 * c, kept=c + 1),
                Cost("out_head", v + (0 if self.tie_weights else v * c), flops=2 * v * c, kept=c),
                Cost("cross_entropy", kept=v + 1),
            ]
        if self.next_sentence:
            costs.append(Cost("next_sentence", 2 * (c + 1), flops=0))
        return costs


# Devlin et al. 2018 §3; the tiny one is of Turc et al. 2019.
PRESETS: dict[str, BertConfig] = {
    "tales-bert": BertConfig(
        vocab_size=1024, context_length=64, emb_dim=96, n_heads=4, n_layers=3, drop_rate=0.0, activation="gelu"
    ),
    "bert-tiny": BertConfig(emb_dim=128, n_heads=2, n_layers=2),
    "bert-base": BertConfig(),
    "bert-large": BertConfig(emb_dim=1024, n_heads=16, n_layers=24),
}


class WordTransform(Module):
    """What the head for hidden words does with a token before it is compared with the table of all: (..., C) -> (..., C)."""

    def __init__(self, emb_dim: int, activation: str, norm_eps: float, *, rng: Generator | None = None) -> None:
        self.dense = Linear(emb_dim, emb_dim, rng=rng)
        self.activation = ACTIVATIONS[activation]()
        self.norm = LayerNorm(emb_dim, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(x)))


class BertModel(TextModel):
    """Token ids (B, T) -> logits (B, T, V): for every position, the scores of the word that may be hidden there."""

    architecture = "bert"
    config_class = BertConfig
    predicts = "words"
    pretraining = "masked_words"
    positions = ("pooled",)
    commands = ("predict", "embed", "classify")
    out_head: Any  # a Linear, or None without a head for words or classes

    def __init__(self, config: BertConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        draw = rng if config.init == "pytorch" else Zeros()
        c = config.emb_dim
        self.config = config
        self.tok_emb = Embedding(config.vocab_size, c, rng=draw)
        self.pos_emb = Embedding(config.context_length, c, rng=draw)
        self.seg_emb = Embedding(config.n_segments, c, rng=draw)
        self.emb_norm = LayerNorm(c, config.norm_eps)
        self.drop_emb = Dropout(config.drop_rate)
        self.trf_blocks = Sequential(
            *(
                EncoderBlock(
                    c,
                    config.n_heads,
                    config.context_length,
                    config.drop_rate,
                    hidden_dim=config.hidden_dim,
                    activation=config.activation,
                    norm_eps=config.norm_eps,
                    rng=draw,
                )
                for _ in range(config.n_layers)
            )
        )
        self.pooler = Linear(c, c, rng=draw) if config.pooler else None
        words = config.masked_words
        self.transform = WordTransform(c, config.activation, config.norm_eps, rng=draw) if words else None
        self.out_head = Linear(c, config.vocab_size, rng=draw) if words else None
        if self.out_head is not None and config.tie_weights:
            self.out_head.weight = self.tok_emb.weight
        self.next_sentence = Linear(c, 2, rng=draw) if config.next_sentence else None
        if config.init == "bert":
            self._draw_bert(rng)
        self.name_parameters()

    def forward(self, ids: Any, segments: Any = None, mask: Any = None, *, at: Any = None) -> Any:
        """Of hidden words (B, T, V); of a classifier, of the text, (B, K). `segments` (B, T): of which text a token is, 0 by
        default; `mask` (B, T): 1 or True where there is a token. With `at`, rows and places (M,) of hidden words, two things as
        in pretraining: the scores of these alone, (M, V), and whether the second text follows the first, (B, 2), None without a
        head for that. ConfigError for a model without a head.
        """
        if at is not None:
            x = self.features(ids, segments, mask)  # (B, T, C)
            words = self.words(x[at])  # (M, V): of all tokens it would be seven times as much
            return words, None if self.next_sentence is None else self.next_sentence(self.pool(x))  # (B, 2)
        if self.classes is not None:
            return self.out_head(self.drop_emb(self.pooled(ids, segments, mask)))  # (B, K)
        return self.words(self.features(ids, segments, mask))  # (B, T, V)

    def features(self, ids: Any, segments: Any = None, mask: Any = None) -> Tensor:
        """(B, T, C), after the last norm."""
        ids = self.check_ids(ids)
        segments = np.zeros_like(ids) if segments is None else self._check_segments(segments, ids.shape)
        mask = None if mask is None else check_mask("BertModel: mask", mask, ids.shape)
        x = self.tok_emb(ids) + self.pos_emb(np.arange(ids.shape[1])) + self.seg_emb(segments)  # (B, T, C)
        x = self.drop_emb(self.emb_norm(x))  # (B, T, C)
        for block in self.trf_blocks:
            x = block(x, mask)  # (B, T, C)
        return x

    def words(self, x: Tensor) -> Tensor:
        """Features (..., C) -> scores (..., V) of the word there. ConfigError where there is no such head."""
        if self.transform is None or self.out_head is None:
            raise ConfigError(
                "BertModel: it has no head for masked words: features(ids), pooled(ids) and embed(ids) have none"
            )
        return self.out_head(self.transform(x))

    def pooled(self, ids: Any, segments: Any = None, mask: Any = None) -> Tensor:
        """What the pooler makes of the first token, [CLS]: (B, C)."""
        return self.pool(self.features(ids, segments, mask))

    def pool(self, x: Tensor) -> Tensor:
        """tanh(W x + b) of the features of the first token: (B, T, C) -> (B, C)."""
        if self.pooler is None:
            raise ConfigError("BertModel: it has no pooler: embed(ids) is the mean of features(ids)")
        return ops.tanh(self.pooler(x[:, 0]))

    def embed(self, ids: Any, mask: Any = None) -> Tensor:
        """The mean of the features of all tokens, of length 1: (B, C); the product of two is their cosine."""
        x = self.features(ids, mask=mask)  # (B, T, C)
        mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask, bool)  # (B, T)
        if not mask.any(1).all():
            raise DataError(f"BertModel: row {int(mask.any(1).argmin())} of mask has no token: no text has no features")
        share = (mask / mask.sum(1, keepdims=True)).astype(x.dtype)  # (B, T)
        mean = (x * share[:, :, None]).sum(axis=1)  # (B, C)
        return mean / (mean * mean).sum(axis=1, keepdims=True).sqrt()

    def last_modules(self) -> list[Module]:
        rest = (self.pooler, self.transform, self.out_head, self.next_sentence)
        return [self.trf_blocks[-1], *(module for module in rest if module is not None)]

    def class_logits(self, ids: Any, lengths: np.ndarray) -> Tensor:
        return self(ids, mask=np.arange(np.shape(ids)[1]) < lengths[:, None])  # (B, K)

    def put_head(self, head: Module) -> None:
        if self.pooler is None:
            raise ConfigError("BertModel: it has no pooler, on which a head for classes stands")
        self.out_head, self.transform, self.next_sentence = head, None, None

    def _check_segments(self, segments: Any, shape: tuple[int, ...]) -> np.ndarray:
        segments = ops.matrix.check_ids(segments, self.config.n_segments, "BertModel: segments")
        if segments.shape != shape:
            raise DataError(f"BertModel: segments have shape {segments.shape}: it must be that of ids, {shape}")
        return segments

    def _draw_bert(self, rng: Generator) -> None:
        for _, parameter in self.named_parameters():
            if parameter.ndim == 2:
                parameter.data = truncated_normal(rng, parameter.shape)
