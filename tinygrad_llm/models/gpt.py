"""GPT-2 (Radford et al. 2019), with the names of the book's chapter 4. It reads from top to bottom.

Letters in shape comments: B batch, T tokens, C = emb_dim, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError
from ..nn import Dropout, Embedding, KVCache, LayerNorm, Linear, Sequential, TransformerBlock
from ..rng import Generator, Zeros, get_generator
from .base import AttentionConfig, AttentionModel
from .costs import Cost, attention_costs, head_costs


@dataclass(frozen=True)
class GPTConfig(AttentionConfig):
    """The book's keys and a few options, checked when they are put together.

    `init`: "pytorch" draws each layer as PyTorch does, in the order of construction; "gpt2" draws N(0, 0.02), positions
    N(0, 0.01) and the layers that add to the residual stream N(0, 0.02/√(2 n_layers)) (OpenAI's model.py; Radford et al. 2019
    §2.3). `tie_weights`: the head shares the token embedding.
    Without `bias` the norms have no shift, and no layer a bias but for what `qkv_bias` says (nanoGPT).
    `activation`: "gelu" is its tanh form, "gelu_erf" the exact one. `hidden_dim`: of the feed-forward layers, if not 4 emb_dim.
    Not GPT-2's, but what later models have (nn.MultiHeadAttention): `n_kv_heads` key heads, a `window`, and `global_every`.
    """

    architecture: ClassVar[str] = "gpt"

    vocab_size: int = 50257
    context_length: int = 1024
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    drop_rate: float = 0.1
    qkv_bias: bool = False
    bias: bool = True
    tie_weights: bool = False
    init: str = "pytorch"
    activation: str = "gelu"
    norm_eps: float = 1e-5
    hidden_dim: int | None = None
    n_kv_heads: int | None = None
    window: int | None = None
    global_every: int | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
        for name in (*sizes, "hidden_dim", "n_kv_heads", "window", "global_every"):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"GPTConfig: {name}", getattr(self, name)))
        if self.emb_dim % self.n_heads:
            raise ConfigError(f"GPTConfig: n_heads {self.n_heads} does not divide emb_dim {self.emb_dim}")
        self.check_attention()
        object.__setattr__(self, "drop_rate", check_number("GPTConfig: drop_rate", self.drop_rate, most=1))
        for name in ("qkv_bias", "bias", "tie_weights"):
            check_flag(f"GPTConfig: {name}", getattr(self, name))
        if self.init == "zeros":  # so say older runs of weights that were loaded
            object.__setattr__(self, "init", "gpt2")
        if self.init not in ("pytorch", "gpt2"):
            raise ConfigError(f"GPTConfig: init is {self.init!r}: use 'pytorch' or 'gpt2'")
        if self.activation not in ("gelu", "gelu_erf"):
            raise ConfigError(f"GPTConfig: activation is {self.activation!r}: use 'gelu' or 'gelu_erf'")
        object.__setattr__(self, "norm_eps", check_number("GPTConfig: norm_eps", self.norm_eps, below=1))

    def costs(self) -> list[Cost]:
        c, h, t, bias = self.emb_dim, self.n_heads, self.context_length, self.bias
        hidden = self.hidden_dim or 4 * c
        norm = c + c * bias

        def block(keys: int) -> list[Cost]:
            return [
                Cost("norm1", norm, kept=c + 1),
                *attention_costs(c, h, self.kv_heads, c // h, t, keys=keys, qkv_bias=self.qkv_bias, out_bias=bias),
                Cost("norm2", norm, kept=c + 1),
                Cost("ff.layers.0", hidden * (c + bias), kept=c),
                Cost("ff.layers.1", kept=2 * hidden),
                Cost("ff.layers.2", c * (hidden + bias), kept=hidden),
            ]

        return [
            Cost("tok_emb", self.vocab_size * c, flops=0),
            Cost("pos_emb", t * c, flops=0),
            *self.block_costs(block),
            Cost("final_norm", norm, kept=c + 1),
            *head_costs(c, self.vocab_size, self.tie_weights),
        ]


PRESETS: dict[str, GPTConfig] = {
    "story": GPTConfig(vocab_size=1024, context_length=64, emb_dim=128, n_heads=4, n_layers=4),
    "tales": GPTConfig(vocab_size=1024, context_length=256, emb_dim=128, n_heads=4, n_layers=4, drop_rate=0.0),
    "124M": GPTConfig(emb_dim=768, n_heads=12, n_layers=12),
    "355M": GPTConfig(emb_dim=1024, n_heads=16, n_layers=24),
    "774M": GPTConfig(emb_dim=1280, n_heads=20, n_layers=36),
    "1558M": GPTConfig(emb_dim=1600, n_heads=25, n_layers=48),
    # Brown et al. 2020, table 2.1. Every second layer there is banded, which the paper does not size: as if it were dense.
    "gpt3-175B": GPTConfig(
        context_length=2048, emb_dim=12288, n_heads=96, n_layers=96, qkv_bias=True, tie_weights=True
    ),
}


class GPTModel(AttentionModel):
    """Token ids (B, T) -> logits (B, T, V): for every position, the scores of the next token."""

    architecture = "gpt"
    config_class = GPTConfig

    def __init__(self, config: GPTConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        draw = rng if config.init == "pytorch" else Zeros()
        c = config.emb_dim
        self.config = config
        self.tok_emb = Embedding(config.vocab_size, c, rng=draw)
        self.pos_emb = Embedding(config.context_length, c, rng=draw)
        self.drop_emb = Dropout(config.drop_rate)
        self.trf_blocks = Sequential(
            *(
                TransformerBlock(
                    c,
                    config.n_heads,
                    config.context_length,
                    config.drop_rate,
                    config.qkv_bias,
                    hidden_dim=config.hidden_dim,
                    activation=config.activation,
                    norm_eps=config.norm_eps,
                    bias=config.bias,
                    num_kv_heads=config.kv_heads,
                    window=config.window_of(i),
                    rng=draw,
                )
                for i in range(config.n_layers)
            )
        )
        self.final_norm = LayerNorm(c, config.norm_eps, config.bias)
        self.out_head = Linear(c, config.vocab_size, bias=False, rng=draw)
        if config.tie_weights:
            self.out_head.weight = self.tok_emb.weight
        if config.init == "gpt2":
            self._draw_gpt2(rng)
        self.name_parameters()

    def features(self, ids: Any, *, state: KVCache | None = None) -> Tensor:
        ids = self.check_ids(ids)
        positions = np.arange(ids.shape[1]) if state is None else state.positions(*ids.shape)  # (T,) or (B, T)
        x = self.tok_emb(ids) + self.pos_emb(positions)  # (B, T, C)
        return self.through_blocks(self.drop_emb(x), state)  # (B, T, C)

    def _draw_gpt2(self, rng: Generator) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                onto_residual = name.endswith(("att.out_proj.weight", "ff.layers.2.weight"))
                std = residual if onto_residual else 0.01 if name == "pos_emb.weight" else 0.02
                parameter.data = rng.normal(0.0, std, parameter.shape)
