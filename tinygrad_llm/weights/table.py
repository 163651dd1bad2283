"""Which tensor of a file is which parameter of a model: one table of names for each architecture, in the file of its name.

Letters of shapes: V vocab_size, T context_length, C emb_dim, H hidden_dim; weights are (outputs, inputs) here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import groupby
from pkgutil import iter_modules
from typing import Any, Protocol

from ..errors import ConfigError, StateDictError
from ..formats.source import TensorSource, printable
from ..models import Model, architectures
from ..models.heads import add_classifier
from ..rng import Zeros
from ..text import Tokenizer
from .tensor_map import Entry, same_bits

_MOST_TENSORS = 20_000  # the largest GPT-2 has 48 layers of some 20


class Row(Protocol):
    """A parameter, and a column for what each form calls it; an empty one where the form does not have it."""

    @property
    def ours(self) -> str: ...  # {i} is the number of the layer; {qkv} three parameters that others keep as one
    @property
    def shape(self) -> str: ...  # of each of ours, in letters


@dataclass(frozen=True)
class Layout:
    """One way to name and store the tensors."""

    name: str
    column: str  # of the table
    transposed: bool = False  # the matrices of the layers are (inputs, outputs), as in Conv1D
    fused: bool = False  # queries, keys and values are one tensor
    wrappers: re.Pattern[str] = re.compile("")  # what names may begin with besides
    ignored: tuple[str, ...] = ()  # what holds nothing learned: causal masks
    prefix: str = ""  # of all names but that of the head, when they are written
    interleaved: bool | None = None  # which features make a rotary pair (ops.rotary); None in an architecture without


@dataclass(frozen=True)
class Found:
    """A file's tensors under the names of a layout."""

    layout: Layout
    names: dict[str, str]  # name in the layout -> name in the file
    shapes: dict[str, tuple[int, ...]]  # name in the layout -> shape
    ignored: frozenset[str]  # names in the layout
    depths: dict[str, int]  # stack of blocks, in our words -> how many layers of it

    @property
    def n_layers(self) -> int:
        """Those of the only stack."""
        return max(self.depths.values(), default=1)


@dataclass(frozen=True)
class ClassHead:
    """The head for classes that transformers has for an architecture, and what it can be told of one."""

    model: str  # its class
    module: str  # what it calls the head
    position: str = "last"  # of the features by which a text is judged
    bias: bool = False


