"""Tables of LevelDB's form, in which TensorFlow keeps the index of a checkpoint: keys and values in the order of the keys.

    table    data block ... | metaindex block | index block | footer
    block    entry ... | restart offset (uint32) ... | their number (uint32)
    entry    shared | unshared | value length (varints) | unshared bytes of the key, after shared ones of the key before | value
    trailer  after each block: compression (1 byte: 0 none, 1 snappy) | masked CRC-32C of block and compression
    footer   handle (offset, size: varints) of the metaindex | of the index | zeros up to 40 bytes | magic number

The index block has an entry for each data block: a key not below its last one, and its handle. After doc/table_format.md of
LevelDB and tensorflow/core/lib/io/format.cc. Restart offsets serve to search in a block, which is not done here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import CheckpointError, CorruptCheckpoint
from .crc32c import masked_crc32c

_FOOTER, _TRAILER = 48, 5
_MAGIC = 0xDB4775248B80FB57
_LONGEST_KEY, _LONGEST_KEYS = 1024, 64 << 20  # bytes of one, of all


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All keys and values. CorruptCheckpoint for whatever is not as the format says; checksums of all blocks are compared."""
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise CorruptCheckpoint("its end is not that of a TensorFlow index: it is cut off, or another kind of file")
    metaindex, place = _read_handle(footer, 0)
    index, place = _read_handle(footer, place)
    if any(footer[place:-8]):
        raise CorruptCheckpoint("its last 48 bytes are damaged")
    _block(data, *metaindex)  # holds nothing that is of use, but a damaged file is not to be trusted
    table: dict[bytes, bytes] = {}
    end, last, total = 0, b"", 0
    for _, handle in _entries(_block(data, *index)):
        (offset, size), place = _read_handle(handle, 0)
        if place != len(handle) or offset < end:  # a block named many times would make a table without end
            raise CorruptCheckpoint("its blocks do not follow one another")
        end = offset + size
        for key, value in _entries(_block(data, offset, size)):
            if table and key <= last:
                raise CorruptCheckpoint(f"{key[:80]!r} comes after {last[:80]!r}")
            total += len(key)
            if total > _LONGEST_KEYS:  # a key may take some four bytes of the file and a thousand of memory
                raise CorruptCheckpoint(f"its names take more than {_LONGEST_KEYS:,} bytes")
            table[key] = value
            last = key
    return table


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """A number below 2^64 in groups of seven bits, the lowest ones first, and the place after it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise CorruptCheckpoint("a number is cut off")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= 1 << 64:
                break
            return number, place
    raise CorruptCheckpoint("a number has more than 64 bits")


def _read_handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    offset, place = read_varint(data, place)
    size, place = read_varint(data, place)
    return (offset, size), place


def _block(data: bytes, offset: int, size: int) -> bytes:
    """The contents of a block, when its place, checksum and compression are right."""
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise CorruptCheckpoint(f"a block of {size:,} bytes at {offset:,} does not fit in a file of {len(data):,}")
    if masked_crc32c(data[offset : end + 1]) != int.from_bytes(data[end + 1 : end + _TRAILER], "little"):
        raise CorruptCheckpoint(f"the block of {size:,} bytes at {offset:,} is damaged: its checksum differs")
    if data[end]:
        raise CheckpointError(
            f"its blocks are compressed (kind {data[end]}), as TensorFlow does not write them: save it again with tf.train.Saver"
        )
    return data[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block."""
    end = len(block) - 4
    restarts = int.from_bytes(block[-4:], "little")
    end -= 4 * restarts
    if end < 0:
        raise CorruptCheckpoint("a block is too short for its own list of restarts")
    place, key = 0, b""
    while place < end:
        shared, place = read_varint(block, place)
        unshared, place = read_varint(block, place)
        length, place = read_varint(block, place)
        start = place + unshared
        if shared > len(key) or start + length > end:
            raise CorruptCheckpoint(
                f"an entry after {key[:80]!r} is longer than its block, or than the key that it goes on from"
            )
        if shared + unshared > _LONGEST_KEY:
            raise CorruptCheckpoint(f"a name of {shared + unshared:,} bytes: {_LONGEST_KEY:,} are the most")
        key = key[:shared] + block[place:start]
        yield key, block[start : start + length]
        place = start + length
    if place != end:
        raise CorruptCheckpoint("the last entry of a block runs into its restarts")
