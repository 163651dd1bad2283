"""Llama's names and sizes in the forms in which its weights are published. Reading and writing both follow this table.

Which features of a head make a rotary pair is a matter of the file: (2i, 2i + 1) in Meta's and llama2.c's, (i, i + d/2) in those
of transformers, of the book, and here. Queries and keys are put in order when they are read, and `check` notices a file that
was made otherwise.

Letters of shapes: V vocab_size, C emb_dim, H hidden_dim, Q all query heads, K all key heads; weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..checks import check_integer
from ..engine import no_grad
from ..errors import ConfigError, StateDictError, TokenizerError
from ..formats.open import CONFIG_FILE, PARAMS_FILE
from ..formats.source import TensorSource, printable
from ..formats.strict_json import read_json
from ..models import LanguageModel
from ..models.llama import LlamaConfig, hidden_dim_of
from ..ops import cross_entropy
from ..text import Tokenizer
from .public_config import make_config, read_flag, read_number, read_size, read_sizes
from .table import ClassHead, Found, Layout, Table
from .tensor_map import Entry, reorder_pairs


@dataclass(frozen=True)
class Row:
    ours: str  # {i} is the number of the layer
    transformers: str
    meta: str  # llama2.c has the same
    shape: str
    option: str = ""  # of LlamaConfig, without which the model has no such parameter


ROWS = (
    Row("tok_emb.weight", "embed_tokens.weight", "tok_embeddings.weight", "VC"),
    Row("trf_blocks.{i}.norm1.weight", "layers.{i}.input_layernorm.weight", "layers.{i}.attention_norm.weight", "C"),
    Row("trf_blocks.{i}.att.W_query.weight", "layers.{i}.self_attn.q_proj.weight", "layers.{i}.attention.wq.weight", "QC"),
    Row("trf_blocks.{i}.att.W_query.bias", "layers.{i}.self_attn.q_proj.bias", "", "Q", "qkv_bias"),
    Row("trf_blocks.{i}.att.W_key.weight", "layers.{i}.self_attn.k_proj.weight", "layers.{i}.attention.wk.weight", "KC"),
    Row("trf_blocks.{i}.att.W_key.bias", "layers.{i}.self_attn.k_proj.bias", "", "K", "qkv_bias"),
    Row("trf_blocks.{i}.att.W_value.weight", "layers.{i}.self_attn.v_proj.weight", "layers.{i}.attention.wv.weight", "KC"),
    Row("trf_blocks.{i}.att.W_value.bias", "layers.{i}.self_attn.v_proj.bias", "", "K", "qkv_bias"),
    Row("trf_blocks.{i}.att.out_proj.weight", "layers.{i}.self_attn.o_proj.weight", "layers.{i}.attention.wo.weight", "CQ"),
    Row("trf_blocks.{i}.att.out_proj.bias", "layers.{i}.self_attn.o_proj.bias", "", "C", "out_bias"),
    Row("trf_blocks.{i}.norm2.weight", "layers.{i}.post_attention_layernorm.weight", "layers.{i}.ffn_norm.weight", "C"),
    Row("trf_blocks.{i}.ff.fc1.weight", "layers.{i}.mlp.gate_proj.weight", "layers.{i}.feed_forward.w1.weight", "HC"),
    Row("trf_blocks.{i}.ff.fc1.bias", "layers.{i}.mlp.gate_proj.bias", "", "H", "bias"),
    Row("trf_blocks.{i}.ff.fc2.weight", "layers.{i}.mlp.up_proj.weight", "layers.{i}.feed_forward.w3.weight", "HC"),
    Row("trf_blocks.{i}.ff.fc2.bias", "layers.{i}.mlp.up_proj.bias", "", "H", "bias"),
    Row("trf_blocks.{i}.ff.fc3.weight", "layers.{i}.mlp.down_proj.weight", "layers.{i}.feed_forward.w2.weight", "CH"),
    Row("trf_blocks.{i}.ff.fc3.bias", "layers.{i}.mlp.down_proj.bias", "", "C", "bias"),
    Row("final_norm.weight", "norm.weight", "norm.weight", "C"),
    Row("out_head.weight", "lm_head.weight", "output.weight", "VC"),
)  # fmt: skip


# torch.compile, DataParallel and checkpoints of more than a model put words before the names; transformers one more.
_WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.|model\.)*")
TRANSFORMERS = Layout("names of transformers", "transformers", wrappers=_WRAPPED, interleaved=False, prefix="model.",
                      ignored=("layers.{i}.self_attn.rotary_emb.inv_freq",))  # fmt: skip
META = Layout("names of Meta", "meta", wrappers=_WRAPPED, interleaved=True,
              ignored=("rope.freqs", "freqs_cos", "freqs_sin"))  # fmt: skip
BOOK = Layout("names of the book", "ours", wrappers=_WRAPPED, interleaved=False,
              ignored=tuple(f"trf_blocks.{{i}}.att.{name}" for name in ("mask", "cos", "sin")))  # fmt: skip

# What both conventions are asked about: any text will do that a model for English can foresee in part.
SENTENCE = "Once upon a time there was a little girl who lived with her mother in a small house near the big forest."


class LlamaTable(Table):
    architecture, name, model_types = "llama", "Llama", ("llama", "mistral")
    rows, layouts, written = ROWS, (TRANSFORMERS, META, BOOK), TRANSFORMERS
    classifier = ClassHead("LlamaForSequenceClassification", "score")
    beside, task_type = ("lm_head", "score"), "CAUSAL_LM"
    layer = re.compile(r"(?:(?<=^layers\.)|(?<=^trf_blocks\.))\d{1,9}(?=\.)")

    def sizes(self, config: LlamaConfig) -> dict[str, int]:
        queries, keys = config.n_heads * config.head_width, config.kv_heads * config.head_width
        return {"V": config.vocab_size, "C": config.emb_dim, "H": config.hidden_width, "Q": queries, "K": keys}

    def store(self, row: Row, i: int, config: LlamaConfig, layout: Layout) -> list[Entry]:
        (entry,) = super().store(row, i, config, layout)
        if row.option and not getattr(config, row.option):
            # transformers has biases in all four layers of attention, or in none
            zeros = layout.column == "transformers" and row.option != "bias" and (config.qkv_bias or config.out_bias)
            return [replace(entry, ours=(), may_lack=True)] if zeros else []
        turned = {"W_query": config.n_heads, "W_key": config.kv_heads}.get(row.ours.split(".")[-2], 0)
        return [replace(entry, interleaved=turned if layout.interleaved else 0)]

    def read_config(self, source: TensorSource) -> tuple[LlamaConfig | None, list[str], bool | None]:
        if isinstance(arguments := source.metadata.get("model_args"), Mapping):
            return *from_meta(arguments, f"{source.path}: model_args", source), None
        if (path := source.folder / CONFIG_FILE).exists():
            return *from_transformers(read_json(path), str(path)), None
        if (path := source.folder / PARAMS_FILE).exists():
            return *from_meta(read_json(path), str(path), source), None
        return None, [], None

    def write_config(self, config: LlamaConfig) -> dict[str, Any]:
        return to_transformers(config)

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[LlamaConfig, list[str]]:
        def shape(ours: str) -> tuple[int, ...]:
            name = self.name_of(ours, found.layout)
            if len(found.shapes.get(name, ())) != 2:
                raise StateDictError(
                    f"missing {name}, or not a matrix: the sizes of the model cannot be told without it"
                )
            return found.shapes[name]

        def has(option: str) -> bool:
            names = (self.name_of(row.ours, found.layout) for row in self.rows if row.option == option)
            return any(name in found.names for name in names if name)

        vocab_size, emb_dim = shape("tok_emb.weight")
        queries, keys = (shape(f"trf_blocks.{{i}}.att.{name}.weight")[0] for name in ("W_query", "W_key"))
        said = f"queries of {queries} features and keys of {keys}"
        if n_heads is None and (queries % 128 or keys % 128):
            raise ConfigError(f"the number of heads cannot be told from {said}: pass n_heads=")
        head_dim = 128 if n_heads is None else queries // check_integer("n_heads", n_heads)
        if not head_dim or queries % head_dim or keys % head_dim or n_heads not in (None, queries // head_dim):
            raise ConfigError(f"n_heads is {n_heads}, which does not fit {said}")
        config = LlamaConfig(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            n_heads=queries // head_dim,
            n_layers=found.n_layers,
            n_kv_heads=keys // head_dim,
            hidden_dim=shape("trf_blocks.{i}.ff.fc1.weight")[0],
            head_dim=head_dim,
            qkv_bias=has("qkv_bias"),
            out_bias=has("out_bias"),
            bias=has("bias"),
            tie_weights=True,  # until the head is seen to differ
        )
        return config, [
            f"no configuration: {config.n_heads} heads of {head_dim}, a context of {config.context_length}, rope_theta "
            f"{config.rope_base:g} and rms_norm_eps {config.norm_eps} are Llama 2's, and not in the file"
        ]

    def check(self, model: LanguageModel, tokenizer: Tokenizer | None, layout: Layout) -> str | None:
        """A note if the pairs of the other convention give a text a loss that is lower by a nat: the file is not what it seems.

        Two forward passes over a sentence. None for a classifier, and for a tokenizer that cannot read the sentence.
        """
        if tokenizer is None:
            return None
        try:
            ids = np.array([tokenizer.encode_prompt(SENTENCE)[: model.config.context_length]])  # (1, T)
        except TokenizerError:
            return None
        if model.classes is not None or ids.size < 2 or ids.max() >= model.config.vocab_size:
            return None
        said, other = ("interleaved", "halves") if layout.interleaved else ("halves", "interleaved")
        loss = _loss(model, ids)
        _turn(model, bool(layout.interleaved))  # in place, a matrix at a time: little more memory than the model takes
        try:
            better = _loss(model, ids)
        finally:
            _turn(model, not layout.interleaved)
        if not better < loss - 1:
            return None
        return (
            f"a sentence has loss {loss:.2f} with the rotary pairs of files with {layout.name} ({said}), and {better:.2f} with "
            f"the others: queries and keys seem to be stored otherwise: pass rotary='{other}' (convert --rotary {other})"
        )


TABLE = LlamaTable()


def _loss(model: LanguageModel, ids: np.ndarray) -> float:
    with no_grad(), np.errstate(all="ignore"):  # weights that are NaN have had their warning
        return float(cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:]).data)


def _turn(model: LanguageModel, interleaved: bool) -> None:
    """Reorder the pairs of all queries and keys."""
    heads = {"W_query": model.config.n_heads, "W_key": model.config.kv_heads}
    for name, parameter in model.named_parameters():
        if n_heads := heads.get(name.split(".")[-2]):
            parameter.data = reorder_pairs(parameter.data, n_heads, interleaved)


# ---- its sizes and options in the words of others: transformers' config.json, Meta's params.json and llama2.c's header

# ours -> theirs, and the value where theirs says nothing (transformers' LlamaConfig and MistralConfig)
_COMMON = {"vocab_size": "vocab_size", "head_dim": "head_dim", "window": "sliding_window"}
_TRANSFORMERS = _COMMON | {
    "context_length": "max_position_embeddings",
    "emb_dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
}
_META = _COMMON | {
    "context_length": "max_seq_len",
    "emb_dim": "dim",
    "n_heads": "n_heads",
    "n_layers": "n_layers",
    "n_kv_heads": "n_kv_heads",
    "hidden_dim": "hidden_dim",
}
_SIZES: dict[str, int | None] = {
    "vocab_size": 32000,
    "context_length": 2048,
    "emb_dim": 4096,
    "n_heads": 32,
    "n_layers": 32,
}
_SIZES |= {"n_kv_heads": None, "hidden_dim": 11008, "head_dim": None}
_MISTRAL = _SIZES | {"context_length": 131072, "n_kv_heads": 8, "hidden_dim": 14336, "window": 4096}
_META_OPTIONS = ("multiple_of", "ffn_dim_multiplier", "norm_eps", "rope_theta", "dropout")
_SAYS_NOTHING = ("max_batch_size", "model_type", "model_parallel_size")
_THETA = 10000.0


def from_transformers(config: Mapping[str, Any], where: str) -> tuple[LlamaConfig, list[str]]:
    """The model that a config.json describes, and notes. ConfigError names the field that cannot be."""
    if config.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"{where}: hidden_act is {config['hidden_act']!r:.80}: only silu can be loaded")
    if config.get("quantization_config") is not None:
        raise ConfigError(f"{where}: quantization_config: numbers of few bits cannot be loaded")
    biases = read_flag(config, "attention_bias", False, where)
    mistral = config.get("model_type") == "mistral"
    defaults = _MISTRAL if mistral else _SIZES  # a window in the file of a Llama says nothing, as in transformers
    if mistral and config.get("sliding_window", 0) is None:
        defaults = _MISTRAL | {"window": None}
    made = make_config(
        LlamaConfig,
        _TRANSFORMERS | {"norm_eps": "rms_norm_eps", "rope_base": "rope_theta"},
        read_sizes(_TRANSFORMERS, defaults, config, where),
        where,
        drop_rate=read_number(config, "attention_dropout", 0.0, where, below=1),
        qkv_bias=read_flag(config, "qkv_bias", biases, where),
        out_bias=read_flag(config, "out_bias", biases, where),
        bias=read_flag(config, "mlp_bias", False, where),
        tie_weights=read_flag(config, "tie_word_embeddings", False, where),
        norm_eps=read_number(config, "rms_norm_eps", 1e-6, where, below=1),
        rope_base=_read_theta(config, where),
    )
    return made, []


def _read_theta(config: Mapping[str, Any], where: str) -> float:
    """rope_theta, which stands at the top in files before transformers 5. What scales the angles is refused."""
    theta = read_number(config, "rope_theta", _THETA, where)
    for field in ("rope_scaling", "rope_parameters"):
        said = config.get(field)
        if said is None:
            continue
        if not isinstance(said, dict):
            raise ConfigError(f"{where}: {field} is {said!r:.80}: it must be an object")
        for key, value in said.items():
            if key in ("rope_type", "type") and value != "default":
                raise ConfigError(f"{where}: {field}: {key} is {value!r:.80}: only 'default' can be loaded")
            if key not in ("rope_type", "type", "rope_theta") and value is not None:
                raise ConfigError(f"{where}: {field}: {printable(key)} is {value!r:.80}, which is not implemented here")
        theta = read_number(said, "rope_theta", theta, f"{where}: {field}")
    return theta


def to_transformers(config: LlamaConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model, of version 4 or 5. A model with a window is a Mistral there.

    `qkv_bias` and `out_bias` are for us: by them zeros go away again. ConfigError for what a Mistral cannot have.
    """
    window = config.window is not None
    biases = [name for name in ("qkv_bias", "out_bias", "bias") if getattr(config, name)]
    if window and (biases or config.global_every):
        besides = (biases or ["global_every"])[0]
        raise ConfigError(
            f"transformers has no Llama or Mistral with a window and {besides}: make it without one of them"
        )
    sizes = {theirs: getattr(config, ours) for ours, theirs in _TRANSFORMERS.items() if ours != "window" or window}
    given = {"n_kv_heads": config.kv_heads, "hidden_dim": config.hidden_width, "head_dim": config.head_width}
    return {
        "architectures": ["MistralForCausalLM" if window else "LlamaForCausalLM"],
        "model_type": "mistral" if window else "llama",
        **sizes,
        **{_TRANSFORMERS[ours]: size for ours, size in given.items()},
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "attention_dropout": config.drop_rate,
        "attention_bias": config.qkv_bias or config.out_bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tie_weights,
        "qkv_bias": config.qkv_bias,
        "out_bias": config.out_bias,
    }


