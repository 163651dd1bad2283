"""The graph of a loss as text, folded by module: Mermaid, which web pages and editors draw, and DOT, which Graphviz does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ..engine import Tensor
from ..errors import GraphError
from ..tape.node import Node, recorded
from ..tape.step import module_of, names_of


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
    names = names_of(nodes)
    paths = {module_of(name) for name in names.values()}
    root, n_modules = _Module(""), 0
    keys: dict[Node | Tensor, str] = {}
    edges: list[tuple[str, str]] = []

    def add(key: str, path: str, name: str, shape: tuple, leaf: bool) -> None:
        nonlocal n_modules
        module = root
        for part in path.split(".") if path else ():
            if part not in module.inner:
                module.inner[part] = _Module(f"module{n_modules}")
                n_modules += 1
            module = module.inner[part]
        module.vertices.append((key, [name, str(shape)], leaf))

    for node in nodes:
        for parent in node.parents:
            if parent is not None and parent not in keys:  # a leaf
                keys[parent] = f"leaf{len(keys)}"
                name = parent.name or "leaf"
                path = name.rpartition(".")[0]
                path = path if path in paths else ""
                add(keys[parent], path, name[len(path) + 1 :] if path else name, parent.shape, leaf=True)
        keys[node] = f"node{len(keys)}"
        path = module_of(names[node])
        add(keys[node], path, names[node][len(path) + 1 :] if path else names[node], node.shape, leaf=False)
        edges += [(keys[parent], keys[node]) for parent in node.parents if parent is not None]
    return root, edges
