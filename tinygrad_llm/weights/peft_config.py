"""What PEFT's adapter_config.json says of LoRA: every field is read, refused by name, or known to change nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import check_flag, check_integer, check_number
from ..errors import CheckpointError, ConfigError
from ..formats.source import printable
from ..formats.strict_json import read_json

ADAPTER_CONFIG = "adapter_config.json"
_READ: tuple[str, ...] = (
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "target_modules",
    "modules_to_save",
    "rank_pattern",
)
_READ += ("alpha_pattern", "bias", "peft_type", "fan_in_fan_out", "init_lora_weights")
# What says nothing about what the adapter computes, or only together with a field of _UNSET.
_SAID: tuple[str, ...] = (
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "peft_version",
    "auto_mapping",
)
_SAID += ("megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config")
_SAID += ("runtime_config",)
_UNSET: tuple[Any, ...] = (None, False, [], {})  # of what is not implemented, and of fields that are not known
_INITS = (True, False, "gaussian", "orthogonal")  # the others change the weights of the base


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter_config.json says."""

    r: int
    alpha: float
    dropout: float
    use_rslora: bool
    targets: list[str] | None  # None for an expression, which the tensors have followed
    modules_to_save: list[str]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    def rank(self, module: str) -> int:
        return _of_pattern(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        alpha, r = _of_pattern(self.alpha_pattern, module, self.alpha), self.rank(module)
        return alpha / (math.sqrt(r) if self.use_rslora else r)


def _of_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first key that is the module's name or an end of it; with ^ before it, of the name alone."""
    for key, value in patterns.items():
        if module == key.removeprefix("^") or (not key.startswith("^") and module.endswith(f".{key}")):
            return value
    return default


def is_adapter(folder: str | os.PathLike[str]) -> bool:
    return Path(folder, ADAPTER_CONFIG).is_file()


def read_adapter_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What adapter_config.json holds. CheckpointError where there is none."""
    path = Path(folder, ADAPTER_CONFIG)
    if not path.exists():
        raise CheckpointError(f"{folder}: no adapter there: {ADAPTER_CONFIG} is missing")
    return read_json(path)


def check_adapter_config(values: Mapping[str, Any], where: str) -> AdapterConfig:
    """ConfigError names a field that cannot be, or is not implemented; nothing is ignored that changes what it computes."""
    if values.get("peft_type") != "LORA":
        raise ConfigError(f"{where}: peft_type is {values.get('peft_type')!r:.80}: only LORA can be loaded")
    for field, value in values.items():
        if field not in _READ + _SAID and value not in _UNSET:
            raise ConfigError(f"{where}: {printable(field)} is {value!r:.80}, which is not implemented here")
    if values.get("bias", "none") != "none":
        raise ConfigError(f"{where}: bias is {values['bias']!r:.80}: only 'none' can be loaded")
    if values.get("init_lora_weights", True) not in _INITS:
        raise ConfigError(
            f"{where}: init_lora_weights is {values['init_lora_weights']!r:.80}, which changes the weights of the base: save the "
            "adapter with path_initial_model_for_weight_conversion"
        )
    check_flag(f"{where}: fan_in_fan_out", values.get("fan_in_fan_out", False))
    targets = values.get("target_modules")
    if targets is not None and not isinstance(targets, str):
        _check_names(f"{where}: target_modules", targets)
    saved = values.get("modules_to_save")
    return AdapterConfig(
        r=check_integer(f"{where}: r", values.get("r", 8)),
        alpha=check_number(f"{where}: lora_alpha", values.get("lora_alpha", 8)),
        dropout=check_number(f"{where}: lora_dropout", values.get("lora_dropout", 0.0), below=1),
        use_rslora=check_flag(f"{where}: use_rslora", values.get("use_rslora", False)),
        targets=targets if isinstance(targets, list) else None,
        modules_to_save=[] if saved is None else _check_names(f"{where}: modules_to_save", saved),
        rank_pattern=_check_pattern(f"{where}: rank_pattern", values.get("rank_pattern"), check_integer),
        alpha_pattern=_check_pattern(f"{where}: alpha_pattern", values.get("alpha_pattern"), check_number),
    )


def _check_names(where: str, names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{where} is {names!r:.80}: it must be a list of names")
    return names


def _check_pattern(where: str, pattern: Any, check: Any) -> dict[str, Any]:
    if pattern is None:
        return {}
    if not isinstance(pattern, dict):
        raise ConfigError(f"{where} is {pattern!r:.80}: it must be an object")
    for key in pattern:
        if not re.fullmatch(r"\^?[\w.]+", key):  # theirs are regular expressions, whose cost nobody knows
            raise ConfigError(
                f"{where} has the key {printable(key)}: only names of modules, without wildcards, can be loaded"
            )
    return {key: check(f"{where}: {key}", value) for key, value in pattern.items()}


def alpha_of(scale: float, r: int, use_rslora: bool) -> float:
    """The alpha that gives this scale at rank r; an integer where it is one but for rounding, as they write it."""
    alpha = scale * (math.sqrt(r) if use_rslora else r)
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha
