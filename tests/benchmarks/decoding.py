"""Time decoding, one sequence, greedy: the public `stream_tokens`. Prints one JSON line like pytorch_decoding.py.

python tests/benchmarks/decoding.py nano|124M [--new 200] [--no-cache]
"""

import argparse
import json
import time
from typing import NamedTuple

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm.doctor.bench import WORKLOADS
from tinygrad_llm.generation import generate, stream_tokens
from tinygrad_llm.models.gpt import GPTConfig, GPTModel


class Size(NamedTuple):
    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int


SIZES = {"nano": Size(65, 64, 128, 4, 4), "124M": Size(50257, 1024, 768, 12, 12)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=WORKLOADS)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--no-cache", action="store_true")
    args = parser.parse_args()
    work = WORKLOADS[args.size]
    tg.manual_seed(123)
    model = GPTModel(GPTConfig(**work.sizes, drop_rate=0.0)).eval()
    ids = np.random.default_rng(0).integers(0, work.vocab_size, (1, args.prompt))
    generate(model, ids, 3)  # to warm up
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in stream_tokens(model, ids, args.new, use_cache=not args.no_cache)]
    ms = 1000 * np.diff(times)
    print(json.dumps({"mean_ms": ms.mean(), "median_ms": np.median(ms), "least_ms": ms.min(), "first_ms": ms[0]}))


if __name__ == "__main__":
    main()
