"""TensorFlow's checkpoints ("tensor bundles", version 2 of tf.train.Saver), in which OpenAI published GPT-2.

    checkpoint                        text: which of several checkpoints is the newest
    model.ckpt.index                  a table (table.py): the name of each tensor -> its type, shape and place
    model.ckpt.data-00000-of-00001    the numbers, one tensor after another; there may be several such files
    model.ckpt.meta                   the graph of operations, which is not read

The values of the table are protocol buffers, BundleEntryProto of tensorflow/core/protobuf/tensor_bundle.proto; the key "" has
a BundleHeaderProto. The checksum of each tensor is compared when it is read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint, UnsafeFile
from .crc32c import masked_crc32c
from .source import TensorInfo, TensorSource, check_shape, printable, stored_dtype, widen
from .strict_json import check_is_file
from .table import read_table, read_varint

_Fields = dict[int, list[int | bytes]]

_LONGEST_INDEX = 8 << 20  # bytes: some 100,000 tensors
_MOST_FILES = 10_000
_FORMAT = 1  # the version that is read here, the only one so far

# tensorflow/core/framework/types.proto
_TEXT = 7
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    19: "float16",
    22: "uint32",
    23: "uint64",
}


@dataclass(frozen=True)
class _Place:
    """Where the numbers of a tensor are, and the checksum that they have."""

    offset: int
    size: int
    crc: int


class TensorFlowCheckpoint(TensorSource):
    """A checkpoint given as its folder, one of its files, or what their names have in common: "folder/model.ckpt".

    Tensors of text are listed and cannot be read. CheckpointError for variables that were saved in slices.
    """

    form = "TensorFlow"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        index = _find_index(self.path)
        check_is_file(index)
        self.metadata: dict[str, Any] = {}
        self.infos: dict[str, TensorInfo] = {}
        self._places: dict[str, _Place] = {}
        try:
            entries = read_table(_read_index(index))
            shards, self._byteorder = _read_header(entries.pop(b"", None))
            stem = index.name.removesuffix(".index")
            files = [index.with_name(f"{stem}.data-{i:05d}-of-{shards:05d}") for i in range(shards)]
            for key, entry in entries.items():
                self._add(key, _fields(entry), files)
            self._check_files()
        except CheckpointError as error:
            raise type(error)(f"{index}: {error}") from error

    def _add(self, key: bytes, entry: _Fields, files: list[Path]) -> None:
        """One BundleEntryProto: 1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size, 6 crc32c, 7 slices."""
        if key.startswith(b"\0") or entry.get(7):
            raise CheckpointError(
                "holds variables in slices, which are not put together here: load it in TensorFlow and save it again "
                "without a partitioner"
            )
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise CorruptCheckpoint(f"the name {printable(key.decode('latin-1'))} is not UTF-8") from None
        shown = printable(name)
        number, shard, offset, size = (_number(entry, field) for field in (1, 3, 4, 5))
        try:
            shape = _read_shape(entry)
            dtype = _DTYPES.get(number)
            n_bytes = check_shape(shape, stored_dtype(dtype).itemsize) if dtype else size
        except CorruptCheckpoint as error:
            raise CorruptCheckpoint(f"{shown}: {error}") from None
        if n_bytes != size:
            raise CorruptCheckpoint(f"{shown}: {dtype} {shape} takes {n_bytes:,} bytes, but {size:,} are stored")
        if shard >= len(files):
            raise CorruptCheckpoint(f"{shown}: is in file {shard} of {len(files)}")
        word = dtype or ("text" if number == _TEXT else f"type {number}")
        self.infos[name] = TensorInfo(word, shape, size, files[shard])
        self._places[name] = _Place(offset, size, _number(entry, 6))

    def _check_files(self) -> None:
        """Each tensor is inside its file, and no two share a byte."""
        sizes: dict[Path, int] = {}
        ends: dict[Path, int] = {}
        for name, place in sorted(self._places.items(), key=lambda item: item[1].offset):
            file = self.infos[name].file
            if file not in sizes:
                check_is_file(file)
                sizes[file] = file.stat().st_size
            end = place.offset + place.size
            if end > sizes[file]:
                raise CorruptCheckpoint(
                    f"{printable(name)}: is at {place.offset:,} to {end:,} of {file.name}, which has {sizes[file]:,} bytes: "
                    "was it copied to its end?"
                )
            if place.size:
                if place.offset < ends.get(file, 0):
                    raise CorruptCheckpoint(f"{printable(name)}: begins before the tensor in front of it ends")
                ends[file] = end

    def read(self, name: str) -> np.ndarray:
        info, place = self.infos[name], self._places[name]
        if info.dtype not in _DTYPES.values():
            raise CheckpointError(
                f"{info.file}: {printable(name)} holds {info.dtype}, which cannot be read as numbers here"
            )
        raw = np.empty(place.size, np.uint8)
        try:
            with info.file.open("rb") as file:
                file.seek(place.offset)
                n = file.readinto(raw.data)
        except OSError as error:
            raise CheckpointError(f"{info.file}: cannot be read: {error.strerror or error}") from error
        if n != raw.size:
            raise CorruptCheckpoint(f"{info.file}: became shorter while it was read")
        if masked_crc32c(raw) != place.crc:
            raise CorruptCheckpoint(f"{info.file}: {printable(name)} is damaged: its checksum differs")
        return widen(raw.view(stored_dtype(info.dtype, self._byteorder)).reshape(info.shape), info.dtype)

    def close(self) -> None:
        """Nothing to do: the files are open only while a tensor is read."""


def _find_index(path: Path) -> Path:
    """The .index file of what was given. In a folder with several checkpoints it is the one that the file "checkpoint" names."""
    if not path.is_dir():
        stem = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
        return path.with_name(f"{stem}.index")
    try:
        text = (path / "checkpoint").read_bytes()[: 1 << 16].decode()
    except FileNotFoundError:
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            some = f"{len(found)} checkpoints: name one of them, as {found[0]}" if found else "no TensorFlow checkpoint"
            raise CheckpointError(f"{path}: holds {some}") from None
        return found[0]
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise CorruptCheckpoint(f"{path / 'checkpoint'}: not a text") from None
    named = re.search(r'^model_checkpoint_path: "([^"\\\0]+)"', text, re.MULTILINE)
    if not named or not named[1].isprintable():
        raise CorruptCheckpoint(f'{path / "checkpoint"}: has no line model_checkpoint_path: "..."')
    newest = Path(named[1])
    if Path(path, newest).resolve().parent != path.resolve():
        raise UnsafeFile(
            f"{path / 'checkpoint'}: names {printable(str(newest))}, which is not in this folder: if the folder was moved, name "
            "the .index file itself"
        )
    return path / f"{newest.name}.index"


def _read_index(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_INDEX + 1)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
    if len(data) > _LONGEST_INDEX:
        raise CorruptCheckpoint(f"has more than {_LONGEST_INDEX:,} bytes, which no index of a language model has")
    return data


def _read_header(message: bytes | None) -> tuple[int, Literal["<", ">"]]:
    """The number of data files and the order of bytes in them, of a BundleHeaderProto: 1 num_shards, 2 endianness, 3 version."""
    if message is None:
        raise CorruptCheckpoint("has no header: another kind of table")
    header = _fields(message)
    shards = _number(header, 1)
    if not 1 <= shards <= _MOST_FILES:
        raise CorruptCheckpoint(f"counts {shards:,} data files")
    oldest_reader = _number(_fields(_message(header, 3)), 2)
    if oldest_reader > _FORMAT:
        raise CheckpointError(f"is of version {oldest_reader}, newer than {_FORMAT}, which is read here")
    return shards, ">" if _number(header, 2) else "<"


def _read_shape(entry: _Fields) -> tuple[int, ...]:
    """A TensorShapeProto: 2 dim (1 size), 3 unknown_rank."""
    shape = _fields(_message(entry, 2))
    if _number(shape, 3):
        raise CorruptCheckpoint("has no shape")
    sizes = []
    for dim in shape.get(2, ()):
        if not isinstance(dim, bytes):
            raise CorruptCheckpoint("has a number where its shape should be")
        sizes.append(_number(_fields(dim), 1))
    return tuple(sizes)


def _fields(message: bytes) -> _Fields:
    """The fields of a protocol buffer: number -> values in their order (protobuf.dev/programming-guides/encoding)."""
    fields: _Fields = {}
    place = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        kind = tag & 7
        if kind == 0:
            number, place = read_varint(message, place)
            fields.setdefault(tag >> 3, []).append(number)
            continue
        if kind == 2:
            length, place = read_varint(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise CorruptCheckpoint(f"a field of kind {kind} in an entry")
        value = message[place : place + length]
        if len(value) < length:
            raise CorruptCheckpoint("an entry is cut off")
        place += length
        fields.setdefault(tag >> 3, []).append(value if kind == 2 else int.from_bytes(value, "little"))
    return fields


def _number(fields: _Fields, number: int) -> int:
    """A field that is a number; 0 when it is left out. Negative ones appear as 2^63 and more."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise CorruptCheckpoint(f"field {number} of an entry is no number")
    return value


def _message(fields: _Fields, number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise CorruptCheckpoint(f"field {number} of an entry is a number")
    return value
