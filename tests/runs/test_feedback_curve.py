"""Learning from feedback as it should go, and as it should not: rows made up for each thing that goes wrong, and for none."""

import math

import pytest

from tinygrad_llm.runs import feedback_curve
from tinygrad_llm.runs.feedback_curve import JUDGES

STRANGE = [math.nan, math.inf, -math.inf, None, "much", True, [1], {}, 10**400, -(10**400), 1e308]


def rows(n, **columns):
    """`n` rows, ten steps apart; a column is a value for all of them, or one for each. `__` stands for a slash."""
    made = [{"step": 10 * i, "lr": 1e-4, "train_loss": 0.0, "val_loss": 0.0} for i in range(n)]
    for name, values in columns.items():
        listed = values if isinstance(values, list) else [values] * n
        for row, value in zip(made, listed, strict=True):
            row[name.replace("__", "/")] = value
    return made


def online(**changes):
    """PPO as it should go; before the first step nothing is known of a round."""
    made = rows(
        6,
        **{
            "eval__score": [-0.1, 0.1, 0.3, 0.5, 0.6, 0.7],
            "eval__score_interval": 0.1,
            "eval__true": [-0.2, 0.0, 0.2, 0.4, 0.5, 0.5],
            "eval__true_interval": 0.1,
            "eval__kl": [1e-8, 0.2, 0.8, 1.5, 2.0, 2.4],
            "eval__kl_interval": [2e-7, 0.1, 0.1, 0.1, 0.1, 0.1],
            "eval__distinct": [0.9, 0.9, 0.85, 0.8, 0.8, 0.75],
            "eval__ended": 0.95,
            "objective__kl": [0.0, 0.1, 0.7, 1.4, 2.1, 2.3],
            "objective__kl_interval": [0.0, 0.1, 0.1, 0.1, 0.1, 0.1],
            "policy__entropy_avg": [0.5, 0.45, 0.4, 0.4, 0.35, 0.3],
            "policy__clipfrac_avg": 0.05,
            "val__logprob_difference": 3e-6,
            "completions__clipped_ratio": 0.05,
        },
    )
    for name in ("objective/kl", "objective/kl_interval", "policy/entropy_avg", "val/logprob_difference"):
        del made[0][name]
    return with_changes(made, changes)


def groups(**changes):
    made = online()
    for row in made:
        for name in [name for name in row if name.startswith(("objective/", "policy/", "eval/kl", "eval/true"))]:
            del row[name]
        row |= {"reward": 0.3 + row["step"] / 100, "entropy": 0.5, "kl": 0.1, "frac_reward_zero_std": 0.2}
        row |= {"clip_ratio/region_mean": 0.01}
    return with_changes(made, changes)


def pairs(**changes):
    made = rows(
        5,
        train_loss=[0.69, 0.6, 0.5, 0.45, 0.42],
        val_loss=[0.69, 0.62, 0.55, 0.52, 0.51],
        rewards__accuracies=[0.0, 0.7, 0.75, 0.8, 0.82],
        rewards__margins=[0.0, 0.2, 0.5, 0.8, 1.0],
        log_ratios__chosen=[0.0, 0.5, 0.6, 0.3, -0.2],
        log_ratios__rejected=[0.0, -1.0, -3.0, -5.0, -8.0],
        logps__chosen=[-20.0, -19.5, -19.4, -19.7, -20.2],
        logps__rejected=[-21.0, -22.0, -24.0, -26.0, -29.0],
        eval__true=[0.1, 0.2, 0.3, 0.4, 0.4],
        eval__true_interval=0.1,
        eval__ended=0.95,
    )
    return with_changes(made, changes)


def reward(**changes):
    made = rows(
        4,
        train_loss=[0.72, 0.6, 0.5, 0.45],
        val_loss=[0.71, 0.62, 0.55, 0.53],
        train_accuracy=[0.5, 0.7, 0.75, 0.8],
        val_accuracy=[0.5, 0.68, 0.72, 0.75],
        val_accuracy_interval=0.1,
    )
    return with_changes(made, changes)


def with_changes(made, changes):
    for name, values in changes.items():
        listed = values if isinstance(values, list) else [values] * len(made)
        for row, value in zip(made, listed, strict=True):
            row[name.replace("__", "/")] = value
            if value is None:
                del row[name.replace("__", "/")]
    return made


