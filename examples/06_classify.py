"""python examples/06_classify.py [--quick]    five minutes

A language model becomes a classifier (the book's chapter 6), and what each choice on the way is worth: the rows of the book's
table of experiments that a laptop can print. The book tunes GPT-2 124M on 1,045 messages; here a model of 0.4 million parameters
has read 8,000 made-up messages without labels, and is tuned on 200 with labels. No wording of the test is in either.

What to watch:
- the first token has seen nothing but itself (row 2), so nothing can be told by it;
- with so few labels, less to learn is better: the last block (row 1) before all layers (row 5), the head alone (row 3) near it;
- having read is worth a little even so (row 5 beside row 10, from random weights);
- pads at the end of a row cost nothing here (rows 1, 13 and 16 are within each other's spread): rows have 40 tokens, not 1,024;
- plain models on words do better than all of it: they stand below, as in every run.
"""

import math
import sys
from pathlib import Path

import numpy as np

from tinygrad_llm.models.heads import class_logits
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.text import END_OF_TEXT
from tinygrad_llm.text.messages import messages
from tinygrad_llm.training import pretrain
from tinygrad_llm.tuning.classify import classify
from tinygrad_llm.tuning.predict import Classifier
from tinygrad_llm.tuning.splits import pad

quick = "--quick" in sys.argv
seeds, n_read, n_labelled = ([1], 200, 40) if quick else ([1, 2, 3], 8000, 200)
sizes = {"context_length": 128, "emb_dim": 96, "n_heads": 4, "n_layers": 3, "drop_rate": 0.1}

file, base = Path("runs/06_messages.txt"), Path("runs/06_read")
file.parent.mkdir(exist_ok=True)
file.write_text(END_OF_TEXT + "".join(text + END_OF_TEXT for text in messages(99, n_read, "train").texts))
untrained = Path("runs/06_untrained")  # as the other one was before its first step, but for the last digit
reading = {"tokenizer": "word", "windows": "documents", "batch_size": 16, "beta2": 0.98, "init": "gpt2", "prompt": "Hi"}
for out, length in (base, {"epochs": 2, "lr": 3e-3}), (untrained, {"max_steps": 1, "lr": 1e-9}):
    pretrain(file, out=out, report=lambda line: None, eval_every=1000, **reading, **length, **sizes)

common = {"init_from": base, "epochs": 2 if quick else 8, "lr": 1e-3, "eval_every": 1000, "report": lambda line: None}
padded = {"position": "padded", "train": "last_block"}
rows = {  # the number in the book's table: the words for it, what the book measured with 124M, and the options
    "1": ("last block; last pad of the row", 0.9500, padded),
    "2": ("first token", 0.7500, padded | {"position": "first"}),
    "3": ("head alone", 0.7200, padded | {"train": "head"}),
    "5": ("all layers", 0.9667, padded | {"train": "all"}),
    "10": ("all layers, from random weights", 0.9367, padded | {"train": "all", "init_from": untrained}),
    "13": ("rows filled up to the context length", 0.7833, padded | {"max_length": sizes["context_length"]}),
    "16": ("last token of the text", 0.9833, padded | {"position": "last"}),
    "17": ("without the causal mask", 0.9533, padded | {"causal": False}),
    "19": ("mean over the tokens", 0.9633, padded | {"position": "mean"}),
}
print(f"Accuracy on 400 messages after {n_labelled}, {len(seeds)} seeds; the book's is of GPT-2 124M on real messages.")
print(f"{'row':>4}  {'what':40}{'here':>7}{'spread':>9}{'book':>8}")
results = {}
for row, (words, book, options) in rows.items():
    runs = [
        classify(
            "messages",
            seed=seed,
            examples=n_labelled,
            out=f"runs/06_row{row}",
            **common | options,
        )
        for seed in seeds
    ]
    found = [run.test.accuracy for run in runs]
    results[row] = runs
    spread = (max(found) - min(found)) / 2
    print(f"{row:>4}  {words:40}{sum(found) / len(found):7.3f}{'±':>4} {spread:.3f}{book:8.3f}", flush=True)

# Row 18 leaves out labels that are the id of a pad: no label is, so the loss is the same number.
classifier = Classifier.load("runs/06_row1")
told = messages(1, 32, "validation")
scores = class_logits(classifier.model, *pad(classifier.rows(told.texts), classifier.pad_id, classifier.width))
with use_generator(Generator(0)):
    losses = [cross_entropy(scores, targets=told.labels, ignore_index=i).item() for i in (-100, classifier.pad_id)]
assert math.isclose(*losses), losses
print(f"{'18':>4}  {'as 1, labels that are pads left out':40}{'= 1':>7}{'':9}{0.95:8.3f}")

print("\nOn the same messages, without any of it:")
for name in ("majority", "features", "naive_bayes", "bag_of_words"):
    print(f"      {name:40}{np.mean([run.baselines[name].accuracy for run in results['1']]):7.3f}")
