"""`tinygrad-llm predict` of a translator: texts in another language, and where each token of them has looked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tuning.translator import Alignment

_LENGTH_PENALTY = 0.6  # Vaswani et al. 2017 §6.1


def predict(args: argparse.Namespace, texts: Sequence[str], model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """What is written to each text as JSON has it, printed unless --json asks for that."""
    from ..errors import ConfigError
    from ..tuning.translator import Translator
    from .terminal import printable

    if args.adapter is not None:
        raise ConfigError(f"--adapter is {args.adapter!r}: a translator takes none: leave it out")
    if not args.explain and (args.layer, args.head) != (None, None):
        raise ConfigError("--layer and --head say what --explain shows: give it too, or leave them out")
    translator = Translator.of(model, tokenizer, args.folder)
    beams = 1 if args.beams is None else args.beams
    penalty = _LENGTH_PENALTY if args.length_penalty is None else args.length_penalty
    predictions: list[dict[str, Any]] = []
    for text, found in zip(texts, translator.translate(texts, beams, penalty), strict=True):
        prediction: dict[str, Any] = {"translation": found.text, "score": found.score}
        if args.explain:
            alignment = translator.align(text, found)
            source, target, weights = alignment.shown(args.layer, args.head)
            prediction |= {"source": source, "target": target, "attention": weights.astype(float).round(4).tolist()}
        if not args.json:
            print(printable(found.text))
            if args.explain:
                print(_table(alignment, args.layer, args.head) + "\n")
        predictions.append(prediction)
    return predictions


def _table(alignment: Alignment, layer: int | None, head: int | None) -> str:
    """A row for each token that was written, a column for each of the source, in hundredths; 0 is left out."""
    from ..text.view import show_table, wants_color

    source, target, weights = alignment.shown(layer, head)
    return show_table(target, source, weights, wants_color(sys.stdout))
