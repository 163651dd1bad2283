"""What the JSON files of a run must hold: tables of fields and their checks, and one line that names the file and the field.

A run may come from anybody: nothing in its files is believed before it was looked at. A check takes the name of a field and its
value, and raises ConfigError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checks import check_flag, check_integer, did_you_mean, is_number
from ..errors import ConfigError, CorruptCheckpoint, StateDictError

Check = Callable[[str, Any], object]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, what cannot be is a CorruptCheckpoint that begins with the file."""
    try:
        yield
    except (ConfigError, StateDictError) as error:
        raise CorruptCheckpoint(f"{path}: {error}") from error
    except RecursionError as error:  # of `repr`
        raise CorruptCheckpoint(f"{path}: lists or objects are nested too deeply") from error


a_flag = check_flag


def a_count(name: str, value: Any) -> None:
    check_integer(name, value, least=0)


def a_number(name: str, value: Any) -> None:
    """A finite number."""
    if not is_number(value) or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r:.80}: it must be a finite number")


def a_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r:.80}: it must be text")


def an_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r:.80}: it must be an object")


def list_of(check: Check) -> Check:
    def check_list(name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise ConfigError(f"{name} is {value!r:.80}: it must be a list")
        for i, each in enumerate(value):
            check(f"{name}[{i}]", each)

    return check_list


def unless(nothing: Any, check: Check) -> Check:
    """What stands for nothing, or else what the check lets pass."""

    def check_others(name: str, value: Any) -> None:
        if value != nothing:
            check(name, value)

    return check_others


def an_object_of(
    needed: Mapping[str, Check], possible: Mapping[str, Check] | None = None, others: bool = False
) -> Check:
    """An object that has all that is `needed`, and besides only what is `possible`, or any `others`. Without a name it is the
    whole file."""
    checks = {**needed, **(possible or {})}

    def check_fields(name: str, value: Any) -> None:
        an_object(name, value)
        if missing := needed.keys() - value.keys():
            raise ConfigError(f"{name} has no {min(missing)!r}".lstrip())
        if not others and (unknown := value.keys() - checks.keys()):
            stranger = min(unknown)
            raise ConfigError(f"{name} has an unknown {stranger!r:.80}{did_you_mean(stranger, checks)}".lstrip())
        for field, check in checks.items():
            if field in value:
                check(f"{name}.{field}".lstrip("."), value[field])

    return check_fields
