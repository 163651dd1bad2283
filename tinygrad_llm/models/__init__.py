"""Models: base is what they have in common, then a file each, which reads from top to bottom."""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ..checks import check_options
from ..errors import ConfigError
from ..nn.lora import LoRAConfig, inject, lora_of
from ..rng import Generator
from .base import Config, LanguageModel, Model, TextModel
from .bert import BertConfig, BertModel
from .gpt import GPTConfig, GPTModel
from .heads import PolicyAndValue, add_classifier, check_head, describe_head
from .hyena import HyenaConfig, HyenaModel
from .llama import LlamaConfig, LlamaModel
from .rwkv import RwkvConfig, RwkvModel
from .seq2seq import TransformerConfig, TransformerModel
from .vit import ViTConfig, ViTModel

__all__ = [
    "PRESETS",
    "BertConfig",
    "BertModel",
    "GPTConfig",
    "GPTModel",
    "HyenaConfig",
    "HyenaModel",
    "LanguageModel",
    "LlamaConfig",
    "LlamaModel",
    "Model",
    "RwkvConfig",
    "RwkvModel",
    "TextModel",
    "TransformerConfig",
    "TransformerModel",
    "ViTConfig",
    "ViTModel",
    "architectures",
    "build_model",
    "describe_model",
    "make_config",
    "make_model",
    "model_class",
    "preset",
    "pretraining_of",
]


def preset(name: str, **changes: Any) -> Any:
    """A named configuration with some keys changed: `preset("124M", context_length=256)`."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is not one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    return make_config(config.architecture, config.to_dict() | changes)


def architectures(kind: type[Model] = Model) -> list[str]:
    """The names that `make_model` knows, of models of a kind: the files of this folder that hold a model of that name."""
    return [name for _, name, _ in iter_modules(__path__) if (model := _find(name)) and issubclass(model, kind)]


def pretraining_of(architecture: str) -> str:
    """The name of the task that models of an architecture are pretrained by, on a text alone; "" for none."""
    model = _find(architecture)
    return "" if model is None else model.pretraining


def model_class(architecture: Any) -> type[Model]:
    """The model of that name. ConfigError for one that is not known."""
    model = _find(architecture) if isinstance(architecture, str) else None
    if model is None:
        raise ConfigError(f"architecture is {architecture!r}: use one of {', '.join(architectures())}")
    return model


def make_config(architecture: str, config: Mapping[str, Any]) -> Any:
    """The configuration of a model from plain values, such as a config.json's. ConfigError names what cannot be."""
    kind = model_class(architecture).config_class
    check_options(architecture, config, kind)
    return kind(**config)


def make_model(architecture: str, config: Any, rng: Generator | None = None) -> Any:
    """A model with fresh weights, drawn from `rng` or the current generator. `config` is its configuration, or plain values.

    ConfigError for an architecture, an option or a size that cannot be, before anything is allocated.
    """
    config = make_config(architecture, config) if isinstance(config, Mapping) else config
    model = _find(architecture)
    if model is None or not isinstance(config, model.config_class):
        raise ConfigError(f"make_model: {type(config).__name__} is not the configuration of a {architecture!r}")
    return model(config, rng=rng)


def build_model(about: Mapping[str, Any], rng: Generator | None = None) -> LanguageModel | PolicyAndValue:
    """The model that a run's config.json describes, with fresh weights: its "architecture" and "model", its "head" for
    classes if it has one, then its "lora". With a "value", which describes a second one, the two are a pair.

    Its state dict has the names of the run's weights. ConfigError for what cannot be; other keys say nothing about the model.
    """
    if "value" in about:
        policy, value = (_build(part, rng) for part in (about, about["value"]))
        return PolicyAndValue(policy, value)
    return _build(about, rng)


def _build(about: Mapping[str, Any], rng: Generator | None) -> LanguageModel:
    model = make_model(about.get("architecture", "gpt"), about["model"], rng)
    if "head" in about:
        check_head("head", about["head"])
        add_classifier(model, **about["head"], rng=rng)
    if "lora" in about:
        inject(model, LoRAConfig.from_dict(about["lora"]), rng)
    return model


def describe_model(model: LanguageModel | PolicyAndValue) -> dict[str, Any]:
    """What `build_model` makes the same model of, as JSON has it: the keys of a run's config.json that are about the model."""
    if isinstance(model, PolicyAndValue):
        return describe_model(model.policy) | {"value": describe_model(model.value)}
    head, lora = describe_head(model), lora_of(model)
    return {
        "architecture": model.architecture,
        "model": model.config.to_dict(),
        **({} if head is None else {"head": head}),
        **({} if lora is None else {"lora": lora.to_dict()}),
    }


def _find(architecture: str) -> type[Model] | None:
    """The model of a file of this folder."""
    if architecture not in {name for _, name, _ in iter_modules(__path__)}:
        return None
    for value in vars(import_module(f"{__name__}.{architecture}")).values():
        if isinstance(value, type) and issubclass(value, Model) and vars(value).get("architecture") == architecture:
            return value
    return None


# Named configurations, those of each file: so a model is one file, its sizes among it.
PRESETS: dict[str, Config] = {
    name: config
    for architecture in architectures()
    for name, config in getattr(import_module(f"{__name__}.{architecture}"), "PRESETS", {}).items()
}
