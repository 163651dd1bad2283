"""What the training loop wants to know, whatever is trained, with its help texts: the one source of the flags of the CLI."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeAlias, TypeVar

from ..checks import check_flag, check_integer, check_number, check_options
from ..errors import ConfigError
from ..nn import Module
from ..optim import AdamW, CosineSchedule, LinearSchedule, NoamSchedule, decay_groups
from ..rng import Generator

Self = TypeVar("Self", bound="LoopOptions")  # typing.Self came with Python 3.11
Schedule: TypeAlias = CosineSchedule | LinearSchedule | NoamSchedule


# Of two options that say the same in different ways, giving one puts the other at the value that says nothing.
_INSTEAD = (
    (("max_steps", 0), ("epochs", 0)),
    (("val_file", ""), ("val_ratio", 0.0)),
    (("windows", "stride"), ("stride", 0)),
)


def option(
    help: str,
    default: Any = MISSING,
    *,
    least: int = 1,
    most: float = math.inf,
    below: float = math.inf,
    choices: Sequence[str] = (),
) -> Any:
    """An integer is `least` or more, a float from 0 to `most` and less than `below`, a text one of `choices` if there are any."""
    limits = {"least": least, "most": most, "below": below, "choices": choices}
    return field(default=default, metadata={"help": help} | limits)


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the training loop wants to know, whatever is trained; checked when it is made: ConfigError names what cannot be."""

    task: ClassVar[str] = "training"  # the name of the task that has these options
    hidden: ClassVar[tuple[str, ...]] = ()  # options that nobody chooses
    enders: ClassVar[tuple[str, ...]] = ("stop_after",)  # those that may end a run before its last step; 0 does not

    epochs: int = option("passes over what is learned from", least=0)
    max_steps: int = option("steps of the run, in place of epochs; 0: as many as these take", 0, least=0)
    batch_size: int = option("windows of text, or texts, in each step")
    accumulate: int = option("parts of a batch that take their turn, for less memory; their gradients are added up", 1)
    lr: float = option("highest learning rate")
    schedule: str = option(
        "way of the learning rate after its rise: constant, linear or cosine down to min_lr, noam as 1 / √step",
        "cosine",
        choices=("constant", "linear", "cosine", "noam"),
    )
    min_lr: float = option("learning rate at the end of a linear or cosine schedule", 0.0)
    warmup: float = option(
        "steps in which the learning rate rises: up to 1 a share of them all, above 1 a number", 0.05
    )
    decay_steps: int = option(
        "steps after which the learning rate is min_lr and stays there; 0: all of the run", 0, least=0
    )
    beta1: float = option("AdamW's decay of the mean of gradients", 0.9, below=1)
    beta2: float = option("AdamW's decay of the mean of their squares", 0.999, below=1)
    eps: float = option("AdamW's addition to the root of that mean", 1e-8)
    weight_decay: float = option("AdamW's weight decay", 0.1)
    decay: str = option(
        "what decays: all, or matrices alone, as in nanoGPT, without biases and norms",
        "all",
        choices=("all", "matrices"),
    )
    max_norm: float = option("gradients are scaled down to this norm; 0 leaves them", 1.0)
    eval_every: int = option("steps from one evaluation to the next; 0: about 20 in a run", 0, least=0)
    save_every: int = option(
        "steps from one checkpoint to the next; 0: one with each evaluation, or fewer, so that all are at most 8 GiB",
        0,
        least=0,
    )
    stop_after: int = option(
        "evaluations one after the other without a lower validation loss after which the run ends; 0: never", 0, least=0
    )
    spike: float = option(
        "a loss so many times the median of the last 20, and worse than chance, is like NaN; 0: never", 3.0
    )
    keep: int = option("newest checkpoints that are kept, besides the one with the lowest validation loss", 2)
    on_nonfinite: str = option(
        "a loss or gradient that is not finite: stop the run, or skip the step, up to 10 in a row",
        "stop",
        choices=("stop", "skip"),
    )
    seed: int = option("decides weights, order, dropout and samples; same seed, same run, to the bit", 123, least=0)

    def __post_init__(self) -> None:
        for each in fields(self):
            what, value, limits = f"training: {each.name}", getattr(self, each.name), each.metadata
            if each.type in (int, "int"):
                value = check_integer(what, value, limits["least"])
            elif each.type in (float, "float"):
                value = check_number(what, value, most=limits["most"], below=limits["below"])
            elif each.type in (str, "str") and not isinstance(value, str):
                raise ConfigError(f"{what} is {value!r:.80}: it must be text")
            elif each.type in (bool, "bool"):
                check_flag(what, value)
            elif limits["choices"] and value not in limits["choices"]:
                raise ConfigError(f"{each.name} is {value!r}: use one of {', '.join(limits['choices'])}")
            object.__setattr__(self, each.name, value)  # Python's own number: config.json takes no other
        if not self.epochs and not self.max_steps:
            raise ConfigError(f"epochs is {self.epochs} and max_steps is {self.max_steps}: give one of them")
        if self.epochs and self.max_steps:
            raise ConfigError(
                f"epochs is {self.epochs} and max_steps is {self.max_steps}: a run has one length: leave out one of them"
            )
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"accumulate is {self.accumulate}: a batch of {self.batch_size} has no more parts than rows"
            )
        Generator(self.seed)  # ConfigError for one that it cannot take
        self._check_schedule()

    def _check_schedule(self) -> None:
        if self.lr == 0:
            raise ConfigError(f"lr is {self.lr}: it may not be 0")
        if self.warmup > 1 and self.warmup % 1:
            raise ConfigError(
                f"warmup is {self.warmup}: up to 1 it is a share of the steps, above 1 a whole number of them"
            )
        if self.schedule in ("constant", "noam"):
            for name in ("min_lr", "decay_steps"):
                if value := getattr(self, name):
                    raise ConfigError(
                        f"{name} is {value} and schedule is {self.schedule!r}: it is for a linear or cosine schedule"
                    )
        check_number("training: min_lr", self.min_lr, most=self.lr)
        if self.schedule == "noam" and not self.warmup:
            raise ConfigError(
                "warmup is 0 and schedule is 'noam': it falls from where the rise ends, so there must be one"
            )
        if self.decay_steps and self.warmup > 1:
            self.lr_schedule(self.max_steps or sys.maxsize)

    def changed(self: Self, **changes: Any) -> Self:
        """These options with some changed. ConfigError for a name that is no option, with the nearest that is."""
        return type(self)(**with_changes(asdict(self), changes, type(self)))

    def length(self, n_batches: int) -> str:
        """In words, for a task with so many batches in an epoch."""
        if self.max_steps:
            return f"{self.max_steps:,} steps, {self.max_steps / n_batches:.3g} epochs"
        return f"{self.epochs} epochs of {n_batches} steps"

    def optimizer(self, model: Module) -> AdamW:
        """Fresh, with what of the model learns."""
        return AdamW(
            decay_groups(model.parameters(), self.decay),
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
        )

    def lr_schedule(self, n_steps: int) -> Schedule:
        """The learning rate at each step, from 0, of a run of so many. ConfigError for a rise without an end."""
        rise = round(self.warmup if self.warmup > 1 else self.warmup * n_steps)
        end, what = (self.decay_steps, "decay_steps") if self.decay_steps else (n_steps, "the whole run")
        if rise > end:
            raise ConfigError(
                f"warmup is {rise} steps and {what} is {end}: the learning rate must rise before it falls"
            )
        if self.schedule == "noam":  # its peak, in the paper (emb_dim warmup)^-1/2, is lr
            return NoamSchedule(1, max(1, rise), self.lr * math.sqrt(max(1, rise)))
        if self.schedule == "cosine":
            return CosineSchedule(self.lr, end, rise, min_lr=self.min_lr)
        return LinearSchedule(self.lr, end, rise, min_lr=self.lr if self.schedule == "constant" else self.min_lr)


def common_defaults(options: type[LoopOptions]) -> dict[str, Any]:
    """The defaults of those options that have one whatever is trained."""
    return {each.name: each.default for each in fields(options) if each.default is not MISSING}


def with_changes(options: dict[str, Any], changes: dict[str, Any], kind: type[LoopOptions]) -> dict[str, Any]:
    """The options with some changed. What `changes` say in another way than the options is taken out of these.

    ConfigError for a name that is no option of this kind, with the nearest that is.
    """
    check_options(kind.task, changes, kind)
    quiet = {}
    for pair in _INSTEAD:
        for (name, nothing), (other, other_nothing) in (pair, pair[::-1]):
            if changes.get(name, nothing) != nothing and other not in changes:
                quiet[other] = other_nothing
    return options | changes | quiet
