"""The backward steps of a report: what the page shows of each, as JSON takes it."""

from __future__ import annotations

import inspect
import linecache
import math
import time
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from ..engine import Op, Tensor
from ..errors import NonFiniteError
from ..tape.display import in_words, norm
from ..tape.node import Node, recorded
from ..tape.step import Step, Walk, module_of
from .attention import heads
from .picture import number, picture

STEPS = 400  # steps on the page; of a longer backward the first half and the last half of these
_ARRAYS = 8  # saved arrays of a step, and gradients
_BYTES = 3_000_000  # for all of them together
_MODULES, _LEAVES = 1000, 1000
_CHECK_ELEMENTS = 2**18  # in the inputs and the output of a step that is checked
_RUN_ELEMENTS = 2**26  # in all results together: a check keeps them
_CHECK_SECONDS = 20.0


class Steps:
    """Walks the graph of a loss once, keeping it and every `.grad` as they are."""

    def __init__(self, loss: Tensor) -> None:
        self.nodes = recorded(loss.node)
        n = len(self.nodes)
        self.shown = set(range(n)) if n <= STEPS else {*range(STEPS // 2), *range(n - STEPS // 2, n)}
        self.notes: list[str] = []
        if n > STEPS:
            half = STEPS // 2
            self.notes.append(
                f"Steps {half + 1:,} to {n - half:,} of {n:,} are left out: the first and the last {half} are shown."
            )
        self.arrays: list[dict[str, Any]] = []
        self.positions: dict[Node, int] = {}  # of the steps on the page
        self.senders: defaultdict[Node, list[int]] = defaultdict(list)  # which of them sent a node its gradient
        self.leaves: dict[Tensor, int] = {}
        self.modules: dict[str, int] = {}
        self.verdicts: Counter[str] = Counter()
        self._known: dict[str, int] = {}
        self._cells = self._share()
        self._elements = sum(map(_size, self.nodes))
        self._uses = Counter(parent for node in self.nodes for parent in node.parents if parent is not None)
        self._seconds = 0.0
        self._walk = Walk(self.nodes, loss.data)
        self._names, self._homes = self._walk.names, dict(self._walk.groups)
        self._collect(loss)

    def _collect(self, loss: Tensor) -> None:
        self.steps: list[dict[str, Any]] = []
        self.ops: dict[str, dict[str, Any]] = {}
        sources: list[Node] = []
        gradients: dict[Tensor, np.ndarray] = {}
        for step in loss.backward_steps(retain_graph=True, into=gradients):
            if step.idle:  # folded away
                self._homes[step.node] += ".only zeros"
            if step.i in self.shown:
                self.positions[step.node] = len(self.steps)
                sources.append(step.node)
                self.steps.append(self._describe(step))
        for described, node in zip(self.steps, sources, strict=True):
            for out, k in zip(described["out"], described.pop("parents"), strict=True):
                out |= self._target(node.parents[k])
        self._summarise(gradients)

    def _share(self) -> int:
        """How many cells an array may have for the page to keep its size."""
        shown = [node for i, node in enumerate(reversed(self.nodes)) if i in self.shown]
        outputs = set(shown)  # what goes into a step is most often there already, as what came out of another
        n_arrays = 0
        for node in shown:
            others = [parent for parent in node.parents if parent not in outputs]
            n_arrays += 2 + sum(min(len(some), _ARRAYS) for some in (node.saved or (), node.parents, others))
            if node.op.name == "attention":
                n_arrays += 3 * min(node.options["n_heads"], _ARRAYS)
        return max(0, min(4096, int(0.75 * (_BYTES - 300 * n_arrays - 1200 * len(shown)) / n_arrays)))

    def _describe(self, step: Step) -> dict[str, Any]:
        node, name = step.node, step.name
        file, line, function, code = _source_line(step.site)
        op = _cut(step.op, 100)
        if op not in self.ops:
            self.ops[op] = _functions(node.op)
        forward = self._forward(step)
        kept = {
            key: x for key, x in step.saved.items() if not (forward["heads"] and isinstance(x, dict))
        }  # P in blocks
        saved = [
            {"name": _cut(key), "array": self._picture(value)}
            if isinstance(value, np.ndarray)
            else {"name": _cut(key), "text": in_words(value)}
            for key, value in list(kept.items())[:_ARRAYS]
        ]
        wanted = [k for k, parent in enumerate(node.parents) if parent is not None and step.gradients[k] is not None]
        verdict, text = self._check(step)
        self.verdicts[verdict] += 1
        for k in wanted:
            if isinstance(node.parents[k], Node):
                self.senders[node.parents[k]].append(self.positions[node])
        return {
            "i": step.i,
            "name": _cut(name),
            "label": _cut(name[len(module_of(name)) :].removeprefix(".")),
            "variable": _cut(step.variable or ""),
            "op": op,
            "worked": _cut(step.worked, 300),
            "module": self._module(self._home(node)),
            "file": file,
            "line": line,
            "function": function,
            "code": code,
            "layer": _layer_line(node),
            "twin": _twin_line(node),
            "norm": number(norm(step.grad_out)),
            "g": self._picture(step.grad_out),
            **forward,
            "senders": self.senders[node][:_ARRAYS],
            "uses": self._uses[node] or 1,
            "saved": saved,
            "more_saved": max(0, len(kept) - _ARRAYS),
            "out": [
                {"argument": _cut(step.argument(k)), "array": self._picture(step.gradients[k])}
                for k in wanted[:_ARRAYS]
            ],
            "parents": wanted[:_ARRAYS],
            "more_out": max(0, len(wanted) - _ARRAYS),
            "verdict": verdict,
            "check": text,
        }

    def _forward(self, step: Step) -> dict[str, Any]:
        """What went in and what came out, and of attention the matrices of each head; nothing where that takes too much."""
        if self._elements > _RUN_ELEMENTS:
            return {"args": [], "result": None, "heads": []}
        try:
            args, result, inside = step.args, step.out, heads(step)
        except Exception:  # of the user's op, which is run again
            return {"args": [], "result": None, "heads": []}
        variables = ((step.argument(k), self._walk.variables.get(parent)) for k, parent in enumerate(step.node.parents))
        known = {argument: _cut(variable) for argument, variable in variables if variable not in (None, argument)}
        return {
            "args": [
                {"name": _cut(key), "variable": known.get(key, ""), "array": self._picture(x)}
                for key, x in list(args.items())[:_ARRAYS]
            ],
            "result": self._picture(result),
            "heads": [{key: self._picture(x) for key, x in head.items()} for head in inside[:_ARRAYS]],
        }

    def _home(self, node: Node) -> str:
        """The box that a node is in: its module, and in it the fused op that it came from."""
        return self._homes.get(node) or module_of(self._names[node])

    def _picture(self, array: np.ndarray) -> int:
        """The number of an array on the page; the same picture is there once."""
        found = picture(array, self._cells)
        key = repr(found)
        if key not in self._known:
            self._known[key] = len(self.arrays)
            self.arrays.append(found)
        return self._known[key]

    def _check(self, step: Step) -> tuple[str, str]:
        """The verdict of finite differences, or "none" and why there is none."""
        node = step.node
        n = _size(node) + sum(_size(parent) for parent in node.parents if parent is not None)
        n += sum(c.size for c in node.constants or () if isinstance(c, np.ndarray))
        # A checkpointed block has many inputs, all of them measured.
        most = 3 * _CHECK_ELEMENTS // max(3, len(node.parents))
        if n > most:
            return "none", f"Not checked: its arrays have {n:,} elements, and steps of up to {most:,} are."
        if self._elements > _RUN_ELEMENTS:
            return "none", "Not checked: the results of the whole forward, which a check keeps, are too large."
        if self._seconds > _CHECK_SECONDS:
            return "none", f"Not checked: the {_CHECK_SECONDS:.0f} s for checks were used up by other steps."
        start = time.perf_counter()
        try:
            found = step.check()
        except NonFiniteError:
            return "none", "Not checked: the gradient that comes in is not finite."
        except Exception as error:  # of the user's op, which is run with other numbers here
            return "none", _cut(f"Could not be checked: {type(error).__name__}: {error}", 300)
        finally:
            self._seconds += time.perf_counter() - start
        if not found.compared:
            return "none", "Not checked: no input is finite, or no result."
        inputs = sum(_size(parent) for parent in node.parents if parent is not None)
        of = f"{found.compared:,} derivatives measured, of {inputs:,} inputs"
        if found.verdict == "ok":
            return "ok", f"Finite differences agree: {of}, relative error {found.relative_error:.1g}."
        return found.verdict, _cut(str(found), 600)

    def _target(self, parent: Node | Tensor) -> dict[str, Any]:
        """Where a gradient is sent: to a step on the page, to one left out, or to a leaf."""
        if isinstance(parent, Node):
            target: dict[str, Any] = {"to": _cut(self._names[parent])}
            if parent in self.positions:
                return target | {"step": self.positions[parent]}
            return target | {"module": self._module(self._home(parent))}
        if parent not in self.leaves and len(self.leaves) < _LEAVES:
            self.leaves[parent] = len(self.leaves)
        target = {"to": self._leaf_name(parent)}
        return target | ({"leaf": self.leaves[parent]} if parent in self.leaves else {})

    def _module(self, path: str) -> int:
        return self.modules.setdefault(_cut(path), len(self.modules))

    def _summarise(self, gradients: dict[Tensor, np.ndarray]) -> None:
        """The modules with what is in them, shown or not, and the leaves with their gradients."""
        counts: Counter[str] = Counter()
        saved: Counter[str] = Counter()
        for node in self.nodes:
            path = _cut(self._home(node))
            counts[path] += 1
            saved[path] += sum(array.nbytes for array in node.saved or () if isinstance(array, np.ndarray))
        shown = Counter(step["module"] for step in self.steps)
        for path in counts:
            if len(self.modules) < _MODULES:
                self._module(path)
        if hidden := len(counts.keys() - self.modules.keys()):
            self.notes.append(f"{hidden:,} modules, all of them of steps that are left out, are not in the graph.")
        self.module_rows = [
            {"path": path, "ops": counts[path], "bytes": saved[path], "left_out": counts[path] - shown[k]}
            for path, k in self.modules.items()
        ]
        others = [leaf for leaf in gradients if leaf not in self.leaves]
        for leaf in others[: _LEAVES - len(self.leaves)]:
            self.leaves[leaf] = len(self.leaves)
        if hidden := len(gradients.keys() - self.leaves.keys()):
            self.notes.append(f"{hidden:,} leaves are not in the graph.")
        self.leaf_rows = [
            {
                "name": self._leaf_name(leaf),
                "module": self._module_of_leaf(leaf),
                "shape": list(leaf.shape),
                "norm": number(norm(gradients[leaf])) if leaf in gradients else None,
            }
            for leaf in self.leaves
        ]

    def _leaf_name(self, leaf: Tensor) -> str:
        return _cut(leaf.name or self._walk.variables.get(leaf) or f"leaf {leaf.shape}")

    def _module_of_leaf(self, leaf: Tensor) -> int | None:
        """The module that a parameter's name says it is in, if the page has that."""
        return self.modules.get(_cut((leaf.name or "").rpartition(".")[0]))


def _size(x: Any) -> int:
    return math.prod(x.shape)


def _cut(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _source_line(site: str) -> tuple[str, int, str, str]:
    """File, line, function and the text of the line."""
    place, _, function = site.rpartition(" in ")
    file, _, line = place.rpartition(":")
    number = int(line) if line.isdecimal() else 0
    return _cut(file, 300), number, _cut(function), _cut(linecache.getline(file, number).strip(), 200)


def _layer_line(node: Node) -> dict[str, str] | None:
    """The line of a module's forward that calls the op, where it can be told; where a command made the graph, the only clue."""
    fused = node.fused
    inside = node.scope if fused is None else fused[0]
    if inside is None:
        return None
    op = node.op if fused is None else fused[1].op
    forward = type(inside[1]).forward
    try:
        lines, start = inspect.getsourcelines(forward)
        file = inspect.getsourcefile(forward) or ""
    except (OSError, TypeError):
        return None
    calls = [k for k, line in enumerate(lines) if f"{op.name}(" in line]
    k = calls[0] if len(calls) == 1 else 0
    return {"place": _cut(f"{file}:{start + k} in {forward.__qualname__}", 300), "code": _cut(lines[k].strip(), 200)}


def _twin_line(node: Node) -> dict[str, str] | None:
    """The line of the twin that made a node under `composed()`."""
    if node.twin_site is None:
        return None
    *_, code = _source_line(node.twin_site)
    return {"place": _cut(node.twin_site, 300), "code": code}


def _functions(op: Op) -> dict[str, Any]:
    """The equations of an op, and the lines of its backward."""
    found = {
        "forward": _cut((inspect.getdoc(op.forward) or "").split("\n")[0], 300),
        "backward": _cut((inspect.getdoc(op.backward) or "").split("\n")[0], 300),
        "source": "",
        "place": "",
    }
    try:
        lines, start = inspect.getsourcelines(op.backward)
        found["source"] = _cut("".join(lines), 4000)
        found["place"] = _cut(f"{inspect.getsourcefile(op.backward)}:{start}", 300)
    except (OSError, TypeError):  # typed at a prompt
        pass
    return found
