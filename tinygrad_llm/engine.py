"""The tape: what was computed is recorded on the way forward and walked backward once, the chain rule applied at each step.

Op      a forward and a backward function on plain arrays, bound by name
Node    one recorded call of an Op: its parents, and the arrays that its backward will need
Tensor  an array that knows which Node made it
Step    one Node being differentiated; `loss.backward_steps()` yields them, `loss.backward()` runs through them all
"""

from __future__ import annotations

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any, ClassVar

import numpy as np

from .display import describe
from .errors import DTypeError, GraphError, ShapeError
from .operators import Operators, registry
from .watch import fingerprint, mark

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_composing: ContextVar[bool] = ContextVar("composing", default=False)

# The maths of an op follows IEEE without NumPy's warnings: log(0) is -inf. Entering np.errstate costs as much as a small op;
# running in a context where it is already set costs a fortieth of that.
_quiet = Context()
_quiet.run(np.seterr, all="ignore")

_PACKAGE = os.path.dirname(__file__) + os.sep
_serial = itertools.count()


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside, nothing is recorded: results have no gradient and cost no memory."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def composed() -> Iterator[None]:
    """Inside, every fused op runs as its twin in composed.py, built from small ops, so that each can be stepped through."""
    token = _composing.set(True)
    try:
        yield
    finally:
        _composing.reset(token)


class Op:
    """A differentiable function: `forward(*arrays, **options) -> (out, saved)`, `backward(g, *saved) -> one gradient each`.

    Positional arguments are the differentiable arrays, keywords everything else. `view=True` declares that the output may share
    memory with the input, or a gradient with g. `composed` is the same function built from small ops. A backward that takes
    `needs=` is told which inputs want a gradient and may return None for the others; one that takes `reuse=` is told whether it
    may write its result into the saved arrays.
    """

    registry: ClassVar[dict[str, Callable[..., Tensor]]] = registry

    def __init__(
        self,
        forward: Callable[..., tuple[np.ndarray, tuple]],
        backward: Callable[..., tuple[np.ndarray | None, ...]],
        *,
        composed: Callable[..., Tensor] | None = None,
        view: bool = False,
    ) -> None:
        self.name = forward.__name__.removesuffix("_forward")
        self.forward, self.backward, self.composed, self.view = forward, backward, composed, view
        self.takes = {"needs", "reuse"} & inspect.signature(backward).parameters.keys()
        self.__doc__ = f"{forward.__doc__}\n\nbackward: {backward.__doc__}"
        registry[self.name] = self

    def __repr__(self) -> str:
        return f"Op({self.name})"

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        if self.composed is not None and _composing.get():
            return self.composed(*inputs, **options)
        dtype: np.dtype | None = None
        arrays: list[Any] = []
        parents: list[Node | Tensor | None] = []
        wanted = adapt = False
        for x in inputs:
            array, parent = x, None  # type: Any, Node | Tensor | None
            if isinstance(x, Tensor):
                array, parent = x.data, x.node
                if parent is None and x.requires_grad:
                    parent = x
                if array.dtype is not dtype:
                    dtype = self._join(dtype, array.dtype)
                wanted = wanted or parent is not None
            adapt = adapt or array is x or array.dtype is not dtype
            arrays.append(array)
            parents.append(parent)
        if adapt:
            arrays = [None if array is None else _as_array(array, dtype) for array in arrays]
        for key, value in options.items():
            if isinstance(value, Tensor):
                options[key] = np.asarray(value)  # refused where it would lose a gradient
        out, saved = _quiet.copy().run(self.forward, *arrays, **options)
        if type(out) is not np.ndarray:
            out = np.asarray(out)
        if not wanted or not _recording.get():
            return _tensor(out, None)
        if out.dtype is not dtype and out.dtype != dtype:
            raise DTypeError(
                f"{self.name}: forward turned {dtype} into {out.dtype}: use Python floats and math.sqrt for constants, "
                "a NumPy float64 scalar widens the whole graph"
            )
        if not self.view or out.base is None:
            out.flags.writeable = False
        return _tensor(out, Node(self, parents, saved, [*arrays, *options.values()] if saved else (), out))

    def _join(self, found: np.dtype | None, dtype: np.dtype) -> np.dtype | None:
        """The one float dtype of the tensors in a call, which arrays and scalars adapt to; complex in a complex step."""
        if found is not None and dtype != found and dtype.kind in "fc":
            raise DTypeError(
                f"{self.name}: tensors of {found} and of {dtype} in one op: "
                f"convert one, for example with t.astype(np.{found})"
            )
        return dtype if dtype.kind in "fc" else found


