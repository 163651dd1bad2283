"""What every model offers, and every causal language model: generation, training, tuning, evaluation and reports know no other
name.

Letters in shape comments: B batch, T tokens, C features, V = vocab_size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..checks import byte_size, check_integer
from ..engine import Tensor
from ..errors import ConfigError, ContextLengthError, DataError
from ..nn import Embedding, KVCache, Module, Sequential, checkpoint
from ..nn.state import State
from ..ops.matrix import check_ids
from ..rng import Generator
from .costs import Cost, repeated

Self = TypeVar("Self", bound="LanguageModel")  # typing.Self came with Python 3.11

MAX_BYTES = 64 * 2**30  # a model larger than this is a slip of the keyboard, not a plan for a laptop


class Config:
    """Sizes and options, checked when they are put together: those of a subclass that is a frozen dataclass.

    They may be those of a model that no laptop holds.
    """

    architecture: ClassVar[str]

    vocab_size: int
    context_length: int | None  # None: no end to what the model can read

    @property
    def reading_length(self) -> int:
        """The tokens that are read at once: the context length, and 1,024 where there is no end to what the model can read."""
        return self.context_length or 1024

    def costs(self) -> list[Cost]:
        """What each module of the model takes."""
        raise TypeError(f"{type(self).__name__} must define costs()")

    def n_parameters(self) -> int:
        """How many numbers the model learns, by formula: nothing is allocated."""
        return sum(module.copies * module.parameters for module in self.costs())

    def check_bytes(self) -> None:
        """ConfigError for a model that no laptop holds."""
        n_parameters = self.n_parameters()
        if 4 * n_parameters > MAX_BYTES:
            raise ConfigError(
                f"{type(self).__name__}: {n_parameters:,} parameters need {byte_size(4 * n_parameters)} in float32, "
                f"more than {byte_size(MAX_BYTES)}: choose smaller sizes"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload]  # of the subclass


class AttentionConfig(Config):
    """What models of attention can choose: key heads that several query heads share, and how far back a token sees."""

    emb_dim: int
    n_heads: int
    n_layers: int
    n_kv_heads: int | None  # None: as many as heads
    window: int | None  # None: all tokens
    global_every: int | None  # of how many layers one sees all nevertheless

    @property
    def kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def head_width(self) -> int:
        """The features of a head."""
        return self.emb_dim // self.n_heads

    def check_attention(self) -> None:
        """ConfigError for what does not go together."""
        name = type(self).__name__
        if self.n_heads % self.kv_heads:
            raise ConfigError(f"{name}: n_kv_heads {self.n_kv_heads} does not divide n_heads {self.n_heads}")
        if self.global_every is not None and self.window is None:
            raise ConfigError(f"{name}: global_every without a window: every layer sees all tokens already")

    def window_of(self, layer: int) -> int | None:
        """How far back the tokens of a layer see, the first of which is 0."""
        return None if self.global_every and (layer + 1) % self.global_every == 0 else self.window

    def block_costs(self, block: Callable[[int], list[Cost]]) -> list[Cost]:
        """Those of all blocks, by what one costs of which a token sees so many keys."""
        t = self.context_length or 0
        n_all = self.n_layers // self.global_every if self.global_every else 0 if self.window else self.n_layers
        n_near = self.n_layers - n_all
        return [
            *(repeated("trf_blocks", n_all, block(t)) if n_all else ()),
            *(repeated("trf_blocks.window", n_near, block(min(self.window or t, t))) if n_near else ()),
        ]


class Model(Module):
    """What `make_model` makes and a run keeps. A subclass names its `architecture` and the class of its configuration.

    With `model.checkpoint_blocks = True`, a language model keeps only the input of each block, and the backward runs the block
    again: the same gradients for less memory (nn.checkpoint).
    """

    architecture: ClassVar[str]
    config_class: ClassVar[type[Config]]
    predicts: ClassVar[str] = "classes"  # what `predict` asks of it
    pretraining: ClassVar[str] = ""  # the name of the task that it learns by from a text alone, if there is one
    config: Any  # of that class
    commands: ClassVar[tuple[str, ...]] = ()  # those that ask a model that does not write on from a text
    checkpoint_blocks: bool = False
    loaded_from: str | None = None  # the path of the weights, if it is known
    classes: tuple[str, ...] | None = None  # the names of what the head scores instead of tokens

    def __init__(self, config: Any, *, rng: Generator | None = None) -> None:
        raise TypeError(f"{type(self).__name__} must define __init__(config, *, rng=None)")

    @classmethod
    def check_config(cls, config: Any) -> None:
        """ConfigError for what no such model can be made of; before anything is allocated."""
        if not isinstance(config, cls.config_class):
            raise ConfigError(
                f"{cls.__name__}: config is a {type(config).__name__}: pass {cls.config_class.__name__}(emb_dim=..., ...)"
            )
        config.check_bytes()

    def set_drop_rate(self, drop_rate: float) -> None:
        """Drop another share of the activations in training; that of LoRA's input is another matter."""
        self.config = replace(self.config, drop_rate=drop_rate)
        for name, module in self.named_modules():
            if hasattr(module, "drop_rate") and not name.endswith("lora_dropout"):
                module.drop_rate = self.config.drop_rate

    def describe(self) -> str:
        return f"{self.n_parameters():,} parameters"

    def name_parameters(self) -> None:
        """Tell each parameter its name, which errors and steps then say."""
        for name, parameter in self.named_parameters():
            parameter.name = name


