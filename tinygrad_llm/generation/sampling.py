"""Which token comes next: the choice between the scores that the model gives.

Letters in shape comments: B batch, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from ..errors import ConfigError, NonFiniteError


def check_sampling(temperature: float, top_k: int | None) -> None:
    """ConfigError unless the temperature is finite and not negative, and top_k None or an integer of at least 1."""
    if isinstance(temperature, bool) or not isinstance(temperature, Real) or not 0 <= temperature < math.inf:
        raise ConfigError(f"temperature is {temperature!r}: it must be a finite number, 0 (greedy) or more")
    if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, (int, np.integer)) or top_k < 1):
        raise ConfigError(f"top_k is {top_k!r}: it must be an integer of at least 1, or None to keep every token")


def sample_next(
    logits: np.ndarray, temperature: float = 0.0, top_k: int | None = None, *, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Logits (B, V) -> token ids (B,), int64.

    At temperature 0 the highest logit wins, the lowest id among equals. Otherwise an id is drawn from
    softmax(logits / temperature), with `top_k` only from those not below the k-th highest, so ties at the border stay
    (the book's chapter 5). A top_k of V or more keeps all. NonFiniteError where there is a NaN, +inf, or nothing but -inf.
    """
    check_sampling(temperature, top_k)
    highest = logits.max(-1, keepdims=True)  # (B, 1)
    if not np.isfinite(highest).all():
        row = int(np.argwhere(~np.isfinite(highest))[0, 0])
        raise NonFiniteError(
            f"sample_next: the highest logit of row {row} is {highest[row, 0]}: no token can be chosen"
        )
    if temperature == 0:
        return logits.argmax(-1)  # (B,)
    if rng is None:
        raise ConfigError(
            f"temperature is {temperature!r} and there is no rng to draw from: pass rng=generator.spawn()"
        )
    scores = logits.astype(np.float64)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = np.partition(scores, -top_k, axis=-1)[:, -top_k, None]  # (B, 1)
        scores[scores < kth] = -math.inf
    with np.errstate(over="ignore"):  # a difference divided by a temperature near 0 is -inf, and its weight 0
        weights = np.exp((scores - highest) / temperature)  # (B, V), 1 at the highest
    # Inverse of the cumulative distribution, in float64 and never normalised: nothing has to sum to 1.
    cumulative = weights.cumsum(-1)  # (B, V)
    u = rng.random((len(logits), 1)) * cumulative[:, -1:]  # (B, 1), below the total
    return (cumulative <= u).sum(-1)  # (B,), the first id whose cumulative weight exceeds u
