"""From logits to the loss.

Letters in shape comments: N targets (all leading axes of the logits), V classes, n rows of a block, I features before the head.
"""

import math
import warnings
from functools import partial

import numpy as np

from ..checks import check_size
from ..engine import Op
from ..errors import ShapeError
from ..parallel import blocks, each, product
from .arguments import REDUCTIONS, check_options, check_targets


def cross_entropy_forward(logits, *, targets, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """loss = -Σ_v q_v log p_v,  p = softmax(logits),  q = (1 - ε) [v = target] + ε/V,  ε = label_smoothing

    Mean over the counted targets, "sum" of them, or "none": one loss a target, 0 where it is ignored. All ignored: 0.
    """
    if label_smoothing or reduction not in REDUCTIONS:
        check_options(label_smoothing, reduction)
    targets, counted = check_targets(logits.shape, targets, ignore_index)
    x = logits.reshape(-1, logits.shape[-1])  # (N, V)
    e, total, losses = np.empty_like(x), np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    each(partial(_losses, x, targets, label_smoothing, e, total, losses), blocks(x))
    loss = _reduce(losses, counted, reduction, logits.shape[:-1])
    return loss, (e, total, targets, counted, label_smoothing, reduction, logits.shape)


def cross_entropy_backward(g, e, total, targets, counted, label_smoothing, reduction, shape, reuse=False):
    """dlogits = g (p - q),  p = e / total, divided by the number counted for the mean; 0 where the target is ignored

    With `reuse`, e becomes the gradient in place: on a large vocabulary a second array of that size costs more than the maths.
    """
    dx = e if reuse else np.empty_like(e)
    weights = _weights(g, counted, reduction, e.dtype)
    each(partial(_gradient, e, total, targets, label_smoothing, weights, dx), blocks(e))
    return (dx.reshape(shape),)


cross_entropy = Op(cross_entropy_forward, cross_entropy_backward)


def linear_cross_entropy_forward(
    x, weight, *, targets, ignore_index=-100, label_smoothing=0.0, reduction="mean", rows=256
):
    """loss = cross_entropy(x Wᵀ), for `rows` targets at a time: logits of the size (N, V) never exist at once

    For long sequences and large vocabularies. x is (..., I), W (V, I); the backward makes the logits a second time.
    """
    check_options(label_smoothing, reduction)
    check_size("linear_cross_entropy", rows=rows)
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear_cross_entropy: x is {x.shape}, weight is {weight.shape}: the last axis of x must be {weight.shape[-1]}"
        )
    targets, counted = check_targets((*x.shape[:-1], len(weight)), targets, ignore_index)
    flat = x.reshape(-1, x.shape[-1])  # (N, I)
    losses = np.empty(len(flat), x.dtype)
    for i in range(0, len(flat), rows):
        part = slice(i, i + rows)
        _, _, losses[part] = _exponentials(flat[part], weight, targets[part], label_smoothing)
    loss = _reduce(losses, counted, reduction, x.shape[:-1])
    return loss, (x, weight, targets, counted, label_smoothing, reduction, rows)


def linear_cross_entropy_backward(g, x, weight, targets, counted, label_smoothing, reduction, rows):
    """dx = dlogits W,  dW = dlogitsᵀ x,  dlogits = g (p - q) as in cross_entropy"""
    flat = x.reshape(-1, x.shape[-1])  # (N, I)
    weights = _weights(g, counted, reduction, x.dtype)
    dx, dw = np.empty_like(flat), np.zeros_like(weight)
    for i in range(0, len(flat), rows):
        part = slice(i, i + rows)
        e, total, _ = _exponentials(flat[part], weight, targets[part], label_smoothing)  # (n, V)
        each(partial(_gradient, e, total, targets[part], label_smoothing, weights[part], e), blocks(e))
        dx[part] = product(e, weight)
        dw += product(e.T, flat[part])
    return dx.reshape(x.shape), dw


linear_cross_entropy = Op(linear_cross_entropy_forward, linear_cross_entropy_backward)


def _exponentials(x, weight, targets, label_smoothing):
    """e = e^(logits - m) in the place of the logits x Wᵀ (n, V), total = Σ e (n,), and the losses (n,)"""
    e = product(x, weight.T)
    total, losses = np.empty(len(e), e.dtype), np.empty(len(e), e.dtype)
    each(partial(_losses, e, targets, label_smoothing, e, total, losses), blocks(e))
    return e, total, losses


def _losses(x, targets, label_smoothing, e, total, losses, i):
    """e = e^(x - m),  total = Σ e,  loss = log total + m - (1 - ε) x_target - ε mean x, of the rows i; e may be x itself"""
    m = x[i].max(-1, initial=-math.inf)  # (n,)
    losses[i] = m - (1 - label_smoothing) * np.take_along_axis(x[i], targets[i][:, None], 1)[:, 0]
    if label_smoothing:
        losses[i] -= label_smoothing * x[i].mean(-1)
    np.subtract(x[i], m[:, None], out=e[i])
    np.exp(e[i], out=e[i])
    total[i] = e[i] @ np.ones(x.shape[1], x.dtype)
    losses[i] += np.log(total[i])


def _gradient(e, total, targets, label_smoothing, weights, dx, i):
    """dx = weight (e / total - q) of the rows i; dx may be e itself"""
    np.multiply(e[i], (weights[i] / total[i])[:, None], out=dx[i])
    if label_smoothing:
        dx[i] -= (weights[i] * (label_smoothing / e.shape[1]))[:, None]
    dx[i][np.arange(len(dx[i])), targets[i]] -= weights[i] * (1 - label_smoothing)


def _reduce(losses, counted, reduction, shape):
    losses[~counted] = 0
    if reduction == "none":
        return losses.reshape(shape)
    n = int(counted.sum())
    if n == 0 and reduction == "mean":
        warnings.warn("cross_entropy: every target is ignored, so the loss is 0 and has no gradient", stacklevel=4)
    return losses.sum() / (n or 1) if reduction == "mean" else losses.sum()


def _weights(g, counted, reduction, dtype):
    """What each target's gradient counts, (N,)."""
    weights = (g.reshape(-1) * counted).astype(dtype)
    return weights / (int(counted.sum()) or 1) if reduction == "mean" else weights
