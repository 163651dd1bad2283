"""Where in the user's code something was done: cheap to note for every op, turned into a file and a line when asked."""

import bisect
import contextlib
import dis
import os
import sys
from functools import lru_cache
from operator import attrgetter
from types import CodeType, FrameType

Place = tuple[CodeType, int]  # a function's code and the instruction in it

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_TWINS = _PACKAGE + "unfused.py"  # whose lines are the user's to read: only composed() comes by them
_OPERATORS = ("BINARY_", "INPLACE_", "UNARY_")  # of instructions, each of which records one node
_BESIDE_A_STORE = ("COPY", "DUP_TOP", "EXTENDED_ARG")  # b = c = a + a, (b := a + a), and more than 256 variables


class _Ours(dict[str, bool]):
    """Whether a file is of this package, or is what stands between a context manager of ours and the user."""

    def __missing__(self, file: str) -> bool:
        self[file] = (file.startswith(_PACKAGE) and file != _TWINS) or file == contextlib.__file__
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


def is_operator(place: Place) -> bool:
    """Is it `a + b` and the like, rather than a call, which may do many things?"""
    instructions, k = _around(place)
    return instructions[k].opname.startswith(_OPERATORS)


def stored_in(place: Place) -> str | None:
    """What its result goes into: `b` of `b = a + a`, `self.h` of `self.h = a + a`. None elsewhere, or if it has not come yet."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if (frame.f_code, frame.f_lasti) == place:
            return None
        frame = frame.f_back
    instructions, k = _around(place)
    following = [i for i in instructions[k + 1 : k + 6] if i.opname not in _BESIDE_A_STORE]
    names = _names(following[0]) if following else ()
    if names and following[0].opname.startswith("STORE_"):
        return names[0]
    if names and len(following) > 1 and following[1].opname == "STORE_ATTR":
        return f"{names[0]}.{following[1].argval}"
    return None


def operands(place: Place) -> dict[int, str]:
    """Position -> name of the operands that are variables: `{0: "a", 1: "b"}` of `a + b`, `{1: "b"}` of `2 * a + b`."""
    instructions, k = _around(place)
    here = instructions[k]
    n = 1 if here.opname.startswith("UNARY_") else 2
    if not here.opname.startswith(_OPERATORS) or here.opname == "BINARY_SLICE" or here.is_jump_target:
        return {}  # which is loaded last is not known in a + (b if c else d)
    found: dict[int, str] = {}
    for instruction in reversed(instructions[max(0, k - 2) : k]):
        names = _names(instruction) if instruction.opname.startswith("LOAD_") else ()
        if not names and instruction.opname not in ("LOAD_CONST", "LOAD_SMALL_INT"):
            break
        for name in reversed(names or ("",)):
            n -= 1
            if n >= 0 and name:
                found[n] = name
        if n <= 0 or instruction.is_jump_target:
            break
    return found


def _around(place: Place) -> tuple[list[dis.Instruction], int]:
    """The instructions of a function, and which of them a place is."""
    code, offset = place
    instructions = _instructions(code)
    return instructions, bisect.bisect_right(instructions, offset, key=attrgetter("offset")) - 1


@lru_cache(maxsize=8)
def _instructions(code: CodeType) -> list[dis.Instruction]:
    return list(dis.get_instructions(code))


def _names(instruction: dis.Instruction) -> tuple[str, ...]:
    """The variables that are loaded or stored, in this order; some instructions do two at once."""
    kind = instruction.opname.partition("_")[2]
    if not kind.startswith(("FAST", "NAME", "GLOBAL", "DEREF")):
        return ()
    names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
    return names if all(map(str.isidentifier, names)) else ()  # pytest's asserts store in what nobody can write
