"""Stop at the first NaN or infinity, and say where it was born and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Op, Tensor
from ..errors import NonFiniteError
from ..tape.node import Node, fused_in, path_of, scope
from ..tape.observer import Observer
from ..tape.places import caller, describe_place
from ..tape.step import Step

# op -> (the likely cause in the forward, what to do)
_CAUSES = {
    "log": ("the logarithm of 0 is -inf, of a negative number NaN", "add a small number or clip first"),
    "divide": ("a division by 0", "add a small number to the divisor, or choose with where()"),
    "sqrt": ("the root of a negative number", "clip at 0 first"),
    "exp": ("e^x overflows float32 from x = 88.7 on", "subtract the maximum first, as softmax does"),
    "power": ("0 to a negative power, a negative number to a broken one, or overflow", "clip the base"),
    "softmax": ("a row holds NaN or +inf", "look at the scores"),
    "cross_entropy": ("logits hold NaN or +inf, or the target has probability 0", "look at the logits"),
}
_BACKWARD_CAUSES = {
    "sqrt": ("the slope of a root at 0 is infinite", "add a small number before the root"),
    "log": ("the slope of the logarithm at 0 is infinite", "add a small number or clip first"),
    "divide": ("a division by 0, or by so small a number that x / y² overflows", "add a small number to the divisor"),
    "power": ("the slope of a power below 1 at 0 is infinite", "add a small number to the base"),
    "norm": ("the norm overflows", "scale the input down"),
}
_INFINITE = (
    "an operand is infinite: 0 * inf and inf - inf are NaN",
    "hide with where(), not by multiplying with -inf, or find where the infinity was made",
)
_OVERFLOW = (
    "numbers beyond the range of the dtype, or inf - inf",
    "lower the learning rate or the scale of the inputs",
)


class anomaly(Observer):
    """Within the `with` block, or until `.off()`, the first value that is not finite raises NonFiniteError where it arises.

    In the forward and in the backward. An infinity that an op was given (a mask of -inf) may pass; a NaN may not. The message
    has the op, its module, the user's line, how many and where, the ranges of the operands, the likely cause and what to do.
    """

    def after_forward(
        self, op: Op, inputs: tuple, arrays: list, options: dict[str, Any], out: np.ndarray, node: Node | None
    ) -> None:
        if out.dtype.kind not in "fc" or np.isfinite(out).all():
            return
        given = [*arrays, *(value for value in options.values() if isinstance(value, np.ndarray))]
        worst, pairs = max((_badness(array) for array in given), default=0), _pairs(inputs, arrays)
        came_in = worst >= _badness(out)
        from_outside = [array for x, array in pairs if not (isinstance(x, Tensor) and x.node)]
        if came_in and all(_badness(array) < 2 for array in from_outside):
            return  # its birth was reported, or it is a mask of infinities
        operands = "; ".join(
            f"{_operand(op, k, x)} {_range(array)}"
            for k, (x, array) in enumerate(zip(inputs, arrays, strict=True))
            if array is not None
        )
        cause = (
            ("an operand came in with NaN", "look at how it was made")
            if came_in
            else _CAUSES.get(op.name, _INFINITE if worst else _OVERFLOW)
        )
        where = path_of(scope.get(), op.name)
        raise NonFiniteError(
            f"anomaly: {op.name} ({where}, called at {_caller()}) gave {_count(out)}; operands: {operands}; "
            f"likely cause: {cause[0]}: {cause[1]}"
        )

    def after_backward(self, step: Step) -> None:
        if not np.isfinite(step.grad_out).all():
            raise NonFiniteError(
                f"anomaly: the gradient that comes into {step.op} ({step.name}, made at {step.site}) holds "
                f"{_count(step.grad_out)}: it was so given to backward(), or by a hook"
            )
        for k, gradient in enumerate(step.gradients):
            if gradient is None or np.isfinite(gradient).all():
                continue
            saved = "; ".join(
                f"{name} {_range(value)}" for name, value in step.saved.items() if isinstance(value, np.ndarray)
            )
            cause = _BACKWARD_CAUSES.get(step.op, _OVERFLOW)
            raise NonFiniteError(
                f"anomaly: {step.op}_backward ({step.name}, made at {step.site}) gave {_count(gradient)} in "
                f"d{_operand(step.node.op, k, step.node.parents[k])}, by {step.formula}; g {_range(step.grad_out)}; {saved}; "
                f"likely cause: {cause[0]}: {cause[1]}"
            )


def _pairs(inputs: tuple, arrays: list) -> list[tuple[Any, np.ndarray]]:
    return [(x, array) for x, array in zip(inputs, arrays, strict=True) if array is not None]


def _badness(array: Any) -> int:
    """0 all finite, 1 with infinities, 2 with NaN."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fc" or np.isfinite(array).all():
        return 0
    return 2 if np.isnan(array).any() else 1


def _count(array: np.ndarray) -> str:
    nans, infs = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    counts = " and ".join(f"{n} {word}" for n, word in ((nans, "NaN"), (infs, "Inf")) if n)
    return f"{counts} in {array.shape}, the first at {[int(i) for i in np.argwhere(~np.isfinite(array))[0]]}"


def _range(array: np.ndarray) -> str:
    finite = array[np.isfinite(array)] if array.dtype.kind in "fc" else array.reshape(-1)
    text = (
        f"{array.shape} in [{finite.min():.4g}, {finite.max():.4g}]"
        if finite.size
        else f"{array.shape}, nothing finite"
    )
    return text + (f" with {_count(array).split(' in ')[0]}" if _badness(array) else "")


def _caller() -> str:
    """Where the user called the op, or the fused op whose twin called it."""
    fused = fused_in(scope.get())
    return describe_place(caller(3) if fused is None else fused[1].place)


def _operand(op: Op, k: int, x: Any) -> str:
    """`weight = trf_blocks.0.ff.layers.0.weight`, the argument of the op and what was given for it, where that has a name."""
    name = x.name if isinstance(x, Tensor) else None
    return f"{op.argument(k)} = {name}" if name else op.argument(k)
