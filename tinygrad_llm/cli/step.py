"""`tinygrad-llm step [RUN]`: walk through a backward pass, one derivative at a time."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

HELP = "walk through a backward pass, one derivative at a time"

_PROMPT = "Every effort moves you"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", metavar="RUN", help="folder of a trained run (default: a tiny GPT with random weights)"
    )
    parser.add_argument("--expression", metavar="MATHS", help="a line of maths instead: 'a = 2; b = a + a; b * b'")
    parser.add_argument(
        "--prompt", metavar="TEXT", help=f"the text whose loss is differentiated (default: {_PROMPT!r})"
    )
    parser.add_argument(
        "--composed", action="store_true", help="take the fused ops apart: softmax becomes exp, sum and divide"
    )


def run(args: argparse.Namespace) -> int:
    import tinygrad_llm as tg

    from ..debug.console import open_console
    from ..debug.expression import evaluate
    from ..errors import ConfigError

    if args.expression is not None and (args.folder is not None or args.prompt is not None):
        raise ConfigError("--expression stands alone: leave out RUN and --prompt")
    with tg.composed() if args.composed else nullcontext():
        if args.expression is not None:
            loss = evaluate(args.expression)
        else:
            loss = _loss_of_text(args.folder, _PROMPT if args.prompt is None else args.prompt)
        open_console(loss)
    return 0


def _loss_of_text(folder: str | None, text: str):  # type: ignore[no-untyped-def]
    """The mean cross-entropy of the text's next tokens, under a run's model or a tiny one that reads bytes."""
    import numpy as np

    from ..errors import DataError
    from ..models.gpt import GPTConfig, GPTModel
    from ..ops import cross_entropy
    from ..rng import Generator
    from ..training import load_run

    if folder is None:
        model = GPTModel(GPTConfig(256, 32, 16, 2, 2, drop_rate=0.0), rng=Generator(0)).eval()
        ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    else:
        model, tokenizer = load_run(folder)
        ids = np.asarray(tokenizer.encode(text), np.int64)
    ids = ids[: model.config.context_length + 1]
    if len(ids) < 2:
        raise DataError(
            f"--prompt {text!r} is {len(ids)} token(s): it must be two or more, so that one follows another"
        )
    return cross_entropy(model(ids[None, :-1]), targets=ids[None, 1:])
