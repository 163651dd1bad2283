"""Files in the safetensors format: 8 bytes that say how long the header is, a header in JSON, then the numbers of all tensors.

    {"__metadata__": {"format": "pt"}, "wte.weight": {"dtype": "BF16", "shape": [50257, 768], "data_offsets": [0, 77194752]}, ...}

The header is believed only when it is beyond doubt: every byte of the data belongs to one tensor, whose shape and type give
its length. The `safetensors` library maps files into memory, where a file cut short by somebody else kills the process that
reads it, and copies all arrays before it writes them; so bytes are read and written here, and the tests hold them against
the library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint, DTypeError
from .source import TensorInfo, TensorSource, printable, widen_bfloat16
from .strict_json import MAX_BYTES, check_is_file, parse_json

# name -> (bytes of a number, how its bytes are read)
_DTYPES = {
    "F64": (8, "<f8"),
    "F32": (4, "<f4"),
    "F16": (2, "<f2"),
    "BF16": (2, "<u2"),
    "F8_E4M3": (1, "u1"),
    "F8_E5M2": (1, "u1"),
    "I64": (8, "<i8"),
    "I32": (4, "<i4"),
    "I16": (2, "<i2"),
    "I8": (1, "i1"),
    "U64": (8, "<u8"),
    "U32": (4, "<u4"),
    "U16": (2, "<u2"),
    "U8": (1, "u1"),
    "BOOL": (1, "u1"),
}
_FIELDS = {"dtype", "shape", "data_offsets"}
_MAX_NAME = 1000  # characters; PyTorch's longest names have about a hundred
_MAX_AXES = 64  # NumPy's limit


class SafetensorsFile(TensorSource):
    """One .safetensors file. CorruptCheckpoint says what is wrong with its header, before any number is read."""

    form = "safetensors"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_is_file(self.path)
        try:
            self._file = self.path.open("rb", buffering=0)
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        try:
            header, self._start = self._read_header(size)
            metadata = header.pop("__metadata__", {})
            self.metadata: dict[str, str] = _check_metadata(metadata, self.path)
            self.infos: dict[str, TensorInfo] = {}
            self._offsets: dict[str, int] = {}
            for name, entry in header.items():
                try:
                    self._offsets[name], self.infos[name] = _check_entry(name, entry, size - self._start, self.path)
                except CorruptCheckpoint as error:
                    raise CorruptCheckpoint(f"{self.path}: {printable(name)}: {error}") from None
            self._check_ranges(size - self._start)
        except BaseException:
            self.close()
            raise

    def _read_header(self, size: int) -> tuple[dict[str, Any], int]:
        if size < 8:
            raise CorruptCheckpoint(
                f"{self.path}: header too small: the file has {size} bytes, of the first 8 at least"
            )
        n_bytes = int.from_bytes(self._read_at(0, 8).tobytes(), "little")
        if n_bytes > MAX_BYTES:
            raise CorruptCheckpoint(
                f"{self.path}: header too large: {n_bytes:,} bytes, at most {MAX_BYTES:,} are allowed: another form?"
            )
        if n_bytes > size - 8:
            raise CorruptCheckpoint(f"{self.path}: header of {n_bytes:,} bytes in a file of {size:,}: cut off?")
        if n_bytes < 2:
            raise CorruptCheckpoint(f"{self.path}: header too small: {n_bytes} bytes, {{}} has 2")
        header = parse_json(self._read_at(8, n_bytes).tobytes(), f"{self.path}: header")
        return header, 8 + n_bytes

    def _check_ranges(self, n_bytes: int) -> None:
        """One tensor after the other, with nothing between them, up to the last byte."""
        end, before = 0, None
        order = sorted(self._offsets, key=lambda name: (self._offsets[name], self.infos[name].n_bytes))
        for name in order:
            begin = self._offsets[name]
            if begin != end:
                what = (
                    f"{begin - end:,} bytes belong to nobody" if begin > end else f"{end - begin:,} bytes are in both"
                )
                raise CorruptCheckpoint(
                    f"{self.path}: data_offsets: between {_or_start(before)} and {printable(name)} {what}"
                )
            end, before = begin + self.infos[name].n_bytes, name
        if end != n_bytes:
            raise CorruptCheckpoint(
                f"{self.path}: {n_bytes - end:,} bytes after {_or_start(before)} belong to no tensor"
            )

    def read(self, name: str) -> np.ndarray:
        info = self.infos[name]
        raw = self._read_at(self._start + self._offsets[name], info.n_bytes)
        return widen(raw.view(_DTYPES[info.dtype][1]), info.dtype).reshape(info.shape)

    def _read_at(self, position: int, n_bytes: int) -> np.ndarray:
        """Bytes of the file, copied: a file that has become shorter is an error here and no fault of memory."""
        data = np.empty(n_bytes, np.uint8)
        view, done = data.data, 0
        try:
            self._file.seek(position)
            while done < n_bytes:
                n = self._file.readinto(view[done : done + 2**30])
                if not n:
                    raise CorruptCheckpoint(
                        f"{self.path}: ended {n_bytes - done:,} bytes early: changed while it was read"
                    )
                done += n
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        return data

    def close(self) -> None:
        self._file.close()


def widen(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of a file as NumPy can hold them; each is kept exactly. `numbers` as the table above reads them."""
    if dtype == "BF16":
        return widen_bfloat16(numbers)
    if dtype == "F8_E5M2":  # the upper half of a float16
        numbers = (numbers.astype(np.uint16) << 8).view(np.float16)
    if numbers.dtype.itemsize == 2 and numbers.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # some NaN are "signalling"
            return numbers.astype(np.float32)
    if dtype == "F8_E4M3":
        return _FLOAT8_E4M3[numbers]
    if dtype == "BOOL":
        return numbers != 0
    return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)


