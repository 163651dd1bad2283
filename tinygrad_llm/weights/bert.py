"""BERT's names and sizes in the forms in which its weights are published. Reading and writing both follow this table.

Which heads a model has is told by the tensors of its file: those of transformers for hidden words and for whether a text
follows another stand beside the encoder (`cls.`), as that for classes does (`classifier.`), and the encoder's own names have
`bert.` before them then.

Letters of shapes: V vocab_size, T context_length, S n_segments, C emb_dim, H hidden_dim, 2 whether a text follows or not;
weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, StateDictError
from ..formats.open import CONFIG_FILE
from ..formats.source import TensorSource
from ..formats.strict_json import read_json
from ..models import Model
from ..models.bert import BertConfig
from .public_config import activation_name, make_config, read_activation, read_flag, read_number, read_sizes
from .table import ClassHead, Found, Layout, Table, same_tensor
from .tensor_map import Entry


@dataclass(frozen=True)
class Row:
    ours: str  # {i} is the number of the layer; {qkv} three parameters
    transformers: str
    shape: str
    part: str = ""  # of BertConfig, without which the model has no such parameter

    @property
    def old(self) -> str:
        """As in files that were made of TensorFlow's."""
        return self.transformers.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")


ROWS = (
    Row("tok_emb.weight", "embeddings.word_embeddings.weight", "VC"),
    Row("pos_emb.weight", "embeddings.position_embeddings.weight", "TC"),
    Row("seg_emb.weight", "embeddings.token_type_embeddings.weight", "SC"),
    Row("emb_norm.scale", "embeddings.LayerNorm.weight", "C"),
    Row("emb_norm.shift", "embeddings.LayerNorm.bias", "C"),
    Row("trf_blocks.{i}.att.W_{qkv}.weight", "encoder.layer.{i}.attention.self.{qkv}.weight", "CC"),
    Row("trf_blocks.{i}.att.W_{qkv}.bias", "encoder.layer.{i}.attention.self.{qkv}.bias", "C"),
    Row("trf_blocks.{i}.att.out_proj.weight", "encoder.layer.{i}.attention.output.dense.weight", "CC"),
    Row("trf_blocks.{i}.att.out_proj.bias", "encoder.layer.{i}.attention.output.dense.bias", "C"),
    Row("trf_blocks.{i}.norm1.scale", "encoder.layer.{i}.attention.output.LayerNorm.weight", "C"),
    Row("trf_blocks.{i}.norm1.shift", "encoder.layer.{i}.attention.output.LayerNorm.bias", "C"),
    Row("trf_blocks.{i}.ff.layers.0.weight", "encoder.layer.{i}.intermediate.dense.weight", "HC"),
    Row("trf_blocks.{i}.ff.layers.0.bias", "encoder.layer.{i}.intermediate.dense.bias", "H"),
    Row("trf_blocks.{i}.ff.layers.2.weight", "encoder.layer.{i}.output.dense.weight", "CH"),
    Row("trf_blocks.{i}.ff.layers.2.bias", "encoder.layer.{i}.output.dense.bias", "C"),
    Row("trf_blocks.{i}.norm2.scale", "encoder.layer.{i}.output.LayerNorm.weight", "C"),
    Row("trf_blocks.{i}.norm2.shift", "encoder.layer.{i}.output.LayerNorm.bias", "C"),
    Row("pooler.weight", "pooler.dense.weight", "CC", "pooler"),
    Row("pooler.bias", "pooler.dense.bias", "C", "pooler"),
    Row("transform.dense.weight", "cls.predictions.transform.dense.weight", "CC", "masked_words"),
    Row("transform.dense.bias", "cls.predictions.transform.dense.bias", "C", "masked_words"),
    Row("transform.norm.scale", "cls.predictions.transform.LayerNorm.weight", "C", "masked_words"),
    Row("transform.norm.shift", "cls.predictions.transform.LayerNorm.bias", "C", "masked_words"),
    Row("out_head.weight", "cls.predictions.decoder.weight", "VC", "masked_words"),
    Row("out_head.bias", "cls.predictions.bias", "V", "masked_words"),
    Row("next_sentence.weight", "cls.seq_relationship.weight", "2C", "next_sentence"),
    Row("next_sentence.bias", "cls.seq_relationship.bias", "2", "next_sentence"),
)
_BIAS, _TWIN = "cls.predictions.bias", "cls.predictions.decoder.bias"  # one parameter, but for models that are not tied

