"""`tinygrad-llm step [RUN]`: walk through a backward pass, one derivative at a time."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from . import text_loss

HELP = "walk through a backward pass, one derivative at a time"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text_loss.add_arguments(parser)
    parser.add_argument("--expression", metavar="MATHS", help="a line of maths instead: 'a = 2; b = a + a; b * b'")


def run(args: argparse.Namespace) -> int:
    import tinygrad_llm as tg

    from ..debug.console import open_console
    from ..debug.expression import evaluate
    from ..errors import ConfigError

    if args.expression is not None and (args.folder is not None or args.prompt is not None):
        raise ConfigError("--expression stands alone: leave out RUN and --prompt")
    if args.expression is not None:
        with tg.composed() if args.composed else nullcontext():
            loss = evaluate(args.expression)
    else:
        loss = text_loss.open_text(args).loss
    open_console(loss)
    return 0
