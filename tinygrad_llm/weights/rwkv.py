"""RWKV-4's names and sizes in the forms in which its weights are published. Reading and writing both follow this table.

The files of BlinkDL, who made it, are pickles (.pth), which `tinygrad-llm convert` reads; rwkv.cpp keeps their names, and has no
sizes of 1. transformers' own say `rescale_every`, by which the model is evaluated with smaller numbers, and theirs do not.

Letters of shapes: V vocab_size, C emb_dim, A attention_dim, H hidden_dim, 1 itself; weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..checks import check_integer, is_integer
from ..errors import StateDictError
from ..formats.open import CONFIG_FILE
from ..formats.source import TensorSource
from ..formats.strict_json import read_json
from ..models.rwkv import RwkvConfig
from .public_config import make_config, read_flag, read_number, read_size, read_sizes
from .table import Found, Layout, Table
from .tensor_map import Entry


@dataclass(frozen=True)
class Row:
    ours: str  # {i} is the number of the layer
    transformers: str
    blinkdl: str
    shape: str  # in both; ours and rwkv.cpp's have no sizes of 1


_ATT, _FF = "blocks.{i}.attention.", "blocks.{i}.feed_forward."
ROWS = (
    Row("tok_emb.weight", "embeddings.weight", "emb.weight", "VC"),
    Row("emb_norm.scale", "blocks.0.pre_ln.weight", "blocks.0.ln0.weight", "C"),
    Row("emb_norm.shift", "blocks.0.pre_ln.bias", "blocks.0.ln0.bias", "C"),
    Row("trf_blocks.{i}.norm1.scale", "blocks.{i}.ln1.weight", "blocks.{i}.ln1.weight", "C"),
    Row("trf_blocks.{i}.norm1.shift", "blocks.{i}.ln1.bias", "blocks.{i}.ln1.bias", "C"),
    Row("trf_blocks.{i}.att.decay", _ATT + "time_decay", "blocks.{i}.att.time_decay", "A"),
    Row("trf_blocks.{i}.att.first", _ATT + "time_first", "blocks.{i}.att.time_first", "A"),
    Row("trf_blocks.{i}.att.mix_key", _ATT + "time_mix_key", "blocks.{i}.att.time_mix_k", "11C"),
    Row("trf_blocks.{i}.att.mix_value", _ATT + "time_mix_value", "blocks.{i}.att.time_mix_v", "11C"),
    Row("trf_blocks.{i}.att.mix_receptance", _ATT + "time_mix_receptance", "blocks.{i}.att.time_mix_r", "11C"),
    Row("trf_blocks.{i}.att.key.weight", _ATT + "key.weight", "blocks.{i}.att.key.weight", "AC"),
    Row("trf_blocks.{i}.att.value.weight", _ATT + "value.weight", "blocks.{i}.att.value.weight", "AC"),
    Row("trf_blocks.{i}.att.receptance.weight", _ATT + "receptance.weight", "blocks.{i}.att.receptance.weight", "AC"),
    Row("trf_blocks.{i}.att.output.weight", _ATT + "output.weight", "blocks.{i}.att.output.weight", "CA"),
    Row("trf_blocks.{i}.norm2.scale", "blocks.{i}.ln2.weight", "blocks.{i}.ln2.weight", "C"),
    Row("trf_blocks.{i}.norm2.shift", "blocks.{i}.ln2.bias", "blocks.{i}.ln2.bias", "C"),
    Row("trf_blocks.{i}.ff.mix_key", _FF + "time_mix_key", "blocks.{i}.ffn.time_mix_k", "11C"),
    Row("trf_blocks.{i}.ff.mix_receptance", _FF + "time_mix_receptance", "blocks.{i}.ffn.time_mix_r", "11C"),
    Row("trf_blocks.{i}.ff.key.weight", _FF + "key.weight", "blocks.{i}.ffn.key.weight", "HC"),
    Row("trf_blocks.{i}.ff.receptance.weight", _FF + "receptance.weight", "blocks.{i}.ffn.receptance.weight", "CC"),
    Row("trf_blocks.{i}.ff.value.weight", _FF + "value.weight", "blocks.{i}.ffn.value.weight", "CH"),
    Row("final_norm.scale", "ln_out.weight", "ln_out.weight", "C"),
    Row("final_norm.shift", "ln_out.bias", "ln_out.bias", "C"),
    Row("out_head.weight", "head.weight", "head.weight", "VC"),
)

# torch.compile, DataParallel and checkpoints of more than a model put words before the names; transformers one more.
_WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.|model\.)*(?:rwkv\.)?")
TRANSFORMERS = Layout("names of transformers", "transformers", wrappers=_WRAPPED, prefix="rwkv.")
BLINKDL = Layout("names of BlinkDL", "blinkdl", wrappers=_WRAPPED)
RWKVCPP = Layout("names of BlinkDL, as rwkv.cpp stores them", "blinkdl", wrappers=_WRAPPED)
BOOK = Layout("names of the book", "ours", wrappers=_WRAPPED)


class RwkvTable(Table):
    architecture, name, model_types = "rwkv", "RWKV-4", ("rwkv",)
    rows, layouts, written = ROWS, (TRANSFORMERS, BLINKDL, BOOK), TRANSFORMERS
    beside, task_type = ("head",), "CAUSAL_LM"
    layer = re.compile(
        r"(?:(?<=^blocks\.)|(?<=^trf_blocks\.))\d{1,9}(?=\.(?!pre_ln|ln0))"
    )  # these two are the first's alone

    def sizes(self, config: RwkvConfig) -> dict[str, int]:
        sizes = {"V": config.vocab_size, "C": config.emb_dim, "A": config.attention_width, "H": config.hidden_width}
        return sizes | {"1": 1}

    def refine(self, layout: Layout, shapes: Mapping[str, tuple[int, ...]], transposed: bool | None) -> Layout:
        flat = len(shapes.get("blocks.0.att.time_mix_k", ())) == 1
        return RWKVCPP if layout is BLINKDL and flat else layout

    def store(self, row: Row, i: int, config: RwkvConfig, layout: Layout) -> list[Entry]:
        if layout in (RWKVCPP, BOOK):
            row = replace(row, shape=row.shape.replace("1", ""))
        return super().store(row, i, config, layout)

    def read_config(self, source: TensorSource) -> tuple[RwkvConfig | None, list[str], bool | None]:
        path = source.folder / CONFIG_FILE
        if source.complete or not path.exists():
            return None, [], None
        return from_transformers(read_json(path), str(path)), [], None

    def write_config(self, config: RwkvConfig) -> dict[str, Any]:
        return to_transformers(config)

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[RwkvConfig, list[str]]:
        def shape(ours: str) -> tuple[int, ...]:
            name = self.name_of(ours, found.layout)
            if len(found.shapes.get(name, ())) != 2:
                raise StateDictError(
                    f"missing {name}, or not a matrix: the sizes of the model cannot be told without it"
                )
            return found.shapes[name]

        vocab_size, emb_dim = shape("tok_emb.weight")
        config = RwkvConfig(
            vocab_size=vocab_size,
            emb_dim=emb_dim,
            n_layers=found.n_layers,
            attention_dim=_unless(emb_dim, shape("trf_blocks.{i}.att.key.weight")[0]),
            hidden_dim=_unless(4 * emb_dim, shape("trf_blocks.{i}.ff.key.weight")[0]),
            tie_weights=True,  # until the head is seen to differ
        )
        notes = ["no configuration: its blocks add up as they are, in evaluation too (rescale_every 0)"]
        return config, notes if found.layout is TRANSFORMERS else []  # others know no such thing


TABLE = RwkvTable()


# ---- its sizes and options in the words of transformers' config.json

# ours -> theirs, and the value where theirs says nothing (transformers' RwkvConfig)
_NAMES = {
    "vocab_size": "vocab_size",
    "emb_dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "attention_dim": "attention_hidden_size",
    "hidden_dim": "intermediate_size",
}
_SIZES = {"vocab_size": 50277, "emb_dim": 4096, "n_layers": 32, "attention_dim": None, "hidden_dim": None}
_KERNEL = 1024  # tokens that their kernel for graphics cards reads at once: no limit of the model


def from_transformers(config: Mapping[str, Any], where: str) -> RwkvConfig:
    """The model that a config.json describes. ConfigError names the field that cannot be."""
    read_size(config, "context_length", _KERNEL, where)
    every = config.get("rescale_every", 6)
    every = max(0, every) if is_integer(every) else every  # less than 0: never, as 0
    made = make_config(
        RwkvConfig,
        _NAMES | {"norm_eps": "layer_norm_epsilon"},
        read_sizes(_NAMES, _SIZES, config, where),
        where,
        rescale_every=check_integer(f"{where}: rescale_every", every, least=0),
        norm_eps=read_number(config, "layer_norm_epsilon", 1e-5, where, below=1),
        tie_weights=read_flag(config, "tie_word_embeddings", False, where),
    )
    widths = _unless(made.emb_dim, made.attention_width), _unless(4 * made.emb_dim, made.hidden_width)
    return replace(made, attention_dim=widths[0], hidden_dim=widths[1])


def to_transformers(config: RwkvConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model."""
    given = {"attention_dim": config.attention_width, "hidden_dim": config.hidden_width}
    return {
        "architectures": ["RwkvForCausalLM"],
        "model_type": "rwkv",
        **{theirs: given.get(ours, getattr(config, ours)) for ours, theirs in _NAMES.items()},
        "context_length": config.context_length or _KERNEL,
        "layer_norm_epsilon": config.norm_eps,
        "rescale_every": config.rescale_every,
        "tie_word_embeddings": config.tie_weights,
    }


def _unless(usual: int, size: int) -> int | None:
    """A size, or None where it is the usual one."""
    return None if size == usual else size
