"""PyTorch's files, as torch.save writes them since version 1.6: model.pth, ckpt.pt, pytorch_model.bin. A zip archive with

    NAME/data.pkl     the structure, a pickle: what stands for a tensor names its storage, offset, shape and strides
    NAME/data/0 ...   the numbers of each storage, as they are in memory; several tensors may share one
    NAME/byteorder    "little" or "big"

whose records are not compressed. The pickle is read without being run (pickles.py). After torch/csrc/jit/serialization
(inline_container.h), torch/serialization.py and torch/_utils.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import CheckpointError, CorruptCheckpoint, UnsafeFile
from .archive import StoredArchive
from .pickles import LONGEST, read_pickle
from .source import TensorInfo, TensorSource, check_shape, printable, stored_dtype, widen
from .strict_json import check_is_file

STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model")  # the book's, Lightning's and nanoGPT's

_EXPANDED = 64 << 20  # bytes: what tensors whose numbers repeat in a storage (Tensor.expand) may take, if it is smaller
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that files of older versions begin with, as a pickle
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": "uint8",
}
_DTYPES = {f"torch.{name}": name for name in [*_STORAGES.values(), "uint16", "uint32", "uint64"]}


@dataclass(frozen=True)
class _Storage:
    """What data.pkl says of a storage, which is the record data/`key`."""

    dtype: str
    key: str
    n_bytes: int


@dataclass(frozen=True)
class _View:
    """A tensor: the number at index i is number offset + sum(i strides) of the storage."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """How many numbers there are from its first to its last one."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))


