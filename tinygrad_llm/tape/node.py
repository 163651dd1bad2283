"""One recorded call: what the tape is made of."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context, ContextVar
from functools import partial
from itertools import chain
from operator import attrgetter, is_not
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import GraphError, ShapeError
from .places import Place, caller, describe_place
from .watch import fingerprint

if TYPE_CHECKING:
    from ..engine import Op

RUN_AGAIN = ", run again>"  # how the file of a function that is `unseen` ends
_serial = itertools.count()
_NO_OPTIONS: dict[str, Any] = {}  # of most nodes
is_wanted = partial(is_not, None)  # of a parent: whether it wants a gradient

Hook = Callable[[np.ndarray], np.ndarray | None]
Scope = tuple[Any, Any]  # (the scope outside of it or None, the module that was called, or the Twin)
scope: ContextVar[Scope | None] = ContextVar("scope", default=None)


class Twin(NamedTuple):
    """A call of a fused op that ran as its twin, which the user made at `place`: a scope of what that recorded."""

    op: Op
    place: Place


def path_of(inside: Scope | None, name: str = "") -> str:
    """`trf_blocks.0.att` for the innermost module of a scope, seen from the outermost; with a name after it."""
    parts = [name] if name else []
    modules = [entry for _, entry in outwards(inside) if not isinstance(entry, Twin)]
    for module, outer in itertools.pairwise(modules):
        parts.append(next((p for p, m in outer.named_modules() if m is module), type(module).__name__))
    return ".".join(part for part in reversed(parts) if part)


def fused_in(inside: Scope | None) -> Scope | None:
    """The outermost fused op that runs as its twin, None if none does."""
    return next((around for around in reversed([*outwards(inside)]) if isinstance(around[1], Twin)), None)


def outwards(inside: Scope | None) -> Iterator[Scope]:
    """A scope and those around it."""
    while inside is not None:
        yield inside
        inside = inside[0]


class Node:
    """One recorded call. It never points at its own output, so dropping the output frees the graph."""

    op: Op
    parents: list  # a Node, a leaf Tensor, or None where no gradient is wanted
    saved: tuple | None  # for the backward, until it has run
    marks: Sequence[tuple[int, int]]  # of what was saved and can be written to (watch.py)
    options: dict[str, Any]
    constants: list | None  # with parents and options, what it takes to run the forward again
    shape: tuple[int, ...]
    dtype: np.dtype
    scope: Scope | None
    hooks: list[Hook] | None  # called with dL/d(output) when it is complete
    serial: int  # parents are always recorded before their children

    __slots__ = (
        "__weakref__", "code", "constants", "dtype", "hooks", "instruction", "marks", "op", "options", "parents", "saved",
        "scope", "serial", "shape",
    )  # fmt: skip

    def __init__(
        self,
        op: Op,
        parents: list,
        arrays: list,
        options: dict,
        out: np.ndarray,
        saved: tuple,
        marks: Sequence[tuple[int, int]],
    ) -> None:
        self.op, self.parents, self.saved, self.marks, self.options = op, parents, saved, marks, options or _NO_OPTIONS
        self.constants = None
        if not all(map(is_wanted, parents)):
            self.constants = [a if p is None else None for a, p in zip(arrays, parents, strict=True)]
        self.shape, self.dtype, self.scope = out.shape, out.dtype, scope.get()
        self.hooks, self.serial = None, next(_serial)
        # Not as one tuple: the garbage collector goes through what is kept for every op.
        self.code, self.instruction = caller(3)

    def asked(self, reuse: bool) -> dict[str, Any]:
        """What the backward wants to be told, besides g and the saved arrays (Op.takes)."""
        options: dict[str, Any] = {"reuse": reuse} if "reuse" in self.op.takes else {}
        if "needs" in self.op.takes:
            options["needs"] = tuple(map(is_wanted, self.parents))
        return options

    @property
    def place(self) -> Place:
        """Where the user's code made this node."""
        fused = self.fused
        return (self.code, self.instruction) if fused is None else fused[1].place

    @property
    def site(self) -> str:
        """Where the user's code made this node: `file.py:12 in train`."""
        return describe_place(self.place)

    @property
    def twin_site(self) -> str | None:
        """The line of the twin that made this node under `composed()`: `unfused.py:42 in gelu`; None elsewhere."""
        return None if self.fused is None else describe_place((self.code, self.instruction))

    @property
    def fused(self) -> Scope | None:
        """The scope of the fused op whose twin made this node under `composed()`, the outermost where they are nested."""
        return fused_in(self.scope)

    @property
    def path(self) -> str:
        """The module that made it and its op: `trf_blocks.0.att.attention`."""
        return path_of(self.scope, self.op.name)

    def __repr__(self) -> str:
        return f"Node({self.op.name} -> {self.shape} {self.dtype}, {self.site})"

    def spend(self, reuse: bool = False) -> tuple:
        """The saved arrays, proven unchanged since the forward; given away where the backward may write into them."""
        if self.saved is None:
            raise GraphError(
                f"backward has already gone through {self.op.name} (made at {self.site}) and freed what it saved: "
                "run the forward again, or call the first backward with retain_graph=True"
            )
        for i, before in self.marks:
            if fingerprint(self.saved[i]) != before:
                name = list(inspect.signature(self.op.backward).parameters)[1:][i]
                raise GraphError(
                    f"{self.op.name} (made at {self.site}) saved the array {name} {self.saved[i].shape} for its backward, and it "
                    "was written to since: call backward() first, or write to a copy"
                )
        saved = self.saved
        if reuse and "reuse" in self.op.takes:
            self.saved = None  # a walk that is abandoned here cannot be begun again
        return saved

    def through_hooks(self, g: np.ndarray) -> np.ndarray:
        """dL/d(output) after the hooks have seen it, and perhaps changed it."""
        for hook in self.hooks or ():
            changed = hook(g)
            if changed is not None and (changed.shape, changed.dtype) != (g.shape, g.dtype):
                raise ShapeError(
                    f"a hook on {self.path} returned {changed.shape} {changed.dtype}: the gradient is {g.shape} {g.dtype}"
                )
            g = g if changed is None else changed
        return g


