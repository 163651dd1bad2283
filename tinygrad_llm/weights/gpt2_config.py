"""GPT-2's sizes and options in the words of others: transformers' config.json, OpenAI's hparams.json, nanoGPT's model_args."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checks import check_flag, check_integer, check_number
from ..errors import ConfigError
from ..models.gpt import GPTConfig

# ours -> theirs, and the value where theirs says nothing (transformers' GPT2Config)
_SIZES = {"vocab_size": 50257, "context_length": 1024, "emb_dim": 768, "n_heads": 12, "n_layers": 12}
_COMMON = {"emb_dim": "n_embd", "n_heads": "n_head", "n_layers": "n_layer"}
_TRANSFORMERS = _COMMON | {"vocab_size": "vocab_size", "context_length": "n_positions"}
_ALIASES = {  # other words for the same in a config.json, which transformers takes too
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
}
_OPENAI = _COMMON | {"vocab_size": "n_vocab", "context_length": "n_ctx"}
_NANOGPT = _COMMON | {"vocab_size": "vocab_size", "context_length": "block_size"}

_ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
}
# What changes the outputs and has no counterpart here: the only value that can be loaded.
_FIXED = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def from_transformers(config: Mapping[str, Any], where: str) -> tuple[GPTConfig, list[str]]:
    """The model that a config.json describes, and notes. ConfigError names the field that cannot be."""
    notes = []
    config = {_ALIASES.get(field, field): value for field, value in config.items()}
    if config.get("model_type", "gpt2") != "gpt2":
        raise ConfigError(f"{where}: model_type is {config['model_type']!r:.80}: only gpt2 can be loaded")
    for field, value in _FIXED.items():
        if config.get(field, value) is not value:
            raise ConfigError(f"{where}: {field} is {config[field]!r:.80}: only {value} can be loaded")
    activation = config.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ConfigError(f"{where}: activation_function is {activation!r:.80}: use one of {', '.join(_ACTIVATIONS)}")
    rates = {field: _number(config, field, 0.1, where) for field in _DROPOUTS}
    if len(set(rates.values())) > 1:
        notes.append(f"{rates}: the model has one rate, drop_rate {rates['resid_pdrop']}, that of resid_pdrop")
    if config.get("reorder_and_upcast_attn", False) is not False:
        notes.append("reorder_and_upcast_attn is about 16-bit numbers and changes nothing here")
    n_inner = config.get("n_inner")
    made = _make(
        _TRANSFORMERS,
        config,
        where,
        drop_rate=rates["resid_pdrop"],
        qkv_bias=_flag(config, "qkv_bias", True, where),
        tie_weights=_flag(config, "tie_word_embeddings", True, where),
        activation=_ACTIVATIONS[activation],
        norm_eps=_number(config, "layer_norm_epsilon", 1e-5, where),
        hidden_dim=None if n_inner is None else _size("n_inner", n_inner, where),
    )
    return made, notes


def to_transformers(config: GPTConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model. `qkv_bias` is for us: with it, biases of zero go away again."""
    activation = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}[config.activation]
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for ours, theirs in _TRANSFORMERS.items()},
        "n_ctx": config.context_length,
        "n_inner": config.hidden_dim,
        "activation_function": activation,
        "layer_norm_epsilon": config.norm_eps,
        **dict.fromkeys(_DROPOUTS, config.drop_rate),
        "tie_word_embeddings": config.tie_weights,
        "qkv_bias": config.qkv_bias,
    }


def from_openai(hparams: Mapping[str, Any], where: str) -> tuple[GPTConfig, list[str]]:
    """The model that an hparams.json describes."""
    return _make(_OPENAI, hparams, where, qkv_bias=True, tie_weights=True), []


def from_nanogpt(arguments: Mapping[str, Any], where: str) -> tuple[GPTConfig, list[str]]:
    """The model that a checkpoint's model_args describe; nanoGPT's GELU is the exact one."""
    config = _make(
        _NANOGPT,
        arguments,
        where,
        drop_rate=_number(arguments, "dropout", 0.0, where),
        qkv_bias=_flag(arguments, "bias", True, where),
        tie_weights=True,
        activation="gelu_erf",
    )
    return config, ["the activation is nanoGPT's, gelu_erf, which is not in the file"]


def from_run(values: Mapping[str, Any], where: str) -> GPTConfig:
    """The model that the config.json of a run describes."""
    try:
        return GPTConfig(**values)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: model: {error}") from None


def _make(names: Mapping[str, str], values: Mapping[str, Any], where: str, **options: Any) -> GPTConfig:
    sizes: dict[str, Any] = {
        ours: _size(names[ours], values.get(names[ours], default), where) for ours, default in _SIZES.items()
    }
    try:
        return GPTConfig(**sizes, **options, init="gpt2")
    except ConfigError as error:
        message = str(error)
        for ours, theirs in {**names, "norm_eps": "layer_norm_epsilon", "hidden_dim": "n_inner"}.items():
            message = message.replace(ours, theirs)
        said = ", ".join(f"{names[ours]} {size:,}" for ours, size in sizes.items())
        raise ConfigError(f"{where}: {said}: {message}") from None


def _size(field: str, value: Any, where: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of numbers: 1e12 is 1000000000000
    return check_integer(f"{where}: {field}", value)


def _number(values: Mapping[str, Any], field: str, default: float, where: str) -> float:
    return check_number(f"{where}: {field}", values.get(field, default), below=1)


def _flag(values: Mapping[str, Any], field: str, default: bool, where: str) -> bool:
    return check_flag(f"{where}: {field}", values.get(field, default))
