"""Classifiers over three seeds, and what a step costs of which a part is frozen. Prints a table of each.

python tests/benchmarks/classify.py DATA [--seeds 1 2 3]             # from fresh weights, on DATA, such as SMSSpamCollection
python tests/benchmarks/classify.py moods --base runs/tales          # the tales' model tuned, beside its like from random weights
python tests/benchmarks/classify.py cost                             # a step of GPT-2 124M on 8 texts of 120 tokens
"""

import argparse
import time
import tracemalloc
from pathlib import Path

import numpy as np

from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.optim import AdamW, decay_groups
from tinygrad_llm.rng import Generator, Zeros, use_generator
from tinygrad_llm.training import pretrain, train_step
from tinygrad_llm.tuning import lora
from tinygrad_llm.tuning.classify import OBJECTIVE, classify
from tinygrad_llm.tuning.run import freeze

TUNED = {"epochs": 2, "eval_every": 1000, "examples": 1000}


def compare(data, rows, seeds):
    """Accuracy on the test part of each seed."""
    for name, options in rows.items():
        runs = []
        for seed in seeds:
            start = time.perf_counter()
            run = classify(data, out=f"runs/bench/{name}", seed=seed, report=lambda line: None, **options)
            runs.append((run, time.perf_counter() - start))
        found = [run.test.accuracy for run, _ in runs]
        seconds = " ".join(f"{s:.0f}" for _, s in runs)
        print(f"{name:14}", *(f"{a:.3f}" for a in found), f" mean {np.mean(found):.3f}   seconds {seconds}", flush=True)
    for name in runs[0][0].baselines:
        found = [run.baselines[name].accuracy for run, _ in runs]
        print(f"{name:14}", *(f"{a:.3f}" for a in found), f" mean {np.mean(found):.3f}")


def untrained(like):
    """A run with the tokenizer and the sizes of the tales' model, before its first step."""
    if not (like / "model.safetensors").exists():
        pretrain(preset="tales", out=like, max_steps=1, lr=1e-12, report=lambda line: None)
    return like


def cost():
    config = {
        "vocab_size": 50257,
        "context_length": 1024,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "qkv_bias": True,
    }
    batch = np.arange(960).reshape(8, 120), np.full(8, 120), np.arange(8) % 2, np.full(8, 1 / 8, np.float32)
    for train in ("all", "lora", "last_block", "head"):
        model = make_model("gpt", config | {"tie_weights": True, "drop_rate": 0.0}, Zeros())
        add_classifier(model, ["ham", "spam"], rng=Generator(1))
        if train == "lora":
            lora.inject(model, 16, 16, "all", whole="out_head", rng=Generator(2))
        else:
            freeze(model, train)
        optimizer = AdamW(decay_groups(model.parameters(), "all"), lr=5e-5)
        n = sum(p.size for p in model.parameters() if p.requires_grad)
        times = []
        with use_generator(Generator(3)):
            for _ in range(4):
                start = time.perf_counter()
                train_step(model, optimizer, *batch, objective=OBJECTIVE, max_norm=1.0)
                times.append(time.perf_counter() - start)
            tracemalloc.start()
            train_step(model, optimizer, *batch, objective=OBJECTIVE, max_norm=1.0)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        moments = sum(array.nbytes for array in optimizer.state_dict()["moments"].values())
        print(
            f"{train:12} {n:12,} learn   {sorted(times)[1]:.2f} s   {peak / 1e6:7.1f} MB   moments {moments / 1e6:.1f} MB",
            flush=True,
        )


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("what")
parser.add_argument("--base", type=Path, default=Path("runs/tales"))
parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
args = parser.parse_args()
if args.what == "cost":
    cost()
elif args.what == "moods":
    tuned = {"init_from": args.base, **TUNED}
    rows = {
        "all": tuned | {"train": "all"},
        "lora": tuned | {"lora": "r=8,alpha=16,targets=attn"},
        "last block": tuned,
        "random, all": tuned | {"train": "all", "init_from": untrained(Path("runs/untrained"))},
    }
    compare("moods", rows, args.seeds)
else:
    compare(args.what, {"the model": {}}, args.seeds)
