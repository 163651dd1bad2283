"""From whatever form to the one that everything reads: a folder with safetensors."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ..formats.open import open_weights
from ..models import LanguageModel
from ..runs.folder import is_run
from ..text import Tokenizer
from .load import load_pretrained, read_pair
from .save import save_pretrained


def convert(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], *, n_heads: int | None = None
) -> tuple[LanguageModel, Tokenizer | None]:
    """Read weights in any form, PyTorch's among them, and write them with `save_pretrained`; returns what was read.

    Pickles are read by a list of the few things that may be in them, and nothing in them is called; a warning says so.
    """
    source_path = Path(path)
    if is_run(source_path):
        model, tokenizer = load_pretrained(source_path)
    else:
        with open_weights(source_path, pickles=True) as source:
            if source.form == "PyTorch":
                warnings.warn(
                    f"{source.path}: a pickle, which other programs run when they load it; only its numbers are read here",
                    RuntimeWarning,
                    stacklevel=2,
                )
            wide = any(info.dtype.lower() in ("f64", "float64") for info in source.infos.values())
            model, tokenizer = read_pair(source, np.float64 if wide else np.float32, n_heads=n_heads, pickles=True)
    save_pretrained(model, folder, tokenizer)
    return model, tokenizer
