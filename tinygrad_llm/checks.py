"""Checks of arguments, each of them once: what passes comes back as Python's own number, the rest is a ConfigError.
And the words that messages share.

NumPy's integers overflow, its float64 turns float32 arithmetic into float64, and neither is JSON: so what is kept is Python's.
`name` is what the message begins with, "training: epochs".
"""

import difflib
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from typing import Any

import numpy as np

from .errors import ConfigError


def is_integer(value: Any) -> bool:
    """Whether it is one of Python's or NumPy's integers; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is one of Python's or NumPy's integers or floats, NaN and infinity among them."""
    return is_integer(value) or isinstance(value, (float, np.floating))


def check_integer(name: str, value: Any, least: int = 1) -> int:
    """`value`, if it is an integer, `least` or more."""
    if not is_integer(value) or value < least:
        wanted = "a positive integer" if least == 1 else f"an integer, {least} or more"
        raise ConfigError(f"{name} is {value!r:.80}: it must be {wanted}")
    return int(value)


def check_size(where: str, **sizes: Any) -> None:
    """Refuse sizes that are not positive integers, before anything is allocated."""
    for name, size in sizes.items():
        check_integer(f"{where}: {name}", size)


def check_number(name: str, value: Any, *, most: float = math.inf, below: float = math.inf) -> float:
    """`value`, if it is a finite number from 0 to `most`, and less than `below`."""
    number = math.nan
    if is_number(value):
        with suppress(OverflowError):  # an integer of more than 308 digits
            number = float(value)
    if not 0 <= number <= most or not number < below:
        wanted = f"a number from 0 to {min(most, below)}"
        if below <= most:
            wanted = "a finite number, 0 or more" if below == math.inf else f"{wanted}, {below} excluded"
        raise ConfigError(f"{name} is {value!r:.80}: it must be {wanted}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r:.80}: it must be True or False")
    return value


def check_options(where: str, given: Iterable[str], options: Any) -> None:
    """Refuse a name that is no field of the dataclass `options`, and say which one is nearest."""
    known = [option.name for option in fields(options)]
    for name in given:
        if name not in known:
            raise ConfigError(f"{where} has no option {name!r:.80}{did_you_mean(name, known)}")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """` (did you mean top_k?)`, or nothing where no word is near."""
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def byte_size(n: int) -> str:
    """`621.83 MiB`: each unit is 1024 of the one before, as the book counts."""
    if n < 1024:
        return f"{n:,} bytes"
    power = min((n.bit_length() - 1) // 10, 4)
    if power == 4 and n >> 60:
        return f"{n >> 40:,} TiB"  # in integers: there is no float of 400 digits
    return f"{n / 1024**power:,.2f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
