"""The activations of one forward, and their gradients, by name: what `model.run_with_cache(...)` returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np

from ..engine import Op, Tensor
from ..errors import ConfigError
from ..tape.node import Node, path_of, scope, thaw
from ..tape.observer import Observer


class Cache(Mapping):
    """Name -> array, in the order in which they were computed; `grads` has dL/d(activation) under the same names."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.grads: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Any:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        named = [f"{name[-40:]} {array.shape}" for name, array in self.arrays.items()]
        some = ", ".join(named if len(named) <= 2 else [named[0], "...", named[-1]])
        return f"Cache of {len(self)} activations, {len(self.grads)} with a gradient{': ' * bool(some)}{some}"

    def _repr_html_(self) -> str:
        from ..debug.html import cache_html  # a notebook asks for it

        return cache_html(self)


class _Recorder(Observer):
    def __init__(self, names: str, grads: bool) -> None:
        super().__init__()
        self.names, self.with_grads = names, grads
        self.cache = Cache()
        self.all_names: list[str] = []
        self._seen: Counter[str] = Counter()
        self._paused = False

    def after_forward(
        self, op: Op, inputs: tuple, arrays: list, options: dict[str, Any], out: np.ndarray, node: Node | None
    ) -> None:
        if self._paused:
            return
        inside = scope.get()
        self._keep(f"{path_of(inside, op.name)}#", out, node)
        if op.name == "attention" and fnmatchcase(name := path_of(inside, "weights"), self.names):
            self._paused = True
            try:
                self._attend(name, op, arrays, options, node)
            finally:
                self._paused = False

    def after_module(self, module: Any, out: Any) -> None:
        name = path_of(scope.get())
        if isinstance(out, Tensor) and name and not self._paused:
            self._keep(name, out.data, out.node)

    def _keep(self, name: str, array: np.ndarray, node: Node | None) -> None:
        self._seen[name] += 1
        if name.endswith("#"):
            name = f"{name}{self._seen[name]}"
        elif self._seen[name] > 1:  # a module that is called again
            name = f"{name}#{self._seen[name]}"
        self.all_names.append(name)
        if fnmatchcase(name, self.names):
            self.cache.arrays[name] = array.copy()
            if node is not None and self.with_grads:
                node.hooks = [*(node.hooks or ()), partial(self._keep_gradient, name)]

    def _keep_gradient(self, name: str, g: np.ndarray) -> None:
        self.cache.grads[name] = g.copy()

    def _attend(self, name: str, op: Op, arrays: list, options: dict[str, Any], node: Node | None) -> None:
        """The probabilities, before dropout: from the twin of attention, whose softmax shows what the fused op keeps inside."""
        options = {**options, "drop_rate": 0.0, "rng": None} if node is None else thaw(node)
        q, k, v = (Tensor(array, requires_grad=True) for array in arrays)
        with _Softmax() as softmax:
            out = op.as_twin(q, k, v, **options)
        self.cache.arrays[name] = softmax.out
        if node is None or not self.with_grads or out.node is None:
            return

        def differentiate(g: np.ndarray) -> None:
            for step in out.backward_steps(g, into={}):
                if step.node is softmax.node:
                    self.cache.grads[name] = step.grad_out

        node.hooks = [*(node.hooks or ()), differentiate]


class _Softmax(Observer):
    out: np.ndarray
    node: Node | None

    def after_forward(
        self, op: Op, inputs: tuple, arrays: list, options: dict[str, Any], out: np.ndarray, node: Node | None
    ) -> None:
        if op.name == "softmax":
            self.out, self.node = out, node


def run_with_cache(
    model: Any, args: tuple, names: str, grads: bool, loss: Callable[[Any], Tensor] | None
) -> tuple[Any, Cache]:
    """What `Module.run_with_cache` does. ConfigError when no activation has such a name, or there is no loss to take."""
    with _Recorder(names, grads) as recorder:
        out = model(*args)
    if not recorder.cache.arrays:
        some = ", ".join(recorder.all_names[:: max(1, len(recorder.all_names) // 6)])
        raise ConfigError(f"run_with_cache: no activation is named {names!r}: there are {some}, ...")
    if grads:
        (loss(out) if loss is not None else _next_token_loss(args, out)).backward(into={})
    return out, recorder.cache


def _next_token_loss(args: tuple, logits: Any) -> Tensor:
    ids = np.asarray(args[0])
    shape = getattr(logits, "shape", ())
    if ids.dtype.kind not in "iu" or len(shape) != 3 or ids.shape != shape[:2] or ids.shape[1] < 2:
        raise ConfigError(
            f"run_with_cache: inputs {ids.shape} {ids.dtype} and output {shape} are not ids (B, T) and logits (B, T, V) of "
            "two tokens or more: pass loss=, a function of the output"
        )
    return Op.registry["cross_entropy"](logits[:, :-1], targets=ids[:, 1:])
