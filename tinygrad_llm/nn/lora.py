"""LoRA: a frozen matrix learns through a product of two thin ones (Hu et al. 2021 §4.1; the book's appendix E).

    y = W x + b + s B A x,   A (r, I), B (O, r),   s = α/r,  or α/√r (Kalajdzievski 2023)

B is zero at first, so that nothing has changed before the first step. Letters in shape comments: ... leading axes, I inputs,
O outputs, r the rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from .. import ops
from ..checks import check_flag, check_integer, check_number, check_options, did_you_mean
from ..engine import Tensor
from ..errors import ConfigError
from ..rng import Generator, get_generator
from .layers import Dropout, Linear
from .module import Module, Parameter

INITS = ("kaiming", "book")
_MAX_RANK = 65_536


@dataclass(frozen=True)
class LoRAConfig:
    """Which Linears learn through thin matrices, and how; checked when it is made.

    `targets`: names of Linears or their ends ("W_query", "ff.layers.0"), with * for anything; "attn" for those of the
    attention, "all" for every one, the head among them. `whole`: modules that are trained as they are, named the same way.
    `init`: A is drawn from ±1/√I, PEFT's and loralib's "kaiming", or from ±1/√r, the book's. `dropout` acts on the input of A.
    """

    r: int = 4
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("attn",)
    whole: tuple[str, ...] = ()
    use_rslora: bool = False
    init: str = "kaiming"

    def __post_init__(self) -> None:
        r = check_integer("LoRA: r", self.r)
        if r > _MAX_RANK:
            raise ConfigError(f"LoRA: r is {r:,}: it must be {_MAX_RANK:,} or less, and is meant to be small")
        object.__setattr__(self, "r", r)
        object.__setattr__(self, "alpha", check_number("LoRA: alpha", self.alpha))
        object.__setattr__(self, "dropout", check_number("LoRA: dropout", self.dropout, below=1))
        for name in ("targets", "whole"):
            object.__setattr__(self, name, _names(f"LoRA: {name}", getattr(self, name)))
        if not self.targets:
            raise ConfigError("LoRA: targets is empty: name Linears, or use attn or all")
        check_flag("LoRA: use_rslora", self.use_rslora)
        if self.init not in INITS:
            raise ConfigError(f"LoRA: init is {self.init!r:.80}: use {' or '.join(INITS)}")

    @property
    def scale(self) -> float:
        """What the product of the thin matrices counts."""
        return self.alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as config.json has them."""
        return asdict(self) | {"targets": list(self.targets), "whole": list(self.whole)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoRAConfig:
        """From plain values. ConfigError names what cannot be."""
        check_options("lora", values, cls)
        return cls(**values)


def _names(where: str, names: Any) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)):
        raise ConfigError(f"{where} is {names!r:.80}: it must be a list of names")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where} has {name!r:.80} in it: it must hold names")
    return tuple(names)


@dataclass
class _Apart:
    """What a merged layer was: its own weight, and the thin matrices, which are no parameters meanwhile."""

    weight: np.ndarray
    lora_A: Parameter
    lora_B: Parameter


