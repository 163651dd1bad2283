"""Stop in the debugger where an op is of interest, before the first line of its maths."""

from __future__ import annotations

import difflib
import sys
import warnings
from bdb import Bdb
from collections.abc import Callable, Iterable
from contextvars import Context
from fnmatch import fnmatchcase
from types import FrameType

import numpy as np

from ..checks import check_flag, check_number, did_you_mean
from ..engine import Op
from ..errors import ConfigError
from ..tape.display import norm
from ..tape.node import path_of, scope, unseen
from ..tape.observer import Observer
from ..tape.step import Step
from .other_debuggers import editor_passes_on, editor_stops_in, is_another_chosen
from .stepper import Stepper


class break_on(Observer):
    """Open the debugger in the backward of each node for which all of the conditions hold, before its first line.

    Args:
        nonfinite: the gradient that comes in, or one that goes out, has NaN or infinities.
        norm_gt: the Euclidean norm of the gradient that comes in is above this.
        op: a pattern of op names, `"gelu"` or `"*norm"`.
        name: a pattern of names, `"trf_blocks.3.*"`; the number at the end of a name may be left out.
        when: a function of the Step, for anything else.
        forward: open in forwards instead, by `op` and `name`, which there has no number.

    From now on until `.off()`, or within a `with` block, which says so if no op had such a name. In pdb, at the prompt of a
    terminal or a notebook, and in VS Code: `a` shows g and what was saved; one frame up is the loop, with `step` and `node`. Any
    other debugger, chosen by `PYTHONBREAKPOINT` or `sys.breakpointhook`, opens one call before, where `step`, `node`, `grad_out`
    and `saved`, or `op`, are locals.

    Where `nonfinite` or `when` decides, the op's backward runs once more before, so that `step.gradients` are there to be judged;
    what is computed does not depend on it. ConfigError when no condition is given, or `op` names none.
    """

    opens_debugger = True

    def __init__(
        self,
        *,
        nonfinite: bool = False,
        norm_gt: float | None = None,
        op: str | None = None,
        name: str | None = None,
        when: Callable[[Step], bool] | None = None,
        forward: bool = False,
    ) -> None:
        check_flag("break_on: nonfinite", nonfinite)
        check_flag("break_on: forward", forward)
        if forward and (nonfinite or norm_gt is not None or when is not None):
            raise ConfigError(
                "break_on: before a forward there is no gradient: with forward=True pass op= and name= alone"
            )
        if not nonfinite and norm_gt is None and op is None and name is None and when is None:
            raise ConfigError("break_on: no condition: pass nonfinite=True, norm_gt=, op=, name= or when=")
        if norm_gt is not None:
            check_number("break_on: norm_gt", norm_gt)
        for option, pattern in (("op", op), ("name", name)):
            if pattern is not None and not isinstance(pattern, str):
                raise ConfigError(f"break_on: {option} is {pattern!r:.80}: it must be a pattern of names, as a string")
        if op is not None and not any(fnmatchcase(known, op) for known in Op.registry):
            raise ConfigError(f"break_on: there is no op {op!r}{did_you_mean(op, Op.registry)}")
        self.nonfinite, self.norm_gt, self.op, self.name, self.when = nonfinite, norm_gt, op, name, when
        self.forward = forward
        self.passed: dict[str, bool] = {}  # path of each op that ran -> whether it is one that was meant
        super().__init__()

    def before_forward(self, op: Op) -> None:
        if self.forward and self.is_meant(path_of(scope.get(), op.name)):
            runs_it = sys._getframe(1)
            if not is_another_chosen():
                open_pdb(runs_it)
            elif not editor_stops_in(op.forward, runs_it):
                stop_before_forward(op)

    def before_backward(self, step: Step) -> None:
        if not self.forward and self.is_meant(step.name) and self.is_wanted(step):
            runs_it = sys._getframe(1)
            if not is_another_chosen():
                open_pdb(runs_it)
            elif not editor_stops_in(step.node.op.backward, runs_it):
                stop_before_backward(step)

    def after_forward(self, *_: object) -> None:
        editor_passes_on()

    def after_backward(self, step: Step) -> None:
        editor_passes_on()

    def is_meant(self, name: str) -> bool:
        """Do the conditions hold that look at names?"""
        path = name.partition("#")[0]
        found = (self.op is None or fnmatchcase(op_in(path), self.op)) and (self.name is None or named(name, self.name))
        self.passed[path] = found or self.passed.get(path, False)
        return found

    def is_wanted(self, step: Step) -> bool:
        """Do the conditions hold that look at values?"""
        if self.norm_gt is not None and not norm(step.grad_out) > self.norm_gt:
            return False
        if self.when is not None or (self.nonfinite and np.isfinite(step.grad_out).all()):
            step.gradients = Context().run(gradients_of, step)  # in an empty context nobody watches
        return (not self.nonfinite or not all_finite(step)) and (self.when is None or bool(self.when(step)))

    def off(self) -> None:
        """Stop watching. Warns if ops ran, but none of that name."""
        self._leave()
        self.warn_of_no_match()

    def __exit__(self, *error: object) -> None:
        self._leave()
        if error[0] is None:
            self.warn_of_no_match()

    def _leave(self) -> None:
        super().off()
        editor_passes_on()  # an op that raised has not come to its end

    def warn_of_no_match(self) -> None:
        passed, self.passed = self.passed, {}
        if not passed or any(passed.values()):
            return
        patterns = [f"{k}={v!r}" for k, v in (("op", self.op), ("name", self.name)) if v is not None]
        near = [path for path in passed if self.op is None or fnmatchcase(op_in(path), self.op)]
        if self.name is None or not near:
            near = nearest(self.op or "", {op_in(path) for path in passed})
        else:
            near = nearest(self.name, near)
        warnings.warn(
            f"break_on: none of the {len(passed)} names of what ran {'forward' if self.forward else 'backward'} matches "
            f"{' and '.join(patterns)}; the nearest: {', '.join(near)}",
            stacklevel=3,
        )


