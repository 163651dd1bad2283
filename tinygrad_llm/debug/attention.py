"""What a step of attention keeps inside: the matrices that its formula names, from its twin."""

from __future__ import annotations

import math
from contextvars import Context

import numpy as np

from ..engine import Tensor
from ..tape.node import thaw
from ..tape.step import Step

_ELEMENTS = 2**20  # of a matrix of all heads, beyond which it is not made


def matrices(step: Step) -> dict[str, np.ndarray]:
    """P, dP and dS of a step of attention, (B, H, T, S) each; {} of any other op, and of matrices that are too large.

    P is before dropout, and dP what comes back to it; S are the scores divided by √d.
    """
    if step.op != "attention" or not step.walk.repeats:
        return {}
    n_queries, n_keys = step.args["q"].shape[1], step.args["k"].shape[1]
    if len(step.args["q"]) * step.node.options["n_heads"] * n_queries * n_keys > _ELEMENTS:
        return {}
    return Context().run(_from_twin, step)  # where nobody watches, and nothing is paused


def _from_twin(step: Step) -> dict[str, np.ndarray]:
    inputs = [Tensor(array, requires_grad=True) for array in step.args.values()]
    y = step.node.op.as_twin(*inputs, **thaw(step.node))
    for inner in y.backward_steps(step.grad_out, into={}):
        if inner.op == "softmax":
            return {"P": inner.saved["p"], "dP": inner.grad_out, "dS": inner.gradients[0]}
    return {}


def heads(step: Step) -> list[dict[str, np.ndarray]]:
    """The matrices (T, S) of each head, in the first row of the batch."""
    found = matrices(step)
    n = found["P"].shape[1] if found and math.prod(found["P"].shape) else 0
    return [{name: matrix[0, h] for name, matrix in found.items()} for h in range(n)]
