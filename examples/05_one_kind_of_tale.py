"""python examples/05_one_kind_of_tale.py [--quick]    two minutes, and five more if runs/tales is not there yet

From a model of a wide domain to one of a narrow one (the book's section 1.3; Gururangan et al. 2020): a model that knows tales of
all kinds reads only those in which the thing is lost.

What to watch:
- on tales of loss its loss falls a little: it need not be ready for another ending any more;
- on tales of all kinds it rises: what is not seen any more is forgotten;
- a model that begins from nothing, with the same few tales and as many steps, is far from either: most of what it takes to tell
  a tale of loss is what it takes to tell a tale.
"""

import sys
from itertools import islice
from pathlib import Path

from tinygrad_llm.evaluation import mean_loss
from tinygrad_llm.runs import load_run
from tinygrad_llm.text import END_OF_TEXT
from tinygrad_llm.text.corpus import DocumentWindows
from tinygrad_llm.text.tales import tales
from tinygrad_llm.training import continue_pretraining, pretrain

quick = "--quick" in sys.argv
run, small, n_steps = Path("runs/tales"), {}, 300
if quick:  # a model that has learned nothing, to see that everything runs
    run, small, n_steps = Path("runs/05_tales_quick"), {"emb_dim": 16, "n_heads": 2, "n_layers": 1}, 20
if not (run / "model.safetensors").exists():
    pretrain(preset="tales", out=run, **small, **({"max_steps": 20} if quick else {}))
model, tokenizer = load_run(run)


def of_loss(seed, n, split):
    return islice((tale for tale in tales(seed, 100 * n, split) if tale.facts["ending"] == "loss"), n)


def text_of(told):
    return END_OF_TEXT + "".join(tale.text + END_OF_TEXT for tale in told)


def loss_on(model, text):
    ids = tokenizer.encode(text, {END_OF_TEXT})
    return mean_loss(model, DocumentWindows(ids, model.config.context_length, 8, tokenizer.eot_id).epoch())


file = Path("runs/05_tales_of_loss.txt")
file.write_text(text_of(of_loss(11, 1200, "train")))
options = {"windows": "documents", "batch_size": 8, "max_steps": n_steps, "prompt": "Once there was", "spike": 0.0}
tuned = continue_pretraining(run, file, out="runs/05_tuned", lr=5e-4, **options).model
alone = pretrain(
    file, preset="tales", tokenizer=str(run), out="runs/05_alone", lr=3e-3, beta2=0.98, **options, **small
).model

print("\nNats a token, on tales that none of the three has read:")
print(f"{'':30}{'of loss':>10}{'all kinds':>12}")
held = text_of(of_loss(12, 100, "validation")), text_of(tales(12, 200, "validation"))
for name, judged in {
    "before": model,
    f"after {n_steps} steps on loss": tuned,
    "those steps, from nothing": alone,
}.items():
    print(f"{name:30}{loss_on(judged, held[0]):10.3f}{loss_on(judged, held[1]):12.3f}")
