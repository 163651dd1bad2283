"""What every reader of checkpoints offers: the names, types and shapes of all tensors before any number is read, then one
tensor at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

Self = TypeVar("Self", bound="TensorSource")  # typing.Self came with Python 3.11


@dataclass(frozen=True)
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

    form: str  # "safetensors", "PyTorch", "TensorFlow": for people
    path: Path  # as it was given
    infos: Mapping[str, TensorInfo]  # name -> info, in the order of the file
    metadata: Mapping[str, Any]  # what else the file holds, as plain values: sizes, texts

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


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 from the 16 bits of each bfloat16 (uint16): they are the upper half of the same number in float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def printable(name: str, width: int = 80) -> str:
    """A name from a file, safe for a terminal: in quotes, escaped and cut."""
    shown = ascii(name[: width + 1])
    return shown if len(name) <= width else f"{shown[:width]}...' ({len(name):,} characters)"
