"""Why a tensor has no gradient: what `t.why_no_grad()` answers."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .node import Node, recorded
from .places import Place, describe_place

if TYPE_CHECKING:
    from ..engine import Tensor

Origin = tuple[str, Place]  # how a tensor came to be off the tape, and where
_MADE_FROM = "made from what was "

_FAR = 1000  # nodes that are searched for leaves when something is detached

# The leaves under what was detached lately, found then, because its graph is not kept alive.
_detached: deque[tuple[list[weakref.ref], Origin]] = deque(maxlen=256)


def note_detached(source: Any, origin: Origin) -> None:
    """Remember that the result of a node, or a leaf, was taken off the tape."""
    nearest = dict.fromkeys([source])
    todo = deque(nearest)
    while todo and len(nearest) < _FAR:
        for parent in getattr(todo.popleft(), "parents", ()):
            if parent is not None and parent not in nearest:
                nearest[parent] = None
                todo.append(parent)
    _detached.append(([weakref.ref(x) for x in nearest if not isinstance(x, Node)], origin))


def inherited(inputs: Iterable) -> Origin | None:
    """Why what is computed from these is off the tape, if one of them knows."""
    for x in inputs:
        origin = getattr(x, "origin", None)
        if origin is not None:
            return origin if origin[0].startswith(_MADE_FROM) else (_MADE_FROM + origin[0], origin[1])
    return None


def told(origin: Origin) -> str:
    """`detached at file.py:12 in train`"""
    return f"{origin[0]} at {describe_place(origin[1])}"


def why_no_grad(tensor: Tensor, loss: Tensor | None) -> str:
    """One sentence: why `tensor.grad` is None, and what to do."""
    what = f"{tensor.name or 'this tensor'} {tensor.shape}"
    if tensor.grad is not None:
        return f"{what} has a gradient: its .grad is not None"
    if tensor.origin is not None and not tensor.requires_grad:
        return f"{what} was {told(tensor.origin)}: make it outside of that for it to have a gradient"
    if tensor.node is not None:
        return (
            f"{what} is a result of {tensor.node.op.name} (made at {tensor.node.site}), and .grad stays on leaves only: "
            "look at it in loss.backward_steps(), or with model.run_with_cache(..., grads=True)"
        )
    if not tensor.requires_grad:
        return f"{what} does not require a gradient: make it with Tensor(..., requires_grad=True)"
    if loss is None:
        hint = _detached_from(tensor)
        return (
            f"{what} requires a gradient, but no backward has reached it since .grad was last None{hint}: "
            "call loss.backward(), or ask why_no_grad(loss)"
        )
    if loss.node is None:
        if loss.origin is not None:
            return f"{what}: the loss was {told(loss.origin)}, so nothing leads back from it"
        return f"{what}: the loss is not on the tape, because none of its inputs requires a gradient"
    nodes = recorded(loss.node)
    if any(parent is tensor for node in nodes for parent in node.parents):
        if any(node.saved is None for node in nodes):
            return (
                f"{what} is on the path of this loss, whose graph was freed by an earlier backward(): .grad was set to None "
                "since (zero_grad), or the gradients went elsewhere (into=): run the forward again"
            )
        return f"{what} is on the path of this loss, but backward() has not been called: call loss.backward()"
    hint = _detached_from(tensor)
    made = f" (made at {loss.node.site})"
    return f"{what} is not on the path of this loss{made}{hint}" + (
        "" if hint else ": the loss was computed without it, from t.data, or from a copy of it"
    )


def _detached_from(tensor: Tensor) -> str:
    for leaves, origin in reversed(list(_detached)):  # to which other threads may add
        if any(leaf() is tensor for leaf in leaves):
            return f"; what was made from it was {told(origin)}"
    return ""