def open_pdb(loop: FrameType) -> None:
    """pdb from a frame on which it passes through: it opens in the op that is called from there."""
    current = getattr(sys.gettrace(), "__self__", None)
    sys.settrace(None)  # who comes by `s` is not led through the making of a debugger
    (current if isinstance(current, Stepper) else Stepper()).set_trace(loop)


def stop_before_forward(op: Op) -> None:
    """The frame in which another debugger opens; `op.forward` is what runs next."""
    breakpoint()


def stop_before_backward(step: Step) -> None:
    """The frame in which another debugger opens; `node.op.backward` is what runs next."""
    node, grad_out, gradients, saved = step.node, step.grad_out, step.gradients, step.saved
    breakpoint()
    del node, grad_out, gradients, saved  # they were there to be looked at


def gradients_of(step: Step) -> list[np.ndarray | None]:
    """What the op's backward will return. pdb, if it is open, does not follow: the op itself is still to come."""
    tracer = sys.gettrace()
    followed = isinstance(getattr(tracer, "__self__", None), Bdb)  # other debuggers object to settrace
    if followed:
        sys.settrace(None)
    try:
        with np.errstate(all="ignore"):
            return list(
                unseen(step.node.op.backward)(step.grad_out, *step.node.spend(), **step.node.asked(reuse=False))
            )
    finally:
        if followed:
            sys.settrace(tracer)


def op_in(path: str) -> str:
    """`gelu` of `trf_blocks.0.ff.layers.1.gelu`."""
    return path.rpartition(".")[2]


def named(name: str, pattern: str) -> bool:
    """Does a name, with or without its number, match a pattern?"""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("#")[0], pattern)


def nearest(pattern: str, names: Iterable[str]) -> list[str]:
    """Three names at most: those that a pattern is a part of, else those that are spelt most like it."""
    within = [name for name in names if fnmatchcase(name, f"*{pattern.partition('#')[0]}*")]
    return within[:3] or difflib.get_close_matches(pattern, names, 3, cutoff=0)


def all_finite(step: Step) -> bool:
    """No NaN and no infinity in the gradients of a step, those that come in and those that go out."""
    return all(d is None or bool(np.isfinite(d).all()) for d in (step.grad_out, *step.gradients))
