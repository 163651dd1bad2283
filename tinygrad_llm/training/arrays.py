"""Arrays in safetensors files: 8 bytes that give the length of a header, the header (JSON), and the numbers.

The writer makes no copy of the numbers, so that they can be hashed while they are written; the reader is that of public weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptCheckpoint, DTypeError
from ..weights.safetensors import SafetensorsFile

_WORDS = {"float32": "F32", "float64": "F64", "int64": "I64"}


def encode_arrays(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> list[bytes | memoryview]:
    """What to write one after the other: the header, and the bytes of each array. DTypeError for a dtype of other things."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    parts, offset = [], 0
    for name, array in arrays.items():
        if array.dtype.name not in _WORDS:
            raise DTypeError(f"{name} is {array.dtype}: files are written of {', '.join(_WORDS)}")
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        header[name] = {
            "dtype": _WORDS[array.dtype.name],
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
