"""What came of feedback: the best of many answers, two models beside each other, pairs told apart.

best = best_of(assistant, prompts, open_reward("runs/reward"), 16, judge=reward_named("reviews"))
best.mean("best"), best.mean("one")                  # by the judge: of the answers kept, and of all that were drawn
compare(assistant, other, prompts, reward_named("reviews")).win_rate

Letters in shape comments: P prompts, N answers to each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_integer
from ..errors import ConfigError, DataError
from ..evaluation.answers import mean_interval, wilson_interval
from ..evaluation.judge import prefer
from ..evaluation.pairs import PairScores
from ..rng import Generator
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config
from ..text.view import visible
from .assistant import Assistant
from .dpo import DPOTask
from .exercises import preferences_of, preferences_sum
from .feedback import check_fingerprints, open_reference
from .options import DPOOptions, RewardOptions
from .preferences import Messages, Preference, Prompts, read_preferences
from .reward import RewardModel, RewardTask
from .rewards import Reward, score
from .rollouts import roll_out
from .run import data_of

_SHOWN = 3


def answers_of(
    assistant: Assistant, prompts: Sequence[Messages], n: int, max_new_tokens: int, temperature: float, seed: int
) -> list[list[str]]:
    """`n` answers to each prompt, drawn; with a temperature of 0 the likeliest, and all the same."""
    asked = [prompt for prompt in prompts for _ in range(n)]
    how = max_new_tokens, temperature
    rng = Generator(seed).spawn()
    drawn = roll_out(assistant.model, assistant.tokenizer, assistant.template, asked, *how, rng=rng).answers
    return [drawn[i : i + n] for i in range(0, len(drawn), n)]


# ---- the best of many


@dataclass(frozen=True, eq=False)
class BestOf:
    """Of the answers to each prompt the one with the highest reward."""

    prompts: list[Messages]
    answers: list[str]  # (P,): those kept
    rewards: np.ndarray  # (P, N): of all
    judged: np.ndarray | None  # (P, N): what a judge says of all
    kept: np.ndarray  # (P,): which of them

    def values(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By the reward, and by the judge: the mean of all answers to a prompt (P,), and that of the one kept (P,)."""
        named = {"reward": self.rewards} | ({} if self.judged is None else {"judged": self.judged})
        rows = np.arange(len(self.kept))
        return {name: (values.mean(1), values[rows, self.kept]) for name, values in named.items()}

    def summary(self) -> dict[str, Any]:
        """As plain data: of one answer drawn, and of the best; an interval is half the width of the 95 % interval."""
        told: dict[str, Any] = {"prompts": len(self.prompts), "n": self.rewards.shape[1]}
        for name, pair in self.values().items():
            for which, values in zip(("one", "best"), pair, strict=True):
                told.setdefault(which, {})
                told[which] |= {name: float(values.mean()), f"{name}_interval": mean_interval(values)}
        return told

    def lines(self) -> list[str]:
        """For a terminal."""
        told = self.summary()
        lines = [f"{told['prompts']:,} prompts; one answer, and the best of {told['n']} by the reward:"]
        for name in self.values():
            pair = [f"{told[w][name]:8.3f} ± {told[w][f'{name}_interval']:.3f}" for w in ("one", "best")]
            lines.append(f"  {name:8}" + "  ->  ".join(pair))
        shown = zip(self.prompts[:_SHOWN], self.answers, strict=False)
        return [*lines, *(f"  {_asked(prompt)} | {visible(answer)[:90]}" for prompt, answer in shown)]


def best_of(
    assistant: Assistant,
    prompts: Prompts,
    reward: Reward,
    n: int = 16,
    *,
    judge: Reward | None = None,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 123,
) -> BestOf:
    """Draw `n` answers to each prompt and keep the one that the reward likes best, the first of equals (best-of-n).

    Nothing is trained: it is what any policy that was trained on the same reward has to beat.
    """
    check_integer("n", n, least=1)
    drawn = answers_of(assistant, prompts.prompts, n, max_new_tokens, temperature, seed)
    rewards = _scores(reward, prompts, drawn)
    kept = rewards.argmax(1)
    judged = None if judge is None else _scores(judge, prompts, drawn)
    answers = [some[i] for some, i in zip(drawn, kept.tolist(), strict=True)]
    return BestOf(prompts.prompts, answers, rewards, judged, kept)


