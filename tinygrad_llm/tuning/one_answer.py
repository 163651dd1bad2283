"""One answer as PPO or GRPO learns from it: what each of its tokens is worth, and how much likelier one step makes it.

found = open_answer("runs/ppo", "Review the soup.")
debug.report(found.loss(), tables=[found.table])

Letters in shape comments: B answers of a round, T tokens of the answer's row but the first, N tokens of the answer.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..debug import Row, TokenTable
from ..engine import Tensor, no_grad
from ..errors import ConfigError
from ..models import LanguageModel
from ..models.heads import PolicyAndValue, policy_of
from ..nn.module import evaluating
from ..rng import Generator, use_generator
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config, load_whole, read_metrics
from ..text import Tokenizer, load_tokenizer
from ..text.view import visible
from ..training.step import train_step
from .grpo import GRPO
from .options import GRPOOptions, OnlineOptions, PPOOptions
from .ppo import PPO, surrogate
from .preferences import Messages, Prompts
from .rewards import score
from .rollouts import Rollouts
from .run import freeze
from .sequences import k1, token_logprobs
from .setting import Setting, reopen_setting

TASKS = ("ppo", "grpo")
_LONGEST = 1000  # letters of a prompt or an answer that are shown as one
_LEAST = 0.01  # nats of KL that are coloured in full, at least: rounding is not
_ABOUT = {  # in the order of the page
    "log π": "log-probability under the policy that drew the answer",
    "log ref": "log-probability under the reference",
    "KL": "log π − log ref: summed over many answers, how far the policy has gone from the reference",
    "entropy": "of the policy's distribution, in nats: 0 where it is certain",
    "reward": "−β KL, and the score at the last token",
    "value": "the return that the value function expects from here on",
    "advantage": "how much better the token was than expected, as it stands in the loss",
    "return": "what the value function is to learn: advantage before whitening, and value",
    "ratio before": "π / π of who drew the answer, before the step: 1",
    "ratio after": "the same after one step on answers of the round: above 1, the token has become likelier",
    "clipped": "whether the ratio has gone so far, after the step, that another one would not push it on",
}
_MEASURED = {
    "log π": "logprobs",
    "log ref": "ref_logprobs",
    "entropy": "entropies",
    "reward": "rewards",
    "value": "values",
    "advantage": "advantages",
    "return": "returns",
}


@dataclass(frozen=True, eq=False)
class OneAnswer:
    """An answer, its loss, and the table of its tokens."""

    task: PPO | GRPO
    model: Any  # a LanguageModel or PolicyAndValue, as the task has it
    batch: tuple[np.ndarray, ...]  # of the task, with one row, up to the answer's last token
    counted: np.ndarray  # (T + 1,) bool: the ids that are the answer's
    table: TokenTable
    said: str  # prompt, answer and score

    @property
    def ids(self) -> np.ndarray:
        """(T + 1,)"""
        return self.batch[0][0]

    @property
    def policy(self) -> LanguageModel:
        return policy_of(self.model)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.task.tokenizer

    def loss(self) -> Tensor:
        """Of this answer alone, without the conversations of PPO-ptx."""
        return self.task.loss(self.model, *self.batch)


def open_answer(
    run: str | os.PathLike[str], prompt: str | None = None, checkpoint: str | int | None = None
) -> OneAnswer:
    """Let a run of `ppo.train` or `grpo.train` answer a prompt, by default the first held-out one, in a round like those that it
    learned from, and take one step on a copy. The answer is drawn with random numbers of the run's seed: always the same one.

    The other prompts of the round are the run's own: advantages are whitened among all answers, or compared within the group.
    ConfigError for a run of another task, CheckpointError where reward or reference are no longer what they were.
    """
    folder, checkpoint = find_run(run, checkpoint) or (Path(run), "last")
    task = _task_of(folder)
    options = task.options
    model: Any = _load(folder, checkpoint, options)
    later = _load(folder, checkpoint, options)
    asked, columns = _asked(task.setting, prompt)
    with use_generator(Generator(options.seed)):
        drawn, scores = _draw(task, policy_of(model), asked, columns)
        ended = scores - options.missing_end * ~drawn.ended
        with evaluating(model):
            measured = task.measure(model, drawn, ended)
            facts = _facts(task, drawn, scores, columns)  # before β goes on
            task.round, _ = task.learn_from(model, drawn, ended)
        n_answers = _step(task, later)
    facts["one step"] = f"{n_answers} answers, lr {options.lr:g}, clip {options.clip:g}, AdamW without moments yet"

    n = int(drawn.last[0]) + 1  # T, of this answer alone
    task.round = {name: x[:1, : n + (name == "ids")] if x.ndim == 2 else x[:1] for name, x in task.round.items()}
    mask = drawn.mask[0, :n]
    found = {name: measured[key][0, :n][mask] for name, key in _MEASURED.items() if key in measured}
    if "log ref" in found:
        found["KL"] = k1(found["log π"], found["log ref"])
    for when, each in (("before", model), ("after", later)):
        ratio, clipped = _ratios(task, each, measured["advantages"][:1, :n], drawn.mask[:1, :n])
        found |= {f"ratio {when}": ratio[mask], "clipped": clipped[mask]}  # in the end those after
    tokens = [visible(task.tokenizer.decode_bytes([i])) for i in drawn.ids[0, 1 : n + 1][mask]]
    table = TokenTable(f"One answer of {task.name.upper()}, token by token", tokens, _rows(found, options.clip), facts)
    said = f"{facts['prompt']} | {facts['answer']} ({scores[0]:.3f})"
    return OneAnswer(task, model, task.batch(np.arange(1)), np.append(False, mask), table, said)


def _task_of(folder: Path) -> PPO | GRPO:
    """The task of a run, as it is when a round begins; without the conversations of PPO-ptx."""
    config = load_config(folder)
    if config["task"] not in TASKS:
        raise ConfigError(
            f"{folder}: a run of {config['task']}: only those of {', '.join(TASKS)} learn from their answers"
        )
    tokenizer = load_tokenizer(folder)
    if config["task"] == "grpo":
        with naming(folder / CONFIG_FILE):
            grouped = GRPOOptions.of_run(config["training"])
        return GRPO(reopen_setting(config, tokenizer, grouped), grouped)
    with naming(folder / CONFIG_FILE):
        options = PPOOptions.of_run(config["training"])
    task = PPO(reopen_setting(config, tokenizer, options), options)
    if options.target_kl:
        known = [row["objective/beta"] for row in read_metrics(folder) if "objective/beta" in row]
        task.beta = known[-1] if known else options.beta
    return task


def _load(folder: Path, checkpoint: str | int, options: OnlineOptions) -> LanguageModel | PolicyAndValue:
    model, _ = load_whole(folder, checkpoint)
    model.set_drop_rate(options.drop_rate)
    if options.train != "lora":
        freeze(model, options.train)
    return model


def _asked(setting: Setting, prompt: str | None) -> tuple[Messages, dict[str, Any] | None]:
    """The first held-out prompt, or that of the run with this text, and its columns; None for those of another text."""
    for part in (setting.held_out, setting.train):
        for i, messages in enumerate(part.prompts):
            if prompt is None or messages[-1]["content"] == prompt:
                return messages, {name: column[i] for name, column in part.columns.items()}
    return [{"role": "user", "content": prompt or ""}], None


def _draw(
    task: PPO | GRPO, policy: LanguageModel, asked: Messages, columns: dict[str, Any] | None
) -> tuple[Rollouts, np.ndarray]:
    """A round, with this prompt in the place of its first one. Without its columns, the reward gets none: it may need none."""
    train = task.setting.train
    beside = {} if columns is None else {name: [columns[name], *column] for name, column in train.columns.items()}
    prompts = Prompts([asked, *train.prompts], beside, [], [])
    chosen = task.choose(len(train)) + 1  # (B,)
    chosen[: task.options.group if isinstance(task, GRPO) else 1] = 0
    return task.draw(policy, prompts, chosen, Generator(task.options.seed).spawn())


def _in_a_line(text: str) -> str:
    return " ".join(map(visible, text.split(" ")))[:_LONGEST]


def _step(task: PPO | GRPO, model: LanguageModel | PolicyAndValue) -> int:
    """One step of the run's own, on the first answers of the round: how many."""
    options = task.options
    rows = np.arange(min(options.batch_size, options.rollouts))
    train_step(
        model,
        options.optimizer(model),
        *task.batch(rows),
        objective=task.objective,
        max_norm=options.max_norm or math.inf,
        accumulate=options.accumulate,
    )
    return len(rows)


