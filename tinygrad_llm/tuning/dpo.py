"""Direct preference optimisation: a language model learns from pairs of answers, without a reward model.

run = train("pairs.jsonl", init_from="runs/assistant", out="runs/dpo", judge="reviews", least_chosen=1.0)
run.accuracy, run.margin

Letters in shape comments: B pairs, T tokens, N answers. π is the model that learns, ref the one it began as.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_number
from ..engine import Tensor
from ..errors import ConfigError, CorruptCheckpoint
from ..evaluation.answers import mean_interval
from ..evaluation.pairs import PairScores
from ..models import LanguageModel
from ..nn.module import evaluating
from ..ops import log_sigmoid, relu
from ..rng import Generator, get_generator
from ..runs.loggers import Logger
from ..runs.plots import Panel, plot_panels
from ..text import Tokenizer
from ..text.templates import Template
from ..text.view import visible
from ..training.step import Objective
from ..training.task import Finished
from .exercises import preferences_of, preferences_sum
from .feedback import check_fingerprints, choose, encode_answers, open_reference, say_cut
from .options import DPOOptions
from .preferences import Preference
from .reward import open_reward
from .rewards import Reward, score
from .rollouts import Rollouts, roll_out, token_values
from .run import TuningTask, begin, data_of, go_on
from .sequences import Numbers, check_shapes, numbers, tensors, token_logprobs

KINDS = ("sigmoid", "ipo", "hinge", "robust")


def loss(
    chosen: Numbers,
    rejected: Numbers,
    ref_chosen: Any,
    ref_rejected: Any,
    beta: float,
    kind: str = "sigmoid",
    label_smoothing: float = 0.0,
    nll: Numbers | None = None,
    alpha: float = 0.0,
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Losses (B,) of pairs of answers, and the rewards that π implies of both, (B,) each, without a graph.

    h = (log π - log ref)(chosen) - (log π - log ref)(rejected), where the log-probability (B,) of an answer is the sum over its
    tokens, its end among them and the prompt not; or their mean, as it is passed. ε is `label_smoothing`.

        sigmoid   -(1 - ε) log σ(βh) - ε log σ(-βh)     Rafailov et al. 2023, eq. 7; with ε > 0 cDPO (Mitchell 2023)
        robust    (-(1 - ε) log σ(βh) + ε log σ(-βh)) / (1 - 2ε)     Chowdhury et al. 2024, for pairs of which ε are wrong
        ipo       (h - 1 / 2β)²     Azar et al. 2023, eq. 17; on means over tokens, as its authors agreed with TRL
        hinge     max(0, 1 - βh)    SLiC, Zhao et al. 2023, as TRL has it

    `alpha` times `nll` is added, (B,) the mean negative log-probability of a token of the chosen answer: RPO (Pang et al. 2024,
    eq. 1), against the fall of both log-probabilities. At the start, where π is ref, h is 0 and the loss of "sigmoid" ln 2.

    The rewards are β (log π - log ref), as in the paper and TRL's curves; the book's code leaves β out of them, and takes
    means over tokens for the loss: pass means, and divide the rewards by β.

    ConfigError for an unknown kind, ε outside [0, 1) or for "robust" [0, 0.5), or for a kind that has none; β that is negative,
    or 0 for "ipo"; alpha without nll. ShapeError for lengths that differ.
    """
    if kind not in KINDS:
        raise ConfigError(f"dpo.loss: kind is {kind!r:.80}: use one of {', '.join(KINDS)}")
    beta, alpha = check_number("dpo.loss: beta", beta), check_number("dpo.loss: alpha", alpha)
    eps = check_number("dpo.loss: label_smoothing", label_smoothing, below=0.5 if kind == "robust" else 1.0)
    if kind == "ipo" and beta == 0:
        raise ConfigError("dpo.loss: beta is 0, and ipo divides by it: use one above 0")
    if eps and kind in ("ipo", "hinge"):
        raise ConfigError(
            f"dpo.loss: label_smoothing is {eps}, and {kind} has none: use 0, or the kind 'sigmoid' or 'robust'"
        )
    if alpha and nll is None:
        raise ConfigError(f"dpo.loss: alpha is {alpha} without nll: pass the mean -log-probability of chosen tokens")
    chosen, rejected, *more = tensors("dpo.loss", chosen=chosen, rejected=rejected, **({"nll": nll} if alpha else {}))
    ref_chosen = numbers("dpo.loss: ref_chosen", ref_chosen)
    ref_rejected = numbers("dpo.loss: ref_rejected", ref_rejected)
    check_shapes("dpo.loss", 1, chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected)
    h = (chosen - ref_chosen) - (rejected - ref_rejected)  # (B,)
    if kind == "ipo":
        losses = (h - 1 / (2 * beta)) ** 2
    elif kind == "hinge":
        losses = relu(1 - beta * h)
    elif kind == "robust":
        losses = (eps * log_sigmoid(-beta * h) - (1 - eps) * log_sigmoid(beta * h)) / (1 - 2 * eps)
    else:
        losses = -(1 - eps) * log_sigmoid(beta * h) - eps * log_sigmoid(-beta * h)
    if alpha:
        check_shapes("dpo.loss", 1, chosen=chosen, nll=more[0])
        losses = losses + alpha * more[0]
    return losses, beta * (chosen.data - ref_chosen), beta * (rejected.data - ref_rejected)