def from_meta(arguments: Mapping[str, Any], where: str, source: TensorSource) -> tuple[LlamaConfig, list[str]]:
    """The model that a params.json, or llama2.c's header or model_args, describe; a vocab_size of -1 is told from shapes."""
    for field, value in arguments.items():
        if field not in (*_META.values(), *_META_OPTIONS, *_SAYS_NOTHING) and value not in (None, False):
            raise ConfigError(f"{where}: {printable(str(field))} is {value!r:.80}, which is not implemented here")
    values, notes = dict(arguments), []
    if values.get("vocab_size", -1) == -1:
        rows = [
            info.shape[0]
            for name, info in source.infos.items()
            if name.endswith("tok_embeddings.weight") and info.shape
        ]
        values["vocab_size"] = rows[0] if rows else -1
    if "max_seq_len" not in values:
        values["max_seq_len"] = 4096
        notes.append("the context length is not in the file: 4096, as in Llama 2")
    sizes = read_sizes(_META, dict.fromkeys(_META), values, where)
    if missing := [_META[ours] for ours in ("emb_dim", "n_heads", "n_layers") if sizes[ours] is None]:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    if sizes["hidden_dim"] is None:
        multiple = read_size(values, "multiple_of", 256, where)
        multiplier = values.get("ffn_dim_multiplier")
        times = 1.0 if multiplier is None else read_number(values, "ffn_dim_multiplier", 1.0, where, below=1e6)
        sizes["hidden_dim"] = hidden_dim_of(sizes["emb_dim"] or 0, multiple or 1, times)
    made = make_config(
        LlamaConfig,
        _META | {"rope_base": "rope_theta"},
        sizes,
        where,
        drop_rate=read_number(values, "dropout", 0.0, where, below=1),
        tie_weights=True,  # until the head is seen to differ
        norm_eps=read_number(values, "norm_eps", 1e-5, where, below=1),
        rope_base=read_number(values, "rope_theta", _THETA, where),
    )
    return made, notes
