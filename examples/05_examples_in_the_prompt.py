"""python examples/05_examples_in_the_prompt.py [--quick]    half a minute, and five more if runs/tales is not there yet

Zero-shot and few-shot (the book's figure 1.6; Brown et al. 2020, section 2): the same questions with 0, 1, 2 and 4 solved ones
before them in the prompt. No weight changes; all that a model can learn from the examples is what is asked of it.

The task: a tale begins with a want, such as a flute on which a cow sat on Thursday; what will they set out to do about it? Eight
errands to choose from, "to mend" among them. It is asked in two ways:
- in the words in which the tales that the model was trained on go on;
- in words that it has never seen in this place: do examples make up for that?

What to watch: a model of a million parameters that was trained on one tale at a time takes the examples for the beginning of the
tale, so they lead it astray: in the words of the tales, accuracy falls. That examples tell a model what to do came with models a
thousand times as large (figure 1.2 of that paper).
"""

import re
import sys
from pathlib import Path

from tinygrad_llm.generation import choose, few_shot
from tinygrad_llm.runs import load_run
from tinygrad_llm.text.tales import tales
from tinygrad_llm.training import pretrain

quick = "--quick" in sys.argv
run, small = Path("runs/tales"), {}
if quick:  # a model that has learned nothing, to see that everything runs
    run, small = Path("runs/05_tales_quick"), {"max_steps": 20, "emb_dim": 16, "n_heads": 2, "n_layers": 1}
if not (run / "model.safetensors").exists():
    pretrain(preset="tales", out=run, **small)
model, tokenizer = load_run(run)

ERRANDS = ["to look for", "to buy", "to choose", "to mend", "to deliver", "to win", "to give back", "to sell"]


def asked(tale):
    """The end of a tale's first paragraph, where the want is told, and what they arrive to do in the third."""
    want = re.split(r"(?<=[.?!]) (?=[A-Z\"])", tale.text.split("\n")[0])[-2:]
    errand = next(errand for errand in ERRANDS if f"{errand} the {tale.facts['thing']}." in tale.text)
    return {"want": " ".join(want), "goal": tale.facts["goal"], "thing": tale.facts["thing"], "errand": errand}


items = [asked(tale) for tale in tales(seed=2, n=12 if quick else 64, split="validation")]
examples, items = items[:4], items[4:]
templates = {
    "in words of the tales": "{want}\nSo they came to the {goal} {errand} the {thing}.",
    "in other words": "{want}\nWhat for? It was {errand} the {thing}.",
}
print(f"\nShare of answers that are right, of {len(items)}; a guess is right in 0.125.")
print(f"{'':22}" + "".join(f"{n:>5} shot{' ' if n == 1 else 's'}" for n in (0, 1, 2, 4)))
for name, template in templates.items():
    shares = []
    for n in (0, 1, 2, 4):
        right = 0
        for item in items:
            prompt = few_shot(template, examples[:n], {**item, "errand": None}, separator="\n")
            right += (
                ERRANDS[choose(model, tokenizer, prompt, [f" {errand} the" for errand in ERRANDS])] == item["errand"]
            )
        shares.append(right / len(items))
    print(f"{name:22}" + "".join(f"{share:11.2f}" for share in shares), flush=True)
