"""The sizes and options of a model in the words of others: their configurations, field by field. ConfigError names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..checks import check_flag, check_integer, check_number
from ..errors import ConfigError
from ..models.base import Config

_ACTIVATIONS = {  # of transformers' encoders -> ours; those that are written first
    "gelu": "gelu_erf",
    "gelu_new": "gelu",
    "relu": "relu",
    "silu": "silu",
    "gelu_python": "gelu_erf",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "swish": "silu",
}


def read_activation(values: Mapping[str, Any], where: str) -> str:
    """What an encoder's hidden_act is called here."""
    activation = values.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ConfigError(f"{where}: hidden_act is {activation!r:.80}: use one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[activation]


def activation_name(ours: str) -> str:
    """The hidden_act of an activation of ours."""
    return next(name for name, activation in _ACTIVATIONS.items() if activation == ours)


def read_size(values: Mapping[str, Any], field: str, default: int | None, where: str) -> int | None:
    """A positive integer; None only where that is the default."""
    value = values.get(field, default)
    if value is None and default is None:
        return None
    if isinstance(value, float) and value.is_integer() and value < 2**63:
        value = int(value)  # JSON has one kind of numbers: 1e12 is 1000000000000; but 1e300 would fill a page
    return check_integer(f"{where}: {field}", value)


def read_number(values: Mapping[str, Any], field: str, default: float, where: str, *, below: float = math.inf) -> float:
    return check_number(f"{where}: {field}", values.get(field, default), below=below)


def read_flag(values: Mapping[str, Any], field: str, default: bool, where: str) -> bool:
    return check_flag(f"{where}: {field}", values.get(field, default))


def read_sizes(
    names: Mapping[str, str], defaults: Mapping[str, int | None], values: Mapping[str, Any], where: str
) -> dict[str, int | None]:
    """Ours -> size. `names`: ours -> theirs; `defaults`: ours -> what holds where theirs says nothing."""
    return {ours: read_size(values, names[ours], default, where) for ours, default in defaults.items()}


def make_config(
    config_class: type[Config], names: Mapping[str, str], sizes: Mapping[str, Any], where: str, **options: Any
) -> Any:
    """The configuration of a model that can be made, whose complaints are put in their words."""
    try:
        config = config_class(**sizes, **options)
        config.check_bytes()
        return config
    except ConfigError as error:
        message = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(error))
        said = ", ".join(f"{names[ours]} {size:,}" for ours, size in sizes.items() if size is not None)
        raise ConfigError(f"{where}: {said}: {message}") from None
