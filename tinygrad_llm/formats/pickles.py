"""Reading a pickle without running it.

A pickle is a program for a machine with a stack and a memo; it may name any function of any module and have it called, so
that loading one is running what a stranger wrote. The machine here has the few instructions that build plain values, and
nothing that imports, looks up or calls what the file names: a name is a text, compared with a short list, and for those of
the list a function of ours takes the arguments. Everything else ends in UnsafeFile.

The instructions are described in pickletools.py of the standard library (protocols 2 to 5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CorruptCheckpoint, UnsafeFile
from .source import printable

LONGEST = 4 << 20  # bytes of a program; GPT-2's state dict takes 20 kB
_DEEPEST = 64  # containers in one another

_PUSHED = {"N": None, "\x88": True, "\x89": False}  # NONE, NEWTRUE, NEWFALSE
_NUMBERS = {"K": 1, "M": 2}  # BININT1, BININT2: bytes
_TEXTS = {"\x8c": 1, "X": 4, "\x8d": 8}  # (SHORT_)BINUNICODE(8): bytes of the length
_BYTES = {"C": 1, "B": 4, "\x8e": 8}  # (SHORT_)BINBYTES(8)
_LONGS = {"\x8a": 1, "\x8b": 4}  # LONG1, LONG4
_PUTS = {"q": 1, "r": 4}  # (LONG_)BINPUT
_GETS = {"h": 1, "j": 4}  # (LONG_)BINGET
_TUPLES = {")": 0, "\x85": 1, "\x86": 2, "\x87": 3}  # EMPTY_TUPLE, TUPLE1 to TUPLE3


_REFUSED = {
    "i": "INST",
    "o": "OBJ",
    "\x81": "NEWOBJ",
    "\x92": "NEWOBJ_EX",
    "\x82": "EXT1",
    "\x83": "EXT2",
    "\x84": "EXT4",
    "P": "PERSID",
}


@dataclass(frozen=True)
class _Function:
    """The name of a function that the program would call."""

    name: str


def read_pickle(
    data: bytes,
    known: Mapping[str, Callable[[tuple[Any, ...]], Any] | None] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value that a pickle describes: None, bool, int, float, str, bytes, list, tuple, dict, and what `known` makes.

    known         "module.name" -> what takes the place of a call of it, from the arguments; None: its name, as a text
    persistent    makes the value of what the program calls a persistent id

    The value is a tree that is no larger than its program, and safe to walk through and to print. UnsafeFile for names
    that are not in `known` and instructions that are not among those here, CorruptCheckpoint for programs that fail.
    """
    if len(data) > LONGEST:
        raise CorruptCheckpoint(f"a pickle of {len(data):,} bytes: {LONGEST:,} are the most")
    try:
        value = _Machine(data, known or {}, persistent).run()
    except (IndexError, KeyError) as error:
        raise CorruptCheckpoint(
            "a damaged pickle: it refers to a place of the memo or a mark that is not there"
        ) from error
    except UnicodeDecodeError as error:
        raise CorruptCheckpoint("a damaged pickle: a text is not UTF-8") from error
    _check_tree(value, 2 * len(data) + 10_000)
    return value


