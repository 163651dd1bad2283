"""python examples/05_examples_in_the_prompt.py [--quick]    a minute, and five more if runs/tales is not there yet

Zero-shot and few-shot (the book's figure 1.6; Brown et al. 2020, section 2): the same questions with 0, 1, 2 and 4 solved ones
before them in the prompt. No weight changes; all that a model can learn from the examples is what is asked of it.

Three ways to ask about who had what, and where, in the world of tales:
- in the words of the drills that the model was trained with: it needs no example;
- in words that it has not been asked with: do examples make up for it?
- not at all: the story is followed by the name of the village, and only the examples say that it is the village.

What to watch: a model of a million parameters answers what it was trained to answer. That examples alone tell a model what to do
came with models a thousand times as large (figure 1.2 of that paper), so expect little of the last two rows.
"""

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

facts = [tale.facts for tale in tales(seed=2, n=40 if quick else 400, split="validation")]


def sentence(fact):
    return f"In {fact['place']} lived {fact['people'][0]}, who had the {fact['thing']} from the {fact['goal']}."


def about_two(one, other, template):
    """A story of two people, a question about one of their things, and the names to choose from: theirs and two more."""
    names = [
        name for fact in (other, one) for name in fact["people"]
    ]  # heroes and, of whom nothing is told, their friends
    story = f"{sentence(one)} {sentence(other)}"
    return {"story": story, "thing": one["thing"], "choices": names, "answer": one["people"][0], "template": template}


def about_one(fact):
    choices = [fact["people"][0], fact["place"], fact["thing"], fact["goal"]]
    return {"story": sentence(fact), "choices": choices, "answer": fact["place"], "template": "{story} {answer}"}


def usable(one, other):
    """All of the eight differ, so that each question has one answer."""
    return len({*one["people"], *other["people"], one["thing"], other["thing"], one["goal"], other["goal"]}) == 8


pairs = [(one, other) for one, other in zip(facts[::2], facts[1::2], strict=True) if usable(one, other)]
tasks = {
    "as in training": [about_two(*pair, "{story} Who had the {thing}? {answer}") for pair in pairs],
    "in new words": [about_two(*pair, "{story} The owner of the {thing} was {answer}") for pair in pairs],
    "only by examples": [about_one(one) for one, _ in pairs],
}
print(f"\nShare of answers that are right, of {len(pairs) - 4}; a guess is right in 0.25.")
print(f"{'':18}" + "".join(f"{n:>5} shot{' ' if n == 1 else 's'}" for n in (0, 1, 2, 4)))
for name, items in tasks.items():
    examples, asked = items[:4], items[4:]
    shares = []
    for n in (0, 1, 2, 4):
        right = 0
        for item in asked:
            prompt = few_shot(item["template"], examples[:n], {**item, "answer": None}, separator=".\n")
            best = choose(model, tokenizer, prompt, [" " + choice for choice in item["choices"]])
            right += item["choices"][best] == item["answer"]
        shares.append(right / len(asked))
    print(f"{name:18}" + "".join(f"{share:11.2f}" for share in shares), flush=True)
