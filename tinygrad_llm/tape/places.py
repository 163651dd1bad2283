"""Where in the user's code something was done: cheap to note for every op, turned into a file and a line when asked."""

import contextlib
import os
import sys
from types import CodeType

Place = tuple[CodeType, int]  # a function's code and the instruction in it

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class _Ours(dict[str, bool]):
    """Whether a file is of this package, or is what stands between a context manager of ours and the user."""

    def __missing__(self, file: str) -> bool:
        self[file] = file.startswith(_PACKAGE) or file == contextlib.__file__
        return self[file]


_ours = _Ours()


def caller(depth: int = 2) -> Place:
    """The nearest frame outside of this package; the innermost `depth` are known to be inside."""
    frame = sys._getframe(depth)
    while _ours[frame.f_code.co_filename] and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def describe_place(place: Place) -> str:
    """`file.py:12 in train`"""
    code, instruction = place
    lines = [line for start, end, line in code.co_lines() if start <= instruction < end]
    return f"{code.co_filename}:{lines[0] if lines else '?'} in {code.co_name}"