class _Machine:
    def __init__(
        self,
        data: bytes,
        known: Mapping[str, Callable[[tuple[Any, ...]], Any] | None],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.data, self.place = data, 0
        self.names, self.persistent = known.keys(), persistent
        self.functions = {name: function for name, function in known.items() if function}
        self.stack: list[Any] = []
        self.marks: list[int] = []  # lengths of the stack
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            op = self.take(1).decode("latin-1")
            if op == ".":  # STOP
                break
            self.step(op)
        if self.place != len(self.data) or len(self.stack) != 1 or self.marks:
            raise CorruptCheckpoint("a damaged pickle: it ends too early")
        return self.stack[0]

    def step(self, op: str) -> None:
        """One instruction, in the order of how many a state dict has of them."""
        push = self.stack.append
        if op in _PUTS:
            self.memo[self.number(_PUTS[op])] = self.top()
        elif op == "\x94":  # MEMOIZE
            self.memo[len(self.memo)] = self.top()
        elif op in _GETS:
            push(self.memo[self.number(_GETS[op])])
        elif op in _NUMBERS:
            push(self.number(_NUMBERS[op]))
        elif op in _TEXTS:
            push(self.take(self.number(_TEXTS[op])).decode("utf-8", "surrogatepass"))
        elif op == "(":  # MARK
            self.marks.append(len(self.stack))
        elif op in _TUPLES:
            push(tuple([self.pop() for _ in range(_TUPLES[op])][::-1]))
        elif op == "t":  # TUPLE
            push(tuple(self.pop_to_mark()))
        elif op == "R":  # REDUCE
            args, function = self.pop(), self.pop()
            push(self.call(function, args))
        elif op == "Q":  # BINPERSID
            if self.persistent is None:
                raise UnsafeFile("refers to something outside of itself")
            push(self.persistent(self.pop()))
        elif op in _PUSHED:
            push(_PUSHED[op])
        elif op == "}":  # EMPTY_DICT
            push({})
        elif op == "u":  # SETITEMS
            items = self.pop_to_mark()
            self.set_items(items)
        elif op == "s":  # SETITEM
            value, key = self.pop(), self.pop()
            self.set_items([key, value])
        elif op == "]":  # EMPTY_LIST
            push([])
        elif op == "e":  # APPENDS
            items = self.pop_to_mark()
            self.target(list).extend(items)
        elif op == "a":  # APPEND
            item = self.pop()
            self.target(list).append(item)
        elif op == "J":  # BININT
            push(int.from_bytes(self.take(4), "little", signed=True))
        elif op == "G":  # BINFLOAT
            push(struct.unpack(">d", self.take(8))[0])
        elif op in _LONGS:
            push(self.long(self.number(_LONGS[op])))
        elif op in _BYTES:
            push(self.take(self.number(_BYTES[op])))
        elif op == "c":  # GLOBAL
            module, name = self.line(), self.line()
            push(self.find(module, name))
        elif op == "\x93":  # STACK_GLOBAL
            name, module = self.pop(), self.pop()
            push(self.find(module, name))
        elif op == "b":  # BUILD: attributes for an object. An OrderedDict has some: the versions of the modules
            state = self.pop()
            if type(self.top()) is not dict or type(state) is not dict:
                raise UnsafeFile("sets the state of an object")
        elif op == "\x80":  # PROTO
            if self.number(1) > 5:
                raise CorruptCheckpoint(f"a pickle of protocol {self.data[self.place - 1]}: 2 to 5 are known")
        elif op == "\x95":  # FRAME
            self.number(8)
        else:
            name = _REFUSED.get(op) or printable(op)
            raise UnsafeFile(f"has the instruction {name} at {self.place - 1:,}, which is not needed to hold numbers")

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.place:
            raise CorruptCheckpoint("a damaged pickle: it is cut off")
        self.place += n
        return self.data[self.place - n : self.place]

    def number(self, n_bytes: int) -> int:
        return int.from_bytes(self.take(n_bytes), "little")

    def long(self, n_bytes: int) -> int:
        if n_bytes > 32:
            raise CorruptCheckpoint(f"a whole number of {n_bytes:,} bytes")
        return int.from_bytes(self.take(n_bytes), "little", signed=True)

    def line(self) -> str:
        end = self.data.find(b"\n", self.place, self.place + 1000)
        if end < 0:
            raise CorruptCheckpoint("a damaged pickle: a name does not end")
        return self.take(end + 1 - self.place)[:-1].decode()

    def top(self) -> Any:
        """The value that the program may see: what is below a mark is not."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise CorruptCheckpoint("a damaged pickle: a value is missing")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def target(self, kind: type) -> Any:
        if type(self.top()) is not kind:
            raise CorruptCheckpoint(
                f"a damaged pickle: adds to a {type(self.top()).__name__} as if it were a {kind.__name__}"
            )
        return self.top()

    def set_items(self, items: list[Any]) -> None:
        """Only texts and small numbers are keys: numbers that are chosen well make a dict slow without end."""
        into = self.target(dict)
        if len(items) % 2:
            raise CorruptCheckpoint("a damaged pickle: a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < 1 << 32):
                raise CorruptCheckpoint(f"a dict with a key of type {type(key).__name__}")
            into[key] = value

    def find(self, module: Any, name: Any) -> Any:
        full = f"{module}.{name}" if type(module) is str and type(name) is str else "no text"
        if full not in self.names:
            raise UnsafeFile(f"names {printable(full)}, which is not needed to hold numbers")
        return _Function(full) if full in self.functions else full

    def call(self, function: Any, args: Any) -> Any:
        if not isinstance(function, _Function) or type(args) is not tuple:
            raise UnsafeFile("calls something that it has made itself")
        return self.functions[function.name](args)


def _check_tree(value: Any, most: int) -> None:
    """A program of some bytes can describe a value of any depth, or one that holds itself, or 2^50 times the same list."""
    path: list[Iterator[Any]] = [iter((value,))]
    seen = 0
    while path:
        for item in path[-1]:
            seen += 1
            if isinstance(item, _Function):
                raise UnsafeFile(f"holds the function {item.name}")
            if type(item) in (list, tuple, dict):
                path.append(iter(item.values() if type(item) is dict else item))
                break
        else:
            path.pop()
        if len(path) > _DEEPEST:
            raise CorruptCheckpoint(f"lists in lists, more than {_DEEPEST} deep")
        if seen > most:
            raise CorruptCheckpoint("the same parts stand again and again in one another")
