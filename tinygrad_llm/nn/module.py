"""Module: a layer, or layers of layers, that knows its parameters by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..checks import did_you_mean
from ..engine import Tensor
from ..errors import ConfigError, DTypeError, StateDictError
from ..tape.node import scope
from ..tape.observer import observers
from .activations import Cache, run_with_cache
from .hooks import Hook, Hooks

Self = TypeVar("Self", bound="Module")  # typing.Self came with Python 3.11


class Parameter(Tensor):
    """A tensor that is learned: a leaf that requires a gradient."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)


class Module:
    """Whatever is assigned to an attribute and is a Parameter or a Module belongs to it, in the order of assignment.

    Subclasses write `forward`; calling the module calls it. `training` is True until `eval()`.
    """

    training: bool = True
    ignored_keys: ClassVar[tuple[str, ...]] = ()  # names in other people's state dicts that hold nothing learned
    hooks: Hooks | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = scope.set((scope.get(), self))  # what is recorded now is ours
        try:
            out = self.forward(*args, **kwargs)
            if self.hooks is not None:
                out = self.hooks.call(self, args, out)
            for observer in observers.get():
                observer.after_module(self, out)
        finally:
            scope.reset(token)
        return out

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} has no forward(): a Module subclass must define it")

    def on_forward(self, hook: Callable[[Module, tuple, Any], Any]) -> Hook:
        """Call `hook(module, args, out)` after every forward; what it returns, unless None, takes the place of `out`.

        `.remove()` on the result, or leaving its `with` block, takes the hook away.
        """
        self.hooks = self.hooks or Hooks()
        return Hook(self.hooks.forward, hook)

    def on_backward(self, hook: Callable[[Module, np.ndarray], np.ndarray | None]) -> Hook:
        """Call `hook(module, g)` in every backward, g = dL/d(output) when it is complete; what it returns takes the place of g.

        For forwards that run from now on, whose output is one Tensor. `.remove()`, or the end of a `with` block, takes it away.
        """
        self.hooks = self.hooks or Hooks()
        return Hook(self.hooks.backward, hook)

    def run_with_cache(
        self, *args: Any, names: str = "*", grads: bool = False, loss: Callable[[Any], Tensor] | None = None
    ) -> tuple[Any, Cache]:
        """The output for `args`, and a Cache of the activations whose names match (`names="*.att.weights"`).

        A module's output has the module's path, an op's result `path.op#1`; the probabilities of attention are
        `path.weights` (B, H, T, S). With `grads`, `cache.grads` holds dL/d(activation) under the same names; L is `loss(out)`, by
        default the mean cross-entropy of the next tokens for ids (B, T). Gradients of parameters are left alone.
        """
        return run_with_cache(self, args, names, grads, loss)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all modules inside, with their paths: "", "trf_blocks", "trf_blocks.0", ..."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named_entries(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter under every name it has; a shared one comes more than once."""
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Each parameter once, with its path: ("trf_blocks.0.att.W_query.weight", ...)."""
        seen = set()
        for name, parameter in self._named_entries():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Each parameter once, as an optimizer takes them."""
        for _, parameter in self.named_parameters():
            yield parameter

    def n_parameters(self) -> int:
        """How many numbers are learned; a shared parameter counts once."""
        return sum(parameter.size for parameter in self.parameters())

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self: Self, mode: bool = True) -> Self:
        """Switch to training, in which dropout drops; returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch to evaluation, in which the result depends on the input alone; returns the module."""
        return self.train(False)

    def astype(self: Self, dtype: Any) -> Self:
        """Convert all parameters to float32 or float64, in place, and forget their gradients; returns the module."""
        dtype = np.dtype(dtype)
        if dtype not in (np.float32, np.float64):
            raise DTypeError(f"astype: {dtype} is not a dtype of parameters: use np.float32 or np.float64")
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data.astype(dtype), None
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Name -> array. The arrays are the parameters' own: copy those that should not change with them."""
        return {name: parameter.data for name, parameter in self._named_entries()}

    def load_state_dict(self, arrays: Mapping[str, Any]) -> None:
        """Copy `arrays` into the parameters, converted to their dtype. Names and shapes are checked before any is changed.

        A shared parameter may come under any of its names, with the same numbers under all. StateDictError lists what is
        missing, unexpected, misshapen or contradictory.
        """
        parameters = dict(self._named_entries())
        ignored = {
            f"{path}.{key}" if path else key for path, module in self.named_modules() for key in module.ignored_keys
        }
        given = {name: np.asarray(array) for name, array in arrays.items() if name not in ignored}
        first: dict[int, str] = {}  # the name under which each parameter comes first
        for name in given:
            if name in parameters:
                first.setdefault(id(parameters[name]), name)
        problems = [
            f"missing {name} {parameter.shape}" for name, parameter in parameters.items() if id(parameter) not in first
        ]
        for name, array in given.items():
            if name not in parameters:
                problems.append(f"unexpected {name} {array.shape}{did_you_mean(name, parameters)}")
            elif array.shape != parameters[name].shape:
                problems.append(f"{name} is {array.shape}, here it is {parameters[name].shape}")
            elif array.dtype.kind not in "fiu":
                problems.append(f"{name} holds {array.dtype}, not numbers")
            elif not np.array_equal(array, given[first[id(parameters[name])]], equal_nan=True):
                problems.append(f"{name} differs from {first[id(parameters[name])]}, here they are one parameter")
        if problems:
            shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
            raise StateDictError(f"load_state_dict: {shown}. Nothing was loaded")
        for name, array in given.items():
            parameters[name].data[...] = array

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({self.describe()})"]
        for name, child in self.named_children():
            lines += [f"  ({name}): " + repr(child).replace("\n", "\n  ")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from ..debug.html import module_html  # a notebook asks for it

        return module_html(self)

    def describe(self) -> str:
        """What stands between the parentheses of repr(): shapes and rates."""
        return ", ".join(f"{name} {value.shape}" for name, value in vars(self).items() if isinstance(value, Parameter))


class Sequential(Module):
    """Modules one after the other; they are named "0", "1", ..."""

    def __init__(self, *modules: Module) -> None:
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise ConfigError(f"Sequential: item {i} is {module!r:.60}: it must be a Module")
            setattr(self, str(i), module)

    def __iter__(self) -> Iterator[Module]:
        return iter(dict(self.named_children()).values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, i: int) -> Module:
        return list(self)[i]

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode: without dropout."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
