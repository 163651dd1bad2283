"""One node being differentiated, as `loss.backward_steps()` shows it: names for everything, and a check."""

from __future__ import annotations

import inspect
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import Context
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, GraphError, ShapeError
from .node import Node, path_of, run_again
from .places import is_operator, operands, stored_in
from .worked import equations, letters, substitute

if TYPE_CHECKING:
    from ..debug.check import Verdict


_RUN_ELEMENTS = 2**26  # in all results of a forward, up to which a display runs it again


class Step:
    """One node of a backward pass, before its gradients are passed on to its parents.

    `i` of `n`, from 0; `node`, the recorded call; `grad_out`, dL/d(output of the node), which the formulas call g;
    `gradients`, dL/d(input) for each parent, None where none is wanted: an entry may be replaced. While the backward of the op
    itself runs, there are none yet.
    """

    __slots__ = ("computed", "grad_out", "gradients", "i", "n", "node", "walk")

    def __init__(self, i: int, n: int, node: Node, grad_out: np.ndarray, walk: Walk) -> None:
        self.i, self.n, self.node, self.grad_out, self.walk = i, n, node, grad_out, walk
        self.computed: tuple = ()  # what the op's backward returned, until then nothing
        self.gradients: list = []

    @property
    def op(self) -> str:
        """The name of the op: `gelu`."""
        return self.node.op.name

    @property
    def name(self) -> str:
        """The module and the op, numbered from 1 in the order of the forward: `trf_blocks.0.ff.layers.1.gelu#1`."""
        return self.walk.names[self.node]

    @property
    def variable(self) -> str | None:
        """What the user's code calls the output: `b` in `b = a + a`; None where that cannot be told."""
        return self.walk.variables.get(self.node)

    @property
    def group(self) -> str | None:
        """Under `composed()`, the fused op that this one is a part of: `trf_blocks.0.norm1.layer_norm#1`; None elsewhere."""
        return self.walk.groups.get(self.node)

    @property
    def idle(self) -> bool:
        """Is it a part of a fused op that passes on nothing but zeros, as a branch does that was not taken?"""
        passed = (dx for parent, dx in zip(self.node.parents, self.gradients, strict=False) if parent is not None)
        return self.group is not None and not any(dx is not None and dx.any() for dx in passed)

    @property
    def site(self) -> str:
        """Where the user's code made the node: `file.py:12 in train`."""
        return self.node.site

    @property
    def formula(self) -> str:
        """The equation of the backward, the first line of its docstring."""
        return (inspect.getdoc(self.node.op.backward) or "").split("\n")[0]

    @property
    def worked(self) -> str:
        """The formula with its numbers, `dx = g y = 1 * 4 = 4`; of arrays the first elements, where all are of one shape.

        An equation stays as it is where it says more than arithmetic on g and what was saved.
        """
        wanted = zip(self.node.parents, self.gradients, strict=False)  # there are none yet while the backward runs
        inputs = {self.argument(k): None if parent is None else dx for k, (parent, dx) in enumerate(wanted)}
        parts, found = [], False
        for name, side, equation in equations(self.formula):
            if name not in inputs:
                parts.append(equation)
            elif (dx := inputs[name]) is not None:
                worked = self._worked(name, side, dx)
                parts.append(worked or equation)
                found = found or worked is not None
        return ",  ".join(parts) if found else self.formula

    def _worked(self, name: str, side: str, dx: np.ndarray) -> str | None:
        """One equation with its numbers, None where they cannot be put in."""
        known: dict[str, Any] = {"g": self.grad_out, **self.saved}
        if len(self.node.parents) == 1 and (size := math.prod(self.node.shape)):
            known.setdefault(
                "n", math.prod(self.node.parents[0].shape) // size
            )  # how many went into each of the output
        numbers = {}
        for letter in letters(side) & known.keys():
            value = np.asarray(known[letter])
            if value.dtype.kind not in "iuf" or not value.size or (value.size > 1 and value.shape != dx.shape):
                return None
            numbers[letter] = float(value.flat[0])
        found = substitute(side, numbers) if dx.size else None
        if found is None:
            return None
        whole = "" if dx.size == 1 else str([0] * dx.ndim)
        result = f"{dx.flat[0]:.4g}"
        return f"d{name}{whole} = {side}" + "".join(f" = {part}" for part in dict.fromkeys((found, result)))

    @property
    def out(self) -> np.ndarray:
        """The output of the forward, which the tape did not keep: the forward is run again, once for all steps of a pass.

        GraphError where that ends in other numbers than it did, as after a write into an input.
        """
        self.walk.refuse_changed()
        return self.walk.outputs[self.node]

    @property
    def args(self) -> dict[str, np.ndarray]:
        """The arrays that the forward was called with, by the names that it gives them; its options are `node.options`.

        From running it again, and refused, like `out`.
        """
        self.walk.refuse_changed()
        return {self.argument(k): array for k, array in enumerate(self.walk.inputs(self.node)) if array is not None}

    @property
    def saved(self) -> dict[str, Any]:
        """What the forward kept, by the names that the backward gives it; empty once the pass has gone on."""
        names = list(inspect.signature(self.node.op.backward).parameters)[1:]
        return dict(zip(names, self.node.saved or (), strict=False))

    @property
    def inputs(self) -> Inputs:
        """The name of each parent -> dL/d(parent) of this use; only where a gradient is wanted. An entry may be replaced.

        A leaf without a name goes by its variable, or else by what the forward calls it.
        """
        named: dict[str, int] = {}
        for k, parent in enumerate(self.node.parents):
            if parent is not None and k < len(self.gradients):
                name = self.walk.names.get(parent) or getattr(parent, "name", None)
                name = name or self.walk.variables.get(parent) or self.argument(k)
                named[f"{name} as {self.argument(k)}" if name in named else name] = k
        return Inputs(self.gradients, named)

    def argument(self, k: int) -> str:
        """What the forward calls its input k: `x`, `weight`, `arrays[2]`."""
        return self.node.op.argument(k)

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
        return f"Step {self.i + 1}/{self.n}: {self.op}, g {self.grad_out.shape}{arrow}, {', '.join(self.described())}"

    def described(self) -> list[str]:
        """Its name with the variable, the user's line, and under `composed()` the line of the twin."""
        words = [self.name if self.variable is None else f"{self.name}, {self.variable}", self.site]
        return words if self.node.twin_site is None else [*words, os.path.basename(self.node.twin_site)]

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


