"""The tape: what was computed is recorded on the way forward and walked backward once, the chain rule applied at each step.

Op      a forward and a backward function on plain arrays, bound by name
Node    one recorded call of an Op: its parents, and the arrays that its backward will need (tape/node.py)
Tensor  an array that knows which Node made it
Step    one Node being differentiated (tape/step.py); `loss.backward_steps()` yields them, `loss.backward()` runs through them all
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from operator import attrgetter
from typing import Any, ClassVar

import numpy as np

from .errors import DTypeError, GraphError, ShapeError
from .tape.display import describe
from .tape.node import Node, Scope, Twin, freeze, is_wanted, last_uses, recorded, scope
from .tape.observer import Observer, observers
from .tape.operators import Operators, registry
from .tape.places import caller
from .tape.step import Step, Walk
from .tape.watch import mark
from .tape.why import Origin, inherited, note_detached, told, why_no_grad

_ndarray = np.ndarray  # looked up for every op
_recording: ContextVar[bool] = ContextVar("recording", default=True)
_paused: ContextVar[Origin | None] = ContextVar("paused", default=None)  # where no_grad was entered
_composing: ContextVar[bool] = ContextVar("composing", default=False)

# The maths of an op follows IEEE without NumPy's warnings: log(0) is -inf. Entering np.errstate costs as much as a small op;
# running in a context where it is already set costs a fortieth of that.
_quiet = Context()
_quiet.run(np.seterr, all="ignore")


def _watched(watching: tuple[Observer, ...], inside: Scope | None) -> Context:
    """The same where somebody watches: what an op runs on a tape of its own (checkpointing) is seen too, by its full names."""
    context = _quiet.copy()
    context.run(observers.set, watching)
    context.run(scope.set, inside)
    return context


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside, nothing is recorded: results have no gradient and cost no memory."""
    tokens = _recording.set(False), _paused.set(("made under no_grad(), which was entered", caller()))
    try:
        yield
    finally:
        _recording.reset(tokens[0])
        _paused.reset(tokens[1])


@contextmanager
def composed() -> Iterator[None]:
    """Inside, every fused op runs as its twin in unfused.py, built from small ops, so that each can be stepped through."""
    token = _composing.set(True)
    try:
        yield
    finally:
        _composing.reset(token)


