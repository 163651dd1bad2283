"""Wrong backwards, made on purpose: a battery that lets one of them live would let a real mistake live too.

Two kinds (mutation analysis, DeMillo, Lipton and Sayward 1978). Faults of the result wrap the backward: a sign, a factor of
1.001, an element left out, a transposed gradient, a write, shared memory, a wrong dtype. Faults of the formula change one place
of its source: a term or factor is dropped, turned round or multiplied by 1.001, an arm of a `where` or the sum over copies is
left out.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..engine import Op
from .battery import applicable, failures
from .spec import OpSpec


@dataclass(frozen=True)
class Mutant:
    """`op` is the op with one fault, `fault` says which."""

    fault: str
    op: Op


def mutants(op: Op) -> list[Mutant]:
    """The op again and again, each time with one fault in its backward. None of them enters `Op.registry`."""
    return [
        *_faults_of_result(op),
        *(_with_backward(op, fault, backward) for fault, backward in _faults_of_formula(op.backward)),
    ]


def kill_table(spec: OpSpec, seed: int = 0) -> dict[str, str | None]:
    """For each mutant of the spec's op, by its fault, the first check of the battery that notices; None if it survives."""
    table: dict[str, str | None] = {}
    for mutant in mutants(spec.op):
        wrong = replace(spec, op=mutant.op)
        first = next(failures(wrong, applicable(wrong), seed), None)
        table[mutant.fault] = first[0] if first else None
    return table


def _with_backward(op: Op, fault: str, backward: Callable) -> Mutant:
    wrong = copy.copy(op)
    wrong.backward = backward
    return Mutant(fault, wrong)


# ---- faults of the result ---------------------------------------------------------------------------------------------------


def _without_last(d: np.ndarray) -> np.ndarray:
    d = d.copy()
    d[(-1,) * d.ndim] = 0
    return d


_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "wrong sign": lambda d: -d,
    "factor 1.001": lambda d: d * d.dtype.type(1.001),
    "a constant added": lambda d: d + d.dtype.type(1e-3),
    "zeros": np.zeros_like,
    "None": lambda d: None,
    "last element missing": _without_last,
    "transposed": lambda d: d.T if d.ndim > 1 else d[::-1],
    "an extra axis": lambda d: d[None],
    "float64 in a float32 graph": lambda d: d.astype(np.float64),
    "computed in float32": lambda d: d.astype(np.float32).astype(d.dtype),
}


def _faults_of_result(op: Op) -> Iterator[Mutant]:
    backward = op.backward
    parameters = inspect.signature(op.forward).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    for i, name in enumerate(names):
        for fault, change in _CHANGES.items():
            yield _with_backward(op, f"d{name}: {fault}", _changing(backward, i, change))
    if len(names) > 1:
        yield _with_backward(op, "gradients in the wrong order", lambda g, *saved, **k: backward(g, *saved, **k)[::-1])
    yield _with_backward(op, "g taken for ones", lambda g, *saved, **k: backward(np.ones_like(g), *saved, **k))
    yield _with_backward(op, "g taken for |g|", lambda g, *saved, **k: backward(np.abs(g), *saved, **k))
    yield _with_backward(op, "writes to g", _writing_to_g(backward))
    yield _with_backward(op, "one buffer for every call", _with_one_buffer(backward))
    yield _writing_to_saved(op)
    if "needs" in op.takes:
        yield _with_backward(op, "twice as large when an input is frozen", _doubling_when_frozen(backward))
    if op.view:
        hidden = copy.copy(op)
        hidden.view = False
        yield Mutant("view not declared", hidden)


def _changing(backward: Callable, i: int, change: Callable) -> Callable:
    """The gradient of input i changed; where there is nothing to change, as with an empty array, left alone."""

    def wrong(g, *saved, **options):
        gradients = list(backward(g, *saved, **options))
        if i < len(gradients) and gradients[i] is not None and np.size(gradients[i]):
            gradients[i] = change(np.asarray(gradients[i]))
        return tuple(gradients)

    return wrong


def _copies(gradients: tuple) -> tuple:
    return tuple(None if d is None else np.array(d) for d in gradients)


def _writing_to_g(backward: Callable) -> Callable:
    def wrong(g, *saved, **options):
        gradients = _copies(backward(g, *saved, **options))
        g *= 2
        return gradients

    return wrong


def _with_one_buffer(backward: Callable) -> Callable:
    buffers: dict[tuple, np.ndarray] = {}

    def wrong(g, *saved, **options):
        gradients = list(_copies(backward(g, *saved, **options)))
        for i, d in enumerate(gradients):
            if d is not None:
                buffer = buffers.setdefault((i, d.shape, d.dtype), np.empty_like(d))
                buffer[...] = d
                gradients[i] = buffer
        return tuple(gradients)

    return wrong


def _writing_to_saved(op: Op) -> Mutant:
    """A first backward right, the next wrong, because the first used a saved array as scratch."""
    wrong = copy.copy(op)

    def forward(*arrays: Any, **options: Any) -> tuple[np.ndarray, tuple]:
        out, saved = op.forward(*arrays, **options)
        return out, (np.ones((), np.asarray(out).dtype), *saved)

    def backward(g, scratch, *saved, **options):
        gradients = tuple(None if d is None else np.asarray(d * scratch) for d in op.backward(g, *saved, **options))
        scratch *= 2
        return gradients

    forward.__signature__ = inspect.signature(op.forward)  # type: ignore[attr-defined]
    wrong.forward, wrong.backward = forward, backward
    return Mutant("writes to what is saved", wrong)


