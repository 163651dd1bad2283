"""A small assistant, and pairs of its language in which the longer answer is better."""

import json

import numpy as np

from tinygrad_llm.tuning.instruct import instruct

LETTERS = "abcd"
SMALL = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "context_length": 32, "batch_size": 16, "lr": 1e-2, "epochs": 6}


def quiet(line):
    pass


def words(rng, n, longest=6):
    return ["".join(rng.choice(list(LETTERS), rng.integers(1, longest + 1))) for _ in range(n)]


def assistant(folder):
    """A run of instruct whose answers are some letters, of any length up to 6."""
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": f"Say {asked}", "completion": answer}
        for asked, answer in zip(words(rng, 80, 3), words(rng, 80), strict=True)
    ]
    data = folder / "conversations.json"
    data.write_text(json.dumps(rows))
    instruct(data, out=folder / "assistant", report=quiet, **SMALL)
    return folder / "assistant"


def pairs(path, n=80, k=2):
    """Rankings of `k` answers of different lengths to each prompt, the longest first."""
    rng = np.random.default_rng(1)
    rows = []
    for asked in words(rng, n, 3):
        lengths = rng.permutation(6)[:k] + 1
        responses = ["".join(rng.choice(list(LETTERS), m)) for m in lengths]
        rows.append(
            {"prompt": f"Say {asked}", "responses": responses, "ranking": (k - lengths.argsort().argsort()).tolist()}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_length(prompts, completions, **columns):
    return [float(len(text)) for text in completions]
