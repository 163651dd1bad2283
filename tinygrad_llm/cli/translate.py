"""`tinygrad-llm translate [PAIRS | SOURCE TARGET]`: train a model to translate."""

from __future__ import annotations

import argparse

from ..tuning.translate_options import TranslateOptions
from . import tuning

HELP = "train an encoder and a decoder to translate, from fresh weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. Sources that occur again are left out, and the rest parted into pairs to train on, to validate with and to "
        "test on; beside the model, what is simpler is judged on the same pairs."
    )
    parser.add_argument(
        "data",
        nargs="*",
        metavar="PAIRS",
        help="a file of pairs, with a tab between (a third column may say whose they are, as in Tatoeba), or two "
        "files, SOURCE and TARGET, whose lines belong together (default: phrases, English and German sentences that come with "
        "the package)",
    )
    tuning.add_arguments(parser, TranslateOptions, "runs/ and the name of PAIRS, or phrases", learned=False)


def run(args: argparse.Namespace) -> int:
    from ..tuning.translate import resume_translation, translate

    args.data = args.data or None
    return tuning.run(args, TranslateOptions, translate, resume_translation)