def _float8_e4m3() -> np.ndarray:
    """The 256 numbers of one sign bit, 4 of exponent (bias 7) and 3 of mantissa, without infinities (Micikevicius 2022 §3)."""
    exponent, mantissa = np.divmod(np.arange(128), 8)
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    size[127] = np.nan
    return np.concatenate([size, -size]).astype(np.float32)


_FLOAT8_E4M3 = _float8_e4m3()


def _check_metadata(metadata: Any, path: Path) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CorruptCheckpoint(f"{path}: __metadata__ must map words to words")
    return metadata


def _check_entry(name: str, entry: Any, n_bytes: int, path: Path) -> tuple[int, TensorInfo]:
    """Where a tensor begins, and what it is."""
    if len(name) > _MAX_NAME:
        raise CorruptCheckpoint(f"a name of {len(name):,} characters, at most {_MAX_NAME:,} are allowed")
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        raise CorruptCheckpoint("half a character (a lone surrogate) in a name")
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise CorruptCheckpoint(f"must have dtype, shape and data_offsets, and has {_keys(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CorruptCheckpoint(f"dtype is {dtype!r:.40}: readable are {', '.join(_DTYPES)}")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES:
        raise CorruptCheckpoint(f"shape is {shape!r:.80}: it must be a list of at most {_MAX_AXES} sizes")
    size = _DTYPES[dtype][0]
    for axis, length in enumerate(shape):
        if type(length) is not int or length < 0:
            raise CorruptCheckpoint(f"shape[{axis}] is {length!r:.40}: it must be an integer of 0 or more")
        size *= length
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise CorruptCheckpoint(f"data_offsets is {offsets!r:.80}: it must be [begin, end]")
    for i, offset in enumerate(offsets):
        if type(offset) is not int or offset < 0:
            raise CorruptCheckpoint(f"data_offsets[{i}] is {offset!r:.40}: it must be an integer of 0 or more")
    begin, end = offsets
    if end < begin:
        raise CorruptCheckpoint(f"data_offsets {offsets}: it ends before it begins")
    if end > n_bytes:
        raise CorruptCheckpoint(f"data_offsets {offsets}: beyond the {n_bytes:,} bytes of data: cut off?")
    if end - begin != size:
        raise CorruptCheckpoint(
            f"{shape!r:.80} of {dtype} takes {size:,} bytes, data_offsets {offsets} has {end - begin:,}"
        )
    return begin, TensorInfo(dtype, tuple(shape), size, path)


def _or_start(name: str | None) -> str:
    return "the beginning" if name is None else printable(name)


def _keys(entry: Any) -> str:
    return ascii(list(entry))[:80] if isinstance(entry, dict) else f"{entry!r:.40}"


# ---- writing

_WRITTEN = {"float32": "F32", "float64": "F64", "int64": "I64"}


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
        header[name] = {
            "dtype": _WRITTEN[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + plain.nbytes],
        }
        parts.append(plain.reshape(-1).view(np.uint8).data)
        offset += plain.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return [len(text).to_bytes(8, "little") + text, *parts]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Name -> array. CorruptCheckpoint for a file that is not whole, CheckpointError for one that cannot be read."""
    if not path.exists():
        raise CorruptCheckpoint(f"{path}: missing")
    with SafetensorsFile(path) as file:
        return {name: file.read(name) for name in file.infos}
