"""Schedules: the learning rate as a function of the step, which counts from 0.

schedule = CosineSchedule(peak_lr=4e-4, total_steps=1000, warmup_steps=100)
optimizer.set_lr(schedule(step))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .checks import check_integer, check_number
from .errors import ConfigError


@dataclass(frozen=True)
class ConstantSchedule:
    """lr at every step."""

    lr: float

    def __post_init__(self) -> None:
        check_number("lr", self.lr)

    def __call__(self, step: int) -> float:
        check_integer("step", step, least=0)
        return self.lr


@dataclass(frozen=True)
class LinearSchedule:
    """Up in a line from `initial_lr` to `peak_lr` at step `warmup_steps`, down in a line to `min_lr` at `total_steps`.

    After `total_steps` it stays at `min_lr`. `initial_lr=None` means peak_lr / (warmup_steps + 1), so that the first step
    already learns and no two are alike.
    """

    peak_lr: float
    total_steps: int
    warmup_steps: int = 0
    initial_lr: float | None = None
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        for name in ("peak_lr", "initial_lr", "min_lr"):
            if (lr := getattr(self, name)) is not None:
                check_number(name, lr)
        check_integer("total_steps", self.total_steps, least=0)
        check_integer("warmup_steps", self.warmup_steps, least=0)
        if self.warmup_steps > self.total_steps:
            raise ConfigError(
                f"warmup_steps is {self.warmup_steps}: it must be at most total_steps, {self.total_steps}"
            )

    def __call__(self, step: int) -> float:
        check_integer("step", step, least=0)
        if step < self.warmup_steps:
            initial_lr = self.peak_lr / (self.warmup_steps + 1) if self.initial_lr is None else self.initial_lr
            return initial_lr + (self.peak_lr - initial_lr) * step / self.warmup_steps
        if step >= self.total_steps:
            return self.min_lr
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.min_lr + (self.peak_lr - self.min_lr) * self.remaining(progress)

    def remaining(self, progress: float) -> float:
        """How much of the way from `min_lr` to `peak_lr` is left, 1 to 0, as progress goes from 0 to 1."""
        return 1 - progress


@dataclass(frozen=True)
class CosineSchedule(LinearSchedule):
    """As LinearSchedule, but down along half a cosine wave (Loshchilov and Hutter 2017, equation 5, without restarts)."""

    def remaining(self, progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class NoamSchedule:
    """factor emb_dim^-1/2 min(step^-1/2, step warmup_steps^-3/2): "Attention Is All You Need", section 5.3.

    The paper counts steps from 1; step 0 counts as 1 here.
    """

    emb_dim: int
    warmup_steps: int = 4000
    factor: float = 1.0

    def __post_init__(self) -> None:
        check_number("factor", self.factor)
        check_integer("emb_dim", self.emb_dim)
        check_integer("warmup_steps", self.warmup_steps)

    def __call__(self, step: int) -> float:
        check_integer("step", step, least=0)
        step = max(step, 1)
        return self.factor * self.emb_dim**-0.5 * min(step**-0.5, step * self.warmup_steps**-1.5)
