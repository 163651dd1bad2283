"""From a text file to batches of inputs and targets: reading, splitting, sliding windows, loading.

    text = read_text("story.txt")
    train_text, val_text = train_val_split(text, ratio=0.9)
    dataset = SlidingWindowDataset(tokenizer.encode(train_text), context_length=256, stride=256)
    for inputs, targets in DataLoader(dataset, batch_size=2):     # (B, T), (B, T)
        ...

Shapes: B batch, T context length, N tokens.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from encodings.aliases import aliases
from pathlib import Path
from typing import Protocol

import numpy as np

from ..checks import check_integer, did_you_mean
from ..errors import ConfigError, DataError
from ..rng import Generator, get_generator

Sample = tuple[np.ndarray, np.ndarray]


def check_encoding(encoding: str) -> None:
    """ConfigError for a name that is not that of a text encoding of Python's, with the nearest one."""
    try:
        "".encode(encoding)  # which refuses codecs that are not of text
    except (LookupError, UnicodeError, TypeError, ValueError):
        near = did_you_mean(str(encoding), sorted({*aliases, *aliases.values()}))
        raise ConfigError(
            f"encoding is {encoding!r:.80}: not one that Python knows, such as utf-8, gbk or big5{near}"
        ) from None


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The text of a file, as Python's text mode gives it: line ends "\\r\\n" and "\\r" become "\\n".

    A byte-order mark at the start is dropped; nothing else is changed. DataError with the path, and the byte where the
    file is not in this encoding.
    """
    check_encoding(encoding)
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a folder has no text, a pipe or a device may have no end
            raise DataError(f"{path}: not a regular file")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        what = "UTF-8" if encoding.lower() == "utf-8" else encoding
        raise DataError(
            f"{path}: not {what}: byte 0x{data[error.start]:02x} at offset {error.start} ({error.reason}): "
            "convert the file to UTF-8, or say its encoding (--encoding gbk)"
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        raise DataError(f"{path}: empty")
    return text


def train_val_split(text: str, ratio: float = 0.9) -> tuple[str, str]:
    """Cut `text` at the character int(ratio * len(text)): the first part to train on, the second to validate with."""
    if not 0 < ratio < 1:
        raise ConfigError(f"ratio={ratio!r}: must lie between 0 and 1, for example 0.9")
    split = int(ratio * len(text))
    if not 0 < split < len(text):
        raise DataError(f"a text of {len(text)} characters cut at {ratio} leaves one part empty: use a longer text")
    return text[:split], text[split:]


class SlidingWindowDataset:
    """Windows of `context_length` tokens, one every `stride` tokens, and for each place in them the token that follows.

    dataset[i] -> inputs, targets, each int64 (T,), with targets[t] the token after inputs[t]. They are read-only views
    of one array. Tokens after the last whole window are left out. Without `stride` windows touch but do not overlap.
    ConfigError for sizes below 1; DataError for ids that are no ids and for fewer than context_length + 1 of them.
    """

    def __init__(self, ids: Sequence[int] | np.ndarray, context_length: int, stride: int | None = None) -> None:
        self.context_length = check_integer("context_length", context_length)
        self.stride = check_integer("stride", context_length if stride is None else stride)
        array = np.asarray(ids)
        if array.size <= context_length:
            raise DataError(
                f"{array.size} tokens: context_length={context_length} needs at least {context_length + 1}; "
                "use a longer text or a smaller context_length"
            )
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DataError(f"ids must be one row of integers, not {array.dtype} of shape {array.shape}")
        if array.min() < 0:
            raise DataError(f"position {array.argmin()}: {array.min()} is not a token id")
        windows = np.lib.stride_tricks.sliding_window_view(array.astype(np.int64), context_length + 1)  # (N - T, T + 1)
        self._windows = windows[:: self.stride]

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, i: int) -> Sample:
        window = self._windows[operator.index(i)]  # (T + 1,)
        return window[:-1], window[1:]  # (T,), (T,)


@dataclass(frozen=True)
class Subset:
    """The samples of a dataset at these of its indices."""

    dataset: Dataset
    indices: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Sample:
        return self.dataset[self.indices[i]]


class Dataset(Protocol):
    """What a DataLoader needs: a length, and pairs of arrays by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Sample: ...


class DataLoader:
    """Batches of a dataset: each pass yields inputs, targets, both (B, T), in a new order if `shuffle`.

    The order comes from `rng`, else from the current generator (`tg.manual_seed`), and is the one PyTorch's DataLoader
    draws. With `drop_last` a last batch that is not full is left out. len(loader) is the number of batches of a pass.
    ConfigError when there would be none.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = True,
        rng: Generator | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = check_integer("batch_size", batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rng = rng
        if len(self) == 0:
            raise ConfigError(
                f"batch_size={batch_size} with drop_last=True leaves no batch of {len(dataset)} samples: "
                "use a smaller batch_size, more data, or drop_last=False"
            )

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.dataset) // self.batch_size
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[Sample]:
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = (get_generator() if self.rng is None else self.rng).shuffle_order(len(order))
        for k in range(len(self)):
            batch = order[k * self.batch_size : (k + 1) * self.batch_size]  # (B,)
            inputs, targets = zip(*(self.dataset[i] for i in batch), strict=True)
            yield np.stack(inputs), np.stack(targets)  # (B, T), (B, T)
