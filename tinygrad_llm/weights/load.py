"""A model from whatever people publish: folders of transformers and of OpenAI, single files, runs of our own."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from ..errors import CheckpointError, ConfigError, DTypeError, NonFiniteError, StateDictError
from ..formats.open import CONFIG_FILE, META_FILE, open_weights
from ..formats.source import TensorSource
from ..formats.strict_json import read_json
from ..models import LanguageModel, Model, TextModel, make_config, make_model
from ..models.heads import SCORE
from ..rng import Zeros
from ..runs.folder import find_run, load_run
from ..text import Tokenizer
from ..text.vocabulary import UnknownTokenizer
from .peft import load_adapter
from .report import LoadReport
from .table import Found, Layout, Table, find_table, table_of
from .tensor_map import fill, match
from .tokenizer_files import BESIDE, read_meta, read_tokenizer

Loaded = tuple[Model, Tokenizer | None, LoadReport]


@overload
def load_pretrained(
    path: str | os.PathLike[str],
    dtype: Any = ...,
    strict_finite: bool = ...,
    *,
    n_heads: int | None = ...,
    checkpoint: str | int | None = ...,
    rotary: str | None = ...,
    report: Literal[False] = ...,
) -> tuple[Model, Tokenizer | None]: ...


@overload
def load_pretrained(
    path: str | os.PathLike[str],
    dtype: Any = ...,
    strict_finite: bool = ...,
    *,
    n_heads: int | None = ...,
    checkpoint: str | int | None = ...,
    rotary: str | None = ...,
    report: Literal[True],
) -> Loaded: ...


def load_pretrained(
    path: str | os.PathLike[str],
    dtype: Any = np.float32,
    strict_finite: bool = False,
    *,
    n_heads: int | None = None,
    report: bool = False,
    checkpoint: str | int | None = None,
    rotary: str | None = None,
) -> Any:
    """(model, tokenizer): the model in a folder or file, in evaluation mode, and the tokenizer beside it or None.

    With `report`, a LoadReport comes third: what became of each tensor. `checkpoint` as in `load_run`.

    Folders: of transformers (config.json, model.safetensors or its shards), of OpenAI (hparams.json, model.ckpt.*), of Meta
    (params.json beside safetensors), of a run. Files: .safetensors with the names of transformers, of Meta, of nanoGPT, of
    BlinkDL, of timm or of the book; llama2.c's and rwkv.cpp's .bin. What no configuration says is told from shapes, but for
    `n_heads`. A Llama that foresees a sentence better by a nat with other rotary pairs than its file's form has gives a
    warning: `rotary`, "halves" or "interleaved", says which ones they are. Weights become `dtype`, float32 or float64. NaN
    and infinities give a warning, or with `strict_finite` NonFiniteError. CheckpointError, ConfigError or StateDictError say
    what is wrong before the model is made; UnsafeFile for PyTorch's pickles, which `tinygrad-llm convert` makes into
    safetensors.
    """
    if found := find_run(path, checkpoint):
        loaded = _load_run(*found, dtype, strict_finite)
    else:
        with open_weights(path) as source:
            loaded = read_all(source, dtype, strict_finite, n_heads, rotary=rotary)
    loaded[0].loaded_from = os.fspath(path)
    return loaded if report else loaded[:2]


def tells_classes(path: str | os.PathLike[str]) -> bool:
    """Whether the configuration in a folder is that of a classifier, of a run or of transformers; nothing is loaded."""
    found = find_run(path)
    file = (found[0] if found else Path(path)) / CONFIG_FILE
    values = read_json(file) if file.is_file() else {}
    return "head" in values if found else "ForSequenceClassification" in str(values.get("architectures"))


def load_with_tokenizer(
    path: str | os.PathLike[str],
    checkpoint: str | int | None = None,
    adapter: str | os.PathLike[str] | None = None,
    *,
    kind: type[TextModel] = LanguageModel,
) -> tuple[Any, Tokenizer]:
    """What `load_pretrained` gives, for those who need to read or write text: a model of a `kind`, by default one that writes.
    CheckpointError if there is no tokenizer, if it is another kind of model, or tells classes instead of tokens.

    `adapter`: a folder of PEFT's, whose LoRA goes into the model.
    """
    model, tokenizer = load_pretrained(path, checkpoint=checkpoint)
    if adapter is not None:
        load_adapter(model, adapter)
    if not isinstance(model, kind) and getattr(model, "classes", None) is None:
        asking = (
            f": tinygrad-llm {', '.join(model.commands)} ask{'s' * (len(model.commands) == 1)} it"
            if model.commands
            else ""
        )
        raise CheckpointError(f"{path}: a {type(model).__name__}, which does not write on from a text{asking}")
    if classes := getattr(model, "classes", None):
        if classes == (SCORE,):
            raise CheckpointError(f"{path}: a reward model, which writes no text: tinygrad-llm evaluate asks it")
        named = f"{', '.join(classes)!s:.60}"
        raise CheckpointError(f"{path}: a classifier ({named}), which writes no text: tinygrad-llm predict asks it")
    if tokenizer is None:
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        remedy = BESIDE
        if (folder / META_FILE).exists():
            remedy = f"{META_FILE} is a pickle, which tinygrad-llm convert {path} FOLDER reads, and writes a tokenizer"
        raise CheckpointError(f"{path}: no tokenizer there: {remedy}")
    return model, tokenizer


def read_all(
    source: TensorSource,
    dtype: Any,
    strict_finite: bool = False,
    n_heads: int | None = None,
    *,
    rotary: str | None = None,
    pickles: bool = False,
) -> Loaded:
    """The model in an opened file, and the tokenizer beside it. One of a kind that is not known is said, and left out.

    nanoGPT's meta.pkl is read only with `pickles`.
    """
    folder, notes = source.folder, []
    try:
        eos_id = read_json(folder / CONFIG_FILE).get("eos_token_id") if (folder / CONFIG_FILE).exists() else None
        tokenizer = read_tokenizer(folder, eos_id)
        if tokenizer is None and pickles and (folder / META_FILE).exists():
            tokenizer = read_meta(folder / META_FILE)
    except UnknownTokenizer as error:
        tokenizer = None
        notes.append(f"no tokenizer: {error}")
    model, layout, report = read_model(source, dtype, strict_finite, n_heads, rotary)
    rows = model.config.vocab_size if isinstance(model, TextModel) else 0
    if tokenizer is not None and tokenizer.vocab_size > rows > 0:
        notes.append(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model {rows:,}: it cannot read the last ones"
        )
    notes += filter(None, [table_of(model.architecture).check(model, tokenizer, layout)])
    report.notes += notes
    for note in notes:
        warnings.warn(f"{source.path}: {note}", RuntimeWarning, stacklevel=3)
    return model, tokenizer, report


def _load_run(folder: Path, checkpoint: str | int, dtype: Any, strict_finite: bool) -> Loaded:
    dtype = _check_dtype(dtype)
    model, tokenizer = load_run(folder, checkpoint)
    report = LoadReport(folder, "a run, names of the book", mapped={name: name for name in model.state_dict()})
    n_bad = sum(p.size - int(np.count_nonzero(np.isfinite(p.data))) for p in model.parameters())
    _judge(n_bad, report, strict_finite)
    return model.astype(dtype), tokenizer, report


def _check_dtype(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise DTypeError(f"load_pretrained: dtype is {dtype}: use np.float32 or np.float64")
    return dtype


def _judge(n_bad: int, report: LoadReport, strict_finite: bool) -> None:
    """Say how many weights are NaN or infinite, aloud."""
    if n_bad:
        message = f"{report.path}: {n_bad:,} of the weights are NaN or infinite" + "".join(
            f"; {n}" for n in report.notes[-1:]
        )
        if strict_finite:
            raise NonFiniteError(f"{message}. Nothing was loaded")
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def read_model(
    source: TensorSource,
    dtype: Any,
    strict_finite: bool = False,
    n_heads: int | None = None,
    rotary: str | None = None,
) -> tuple[Model, Layout, LoadReport]:
    """The model in an opened file, with the sizes that the file, or a configuration beside it, says; and how the file has it."""
    dtype = _check_dtype(dtype)
    table, (config, notes, transposed) = _read_config(source)
    try:
        found = table.recognise({name: info.shape for name, info in source.infos.items()}, transposed)
        if rotary is not None:
            found = replace(found, layout=_with_rotary(found.layout, rotary, table))
        if config is None:
            said = str(source.metadata.get("n_heads", ""))  # as save_pretrained writes it
            n_heads = int(said) if n_heads is None and said.isdecimal() and len(said) < 10 else n_heads
            config, notes = table.infer_config(found, n_heads)
        if n_heads not in (None, had := getattr(config, "n_heads", None)):
            known = f"a {table.name} has none" if had is None else f"the configuration says {had}"
            raise ConfigError(f"n_heads is {n_heads}, {known}")
        for stack, n_layers in table.depths(config).items():
            if n_layers != (there := found.depths.get(stack, 1)):
                where = f" in {stack}" if len(table.depths(config)) > 1 else ""
                raise StateDictError(f"has tensors of {there} layers{where}, the configuration says {n_layers}")
        config, ignored = table.settle(config, found, source, notes)
    except (StateDictError, ConfigError) as error:
        raise type(error)(f"{source.path}: {error}") from None
    report = LoadReport(source.path, f"{table.name}, {found.layout.name}, {source.form}", notes=notes)
    classes = _read_classes(table, found, source)
    if classes is None:
        entries = table.entries(config, found.layout)
    else:
        entries = table.entries_of_classifier(config, found.layout, len(classes))
    match(entries, source, found.names, ignored, report)

    model = make_model(table.architecture, config, Zeros())
    if classes is not None:
        table.put_classes(model, classes)
    _judge(fill(model, entries, source, found.names, report, dtype), report, strict_finite)
    return model.eval(), found.layout, report


def _with_rotary(layout: Layout, rotary: str, table: Table) -> Layout:
    if rotary not in ("halves", "interleaved"):
        raise ConfigError(f"rotary is {rotary!r:.80}: use 'halves' or 'interleaved'")
    if layout.interleaved is None:
        raise ConfigError(f"rotary is {rotary!r}: a {table.name} has no rotary positions")
    return replace(layout, interleaved=rotary == "interleaved")


def _read_classes(table: Table, found: Found, source: TensorSource) -> list[str] | None:
    """The names of the classes of a classifier of transformers: id2label of its config.json, else LABEL_0, LABEL_1, ..."""
    if table.classifier is None or (shape := found.shapes.get(f"{table.classifier.module}.weight")) is None:
        return None
    path = source.folder / CONFIG_FILE
    names = read_json(path).get("id2label") if path.exists() else None
    if names is None:
        return [f"LABEL_{i}" for i in range(shape[0] if shape else 0)]
    wanted = [str(i) for i in range(shape[0] if shape else 0)]
    if not isinstance(names, dict) or sorted(names) != sorted(wanted) or not all(map(_is_text, names.values())):
        raise CheckpointError(
            f"{path}: id2label is {names!r:.80}: it must name the {len(wanted)} classes of {table.classifier.module}.weight"
        )
    return [names[i] for i in wanted]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _read_config(source: TensorSource) -> tuple[Table, tuple[Any, list[str], bool | None]]:
    """The table of the model in an opened file, and what is said about it there or beside it, as Table.read_config has it."""
    path = source.folder / CONFIG_FILE
    values = read_json(path) if path.exists() and not source.complete else {}
    if isinstance(values.get("model"), dict):  # a run's
        if "lora" in values:
            raise ConfigError(f"{path}: a run with LoRA layers, which its weights alone do not tell: name its folder")
        architecture = values.get("architecture", "gpt")
        try:
            config = make_config(architecture, values["model"])
        except ConfigError as error:
            raise ConfigError(f"{path}: model: {error}") from None
        return table_of(architecture), (config, [], None)
    try:
        table = find_table(source, values.get("model_type"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return table, table.read_config(source)


def describe(source: TensorSource) -> str:
    """What the tensors in a file seem to be, by their names and shapes: for people."""
    try:
        table, (config, _, transposed) = _read_config(source)
        found = table.recognise({name: info.shape for name, info in source.infos.items()}, transposed)
    except (StateDictError, CheckpointError, ConfigError) as error:
        return str(error)
    about = f"{table.name} with the {found.layout.name}: {found.n_layers} layers"
    try:
        if config is None:
            config, _ = table.infer_config(found, n_heads=1)
    except StateDictError as error:
        return str(error)
    except ConfigError:  # queries and keys have not as many
        return f"{about}; how many heads is not in the file"
    return f"{about}, {table.about(config)}"
