"""From logits to probabilities, and from logits to the loss. V is the number of classes, the last axis of the logits."""

import math
import warnings
from functools import partial

import numpy as np

from .. import composed
from ..engine import Op
from ..errors import ConfigError, DataError, DTypeError, ShapeError
from ..parallel import blocks, each


def softmax_of(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """e^(x - m) / Σ e^(x - m),  m = max x; a row of nothing but -inf (all masked) becomes zeros."""
    m = x.max(axis, keepdims=True, initial=-math.inf)
    p = np.exp(x - np.where(m == -math.inf, 0, m))
    total = p.sum(axis, keepdims=True)
    p /= np.where(total == 0, 1, total)
    return p


def softmax_forward(x, *, axis=-1):
    """p = e^x / Σ e^x, along an axis; 0 along a row in which every x is -inf"""
    p = softmax_of(x, axis)
    return p, (p, axis)


def softmax_backward(g, p, axis):
    """dx = p (g - Σ g p)"""
    return (p * (g - (g * p).sum(axis, keepdims=True)),)


softmax = Op(softmax_forward, softmax_backward, composed=composed.softmax)


def log_softmax_forward(x, *, axis=-1):
    """y = x - log Σ e^x, along an axis; -inf along a row in which every x is"""
    m = x.max(axis, keepdims=True, initial=-math.inf)
    y = x - np.where(m == -math.inf, 0, m)
    total = np.exp(y).sum(axis, keepdims=True)
    y -= np.log(np.where(total == 0, 1, total))
    return y, (y, axis)


def log_softmax_backward(g, y, axis):
    """dx = g - e^y Σ g"""
    return (g - np.exp(y) * g.sum(axis, keepdims=True),)


log_softmax = Op(log_softmax_forward, log_softmax_backward, composed=composed.log_softmax)


def check_targets(shape: tuple[int, ...], targets, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The targets as a flat array in which ignored ones are 0, and which of them count (both (N,))."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: targets are {targets.dtype}, they must be integers: use targets.astype(np.int64)"
        )
    if len(shape) == 0 or targets.shape != shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits are {shape}, targets are {targets.shape}: targets must be {shape[:-1]}"
        )
    counted = targets != ignore_index
    wrong = counted & ((targets < 0) | (targets >= shape[-1]))
    if wrong.any():
        position = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"cross_entropy: target {targets[position]} at position {position} is out of range: "
            f"targets go from 0 to {shape[-1] - 1}, or are ignore_index {ignore_index}"
        )
    return np.where(counted, targets, 0).reshape(-1), counted.reshape(-1)


def cross_entropy_forward(logits, *, targets, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """loss = -Σ_v q_v log p_v,  p = softmax(logits),  q = (1 - ε) [v = target] + ε/V,  ε = label_smoothing

    Mean over the counted targets, "sum" of them, or "none": one loss a target, 0 where it is ignored. All ignored: 0.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"cross_entropy: reduction is {reduction!r}: use 'mean', 'sum' or 'none'")
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"cross_entropy: label_smoothing is {label_smoothing}: it must lie between 0 and 1")
    targets, counted = check_targets(logits.shape, targets, ignore_index)
    x = logits.reshape(-1, logits.shape[-1])  # (N, V)
    e, total, losses = np.empty_like(x), np.empty(len(x), x.dtype), np.empty(len(x), x.dtype)
    each(partial(_cross_entropy_rows, x, targets, label_smoothing, e, total, losses), blocks(x))
    losses[~counted] = 0
    n = int(counted.sum())
    if n == 0 and reduction == "mean":
        warnings.warn("cross_entropy: every target is ignored, so the loss is 0 and has no gradient", stacklevel=3)
    loss = (
        losses.reshape(logits.shape[:-1])
        if reduction == "none"
        else losses.sum() / (n or 1 if reduction == "mean" else 1)
    )
    return loss, (e, total, targets, counted, label_smoothing, reduction, logits.shape)


def _cross_entropy_rows(x, targets, label_smoothing, e, total, losses, i):
    """e = e^(x - m),  total = Σ e,  loss = log total + m - (1 - ε) x_target - ε mean x, of the rows i"""
    m = x[i].max(-1, initial=-math.inf)  # (n,)
    np.subtract(x[i], m[:, None], out=e[i])
    np.exp(e[i], out=e[i])
    total[i] = e[i] @ np.ones(x.shape[1], x.dtype)
    losses[i] = np.log(total[i]) + m - (1 - label_smoothing) * np.take_along_axis(x[i], targets[i, None], 1)[:, 0]
    if label_smoothing:
        losses[i] -= label_smoothing * x[i].mean(-1)


def cross_entropy_backward(g, e, total, targets, counted, label_smoothing, reduction, shape, reuse=False):
    """dlogits = g (p - q),  p = e / total, divided by the number counted for the mean; 0 where the target is ignored

    With `reuse`, e becomes the gradient in place: on a large vocabulary a second array of that size costs more than the maths.
    """
    weight = (g.reshape(-1) * counted).astype(e.dtype)  # (N,)
    if reduction == "mean":
        weight /= int(counted.sum()) or 1
    dx = e if reuse else np.empty_like(e)
    each(partial(_cross_entropy_gradient, e, total, targets, label_smoothing, weight, dx), blocks(e))
    return (dx.reshape(shape),)


def _cross_entropy_gradient(e, total, targets, label_smoothing, weight, dx, i):
    """dx = weight (e / total - q) of the rows i"""
    np.multiply(e[i], (weight[i] / total[i])[:, None], out=dx[i])
    if label_smoothing:
        dx[i] -= (weight[i] * (label_smoothing / e.shape[1]))[:, None]
    dx[i][np.arange(len(dx[i])), targets[i]] -= weight[i] * (1 - label_smoothing)


cross_entropy = Op(cross_entropy_forward, cross_entropy_backward, composed=composed.cross_entropy)
