"""Marian's names and sizes, as transformers has them: the original Transformer, with which the opus-mt models translate.

Its positions are sines and cosines in halves, which are not stored. The bias of its head is no parameter there and is not
learned; here it is one. PyTorch's gradient of the row of `pad_token_id`, with which a target begins, leaves out what that row
is looked up for; here it is whole.

Letters of shapes: V vocab_size, S that of the sources, C emb_dim, H hidden_dim; weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..checks import check_integer
from ..errors import ConfigError
from ..formats.open import CONFIG_FILE
from ..formats.source import TensorSource
from ..formats.strict_json import read_json
from ..models.seq2seq import TransformerConfig
from .public_config import make_config, read_flag, read_number, read_size, read_sizes
from .table import Found, Layout, Table, same_tensor
from .tensor_map import Entry


@dataclass(frozen=True)
class Row:
    ours: str  # {i} is the number of the layer
    transformers: str
    shape: str


def _block(stack: str, attention: str, norms: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a layer: `attention` is "att=self_attn" or more of them, `norms` what transformers calls norm1, norm2, ..."""
    ours, theirs = f"{stack}.{{i}}", f"{stack}.layers.{{i}}"
    for pair in attention.split():
        own, other = pair.split("=")
        for part, name in (("W_query", "q_proj"), ("W_key", "k_proj"), ("W_value", "v_proj"), ("out_proj", "out_proj")):
            yield Row(f"{ours}.{own}.{part}.weight", f"{theirs}.{other}.{name}.weight", "CC")
            yield Row(f"{ours}.{own}.{part}.bias", f"{theirs}.{other}.{name}.bias", "C")
    yield Row(f"{ours}.ff.layers.0.weight", f"{theirs}.fc1.weight", "HC")
    yield Row(f"{ours}.ff.layers.0.bias", f"{theirs}.fc1.bias", "H")
    yield Row(f"{ours}.ff.layers.2.weight", f"{theirs}.fc2.weight", "CH")
    yield Row(f"{ours}.ff.layers.2.bias", f"{theirs}.fc2.bias", "C")
    for i, name in enumerate(norms, 1):
        yield Row(f"{ours}.norm{i}.scale", f"{theirs}.{name}.weight", "C")
        yield Row(f"{ours}.norm{i}.shift", f"{theirs}.{name}.bias", "C")


ENCODER = tuple(_block("encoder", "att=self_attn", ("self_attn_layer_norm", "final_layer_norm")))
DECODER = tuple(
    _block(
        "decoder",
        "att=self_attn cross_att=encoder_attn",
        ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    )
)
ROWS = (
    Row("tok_emb.weight", "decoder.embed_tokens.weight", "VC"),  # "shared.weight" where there is one table for all
    Row("src_emb.weight", "encoder.embed_tokens.weight", "SC"),
    *ENCODER,
    *DECODER,
    Row("encoder_norm.scale", "", "C"),  # Marian has none
    Row("encoder_norm.shift", "", "C"),
    Row("decoder_norm.scale", "", "C"),
    Row("decoder_norm.shift", "", "C"),
    Row("out_head.weight", "lm_head.weight", "VC"),
    Row("out_head.bias", "final_logits_bias", "V"),
)

_SHARED = "shared.weight"
_WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.|model\.)*")
TRANSFORMERS = Layout("names of transformers", "transformers", wrappers=_WRAPPED, prefix="model.",
                      ignored=(_SHARED, *(f"{stack}.embed_positions.weight" for stack in ("encoder", "decoder"))))  # fmt: skip
OWN = Layout("names of a run", "ours", wrappers=_WRAPPED)


