"""From whatever form to the one that everything reads: a folder with safetensors."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ..formats.open import open_weights
from ..runs.folder import find_run
from .load import Loaded, load_pretrained, read_all
from .save import save_pretrained


def convert(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    n_heads: int | None = None,
    checkpoint: str | int | None = None,
    rotary: str | None = None,
) -> Loaded:
    """Read weights in any form, PyTorch's among them, and write them with `save_pretrained`.

    Returns what was read: model, tokenizer and report, as `load_pretrained` does, whose options `n_heads` and `rotary` are.

    Pickles are read by a list of the few things that may be in them, and nothing in them is called; a warning says so.
    """
    source_path = Path(path)
    if find_run(source_path, checkpoint):
        loaded = load_pretrained(source_path, report=True, checkpoint=checkpoint)
    else:
        with open_weights(source_path, pickles=True) as source:
            if source.form == "PyTorch":
                warnings.warn(
                    f"{source.path}: a pickle, which other programs run when they load it; only its numbers are read here",
                    RuntimeWarning,
                    stacklevel=2,
                )
            wide = any(info.dtype.lower() in ("f64", "float64") for info in source.infos.values())
            loaded = read_all(source, np.float64 if wide else np.float32, n_heads=n_heads, rotary=rotary, pickles=True)
    model, tokenizer, _ = loaded
    save_pretrained(model, folder, tokenizer)
    return loaded
