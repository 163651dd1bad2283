"""Which file of a folder holds the weights, and who reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError, CorruptCheckpoint, UnsafeFile
from . import llama2c, rwkvcpp
from .safetensors import SafetensorsFile
from .sharded import INDEX_SUFFIX, Sharded
from .source import TensorSource

CONFIG_FILE, MODEL_FILE, HPARAMS_FILE, PARAMS_FILE = "config.json", "model.safetensors", "hparams.json", "params.json"
META_FILE = "meta.pkl"  # nanoGPT's name for the file that holds its characters
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")
_PYTORCH_FILE = "pytorch_model.bin"
_NO_WEIGHTS = (
    "optimizer",
    "scheduler",
    "training_args",
    "rng_state",
    "tokenizer",
    META_FILE,
)  # what lies beside weights
_NUMPY = (".npz", ".npy")
_MAGIC = {b"PK\x03\x04": "a zip archive, as PyTorch writes", b"\x80": "a pickle", b"\x93NUMPY": "an array of NumPy"}


def open_weights(path: str | os.PathLike[str], *, pickles: bool = False) -> TensorSource:
    """The weights in a file or folder, with nothing read but names and shapes. UnsafeFile for a pickle, unless `pickles`."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no run there, and no other weights")
    file = _weights_of(path) if path.is_dir() else path
    if file.is_dir():
        from .tensorflow import TensorFlowCheckpoint

        return TensorFlowCheckpoint(file)
    if file.suffix in _NUMPY:
        raise UnsafeFile(f"{file}: NumPy's files can hold pickles, which can run code: save the arrays as safetensors")
    open_file: Callable[[Path], TensorSource] = SafetensorsFile
    suffix = Path(file.name.removesuffix(INDEX_SUFFIX)).suffix  # of the files, where this is their index
    head = b"" if file.suffix == ".safetensors" else _first_bytes(file)
    is_pickle = head.startswith(tuple(_MAGIC))
    if llama2c.begins(head):
        return llama2c.Llama2CFile(file)
    if rwkvcpp.begins(head):
        return rwkvcpp.RwkvCppFile(file)
    if file.suffix == ".bin" and not is_pickle:
        raise CorruptCheckpoint(
            f"{file}: begins with {head[:8]!r}: neither PyTorch's (a zip archive or a pickle) nor llama2.c's nor rwkv.cpp's: "
            "damaged?"
        )
    if suffix != ".safetensors" and (suffix in _PICKLES or is_pickle):
        if not pickles:
            raise UnsafeFile(
                f"{file}: PyTorch's files are pickles, which can run code when they are loaded: "
                f"tinygrad-llm convert {path} FOLDER reads the numbers alone, then load FOLDER"
            )
        from .pytorch import PyTorchFile

        open_file = PyTorchFile
    return Sharded(file, open_file) if file.name.endswith(INDEX_SUFFIX) else open_file(file)


def _weights_of(folder: Path) -> Path:
    """The file of a folder that holds its weights; the folder itself if they are TensorFlow's."""
    for name in (MODEL_FILE, _PYTORCH_FILE):
        for file in (folder / name, folder / (name + INDEX_SUFFIX)):
            if file.exists():
                return file
    names = sorted(file.name for file in folder.iterdir())
    if any(name.endswith(".index") for name in names) or "checkpoint" in names:
        return folder
    for endings in (".safetensors",), _PICKLES:
        found = [name for name in names if name.endswith(endings) and not name.startswith(_NO_WEIGHTS)]
        if len(found) == 1:
            return folder / found[0]
        if found:
            raise CheckpointError(f"{folder}: holds {', '.join(found[:4])}: name the one that is meant")
    holds = ", ".join(map(ascii, names[:6])) or "nothing"
    raise CheckpointError(f"{folder}: no weights there: it holds {holds}, and should hold {MODEL_FILE}")


def _first_bytes(file: Path) -> bytes:
    try:
        if file.is_file():  # opening a pipe would wait for ever
            with file.open("rb") as opened:
                return opened.read(llama2c.HEADER)
    except OSError:
        pass  # the reader says what is wrong
    return b""
