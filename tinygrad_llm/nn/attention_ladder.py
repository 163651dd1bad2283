"""Attention as a ladder: the book's chapter 3 in small classes, each a few lines away from the one before.

    SimpleAttention            softmax(x xᵀ) x: nothing is learned
    SelfAttention_v1           three learned matrices: queries, keys, values, and scores divided by √d
    SelfAttention_v2           the same matrices as linear layers, which start from better values
    CausalAttention            a batch; no token sees a later one; dropout on the weights
    MultiHeadAttentionWrapper  several of them side by side
    MultiHeadAttention         the same with one matrix for all heads; then a last linear layer mixes the heads
    FusedAttention             one matrix for queries, keys and values together
    GroupedQueryAttention      several query heads share one key and value head: a smaller cache when generating
    MultiQueryAttention        all of them share one
    SlidingWindowAttention     no token sees further back than a window
    RotaryAttention            queries and keys know where they stand, by angles

A rung holds the one before it as a special case where the maths says so: v2 with the matrices of v1, a wrapper whose
heads are stacked, as many key heads as heads, a window as long as the text. All of it is made of small ops, to be
stepped through; `nn.MultiHeadAttention`, with the same weights and the same result, runs on the fused `ops.attention`, and
Llama's other layers, `nn.RMSNorm` and `nn.SwiGLU`, as small ops under `tg.composed()` (unfused.py).

Sources: Vaswani et al. 2017 §3.2; Shazeer 2019 (multi-query); Ainslie et al. 2023 (grouped-query); Beltagy et al. 2020 §3.1
(sliding window); Su et al. 2021 §3.2.2 (rotary positions). Letters in shape comments: B batch, T tokens, C = d_out features,
H heads of d = C/H features, G key heads.
"""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from ..checks import check_size
from ..engine import Tensor
from ..errors import ConfigError, ContextLengthError, ShapeError
from ..rng import Generator, get_generator
from .layers import Dropout, Linear
from .module import Module, ModuleList, Parameter


class SimpleAttention(Module):
    """Each token becomes a mean of all tokens, weighted by how much they point in its direction: (T, C) -> (T, C)."""

    def forward(self, x: Tensor) -> Tensor:
        scores = x @ x.swapaxes(-1, -2)  # (T, T)
        weights = ops.softmax(scores)
        return weights @ x  # (T, C)


class SelfAttention_v1(Module):
    """What a token asks (query), what it answers to (key) and what it says (value) are learned: (T, d_in) -> (T, C)."""

    def __init__(self, d_in: int, d_out: int, *, rng: Generator | None = None) -> None:
        check_size("SelfAttention_v1", d_in=d_in, d_out=d_out)
        rng = rng or get_generator()
        self.W_query = Parameter(rng.rand(d_in, d_out))
        self.W_key = Parameter(rng.rand(d_in, d_out))
        self.W_value = Parameter(rng.rand(d_in, d_out))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = x @ self.W_query, x @ self.W_key, x @ self.W_value  # (T, C) each
        scores = queries @ keys.swapaxes(-1, -2)  # (T, T)
        weights = ops.softmax(scores / math.sqrt(keys.shape[-1]))
        return weights @ values  # (T, C)


class SelfAttention_v2(Module):
    """v1 with linear layers, whose weights are stored the other way round, (out, in): (T, d_in) -> (T, C)."""

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False, *, rng: Generator | None = None) -> None:
        self.W_query = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_key = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_value = Linear(d_in, d_out, bias=qkv_bias, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)  # (T, C) each
        scores = queries @ keys.swapaxes(-1, -2)  # (T, T)
        weights = ops.softmax(scores / math.sqrt(keys.shape[-1]))
        return weights @ values  # (T, C)


