"""pdb, passing through what only carries the maths: it stops in your own file, in layers' forwards, and in the lines of ops."""

from __future__ import annotations

import functools
import importlib.util
import pdb
import sys
from types import FrameType, TracebackType
from typing import Any

from ..tape.node import RUN_AGAIN

_PACKAGE = __name__.partition(".")[0]

# What a step passes through, modules with all that is inside them, besides Python's own library: the tape and what calls it, and
# what is not the maths of this package. VS Code is given the same (vscode.py).
PASSED = (
    f"{_PACKAGE}.engine",
    f"{_PACKAGE}.tape",
    f"{_PACKAGE}.nn.module",
    f"{_PACKAGE}.nn.hooks",
    f"{_PACKAGE}.ops.arguments",
    f"{_PACKAGE}.parallel",
    f"{_PACKAGE}.rng",
    f"{_PACKAGE}.checks",
    f"{_PACKAGE}.errors",
    f"{_PACKAGE}.debug",
    "_distutils_hack",  # of setuptools, which is called at imports
    "hypothesis",  # which is called whenever garbage is collected
    "numpy",
    "threadpoolctl",
    "tqdm",
)


@functools.cache
def is_passed(module: str | None) -> bool:
    """Whether steps pass through the module of this name."""
    if module is None:
        return False
    if module.startswith("namedtuple_") or module.partition(".")[0] in sys.stdlib_module_names:
        return True  # collections has written the former
    return any(f"{module}.".startswith(f"{passed}.") for passed in PASSED)


def is_aside(frame: FrameType | None) -> bool:
    """Whether it is part of what a step runs once more, for its values or to check it, or of what looks for a module."""
    while frame is not None and frame.f_code.co_name != "<module>":
        file = frame.f_code.co_filename
        if file.endswith(RUN_AGAIN) or file.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


class Stepper(pdb.Pdb):
    """pdb in which `s` and `n` do not stop in what is passed, and go from the end of an op to the next one in one press.

    Breakpoints there do stop, and so do `n`, `r` and `unt` where one has gone there by `up` or by leaving an op. With ipdb
    installed and at a terminal, it is IPython's debugger instead.
    """

    def __new__(cls, **_: Any) -> Stepper:
        if cls is Stepper and importlib.util.find_spec("ipdb") and sys.stdin is not None and sys.stdin.isatty():
            cls = _with_ipython()
        return super().__new__(cls)

    def stop_here(self, frame: FrameType) -> bool:
        if frame is self.stopframe:  # one has asked for this frame, whatever it is of
            return self.stoplineno != -1 and frame.f_lineno >= self.stoplineno
        passed = is_passed(frame.f_globals.get("__name__"))
        return not passed and bool(super().stop_here(frame)) and not is_aside(frame)

    def interaction(self, frame: FrameType | None, *rest: Any) -> None:
        caller = frame and frame.f_back  # pdb leaves frames alone that it came to by passing or by a breakpoint
        while caller and caller is not self.botframe:
            caller.f_trace = caller.f_trace or self.trace_dispatch
            caller = caller.f_back
        super().interaction(frame, *rest)

    def get_stack(self, frame: FrameType | None, tb: TracebackType | None) -> tuple[list, int]:
        stack, i = super().get_stack(frame, tb)
        found = i
        while frame is None and found > 0 and is_passed(stack[found][0].f_globals.get("__name__")):
            found -= 1  # after an error, begin at the line that it is about
        return stack, found

    def user_call(self, frame: FrameType, argument_list: Any) -> None:
        if not self._amid(frame):
            super().user_call(frame, argument_list)

    def user_return(self, frame: FrameType, return_value: Any) -> None:
        if self.stopframe is not None or not self._amid(frame):  # `n` and `r` show what an op returns
            super().user_return(frame, return_value)

    def _amid(self, frame: FrameType) -> bool:
        """Whether entering and leaving it is no stop of its own: a function of the package, or called from what is passed."""
        module, caller = frame.f_globals.get("__name__") or "", frame.f_back
        if frame.f_code.co_name == "<module>" or caller is None:
            return False
        return module.startswith(f"{_PACKAGE}.") or is_passed(caller.f_globals.get("__name__"))


@functools.cache
def _with_ipython() -> type[Stepper]:
    from IPython.terminal.debugger import TerminalPdb

    return type("Stepper", (Stepper, TerminalPdb), {})


def set_trace() -> None:
    """Open the debugger where this is called."""
    Stepper().set_trace(sys._getframe(1))