class Walk:
    """All nodes of one backward pass; what concerns them together is worked out when it is first asked for."""

    def __init__(self, nodes: list[Node], result: np.ndarray) -> None:
        self.nodes, self.result = nodes, result  # in the order of the forward; what the last of them gave

    @cached_property
    def names(self) -> dict[Any, str]:
        return names_of(self.nodes)

    @cached_property
    def variables(self) -> dict[Any, str]:
        return variables_of(self.nodes)

    @cached_property
    def groups(self) -> dict[Node, str]:
        return groups_of(self.nodes)

    def __repr__(self) -> str:
        names = list(self.names.values())
        return f"Walk of {len(names)} nodes" + (f", {names[0][-60:]} to {names[-1][-60:]}" if names else "")

    def _repr_html_(self) -> str:
        from ..debug.html import walk_html  # a notebook asks for it; the tape itself draws nothing

        return walk_html(self)

    @cached_property
    def repeats(self) -> bool:
        """May a display run the forward again: are its results small enough to be kept, and do they end as they did?"""
        return sum(math.prod(node.shape) for node in self.nodes) <= _RUN_ELEMENTS and not self.changed

    @cached_property
    def changed(self) -> bool:
        """Does the forward, run again, end in other numbers than it did, by more than threads may round otherwise?"""
        if not self.nodes:
            return False
        size = np.abs(self.result[np.isfinite(self.result)]).max(initial=0)
        rounding = 1000 * np.finfo(self.result.dtype).eps * size
        return not np.allclose(self.outputs[self.nodes[-1]], self.result, rtol=0, atol=rounding, equal_nan=True)

    def refuse_changed(self) -> None:
        if self.changed:
            raise GraphError(
                "step.out and step.args run the forward again, and it ends in other numbers than it did: an input was written "
                "to since, or an op draws random numbers without rng=: look at them before that"
            )

    def inputs(self, node: Node) -> list:
        """The arrays that the node was called with, from the leaves and constants by running the forward again."""
        return _arrays(node, self.outputs)

    @cached_property
    def outputs(self) -> dict[Node, np.ndarray]:
        """What each node made of them."""
        outputs: dict[Node, np.ndarray] = {}
        for node in self.nodes:
            outputs[node] = run_again(node, _arrays(node, outputs))[0]
        return outputs


def _arrays(node: Node, outputs: dict[Node, np.ndarray]) -> list:
    constants = node.constants or [None] * len(node.parents)
    return [
        c if p is None else outputs[p] if isinstance(p, Node) else p.data
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


def variables_of(nodes: Sequence[Node]) -> dict[Any, str]:
    """What the user's code calls the results of nodes, and the leaves that have no name, where the line says so.

    A call may record many nodes, of which the last, as they come in the order of the forward, is its result.
    """
    seen: dict[tuple[int, int], tuple[str | None, bool, dict[int, str]]] = {}
    variables: dict[Any, str] = {}
    for k, node in enumerate(nodes):
        place = node.place
        key = id(place[0]), place[1]
        if key not in seen:
            seen[key] = stored_in(place), is_operator(place), operands(place)
        stored, operator, loaded = seen[key]
        if stored and (operator or k + 1 == len(nodes) or nodes[k + 1].place != place):
            variables[node] = stored
        for i, name in loaded.items():
            parent = node.parents[i] if i < len(node.parents) else None
            if parent is not None and not isinstance(parent, Node) and not parent.name:
                variables.setdefault(parent, name)
    return variables


def groups_of(nodes: Iterable[Node]) -> dict[Node, str]:
    """The name of the fused op whose twin made a node, numbered like the nodes: `trf_blocks.0.norm1.layer_norm#1`."""
    seen: Counter[str] = Counter()
    names: dict[int, str] = {}
    groups: dict[Node, str] = {}
    for node in nodes:
        fused = node.fused
        if fused is None:
            continue
        if id(fused) not in names:
            path = path_of(fused, fused[1].op.name)
            seen[path] += 1
            names[id(fused)] = f"{path}#{seen[path]}"
        groups[node] = names[id(fused)]
    return groups
