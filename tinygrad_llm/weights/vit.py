"""ViT's names and sizes in the forms in which its weights are published. Reading and writing both follow this table.

A file of transformers' ViTModel has no head: ours gets one of zeros, to be learned. What it has beside it, a pooler and a vector
that stands for hidden patches, changes no score of a class, and is left out.

Letters of shapes: C emb_dim, H hidden_dim, T tokens with the class token, D n_channels, P patch_size, W = D P P, K n_classes, 1
itself; weights are (outputs, inputs) here, and that of the patches is (C, W), which others have as a convolution's (C, D, P, P).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, StateDictError
from ..formats.open import CONFIG_FILE
from ..formats.source import TensorSource
from ..formats.strict_json import read_json
from ..models.vit import ViTConfig
from ..text import Tokenizer
from .public_config import activation_name, make_config, read_activation, read_flag, read_number, read_sizes
from .table import ClassHead, Found, Layout, Table
from .tensor_map import Entry


@dataclass(frozen=True)
class Row:
    ours: str  # {i} is the number of the layer; {qkv} three parameters, which timm keeps as one
    transformers: str
    memory: str  # as a model of transformers 5 has it, which its own save_pretrained turns into the older names
    timm: str
    shape: str  # of each in theirs
    own_shape: str  # of each of ours


def _once(ours: str, theirs: str, timm: str, shape: str, own_shape: str | None = None) -> Row:
    return Row(ours, theirs, theirs, timm, shape, own_shape or shape)


def _in_layer(ours: str, transformers: str, memory: str, timm: str, shape: str) -> tuple[Row, Row]:
    """The weight and the bias of a module of a layer."""
    own = ("scale", "shift") if ours.startswith("norm") else ("weight", "bias")

    def row(own: str, kind: str, shape: str) -> Row:
        modules = f"encoder.layer.{{i}}.{transformers}", f"layers.{{i}}.{memory}", f"blocks.{{i}}.{timm}"
        old, new, of_timm = (f"{module}.{kind}" for module in modules)
        return Row(f"trf_blocks.{{i}}.{ours}.{own}", old, new, of_timm, shape, shape)

    return row(own[0], "weight", shape), row(own[1], "bias", shape[0])


_PROJECTION = "embeddings.patch_embeddings.projection"
ROWS = (
    _once("patch_emb.weight", f"{_PROJECTION}.weight", "patch_embed.proj.weight", "CDPP", "CW"),
    _once("patch_emb.bias", f"{_PROJECTION}.bias", "patch_embed.proj.bias", "C"),
    _once("class_token", "embeddings.cls_token", "cls_token", "11C", "1C"),
    _once("pos_emb", "embeddings.position_embeddings", "pos_embed", "1TC", "TC"),
    *_in_layer("norm1", "layernorm_before", "layernorm_before", "norm1", "C"),
    *_in_layer("att.W_{qkv}", "attention.attention.{qkv}", "attention.{q}_proj", "attn.qkv", "CC"),
    *_in_layer("att.out_proj", "attention.output.dense", "attention.o_proj", "attn.proj", "CC"),
    *_in_layer("norm2", "layernorm_after", "layernorm_after", "norm2", "C"),
    *_in_layer("ff.layers.0", "intermediate.dense", "mlp.fc1", "mlp.fc1", "HC"),
    *_in_layer("ff.layers.2", "output.dense", "mlp.fc2", "mlp.fc2", "CH"),
    _once("final_norm.scale", "layernorm.weight", "norm.weight", "C"),
    _once("final_norm.shift", "layernorm.bias", "norm.bias", "C"),
    _once("out_head.weight", "classifier.weight", "head.weight", "KC"),
    _once("out_head.bias", "classifier.bias", "head.bias", "K"),
)
_QUERY_BIAS = "trf_blocks.{i}.att.W_{qkv}.bias"

# torch.compile, DataParallel and checkpoints of more than a model put words before the names; transformers one more.
_WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.|model\.)*(?:vit\.)?")
_IGNORED = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token")
TRANSFORMERS = Layout("names of transformers", "transformers", wrappers=_WRAPPED, ignored=_IGNORED, prefix="vit.")
MEMORY = Layout("names of transformers 5 in memory", "memory", wrappers=_WRAPPED, ignored=_IGNORED)
TIMM = Layout("names of timm", "timm", fused=True, wrappers=_WRAPPED)
BOOK = Layout("names of the book", "ours", wrappers=_WRAPPED)
_HEADLESS = {layout: replace(layout, name=f"{layout.name}, no head") for layout in (TRANSFORMERS, MEMORY, TIMM)}


class ViTTable(Table):
    architecture, name, model_types = "vit", "ViT", ("vit",)
    rows, layouts, written = ROWS, (TRANSFORMERS, MEMORY, TIMM, BOOK), TRANSFORMERS
    classifier = ClassHead("ViTForImageClassification", "classifier", bias=True)
    beside = ("classifier",)
    layer = re.compile(r"(?:(?<=^encoder\.layer\.)|(?<=^layers\.)|(?<=^blocks\.)|(?<=^trf_blocks\.))\d{1,9}(?=\.)")

    def sizes(self, config: ViTConfig) -> dict[str, int]:
        sizes = {
            "C": config.emb_dim,
            "H": config.hidden_width,
            "T": config.context_length,
            "K": config.n_classes,
            "1": 1,
        }
        return sizes | {"D": config.n_channels, "P": config.patch_size, "W": config.patch_width}  # fmt: skip

    def refine(self, layout: Layout, shapes: Mapping[str, tuple[int, ...]], transposed: bool | None) -> Layout:
        head = {self.name_of(f"out_head.{kind}", layout) for kind in ("weight", "bias")}
        return _HEADLESS.get(layout, layout) if head.isdisjoint(shapes) else layout

    def store(self, row: Row, i: int, config: ViTConfig, layout: Layout) -> list[Entry]:
        if (row.ours == "class_token" and config.pool == "mean") or (row.ours == _QUERY_BIAS and not config.qkv_bias):
            return []
        made = super().store(replace(row, shape=row.own_shape) if layout is BOOK else row, i, config, layout)
        may_lack = row.ours.startswith("out_head.") and layout in _HEADLESS.values()
        return [replace(entry, may_lack=may_lack) for entry in made]

    def entries_of_classifier(self, config: ViTConfig, layout: Layout, n_classes: int) -> list[Entry]:
        return self.entries(config, layout)  # all are classifiers

    def put_classes(self, model: Any, names: Sequence[str]) -> None:
        if list(names) != _numbered(len(names)):
            model.classes = tuple(names)

    def settle(
        self, config: ViTConfig, found: Found, source: TensorSource, notes: list[str]
    ) -> tuple[ViTConfig, frozenset[str]]:
        return config, found.ignored  # a head is never the table of tokens

    def check(self, model: Any, tokenizer: Tokenizer | None, layout: Layout) -> str | None:
        n = model.config.n_classes
        return f"no head: that for {n} classes is of zeros, to be learned" if layout in _HEADLESS.values() else None

    def read_config(self, source: TensorSource) -> tuple[ViTConfig | None, list[str], bool | None]:
        if not (path := source.folder / CONFIG_FILE).exists():
            return None, [], None
        values = read_json(path)
        if "model_type" not in values and "num_classes" in values:  # timm's, which has no sizes
            if (pool := values.get("global_pool", "token")) != "token":
                raise ConfigError(f"{path}: global_pool is {pool!r:.80}: only 'token' can be loaded")
            return None, [], None
        config, notes = from_transformers(values, str(path))
        head = (
            info.shape
            for name, info in source.infos.items()
            if TRANSFORMERS.wrappers.sub("", name, count=1) == "classifier.weight"
        )
        (n_classes, *_) = next(head, (config.n_classes,)) or (config.n_classes,)
        return replace(config, n_classes=max(1, n_classes)), notes, None

    def write_config(self, config: ViTConfig) -> dict[str, Any]:
        return to_transformers(config)

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[ViTConfig, list[str]]:
        def shape(ours: str, n_sizes: Iterable[int]) -> tuple[int, ...]:
            name = self.name_of(ours, found.layout)
            if len(found.shapes.get(name, ())) not in n_sizes or 0 in found.shapes[name]:
                raise StateDictError(
                    f"missing {name}, or of another form: the sizes of the model cannot be told without it"
                )
            return found.shapes[name]

        emb_dim, *patch = shape("patch_emb.weight", (2, 4))
        pool = "token" if self.name_of("class_token", found.layout) in found.names else "mean"
        n_patches = shape("pos_emb", (2, 3))[-2] - (pool == "token")
        # (W,) is three squares for colours, else one: no number is both
        channels, area = (patch[0], patch[-1] ** 2) if len(patch) == 3 else _square(patch[0])
        side, patch_size = math.isqrt(max(n_patches, 0)), math.isqrt(area)
        if not n_patches or side**2 != n_patches or patch_size**2 != area:
            raise StateDictError(f"{n_patches} patches of {channels} x {area} numbers: only squares can be loaded")
        if n_heads is None and emb_dim % 64:
            raise ConfigError(f"the number of heads cannot be told from a width of {emb_dim}: pass n_heads=")
        heads = n_heads or emb_dim // 64
        eps = 1e-12 if found.layout.column in ("transformers", "memory") else 1e-6
        headless = found.layout in _HEADLESS.values()
        hidden_dim = shape("trf_blocks.{i}.ff.layers.0.weight", (2,))[0]
        config = ViTConfig(
            n_classes=2 if headless else shape("out_head.weight", (2,))[0],
            image_size=side * patch_size,
            patch_size=patch_size,
            n_channels=channels,
            emb_dim=emb_dim,
            n_heads=heads,
            n_layers=found.n_layers,
            hidden_dim=None if hidden_dim == 4 * emb_dim else hidden_dim,
            norm_eps=eps,
            pool=pool,
            qkv_bias=not {self.name_of(_QUERY_BIAS, found.layout)}.isdisjoint(found.names),
        )
        notes = [f"no configuration: the activation is the exact GELU and layer_norm_eps {eps:g}, as is usual"]
        if n_heads is None:
            notes.append(
                f"n_heads is not in the file: {heads}, 64 numbers for each as in ViT-B; pass n_heads= if not so"
            )
        return config, notes

    def about(self, config: ViTConfig) -> str:
        side = config.image_size
        return (
            f"width {config.emb_dim}, pictures of {config.n_channels} x {side} x {side} in patches of {config.patch_size}, "
            f"{config.n_classes:,} classes"
        )


TABLE = ViTTable()


def _numbered(n: int) -> list[str]:
    """What transformers calls classes that nobody has named."""
    return [f"LABEL_{i}" for i in range(n)]


def _square(n: int) -> tuple[int, int]:
    """Channels, and the pixels of a patch of so many numbers."""
    return (1, n) if math.isqrt(n) ** 2 == n else (3, n // 3)


# ---- its sizes and options in the words of transformers' config.json

# ours -> theirs, and the value where theirs says nothing (transformers' ViTConfig)
_NAMES = {
    "emb_dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "hidden_dim": "intermediate_size",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "n_channels": "num_channels",
}
_SIZES = {"emb_dim": 768, "n_heads": 12, "n_layers": 12, "hidden_dim": 3072}
_SIZES |= {"image_size": 224, "patch_size": 16, "n_channels": 3}
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def from_transformers(config: Mapping[str, Any], where: str) -> tuple[ViTConfig, list[str]]:
    """The model that a config.json describes, and notes. ConfigError names the field that cannot be."""
    notes, values = [], dict(config)
    for field in ("image_size", "patch_size"):
        if isinstance(sides := values.get(field), list):
            if len(sides) != 2 or sides[0] != sides[1]:
                raise ConfigError(f"{where}: {field} is {sides!r:.80}: only squares can be loaded")
            values[field] = sides[0]
    if values.get("quantization_config") is not None:
        raise ConfigError(f"{where}: quantization_config: numbers of few bits cannot be loaded")
    rates = {field: read_number(values, field, 0.0, where, below=1) for field in _DROPOUTS}
    if len(set(rates.values())) > 1:
        notes.append(
            f"{rates}: the model has one rate, drop_rate {rates['hidden_dropout_prob']}, that of hidden_dropout_prob"
        )
    named = values.get("id2label")
    made = make_config(
        ViTConfig,
        _NAMES | {"norm_eps": "layer_norm_eps"},
        read_sizes(_NAMES, _SIZES, values, where),
        where,
        n_classes=len(named) if isinstance(named, dict) and named else 2,
        drop_rate=rates["hidden_dropout_prob"],
        activation=read_activation(values, where),
        norm_eps=read_number(values, "layer_norm_eps", 1e-12, where, below=1),
        qkv_bias=read_flag(values, "qkv_bias", True, where),
    )
    return replace(made, hidden_dim=None) if made.hidden_dim == 4 * made.emb_dim else made, notes


def to_transformers(config: ViTConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model. ConfigError for what none of theirs can have."""
    for name, theirs in {"pool": "token", "patch_order": "channels_first"}.items():
        if (value := getattr(config, name)) != theirs:
            raise ConfigError(f"{name} is {value!r}: transformers' ViT has {theirs!r} alone")
    names = _numbered(config.n_classes)
    return {
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        "intermediate_size": config.hidden_width,
        "hidden_act": activation_name(config.activation),
        "layer_norm_eps": config.norm_eps,
        **dict.fromkeys(_DROPOUTS, config.drop_rate),
        "qkv_bias": config.qkv_bias,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
