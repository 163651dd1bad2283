"""Who watches the tape: breakpoints, anomaly, profile and the cache of activations are told of every op as it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from ..engine import Node, Op
    from .step import Step

observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())


class Observer:
    """Watches from when it is made until `off()`, or until the end of a `with` block; the threads of a training step too.

    Subclasses write the methods they need. With threads, several may run at the same time; one that opens a debugger says so,
    and a training step takes one thread.
    """

    opens_debugger: ClassVar[bool] = False

    def __init__(self) -> None:
        observers.set((*observers.get(), self))

    def off(self) -> None:
        """Stop watching."""
        observers.set(tuple(other for other in observers.get() if other is not self))

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.off()

    def before_forward(self, op: Op) -> None:
        """An op is about to run."""

    def after_forward(
        self, op: Op, inputs: tuple, arrays: list, options: dict[str, Any], out: np.ndarray, node: Node | None
    ) -> None:
        """It ran: `inputs` as they were passed, `arrays` the same as arrays; no node when it was not recorded."""

    def after_module(self, module: Any, out: Any) -> None:
        """A module was called, and is still the innermost of the current scope."""

    def before_backward(self, step: Step) -> None:
        """A node is about to be differentiated: the step has no gradients yet."""

    def after_backward(self, step: Step) -> None:
        """It was; the gradients have not been passed on yet."""
