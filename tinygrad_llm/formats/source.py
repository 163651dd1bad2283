"""What every reader of checkpoints offers: the names, types and shapes of all tensors before any number is read, then one
tensor at a time.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint
from .strict_json import check_is_file

Self = TypeVar("Self", bound="TensorSource")  # typing.Self came with Python 3.11


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a checkpoint says of a tensor. `dtype` is the file's own word ("BF16"), `file` is where the numbers are."""

    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    file: Path


class TensorSource(ABC):
    """An opened checkpoint of one file or several. Opening checks all that can be checked without reading numbers.

    CorruptCheckpoint for contents that contradict themselves, UnsafeFile for what could run code or leads out of the
    checkpoint's folder, CheckpointError for a file that cannot be read.
    """

    form: str  # "safetensors", "PyTorch", "TensorFlow", "llama2.c", "rwkv.cpp": for people
    complete: bool = False  # the metadata says all about the model: what stands beside the file is of something else
    path: Path  # as it was given
    infos: Mapping[str, TensorInfo]  # name -> info, in the order of the file
    metadata: Mapping[str, Any]  # what else the file holds, as plain values: sizes, texts

    @property
    def folder(self) -> Path:
        """Where the checkpoint and its configuration are."""
        return self.path if self.path.is_dir() else self.path.parent

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """The numbers of a tensor: a new C-contiguous, writable array in the machine's byte order, of the dtype of the file.

        Types that NumPy lacks and float16 come as float32, which holds each of their numbers exactly.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the files."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class HeadedFile(TensorSource):
    """A file that begins with a header, after which the numbers of each tensor lie in one piece. A subclass reads the header."""

    _file: BinaryIO

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.infos: dict[str, TensorInfo] = {}
        self._begins: dict[str, int] = {}  # where each tensor's numbers are in the file
        check_is_file(self.path)
        try:
            self._file = self.path.open("rb", buffering=0)  # type: ignore[assignment]
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        try:
            self._read_header(size)
        except BaseException as error:
            self.close()
            if isinstance(error, CheckpointError):
                raise type(error)(f"{self.path}: {error}") from None
            raise

    @abstractmethod
    def _read_header(self, size: int) -> None:
        """Fill in `infos`, `metadata` and `_begins` of a file of so many bytes."""

    def _bytes_of(self, name: str) -> np.ndarray:
        """The numbers of a tensor as they lie in the file, (n_bytes,) uint8."""
        try:
            return read_at(self._file, self._begins[name], self.infos[name].n_bytes)
        except CheckpointError as error:
            raise type(error)(f"{self.path}: {error}") from None

    def close(self) -> None:
        self._file.close()


def printable(name: str, width: int = 80) -> str:
    """A name from a file, safe for a terminal: in quotes, escaped and cut."""
    shown = ascii(name[: width + 1])
    return shown if len(name) <= width else f"{shown[:width]}...' ({len(name):,} characters)"


def read_at(file: BinaryIO, position: int, n_bytes: int) -> np.ndarray:
    """(n_bytes,), uint8: bytes of an unbuffered file, copied: one that has become shorter is an error, and no fault of memory."""
    data, done = np.empty(n_bytes, np.uint8), 0
    try:
        file.seek(position)
        while n := file.readinto(data.data[done:]):  # type: ignore[attr-defined]
            done += n
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
    if done < n_bytes:
        raise CorruptCheckpoint(f"ended {n_bytes - done:,} bytes early: changed while it was read")
    return data


def stored_dtype(name: str, byteorder: Literal["<", ">"] = "<") -> np.dtype:
    """How the numbers of a type, by NumPy's name or "bfloat16", lie in a file."""
    return np.dtype({"bfloat16": "uint16", "bool": "uint8"}.get(name, name)).newbyteorder(byteorder)


def widen(stored: np.ndarray, name: str) -> np.ndarray:
    """What `TensorSource.read` gives, from an array of `stored_dtype(name)`; no copy where there is nothing to change."""
    if name == "bfloat16":  # the upper half of the same number in float32
        wide = stored.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    with np.errstate(invalid="ignore"):  # some NaN of float16 are "signalling"
        return stored.astype({"float16": "float32"}.get(name, name), copy=False)


def check_shape(shape: tuple[int, ...], itemsize: int) -> int:
    """How many bytes an array takes that NumPy can make; CorruptCheckpoint if it cannot."""
    if len(shape) > 32 or any(n < 0 for n in shape) or math.prod(max(n, 1) for n in shape) * itemsize >= 1 << 63:
        raise CorruptCheckpoint(
            f"{len(shape)} sizes, {str(list(shape[:8]))[1:-1]}{', ...' * (len(shape) > 8)}: no array has these"
        )
    return math.prod(shape) * itemsize
