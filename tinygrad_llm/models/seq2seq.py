"""The original Transformer (Vaswani et al. 2017): an encoder reads a source, a decoder writes a target. From top to bottom.

What differs from GPT-2: two stacks of blocks, of which the second gathers from what the first has made; the norm comes after
the shortcut; positions are sines and cosines; one table of tokens, times √C, serves source, target and head.

    logits = model(source, target, source_mask)             # (B, T, V); target begins with the mark that begins every text
    memory = model.encode(source, source_mask)              # (B, S, C)
    writer = model.reading(source, source_mask)             # what generation takes: the decoder in front of these sources

Letters in shape comments: B batch, S tokens of the source, T of the target, C = emb_dim, V = vocab_size.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor, no_grad
from ..errors import ConfigError, ContextLengthError, DataError
from ..nn import DecoderBlock, Dropout, Embedding, EncoderBlock, LayerNorm, Linear, Module, Sequential
from ..nn.attention import Memory
from ..nn.layers import ACTIVATIONS
from ..nn.module import evaluating
from ..nn.positions import FORMS, sinusoids
from ..nn.state import DecoderState
from ..ops.matrix import check_ids
from ..rng import Generator, get_generator
from .base import Config, Model, check_mask
from .costs import Cost, encoder_costs, head_costs, repeated


@dataclass(frozen=True)
class TransformerConfig(Config):
    """The sizes of the paper's base model and a few options, checked when they are put together.

    `n_layers`: of the encoder, and of the decoder but for `n_decoder_layers`. `source_vocab_size`: of sources that have a
    vocabulary of their own. `share`: "all" is one table for source, target and head (§3.4), "target" one for target and head,
    "none" three. `scale_embedding`: tokens times √C. `positions`: sines and cosines "interleaved" as in the paper, in "halves" as
    in Marian, or "none". `norm_first`: the norm inside the shortcut, as in GPT-2. `final_norms`: one after each stack, by default
    where the norm comes first; nn.Transformer of PyTorch always has them. `head_bias`: one for each token. `start_id` begins a
    target, `end_id` ends one, `pad_id` fills rows up. `init`: "xavier" draws every matrix from ±√(6 / (inputs + outputs)), as
    the Annotated Transformer does, tables from N(0, 1/C); "pytorch" each layer as PyTorch does.
    """

    architecture: ClassVar[str] = "seq2seq"

    vocab_size: int = 37000
    context_length: int = 512
    emb_dim: int = 512
    n_heads: int = 8
    n_layers: int = 6
    n_decoder_layers: int | None = None
    hidden_dim: int | None = None  # None: 4 emb_dim
    source_vocab_size: int | None = None
    drop_rate: float = 0.1
    activation: str = "relu"
    norm_eps: float = 1e-5
    norm_first: bool = False
    final_norms: bool | None = None
    positions: str = "interleaved"
    scale_embedding: bool = True
    share: str = "all"
    head_bias: bool = False
    start_id: int = 0
    end_id: int = 0
    pad_id: int = 0
    init: str = "xavier"

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
        for name in (*sizes, "n_decoder_layers", "hidden_dim", "source_vocab_size"):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"TransformerConfig: {name}", getattr(self, name)))
        if self.emb_dim % self.n_heads:
            raise ConfigError(f"TransformerConfig: n_heads {self.n_heads} does not divide emb_dim {self.emb_dim}")
        for name in (
            "norm_first",
            "scale_embedding",
            "head_bias",
            *(("final_norms",) if self.final_norms is not None else ()),
        ):
            check_flag(f"TransformerConfig: {name}", getattr(self, name))
        choices = {
            "activation": tuple(ACTIVATIONS),
            "positions": (*FORMS, "none"),
            "share": ("all", "target", "none"),
            "init": ("xavier", "pytorch"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"TransformerConfig: {name} is {getattr(self, name)!r}: use one of {', '.join(known)}"
                )
        if self.share == "all" and self.source_vocab_size not in (None, self.vocab_size):
            raise ConfigError(
                f"TransformerConfig: source_vocab_size is {self.source_vocab_size} and vocab_size {self.vocab_size}: "
                "they share no table: use share='target' or 'none'"
            )
        for name in ("start_id", "end_id", "pad_id"):
            value = check_integer(f"TransformerConfig: {name}", getattr(self, name), least=0)
            if value >= self.vocab_size:
                raise ConfigError(f"TransformerConfig: {name} is {value}: ids go to {self.vocab_size - 1}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "drop_rate", check_number("TransformerConfig: drop_rate", self.drop_rate, most=1))
        object.__setattr__(self, "norm_eps", check_number("TransformerConfig: norm_eps", self.norm_eps, below=1))

    @property
    def hidden_width(self) -> int:
        """The features between the feed-forward layers."""
        return self.hidden_dim or 4 * self.emb_dim

    @property
    def decoder_layers(self) -> int:
        return self.n_decoder_layers or self.n_layers

    @property
    def source_vocabulary(self) -> int:
        return self.source_vocab_size or self.vocab_size

    @property
    def tie_weights(self) -> bool:
        """Whether the head is the table of the target."""
        return self.share != "none"

    @property
    def has_final_norms(self) -> bool:
        return self.norm_first if self.final_norms is None else self.final_norms

    def costs(self) -> list[Cost]:
        c, v, t = self.emb_dim, self.vocab_size, self.context_length
        norm = [Cost("norm", 2 * c, kept=c + 1)] * self.has_final_norms
        sizes = c, self.n_heads, self.hidden_width, t
        head = head_costs(c, v, self.share != "none")
        return [
            *([Cost("src_emb", self.source_vocabulary * c, flops=0)] if self.share != "all" else []),
            Cost("tok_emb", v * c, flops=0),
            *(cost._replace(cached=0) for cost in repeated("encoder", self.n_layers, encoder_costs(*sizes))),
            *repeated("encoder_norm", 1, norm),
            *repeated("decoder", self.decoder_layers, encoder_costs(*sizes, cross=True)),
            *repeated("decoder_norm", 1, norm),
            head[0]._replace(parameters=head[0].parameters + v * self.head_bias),
            *head[1:],
        ]


# Vaswani et al. 2017, table 3.
PRESETS: dict[str, TransformerConfig] = {
    "transformer-base": TransformerConfig(),
    "transformer-big": TransformerConfig(emb_dim=1024, n_heads=16, drop_rate=0.3),
}


class TransformerModel(Model):
    """Ids of sources (B, S) and targets (B, T) -> logits (B, T, V): for every position, the scores of the target's next token."""

    architecture = "seq2seq"
    config_class = TransformerConfig
    predicts = "translations"
    commands = ("predict",)

    def __init__(self, config: TransformerConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        c = config.emb_dim
        self.config = config
        options: dict[str, Any] = {
            "hidden_dim": config.hidden_dim,
            "activation": config.activation,
            "norm_eps": config.norm_eps,
            "norm_first": config.norm_first,
            "rng": rng,
        }
        sizes = c, config.n_heads, config.context_length, config.drop_rate
        self.tok_emb = Embedding(config.vocab_size, c, rng=rng)
        self.src_emb = self.tok_emb if config.share == "all" else Embedding(config.source_vocabulary, c, rng=rng)
        self.drop_emb = Dropout(config.drop_rate)
        self.encoder = Sequential(*(EncoderBlock(*sizes, **options) for _ in range(config.n_layers)))
        self.decoder = Sequential(*(DecoderBlock(*sizes, **options) for _ in range(config.decoder_layers)))
        self.encoder_norm = LayerNorm(c, config.norm_eps) if config.has_final_norms else None
        self.decoder_norm = LayerNorm(c, config.norm_eps) if config.has_final_norms else None
        self.out_head = Linear(c, config.vocab_size, config.head_bias, rng=rng)
        if config.share != "none":
            self.out_head.weight = self.tok_emb.weight
        if config.init == "xavier":
            self._draw_xavier(rng)
        self._positions = (
            None if config.positions == "none" else sinusoids(config.context_length, c, config.positions)  # (T, C)
        )
        self.name_parameters()

    def forward(self, source: Any, target: Any, source_mask: Any = None) -> Tensor:
        """(B, T, V). `source_mask` (B, S): 1 or True where there is a token; what fills up a target stands behind its tokens,
        which do not see it.
        """
        memory = self.encode(source, source_mask)  # (B, S, C)
        mask = None if source_mask is None else np.asarray(source_mask, bool)  # (B, S)
        return self.head(self.decode(target, self.memories(memory), mask))

    def encode(self, source: Any, mask: Any = None) -> Tensor:
        """What the encoder makes of a source: (B, S) -> (B, S, C)."""
        source = self._check_ids("source", source, self.config.source_vocabulary)
        mask = None if mask is None else check_mask("TransformerModel: source_mask", mask, source.shape)
        x = self._embed(self.src_emb, source, np.arange(source.shape[1]))  # (B, S, C)
        for block in self.encoder:
            x = block(x, mask)  # (B, S, C)
        return x if self.encoder_norm is None else self.encoder_norm(x)

    def memories(self, memory: Tensor) -> list[Memory]:
        """The keys and values (B, S, C) that each block of the decoder has of a source."""
        return [cast(DecoderBlock, block).cross_att.keys_and_values(memory) for block in self.decoder]

    def decode(
        self, target: Any, memories: Sequence[Memory], mask: Any = None, state: DecoderState | None = None
    ) -> Tensor:
        """(B, T) -> (B, T, C), before the head. With a `state`, the target goes on from what has been written."""
        target = self._check_ids("target", target, self.config.vocab_size)
        if len(target) != (n_sources := memories[0][0].shape[0]):
            raise DataError(f"TransformerModel: {len(target)} targets for {n_sources} sources: pass one for each")
        positions = np.arange(target.shape[1]) if state is None else state.positions(*target.shape)  # (T,) or (B, T)
        x = self._embed(self.tok_emb, target, positions)  # (B, T, C)
        for i, block in enumerate(self.decoder):
            x = block(x, memories[i], mask, state and state.layers[i])  # (B, T, C)
        if state is not None:
            state.lengths += x.shape[1]
        return x if self.decoder_norm is None else self.decoder_norm(x)

    def head(self, x: Tensor) -> Tensor:
        """(..., C) -> logits (..., V)."""
        return self.out_head(x)

    def reading(self, source: Any, source_mask: Any = None) -> Reading:
        """The decoder in front of these sources, to write with: `generate(model.reading(source), [[start_id]] * B, ...)`."""
        with evaluating(self), no_grad():
            pairs = self.memories(self.encode(source, source_mask))
        mask = np.ones(np.shape(source), bool) if source_mask is None else np.asarray(source_mask, bool)  # (B, S)
        return Reading(self, [(keys.data, values.data) for keys, values in pairs], mask)

    def _embed(self, table: Embedding, ids: np.ndarray, positions: np.ndarray) -> Tensor:
        x = table(ids)  # (B, T, C)
        if self.config.scale_embedding:
            x = x * math.sqrt(self.config.emb_dim)
        if self._positions is not None:
            x = x + self._positions[positions].astype(x.dtype)
        return self.drop_emb(x)

    def _check_ids(self, name: str, ids: Any, vocab_size: int) -> np.ndarray:
        ids = check_ids(ids, vocab_size, f"TransformerModel: {name}")
        if ids.ndim != 2 or ids.size == 0:
            raise DataError(
                f"TransformerModel: {name} has shape {ids.shape}: it must be (batch, tokens), neither of them 0"
            )
        if ids.shape[1] > self.config.context_length:
            raise ContextLengthError(
                f"TransformerModel: {name} has {ids.shape[1]} tokens, the positions are {self.config.context_length}: "
                "pass a shorter text, or make the model with a longer context_length"
            )
        return ids

    def _draw_xavier(self, rng: Generator) -> None:
        tables = {id(self.src_emb.weight), id(self.tok_emb.weight)}
        for _, parameter in self.named_parameters():
            if id(parameter) in tables:
                parameter.data = rng.normal(0.0, self.config.emb_dim**-0.5, parameter.shape)
            elif parameter.ndim == 2:
                bound = math.sqrt(6 / sum(parameter.shape))
                parameter.data = rng.uniform(-bound, bound, parameter.shape)


class Reading(Module):
    """A decoder and the sources that it writes from: to generation it is like a language model, whose rows are the sources."""

    def __init__(self, model: TransformerModel, memory: list[tuple[np.ndarray, np.ndarray]], mask: np.ndarray) -> None:
        """`memory`: for each block the keys and values (B, S, C) of the sources; `mask` (B, S): where they have tokens."""
        self.model, self.config = model, model.config
        self._memory, self._mask, self.n_rows = memory, mask, len(mask)
        self.training = False  # its sources were read without dropout, and so it writes

    def of_rows(self, rows: Sequence[int]) -> Reading:
        """The decoder in front of these sources, in this order."""
        index = np.asarray(rows)
        return Reading(self.model, [(keys[index], values[index]) for keys, values in self._memory], self._mask[index])

    def forward(self, ids: Any, *, state: DecoderState | None = None, last_only: bool = False) -> Tensor:
        """Logits (B, T, V) of what follows targets (B, T); with a `state`, which has its own sources, ids follow those in it."""
        memory, mask = (self._memory, self._mask) if state is None else (state.memory, state.mask)
        with evaluating(self.model), no_grad():
            x = self.model.decode(ids, memory, mask, state)  # (B, T, C)
            return self.model.head(x[:, -1:] if last_only else x)

    def make_state(self, batch_size: int = 1, capacity: int | None = None) -> DecoderState:
        if batch_size != self.n_rows:
            raise DataError(f"Reading: {batch_size} rows for {self.n_rows} sources: write one target for each source")
        return DecoderState(self._memory, self._mask, min(capacity or sys.maxsize, self.config.context_length))
