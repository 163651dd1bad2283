"""Multi-head attention, by default with a causal mask (Vaswani et al. 2017 §3.2.2; the book's chapter 3).

Letters in shape comments: B batch, T tokens, S tokens with those in the cache, H heads of d features each, G key heads, by
default as many; C = H d, K = G d.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..checks import check_number, check_size
from ..engine import Tensor
from ..errors import ConfigError, ContextLengthError, ShapeError
from ..rng import Generator, get_generator
from .layers import Linear
from .module import Module
from .rotary import Rotary
from .state import LayerCache

Memory = tuple[Any, Any]  # tensors or arrays: keys and values of a text, (B, S, K) each


class MultiHeadAttention(Module):
    """Every token gathers the values of the tokens before it and its own: (B, T, d_in) -> (B, T, d_out).

    With `causal = False` it gathers those of all tokens of its row, which no model can do that is to predict the next one, or
    those of another text, `memory` (§3.2.3).
    With fewer `num_kv_heads`, each key head serves as many query heads in a row (Ainslie et al. 2023). `rotary` turns queries
    and keys by their positions. With a `window` no token sees further back than so many, itself among them (Beltagy et al. 2020
    §3.1). `head_dim`: features of a head, if not d_out / num_heads.
    """

    causal: bool = True
    ignored_keys: ClassVar[tuple[str, ...]] = ("mask",)  # the book's PyTorch module keeps its mask among the weights

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        out_bias: bool = True,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary: Rotary | None = None,
        window: int | None = None,
        causal: bool = True,
        rng: Generator | None = None,
    ) -> None:
        check_size("MultiHeadAttention", d_in=d_in, d_out=d_out, context_length=context_length, num_heads=num_heads)
        given = {"num_kv_heads": num_kv_heads, "head_dim": head_dim, "window": window}
        check_size("MultiHeadAttention", **{name: size for name, size in given.items() if size is not None})
        if head_dim is None and d_out % num_heads:
            raise ConfigError(f"MultiHeadAttention: num_heads is {num_heads}, d_out is {d_out}: heads must divide it")
        num_kv_heads, head_dim = num_kv_heads or num_heads, head_dim or d_out // num_heads
        if num_heads % num_kv_heads:
            raise ConfigError(
                f"MultiHeadAttention: num_kv_heads is {num_kv_heads}, num_heads is {num_heads}: key heads must divide the heads"
            )
        if rotary is not None and rotary.head_dim != head_dim:
            raise ConfigError(
                f"MultiHeadAttention: rotary is for heads of {rotary.head_dim} features, these have {head_dim}"
            )
        self.num_heads, self.num_kv_heads, self.context_length = num_heads, num_kv_heads, context_length
        self.drop_rate = check_number("MultiHeadAttention: drop_rate", dropout, most=1)
        self.rotary, self.window, self.causal = rotary, window, causal
        width, kv_width = num_heads * head_dim, num_kv_heads * head_dim
        self.W_query = Linear(d_in, width, bias=qkv_bias, rng=rng)
        self.W_key = Linear(d_in, kv_width, bias=qkv_bias, rng=rng)
        self.W_value = Linear(d_in, kv_width, bias=qkv_bias, rng=rng)
        self.out_proj = Linear(width, d_out, out_bias, rng=rng)

    def forward(
        self, x: Tensor, cache: LayerCache | None = None, *, memory: Memory | None = None, mask: Any = None
    ) -> Tensor:
        """With a `cache`, x are the tokens that follow those in it. With a `memory`, the keys and values are those of another
        text. `mask` (B, S): 1 or True where a key is a token, the others are not seen; who sees none gathers zeros.
        """
        if len(x.shape) != 3:
            raise ShapeError(f"attention: x is {x.shape}: it must be (B, T, {self.W_query.weight.shape[1]})")
        if x.shape[1] > self.context_length:
            raise ContextLengthError(f"attention: {x.shape[1]} tokens, the context length is {self.context_length}")
        queries: Any = self.W_query(x)  # (B, T, C)
        keys, values = self.keys_and_values(x) if memory is None else memory  # (B, S, K) each
        positions = np.arange(x.shape[1]) if cache is None else cache.positions(x.shape[1])  # (T,) or (B, T)
        if self.rotary is not None:
            queries, keys = self.rotary(positions, queries, keys)
        if mask is not None:
            mask = np.asarray(mask, bool)[:, None, None]  # (B, 1, 1, S)
        if cache is not None:  # whose mask there is no other beside: what is read in pieces has no gaps
            keys, values, mask = cache.extend(keys, values)  # (B, S, K) each
        if self.window is not None:
            near = np.arange(keys.shape[1]) > positions[..., None] - self.window  # (T, S) or (B, T, S)
            near = near if near.ndim == 2 else near[:, None]  # (B, 1, T, S)
            mask = near if mask is None else mask & near
        drop_rate = self.drop_rate if self.training else 0.0
        rng = get_generator().spawn() if drop_rate else None
        heads = {"n_heads": self.num_heads, "n_kv_heads": self.num_kv_heads, "causal": self.causal}
        context = ops.attention(queries, keys, values, mask=mask, drop_rate=drop_rate, rng=rng, **heads)
        return self.out_proj(context)  # (B, T, d_out)

    def keys_and_values(self, x: Tensor) -> Memory:
        """(B, S, d_in) -> twice (B, S, K): what x is to the queries of other tokens."""
        return self.W_key(x), self.W_value(x)

    def describe(self) -> str:
        return f"{self.num_heads} heads, context {self.context_length}, drop_rate {self.drop_rate}"
