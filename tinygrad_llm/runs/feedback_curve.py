"""Is it learning what I want? What the rows of metrics.jsonl say about learning from feedback, in words.

`JUDGES` has, for each task, what there is to look at. A judge takes rows that may lack what it looks at, or hold NaN or anything
else there: of such a row it knows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..checks import is_number
from .curve import CLEARLY, LOOK, OK, WRONG, Finding, Rows, judge_spikes, judge_start, judge_validation

_Z = 1.96  # standard errors in half of a 95 % interval
_FAR = 10.0  # nats of KL after which an answer is another one altogether
_LARGEST = 1e9  # a number that is larger was measured by nobody
_APART = 1e-3  # between log-probabilities as drawn and as computed again
_NOT_RECORDED = Finding(OK, "not recorded")

Judge = Callable[[Rows], Finding]
Points = list[tuple[float, float]]  # (step, value)


def points(rows: Rows, *names: str) -> Points:
    """The steps at which the first of these names that is there at all is a number, and the number."""
    for name in names:
        found = [(float(row["step"]), _number(row.get(name))) for row in rows]
        if known := [(step, value) for step, value in found if not math.isnan(value)]:
            return known
    return []


def _number(value: Any) -> float:
    """NaN for what is none, or too large."""
    return float(value) if is_number(value) and abs(value) < _LARGEST else math.nan


def _recent(found: Points) -> float:
    """The mean of the last third."""
    last = found[-max(1, len(found) // 3) :]
    return sum(value for _, value in last) / len(last)


def _half(value: Any) -> float:
    """Half of a 95 % interval, if it is known, else 0."""
    half = _number(value)
    return half if half > 0 else 0.0


# ---- answers of one's own: PPO and GRPO


def judge_kl(rows: Rows) -> Finding:
    """Is the KL to the reference one that can be, and is it in hand?"""
    for name in ("objective/kl", "eval/kl"):
        for row in rows:
            kl, error = _number(row.get(name)), _half(row.get(f"{name}_interval")) / _Z
            if error and kl < -max(5 * error, _APART):
                text = f"KL to the reference is {kl:.3f} at step {row['step']:.0f}, {-kl / error:.0f} standard errors below 0"
                return Finding(
                    WRONG,
                    text,
                    "no KL is, so this is no progress: look for another temperature, template or reference in what is compared",
                )
    found = points(rows, "objective/kl", "eval/kl", "kl")
    if not found:
        return _NOT_RECORDED
    values = [kl for _, kl in found]
    text = f"KL to the reference {values[0]:.2f} -> {values[-1]:.2f} nats"
    if values[-1] <= _FAR:
        return Finding(OK, text)
    half = len(values) // 2
    early, late = values[half] - values[0], values[-1] - values[half]
    if len(values) > 2 and late > 2 * max(0.0, early):
        return Finding(
            WRONG, f"{text}, faster and faster", "lower lr or raise beta, and go on from an earlier checkpoint"
        )
    return Finding(LOOK, text, "answers are far from those of the reference: read some, or raise beta")


def judge_entropy(rows: Rows) -> Finding:
    """Are there still several things to say?"""
    found = points(rows, "policy/entropy_avg", "entropy")
    if not found:
        return _NOT_RECORDED
    first, last = found[0][1], found[-1][1]
    text = f"entropy of a token {first:.3f} -> {last:.3f} nats"
    distinct = points(rows, "eval/distinct")
    if distinct:
        text += f", of held-out answers {distinct[0][1]:.2f} -> {distinct[-1][1]:.2f} are distinct"
    if last >= first / 4:
        return Finding(OK, text)
    advice = "answers become one: stop earlier, raise beta, or lower lr"
    fewer = distinct and distinct[-1][1] < distinct[0][1] / 2
    return Finding(WRONG if fewer else LOOK, text, advice)


def judge_score(rows: Rows) -> Finding:
    """Does the score rise, and the true score with it?"""
    score, true = points(rows, "eval/score", "reward", "objective/scores"), points(rows, "eval/true")
    if len(score) < 2:
        return _NOT_RECORDED
    text = f"score {score[0][1]:.3f} -> {score[-1][1]:.3f}"
    if len(true) > 1:
        text += f", true score {true[0][1]:.3f} -> {true[-1][1]:.3f}"
        best = max(true, key=lambda point: point[1])[0]
        then = dict(score).get(best, math.nan)
        if (fallen := _fallen(rows)) and score[-1][1] > then:
            text = f"{fallen}, while the score has risen from {then:.3f} to {score[-1][1]:.3f}"
            advice = "the reward is over-optimised: stop there, raise beta, or have answers of now judged"
            return Finding(LOOK, text, advice)
    halves = {row["step"]: _half(row.get("eval/score_interval")) for row in rows}
    noise = math.hypot(halves[score[0][0]], halves[score[-1][0]])
    if score[-1][1] < score[0][1] - noise:
        return Finding(WRONG, f"{text}, it falls", "lower lr, and look at KL and entropy")
    if score[-1][1] <= score[0][1] + noise:
        return Finding(
            LOOK, f"{text}, no more than chance makes of it", "train longer, or look whether scores differ at all"
        )
    return Finding(OK, text)


def _fallen(rows: Rows) -> str:
    """By how much the true score has fallen since it was highest, if by more than chance makes of it."""
    true = points(rows, "eval/true")
    if not true:
        return ""
    (best, highest), (end, last) = max(true, key=lambda point: point[1]), true[-1]
    halves = {row["step"]: _half(row.get("eval/true_interval")) for row in rows}
    if last >= highest - math.hypot(halves[best], halves[end]):
        return ""
    return f"the true score has fallen from {highest:.3f} at step {best:.0f} to {last:.3f}"


def judge_groups(rows: Rows) -> Finding:
    """Do the answers to one prompt differ in what they are worth?"""
    found = points(rows, "frac_reward_zero_std")
    if not found:
        return _NOT_RECORDED
    share = _recent(found)
    text = f"in {share:.2f} of the groups all answers have the same reward"
    if share <= 0.5:
        return Finding(OK, text)
    reward = points(rows, "reward")
    mean = f" (mean reward {_recent(reward):.2f})" if reward else ""
    advice = "nothing is learned there: easier prompts if none is right, harder ones if all are, or larger groups"
    return Finding(LOOK, text + mean, advice)


def judge_logprobs(rows: Rows) -> Finding:
    """Is the model that draws the one that learns?"""
    found = points(rows, "val/logprob_difference")
    if not found:
        return _NOT_RECORDED
    step, worst = max(found, key=lambda point: point[1])
    text = f"log-probabilities as drawn and as computed again differ by {worst:.1g} at most"
    if worst <= _APART:
        return Finding(OK, text)
    advice = "ratios and KL are not to be trusted: both must have one temperature, and no dropout"
    return Finding(WRONG, f"{text}, at step {step:.0f}", advice)


def judge_ends(rows: Rows) -> Finding:
    """Do answers come to their end?"""
    found = points(rows, "completions/clipped_ratio")
    if not found:
        found = [(step, 1 - ended) for step, ended in points(rows, "eval/ended")]
    advice = "raise max_new_tokens; in PPO and GRPO missing_end, too"
    return _judge_share(found, "{:.2f} of the answers are cut off before their end", advice)


def judge_clipping(rows: Rows) -> Finding:
    """How many tokens have gone as far as they may in a round?"""
    found = points(rows, "policy/clipfrac_avg", "clip_ratio/region_mean")
    return _judge_share(
        found, "{:.3f} of the ratios are clipped", "steps are too large: lower lr, or go over a round less often"
    )


def _judge_share(found: Points, words: str, advice: str) -> Finding:
    """A share that should stay below .3."""
    if not found:
        return _NOT_RECORDED
    share = _recent(found)
    if share <= 0.3:
        return Finding(OK, words.format(share))
    return Finding(LOOK, words.format(share), advice)


# ---- pairs: DPO and reward models


def judge_pair_loss(rows: Rows) -> Finding:
    """Does the loss on pairs fall? Where people or noise contradict themselves, it cannot fall far."""
    found = points(rows, "train_loss")
    if len(found) < 2:
        return _NOT_RECORDED
    first, last = found[0][1], found[-1][1]
    text = f"training loss {first:.3f} -> {last:.3f}"
    if last > first + CLEARLY:
        return Finding(WRONG, text, "it diverges: lower lr")
    if last > first - CLEARLY / 10:
        return Finding(LOOK, text, "nothing is learned yet: raise lr, or train longer")
    return Finding(OK, text)


def judge_likelihoods(rows: Rows) -> Finding:
    """Does the better answer become likelier, or only the worse one less likely?"""
    ratios = [points(rows, f"log_ratios/{which}") for which in ("chosen", "rejected")]
    if all(ratios):
        chosen, rejected = (found[-1][1] for found in ratios)
    else:
        logps = [points(rows, f"logps/{which}") for which in ("chosen", "rejected")]
        if not all(logps):
            return _NOT_RECORDED
        chosen, rejected = (found[-1][1] - found[0][1] for found in logps)
    text = f"log-probability of better answers {chosen:+.2f}, of worse ones {rejected:+.2f}"
    if chosen >= -1:
        return Finding(OK, text)
    both = "both fall, and what is in no pair gains: " if rejected < 0 else ""
    advice = f"{both}lower lr, set alpha or least_chosen, and read some answers"
    return Finding(WRONG if chosen < -_FAR else LOOK, text, advice)


def judge_margins(rows: Rows) -> Finding:
    """Are pairs told apart, and is there still something to learn from them?"""
    accuracy, margin = points(rows, "rewards/accuracies"), points(rows, "rewards/margins")
    if not accuracy or not margin:
        return _NOT_RECORDED
    last, wide = accuracy[-1][1], margin[-1][1]
    text = f"{last:.2f} of the validation pairs are in order, by {wide:.2f}"
    if len(accuracy) > 1 and last <= 0.5:
        return Finding(LOOK, text, "no better than chance: raise lr, train longer, or look at the pairs")
    if last > 0.995 and wide > 5:
        advice = (
            "the loss is spent and margins only grow: stop earlier or lower lr, and look what gives the better one away"
        )
        return Finding(LOOK, text, advice)
    return Finding(OK, text)


def judge_true(rows: Rows) -> Finding:
    """Where answers are judged besides: do they stay as good as they were?"""
    true = points(rows, "eval/true")
    if not true:
        return _NOT_RECORDED
    if fallen := _fallen(rows):
        return Finding(LOOK, fallen, "pairs are told apart at the cost of the answers: stop there, or lower lr")
    return Finding(OK, f"true score {true[0][1]:.3f} -> {true[-1][1]:.3f}")


def judge_accuracy(rows: Rows) -> Finding:
    """Does a reward model know more than chance of pairs that it has not seen?"""
    train, val = points(rows, "train_accuracy"), points(rows, "val_accuracy")
    if not val:
        return _NOT_RECORDED
    step, accuracy = val[-1]
    half = next(_half(row.get("val_accuracy_interval")) for row in rows if row["step"] == step)
    text = f"{accuracy:.2f}{f' ± {half:.2f}' if half else ''} of the validation pairs are in order"
    if train:
        text += f", {train[-1][1]:.2f} of those it learned from"
    if accuracy - half <= 0.5:
        return Finding(LOOK, text, "that may be chance: more pairs, more epochs, or clearer preferences")
    if train and train[-1][1] > accuracy + half + 0.1:
        return Finding(LOOK, text, "it learns these pairs by heart: fewer epochs, or more pairs")
    return Finding(OK, text)


_ONLINE: Sequence[tuple[str, Judge]] = (
    ("score", judge_score),
    ("KL", judge_kl),
    ("entropy", judge_entropy),
    ("logprobs", judge_logprobs),
    ("ends", judge_ends),
    ("clipping", judge_clipping),
)
JUDGES: dict[str, Sequence[tuple[str, Judge]]] = {
    "ppo": _ONLINE,
    "grpo": (*_ONLINE, ("groups", judge_groups)),
    "dpo": (
        ("fall", judge_pair_loss),
        ("likelihoods", judge_likelihoods),
        ("margins", judge_margins),
        ("true score", judge_true),
        ("ends", judge_ends),
    ),
    "reward": (
        ("start", partial(judge_start, vocab_size=2)),
        ("fall", judge_pair_loss),
        ("jumps", judge_spikes),
        ("validation", judge_validation),
        ("accuracy", judge_accuracy),
    ),
}
