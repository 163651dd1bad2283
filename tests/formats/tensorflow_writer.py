"""A writer of TensorFlow checkpoints, from the description of the format alone: to make sound ones of any shape, and broken
ones. It shares no line with the reader; its checksum takes one bit at a time.
"""

import struct
from pathlib import Path

import numpy as np

TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}
MAGIC = 0xDB4775248B80FB57


def crc32c(data: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in bytes(data):
        remainder ^= byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0x82F63B78 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def varint(n: int) -> bytes:
    out = b""
    while n >= 128:
        out += bytes([n % 128 + 128])
        n //= 128
    return out + bytes([n])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    return varint(number * 8 + 2) + varint(len(value)) + value


def header(shards: int = 1, endianness: int = 0, min_consumer: int = 0) -> bytes:
    return field(1, shards) + field(2, endianness) + field(3, field(1, 1) + field(2, min_consumer))


def entry(dtype: int, shape, shard: int, offset: int, size: int, crc: int, more: bytes = b"") -> bytes:
    dims = b"".join(field(2, field(1, n % 2**64)) for n in shape)
    numbers = b"".join(field(i, n) for i, n in ((3, shard), (4, offset), (5, size)) if n)
    return field(1, dtype) + field(2, dims) + numbers + varint(6 * 8 + 5) + struct.pack("<I", crc) + more


def block(pairs: list[tuple[bytes, bytes]], restart_every: int = 16) -> bytes:
    out, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(pairs):
        if i % restart_every == 0:
            restarts.append(len(out))
            before = b""
        shared = 0
        while shared < min(len(before), len(key)) and before[shared] == key[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def table(blocks: list[bytes], last_keys: list[bytes] | None = None, compression: int = 0, handles=None) -> bytes:
    """An index of these data blocks; every checksum is right, whatever is in them."""
    out, found = b"", []

    def add(content: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        content += bytes([compression])
        out += content + struct.pack("<I", masked(content))
        return handle

    for content in blocks:
        found.append(add(content))
    keys = last_keys or [b"%06d" % i for i in range(len(blocks))]
    meta = add(block([]))
    index = add(block(list(zip(keys, handles or found, strict=True)), restart_every=1))
    return out + (meta + index).ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def write_checkpoint(
    folder: Path, tensors: dict, name: str = "model.ckpt", per_block: int = 5, big_endian=False
) -> None:
    """Tensors of NumPy's types that TYPES has, into one data file, with a block for each `per_block` of them."""
    folder.mkdir(parents=True, exist_ok=True)
    data, pairs = b"", [(b"", header(endianness=int(big_endian)))]
    for key, array in sorted(tensors.items()):
        array = np.asarray(array)
        raw = array.astype(array.dtype.newbyteorder(">" if big_endian else "<")).tobytes()
        pairs.append((key.encode(), entry(TYPES[array.dtype.name], array.shape, 0, len(data), len(raw), masked(raw))))
        data += raw
    parts = [pairs[i : i + per_block] for i in range(0, len(pairs), per_block)]
    index = table([block(part) for part in parts], [part[-1][0] for part in parts])
    (folder / f"{name}.index").write_bytes(index)
    (folder / f"{name}.data-00000-of-00001").write_bytes(data)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{name}"\n')