class Node:
    """One recorded call. It never points at its own output, so dropping the output frees the graph."""

    __slots__ = ("__weakref__", "code", "dtype", "instruction", "marks", "op", "parents", "saved", "serial", "shape")

    def __init__(self, op: Op, parents: list, saved: tuple, given: Sequence[Any], out: np.ndarray) -> None:
        self.op = op
        self.parents = parents  # a Node, a leaf Tensor, or None where no gradient is wanted
        self.saved: tuple | None = saved
        self.shape, self.dtype = out.shape, out.dtype
        self.serial = next(_serial)  # parents are always recorded before their children
        self.marks = mark(saved, given)
        frame = sys._getframe(2)
        while frame.f_code.co_filename.startswith(_PACKAGE) and frame.f_back is not None:
            frame = frame.f_back
        self.code, self.instruction = frame.f_code, frame.f_lasti

    @property
    def site(self) -> str:
        """Where the user's code made this node: `file.py:12 in train`."""
        lines = [line for start, end, line in self.code.co_lines() if start <= self.instruction < end]
        return f"{self.code.co_filename}:{lines[0] if lines else '?'} in {self.code.co_name}"

    def __repr__(self) -> str:
        return f"Node({self.op.name} -> {self.shape} {self.dtype}, {self.site})"

    def spend(self) -> tuple:
        """The saved arrays, proven unchanged since the forward."""
        if self.saved is None:
            raise GraphError(
                f"backward has already gone through {self.op.name} (made at {self.site}) and freed what it saved: "
                "run the forward again, or call the first backward with retain_graph=True"
            )
        for i, before in self.marks:
            if fingerprint(self.saved[i]) != before:
                name = list(inspect.signature(self.op.backward).parameters)[1:][i]
                raise GraphError(
                    f"{self.op.name} (made at {self.site}) saved the array {name} {self.saved[i].shape} for its backward, and it "
                    "was written to since: call backward() first, or write to a copy"
                )
        return self.saved


class Step:
    """One node of a backward pass, before its gradients are passed on to its parents."""

    __slots__ = ("gradients", "i", "n", "node", "output_gradient")

    def __init__(self, i: int, n: int, node: Node, output_gradient: np.ndarray, gradients: list) -> None:
        self.i, self.n = i, n  # step i of n, from 0
        self.node = node
        self.output_gradient = output_gradient  # g, dL/d(output of the node)
        self.gradients = gradients  # dL/d(input), one for each parent; may be replaced

    def __repr__(self) -> str:
        shapes = ", ".join("None" if d is None else str(d.shape) for d in self.gradients)
        return f"Step {self.i + 1}/{self.n}: {self.node.op.name}, g {self.output_gradient.shape} -> {shapes}, {self.node.site}"


