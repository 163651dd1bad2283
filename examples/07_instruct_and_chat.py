"""python examples/07_instruct_and_chat.py [--quick]    five minutes

A model learns to answer (the book's chapter 7): five kinds of questions about words that it has not seen, from a hundred thousand
parameters and fresh weights.

What to watch:
- what the model reads and what it writes: only the latter, in the first three lines without brackets, is in the loss;
- before, nothing is right; always giving the commonest answer of a kind gets nowhere either;
- copying comes suddenly: for some hundred steps the loss hardly falls, then it does, and held-out words come out right;
- a token is a letter here, so the likeliest alternatives to each of them show where the model is in doubt.
"""

import sys

from tinygrad_llm.tuning.assistant import Assistant, Chat
from tinygrad_llm.tuning.instruct import instruct, show_rows

quick = "--quick" in sys.argv
options = {"mask_instruction": True, "seed": 1}
if quick:  # a model that has learned nothing, to see that everything runs
    options |= {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "examples": 100, "epochs": 1}

print("\n".join(show_rows(**options)))
instruct(out="runs/07_lessons", **options)

chat = Chat(Assistant.load("runs/07_lessons"), max_new_tokens=60)
for question in ("Spell: umbrella", "Reverse: piano", "Passive: The nurse paints the king."):
    print(f"\n> {question}\n{''.join(chat.ask(question))}")
    chat.messages.clear()  # each lesson stood alone, so each question does
print("\nEach letter of the last answer, and what else might have stood there:")
for token, best in chat.why(3):
    print(f"  {token.decode()!r:6}", "  ".join(f"{other.decode()!r} {p:.2f}" for other, p in best))