class PyTorchFile(TensorSource):
    """One file of torch.save. The tensors are those of a state dict: the value of one of STATE_DICT_KEYS, or the file's own
    value, or the only dict of tensors in it; `state_dict_key` says which (None: the file's own).

    `metadata` is the rest of the file as plain values, with a TensorInfo for each tensor there.
    """

    form = "PyTorch"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        check_is_file(self.path)
        try:
            _check_form(self.path)
            self._archive = StoredArchive(self.path)
            try:
                self._read_structure()
            except BaseException:
                self.close()
                raise
        except UnsafeFile as error:
            raise UnsafeFile(
                f"{self.path}: {error}; nothing of it was run. If you trust the file, save its weights alone, in PyTorch: "
                "torch.save(model.state_dict(), PATH)"
            ) from error
        except CheckpointError as error:
            raise type(error)(f"{self.path}: {error}") from error
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}") from error

    def _read_structure(self) -> None:
        records = self._archive.records
        roots = [
            name.removesuffix("data.pkl") for name in records if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise CorruptCheckpoint("not a file of torch.save: it has no record NAME/data.pkl")
        self._records = {name.removeprefix(roots[0]): record for name, record in records.items()}
        self._checked: set[str] = set()
        orders: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
        order = self._read_record("byteorder") if "byteorder" in self._records else b"little"
        if order not in orders:
            raise CorruptCheckpoint("its record byteorder is neither little nor big")
        self._byteorder = orders[order]
        names: dict[str, Any] = dict.fromkeys([*_STORAGES, *_DTYPES])
        value = read_pickle(self._read_record("data.pkl"), names | _CALLS, self._find_storage)
        self.state_dict_key, state_dict = _choose(value)
        self._views = {name: view for name, view in state_dict.items() if type(name) is str and type(view) is _View}
        self.infos = {name: self._info(view) for name, view in self._views.items()}
        rest = value.items() if isinstance(value, dict) else ()
        self.metadata: dict[str, Any] = {
            key: self._plain(part)
            for key, part in rest
            if type(key) is str and key not in self.infos and key != self.state_dict_key
        }

    def _read_record(self, name: str) -> bytes:
        record = self._records[name]
        if record.size > LONGEST:
            raise CorruptCheckpoint(f"its record {name} has {record.size:,} bytes: {LONGEST:,} are the most")
        self._archive.check(record)
        return self._archive.read(record, 0, record.size).tobytes()

    def _find_storage(self, id: Any) -> _Storage:
        """For ("storage", type, key, device, number of elements)."""
        if type(id) is not tuple or len(id) != 5 or id[0] != "storage":
            raise CorruptCheckpoint("refers to something that is no storage")
        _, kind, key, _, n = id
        if type(kind) is not str or kind not in _STORAGES or type(key) is not str or type(n) is not int:
            raise CorruptCheckpoint("refers to a storage without a type, a name or a size")
        dtype = _STORAGES[kind]
        record = self._records.get(f"data/{key}")
        if record is None:
            raise CorruptCheckpoint(f"refers to data/{printable(key)[1:-1]}, which it does not hold")
        if record.size != n * stored_dtype(dtype).itemsize:
            raise CorruptCheckpoint(
                f"its record data/{printable(key)[1:-1]} has {record.size:,} bytes, which are not {n:,} numbers of {dtype}"
            )
        return _Storage(dtype, key, record.size)

    def _info(self, view: _View) -> TensorInfo:
        return TensorInfo(view.dtype, view.shape, check_shape(view.shape, stored_dtype(view.dtype).itemsize), self.path)

    def _plain(self, value: Any) -> Any:
        """A part of the file without what only this reader understands. Its depth is limited: see pickles.py."""
        if isinstance(value, dict):
            return {key: self._plain(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._plain(part) for part in value)
        if isinstance(value, _View):
            return self._info(value)
        return f"storage {value.key}" if isinstance(value, _Storage) else value

    def read(self, name: str) -> np.ndarray:
        view = self._views[name]
        dtype = stored_dtype(view.dtype, self._byteorder)
        key = f"data/{view.storage.key}"
        try:
            if key not in self._checked:
                self._archive.check(self._records[key])
                self._checked.add(key)
            span = self._archive.read(self._records[key], view.offset * dtype.itemsize, view.span * dtype.itemsize)
        except CheckpointError as error:
            raise type(error)(f"{self.path}: {printable(name)}: {error}") from error
        strides = [
            step * dtype.itemsize if n > 1 and view.span else 0
            for n, step in zip(view.shape, view.strides, strict=True)
        ]
        array = np.lib.stride_tricks.as_strided(span.view(dtype), view.shape, strides)
        return widen(array if array.flags.c_contiguous else array.copy(order="C"), view.dtype)

    def close(self) -> None:
        self._archive.close()


def _check_form(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(64)
    if _LEGACY in start:
        raise CheckpointError(
            "is in the form of PyTorch before 1.6: save it again in a newer one: "
            "torch.save(torch.load(PATH, weights_only=True), PATH)"
        )
    if not start.startswith(b"PK"):
        raise CorruptCheckpoint("is no zip archive, which torch.save writes")


def _choose(value: Any) -> tuple[str | None, dict[Any, Any]]:
    """The state dict of what torch.save was given, and its key."""
    if not isinstance(value, dict):
        raise CheckpointError(f"holds a {'tensor' if type(value) is _View else type(value).__name__}, not a state dict")
    holders = [key for key, part in value.items() if type(key) is str and _has_tensors(part)]
    for key in STATE_DICT_KEYS:
        if key in holders:
            return key, value[key]
    if _has_tensors(value):
        return None, value
    if len(holders) != 1:
        raise CheckpointError(
            f"holds {len(holders)} dicts with tensors, at {', '.join(map(printable, holders[:6])) or 'no key'}: save the one "
            'that is meant, in PyTorch: torch.save(torch.load(PATH, weights_only=True)["KEY"], PATH)'
        )
    return holders[0], value[holders[0]]


def _has_tensors(part: Any) -> bool:
    return isinstance(part, dict) and any(isinstance(item, _View) for item in part.values())


def _make_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    """collections.OrderedDict()"""
    if args:
        raise CorruptCheckpoint("an OrderedDict that is not made empty")
    return {}


def _make_size(args: tuple[Any, ...]) -> tuple[int, ...]:
    """torch.Size((2, 3))"""
    if len(args) != 1 or not _are_sizes(args[0]):
        raise CorruptCheckpoint("a torch.Size that has no sizes")
    return args[0]


def _make_device(args: tuple[Any, ...]) -> str:
    """torch.device("cuda", 0)"""
    if not 1 <= len(args) <= 2 or type(args[0]) is not str or not all(type(n) is int for n in args[1:]):
        raise CorruptCheckpoint("a torch.device without a name")
    return ":".join(map(str, args))


def _make_tensor(args: tuple[Any, ...]) -> _View:
    """torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks, metadata={})"""
    if not 6 <= len(args) <= 7 or type(args[0]) is not _Storage:
        raise CorruptCheckpoint("a tensor without a storage")
    if args[6:] and args[6]:
        raise CheckpointError(
            "holds a tensor that is to be negated or conjugated: save it .resolve_neg().resolve_conj()"
        )
    return _view(args, args[0].dtype)


def _make_untyped_tensor(args: tuple[Any, ...]) -> _View:
    """torch._utils._rebuild_tensor_v3(storage, offset, shape, strides, requires_grad, hooks, dtype, metadata={})"""
    if not 7 <= len(args) <= 8 or type(args[0]) is not _Storage or type(args[6]) is not str or args[6] not in _DTYPES:
        raise CorruptCheckpoint("a tensor without a storage or a type")
    return _view(args, _DTYPES[args[6]])


def _make_parameter(args: tuple[Any, ...]) -> _View:
    """torch._utils._rebuild_parameter(tensor, requires_grad, hooks)"""
    if len(args) != 3 or type(args[0]) is not _View:
        raise CorruptCheckpoint("a parameter without a tensor")
    return args[0]


def _view(args: tuple[Any, ...], dtype: str) -> _View:
    """CorruptCheckpoint unless each number of the tensor is in its storage."""
    storage, offset, shape, strides = args[:4]
    if not (_are_sizes((offset,)) and _are_sizes(shape) and _are_sizes(strides) and len(shape) == len(strides)):
        raise CorruptCheckpoint("a tensor without an offset, sizes or strides")
    itemsize = stored_dtype(dtype).itemsize
    n_bytes = check_shape(shape, itemsize)
    view = _View(storage, dtype, offset, shape, strides)
    if (offset + view.span) * itemsize > storage.n_bytes:
        raise CorruptCheckpoint(f"a tensor {shape} with strides {strides} from {offset:,} on is not inside its storage")
    if n_bytes > max(storage.n_bytes, _EXPANDED):
        raise CorruptCheckpoint(f"a tensor {shape} repeats the {storage.n_bytes:,} bytes of its storage too often")
    return view


def _are_sizes(values: Any) -> bool:
    return type(values) is tuple and all(type(n) is int and n >= 0 for n in values)


_CALLS = {
    "collections.OrderedDict": _make_dict,
    "torch.Size": _make_size,
    "torch.device": _make_device,
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_tensor_v3": _make_untyped_tensor,
    "torch._utils._rebuild_parameter": _make_parameter,
}