# torch.compile, DataParallel and checkpoints of more than a model put words before the names; transformers one more.
_WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.|model\.)*(?:bert\.)?")
_IDS = ("embeddings.position_ids", "embeddings.token_type_ids")
TRANSFORMERS = Layout("names of transformers", "transformers", wrappers=_WRAPPED, ignored=_IDS, prefix="bert.")
OLD = Layout("older names of transformers", "old", wrappers=_WRAPPED, ignored=_IDS)
BOOK = Layout("names of the book", "ours", wrappers=_WRAPPED)

# The classes of transformers that can be loaded, and what they have beside the encoder.
_MODELS: dict[str, tuple[str, ...]] = {
    "BertModel": (),
    "BertForPreTraining": ("pooler", "masked_words", "next_sentence"),
    "BertForMaskedLM": ("masked_words",),
    "BertForNextSentencePrediction": ("pooler", "next_sentence"),
    "BertForSequenceClassification": ("pooler",),
}
_PARTS = ("pooler", "masked_words", "next_sentence")


class BertTable(Table):
    architecture, name, model_types = "bert", "BERT", ("bert",)
    rows, layouts, written = ROWS, (TRANSFORMERS, OLD, BOOK), TRANSFORMERS
    classifier = ClassHead("BertForSequenceClassification", "classifier", position="pooled", bias=True)
    beside = ("cls", "classifier")
    layer = re.compile(r"(?:(?<=^encoder\.layer\.)|(?<=^trf_blocks\.))\d{1,9}(?=\.)")

    def sizes(self, config: BertConfig) -> dict[str, int]:
        sizes = {"V": config.vocab_size, "T": config.context_length, "S": config.n_segments, "C": config.emb_dim}
        return sizes | {"H": config.hidden_width, "2": 2}

    def store(self, row: Row, i: int, config: BertConfig, layout: Layout) -> list[Entry]:
        if row.part and not getattr(config, row.part):
            return []
        made = super().store(row, i, config, layout)
        if layout is BOOK or row.transformers != _BIAS or config.tie_weights:
            return made
        return [
            replace(entry, theirs=_TWIN, may_lack=True) for entry in made
        ] + made  # what transformers adds, and a copy

    def entries_of_classifier(self, config: BertConfig, layout: Layout, n_classes: int) -> list[Entry]:
        body = replace(config, pooler=True, masked_words=False, next_sentence=False)
        return super().entries_of_classifier(body, layout, n_classes)

    def prefix(self, model: Model) -> str:
        heads = model.config.masked_words or model.config.next_sentence or getattr(model, "classes", None) is not None
        return self.written.prefix if heads else ""

    def settle(
        self, config: BertConfig, found: Found, source: TensorSource, notes: list[str]
    ) -> tuple[BertConfig, frozenset[str]]:
        config, ignored = super().settle(config, found, source, notes)
        names = found.names
        if _TWIN not in names:
            return config, ignored
        if _BIAS in names and same_tensor(source, names[_BIAS], names[_TWIN]):
            return config, ignored | {_TWIN}
        if _BIAS in names:
            notes.append(f"{_BIAS} differs from {_TWIN}, which is the one that transformers adds, and so is read")
        names[_BIAS] = names.pop(_TWIN)
        return config, ignored

    def read_config(self, source: TensorSource) -> tuple[BertConfig | None, list[str], bool | None]:
        if not (path := source.folder / CONFIG_FILE).exists():
            return None, [], None
        values = read_json(path)
        config, notes = from_transformers(values, str(path))
        layout = self.layout_of(source.infos)
        parts = self._parts({layout.wrappers.sub("", name, count=1) for name in source.infos}, layout)
        named = _read_architectures(values, str(path))
        if named is not None and (lacking := [part for part in _MODELS[named] if not parts[part]]):
            names = ", ".join(getattr(row, layout.column) for row in self.rows if row.part == lacking[0])
            raise StateDictError(
                f"{source.path}: architectures is {named} in {CONFIG_FILE}, which has {names}, and the file none of these"
            )
        return replace(config, **parts), notes, None

    def write_config(self, config: BertConfig) -> dict[str, Any]:
        return to_transformers(config)

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[BertConfig, list[str]]:
        def shape(ours: str) -> tuple[int, ...]:
            name = self.name_of(ours, found.layout)
            if len(found.shapes.get(name, ())) != 2:
                raise StateDictError(
                    f"missing {name}, or not a matrix: the sizes of the model cannot be told without it"
                )
            return found.shapes[name]

        vocab_size, emb_dim = shape("tok_emb.weight")
        notes = ["no configuration: the activation is the exact GELU and layer_norm_eps 1e-12, as is usual"]
        if n_heads is None:
            if emb_dim % 64:
                raise ConfigError(f"the number of heads cannot be told from a width of {emb_dim}: pass n_heads=")
            n_heads = emb_dim // 64
            notes.append(
                f"n_heads is not in the file: {n_heads}, 64 numbers for each as in BERT base; pass n_heads= if not so"
            )
        hidden_dim = shape("trf_blocks.{i}.ff.layers.0.weight")[0]
        config = BertConfig(
            vocab_size=vocab_size,
            context_length=shape("pos_emb.weight")[0],
            emb_dim=emb_dim,
            n_heads=n_heads,
            n_layers=found.n_layers,
            hidden_dim=None if hidden_dim == 4 * emb_dim else hidden_dim,
            n_segments=shape("seg_emb.weight")[0],
            **self._parts(found.names, found.layout),
            tie_weights=True,  # until the head is seen to differ
        )
        return config, notes

    def _parts(self, names: Collection[str], layout: Layout) -> dict[str, Any]:
        """Which parts of a model a file has any tensor of. A head that stands on the pooler is none without."""
        known = {part: {getattr(row, layout.column) for row in self.rows if row.part == part} for part in _PARTS}
        parts = {part: not known[part].isdisjoint(names) for part in _PARTS}
        return parts | {"pooler": parts["pooler"] or parts["next_sentence"]}


