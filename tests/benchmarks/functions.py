"""python tests/benchmarks/functions.py: which functions of the package one training step of the nano model enters.

How much a reader must know to know a step: every function that runs in a `train_step`, in the order in which it is first entered,
with how often. `--list` prints them all. threads=1; the second step, so that what is done once does not count.
"""

import argparse
import os
import sys
from collections import Counter

import tinygrad_llm
from tinygrad_llm.doctor.bench import WORKLOADS, make
from tinygrad_llm.training import train_step

PACKAGE = os.path.dirname(tinygrad_llm.__file__) + os.sep


def entered(drop_rate: float = 0.0) -> Counter:
    """(file, function) -> how often it was entered in a step."""
    model, optimizer, ids, targets = make(WORKLOADS["nano"], drop_rate)
    train_step(model, optimizer, ids, targets, threads=1)
    seen: Counter = Counter()

    def profile(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            seen[
                code.co_filename[len(PACKAGE) :], code.co_qualname if sys.version_info >= (3, 11) else code.co_name
            ] += 1

    sys.setprofile(profile)
    try:
        train_step(model, optimizer, ids, targets, threads=1)
    finally:
        sys.setprofile(None)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--list", action="store_true", help="every function, in the order of the step")
    parser.add_argument("--drop-rate", type=float, default=0.0)
    args = parser.parse_args()
    seen = entered(args.drop_rate)
    if args.list:
        for (file, function), n in seen.items():
            print(f"{n:5}  {file:28} {function}")
    files = {file for file, _ in seen}
    print(f"{len(seen)} functions in {len(files)} files, entered {seen.total():,} times")


if __name__ == "__main__":
    main()