class Op:
    """A differentiable function: `forward(*arrays, **options) -> (out, saved)`, `backward(g, *saved) -> one gradient each`.

    Positional arguments are the differentiable arrays, keywords everything else. `view=True` declares that the output may share
    memory with the input, or a gradient with g. A backward that takes `needs=` is told which inputs want a gradient and may
    return None for the others; a forward that does is told the same, and may save None for what only those would use. A backward
    that takes `reuse=` is told whether it may write its result into the saved arrays.
    """

    registry: ClassVar[dict[str, Callable[..., Tensor]]] = registry

    def __init__(
        self,
        forward: Callable[..., tuple[np.ndarray, tuple]],
        backward: Callable[..., tuple[np.ndarray | None, ...]],
        *,
        view: bool = False,
    ) -> None:
        self.name = forward.__name__.removesuffix("_forward")
        self.forward, self.backward, self.view = forward, backward, view
        self.composed: Callable[..., Tensor] | None = None
        self.takes = {"needs", "reuse"} & inspect.signature(backward).parameters.keys()
        self.draws = "rng" in inspect.signature(forward).parameters
        self.spares = "needs" in inspect.signature(forward).parameters
        self.__doc__ = f"{inspect.getdoc(forward)}\n\nbackward: {inspect.getdoc(backward)}"
        registry[self.name] = self

    def __repr__(self) -> str:
        return f"Op({self.name})"

    def argument(self, k: int) -> str:
        """What the forward calls its input k: `x`, `weight`, `arrays[2]`."""
        parameters = list(inspect.signature(self.forward).parameters.values())
        for i, parameter in enumerate(parameters):
            if parameter.kind is parameter.VAR_POSITIONAL and i <= k:
                return f"{parameter.name}[{k - i}]"
        return parameters[k].name

    def twin(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A decorator: `function` is this op once more, from small ops, which is what runs under `composed()`."""
        self.composed = function
        return function

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        """The forward on plain arrays; recorded on the tape where an input wants a gradient."""
        if self.composed is not None and _composing.get():
            return self.as_twin(*inputs, **options)
        arrays, parents, dtype = self._take(inputs)
        if any(map(_is_tensor, options.values())):  # refused where it would lose a gradient
            options = {key: np.asarray(value) if _is_tensor(value) else value for key, value in options.items()}
        record = parents is not None and _recording.get()
        kept = freeze(options) if record and self.draws and options.get("rng") is not None else options
        watching = observers.get()
        for observer in watching:
            observer.before_forward(self)
        needs = {"needs": tuple(map(is_wanted, parents))} if self.spares and parents is not None and record else {}
        context = _watched(watching, scope.get()) if watching else _quiet.copy()
        out, saved = context.run(self.forward, *arrays, **needs, **options)
        if type(out) is not _ndarray:
            out = np.asarray(out)
        node = None
        if record:
            if out.dtype is not dtype and out.dtype != dtype:
                raise self._widened(dtype, out.dtype)
            if not self.view or out.base is None:
                out.setflags(False)  # type: ignore[call-arg]  # write; by name it takes three times as long
            exposed = not all(map(Node.__instancecheck__, parents)) or any(map(is_wanted, map(_base_of, arrays)))
            marks = mark(saved, [*arrays, *options.values()]) if saved and (exposed or options) else ()
            node = Node(self, parents, arrays, kept, out, saved, marks)
        for observer in watching:
            observer.after_forward(self, inputs, arrays, options, out, node)
        result = Tensor.__new__(Tensor)  # skips the checks of Tensor(...)
        result.data, result.node, result.requires_grad = out, node, record
        result.grad = result.name = None
        result.origin = None if record else _paused.get() or inherited(inputs)
        return result

    def as_twin(self, *inputs: Any, **options: Any) -> Tensor:
        """The twin, and on the tape that what it records comes from this op."""
        token = scope.set((scope.get(), Twin(self, caller())))
        try:
            return self.composed(*inputs, **options)  # type: ignore[misc]
        finally:
            scope.reset(token)

    def _take(self, inputs: tuple) -> tuple[list, Any, np.dtype | None]:
        """Arrays of one float dtype; their places on the tape, None if none of them wants a gradient; and that dtype."""
        if all(map(_is_tensor, inputs)) and len(dtypes := set(map(_dtype_of, inputs))) == 1:
            arrays, (dtype,) = list(map(_data_of, inputs)), dtypes
        else:
            dtype = self._common_dtype(inputs)
            arrays = [None if x is None else _as_array(x.data if _is_tensor(x) else x, dtype) for x in inputs]
        parents = [x.node or (x if x.requires_grad else None) if _is_tensor(x) else None for x in inputs]
        return arrays, parents if any(map(is_wanted, parents)) else None, dtype

    def _widened(self, dtype: np.dtype | None, out: np.dtype) -> DTypeError:
        return DTypeError(
            f"{self.name}: forward turned {dtype} into {out}: use Python floats and math.sqrt for constants, "
            "a NumPy float64 scalar widens the whole graph"
        )

    def _common_dtype(self, inputs: tuple) -> np.dtype | None:
        """The one float dtype of the tensors in a call, which arrays and scalars adapt to; complex in a complex step."""
        dtypes = dict.fromkeys(map(_dtype_of, filter(_is_tensor, inputs)))
        found = [dtype for dtype in dtypes if dtype.kind in "fc"]
        if len(found) > 1:
            raise DTypeError(
                f"{self.name}: tensors of {found[0]} and of {found[1]} in one op: "
                f"convert one, for example with t.astype(np.{found[0]})"
            )
        return found[0] if found else None


class Tensor(Operators):
    """A NumPy array on the tape.

    `data` is a plain array, shared and not copied when an array is given; Python numbers and lists of floats become float32.
    `grad` is None, or a plain array of the same shape, filled on leaves by `backward()`. Only float32 and float64 can
    require a gradient.
    """

    __slots__ = ("__weakref__", "data", "grad", "name", "node", "origin", "requires_grad")

    def __init__(self, data: Any, requires_grad: bool = False, name: str | None = None) -> None:
        self.data: np.ndarray = _as_array(data, None)
        if requires_grad and self.data.dtype not in (np.float32, np.float64):
            raise DTypeError(f"a {self.data.dtype} tensor cannot require a gradient: use float32 or float64")
        self.grad: np.ndarray | None = None
        self.node: Node | None = None
        self.origin: Origin | None = None  # why it is off the tape, where that is known
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
        return describe(self)

    def _repr_html_(self) -> str:
        from .debug.html import tensor_html  # a notebook asks for it; the tape itself draws nothing

        return tensor_html(self)

    def item(self) -> float:
        """The one element as a Python number; any other size is an error."""
        if self.data.size != 1:
            raise ShapeError(
                f"item() and float() need one element, this tensor has shape {self.shape}: reduce it first"
            )
        return self.data.item()

    def detach(self) -> Tensor:
        """The same numbers off the tape (shared memory)."""
        detached = Tensor(self.data, name=self.name)
        detached.origin = ("detached", caller())
        note_detached(self.node or self, detached.origin)
        return detached

    def why_no_grad(self, loss: Tensor | None = None) -> str:
        """Why `.grad` is None, and what to do, in one sentence; of a leaf, say which `loss` should have reached it."""
        return why_no_grad(self, loss)

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

        The graph is freed as it is walked, unless `retain_graph`. With `into`, the gradient of each leaf is put into that
        dictionary, or added to what is there, as soon as it is complete, and `.grad` is left alone. An exception on the way
        leaves every `.grad` as it was.
        """
        for _ in self.backward_steps(gradient, retain_graph=retain_graph, into=into, reuse=not retain_graph):
            pass

    def backward_steps(
        self,
        gradient: Any = None,
        *,
        retain_graph: bool = False,
        into: dict[Tensor, np.ndarray] | None = None,
        reuse: bool = False,
    ) -> Iterator[Step]:
        """The loop behind `backward()`, one Step a node, the newest node first. Who stops before its end gets no `.grad`.

        dL/d(input) = dL/d(output) d(output)/d(input), summed over all uses of the input: a node's gradient is complete when
        every node made after it has been passed, which is why the order of recording, reversed, is the right one.
        With `reuse`, an op may write its result into the arrays it saved, which a Step would then show overwritten.
        """
        root = self.node or self
        nodes = recorded(root)
        gradients: dict[Any, np.ndarray] = {root: self._seed(gradient)}
        complete = {} if into is None else last_uses(nodes)  # an exception must leave every .grad as it was
        walk, watching = Walk(nodes, self.data), observers.get()
        for i, node in enumerate(reversed(nodes)):
            if node not in gradients:
                continue  # no gradient came back this far
            g = gradients.pop(node)
            step = Step(i, len(nodes), node, g, walk)  # made before the maths, from which a debugger goes up to it
            if node.hooks:
                g = step.grad_out = node.through_hooks(g)
            for observer in watching:
                observer.before_backward(step)
            context = _watched(watching, node.scope) if watching else _quiet.copy()
            asked = node.asked(reuse) if node.op.takes else {}
            step.computed = context.run(node.op.backward, g, *node.spend(reuse), **asked)
            step.gradients = list(step.computed)
            for observer in watching:
                observer.after_backward(step)
            yield step
            if len(step.gradients) != len(node.parents):
                raise step.wrong_count()
            for k, (parent, dx) in enumerate(zip(node.parents, step.gradients, strict=True)):
                if parent is None or dx is None:
                    continue
                if dx.shape != parent.shape or dx.dtype != g.dtype:  # a graph has one dtype
                    raise step.wrong_gradient(k)
                if type(parent) is not Node and (node.op.view or dx is not step.computed[k]):
                    dx = np.array(dx)  # may be somebody else's array, and a leaf keeps what it is given
                gradients[parent] = np.asarray(gradients[parent] + dx if parent in gradients else dx)
            if not retain_graph:
                node.saved = None
            for leaf in complete.get(node, ()):
                if leaf in gradients:
                    _deliver(leaf, gradients.pop(leaf), into)
        for leaf, dx in gradients.items():
            _deliver(leaf, dx, into)

    def _seed(self, gradient: Any) -> np.ndarray:
        if not self.requires_grad:
            reason = (
                f"it was {told(self.origin)}: make it outside of that"
                if self.origin is not None
                else "it does not require a gradient: make it, or what it is made from, with requires_grad=True"
            )
            raise GraphError(f"backward from a tensor {self.shape} that is not on the tape: {reason}")
        if gradient is None:
            if self.data.size != 1:
                raise GraphError(
                    f"backward from a tensor of shape {self.shape}: reduce it to a scalar with .sum() or .mean(), "
                    "or pass gradient= of that shape"
                )
            return np.array(1, self.data.dtype, ndmin=self.data.ndim)
        if type(gradient) is not _ndarray or gradient.dtype != self.data.dtype:
            gradient = _as_array(gradient, self.data.dtype)
        if gradient.shape != self.data.shape:
            raise ShapeError(f"backward: gradient is {gradient.shape}, the tensor is {self.shape}: they must be equal")
        return gradient.copy() if self.node is None else gradient  # a leaf keeps what it is given


# Asked of all inputs of an op at once, which is one line in a debugger.
_is_tensor = Tensor.__instancecheck__
_data_of, _dtype_of, _base_of = map(attrgetter, ("data", "data.dtype", "base"))


def _deliver(leaf: Tensor, dx: np.ndarray, into: dict[Tensor, np.ndarray] | None) -> None:
    """Hand the complete gradient of a leaf over."""
    if into is not None:
        into[leaf] = into[leaf] + dx if leaf in into else dx
    elif leaf.grad is None:
        leaf.grad = dx
    else:
        leaf.grad += dx


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
