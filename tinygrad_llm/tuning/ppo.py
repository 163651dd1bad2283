"""Proximal policy optimisation of a language model: from scores of answers to rewards, advantages and the loss.

    rewards -> gae -> whiten -> loss, of which a trainer takes `weighted_loss`, a part of the batch at a time

The defaults are those of OpenAI's lm-human-preferences (Ziegler et al. 2019) and InstructGPT (Ouyang et al. 2022).

Letters in shape comments: B answers, T tokens, of which a mask (B, T) says which count: those of the answer, up to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError, DataError, DTypeError, ShapeError
from ..ops import clip as clip_to
from ..ops import exp, maximum, where
from .sequences import Numbers, check_finite, check_mask, check_shapes, k1, k2, numbers, tensors

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