class Table:
    """The names of an architecture, and how its public configuration is read and written."""

    architecture: str  # as make_model takes it
    name: str  # as people do
    model_types: tuple[str, ...]  # as config.json of transformers does
    rows: tuple[Any, ...]
    layouts: tuple[Layout, ...]  # that are told apart by their names
    layer: re.Pattern[str]  # the number of the layer in a name
    written: Layout  # what save_pretrained writes
    classifier: ClassHead | None = None
    beside: tuple[str, ...] = ()  # modules of the written form whose names have no prefix: heads
    task_type: str | None = None  # what PEFT calls the task of a model that is no classifier

    def sizes(self, config: Any) -> dict[str, int]:
        """What the letters of shapes stand for."""
        raise TypeError(f"{type(self).__name__} must define sizes(config)")

    def read_config(self, source: TensorSource) -> tuple[Any, list[str], bool | None]:
        """What is said about the model in the file or beside it: its configuration, notes, and whether matrices are transposed.

        None for what is not said. ConfigError names a field that cannot be.
        """
        raise TypeError(f"{type(self).__name__} must define read_config(source)")

    def depths(self, config: Any) -> dict[str, int]:
        """The stacks of blocks that a model has, and how many layers each."""
        return {"trf_blocks": config.n_layers}

    def infer_config(self, found: Found, n_heads: int | None) -> tuple[Any, list[str]]:
        """The sizes that shapes tell, and notes on what they do not. StateDictError where a telling tensor is missing."""
        raise TypeError(f"{type(self).__name__} must define infer_config(found, n_heads)")

    def write_config(self, config: Any) -> dict[str, Any]:
        """The config.json with which transformers opens the model."""
        raise TypeError(f"{type(self).__name__} must define write_config(config)")

    def refine(self, layout: Layout, shapes: Mapping[str, tuple[int, ...]], transposed: bool | None) -> Layout:
        """The layout, where several have the same names and differ in how they are stored."""
        return layout

    def settle(self, config: Any, found: Found, source: TensorSource, notes: list[str]) -> tuple[Any, frozenset[str]]:
        """What the numbers of a file say: whether the head is the token embedding. The configuration then, and the names that
        say nothing new; what is odd goes to the notes.
        """
        tokens, head = (self.name_of(ours, found.layout) for ours in ("tok_emb.weight", "out_head.weight"))
        if not config.tie_weights or head not in found.names:
            return config, found.ignored
        if tokens not in found.names:  # one tensor with two names is written once, under either
            found.names[tokens] = found.names.pop(head)
            return config, found.ignored
        if same_tensor(source, found.names[tokens], found.names[head]):
            return config, found.ignored | {head}
        notes.append(f"{head} differs from {tokens}: the head has weights of its own")
        return replace(config, tie_weights=False), found.ignored

    def about(self, config: Any) -> str:
        """The sizes of a model, for people."""
        length = "without end" if config.context_length is None else config.context_length
        return f"width {config.emb_dim}, context {length}, {config.vocab_size:,} tokens"

    def check(self, model: Any, tokenizer: Tokenizer | None, layout: Layout) -> str | None:
        """What is odd about a loaded model, perhaps by what it makes of a text; None if nothing is."""
        return None

    def store(self, row: Any, i: int, config: Any, layout: Layout) -> list[Entry]:
        """The tensors of a row in layer i."""
        theirs = getattr(row, layout.column).replace("{i}", str(i))
        ours = expand(row.ours.replace("{i}", str(i)))
        sizes = self.sizes(config)
        shape = tuple(sizes[letter] for letter in row.shape)
        if not layout.fused:
            names = expand(theirs)
            return [Entry(name, shape, (own,)) for name, own in zip(names, ours, strict=True)]
        shape = (len(ours) * shape[0], *shape[1:])
        transposed = layout.transposed and len(shape) == 2 and "{i}" in row.ours
        return [Entry(theirs, shape[::-1] if transposed else shape, ours, transposed)]

    def entries(self, config: Any, layout: Layout) -> list[Entry]:
        """The tensors of a model of these sizes, layer by layer."""
        return [
            entry
            for row, i in self._rows(config)
            if getattr(row, layout.column)
            and not (row.ours == "out_head.weight" and getattr(config, "tie_weights", False))
            for entry in self.store(row, i, config, layout)
        ]

    def entries_of_classifier(self, config: Any, layout: Layout, n_classes: int) -> list[Entry]:
        """Those of a model with a head for so many classes."""
        head = self.class_head()
        body = [entry for entry in self.entries(config, layout) if "out_head.weight" not in entry.ours]
        weight = Entry(f"{head.module}.weight", (n_classes, config.emb_dim), ("out_head.weight",))
        bias = Entry(f"{head.module}.bias", (n_classes,), ("out_head.bias",))
        return [*body, weight, *([bias] if head.bias else [])]

    def put_classes(self, model: Any, names: Sequence[str]) -> None:
        """Give a model whose file is a classifier's its head, of zeros so far."""
        head = self.class_head()
        add_classifier(model, names, head.position, head.bias, rng=Zeros())

    def class_head(self) -> ClassHead:
        """ConfigError where transformers has no such model with a head for classes."""
        if self.classifier is None:
            raise ConfigError(f"transformers has no {self.name} with a head for classes")
        return self.classifier

    def prefix(self, model: Model) -> str:
        """Of the names of a model in the files that are written, but for those of its heads."""
        return self.written.prefix

    def written_name(self, name: str, model: Model) -> str:
        """What a tensor of the written form is called in the files of a model: heads stand beside the rest, without a prefix."""
        return name if name.split(".")[0] in self.beside else self.prefix(model) + name

    def _rows(self, config: Any) -> Iterator[tuple[Any, int]]:
        """The rows of the table in the order of the model, those of a layer once for each."""
        depths = {"": 1} | self.depths(config)
        for stack, group in groupby(self.rows, key=_stack):
            rows = [*group]
            yield from ((row, i) for i in range(depths[stack]) for row in rows)

    def name_of(self, ours: str, layout: Layout) -> str:
        """What a layout calls a parameter, in the first layer and, of three in one, the first."""
        row = next(row for row in self.rows if row.ours == ours)
        return expand(getattr(row, layout.column).replace("{i}", "0"))[0]

    # ---- recognising a file by its names and shapes

    def known(self, layout: Layout, names: Iterable[str]) -> int:
        """How many of the names the layout knows."""
        templates = set(self._templates(layout))
        return sum(self._template(layout.wrappers.sub("", name, count=1)) in templates for name in names)

    def layout_of(self, names: Collection[str]) -> Layout:
        """The layout that knows most of the names."""
        return max(self.layouts, key=lambda layout: self.known(layout, names))

    def recognise(self, shapes: Mapping[str, tuple[int, ...]], transposed: bool | None = None) -> Found:
        """The layout that knows most names. `transposed`: how its matrices are stored, if not to be told by their shapes.

        StateDictError if none knows any, or a tensor has two names.
        """
        if len(shapes) > _MOST_TENSORS:
            raise StateDictError(f"not a {self.name}: it holds {len(shapes):,} tensors")
        layout = self.layout_of(shapes)
        if not self.known(layout, shapes):
            first = ", ".join(map(printable, list(shapes)[:3])) or "nothing"
            wanted = " or ".join(dict.fromkeys(self.name_of(self.rows[0].ours, layout) for layout in self.layouts))
            raise StateDictError(f"not a {self.name}: it holds {first}, ... and should hold {wanted}")
        names: dict[str, str] = {}
        for own in shapes:
            name = layout.wrappers.sub("", own, count=1)
            if name in names:
                raise StateDictError(
                    f"{printable(own)} and {printable(names[name])} are the same tensor of a {self.name}"
                )
            names[name] = own
        found = {name: shapes[own] for name, own in names.items()}
        ignored = frozenset(name for name in names if self._template(name) in layout.ignored)
        stacks, depths = dict(self._stacks(layout)), dict[str, int]()
        for name in names:
            if (match := self.layer.search(name)) and (stack := stacks.get(self._template(name))):
                depths[stack] = max(depths.get(stack, 0), 1 + int(match.group()))
        return Found(self.refine(layout, found, transposed), names, found, ignored, depths)

    def _template(self, name: str) -> str:
        return self.layer.sub("{i}", name)

    def _templates(self, layout: Layout) -> Iterable[str]:
        return (*dict(self._stacks(layout)), *layout.ignored)

    def _stacks(self, layout: Layout) -> Iterator[tuple[str, str]]:
        """What a layout calls the parameters, and the stack of each; none for those that stand in no layer."""
        for row in self.rows:
            if theirs := getattr(row, layout.column):
                yield from ((name, _stack(row)) for name in ((theirs,) if layout.fused else expand(theirs)))


