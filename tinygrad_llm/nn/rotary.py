"""Positions as angles: what Llama's attention has in place of a table of positions."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .. import ops
from ..checks import check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError


class Rotary:
    """Turns pair i of each head by the angle position / base^(2i/d), i = 0, 1, ...: (B, T, H d) -> (B, T, H d).

    Su et al. 2021 §3.2.2. The product of a query and a key then depends on how far apart they are, and not on where they stand.
    `interleaved`: which features make a pair (ops.rotary); weights made for one of the two conventions are of no use with the
    other.
    """

    def __init__(self, head_dim: int, base: float = 10000.0, interleaved: bool = False) -> None:
        self.head_dim, self.interleaved = check_integer("Rotary: head_dim", head_dim), interleaved
        if head_dim % 2:
            raise ConfigError(f"Rotary: head_dim is {head_dim}: features are turned in pairs, so it must be even")
        self.base = check_number("Rotary: base", base)
        if self.base <= 1:
            raise ConfigError(
                f"Rotary: base is {base!r}: it must be above 1, or no pair would turn slower than another"
            )

    @cached_property  # not before a model is made: a configuration checks its sizes by this class
    def frequencies(self) -> np.ndarray:
        # in float64: in float32 the angle of token 100,000 is off by a hundredth
        return self.base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)  # (d/2,)

    def __call__(self, positions: np.ndarray, *xs: Tensor) -> list[Tensor]:
        """Queries and keys, each (B, T, some heads of d), of the tokens at these positions, (T,) or (B, T)."""
        angles = positions[..., None] * self.frequencies  # (T, d/2) or (B, T, d/2)
        cos, sin = np.cos(angles).astype(xs[0].dtype), np.sin(angles).astype(xs[0].dtype)
        turn = {"cos": cos, "sin": sin, "interleaved": self.interleaved}
        return [ops.rotary(x, n_heads=x.shape[-1] // self.head_dim, **turn) for x in xs]
