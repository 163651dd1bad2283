"""One node being differentiated, as `loss.backward_steps()` shows it: names for everything, and a check."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ShapeError
from .node import Node, run_again

if TYPE_CHECKING:
    from ..debug.check import Verdict
    from ..engine import Tensor


class Step:
    """One node of a backward pass, before its gradients are passed on to its parents.

    `i` of `n`, from 0; `node`, the recorded call; `grad_out`, dL/d(output of the node), which the formulas call g;
    `gradients`, dL/d(input) for each parent, None where none is wanted: an entry may be replaced. While the backward of the op
    itself runs, there are none yet.
    """

    __slots__ = ("computed", "grad_out", "gradients", "i", "n", "node", "walk")

    def __init__(self, i: int, n: int, node: Node, grad_out: np.ndarray, walk: Walk) -> None:
        self.i, self.n = i, n
        self.node = node
        self.grad_out = grad_out
        self.computed: tuple = ()  # until the loop has run the op's backward
        self.gradients: list = []
        self.walk = walk

    @property
    def op(self) -> str:
        """The name of the op: `gelu`."""
        return self.node.op.name

    @property
    def name(self) -> str:
        """The module and the op, numbered from 1 in the order of the forward: `trf_blocks.0.ff.layers.1.gelu#1`."""
        return self.walk.names[self.node]

    @property
    def site(self) -> str:
        """Where the user's code made the node: `file.py:12 in train`."""
        return self.node.site

    @property
    def formula(self) -> str:
        """The equation of the backward, the first line of its docstring."""
        return (inspect.getdoc(self.node.op.backward) or "").split("\n")[0]

    @property
    def saved(self) -> dict[str, Any]:
        """What the forward kept, by the names that the backward gives it; empty once the pass has gone on."""
        names = list(inspect.signature(self.node.op.backward).parameters)[1:]
        return dict(zip(names, self.node.saved or (), strict=False))

    @property
    def inputs(self) -> Inputs:
        """The name of each parent -> dL/d(parent) of this use; only where a gradient is wanted. An entry may be replaced."""
        named: dict[str, int] = {}
        for k, parent in enumerate(self.node.parents):
            if parent is not None and k < len(self.gradients):
                name = self.walk.names.get(parent) or getattr(parent, "name", None) or self.argument(k)
                named[f"{name} as {self.argument(k)}" if name in named else name] = k
        return Inputs(self.gradients, named)

    def argument(self, k: int) -> str:
        """What the forward calls its input k: `x`, `weight`, `arrays[2]`."""
        return self.node.op.argument(k)

    def passed_on(self) -> Iterator[tuple[Node | Tensor, np.ndarray]]:
        """Each parent that wants a gradient, and its part of it. ShapeError or DTypeError where one cannot be."""
        node = self.node
        if len(self.gradients) != len(node.parents):
            raise self.wrong_count()
        for k, parent in enumerate(node.parents):
            dx = self.gradients[k]
            if parent is None or dx is None:
                continue
            if dx.shape != parent.shape or dx.dtype != self.grad_out.dtype:  # a graph has one dtype
                raise self.wrong_gradient(k)
            if type(parent) is not Node and (node.op.view or dx is not self.computed[k]):
                dx = np.array(dx)  # may be somebody else's array, and a leaf keeps what it is given
            yield parent, dx

    def check(self) -> Verdict:
        """Are these gradients right? Against differences of this one op at its actual values, in float64.

        The inputs come from running the forward again, once for all steps of a pass. NonFiniteError when the gradient that comes
        in has NaN or infinities.
        """
        from ..debug.check import check_step  # the tape itself measures nothing

        return Context().run(check_step, self)  # a fresh one, in which nobody watches

    def __repr__(self) -> str:
        shapes = ", ".join("None" if d is None else str(np.shape(d)) for d in self.gradients)
        arrow = f" -> {shapes}" if shapes else ""
        return f"Step {self.i + 1}/{self.n}: {self.op}, g {self.grad_out.shape}{arrow}, {self.name}, {self.site}"

    def _repr_html_(self) -> str:
        from ..debug.html import step_html  # a notebook asks for it; the tape itself draws nothing

        return step_html(self)

    def wrong_count(self) -> ShapeError:
        return ShapeError(
            f"{self.op}_backward returned {len(self.gradients)} gradients for {len(self.node.parents)} inputs "
            f"(made at {self.site}): return one for each, None where there is none"
        )

    def wrong_gradient(self, k: int) -> ShapeError | DTypeError:
        dx, parent = self.gradients[k], self.node.parents[k]
        kind = ShapeError if dx.shape != parent.shape else DTypeError
        return kind(
            f"{self.op}_backward: the gradient of input {k} is {dx.shape} {dx.dtype}, the input is {parent.shape} "
            f"{parent.dtype} (made at {self.site}): sum over broadcast axes and keep the dtype"
        )


class Inputs(dict[str, "np.ndarray | None"]):
    """Gradients by the names of the parents; to set one is to replace it in the list of a step."""

    def __init__(self, gradients: list, positions: dict[str, int]) -> None:
        super().__init__({name: gradients[k] for name, k in positions.items()})
        self._gradients, self._positions = gradients, positions

    def __setitem__(self, name: str, gradient: np.ndarray | None) -> None:
        self._gradients[self._positions[name]] = gradient
        super().__setitem__(name, gradient)


@dataclass(eq=False, slots=True, repr=False)
class Walk:
    """All nodes of one backward pass; what concerns them together is worked out when it is first asked for."""

    nodes: list[Node]  # in the order of the forward
    _names: dict[Any, str] = field(default_factory=dict)
    _values: dict[Node, np.ndarray] = field(default_factory=dict)

    @property
    def names(self) -> dict[Any, str]:
        if not self._names:
            self._names = names_of(self.nodes)
        return self._names

    def __repr__(self) -> str:
        names = list(self.names.values())
        return f"Walk of {len(names)} nodes" + (f", {names[0][-60:]} to {names[-1][-60:]}" if names else "")

    def _repr_html_(self) -> str:
        from ..debug.html import walk_html  # a notebook asks for it; the tape itself draws nothing

        return walk_html(self)

    def inputs(self, node: Node) -> list:
        """The arrays that the node was called with, from the leaves and constants by running the forward again."""
        if not self._values:
            for earlier in self.nodes:
                self._values[earlier] = run_again(earlier, self._arrays(earlier))[0]
        return self._arrays(node)

    def _arrays(self, node: Node) -> list:
        constants = node.constants or [None] * len(node.parents)
        return [
            c if p is None else self._values.get(p, getattr(p, "data", None))
            for p, c in zip(node.parents, constants, strict=True)
        ]


def module_of(name: str) -> str:
    """`trf_blocks.0.att` of `trf_blocks.0.att.attention#1`."""
    return name.rpartition("#")[0].rpartition(".")[0]


def names_of(nodes: Iterable[Node]) -> dict[Any, str]:
    """Module path, op and number of each node, which come in the order of the forward: `trf_blocks.0.att.attention#1`."""
    seen: Counter[str] = Counter()
    names: dict[Any, str] = {}
    paths: dict[Any, str] = {}
    for node in nodes:
        place = (id(node.scope), node.op.name)
        if place not in paths:
            paths[place] = node.path
        seen[paths[place]] += 1
        names[node] = f"{paths[place]}#{seen[paths[place]]}"
    return names
