"""Direct preference optimisation: a language model learns from pairs of answers, without a reward model.

Letters in shape comments: B pairs. π is the model that learns, ref the one it began as.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import check_number
from ..engine import Tensor
from ..errors import ConfigError
from ..ops import log_sigmoid, relu
from .sequences import Numbers, check_shapes, numbers, tensors

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