class TransformerTable(Table):
    architecture, name, model_types = "seq2seq", "Transformer", ("marian",)
    rows, layouts, written = ROWS, (TRANSFORMERS, OWN), TRANSFORMERS
    beside = ("lm_head", "final_logits_bias")
    layer = re.compile(
        r"(?:(?<=^encoder\.)|(?<=^decoder\.)|(?<=^encoder\.layers\.)|(?<=^decoder\.layers\.))\d{1,9}(?=\.)"
    )

    def sizes(self, config: TransformerConfig) -> dict[str, int]:
        return {"V": config.vocab_size, "S": config.source_vocabulary, "C": config.emb_dim, "H": config.hidden_width}

    def depths(self, config: TransformerConfig) -> dict[str, int]:
        return {"encoder": config.n_layers, "decoder": config.decoder_layers}

    def store(self, row: Row, i: int, config: TransformerConfig, layout: Layout) -> list[Entry]:
        (entry,) = super().store(row, i, config, layout)
        if row.ours == "out_head.bias" and layout is TRANSFORMERS:
            ours = entry.ours if config.head_bias else ()
            return [replace(entry, shape=(1, config.vocab_size), ours=ours, may_lack=True)]
        if row.ours == "tok_emb.weight" and layout is TRANSFORMERS and config.share == "all":
            return [replace(entry, theirs=_SHARED)]
        there = {"src_emb": config.share != "all", "out_head.bias": config.head_bias}
        there |= dict.fromkeys(("encoder_norm", "decoder_norm"), config.has_final_norms)
        return [entry] if there.get(row.ours, there.get(row.ours.split(".")[0], True)) else []

    def settle(
        self, config: TransformerConfig, found: Found, source: TensorSource, notes: list[str]
    ) -> tuple[TransformerConfig, frozenset[str]]:
        """What is one table here may stand in a file under each of its names; where they differ, each is one by itself."""
        if config.share == "none":
            return config, found.ignored
        ours = ("tok_emb.weight", "src_emb.weight", "out_head.weight")[:: 1 if config.share == "all" else 2]
        names = [self.name_of(name, found.layout) for name in ours]
        if found.layout is TRANSFORMERS and config.share == "all":
            names = [_SHARED, *names]
        there = [name for name in names if name in found.names]
        for name in there[1:]:
            if not same_tensor(source, found.names[there[0]], found.names[name]):
                notes.append(f"{name} differs from {there[0]}: source, target and head have weights of their own")
                return replace(config, share="none"), found.ignored
        if there and names[0] not in found.names:  # one tensor with several names is written once, under any
            found.names[names[0]] = found.names.pop(there[0])
        return config, found.ignored | {*there[1:]}

    def read_config(self, source: TensorSource) -> tuple[TransformerConfig | None, list[str], bool | None]:
        if not (path := source.folder / CONFIG_FILE).exists():
            return None, [], None
        return *from_transformers(read_json(path), str(path)), None

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[TransformerConfig, list[str]]:
        raise ConfigError(
            f"no {CONFIG_FILE} beside it: what a {self.name}'s weights do not tell (heads, activation, the scale of its "
            "embeddings, the token that begins a target) stands there: put it into the folder"
        )

    def write_config(self, config: TransformerConfig) -> dict[str, Any]:
        return to_transformers(config)


TABLE = TransformerTable()


# ---- its sizes and options in the words of transformers' config.json

# ours -> theirs, and the value where theirs says nothing (transformers' MarianConfig)
_SIZES = {
    "context_length": 1024,
    "emb_dim": 1024,
    "n_heads": 16,
    "n_layers": 12,
    "n_decoder_layers": 12,
    "hidden_dim": 4096,
}
_NAMES = {
    "context_length": "max_position_embeddings",
    "emb_dim": "d_model",
    "n_heads": "encoder_attention_heads",
    "n_layers": "encoder_layers",
    "n_decoder_layers": "decoder_layers",
    "hidden_dim": "encoder_ffn_dim",
}
_WORDS = _NAMES | {"vocab_size": "decoder_vocab_size", "source_vocab_size": "vocab_size"}
_ALIASES = {  # other words for the same, which transformers takes too
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}
_SAME = {"decoder_attention_heads": "encoder_attention_heads", "decoder_ffn_dim": "encoder_ffn_dim"}
_IDS = {"start_id": "decoder_start_token_id", "end_id": "eos_token_id", "pad_id": "pad_token_id"}
_DEFAULT_IDS = {"start_id": 58100, "end_id": 0, "pad_id": 58100}
_ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_python": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "relu": "relu",
    "swish": "silu",
    "silu": "silu",
}
# What changes the outputs and has no counterpart in transformers' Marian: the only value that can be loaded.
_FIXED = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
    "static_position_embeddings": True,
}
_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")
_EPS = 1e-5  # of all norms, which no field says


