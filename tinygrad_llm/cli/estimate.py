"""`tinygrad-llm estimate`: what a model would take, from its sizes alone."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "parameters, FLOPs, memory and training cost of a model, without making it"
_SIZES = {
    "vocab_size": "entries of the token table",
    "context_length": "tokens that the model sees at once",
    "emb_dim": "width of the model",
    "n_heads": "attention heads in each layer",
    "n_layers": "transformer blocks",
    "n_kv_heads": "key and value heads in each layer, if fewer",
    "head_dim": "features of a head, if not emb_dim / n_heads",
    "hidden_dim": "width of the feed-forward layers, if not as usual",
    "window": "tokens that a layer looks back, if not all",
    "global_every": "with --window, each so many-th layer sees all tokens",
}
_DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..models import PRESETS

    parser.add_argument(
        "--preset", choices=PRESETS, default="124M", metavar="NAME", help=f"{', '.join(PRESETS)} (default: 124M)"
    )
    for name, help in _SIZES.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, metavar="INT", help=help)
    for name, help in {
        "qkv_bias": "biases on queries, keys and values",
        "bias": "biases on all other layers, and shifts in the norms (default: there are)",
        "tie_weights": "one table at both ends",
    }.items():
        parser.add_argument("--" + name.replace("_", "-"), action=argparse.BooleanOptionalAction, help=help)
    parser.add_argument("--batch-size", type=int, default=1, metavar="INT", help="sequences at a time (default: 1)")
    parser.add_argument(
        "--dtype", choices=_DTYPES, default="float32", help="of weights, activations and cache (default: float32)"
    )
    parser.add_argument(
        "--tokens", type=float, metavar="FLOAT", help="tokens to train on (default: 300e9 for gpt3-175B, else none)"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=28.0,
        metavar="FLOAT",
        help="10^12 FLOPs of a GPU in a second (default: 28, a V100)",
    )
    parser.add_argument(
        "--price", type=float, default=1.5, metavar="FLOAT", help="dollars for a GPU-hour (default: 1.50)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from ..checks import byte_size
    from ..models import PRESETS, make_config
    from ..models.estimate import TRAINING_TOKENS, estimate

    chosen = {name: getattr(args, name) for name in (*_SIZES, "qkv_bias", "bias", "tie_weights")}
    config = PRESETS[args.preset]
    changes = {name: value for name, value in chosen.items() if value is not None}
    config = make_config(config.architecture, config.to_dict() | changes)
    e = estimate(config, batch_size=args.batch_size, bytes_per_number=_DTYPES[args.dtype])
    tokens = TRAINING_TOKENS.get(args.preset) if args.tokens is None else args.tokens
    cost = None if tokens is None else e.training_cost(tokens, args.tflops, args.price)
    if args.json:
        print(json.dumps(e.to_dict() | {"training": cost and asdict(cost)}))
        return 0

    print(f"{'module':28} {'copies':>6} {'parameters':>18} {'FLOPs/token':>16} {'activations':>12} {'KV cache':>12}")
    for m in (*e.modules, None):
        if m is None:
            name, copies = "in all", ""
            parameters, flops, kept, cached = (
                e.parameters,
                e.total("flops_per_token"),
                e.activation_bytes,
                e.kv_cache_bytes,
            )
        else:
            name, copies = m.name, f"x {m.copies}"
            parameters, flops, kept, cached = m.parameters, m.flops_per_token, m.activation_bytes, m.kv_cache_bytes
        print(f"{name:28} {copies:>6} {parameters:18,} {flops:16,} {byte_size(kept):>12} {byte_size(cached):>12}")
    print(f"\nweights in {args.dtype}: {byte_size(e.weight_bytes)}")
    print(
        f"training with AdamW in float32, {args.batch_size} x {config.context_length or 1} tokens at a time: "
        f"{byte_size(e.training_bytes)}"
    )
    attention, both = e.attention_flops_per_token, e.training_flops_per_token
    print(f"training FLOPs per token: {both:,}: {both - attention:,} for the weights, {attention:,} for attention")
    if cost is not None:
        print(f"\ntraining on {cost.tokens:.4g} tokens, GPUs of {args.tflops:g} TFLOPS at ${args.price:.2f} an hour:")
        for what, share in {"weights": (both - attention) / both, "attention": attention / both, "in all": 1.0}.items():
            days, dollars = share * cost.gpu_days, share * cost.dollars
            print(f"  {what:10} {share * cost.flops:.3e} FLOPs {days:14,.1f} GPU-days  ${dollars:,.0f}")
    return 0
