"""A reward model: of two answers to one prompt, the better one is to score higher.

run = train("pairs.jsonl", init_from="runs/assistant", out="runs/reward")
run.accuracy, run.margin
model = RewardModel.load("runs/reward")
model.scores(prompts, answers)

Letters in shape comments: P pairs, B prompts, K answers to each, T tokens, N answers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import Tensor
from ..errors import CheckpointError
from ..evaluation.answers import mean_interval
from ..evaluation.pairs import PairScores
from ..models import LanguageModel
from ..models.heads import SCORE, add_score, class_logits
from ..nn.module import evaluating
from ..ops import log_sigmoid
from ..rng import Generator, get_generator
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config, load_run
from ..runs.loggers import Logger
from ..text import Tokenizer
from ..text.templates import Message, Template
from ..training.step import Objective
from ..training.task import Finished
from .exercises import preferences_of, preferences_sum
from .feedback import check_fingerprints, choose, encode_answer, encode_answers, open_reference, say_cut
from .options import RewardOptions
from .preferences import Messages, Preference
from .rewards import Reward, reward_named
from .rollouts import roll_out, token_values
from .run import TuningTask, begin, data_of, go_on
from .sequences import Numbers, check_finite, check_shapes, numbers, tensors


def losses(better: Numbers, worse: Numbers, margin: Any = None) -> Tensor:
    """-log σ(r_better - r_worse - margin), (P,), from the scores (P,) of each pair.

    Bradley and Terry 1952; Stiennon et al. 2020, §3.4. The margin (P,), by how much one answer is better, is Llama 2's (Touvron
    et al. 2023, §3.2.2) and TRL's. Of a ranking of K answers, InstructGPT (Ouyang et al. 2022, eq. 1) weighs each pair with
    1 / C(K, 2), so that a prompt counts once: multiply by such weights and add up.
    """
    better, worse = tensors("reward.loss", better=better, worse=worse)
    check_shapes("reward.loss", 1, better=better, worse=worse)
    difference = better - worse  # (P,)
    if margin is not None:
        margin = numbers("reward.loss: margin", margin)
        check_shapes("reward.loss", 1, better=better, margin=margin)
        check_finite("reward.loss: margin", margin)
        difference = difference - margin
    return -log_sigmoid(difference)


def loss(better: Numbers, worse: Numbers, margin: Any = None) -> Tensor:
    """The mean of `losses` over all pairs, a scalar: ln 2 for a model that gives all answers one score."""
    return losses(better, worse, margin).mean()


# ---- the model


@dataclass(frozen=True)
class RewardModel:
    """Scores of answers. It is a reward, too: called as one, it gives a list."""

    model: LanguageModel
    tokenizer: Tokenizer
    template: Template
    path: str = ""

    @classmethod
    def load(cls, path: str | os.PathLike[str], checkpoint: str | int | None = None) -> RewardModel:
        """From a run of `train`. CheckpointError for another one."""
        found = find_run(path, checkpoint)
        if found is None:
            raise CheckpointError(f"{path}: not a run: tinygrad-llm prefer reward makes one")
        model, tokenizer = load_run(path, checkpoint)
        if model.classes != (SCORE,):
            raise CheckpointError(
                f"{path}: not a reward model, it gives no score: tinygrad-llm prefer reward makes one"
            )
        with naming(found[0] / CONFIG_FILE):
            template = Template.from_dict(load_config(found[0]).get("template"))
        return cls(model, tokenizer, template, str(path))

    def scores(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> np.ndarray:
        """(N,), float64. What is longer than the context is read from where it still fits."""
        context = self.model.config.context_length or math.inf
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            ids, _ = encode_answer(self.template, self.tokenizer, prompt, answer)
            rows.append(ids[max(0, int(len(ids) - context)) :] if len(ids) > context else ids)
        return score_rows(self.model, rows)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str], **columns: Any) -> list[float]:
        asked = [[{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt for prompt in prompts]
        return self.scores(asked, completions).tolist()


def open_reward(name: str) -> Reward:
    """A reward model, by the folder of its run, or another reward by its name."""
    return RewardModel.load(name) if os.path.isdir(name) else reward_named(name)


def score_rows(model: LanguageModel, rows: Sequence[Sequence[int]]) -> np.ndarray:
    """The score of each row of ids by its last token, (N,), float64."""
    if not rows:
        return np.zeros(0)
    ids, lengths = _fill(rows)
    order = np.argsort(lengths, kind="stable")

    def of(numbered: np.ndarray) -> np.ndarray:
        n = numbered[:, 0]
        return class_logits(model, numbered[:, 1 : 1 + n.max()], n).data[:, 0]

    with evaluating(model):
        found = token_values(of, np.column_stack([lengths, ids])[order])
    scores = np.empty(len(rows))
    scores[order] = found
    return scores


def _fill(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ids filled up with 0 (N, T), and their lengths (N,)."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for filled, row in zip(ids, rows, strict=True):
        filled[: len(row)] = row
    return ids, lengths


# ---- the task


class RewardTask(TuningTask):
    """Score the better answer higher. A row of a batch is a prompt with all its answers, so that it counts once."""

    name, chance = "reward", math.log(2)

    def __init__(
        self,
        parts: Sequence[Sequence[Preference]],
        said: list[str],
        options: RewardOptions,
        tokenizer: Tokenizer,
        template: Template,
    ) -> None:
        self.train, self.test, self.validation = parts
        self.options, self.tokenizer, self.template = options, tokenizer, template
        self.objective = Objective(lambda *batch: 1, self.loss)
        self.rows = {id(row): self._encode(row) for part in parts for row in part}
        lengths = [len(ids) for rows in self.rows.values() for ids in rows]
        self.max_length = min(max(lengths), options.max_length or max(lengths), options.context_length)
        self.said = [*said, *say_cut(lengths, self.max_length)]

    def _encode(self, row: Preference) -> list[list[int]]:
        return [ids for ids, _ in encode_answers(self.template, self.tokenizer, row)]

    def __len__(self) -> int:
        return math.ceil(len(self.train) / self.options.batch_size)

    def epoch(self, model: LanguageModel) -> Iterator[tuple[np.ndarray, ...]]:
        order, size = get_generator().shuffle_order(len(self.train)), self.options.batch_size
        for start in range(0, len(order), size):
            yield self.batch([self.train[i] for i in order[start : start + size]])

    def batch(self, rows: Sequence[Preference]) -> tuple[np.ndarray, ...]:
        """ids (B, K, T), lengths (B, K), better, worse, margins and weights (B, P): each prompt's pairs together weigh 1 / B."""
        k, p = max(len(row.answers) for row in rows), max(len(row.pairs) for row in rows)
        b = len(rows)
        ids, lengths = np.zeros((b, k, self.max_length), np.int64), np.ones((b, k), np.int64)
        better, worse = np.zeros((2, b, p), np.int64)
        margins, weights = np.zeros((2, b, p), np.float32)
        for i, row in enumerate(rows):
            for j, whole in enumerate(self.rows[id(row)]):
                kept = whole[-self.max_length :]  # of an answer too long, its end
                ids[i, j, : len(kept)], lengths[i, j] = kept, len(kept)
            n = len(row.pairs)
            better[i, :n], worse[i, :n] = np.array(row.pairs).T
            margins[i, :n], weights[i, :n] = row.margins, 1 / (n * b)
        return ids[:, :, : lengths.max()], lengths, better, worse, margins, weights

    def loss(
        self,
        model: LanguageModel,
        ids: np.ndarray,
        lengths: np.ndarray,
        better: np.ndarray,
        worse: np.ndarray,
        margins: np.ndarray,
        weights: np.ndarray,
    ) -> Tensor:
        b, k, t = ids.shape
        scores = class_logits(model, ids.reshape(b * k, t), lengths.reshape(-1)).reshape(b, k)
        rows = np.arange(b)[:, None]
        high, low = scores[rows, better], scores[rows, worse]  # (b, P)
        loss = (-log_sigmoid(high - low - margins) * weights).sum()
        return loss + self.options.center * ((high + low) ** 2 * weights).sum() if self.options.center else loss

    def differences(self, model: LanguageModel, rows: Sequence[Preference]) -> np.ndarray:
        """Score of the better less that of the worse, of all pairs."""
        scores = iter(score_rows(model, [ids[-self.max_length :] for row in rows for ids in self.rows[id(row)]]))
        found: list[float] = []
        for row in rows:
            given = [next(scores) for _ in row.answers]
            found += [given[i] - given[j] for i, j in row.pairs]
        return np.array(found)

    def evaluate(self, model: LanguageModel, final: bool) -> dict[str, float]:
        """Both losses, and on validation the share of pairs that are in order, and by how much."""
        train = self.differences(model, self.train[: len(self.train) if final else _SEEN])
        held_out = self.differences(model, self.validation)
        losses = [float(np.logaddexp(0, -d).mean()) for d in (train, held_out)]
        accuracy = {"train_accuracy": float((train > 0).mean()), "val_accuracy": float((held_out > 0).mean())}
        accuracy["val_accuracy_interval"] = mean_interval(held_out > 0)
        return {"train_loss": losses[0], "val_loss": losses[1], **accuracy, "margin": float(held_out.mean())}

    def headline(self, row: Any) -> dict[str, float]:
        return {"accuracy": row["val_accuracy"], "margin": row["margin"]}

    def sample(self, model: LanguageModel, step: int, final: bool) -> str:
        """A pair of validation, with both scores."""
        row = self.validation[step % len(self.validation)]
        scores = score_rows(model, [ids[-self.max_length :] for ids in self.rows[id(row)]])
        better, worse = row.pairs[0]
        asked = row.prompt[-1]["content"]
        return (
            f"{asked} {row.answers[better]} ({scores[better]:.2f})\nworse: {row.answers[worse]} ({scores[worse]:.2f})"
        )

    def n_bytes(self) -> int:
        return sum(64 * len(ids) for rows in self.rows.values() for ids in rows)

    def introduce(self) -> list[str]:
        return self.said

    def about(self) -> dict[str, Any]:
        texts = preferences_sum((self.train, self.test, self.validation))
        return {"data": {"texts": texts}, "batches": [texts, self.options.batch_size, self.max_length]}

    def conclude(self, finished: Finished) -> RewardResult:
        """Bring the scores to mean 0 and spread 1, and try it on the pairs kept for testing."""
        model, rows = finished.model, [*self.train, *self.validation]
        starts = [len(self.template.encode(self.tokenizer, row.prompt, True)[0]) for row in rows]
        fitting = [row.prompt for row, start in zip(rows, starts, strict=True) if start < self.options.context_length]
        before = None
        if self.options.normalize and fitting:
            before = self._normalize(model, fitting, max(1, self.max_length - min(starts)))
        return RewardResult(self.differences(model, self.test), finished, before)

    def _normalize(self, model: LanguageModel, prompts: Sequence[Messages], room: int) -> tuple[float, float]:
        """Fold mean and spread of the scores of what the reference answers, in so many tokens, into the head (Ziegler et al.
        2019, §2.1): mean and spread before."""
        base = open_reference(self.options.reference, self.tokenizer)
        prompts = [prompts[i % len(prompts)] for i in range(_DRAWN)]
        rng = Generator(self.options.seed).spawn()
        drawn = roll_out(base, self.tokenizer, self.template, prompts, room, rng=rng)
        found = RewardModel(model, self.tokenizer, self.template).scores(drawn.prompts, drawn.answers)
        mean, std = float(found.mean()), float(found.std()) or 1.0
        weight, bias = model.out_head.parameters()
        weight.data = (weight.data / std).astype(weight.dtype)
        bias.data = ((bias.data - mean) / std).astype(bias.dtype)
        return mean, std


