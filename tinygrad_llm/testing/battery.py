"""Everything that an op must get right, each as one small check on one sample.

A check takes (spec, sample, rng) and raises AssertionError. It looks only at what goes into an op and what comes out, never at
what is saved in between, so that an op may be rewritten for speed under the same checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np

from ..engine import Op, Tensor, composed
from ..errors import ConfigError
from .assertions import assert_close, assert_no_alias, assert_unchanged
from .gradcheck import GradcheckError, gradcheck
from .spec import OpSpec, Sample, to_sample


def check_op(spec: OpSpec, *, only: Iterable[str] | None = None, seed: int = 0) -> list[str]:
    """Hold an op against its spec; returns the names of the checks that it passed.

    Args:
        spec: the op and its samples.
        only: names of checks out of `applicable(spec)`; all of them when None.
        seed: of the samples and the cotangents.

    Raises GradcheckError at the first check that fails, with the op, the check, the sample and what went wrong.
    """
    names = applicable(spec) if only is None else list(only)
    for name in names:
        if name not in applicable(spec):
            raise ConfigError(f"check_op: no check {name!r} applies to {spec.name}: use {', '.join(applicable(spec))}")
    for name, where, error in failures(spec, names, seed):
        raise GradcheckError(f"{spec.name} fails the check {name!r} with {where}: {error}") from error
    return names


def applicable(spec: OpSpec) -> list[str]:
    """The checks that an op with this spec goes through."""
    absent = set()
    if spec.reference is None:
        absent.add("value")
    if not spec.analytic:
        absent.add("complex step")
    if spec.op.composed is None:
        absent.add("composed twin")
    if not spec.special:
        absent.add("special values")
    if not spec.errors:
        absent.add("errors")
    return [name for name in CHECKS if name not in absent]


def failures(spec: OpSpec, names: Iterable[str], seed: int = 0) -> Iterator[tuple[str, str, Exception]]:
    """(check, sample in words, exception) of every check of every sample that fails; any exception of the op is a failure."""
    for name in names:
        check = CHECKS[name]
        of_spec = check in (_special_values, _errors)
        for number, sample in enumerate([Sample((), {})] if of_spec else spec.draw(seed)):
            try:
                check(spec, sample, np.random.default_rng([seed, number]))
            except Exception as error:
                yield name, "its row of the spec" if of_spec else str(sample), error


def _forward(op: Op, sample: Sample) -> tuple[np.ndarray, tuple]:
    with np.errstate(all="ignore"):
        out, saved = op.forward(*sample.arrays, **sample.fresh_options())
    return np.asarray(out), saved


def _backward(op: Op, g: np.ndarray, saved: tuple, sample: Sample, needs: tuple[bool, ...] | None = None) -> list:
    """One gradient for each array of the sample, None where there is none."""
    wanted = needs or tuple(a is not None for a in sample.arrays)
    options = {"needs": wanted} if "needs" in op.takes else {}
    with np.errstate(all="ignore"):
        gradients = op.backward(g, *saved, **options)
    if len(gradients) != len(sample.arrays):
        raise AssertionError(f"the backward returned {len(gradients)} gradients for {len(sample.arrays)} inputs")
    return [np.asarray(d) if d is not None and w else None for d, w in zip(gradients, wanted, strict=True)]


def _run(op: Op, sample: Sample, g: np.ndarray | None = None) -> tuple[np.ndarray, list]:
    out, saved = _forward(op, sample)
    return out, _backward(op, np.ones_like(out) if g is None else g, saved, sample)


def _cotangent(out: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Away from zero and of both signs; never all ones."""
    return np.asarray(rng.uniform(0.5, 1.5, out.shape) * rng.choice([-1.0, 1.0], out.shape), out.dtype)


def _taped(op: Op, sample: Sample, g: np.ndarray, wanted: Iterable[bool]) -> tuple[Tensor, list[Tensor | None]]:
    """The op on the tape, backward done; the inputs are leaves that require a gradient where wanted."""
    leaves = [
        None if a is None else Tensor(a.copy(), requires_grad=w) for a, w in zip(sample.arrays, wanted, strict=True)
    ]
    out = op(*leaves, **sample.fresh_options())
    if out.requires_grad:
        out.backward(g)
    return out, leaves


