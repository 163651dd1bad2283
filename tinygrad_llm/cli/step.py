"""`tinygrad-llm step [RUN]`: walk through a backward pass, one derivative at a time."""

from __future__ import annotations

import argparse

from . import text_loss

HELP = "walk through a backward pass, one derivative at a time"
add_arguments = text_loss.add_arguments


def run(args: argparse.Namespace) -> int:
    from ..debug.console import open_console

    open_console(text_loss.open_text(args).loss)
    return 0
