"""Files of llama2.c (Karpathy 2023): sizes, then the float32 numbers of all tensors, each kind for all layers after the other.

    version 0   int32 dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, max_seq_len; a negative vocab_size says that
                the head, the last tensor then, is not the table of tokens. Before it stand two tables of cosines and sines
    version 1   the word "ak42" backwards, int32 version, the same seven, a byte that says whether the head is the table of
                tokens, zeros up to byte 256; norms come first, no tables
    version 2   8-bit numbers in groups, which are not read here

Version 0 has no mark: a file is taken for one if its first numbers can be sizes, and believed if they give its length exactly.
The tensors get Meta's names, under which llama2.c keeps them. Its pairs of rotary features are interleaved, as Meta's are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint
from .source import HeadedFile, TensorInfo, read_at

HEADER = 37  # bytes: the longer one, of version 1

_MARK = (0x616B3432).to_bytes(4, "little")
_SIZES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
_MOST, _MOST_LAYERS = 1 << 24, 1000  # of other sizes, of layers

_TABLE, _NORM, _HEAD = "tok_embeddings.weight", "norm.weight", "output.weight"
_ATT_NORM, _FF_NORM = "layers.{i}.attention_norm.weight", "layers.{i}.ffn_norm.weight"
_ATT = tuple(f"layers.{{i}}.attention.{name}.weight" for name in ("wq", "wk", "wv", "wo"))
_FF = tuple(f"layers.{{i}}.feed_forward.{name}.weight" for name in ("w1", "w2", "w3"))
_ORDERS = {
    0: (_TABLE, _ATT_NORM, *_ATT, _FF_NORM, *_FF, _NORM, "", "", _HEAD),  # "": cosines, sines
    1: (_ATT_NORM, _FF_NORM, _NORM, _TABLE, *_ATT, *_FF, _HEAD),
}


def begins(head: bytes) -> bool:
    """Whether a file whose first HEADER bytes these are is meant to be one of llama2.c's."""
    return head.startswith(_MARK) or (len(head) >= 28 and not _impossible(_unpack(head, 0)))


class Llama2CFile(HeadedFile):
    """One .bin file of version 0 or 1. CheckpointError says what is wrong with its header, before any number is read."""

    form = "llama2.c"
    complete = True

    def _read_header(self, size: int) -> None:
        head = read_at(self._file, 0, min(size, HEADER)).tobytes()
        version = int.from_bytes(head[4:8], "little", signed=True) if head.startswith(_MARK) else 0
        if version not in _ORDERS:
            known = "numbers of 8 bits" if version == 2 else "unknown"
            raise CheckpointError(f"version {version} of llama2.c's files, {known}: export version 0 or 1")
        if len(head) < (HEADER if version else 28):
            raise CorruptCheckpoint(f"header too small: the file has {size} bytes")
        sizes = _unpack(head, 8 if version else 0)
        if wrong := _impossible(sizes):
            raise CorruptCheckpoint(f"no file of llama2.c, or a damaged one: {wrong}")
        tied = sizes["vocab_size"] > 0 if version == 0 else head[36] == 1
        if version and (sizes["vocab_size"] < 0 or head[36] > 1):
            raise CorruptCheckpoint(
                f"vocab_size is {sizes['vocab_size']}, and byte 36, whether the head is the table of tokens, {head[36]}"
            )
        sizes["vocab_size"] = abs(sizes["vocab_size"])
        end = 256 if version else 28
        for name, shape in _tensors(version, sizes, tied):
            n_bytes = 4 * int(np.prod(shape, dtype=object))
            if name:
                self.infos[name], self._begins[name] = TensorInfo("F32", shape, n_bytes, self.path), end
            end += n_bytes
        if end != size:
            said = ", ".join(f"{name} {n:,}" for name, n in sizes.items())
            raise CorruptCheckpoint(
                f"{size:,} bytes, {abs(end - size):,} too {'few' if end > size else 'many'} for llama2.c's version {version} "
                f"with {said}, {'a tied' if tied else 'an untied'} head: cut off, or another form?"
            )
        self.metadata = {"model_args": sizes}

    def read(self, name: str) -> np.ndarray:
        return self._bytes_of(name).view("<f4").astype(np.float32, copy=False).reshape(self.infos[name].shape)


def _unpack(head: bytes, start: int) -> dict[str, int]:
    return dict(zip(_SIZES, struct.unpack_from("<7i", head, start), strict=True))


def _impossible(sizes: dict[str, int]) -> str:
    """Why a model cannot have these sizes; nothing if it can."""
    for name, n in sizes.items():
        most = _MOST_LAYERS if name == "n_layers" else _MOST
        if not 1 <= (abs(n) if name == "vocab_size" else n) <= most:
            return f"{name} is {n:,}: it must be from 1 to {most:,}"
    return ""


def _tensors(version: int, sizes: dict[str, int], tied: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the file; a name of "" for what is not learned."""
    dim, hidden, n_layers, n_heads, n_kv_heads, vocab_size, length = sizes.values()
    if dim % n_heads or n_heads % n_kv_heads or dim // n_heads % 2:
        raise CorruptCheckpoint(
            f"dim is {dim:,}, n_heads {n_heads:,}, n_kv_heads {n_kv_heads:,}: each must divide the one before, "
            "and a head have an even number of features"
        )
    kv_dim = dim // n_heads * n_kv_heads
    shapes = {_TABLE: (vocab_size, dim), _HEAD: (vocab_size, dim), "": (length, dim // n_heads // 2)}
    shapes |= dict(zip(_ATT, ((dim, dim), (kv_dim, dim), (kv_dim, dim), (dim, dim)), strict=True))
    shapes |= dict(zip(_FF, ((hidden, dim), (dim, hidden), (hidden, dim)), strict=True))
    for name in _ORDERS[version]:
        if name != _HEAD or not tied:
            for i in range(n_layers if "{i}" in name else 1):
                yield name.replace("{i}", str(i)), shapes.get(name, (dim,))
