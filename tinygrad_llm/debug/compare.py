"""Two models side by side: the first activation or gradient in which they differ. For "my weights load wrong"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..nn import Module
from ..nn.activations import Cache
from ..rng import Generator, use_generator


@dataclass(frozen=True)
class Comparison:
    """The first difference, in the order in which things are computed. True in a condition when there is none."""

    compared: int
    name: str = ""
    kind: str = ""  # "activation" or "gradient"
    index: tuple[int, ...] = ()
    a: float = 0.0
    b: float = 0.0
    relative_error: float = 0.0  # the largest |a - b|, divided by the largest |a|
    note: str = ""

    def __bool__(self) -> bool:
        return not self.name

    def __str__(self) -> str:
        if not self.name:
            return f"compare: {self.compared} arrays agree"
        if not self.index and self.note:
            return f"compare: the first to differ is the {self.kind} {self.name}: {self.note}"
        text = (
            f"compare: the first to differ is the {self.kind} {self.name}: at {list(self.index)} it is {self.a:.6g} and "
            f"{self.b:.6g}, relative error {self.relative_error:.2g}; {self.compared} before it agree"
        )
        return f"{text}; {self.note}" if self.note else text


def compare(
    a: Module, b: Module | Mapping[str, Any], ids: Any, *, grads: bool = False, rtol: float = 1e-4, loss: Any = None
) -> Comparison:
    """Run `a`, and `b` when it is a model, on the same input, and find the first activation that differs.

    Args:
        a: a model. b: another, or stored arrays by name, as `run_with_cache` names them; names that one side lacks are
            passed over.
        ids: the input, (B, T). Both draw the same dropout.
        grads: compare the gradients of the activations too, last layer first; `loss` as in `run_with_cache`.
        rtol: how far they may differ, relative to the largest element.

    ConfigError when no name is common to both.
    """
    ours = _run(a, ids, grads, loss)
    if isinstance(b, Module):
        theirs: Any = _run(b, ids, grads, loss)
    else:
        theirs = Cache()
        theirs.arrays = {name: np.asarray(array) for name, array in b.items()}
        theirs.grads = dict(getattr(b, "grads", {}))
    common = [name for name in ours if name in theirs]
    if not common:
        raise ConfigError(
            f"compare: no name is common to both: here {', '.join(list(ours)[:3])}, ..., there {list(theirs)[:3]}"
        )
    pairs = [("activation", name, ours[name], theirs[name]) for name in common]
    if grads:
        pairs += [
            ("gradient", name, ours.grads[name], theirs.grads[name])
            for name in reversed(common)
            if name in ours.grads and name in theirs.grads
        ]
    for n, (kind, name, x, y) in enumerate(pairs):
        if x.shape != y.shape:
            return Comparison(n, name, kind, note=f"it is {x.shape} and {y.shape}")
        off = np.abs(x.astype(np.float64) - y)
        off = np.where(x == y, 0, np.where(np.isnan(off), np.inf, off))  # the same infinities, and NaN on one side
        if off.size and off.max() > rtol * np.abs(x[np.isfinite(x)]).max(initial=1e-30):
            index = tuple(map(int, np.unravel_index(int(np.argmax(off)), off.shape)))
            relative = float(off.max() / np.abs(x[np.isfinite(x)]).max(initial=1e-30))
            note = _weights_that_differ(a, b, name) if isinstance(b, Module) else ""
            return Comparison(n, name, kind, index, float(x[index]), float(y[index]), relative, note)
    return Comparison(len(pairs))


def _run(model: Module, ids: Any, grads: bool, loss: Any) -> Cache:
    with use_generator(Generator(0)):
        return model.run_with_cache(ids, grads=grads, loss=loss)[1]


def _weights_that_differ(a: Module, b: Module, name: str) -> str:
    """The parameters of the module in question that are not the same."""
    there = dict(b.named_parameters())
    module = name.partition("#")[0]
    module = module if any(path == module for path, _ in a.named_modules()) else module.rpartition(".")[0]
    differing = [
        key
        for key, parameter in a.named_parameters()
        if (not module or key.startswith(module + "."))
        and key in there
        and not np.array_equal(parameter.data, there[key].data)
    ]
    return f"its weights differ: {', '.join(differing[:6])}" if differing else ""
