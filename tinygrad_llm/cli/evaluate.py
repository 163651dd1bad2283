"""`tinygrad-llm evaluate PATH`: judge a trained model."""

from __future__ import annotations

import argparse
import json
import textwrap

from . import weights

HELP = "judge a trained model: loss, perplexity, bits per byte, tasks, and how much it copies"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="PATH", help="folder of a run, for example runs/story, or other weights")
    weights.add_argument(parser)
    parser.add_argument(
        "--text",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text to judge it on (default: what the run kept for validation; other weights need one)",
    )
    parser.add_argument("--encoding", metavar="STR", help="of the files of --text (default: that of the run's text)")
    parser.add_argument(
        "--shots", type=int, default=0, metavar="INT", help="solved examples before each task (default: 0)"
    )
    parser.add_argument("--sample-tokens", type=int, default=200, metavar="INT", help="tokens to write (default: 200)")
    parser.add_argument("--seed", type=int, default=123, metavar="INT", help="of the sample (default: 123)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    from ..evaluation.evaluate import evaluate_run
    from ..evaluation.losses import split_words, words_or_characters

    result = evaluate_run(
        args.folder,
        *args.text,
        n_shots=args.shots,
        sample_tokens=args.sample_tokens,
        seed=args.seed,
        encoding=args.encoding,
        checkpoint=weights.chosen(args),
        adapter=args.adapter,
    )
    if args.json:
        print(json.dumps(result.to_dict()))
        return 0
    print(f"On {result.text}, {result.n_tokens:,} tokens:")
    print(f"  loss                {result.loss:10.3f}  nats per token")
    print(f"  perplexity          {result.perplexity:10.1f}")
    print(f"  bits per byte       {result.bits_per_byte:10.3f}")
    if result.last_word_accuracy is not None:
        print(f"  last words right    {result.last_word_accuracy:10.1%}  of {result.n_last_words}")
    if result.choice_accuracy is not None and result.choice_chance is not None:
        chance = f"guessing gives {result.choice_chance:.0%}"
        print(f"  choices right       {result.choice_accuracy:10.1%}  of {result.n_choices}; {chance}")
    if result.copied is not None:
        unit = words_or_characters(result.sample)
        copied = textwrap.shorten(result.copied, 200) if unit == "words" else result.copied[:200]
        print(
            f"Of the {len(split_words(result.sample))} {unit} it wrote, the longest run copied from the training text is ",
            end="",
        )
        print(f'{result.copied_words}: "{copied}"')
    return 0
