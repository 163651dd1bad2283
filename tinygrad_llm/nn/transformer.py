"""The feed-forward layers of transformers, the block that a GPT repeats (the book's chapter 4), and those of the original.

Letters in shape comments: B batch, T tokens, S tokens of the source, C features, H features between the feed-forward layers.
"""

from __future__ import annotations

from typing import Any

from .. import ops
from ..engine import Tensor
from ..rng import Generator
from .attention import Memory, MultiHeadAttention
from .layers import ACTIVATIONS, Dropout, LayerNorm, Linear
from .module import Module, Sequential
from .state import LayerCache


class FeedForward(Module):
    """Each token by itself, through a layer of width H, by default 4 C: (..., C) -> (..., C)."""

    def __init__(
        self,
        emb_dim: int,
        *,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        bias: bool = True,
        rng: Generator | None = None,
    ) -> None:
        hidden_dim = 4 * emb_dim if hidden_dim is None else hidden_dim
        self.layers = Sequential(
            Linear(emb_dim, hidden_dim, bias, rng=rng),  # (..., H)
            ACTIVATIONS[activation](),
            Linear(hidden_dim, emb_dim, bias, rng=rng),  # (..., C)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class SwiGLU(Module):
    """Each token by itself, through H features of which each has a gate: (..., C) -> (..., C) (Shazeer 2020).

    fc3(silu(fc1 x) * fc2 x), with the names of the book's Llama; Meta's files call these three w1, w3 and w2.
    """

    def __init__(self, emb_dim: int, hidden_dim: int, bias: bool = False, *, rng: Generator | None = None) -> None:
        self.fc1 = Linear(emb_dim, hidden_dim, bias, rng=rng)
        self.fc2 = Linear(emb_dim, hidden_dim, bias, rng=rng)
        self.fc3 = Linear(hidden_dim, emb_dim, bias, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(ops.swiglu(self.fc1(x), self.fc2(x)))


class TransformerBlock(Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): (B, T, C) -> (B, T, C).

    The norm comes first, inside the shortcut (GPT-2; Radford et al. 2019 §2.3).
    """

    def __init__(
        self,
        emb_dim: int,
        n_heads: int,
        context_length: int,
        drop_rate: float = 0.0,
        qkv_bias: bool = False,
        *,
        hidden_dim: int | None = None,
        activation: str = "gelu",
        norm_eps: float = 1e-5,
        bias: bool = True,
        num_kv_heads: int | None = None,
        window: int | None = None,
        rng: Generator | None = None,
    ) -> None:
        self.att = MultiHeadAttention(
            emb_dim,
            emb_dim,
            context_length,
            drop_rate,
            n_heads,
            qkv_bias,
            out_bias=bias,
            num_kv_heads=num_kv_heads,
            window=window,
            rng=rng,
        )
        self.ff = FeedForward(emb_dim, hidden_dim=hidden_dim, activation=activation, bias=bias, rng=rng)
        self.norm1 = LayerNorm(emb_dim, norm_eps, bias)
        self.norm2 = LayerNorm(emb_dim, norm_eps, bias)
        self.drop_shortcut = Dropout(drop_rate)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        x = x + self.drop_shortcut(self.att(self.norm1(x), cache))
        return x + self.drop_shortcut(self.ff(self.norm2(x)))


class EncoderBlock(Module):
    """Every token gathers from all tokens of its text, then goes through two layers by itself: (B, T, C) -> (B, T, C).

    norm(x + f(x)), as Vaswani et al. 2017 §3.1 and BERT have it; with `norm_first` x + f(norm(x)).
    """

    def __init__(
        self,
        emb_dim: int,
        n_heads: int,
        context_length: int,
        drop_rate: float = 0.0,
        *,
        hidden_dim: int | None = None,
        activation: str = "relu",
        norm_eps: float = 1e-5,
        norm_first: bool = False,
        qkv_bias: bool = True,
        rng: Generator | None = None,
    ) -> None:
        heads = emb_dim, emb_dim, context_length, drop_rate, n_heads, qkv_bias
        self.norm_first = norm_first
        self.att = MultiHeadAttention(*heads, causal=False, rng=rng)
        self.ff = FeedForward(emb_dim, hidden_dim=hidden_dim, activation=activation, rng=rng)
        self.norm1 = LayerNorm(emb_dim, norm_eps)
        self.norm2 = LayerNorm(emb_dim, norm_eps)
        self.drop_shortcut = Dropout(drop_rate)

    def forward(self, x: Tensor, mask: Any = None) -> Tensor:
        """`mask` (B, T): False or 0 where there is no token to gather from."""
        if self.norm_first:
            x = x + self.drop_shortcut(self.att(self.norm1(x), mask=mask))
            return x + self.drop_shortcut(self.ff(self.norm2(x)))
        x = self.norm1(x + self.drop_shortcut(self.att(x, mask=mask)))
        return self.norm2(x + self.drop_shortcut(self.ff(x)))


class DecoderBlock(Module):
    """As EncoderBlock, of a text that grows: a token sees none after it, and gathers from the source besides (§3.1, §3.2.3)."""

    def __init__(
        self,
        emb_dim: int,
        n_heads: int,
        context_length: int,
        drop_rate: float = 0.0,
        *,
        hidden_dim: int | None = None,
        activation: str = "relu",
        norm_eps: float = 1e-5,
        norm_first: bool = False,
        rng: Generator | None = None,
    ) -> None:
        heads = emb_dim, emb_dim, context_length, drop_rate, n_heads, True
        self.norm_first = norm_first
        self.att = MultiHeadAttention(*heads, rng=rng)
        self.cross_att = MultiHeadAttention(*heads, causal=False, rng=rng)
        self.ff = FeedForward(emb_dim, hidden_dim=hidden_dim, activation=activation, rng=rng)
        self.norm1 = LayerNorm(emb_dim, norm_eps)
        self.norm2 = LayerNorm(emb_dim, norm_eps)
        self.norm3 = LayerNorm(emb_dim, norm_eps)
        self.drop_shortcut = Dropout(drop_rate)

    def forward(self, x: Tensor, memory: Memory, mask: Any = None, cache: LayerCache | None = None) -> Tensor:
        """`memory`: keys and values (B, S, C) of the source, by `cross_att`; `mask` (B, S): where it has no token."""
        if self.norm_first:
            x = x + self.drop_shortcut(self.att(self.norm1(x), cache))
            x = x + self.drop_shortcut(self.cross_att(self.norm2(x), memory=memory, mask=mask))
            return x + self.drop_shortcut(self.ff(self.norm3(x)))
        x = self.norm1(x + self.drop_shortcut(self.att(x, cache)))
        x = self.norm2(x + self.drop_shortcut(self.cross_att(x, memory=memory, mask=mask)))
        return self.norm3(x + self.drop_shortcut(self.ff(x)))