class TextModel(Model):
    """A model that reads token ids (B, T), and may be made to tell of which class a text is (heads.py)."""

    positions: ClassVar[tuple[str, ...]]  # of the features by which a text may be judged, the usual one first
    tok_emb: Embedding
    trf_blocks: Sequential
    out_head: Module  # or None, of a model that scores nothing
    position: str = ""  # of those by which a text is judged then

    def last_modules(self) -> list[Module]:
        """The last block, and what comes after it."""
        raise TypeError(f"{type(self).__name__} must define last_modules()")

    def put_head(self, head: Module) -> None:
        """Score something else than tokens from now on."""
        self.out_head = head

    def class_logits(self, ids: Any, lengths: np.ndarray) -> Tensor:
        """Scores (B, K) of the classes, for texts of `lengths` (B,) tokens, which begin the rows of ids (B, T)."""
        raise TypeError(f"{type(self).__name__} must define class_logits(ids, lengths)")

    def check_ids(self, ids: Any) -> Any:
        """The ids (B, T) as an integer array. DataError or ContextLengthError for what the model cannot read."""
        name = type(self).__name__
        ids = check_ids(ids, self.config.vocab_size, name)
        if ids.ndim != 2 or ids.size == 0:
            raise DataError(f"{name}: ids have shape {ids.shape}: they must be (batch, tokens), neither of them 0")
        if self.config.context_length is not None and ids.shape[1] > self.config.context_length:
            raise ContextLengthError(
                f"{name}: {ids.shape[1]} tokens, the context length is {self.config.context_length}: "
                "pass the last of them, or make the model with a longer context"
            )
        return ids

    def resize_vocabulary(self, vocab_size: int) -> None:
        """Give the embedding and the head rows for a larger vocabulary, in place: the old ones stay, each new one is their mean.

        So a new token takes at most an average token's share of the probability (Hewitt 2021). Tied weights stay tied; a head
        that does not score tokens, such as a classifier's, stays as it is. Make the optimizer after this: what it keeps of a
        parameter has its shape. ConfigError for a smaller vocabulary, which would lose rows.
        """
        old = self.config.vocab_size
        if check_integer("resize_vocabulary: vocab_size", vocab_size) < old:
            raise ConfigError(
                f"resize_vocabulary: vocab_size is {vocab_size}: the model has {old} tokens, none can be taken away"
            )
        config = replace(self.config, vocab_size=int(vocab_size))
        config.check_bytes()  # before anything is allocated
        scores = [] if self.out_head is None else [p for p in self.out_head.parameters() if len(p.data) == old]
        tables = [self.tok_emb.weight, *scores]
        grown = {id(table): (table, _with_means(table.data, config.vocab_size)) for table in tables}  # a tied one once
        for table, data in grown.values():
            table.data, table.grad = data, None
        self.config = config


