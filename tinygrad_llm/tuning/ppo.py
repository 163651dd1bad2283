"""Proximal policy optimisation of a language model: from scores of answers to rewards, advantages and the loss.

    rewards -> gae -> whiten -> loss, of which a trainer takes `weighted_loss`, a part of the batch at a time

The defaults are those of OpenAI's lm-human-preferences (Ziegler et al. 2019) and InstructGPT (Ouyang et al. 2022).

Letters in shape comments: B answers, T tokens, of which a mask (B, T) says which count: those of the answer, up to its end.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError, DataError, DTypeError, ShapeError
from ..evaluation.answers import mean_interval
from ..models import LanguageModel
from ..models.heads import PolicyAndValue, add_score
from ..ops import clip as clip_to
from ..ops import cross_entropy, exp, maximum, where
from ..runs.loggers import Logger
from ..text import Tokenizer
from ..training.step import Objective
from .feedback import choose
from .online import OnlineResult, OnlineTask, one
from .options import PPOOptions
from .reward import RewardModel
from .rollouts import Rollouts, token_values
from .run import begin, go_on, load_base
from .sequences import (
    ESTIMATORS,
    Numbers,
    check_finite,
    check_mask,
    check_shapes,
    k1,
    k2,
    numbers,
    tensors,
    token_logprobs,
)
from .setting import Beside, Setting, open_setting, reopen_setting

_LARGEST = 60.0  # of a log-ratio: e^60 is finite in float32, and 0 times it is 0


def rewards(
    logprobs: Any,
    ref_logprobs: Any,
    scores: Any,
    last: Any,
    beta: float,
    mask: Any = None,
    estimator: Callable[[Any, Any], Any] = k1,
) -> np.ndarray:
    """r_t = -β (log π - log ref)_t, and the score on top at the answer's last token: (B, T), 0 after that and outside the mask.

    log π and log ref (B, T) are those of the tokens as they were drawn, scores (B,), `last` (B,) the index of each answer's
    last token. Ziegler et al. 2019, §2; TRL puts the score one place further, on the first token after the end, if there is
    one. `estimator` is k1, or k3 (TRL, OpenRLHF) or k2 (OpenRLHF) of tuning.sequences.
    """
    beta = check_number("ppo.rewards: beta", beta)
    logprobs, ref = numbers("ppo.rewards: logprobs", logprobs), numbers("ppo.rewards: ref_logprobs", ref_logprobs)
    check_shapes("ppo.rewards", 2, logprobs=logprobs, ref_logprobs=ref)
    scores, last = numbers("ppo.rewards: scores", scores), np.asarray(last)
    (b, t), rows = logprobs.shape, np.arange(len(logprobs))
    if scores.shape != (b,) or last.shape != (b,):
        raise ShapeError(
            f"ppo.rewards: scores {scores.shape} and last {last.shape} must be ({b},), one for each answer"
        )
    if last.dtype.kind not in "iu":
        raise DTypeError(f"ppo.rewards: last is an array of {last.dtype}: it must be one of integers, places of tokens")
    check_finite("ppo.rewards: scores", scores)
    inside = np.ones((b, t), bool) if mask is None else check_mask("ppo.rewards", mask, (b, t))
    for i, place in enumerate(last.tolist()):
        if not 0 <= place < t or not inside[i, place]:
            raise DataError(
                f"ppo.rewards: last[{i}] is {place}: it must be a token of the answer's, from 0 to {t - 1} and in the mask"
            )
    inside = inside & (np.arange(t) <= last[:, None])  # (B, T)
    with np.errstate(all="ignore"):  # what is not finite is refused below, by its place
        kl = estimator(np.where(inside, logprobs, 0), np.where(inside, ref, 0))  # (B, T)
    check_finite("ppo.rewards: logprobs - ref_logprobs", kl)
    rewards = -beta * kl
    rewards[rows, last] += scores
    return rewards


def gae(values: Any, rewards: Any, mask: Any, gamma: float, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns (B, T) of values and rewards (B, T): generalised advantage estimation, not yet whitened.

        A_t = δ_t + γλ A_{t+1},  δ_t = r_t + γ V_{t+1} - V_t,  R_t = A_t + V_t     Schulman et al. 2016, eq. 16

    t + 1 is the next token in the mask; after the last one V and A are 0. Outside the mask both are 0. λ = 1 is the return less
    the value, λ = 0 the error of one step. γ = 1 and λ = 0.95 in lm-human-preferences and TRL; λ = 1 in OpenRLHF.
    """
    gamma, lam = check_number("ppo.gae: gamma", gamma, most=1), check_number("ppo.gae: lam", lam, most=1)
    values, rewards = numbers("ppo.gae: values", values), numbers("ppo.gae: rewards", rewards)
    check_shapes("ppo.gae", 2, values=values, rewards=rewards)
    mask = check_mask("ppo.gae", mask, values.shape)
    check_finite("ppo.gae: values", values, mask)
    check_finite("ppo.gae: rewards", rewards, mask)
    values, rewards = np.where(mask, values, 0), np.where(mask, rewards, 0)
    advantages = np.zeros_like(values)
    next_value = next_advantage = np.zeros(len(values), values.dtype)  # (B,)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        advantages[:, t] = np.where(mask[:, t], advantage, 0)
        next_advantage = np.where(mask[:, t], advantage, next_advantage)
        next_value = np.where(mask[:, t], values[:, t], next_value)
    return advantages, np.where(mask, advantages + values, 0)


