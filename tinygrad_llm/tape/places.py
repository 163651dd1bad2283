"""Where in the user's code something was done: cheap to note for every op, turned into a file and a line when asked."""

import contextlib
import os
import sys
from types import CodeType

Place = tuple[CodeType, int]  # a function's code and the instruction in it

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
CONTEXT = (_PACKAGE, contextlib.__file__)  # what stands between a context manager of ours and the user


def caller(ours: str | tuple[str, ...] = _PACKAGE) -> Place:
    """The nearest frame outside of this package, or of all files that begin like one of `ours`."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.startswith(ours) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def describe_place(place: Place) -> str:
    """`file.py:12 in train`"""
    code, instruction = place
    lines = [line for start, end, line in code.co_lines() if start <= instruction < end]
    return f"{code.co_filename}:{lines[0] if lines else '?'} in {code.co_name}"
