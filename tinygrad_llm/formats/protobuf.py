"""The wire form of Protocol Buffers, in which SentencePiece keeps its models: a message is numbered fields, one after the other.

Each begins with the number 8 * field + kind as a varint: seven bits to a byte, the lowest first. Kind 0 is a varint, 1 eight
bytes, 5 four bytes, and 2 a varint n with n bytes after it: a text, or again a message.
(https://protobuf.dev/programming-guides/encoding/)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import CorruptCheckpoint

_FIXED = {1: 8, 5: 4}


class Field(NamedTuple):
    """A field of a message, as it is stored: what its bytes mean is for the reader to know."""

    number: int
    value: int | bytes  # a varint, or the bytes of any other kind
    start: int  # where it begins in the message


def read_fields(message: bytes) -> Iterator[Field]:
    """The fields of a message in their order. CorruptCheckpoint, naming the byte, where there is none."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (0, 1, 2, 5):
            raise CorruptCheckpoint(f"byte {start:,}: field {number} of kind {kind}: there is no such field")
        if kind == 0:
            value, at = _varint(message, at)
            yield Field(number, value, start)
            continue
        n, at = (_FIXED[kind], at) if kind in _FIXED else _varint(message, at)
        if n > len(message) - at:
            raise CorruptCheckpoint(f"byte {start:,}: field {number} takes {n:,} bytes, {len(message) - at:,} are left")
        yield Field(number, message[at : at + n], start)
        at += n


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a byte, and where it ends."""
    number = 0
    for i, byte in enumerate(message[at : at + 10]):  # 64 bits take ten bytes at most
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return number, at + i + 1
    raise CorruptCheckpoint(f"byte {at:,}: a number that does not end")
