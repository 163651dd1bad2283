"""GPT-2's names and sizes in the forms in which its weights are published. Reading and writing both follow this table.

Letters of shapes: V vocab_size, T context_length, C emb_dim, H hidden_dim; weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, StateDictError
from ..formats.open import CONFIG_FILE, HPARAMS_FILE
from ..formats.source import TensorSource
from ..formats.strict_json import read_json
from ..models.gpt import GPTConfig
from .public_config import make_config, read_flag, read_number, read_size, read_sizes
from .table import ClassHead, Found, Layout, Table
from .tensor_map import Entry


@dataclass(frozen=True)
class Row:
    ours: str  # {i} is the number of the layer; {qkv} three parameters that the others keep as one
    transformers: str  # nanoGPT has the same
    openai: str
    shape: str  # of each of ours
    may_lack: bool = False  # nanoGPT can be trained without biases


ROWS = (
    Row("tok_emb.weight", "wte.weight", "model/wte", "VC"),
    Row("pos_emb.weight", "wpe.weight", "model/wpe", "TC"),
    Row("trf_blocks.{i}.norm1.scale", "h.{i}.ln_1.weight", "model/h{i}/ln_1/g", "C"),
    Row("trf_blocks.{i}.norm1.shift", "h.{i}.ln_1.bias", "model/h{i}/ln_1/b", "C", may_lack=True),
    Row("trf_blocks.{i}.att.W_{qkv}.weight", "h.{i}.attn.c_attn.weight", "model/h{i}/attn/c_attn/w", "CC"),
    Row("trf_blocks.{i}.att.W_{qkv}.bias", "h.{i}.attn.c_attn.bias", "model/h{i}/attn/c_attn/b", "C"),
    Row("trf_blocks.{i}.att.out_proj.weight", "h.{i}.attn.c_proj.weight", "model/h{i}/attn/c_proj/w", "CC"),
    Row("trf_blocks.{i}.att.out_proj.bias", "h.{i}.attn.c_proj.bias", "model/h{i}/attn/c_proj/b", "C", may_lack=True),
    Row("trf_blocks.{i}.norm2.scale", "h.{i}.ln_2.weight", "model/h{i}/ln_2/g", "C"),
    Row("trf_blocks.{i}.norm2.shift", "h.{i}.ln_2.bias", "model/h{i}/ln_2/b", "C", may_lack=True),
    Row("trf_blocks.{i}.ff.layers.0.weight", "h.{i}.mlp.c_fc.weight", "model/h{i}/mlp/c_fc/w", "HC"),
    Row("trf_blocks.{i}.ff.layers.0.bias", "h.{i}.mlp.c_fc.bias", "model/h{i}/mlp/c_fc/b", "H", may_lack=True),
    Row("trf_blocks.{i}.ff.layers.2.weight", "h.{i}.mlp.c_proj.weight", "model/h{i}/mlp/c_proj/w", "CH"),
    Row("trf_blocks.{i}.ff.layers.2.bias", "h.{i}.mlp.c_proj.bias", "model/h{i}/mlp/c_proj/b", "C", may_lack=True),
    Row("final_norm.scale", "ln_f.weight", "model/ln_f/g", "C"),
    Row("final_norm.shift", "ln_f.bias", "model/ln_f/b", "C", may_lack=True),
    Row("out_head.weight", "lm_head.weight", "", "VC"),  # OpenAI's head is the token embedding
)


# torch.compile, DataParallel and checkpoints of more than a model put words before the names; transformers and nanoGPT one more.
_BARE, _WRAPPED = re.compile(""), re.compile(r"^(?:_orig_mod\.|module\.|model\.)*")
_WRAPPED_GPT2 = re.compile(_WRAPPED.pattern + r"(?:transformer\.)?")
_MASKS = ("h.{i}.attn.bias", "h.{i}.attn.masked_bias")
TRANSFORMERS = Layout("names of transformers", "transformers", True, True, _WRAPPED_GPT2, _MASKS, "transformer.")
NANOGPT = Layout("names of nanoGPT", "transformers", False, True, _WRAPPED_GPT2, _MASKS)
OPENAI = Layout("names of OpenAI", "openai", True, True, _BARE, ("global_step",))
BOOK = Layout("names of the book", "ours", False, False, _WRAPPED, ("trf_blocks.{i}.att.mask",))


class GPTTable(Table):
    architecture, name, model_types = "gpt", "GPT-2", ("gpt2",)
    rows, layouts, written = ROWS, (TRANSFORMERS, OPENAI, BOOK), TRANSFORMERS
    classifier = ClassHead("GPT2ForSequenceClassification", "score")
    beside, task_type = ("lm_head", "score"), "CAUSAL_LM"
    layer = re.compile(r"(?:(?<=^h\.)|(?<=^trf_blocks\.)|(?<=^model/h))\d{1,9}(?=[./])")

    def sizes(self, config: GPTConfig) -> dict[str, int]:
        hidden_dim = config.hidden_dim or 4 * config.emb_dim
        return {"V": config.vocab_size, "T": config.context_length, "C": config.emb_dim, "H": hidden_dim}

    def store(self, row: Row, i: int, config: GPTConfig, layout: Layout) -> list[Entry]:
        made = super().store(row, i, config, layout)
        if not (
            config.qkv_bias if row.ours.endswith("{qkv}.bias") else config.bias or not row.may_lack
        ):  # zeros, in forms that always have them
            return [Entry(e.theirs, e.shape, (), may_lack=True) for e in made] if layout.fused else []
        if layout is OPENAI:
            made = [replace(e, shape=(1, *e.shape)) if e.transposed else e for e in made]
        return [replace(e, may_lack=layout is NANOGPT and row.may_lack) for e in made]

    def refine(self, layout: Layout, shapes: Mapping[str, tuple[int, ...]], transposed: bool | None) -> Layout:
        if layout is TRANSFORMERS and not (_is_conv1d(shapes) if transposed is None else transposed):
            return NANOGPT
        return layout

    def read_config(self, source: TensorSource) -> tuple[GPTConfig | None, list[str], bool | None]:
        if isinstance(arguments := source.metadata.get("model_args"), Mapping):
            return *from_nanogpt(arguments, f"{source.path}: model_args"), False
        if (path := source.folder / HPARAMS_FILE).exists():
            return *from_openai(read_json(path), str(path)), True
        if not (path := source.folder / CONFIG_FILE).exists():
            return None, [], None
        values = read_json(path)
        if "block_size" in values:  # nanoGPT's model_args, written beside weights in safetensors
            return *from_nanogpt(values, str(path)), None
        return *from_transformers(values, str(path)), True

    def write_config(self, config: GPTConfig) -> dict[str, Any]:
        return to_transformers(config)

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[GPTConfig, list[str]]:
        layout, notes = found.layout, []

        def shape(ours: str) -> tuple[int, ...]:
            name = self.name_of(ours, layout)
            if len(found.shapes.get(name, ())) < 2:
                raise StateDictError(
                    f"missing {name}, or not a matrix: the sizes of the model cannot be told without it"
                )
            return found.shapes[name][-2:]

        vocab_size, emb_dim = shape("tok_emb.weight")
        hidden_dim = shape("trf_blocks.{i}.ff.layers.0.weight")[1 if layout.transposed else 0]
        if n_heads is None:
            if emb_dim % 64:
                raise ConfigError(f"the number of heads cannot be told from a width of {emb_dim}: pass n_heads=")
            n_heads = emb_dim // 64
            notes.append(
                f"n_heads is not in the file: {n_heads}, 64 numbers for each as in GPT-2; pass n_heads= if not so"
            )
        return GPTConfig(
            vocab_size=vocab_size,
            context_length=shape("pos_emb.weight")[0],
            emb_dim=emb_dim,
            n_heads=n_heads,
            n_layers=found.n_layers,
            qkv_bias=self.name_of("trf_blocks.{i}.att.W_{qkv}.bias", layout) in found.names,
            bias=any(self.name_of(row.ours, layout) in found.names for row in self.rows if row.may_lack),
            tie_weights=True,  # until the head is seen to differ
            activation="gelu_erf" if layout is NANOGPT else "gelu",
            hidden_dim=None if hidden_dim == 4 * emb_dim else hidden_dim,
            init="gpt2",
        ), notes


TABLE = GPTTable()


def _is_conv1d(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """(C, 3C) rather than (3C, C), for most of the layers; where nothing is known, transformers' own."""
    votes = [s[0] < s[1] for name, s in shapes.items() if name.endswith("attn.c_attn.weight") and len(s) == 2]
    return 2 * sum(votes) >= len(votes)


