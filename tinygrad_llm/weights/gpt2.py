"""GPT-2's names and sizes in the forms in which its weights are published. Reading and writing both follow this table.

Letters of shapes: V vocab_size, T context_length, C emb_dim, H hidden_dim; weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import ConfigError, StateDictError
from ..formats.source import printable
from ..models.gpt import GPTConfig
from .tensor_map import Entry

NAME = "GPT-2"
_MOST_TENSORS = 20_000  # the largest one has 48 layers of some 20


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


@dataclass(frozen=True)
class Layout:
    """One way to name and store the tensors."""

    name: str
    column: str  # of the table
    transposed: bool  # the matrices of the layers are (inputs, outputs), as in Conv1D
    fused: bool  # queries, keys and values are one tensor
    wrappers: re.Pattern[str]  # what names may begin with besides
    ignored: tuple[str, ...] = ()  # what holds nothing learned: causal masks


# torch.compile, DataParallel and checkpoints of more than a model put words before the names; transformers and nanoGPT one more.
_BARE, _WRAPPED = re.compile(""), re.compile(r"^(?:_orig_mod\.|module\.|model\.)*")
_WRAPPED_GPT2 = re.compile(_WRAPPED.pattern + r"(?:transformer\.)?")
_MASKS = ("h.{i}.attn.bias", "h.{i}.attn.masked_bias")
TRANSFORMERS = Layout("names of transformers", "transformers", True, True, _WRAPPED_GPT2, _MASKS)
NANOGPT = Layout("names of nanoGPT", "transformers", False, True, _WRAPPED_GPT2, _MASKS)
OPENAI = Layout("names of OpenAI", "openai", True, True, _BARE, ("global_step",))
BOOK = Layout("names of the book", "ours", False, False, _WRAPPED, ("trf_blocks.{i}.att.mask",))

_LAYER = re.compile(r"(?:(?<=^h\.)|(?<=^trf_blocks\.)|(?<=^model/h))\d{1,9}(?=[./])")


def entries(config: GPTConfig, layout: Layout) -> list[Entry]:
    """The tensors of a model of these sizes, layer by layer."""
    sizes = {
        "V": config.vocab_size,
        "T": config.context_length,
        "C": config.emb_dim,
        "H": config.hidden_dim or 4 * config.emb_dim,
    }
    made = []
    for row, i in _rows(config.n_layers):
        theirs = getattr(row, layout.column).replace("{i}", str(i))
        if not theirs or (row.ours == "out_head.weight" and config.tie_weights):
            continue
        in_qkv_bias = row.ours.endswith("{qkv}.bias")
        shape = tuple(sizes[letter] for letter in row.shape)
        ours = _expand(row.ours.replace("{i}", str(i)))
        if not layout.fused:
            made += [Entry(name, shape, (name,)) for name in ours if config.qkv_bias or not in_qkv_bias]
            continue
        shape = (len(ours) * shape[0], *shape[1:])
        transposed = layout.transposed and len(shape) == 2 and "{i}" in row.ours
        if transposed:
            shape = shape[::-1]
        if layout is OPENAI and transposed:
            shape = (1, *shape)
        if in_qkv_bias and not config.qkv_bias:
            made.append(Entry(theirs, shape, (), may_lack=True))
        else:
            made.append(Entry(theirs, shape, ours, transposed, row.may_lack and layout is NANOGPT))
    return made


def _rows(n_layers: int) -> Iterator[tuple[Row, int]]:
    """The rows of the table in the order of the model, those of a layer once for each."""
    layers = [row for row in ROWS if "{i}" in row.ours]
    first = ROWS.index(layers[0])
    yield from ((row, 0) for row in ROWS[:first])
    yield from ((row, i) for i in range(n_layers) for row in layers)
    yield from ((row, 0) for row in ROWS[first + len(layers) :])


def name_of(ours: str, layout: Layout) -> str:
    """What a layout calls a parameter, in the first layer and, of three in one, the first."""
    row = next(row for row in ROWS if row.ours == ours)
    return _expand(getattr(row, layout.column).replace("{i}", "0"))[0]


def _expand(ours: str) -> tuple[str, ...]:
    return tuple(ours.replace("{qkv}", word) for word in ("query", "key", "value")) if "{qkv}" in ours else (ours,)


# ---- recognising a file by its names and shapes


@dataclass(frozen=True)
class Found:
    """A file's tensors under the names of a layout."""

    layout: Layout
    names: dict[str, str]  # name in the layout -> name in the file
    shapes: dict[str, tuple[int, ...]]  # name in the layout -> shape
    ignored: frozenset[str]  # names in the layout
    n_layers: int


