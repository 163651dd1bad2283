"""Files in the safetensors format: 8 bytes that say how long the header is, a header in JSON, then the numbers of all tensors.

    {"__metadata__": {"format": "pt"}, "wte.weight": {"dtype": "BF16", "shape": [50257, 768], "data_offsets": [0, 77194752]}, ...}

The header is believed only when it is beyond doubt: every byte of the data belongs to one tensor, whose shape and type give
its length. Of the library `safetensors` (0.8), which the tests hold this against: without PyTorch it cannot read bfloat16, of
two tensors with one name it takes the last, and it maps the file into memory, where somebody else who cuts the file short
kills the process that reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptCheckpoint, DTypeError
from .source import HeadedFile, TensorInfo, printable, read_at, stored_dtype, widen
from .strict_json import MAX_BYTES, parse_json

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"}
_DTYPES |= {
    f"{kind}{bits}": f"{name}{bits}" for kind, name in (("I", "int"), ("U", "uint")) for bits in (64, 32, 16, 8)
}
_SIZES = {dtype: stored_dtype(name).itemsize for dtype, name in _DTYPES.items()}
_WRITTEN = {"float32": "F32", "float64": "F64", "int64": "I64"}
_FIELDS = {"dtype", "shape", "data_offsets"}
_MAX_NAME = 1000  # characters; PyTorch's longest names have about a hundred
_MAX_AXES = 64  # NumPy's limit


class SafetensorsFile(HeadedFile):
    """One .safetensors file. CorruptCheckpoint says what is wrong with its header, before any number is read."""

    form = "safetensors"

    def _read_header(self, size: int) -> None:
        if size < 8:
            raise CorruptCheckpoint(f"header too small: the file has {size} bytes, of the first 8 at least")
        n_bytes = int.from_bytes(read_at(self._file, 0, 8).tobytes(), "little")
        if n_bytes > MAX_BYTES:
            raise CorruptCheckpoint(
                f"header too large: {n_bytes:,} bytes, at most {MAX_BYTES:,} are allowed: another form?"
            )
        if n_bytes > size - 8:
            raise CorruptCheckpoint(f"header of {n_bytes:,} bytes in a file of {size:,}: cut off?")
        if n_bytes < 2:
            raise CorruptCheckpoint(f"header too small: {n_bytes} bytes, {{}} has 2")
        header = parse_json(read_at(self._file, 8, n_bytes).tobytes(), "header")
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict) or not all(isinstance(word, str) for word in self.metadata.values()):
            raise CorruptCheckpoint("__metadata__ must map words to words")
        for name, entry in header.items():
            try:
                begin, self.infos[name] = _check_entry(name, entry, size - 8 - n_bytes, self.path)
            except CorruptCheckpoint as error:
                raise CorruptCheckpoint(f"{printable(name)}: {error}") from None
            self._begins[name] = 8 + n_bytes + begin
        self._check_ranges(8 + n_bytes, size)

    def _check_ranges(self, end: int, size: int) -> None:
        """One tensor after the other from `end` of the header on, with nothing between them, up to the last byte."""
        before = "the beginning"
        for name in sorted(self.infos, key=lambda name: (self._begins[name], self.infos[name].n_bytes)):
            if gap := self._begins[name] - end:
                what = "belong to nobody" if gap > 0 else "are in both"
                raise CorruptCheckpoint(
                    f"data_offsets: between {before} and {printable(name)} {abs(gap):,} bytes {what}"
                )
            end, before = end + self.infos[name].n_bytes, printable(name)
        if end != size:
            raise CorruptCheckpoint(f"{size - end:,} bytes after {before} belong to no tensor")

    def read(self, name: str) -> np.ndarray:
        dtype = _DTYPES[self.infos[name].dtype]
        return widen(self._bytes_of(name).view(stored_dtype(dtype)), dtype).reshape(self.infos[name].shape)


def _check_entry(name: str, entry: Any, n_bytes: int, path: Path) -> tuple[int, TensorInfo]:
    """Where in the data a tensor begins, and what it is."""
    if len(name) > _MAX_NAME:
        raise CorruptCheckpoint(f"a name of {len(name):,} characters, at most {_MAX_NAME:,} are allowed")
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise CorruptCheckpoint("half a character (a lone surrogate) in a name")
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        has = ascii(list(entry) if isinstance(entry, dict) else entry)
        raise CorruptCheckpoint(f"must have dtype, shape and data_offsets, and has {has:.80}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CorruptCheckpoint(f"dtype is {dtype!r:.40}: readable are {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise CorruptCheckpoint(f"shape is {shape!r:.80}: it must be a list of at most {_MAX_AXES} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise CorruptCheckpoint(f"data_offsets is {offsets!r:.80}: it must be [begin, end]")
    for field in ("shape", "data_offsets"):
        for i, n in enumerate(entry[field]):
            if type(n) is not int or n < 0:
                raise CorruptCheckpoint(f"{field}[{i}] is {n!r:.40}: it must be an integer of 0 or more")
    size, (begin, end) = math.prod(shape) * _SIZES[dtype], offsets
    if end < begin:
        raise CorruptCheckpoint(f"data_offsets {offsets}: it ends before it begins")
    if end > n_bytes:
        raise CorruptCheckpoint(f"data_offsets {offsets}: beyond the {n_bytes:,} bytes of data: cut off?")
    if end - begin != size:
        raise CorruptCheckpoint(
            f"{shape!r:.80} of {dtype} takes {size:,} bytes, data_offsets {offsets} has {end - begin:,}"
        )
    return begin, TensorInfo(dtype, tuple(shape), size, path)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Name -> array. CorruptCheckpoint for a file that is not whole, CheckpointError for one that cannot be read."""
    if not path.exists():
        raise CorruptCheckpoint(f"{path}: missing")
    with SafetensorsFile(path) as file:
        return {name: file.read(name) for name in file.infos}


def encode_arrays(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """What to write one after the other: the header, and the bytes of each array. DTypeError for a dtype of other things."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    parts, offset = [], 0
    for name, array in arrays.items():
        if array.dtype.name not in _WRITTEN:
            raise DTypeError(f"{name} is {array.dtype}: files are written of {', '.join(_WRITTEN)}")
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        offsets = [offset, offset + plain.nbytes]
        header[name] = {"dtype": _WRITTEN[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        parts.append(plain.reshape(-1).view(np.uint8).data)
        offset += plain.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return [len(text).to_bytes(8, "little") + text, *parts]