# ---- its sizes and options in the words of others: transformers' config.json, OpenAI's hparams.json, nanoGPT's model_args

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
    for field, value in _FIXED.items():
        if config.get(field, value) is not value:
            raise ConfigError(f"{where}: {field} is {config[field]!r:.80}: only {value} can be loaded")
    activation = config.get("activation_function", "gelu_new")
    if not isinstance(activation, str) or activation not in _ACTIVATIONS:
        raise ConfigError(f"{where}: activation_function is {activation!r:.80}: use one of {', '.join(_ACTIVATIONS)}")
    rates = {field: read_number(config, field, 0.1, where, below=1) for field in _DROPOUTS}
    if len(set(rates.values())) > 1:
        notes.append(f"{rates}: the model has one rate, drop_rate {rates['resid_pdrop']}, that of resid_pdrop")
    if config.get("reorder_and_upcast_attn", False) is not False:
        notes.append("reorder_and_upcast_attn is about 16-bit numbers and changes nothing here")
    made = _make(
        _TRANSFORMERS,
        config,
        where,
        drop_rate=rates["resid_pdrop"],
        qkv_bias=read_flag(config, "qkv_bias", True, where),
        bias=read_flag(config, "bias", True, where),
        tie_weights=read_flag(config, "tie_word_embeddings", True, where),
        activation=_ACTIVATIONS[activation],
        norm_eps=read_number(config, "layer_norm_epsilon", 1e-5, where, below=1),
        hidden_dim=read_size(config, "n_inner", None, where),
    )
    return made, notes


def to_transformers(config: GPTConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model. `qkv_bias` and `bias` are for us: by them zeros go away again."""
    for name in ("n_kv_heads", "window"):
        if (value := getattr(config, name)) is not None:
            raise ConfigError(
                f"{name} is {value}: transformers' GPT-2 has no such thing: a llama has (--architecture llama)"
            )
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
        "bias": config.bias,
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
        drop_rate=read_number(arguments, "dropout", 0.0, where, below=1),
        qkv_bias=read_flag(arguments, "bias", True, where),
        bias=read_flag(arguments, "bias", True, where),
        tie_weights=True,
        activation="gelu_erf",
    )
    return config, ["the activation is nanoGPT's, gelu_erf, which is not in the file"]


def _make(names: Mapping[str, str], values: Mapping[str, Any], where: str, **options: Any) -> GPTConfig:
    words = {**names, "norm_eps": "layer_norm_epsilon", "hidden_dim": "n_inner"}
    return make_config(GPTConfig, words, read_sizes(names, _SIZES, values, where), where, **options, init="gpt2")
