"""One training step, the only place where one is taken."""

from __future__ import annotations

import math
from typing import Any

from ..errors import NonFiniteError
from ..nn import Module
from ..ops import cross_entropy
from ..optim import Optimizer, clip_grad_norm


def train_step(
    model: Module,
    optimizer: Optimizer,
    ids: Any,
    targets: Any,
    *,
    max_norm: float | None = None,
    ignore_index: int = -100,
) -> float:
    """Learn from one batch: ids and targets (B, T). Returns the loss before the step, in nats per token.

    The loss is the mean over the targets that are not `ignore_index`. With `max_norm` gradients are clipped to that norm
    first. NonFiniteError, before any weight has changed, when the loss or (with `max_norm`) a gradient is not finite.
    """
    optimizer.zero_grad()
    logits = model(ids)  # (B, T, V)
    loss = cross_entropy(logits, targets=targets, ignore_index=ignore_index)
    if not math.isfinite(loss.item()):
        raise NonFiniteError(
            f"train_step: the loss is {loss.item()}: lower the learning rate, or look for NaN in the weights"
        )
    loss.backward()
    if max_norm is not None:
        clip_grad_norm(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()
