"""Files of rwkv.cpp (docs/FILE_FORMAT.md there): sizes, then tensors one after the other, each with a header of its own.

    file     int32 "ggmf" (0x67676d66), version 100 or 101, n_vocab, n_embed, n_layer, type
    tensor   int32 how many sizes, bytes of the name, type; int32 sizes, the last first; the name; the numbers

Types 0 and 1 are float32 and float16; the others are numbers of few bits, which are not read here. The tensors have BlinkDL's
names, without sizes of 1 in `time_...`. For `att.time_decay` d the file has -exp(d), what the recurrence needs; reading gives d.
"""

from __future__ import annotations

import struct

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint
from .source import HeadedFile, TensorInfo, check_shape, printable, read_at, stored_dtype, widen

_MARK = (0x67676D66).to_bytes(4, "little")
_HEADER, _TENSOR = struct.Struct("<6i"), struct.Struct("<3i")
_VERSIONS = (100, 101)  # which differ in numbers of few bits alone
_TYPES = {0: ("F32", "float32"), 1: ("F16", "float16")}
_FEW_BITS = dict(enumerate(("Q4_0", "Q4_1", "Q4_1_O", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0"), 2))
_MOST, _MOST_SIZES, _LONGEST = 20_000, 4, 256  # tensors, sizes of one, bytes of a name
_DECAY = ".att.time_decay"


def begins(head: bytes) -> bool:
    """Whether a file whose first bytes these are is meant to be one of rwkv.cpp's."""
    return head.startswith(_MARK)


class RwkvCppFile(HeadedFile):
    """One .bin file of float32 or float16 numbers. CheckpointError says what is wrong with its headers, before they are read."""

    form = "rwkv.cpp"
    complete = True

    def _read_header(self, size: int) -> None:
        _, version, n_vocab, n_embed, n_layer, kind = _HEADER.unpack(self._part(0, _HEADER.size, size, "the header"))
        if version not in _VERSIONS:
            raise CheckpointError(f"version {version} of rwkv.cpp's files, unknown: use 100 or 101")
        _check_type(kind, "its numbers")
        at = _HEADER.size
        while at < size:
            at = self._read_tensor(at, size)
        said = {"n_vocab": n_vocab, "n_embed": n_embed, "n_layer": n_layer}
        table = self.infos.get("emb.weight")
        layers = {name.split(".")[1] for name in self.infos if name.startswith("blocks.")}
        found = {"n_vocab": 0, "n_embed": 0, "n_layer": len(layers)}
        if table is not None and len(table.shape) == 2:
            found["n_vocab"], found["n_embed"] = table.shape
        for name, n in said.items():
            if n != found[name]:
                raise CorruptCheckpoint(f"{name} is {n:,}, by its tensors it is {found[name]:,}: cut off, or damaged?")
        self.metadata = said

    def _read_tensor(self, at: int, size: int) -> int:
        """The tensor that begins there goes into `infos`; where the next one does."""
        if len(self.infos) >= _MOST:
            raise CorruptCheckpoint(f"holds more than {_MOST:,} tensors")
        n_sizes, length, kind = _TENSOR.unpack(self._part(at, _TENSOR.size, size, "the header of a tensor"))
        if not 0 <= n_sizes <= _MOST_SIZES or not 1 <= length <= _LONGEST:
            raise CorruptCheckpoint(
                f"byte {at:,}: a tensor of {n_sizes:,} sizes with a name of {length:,} bytes: there can be up to {_MOST_SIZES} "
                f"and 1 to {_LONGEST}"
            )
        at += _TENSOR.size
        shape = struct.unpack(f"<{n_sizes}i", self._part(at, 4 * n_sizes, size, "the sizes of a tensor"))[::-1]
        at += 4 * n_sizes
        word = self._part(at, length, size, "the name of a tensor")
        at += length
        try:
            name = word.decode()
        except UnicodeDecodeError:
            raise CorruptCheckpoint(f"byte {at - length:,}: the name of a tensor is {word[:20]!r}, no UTF-8") from None
        if name in self.infos:
            raise CorruptCheckpoint(f"holds {printable(name)} twice")
        word_of_type, dtype = _check_type(kind, printable(name))
        n_bytes = check_shape(shape, np.dtype(dtype).itemsize)
        if min(shape, default=1) < 1 or at + n_bytes > size:
            raise CorruptCheckpoint(
                f"{printable(name)} {shape} needs {n_bytes:,} bytes, and {size - at:,} follow: cut off, or damaged?"
            )
        self.infos[name], self._begins[name] = TensorInfo(word_of_type, shape, n_bytes, self.path), at
        return at + n_bytes

    def _part(self, at: int, n_bytes: int, size: int, what: str) -> bytes:
        if at + n_bytes > size:
            raise CorruptCheckpoint(f"ends inside {what}, at byte {size:,}: cut off?")
        return read_at(self._file, at, n_bytes).tobytes()

    def read(self, name: str) -> np.ndarray:
        dtype = dict(_TYPES.values())[self.infos[name].dtype]
        array = widen(self._bytes_of(name).view(stored_dtype(dtype)), dtype).reshape(self.infos[name].shape)
        if not name.endswith(_DECAY):
            return array
        if (array > 0).any():
            raise CorruptCheckpoint(
                f"{self.path}: {printable(name)} holds {array.max():g}: it must be -exp of something"
            )
        with np.errstate(divide="ignore"):  # what was too small for exp
            return np.log(-array.astype(np.float64)).astype(np.float32)


def _check_type(kind: int, what: str) -> tuple[str, str]:
    """The words for a type, ours and NumPy's. CheckpointError for one that is not read."""
    if kind not in _TYPES:
        name = _FEW_BITS.get(kind)
        said = f"{name}, numbers of few bits, which cannot be loaded" if name else f"of type {kind}, which is unknown"
        raise CheckpointError(f"{what}: {said}: convert the .pth to FP32 or FP16")
    return _TYPES[kind]
