"""The command line: `tinygrad-llm COMMAND ...`, the same as `python -m tinygrad_llm COMMAND ...`.

Exit codes: 0 done; 1 `doctor` found something wrong; 2 wrong use or input, or an output that cannot be written (one line on
stderr); 129, 130 and 143 stopped by a hang-up, Ctrl-C and SIGTERM; 141 nobody reads the output. A training run goes on without
its output, and ends with that code. A stream that is closed from the beginning is not missed.
"""

from __future__ import annotations

import argparse
import errno
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..checks import did_you_mean
from ..errors import TinygradLLMError
from . import (
    bench,
    chat,
    classify,
    convert,
    doctor,
    embed,
    estimate,
    evaluate,
    generate,
    inspect,
    instruct,
    lora,
    predict,
    prefer,
    pretrain,
    report,
    runs,
    step,
    tokenize,
    translate,
)
from .streams import OutputLost, standard_streams

COMMANDS = {  # a module with HELP, add_arguments(parser) and run(args) each
    "pretrain": pretrain,
    "classify": classify,
    "translate": translate,
    "predict": predict,
    "embed": embed,
    "instruct": instruct,
    "chat": chat,
    "prefer": prefer,
    "generate": generate,
    "evaluate": evaluate,
    "tokenize": tokenize,
    "estimate": estimate,
    "bench": bench,
    "doctor": doctor,
    "runs": runs,
    "step": step,
    "report": report,
    "convert": convert,
    "inspect": inspect,
    "lora": lora,
}


class Parser(argparse.ArgumentParser):
    """argparse with errors on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")


def build_parser() -> Parser:
    debug = Parser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    parser = Parser(
        prog="tinygrad-llm",
        description="Build, train and use language models in nothing but NumPy.",
        parents=[debug],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tinygrad-llm {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, module in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=module.HELP, description=module.HELP, parents=[debug], allow_abbrev=False
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run, parser=subparser)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; for an unknown command or option the process exits with 2 and the nearest one that exists."""
    parser = build_parser()
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        parser.error(f"unknown command {command!r}" + did_you_mean(command, COMMANDS))
    args, unknown = parser.parse_known_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if unknown:
        option = unknown[0].split("=")[0]
        args.parser.error(f"unknown option {option!r}" + did_you_mean(option, args.parser._option_string_actions))
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    with standard_streams():
        try:
            try:
                return run(argv)
            finally:
                sys.stdout.flush()
        except OutputLost as error:
            if error.errno == errno.EPIPE:
                return 141
            print(f"tinygrad-llm: standard output cannot be written: {error.strerror}", file=sys.stderr)
            return 2


def run(argv: Sequence[str] | None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)

    def warn(message: Warning | str, *_: object) -> None:
        print(f"tinygrad-llm {args.command}: warning: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = warn  # type: ignore[assignment]
            return args.run(args)
    except TinygradLLMError as error:
        if hasattr(args, "debug"):
            raise
        print(f"tinygrad-llm {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