# ---- the task

_NOISE = 1e-4  # nats by which float32 may be off: no answer is to win by that before anything is learned
_PANELS = (
    Panel(
        "log-ratio to the reference (nats)",
        {"log_ratios/chosen": "better answers", "log_ratios/rejected": "worse ones"},
    ),
    Panel("share of validation pairs", {"rewards/accuracies": "in order"}, (0, 1.02)),
    Panel("mean of held-out answers", {"eval/true": "true score"}),
)
_SEEN = 256  # pairs to learn from that are looked at while training goes on


class DPOTask(TuningTask):
    """Make the better answer of each pair likelier beside the worse one than it is for the reference.

    Of the reference only the log-probabilities of all answers are kept, in every checkpoint: it is not needed to go on.
    """

    name = "dpo"

    def __init__(
        self,
        parts: Sequence[Sequence[Preference]],
        said: list[str],
        options: DPOOptions,
        tokenizer: Tokenizer,
        template: Template,
        judge: Reward | None = None,
    ) -> None:
        self.options, self.tokenizer, self.template, self.judge = options, tokenizer, template, judge
        self.objective = Objective(lambda ids, *_: len(ids), self.loss)
        self.data = preferences_sum(parts)
        self.answers: list[tuple[list[int], list[bool]]] = []  # prompts with an answer, which tokens are the answer's
        self.train, self.test, self.validation = map(self._pairs, parts)
        self.reference = np.zeros(len(self.answers))  # log-probabilities of answers; until they are read, or restored
        longest = max(len(ids) for ids, _ in self.answers)
        self.max_length = min(longest, options.max_length or longest, options.context_length)
        if self.max_length < 2:
            raise ConfigError(
                f"max_length is {self.max_length}: there must be room for a token and what comes after it"
            )
        self.said = [*said, *say_cut((len(ids) for ids, _ in self.answers), self.max_length)]
        room = options.context_length
        prompts = [row.prompt for row in parts[2]]
        self.prompts = [one for one in prompts if len(template.encode(tokenizer, one, True)[0]) < room]
        if judge is not None and not self.prompts:
            raise ConfigError(
                f"judge is {options.judge!r}: the {len(prompts)} held-out prompts leave no room for an answer"
            )
        alike = np.zeros((1, 2))
        self.chance = self._losses(alike, alike, np.ones((1, 2)))[
            0
        ].item()  # and ConfigError for what cannot be together

    def _pairs(self, rows: Sequence[Preference]) -> np.ndarray:
        """(B, 2): the places of the better and the worse answer of all pairs."""
        pairs = []
        for row in rows:
            first = len(self.answers)
            self.answers += encode_answers(self.template, self.tokenizer, row)
            pairs += [(first + better, first + worse) for better, worse in row.pairs]
        return np.array(pairs)

    def __len__(self) -> int:
        return math.ceil(len(self.train) / self.options.batch_size)

    def epoch(self, model: LanguageModel) -> Iterator[tuple[np.ndarray, ...]]:
        order, size = get_generator().shuffle_order(len(self.train)), self.options.batch_size
        for start in range(0, len(order), size):
            yield self.batch(self.train[order[start : start + size]])

    def batch(self, pairs: np.ndarray) -> tuple[np.ndarray, ...]:
        """ids (B, 2, T), which of the tokens but the first are an answer's (B, 2, T - 1), and log ref of answers (B, 2)."""
        ids, is_answer = self._fill(pairs.ravel())
        b, t = len(pairs), ids.shape[1]
        return ids.reshape(b, 2, t), is_answer[:, 1:].reshape(b, 2, t - 1), self.reference[pairs].astype(np.float32)

    def _fill(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids and is_answer (N, T), filled up with 0; of what is too long, the end."""
        rows = [[part[-self.max_length :] for part in self.answers[i]] for i in places]
        ids, is_answer = np.zeros((2, len(rows), max(len(row) for row, _ in rows)), np.int64)
        for i, (row, counted) in enumerate(rows):
            ids[i, : len(row)], is_answer[i, : len(row)] = row, counted
        return ids, is_answer.astype(np.float32)

    def loss(self, model: LanguageModel, ids: np.ndarray, is_answer: np.ndarray, ref: np.ndarray) -> Tensor:
        b, _, t = ids.shape
        logps = (token_logprobs(model, ids.reshape(2 * b, t)).reshape(b, 2, t - 1) * is_answer).sum(-1)  # (b, 2)
        return self._losses(logps, ref, is_answer.sum(-1))[0].sum()

    def _losses(self, logps: Any, ref: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """`loss` of log-probabilities (B, 2) of answers of so many tokens, better and worse ones."""
        options, nll = self.options, -logps[:, 0] / lengths[:, 0]
        if options.average:
            logps, ref = logps / lengths, ref / lengths
        how = options.beta, options.kind, options.label_smoothing, nll, options.alpha
        return loss(logps[:, 0], logps[:, 1], ref[:, 0], ref[:, 1], *how)

    def read_reference(self, model: LanguageModel) -> None:
        self.reference = self.logps(model, np.arange(len(self.answers)))[0]

    def logps(self, model: LanguageModel, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities of answers and how many tokens they have, (N,) each."""
        order = np.argsort([len(self.answers[i][0]) for i in places], kind="stable")  # rows of like length together
        ids, is_answer = self._fill(places[order])

        def of(rows: np.ndarray) -> np.ndarray:
            ids, is_answer = rows[:, 0], rows[:, 1]
            width = np.flatnonzero(is_answer.any(0))[-1] + 1
            found = token_logprobs(model, ids[:, :width]).data.astype(np.float64)
            return (found * is_answer[:, 1:width]).sum(1)

        with evaluating(model):
            found = token_values(of, np.stack([ids, is_answer.astype(np.int64)], 1))
        logps, lengths = np.empty((2, len(places)))
        logps[order], lengths[order] = found, is_answer[:, 1:].sum(1)
        return logps, lengths

    def measure(self, model: LanguageModel, pairs: np.ndarray) -> dict[str, np.ndarray]:
        """The loss of each pair (B,); rewards that π implies, log-probabilities, and log-ratios to the reference (B, 2)."""
        places, back = np.unique(pairs, return_inverse=True)
        logps, lengths = (values[back.reshape(pairs.shape)] for values in self.logps(model, places))
        ref = self.reference[pairs]
        logps = np.where(np.abs(logps - ref) < _NOISE, ref, logps)
        losses, better, worse = self._losses(logps, ref, lengths)
        return {"loss": losses.data, "rewards": np.stack([better, worse], 1), "logps": logps, "log_ratios": logps - ref}

    def evaluate(self, model: LanguageModel, final: bool) -> dict[str, float]:
        """On validation, under TRL's names, rewards with beta; log-ratios are of whole answers, as logps. With a judge, answers
        are drawn, always with the same random numbers, and the validation loss is their score with the sign changed."""
        train = self.measure(model, self.train[: len(self.train) if final else _SEEN])["loss"].mean()
        found = self.measure(model, self.validation)
        row = {"train_loss": float(train), "val_loss": float(found["loss"].mean())}
        margins = found["rewards"][:, 0] - found["rewards"][:, 1]
        for name in ("rewards", "logps", "log_ratios"):
            row |= zip((f"{name}/chosen", f"{name}/rejected"), found[name].mean(0).tolist(), strict=True)
        row |= {"rewards/accuracies": float((margins > 0).mean()), "rewards/margins": float(margins.mean())}
        if self.judge is not None:
            chosen = [self.prompts[i % len(self.prompts)] for i in range(self.options.eval_answers)]
            drawn = self._draw(model, chosen)
            judged = np.array(score(self.judge, drawn.prompts, drawn.answers))
            row |= {"eval/loss": row["val_loss"], "val_loss": -float(judged.mean()), "eval/true": float(judged.mean())}
            row |= {"eval/true_interval": mean_interval(judged), "eval/ended": float(drawn.ended.mean())}
        return row

    def _draw(self, model: LanguageModel, prompts: Sequence[Any]) -> Rollouts:
        n, temperature = self.options.max_new_tokens, self.options.temperature
        rng = Generator(self.options.seed).spawn()
        return roll_out(model, self.tokenizer, self.template, prompts, n, temperature, rng=rng)

    def headline(self, row: Mapping[str, float]) -> dict[str, float]:
        shown = {
            "accuracy": "rewards/accuracies",
            "margin": "rewards/margins",
            "log-ratio of better": "log_ratios/chosen",
            "of worse": "log_ratios/rejected",
            "true": "eval/true",
            "ended": "eval/ended",
        }
        return {name: row[key] for name, key in shown.items() if key in row}

    def is_done(self, row: Mapping[str, float]) -> str:
        ratio, least = row["log_ratios/chosen"], self.options.least_chosen
        if least and ratio < -least:
            return f"The log-ratio of better answers is {ratio:.2f} in the mean, below -{least:g} (least_chosen)"
        return ""

    def guesses(self) -> dict[str, float]:
        return {} if self.judge is not None else {"reference": self.chance}

    def plot(self, path: Path, rows: Sequence[dict[str, float]]) -> bool:
        return plot_panels(path, rows, _PANELS)

    def sample(self, model: LanguageModel, step: int, final: bool) -> str:
        """A drawn answer to a held-out prompt, another one each time."""
        if not self.prompts:
            return ""
        prompt = self.prompts[step % len(self.prompts)]
        return f"{visible(prompt[-1]['content'])[:200]} | {self._draw(model, [prompt]).answers[0]}"

    def state(self) -> dict[str, Any]:
        return {"reference": self.reference}

    def restore(self, state: dict[str, Any]) -> None:
        kept = state.get("reference")
        if not isinstance(kept, np.ndarray) or kept.shape != self.reference.shape or kept.dtype.kind != "f":
            raise CorruptCheckpoint(f"task_state: reference must be {len(self.answers)} numbers, one for each answer")
        self.reference = kept

    def n_bytes(self) -> int:
        return sum(64 * len(ids) for ids, _ in self.answers)

    def introduce(self) -> list[str]:
        return self.said

    def about(self) -> dict[str, Any]:
        return {"data": {"texts": self.data}, "batches": [self.data, self.options.batch_size, self.max_length]}

    def conclude(self, finished: Finished) -> DPOResult:
        """Try it on the pairs kept for testing."""
        rewards = self.measure(finished.model, self.test)["rewards"]
        return DPOResult(rewards[:, 0] - rewards[:, 1], finished, finished.metrics[0], finished.metrics[-1])


@dataclass(frozen=True, eq=False)
class DPOResult(PairScores):
    """What a run leaves besides its folder, and how well the rewards that it implies tell the pairs apart that were kept for
    testing."""

    finished: Finished
    before: Mapping[str, float]  # the first row of metrics.jsonl
    after: Mapping[str, float]  # and the last

    def summary(self) -> dict[str, Any]:
        """As plain data."""
        told = [
            {name: v for name, v in row.items() if "/" in name or "loss" in name} for row in (self.before, self.after)
        ]
        return {
            "folder": str(self.finished.folder),
            "steps": self.after["step"],
            **self.to_dict(),
            "before": told[0],
            "after": told[1],
            "seconds": self.finished.seconds,
            "tokens_per_second": self.finished.tokens_per_second,
        }

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        lines = ["", f"Trained in {self.finished.seconds:.0f} s. On what was kept for testing:", *super().lines()]
        lines.append("On validation, before and after:")
        for name in self.after:
            if "/" in name and "interval" not in name:
                half = f" ± {self.after[f'{name}_interval']:.3f}" if f"{name}_interval" in self.after else ""
                lines.append(f"  {name:20}{self.before[name]:9.3f}  ->  {self.after[name]:9.3f}{half}")
        if self.after["log_ratios/chosen"] < -1 and self.margin > 0:
            lines.append(
                "Better answers have become less likely, too, and texts in no pair may have gained: have some judged, or use "
                "alpha, least_chosen or a lower learning rate."
            )
        return lines


def train(
    pairs: str | os.PathLike[str],
    *,
    init_from: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> DPOResult:
    """Learn from pairs or rankings (`read_preferences`) to write what is preferred, and leave a run folder.

    Every pair of a ranking is a row. `init_from` answers already; the reference is the same, unless options name another.
    `options` are those of DPOOptions. `report`, `loggers`, signals and resuming are as for `pretrain`.
    """
    base, chosen = choose(DPOOptions, init_from, options)
    judge = open_reward(chosen.judge) if chosen.judge else None
    task = DPOTask(*preferences_of(pairs, chosen), chosen, base.tokenizer, base.template, judge)
    beside = open_reference(chosen.reference, base.tokenizer)
    task.read_reference(beside)
    more = base.record(reference=beside, judge=judge)
    return begin(task, chosen, base.model.config, lambda: base.model, pairs, init_from, out, report, loggers, **more)


def resume(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> DPOResult:
    """Go on with a run of `train` from its newest whole checkpoint; without changes, to the bit as if never stopped. The weights
    of the reference are not needed; CheckpointError where those of a judge are no longer what they were."""
    return go_on(run, DPOOptions, _task_of, report, loggers, changes)


def _task_of(config: dict[str, Any], options: DPOOptions, tokenizer: Tokenizer) -> DPOTask:
    judge = open_reward(options.judge) if options.judge else None
    check_fingerprints(config, options, judge=judge)
    template = Template.from_dict(config.get("template"))
    return DPOTask(*preferences_of(data_of(config), options), options, tokenizer, template, judge)
