"""Group-relative policy optimisation: of several answers to one prompt, what is better than their mean becomes likelier.

No value is learned. Letters in shape comments: G answers in a group, B answers in all, T tokens, of which a mask (B, T) says
which count: those of the answer, up to its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError, DataError, ShapeError
from ..models import LanguageModel
from ..ops import where
from ..runs.loggers import Logger
from ..text import Tokenizer
from ..training.step import Objective
from .feedback import choose
from .online import OnlineResult, OnlineTask, one, some
from .options import GRPOOptions
from .ppo import surrogate
from .rollouts import Rollouts
from .run import begin, go_on
from .sequences import Numbers, check_finite, check_mask, check_shapes, k1, k3, numbers, tensors, token_logprobs
from .setting import Setting, open_setting, reopen_setting

KINDS = ("grpo", "bnpo", "dapo", "dr_grpo")


def advantages(rewards: Any, scale: bool = True) -> np.ndarray:
    """A = (r - mean) / (std + 1e-4) of each group, std with G - 1: (groups, G) -> (groups, G); 0 where all rewards are equal.

    Shao et al. 2024, §4.1.2, with TRL's 1e-4. scale=False leaves the division out: Dr. GRPO (Liu et al. 2025, §3.2), nanochat.
    DataError for groups of one, which have no mean to be better than.
    """
    check_flag("grpo.advantages: scale", scale)
    rewards = numbers("grpo.advantages: rewards", rewards)
    if rewards.ndim != 2 or rewards.size == 0:
        raise ShapeError(f"grpo.advantages: rewards are {rewards.shape}: they must be (groups, G), and not empty")
    if rewards.shape[1] == 1:
        raise DataError(
            "grpo.advantages: groups of one answer, which is its own mean: draw two or more for each prompt"
        )
    check_finite("grpo.advantages: rewards", rewards)
    a = rewards - rewards.mean(1, keepdims=True)
    if scale:
        a /= rewards.std(1, ddof=1, keepdims=True) + 1e-4
    equal = rewards.max(1, keepdims=True) == rewards.min(1, keepdims=True)  # of which rounding would make a signal
    return np.where(equal, 0, a)


def token_weights(
    mask: Any, kind: str = "grpo", max_length: int | None = None, n_tokens: int | None = None
) -> np.ndarray:
    """What each token weighs in the loss, (B, T), 0 outside the mask; `mask` is that of the whole batch.

        grpo      1 / (B · tokens of the answer)   Shao et al. 2024, eq. 3: a token of a long answer weighs less
        bnpo      1 / tokens of this batch
        dapo      1 / n_tokens, those of the whole step (Yu et al. 2025, eq. 8); TRL's default, nanochat
        dr_grpo   1 / (B · max_length), a constant (Liu et al. 2025, §3.2)

    An answer without tokens counts among the B, and gives 0. ConfigError for n_tokens or max_length that a kind needs and that
    is missing, or less than there is.
    """
    if kind not in KINDS:
        raise ConfigError(f"grpo.loss: kind is {kind!r:.80}: use one of {', '.join(KINDS)}")
    mask = numbers("grpo.loss: mask", mask)
    check_shapes("grpo.loss", 2, mask=mask)
    mask = check_mask("grpo.loss", mask, mask.shape)
    lengths = mask.sum(1, keepdims=True)  # (B, 1)
    if kind == "grpo":
        return mask / (len(mask) * np.maximum(lengths, 1))
    if kind == "bnpo":
        return mask / lengths.sum()
    name, given, least = (
        ("n_tokens", n_tokens, lengths.sum()) if kind == "dapo" else ("max_length", max_length, lengths.max())
    )
    if given is None:
        raise ConfigError(f"grpo.loss: {kind} divides by {name}, which is None: pass it")
    if check_integer(f"grpo.loss: {name}", given) < least:
        raise ConfigError(f"grpo.loss: {name} is {given}, and the mask holds {least}: it must be that or more")
    return mask / given if kind == "dapo" else mask / (len(mask) * given)


def loss(
    logprobs: Numbers,
    old_logprobs: Any,
    ref_logprobs: Any,
    advantages: Any,
    mask: Any,
    clip: float = 0.2,
    beta: float = 0.0,
    kind: str = "grpo",
    max_length: int | None = None,
    n_tokens: int | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """`weighted_loss` with the `token_weights` of this mask; the stats are means, divided by the sum of the weights."""
    weights = token_weights(check_mask("grpo.loss", mask, np.shape(logprobs)), kind, max_length, n_tokens)
    loss, stats = weighted_loss(logprobs, old_logprobs, ref_logprobs, advantages, weights, clip, beta)
    return loss, {name: value / float(weights.sum()) for name, value in stats.items()}


def weighted_loss(
    logprobs: Numbers,
    old_logprobs: Any,
    ref_logprobs: Any,
    advantages: Any,
    weights: Any,
    clip: float = 0.2,
    beta: float = 0.0,
) -> tuple[Tensor, dict[str, float]]:
    """GRPO's loss, a scalar, and its stats, all of them sums over tokens times `weights` (B, T); those of parts add up.

        Σ w [ max(-Aρ, -A clip(ρ, 1 - ε, 1 + ε)) + β (ref/π - 1 - log(ref/π)) ],  ρ = π / π_old     Shao et al. 2024, eq. 3

    Log-probabilities are (B, T), advantages (B,), one for each answer. The KL is k3 of tuning.sequences, and stands in the loss:
    its gradient is not that of a KL taken off the rewards, as in PPO. `ref_logprobs` may be None where β is 0, the default of TRL
    and nanochat; the paper has 0.04. On answers of the model itself, where ρ is 1, the loss of a group is about 0 whatever
    is learned: watch the reward. stats: kl (k3; only with `ref_logprobs`), clip_ratio (where the clipped term is the larger).
    """
    clip, beta = check_number("grpo.loss: clip", clip), check_number("grpo.loss: beta", beta)
    (logprobs,) = tensors("grpo.loss", logprobs=logprobs)
    old, w = numbers("grpo.loss: old_logprobs", old_logprobs), numbers("grpo.loss: weights", weights)
    check_shapes("grpo.loss", 2, logprobs=logprobs, old_logprobs=old, weights=w)
    a = numbers("grpo.loss: advantages", advantages)
    if a.shape != (len(w),):
        raise ShapeError(f"grpo.loss: advantages are {a.shape}: they must be ({len(w)},), one for each answer")
    check_finite("grpo.loss: advantages", a)
    if beta and ref_logprobs is None:
        raise ConfigError(f"grpo.loss: beta is {beta} and ref_logprobs None: pass the reference's, or beta 0")
    counted = w != 0
    objective, watched = surrogate(logprobs, old, np.broadcast_to(a[:, None], w.shape), counted, clip)
    stats = {"clip_ratio": float((w * watched["clipfrac"]).sum())}
    if ref_logprobs is not None:
        ref = numbers("grpo.loss: ref_logprobs", ref_logprobs)
        check_shapes("grpo.loss", 2, logprobs=logprobs, ref_logprobs=ref)
        kl = k3(where(logprobs, 0.0, condition=counted), np.where(counted, ref, 0))
        stats["kl"] = float((w * kl.data).sum())
        if beta:
            objective = objective + beta * kl
    return (w * objective).sum(), stats


# ---- the task


class GRPO(OnlineTask):
    """Of the answers to one prompt, those that are better than their mean become likelier."""

    name = "grpo"
    options: GRPOOptions

    def __init__(self, setting: Setting, options: GRPOOptions) -> None:
        super().__init__(setting, options, options.iterations)
        self.objective = Objective(one, self.loss)

    def choose(self, n_prompts: int) -> np.ndarray:
        group = self.options.group
        return np.repeat(some(n_prompts, self.options.rollouts // group), group)

    def measure(self, model: LanguageModel, drawn: Rollouts, scores: np.ndarray) -> dict[str, np.ndarray]:
        logprobs, entropies = self.logprobs(model, drawn)
        a = advantages(scores.reshape(-1, self.options.group), self.options.scale).reshape(-1)  # (B,)
        return {
            "logprobs": logprobs,
            "ref_logprobs": self.reference_logprobs(drawn),
            "entropies": entropies,
            "advantages": np.where(drawn.mask, a[:, None], 0),
        }

    def learn_from(
        self, model: LanguageModel, drawn: Rollouts, scores: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        groups, mask, found = scores.reshape(-1, self.options.group), drawn.mask, self.measure(model, drawn, scores)
        logprobs, entropies = found["logprobs"], found["entropies"]
        told = {
            "reward": float(scores.mean()),
            "reward_std": float(groups.std(1, ddof=1).mean()),
            "frac_reward_zero_std": float((groups.max(1) == groups.min(1)).mean()),
            "entropy": float(entropies[mask].mean()),
            "objective/kl": float(np.where(mask, k1(logprobs, found["ref_logprobs"]), 0).sum(1).mean()),
            "val/logprob_difference": self.check_drawn(drawn, logprobs),
        }
        arrays = {
            "logprobs": logprobs,
            "ref_logprobs": found["ref_logprobs"],
            "advantages": found["advantages"][np.arange(len(mask)), drawn.last],
            "mask": mask,
        }
        return {"ids": drawn.ids, **{name: x.astype(np.float32) for name, x in arrays.items()}}, told

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        *arrays, mask, row = super().batch(rows)
        n_tokens, options = max(1, int(mask.sum())), self.options
        weights = token_weights(mask, options.loss, options.max_new_tokens, n_tokens)
        return (*arrays, weights.astype(np.float32), row)

    def loss(
        self,
        model: LanguageModel,
        ids: np.ndarray,
        logprobs: np.ndarray,
        ref_logprobs: np.ndarray,
        advantages: np.ndarray,
        weights: np.ndarray,
        row: np.ndarray,
    ) -> Tensor:
        options = self.options
        new = token_logprobs(model, ids, options.temperature)
        ref = ref_logprobs if options.beta else None
        loss, stats = weighted_loss(new, logprobs, ref, advantages, weights, options.clip, options.beta)
        self.note(row, stats | {"weights": float(weights.sum())})
        return loss

    def learned(self) -> dict[str, float]:
        total = self.mean_of_steps("weights")
        named = {"kl": "kl", "clip_ratio": "clip_ratio/region_mean"}
        return {new: self.mean_of_steps(name) / total for name, new in named.items() if name in self.steps[0]}


def train(
    prompts: str | os.PathLike[str],
    *,
    init_from: str | os.PathLike[str],
    reward: str,
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> OnlineResult:
    """Let a model that answers already learn from which of several answers to a prompt are better, as `ppo.train` does, but
    without a value; by default the distance to the reference costs nothing (beta). `options` are those of GRPOOptions.

    The loss is 0 at the first step of each round, by construction: watch the reward. Where no answer to a prompt is ever right,
    all rewards of its group are equal and nothing is learned of it (frac_reward_zero_std).
    """
    base, chosen = choose(GRPOOptions, init_from, options | {"reward": str(reward)})
    setting = open_setting(prompts, base.tokenizer, base.template, chosen)
    task = GRPO(setting, chosen)
    more = base.record(**setting.beside())
    return begin(task, chosen, base.model.config, lambda: base.model, prompts, init_from, out, report, loggers, **more)


def resume(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> OnlineResult:
    """Go on with a run of `train` from its newest whole checkpoint; without changes, to the bit as if never stopped."""
    return go_on(run, GRPOOptions, _task_of, report, loggers, changes)


def _task_of(config: dict[str, Any], options: GRPOOptions, tokenizer: Tokenizer) -> GRPO:
    return GRPO(reopen_setting(config, tokenizer, options), options)
