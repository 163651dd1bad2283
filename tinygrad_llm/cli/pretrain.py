"""`tinygrad-llm pretrain [FILE ...]`: train a model on text files, or on the story that comes with the package."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ..training.pretrain_options import PretrainOptions
from .flags import add_flags, given

if TYPE_CHECKING:
    from ..training.masked_words import MaskedResult
    from ..training.result import PretrainResult

HELP = "train a language model, or a BERT on hidden words, on text files, on the bundled short story, or on tales"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="text files (default: the bundled story, or tales with --preset tales, tales-llama or tales-bert)",
    )
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run (default: runs/ and the name of the first file)"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with this run from its newest checkpoint, to the bit as if it had not been stopped; FILE and options "
        "given beside it are what is to be different from now on",
    )
    parser.add_argument(
        "--weights-only",
        action="store_true",
        help="with --resume: take only the weights, and begin a new run with them; the old one is kept beside it",
    )
    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="begin with the weights and the tokenizer in this folder or file, in any form that can be loaded; the defaults "
        "are those of 124M",
    )
    parser.add_argument(
        "--general-text",
        metavar="FILE",
        help="with --init-from: a text of another kind, on which the loss is measured before and after (default: the story)",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files, for `tensorboard --logdir runs` (extra `tensorboard`); a run that has them goes on with "
        "them when resumed",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="JSON with the options to go from, which those given beside it change: a run's config.json, or its training part",
    )
    add_flags(
        parser, PretrainOptions, {name: PretrainOptions.defaults(name) for name in ("story", "124M", "tales-bert")}
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, everything else on stderr")


def run(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..runs.progress import lasting
    from ..runs.tensorboard import TensorBoard, has_events
    from ..training import continue_pretraining, pretrain, resume

    options = given(args, PretrainOptions)
    if args.config is not None and (args.resume is not None or args.init_from is not None):
        raise ConfigError("--config is for a new model: a run that is resumed, or --init-from, has options of its own")

    @lasting
    def report(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    loggers = [TensorBoard()] if args.tensorboard or (args.resume and has_events(args.resume)) else []
    result: PretrainResult | MaskedResult
    if args.resume is None:
        if args.weights_only:
            raise ConfigError("--weights-only says how to --resume RUN: which run?")
        if args.init_from is not None:
            result = continue_pretraining(
                args.init_from,
                *args.files,
                general_text=args.general_text,
                out=args.out,
                report=report,
                loggers=loggers,
                **options,
            )
        elif args.general_text is not None:
            raise ConfigError("--general-text is for --init-from PATH: a new model knows no other text")
        else:
            result = pretrain(*args.files, out=args.out, config=args.config, report=report, loggers=loggers, **options)
    else:
        if args.init_from is not None or args.general_text is not None:
            raise ConfigError("--init-from begins a new run: leave out --resume")
        if args.out is not None:
            raise ConfigError("--out is for a new run: a resumed one stays in its folder")
        result = resume(
            args.resume, *args.files, weights_only=args.weights_only, report=report, loggers=loggers, **options
        )
    if args.json:
        print(json.dumps(result.summary()))
    return 0
