"""`tinygrad-llm lora merge RUN OUT` and `lora info RUN`: what LoRA there is, and weights without it."""

from __future__ import annotations

import argparse
import json

from . import weights

HELP = "fold the LoRA of a run or of an adapter into plain weights, or say what there is of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, help="merge or info")
    for name, about in {
        "merge": "write plain weights, in the form of transformers, with the LoRA folded in",
        "info": "say how much is trained, of how much, and how LoRA was put in",
    }.items():
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        action.add_argument("folder", metavar="PATH", help="folder of a run, or of an adapter in PEFT's form")
        if name == "merge":
            action.add_argument("out", metavar="OUT", help="folder to write: a new or empty one, or of an earlier call")
        weights.add_argument(action, adapter=False)
        action.add_argument(
            "--base",
            metavar="PATH",
            help="the weights that an adapter belongs to (default: what its configuration names)",
        )
        action.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..tuning.lora import info, lora_of, merge, open_model
    from ..weights import save_pretrained

    model, tokenizer = open_model(args.folder, args.base, weights.chosen(args))
    about = info(model)
    if args.action == "info":
        print(json.dumps(about.to_dict()) if args.json else about)
        return 0
    if lora_of(model) is None:
        raise ConfigError(
            f"{args.folder}: no LoRA there, so nothing is to be merged: tinygrad-llm convert writes it as it is"
        )
    merge(model, keep=False)
    save_pretrained(model, args.out, tokenizer)
    if args.json:
        print(json.dumps(about.to_dict() | {"out": args.out}))
    else:
        print(
            f"{args.out}: {model.n_parameters():,} parameters, with LoRA of rank {about.lora and about.lora.r} folded in"
        )
    return 0
