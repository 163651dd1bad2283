"""Is the backward of a function right? Every derivative measured by differences, and a message that says which one is not.

dL/dx is compared for L = Σ v f(x), with cotangents v that are drawn once from a seed (all ones would hide a gradient that
sums to zero, as softmax's does) and, where input and output are small, with each output alone: the full Jacobian. Larger
inputs are probed along random directions and at random elements.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..debug.differences import METHODS, derivative, slopes
from ..debug.html import gradcheck_html
from ..engine import Tensor, no_grad
from ..errors import ConfigError, DTypeError, GraphError, NonFiniteError, TinygradLLMError

_FULL = 64  # the full Jacobian up to this many input elements, and outputs
_ELEMENTS, _DIRECTIONS = 12, 3  # probed otherwise
_FLOAT32 = 2.0**-10  # float32 gradients against float64 ones, relative to the largest


class GradcheckError(TinygradLLMError, AssertionError):
    """A gradient that differs from the measured one, or a function whose gradient cannot be checked."""


@dataclass(frozen=True)
class Entry:
    """One derivative, analytic and measured. `output` is the flat index of the output, or None for Σ v f."""

    argument: str
    index: tuple[int, ...] | str  # of the element of the argument, or "a random direction"
    output: int | None
    analytic: float
    numeric: float
    relative_error: float
    kink: tuple[float, float] | None = None  # the slopes from the left and from the right, where they differ

    def __str__(self) -> str:
        where = f"at {list(self.index)}" if isinstance(self.index, tuple) else f"along {self.index}"
        of = "" if self.output is None else f" of output {self.output}"
        text = f"{self.argument} {where}{of}: analytic {self.analytic:.12g}, "
        if self.kink:
            return text + f"slope {self.kink[0]:.6g} from the left and {self.kink[1]:.6g} from the right"
        return text + f"numeric {self.numeric:.12g}, relative error {self.relative_error:.3g}"


@dataclass(frozen=True)
class GradcheckResult:
    """What a gradcheck found. `bool(result)` is True when every derivative agrees; kinks are not disagreements."""

    function: str
    checked: int = 0  # derivatives compared
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
        inputs: Tensors that require a gradient, or float arrays; of any shape. They are copied, and their `.grad` is left alone.
            float32 inputs are checked in float64 and then once more in float32, against the float64 gradients.
        method: "richardson", "central" or "complex" (`fn` must be analytic), see `numerical_grad`.
        rtol, atol: how far analytic and numeric may be apart; atol is relative to the largest derivative of the argument, or
            to the size of the result where that is larger.
        seed: of the cotangent and the probes.
        raise_on_failure: False returns the result instead of raising it.

    Raises GradcheckError with the argument, the index, both values and a reproducer; also when fn is not deterministic, returns
    no Tensor, leaves the tape or writes to its inputs. DTypeError, GraphError or NonFiniteError for inputs of no use.
    """
    names = _argument_names(fn, len(inputs))
    leaves = [(name, _leaf(name, x)) for name, x in zip(names, inputs, strict=True)]
    tensors = [leaf for _, leaf in leaves]
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
            p.data, p.grad, p.requires_grad = data.astype(np.float64), None, True
        name = type(model).__name__
        return _check(
            lambda: loss(model),
            [(name, _leaf(name, p, copy=False)) for name, p in parameters],
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
    leaves: list[tuple[str, Tensor]],
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
    given = [leaf.data for _, leaf in leaves]
    try:
        for _, leaf in leaves:
            leaf.data = leaf.data.astype(np.float64)
        result, gradients, cotangent = _compare(run, leaves, function, method, rtol, atol, seed)
        if result and any(x.dtype == np.float32 for x in given):
            for (_, leaf), x in zip(leaves, given, strict=True):
                leaf.data = x
            complaint = _compare_float32(run, leaves, gradients, cotangent)
            result = GradcheckResult(function, result.checked, result.max_relative_error, (), result.kinks, complaint)
    except _Unusable as unusable:
        result = GradcheckResult(function, complaint=str(unusable))
    finally:
        for (_, leaf), x in zip(leaves, given, strict=True):
            leaf.data = x
    if result.mismatches:
        result = GradcheckResult(
            function, result.checked, result.max_relative_error, result.mismatches, result.kinks, "", reproducer()
        )
    if not result and raise_on_failure:
        raise GradcheckError(str(result))
    return result


class _Unusable(Exception):
    """The function under test cannot be checked; the text says why."""


def _compare(
    run: Callable, leaves: list, function: str, method: str, rtol: float, atol: float, seed: int
) -> tuple[GradcheckResult, list[np.ndarray], np.ndarray]:
    """All probes of all leaves, in float64; also the gradients for the first, random cotangent."""
    rng = np.random.default_rng(seed)
    tensors = [leaf for _, leaf in leaves]
    out = _values(_run_safely(run, leaves))
    size_in = max(leaf.data.size for leaf in tensors)
    full = size_in <= _FULL and out.size <= _FULL
    cotangents = rng.uniform(0.5, 1.5, (1, out.size)) * rng.choice([-1.0, 1.0], (1, out.size))
    if full:
        cotangents = np.concatenate([cotangents, np.eye(out.size)])  # (cotangents, outputs)
    analytic = _analytic(run, tensors, cotangents)

    checked, worst, mismatches, kinks = 0, 0.0, [], []
    for number, (name, leaf) in enumerate(leaves):
        entries = []
        for index, direction, scale in _probes(leaf.data, rng):
            f = _along(run, tensors, number, direction)
            found = derivative(f, scale, method)
            measured, size = _weighted(cotangents, found.value), _weighted(np.abs(cotangents), found.size)
            exact = np.array(
                [g[number][index] if isinstance(index, tuple) else np.vdot(direction, g[number]) for g in analytic]
            )
            entries.append((index, scale, f, measured, size, exact))
        sizes = np.array([[np.abs(scale * m), size] for _, scale, _, m, size, _ in entries])
        largest = np.max(sizes, axis=(0, 1), initial=0.0, where=np.isfinite(sizes)) if entries else np.zeros(0)
        for index, scale, f, measured, _, exact in entries:
            allowed = rtol * np.abs(scale * measured) + atol * largest
            with np.errstate(invalid="ignore"):
                wrong = ~(np.abs(scale * (exact - measured)) <= allowed) & (exact != measured)
            at_kink = np.zeros(len(cotangents), bool)
            if method != "complex":
                left, right, kink = slopes(f, scale)
                # Where an output has a kink, another one's gradient may be 0 times infinity.
                at_kink = np.any((cotangents != 0) & kink, axis=1) | (kink.any() & ~np.isfinite(exact))
            for row in range(len(cotangents)):
                output = None if row == 0 else row - 1
                size = max(abs(exact[row]), abs(measured[row]))
                relative = abs(exact[row] - measured[row]) / size if size else 0.0
                entry = (name, index, output, float(exact[row]), float(measured[row]), float(relative))
                checked += 1
                if at_kink[row]:
                    both = [float(_weighted(cotangents[row : row + 1], side)[0]) for side in (left, right)]
                    kinks.append(Entry(*entry, kink=(both[0], both[1])))
                elif wrong[row]:
                    mismatches.append(Entry(*entry))
                elif abs(scale * measured[row]) > 1e-3 * largest[row]:
                    worst = max(worst, float(relative))
    # A single element of a single output says more than a sum of them.
    mismatches.sort(key=lambda e: (isinstance(e.index, str), e.output is None, -e.relative_error))
    return GradcheckResult(function, checked, worst, tuple(mismatches), tuple(kinks)), analytic[0], cotangents[0]


def _weighted(cotangents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Σ v f over the outputs for each cotangent, in which an infinite output of weight 0 does not count."""
    with np.errstate(invalid="ignore"):
        return np.where(cotangents != 0, cotangents * values, 0.0).sum(axis=1)


def _probes(x: np.ndarray, rng: np.random.Generator) -> list[tuple[tuple[int, ...] | str, np.ndarray, float]]:
    """(index, direction, distance over which to move) for each derivative of one argument."""
    elements = range(x.size) if x.size <= _FULL else np.sort(rng.choice(x.size, _ELEMENTS, replace=False))
    probes: list = []
    for flat in elements:
        index = tuple(map(int, np.unravel_index(flat, x.shape)))
        direction = np.zeros(x.shape)
        direction[index] = 1.0
        probes.append((index, direction, max(1.0, abs(x[index]))))
    if x.size > _FULL:
        for _ in range(_DIRECTIONS):
            direction = rng.standard_normal(x.shape)
            direction /= np.sqrt((direction * direction).sum())
            probes.append(("a random direction", direction, max(1.0, float(np.abs(x).max()))))
    return probes


def _along(run: Callable, tensors: list[Tensor], number: int, direction: np.ndarray) -> Callable:
    """h -> the outputs, flat, with argument `number` moved by h along the direction."""

    def f(h: Any) -> np.ndarray:
        before = [t.data for t in tensors]
        try:
            if isinstance(h, complex):  # one dtype for the whole graph
                for t in tensors:
                    t.data = t.data.astype(np.complex128)
            tensors[number].data = tensors[number].data + h * direction
            with no_grad():
                return _values(run())
        finally:
            for t, data in zip(tensors, before, strict=True):
                t.data = data

    return f


def _analytic(run: Callable, tensors: list[Tensor], cotangents: np.ndarray) -> list[list[np.ndarray]]:
    """For each cotangent the gradient of each tensor; zeros where none came back."""
    outputs = _outputs(run())
    found = []
    for i, cotangent in enumerate(cotangents):
        gradients: dict[Tensor, np.ndarray] = {}
        ends = np.cumsum([0] + [o.size for o in outputs])
        for output, start, end in zip(outputs, ends[:-1], ends[1:], strict=True):
            if output.requires_grad:
                g = cotangent[start:end].reshape(output.shape).astype(output.dtype)
                output.backward(g, retain_graph=i + 1 < len(cotangents), into=gradients)
        found.append([gradients[t] if t in gradients else np.zeros(t.shape) for t in tensors])
    return found


def _compare_float32(run: Callable, leaves: list, expected: list[np.ndarray], cotangent: np.ndarray) -> str:
    """What is wrong with the float32 run, measured by the float64 gradients; "" when nothing is."""
    outputs = _outputs(run())
    for output in outputs:
        if output.dtype != np.float32:
            return f"float32 inputs give a {output.dtype} result: use Python floats and math.sqrt for constants"
    (gradients,) = _analytic(run, [leaf for _, leaf in leaves], cotangent[None, :])
    for (name, _), single, double in zip(leaves, gradients, expected, strict=True):
        off = np.abs(single.astype(np.float64) - double)
        if off.size and not off.max() <= _FLOAT32 * max(np.abs(double).max(), np.finfo(np.float32).tiny):
            index = np.unravel_index(int(np.argmax(off)), off.shape)
            return (
                f"the float64 gradients are right, but float32 loses {name} at {list(map(int, index))}: "
                f"float32 {single[index]:.9g}, float64 {double[index]:.9g}"
            )
    return ""


def _run_safely(run: Callable, leaves: list) -> list[Tensor]:
    """The outputs of a first run, after making sure that a second gives the same and that the inputs are left alone."""
    before = [(leaf.data, leaf.data.copy()) for _, leaf in leaves]
    first = _outputs(run())
    for (name, leaf), (array, copy) in zip(leaves, before, strict=True):
        if leaf.data is not array or array.tobytes() != copy.tobytes():
            raise _Unusable(f"the function writes to its input {name}: compute into a new array instead")
    if not any(o.requires_grad for o in first):
        raise _Unusable(
            "the result is not on the tape, so it has no gradient: it was made from t.data, after detach() or under no_grad()"
        )
    values = _values(first)
    if values.tobytes() != _values(_outputs(run())).tobytes():
        raise _Unusable(
            "the function is not deterministic, two calls gave different results: switch dropout off, or make its generator "
            "anew from a seed in every call"
        )
    if not np.isfinite(values).all():
        position = int(np.argmin(np.isfinite(values)))
        raise _Unusable(f"output {position} is {values[position]}: choose inputs at which the function is finite")
    return first


def _outputs(result: Any) -> list[Tensor]:
    outputs = list(result) if isinstance(result, Sequence) else [result]
    for output in outputs:
        if not isinstance(output, Tensor):
            raise _Unusable(f"the function returned {type(output).__name__}, not a Tensor: return what the ops gave")
    return outputs


def _values(result: Any) -> np.ndarray:
    return np.concatenate([o.data.reshape(-1) for o in _outputs(result)])


def _leaf(name: str, x: Any, copy: bool = True) -> Tensor:
    """A leaf that may be moved about, or an error that says why `x` cannot be checked."""
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
    return Tensor(data.copy(), requires_grad=True, name=name) if copy else x


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


def _reproducer(function: str, leaves: list, method: str, seed: int) -> str:
    lines = ["reproduce with:", "    import numpy as np", "    from tinygrad_llm.testing import gradcheck"]
    variables = [f"x{i}" for i in range(len(leaves))]
    for variable, (_, leaf) in zip(variables, leaves, strict=True):
        x = leaf.data
        if x.size <= _FULL:
            lines.append(f"    {variable} = np.array({x.tolist()!r}, np.{x.dtype})")
        else:
            lines.append(f"    {variable} = ...  # the same {x.shape} {x.dtype} array")
    options = "" if method == "richardson" else f", method={method!r}"
    return "\n".join([*lines, f"    gradcheck({function}, {', '.join(variables)}, seed={seed}{options})"])