def _value(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """Equal to the reference."""
    out, _ = _forward(spec.op, sample)
    with np.errstate(all="ignore"):
        expected = spec.reference(*sample.arrays, **sample.fresh_options())  # type: ignore[misc]
    assert_close(out, np.asarray(expected), rtol=spec.rtol)


def _shape_and_dtype(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """Every gradient has the shape and the dtype of its input, in float64 and in float32."""
    for dtype in (np.float64, np.float32):
        typed = sample.astype(dtype)
        out, saved = _forward(spec.op, typed)
        if out.dtype != dtype:
            raise AssertionError(f"the output is {out.dtype}, the inputs are {np.dtype(dtype)}")
        gradients = _backward(spec.op, _cotangent(out, rng), saved, typed)
        for i, (a, d) in enumerate(zip(typed.arrays, gradients, strict=True)):
            if a is None:
                continue
            if d is None:
                raise AssertionError(f"gradient {i} is None although its input wants one")
            if d.shape != a.shape or d.dtype != a.dtype:
                raise AssertionError(f"gradient {i} is {d.shape} {d.dtype}, its input is {a.shape} {a.dtype}")


def _single(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """The float32 run gives the numbers of the float64 run, as far as float32 goes."""
    single = sample.astype(np.float32)
    double = single.astype(np.float64)
    g = _cotangent(_forward(spec.op, single)[0], rng)
    for ours, exact in zip(_flat(_run(spec.op, single, g)), _flat(_run(spec.op, double, g.astype(float))), strict=True):
        if ours is not None:
            assert_close(ours, exact, rtol=1e-4, atol=1e-4 * max(1e-3, float(np.abs(exact).max(initial=0.0))))


def _flat(run: tuple[np.ndarray, list]) -> list:
    return [run[0], *run[1]]


def _gradient(spec: OpSpec, sample: Sample, rng: np.random.Generator, method: str = "richardson") -> None:
    """Equal to Richardson-extrapolated differences, through the tape."""
    present = [a for a in sample.arrays if a is not None]

    def fn(*tensors: Tensor) -> Tensor:
        remaining = iter(tensors)
        return spec.op(*(None if a is None else next(remaining) for a in sample.arrays), **sample.fresh_options())

    fn.__name__, fn.forward = spec.name, spec.op.forward  # type: ignore[attr-defined]
    if any(a.size for a in present):
        gradcheck(fn, *present, method=method)


def _complex_step(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """Equal to a complex step."""
    _gradient(spec, sample, rng, method="complex")


def _linear_in_g(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """backward(a g + b h) = a backward(g) + b backward(h)."""
    out, _ = _forward(spec.op, sample)
    g, h = _cotangent(out, rng), _cotangent(out, rng)
    (_, dg), (_, dh) = _run(spec.op, sample, g), _run(spec.op, sample, h)
    _, both = _run(spec.op, sample, 2.5 * g - 0.75 * h)
    for a, b, c in zip(dg, dh, both, strict=True):
        if c is not None:
            size = max(np.abs(a).max(initial=0.0), np.abs(b).max(initial=0.0))
            assert_close(c, 2.5 * a - 0.75 * b, rtol=1e-11, atol=1e-11 * float(size))


def _nothing_written(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """Inputs and g may be read-only and stay as they are; a second backward gives the same bits."""
    frozen = sample.map(np.copy)
    g = _cotangent(_forward(spec.op, sample)[0], rng)
    arrays = [a for a in (*frozen.arrays, g) if a is not None]
    with assert_unchanged(*arrays):
        _run(spec.op, frozen, g)
    for array in arrays:
        array.flags.writeable = False
    out, saved = _forward(spec.op, frozen)
    value = out.copy()
    first = [None if d is None else d.tobytes() for d in _backward(spec.op, g, saved, frozen)]
    second = [None if d is None else d.tobytes() for d in _backward(spec.op, g, saved, frozen)]
    if out.tobytes() != value.tobytes():
        raise AssertionError("the backward wrote to the output of the forward")
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if a != b:
            raise AssertionError(f"a second backward gives another gradient {i}: the first wrote to what was saved")


def _nothing_shared(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """No gradient shares memory with g, the output, an input, another gradient or one of another call, unless the op is declared
    a view op; on the tape not even then, and what a leaf gets can be written to.
    """
    given = sample.map(np.copy)
    out, saved = _forward(spec.op, given)
    g = _cotangent(out, rng)
    if not spec.op.view:
        ours = [d for d in _backward(spec.op, g, saved, given) if d is not None]
        again = [d for d in _run(spec.op, given, g)[1] if d is not None]
        others = {"g": [g], "the output": [out], "an input": given.arrays, "a gradient of another call": again}
        for what, arrays in others.items():
            if any(a is not None and np.shares_memory(d, a) for d in ours for a in arrays):
                raise AssertionError(f"a gradient shares memory with {what}: copy it, or declare Op(..., view=True)")
        assert_no_alias(*ours)
        assert_no_alias(out, *given.arrays)
    taped = [_taped(spec.op, sample, g, [True] * len(sample.arrays))[1] for _ in range(2)]
    leaves = [leaf for call in taped for leaf in call if leaf is not None]
    assert_no_alias(g, *(leaf.grad for leaf in leaves), *(leaf.data for leaf in leaves))
    for leaf in leaves:
        if leaf.grad is not None and not leaf.grad.flags.writeable:
            raise AssertionError("the gradient of a leaf is read-only: it is a view of something else")


def _any_layout(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """Fortran order, gaps, negative strides and stride 0 in inputs and in g give what contiguous arrays give."""
    g = _cotangent(_forward(spec.op, sample)[0], rng)
    plain = _run(spec.op, sample, g)
    for layout in (_fortran, _with_gaps, _backwards):
        _same_numbers(_run(spec.op, sample.map(layout), g), plain, sample)
        _same_numbers(_run(spec.op, sample, layout(g)), plain, sample)
    repeated = sample.map(_repeated)
    _same_numbers(
        _run(spec.op, repeated, _repeated(g)), _run(spec.op, repeated.map(np.copy), _repeated(g).copy()), sample
    )


def _same_numbers(actual: tuple, expected: tuple, sample: Sample) -> None:
    size = max([1.0, *(float(np.abs(a).max(initial=0.0)) for a in sample.arrays if a is not None)])
    for a, e in zip(_flat(actual), _flat(expected), strict=True):
        if e is not None:
            assert_close(
                a, e, rtol=1e-12, atol=1e-12 * max(size, float(np.abs(e).max(initial=0.0, where=np.isfinite(e))))
            )


def _fortran(a: np.ndarray) -> np.ndarray:
    return a.copy(order="F")


def _with_gaps(a: np.ndarray) -> np.ndarray:
    wide = np.full(tuple(2 * n for n in a.shape), np.nan, a.dtype)
    view = wide[(slice(None, None, 2),) * a.ndim + (...,)]
    view[...] = a
    return view


def _backwards(a: np.ndarray) -> np.ndarray:
    flip = (slice(None, None, -1),) * a.ndim + (...,)
    return a[flip].copy()[flip]


def _repeated(a: np.ndarray) -> np.ndarray:
    """The first row again and again, at stride 0."""
    return np.broadcast_to(a[:1], a.shape) if a.ndim and len(a) else a


def _needs(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """A gradient is the same whichever others are wanted."""
    out, saved = _forward(spec.op, sample)
    g = _cotangent(out, rng)
    everything = _backward(spec.op, g, saved, sample)
    for wanted in product((True, False), repeat=len(sample.arrays)):
        if len(wanted) > 4 and 1 < sum(wanted) < len(wanted) - 1:
            continue  # of many inputs: one alone, and all but one
        if any(w and a is None for w, a in zip(wanted, sample.arrays, strict=True)) or not any(wanted):
            continue
        _, saved = _forward(spec.op, sample)
        direct = _backward(spec.op, g, saved, sample, wanted)
        _, leaves = _taped(spec.op, sample, g, wanted)
        for i, w in enumerate(wanted):
            if w:
                assert_close(direct[i], everything[i], rtol=1e-13)
                assert_close(leaves[i].grad, everything[i], rtol=1e-13)  # type: ignore[union-attr]
            elif leaves[i] is not None and leaves[i].grad is not None:  # type: ignore[union-attr]
                raise AssertionError(f"input {i} does not require a gradient and got one")


def _threads(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """Several threads at once give the bits that one gives."""
    g = _cotangent(_forward(spec.op, sample)[0], rng)
    alone = _bits(_run(spec.op, sample, g))
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: _bits(_run(spec.op, sample, g)), range(8)):
            if together != alone:
                raise AssertionError("several threads at once give other bits than one thread")


def _bits(run: tuple[np.ndarray, list]) -> list[Any]:
    return [None if a is None else a.tobytes() for a in _flat(run)]


def _composed_twin(spec: OpSpec, sample: Sample, rng: np.random.Generator) -> None:
    """The fused op and its twin from small ops agree in value and in every gradient."""
    for dtype, rtol in ((np.float64, 1e-11), (np.float32, 1e-4)):
        with np.errstate(over="ignore"):  # float32 ends at 3.4e38
            typed = sample.astype(dtype)
        wanted = [a is not None for a in typed.arrays]
        g = _cotangent(_forward(spec.op, typed)[0], rng)
        fused, ours = _taped(spec.op, typed, g, wanted)
        with composed():
            twin, theirs = _taped(spec.op, typed, g, wanted)
        assert_close(fused, twin, rtol=rtol)
        for a, b in zip(ours, theirs, strict=True):
            if a is not None and b is not None:
                expected = np.zeros(b.shape) if b.grad is None else b.grad
                size = float(np.abs(expected).max(initial=0.0, where=np.isfinite(expected)))
                assert_close(a.grad, expected, rtol=rtol, atol=rtol * max(1e-2, size))


def _special_values(spec: OpSpec, _: Sample, rng: np.random.Generator) -> None:
    """The points whose value or gradient is a decision; where there is a twin, it is the twin's too."""
    for inputs, value, gradients in spec.special:
        sample, where = to_sample(inputs), f"at {', '.join(map(repr, inputs))}"
        out, found = _run(spec.op, sample)
        try:
            if value is not None:
                assert_close(out, value, rtol=spec.rtol)
            for d, expected in zip(found, gradients or [None] * len(found), strict=True):
                if expected is not None:
                    assert_close(d, expected, rtol=1e-12)
            if spec.op.composed is not None:
                where += " beside the composed twin"
                _composed_twin(spec, sample, rng)
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from None


def _errors(spec: OpSpec, _: Sample, rng: np.random.Generator) -> None:
    """Bad input is refused in words."""
    for inputs, kind, words in spec.errors:
        sample = to_sample(inputs)
        try:
            spec.op(*sample.arrays, **sample.fresh_options())
        except kind as error:
            if words not in str(error):
                raise AssertionError(f"the message should contain {words!r}: {error}") from None
        else:
            raise AssertionError(f"{sample} was accepted, {kind.__name__} expected")


CHECKS: dict[str, Callable[[OpSpec, Sample, np.random.Generator], None]] = {
    "shape and dtype": _shape_and_dtype,
    "gradient": _gradient,
    "complex step": _complex_step,
    "value": _value,
    "linear in g": _linear_in_g,
    "nothing written": _nothing_written,
    "nothing shared": _nothing_shared,
    "needs": _needs,
    "float32": _single,
    "any layout": _any_layout,
    "composed twin": _composed_twin,
    "threads": _threads,
    "special values": _special_values,
    "errors": _errors,
}
