"""Module: a layer, or layers of layers, that knows its parameters by name."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar, Protocol, TypeVar, overload

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
    """A tensor that is learned: a leaf that requires a gradient. `lr`: a learning rate of its own (optim.decay_groups)."""

    __slots__ = ("lr",)

    def __init__(self, data: Any, lr: float | None = None) -> None:
        super().__init__(data, requires_grad=True)
        self.lr = lr


class Module:
    """Whatever is assigned to an attribute and is a Parameter or a Module belongs to it, in the order of assignment.

    Several modules go into a ModuleList or a ModuleDict: in a plain list or dict nobody would find them, so that is refused.
    Subclasses write `forward`; calling the module calls it. `training` is True until `eval()`.
    """

    training: bool = True
    ignored_keys: ClassVar[tuple[str, ...]] = ()  # names in other people's state dicts that hold nothing learned
    hooks: Hooks | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _PLAIN):
            _refuse_hidden(self, name, value)
        super().__setattr__(name, value)

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
                elif isinstance(value, _PLAIN):
                    _refuse_hidden(module, name, value)  # which may have been filled since it was assigned

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


_PLAIN = (list, tuple, set, frozenset, dict)


def _refuse_hidden(owner: Module, name: str, value: Any) -> None:
    """ConfigError where a plain container holds a Module or a Parameter, whose weights nobody would find."""
    found = _hidden_in(value)
    if found is not None:
        remedy = f"use nn.Module{'Dict' if isinstance(value, dict) else 'List'}(...)"
        if isinstance(found, Parameter):
            remedy = "give each Parameter an attribute of its own"
        raise ConfigError(
            f"{type(owner).__name__}.{name} is a plain {type(value).__name__} with a {type(found).__name__} in it, whose "
            f"weights would be neither learned nor saved: {remedy}"
        )


def _hidden_in(container: Any) -> Module | Parameter | None:
    """The first Module or Parameter in a container, or in those inside it."""
    items = [container]
    for item in items:
        if isinstance(item, (Module, Parameter)):
            return item
        if isinstance(item, _PLAIN) and len(items) < 1000:  # it may hold a million numbers, or itself
            items += islice(item.values() if isinstance(item, dict) else item, 1000)
    return None


def _a_module(where: str, module: Any) -> Module:
    if not isinstance(module, Module):
        raise ConfigError(f"{where} is {module!r:.60}: it must be a Module")
    return module


class ModuleList(Module):
    """Modules in a list, for a forward that goes through them in its own way; they are named "0", "1", ..."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self._hold(modules)

    def _hold(self, modules: Iterable[Module]) -> None:
        modules = [_a_module(f"{type(self).__name__}: item {i}", module) for i, module in enumerate(modules)]
        for name in [name for name, _ in self.named_children()]:
            delattr(self, name)
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def append(self, module: Module) -> None:
        self._hold([*self, module])

    def extend(self, modules: Iterable[Module]) -> None:
        self._hold([*self, *modules])

    def insert(self, i: int, module: Module) -> None:
        """Put a module before the i-th; those after it get the next number."""
        modules = list(self)
        modules.insert(i, module)
        self._hold(modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(dict(self.named_children()).values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @overload
    def __getitem__(self, i: int) -> Module: ...
    @overload
    def __getitem__(self: Self, i: slice) -> Self: ...
    def __getitem__(self, i: Any) -> Any:
        """The i-th module; of a slice, a list of the same modules."""
        picked = list(self)[i]
        if not isinstance(i, slice):
            return picked
        part = type(self).__new__(type(self))
        part._hold(picked)
        return part

    def __setitem__(self, i: int, module: Module) -> None:
        modules = list(self)
        modules[i] = module
        self._hold(modules)

    def __delitem__(self, i: int | slice) -> None:
        """Take modules out; those after them move up, and so do their names."""
        modules = list(self)
        del modules[i]
        self._hold(modules)


class Sequential(ModuleList):
    """Modules one after the other; they are named "0", "1", ..."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


class ModuleDict(Module):
    """Modules in a dict, in the order in which they came; each is named by its key."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        self.update(modules)

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        modules = dict(modules)
        for key, module in modules.items():
            where = f"{type(self).__name__}: {key!r}"
            if not isinstance(key, str) or not key or "." in key:
                raise ConfigError(
                    f"{where} cannot be a key: use a string without dots, which part the names of parameters"
                )
            if hasattr(type(self), key):
                raise ConfigError(f"{where} is an attribute of every {type(self).__name__}: choose another key")
            _a_module(where, module)
        for key, module in modules.items():
            setattr(self, key, module)

    def __setitem__(self, key: str, module: Module) -> None:
        self.update({key: module})

    def __getitem__(self, key: str) -> Module:
        return dict(self.named_children())[key]

    def __delitem__(self, key: str) -> None:
        self[key]  # a KeyError where there is none
        delattr(self, key)

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def keys(self) -> KeysView[str]:
        return dict(self.named_children()).keys()

    def values(self) -> ValuesView[Module]:
        return dict(self.named_children()).values()

    def items(self) -> ItemsView[str, Module]:
        return dict(self.named_children()).items()


class Mode(Protocol):
    """What is in training or not, as a Module is."""

    training: bool

    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...


@contextmanager
def evaluating(model: Mode) -> Iterator[None]:
    """Inside, the model is in evaluation mode: without dropout."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