_SEEN = 256  # prompts to learn on that are judged while training goes on
_DRAWN = 256  # answers of the reference by which scores are scaled


@dataclass(frozen=True, eq=False)
class RewardResult(PairScores):
    """What a run leaves besides its folder, and how well it tells the pairs apart that were kept for testing."""

    finished: Finished
    scale: tuple[float, float] | None  # mean and spread of scores before they were brought to 0 and 1

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "folder": str(self.finished.folder),
            "steps": self.finished.metrics[-1]["step"],
            **self.to_dict(),
            "scale": self.scale and list(self.scale),
            "train_loss": self.finished.metrics[-1]["train_loss"],
            "val_loss": self.finished.metrics[-1]["val_loss"],
            "seconds": self.finished.seconds,
        }

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        lines = ["", f"Trained in {self.finished.seconds:.0f} s. On what was kept for testing:", *super().lines()]
        if self.scale:
            mean, std = self.scale
            lines.append(
                f"Scores were {mean:.2f} ± {std:.2f} on {_DRAWN} answers of the weights it began from; now 0 ± 1."
            )
        else:
            lines.append("Scores are as they came: they were not brought to mean 0 and spread 1.")
        return lines


def train(
    pairs: str | os.PathLike[str],
    *,
    init_from: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> RewardResult:
    """Learn from pairs or rankings (`read_preferences`) to score answers, and leave a run folder that `RewardModel.load` reads.

    It begins as the model in `init_from` with a fresh head (`add_score`). `options` are those of RewardOptions. `report`,
    `loggers`, signals and resuming are as for `pretrain`.
    """
    base, chosen = choose(RewardOptions, init_from, options)
    task = RewardTask(*preferences_of(pairs, chosen), chosen, base.tokenizer, base.template)

    def make() -> LanguageModel:
        return add_score(base.model)

    beside = open_reference(chosen.reference, base.tokenizer)  # an error now, not when scores are brought to 0 ± 1
    more = base.record(reference=beside)
    return begin(task, chosen, base.model.config, make, pairs, init_from, out, report, loggers, **more)


def resume(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> RewardResult:
    """Go on with a run of `train` from its newest whole checkpoint; without changes, to the bit as if never stopped.

    CheckpointError where the weights of the reference are no longer what they were.
    """
    return go_on(run, RewardOptions, _task_of, report, loggers, changes)


def _task_of(config: dict[str, Any], options: RewardOptions, tokenizer: Tokenizer) -> RewardTask:
    check_fingerprints(config, options, reference=open_reference(options.reference, tokenizer))
    template = Template.from_dict(config.get("template"))
    return RewardTask(*preferences_of(data_of(config), options), options, tokenizer, template)
