"""What the modules of a model cost, by formula: each configuration says it of its own (`costs`), estimate.py adds it up.

Letters: C = emb_dim, T = context_length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..ops.scaled_dot_product import _KEPT


class Cost(NamedTuple):
    """One module, `copies` times in a model."""

    name: str
    parameters: int = 0
    flops: int | None = None  # forward, for each token; None: two for each parameter
    kept: int = 0  # numbers for each token, from the forward for the backward
    cached: int = 0  # numbers for each sequence, in a KV cache
    copies: int = 1


def repeated(name: str, copies: int, modules: Iterable[Cost]) -> list[Cost]:
    """A block of these modules, so many times."""
    return [module._replace(name=f"{name}.{module.name}", copies=copies) for module in modules]


def attention_costs(
    emb_dim: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    context_length: int,
    *,
    keys: int,
    qkv_bias: bool,
    out_bias: bool,
    turned: bool = False,
) -> list[Cost]:
    """Attention (nn.MultiHeadAttention) of which each query sees `keys` keys; `turned` by rotary positions, or not."""
    c, width, kv_width = emb_dim, n_heads * head_dim, n_kv_heads * head_dim
    probabilities = n_heads * context_length if context_length <= _KEPT else 0
    angles = head_dim if turned else 0
    return [
        Cost("att.W_query", width * (c + qkv_bias), kept=c),  # its input, which W_key and W_value share
        Cost("att.W_key", kv_width * (c + qkv_bias), cached=keys * kv_width),
        Cost("att.W_value", kv_width * (c + qkv_bias), cached=keys * kv_width),
        # it keeps keys and values once for each query head that they serve
        Cost("att", flops=4 * keys * width, kept=4 * width + n_heads + probabilities + angles),
        Cost("att.out_proj", c * (width + out_bias)),  # its input is the result of att, counted there
    ]


def encoder_costs(
    emb_dim: int, n_heads: int, hidden_dim: int, context_length: int, *, cross: bool = False, qkv_bias: bool = True
) -> list[Cost]:
    """A block of an encoder (nn.EncoderBlock) whose tokens see all of their text; `cross`: of a decoder, which sees two."""
    c = emb_dim

    def attention(name: str) -> list[Cost]:
        sizes = c, n_heads, n_heads, c // n_heads, context_length
        made = attention_costs(*sizes, keys=context_length, qkv_bias=qkv_bias, out_bias=True)
        return [cost._replace(name=cost.name.replace("att", name, 1)) for cost in made]

    return [
        *attention("att"),
        Cost("norm1", 2 * c, kept=c + 1),
        *(*attention("cross_att"), Cost("norm2", 2 * c, kept=c + 1)) * cross,
        Cost("ff.layers.0", hidden_dim * (c + 1), kept=c),
        Cost("ff.layers.1", kept=2 * hidden_dim),
        Cost("ff.layers.2", c * (hidden_dim + 1), kept=hidden_dim),
        Cost("norm3" if cross else "norm2", 2 * c, kept=c + 1),
    ]


def head_costs(emb_dim: int, vocab_size: int, tied: bool) -> list[Cost]:
    """The head (nn.Linear) and the loss."""
    return [
        Cost("out_head", 0 if tied else vocab_size * emb_dim, flops=2 * vocab_size * emb_dim, kept=emb_dim),
        Cost("cross_entropy", kept=vocab_size + 1),
    ]
