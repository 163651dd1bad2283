"""Time training steps of the public `train_step` on the public `GPTModel`; prints one JSON line like pytorch_twins.py.

python tests/benchmarks/ours.py nano|mini|124M|124M-1024 [--drop-rate 0.1] [--threads N]
"""

import argparse
import json
import resource
import time

import numpy as np
from sizes import LEARNING_RATE, SIZES, STEPS, WEIGHT_DECAY

import tinygrad_llm as tg
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import AdamW
from tinygrad_llm.training.step import train_step


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--drop-rate", type=float, default=0.0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    size = SIZES[args.size]
    tg.manual_seed(123)
    model = GPTModel(GPTConfig(*size[:5], drop_rate=args.drop_rate))
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (size.batch_size, size.context_length + 1))
    steps = args.steps or STEPS[args.size]
    times, loss = [], 0.0
    for _ in range(min(10, steps) + steps):
        start = time.perf_counter()
        loss = train_step(model, optimizer, ids[:, :-1], ids[:, 1:], threads=args.threads)
        times.append(1000 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": times[-steps:], "peak_mb": peak, "loss": loss, "version": np.__version__}))


if __name__ == "__main__":
    main()
