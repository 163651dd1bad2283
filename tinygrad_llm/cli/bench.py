"""`tinygrad-llm bench`: how fast a training step is here."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "time a training step, beside its matrix products alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..doctor.bench import WORKLOADS

    parser.add_argument(
        "size",
        nargs="?",
        choices=WORKLOADS,
        default="nano",
        metavar="SIZE",
        help=f"{', '.join(WORKLOADS)} (default: nano)",
    )
    parser.add_argument("--steps", type=int, metavar="INT", help="steps to time (default: by the size, 4 to 60)")
    parser.add_argument("--drop-rate", type=float, default=0.0, metavar="FLOAT", help="dropout (default: 0)")
    parser.add_argument("--threads", type=int, metavar="INT", help="threads of the step (default: the cores there are)")
    parser.add_argument("--once", action="store_true", help="only time the steps and print one line of JSON")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from ..checks import byte_size, check_size
    from ..doctor.bench import WORKLOADS, flops, profile_step, time_products, time_steps

    if args.steps is not None:
        check_size("bench", steps=args.steps)
    work = WORKLOADS[args.size]
    timing = time_steps(work, drop_rate=args.drop_rate, steps=args.steps, threads=args.threads)
    if args.once:
        print(json.dumps(asdict(timing)))
        return 0
    floor = time_products(work, threads=args.threads)
    ops = profile_step(work, args.drop_rate)
    figures = {
        "size": args.size,
        "ms_per_step": timing.median,
        "tokens_per_second": 1000 * work.tokens / timing.median,
        "gflops_per_second": flops(work) / timing.median / 1e6,
        "products_ms": floor,
        "products_share": floor / timing.median,
        "peak_mb": timing.peak_mb,
    }
    if args.json:
        print(json.dumps(figures | {"ops": {name: asdict(op) for name, op in ops.ops.items()}}))
        return 0
    print(
        f"{args.size}: {timing.median:.1f} ms a step (median of {len(timing.ms)}; {min(timing.ms):.1f} to {max(timing.ms):.1f})"
    )
    print(f"  {figures['tokens_per_second']:,.0f} tokens/s, {figures['gflops_per_second']:.0f} GFLOP/s")
    print(f"  matrix products alone {floor:.1f} ms, {100 * figures['products_share']:.0f}% of the step")
    print(f"  peak memory {byte_size(round(timing.peak_mb * 2**20))}\n")
    print(ops)
    return 0
