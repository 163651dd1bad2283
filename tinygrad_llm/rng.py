"""Seeded random streams: the Mersenne Twister that PyTorch's CPU generator runs on, in NumPy.

Both libraries use MT19937 (Matsumoto and Nishimura 1998) with the same seeding, so the same 32-bit words come out; what
differs is how words become numbers, and here they become PyTorch's. `uniform`, `randint`, `randperm`, `shuffle_order`
and fewer than 16 normal draws equal PyTorch 2.13 bit for bit. From 16 on, normal draws agree to a few units in the last
place: PyTorch's own logarithm and cosine differ by as much from one kind of CPU to the next. Dropout and multinomial
sampling use another generator there, which depends on the machine: `spawn` serves those with a fast NumPy stream.

    tg.manual_seed(123)                  # reseed the current generator
    get_generator().randn(2, 5)          # what torch.randn(2, 5) gives after torch.manual_seed(123)
    with use_generator(Generator(7)):    # another stream for this block, in this thread only
        ...
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .checks import is_integer
from .errors import ConfigError

Shape = int | tuple[int, ...]

_BLOCK = 1 << 14  # numbers made at a time: a multiple of 16 whose temporaries stay in the cache


class Generator:
    """One random stream. Draws are float32 or int64 arrays; `seed` is an integer, 0 <= seed < 2**64.

    As in PyTorch, two seeds with the same low 32 bits start the same stream.
    """

    def __init__(self, seed: int) -> None:
        self.manual_seed(seed)

    def __repr__(self) -> str:
        return f"Generator(seed={self.seed})"

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`; returns the generator itself."""
        self.seed = seed if type(seed) is int and 0 <= seed < 2**64 else _check_seed(seed)
        self._twister = np.random.RandomState(self.seed & 0xFFFFFFFF)
        self._spare_normal: float | None = None
        return self

    # ---- integers

    def random64(self) -> int:
        """One integer, 0 <= r < 2**64, made of two words with the high one first."""
        high, low = self._twister.randint(0, 2**32, 2, dtype=np.uint32).tolist()
        return high << 32 | low

    def randint(self, low: int, high: int, shape: Shape) -> np.ndarray:
        """int64 integers, low <= r < high (`torch.randint`)."""
        low, high = operator.index(low), operator.index(high)
        if not -(2**63) <= low < high < 2**63:
            raise ConfigError(f"randint: low={low}, high={high}: need low < high within 64 bits")
        out = _empty("randint", shape, np.int64)
        flat = out.reshape(-1)
        if high - low < 2**28:
            flat[:] = self._words(flat.size) % (high - low)
        else:
            words = self._words(2 * flat.size).astype(np.uint64)
            flat[:] = (words[0::2] << np.uint64(32) | words[1::2]) % np.uint64(high - low)
        out += low
        return out

    def randperm(self, n: int) -> np.ndarray:
        """A permutation of 0 .. n-1 as int64 (`torch.randperm`): Fisher-Yates, one word per position but the last."""
        out = _empty("randperm", n, np.int64)
        order = list(range(n))
        for i, word in enumerate(self._words(max(n - 1, 0)).tolist()):
            j = i + word % (n - i)
            order[i], order[j] = order[j], order[i]
        out[:] = order
        return out

    def shuffle_order(self, n: int) -> np.ndarray:
        """The order in which `torch.utils.data.DataLoader(shuffle=True)` visits `n` samples in one epoch.

        Each epoch draws a seed for worker processes, used or not, and a 63-bit seed for the sampler's own generator.
        """
        _empty("shuffle_order", n, np.bool_)  # a bad n raises before anything is drawn
        self.random64()
        return Generator(self.random64() % 2**63).randperm(n)

    # ---- real numbers

    def rand(self, *shape: int) -> np.ndarray:
        """float32 numbers, 0 <= r < 1 (`torch.rand`)."""
        return self.uniform(0.0, 1.0, shape)

    def uniform(self, low: float, high: float, shape: Shape) -> np.ndarray:
        """float32 numbers from low to high (`Tensor.uniform_`): low + (high - low) k / 2**24, k = 24 bits of a word."""
        if not (low <= high and max(abs(low), abs(high)) < 1e38):
            raise ConfigError(f"uniform: low={low}, high={high}: need low <= high, both within 1e38")
        offset, width = float(np.float32(low)), float(np.float32(high) - np.float32(low))
        out = _empty("uniform", shape, np.float32)
        for block in _blocks(out.reshape(-1)):
            # in float64, so that it is rounded once: PyTorch's kernel is a fused multiply-add
            block[:] = self._fractions(block.size) * width + offset
        return out

    def randn(self, *shape: int) -> np.ndarray:
        """float32 numbers from N(0, 1) (`torch.randn`)."""
        return self.normal(0.0, 1.0, shape)

    def normal(self, mean: float, std: float, shape: Shape) -> np.ndarray:
        """float32 numbers from N(mean, std^2) (`Tensor.normal_`), by the transform of Box and Muller (1958).

        From 16 numbers on PyTorch works on rows of 16 in float32, and where the size is not a multiple of 16 it draws
        the last 16 afresh. Fewer are made in float64 and in pairs, the second of which may wait for the next call.
        """
        if not (std >= 0 and max(abs(mean), std) < 1e37):
            raise ConfigError(f"normal: mean={mean}, std={std}: need std >= 0, both within 1e37")
        mean, std = float(mean), float(std)
        out = _empty("normal", shape, np.float32)
        flat = out.reshape(-1)
        if flat.size < 16:
            flat[:] = [self._next_normal() * std + mean for _ in range(flat.size)]
            return out
        rest = flat.size % 16
        for block in _blocks(flat[: flat.size - rest]):
            block[:] = self._fractions(block.size)
            _box_muller(block.reshape(-1, 16), mean, std)
        if rest:
            self._words(rest)
            flat[-16:] = self._fractions(16)
            _box_muller(flat[-16:].reshape(-1, 16), mean, std)
        return out

    # ---- streams and state

    def spawn(self) -> np.random.Generator:
        """A fast NumPy stream seeded with 64 bits of this one, for dropout and sampling.

        Spawn where the numbers are used and keep no child: then this generator's state is all there is to save.
        """
        return np.random.Generator(np.random.SFC64(self.random64()))

    def get_state(self) -> dict[str, Any]:
        """Everything that decides the next draws, as plain data that JSON can carry."""
        twister = self._twister.get_state(legacy=False)["state"]
        key, position = twister["key"].tolist(), int(twister["pos"])
        return {"seed": self.seed, "key": key, "position": position, "spare_normal": self._spare_normal}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned. ConfigError, and no change, when `state` is not that."""
        try:
            seed = _check_seed(state["seed"])
            key = np.array(state["key"], np.uint32)
            position = operator.index(state["position"])
            spare = None if state["spare_normal"] is None else float(state["spare_normal"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"set_state: not the state of a generator ({type(error).__name__}: {error})") from error
        if key.shape != (624,) or not 0 <= position <= 624:
            raise ConfigError(
                f"set_state: key {key.shape} at position {position}: need (624,) and 0 <= position <= 624"
            )
        self._twister.set_state(("MT19937", key, position, 0, 0.0))
        self.seed, self._spare_normal = seed, spare

    # ---- words and what they become

    def _words(self, n: int) -> np.ndarray:
        return self._twister.randint(0, 2**32, n, dtype=np.uint32)

    def _fractions(self, n: int) -> np.ndarray:
        return (self._words(n) & 0xFFFFFF) * 2.0**-24

    def _next_normal(self) -> float:
        if self._spare_normal is not None:
            value, self._spare_normal = self._spare_normal, None
            return value
        u1 = self.random64() % 2**53 * 2.0**-53
        u2 = self.random64() % 2**53 * 2.0**-53
        radius = math.sqrt(-2 * math.log1p(-u2))
        self._spare_normal = radius * math.sin(2 * math.pi * u1)
        return radius * math.cos(2 * math.pi * u1)


class Zeros(Generator):
    """Zeros instead of draws, for parameters that are filled in afterwards; zeros that are not touched take no memory."""

    def __init__(self) -> None:
        super().__init__(0)

    def uniform(self, low: float, high: float, shape: Shape) -> np.ndarray:
        return np.zeros(shape, np.float32)

    def normal(self, mean: float, std: float, shape: Shape) -> np.ndarray:
        return np.zeros(shape, np.float32)


def _box_muller(rows: np.ndarray, mean: float, std: float) -> None:
    """Turn uniform numbers into normal ones, in place: rows (R, 16), the first 8 columns radii, the others angles."""
    radius = np.sqrt(-2 * np.log(1 - rows[:, :8]))
    angle = 2 * math.pi * rows[:, 8:]
    rows[:, :8] = radius * np.cos(angle) * std + mean
    rows[:, 8:] = radius * np.sin(angle) * std + mean


def _blocks(flat: np.ndarray) -> Iterator[np.ndarray]:
    return (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))


def _empty(name: str, shape: Shape, dtype: type) -> np.ndarray:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if not all(is_integer(size) and size >= 0 for size in sizes):
        raise ConfigError(f"{name}: shape {shape!r}: sizes must be integers >= 0")
    return np.empty(sizes, dtype)


def _check_seed(seed: int) -> int:
    if not is_integer(seed) or not 0 <= seed < 2**64:
        raise ConfigError(f"seed is {seed!r}: it must be an integer, 0 <= seed < 2**64")
    return int(seed)


# ---- the current generator

_of_process = Generator(int.from_bytes(os.urandom(8), "little"))
_of_context: ContextVar[Generator | None] = ContextVar("generator", default=None)


def get_generator() -> Generator:
    """The generator that everything without `rng=` draws from: that of `use_generator`, else the one of the process."""
    return _of_context.get() or _of_process


def manual_seed(seed: int) -> Generator:
    """Reseed the current generator and return it. Until this is called each process starts from a seed of its own."""
    return get_generator().manual_seed(seed)


@contextmanager
def use_generator(generator: Generator) -> Iterator[Generator]:
    """Make `generator` the current one inside the `with` block; other threads keep theirs."""
    token = _of_context.set(generator)
    try:
        yield generator
    finally:
        _of_context.reset(token)
