"""Several files with the tensors of one model, and the index that says which tensor is in which:

{"weight_map": {"wte.weight": "model-00001-of-00002.safetensors", ...}}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptCheckpoint, UnsafeFile
from .source import TensorInfo, TensorSource, printable
from .strict_json import read_json

INDEX_SUFFIX = ".index.json"  # after the name that a single file would have


class Sharded(TensorSource):
    """The files of an index, each opened by `open_file`.

    UnsafeFile if the index leads out of its folder, CorruptCheckpoint if it and the files disagree.
    """

    def __init__(self, path: str | os.PathLike[str], open_file: Callable[[Path], TensorSource]) -> None:
        self.path = Path(path)
        self.metadata: dict[str, Any] = {}
        self.infos: dict[str, TensorInfo] = {}
        self._shards: dict[str, TensorSource] = {}
        index = read_json(self.path)
        weight_map = index.get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CorruptCheckpoint(f"{self.path}: weight_map must map the names of tensors to files")
        for name, file in weight_map.items():
            if not isinstance(file, str):
                raise CorruptCheckpoint(
                    f"{self.path}: weight_map: {printable(name)} is in {file!r:.80}, no file's name"
                )
        files = {file: _inside(self.path, file) for file in dict.fromkeys(weight_map.values())}
        try:
            for file, shard in files.items():
                self._add(file, open_file(shard), weight_map)
        except BaseException:
            self.close()
            raise

    def _add(self, file: str, shard: TensorSource, weight_map: Mapping[str, str]) -> None:
        self._shards[file], self.form = shard, shard.form
        for name in shard.infos:
            if weight_map.get(name) != file:
                other = (
                    f"{printable(weight_map[name])} has it too" if name in weight_map else "the index does not know it"
                )
                raise CorruptCheckpoint(f"{shard.path}: holds {printable(name)}, but {other}")
        for name, place in weight_map.items():
            if place == file and name not in shard.infos:
                raise CorruptCheckpoint(f"{shard.path}: lacks {printable(name)}, which {self.path.name} says is in it")
        self.infos.update(shard.infos)
        self.metadata.update(shard.metadata)

    def read(self, name: str) -> np.ndarray:
        return self._shards[self.infos[name].file.name].read(name)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()


def _inside(index: Path, file: str) -> Path:
    """The path of a shard, which must be a file of the index's own folder."""
    path = index.parent / file if file and Path(file).name == file and "\\" not in file and file.isprintable() else None
    if path is None:
        raise UnsafeFile(
            f"{index}: weight_map leads to {printable(file)}: only names of files in its own folder are followed"
        )
    folder, target = index.parent.resolve(), path.resolve()
    # The cache of the Hugging Face hub keeps the files of a snapshot in a folder of its own, and links to them.
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    if target.parent not in (folder, blobs):
        raise UnsafeFile(f"{path}: a link that leads out of its folder, to {printable(str(target))}")
    if not target.exists():
        raise CorruptCheckpoint(f"{path}: not there, but {index.name} says that it holds tensors")
    return path