def recorded(root: Any) -> list[Node]:
    """Every node that `root` was made from, in the order in which they were recorded."""
    nodes: set[Node] = set()
    new = {root} if isinstance(root, Node) else set()
    while new:  # all parents of these at once: in a debugger, few lines come before the maths
        nodes |= new
        new = set(filter(Node.__instancecheck__, chain.from_iterable(map(attrgetter("parents"), new)))) - nodes
    return sorted(nodes, key=attrgetter("serial"))


def last_uses(nodes: list[Node]) -> dict[Node, list]:
    """Node -> the leaves whose gradients are complete when a backward has passed it: no node before it uses them."""
    earliest: dict[Any, Node] = {}
    for node in reversed(nodes):
        for parent in node.parents:
            if parent is not None and not isinstance(parent, Node):
                earliest[parent] = node
    leaves: dict[Node, list] = {}
    for leaf, node in earliest.items():
        leaves.setdefault(node, []).append(leaf)
    return leaves


def freeze(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the generator of random numbers as it is now, so that a later run draws the same."""
    rng = options.get("rng")
    if isinstance(rng, np.random.Generator):
        return {**options, "rng": (type(rng.bit_generator), rng.bit_generator.state)}  # a copy takes ten times as long
    return {**options, "rng": copy.deepcopy(rng)}


def thaw(node: Node) -> dict[str, Any]:
    """The options that a node was called with, with a generator that draws the same again."""
    rng = node.options.get("rng")
    if isinstance(rng, tuple):
        bits = rng[0]()
        bits.state = rng[1]
        return {**node.options, "rng": np.random.Generator(bits)}
    return {**node.options, "rng": copy.deepcopy(rng)} if node.op.draws else node.options


def run_again(node: Node, arrays: list) -> tuple[np.ndarray, tuple]:
    """The forward of a node, where nobody watches: its output and what it saves."""

    def run() -> tuple:
        with np.errstate(all="ignore"):
            return unseen(node.op.forward)(*arrays, **thaw(node))

    out, saved = Context().run(run)
    return np.asarray(out), saved


def unseen(function: Callable) -> Callable:
    """The same function of a file that no breakpoint knows: a debugger stops in what is computed, not in what checks it."""
    if not isinstance(function, FunctionType):
        return function
    code = function.__code__.replace(co_filename=f"<{function.__name__}{RUN_AGAIN}")
    ghost = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    ghost.__kwdefaults__ = function.__kwdefaults__
    return ghost
