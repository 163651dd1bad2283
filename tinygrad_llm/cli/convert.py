"""`tinygrad-llm convert SRC DEST`: weights in any form that can be read, written as a folder that transformers opens."""

from __future__ import annotations

import argparse
import json

from . import weights

HELP = (
    "turn weights (a run, .pth, .pt, .bin, llama2.c's, rwkv.cpp's, TensorFlow, safetensors) into a folder that transformers "
    "and we open"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="SRC", help="a file or folder with weights")
    parser.add_argument("destination", metavar="DEST", help="the folder to write")
    weights.add_argument(parser, adapter=False)
    parser.add_argument("--n-heads", type=int, metavar="INT", help="attention heads, where the weights do not say")
    parser.add_argument(
        "--rotary",
        choices=("halves", "interleaved"),
        help="rotary pairs of a Llama, where the form of the weights says it wrongly",
    )
    parser.add_argument("--json", action="store_true", help="print what was read as JSON")


def run(args: argparse.Namespace) -> int:
    from ..weights import convert

    model, tokenizer, report = convert(
        args.folder, args.destination, n_heads=args.n_heads, checkpoint=weights.chosen(args), rotary=args.rotary
    )
    if args.json:
        about = {"folder": args.destination, "model": model.config.to_dict(), "tokenizer": tokenizer and tokenizer.name}
        print(json.dumps(about | {"notes": report.notes}))
        return 0
    print(report)
    print(f"  tokenizer: {tokenizer or 'none beside the weights'}")
    print(f"In {args.destination}, {model.n_parameters():,} parameters: tinygrad-llm inspect {args.destination}")
    return 0
