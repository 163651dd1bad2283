"""The keys and values of the tokens that a model has read: with them, the next token costs one row instead of all of them.

Letters in shape comments: B batch, T new tokens, S tokens read so far and the new ones, C features of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..engine import Tensor
from ..errors import ConfigError, ContextLengthError, GraphError, ShapeError
from .layers import check_size


class KVCache:
    """Room for the keys and values of `capacity` tokens in each layer, allocated once: 2 n_layers B capacity C numbers.

    `model(ids, cache=cache)` takes ids (B, T) for what follows the tokens before, in pieces of any length, and gives the
    logits that one pass over the whole text would give. `padding[b]` says how many of the first tokens of row b only fill
    it up to the length of the longest: they are neither seen nor counted as positions. A cache is of use as long as the
    `weights` it was filled with stay as they are.
    """

    def __init__(
        self,
        n_layers: int,
        batch_size: int,
        capacity: int,
        width: int,
        dtype: Any = np.float32,
        padding: Sequence[int] | np.ndarray | None = None,
        weights: Iterable[Tensor] = (),
    ) -> None:
        check_size("KVCache", n_layers=n_layers, batch_size=batch_size, capacity=capacity, width=width)
        self.padding = np.zeros(batch_size, np.int64) if padding is None else np.asarray(padding)  # (B,)
        if self.padding.shape != (batch_size,) or self.padding.dtype.kind not in "iu" or self.padding.min() < 0:
            raise ConfigError(f"KVCache: padding is {padding!r}: it must be {batch_size} integers, 0 or more")
        self.capacity, self.length = capacity, 0
        self.layers = [
            LayerCache(self, *(np.empty((batch_size, capacity, width), dtype) for _ in "kv")) for _ in range(n_layers)
        ]
        self._weights = list(weights)
        self._sample = self._sample_weights()

    def positions(self, batch_size: int, n_tokens: int) -> np.ndarray:
        """The positions of the next `n_tokens`: (T,), or (B, T) with padding. An error if there is no place for them."""
        if batch_size != len(self.padding):
            raise ShapeError(f"KVCache: {batch_size} rows of ids for a cache of {len(self.padding)}: make a new cache")
        if self.length + n_tokens > self.capacity:
            raise ContextLengthError(
                f"KVCache: {self.length} tokens and {n_tokens} more, there is room for {self.capacity}: "
                "begin again with a new cache and the last tokens, whose positions change"
            )
        if self._sample != self._sample_weights():
            raise GraphError("KVCache: the weights have changed since it was filled: make a new cache")
        positions = np.arange(self.length, self.length + n_tokens)  # (T,)
        if not self.padding.any():
            return positions
        return np.maximum(positions - self.padding[:, None], 0)  # (B, T)

    def mask(self, n_keys: int) -> np.ndarray | None:
        """False where a key is padding, (B, 1, 1, S); None if there is none."""
        if not self.padding.any():
            return None
        return np.arange(n_keys) >= self.padding[:, None, None, None]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows of the batch, in this order; a row may come more than once."""
        index = np.asarray(rows)
        self.padding = self.padding[index]
        for layer in self.layers:
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = np.empty((len(index), *old.shape[1:]), old.dtype)
                new[:, : self.length] = old[index, : self.length]
                setattr(layer, name, new)

    def _sample_weights(self) -> list[float]:
        """One number of each weight: a training step or another state dict changes them."""
        return [weight.data.item(weight.data.size // 2) for weight in self._weights]


class LayerCache:
    """The part of one layer."""

    def __init__(self, cache: KVCache, keys: np.ndarray, values: np.ndarray) -> None:
        self.cache = cache
        self.keys, self.values = keys, values  # (B, capacity, C)

    def extend(self, keys: Tensor, values: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Keep the new keys and values (B, T, C); all there are now, (B, S, C) each, and the mask over them."""
        if keys.requires_grad:
            raise GraphError("KVCache: nothing can be learned through it: run the model under tg.no_grad()")
        start = self.cache.length
        end = start + keys.shape[1]
        self.keys[:, start:end], self.values[:, start:end] = keys.data, values.data
        return self.keys[:, :end], self.values[:, :end], self.cache.mask(end)
