"""The graph of a loss as text, folded by module: Mermaid, which web pages and editors draw, and DOT, which Graphviz does.

Where arrays are of a few elements, the backward is walked for what stands in them, and every `.grad` left alone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import dataclass, field

import numpy as np

from ..engine import Tensor
from ..errors import GraphError
from ..tape.display import summarise
from ..tape.node import Node, recorded
from ..tape.step import Walk, module_of

_FEW = 4  # elements of an array that is written out


@dataclass
class _Module:
    """A box around what a module made: `vertices` are (key, lines of text, is it a leaf?)."""

    key: str
    vertices: list[tuple[str, list[str], bool]] = field(default_factory=list)
    inner: dict[str, _Module] = field(default_factory=dict)


def to_mermaid(loss: Tensor) -> str:
    """A Mermaid flowchart, from the leaves to the loss; each module is a subgraph."""

    def text(lines: list[str]) -> str:
        shown = "<br/>".join(
            line.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace("\n", " ") for line in lines
        )
        return f'"{shown}"'

    def vertex(key: str, lines: list[str], leaf: bool) -> str:
        return f"{key}([{text(lines)}])" if leaf else f"{key}[{text(lines)}]"

    root, edges = _graph(loss)
    boxes = _write(root, vertex, lambda key, label: f"subgraph {key}[{text([label])}]", "end")
    return "\n".join(["flowchart TD", *boxes, *(f"    {start} --> {end}" for start, end in edges)]) + "\n"


def to_dot(loss: Tensor) -> str:
    """A graph for Graphviz, from the leaves to the loss; each module is a cluster."""

    def text(lines: list[str]) -> str:
        shown = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
        return f'"{shown}"'

    def vertex(key: str, lines: list[str], leaf: bool) -> str:
        return f"{key} [label={text(lines)}" + (", shape=ellipse]" if leaf else "]")

    root, edges = _graph(loss)
    boxes = _write(root, vertex, lambda key, label: f"subgraph cluster_{key} {{ label={text([label])}", "}")
    head = ["digraph {", "    node [shape=box]"]
    return "\n".join([*head, *boxes, *(f"    {start} -> {end}" for start, end in edges), "}"]) + "\n"


def _write(
    module: _Module, vertex: Callable[[str, list[str], bool], str], begin: Callable[[str, str], str], end: str
) -> Iterator[str]:
    """The lines of a module: its vertices, then the modules inside."""
    for given in module.vertices:
        yield "    " + vertex(*given)
    for label, inner in module.inner.items():
        yield "    " + begin(inner.key, label)
        for line in _write(inner, vertex, begin, end):
            yield "    " + line
        yield "    " + end


def _graph(loss: Tensor) -> tuple[_Module, list[tuple[str, str]]]:
    """The modules with the nodes, in the order of the forward, and the edges between the keys of these."""
    if loss.node is None:
        raise GraphError(f"this tensor {loss.shape} is not on the tape, so it has no graph: {loss.why_no_grad()}")
    nodes = recorded(loss.node)
    walk = Walk(nodes, loss.data)
    names, groups = walk.names, walk.groups
    notes, idle = Context().run(_numbers, loss, walk)  # where nobody watches
    n_steps, n_idle = Counter(groups.values()), Counter(groups[node] for node in idle)
    paths = {module_of(name) for name in names.values()}
    root, n_modules = _Module(""), 0
    keys: dict[Node | Tensor, str] = {}
    edges: list[tuple[str, str]] = []

    def add(key: str, path: list[str], name: str, at: Node | Tensor, leaf: bool) -> None:
        nonlocal n_modules
        module = root
        for part in path:
            if part not in module.inner:
                module.inner[part] = _Module(f"module{n_modules}")
                n_modules += 1
            module = module.inner[part]
        module.vertices.append((key, [name, str(at.shape), *notes[at]], leaf))

    for node in nodes:
        if node in idle:
            continue
        for parent in node.parents:
            if parent is not None and parent not in keys and not isinstance(parent, Node):
                keys[parent] = f"leaf{len(keys)}"
                name = parent.name or walk.variables.get(parent, "leaf")
                path = name.rpartition(".")[0]
                path = path if path in paths else ""
                add(
                    keys[parent],
                    path.split(".") if path else [],
                    name[len(path) + 1 :] if path else name,
                    parent,
                    leaf=True,
                )
        keys[node] = f"node{len(keys)}"
        path = module_of(names[node])
        inside = path.split(".") if path else []
        if group := groups.get(node):
            steps = f"{n_steps[group]} steps"
            steps += f", of which {n_idle[group]} pass on zeros alone" if n_idle[group] else ""
            inside.append(f"{group.removeprefix(f'{path}.')}: {steps}")
        name = names[node].removeprefix(f"{path}.")
        variable = walk.variables.get(node)
        add(keys[node], inside, f"{name}, {variable}" if variable else name, node, leaf=False)
        edges += [(keys[parent], keys[node]) for parent in node.parents if parent in keys]
    return root, edges


def _numbers(loss: Tensor, walk: Walk) -> tuple[dict[Node | Tensor, list[str]], set[Node]]:
    """What stands in the small arrays, as lines for each node and leaf, and the nodes that pass on nothing but zeros.

    Nothing of a graph that was freed, of a loss that is no scalar, and where all arrays are large.
    """
    notes: dict[Node | Tensor, list[str]] = defaultdict(list)
    idle: set[Node] = set()
    parts: dict[Node | Tensor, list[np.ndarray]] = defaultdict(list)
    few = [node for node in walk.nodes[:-1] if math.prod(node.shape) <= _FEW]
    freed = any(node.saved is None for node in walk.nodes)
    if freed or loss.size != 1 or not (few or len(walk.nodes) == 1):
        return notes, idle
    for step in loss.backward_steps(retain_graph=True, into={}):
        if not step.walk.repeats:
            break
        node = step.node
        if step.idle:
            idle.add(node)
        if step.out.size <= _FEW:
            notes[node] = [
                f"data {_written(step.out)}",
                _sum((not node.hooks and parts[node]) or [step.grad_out]),
                step.worked,
            ]
        for parent, dx in zip(node.parents, step.gradients, strict=True):
            if parent is not None and dx is not None and dx.size <= _FEW:
                parts[parent].append(dx)
                if not isinstance(parent, Node):
                    notes[parent] = [f"data {_written(parent.data)}", _sum(parts[parent])]
    return notes, idle


@np.errstate(all="ignore")
def _sum(parts: list[np.ndarray]) -> str:
    """`grad 4 + 4 = 8`: what each use sent, and all of it."""
    total = _written(np.asarray(sum(parts)))
    return "grad " + (total if len(parts) == 1 else f"{' + '.join(map(_written, parts))} = {total}")


def _written(x: np.ndarray) -> str:
    return f"{x.item():.4g}" if x.size == 1 else summarise(x)
