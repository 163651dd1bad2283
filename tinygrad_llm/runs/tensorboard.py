"""Event files that TensorBoard reads: `tinygrad-llm pretrain --tensorboard`, then `tensorboard --logdir runs`.

The events are those of tensorboardX (the extra `tensorboard`), which needs no TensorFlow. Its writer is left out: it writes in a
thread of its own, so what was logged last is lost with the process, and on a full disk the run would wait for it for ever.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingPackage
from ..files import append
from ..formats.crc32c import masked_crc32c
from .loggers import Logger

_EVENTS, _DIGITS = "events.out.tfevents.{}.tinygrad_llm", "[0-9]" * 10


def has_events(folder: str | os.PathLike[str]) -> bool:
    """Whether this run has been logged for TensorBoard."""
    return any(Path(folder).glob(_EVENTS.format(_DIGITS)))


class TensorBoard(Logger):
    """Losses and learning rate as curves, options and samples as text, in a file beside those of the run.

    A run that is resumed goes on in another file, which begins by taking back what was logged of later steps. MissingPackage
    without tensorboardX.
    """

    def __init__(self) -> None:
        try:
            from tensorboardX.proto.event_pb2 import Event
        except ImportError:
            raise MissingPackage(
                "TensorBoard: tensorboardX is not installed: pip install tensorboardX, or the extra [tensorboard]"
            ) from None
        self._event = Event

    def start(self, folder: Path, config: dict[str, Any], step: int) -> None:
        self._path = _next_file(folder)
        self._write(0, file_version="brain.Event:2")
        self._write(step + 1 if step else 0, session_log={"status": "START"})  # later steps are void
        options = [f"{name}: {json.dumps(value)}" for name, value in config.get("training", {}).items()]
        self._text("options", step, options)

    def log_step(self, step: int, loss: float, lr: float) -> None:
        self._scalars(step, {"loss/batch": loss, "lr": lr})

    def log_evaluation(self, row: Mapping[str, float]) -> None:
        names = {"train_loss": "loss/training", "val_loss": "loss/validation"}
        names |= {"gradient_norm": "gradient norm", "update_ratio": "update ratio"}
        self._scalars(int(row["step"]), {names[name]: value for name, value in row.items() if name in names})

    def log_sample(self, step: int, text: str) -> None:
        self._text("sample", step, text.splitlines())

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, summary={"value": [{"tag": tag, "simple_value": value} for tag, value in values.items()]})

    def _text(self, tag: str, step: int, lines: list[str]) -> None:
        """As code, in the eyes of Markdown: line by line."""
        text = "\n".join("    " + line for line in lines).encode()
        tensor = {"dtype": "DT_STRING", "tensor_shape": {}, "string_val": [text]}
        metadata = {"plugin_data": {"plugin_name": "text"}}
        self._write(step, summary={"value": [{"tag": tag, "tensor": tensor, "metadata": metadata}]})

    def _write(self, step: int, **what: Any) -> None:
        """Append a record: length, its checksum, the event, its checksum, all little-endian."""
        event = self._event(wall_time=time.time(), step=step, **what).SerializeToString()
        length = struct.pack("<Q", len(event))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
        append(self._path, b"".join((length, sums[0], event, sums[1])))


def _next_file(folder: Path) -> Path:
    """A name after all those there are: TensorBoard reads the files of a folder in the order of their names."""
    seconds = [int(path.name.split(".")[3]) for path in folder.glob(_EVENTS.format(_DIGITS))]
    return folder / _EVENTS.format(f"{max([int(time.time()), *(n + 1 for n in seconds)]):010d}")
