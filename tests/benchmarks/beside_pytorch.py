"""A training step of ours and of PyTorch's twins (pytorch_twins.py), in turn, each in processes of its own. Medians.

    .venv/bin/python tests/benchmarks/beside_pytorch.py nano|mini|124M|124M-1024 --python PYTHON_WITH_TORCH [--rounds 3] [--json]

Wall time of one step drifts with whatever else the machine does, so programs are compared by running them in turn; in one process
the BLAS threads of one slow the other down.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tinygrad_llm.doctor.bench import WORKLOADS, Timing

TWINS = Path(__file__).with_name("pytorch_twins.py")
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}  # what recycle_memory() does for us


def programs(name: str, drop_rate: float, book_drop_rate: float, steps: int | None, python: str):
    """{name: (command, what its environment has besides)}, each of which prints a Timing as JSON."""
    work = WORKLOADS[name]
    numbers = [str(n) for n in (*work.sizes.values(), work.batch_size, work.steps if steps is None else steps)]
    ours = [sys.executable, "-m", "tinygrad_llm", "bench", name, "--steps", numbers[-1], "--once", "--drop-rate"]
    tuned = [python, str(TWINS), "tuned", *numbers, "--drop-rate", str(drop_rate)]
    found = {
        "ours": ([*ours, str(drop_rate)], {}),
        "tuned": (tuned, {}),
        "tuned, our malloc": (tuned, MALLOC),
    }
    if book_drop_rate != drop_rate:
        found["ours, drop_rate of the book"] = ([*ours, str(book_drop_rate)], {})
    return found | {"book": ([python, str(TWINS), "book", *numbers, "--drop-rate", str(book_drop_rate)], {})}


def run(command: list[str], environment: dict[str, str]) -> Timing:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"{' '.join(command[:4])} ... failed: {last}")
    return Timing(**json.loads(done.stdout.strip().splitlines()[-1]))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=WORKLOADS)
    parser.add_argument("--python", default=sys.executable, help="one that has PyTorch (default: this one)")
    parser.add_argument("--steps", type=int, help="steps to time (default: by the size, 4 to 60)")
    parser.add_argument("--drop-rate", type=float, default=0.0, help="dropout beside the tuned model (default: 0)")
    parser.add_argument("--book-drop-rate", type=float, help="beside the book's (default: 0.1, and 0 for nano)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    book_drop_rate = args.book_drop_rate
    if book_drop_rate is None:
        book_drop_rate = 0.0 if args.size == "nano" else 0.1
    in_turn = programs(args.size, args.drop_rate, book_drop_rate, args.steps, args.python)
    timings = {program: [] for program in in_turn}
    for _ in range(args.rounds):
        for program, (command, environment) in in_turn.items():
            timings[program].append(run(command, environment))
    ms = {program: statistics.median(t.median for t in turns) for program, turns in timings.items()}
    peak = {program: max(t.peak_mb for t in turns) for program, turns in timings.items()}
    beside_book = "ours, drop_rate of the book" if "ours, drop_rate of the book" in ms else "ours"
    ratios = {p: ms[p] / ms[beside_book if p == "book" else "ours"] for p in ms if not p.startswith("ours")}
    if args.json:
        print(json.dumps({"size": args.size, "ms": ms, "peak_mb": peak, "our_tokens_per_second_over_theirs": ratios}))
        return
    tokens = WORKLOADS[args.size].tokens
    print(f"{args.size}: medians of {args.rounds} turns")
    for program, median in ms.items():
        ratio = f"  ours / theirs {ratios[program]:.2f}" if program in ratios else ""
        print(
            f"  {program:28} {median:9.1f} ms {1000 * tokens / median:9,.0f} tokens/s {peak[program]:7,.0f} MB{ratio}"
        )


if __name__ == "__main__":
    main()