class LanguageModel(TextModel):
    """Token ids (B, T) -> logits (B, T, V): for every position, the scores of the next token, which depend on no later one.

    A subclass has `tok_emb`, `trf_blocks`, `final_norm`, `out_head`, `features` and `make_state`.
    """

    pretraining = "pretrain"
    positions = ("last", "padded", "first", "mean")
    final_norm: Module
    n_rows: int | None = None  # generation may ask for as many rows as it likes

    def features(self, ids: Any, *, state: Any = None) -> Tensor:
        """What the blocks make of ids (B, T): (B, T, C), before the final norm. With a `state`, ids follow the tokens in it."""
        raise TypeError(f"{type(self).__name__} must define features(ids, *, state=None)")

    def head(self, x: Tensor) -> Tensor:
        """Features (..., C) -> logits (..., V). Of the output of an earlier block it is the logit lens (nostalgebraist 2020)."""
        return self.out_head(self.final_norm(x))

    def make_state(self, batch_size: int = 1, capacity: int | None = None) -> State:
        """An empty state for `batch_size` rows of up to `capacity` tokens, at most and by default the context length."""
        raise TypeError(f"{type(self).__name__} must define make_state(batch_size=1, capacity=None)")

    def of_rows(self: Self, rows: Sequence[int]) -> Self:
        """What these rows of a batch are written by: the model itself, to which all are alike."""
        return self

    def forward(self, ids: Any, *, state: Any = None, last_only: bool = False) -> Tensor:
        """Logits (B, T, V); with `last_only` (B, 1, V), after the last token. With a `state`, ids follow what it has read."""
        x = self.features(ids, state=state)  # (B, T, C)
        return self.head(x[:, -1:] if last_only else x)

    def last_modules(self) -> list[Module]:
        return [self.trf_blocks[-1], self.final_norm, self.out_head]

    def class_logits(self, ids: Any, lengths: np.ndarray) -> Tensor:
        x = self.features(ids)  # (B, T, C)
        b, t = x.shape[:2]
        if self.position == "mean":
            share = (np.arange(t) < lengths[:, None]) / lengths[:, None]  # (B, T)
            return (self.head(x) * share[:, :, None].astype(x.dtype)).sum(axis=1)  # (B, K)
        at = {"last": lengths - 1, "padded": np.full(b, t - 1), "first": np.zeros(b, np.int64)}[self.position]
        return self.head(x[np.arange(b), at])  # (B, K)


class AttentionModel(LanguageModel):
    """A language model whose blocks, all of attention, take (B, T, C) and a layer's cache."""

    config: AttentionConfig

    def through_blocks(self, x: Tensor, state: KVCache | None) -> Tensor:
        """(B, T, C), of the tokens that follow those in the state, which is told of them."""
        for i, block in enumerate(self.trf_blocks):
            if self.checkpoint_blocks and state is None:
                x = checkpoint(block, x)  # (B, T, C)
            else:
                x = block(x, state and state.layers[i])  # (B, T, C)
        if state is not None:
            state.lengths += x.shape[1]
        return x

    def make_state(self, batch_size: int = 1, capacity: int | None = None) -> KVCache:
        config, longest = self.config, self.config.context_length or sys.maxsize
        width = config.kv_heads * config.head_width  # of key heads alone
        return KVCache(config.n_layers, batch_size, min(capacity or longest, longest), width, self.tok_emb.weight.dtype)


def _with_means(table: np.ndarray, n: int) -> np.ndarray:
    """A table (V, ...) with rows added, (n, ...): each the mean of those that were there."""
    mean = table.mean(0, keepdims=True, dtype=np.float64).astype(table.dtype)  # (1, ...)
    return np.concatenate([table, mean.repeat(n - len(table), 0)])


def check_mask(name: str, mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A mask of these (B, T) as booleans: True or 1 where there is a token. DataError for another shape or another number."""
    mask = np.asarray(mask)
    if mask.shape != shape or not (mask.dtype == bool or (mask.dtype.kind in "iuf" and np.isin(mask, (0, 1)).all())):
        raise DataError(f"{name} is {mask.dtype} {mask.shape}: it must be {shape}, 1 or True where there is a token")
    return mask.astype(bool)