TABLE = BertTable()


# ---- its sizes and options in the words of transformers' config.json

# ours -> theirs, and the value where theirs says nothing (transformers' BertConfig)
_NAMES = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "emb_dim": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "hidden_dim": "intermediate_size",
    "n_segments": "type_vocab_size",
}
_SIZES = {"vocab_size": 30522, "context_length": 512, "emb_dim": 768, "n_heads": 12, "n_layers": 12}
_SIZES |= {"hidden_dim": 3072, "n_segments": 2}
# What changes the outputs and has no counterpart here: the only value that can be loaded.
_FIXED = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False, "pruned_heads": {}}
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def from_transformers(config: Mapping[str, Any], where: str) -> tuple[BertConfig, list[str]]:
    """The model that a config.json describes, with all parts that it can have, and notes. ConfigError names the field that
    cannot be.
    """
    notes = []
    for field, value in _FIXED.items():
        if config.get(field, value) not in (value, None):
            raise ConfigError(f"{where}: {field} is {config[field]!r:.80}: only {value!r} can be loaded")
    if config.get("quantization_config") is not None:
        raise ConfigError(f"{where}: quantization_config: numbers of few bits cannot be loaded")
    rates = {field: read_number(config, field, 0.1, where, below=1) for field in _DROPOUTS}
    if config.get("classifier_dropout") is not None:
        rates["classifier_dropout"] = read_number(config, "classifier_dropout", 0.1, where, below=1)
    if len(set(rates.values())) > 1:
        notes.append(
            f"{rates}: the model has one rate, drop_rate {rates['hidden_dropout_prob']}, that of hidden_dropout_prob"
        )
    made = make_config(
        BertConfig,
        _NAMES | {"norm_eps": "layer_norm_eps"},
        read_sizes(_NAMES, _SIZES, config, where),
        where,
        drop_rate=rates["hidden_dropout_prob"],
        activation=read_activation(config, where),
        norm_eps=read_number(config, "layer_norm_eps", 1e-12, where, below=1),
        tie_weights=read_flag(config, "tie_word_embeddings", True, where),
    )
    return replace(made, hidden_dim=None) if made.hidden_dim == 4 * made.emb_dim else made, notes


def _read_architectures(config: Mapping[str, Any], where: str) -> str | None:
    """The class of transformers that wrote the file; None if it is not said."""
    named = config.get("architectures")
    if named is None:
        return None
    if not isinstance(named, list) or len(named) != 1 or named[0] not in [*_MODELS]:
        raise ConfigError(f"{where}: architectures is {named!r:.80}: only one of {', '.join(_MODELS)} can be loaded")
    return named[0]


def to_transformers(config: BertConfig) -> dict[str, Any]:
    """The config.json with which transformers opens the model."""
    parts = {part for part in ("masked_words", "next_sentence") if getattr(config, part)}
    return {
        "architectures": [next(name for name, has in _MODELS.items() if {*has} - {"pooler"} == parts)],
        "model_type": "bert",
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        "intermediate_size": config.hidden_width,
        "hidden_act": activation_name(config.activation),
        "layer_norm_eps": config.norm_eps,
        **dict.fromkeys(_DROPOUTS, config.drop_rate),
        "position_embedding_type": "absolute",
        "tie_word_embeddings": config.tie_weights,
        "pad_token_id": None,  # the tokenizer's, if there is one: theirs is 0 otherwise, a row that then does not learn
    }
