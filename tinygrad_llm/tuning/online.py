"""Learning from one's own answers, as PPO and GRPO do: answer, be rewarded, learn from that, and again.

An epoch is such a round. What was drawn in it is kept in every checkpoint until it is used up, so a run that was interrupted
goes on with the same answers.

Letters in shape comments: B answers of a round, T tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CorruptCheckpoint
from ..evaluation.answers import mean_interval
from ..files import replace_file
from ..generation.sampling import log_softmax
from ..models import LanguageModel
from ..models.heads import policy_of
from ..nn.module import evaluating
from ..rng import Generator, get_generator
from ..runs.plots import Panel, plot_panels
from ..text.view import visible
from ..training.task import Finished
from .options import OnlineOptions
from .preferences import Prompts
from .rewards import score
from .rollouts import Rollouts, roll_out, token_values
from .run import TuningTask
from .setting import Setting

ANSWERS_FILE = "answers.jsonl"
_APART = 1e-3  # of log-probabilities as drawn and as computed again, from which the two are not of one distribution
_PANELS = (
    Panel("mean of held-out answers", {"eval/score": "score", "eval/true": "true score"}),
    Panel(
        "KL of an answer to the reference (nats)", {"eval/kl": "held-out answers", "objective/kl": "those of the round"}
    ),
    Panel(
        "entropy of a token (nats)",
        {"policy/entropy_avg": "answers of the round", "entropy": "answers of the round"},
        (0, None),
    ),
)
_ROUND = "round."  # before the names of arrays in a checkpoint


class OnlineTask(TuningTask):
    """A round is `draw`n and made into the arrays of `learn_from`, a row an answer; the objective takes rows of these."""

    options: OnlineOptions
    passes: int  # over the answers of a round

    def __init__(self, setting: Setting, options: OnlineOptions, passes: int) -> None:
        self.setting, self.options, self.passes = setting, options, passes
        self.tokenizer, self.chance = setting.tokenizer, math.inf
        prompts = [*setting.train.prompts, *setting.held_out.prompts]
        longest = max(len(setting.template.encode(self.tokenizer, prompt, True)[0]) for prompt in prompts)
        self.max_length = min(longest + options.max_new_tokens, options.context_length)
        self.round: dict[str, np.ndarray] = {}  # arrays (B, ...), whose names are those of the objective's arguments
        self.measured: dict[str, float] = {}  # of the answers of the round
        self.steps: list[dict[str, float]] = []  # of the round, the stats of each step
        self.shards: list[
            tuple[int, dict[str, float]]
        ] = []  # of the step under way: first row, and its part of the stats
        self.shown: list[dict[str, Any]] = []  # held-out answers, of the last evaluation

    # ---- what PPO and GRPO write

    def choose(self, n_prompts: int) -> np.ndarray:
        """The prompts of a round, (B,), drawn with the current generator."""
        return some(n_prompts, self.options.rollouts)

    def learn_from(
        self, model: Any, drawn: Rollouts, scores: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Arrays (B, ...) of a round, and what is to be known of it. `scores` (B,) are those of the reward, the missing end
        taken off."""
        raise TypeError(f"{type(self).__name__} must define learn_from(model, drawn, scores)")

    def measure(self, model: Any, drawn: Rollouts, scores: np.ndarray) -> dict[str, np.ndarray]:
        """What is known of each token, (B, T) each: "logprobs", "advantages" as they stand in the loss, and what else there is,
        of which `learn_from` makes its arrays."""
        raise TypeError(f"{type(self).__name__} must define measure(model, drawn, scores)")

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """The arrays of these rows, and their numbers in the batch, by which shards are told apart."""
        return (*(array[rows] for array in self.round.values()), np.arange(len(rows)))

    # ---- the task

    def __len__(self) -> int:
        return self.passes * math.ceil(self.options.rollouts / self.options.batch_size)

    def epoch(self, model: Any) -> Iterator[tuple[np.ndarray, ...]]:
        # First, and as many as ever: a run that is resumed draws them again, whatever its model would answer now.
        orders = [get_generator().shuffle_order(self.options.rollouts) for _ in range(self.passes)]
        chosen, rng = self.choose(len(self.setting.train.prompts)), get_generator().spawn()
        drawn, scores = self.draw(policy_of(model), self.setting.train, chosen, rng)
        self.measured = self._describe(drawn, scores)
        with evaluating(model):
            ended = scores - self.options.missing_end * ~drawn.ended
            self.round, more = self.learn_from(model, drawn, ended)
        self.measured |= more
        self.steps, self.shards = [], []  # the last step of the round before has not been asked for
        for order in orders:
            for start in range(0, len(order), self.options.batch_size):
                yield self.batch(order[start : start + self.options.batch_size])
                self._end_step()

    def draw(
        self, policy: LanguageModel, prompts: Prompts, chosen: Sequence[int] | np.ndarray, rng: np.random.Generator
    ) -> tuple[Rollouts, np.ndarray]:
        """Answers to the chosen prompts, and what the reward makes of them, (B,)."""
        setting, options = self.setting, self.options
        asked = [prompts.prompts[i] for i in chosen]
        columns = {name: [column[i] for i in chosen] for name, column in prompts.columns.items()}
        drawn = roll_out(
            policy, self.tokenizer, setting.template, asked, options.max_new_tokens, options.temperature, rng=rng
        )
        return drawn, np.array(score(setting.reward, asked, drawn.answers, columns))

    def logprobs(self, policy: LanguageModel, drawn: Rollouts) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities of the tokens and entropies of the distributions they are from, (B, T) each."""

        def of(ids: np.ndarray) -> np.ndarray:
            all_of_them = log_softmax(policy(ids[:, :-1]).data / self.options.temperature)  # (b, T, V)
            taken = np.take_along_axis(all_of_them, ids[:, 1:, None], -1)[..., 0]
            return np.stack([taken, -(np.exp(all_of_them) * all_of_them).sum(-1)], axis=1)  # (b, 2, T)

        found = token_values(of, drawn.ids)
        return found[:, 0], found[:, 1]

    def reference_logprobs(self, drawn: Rollouts) -> np.ndarray:
        return self.logprobs(self.setting.reference, drawn)[0]

    def check_drawn(self, drawn: Rollouts, logprobs: np.ndarray) -> float:
        """How far log-probabilities computed again are from those as drawn; a warning if too far."""
        apart = float(np.abs(np.where(drawn.mask, logprobs - drawn.sampled, 0)).max())
        if apart > _APART:
            warnings.warn(
                f"tokens were drawn with log-probabilities up to {apart:.2g} away from those of the pass that learns: ratios and "
                "KL are not to be trusted",
                RuntimeWarning,
                stacklevel=2,
            )
        return apart

    def note(self, row: np.ndarray, stats: dict[str, float]) -> None:
        """Keep the stats of a shard, which begins at this row of its batch."""
        self.shards.append((int(row[0]), stats))

    def _end_step(self) -> None:
        shards = [stats for _, stats in sorted(self.shards, key=lambda shard: shard[0])]  # threads end in any order
        self.shards.clear()
        if shards:
            self.steps.append({name: math.fsum(stats[name] for stats in shards) for name in shards[0]})

    def _describe(self, drawn: Rollouts, scores: np.ndarray) -> dict[str, float]:
        lengths = drawn.lengths
        return {
            "objective/scores": float(scores.mean()),
            "val/num_eos_tokens": float(drawn.ended.sum()),
            "completions/mean_length": float(lengths.mean()),
            "completions/min_length": float(lengths.min()),
            "completions/max_length": float(lengths.max()),
            "completions/clipped_ratio": float(1 - drawn.ended.mean()),
        }

    def learned(self) -> dict[str, float]:
        """The means over the steps of the round of what their stats say, under the names of TRL."""
        raise TypeError(f"{type(self).__name__} must define learned()")

    def mean_of_steps(self, name: str) -> float:
        return math.fsum(step[name] for step in self.steps) / len(self.steps)

    def evaluate(self, model: Any, final: bool) -> dict[str, float]:
        """Held-out prompts are answered, always with the same random numbers. The losses are scores, with the sign changed."""
        self._end_step()
        n = self.options.eval_answers * (4 if final or not self.round else 1)
        held_out, policy = self.setting.held_out, policy_of(model)
        chosen = np.arange(n) % len(held_out.prompts)
        with evaluating(model):
            drawn, scores = self.draw(policy, held_out, chosen, Generator(self.options.seed).spawn())
            reference = self.reference_logprobs(drawn)
        found = {"eval/score": float(scores.mean()), "eval/score_interval": mean_interval(scores)}
        judged = scores
        if self.setting.judge is not None:
            columns = {name: [column[i] for i in chosen] for name, column in held_out.columns.items()}
            judged = np.array(score(self.setting.judge, drawn.prompts, drawn.answers, columns))
            found |= {"eval/true": float(judged.mean()), "eval/true_interval": mean_interval(judged)}
        kl = (np.where(drawn.mask, drawn.sampled - reference, 0)).sum(1)  # (B,)
        found |= {"eval/kl": float(kl.mean()), "eval/kl_interval": mean_interval(kl)}
        found["eval/distinct"] = len(set(drawn.answers)) / len(drawn.answers)
        found["eval/ended"] = float(drawn.ended.mean())
        self.shown = [
            {"prompt": asked[-1]["content"], "answer": answer, "score": float(value), "judged": float(other)}
            for asked, answer, value, other in zip(drawn.prompts, drawn.answers, scores, judged, strict=True)
        ]
        train = self.measured.get("objective/scores", found["eval/score"])
        return {
            "train_loss": -train,
            "val_loss": -float(judged.mean()),
            **found,
            **self.measured,
            **(self.learned() if self.steps else {}),
        }

    def headline(self, row: Mapping[str, float]) -> dict[str, float]:
        return {
            name.removeprefix("eval/"): value
            for name, value in row.items()
            if name.startswith("eval/") and "interval" not in name
        }

    def sample(self, model: Any, step: int, final: bool) -> str:
        """A held-out answer, another one each time."""
        if not self.shown:
            return ""
        shown = self.shown[step % len(self.shown)]
        return f"{visible(shown['prompt'])[:200]} | {shown['answer']} ({shown['score']:.2f})"

    def plot(self, path: Path, rows: Sequence[dict[str, float]]) -> bool:
        """The losses are no curve of their own."""
        return plot_panels(path, rows, _PANELS)

    def state(self) -> dict[str, Any]:
        self._end_step()
        arrays = {_ROUND + name: array for name, array in self.round.items()}
        return {**arrays, "measured": self.measured, "steps": self.steps, "shown": self.shown}

    def restore(self, state: dict[str, Any]) -> None:
        self.round = {name.removeprefix(_ROUND): array for name, array in state.items() if name.startswith(_ROUND)}
        self.measured, self.steps, self.shown = (state.get(name, kind()) for name, kind in _KEPT.items())
        self.shards.clear()
        if any(len(array) != self.options.rollouts for array in self.round.values()):
            raise CorruptCheckpoint(
                f"task_state: a round has {self.options.rollouts} answers, its arrays another number"
            )

    def n_bytes(self) -> int:
        return 64 * self.options.rollouts * self.max_length

    def introduce(self) -> list[str]:
        return self.setting.said

    def about(self) -> dict[str, Any]:
        options = self.options
        setting = self.setting
        data = {"train": _sum_of(setting.train), "held_out": _sum_of(setting.held_out)}
        how = [options.rollouts, options.batch_size, self.passes, options.max_new_tokens, options.temperature]
        return {"data": data, "batches": [data["train"], *how]}

    def conclude(self, finished: Finished) -> OnlineResult:
        rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in self.shown]
        replace_file(finished.folder / ANSWERS_FILE, [row.encode() for row in rows])
        return OnlineResult(finished, finished.metrics[0], finished.metrics[-1], self.shown[:3])


_KEPT: dict[str, Any] = {"measured": dict, "steps": list, "shown": list}


@dataclass(frozen=True)
class OnlineResult:
    """What a run leaves besides its folder: held-out prompts answered before and after."""

    finished: Finished
    before: Mapping[str, float]
    after: Mapping[str, float]
    examples: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """As plain data; "reward" is the mean score of held-out answers, "interval" half the width of its 95 % interval."""
        told = {}
        for when, row in (("before", self.before), ("after", self.after)):
            told[when] = {
                "reward" if name == "score" else name: row[f"eval/{name}"]
                for name in (
                    "score",
                    "score_interval",
                    "true",
                    "true_interval",
                    "kl",
                    "kl_interval",
                    "distinct",
                    "ended",
                )
                if f"eval/{name}" in row
            }
        return {
            "folder": str(self.finished.folder),
            "steps": self.after["step"],
            **told,
            "seconds": self.finished.seconds,
            "tokens_per_second": self.finished.tokens_per_second,
        }

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        said = self.summary()
        lines = ["", f"Trained in {self.finished.seconds:.0f} s. Held-out answers, before and after:"]
        for name in said["after"]:
            if "interval" not in name:
                pair = []
                for when in ("before", "after"):
                    half = said[when].get({"reward": "score"}.get(name, name) + "_interval")
                    pair.append(f"{said[when][name]:8.3f}" + ("         " if half is None else f" ± {half:.3f}"))
                lines.append(f"  {name:10}" + "  ->  ".join(pair))
        for shown in self.examples:
            lines.append(f"  {visible(shown['prompt'])[:60]} | {visible(shown['answer'])[:90]} ({shown['score']:.2f})")
        return lines


def _sum_of(prompts: Prompts) -> str:
    return hashlib.sha256(json.dumps([prompts.prompts, prompts.columns], default=str).encode()).hexdigest()


def some(n: int, k: int) -> np.ndarray:
    """k of n numbers, each of which comes once before one comes again."""
    return np.concatenate([get_generator().shuffle_order(n) for _ in range(math.ceil(k / n))])[:k]


def one(*batch: np.ndarray) -> int:
    """What the weights of a batch add up to, whose losses are means already."""
    return 1
