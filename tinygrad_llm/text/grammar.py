"""What worlds of made-up texts share: wordings with slots read from a file, and choices that are the same on every machine."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from ..checks import is_integer
from ..errors import ConfigError

SLOT = re.compile(r"\{(\w+)\}")


def read_sections(source: str) -> dict[str, list[str]]:
    """The lines of each section, by what stands in its brackets; # begins a remark."""
    sections: dict[str, list[str]] = {}
    for line in source.splitlines():
        if line.startswith("["):
            lines = sections[line.strip("[]")] = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


def check_split(who: str, split: str, splits: Sequence[str]) -> int:
    """The place of `split` among `splits`; ConfigError if it is none of them."""
    if split not in splits:
        *others, last = map(repr, splits)
        raise ConfigError(f"{who}: split is {split!r}: use {', '.join(others)} or {last}")
    return splits.index(split)


def is_held(what: str, one_in: int) -> bool:
    """Whether this is one of those kept from training: one in so many, by what it is called."""
    return crc32(what.encode()) % one_in == 0


def part_of(what: str, shares: Sequence[int]) -> int:
    """To which of several parts this belongs, by what it is called; the parts are as large as their shares."""
    at = crc32(what.encode()) % sum(shares)
    return next(i for i in range(len(shares)) if at < sum(shares[: i + 1]))


class Draws:
    """Choices from a stream that no version of Python and no platform changes, and how unlikely they were, in nats."""

    def __init__(self, who: str, seed: int, n: int, stream: int) -> None:
        for name, value in {"seed": seed, "n": n}.items():
            if not is_integer(value) or value < 0:
                raise ConfigError(f"{who}: {name} is {value!r}: it must be an integer, 0 or more")
        # of all that `random` has, only seeding by an integer and random() promise to stay as they are
        self._random = random.Random(int(seed) * 3 + stream).random
        self.nats = 0.0

    def pick(self, options: Sequence[Any]) -> Any:
        self.nats += math.log(len(options))
        return options[int(self._random() * len(options))]

    def some(self, options: Sequence[Any], n: int) -> list[Any]:
        """`n` different ones."""
        chosen: list[Any] = []
        while len(chosen) < n:
            chosen.append(self.pick([option for option in options if option not in chosen]))
        return chosen