class CausalAttention(Module):
    """v2 in which a token sees itself and those before it, and some weights are dropped: (B, T, d_in) -> (B, T, C)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        check_size("CausalAttention", context_length=context_length)
        self.context_length = context_length
        self.W_query = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_key = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_value = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        t = _check_tokens(x, self.context_length)
        queries, keys, values = self.W_query(x), self.W_key(x), self.W_value(x)  # (B, T, C) each
        return attend(queries, keys, values, causal_mask(t), self.dropout)  # (B, T, C)


class MultiHeadAttentionWrapper(Module):
    """Several CausalAttentions of d_out features each, their results side by side: (B, T, d_in) -> (B, T, H d_out)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        check_size("MultiHeadAttentionWrapper", num_heads=num_heads)
        self.heads = ModuleList(
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias, rng=rng) for _ in range(num_heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        return ops.concatenate(*(head(x) for head in self.heads), axis=-1)  # (B, T, H d_out)


class MultiHeadAttention(Module):
    """The wrapper with one matrix for all heads, cut afterwards, and a last layer: (B, T, d_in) -> (B, T, C)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        _check_heads(type(self).__name__, d_out, context_length, num_heads, num_heads)
        self.context_length, self.num_heads = context_length, num_heads
        self.W_query = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_key = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_value = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.out_proj = Linear(d_out, d_out, rng=rng)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        t = _check_tokens(x, self.context_length)
        queries = split_heads(self.W_query(x), self.num_heads)  # (B, H, T, d)
        keys = split_heads(self.W_key(x), self.num_heads)
        values = split_heads(self.W_value(x), self.num_heads)
        context = attend(queries, keys, values, self.visible(t), self.dropout)  # (B, H, T, d)
        return self.out_proj(merge_heads(context))  # (B, T, C)

    def visible(self, t: int) -> np.ndarray:
        return causal_mask(t)


class FusedAttention(Module):
    """MultiHeadAttention with its three matrices in one, (3 C, d_in), and one product instead of three."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        _check_heads("FusedAttention", d_out, context_length, num_heads, num_heads)
        self.context_length, self.num_heads = context_length, num_heads
        self.W_qkv = Linear(d_in, 3 * d_out, bias=qkv_bias, rng=rng)
        self.out_proj = Linear(d_out, d_out, rng=rng)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        t = _check_tokens(x, self.context_length)
        queries, keys, values = (
            split_heads(part, self.num_heads)  # (B, H, T, d)
            for part in ops.split(self.W_qkv(x), 3, axis=-1)  # (B, T, 3C) -> (B, T, C) each
        )
        context = attend(queries, keys, values, causal_mask(t), self.dropout)  # (B, H, T, d)
        return self.out_proj(merge_heads(context))  # (B, T, C)


class GroupedQueryAttention(Module):
    """MultiHeadAttention with fewer key and value heads: query head i uses key head i // (H/G)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        num_kv_heads: int,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        _check_heads(type(self).__name__, d_out, context_length, num_heads, num_kv_heads)
        self.context_length, self.num_heads, self.num_kv_heads = context_length, num_heads, num_kv_heads
        width = d_out // num_heads * num_kv_heads
        self.W_query = Linear(d_in, d_out, bias=qkv_bias, rng=rng)
        self.W_key = Linear(d_in, width, bias=qkv_bias, rng=rng)
        self.W_value = Linear(d_in, width, bias=qkv_bias, rng=rng)
        self.out_proj = Linear(d_out, d_out, rng=rng)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        t = _check_tokens(x, self.context_length)
        queries = split_heads(self.W_query(x), self.num_heads)  # (B, H, T, d)
        keys = split_heads(self.W_key(x), self.num_kv_heads)  # (B, G, T, d)
        values = split_heads(self.W_value(x), self.num_kv_heads)
        key_head = np.arange(self.num_heads) // (self.num_heads // self.num_kv_heads)  # 0 0 1 1 for H = 4, G = 2
        context = attend(queries, keys[:, key_head], values[:, key_head], causal_mask(t), self.dropout)  # (B, H, T, d)
        return self.out_proj(merge_heads(context))  # (B, T, C)


class MultiQueryAttention(GroupedQueryAttention):
    """GroupedQueryAttention with a single key and value head for all queries."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(d_in, d_out, context_length, dropout, num_heads, 1, qkv_bias, rng=rng)


class SlidingWindowAttention(MultiHeadAttention):
    """MultiHeadAttention in which a token sees itself and the `window` - 1 tokens before it."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        window: int,
        qkv_bias: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        check_size("SlidingWindowAttention", window=window)
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias, rng=rng)
        self.window = window

    def visible(self, t: int) -> np.ndarray:
        return causal_mask(t) & ~np.tri(t, k=-self.window, dtype=bool)  # not before i - window + 1


class RotaryAttention(MultiHeadAttention):
    """MultiHeadAttention whose queries and keys are turned by angles that grow with their positions.

    Their product then depends on how far apart they are. `interleaved`: which features are turned together (`rotate`).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        base: float = 10000.0,
        interleaved: bool = False,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(d_in, d_out, context_length, dropout, num_heads, qkv_bias, rng=rng)
        if d_out // num_heads % 2:
            raise ConfigError(f"RotaryAttention: a head has {d_out // num_heads} features: they are turned in pairs")
        self.base, self.interleaved = base, interleaved

    def forward(self, x: Tensor) -> Tensor:
        t = _check_tokens(x, self.context_length)
        queries, keys = (
            rotate(split_heads(w(x), self.num_heads), self.base, self.interleaved)  # (B, H, T, d)
            for w in (self.W_query, self.W_key)
        )
        values = split_heads(self.W_value(x), self.num_heads)
        context = attend(queries, keys, values, self.visible(t), self.dropout)  # (B, H, T, d)
        return self.out_proj(merge_heads(context))  # (B, T, C)


# ---- what the rungs share


def rotate(x: Tensor, base: float, interleaved: bool) -> Tensor:
    """Pair i of the features of token t turned by t / base^(2i/d): (..., T, d) -> (..., T, d).

    Pairs are features side by side (`interleaved`, as in the paper), or one of the first half with its like in the second.
    """
    t, d = x.shape[-2:]
    angles = np.arange(t)[:, None] / base ** (np.arange(0, d, 2) / d)  # (T, d/2)
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]  # (..., T, d/2) each
        return ops.stack(a * cos - b * sin, b * cos + a * sin, axis=-1).reshape(x.shape)
    a, b = ops.split(x, 2, axis=-1)
    return ops.concatenate(a * cos - b * sin, b * cos + a * sin, axis=-1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, visible: np.ndarray, dropout: Dropout) -> Tensor:
    """softmax(Q Kᵀ / √d) V, where what is not visible gets the score -inf and so the weight 0: (..., T, d) each."""
    scores = queries @ keys.swapaxes(-1, -2) / math.sqrt(keys.shape[-1])  # (..., T, T)
    scores = ops.where(scores, -math.inf, condition=visible)
    weights = dropout(ops.softmax(scores))
    return weights @ values  # (..., T, d)


