"""What a model keeps of the tokens that it has read: with it, the next token costs one row instead of all of them.

Letters in shape comments: B batch, T new tokens, S tokens of the longest row with the new ones, C features of the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ..checks import check_size
from ..engine import Tensor
from ..errors import ContextLengthError, GraphError, ShapeError


class State(Protocol):
    """`model(ids, state=state)` takes ids (B, T) for what follows the tokens before, in pieces of any length.

    It gives the logits that one pass over the whole text would give. Rows are independent, and may be of different ages. A
    state is of use as long as the weights stay as they are.
    """

    lengths: np.ndarray  # (B,) int64: how many tokens each row has read

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may come more than once."""

    def append(self, other: Any) -> None:
        """Go on with the rows of another state of the same model as well, after those there are."""


class KVCache:
    """A State of keys and values: room for `capacity` tokens in each layer, 2 n_layers B capacity C numbers."""

    def __init__(self, n_layers: int, batch_size: int, capacity: int, width: int, dtype: Any = np.float32) -> None:
        check_size("KVCache", n_layers=n_layers, batch_size=batch_size, capacity=capacity, width=width)
        self.capacity, self.lengths = capacity, np.zeros(batch_size, np.int64)  # (B,)
        self.layers = [LayerCache(self, (batch_size, capacity, width), dtype) for _ in range(n_layers)]

    def positions(self, batch_size: int, n_tokens: int) -> np.ndarray:
        """The positions of the next `n_tokens`: (T,) where all rows have the same, else (B, T). An error if there is no room."""
        if batch_size != len(self.lengths):
            raise ShapeError(f"KVCache: {batch_size} rows of ids for a state of {len(self.lengths)}: make a new one")
        longest = int(self.lengths.max())
        if longest + n_tokens > self.capacity:
            raise ContextLengthError(
                f"KVCache: {longest} tokens and {n_tokens} more, there is room for {self.capacity}: "
                "begin again with a new state and the last tokens, whose positions change"
            )
        if self.same_age():
            return np.arange(longest, longest + n_tokens)  # (T,)
        return self.lengths[:, None] + np.arange(n_tokens)  # (B, T)

    def same_age(self) -> bool:
        return bool((self.lengths == self.lengths[0]).all())

    def select(self, rows: Sequence[int]) -> None:
        index = np.asarray(rows)
        self.lengths = self.lengths[index]
        for layer in self.layers:
            layer.keys, layer.values = (self._rows([old], index) for old in (layer.keys, layer.values))

    def append(self, other: KVCache) -> None:
        if other.capacity != self.capacity:
            raise ShapeError(f"KVCache: rows with room for {other.capacity} tokens, here it is {self.capacity}")
        self.lengths = np.concatenate([self.lengths, other.lengths])
        index = np.arange(len(self.lengths))
        for layer, more in zip(self.layers, other.layers, strict=True):
            layer.keys = self._rows([layer.keys, more.keys], index)
            layer.values = self._rows([layer.values, more.values], index)

    def _rows(self, parts: list[np.ndarray], index: np.ndarray) -> np.ndarray:
        """These rows of the parts together, (B, capacity, C), of which only what has been read is touched."""
        longest = int(self.lengths.max(initial=0))
        new = np.zeros((len(index), *parts[0].shape[1:]), parts[0].dtype)
        new[:, :longest] = np.concatenate([part[:, :longest] for part in parts])[index]
        return new


