"""Is my curve normal? What the rows of metrics.jsonl say about a run, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OK, LOOK, WRONG = "ok", "look", "wrong"
_PLATEAU = 0.1  # nats below the loss of counting words within which nothing else may have been learned
CLEARLY = 0.05  # nats by which a validation loss must differ from another to be called better

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Finding:
    """What a check found: "ok"; "look", which may be as it should; or "wrong". `advice` says what to do then."""

    verdict: str
    text: str
    advice: str = ""
    check: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:5}  {self.text}" + (f": {self.advice}" if self.advice else "")


def judge_numbers(rows: Rows) -> Finding:
    """Are there rows, and are all losses finite? The other judges take that for granted."""
    if not rows:
        return Finding(LOOK, "no evaluation yet", "come back when there are some")
    for row in rows:
        if not math.isfinite(row["train_loss"] + row["val_loss"]):
            return Finding(WRONG, f"the loss is not finite at step {row['step']:.0f}", "lower the learning rate")
    return Finding(OK, f"{len(rows)} evaluations")


def judge_start(rows: Rows, vocab_size: int) -> Finding:
    """Did the run begin near chance?"""
    first = rows[0]
    if first["step"] > 0:
        return Finding(OK, "not recorded")
    if first["train_loss"] < math.log(vocab_size) - 0.5:
        return Finding(LOOK, f"{first['train_loss']:.2f}, below chance", "right if the run began from trained weights")
    return judge_initial_loss(first["train_loss"], vocab_size)


def judge_initial_loss(loss: float, vocab_size: int) -> Finding:
    """A model that knows nothing gives each of V tokens about 1/V: ln V, and s²/2 more for logits of deviation s.

    The head has s² = 1/3 as PyTorch draws it, less than 0.4 as GPT-2 does; 0.5 nats more mean s = 1, 2 nats s = 2.
    """
    chance = math.log(vocab_size)
    text = f"{loss:.3f}, where chance among {vocab_size:,} is {chance:.3f}"
    if abs(loss - chance) <= 0.5:
        return Finding(OK, text)
    if loss < chance:
        return Finding(WRONG, text, "a model without training cannot know this much: is the target among its inputs?")
    return Finding(
        LOOK if loss <= chance + 2 else WRONG, text, "the first weights are too large: see init and tie_weights"
    )


def judge_fall(rows: Rows, unigram_train: float | None = None) -> Finding:
    """Does the training loss fall as it should? `unigram_train`: what knowing how often each token comes would reach."""
    if len(rows) < 2:
        return Finding(LOOK, "only the evaluation before the first step is there", "come back when there are more")
    first, last = rows[0], rows[-1]
    losses = [row["train_loss"] for row in rows]
    text = f"training loss {losses[0]:.2f} -> {losses[-1]:.2f} in {last['step'] - first['step']:.0f} steps"
    if losses[-1] > losses[0] + 0.1:
        return Finding(WRONG, text, "it diverges: lower the learning rate, or look at the data")
    if len(rows) > 2 and losses[0] - min(losses) < 0.05:
        return Finding(WRONG, text, "nothing is learned: raise the learning rate, or look for frozen weights")
    recent = rows[-max(3, len(rows) // 3) :]
    fast = min(row["lr"] for row in recent) > 0.2 * max(row["lr"] for row in rows)
    if len(rows) > 5 and fast and recent[0]["train_loss"] - losses[-1] < 0.02 and losses[-1] > 1:
        advice = f"it is flat since step {recent[0]['step']:.0f}: try another learning rate, or a larger model"
        return Finding(LOOK, text, advice)
    if unigram_train is not None and losses[-1] >= unigram_train:
        advice = f"counting tokens reaches {unigram_train:.2f}: train longer, or with a higher learning rate"
        return Finding(LOOK, text, advice)
    return Finding(OK, text)


def judge_plateau(rows: Rows, unigram_val: float | None = None) -> Finding:
    """Of hidden words: does the model see their neighbours? `unigram_val`: what counting words reaches on validation.

    A bidirectional model first learns how often words come, and stays there for a while until attention finds its way: a
    curve that is flat near that loss is one that has not begun, not one that has ended.
    """
    best = min(row["val_loss"] for row in rows)
    if unigram_val is None or best < unigram_val - _PLATEAU:
        return Finding(OK, "the words beside a hidden one are used")
    text = f"validation loss is {best:.2f} at best, where counting words reaches {unigram_val:.2f}"
    advice = (
        "this plateau is usual at first, it ends when the model begins to look at the words beside a hidden one: train longer, "
        "or on more text"
    )
    return Finding(LOOK, text, advice)


def judge_spikes(rows: Rows) -> Finding:
    """Does the training loss jump up, by more than half a nat above where it had been?"""
    lowest = math.inf
    for i, row in enumerate(rows):
        loss = row["train_loss"]
        if loss > lowest + 0.5:
            back = next((later for later in rows[i:] if later["train_loss"] < lowest + 0.1), None)
            text = f"training loss jumps from {lowest:.2f} to {loss:.2f} at step {row['step']:.0f}"
            if back is not None:
                return Finding(
                    LOOK, f"{text} and is back at step {back['step']:.0f}", "a lower learning rate avoids it"
                )
            advice = "go on from a checkpoint before it with a lower learning rate"
            return Finding(WRONG, f"{text} and does not come back", advice)
        lowest = min(lowest, loss)
    return Finding(OK, "no jumps")


def judge_validation(rows: Rows, unigram_val: float | None = None) -> Finding:
    """How training and validation loss relate. `unigram_val`: what token counts of the training text reach on validation."""
    best, last = min(rows, key=lambda row: row["val_loss"]), rows[-1]
    counts = ""
    if unigram_val is not None and best["val_loss"] >= unigram_val:
        counts = f"no better than counting tokens ({best['val_loss']:.2f}, {unigram_val:.2f})"
    if last["val_loss"] <= best["val_loss"] + CLEARLY:
        if counts:
            return Finding(LOOK, f"on text it has not seen it is {counts}", "train longer, or on more text")
        return Finding(
            OK, "validation loss is about as low as it has been, so what was learned holds for text not seen"
        )
    if last["train_loss"] < best["train_loss"]:
        text = (
            f"validation loss has risen since step {best['step']:.0f} while training loss fell, so the model goes on to learn "
            "this text by heart, which is of no use for other texts"
        )
        if counts:
            return Finding(LOOK, f"{text}, and was {counts} on them even then", "give it more text")
        return Finding(LOOK, text, "stop there, or give it more text")
    return Finding(LOOK, f"both losses have risen since step {best['step']:.0f}", "try a lower learning rate")