def _scores(reward: Reward, prompts: Prompts, answers: Sequence[Sequence[str]], order: Any = None) -> np.ndarray:
    """(P, N), asked for in this order of all answers."""
    n = len(answers[0])
    flat = [text for some in answers for text in some]
    order = np.arange(len(flat)) if order is None else order
    columns = {name: [column[i // n] for i in order] for name, column in prompts.columns.items()}
    values = np.empty(len(flat))
    values[order] = score(reward, [prompts.prompts[i // n] for i in order], [flat[i] for i in order], columns)
    return values.reshape(-1, n)


# ---- two models


@dataclass(frozen=True, eq=False)
class Comparison:
    """Answers of two models to the same prompts, and which of each two is better."""

    prompts: list[Messages]
    answers: list[list[str]]  # (P, 2)
    outcomes: list[float | None]  # 1 where the first is better, 0 where the second is, 0.5 for equals; None: no verdict
    scores: np.ndarray | None  # (P, 2), of a judge that gives numbers

    @property
    def win_rate(self) -> float | None:
        """Of the first over the second, a tie counting half; None without any verdict."""
        given = [outcome for outcome in self.outcomes if outcome is not None]
        return sum(given) / len(given) if given else None

    def summary(self) -> dict[str, Any]:
        """As plain data; the interval of the win rate is Wilson's, at 95 %."""
        given: list[float] = [outcome for outcome in self.outcomes if outcome is not None]
        told: dict[str, Any] = {
            "prompts": len(self.prompts),
            "wins": given.count(1.0),
            "ties": given.count(0.5),
            "losses": given.count(0.0),
            "unparsed": len(self.outcomes) - len(given),
            "win_rate": self.win_rate,
            "interval": list(wilson_interval(sum(given), len(given))) if given else None,
        }
        if self.scores is not None:
            told["means"] = self.scores.mean(0).tolist()
            told["mean_intervals"] = [mean_interval(column) for column in self.scores.T]
        return told

    def lines(self) -> list[str]:
        """For a terminal."""
        told = self.summary()
        counts = f"{told['wins']} won, {told['ties']} alike, {told['losses']} lost"
        if told["win_rate"] is None:
            return [f"{told['prompts']:,} prompts: the judge gave no verdict"]
        low, high = told["interval"]
        lines = [f"{told['prompts']:,} prompts: {counts}; win rate {told['win_rate']:.3f} ({low:.3f}-{high:.3f})"]
        if told["unparsed"]:
            lines.append(f"{told['unparsed']} of them without a verdict, which do not count")
        if self.scores is not None:
            pair = zip(told["means"], told["mean_intervals"], strict=True)
            lines.append("Means: " + " and ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in pair))
        for prompt, (one, other) in list(zip(self.prompts, self.answers, strict=True))[:_SHOWN]:
            lines += [f"  {_asked(prompt)}", f"    {visible(one)[:90]}", f"    {visible(other)[:90]}"]
        return lines


def compare(
    a: Assistant,
    b: Assistant,
    prompts: Prompts,
    judge: Reward,
    *,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 123,
) -> Comparison:
    """Have both answer each prompt, and the judge score all answers at once, in an order that does not tell whose they are."""
    answers = _both(a, b, prompts, max_new_tokens, temperature, seed)
    scores = _scores(judge, prompts, answers, Generator(seed + 1).randperm(2 * len(answers)))
    outcomes: list[float | None] = (0.5 + 0.5 * np.sign(scores[:, 0] - scores[:, 1])).tolist()
    return Comparison(prompts.prompts, answers, outcomes, scores)


def compare_by_endpoint(
    a: Assistant,
    b: Assistant,
    prompts: Prompts,
    *,
    url: str,
    model: str,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 123,
    report: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """As `compare`, by a model behind an endpoint (`evaluation.judge.prefer`), which is asked in both orders."""
    answers = _both(a, b, prompts, max_new_tokens, temperature, seed)
    questions = [prompt[-1]["content"] for prompt in prompts.prompts]
    pair = ([some[i] for some in answers] for i in range(2))
    return Comparison(prompts.prompts, answers, prefer(questions, *pair, url=url, model=model, report=report), None)


def _both(
    a: Assistant, b: Assistant, prompts: Prompts, max_new_tokens: int, temperature: float, seed: int
) -> list[list[str]]:
    """(P, 2)."""
    how = max_new_tokens, temperature
    drawn = [answers_of(one, prompts.prompts, 1, *how, seed + i) for i, one in enumerate((a, b))]
    return [[one[0], other[0]] for one, other in zip(*drawn, strict=True)]


def _asked(prompt: Messages) -> str:
    return visible(prompt[-1]["content"])[:60]


# ---- pairs


def evaluate_pairs(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | int | None = None,
    encoding: str = "",
) -> tuple[str, PairScores]:
    """How well a run of reward or DPO tells the pairs apart that it kept for testing, or those of a file, which are named first.

    A run of DPO by the rewards that it implies, for which the weights of its reference have to be where they were. DataError for
    pairs that are no longer what they were.
    """
    folder, _ = find_run(run, checkpoint) or (Path(run), "")
    config = load_config(folder)
    kinds: dict[str, type[RewardOptions | DPOOptions]] = {"reward": RewardOptions, "dpo": DPOOptions}
    with naming(folder / CONFIG_FILE):
        if config["task"] not in kinds:
            raise ConfigError(f"task is {config['task']!r:.80}: pairs are for one of {', '.join(kinds)}")
        kept, options = data_of(config), kinds[config["task"]].of_run(config["training"])
    if data is not None:
        name, rows = str(data), read_preferences(data, encoding or None).rows
    else:
        all_parts, _ = preferences_of(kept, options)
        if preferences_sum(all_parts) != config["data"].get("texts"):
            raise DataError(f"{kept}: not the texts any more that this run began with: put them back, or name a file")
        name, rows = "the pairs kept for testing", all_parts[1]
    parts: tuple[list[Preference], ...] = ([], rows, [])
    if isinstance(options, RewardOptions):
        found = RewardModel.load(run, checkpoint)
        scorer = RewardTask(parts, [], options, found.tokenizer, found.template)
        return name, PairScores(scorer.differences(found.model, rows))
    policy = Assistant.load(run, checkpoint)
    reference = open_reference(options.reference, policy.tokenizer)
    check_fingerprints(config, options, reference=reference)
    task = DPOTask(parts, [], options, policy.tokenizer, policy.template)
    task.read_reference(reference)
    rewards = task.measure(policy.model, task.test)["rewards"]
    return name, PairScores(rewards[:, 0] - rewards[:, 1])
