"""One pair of a translator, to be looked into: the loss by which it is learned, and where the model looks while it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ..debug import AlignedText
from ..engine import Tensor
from ..errors import ConfigError
from ..ops import cross_entropy
from ..runs.folder import find_run
from ..text.view import visible
from .translate import PREDICTIONS_FILE
from .translator import Row, Translator, collate, write_targets

_SHOWN = 3  # pairs
_LONGEST = 2**20  # letters of a line that are read


def kept_pairs(run: str | os.PathLike[str]) -> list[tuple[str, str | None]]:
    """The first sources that a run was tested on, with their targets; those that it gets wrong come first. ConfigError for a run
    that has not come to its test.
    """
    found = find_run(run)
    path = (found[0] if found else Path(run)) / PREDICTIONS_FILE
    try:
        with path.open(encoding="utf-8") as file:
            lines = [json.loads(line[:_LONGEST]) for line in islice(file, _SHOWN)]
        pairs: list[tuple[str, str | None]] = [(str(line["source"]), str(line["expected"])) for line in lines]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pairs = []
    if not pairs:
        raise ConfigError(f"{path}: no pairs there that the run was tested on: give a source (--prompt TEXT)")
    return pairs


def pair_loss(translator: Translator, source: str, target: str | None) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The mean cross-entropy of the tokens of a target, by default of what the model writes, without label smoothing; the ids of
    the target between its marks (T + 1,), and which of them count: all but the mark that begins it.
    """
    (ids,) = translator.encode([source])
    if target is None:
        ((written, _),) = write_targets(translator.model, [ids])
    else:
        (written,) = translator.encode([target])
    config = translator.model.config
    source_ids, mask, target_ids, labels = collate([Row(ids, written)], config)
    loss = cross_entropy(translator.model(source_ids, target_ids, mask), targets=labels)
    whole = np.array([config.start_id, *written, config.end_id])  # (T + 1,)
    return loss, whole, np.arange(len(whole)) > 0


def align_pairs(translator: Translator, pairs: Sequence[tuple[str, str | None]]) -> list[AlignedText]:
    """Where the model looks while it writes to each source what it thinks is right."""
    found = []
    for (source, target), written in zip(pairs, translator.translate([source for source, _ in pairs]), strict=True):
        alignment = translator.align(source, written)
        right = "" if target in (None, written.text) else f" Right is: {target}"
        found.append(
            AlignedText(
                f"{source} → {written.text}",
                "Each row is a token that is written, each column one of the source; the weights of a row, by which the decoder "
                f"gathers what the encoder has made of the source, sum to 1.{right}",
                [*map(visible, alignment.source)],
                [*map(visible, alignment.target)],
                [f"decoder.{i}.cross_att" for i in range(len(alignment.weights))],
                alignment.weights,
            )
        )
    return found
