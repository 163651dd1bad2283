"""Why a tensor has no gradient: what `t.why_no_grad()` answers."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from .node import recorded
from .places import Place, describe_place

if TYPE_CHECKING:
    from ..engine import Tensor

Origin = tuple[str, Place]  # how a tensor came to be off the tape, and where

# What was detached lately; its graph is not kept alive.
_detached: deque[tuple[weakref.ref, Origin]] = deque(maxlen=256)


def note_detached(source: Any, origin: Origin) -> None:
    """Remember that the result of a node, or a leaf, was taken off the tape."""
    _detached.append((weakref.ref(source), origin))


def why_no_grad(tensor: Tensor, loss: Tensor | None) -> str:
    """One sentence: why `tensor.grad` is None, and what to do."""
    what = f"{tensor.name or 'this tensor'} {tensor.shape}"
    if tensor.grad is not None:
        return f"{what} has a gradient: its .grad is not None"
    if tensor.origin is not None and tensor.node is None:
        reason, place = tensor.origin
        return f"{what} was {reason} at {describe_place(place)}: make it outside of that for it to have a gradient"
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
            return f"{what}: the loss was {loss.origin[0]} at {describe_place(loss.origin[1])}, so nothing leads back from it"
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
    for reference, origin in reversed(_detached):
        source = reference()
        if source is tensor or any(
            parent is tensor for node in recorded(source) for parent in node.parents if parent is not None
        ):
            return f"; what was made from it was {origin[0]} at {describe_place(origin[1])}"
    return ""
