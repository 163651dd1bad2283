"""`tinygrad-llm predict RUN TEXT...`: of which class are these texts?"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

from . import weights

if TYPE_CHECKING:
    from ..tuning.predict import Explanation

HELP = "ask a classifier of which class texts are, and because of which words"

_AGAINST, _FOR = (217, 224, 231, 194, 157), 2  # red to green of the 256-colour palette; the place of white


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of a run of classify, or a classifier of transformers")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts (default: a text a line from standard input)")
    parser.add_argument("--file", metavar="FILE", help="a text a line, in UTF-8; - for standard input")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also say how far each token speaks for the class: gradient times input, in colours where the terminal has them",
    )
    weights.add_argument(parser, default="last")
    parser.add_argument("--json", action="store_true", help="print labels and probabilities as JSON")


def run(args: argparse.Namespace) -> int:
    from ..text.view import visible
    from ..tuning.predict import Classifier

    texts = _texts(args)
    classifier = Classifier.load(args.folder, args.checkpoint, args.adapter)
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
    if args.json:
        print(json.dumps(predictions[0] if len(predictions) == 1 else {"predictions": predictions}, ensure_ascii=False))
    return 0


def _texts(args: argparse.Namespace) -> list[str]:
    from ..errors import ConfigError, DataError
    from ..text import read_text

    if args.texts and args.file is not None:
        raise ConfigError("TEXT and --file together: give one of them")
    if args.texts:
        return args.texts
    if args.file in (None, "-"):
        if sys.stdin.isatty():
            raise ConfigError("no text: give TEXT, --file FILE, or a text a line on standard input")
        try:
            whole, name = sys.stdin.buffer.read().decode("utf-8"), "standard input"
        except UnicodeDecodeError as error:
            raise DataError(f"standard input: not UTF-8 at byte {error.start}") from error
    else:
        whole, name = read_text(args.file), args.file
    texts = [line for line in whole.splitlines() if line.strip()]
    if not texts:
        raise DataError(f"{name}: no text there: give one a line")
    return texts


def _colored(explained: Explanation) -> str:
    """The tokens on colours from red, against the class, to green, for it, with their shares below."""
    from ..text.view import show_tokens, wants_color

    largest = max(abs(explained.shares).max(), 1e-12)
    backgrounds = [_AGAINST[_FOR + round(_FOR * share / largest)] for share in explained.shares.tolist()]
    below = [f"{share:+.3f}" for share in explained.shares.tolist()]
    width = shutil.get_terminal_size().columns
    return show_tokens(explained.tokens, below, width, wants_color(sys.stdout), backgrounds)
