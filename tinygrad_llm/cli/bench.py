"""`tinygrad-llm bench`: how fast a training step is here."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict

HELP = "time a training step, beside its matrix products alone and beside PyTorch"


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
    parser.add_argument(
        "--pytorch", action="store_true", help="compare with PyTorch: processes of their own, run in turn"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="with --pytorch: a Python that has PyTorch (default: this one)",
    )
    parser.add_argument(
        "--book-drop-rate",
        type=float,
        metavar="FLOAT",
        help="with --pytorch: dropout beside the book's model (default: 0.1, and 0 for nano)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="INT", help="with --pytorch: turns of each (default: 3)"
    )
    parser.add_argument("--once", action="store_true", help="only time the steps and print one line of JSON")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from ..checks import byte_size, check_size
    from ..doctor.bench import WORKLOADS, flops, profile_step, time_products, time_steps

    check_size("bench", rounds=args.rounds, **({} if args.steps is None else {"steps": args.steps}))
    work = WORKLOADS[args.size]
    if args.pytorch:
        return _against_pytorch(args)
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


def _against_pytorch(args: argparse.Namespace) -> int:
    from ..doctor.bench import WORKLOADS, compare

    book_drop_rate = args.book_drop_rate
    if book_drop_rate is None:
        book_drop_rate = 0.0 if args.size == "nano" else 0.1
    timings = compare(
        args.size,
        drop_rate=args.drop_rate,
        book_drop_rate=book_drop_rate,
        steps=args.steps,
        rounds=args.rounds,
        python=args.python,
    )
    ms = {program: statistics.median(t.median for t in turns) for program, turns in timings.items()}
    peak = {program: max(t.peak_mb for t in turns) for program, turns in timings.items()}
    with_dropout = "ours, drop_rate of the book" if "ours, drop_rate of the book" in ms else "ours"
    ratios = {p: ms[p] / ms[with_dropout if p == "book" else "ours"] for p in ms if not p.startswith("ours")}
    if args.json:
        print(json.dumps({"size": args.size, "ms": ms, "peak_mb": peak, "our_tokens_per_second_over_theirs": ratios}))
        return 0
    tokens = WORKLOADS[args.size].tokens
    print(f"{args.size}: medians of {args.rounds} turns")
    for program, median in ms.items():
        ratio = f"  ours / theirs {ratios[program]:.2f}" if program in ratios else ""
        print(
            f"  {program:28} {median:9.1f} ms {1000 * tokens / median:9,.0f} tokens/s {peak[program]:7,.0f} MB{ratio}"
        )
    return 0
