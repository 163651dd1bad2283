"""The graph of a loss as text: Mermaid, which web pages and editors draw, and DOT, which Graphviz does."""

from __future__ import annotations

from ..engine import Tensor
from ..errors import GraphError
from ..tape.node import Node, recorded
from ..tape.step import names_of


def to_mermaid(loss: Tensor) -> str:
    """A Mermaid flowchart, from the leaves to the loss."""
    vertices, edges = _graph(loss)
    lines = ["flowchart TD"]
    for key, (lines_of, leaf) in vertices.items():
        text = "<br/>".join(line.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;") for line in lines_of)
        lines.append(f'    {key}(["{text}"])' if leaf else f'    {key}["{text}"]')
    return "\n".join(lines + [f"    {start} --> {end}" for start, end in edges]) + "\n"


def to_dot(loss: Tensor) -> str:
    """A graph for Graphviz, from the leaves to the loss."""
    vertices, edges = _graph(loss)
    lines = ["digraph {", "    node [shape=box]"]
    for key, (lines_of, leaf) in vertices.items():
        text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines_of)
        lines.append(f'    {key} [label="{text}"' + (", shape=ellipse]" if leaf else "]"))
    return "\n".join([*lines, *(f"    {start} -> {end}" for start, end in edges), "}"]) + "\n"


def _graph(loss: Tensor) -> tuple[dict[str, tuple[list[str], bool]], list[tuple[str, str]]]:
    """Vertices, key -> (lines of text, is it a leaf?), and edges; the nodes in the order of the forward."""
    if loss.node is None:
        raise GraphError(f"this tensor {loss.shape} is not on the tape, so it has no graph: {loss.why_no_grad()}")
    nodes = recorded(loss.node)
    names = names_of(nodes)
    keys: dict[Node | Tensor, str] = {}
    vertices: dict[str, tuple[list[str], bool]] = {}
    edges: list[tuple[str, str]] = []
    for node in nodes:
        for parent in node.parents:
            if parent is not None and parent not in keys:  # a leaf
                keys[parent] = f"leaf{len(keys)}"
                vertices[keys[parent]] = ([parent.name or "leaf", str(parent.shape)], True)
        keys[node] = f"node{len(keys)}"
        vertices[keys[node]] = ([names[node], str(node.shape)], False)
        edges += [(keys[parent], keys[node]) for parent in node.parents if parent is not None]
    return vertices, edges
