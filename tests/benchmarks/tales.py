"""Let a model and n-gram models write tales, and count how many hold together. Prints a table for each seed, and three tales.

python tests/benchmarks/tales.py [--preset tales-llama] [--seeds 1 2 3] [--out runs]    # trains those that are not there
"""

import argparse
import random
from collections import Counter, defaultdict
from pathlib import Path

from tinygrad_llm.generation import generate
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs import load_run
from tinygrad_llm.runs.folder import is_run
from tinygrad_llm.text.corpus import tell_tales
from tinygrad_llm.text.tales import check_tale
from tinygrad_llm.training import pretrain

N_TALES, TEMPERATURE, ROWS = 200, 0.7, 25
RULES = ("names", "places", "thing", "ending")


def by_model(model, tokenizer, seed):
    """Tales from nothing but the mark at which a tale begins."""
    eot = tokenizer.eot_id
    for i in range(N_TALES // ROWS):
        length = model.config.context_length - 1
        rng = Generator(1000 * seed + i)
        for row in generate(model, [[eot]] * ROWS, length, TEMPERATURE, stop_ids=[eot], rng=rng).tolist():
            yield tokenizer.decode([j for j in row[1:] if j >= 0])


def by_ngrams(ids, tokenizer, n, seed):
    """Tales from the counts of n words in a row, at the same temperature."""
    eot, longest = tokenizer.eot_id, 300
    follow = defaultdict(Counter)
    for i, j in enumerate(ids[1:], 1):
        start = max(i - n + 1, 0)
        before = ids[start:i]
        if eot in before:  # what came before the tale does not matter
            before = before[len(before) - 1 - before[::-1].index(eot) :]
        follow[tuple(before)][j] += 1
    rng = random.Random(seed)
    for _ in range(N_TALES):
        written = [eot]
        while len(written) < longest and (len(written) == 1 or written[-1] != eot):
            counts = follow[tuple(written[-(n - 1) :])]
            written += rng.choices([*counts], [count ** (1 / TEMPERATURE) for count in counts.values()])
        yield tokenizer.decode(written[1:-1])


def shares(texts):
    checks = [check_tale(text) for text in texts]
    parts = [sum(check[rule] for check in checks) / len(checks) for rule in RULES]
    return [*parts, sum(all(check.values()) for check in checks) / len(checks)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tales")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    args = parser.parse_args()
    for seed in args.seeds:
        folder = args.out / f"{args.preset}-{seed}"
        if not is_run(folder):
            pretrain(preset=args.preset, seed=seed, out=folder)
        model, tokenizer = load_run(folder)
        told = tell_tales(seed, tokenizer)
        texts = list(by_model(model, tokenizer, seed))
        print(f"\nseed {seed}, {N_TALES} tales" + "".join(f"{rule:>10}" for rule in (*RULES, "all")))
        for name, written in [("the model", texts)] + [
            (f"{n}-grams", by_ngrams(told.train_ids, tokenizer, n, seed)) for n in range(2, 9)
        ]:
            print(f"{name:19}" + "".join(f"{share:10.3f}" for share in shares(written)), flush=True)
        print("", *texts[:3], sep="\n\n")


if __name__ == "__main__":
    main()
