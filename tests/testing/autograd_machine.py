"""Random graphs against a tape so small that it can be seen to be right.

    from autograd_machine import AutogradMachine
    TestAutograd = AutogradMachine.TestCase              # in a test file; pytest runs it

`Scalar` is the oracle: one node for each number, Python floats, the chain rule and nothing else. An object array of Scalars
goes through NumPy's own broadcasting, indexing and reductions, so the two tapes share not one line.
`AutogradMachine` grows one graph in both: values that are used again and again, diamonds, views, constants, detached and
unrecorded parts, index assignment, and several backward passes with the graph kept or freed. Hypothesis chooses the rules and
shrinks a failure to the shortest program that shows it.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, rule

from tinygrad_llm import Tensor, no_grad, ops
from tinygrad_llm.errors import GraphError
from tinygrad_llm.testing import strategies


class Scalar:
    """One number, and from which numbers it was made: pairs (input, d self / d input)."""

    made = itertools.count()

    def __init__(self, value: float, inputs: Iterable[tuple[Scalar, float]] = ()) -> None:
        self.value, self.inputs, self.serial = float(value), tuple(inputs), next(Scalar.made)

    def __add__(self, other: Scalar) -> Scalar:
        return Scalar(self.value + other.value, [(self, 1.0), (other, 1.0)])

    def __sub__(self, other: Scalar) -> Scalar:
        return Scalar(self.value - other.value, [(self, 1.0), (other, -1.0)])

    def __mul__(self, other: Scalar) -> Scalar:
        return Scalar(self.value * other.value, [(self, other.value), (other, self.value)])

    def __truediv__(self, other: Scalar) -> Scalar:
        quotient = self.value / other.value
        return Scalar(quotient, [(self, 1 / other.value), (other, -quotient / other.value)])

    def __neg__(self) -> Scalar:
        return Scalar(-self.value, [(self, -1.0)])

    def exp(self) -> Scalar:
        return Scalar(math.exp(self.value), [(self, math.exp(self.value))])

    def tanh(self) -> Scalar:
        return Scalar(math.tanh(self.value), [(self, 1 / math.cosh(self.value) ** 2)])

    def relu(self) -> Scalar:
        return Scalar(self.value, [(self, 1.0)]) if self.value > 0 else Scalar(0.0, [(self, 0.0)])


def largest(scalars: Iterable[Scalar]) -> Scalar:
    """The maximum; those that tie for it share the gradient equally."""
    scalars = list(scalars)
    value = max(s.value for s in scalars)
    winners = [s for s in scalars if s.value == value]
    return Scalar(value, [(s, 1 / len(winners)) for s in winners])


def gradients(roots: Iterable[Scalar], seeds: Iterable[float]) -> dict[Scalar, tuple[float, float]]:
    """d(Σ seed root) / d(each Scalar behind the roots), and beside it the sum of |terms|, by which rounding is measured."""
    found: dict[Scalar, tuple[float, float]] = {}
    waiting: list[tuple[int, Scalar]] = []

    def add(scalar: Scalar, term: float, size: float) -> None:
        if scalar not in found:
            heapq.heappush(waiting, (-scalar.serial, scalar))
        gradient, total = found.get(scalar, (0.0, 0.0))
        found[scalar] = gradient + term, total + size

    for root, seed in zip(roots, seeds, strict=True):
        add(root, seed, abs(seed))
    while waiting:  # the newest first: everything that was made from it has been passed
        _, scalar = heapq.heappop(waiting)
        gradient, size = found[scalar]
        for source, slope in scalar.inputs:
            add(source, gradient * slope, size * abs(slope))
    return found


def _objects(values: Any) -> np.ndarray:
    """An object array: of the Scalars given, or of new ones where numbers are given."""
    array = np.asarray(values)
    out = np.empty(array.shape, object)
    for i in np.ndindex(array.shape):
        out[i] = array[i] if isinstance(array[i], Scalar) else Scalar(array[i])
    return out


def _reduce(function: Callable[[list[Scalar]], Scalar], x: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    """`function` over the axes of an object array, in the way of np.sum."""
    axes = range(x.ndim) if axis is None else [a % x.ndim for a in np.atleast_1d(axis).astype(int)]
    out = np.empty([1 if a in axes else n for a, n in enumerate(x.shape)], object)
    for i in np.ndindex(out.shape):
        block: Any = (..., *(slice(None) if a in axes else k for a, k in enumerate(i)))
        out[i] = function(list(x[block].flat))
    return out if keepdims else out.squeeze(tuple(axes))


def _total(scalars: list[Scalar]) -> Scalar:
    return functools.reduce(operator.add, scalars)


def _average(scalars: list[Scalar]) -> Scalar:
    return _total(scalars) * Scalar(1 / len(scalars))


def _set_at(x: np.ndarray, value: np.ndarray, index: Any) -> np.ndarray:
    out = x.copy()
    out[index] = value if value.ndim else value.item()
    return out


# name -> the function of Tensors, the same function of object arrays
_UNARY: dict[str, tuple[Callable, Callable]] = {
    "negative": (np.negative, np.negative),
    "exp": (np.exp, np.exp),
    "tanh": (np.tanh, np.tanh),
    "relu": (ops.relu, np.vectorize(Scalar.relu, otypes=[object])),
    "square": (lambda x: x * x, lambda x: x * x),
}
_VIEWS: dict[str, Callable] = {
    "ravel": lambda x: x.reshape(-1),
    "column": lambda x: x.reshape(*x.shape, 1),
    "new axis": lambda x: x[None],
    "transpose": np.transpose,
    "backwards": lambda x: x[..., None][::-1],
    "repeat": lambda x: np.broadcast_to(x, (2, *x.shape)),
}
_BINARY: dict[str, tuple[Callable, Callable]] = {
    "add": (operator.add, operator.add),
    "subtract": (operator.sub, operator.sub),
    "multiply": (operator.mul, operator.mul),
    "divide": (operator.truediv, operator.truediv),
    "maximum": (np.maximum, np.vectorize(lambda x, y: largest([x, y]), otypes=[object])),
}
_REDUCTIONS: dict[str, tuple[Callable, Callable]] = {
    "sum": (np.sum, _total),
    "mean": (np.mean, _average),
    "max": (np.max, largest),
}


_mostly = st.sampled_from([True, True, True, False])


class Value:
    """The same array on both tapes."""

    made = itertools.count()

    def __init__(self, tensor: Tensor, scalars: np.ndarray, sources: tuple[Value, ...] = ()) -> None:
        self.tensor, self.scalars, self.sources = tensor, scalars, sources
        self.serial = next(Value.made)
        self.written = tensor.data.copy()  # what the tensor must hold for ever
        self.spent = False  # whether a backward has freed its node
        self.gradient: np.ndarray | None = None  # what `.grad` must hold, for a leaf
        self.rounding: np.ndarray | float = 0.0  # and how large the terms are that it is the sum of

    def __repr__(self) -> str:
        return repr(self.tensor)

    def history(self) -> list[Value]:
        """Every value that this one was made from with a gradient, itself included, in the order of the tape."""
        found, stack = {self}, [self]
        while stack:
            for source in stack.pop().sources:
                if source.tensor.requires_grad and source not in found:
                    found.add(source)
                    stack.append(source)
        return sorted(found, key=lambda value: value.serial)


class AutogradMachine(RuleBasedStateMachine):
    """One graph on two tapes. Results of more than 48 elements, or outside 1e-6 ... 1e3, are dropped: rounding stays small."""

    values: Bundle[Value] = Bundle("values")

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Value] = []

    def keep(self, tensor: Tensor, scalars: np.ndarray, sources: tuple[Value, ...]) -> Value:
        _demand(tensor.shape == scalars.shape, f"{tensor.shape} on the tape, {scalars.shape} in NumPy")
        expected = np.array([s.value for s in scalars.flat]).reshape(scalars.shape)
        np.testing.assert_allclose(tensor.data, expected, rtol=1e-12, atol=1e-10)
        for scalar, x in zip(scalars.flat, tensor.data.flat, strict=True):
            scalar.value = float(x)  # the same rounding from here on, so that ties are ties on both
        value = Value(tensor, scalars, sources)
        self.made.append(value)
        return value

    def apply(self, on_tensors: Callable, on_scalars: Callable, *sources: Value) -> Any:
        tensor = on_tensors(*(value.tensor for value in sources))
        size = np.abs(tensor.data)
        if tensor.size > 48 or not np.all((size == 0) | (size > 1e-6) & (size < 1e3)) or tensor.size == 0:
            return multiple()
        recorded = any(value.tensor.requires_grad for value in sources)
        _demand(tensor.requires_grad == recorded, f"requires_grad is {tensor.requires_grad}, it must be {recorded}")
        return self.keep(tensor, _objects(on_scalars(*(value.scalars for value in sources))), sources)

    def total(self, x: Value) -> Value:
        return self.apply(np.sum, lambda s: _reduce(_total, s, None, False), x)

    leaves = strategies.arrays(
        strategies.shapes(max_dims=2, max_side=3), regime=("generic", "spaced", "constant"), layout=strategies.LAYOUTS
    )

    @initialize(target=values, array=leaves)
    def begin(self, array: np.ndarray) -> Any:
        return multiple(self.leaf(array, True), self.leaf(1 - array, True))

    @rule(target=values, array=leaves, requires_grad=_mostly)
    def make_leaf(self, array: np.ndarray, requires_grad: bool) -> Value:
        return self.leaf(array, requires_grad)

    def leaf(self, array: np.ndarray, requires_grad: bool) -> Value:
        return self.keep(Tensor(array, requires_grad=requires_grad), _objects(array), ())

    @rule(target=values, x=values, name=st.sampled_from(sorted(_UNARY)))
    def unary(self, x: Value, name: str) -> Any:
        if name == "tanh" and np.abs(x.tensor.data).max() > 4:
            return multiple()  # flat there: 1 - tanh² is all rounding
        return self.apply(*_UNARY[name], x)

    @rule(target=values, x=values, name=st.sampled_from(sorted(_VIEWS)))
    def view(self, x: Value, name: str) -> Any:
        return self.apply(_VIEWS[name], _VIEWS[name], x)

    @rule(target=values, x=values, y=values, name=st.sampled_from(sorted(_BINARY)))
    def binary(self, x: Value, y: Value, name: str) -> Any:
        if not _broadcast(x.tensor.shape, y.tensor.shape):
            y = self.total(y)
        return self.apply(*_BINARY[name], x, y) if isinstance(y, Value) else y

    @rule(target=values, x=values, number=st.sampled_from([2.0, -0.5]), name=st.sampled_from(sorted(_BINARY)))
    def with_a_number(self, x: Value, number: float, name: str) -> Any:
        on_tensors, on_scalars = _BINARY[name]
        constant = _objects(number)
        if number < 0:
            return self.apply(lambda t: on_tensors(t, number), lambda s: on_scalars(s, constant), x)
        return self.apply(lambda t: on_tensors(number, t), lambda s: on_scalars(constant, s), x)

    @rule(target=values, x=values, y=values)
    def matmul(self, x: Value, y: Value) -> Any:
        a, b = x.tensor.shape, y.tensor.shape
        if a and b and a[-1] == b[-min(2, len(b))] and _broadcast(a[:-2], b[:-2]):
            return self.apply(operator.matmul, operator.matmul, x, y)
        x, y = (self.apply(f, f, value) for f, value in ((_as_column, x), (_as_row, y)))
        return self.apply(operator.matmul, operator.matmul, x, y)

    @rule(target=values, x=values, name=st.sampled_from(sorted(_REDUCTIONS)), keepdims=st.booleans(), data=st.data())
    def reduce(self, x: Value, name: str, keepdims: bool, data: st.DataObject) -> Any:
        on_tensors, on_scalars = _REDUCTIONS[name]
        axis = data.draw(strategies.axes(x.tensor), "axis")
        return self.apply(
            lambda t: on_tensors(t, axis=axis, keepdims=keepdims), lambda s: _reduce(on_scalars, s, axis, keepdims), x
        )

    @rule(target=values, x=values, y=values, function=st.sampled_from([np.stack, np.concatenate]))
    def join(self, x: Value, y: Value, function: Callable) -> Any:
        if x.tensor.shape != y.tensor.shape:
            y = x
        if x.tensor.ndim == 0:
            function = np.stack
        return self.apply(lambda *t: function([*t, t[0]]), lambda *s: function([*s, s[0]]), x, y)

    @rule(target=values, x=values, data=st.data())
    def get(self, x: Value, data: st.DataObject) -> Any:
        index = data.draw(strategies.indices(x.tensor), "index")
        return self.apply(lambda t: t[index], lambda s: s[index], x)

    @rule(target=values, x=values, y=values, data=st.data())
    def set(self, x: Value, y: Value, data: st.DataObject) -> Any:
        index = data.draw(strategies.indices(x.tensor, repeats=False), "index")
        place = x.tensor.data[index].shape
        if _broadcast(y.tensor.shape, place) != place:
            y = self.total(y)
        if not isinstance(y, Value):
            return y
        return self.apply(lambda t, u: t.at(index).set(u), lambda s, u: _set_at(s, u, index), x, y)

    @rule(target=values, x=values, detach=st.booleans())
    def off_the_tape(self, x: Value, detach: bool) -> Value:
        if detach:
            tensor = x.tensor.detach()
        else:
            with no_grad():
                tensor = x.tensor + 0.0
        _demand(not tensor.requires_grad, "a tensor detached or made under no_grad requires a gradient")
        return self.keep(tensor, _objects(x.tensor.data), ())

    @rule()
    def zero_grad(self) -> None:
        for value in self.made:
            value.tensor.grad = value.gradient = None
            value.rounding = 0.0

    @rule(root=values, others=st.integers(0, 4), retain_graph=_mostly, seed=st.integers(0, 99))
    def backward(self, root: Value, others: int, retain_graph: bool, seed: int) -> None:
        self.differentiate(self.sum_with(root, others), retain_graph, seed, aside=False)

    @rule(root=values, others=st.integers(0, 4), retain_graph=_mostly, seed=st.integers(0, 99))
    def backward_into(self, root: Value, others: int, retain_graph: bool, seed: int) -> None:
        self.differentiate(self.sum_with(root, others), retain_graph, seed, aside=True)

    def sum_with(self, root: Value, others: int) -> Value:
        """The sum of all elements of a value and of the newest others; the value itself if there are to be none."""
        for newest in self.made[len(self.made) - others :]:
            parts = [self.total(root), self.total(newest)]
            if all(isinstance(part, Value) for part in parts):
                joined = self.apply(operator.add, operator.add, *parts)
                root = joined if isinstance(joined, Value) else root
        return root

    def differentiate(self, root: Value, retain_graph: bool, seed: int, aside: bool) -> None:
        """Backward from the root, and compare every leaf; `aside`: into a dictionary instead of `.grad`."""
        g = np.random.default_rng(seed).standard_normal(root.tensor.shape)
        given = g.copy()
        into: dict[Tensor, np.ndarray] | None = {} if aside else None
        history = root.history()
        possible = root.tensor.requires_grad
        for value in reversed(history):  # the walk frees as it goes, and stops where an earlier one has been
            possible = possible and not value.spent
            if not possible:
                break
            value.spent = not retain_graph and value.tensor.node is not None
        try:
            root.tensor.backward(g, retain_graph=retain_graph, into=into)
        except GraphError:
            _demand(not possible, "backward refused a graph that is whole")
            into = {} if aside else None
        else:
            _demand(possible, "backward went through a graph that was freed, or never recorded")
            self.expect(root, history, g, into)
        _demand(np.array_equal(g, given), "backward wrote into the gradient it was given")
        self.check_leaves()
        grads = (value.tensor.grad for value in self.made if value.tensor.grad is not None)
        for a, b in itertools.combinations([g, *grads, *(into or {}).values()], 2):
            _demand(
                not np.may_share_memory(a, b), "two gradients share memory, or one with the array given to backward"
            )

    def expect(self, root: Value, history: list[Value], g: np.ndarray, into: dict[Tensor, np.ndarray] | None) -> None:
        """Add this pass to what the leaves must hold, or compare it with `into`."""
        found = gradients(root.scalars.flat, g.flat)
        for leaf in (value for value in history if value.tensor.node is None):
            pairs = np.array([found.get(s, (0.0, 0.0)) for s in leaf.scalars.flat]).reshape(*leaf.scalars.shape, 2)
            gradient, rounding = pairs[..., 0], pairs[..., 1]
            if into is None:
                leaf.gradient = gradient if leaf.gradient is None else leaf.gradient + gradient
                leaf.rounding = leaf.rounding + rounding
            else:
                _compare(into.get(leaf.tensor), gradient, rounding)
        leaves = {value.tensor for value in history}
        _demand(
            leaves.issuperset(into or ()), "backward returned gradients of tensors that are not leaves of this graph"
        )

    def check_leaves(self) -> None:
        for value in self.made:
            _demand(np.array_equal(value.tensor.data, value.written), "the data of a tensor was rewritten")
            if value.gradient is None:
                _demand(value.tensor.grad is None, "a tensor that is no leaf of the graph has a gradient")
            else:
                _compare(value.tensor.grad, value.gradient, value.rounding)


def _demand(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _compare(gradient: np.ndarray | None, expected: np.ndarray, rounding: Any) -> None:
    if type(gradient) is not np.ndarray:
        raise AssertionError(f"the gradient is {type(gradient).__name__}, not an array")
    _demand(gradient.shape == expected.shape, f"the gradient is {gradient.shape}, the leaf is {expected.shape}")
    if not np.all(np.abs(gradient - expected) <= 1e-10 * rounding):
        raise AssertionError(f"the gradient is\n{gradient}\nthe scalar tape has\n{expected}")


def _as_column(x: Any) -> Any:
    return x.reshape(-1, 1)


def _as_row(x: Any) -> Any:
    return x.reshape(1, -1)


def _broadcast(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that two shapes broadcast to, None where they do not."""
    try:
        return np.broadcast_shapes(x, y)
    except ValueError:
        return None
