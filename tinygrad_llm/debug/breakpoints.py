"""Stop in the debugger where a gradient is of interest."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import numpy as np

from ..checks import check_number
from ..errors import ConfigError
from ..tape.display import norm
from ..tape.observer import Observer
from ..tape.step import Step


class break_on(Observer):
    """Call `breakpoint()` in every backward, at each node for which all of the conditions hold.

    Args:
        nonfinite: the gradient that comes in, or one that goes out, has NaN or infinities.
        norm_gt: the Euclidean norm of the gradient that comes in is above this.
        op: a pattern of op names, `"gelu"` or `"*norm"`.
        name: a pattern of names, `"trf_blocks.3.*"`; the number at the end of a name may be left out.
        when: a function of the Step, for anything else.

    From now on until `.off()`, or within a `with` block. At the prompt `node`, `grad_out`, `gradients`, `saved` and `step` are
    locals. ConfigError when no condition is given.
    """

    def __init__(
        self,
        *,
        nonfinite: bool = False,
        norm_gt: float | None = None,
        op: str | None = None,
        name: str | None = None,
        when: Callable[[Step], bool] | None = None,
    ) -> None:
        if not nonfinite and norm_gt is None and op is None and name is None and when is None:
            raise ConfigError("break_on: no condition: pass nonfinite=True, norm_gt=, op=, name= or when=")
        if norm_gt is not None:
            check_number("break_on: norm_gt", norm_gt)
        self.nonfinite, self.norm_gt, self.op, self.name, self.when = nonfinite, norm_gt, op, name, when
        super().__init__()

    def matches(self, step: Step) -> bool:
        """Do all conditions hold?"""
        return (
            (self.op is None or fnmatchcase(step.op, self.op))
            and (self.name is None or named(step.name, self.name))
            and (self.norm_gt is None or norm(step.grad_out) > self.norm_gt)
            and (not self.nonfinite or not all_finite(step))
            and (self.when is None or bool(self.when(step)))
        )

    def after_backward(self, step: Step) -> None:
        if self.matches(step):
            stop(step)


def stop(step: Step) -> None:
    """The frame in which the debugger opens."""
    node, grad_out, gradients, saved = step.node, step.grad_out, step.gradients, step.saved
    breakpoint()
    del node, grad_out, gradients, saved  # they were there to be looked at


def named(name: str, pattern: str) -> bool:
    """Does a name, with or without its number, match a pattern?"""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("#")[0], pattern)


def all_finite(step: Step) -> bool:
    """No NaN and no infinity in the gradients of a step, those that come in and those that go out."""
    return all(d is None or bool(np.isfinite(d).all()) for d in (step.grad_out, *step.gradients))
