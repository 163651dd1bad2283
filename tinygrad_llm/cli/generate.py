"""`tinygrad-llm generate PATH`: let a trained model write."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..generation.sampling import Strategy

if TYPE_CHECKING:
    from ..generation import Step
    from ..text import Tokenizer

HELP = "let a trained model go on from a prompt"

_TYPES: dict[str, Any] = {"top_k": int, "no_repeat_ngram": int}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="PATH", help="folder of a run, for example runs/story, or other weights")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="the text to go on from (default: the prompt of the run's samples)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=100, metavar="INT", help="tokens to write (default: 100)")
    for option in fields(Strategy):
        if option.name == "logit_bias":
            continue
        kind = _TYPES.get(option.name, float)
        default = 0.8 if option.name == "temperature" else option.default
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type=kind,
            default=default,
            metavar=kind.__name__.upper(),
            help=f"{option.metadata['help']} (default: {'off' if default is None else default})",
        )
    parser.add_argument(
        "--logit-bias",
        type=_bias,
        action="append",
        metavar="ID=FLOAT",
        help="add this to the score of a token, -inf forbids it; may be given several times",
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given several times"
    )
    parser.add_argument(
        "--show-candidates",
        type=int,
        nargs="?",
        const=5,
        metavar="INT",
        help="print, instead of the text, the likeliest tokens at each step, their probabilities and the entropy "
        "of the choice (5 tokens unless a number is given)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="INT", help="same seed, same text (default: another text each time)"
    )
    parser.add_argument("--json", action="store_true", help="print prompt and text as JSON when all is written")


def run(args: argparse.Namespace) -> int:
    from ..checks import check_integer
    from ..errors import ConfigError
    from ..generation import stream_text
    from ..rng import Generator
    from ..runs.folder import is_run, load_config
    from ..weights.load import load_with_tokenizer

    if args.show_candidates is not None:
        check_integer("--show-candidates", args.show_candidates)
    model, tokenizer = load_with_tokenizer(args.folder)
    if args.prompt is None and not is_run(Path(args.folder)):
        raise ConfigError(
            f"{args.folder} is not a run, which would have a prompt of its own: give one with --prompt TEXT"
        )
    prompt = load_config(args.folder)["training"].get("prompt", "") if args.prompt is None else args.prompt
    strategy = {option.name: getattr(args, option.name) for option in fields(Strategy)}
    strategy["logit_bias"] = dict(args.logit_bias or ())
    steps: list[dict[str, Any]] = []

    def on_step(step: Step) -> None:
        steps.append(candidates(step, tokenizer, args.show_candidates))
        if not args.json:
            print(format_candidates(len(steps), steps[-1]), flush=True)

    pieces = stream_text(
        model,
        tokenizer,
        prompt,
        args.max_new_tokens,
        stop=args.stop,
        stop_ids=[] if tokenizer.eot_id is None else [tokenizer.eot_id],
        on_step=on_step if args.show_candidates is not None else None,
        rng=None if args.seed is None else Generator(args.seed),
        **strategy,
    )
    if args.json:
        result: dict[str, Any] = {"prompt": prompt, "text": "".join(pieces)}
        print(json.dumps(result | ({"steps": steps} if args.show_candidates is not None else {})))
        return 0
    if args.show_candidates is not None:
        print(prompt + "".join(pieces))
        return 0
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def candidates(step: Step, tokenizer: Tokenizer, n: int) -> dict[str, Any]:
    """What one token was chosen from: the n likeliest, their probabilities, and the entropy of the choice in nats."""
    import numpy as np

    from ..generation.sampling import entropy

    logprobs = step.distribution  # (1, V)
    order = np.argsort(-logprobs[0], kind="stable")[:n]
    return {
        "chosen": tokenizer.decode([int(step.ids[0])]),
        "logprob": float(step.logprobs[0]),
        "entropy": float(entropy(logprobs)[0]),
        "candidates": [
            [tokenizer.decode([i]), float(np.exp(logprobs[0, i]))] for i in order.tolist() if logprobs[0, i] > -np.inf
        ],
    }


def format_candidates(number: int, step: dict[str, Any]) -> str:
    likeliest = "  ".join(f"{token!r} {p:.3f}" for token, p in step["candidates"])
    return f"{number:>4}  {step['chosen']!r:<14} entropy {step['entropy']:.3f}   {likeliest}"


def _bias(text: str) -> tuple[int, float]:
    i, _, bias = text.partition("=")
    try:
        return int(i), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an id, = and a number, such as 50256=-inf") from None
