"""Which weights a command takes: `--checkpoint best|last|STEP` of a run, and `--adapter FOLDER` for LoRA."""

from __future__ import annotations

import argparse
import sys

_BETTER = "best where validation is clearly better there, else last"


def add_argument(parser: argparse.ArgumentParser, *, adapter: bool = True, default: str = _BETTER) -> None:
    parser.add_argument(
        "--checkpoint",
        metavar="best|last|STEP",
        help="of a run: the weights of the lowest validation loss, those of the end, or those after so many steps, which "
        f"RUN/step-000118 says too (default: {default})",
    )
    if adapter:
        parser.add_argument("--adapter", metavar="FOLDER", help="LoRA in PEFT's form, to put into the model")


def chosen(args: argparse.Namespace) -> str | None:
    """What `--checkpoint` says; without it, the best if it is clearly better than the last, which stderr is told."""
    from ..runs.folder import better_weights

    if args.checkpoint is not None or args.folder is None or (found := better_weights(args.folder)) is None:
        return args.checkpoint
    best, last = found
    print(
        f"{args.folder}: the weights after step {best['step']} are taken, where validation loss is {best['val_loss']:.3f} "
        f"({last['val_loss']:.3f} at the end): --checkpoint last takes those of the end",
        file=sys.stderr,
    )
    return "best"