def recognise(shapes: Mapping[str, tuple[int, ...]], conv1d: bool | None = None) -> Found:
    """The layout of which a file knows most names. `conv1d`: how its matrices are stored, if not to be told by their shapes.

    StateDictError if it knows none, or has one tensor under two names.
    """
    if len(shapes) > _MOST_TENSORS:
        raise StateDictError(f"not a GPT-2: it holds {len(shapes):,} tensors")
    layouts = [TRANSFORMERS, OPENAI, BOOK]
    known = {layout.name: set(_templates(layout)) for layout in layouts}
    bare = {layout.name: {own: layout.wrappers.sub("", own, count=1) for own in shapes} for layout in layouts}
    hits = {
        layout.name: sum(_template(n) in known[layout.name] for n in bare[layout.name].values()) for layout in layouts
    }
    layout = max(layouts, key=lambda layout: hits[layout.name])
    if not hits[layout.name]:
        first = ", ".join(map(printable, list(shapes)[:3])) or "nothing"
        raise StateDictError(
            f"not a GPT-2: it holds {first}, ... and should hold wte.weight or tok_emb.weight or model/wte"
        )
    templates, names = known[layout.name], dict[str, str]()
    for own, name in bare[layout.name].items():
        if name in names:
            raise StateDictError(f"{printable(own)} and {printable(names[name])} are the same tensor of a GPT-2")
        names[name] = own
    found = {name: shapes[own] for name, own in names.items()}
    ignored = frozenset(name for name in names if _template(name) in layout.ignored)
    if layout is TRANSFORMERS and not (_is_conv1d(found) if conv1d is None else conv1d):
        layout = NANOGPT
    layers = [int(match.group()) for name in names if (match := _LAYER.search(name)) and _template(name) in templates]
    return Found(layout, names, found, ignored, 1 + max(layers, default=0))


def _template(name: str) -> str:
    return _LAYER.sub("{i}", name)


def _templates(layout: Layout) -> Iterable[str]:
    for row in ROWS:
        if theirs := getattr(row, layout.column):
            yield from (theirs,) if layout.fused else _expand(theirs)
    yield from layout.ignored


def _is_conv1d(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """(C, 3C) rather than (3C, C), for most of the layers; where nothing is known, transformers' own."""
    votes = [s[0] < s[1] for name, s in shapes.items() if name.endswith("attn.c_attn.weight") and len(s) == 2]
    return 2 * sum(votes) >= len(votes)


def infer_config(found: Found, n_heads: int | None) -> tuple[GPTConfig, list[str]]:
    """The sizes that shapes tell, and notes on what they do not. StateDictError where a telling tensor is missing."""
    layout, notes = found.layout, []

    def shape(ours: str) -> tuple[int, ...]:
        name = name_of(ours, layout)
        if len(found.shapes.get(name, ())) < 2:
            raise StateDictError(f"missing {name}, or not a matrix: the sizes of the model cannot be told without it")
        return found.shapes[name][-2:]

    vocab_size, emb_dim = shape("tok_emb.weight")
    hidden_dim = shape("trf_blocks.{i}.ff.layers.0.weight")[1 if layout.transposed else 0]
    if n_heads is None:
        if emb_dim % 64:
            raise ConfigError(f"the number of heads cannot be told from a width of {emb_dim}: pass n_heads=")
        n_heads = emb_dim // 64
        notes.append(f"n_heads is not in the file: {n_heads}, 64 numbers for each as in GPT-2; pass n_heads= if not so")
    return GPTConfig(
        vocab_size=vocab_size,
        context_length=shape("pos_emb.weight")[0],
        emb_dim=emb_dim,
        n_heads=n_heads,
        n_layers=found.n_layers,
        qkv_bias=name_of("trf_blocks.{i}.att.W_{qkv}.bias", layout) in found.names,
        tie_weights=True,  # until the head is seen to differ
        activation="gelu_erf" if layout is NANOGPT else "gelu",
        hidden_dim=None if hidden_dim == 4 * emb_dim else hidden_dim,
        init="gpt2",
    ), notes
