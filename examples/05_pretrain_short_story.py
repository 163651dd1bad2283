"""python examples/05_pretrain_short_story.py [--quick]        about a minute on two cores; a few seconds with --quick

Chapter 5: a GPT that knows nothing reads one short story again and again, and begins to write like it.

What to watch:
- the first loss is close to ln V, the loss of a guess among V tokens;
- both losses fall at first: the model learns which words there are, and which follow which;
- then validation loss, on the end of the story that was kept back, turns and rises while training loss goes on falling.
  A story of four thousand words is soon known by heart; the samples get better because they are more and more copied.
"""

import sys

import tinygrad_llm as tg
from tinygrad_llm.generation import stream_text

quick = {"epochs": 2, "emb_dim": 32, "n_layers": 2, "stride": 32} if "--quick" in sys.argv else {}

# The model, the tokenizer and the schedule are those of the preset "story"; any of them can be given here.
run = tg.training.pretrain(out="runs/05_story", preset="story", seed=123, **quick)

print("\nWhat became of the losses (the last column is the gap: knowledge of this text and of no other):")
for row in run.metrics[:: max(1, len(run.metrics) // 8)]:
    train_loss, val_loss = row["train_loss"], row["val_loss"]
    print(f"  step {row['step']:5}   {train_loss:6.3f}   {val_loss:6.3f}   {val_loss - train_loss:6.3f}")

# The same prompt at three temperatures: always the likeliest token; the model's odds sharpened; its own odds.
for temperature in (0.0, 0.5, 1.0):
    rng = tg.rng.Generator(1)
    text = "".join(stream_text(run.model, run.tokenizer, "Una looked", 40, temperature, rng=rng))
    print(f"\ntemperature {temperature}: Una looked{text}")
