"""`tinygrad-llm generate RUN`: let a trained model write."""

from __future__ import annotations

import argparse
import json

HELP = "let a trained model go on from a prompt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of the run, for example runs/story")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="the text to go on from (default: the prompt of the run's samples)"
    )
    parser.add_argument("--max-new-tokens", type=int, default=100, metavar="INT", help="tokens to write (default: 100)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="FLOAT",
        help="0 takes the likeliest token each time, 1 the model's own odds (default: 0.8)",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="INT", help="choose among this many likeliest tokens (default: all)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="INT", help="same seed, same text (default: another text each time)"
    )
    parser.add_argument("--json", action="store_true", help="print prompt and text as JSON when all is written")


def run(args: argparse.Namespace) -> int:
    from ..generation import stream_text
    from ..rng import Generator
    from ..training import load_run
    from ..training.run import load_config

    model, tokenizer = load_run(args.folder)
    prompt = load_config(args.folder)["training"].get("prompt", "") if args.prompt is None else args.prompt
    rng = None if args.seed is None else Generator(args.seed)
    pieces = stream_text(model, tokenizer, prompt, args.max_new_tokens, args.temperature, args.top_k, rng=rng)
    if args.json:
        print(json.dumps({"prompt": prompt, "text": "".join(pieces)}))
        return 0
    print(prompt, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0
