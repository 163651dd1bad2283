"""`tinygrad-llm predict RUN TEXT...`: of which class are these texts, which word is hidden, or what are they translated?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from . import weights

HELP = "ask a classifier of which class texts are, and why; a BERT which word is hidden; a translator what texts are translated"

# By what the model predicts (Model.predicts; classes, where it has a head for these): the module of this folder whose
# predict(args, texts, model, tokenizer) says it.
KINDS = {"classes": "predict_classes", "words": "predict_words", "translations": "predict_translations"}
# Options of one kind alone.
_OF = {"words": ("top",), "translations": ("beams", "length_penalty", "layer", "head")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        metavar="RUN",
        help="folder of a run of classify, translate or pretrain --architecture bert, or such a model of transformers",
    )
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts (default: a text a line from standard input)")
    parser.add_argument("--file", metavar="FILE", help="a text a line, in UTF-8; - for standard input")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="also say how far each token speaks for the class: gradient times input, in colours where the terminal has them; of "
        "a translation, on which tokens of the source each one has looked, in hundredths",
    )
    translations = parser.add_argument_group("of translations")
    translations.add_argument(
        "--beams",
        type=int,
        metavar="INT",
        help="texts that the search follows (default: 1, the likeliest token each time)",
    )
    translations.add_argument(
        "--length-penalty",
        type=float,
        metavar="FLOAT",
        help="of the score, log P / ((5 + length) / 6)^penalty: the larger, the longer are the texts that a search finds "
        "(default: 0.6)",
    )
    translations.add_argument(
        "--layer", type=int, metavar="INT", help="whose attention --explain shows, from 1 on (default: the last)"
    )
    translations.add_argument(
        "--head", type=int, metavar="INT", help="of that layer, from 1 on (default: the mean of all its heads)"
    )
    words = parser.add_argument_group("of hidden words")
    words.add_argument(
        "--top", type=int, metavar="INT", help="words for the [MASK] of a text, the likeliest ones (default: 5)"
    )
    weights.add_argument(parser, default="last")
    parser.add_argument("--json", action="store_true", help="print what is predicted as JSON")


def run(args: argparse.Namespace) -> int:
    from importlib import import_module

    from ..errors import ConfigError
    from ..weights.load import load_pretrained

    texts = _texts(args)
    model, tokenizer = load_pretrained(args.folder, checkpoint=args.checkpoint)
    predicted = model.predicts if getattr(model, "classes", None) is None else "classes"
    for kind, names in _OF.items():
        for name in names if kind != predicted else ():
            if (value := getattr(args, name)) is not None:
                raise ConfigError(f"{name} is {value}: it is for {kind}, and {args.folder} makes none: leave it out")
    module = import_module(f".{KINDS[predicted]}", __package__)
    predictions: list[dict[str, Any]] = module.predict(args, texts, model, tokenizer)
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