class LayerCache:
    """The part of one layer."""

    def __init__(self, cache: KVCache, shape: tuple[int, ...], dtype: Any) -> None:
        self.cache = cache
        # Zeros, which take no memory until they are written: a masked key of NaN would still make its value NaN.
        self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)  # (B, capacity, C)

    def positions(self, n_tokens: int) -> np.ndarray:
        """Those of the next tokens, as KVCache.positions has them."""
        return self.cache.positions(len(self.cache.lengths), n_tokens)

    def extend(self, keys: Tensor, values: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Keep the new keys and values (B, T, C); all there are now, (B, S, C) each, and the mask over them: None, or where rows
        are of different ages (B, 1, T, S), False where a key is not that row's, or later than the query.
        """
        if keys.requires_grad or values.requires_grad:
            raise GraphError("KVCache: nothing can be learned through it: run the model under tg.no_grad()")
        lengths, n_tokens = self.cache.lengths, keys.shape[1]
        end = int(lengths.max()) + n_tokens
        if self.cache.same_age():
            self.keys[:, end - n_tokens : end], self.values[:, end - n_tokens : end] = keys.data, values.data
            return self.keys[:, :end], self.values[:, :end], None
        positions = lengths[:, None] + np.arange(n_tokens)  # (B, T)
        rows = np.arange(len(lengths))[:, None]
        self.keys[rows, positions], self.values[rows, positions] = keys.data, values.data
        return self.keys[:, :end], self.values[:, :end], np.arange(end) <= positions[:, None, :, None]


class DecoderState(KVCache):
    """A State of a decoder: the keys and values of what it has written, and those of the sources that it writes from."""

    def __init__(self, memory: list[tuple[np.ndarray, np.ndarray]], mask: np.ndarray, capacity: int) -> None:
        keys, _ = memory[0]
        super().__init__(len(memory), len(keys), capacity, keys.shape[2], keys.dtype)
        self.memory, self.mask = (
            memory,
            mask,
        )  # of each layer, twice (B, S, C); (B, S), False where a source has no token

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        index = np.asarray(rows)
        self.memory = [(keys[index], values[index]) for keys, values in self.memory]
        self.mask = self.mask[index]

    def append(self, other: Any) -> None:
        super().append(other)
        longest = max(self.mask.shape[1], other.mask.shape[1])
        self.memory = [
            (_joined(keys, more_keys, longest), _joined(values, more_values, longest))
            for (keys, values), (more_keys, more_values) in zip(self.memory, other.memory, strict=True)
        ]
        self.mask = _joined(self.mask, other.mask, longest)


def _joined(rows: np.ndarray, more: np.ndarray, longest: int) -> np.ndarray:
    """(B, S, ...) and (B', S', ...) -> (B + B', longest, ...), filled up with zeros."""
    out = np.zeros((len(rows) + len(more), longest, *rows.shape[2:]), rows.dtype)
    out[: len(rows), : rows.shape[1]], out[len(rows) :, : more.shape[1]] = rows, more
    return out


class Recurrent:
    """A State that does not grow: of each layer a few arrays (B, ...), in which all that was read is summed up."""

    def __init__(self, layers: list[dict[str, np.ndarray]]) -> None:
        self.layers = layers
        self.lengths = np.zeros(len(next(iter(layers[0].values()))), np.int64)  # (B,)

    def check_rows(self, batch_size: int) -> None:
        """ShapeError for another number of rows than there are here."""
        if batch_size != len(self.lengths):
            raise ShapeError(f"Recurrent: {batch_size} rows of ids for a state of {len(self.lengths)}: make a new one")

    def select(self, rows: Sequence[int]) -> None:
        index = np.asarray(rows)
        self.lengths = self.lengths[index]
        self.layers = [{name: array[index] for name, array in layer.items()} for layer in self.layers]

    def append(self, other: Recurrent) -> None:
        self.lengths = np.concatenate([self.lengths, other.lengths])
        self.layers = [
            {name: self._together(array, more[name]) for name, array in layer.items()}
            for layer, more in zip(self.layers, other.layers, strict=True)
        ]

    def _together(self, rows: np.ndarray, more: np.ndarray) -> np.ndarray:
        return np.concatenate([rows, more])


class Window(Recurrent):
    """A State of past inputs: of each layer some arrays (B, C, T) whose last column is the last token of every row.

    Those without a column at first grow, to as many as the longest row has tokens. What stands before the first token of a row is
    zeros, which add nothing to a convolution.
    """

    def __init__(self, layers: list[dict[str, np.ndarray]]) -> None:
        super().__init__(layers)
        self._growing = [name for name, array in layers[0].items() if array.shape[2] == 0]

    def select(self, rows: Sequence[int]) -> None:
        super().select(rows)
        longest = int(self.lengths.max(initial=0))
        for layer in self.layers:
            for name in self._growing:
                layer[name] = layer[name][:, :, layer[name].shape[2] - longest :]  # (B, C, longest)

    def _together(self, rows: np.ndarray, more: np.ndarray) -> np.ndarray:
        """(B, C, T) and (B', C, T') -> (B + B', C, longest), zeros before the shorter ones."""
        longest = max(rows.shape[2], more.shape[2])
        out = np.zeros((len(rows) + len(more), rows.shape[1], longest), rows.dtype)
        out[: len(rows), :, longest - rows.shape[2] :] = rows
        out[len(rows) :, :, longest - more.shape[2] :] = more
        return out
