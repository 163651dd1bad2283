"""Event files that TensorBoard reads, written without TensorFlow: `tinygrad-llm pretrain --tensorboard`, then
`tensorboard --logdir runs`.

An event file is a row of records: length (uint64), its checksum (uint32), the event, its checksum (uint32), all little-endian.
The checksum is CRC-32C (RFC 3720 §12.1), masked as TensorFlow's record_writer.cc does. An event is a protocol buffer, whose
fields are numbered as in TensorFlow's event.proto, summary.proto and tensor.proto.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import append
from .loggers import Logger

_EVENTS, _DIGITS = "events.out.tfevents.{}.tinygrad_llm", "[0-9]" * 10


def has_events(folder: str | os.PathLike[str]) -> bool:
    """Whether this run has been logged for TensorBoard."""
    return any(Path(folder).glob(_EVENTS.format(_DIGITS)))


class TensorBoard(Logger):
    """Losses and learning rate as curves, options and samples as text, in a file beside those of the run.

    A run that is resumed goes on in another file, which begins by taking back what was logged of later steps.
    """

    def start(self, folder: Path, config: dict[str, Any], step: int) -> None:
        self._path = _next_file(folder)
        self._write(0, string(3, "brain.Event:2"))
        self._write(step + 1 if step else 0, message(7, varint(1, 1)))  # SessionLog.START: later steps are void
        options = "\n".join(f"    {name}: {json.dumps(value)}" for name, value in config.get("training", {}).items())
        self._write(step, markdown("options", options))

    def log_step(self, step: int, loss: float, lr: float) -> None:
        self._write(step, scalars({"loss/batch": loss, "lr": lr}))

    def log_evaluation(self, row: Mapping[str, float]) -> None:
        losses = {"loss/training": row["train_loss"], "loss/validation": row["val_loss"]}
        self._write(int(row["step"]), scalars(losses))

    def log_sample(self, step: int, text: str) -> None:
        self._write(step, markdown("sample", "\n".join("    " + line for line in text.splitlines())))

    def _write(self, step: int, what: bytes) -> None:
        append(self._path, record(event(time.time(), step, what)))


def _next_file(folder: Path) -> Path:
    """A name after all those there are: TensorBoard reads the files of a folder in the order of their names."""
    seconds = [int(path.name.split(".")[3]) for path in folder.glob(_EVENTS.format(_DIGITS))]
    return folder / _EVENTS.format(f"{max([int(time.time()), *(n + 1 for n in seconds)]):010d}")


# ---- events: the fields of what is logged


def event(wall_time: float, step: int, what: bytes) -> bytes:
    """An event at a time (seconds since 1970) and a step; `what` is its one other field."""
    return double(1, wall_time) + varint(2, step) + what


def scalars(values: Mapping[str, float]) -> bytes:
    """The field of an event that puts one number (kept as float32) on each curve."""
    return message(5, b"".join(message(1, string(1, tag) + float32(2, value)) for tag, value in values.items()))


def markdown(tag: str, text: str) -> bytes:
    """The field of an event that shows a text."""
    plugin = message(9, message(1, string(1, "text")))
    tensor = message(8, varint(1, 7) + message(2, b"") + string(8, text))  # DT_STRING, no axes
    return message(5, message(1, string(1, tag) + tensor + plugin))


# ---- protocol buffers: a field is its number and kind, then its value


def varint(field: int, value: int) -> bytes:
    """A whole number from 0 on; 0 is the default, and left out."""
    return _base128(field << 3) + _base128(value) if value else b""


def double(field: int, value: float) -> bytes:
    return _base128(field << 3 | 1) + struct.pack("<d", value)


def float32(field: int, value: float) -> bytes:
    return _base128(field << 3 | 5) + struct.pack("<f", value)


def string(field: int, value: str) -> bytes:
    return message(field, value.encode())


def message(field: int, content: bytes) -> bytes:
    return _base128(field << 3 | 2) + _base128(len(content)) + content


def _base128(n: int) -> bytes:
    """Seven bits to a byte, the lowest first; the eighth says that more follow."""
    low = n & 127
    return bytes([low]) if n < 128 else bytes([low | 128]) + _base128(n >> 7)


# ---- records


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return b"".join((length, struct.pack("<I", _masked(length)), content, struct.pack("<I", _masked(content))))


def crc32c(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(content: bytes) -> int:
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, its bits reversed
    return byte


_TABLE = [_remainder(byte) for byte in range(256)]