MADE = {"ppo": online, "grpo": groups, "dpo": pairs, "reward": reward}


def judged(task, made):
    return {name: judge(made) for name, judge in JUDGES[task]}


@pytest.mark.parametrize("task", MADE)
def test_what_goes_well(task):
    found = judged(task, MADE[task]())
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(found, "ok"), found
    assert not any(each.advice for each in found.values())
    assert not any("not recorded" in each.text for each in found.values())


KL = {"objective__kl": None, "objective__kl_interval": None}


@pytest.mark.parametrize(
    ("task", "check", "changes", "verdict", "words"),
    [
        ("ppo", "KL", {"objective__kl": [0, 0, -1.0, 0, 0, 0]}, "wrong", "-1.000 at step 20, 20 standard errors below 0"),
        ("ppo", "KL", KL | {"eval__kl": [0, 0, 0, 0, 0, -0.5]}, "wrong", "at step 50, 10 standard errors"),
        ("ppo", "KL", {"objective__kl": [0, 0, -0.2, 0.1, 0, 0]}, "ok", "0.00 -> 0.00"),  # four of them
        ("ppo", "KL", KL | {"eval__kl": [-1e-4] * 6, "eval__kl_interval": 1e-9}, "ok", "-0.00"),  # rounding
        ("ppo", "KL", {"objective__kl": [0, 0.1, 0.5, 2, 9, 41.0]}, "wrong", "0.00 -> 41.00 nats, faster and faster"),
        ("ppo", "KL", {"objective__kl": [0, 1, 2, 3, 8, 14.0]}, "wrong", "faster and faster"),
        ("ppo", "KL", {"objective__kl": [0, 3, 6, 9, 12, 14.0]}, "look", "read some, or raise beta"),
        ("ppo", "KL", {"objective__kl": [0, 0.1, 0.2, 0.5, 2, 8.0]}, "ok", ""),
        ("ppo", "entropy", {"policy__entropy_avg": [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]}, "look", "0.500 -> 0.100"),
        (
            "ppo",
            "entropy",
            {"policy__entropy_avg": [0.5, 0.4, 0.3, 0.2, 0.1, 0.1], "eval__distinct": [0.9, 0.8, 0.6, 0.5, 0.3, 0.2]},
            "wrong",
            "0.90 -> 0.20 are distinct: answers become one",
        ),
        ("grpo", "entropy", {"entropy": [0.4, 0.2, 0.1, 0.09, 0.08, 0.07]}, "look", "0.400 -> 0.070"),
        (
            "ppo",
            "score",
            {"eval__true": [-0.2, 0.0, 0.4, 0.3, 0.1, -0.1]},
            "look",
            "from 0.400 at step 20 to -0.100, while the score has risen from 0.300 to 0.700: the reward is over-optimised",
        ),
        ("ppo", "score", {"eval__true": [-0.2, 0, 0.4, 0.35, 0.35, 0.3]}, "ok", "0.300"),  # within the intervals
        ("ppo", "score", {"eval__score": [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]}, "wrong", "it falls"),
        ("ppo", "score", {"eval__score": [0.1, 0.1, 0.2, 0.1, 0.2, 0.2]}, "look", "no more than chance"),
        ("grpo", "groups", {"frac_reward_zero_std": [0.2, 0.3, 0.5, 0.6, 0.8, 0.9]}, "look", "in 0.85 of the groups"),
        ("grpo", "groups", {"frac_reward_zero_std": [0.9, 0.8, 0.6, 0.5, 0.4, 0.3]}, "ok", "0.35"),
        ("ppo", "logprobs", {"val__logprob_difference": [None, 1e-6, 0.02, 1e-6, 1e-6, 1e-6]}, "wrong", "0.02 at most, at"),
        ("ppo", "ends", {"completions__clipped_ratio": [0.1, 0.1, 0.2, 0.4, 0.6, 0.8]}, "look", "0.70 of the answers"),
        ("dpo", "ends", {"eval__ended": 0.5}, "look", "0.50 of the answers are cut off"),
        ("ppo", "clipping", {"policy__clipfrac_avg": 0.5}, "look", "0.500 of the ratios"),
        ("grpo", "clipping", {"clip_ratio__region_mean": 0.5}, "look", "0.500 of the ratios"),
        ("dpo", "likelihoods", {"log_ratios__chosen": [0, -1, -2, -3, -4.0]}, "look", "-4.00, of worse ones -8.00: both"),
        ("dpo", "likelihoods", {"log_ratios__chosen": [0, -5, -10, -15, -20.0]}, "wrong", "-20.00"),
        (
            "dpo",
            "likelihoods",
            {"log_ratios__chosen": None, "log_ratios__rejected": None, "logps__chosen": [-20, -21, -22, -23, -24.0]},
            "look",
            "better answers -4.00, of worse ones -8.00",
        ),
        ("dpo", "margins", {"rewards__accuracies": 1.0, "rewards__margins": [0, 2, 4, 6, 9.0]}, "look", "in order, by 9.00"),
        ("dpo", "margins", {"rewards__accuracies": [0, 0.5, 0.5, 0.4, 0.5]}, "look", "no better than chance"),
        ("dpo", "true score", {"eval__true": [0.1, 0.4, 0.5, 0.2, 0.0]}, "look", "fallen from 0.500 at step 20 to 0.000"),
        ("dpo", "fall", {"train_loss": [0.69, 0.69, 0.69, 0.69, 0.69]}, "look", "nothing is learned yet"),
        ("dpo", "fall", {"train_loss": [0.69, 0.7, 0.8, 0.9, 0.9]}, "wrong", "diverges"),
        ("dpo", "fall", {"train_loss": [25, 24, 22, 20, 18.0]}, "ok", "25.000 -> 18.000"),  # IPO
        ("dpo", "fall", {"train_loss": [0.693, 0.69, 0.68, 0.67, 0.66]}, "ok", ""),
        ("reward", "accuracy", {"val_accuracy": [0.5, 0.5, 0.55, 0.58]}, "look", "may be chance"),
        ("reward", "accuracy", {"val_accuracy": [0.5, 0.5, 0.55, 0.58]}, "look", "0.58 ± 0.10 of the validation pairs"),
        ("reward", "accuracy", {"val_accuracy_interval": None, "val_accuracy": [0.5, 0.5, 0.5, 0.5]}, "look", "may be chance"),
        ("reward", "accuracy", {"train_accuracy": [0.5, 0.8, 0.9, 1.0]}, "look", "by heart"),
        ("reward", "validation", {"val_loss": [0.71, 0.6, 0.8, 1.0]}, "look", "since step 10"),
    ],
)  # fmt: skip
def test_what_goes_wrong(task, check, changes, verdict, words):
    found = judged(task, MADE[task](**changes))
    assert (found[check].verdict, words in str(found[check])) == (verdict, True), found[check]
    assert "\n" not in str(found[check])
    assert bool(found[check].advice) == (verdict != "ok")
    others = {name: each.verdict for name, each in found.items() if name != check}
    assert set(others.values()) <= {"ok"}, found


@pytest.mark.parametrize("task", MADE)
def test_rows_that_lack_what_is_looked_at(task):
    """A run under way, or one of another version."""
    found = judged(task, rows(3, train_loss=[0.7, 0.6, 0.5], val_loss=[0.7, 0.6, 0.5]))
    assert {each.verdict for each in found.values()} == {"ok"}
    one = judged(task, MADE[task]()[:1])
    assert {each.verdict for each in one.values()} <= {"ok", "look"}


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
@pytest.mark.parametrize("task", MADE)
def test_what_a_stranger_writes_is_not_known(task, strange):
    for n_strange in (1, 5):
        made = MADE[task]()
        names = [name for name in made[-1] if name not in ("step", "lr", "train_loss", "val_loss")]
        for name in names:
            changed = [dict(row) for row in made]
            for row in changed[-n_strange:]:
                row[name] = strange
            for found in judged(task, changed).values():
                assert found.verdict in ("ok", "look"), found
                assert len(str(found)) < 300


def test_every_judge_is_asked():
    judges = {value for name, value in vars(feedback_curve).items() if name.startswith("judge_")}
    asked = {getattr(judge, "func", judge) for each in JUDGES.values() for _, judge in each}
    assert judges == asked