def _stack(row: Any) -> str:
    """The stack that a row belongs to: `trf_blocks` for trf_blocks.{i}.norm1.scale."""
    return row.ours.partition(".{i}")[0] if "{i}" in row.ours else ""


_THREE = {"{qkv}": ("query", "key", "value"), "{q}": ("q", "k", "v")}


def expand(ours: str) -> tuple[str, ...]:
    """The three names that {qkv}, or {q} for their first letters, stands for."""
    for mark, words in _THREE.items():
        if mark in ours:
            return tuple(ours.replace(mark, word) for word in words)
    return (ours,)


def same_tensor(source: TensorSource, one: str, other: str) -> bool:
    """Whether two tensors of a file are equal to the bit."""
    return source.infos[one].shape == source.infos[other].shape and same_bits(source.read(one), source.read(other))


def tables() -> list[Table]:
    """The table of every architecture whose weights are published."""
    return [table for name in architectures() if (table := _table(name)) is not None]


def table_of(architecture: str) -> Table:
    """ConfigError for an architecture whose weights are published in no form."""
    table = _table(architecture)
    if table is None:
        raise ConfigError(f"architecture is {architecture!r}: its weights are published in no form that is known here")
    return table


def _table(architecture: str) -> Table | None:
    """That of the file of its name; None without such a file, or where what is published is a part of a model alone."""
    if architecture not in {name for _, name, _ in iter_modules(import_module(__package__).__path__)}:
        return None
    return getattr(import_module(f"{__package__}.{architecture}"), "TABLE", None)


def find_table(source: TensorSource, model_type: Any) -> Table:
    """The table of the architecture that the configuration names, else the one that knows most of a file's names.

    ConfigError for a name that none has.
    """
    if model_type is not None:
        for table in tables():
            if model_type in table.model_types:
                return table
        known = ", ".join(name for table in tables() for name in table.model_types)
        raise ConfigError(f"model_type is {model_type!r:.80}: only {known} can be loaded")
    return max(tables(), key=lambda table: max(table.known(layout, source.infos) for layout in table.layouts))
