"""A language model of Hyena operators (Poli et al. 2023), in the blocks of a GPT. It reads from top to bottom.

What differs from GPT-2: a long convolution whose filter a small network draws, in the place of attention (nn/hyena.py), so that
the time to read T tokens grows with T log T; no table of positions, for a filter knows how far back it looks.

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
from ..nn import Dropout, Embedding, FeedForward, LayerNorm, Linear, Module, Sequential, checkpoint
from ..nn.hyena import Hyena
from ..nn.state import Window
from ..rng import Generator, get_generator
from .base import Config, LanguageModel
from .costs import Cost, head_costs, repeated


@dataclass(frozen=True)
class HyenaConfig(Config):
    """Sizes of a small model and a few options, checked when they are put together.

    `order`: gates of an operator, 2 or more; `filter_width` and `filter_features`: of the network that draws the filters, and of
    the positions that it sees, odd. `init`: "gpt2" draws matrices from N(0, 0.02), those that add to the residual stream from
    N(0, 0.02/√(2 n_layers)), and leaves filters and short convolutions as they are; "pytorch" each layer as PyTorch does.
    """

    architecture: ClassVar[str] = "hyena"

    vocab_size: int = 50257
    context_length: int = 1024
    emb_dim: int = 768
    n_layers: int = 12
    order: int = 2
    filter_width: int = 64
    filter_features: int = 3
    hidden_dim: int | None = None  # None: 4 emb_dim
    drop_rate: float = 0.0
    tie_weights: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-5
    init: str = "pytorch"

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "context_length", "emb_dim", "n_layers", "order", "filter_width", "filter_features")
        for name in (*sizes, "hidden_dim"):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"HyenaConfig: {name}", getattr(self, name)))
        if self.order < 2:
            raise ConfigError(f"HyenaConfig: order is {self.order}: it must be 2 or more, for one convolution at least")
        if self.filter_features < 3 or self.filter_features % 2 == 0:
            raise ConfigError(f"HyenaConfig: filter_features is {self.filter_features}: it must be odd, 3 or more")
        check_flag("HyenaConfig: tie_weights", self.tie_weights)
        if self.activation not in ("gelu", "gelu_erf"):
            raise ConfigError(f"HyenaConfig: activation is {self.activation!r}: use 'gelu' or 'gelu_erf'")
        if self.init not in ("pytorch", "gpt2"):
            raise ConfigError(f"HyenaConfig: init is {self.init!r}: use 'pytorch' or 'gpt2'")
        object.__setattr__(self, "drop_rate", check_number("HyenaConfig: drop_rate", self.drop_rate, most=1))
        object.__setattr__(self, "norm_eps", check_number("HyenaConfig: norm_eps", self.norm_eps, below=1))

    @property
    def hidden_width(self) -> int:
        return self.hidden_dim or 4 * self.emb_dim

    def costs(self) -> list[Cost]:
        c, t, hidden, f = self.emb_dim, self.context_length, self.hidden_width, self.filter_width
        n, inner = self.order - 1, (self.order + 1) * c
        # a transform of 2 T numbers takes 2.5 (2 T) log₂(2 T) FLOPs; there are three for each channel, the filter's aside
        transforms = round(3 * 5 * math.log2(2 * t)) * n * c
        network = self.filter_features * f + f + 2 * (f * f + f) + f * n * c + f + n * c + t * self.filter_features
        block = [
            Cost("norm1", 2 * c, kept=c + 1),
            Cost("att.in_proj", inner * (c + 1), kept=c),
            Cost("att.short", inner * 4, flops=6 * inner, kept=3 * inner),
            Cost("att.filter", network, flops=2 * network, kept=7 * f + 3 * n * c),
            Cost("att", flops=transforms, kept=9 * n * c, cached=n * t * c + 2 * inner),
            Cost("att.out_proj", c * (c + 1), kept=c),
            Cost("norm2", 2 * c, kept=c + 1),
            Cost("ff.layers.0", hidden * (c + 1), kept=c),
            Cost("ff.layers.1", kept=2 * hidden),
            Cost("ff.layers.2", c * (hidden + 1), kept=hidden),
        ]
        return [
            Cost("tok_emb", self.vocab_size * c, flops=0),
            *repeated("trf_blocks", self.n_layers, block),
            Cost("final_norm", 2 * c, kept=c + 1),
            *head_costs(c, self.vocab_size, self.tie_weights),
        ]


PRESETS: dict[str, HyenaConfig] = {
    # beside the GPT of the tales: as many layers and features
    "tales-hyena": HyenaConfig(vocab_size=1024, context_length=256, emb_dim=128, n_layers=4),
    "hyena-153M": HyenaConfig(context_length=2048, emb_dim=864, n_layers=18, hidden_dim=1728, tie_weights=True),
}


class HyenaBlock(Module):
    """x + hyena(norm(x)), then x + feed-forward(norm(x)): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: HyenaConfig, *, rng: Generator | None = None) -> None:
        c = config.emb_dim
        self.att = Hyena(c, config.context_length, config.order, config.filter_width, config.filter_features, rng=rng)
        self.ff = FeedForward(c, hidden_dim=config.hidden_dim, activation=config.activation, rng=rng)
        self.norm1 = LayerNorm(c, config.norm_eps)
        self.norm2 = LayerNorm(c, config.norm_eps)
        self.drop_shortcut = Dropout(config.drop_rate)

    def forward(self, x: Tensor, past: dict[str, np.ndarray] | None = None) -> Tensor:
        x = x + self.drop_shortcut(self.att(self.norm1(x), past))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class HyenaModel(LanguageModel):
    """Token ids (B, T) -> logits (B, T, V): for every position, the scores of the next token."""

    architecture = "hyena"
    config_class = HyenaConfig

    def __init__(self, config: HyenaConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        self.config = config
        self.tok_emb = Embedding(config.vocab_size, config.emb_dim, rng=rng)
        self.drop_emb = Dropout(config.drop_rate)
        self.trf_blocks = Sequential(*(HyenaBlock(config, rng=rng) for _ in range(config.n_layers)))
        self.final_norm = LayerNorm(config.emb_dim, config.norm_eps)
        self.out_head = Linear(config.emb_dim, config.vocab_size, bias=False, rng=rng)
        if config.tie_weights:
            self.out_head.weight = self.tok_emb.weight
        if config.init == "gpt2":
            self._draw_gpt2(rng)
        self.name_parameters()

    def features(self, ids: Any, *, state: Window | None = None) -> Tensor:
        ids = self.check_ids(ids)
        if state is not None:
            state.check_rows(len(ids))
        x = self.drop_emb(self.tok_emb(ids))  # (B, T, C)
        for i, block in enumerate(self.trf_blocks):
            if self.checkpoint_blocks and state is None:
                x = checkpoint(block, x)  # (B, T, C)
            else:
                x = block(x, state and state.layers[i])  # (B, T, C)
        if state is not None:
            state.lengths += ids.shape[1]
        return x

    def make_state(self, batch_size: int = 1, capacity: int | None = None) -> Window:
        """An empty state; it grows with what is read, so that `capacity` says nothing."""
        batch_size, dtype = check_integer("make_state: batch_size", batch_size), self.tok_emb.weight.dtype
        c, order = self.config.emb_dim, self.config.order

        def empty() -> dict[str, np.ndarray]:
            inputs = {f"v{i}": np.zeros((batch_size, c, 0), dtype) for i in range(order - 1)}
            return {"short": np.zeros((batch_size, (order + 1) * c, 2), dtype)} | inputs

        return Window([empty() for _ in range(self.config.n_layers)])

    def _draw_gpt2(self, rng: Generator) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layers)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and ".filter." not in name and not name.endswith("short_weight"):
                onto_residual = name.endswith(("att.out_proj.weight", "ff.layers.2.weight"))
                parameter.data = rng.normal(0.0, residual if onto_residual else 0.02, parameter.shape)