def from_transformers(config: Mapping[str, Any], where: str) -> tuple[TransformerConfig, list[str]]:
    """The model that a config.json describes, and notes. ConfigError names the field that cannot be."""
    config = {_ALIASES[field]: config[field] for field in _ALIASES if field in config} | dict(config)
    for field, value in _FIXED.items():
        if config.get(field, value) is not value:
            raise ConfigError(f"{where}: {field} is {config[field]!r:.80}: only {value} can be loaded")
    activation = config.get("activation_function", "gelu")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ConfigError(f"{where}: activation_function is {activation!r:.80}: use one of {', '.join(_ACTIVATIONS)}")
    sizes = read_sizes(_NAMES, _SIZES, config, where)
    for field, other in _SAME.items():
        own = next(ours for ours, theirs in _NAMES.items() if theirs == other)
        if (said := read_size(config, field, _SIZES[own], where)) != sizes[own]:
            raise ConfigError(f"{where}: {field} is {said}, {other} {sizes[own]}: both stacks have the same here")
    source_vocab = read_size(config, "vocab_size", 58101, where)
    vocab = (
        source_vocab
        if config.get("decoder_vocab_size") is None
        else read_size(config, "decoder_vocab_size", None, where)
    )
    tied = read_flag(config, "tie_word_embeddings", True, where)
    shared = read_flag(config, "share_encoder_decoder_embeddings", True, where)
    notes = []
    rates = {field: read_number(config, field, float(field == "dropout") / 10, where, below=1) for field in _DROPOUTS}
    if rates["attention_dropout"] != rates["dropout"] or rates["activation_dropout"]:
        notes.append(
            f"{rates}: the model has one rate, drop_rate {rates['dropout']}, for all but the feed-forward layers"
        )
    made = make_config(
        TransformerConfig,
        _WORDS | _IDS,
        sizes | {"vocab_size": vocab, "source_vocab_size": None if source_vocab == vocab else source_vocab},
        where,
        drop_rate=rates["dropout"],
        activation=_ACTIVATIONS[activation],
        norm_eps=_EPS,
        positions="halves",
        scale_embedding=read_flag(config, "scale_embedding", False, where),
        share="none" if not tied else "all" if shared else "target",
        head_bias=read_flag(config, "head_bias", True, where),
        **{ours: _read_id(config, field, _DEFAULT_IDS[ours], where) for ours, field in _IDS.items()},
    )
    return made, notes


def _read_id(config: Mapping[str, Any], field: str, default: int, where: str) -> int:
    value = config.get(field, default)
    return check_integer(
        f"{where}: {field}", value[0] if isinstance(value, list) and len(value) == 1 else value, least=0
    )


def to_transformers(config: TransformerConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model. `head_bias` is for us: by it zeros go away again."""
    wanted = {"positions": "halves", "norm_first": False, "has_final_norms": False, "norm_eps": _EPS}
    for name, value in wanted.items():
        if (said := getattr(config, name)) != value:
            raise ConfigError(
                f"{name.removeprefix('has_')} is {said!r}: transformers' Marian, the only form in which this model is written, "
                f"has {value!r}: make it so, or keep the run as it is"
            )
    activation = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}[config.activation]
    given = {"n_decoder_layers": config.decoder_layers, "hidden_dim": config.hidden_width}
    sizes = {theirs: given.get(ours, getattr(config, ours)) for ours, theirs in _NAMES.items()}
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": config.source_vocabulary,
        "decoder_vocab_size": config.vocab_size,
        **sizes,
        **{field: sizes[other] for field, other in _SAME.items()},
        "activation_function": activation,
        **dict.fromkeys(_DROPOUTS, 0.0),
        "dropout": config.drop_rate,
        "attention_dropout": config.drop_rate,
        "scale_embedding": config.scale_embedding,
        "tie_word_embeddings": config.share != "none",
        "share_encoder_decoder_embeddings": config.share == "all",
        **{theirs: getattr(config, ours) for ours, theirs in _IDS.items()},
        "forced_eos_token_id": None,
        "head_bias": config.head_bias,
    }
