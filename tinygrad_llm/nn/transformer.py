"""The feed-forward layers of transformers, and the block that a GPT repeats (the book's chapter 4)."""

from __future__ import annotations

from .. import ops
from ..engine import Tensor
from ..rng import Generator
from .attention import MultiHeadAttention
from .layers import GELU, Dropout, LayerNorm, Linear
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
            GELU(exact=activation == "gelu_erf"),
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
