"""One training step, the only place where one is taken.

A batch is cut into shards of whole sequences. Each shard goes through forward and backward on a tape of its own, over the same
parameters, on a thread of its own; the gradients are added in the order of the shards. That is gradient accumulation and
data parallelism in one. A batch that cannot be cut shares out the rows of its large ops instead.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from .. import parallel
from ..checks import is_integer
from ..engine import Tensor
from ..errors import ConfigError, LossSpike, NonFiniteError
from ..nn import Module, Parameter
from ..ops import cross_entropy
from ..optim import Optimizer, clip_scale, gradient_norm
from ..rng import Generator, get_generator, use_generator
from ..tape.observer import observers

_SHARD = 512  # tokens that make a shard worth a thread of its own
_MOST_SHARDS = 8

Batch = tuple[np.ndarray, ...]  # arrays with a row for each example: ids and targets (B, T), for example
Gradients = dict[Tensor, np.ndarray]
Shard = tuple[slice, Generator, Gradients]  # rows of the batch, what its dropout draws from, where its gradients go


class Objective(NamedTuple):
    """What a step makes smaller: the mean of losses, of which each shard of the batch gives a sum.

    For several means in one, the batch holds a weight for every loss, which makes them means, and `count` is 1.
    """

    count: Callable[..., int]  # (*batch): how many losses the mean is over: tokens, texts, pairs
    loss: Callable[..., Tensor]  # (model, *rows of the batch): their sum, a scalar


def count_targets(ids: np.ndarray, targets: np.ndarray) -> int:
    return int((targets != -100).sum())


def next_token_loss(model: Module, ids: np.ndarray, targets: np.ndarray) -> Tensor:
    # Nothing holds on to the logits (b, T, V): the backward of a large vocabulary needs the room.
    return cross_entropy(model(ids), targets=targets, reduction="sum")


NEXT_TOKEN = Objective(count_targets, next_token_loss)  # ids and targets (B, T); targets of -100 are left out


def train_step(
    model: Module,
    optimizer: Optimizer,
    *batch: Any,
    objective: Objective = NEXT_TOKEN,
    max_norm: float | None = None,
    max_loss: float = math.inf,
    accumulate: int = 1,
    threads: int | None = None,
    measure: bool = False,
) -> float:
    """Learn from one batch, by default ids and targets (B, T). Returns the loss before the step, there in nats per token.

    zero_grad, forward, the objective's mean loss, backward, `optimizer.step()`; with `max_norm`, gradients are clipped to
    that norm first, and `optimizer.gradient_norm` is what it was. `accumulate`: cut the batch into at least so many parts whose
    gradients are added up, for a batch whose activations do not fit into memory at once. `threads`: None for the cores of the
    machine, 1 to run the same lines in order, with the same bits, which a debugger makes of any number. `measure`:
    `optimizer.update_ratio` says how far the weights went. NonFiniteError, before any weight has changed, when the loss or (with
    `max_norm`) a gradient is not finite; LossSpike, which is one, for a loss above `max_loss`.
    """
    parallel.recycle_memory()
    optimizer.zero_grad()
    batch = tuple(map(np.asarray, batch))
    shards = shard_batch(batch[0], accumulate)
    if any(observer.opens_debugger for observer in observers.get()):
        threads = 1  # two prompts would share one stdin
    with parallel.threads(threads, sharing_rows=len(shards) == 1):
        loss, gradients = loss_and_gradients(model, optimizer.parameters(), batch, shards, objective)
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"train_step: the loss is {loss}: lower the learning rate, or look for NaN in the weights"
            )
        if loss > max_loss:
            raise LossSpike(f"train_step: the loss is {loss:.3f}, above {max_loss:.3f}: lower the learning rate")
        scale = 1.0
        if max_norm is not None:
            optimizer.gradient_norm = norm = gradient_norm(gradients)
            scale = clip_scale(norm, max_norm)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        optimizer.step(gradient_scale=scale, measure=measure)
    return loss


def shard_batch(ids: np.ndarray, at_least: int = 1) -> list[slice]:
    """Rows of a batch with this first array, two shards or more where it has two rows or more; its size alone decides."""
    b = len(ids) if ids.ndim else 1
    if (type(at_least) is not int and not is_integer(at_least)) or not 1 <= at_least <= max(1, b):
        raise ConfigError(f"accumulate is {at_least!r}: it must be an integer from 1 to the batch's {b} sequences")
    most = min(b, _MOST_SHARDS, max(2, ids.size // _SHARD))
    n = max(at_least, 1 << most.bit_length() - 1)  # a power of two, which shares out evenly among 2 or 4 threads
    borders = np.rint(np.arange(n + 1) * b / n).astype(int).tolist()
    return list(map(slice, borders, borders[1:]))


def loss_and_gradients(
    model: Module,
    parameters: Sequence[Tensor],
    batch: Batch,
    shards: list[slice],
    objective: Objective = NEXT_TOKEN,
) -> tuple[float, Gradients]:
    """The mean loss over what is counted in all shards, and its gradient for each parameter, those of `parameters` first."""
    n = objective.count(*batch)
    if n == 0:
        warnings.warn("train_step: every target is ignored, so the loss is 0 and has no gradient", stacklevel=3)
    seeded = []
    for rows in shards:
        seeded.append((rows, Generator(get_generator().random64())))
    locked = []
    for parameter in (*parameters, *frozen_parameters(model)):
        if parameter.data.flags.writeable:
            parameter.data.flags.writeable = False  # which spares the tape its own watch over it
            locked.append(parameter.data)
    try:
        loss, gradients = _add_up(partial(_shard, model, batch, objective.loss, 1 / max(1, n)), seeded)
        in_order = Gradients()
        for parameter in parameters:  # whichever thread was first
            if parameter in gradients:
                in_order[parameter] = gradients.pop(parameter)
        return loss, in_order | gradients
    finally:
        for array in locked:
            array.flags.writeable = True


def frozen_parameters(model: Module) -> list[Parameter]:
    """The parameters of a model that nothing is learned by, as LoRA leaves most. Without their names, which every step can do
    without."""
    found, modules = [], [model]
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, Module):
                modules.append(value)
            elif isinstance(value, Parameter) and not value.requires_grad:
                found.append(value)
    return found


def _add_up(task: Callable[[Shard], float], seeded: list[tuple[slice, Generator]]) -> tuple[float, Gradients]:
    """Losses and gradients of all shards, added in their order; only as many at a time as there are threads are under way."""
    loss, gradients = 0.0, Gradients()
    at_once = parallel.available()
    for start in range(0, len(seeded), at_once):
        under_way = seeded[start : start + at_once]
        wave = _Wave(gradients, len(under_way))
        shards = []
        for i, (rows, rng) in enumerate(under_way):
            shards.append((rows, rng, _Part(wave, i)))
        loss = sum(parallel.spread(task, shards), loss)
        for parameter in list(wave.parts):  # of which not every shard had a gradient
            wave.add(parameter)
    return loss, gradients


@dataclass
class _Wave:
    """Shards that are under way at the same time. Which of them brings the last part of a gradient adds all parts up."""

    total: Gradients
    n_shards: int
    parts: dict[Tensor, dict[int, np.ndarray]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, parameter: Tensor) -> None:
        for _, gradient in sorted(self.parts.pop(parameter).items()):
            if parameter in self.total:
                self.total[parameter] += gradient
            else:
                self.total[parameter] = gradient


@dataclass(eq=False)
class _Part(Gradients):
    """Where the backward of one shard puts each gradient when it is complete: it goes straight into the sum."""

    wave: _Wave
    i: int

    def __setitem__(self, parameter: Tensor, gradient: np.ndarray) -> None:
        with self.wave.lock:
            parts = self.wave.parts.setdefault(parameter, {})
            parts[self.i] = gradient
            last = len(parts) == self.wave.n_shards
        if last:
            self.wave.add(parameter)


def _shard(model: Module, batch: Batch, loss_of: Callable[..., Tensor], weight: float, shard: Shard) -> float:
    """Forward and backward of one shard: its part of the mean loss; the gradients of that part go where the shard says."""
    rows, rng, gradients = shard
    with use_generator(rng):
        loss = loss_of(model, *map(itemgetter(rows), batch))
        share = np.asarray(weight, loss.data.dtype)
        loss.backward(share, into=gradients)
    return float(loss.data * share)
