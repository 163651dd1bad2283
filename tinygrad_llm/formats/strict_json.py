"""JSON from files of others: the same key twice, NaN, numbers of a thousand digits and endless nesting are refused."""

from __future__ import annotations

import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, CorruptCheckpoint

MAX_BYTES = 100_000_000  # of one JSON text: the limit that the safetensors library sets for headers


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """The object that `data` is. CorruptCheckpoint, beginning with `what`, names the defect."""
    if not data.startswith(b"{"):
        raise CorruptCheckpoint(f"{what}: begins with {data[:8]!r}: it must be a JSON object and begin with {{")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint(f"{what}: not UTF-8 at byte {error.start}") from None
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_refuse
        )
    except RecursionError:
        raise CorruptCheckpoint(f"{what}: lists or objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise CorruptCheckpoint(f"{what}: not JSON at byte {len(text[: error.pos].encode())}: {error.msg}") from None
    except _Refused as error:
        raise CorruptCheckpoint(f"{what}: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. CheckpointError if it cannot be read, CorruptCheckpoint if it is not an object."""
    check_is_file(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CorruptCheckpoint(f"{path}: {path.stat().st_size:,} bytes of JSON: more than {MAX_BYTES:,}")
        return parse_json(path.read_bytes().lstrip(b" \t\r\n"), str(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_is_file(path: Path) -> None:
    """CheckpointError unless there is a file: opening a pipe would wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not there") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise CheckpointError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: {'a folder' if stat.S_ISDIR(mode) else 'a device or pipe'}, not a file")


class _Refused(Exception):
    """Raised inside the parser, which lets it through."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise _Refused(f"the key {ascii(twice)[:80]} stands there twice")
    return made


def _integer(digits: str) -> int | str:
    # What is too long to be a size is left as text, for whoever checks the field.
    return int(digits) if len(digits) < 30 else digits


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _Refused(f"{digits[:80]} is too large for a number")
    return number


def _refuse(word: str) -> None:
    raise _Refused(f"{word} is not JSON")
