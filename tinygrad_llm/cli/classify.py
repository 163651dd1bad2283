"""`tinygrad-llm classify [DATA]`: fine-tune a model as a classifier of texts."""

from __future__ import annotations

import argparse
import json
import sys

from ..tuning.options import ClassifyOptions
from .flags import add_flags, given

HELP = "train a classifier on labelled texts, from fresh weights or from a language model's"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. Texts that occur again are left out, classes balanced, and the rest parted into 70 %% to train on, 10 %% to "
        "validate with and 20 %% to test on; beside the model, what is simpler is judged on the same texts."
    )
    parser.add_argument(
        "data",
        nargs="?",
        metavar="DATA",
        help="CSV, TSV, JSON lines, a JSON array, or a folder with a folder of .txt files for each class; or what comes with the "
        "package: messages (spam and not, the default) or moods (of people in tales)",
    )
    parser.add_argument("--out", metavar="RUN", help="folder of the run (default: runs/ and the name of DATA)")
    parser.add_argument(
        "--init-from",
        metavar="PATH",
        help="begin with the weights and the tokenizer in this run, folder or file (default: fresh weights, and a tokenizer of "
        "the words of the texts to learn from); the learning rate is then 5e-5 at a width of 768, more for smaller ones",
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
    add_flags(
        parser,
        ClassifyOptions,
        {"fresh weights": ClassifyOptions.defaults(), "--init-from": ClassifyOptions.defaults(True)},
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, everything else on stderr")


def run(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..runs.progress import lasting
    from ..runs.tensorboard import TensorBoard, has_events
    from ..tuning.classify import classify, resume_classification

    options = given(args, ClassifyOptions)

    @lasting
    def report(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    loggers = [TensorBoard()] if args.tensorboard or (args.resume and has_events(args.resume)) else []
    if args.resume is not None:
        for name in ("data", "out", "init_from"):
            if (value := getattr(args, name)) is not None:
                raise ConfigError(f"{name} is {value!r}: a run that is resumed has its own: leave it out")
        result = resume_classification(args.resume, report=report, loggers=loggers, **options)
    else:
        data = "messages" if args.data is None else args.data
        result = classify(data, init_from=args.init_from, out=args.out, report=report, loggers=loggers, **options)
    if args.json:
        print(json.dumps(result.summary()))
    return 0
