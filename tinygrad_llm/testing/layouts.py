"""The memory layout of an array, built again in memory of its own.

What a function does may depend on how its input lies in memory: Fortran order, gaps, axes that run backwards, an offset into a
larger buffer, elements that share a place (stride 0). A layout keeps all of these. Its elements are numbered by place: an axis
of stride 0 has one place for all of its elements, which can only move together, and whose gradients then add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_MARGIN = 4096  # elements kept before and after: a view into a large file is not built again with the file
_PRINTED = 64  # elements up to which an array is written out


class Layout:
    """The layout of an array: shape, strides and offset (in elements), and which elements share a place."""

    def __init__(self, x: np.ndarray) -> None:
        root = x
        while isinstance(root.base, np.ndarray):
            root = root.base
        (low, high), (start, end) = map(np.lib.array_utils.byte_bounds, (x, root))
        before, after = (min(gap // x.itemsize, _MARGIN) for gap in (low - start, end - high))
        self.shape, self.writeable = x.shape, x.flags.writeable
        self.strides = tuple((-1 if s < 0 else 1) * -(-abs(s) // x.itemsize) for s in x.strides)
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)] if x.size else []
        self.offset = before - sum(r for r in reach if r < 0)
        self.length = before + sum(map(abs, reach)) + 1 + after
        self._used, self._first, places = np.unique(
            self._view(np.arange(self.length)), return_index=True, return_inverse=True
        )
        self._places = places.reshape(-1)

    @property
    def size(self) -> int:
        """How many places there are."""
        return len(self._used)

    @property
    def shared(self) -> bool:
        """Whether elements share a place."""
        return self.size < len(self._places)

    @property
    def plain(self) -> bool:
        """Whether it is that of a new array: C order, without anything before or after."""
        return self.length == max(1, self.size) and self._view(np.empty(self.length)).flags.c_contiguous

    def index(self, place: int) -> tuple[int, ...]:
        """Where in the array the (first) element of a place is."""
        return tuple(map(int, np.unravel_index(self._first[place], self.shape)))

    def numbers(self, x: np.ndarray) -> np.ndarray:
        """What is at each place of an array of this layout: (size,)."""
        return x.reshape(-1)[self._first]

    def gathered(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient for each place, summed over the elements that share it: (size,)."""
        return np.bincount(self._places, np.reshape(gradient, -1), self.size)

    def array(self, numbers: np.ndarray, dtype: Any = None) -> np.ndarray:
        """A new array of this layout with these numbers (size,) at its places, and NaN around them."""
        buffer = np.full(self.length, np.nan, dtype or numbers.dtype)
        buffer[self._used] = numbers
        x = self._view(buffer)
        x.flags.writeable = self.writeable
        return x

    def source(self, variable: str, numbers: np.ndarray) -> list[str]:
        """Lines of Python that make the array, or say what it is where it has many elements."""
        x = self.array(numbers)
        kind = f"np.{x.dtype}"
        if x.size > _PRINTED:
            return [
                f"{variable} = ...  # the same {x.shape} {x.dtype} array"
                + ("" if self.plain else f", strides {x.strides}")
            ]
        if self.plain:
            return [f"{variable} = np.array({x.tolist()!r}, {kind})"]
        buffer = f"np.full({self.length}, np.nan, {kind})"
        return [
            f"{variable} = np.ndarray({x.shape}, {kind}, {buffer}, {self.offset * x.itemsize}, {x.strides})",
            f"{variable}[...] = {x.tolist()!r}",
        ]

    def _view(self, buffer: np.ndarray) -> np.ndarray:
        size = buffer.itemsize
        return np.ndarray(self.shape, buffer.dtype, buffer, self.offset * size, [s * size for s in self.strides])
