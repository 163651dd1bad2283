"""`tinygrad-llm inspect PATH`: what is in a file of weights, by its header alone."""

from __future__ import annotations

import argparse
import json
import math

HELP = "names, shapes, dtypes and sizes in a file or folder of weights, and what it seems to be; no numbers are read"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a file or folder with weights")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    from ..checks import byte_size
    from ..formats.open import open_weights
    from ..formats.source import printable
    from ..weights.load import describe

    with open_weights(args.path, pickles=True) as source:
        guess, infos = describe(source), source.infos
        metadata = {
            key: value for key, value in source.metadata.items() if isinstance(value, (str, int, float, dict, list))
        }
        form = source.form
    n_numbers = sum(math.prod(info.shape) for info in infos.values())
    n_bytes = sum(info.n_bytes for info in infos.values())
    if args.json:
        tensors = {
            name: {"dtype": info.dtype, "shape": list(info.shape), "bytes": info.n_bytes, "file": info.file.name}
            for name, info in infos.items()
        }
        about = {"path": args.path, "form": form, "guess": guess, "numbers": n_numbers, "bytes": n_bytes}
        print(json.dumps(about | {"tensors": tensors, "metadata": metadata}, default=str))
        return 0
    width = min(60, max((len(printable(name)) for name in infos), default=0))
    for name, info in infos.items():
        print(f"{printable(name):{width}}  {info.dtype:9} {info.shape!s:22} {byte_size(info.n_bytes):>12}")
    print(f"\n{args.path}: {form}, {len(infos):,} tensors, {n_numbers:,} numbers, {byte_size(n_bytes)}")
    print(f"It seems to be: {guess}")
    return 0