def _doubling_when_frozen(backward: Callable) -> Callable:
    def wrong(g, *saved, needs, **options):
        gradients = backward(g, *saved, needs=needs, **options)
        return gradients if all(needs) else tuple(None if d is None else 2 * d for d in gradients)

    return wrong


# ---- faults of the formula --------------------------------------------------------------------------------------------------


def _faults_of_formula(backward: Callable) -> Iterator[tuple[str, Callable]]:
    """(fault, backward with it), one place of the source at a time; nothing where there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(backward))
    except (OSError, TypeError):
        return
    tree = ast.parse(source)
    if not isinstance(tree.body[0], ast.FunctionDef):
        return
    for number, place in enumerate(ast.walk(tree)):
        for fault, change in _changes_of(place):
            mutated = copy.deepcopy(tree)
            target = list(ast.walk(mutated))[number]
            if _is_arithmetic(mutated, target):
                change(target)
                text = ast.get_source_segment(source, place)
                yield (
                    f"line {getattr(place, 'lineno', 0)}: {' '.join(str(text).split())}: {fault}",
                    _compiled(mutated, backward),
                )
    if "sum_to" in backward.__code__.co_names:
        yield "one of the copies instead of their sum", _compiled(tree, backward, sum_to=_one_copy)


def _is_arithmetic(tree: ast.AST, target: ast.AST) -> bool:
    """Whether the place computes gradients rather than shapes, indices or conditions."""
    if target not in {n for f in tree.body for s in f.body for n in ast.walk(s)}:  # type: ignore[attr-defined]
        return False
    for node in ast.walk(tree):
        apart: list[Any] = []
        if isinstance(node, ast.Subscript):
            apart = [node.slice]
        elif isinstance(node, (ast.If, ast.IfExp)):
            apart = [node.test]
        elif isinstance(node, ast.Compare):
            apart = [node]
        elif isinstance(node, ast.Call):
            apart = [k.value for k in node.keywords if k.arg in ("axis", "axes", "shape", "dtype", "keepdims")]
            if getattr(node.func, "attr", getattr(node.func, "id", None)) in _OF_SHAPES:
                apart += node.args
        if any(target is inner for a in apart for inner in ast.walk(a)):
            return False
    return True


_OF_SHAPES = {
    *("reshape", "transpose", "swapaxes", "moveaxis", "sum", "mean", "ones", "zeros", "empty", "full"),
    *("range", "slice", "len", "count", "zip"),
}


def _changes_of(node: ast.AST) -> list[tuple[str, Callable[[Any], None]]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        return [
            ("right term dropped", lambda n: _become(n, n.left)),
            ("left term dropped", lambda n: _become(n, n.right)),
            ("sign turned", _turn_sign),
            ("right term times 1.001", lambda n: _scale(n, "right")),
        ]
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        return [
            ("right factor dropped", lambda n: _become(n, n.left)),
            ("left factor dropped", lambda n: _become(n, n.right)),
        ]
    if isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):
        changes: list[tuple[str, Callable[[Any], None]]] = [("left out", _leave_out)]
        if isinstance(node.op, (ast.Add, ast.Sub)):
            changes += [("sign turned", _turn_sign), ("times 1.001", lambda n: _scale(n, "value"))]
        return changes
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        return [("minus dropped", lambda n: _become(n, n.operand))]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "where":
        return [
            ("first arm for both", lambda n: _become(n, n.args[1])),
            ("second arm for both", lambda n: _become(n, n.args[2])),
        ]
    return []


def _become(node: ast.AST, other: ast.AST) -> None:
    node.__class__ = type(other)  # type: ignore[assignment]
    node.__dict__ = other.__dict__


def _turn_sign(node: Any) -> None:
    node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()


def _scale(node: ast.AST, field: str) -> None:
    setattr(node, field, ast.BinOp(getattr(node, field), ast.Mult(), ast.Constant(1.001)))


def _leave_out(node: ast.AST) -> None:
    _become(node, ast.copy_location(ast.Pass(), node))


def _one_copy(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """sum_to as one gets it wrong: the right shape, from the first of the copies."""
    g = g[(0,) * (g.ndim - len(shape))] if g.size else g.sum(axis=tuple(range(g.ndim - len(shape))))
    return (
        np.array(g[tuple(slice(0, 1) if n == 1 else slice(None) for n in shape)])
        if g.size
        else np.zeros(shape, g.dtype)
    )


def _compiled(tree: ast.Module, original: Callable, **names: Any) -> Callable:
    """The one function of the tree, among the names of the original's module and those given."""
    code = compile(ast.fix_missing_locations(tree), f"<mutant of {original.__name__}>", "exec")
    (body,) = (c for c in code.co_consts if isinstance(c, types.CodeType))
    mutant = types.FunctionType(body, {**original.__globals__, **names}, original.__name__, original.__defaults__)
    mutant.__kwdefaults__ = original.__kwdefaults__
    return mutant
