"""`tinygrad-llm chat RUN`: talk with a model that was taught to answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import weights
from .terminal import printable, read_line

if TYPE_CHECKING:
    from ..tuning.assistant import Chat

HELP = "talk with a model that was taught to answer (instruct)"
COMMANDS = """\
/reset         begin anew
/undo          take back the last question and its answer
/retry         another answer to the last question
/system TEXT   what the model is told before everything (/system alone: nothing)
/temp NUMBER   0 takes the likeliest token, 1 the model's own odds
/why           the likeliest alternatives to each token of the last answer
/save FILE     write the conversation; /load FILE goes on with one
/help, /quit"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"{HELP}. Ctrl-C stops an answer. At the prompt:\n\n{COMMANDS}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="RUN", help="folder of a run of instruct, or other weights with --template")
    parser.add_argument("-p", "--prompt", metavar="TEXT", help="one question, and end after its answer")
    parser.add_argument(
        "--system", default="", metavar="TEXT", help="what the model is told before everything (default: nothing)"
    )
    parser.add_argument(
        "--template", metavar="NAME", help="how questions and answers are written down (default: the run's)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="FLOAT",
        help="0 takes the likeliest token, 1 the odds of the model (default: 0)",
    )
    parser.add_argument("--top-k", type=int, metavar="INT", help="choose among so many likeliest tokens")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="INT", help="of an answer (default: what is left of the context)"
    )
    parser.add_argument(
        "--seed", type=int, default=123, metavar="INT", help="of the answers, if they are drawn (default: 123)"
    )
    weights.add_argument(parser)
    parser.add_argument("--json", action="store_true", help="print answers as JSON: one object for each")


def run(args: argparse.Namespace) -> int:
    from ..rng import Generator
    from ..tuning.assistant import Assistant, Chat

    assistant = Assistant.load(args.folder, weights.chosen(args), args.adapter, args.template)
    options = {"temperature": args.temperature, "top_k": args.top_k, "rng": Generator(args.seed)}
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    chat = Chat(assistant, args.system, **options)
    if args.prompt is not None:
        _say(chat, chat.ask(args.prompt), args.json)
        return 0
    if sys.stdin.isatty():
        print("Ask, or /help; Ctrl-D ends.")
    while (line := read_line()) is not None:
        if line.startswith("/"):
            if line.split()[0] in ("/quit", "/q"):
                break
            _command(chat, line, args.json)
        elif line.strip():
            _try(chat, lambda asked=line: chat.ask(asked), args.json)
    return 0


def _try(chat: Chat, ask, as_json: bool) -> None:
    """An answer, or one line about why there is none; the conversation goes on."""
    from ..errors import TinygradLLMError

    try:
        _say(chat, ask(), as_json)
    except TinygradLLMError as error:
        print(error, file=sys.stderr)


def _say(chat: Chat, pieces: Iterator[str], as_json: bool) -> None:
    """Print an answer as it comes. Control characters are left out, Ctrl-C ends the answer."""
    written = ""
    try:
        for i, piece in enumerate(pieces):
            if i == 0 and chat.dropped:
                print(f"({chat.dropped} messages no longer fit, and are dropped from the front)", file=sys.stderr)
            written += piece
            if not as_json:
                print(printable(piece), end="", flush=True)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]
        print(" (stopped)", end="", file=sys.stderr)
    print(json.dumps({"answer": written}, ensure_ascii=False) if as_json else "", flush=True)


def _command(chat: Chat, line: str, as_json: bool) -> None:
    from ..checks import check_number
    from ..errors import TinygradLLMError
    from ..text.view import visible

    word, _, rest = line.partition(" ")
    rest = rest.strip()
    try:
        if word == "/reset":
            chat.messages.clear()
        elif word == "/undo":
            print("Taken back." if chat.undo() else "Nothing has been asked yet.", file=sys.stderr)
        elif word == "/retry":
            _try(chat, chat.retry, as_json)
        elif word == "/system":
            chat.system = rest
        elif word == "/temp":
            chat.options["temperature"] = check_number("temperature", float(rest))
        elif word in ("/save", "/load") and not rest:
            print(f"{word}: which file?", file=sys.stderr)
        elif word == "/save":
            chat.save(rest)
        elif word == "/load":
            chat.load(rest)
        elif word == "/why":
            for token, best in chat.why():
                print(f"{visible(token):14}", "  ".join(f"{visible(other)} {p:.3f}" for other, p in best))
        elif word == "/help":
            print(COMMANDS)
        else:
            print(f"there is no {word}: /help", file=sys.stderr)
    except (TinygradLLMError, ValueError) as error:
        print(f"{word}: {error}", file=sys.stderr)
