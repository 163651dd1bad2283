"""Functions of the user that a module calls after its forward, and when the gradient of its output is complete."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..engine import Tensor
from ..errors import GraphError


class Hooks:
    """The hooks of one module."""

    def __init__(self) -> None:
        self.forward: list[Callable[..., Any]] = []
        self.backward: list[Callable[..., Any]] = []

    def call(self, module: Any, args: tuple, out: Any) -> Any:
        for hook in list(self.forward):
            changed = hook(module, args, out)
            out = out if changed is None else changed
        for hook in list(self.backward):
            if not isinstance(out, Tensor):
                raise GraphError(
                    f"on_backward: {type(module).__name__} returns {type(out).__name__}: it must be one Tensor"
                )
            if out.node is not None:
                out.node.hooks = [*(out.node.hooks or ()), partial(hook, module)]
        return out

    def __deepcopy__(self, memo: dict) -> Hooks:
        return Hooks()  # a copied model is not watched


class Hook:
    """A hook that can be taken away again."""

    def __init__(self, hooks: list, hook: Callable[..., Any]) -> None:
        self._hooks, self._hook = hooks, hook
        hooks.append(hook)

    def remove(self) -> None:
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    def __enter__(self) -> Hook:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
