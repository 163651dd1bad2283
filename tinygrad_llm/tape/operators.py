"""What a Tensor can do: Python's operators, its methods and NumPy's functions all find their op in one registry.

`a + b`, `np.add(a, b)` and `tg.ops.add(a, b)` are the same call. The ops carry NumPy's names, so a NumPy function finds its
op by its own name, and one that has no op is refused instead of silently leaving the tape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphError

if TYPE_CHECKING:
    from ..engine import Tensor

# name -> Op; every Op(...) in ops/ enters itself, Op.registry is this dict
registry: dict[str, Callable[..., Tensor]] = {}

# NumPy functions whose arguments after the arrays have a position in NumPy and a keyword here.
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "sum": ("axis",),
    "mean": ("axis",),
    "max": ("axis",),
    "var": ("axis",),
    "concatenate": ("axis",),
    "stack": ("axis",),
    "reshape": ("shape",),
    "transpose": ("axes",),
    "swapaxes": ("axis1", "axis2"),
    "squeeze": ("axis",),
    "expand_dims": ("axis",),
    "broadcast_to": ("shape",),
    "clip": ("low", "high"),
}
_ALIASES = {"amax": "max", "abs": "absolute"}
# These have no gradient and no use for one: they look at the numbers.
_LOOKS = {
    "shape",
    "ndim",
    "size",
    "argmax",
    "argmin",
    "argsort",
    "array_equal",
    "allclose",
    "isclose",
    "array_repr",
    "array_str",
}


class Operators:
    """The operators and methods of a Tensor; each is one op of `tinygrad_llm.ops`, where its maths stands."""

    __slots__ = ()
    data: np.ndarray
    requires_grad: bool

    def __add__(self, other: Any) -> Tensor:
        return registry["add"](self, other)

    def __radd__(self, other: Any) -> Tensor:
        return registry["add"](other, self)

    def __sub__(self, other: Any) -> Tensor:
        return registry["subtract"](self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return registry["subtract"](other, self)

    def __mul__(self, other: Any) -> Tensor:
        return registry["multiply"](self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return registry["multiply"](other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return registry["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return registry["divide"](other, self)

    def __pow__(self, other: Any) -> Tensor:
        return registry["power"](self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return registry["power"](other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return registry["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return registry["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return registry["negative"](self)

    def __abs__(self) -> Tensor:
        return registry["absolute"](self)

    def __getitem__(self, index: Any) -> Tensor:
        return registry["getitem"](self, index=index)

    def __eq__(self, other: Any) -> np.ndarray:  # type: ignore[override]
        return self.data == _plain(other)

    def __ne__(self, other: Any) -> np.ndarray:  # type: ignore[override]
        return self.data != _plain(other)

    def __lt__(self, other: Any) -> np.ndarray:
        return self.data < _plain(other)

    def __le__(self, other: Any) -> np.ndarray:
        return self.data <= _plain(other)

    def __gt__(self, other: Any) -> np.ndarray:
        return self.data > _plain(other)

    def __ge__(self, other: Any) -> np.ndarray:
        return self.data >= _plain(other)

    __hash__ = object.__hash__  # a tensor is a key by identity: gradients are kept in a dict of tensors

    def exp(self) -> Tensor:
        return registry["exp"](self)

    def log(self) -> Tensor:
        return registry["log"](self)

    def sqrt(self) -> Tensor:
        return registry["sqrt"](self)

    def tanh(self) -> Tensor:
        return registry["tanh"](self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["mean"](self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        return registry["max"](self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        return registry["var"](self, axis=axis, keepdims=keepdims, ddof=ddof)

    def reshape(self, *shape: Any) -> Tensor:
        """`t.reshape(2, 3)` or `t.reshape((2, 3))`."""
        return registry["reshape"](self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """The axes in a new order, all reversed when none is given: `t.transpose(0, 2, 1)`, as in NumPy."""
        return registry["transpose"](self, axes=axes[0] if len(axes) == 1 else axes or None)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        return registry["swapaxes"](self, axis1=axis1, axis2=axis2)

    def squeeze(self, axis: Any = None) -> Tensor:
        return registry["squeeze"](self, axis=axis)

    def expand_dims(self, axis: Any) -> Tensor:
        return registry["expand_dims"](self, axis=axis)

    def broadcast_to(self, shape: tuple[int, ...]) -> Tensor:
        return registry["broadcast_to"](self, shape=shape)

    @property
    def T(self) -> Tensor:
        return registry["transpose"](self)

    def at(self, index: Any) -> At:
        """`t.at(index).set(value)`: a new tensor that equals `t` except at `index`; gradients flow to `t` and to `value`."""
        return At(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.requires_grad or getattr(value, "requires_grad", False):
            raise GraphError(
                "t[index] = value would rewrite a tensor that is on the tape: "
                "write t = t.at(index).set(value), or t.data[index] = ... for a leaf outside the tape"
            )
        self.data[index] = _plain(value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise GraphError(
                f"an array made of this tensor {self.data.shape} would leave the tape: "
                "use t.data (the array), t.detach(), or an op of tinygrad_llm.ops"
            )
        return np.array(self.data, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__
        op = registry.get(_ALIASES.get(name, name))
        if method == "__call__" and op is not None and not kwargs:
            return op(*inputs)
        if method == "__call__" and not kwargs and _says_yes_or_no(ufunc):
            return ufunc(*map(_plain, inputs))  # isfinite, greater, ...: a plain array, without a gradient
        call = (
            f"np.{name}"
            + ("" if method == "__call__" else f".{method}")
            + ("(..., out=...)" if "out" in kwargs else "")
        )
        raise GraphError(
            f"{call} has no gradient here: use an op of tinygrad_llm.ops, or t.data to compute outside the tape"
        )

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        name = _ALIASES.get(func.__name__, func.__name__)
        if name in _LOOKS:
            return func(*map(_plain, args), **{key: _plain(value) for key, value in kwargs.items()})
        if name == "where" and len(args) == 3:
            return registry["where"](args[1], args[2], condition=args[0])
        if name not in registry or name not in _KEYWORDS or "out" in kwargs or "dtype" in kwargs:
            raise GraphError(
                f"np.{name} has no gradient here: use an op of tinygrad_llm.ops, or t.data to compute outside the tape"
            )
        tensors = args[0] if name in ("concatenate", "stack") else args[:1]
        return registry[name](*tensors, **dict(zip(_KEYWORDS[name], args[1:], strict=False)), **kwargs)


class At:
    """A place in a tensor: what `t.at(index)` returns, so that `.set(value)` can follow."""

    def __init__(self, tensor: Operators, index: Any) -> None:
        self.tensor = tensor
        self.index = index

    def set(self, value: Any) -> Tensor:
        return registry["set_at"](self.tensor, value, index=self.index)


def _says_yes_or_no(ufunc: np.ufunc) -> bool:
    """Whether numbers give booleans; of Python objects, which no tensor holds, comparisons give whatever those say."""
    return all(types.endswith("?") for types in ufunc.types if "O" not in types)


def _plain(value: Any) -> Any:
    """The array of a tensor; anything else as it is."""
    return value.data if isinstance(value, Operators) else value
