"""`tinygrad-llm predict` of a model that guesses hidden words: the likeliest ones for [MASK]."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

_TOP = 5  # as the pipeline "fill-mask" of transformers


def predict(args: argparse.Namespace, texts: Sequence[str], model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """What may stand in place of [MASK] in each text as JSON has it, printed unless --json asks for that."""
    from ..errors import ConfigError
    from ..tuning.encoder import Encoder
    from ..weights.peft import load_adapter
    from .terminal import printable

    if args.explain:
        raise ConfigError("--explain is of classes and translations: for a hidden word leave it out")
    if args.adapter is not None:
        load_adapter(model, args.adapter)
    encoder, predictions = Encoder.of(model, tokenizer, args.folder), list[dict[str, Any]]()
    for text in texts:
        found = encoder.candidates(text, _TOP if args.top is None else args.top)
        predictions.append({"candidates": [{"token": token, "probability": p} for token, p in found]})
        if not args.json:
            print(printable(text))
            for token, p in found:
                print(f"  {p:.3f}  {printable(token)}")
    return predictions
