"""Debuggers besides ours: one that was chosen by its hook, and the one behind VS Code, debugpy, which is never imported here."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

_OURS = "tinygrad_llm"  # the id of a breakpoint that the editor has not set


def is_another_chosen() -> bool:
    """Has somebody chosen another debugger than pdb? In a notebook the hook is its kernel's own, and does nothing."""
    if os.environ.get("PYTHONBREAKPOINT"):
        return True
    hook, debugpy = sys.breakpointhook, sys.modules.get("debugpy")
    if hook is sys.__breakpointhook__ or in_a_notebook():
        return False
    if debugpy is None or not str(getattr(hook, "__module__", "")).startswith(("debugpy", "pydevd")):
        return True
    return debugpy.is_client_connected()


@functools.cache  # a process does not become one; and who steps by `s` is not led through IPython each time
def in_a_notebook() -> bool:
    if "ipykernel" not in sys.modules or "IPython" not in sys.modules:
        return False
    return hasattr(sys.modules["IPython"].get_ipython(), "kernel")


def editor_stops_in(function: Callable, caller: FrameType) -> bool:
    """Let VS Code stop in a function that `caller` is about to call; False where no such editor is attached.

    Warns where the editor is set to pass through installed packages, of which this is one.
    """
    editor = _editor()
    if editor is None or not isinstance(function, FunctionType):
        return False
    ours = function.__module__.partition(".")[0] == __name__.partition(".")[0]
    if ours and editor.get_use_libraries_filter() and not editor.in_project_scope(caller):
        warnings.warn(
            f'break_on: the debugger passes through installed packages, and so {function.__name__}: set "justMyCode": false in '
            "launch.json, which `python -m tinygrad_llm.debug --write-vscode` writes",
            stacklevel=2,
        )
        return True
    name, breakpoints = function.__name__, editor.function_breakpoint_name_to_breakpoint
    if name not in breakpoints:
        kind = sys.modules["_pydevd_bundle.pydevd_breakpoints"].FunctionBreakpoint
        policy = "ALL" if editor.multi_threads_single_notification else "NONE"  # as debugpy does itself
        editor.function_breakpoint_name_to_breakpoint = {**breakpoints, name: kind(_OURS, name, None, None, policy)}
        editor.on_breakpoints_changed()
    return True


def editor_passes_on() -> None:
    """The function is through: what `editor_stops_in` has set is taken away."""
    editor = _editor()
    if editor is not None:
        breakpoints = editor.function_breakpoint_name_to_breakpoint
        others = {name: b for name, b in breakpoints.items() if b.breakpoint_id != _OURS}
        if len(others) < len(breakpoints):
            editor.function_breakpoint_name_to_breakpoint = others
            editor.on_breakpoints_changed()


def _editor() -> Any:
    """What debugpy runs in this process, or None; not with PYTHONBREAKPOINT, which is a choice of its own."""
    constants = sys.modules.get("_pydevd_bundle.pydevd_constants")
    editor = constants and constants.GlobalDebuggerHolder.global_dbg  # not by a call, which `s` would lead into
    known = hasattr(editor, "function_breakpoint_name_to_breakpoint")  # PyCharm's has none
    return editor if known and not os.environ.get("PYTHONBREAKPOINT") else None
