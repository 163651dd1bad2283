"""Is the backward of a function right? Every derivative measured by differences, and a message that says which one is not.

dL/dx is compared for L = Σ v f(x), with cotangents v that are drawn once from a seed (all ones would hide a gradient that
sums to zero, as softmax's does) and, where input and output are small, with each output alone: the full Jacobian. Larger
inputs are probed along random directions and at random elements.

At a kink, where the differences end at two slopes however small they are taken (relu at 0), a gradient must be finite and lie
between the two. Elements that tie for a maximum have a kink each; where they move together there is one slope, and their
gradients must add up to it. An input is checked in the memory layout that it comes in: strides, offset, stride 0. Elements that
share a place in memory are moved as one, and held against the sum of their gradients; one by one, these are compared with those
of a copy in C order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..debug.differences import METHODS
from ..debug.html import gradcheck_html
from ..engine import Tensor
from ..errors import ConfigError, DTypeError, GraphError, NonFiniteError, TinygradLLMError
from .probes import FULL, Comparison, Entry, Leaf, Unusable, gradients, outputs, values

_FLOAT32 = 2.0**-10  # float32 gradients against float64 ones, relative to the largest


class GradcheckError(TinygradLLMError, AssertionError):
    """A gradient that differs from the measured one, or a function whose gradient cannot be checked."""


@dataclass(frozen=True)
class GradcheckResult:
    """What a gradcheck found. `bool(result)` is True when derivatives were compared and all of them agree.

    `kinks` are those that lie between two slopes, as they should; nothing more can be said of them.
    """

    function: str
    checked: int = 0  # derivatives compared, kinks left out
    max_relative_error: float = 0.0
    mismatches: tuple[Entry, ...] = ()  # the largest error first
    kinks: tuple[Entry, ...] = ()
    complaint: str = ""  # what is wrong other than a derivative
    reproducer: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return not self.mismatches and not self.complaint

    def __str__(self) -> str:
        if self.complaint:
            return f"gradcheck of {self.function}: {self.complaint}"
        if self.mismatches:
            return (
                f"gradcheck of {self.function}: wrong gradient of {self.mismatches[0]} "
                f"({len(self.mismatches)} of {self.checked} derivatives are wrong)\n{self.reproducer}"
            )
        kinks = f", {len(self.kinks)} at a kink, first {self.kinks[0]}" if self.kinks else ""
        return (
            f"gradcheck of {self.function}: {self.checked} derivatives agree to {self.max_relative_error:.2g}" + kinks
        )

    def _repr_html_(self) -> str:
        return gradcheck_html(self)


def gradcheck(
    fn: Callable[..., Any],
    *inputs: Any,
    method: str = "richardson",
    rtol: float = 1e-8,
    atol: float = 1e-10,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradcheckResult:
    """Compare the gradients of `fn(*inputs)` with derivatives measured in float64.

    Args:
        fn: a deterministic function of Tensors that returns a Tensor of any shape, or a sequence of them.
        inputs: Tensors that require a gradient, or float arrays; of any shape and memory layout, which is kept. They are
            copied, and their `.grad` is left alone. float32 inputs are checked in float64 and then once more in float32,
            against the float64 gradients.
        method: "richardson", "central" or "complex" (`fn` must be analytic), see `numerical_grad`.
        rtol, atol: how far analytic and numeric may be apart; atol is relative to the largest derivative of the argument, or
            to the size of the result where that is larger. What the differences themselves leave open is allowed as well.
        seed: of the cotangent and the probes.
        raise_on_failure: False returns the result instead of raising it.

    Raises GradcheckError with the argument, the index, both values and a reproducer; also when fn is not deterministic, returns
    no Tensor, leaves the tape or writes to its inputs, and when nothing was compared because every derivative is at a kink or the
    inputs are empty. DTypeError, GraphError or NonFiniteError for inputs of no use.
    """
    names = _argument_names(fn, len(inputs))
    leaves = [_leaf(name, x) for name, x in zip(names, inputs, strict=True)]
    tensors = [leaf.tensor for leaf in leaves]
    function = str(getattr(fn, "name", None) or getattr(fn, "__name__", type(fn).__name__)).replace("<lambda>", "fn")
    return _check(
        lambda: fn(*tensors),
        leaves,
        function,
        lambda: _reproducer(function, leaves, method, seed),
        method=method,
        rtol=rtol,
        atol=atol,
        seed=seed,
        raise_on_failure=raise_on_failure,
    )


def gradcheck_module(
    model: Any,
    loss: Callable[[Any], Tensor],
    *,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    seed: int = 0,
    raise_on_failure: bool = True,
) -> GradcheckResult:
    """Compare d loss(model) / d parameter with derivatives measured in float64, for every parameter of a module.

    Args:
        model: has `named_parameters()` and `astype(dtype)`. It is moved to float64 for the check, and given its own
            arrays back after.
        loss: takes the model, returns a Tensor; deterministic, so dropout is off (`model.eval()`).

    The other arguments, the result and the errors are those of `gradcheck`.
    """
    parameters = list(dict(model.named_parameters()).items())
    if not parameters:
        raise ConfigError(f"gradcheck_module: {type(model).__name__} has no parameters to check")
    originals = [(p, p.data, p.grad, p.requires_grad) for _, p in parameters]
    dtype = parameters[0][1].data.dtype
    try:
        model.astype(np.float64)
        for p, data, _, _ in originals:
            p.data, p.grad, p.requires_grad = data, None, True
        name = type(model).__name__
        return _check(
            lambda: loss(model),
            [_leaf(name, p, p) for name, p in parameters],
            name,
            lambda: f"reproduce with: gradcheck_module(model, loss, seed={seed})",
            method="richardson",
            rtol=rtol,
            atol=atol,
            seed=seed,
            raise_on_failure=raise_on_failure,
        )
    finally:
        model.astype(dtype)
        for p, data, grad, requires_grad in originals:
            p.data, p.grad, p.requires_grad = data, grad, requires_grad


def _check(
    run: Callable[[], Any],
    leaves: list[Leaf],
    function: str,
    reproducer: Callable[[], str],
    *,
    method: str,
    rtol: float,
    atol: float,
    seed: int,
    raise_on_failure: bool,
) -> GradcheckResult:
    if method not in METHODS:
        raise ConfigError(f"gradcheck: method is {method!r}: use one of {', '.join(METHODS)}")
    try:
        for leaf in leaves:
            leaf.place(np.float64)
        result, expected, cotangent = _compare(run, leaves, function, method, rtol, atol, seed)
        complaint = _compare_copies(run, leaves, expected, cotangent) if result else ""
        if result and not complaint and any(leaf.dtype == np.float32 for leaf in leaves):
            for leaf in leaves:
                leaf.place(leaf.dtype)
            complaint = _compare_float32(run, leaves, expected, cotangent)
        if complaint:
            result = replace(result, complaint=complaint)
    except Unusable as unusable:
        result = GradcheckResult(function, complaint=str(unusable))
    if result.mismatches:
        result = replace(result, reproducer=reproducer())
    if not result and raise_on_failure:
        raise GradcheckError(str(result))
    return result


def _compare(
    run: Callable, leaves: list[Leaf], function: str, method: str, rtol: float, atol: float, seed: int
) -> tuple[GradcheckResult, list[np.ndarray], np.ndarray]:
    """All probes of all leaves, in float64; also the gradients for the first, random cotangent."""
    rng = np.random.default_rng(seed)
    out = _run_safely(run, leaves)
    cotangents = rng.uniform(0.5, 1.5, (1, out.size)) * rng.choice([-1.0, 1.0], (1, out.size))
    if max((leaf.layout.size for leaf in leaves), default=0) <= FULL and out.size <= FULL:
        cotangents = np.concatenate([cotangents, np.eye(out.size)])  # (cotangents, outputs)
    found = Comparison(run, leaves, out, cotangents, method, rtol, atol)
    found.compare(rng)
    complaint = ""
    if not found.whole and not found.mismatches:
        complaint = "nothing was compared, since " + (
            f"all derivatives are at a kink, the first of them {found.kinks[0]}: choose other inputs"
            if found.kinks
            else "the inputs are empty: choose larger ones"
        )
    checked = 0 if complaint else found.checked
    result = GradcheckResult(function, checked, found.worst, tuple(found.mismatches), tuple(found.kinks), complaint)
    return result, found.gradients, cotangents[0]


def _compare_copies(run: Callable, leaves: list[Leaf], expected: list[np.ndarray], cotangent: np.ndarray) -> str:
    """Whether elements that share a place have the gradients that they have in a copy in C order; "" when they do."""
    if not any(leaf.layout.shared for leaf in leaves):
        return ""
    for leaf in leaves:
        leaf.tensor.data = leaf.tensor.data.copy()
    (found,) = gradients(run, leaves, cotangent[None, :])
    for leaf, ours, copied in zip(leaves, expected, found, strict=True):
        off = _difference(ours, copied)
        if off.size and not off.max() <= 1e-8 * np.abs(copied).max(initial=0, where=np.isfinite(copied)):
            index = np.unravel_index(int(np.argmax(off)), off.shape)
            return (
                f"the gradient of {leaf.name} at {list(map(int, index))} depends on the memory layout: {ours[index]:.9g} "
                f"where elements share a place (strides {leaf.layout.strides}), {copied[index]:.9g} in a copy in C order"
            )
    return ""


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, 0 where both are the same infinity or NaN; in float64."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0, np.abs(a.astype(np.float64) - b))


def _compare_float32(run: Callable, leaves: list[Leaf], expected: list[np.ndarray], cotangent: np.ndarray) -> str:
    """What is wrong with the float32 run, measured by the float64 gradients; "" when nothing is."""
    for output in outputs(run()):
        if output.dtype != np.float32:
            return f"float32 inputs give a {output.dtype} result: use Python floats and math.sqrt for constants"
    (found,) = gradients(run, leaves, cotangent[None, :])
    for leaf, single, double in zip(leaves, found, expected, strict=True):
        off = _difference(single, double)
        largest = np.abs(double).max(initial=np.finfo(np.float32).tiny, where=np.isfinite(double))
        if off.size and not off.max() <= _FLOAT32 * largest:
            index = np.unravel_index(int(np.argmax(off)), off.shape)
            return (
                f"the float64 gradients are right, but float32 loses {leaf.name} at {list(map(int, index))}: "
                f"float32 {single[index]:.9g}, float64 {double[index]:.9g}"
            )
    return ""


def _run_safely(run: Callable, leaves: list[Leaf]) -> np.ndarray:
    """The outputs of a first run, after making sure that a second gives the same and that the inputs are left alone."""
    before = [(leaf.tensor.data, leaf.tensor.data.copy()) for leaf in leaves]
    first = outputs(run())
    for leaf, (array, copy) in zip(leaves, before, strict=True):
        if leaf.tensor.data is not array or array.tobytes() != copy.tobytes():
            raise Unusable(f"the function writes to its input {leaf.name}: compute into a new array instead")
    if not any(o.requires_grad for o in first):
        raise Unusable(
            "the result is not on the tape, so it has no gradient: it was made from t.data, after detach() or under no_grad()"
        )
    out = values(first)
    if out.tobytes() != values(run()).tobytes():
        raise Unusable(
            "the function is not deterministic, two calls gave different results: switch dropout off, or make its generator "
            "anew from a seed in every call"
        )
    if not np.isfinite(out).all():
        position = int(np.argmin(np.isfinite(out)))
        raise Unusable(f"output {position} is {out[position]}: choose inputs at which the function is finite")
    return out


def _leaf(name: str, x: Any, tensor: Tensor | None = None) -> Leaf:
    """A leaf that may be moved about, of a new tensor unless one is given, or an error that says why `x` cannot be checked."""
    data = np.asarray(x.data if isinstance(x, Tensor) else x)
    if data.dtype not in (np.float32, np.float64):
        raise DTypeError(
            f"gradcheck: {name} is {data.dtype}: only float32 and float64 have gradients; close fn over it"
        )
    if isinstance(x, Tensor) and not x.requires_grad:
        raise GraphError(
            f"gradcheck: {name} {data.shape} does not require a gradient: pass Tensor(..., requires_grad=True)"
        )
    if not np.isfinite(data).all():
        index = list(map(int, np.argwhere(~np.isfinite(data))[0]))
        raise NonFiniteError(
            f"gradcheck: {name} {data.shape} is {data[tuple(index)]} at {index}: inputs must be finite"
        )
    return Leaf(name, Tensor(data, requires_grad=True, name=name) if tensor is None else tensor, data)


def _argument_names(fn: Callable, n: int) -> list[str]:
    """What fn calls its arguments; their numbers where that cannot be known."""
    names = []
    try:
        for p in inspect.signature(getattr(fn, "forward", fn)).parameters.values():
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                names.append(p.name)
    except (TypeError, ValueError):
        pass
    return [f"argument {i} ({names[i]})" if i < len(names) else f"argument {i}" for i in range(n)]


def _reproducer(function: str, leaves: list[Leaf], method: str, seed: int) -> str:
    lines = ["reproduce with:", "    import numpy as np", "    from tinygrad_llm.testing import gradcheck"]
    variables = [f"x{i}" for i in range(len(leaves))]
    for variable, leaf in zip(variables, leaves, strict=True):
        lines += [f"    {line}" for line in leaf.layout.source(variable, leaf.numbers.astype(leaf.dtype))]
    options = "" if method == "richardson" else f", method={method!r}"
    return "\n".join([*lines, f"    gradcheck({function}, {', '.join(variables)}, seed={seed}{options})"])