class LoRALinear(Linear):
    """A Linear whose weight and bias are frozen, under the names they had, and beside them A and B: (..., I) -> (..., O)."""

    def __init__(self, linear: Linear, config: LoRAConfig, *, rng: Generator | None = None) -> None:
        rng = rng or get_generator()
        n_out, n_in = linear.weight.shape
        self.weight, self.bias = linear.weight, linear.bias
        bound = 1 / math.sqrt(n_in if config.init == "kaiming" else config.r)
        dtype = linear.weight.dtype
        self.lora_A = Parameter(rng.uniform(-bound, bound, (config.r, n_in)).astype(dtype, copy=False))
        self.lora_B = Parameter(np.zeros((n_out, config.r), dtype))
        self.lora_dropout = Dropout(config.dropout)
        self.lora_config = config
        self._apart: _Apart | None = None
        self.hooks = linear.hooks
        self.train(linear.training)

    @property
    def merged(self) -> bool:
        return self._apart is not None

    def forward(self, x: Tensor) -> Tensor:
        y = ops.linear(x, self.weight, self.bias)  # (..., O)
        if self.merged:
            return y
        low = ops.linear(self.lora_dropout(x), self.lora_A) * self.lora_config.scale  # (..., r), where scaling is cheap
        return y + ops.linear(low, self.lora_B)  # (..., O)

    def merge(self) -> None:
        """W <- W + s B A; the thin matrices are set apart."""
        if self._apart is None:
            self._apart = _Apart(self.weight.data, self.lora_A, self.lora_B)
            self.weight.data = (
                self.lora_config.scale * (self.lora_B.data @ self.lora_A.data) + self.weight.data
            )  # (O, I)
            del self.lora_A, self.lora_B

    def unmerge(self) -> None:
        """The weight and the thin matrices as they were, to the bit, in the dtype that the model has now."""
        if self._apart is not None:
            dtype = self.weight.dtype
            self.weight.data = self._apart.weight.astype(dtype, copy=False)
            for name in ("lora_A", "lora_B"):
                parameter = getattr(self._apart, name)
                parameter.data = parameter.data.astype(dtype, copy=False)
                setattr(self, name, parameter)
            self._apart = None

    def describe(self) -> str:
        how = "merged" if self.merged else f"scale {self.lora_config.scale:g}"
        return f"{super().describe()}, r {self.lora_config.r}, {how}"


def inject(model: Module, config: LoRAConfig, rng: Generator | None = None) -> None:
    """Put thin matrices beside the Linears that `config` names, and freeze everything else but what it trains whole.

    A is drawn from `rng` or the current generator, in the order of the model. What the model computes stays the same to the
    bit until the first step. ConfigError, with nothing changed, for a name that fits nothing (it lists what there is), a model
    that has LoRA, a Linear to be trained both ways, or a weight that another module shares, which merging would change in
    both places; "all" leaves such a one out.
    """
    if next(_layers(model), None) is not None:
        raise ConfigError("inject: the model has LoRA layers: merge(model, keep=False) makes them plain Linears first")
    modules = dict(model.named_modules())
    linears = {path: module for path, module in modules.items() if type(module) is Linear}
    whole = _find("whole", config.whole, [path for path in modules if path])
    trained = {id(p) for path in whole for p in modules[path].parameters()}
    for path in whole:
        for name, parameter in modules[path].named_parameters():
            _refuse_shared(model, f"{path}.{name}", parameter)
    chosen = choose(linears, config.targets)
    made: dict[int, LoRALinear] = {}  # a Linear that stands in two places gets one
    for path, by in chosen.items():
        if id(linears[path].weight) in trained:
            if by == "all":
                continue
            raise ConfigError(f"inject: {path} is among targets ({by}) and is to be trained whole: choose one")
        if by == "all" and _sharing(model, linears[path].weight):
            continue
        _refuse_shared(model, f"{path}.weight", linears[path].weight)
        made[id(linears[path])] = None  # type: ignore[assignment]
    if not made:
        raise ConfigError("inject: no Linear is left for LoRA: those that targets names are trained whole or shared")
    for parameter in model.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad, parameter.grad = False, None
    for path, linear in linears.items():
        if id(linear) not in made:
            continue
        made[id(linear)] = layer = made[id(linear)] or LoRALinear(linear, config, rng=rng)
        layer.lora_A.name, layer.lora_B.name = f"{path}.lora_A", f"{path}.lora_B"
        _replace(model, path, layer)


