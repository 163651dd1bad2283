"""`tinygrad-llm predict` of a classifier: classes, their probabilities, and because of which tokens."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tuning.predict import Explanation

_AGAINST, _FOR = (217, 224, 231, 194, 157), 2  # red to green of the 256-colour palette; the place of white


def predict(args: argparse.Namespace, texts: Sequence[str], model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """What is said of each text as JSON has it, printed unless --json asks for that."""
    from ..text.view import visible
    from ..tuning.predict import Classifier

    classifier = Classifier.of(model, tokenizer, args.folder, args.adapter)
    found = classifier.probabilities(texts)  # (N, K)
    predictions: list[dict[str, Any]] = []
    for text, p in zip(texts, found.tolist(), strict=True):
        label = classifier.classes[p.index(max(p))]
        prediction = {"label": label, "probabilities": dict(zip(classifier.classes, p, strict=True))}
        if args.explain:
            explained = classifier.explain(text, label)
            prediction["tokens"] = [
                {"token": visible(token), "share": share}
                for token, share in zip(explained.tokens, explained.shares.tolist(), strict=True)
            ]
        if not args.json:
            print(f"{label:12} {max(p):.3f}  {visible(text) if not args.explain else ''}".rstrip())
            if args.explain:
                print(_colored(explained) + "\n")
        predictions.append(prediction)
    return predictions


def _colored(explained: Explanation) -> str:
    """The tokens on colours from red, against the class, to green, for it, with their shares below."""
    from ..text.view import show_tokens, wants_color

    largest = max(abs(explained.shares).max(), 1e-12)
    backgrounds = [_AGAINST[_FOR + round(_FOR * share / largest)] for share in explained.shares.tolist()]
    below = [f"{share:+.3f}" for share in explained.shares.tolist()]
    width = shutil.get_terminal_size().columns
    return show_tokens(explained.tokens, below, width, wants_color(sys.stdout), backgrounds)
