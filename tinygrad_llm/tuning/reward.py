"""A reward model's loss: of two answers to one prompt, the better one is to score higher.

Letters in shape comments: P pairs.
"""

from __future__ import annotations

from typing import Any

from ..engine import Tensor
from ..ops import log_sigmoid
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
