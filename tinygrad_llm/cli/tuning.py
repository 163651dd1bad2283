"""What the commands that tune a model have in common: their arguments besides the data, and how a run begins or goes on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from ..tuning.options import TuningOptions
from .flags import add_flags, given


def add_arguments(
    parser: argparse.ArgumentParser, options: type[TuningOptions], out: str, fresh: str = "", *, learned: bool = True
) -> None:
    """`out`: what the folder is called by default; `fresh`: what there is without --init-from, if that can be left out; without
    `learned` there is no --init-from."""
    parser.add_argument("--out", metavar="RUN", help=f"folder of the run (default: {out})")
    if learned:
        parser.add_argument(
            "--init-from",
            metavar="PATH",
            help="begin with the weights and the tokenizer in this run, folder or file"
            + (f" (default: {fresh})" if fresh else "")
            + f"; the learning rate is then {options.lr_of_width / 768:.2g} at a width of 768, more for smaller ones",
        )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with this run from its newest checkpoint, to the bit as if it had not been stopped; options given beside it "
        "hold from now on",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files, for `tensorboard --logdir runs` (extra `tensorboard`)",
    )
    cases = {"fresh weights": options.defaults()} if fresh or not learned else {}
    if learned:
        cases["--init-from"] = {"lr": f"{options.lr_of_width:.3g} / the width"} | options.defaults(True)
    add_flags(parser, options, cases)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, everything else on stderr")


def run(
    args: argparse.Namespace, kind: type[TuningOptions], begin: Callable[..., Any], resume: Callable[..., Any]
) -> int:
    """Begin a run on args.data, or go on with one, and say what it came to."""
    from ..errors import ConfigError
    from ..runs.progress import lasting
    from ..runs.tensorboard import TensorBoard, has_events

    options = given(args, kind)

    @lasting
    def report(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    loggers = [TensorBoard()] if args.tensorboard or (args.resume and has_events(args.resume)) else []
    if args.resume is not None:
        for name in ("data", "out", "init_from"):
            if (value := getattr(args, name, None)) is not None:
                raise ConfigError(f"{name} is {value!r}: a run that is resumed has its own: leave it out")
        result = resume(args.resume, report=report, loggers=loggers, **options)
    else:
        data = () if args.data is None else (args.data,)
        if hasattr(args, "init_from"):
            options["init_from"] = args.init_from
        result = begin(*data, out=args.out, report=report, loggers=loggers, **options)
    if args.json:
        print(json.dumps(result.summary()))
    return 0