def _ratios(
    task: PPO | GRPO, model: LanguageModel | PolicyAndValue, advantages: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """π / π_old of the round's one answer, and where it is clipped, (T,) each."""
    with no_grad():
        new = token_logprobs(policy_of(model), task.round["ids"], task.options.temperature)  # (1, T)
    _, stats = surrogate(new, task.round["logprobs"], advantages, mask, task.options.clip)
    return stats["ratio"][0], stats["clipfrac"][0]


def _facts(
    task: PPO | GRPO, drawn: Rollouts, scores: np.ndarray, columns: Mapping[str, Any] | None
) -> dict[str, str | float]:
    """What is known of the answer as a whole."""
    facts: dict[str, str | float] = {
        "prompt": _in_a_line(drawn.prompts[0][-1]["content"]),
        "answer": _in_a_line(drawn.answers[0]),
        f"score ({_in_a_line(task.options.reward)})": float(scores[0]),
    }
    if not drawn.ended[0]:
        facts["without an end"] = -task.options.missing_end
    if isinstance(task, GRPO):
        group = scores[: task.options.group]
        facts["scores of its group"] = ", ".join(f"{value:.3g}" for value in group)
        facts["mean of its group"] = float(group.mean())
    if isinstance(task, PPO) or task.options.beta:
        facts["β"] = task.beta if isinstance(task, PPO) else task.options.beta
    if (judge := task.setting.judge) is not None:
        beside = {name: [value] for name, value in (columns or {}).items()}
        with nullcontext() if columns is not None else suppress(ConfigError):  # a judge may need what nobody knows
            facts["true score"] = score(judge, drawn.prompts[:1], drawn.answers[:1], beside)[0]
    return facts


def _rows(found: Mapping[str, np.ndarray], clip: float) -> list[Row]:
    """Log-probabilities share a scale; a ratio is coloured in full where it is clipped."""
    logprobs = max((float(np.abs(found[name]).max()) for name in ("log π", "log ref") if name in found), default=0.0)
    scales = dict.fromkeys(("log π", "log ref"), logprobs) | dict.fromkeys(("ratio before", "ratio after"), clip)
    if "KL" in found:
        scales["KL"] = max(_LEAST, float(np.abs(found["KL"]).max()))
    return [
        Row(
            name,
            found[name],
            about,
            neutral=float(name.startswith("ratio")),
            scale=scales.get(name, 0.0),
            summed=name in ("log π", "log ref", "KL", "reward", "clipped"),
        )
        for name, about in _ABOUT.items()
        if name in found
    ]