class Tensor(Operators):
    """A NumPy array on the tape.

    `data` is a plain array, shared and not copied when an array is given; Python numbers and lists of floats become float32.
    `grad` is None, or a plain array of the same shape, filled on leaves by `backward()`. Only float32 and float64 can
    require a gradient.
    """

    __slots__ = ("__weakref__", "data", "grad", "name", "node", "requires_grad")

    def __init__(self, data: Any, requires_grad: bool = False, name: str | None = None) -> None:
        self.data: np.ndarray = _as_array(data, None)
        if requires_grad and self.data.dtype not in (np.float32, np.float64):
            raise DTypeError(f"a {self.data.dtype} tensor cannot require a gradient: use float32 or float64")
        self.grad: np.ndarray | None = None
        self.node: Node | None = None
        self.requires_grad = requires_grad
        self.name = name

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return self.item()

    def __repr__(self) -> str:
        return describe(self.data, self.name, self.node.op.name if self.node else None, self.requires_grad)

    def item(self) -> float:
        """The one element as a Python number; any other size is an error."""
        if self.data.size != 1:
            raise ShapeError(
                f"item() and float() need one element, this tensor has shape {self.shape}: reduce it first"
            )
        return self.data.item()

    def detach(self) -> Tensor:
        """The same numbers off the tape (shared memory)."""
        return Tensor(self.data, name=self.name)

    def astype(self, dtype: Any) -> Tensor:
        """A leaf of another dtype, off the tape; a graph has one float dtype."""
        if self.node is not None:
            raise GraphError(
                "astype of a tensor on the tape would mix dtypes in one graph: convert the inputs, or detach() first"
            )
        return Tensor(self.data.astype(dtype), requires_grad=self.requires_grad, name=self.name)

    def backward(
        self, gradient: Any = None, *, retain_graph: bool = False, into: dict[Tensor, np.ndarray] | None = None
    ) -> None:
        """Add dL/d(leaf) to `.grad` of every leaf that this tensor was made from; L is this scalar, or sum(gradient * this).

        The graph is freed as it is walked, unless `retain_graph`. With `into`, the gradients of the leaves are put into that
        dictionary and `.grad` is left alone. An exception on the way leaves every `.grad` as it was.
        """
        for _ in self.backward_steps(gradient, retain_graph=retain_graph, into=into):
            pass

    def backward_steps(
        self, gradient: Any = None, *, retain_graph: bool = False, into: dict[Tensor, np.ndarray] | None = None
    ) -> Iterator[Step]:
        """The loop behind `backward()`, one Step a node, the newest node first.

        dL/d(input) = dL/d(output) d(output)/d(input), summed over all uses of the input: a node's gradient is complete when
        every node made after it has been passed, which is why the order of recording, reversed, is the right one.
        """
        root = self.node or self
        gradients: dict[Any, np.ndarray] = {root: self._seed(gradient)}
        borrowed = {root}  # whose gradient may still be somebody else's array
        nodes = _reachable(root)
        n = len(nodes)
        for i in range(n):
            node = nodes.pop()
            g = gradients.pop(node, None)
            if g is None:
                continue  # no gradient came back this far
            op = node.op
            options: dict[str, Any] = {}
            if "needs" in op.takes:
                options["needs"] = tuple(parent is not None for parent in node.parents)
            if "reuse" in op.takes:
                options["reuse"] = not retain_graph
            computed = _quiet.copy().run(op.backward, g, *node.spend(), **options)
            if options.get("reuse"):
                node.saved = None  # written over: a walk that is abandoned here cannot be begun again
            step = Step(i, n, node, g, list(computed))
            yield step
            if len(step.gradients) != len(node.parents):
                raise _wrong_count(step)
            for k, parent in enumerate(node.parents):
                dx = step.gradients[k]
                if parent is None or dx is None:
                    continue
                if dx.shape != parent.shape or dx.dtype != parent.dtype:
                    raise _wrong_gradient(step, k)
                if parent in gradients:
                    gradients[parent] = np.asarray(gradients[parent] + dx)
                    borrowed.discard(parent)
                else:
                    gradients[parent] = np.asarray(dx)
                    if op.view or dx is not computed[k]:
                        borrowed.add(parent)
            if not retain_graph:
                node.saved = None
        for leaf, dx in gradients.items():
            if leaf in borrowed:
                dx = dx.copy()
            if into is not None:
                into[leaf] = into[leaf] + dx if leaf in into else dx
            elif leaf.grad is None:
                leaf.grad = dx
            else:
                leaf.grad += dx

    def _seed(self, gradient: Any) -> np.ndarray:
        if not self.requires_grad:
            raise GraphError(
                f"backward from a tensor {self.shape} that is not on the tape: it was made under no_grad, detached, "
                "or from inputs of which none requires a gradient"
            )
        if gradient is None:
            if self.data.size != 1:
                raise GraphError(
                    f"backward from a tensor of shape {self.shape}: reduce it to a scalar with .sum() or .mean(), "
                    "or pass gradient= of that shape"
                )
            return np.ones_like(self.data)
        gradient = _as_array(gradient, self.data.dtype)
        if gradient.shape != self.shape:
            raise ShapeError(f"backward: gradient is {gradient.shape}, the tensor is {self.shape}: they must be equal")
        return gradient


def _reachable(root: Any) -> list[Node]:
    """Every node that `root` was made from, in the order in which they were recorded."""
    nodes = {root} if isinstance(root, Node) else set()
    stack = list(nodes)
    while stack:
        for parent in stack.pop().parents:
            if isinstance(parent, Node) and parent not in nodes:
                nodes.add(parent)
                stack.append(parent)
    return sorted(nodes, key=_by_serial)


def _by_serial(node: Node) -> int:
    return node.serial


def _wrong_count(step: Step) -> ShapeError:
    node = step.node
    return ShapeError(
        f"{node.op.name}_backward returned {len(step.gradients)} gradients for {len(node.parents)} inputs "
        f"(made at {node.site}): return one for each, None where there is none"
    )


def _wrong_gradient(step: Step, k: int) -> ShapeError | DTypeError:
    node, dx, parent = step.node, step.gradients[k], step.node.parents[k]
    kind = ShapeError if dx.shape != parent.shape else DTypeError
    return kind(
        f"{node.op.name}_backward: the gradient of input {k} is {dx.shape} {dx.dtype}, the input is {parent.shape} "
        f"{parent.dtype} (made at {node.site}): sum over broadcast axes and keep the dtype"
    )


def _tensor(out: np.ndarray, node: Node | None) -> Tensor:
    """The result of an op; skips the checks of Tensor(...)."""
    tensor = Tensor.__new__(Tensor)
    tensor.data, tensor.grad, tensor.node, tensor.name = out, None, node, None
    tensor.requires_grad = node is not None
    return tensor


def _as_array(x: Any, dtype: np.dtype | None) -> np.ndarray:
    """`x` as an array: of the given float dtype, else NumPy arrays as they are and Python floats as float32."""
    if isinstance(x, Tensor):
        raise GraphError("a tensor where an array is needed: pass t.data, or use the tensor itself")
    array = np.asarray(x)
    if array.dtype.kind not in "fiubc":
        raise DTypeError(f"{type(x).__name__} {str(x)[:60]!r} is not an array of numbers: pass numbers of one shape")
    if dtype is None:
        dtype = (
            np.dtype(np.float32)
            if array.dtype == np.float64 and not isinstance(x, (np.ndarray, np.generic))
            else array.dtype
        )
    return array if array.dtype == dtype else array.astype(dtype)