def merge(model: Module, *, keep: bool = True) -> None:
    """Fold B A into W everywhere, so that the model costs what it did without LoRA, and is saved and exported as such.

    Outputs are those of before to rounding, not to the bit: W x + s B A x is summed in another order. The matrices are kept
    for `unmerge`; without `keep` they are gone, plain Linears are there again, and every parameter is trained again.
    ConfigError if there are none.
    """
    for path, layer in _some_layers(model, "merge"):
        layer.merge()
        if not keep:
            plain = Linear.__new__(Linear)
            plain.weight, plain.bias, plain.hooks, plain.training = (
                layer.weight,
                layer.bias,
                layer.hooks,
                layer.training,
            )
            _replace(model, path, plain)
    if not keep:
        for parameter in model.parameters():
            parameter.requires_grad = True


def unmerge(model: Module) -> None:
    """Take the thin matrices out of W again: the model is to the bit what it was before `merge`.

    The weights were kept; nothing is subtracted. ConfigError if the model has no LoRA layers.
    """
    for _, layer in _some_layers(model, "unmerge"):
        layer.unmerge()


def lora_of(model: Module) -> LoRAConfig | None:
    """How LoRA was put into a model; None where there is none, or it is merged."""
    return next((layer.lora_config for _, layer in _layers(model) if not layer.merged), None)


def choose(names: Collection[str], patterns: Iterable[str]) -> dict[str, str]:
    """name -> the pattern that fits it, in the order of the names. ConfigError for a pattern that fits none."""
    found: dict[str, str] = {}
    for pattern in patterns:
        if pattern == "all":
            hits = list(names)
        elif pattern == "attn":
            hits = [name for name in names if "att" in name.split(".")[:-1]]
        else:
            hits = _find("targets", [pattern], names)
        if not hits:
            raise ConfigError(f"inject: targets has {pattern!r}: {_there_is(names)}")
        for name in hits:
            if found.get(name, "all") == "all":  # what is named is meant, whatever else fits
                found[name] = pattern
    return {name: found[name] for name in names if name in found}


def shorten(chosen: Collection[str], names: Collection[str]) -> list[str]:
    """The shortest list of ends of names that means the `chosen` ones of all `names`: "att.W_query" for one in every layer."""

    def end(name: str) -> str:
        return re.split(r"(?:^|\.)\d+\.", name, maxsplit=1)[-1]

    complete = {end(name) for name in chosen} - {end(name) for name in names if name not in chosen}
    return list(dict.fromkeys(end(name) if end(name) in complete else name for name in names if name in chosen))


def _find(where: str, patterns: Iterable[str], names: Collection[str]) -> list[str]:
    """The names that end as a pattern says. ConfigError for one that fits none."""
    found: list[str] = []
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]
        if not hits:
            raise ConfigError(f"inject: {where} has {pattern!r:.80}: {_there_is(names, pattern)}")
        found += hits
    return list(dict.fromkeys(found))


def _there_is(names: Collection[str], pattern: str = "") -> str:
    ends = shorten(names, names)
    shown = ", ".join(ends[:12]) + (f" and {len(ends) - 12} more" if len(ends) > 12 else "")
    return f"nothing has that name{did_you_mean(pattern, ends)}; there are {shown or 'none'}"


def _layers(model: Module) -> Iterator[tuple[str, LoRALinear]]:
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield path, module


def _some_layers(model: Module, what: str) -> list[tuple[str, LoRALinear]]:
    if not (layers := list(_layers(model))):
        raise ConfigError(f"{what}: the model has no LoRA layers: inject them, or load an adapter")
    return layers


def _sharing(model: Module, parameter: Parameter) -> list[str]:
    """The names of a parameter that several modules have; none of one that has a single owner."""
    owners: dict[int, str] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if value is parameter:
                owners.setdefault(id(module), f"{path}.{name}".lstrip("."))
    return list(owners.values()) if len(owners) > 1 else []


def _refuse_shared(model: Module, name: str, parameter: Parameter) -> None:
    if others := [other for other in _sharing(model, parameter) if other != name]:
        raise ConfigError(
            f"inject: {name} is {others[0]} too, and would change in both places: leave it out, or untie them first"
        )


def _replace(model: Module, path: str, module: Module) -> None:
    """Put a module where another one is."""
    *parents, name = path.split(".")
    owner: Any = model
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, module)
