"""`tinygrad-llm report [RUN]`: a backward pass and what the model makes of a text, as one page for a browser."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from . import text_loss

HELP = "write a page that steps through the backward of a text, with attention and logit lens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text_loss.add_arguments(parser)
    parser.add_argument(
        "-o",
        "--output",
        default="report.html",
        metavar="FILE",
        help="the page (default: report.html); replaced if there",
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")


def run(args: argparse.Namespace) -> int:
    from ..debug.report import check_path, report

    check_path(args.output)
    text = text_loss.open_text(args)
    written = report(
        text.loss,
        args.output,
        model=None if text.alignments else text.model,
        ids=None if text.alignments else text.ids,
        tokenizer=text.tokenizer,
        counted=text.counted,
        tables=text.tables,
        alignments=text.alignments,
    )
    tables = {"tables": [table.to_dict() for table in text.tables]} if text.tables else {}
    print(json.dumps(asdict(written) | {"path": str(written.path)} | tables) if args.json else written)
    return 0
