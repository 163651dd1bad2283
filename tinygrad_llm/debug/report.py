"""A backward pass as one page to step through: no network, no server, nothing but a browser.

print(debug.report(loss, "report.html"))
print(debug.report(loss, "report.html", model=model, ids=ids, tokenizer=tokenizer))   # attention, token losses, logit lens
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from ..checks import byte_size
from ..engine import Tensor
from ..errors import ConfigError, GraphError, StorageError
from ..files import replace_file, storing
from ..nn import Module
from .alignment import AlignedText
from .picture import number
from .report_steps import Steps
from .report_text import read_text
from .token_table import TokenTable


@dataclass(frozen=True)
class Report:
    """What was written: `verdicts` counts the steps on the page by "ok", "kink", "wrong" and "none" (not checked)."""

    path: Path
    loss: float
    steps: int  # of the whole backward
    shown: int
    verdicts: dict[str, int]
    bytes: int

    def __str__(self) -> str:
        words = {"ok": "agree with finite differences", "wrong": "WRONG", "kink": "at a kink", "none": "not checked"}
        counts = ", ".join(f"{self.verdicts[k]} {word}" for k, word in words.items() if self.verdicts.get(k))
        shown = "" if self.shown == self.steps else f" ({self.shown} shown)"
        return f"{self.path}: {self.steps:,} backward steps{shown}, {counts}; {byte_size(self.bytes)}, open it in a browser"


def report(
    loss: Tensor,
    path: str | os.PathLike[str] = "report.html",
    *,
    model: Module | None = None,
    ids: Any = None,
    tokenizer: Any = None,
    counted: Any = None,
    tables: Sequence[TokenTable] = (),
    alignments: Sequence[AlignedText] = (),
) -> Report:
    """Write a page that steps through the backward of a scalar loss: at most 5 MB, a file there before is replaced.

    The graph is kept and every `.grad` left alone, so that `loss.backward()` can still be called after. For each step the page
    has the equation, the arrays as heatmaps, the line that made it, and the verdict of `step.check()` where its arrays are small
    enough and time allows; it says what it leaves out.

    Args:
        model, ids: also show attention, the loss of each token and the logit lens of a language model that reads ids (T,)
            or the first row of (B, T), in evaluation mode. The model is to foretell each token from those before it.
        tokenizer: shows the ids as text.
        counted: which of the ids are in the loss, as `Template.encode` gives them; without it all are.
        tables: figures of tokens, which stand before the steps.
        alignments: texts that were written from others, and where their tokens have looked.

    StorageError when `path` cannot be written, found out first; GraphError for a loss that is off the tape, no scalar, or whose
    graph was freed.
    """
    path = check_path(path)
    if (model is None) != (ids is None):
        raise ConfigError("report: model and ids go together: pass both, or neither")
    if loss.node is None:
        raise GraphError(f"report: this tensor {loss.shape} has no steps back: {_why(loss)}")
    text = None if model is None else read_text(model, ids, tokenizer, counted)
    steps = Steps(loss)
    page = _page(loss, steps, text, tables, alignments).encode()
    replace_file(path, [page])
    return Report(path, loss.item(), len(steps.nodes), len(steps.steps), dict(steps.verdicts), len(page))


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path, links followed. StorageError if a page cannot be written there."""
    path = Path(os.path.realpath(path))
    with storing(path), suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise StorageError(f"{path}: is a folder: give the name of a file in it")
        if not stat.S_ISREG(mode) or not os.access(path, os.W_OK):
            raise StorageError(f"{path}: may not be written over: choose another place")
    with storing(path), TemporaryFile(dir=path.parent):
        return path


def _why(loss: Tensor) -> str:
    return "it is a leaf" if loss.requires_grad else loss.why_no_grad()


def _page(
    loss: Tensor,
    steps: Steps,
    text: dict[str, Any] | None,
    tables: Sequence[TokenTable],
    alignments: Sequence[AlignedText],
) -> str:
    data = {
        "loss": number(loss.item()),
        "n": len(steps.nodes),
        "notes": steps.notes,
        "steps": steps.steps,
        "ops": steps.ops,
        "arrays": steps.arrays,
        "modules": steps.module_rows,
        "leaves": steps.leaf_rows,
        "text": text,
        "tables": [table.to_dict() for table in tables],
        "alignments": [alignment.to_dict() for alignment in alignments],
    }
    island = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII alone
    for letter in "<>&":  # nothing in it ends the script element, whatever a name or a token holds
        island = island.replace(letter, f"\\u{ord(letter):04x}")
    folder = files(__package__) / "page"
    page, css, *js = (
        (folder / name).read_text(encoding="utf-8")
        for name in (
            "page.html",
            "page.css",
            "arrays.js",
            "graph.js",
            "tables.js",
            "attention.js",
            "text.js",
            "page.js",
        )
    )
    for place, content in (("/*css*/", css), ("/*js*/", "\n".join(js)), ("/*data*/", island)):
        page = page.replace(place, content, 1)
    return page
