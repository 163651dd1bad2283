"""Time decoding, one sequence, greedy: the public `generate`. Prints one JSON line like pytorch_decoding.py.

python tests/benchmarks/decoding.py nano|124M-1024 [--new 200] [--no-cache]
"""

import argparse
import json
import time

import numpy as np
from sizes import SIZES

import tinygrad_llm as tg
from tinygrad_llm.generation import generate
from tinygrad_llm.models.gpt import GPTConfig, GPTModel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--no-cache", action="store_true")
    args = parser.parse_args()
    size = SIZES[args.size]
    tg.manual_seed(123)
    model = GPTModel(GPTConfig(*size[:5], drop_rate=0.0)).eval()
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (1, args.prompt))
    generate(model, ids, 3)  # warm up
    start = time.perf_counter()
    out = generate(model, ids, args.new, use_cache=not args.no_cache)
    seconds = time.perf_counter() - start
    print(json.dumps({"ms_per_token": 1000 * seconds / args.new, "tokens": out.shape[1] - args.prompt}))


if __name__ == "__main__":
    main()