def whiten(x: Any, mask: Any, unbiased: bool = False, shift_mean: bool = True) -> np.ndarray:
    """(x - mean) / √(var + 1e-8) over the tokens in the mask, 0 outside: (B, T) -> (B, T). Without `shift_mean`, mean + that.

    lm-human-preferences whitens advantages so, and rewards without a shift of the mean, both with the variance of the population;
    TRL and torchtune take the unbiased one (Bessel's n - 1) and leave rewards as they are.
    """
    check_flag("ppo.whiten: unbiased", unbiased)
    check_flag("ppo.whiten: shift_mean", shift_mean)
    x = numbers("ppo.whiten: x", x)
    check_shapes("ppo.whiten", 2, x=x)
    mask = check_mask("ppo.whiten", mask, x.shape)
    check_finite("ppo.whiten: x", x, mask)
    counted = x[mask]
    if unbiased and counted.size < 2:
        raise DataError(
            "ppo.whiten: one token is in the mask, of which there is no unbiased variance: use unbiased=False"
        )
    mean, var = counted.mean(), counted.var(ddof=int(unbiased))
    whitened = (x - mean) / np.sqrt(var + 1e-8)
    return np.where(mask, whitened if shift_mean else whitened + mean, 0)


def surrogate(
    logprobs: Tensor, old_logprobs: np.ndarray, advantages: np.ndarray, counted: np.ndarray, clip: float
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """max(-Aρ, -A clip(ρ, 1 - ε, 1 + ε)),  ρ = π / π_old, of each token (B, T): Schulman et al. 2017, eq. 7, to be made smaller.

    Also arrays of what is to be watched. Tokens that do not count have ρ = 1, whatever stands there, and no gradient.
    """
    log_ratio = where(logprobs - old_logprobs, 0.0, condition=counted)
    ratio = exp(clip_to(log_ratio, low=-_LARGEST, high=_LARGEST))
    a = np.where(counted, advantages, 0)
    free, clipped = ratio * -a, clip_to(ratio, low=1 - clip, high=1 + clip) * -a
    stats = {"approxkl": k2(log_ratio.data, 0.0), "clipfrac": clipped.data > free.data, "ratio": ratio.data}
    return maximum(free, clipped), stats


def loss(
    logprobs: Numbers,
    old_logprobs: Any,
    advantages: Any,
    values: Numbers,
    old_values: Any,
    returns: Any,
    mask: Any,
    clip: float = 0.2,
    value_clip: float = 0.2,
    vf_coef: float = 0.1,
) -> tuple[Tensor, dict[str, float]]:
    """`weighted_loss` with equal weights on the tokens in the mask (B, T): means over all, however long an answer is."""
    mask = check_mask("ppo.loss", mask, np.shape(logprobs))
    return weighted_loss(
        logprobs, old_logprobs, advantages, values, old_values, returns, mask / mask.sum(), clip, value_clip, vf_coef
    )


def weighted_loss(
    logprobs: Numbers,
    old_logprobs: Any,
    advantages: Any,
    values: Numbers,
    old_values: Any,
    returns: Any,
    weights: Any,
    clip: float = 0.2,
    value_clip: float = 0.2,
    vf_coef: float = 0.1,
) -> tuple[Tensor, dict[str, float]]:
    """PPO's loss, a scalar, and its stats, all of them sums over tokens times `weights`; every argument is (B, T).

        policy_loss = Σ w max(-Aρ, -A clip(ρ, 1 - ε, 1 + ε)),  ρ = π / π_old     Schulman et al. 2017, eq. 7
        value_loss = ½ Σ w max((V - R)², (clip(V, V_old - ε_v, V_old + ε_v) - R)²)
        loss = policy_loss + vf_coef value_loss

    With mask / mask.sum() for weights, over a whole batch, they are means over its tokens, and those of its parts add up.
    stats: approxkl ½ (log ρ)², clipfrac (where the clipped term is the larger), ratio, policy_loss, value_loss without vf_coef.
    As lm-human-preferences; TRL takes approxkl over filling as well, and OpenRLHF clips values by 0.5. A token whose weight is 0
    may hold anything. At the first step, where π is π_old, ρ is 1, approxkl and clipfrac 0.
    """
    clip, value_clip, vf_coef = (
        check_number(f"ppo.loss: {name}", value)
        for name, value in (("clip", clip), ("value_clip", value_clip), ("vf_coef", vf_coef))
    )
    logprobs, values = tensors("ppo.loss", logprobs=logprobs, values=values)
    given = {"old_logprobs": old_logprobs, "advantages": advantages, "old_values": old_values, "returns": returns}
    fixed = {name: numbers(f"ppo.loss: {name}", x) for name, x in {**given, "weights": weights}.items()}
    check_shapes("ppo.loss", 2, logprobs=logprobs, values=values, **fixed)
    w = fixed["weights"]
    counted = w != 0
    objective, stats = surrogate(logprobs, fixed["old_logprobs"], fixed["advantages"], counted, clip)

    old, target = (np.where(counted, fixed[name], 0) for name in ("old_values", "returns"))
    v = where(values, 0.0, condition=counted)
    near = old + clip_to(v - old, low=-value_clip, high=value_clip)
    errors = maximum((v - target) ** 2, (near - target) ** 2)

    policy_loss, value_loss = (w * objective).sum(), 0.5 * (w * errors).sum()
    sums = {name: float((w * x).sum()) for name, x in stats.items()}
    sums |= {"policy_loss": policy_loss.item(), "value_loss": value_loss.item()}
    return policy_loss + vf_coef * value_loss, sums


def kl_coefficient(beta: float, kl: float, n: int, target: float = 6.0, horizon: float = 10_000) -> float:
    """β (1 + clip(KL/target - 1, ±0.2) n / horizon): the next β, after n answers with this KL, summed over tokens, in the mean.

    Ziegler et al. 2019, §2.2. InstructGPT and TRL leave β as it is (0.02, 0.05).
    """
    beta, n = check_number("ppo.kl_coefficient: beta", beta), check_integer("ppo.kl_coefficient: n", n)
    for name, value in (("target", target), ("horizon", horizon)):
        if check_number(f"ppo.kl_coefficient: {name}", value) == 0:
            raise ConfigError(f"ppo.kl_coefficient: {name} is 0, and it is divided by: use one above 0")
    if not math.isfinite(kl):
        raise ConfigError(f"ppo.kl_coefficient: kl is {kl}: it must be finite")
    return beta * (1 + min(max(kl / target - 1, -0.2), 0.2) * n / horizon)


# ---- the task


class PPO(OnlineTask):
    """Answers that score higher than was expected become likelier, and what is to be expected is learned too."""

    name = "ppo"
    options: PPOOptions

    def __init__(self, setting: Setting, options: PPOOptions, ptx: Beside | None = None) -> None:
        super().__init__(setting, options, options.ppo_epochs)
        self.beta, self.ptx = options.beta, ptx
        self.objective = Objective(one, self.loss if ptx is None else self.loss_with_ptx)

    def measure(self, model: PolicyAndValue, drawn: Rollouts, scores: np.ndarray) -> dict[str, np.ndarray]:
        options, mask = self.options, drawn.mask
        logprobs, entropies = self.logprobs(model.policy, drawn)
        ref: Any = self.reference_logprobs(drawn)
        values = token_values(lambda ids: model.value(ids[:, :-1]).data[..., 0], drawn.ids)  # (B, T)
        r = rewards(logprobs, ref, scores, drawn.last, self.beta, mask, ESTIMATORS[options.kl_estimator])
        if options.whiten_rewards:
            r = whiten(r, mask, options.unbiased, shift_mean=False)
        advantages, returns = gae(values, r, mask, options.gamma, options.lam)
        return {
            "logprobs": logprobs,
            "ref_logprobs": ref,
            "entropies": entropies,
            "rewards": r,
            "advantages": whiten(advantages, mask, options.unbiased),
            "values": values,
            "returns": returns,
        }

    def learn_from(
        self, model: PolicyAndValue, drawn: Rollouts, scores: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        options, mask, found = self.options, drawn.mask, self.measure(model, drawn, scores)
        logprobs, entropies = found["logprobs"], found["entropies"]
        kl = np.where(mask, k1(logprobs, found["ref_logprobs"]), 0).sum(1)  # (B,)
        told = {
            "objective/kl": float(kl.mean()),
            "objective/kl_interval": mean_interval(kl),
            "objective/entropy": float(np.where(mask, entropies, 0).sum(1).mean()),
            "objective/non_score_reward": -self.beta * float(kl.mean()),
            "objective/rlhf_reward": float(scores.mean()) - self.beta * float(kl.mean()),
            "objective/beta": self.beta,
            "policy/entropy_avg": float(entropies[mask].mean()),
            "val/logprob_difference": self.check_drawn(drawn, logprobs),
        }
        if options.target_kl:
            self.beta = kl_coefficient(self.beta, told["objective/kl"], len(kl), options.target_kl, options.horizon)
        learned = ("logprobs", "advantages", "values", "returns")
        return {
            "ids": drawn.ids,
            **{name: found[name].astype(np.float32) for name in learned},
            "mask": mask.astype(np.float32),
        }, told

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        *arrays, mask, row = super().batch(rows)
        batch = (*arrays, mask / mask.sum(), row)
        return batch if self.ptx is None else (*batch, *self.ptx.some(len(rows)))

    def loss(
        self,
        model: PolicyAndValue,
        ids: np.ndarray,
        logprobs: np.ndarray,
        advantages: np.ndarray,
        values: np.ndarray,
        returns: np.ndarray,
        weights: np.ndarray,
        row: np.ndarray,
    ) -> Tensor:
        options = self.options
        loss, stats = weighted_loss(
            token_logprobs(model.policy, ids, options.temperature),
            logprobs,
            advantages,
            model.value(ids[:, :-1])[..., 0],
            values,
            returns,
            weights,
            options.clip,
            options.value_clip,
            options.vf_coef,
        )
        self.note(row, stats)
        return loss

    def loss_with_ptx(
        self,
        model: PolicyAndValue,
        ids: np.ndarray,
        logprobs: np.ndarray,
        advantages: np.ndarray,
        values: np.ndarray,
        returns: np.ndarray,
        weights: np.ndarray,
        row: np.ndarray,
        ptx_ids: np.ndarray,
        ptx_targets: np.ndarray,
        ptx_weights: np.ndarray,
    ) -> Tensor:
        """PPO-ptx (Ouyang et al. 2022, eq. 2): with ptx_coef times the loss of conversations that it is not to forget."""
        loss = self.loss(model, ids, logprobs, advantages, values, returns, weights, row)
        losses = cross_entropy(model.policy(ptx_ids), targets=ptx_targets, reduction="none")  # (b, T)
        return loss + self.options.ptx_coef * (losses * ptx_weights).sum()

    def learned(self) -> dict[str, float]:
        ratios = [step["ratio"] for step in self.steps]
        return {
            "policy/approxkl_avg": self.mean_of_steps("approxkl"),
            "policy/clipfrac_avg": self.mean_of_steps("clipfrac"),
            "loss/policy_avg": self.mean_of_steps("policy_loss"),
            "loss/value_avg": self.mean_of_steps("value_loss"),
            "val/ratio": self.mean_of_steps("ratio"),
            "val/ratio_var": float(np.var(ratios)),
        }

    def state(self) -> dict[str, Any]:
        return super().state() | {"beta": self.beta}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.beta = state.get("beta", self.beta)


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
    """Let a model that answers already learn from what its own answers are worth, and leave a run folder with what it became.

    `prompts` is a file (`read_prompts`), or kinds of lessons; `reward` a run of `reward.train`, "exact", "reviews" or
    MODULE:FUNCTION. `options` are those of PPOOptions. The value begins as a copy of the reward model, or of what answers, with a
    head of zeros. `report`, `loggers`, signals and resuming are as for `pretrain`.
    """
    base, chosen = choose(PPOOptions, init_from, options | {"reward": str(reward)})
    setting = open_setting(prompts, base.tokenizer, base.template, chosen)
    task = PPO(setting, chosen, _ptx(setting, chosen))

    def make() -> PolicyAndValue:
        return PolicyAndValue(base.model, _value(setting, init_from))

    more = base.record(**setting.beside())
    return begin(task, chosen, base.model.config, make, prompts, init_from, out, report, loggers, **more)


def resume(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> OnlineResult:
    """Go on with a run of `train` from its newest whole checkpoint; without changes, to the bit as if never stopped.

    ConfigMismatch for changes of prompts, reward or reference, CheckpointError where their weights are no longer what they were.
    """
    return go_on(run, PPOOptions, _task_of, report, loggers, changes)


def _task_of(config: dict[str, Any], options: PPOOptions, tokenizer: Tokenizer) -> PPO:
    setting = reopen_setting(config, tokenizer, options)
    return PPO(setting, options, _ptx(setting, options))


def _ptx(setting: Setting, options: PPOOptions) -> Beside | None:
    if not options.ptx:
        return None
    return Beside.read(options.ptx, setting.template, setting.tokenizer, options)


def _value(setting: Setting, init_from: str | os.PathLike[str]) -> LanguageModel:
    """A copy of the reward model if it reads the same tokens, else of what answers, that expects 0 everywhere."""
    reward = setting.reward
    if isinstance(reward, RewardModel) and reward.tokenizer.tokens == setting.tokenizer.tokens:
        model = RewardModel.load(reward.path).model
    else:
        model, _ = load_base(init_from)
    for parameter in model.parameters():
        parameter.requires_grad = True
    return add_score(model, zero=True)
