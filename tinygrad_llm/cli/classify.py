"""`tinygrad-llm classify [DATA]`: fine-tune a model as a classifier of texts."""

from __future__ import annotations

import argparse

from ..tuning.options import ClassifyOptions
from . import tuning

HELP = "train a classifier on labelled texts, from fresh weights or from a language model's"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. Texts that occur again are left out, classes balanced, and the rest parted into 70 %% to train on, 10 %% to "
        "validate with and 20 %% to test on; beside the model, what is simpler is judged on the same texts."
    )
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="CSV, TSV, JSON lines, a JSON array, or a folder with a folder of .txt files for each class; or what comes with the "
        "package: messages (spam and not, the default) or moods (of people in tales)",
    )
    fresh = "fresh weights, and a tokenizer of the words of the texts to learn from"
    tuning.add_arguments(parser, ClassifyOptions, "runs/ and the name of DATA", fresh)


def run(args: argparse.Namespace) -> int:
    from ..tuning.classify import classify, resume_classification

    return tuning.run(args, ClassifyOptions, classify, resume_classification)
