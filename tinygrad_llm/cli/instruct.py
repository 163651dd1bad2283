"""`tinygrad-llm instruct [DATA]`: teach a model to answer."""

from __future__ import annotations

import argparse
import sys

from ..tuning.options import InstructOptions
from . import tuning
from .flags import given

HELP = "teach a language model to answer, on instructions or conversations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. Of a file, the first 85 %% are to train on, the next 10 to test on, the rest to validate with; the "
        "questions of the test are asked before training and after."
    )
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="JSON array or JSON lines: Alpaca, prompt and completion, OpenAI's chat, or ShareGPT (default: lessons that come "
        "with the package, see --kinds)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: show three texts as the model will see them, with what is not in the loss dimmed or in [brackets]",
    )
    fresh = "fresh weights, and a tokenizer of characters"
    tuning.add_arguments(parser, InstructOptions, "runs/ and the name of DATA, or lessons", fresh)


def run(args: argparse.Namespace) -> int:
    from ..text.view import wants_color
    from ..tuning.instruct import instruct, resume_instruction, show_rows

    if not args.dry_run:
        return tuning.run(args, InstructOptions, instruct, resume_instruction)
    dim, options = wants_color(sys.stdout), given(args, InstructOptions)
    for line in show_rows(args.data, init_from=args.init_from, dim=dim, **options):
        print(line)
    return 0
