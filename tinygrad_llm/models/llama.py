"""Llama 2 (Touvron et al. 2023 §2.2), with the names of the book's Llama. It reads from top to bottom.

What differs from GPT-2: RMSNorm in place of LayerNorm, positions by turning queries and keys in place of a table, a gate in the
feed-forward layers, key heads that several query heads may share, no biases, no dropout, and a head of its own.

Letters in shape comments: B batch, T tokens, C = emb_dim, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError
from ..nn import (
    Dropout,
    Embedding,
    KVCache,
    Linear,
    Module,
    MultiHeadAttention,
    RMSNorm,
    Rotary,
    Sequential,
    SwiGLU,
)
from ..nn.state import LayerCache
from ..rng import Generator, Zeros, get_generator
from .base import AttentionConfig, AttentionModel
from .costs import Cost, attention_costs, head_costs


@dataclass(frozen=True)
class LlamaConfig(AttentionConfig):
    """The sizes of Llama 2 7B and a few options, checked when they are put together.

    `n_kv_heads`: key heads, if fewer than heads. `hidden_dim`: of the feed-forward layers, by default as Meta computes it
    (`hidden_dim_of`). `head_dim`: features of a head, if not emb_dim / n_heads. `rope_base`: of the angles. `window`: how many
    tokens back a token sees, itself among them, if not all; in each `global_every`-th layer it sees all nevertheless. `qkv_bias`
    and `out_bias` are of attention, `bias` of the feed-forward layers. `init`: "gpt2" draws N(0, 0.02), and
    N(0, 0.02/√(2 n_layers)) what adds to the residual stream; "pytorch" as PyTorch draws each layer. `drop_rate` is 0 in Llama.
    """

    architecture: ClassVar[str] = "llama"

    vocab_size: int = 32000
    context_length: int = 4096
    emb_dim: int = 4096
    n_heads: int = 32
    n_layers: int = 32
    n_kv_heads: int | None = None
    hidden_dim: int | None = None
    head_dim: int | None = None
    drop_rate: float = 0.0
    qkv_bias: bool = False
    out_bias: bool = False
    bias: bool = False
    tie_weights: bool = False
    init: str = "gpt2"
    norm_eps: float = 1e-5
    rope_base: float = 10000.0
    window: int | None = None
    global_every: int | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
        optional = ("n_kv_heads", "hidden_dim", "head_dim", "window", "global_every")
        for name in (*sizes, *optional):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"LlamaConfig: {name}", getattr(self, name)))
        if self.head_dim is None and self.emb_dim % self.n_heads:
            raise ConfigError(f"LlamaConfig: n_heads {self.n_heads} does not divide emb_dim {self.emb_dim}")
        self.check_attention()
        for name in ("qkv_bias", "out_bias", "bias", "tie_weights"):
            check_flag(f"LlamaConfig: {name}", getattr(self, name))
        if self.init not in ("pytorch", "gpt2"):
            raise ConfigError(f"LlamaConfig: init is {self.init!r}: use 'pytorch' or 'gpt2'")
        object.__setattr__(self, "drop_rate", check_number("LlamaConfig: drop_rate", self.drop_rate, most=1))
        object.__setattr__(self, "norm_eps", check_number("LlamaConfig: norm_eps", self.norm_eps, below=1))
        object.__setattr__(self, "rope_base", Rotary(self.head_width, self.rope_base).base)

    @property
    def head_width(self) -> int:
        """The features of a head."""
        return self.head_dim or self.emb_dim // self.n_heads

    @property
    def hidden_width(self) -> int:
        """The features between the feed-forward layers."""
        return self.hidden_dim or hidden_dim_of(self.emb_dim)

    def costs(self) -> list[Cost]:
        c, t, hidden, bias = self.emb_dim, self.context_length, self.hidden_width, self.bias

        def block(keys: int) -> list[Cost]:
            heads = self.n_heads, self.kv_heads, self.head_width
            biases = {"qkv_bias": self.qkv_bias, "out_bias": self.out_bias}
            return [
                Cost("norm1", c, kept=c + 1),
                *attention_costs(c, *heads, t, keys=keys, turned=True, **biases),
                Cost("norm2", c, kept=c + 1),
                Cost("ff.fc1", hidden * (c + bias), kept=c),  # its input, which fc2 shares
                Cost("ff.fc2", hidden * (c + bias)),
                Cost("ff", kept=3 * hidden),
                Cost("ff.fc3", c * (hidden + bias), kept=hidden),
            ]

        return [
            Cost("tok_emb", self.vocab_size * c, flops=0),
            *self.block_costs(block),
            Cost("final_norm", c, kept=c + 1),
            *head_costs(c, self.vocab_size, self.tie_weights),
        ]


def hidden_dim_of(emb_dim: int, multiple_of: int = 256, multiplier: float = 1.0) -> int:
    """Two thirds of 4 emb_dim, times a multiplier, rounded up to a multiple: so the gate costs nothing (Meta's model.py)."""
    hidden = 8 * emb_dim // 3  # in integers, which no size is too large for
    hidden = hidden if multiplier == 1 else int(multiplier * hidden)
    return -(-hidden // multiple_of) * multiple_of


def _stories(emb_dim: int, n_layers: int, n_heads: int, hidden_dim: int, **sizes: Any) -> LlamaConfig:
    """Of Karpathy's llama2.c (2023), which learned TinyStories."""
    return LlamaConfig(
        emb_dim=emb_dim, n_layers=n_layers, n_heads=n_heads, hidden_dim=hidden_dim, tie_weights=True, **sizes
    )


# Touvron et al. 2023, table 1 and §2.2.
PRESETS: dict[str, LlamaConfig] = {
    # beside the GPT of the tales: as many layers, heads and features, first weights alike, and as many parameters
    "tales-llama": LlamaConfig(
        vocab_size=1024, context_length=256, emb_dim=128, n_heads=4, n_layers=4, hidden_dim=365, init="pytorch"
    ),
    "stories260K": _stories(64, 5, 8, 172, vocab_size=512, context_length=512, n_kv_heads=4),
    "stories15M": _stories(288, 6, 6, 768, context_length=256),
    "stories42M": _stories(512, 8, 8, 1376, context_length=1024),
    "stories110M": _stories(768, 12, 12, 2048, context_length=1024),
    "llama2-7B": LlamaConfig(),
    "llama2-13B": LlamaConfig(emb_dim=5120, n_heads=40, n_layers=40),
    "llama2-70B": LlamaConfig(emb_dim=8192, n_heads=64, n_layers=80, n_kv_heads=8, hidden_dim=28672),
}


class LlamaBlock(Module):
    """x + attention(norm(x)), then x + swiglu(norm(x)): (B, T, C) -> (B, T, C)."""

    def __init__(
        self, config: LlamaConfig, rotary: Rotary, window: int | None, *, rng: Generator | None = None
    ) -> None:
        c = config.emb_dim
        self.att = MultiHeadAttention(
            c,
            c,
            config.context_length,
            config.drop_rate,
            config.n_heads,
            config.qkv_bias,
            out_bias=config.out_bias,
            num_kv_heads=config.kv_heads,
            head_dim=config.head_width,
            rotary=rotary,
            window=window,
            rng=rng,
        )
        self.ff = SwiGLU(c, config.hidden_width, config.bias, rng=rng)
        self.norm1 = RMSNorm(c, config.norm_eps)
        self.norm2 = RMSNorm(c, config.norm_eps)
        self.drop_shortcut = Dropout(config.drop_rate)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        x = x + self.drop_shortcut(self.att(self.norm1(x), cache))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class LlamaModel(AttentionModel):
    """Token ids (B, T) -> logits (B, T, V): for every position, the scores of the next token."""

    architecture = "llama"
    config_class = LlamaConfig

    def __init__(self, config: LlamaConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        draw = rng if config.init == "pytorch" else Zeros()
        self.config = config
        self.tok_emb = Embedding(config.vocab_size, config.emb_dim, rng=draw)
        rotary = Rotary(config.head_width, config.rope_base)
        self.trf_blocks = Sequential(
            *(LlamaBlock(config, rotary, config.window_of(i), rng=draw) for i in range(config.n_layers))
        )
        self.final_norm = RMSNorm(config.emb_dim, config.norm_eps)
        self.out_head = Linear(config.emb_dim, config.vocab_size, bias=False, rng=draw)
        if config.tie_weights:
            self.out_head.weight = self.tok_emb.weight
        if config.init == "gpt2":
            self._draw_gpt2(rng)
        self.name_parameters()

    def features(self, ids: Any, *, state: KVCache | None = None) -> Tensor:
        ids = self.check_ids(ids)
        if state is not None:
            state.positions(*ids.shape)  # an error now if there is no room
        return self.through_blocks(self.tok_emb(ids), state)  # (B, T, C)

    def _draw_gpt2(self, rng: Generator) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = residual if name.endswith(("att.out_proj.weight", "ff.fc3.weight")) else 0.02
                parameter.data = rng.normal(0.0, std, parameter.shape)
