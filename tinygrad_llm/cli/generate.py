"""`tinygrad-llm generate PATH`: let a trained model write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..generation.sampling import Strategy
from . import weights

if TYPE_CHECKING:
    from ..generation import Stage, Step
    from ..text import Tokenizer

HELP = "let a trained model go on from a prompt"

_TYPES: dict[str, Any] = {"top_k": int, "no_repeat_ngram": int}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="PATH", help="folder of a run, for example runs/story, or other weights")
    weights.add_argument(parser)
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
        "--explain",
        type=int,
        nargs="?",
        const=1,
        metavar="INT",
        help="print how one new token is chosen, stage by stage, from the model's scores to the draw "
        "(the first unless a number is given), and end with it",
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
    from ..runs.folder import find_run, load_config
    from ..weights.load import load_with_tokenizer

    if args.show_candidates is not None:
        check_integer("--show-candidates", args.show_candidates)
    if args.explain is not None and args.show_candidates is not None:
        raise ConfigError("--explain and --show-candidates together: one is about one token, the other about all")
    if args.explain is not None and not 1 <= args.explain <= args.max_new_tokens:
        raise ConfigError(
            f"--explain is {args.explain}: it must be one of the {args.max_new_tokens} new tokens, 1 or more"
        )
    checkpoint = weights.chosen(args)
    run = find_run(args.folder, checkpoint)
    model, tokenizer = load_with_tokenizer(args.folder, checkpoint, args.adapter)
    if args.prompt is None and not run:
        raise ConfigError(
            f"{args.folder} is not a run, which would have a prompt of its own: give one with --prompt TEXT"
        )
    prompt = load_config(run[0])["training"].get("prompt", "") if run and args.prompt is None else args.prompt
    strategy = {option.name: getattr(args, option.name) for option in fields(Strategy)}
    strategy["logit_bias"] = dict(args.logit_bias or ())
    steps: list[dict[str, Any]] = []

    def on_step(step: Step) -> None:
        steps.append(candidates(step, tokenizer, args.show_candidates))
        if not args.json:
            print(format_candidates(len(steps), steps[-1]), flush=True)

    stages: list[list[Stage]] = []  # of each token

    def on_stage(stage: Stage) -> None:
        if stage.name == "logits":
            stages.append([])
        stages[-1].append(stage)

    pieces = stream_text(
        model,
        tokenizer,
        prompt,
        args.max_new_tokens if args.explain is None else args.explain,
        stop=args.stop,
        stop_ids=[] if tokenizer.eot_id is None else [tokenizer.eot_id],
        on_step=on_step if args.show_candidates is not None else None,
        on_stage=on_stage if args.explain is not None else None,
        rng=None if args.seed is None else Generator(args.seed),
        **strategy,
    )
    if args.explain is not None:
        text = "".join(pieces)
        if len(stages) < args.explain:
            raise ConfigError(f"--explain is {args.explain}: the text ends after {len(stages)} tokens: {text!r:.80}")
        explained = explain(stages[-1], tokenizer)
        if args.json:
            print(json.dumps({"prompt": prompt, "text": text, "stages": explained}))
        else:
            print("\n".join([*map(format_stage, explained), prompt + text]))
        return 0
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
        "chosen": _text(int(step.ids[0]), tokenizer),
        "logprob": float(step.logprobs[0]),
        "entropy": float(entropy(logprobs)[0]),
        "candidates": [
            [_text(i, tokenizer), float(np.exp(logprobs[0, i]))] for i in order.tolist() if logprobs[0, i] > -np.inf
        ],
    }


def format_candidates(number: int, step: dict[str, Any]) -> str:
    likeliest = "  ".join(f"{token!r} {p:.3f}" for token, p in step["candidates"])
    return f"{number:>4}  {step['chosen']!r:<14} entropy {step['entropy']:.3f}   {likeliest}"


def explain(stages: Sequence[Stage], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The stages of one token's choice, as JSON: the five best tokens at each, how many are left, and what the draw did."""
    import numpy as np

    rows: list[dict[str, Any]] = []
    kind = "score"
    cumulative = np.zeros((1, 1))
    for stage in stages:
        row: dict[str, Any] = {"stage": stage.name}
        if stage.name in ("draw", "greedy"):
            i = int(stage.values[0])
            row["token"], row["id"] = _text(i, tokenizer), i
            if stage.name == "draw":
                total = cumulative[0, -1]
                row["at"] = float(stage.setting[0])
                row["from"], row["to"] = (
                    float((cumulative[0, i - 1] if i else 0.0) / total),
                    float(cumulative[0, i] / total),
                )
        elif stage.name == "cumulative":
            cumulative = stage.values
            continue
        else:
            kind = "probability" if stage.name == "temperature" else kind
            values = stage.values[0].astype(np.float64)  # (V,)
            best = [i for i in np.argsort(-values, kind="stable")[:5].tolist() if values[i] > -np.inf]
            shown = np.exp(values) if kind == "probability" else values
            bias = stage.name == "logit_bias"
            row["setting"] = f"{len(stage.setting)} tokens" if bias else stage.setting
            row["left"] = int((values > -np.inf).sum())
            row[kind] = [[_text(i, tokenizer), float(shown[i])] for i in best]
        rows.append(row)
    return rows


def _text(i: int, tokenizer: Tokenizer) -> str:
    """The token with this id, and the space it begins with; a model may have more rows than its tokenizer has ids."""
    return "".join(tokenizer.decode_stream([i])) if i not in tokenizer.unused_ids(i + 1) else f"id {i}"


def format_stage(row: dict[str, Any]) -> str:
    if row["stage"] == "greedy":
        return f"greedy: the highest score is that of {row['token']!r}, id {row['id']}"
    if row["stage"] == "draw":
        return (
            f"draw: {row['at']:.4f} of the way along the probabilities in the order of ids is {row['token']!r}, id {row['id']}, "
            f"which reaches from {row['from']:.4f} to {row['to']:.4f}"
        )
    setting = "" if row["setting"] is None else f" {row['setting']}"
    best = "  ".join(f"{token!r} {value:.3f}" for token, value in row["score" if "score" in row else "probability"])
    return f"{row['stage'] + setting:<24} {row['left']:>7,} tokens   {best}"


def _bias(text: str) -> tuple[int, float]:
    i, _, bias = text.partition("=")
    try:
        return int(i), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an id, = and a number, such as 50256=-inf") from None
