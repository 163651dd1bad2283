"""The records of a zip archive that holds them as they are, which is what torch.save writes: bytes of the file, one record
after another. Nothing is unpacked, and the names of records never become paths.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint, UnsafeFile
from .source import printable

_LOCAL_HEADER = 30  # bytes before the name, the extra field and the data of a record (APPNOTE.TXT 4.3.7)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Record:
    """Where the bytes of a record are, and their CRC-32: 0 where the writer was told not to compute it."""

    start: int
    size: int
    crc: int


class StoredArchive:
    """`records` by their names. CorruptCheckpoint for archives that are damaged, compressed or contradict themselves,
    UnsafeFile for names that lead out of the archive.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self.records = self._read_records()
        except BaseException:
            self.close()
            raise

    def _read_records(self) -> dict[str, Record]:
        try:
            infos = zipfile.ZipFile(self._file).infolist()
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, IndexError) as error:
            raise CorruptCheckpoint(f"a damaged zip archive, cut off perhaps: {error}") from error
        records: dict[str, Record] = {}
        end, size = 0, os.fstat(self._file.fileno()).st_size
        for info in sorted(infos, key=lambda info: info.header_offset):
            name, shown = info.filename, printable(info.filename)
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise UnsafeFile(f"its record {shown} leads out of the archive")
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
                raise CorruptCheckpoint(f"its record {shown} is compressed or encrypted, which torch.save does not do")
            if name in records:
                raise CorruptCheckpoint(f"two records have the name {shown}")
            start = self._data_start(info.header_offset) if info.header_offset >= end else -1
            end = start + info.file_size
            if start < 0 or end > size:
                raise CorruptCheckpoint(f"its record {shown} runs into another one, or out of the file")
            records[name] = Record(start, info.file_size, info.CRC)
        return records

    def _data_start(self, header: int) -> int:
        """The end of the header in front of a record; -1 if there is none."""
        self._file.seek(header)
        fields = self._file.read(_LOCAL_HEADER)
        if len(fields) < _LOCAL_HEADER or not fields.startswith(b"PK\3\4"):
            return -1
        return header + _LOCAL_HEADER + sum(struct.unpack("<2H", fields[26:]))

    def check(self, record: Record) -> None:
        """Compare the checksum; CorruptCheckpoint if it differs."""
        crc = 0
        for offset in range(0, record.size, _CHUNK):
            crc = zlib.crc32(self.read(record, offset, min(_CHUNK, record.size - offset)).data, crc)
        if record.crc and crc != record.crc:
            raise CorruptCheckpoint("damaged: its checksum differs")

    def read(self, record: Record, offset: int, n: int) -> np.ndarray:
        """(n,), uint8: bytes of a record from `offset` on, which must be in it."""
        data = np.empty(n, np.uint8)
        try:
            self._file.seek(record.start + offset)
            done = self._file.readinto(data.data)
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror or error}") from error
        if done != n:
            raise CorruptCheckpoint("became shorter while it was read")
        return data

    def close(self) -> None:
        self._file.close()
