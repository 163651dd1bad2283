"""LoRA: tune a model by thin matrices beside its frozen ones, keep them in PEFT's files, and fold them in (nn/lora.py).

lora.inject(model, r=16, alpha=32)                    # beside the attention's Linears; all else is frozen
lora.save(model, "adapter")                           # adapter_config.json and adapter_model.safetensors
lora.load(base, "adapter")                            # into the model it belongs to
lora.merge(model)                                     # as fast as without; lora.unmerge(model) brings the bits back
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..checks import check_options
from ..errors import ConfigError
from ..models import Model
from ..nn.lora import LoRAConfig, lora_of, merge, unmerge
from ..nn.lora import inject as _inject
from ..rng import Generator
from ..text import Tokenizer
from ..weights import load_pretrained
from ..weights.peft import load_adapter as load
from ..weights.peft import save_adapter as save
from ..weights.peft_config import is_adapter, read_adapter_config

__all__ = ["LoRAConfig", "LoRAInfo", "info", "inject", "load", "merge", "parse", "save", "unmerge"]


def inject(
    model: Model,
    r: int = 4,
    alpha: float = 8.0,
    targets: Iterable[str] | str = ("attn",),
    *,
    dropout: float = 0.0,
    whole: Iterable[str] | str = (),
    use_rslora: bool = False,
    init: str = "kaiming",
    rng: Generator | None = None,
) -> Model:
    """Put A (r, I) and B (O, r) beside every Linear (O, I) that `targets` names, and freeze the rest; returns the model.

    The options are those of LoRAConfig; A is drawn from `rng` or the current generator. Make the optimizer after this, with
    `decay_groups(model.parameters())`. ConfigError, with nothing changed, for what cannot be.
    """
    targets, whole = (names if isinstance(names, str) else tuple(names) for names in (targets, whole))
    config = LoRAConfig(r, alpha, dropout, targets, whole, use_rslora, init)  # type: ignore[arg-type]
    _inject(model, config, rng)
    return model


def parse(text: str) -> LoRAConfig:
    """The configuration that "r=16,alpha=32,targets=W_query+W_value,dropout=0.05" says; what it does not say is the default.

    Several names are joined by +. ConfigError names the key that cannot be.
    """
    values: dict[str, Any] = {}
    kinds = {field.name: str(field.type) for field in fields(LoRAConfig)}
    for part in text.split(",") if text else []:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ConfigError(f"lora: {part!r:.80} is not KEY=VALUE, such as r=16")
        check_options("lora", [key], LoRAConfig)
        if key in values:
            raise ConfigError(f"lora: {key} is given twice")
        values[key] = _parsed(key, value, kinds[key])
    return LoRAConfig(**values)


def _parsed(key: str, value: str, kind: str) -> Any:
    if kind == "bool":
        if value.lower() not in ("true", "false"):
            raise ConfigError(f"lora: {key} is {value!r:.80}: use true or false")
        return value.lower() == "true"
    if kind.startswith("tuple"):
        return tuple(value.split("+"))
    try:
        return {"int": int, "float": float, "str": str}[kind](value)
    except ValueError:
        raise ConfigError(
            f"lora: {key} is {value!r:.80}: it must be a{'n integer' if kind == 'int' else ' number'}"
        ) from None


@dataclass(frozen=True)
class LoRAInfo:
    """How much of a model is trained, and how LoRA was put in."""

    trainable_params: int
    all_params: int  # those of LoRA among them
    base: str | None  # the path of the model, if it is known
    lora: LoRAConfig | None  # None: the model has none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"lora": self.lora and self.lora.to_dict()}

    def __str__(self) -> str:
        """PEFT's line, and another."""
        share = 100 * self.trainable_params / self.all_params
        line = (
            f"trainable params: {self.trainable_params:,} || all params: {self.all_params:,} || trainable%: {share:.4f}"
        )
        if self.lora is None:
            return f"{line}\nno LoRA, or it is merged"
        lora = self.lora
        line += f"\nr {lora.r}, alpha {lora.alpha:g}, scale {lora.scale:g}, dropout {lora.dropout:g}, beside "
        return line + ", ".join(lora.targets) + (f"; trained whole: {', '.join(lora.whole)}" if lora.whole else "")


def info(model: Model | str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> LoRAInfo:
    """What is trained of a model, of the one in a run's folder, or by an adapter in PEFT's files.

    An adapter is counted inside its `base`, by default what its configuration names, where that is a path that is there.
    CheckpointError for another folder, or an adapter whose base is not at hand.
    """
    if not isinstance(model, Model):
        model, _ = open_model(model, base)
    return LoRAInfo(
        sum(p.size for p in model.parameters() if p.requires_grad),
        model.n_parameters(),
        model.loaded_from,
        lora_of(model),
    )


def open_model(
    path: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
    checkpoint: str | int | None = None,
) -> tuple[Model, Tokenizer | None]:
    """The model of a run and its tokenizer, or those of `base` with the adapter at `path` in the model.

    `checkpoint` as in `load_run`.
    """
    if not is_adapter(path):
        if base is not None:
            raise ConfigError(
                f"{path} is no adapter, and base is {os.fspath(base)}: an adapter has a base, a run is whole"
            )
        return load_pretrained(path, checkpoint=checkpoint)
    if base is None:
        base = read_adapter_config(path).get("base_model_name_or_path")
        if not isinstance(base, str) or not os.path.exists(base):
            raise ConfigError(f"{path}: an adapter, whose base {base!r:.80} is not here: name it (base=, --base)")
    model, tokenizer = load_pretrained(base, checkpoint=checkpoint)
    load(model, path)
    return model, tokenizer