def causal_mask(t: int) -> np.ndarray:
    """True where query i may see key j <= i: (T, T)."""
    return np.tri(t, dtype=bool)


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """The features of a token cut into heads, and the heads before the tokens: (B, T, H d) -> (B, H, T, d)."""
    b, t, c = x.shape
    return x.reshape(b, t, n_heads, c // n_heads).transpose(0, 2, 1, 3)  # (B, H, T, d)


def merge_heads(x: Tensor) -> Tensor:
    """The heads of a token side by side again: (B, H, T, d) -> (B, T, H d)."""
    b, h, t, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, t, h * d)  # (B, T, C)


def _check_heads(layer: str, d_out: int, context_length: int, num_heads: int, num_kv_heads: int) -> None:
    check_size(layer, d_out=d_out, context_length=context_length, num_heads=num_heads, num_kv_heads=num_kv_heads)
    if d_out % num_heads or num_heads % num_kv_heads:
        raise ConfigError(
            f"{layer}: d_out is {d_out}, num_heads {num_heads}, num_kv_heads {num_kv_heads}: "
            "heads must divide the features, and key heads the heads"
        )


def _check_tokens(x: Tensor, context_length: int) -> int:
    """The number of tokens T of x (B, T, d_in), or an error if there are too many."""
    if x.ndim != 3:
        raise ShapeError(f"attention: x is {x.shape}: it must be (B, T, features)")
    if x.shape[1] > context_length:
        raise ContextLengthError(f"attention: {x.shape[1]} tokens, the context length is {context_length}")
    return x.shape[1]
