"""`tinygrad-llm instruct [DATA]`: teach a model to answer."""

from __future__ import annotations

import argparse
import json
import sys

from ..tuning.options import InstructOptions
from .flags import add_flags, given

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
        help="JSON array or JSON lines: Alpaca, prompt and completion, OpenAI's chat, ShareGPT, or texts (default: lessons that "
        "come with the package, see --kinds)",
    )
    parser.add_argument(
        "--out", metavar="RUN", help="folder of the run (default: runs/ and the name of DATA, or lessons)"
    )
    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="begin with the weights and the tokenizer in this run, folder or file (default: fresh weights, and a tokenizer of "
        "characters); the learning rate is then 5e-5 at a width of 768, more for smaller ones",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with this run from its newest checkpoint, to the bit as if it had not been stopped; options given beside it "
        "hold from now on",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing: show three texts as the model will see them, with what is not in the loss dimmed or in [brackets]",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write event files, for `tensorboard --logdir runs` (extra `tensorboard`)",
    )
    add_flags(
        parser,
        InstructOptions,
        {"fresh weights": InstructOptions.defaults(), "--init-from": InstructOptions.defaults(True)},
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, everything else on stderr")


def run(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..runs.progress import lasting
    from ..runs.tensorboard import TensorBoard, has_events
    from ..text.view import wants_color
    from ..tuning.instruct import instruct, resume_instruction, show_rows

    options = given(args, InstructOptions)

    @lasting
    def report(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    loggers = [TensorBoard()] if args.tensorboard or (args.resume and has_events(args.resume)) else []
    if args.resume is not None:
        for name in ("data", "out", "init_from"):
            if (value := getattr(args, name)) is not None:
                raise ConfigError(f"{name} is {value!r}: a run that is resumed has its own: leave it out")
        result = resume_instruction(args.resume, report=report, loggers=loggers, **options)
    elif args.dry_run:
        for line in show_rows(args.data, init_from=args.init_from, dim=wants_color(sys.stdout), **options):
            print(line)
        return 0
    else:
        result = instruct(args.data, init_from=args.init_from, out=args.out, report=report, loggers=loggers, **options)
    if args.json:
        print(json.dumps(result.summary()))
    return 0
