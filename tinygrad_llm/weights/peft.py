"""LoRA in PEFT's files: adapter_config.json and adapter_model.safetensors.

    base_model.model.transformer.h.0.attn.c_attn.lora_A.weight   (r, I)
    base_model.model.transformer.h.0.attn.c_attn.lora_B.weight   (O, r)
    base_model.model.score.weight                                of modules_to_save, which were trained whole

Where they keep queries, keys and values in one layer, theirs has one A for the three, and B is cut in three. Ours, one pair for
each, goes out as one of rank 3 r, A stacked and B block-diagonal, with alpha such that its scale stays. Modules are named as the
table of the architecture says. Letters in shape comments: I inputs, O outputs, r the rank.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import did_you_mean
from ..errors import CheckpointError, ConfigError, CorruptCheckpoint, NonFiniteError, StateDictError, UnsafeFile
from ..files import make_folder, new_folder, storing, write_file
from ..formats.safetensors import SafetensorsFile, encode_arrays
from ..formats.source import printable
from ..models import Model, TextModel
from ..models.heads import add_classifier
from ..nn import Linear
from ..nn.lora import LoRAConfig, LoRALinear, inject, lora_of, shorten
from ..rng import Zeros
from .peft_config import ADAPTER_CONFIG, AdapterConfig, alpha_of, check_adapter_config, read_adapter_config
from .table import table_of
from .tensor_map import Entry, collect

ADAPTER, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.weight")
_CLASSES = "classes"  # of our metadata: the names of a classifier's classes
_BLOCKS = "fused_blocks"  # of our metadata: how many layers of ours each fused one holds, block-diagonally
_SHOWN = 6  # problems in a message


# ---- their names


def _check_model(what: str, model: Model) -> TextModel:
    if not isinstance(model, TextModel):
        raise ConfigError(
            f"{what}: the model is a {type(model).__name__}: PEFT's names are known for models of one text"
        )
    return model


@dataclass(frozen=True)
class _Layer:
    """One of their linear layers, and ours that it holds one after the other."""

    name: str  # theirs, as written: transformer.h.0.attn.c_attn
    ours: tuple[str, ...]  # trf_blocks.0.att.W_query, ...
    transposed: bool


class _Names:
    """The names of a model's modules and parameters in PEFT's files."""

    def __init__(self, model: TextModel) -> None:
        self.table = table_of(model.architecture)
        self.prefix = self.table.prefix(model)
        self.parameters = dict(model.named_parameters())
        modules = dict(model.named_modules())
        self.entries: dict[str, Entry] = {}  # by the name as written
        self.layers: dict[str, _Layer] = {}
        head: Any = model.out_head
        self.classifies = model.classes is not None or (
            head is not None and len(head.weight.data) != model.config.vocab_size
        )
        for entry in self.table.entries(model.config, self.table.written):
            of_head = entry.ours and entry.ours[0].startswith("out_head.")
            if entry.ours and all(own in self.parameters for own in entry.ours) and not (of_head and self.classifies):
                self._add(self.table.written_name(entry.theirs, model), entry, modules)
        of_tokens = self.table.name_of("out_head.weight", self.table.written).removesuffix(".weight")
        self.head = self.score if self.classifies else of_tokens
        for name in ("weight", "bias") if self.classifies else ():  # which is in no table
            if (own := f"out_head.{name}") in self.parameters:
                theirs = f"{self.head}.{name}"
                self._add(theirs, Entry(theirs, self.parameters[own].shape, (own,)), modules)

    @property
    def score(self) -> str:
        """What a head for classes is called."""
        return self.table.classifier.module if self.table.classifier else ""

    def _add(self, name: str, entry: Entry, modules: Mapping[str, Any]) -> None:
        self.entries[name] = entry
        paths = tuple(own.rpartition(".")[0] for own in entry.ours)
        if name.endswith(".weight") and all(isinstance(modules[path], Linear) for path in paths):
            layer = name.removesuffix(".weight")
            self.layers[layer] = _Layer(layer, paths, entry.transposed)

    def copies(self, name: str, array: np.ndarray) -> bool:
        """Whether a tensor is nothing but the base's own, which PEFT adds where a head or an embedding has LoRA."""
        entry = self.entries.get(self.written(name.replace(".base_layer.", ".")))
        if entry is None or entry.shape != array.shape:
            return False
        values = {own: self.parameters[own].data for own in entry.ours}
        return np.array_equal(collect(values, entry, array.dtype), array)

    def written(self, name: str) -> str:
        """A name in a file as it would be written: an adapter of a model without its head lacks the prefix."""
        name = name.removeprefix(self.table.written.prefix)
        return name if name.split(".")[0] in self.table.beside else self.prefix + name


# ---- writing


def save_adapter(model: Model, folder: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> None:
    """Write the LoRA of a model, and what was trained whole beside it, as PEFT's two files; whole or not at all.

    `base`: what adapter_config.json calls the model it belongs to, by default the path that it was loaded from. A classifier's
    head is always written whole, with its LoRA merged, if it has any: the base does not have it. Of queries, keys and values
    where not all three have LoRA, the others' are zeros. ConfigError for a model without LoRA, or with it merged;
    CheckpointError for a folder that holds anything else than an adapter.
    """
    model, config = _check_model("save", model), lora_of(model)
    if config is None:
        raise ConfigError("save: the model has no LoRA layers, or they are merged: inject or unmerge them first")
    folder = Path(folder)
    if folder.exists() and (
        not folder.is_dir() or {path.name for path in folder.iterdir()} - {ADAPTER_CONFIG, ADAPTER, "README.md"}
    ):
        raise CheckpointError(f"{folder}: is there already, and holds more than an adapter: choose another folder")
    names, arrays, ranks = _Names(model), {}, {}
    modules = dict(model.named_modules())
    for layer in names.layers.values():
        pairs = [module for path in layer.ours if isinstance(module := modules[path], LoRALinear)]
        if not pairs or (names.classifies and layer.name == names.head):
            continue
        ranks[layer.name] = config.r * len(layer.ours)
        a, b = _fuse([modules[path] for path in layer.ours], config.r)
        arrays[f"{layer.name}.lora_A.weight"], arrays[f"{layer.name}.lora_B.weight"] = a, b
    whole = _trained_whole(names, modules)
    arrays |= whole
    if not ranks:
        raise ConfigError("save: only the head has LoRA: PEFT's files have nothing else to hold")
    values = _config_of(config, names, ranks, whole, model.loaded_from if base is None else os.fspath(base))
    with storing(folder.parent):
        make_folder(folder.absolute().parent)
    with new_folder(folder, sum(array.nbytes for array in arrays.values())) as unfinished:
        write_file(unfinished / ADAPTER_CONFIG, [(json.dumps(values, indent=2, sort_keys=True) + "\n").encode()])
        metadata = {
            "format": "pt",
            _BLOCKS: json.dumps({name: r // config.r for name, r in ranks.items() if r > config.r}),
        }
        if model.classes is not None:
            metadata[_CLASSES] = json.dumps(model.classes)
        tensors = {_PREFIX + name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_file(unfinished / ADAPTER, encode_arrays(tensors, metadata))


def _fuse(layers: list[Any], r: int) -> tuple[np.ndarray, np.ndarray]:
    """A (n r, I) stacked and B (O, n r) block-diagonal, of the n layers that are one there; zeros for one without LoRA."""
    dtype, n_in = layers[0].weight.dtype, layers[0].weight.shape[1]
    a = np.zeros((len(layers) * r, n_in), dtype)
    b = np.zeros((sum(len(layer.weight) for layer in layers), len(layers) * r), dtype)
    row = 0
    for i, layer in enumerate(layers):
        if isinstance(layer, LoRALinear):
            a[i * r : (i + 1) * r] = layer.lora_A.data
            b[row : row + len(layer.weight), i * r : (i + 1) * r] = layer.lora_B.data
        row += len(layer.weight)
    return a, b


def _trained_whole(names: _Names, modules: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name -> array of what is trained but no LoRA, and of a classifier's head."""
    trained = {
        name
        for name, p in names.parameters.items()
        if (p.requires_grad and not name.endswith((".lora_A", ".lora_B")))
        or (names.classifies and name.startswith("out_head."))
    }
    trained -= {"out_head.lora_A", "out_head.lora_B"}
    values = {name: names.parameters[name].data for name in trained}
    if names.classifies and isinstance(head := modules["out_head"], LoRALinear):
        values["out_head.weight"] = head.lora_config.scale * (head.lora_B.data @ head.lora_A.data) + head.weight.data
    found = {}
    for name, entry in names.entries.items():
        if trained.issuperset(entry.ours):
            found[name] = collect(values, entry, values[entry.ours[0]].dtype)
            trained -= set(entry.ours)
    if trained:
        raise ConfigError(
            f"save: {min(trained)} is trained, and PEFT's files have no place for it alone: train LoRA there"
        )
    return found


def _config_of(
    config: LoRAConfig, names: _Names, ranks: Mapping[str, int], whole: Mapping[str, Any], base: str | None
) -> dict[str, Any]:
    def alpha(r: int) -> float:
        return alpha_of(config.scale, r, config.use_rslora)

    r = min(ranks.values())
    wider = shorten([name for name in ranks if ranks[name] > r], names.layers)
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if names.classifies else names.table.task_type,
        "base_model_name_or_path": base,
        "r": r,
        "lora_alpha": alpha(r),
        "rank_pattern": dict.fromkeys(wider, max(ranks.values())),
        "alpha_pattern": dict.fromkeys(wider, alpha(max(ranks.values()))),
        "lora_dropout": config.dropout,
        "use_rslora": config.use_rslora,
        "target_modules": shorten(ranks, names.layers),
        "modules_to_save": list(dict.fromkeys(name.rpartition(".")[0] for name in whole)) or None,
        "fan_in_fan_out": any(names.layers[name].transposed for name in ranks),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
        "use_dora": False,
    }


# ---- reading


def load_adapter(model: Model, folder: str | os.PathLike[str]) -> None:
    """Put the LoRA in PEFT's files into a model, and what was trained whole beside it in the place of the model's own.

    Everything is read and checked before the model is changed. All layers get the largest rank among those in the file: a
    smaller one is filled up with zeros, and a scale of its own goes into its B. A language model is given the head of an
    adapter that classifies, whose classes are called LABEL_0, LABEL_1, ... unless we have written it. CheckpointError,
    ConfigError, StateDictError or NonFiniteError says what is wrong: a field that is not implemented, a tensor that is missing,
    unexpected or misshapen, NaN; UnsafeFile for a pickle.
    """
    model = _check_model("load", model)
    folder = Path(folder)
    theirs = check_adapter_config(read_adapter_config(folder), str(folder / ADAPTER_CONFIG))
    path = folder / ADAPTER
    if not path.exists() and (folder / PICKLE).exists():
        raise UnsafeFile(
            f"{folder / PICKLE}: a pickle, which could run code: save the adapter with safe_serialization=True"
        )
    arrays, blocks, classes = _read(path)
    theirs_head = table_of(model.architecture).classifier
    score = "" if theirs_head is None else f"{_PREFIX}{theirs_head.module}"
    if model.classes is not None or theirs_head is None or f"{score}.weight" not in arrays:
        return _put(model, theirs, arrays, blocks, folder)
    shape, before = arrays[f"{score}.weight"].shape, dict(vars(model))
    try:
        add_classifier(
            model,
            classes or [f"LABEL_{i}" for i in range(shape[0] if shape else 0)],
            theirs_head.position,
            bias=f"{score}.bias" in arrays,
            rng=Zeros(),
        )
        _put(model, theirs, arrays, blocks, folder)
    except Exception:
        vars(model).clear()
        vars(model).update(before)
        raise


def classifies(folder: str | os.PathLike[str] | None) -> bool:
    """Whether an adapter makes a classifier of a language model, by what its configuration says; False for None."""
    return folder is not None and read_adapter_config(folder).get("task_type") == "SEQ_CLS"


def _put(
    model: TextModel, theirs: AdapterConfig, arrays: dict[str, np.ndarray], blocks: dict[str, int], folder: Path
) -> None:
    """Check everything, and then change the model."""
    path, names = folder / ADAPTER, _Names(model)
    factors, whole, problems = _sort(arrays, names, theirs)
    layers = {
        name: pair
        for name, pair in factors.items()
        if not problems and not _misfit(name, pair, names, theirs, problems)
    }
    problems += _misfits_of_lists(theirs, names, factors, whole)
    if not layers and not problems:
        problems.append("it holds no lora_A and lora_B")
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise StateDictError(f"{path}: does not fit: {'; '.join(problems[:_SHOWN])}{more}. Nothing was loaded")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise NonFiniteError(f"{path}: {printable(name)} holds NaN or infinities. Nothing was loaded")
    pairs = _cut(layers, names, theirs, blocks, str(path))
    r = max(len(a) for a, _, _ in pairs.values())
    first = max(scale for _, _, scale in pairs.values())
    linears = [path for path, module in model.named_modules() if isinstance(module, Linear)]
    trained = dict.fromkeys(own.rpartition(".")[0] for entry, _ in whole.values() for own in entry.ours)
    try:
        config = LoRAConfig(
            r=r,
            alpha=alpha_of(first, r, theirs.use_rslora),
            dropout=theirs.dropout,
            targets=tuple(shorten(pairs, linears)),
            whole=tuple(trained),
            use_rslora=theirs.use_rslora,
        )
        inject(model, config, Zeros())
    except ConfigError as error:
        raise ConfigError(f"{folder}: {error}") from None
    modules: dict[str, Any] = dict(model.named_modules())
    for own, (a, b, scale) in pairs.items():
        layer = modules[own]
        layer.lora_A.data[: len(a)] = a
        layer.lora_B.data[:, : len(a)] = b if scale == first else b * (scale / first)
    for entry, array in whole.values():
        for own, part in zip(
            entry.ours, np.split(array.T if entry.transposed else array, len(entry.ours)), strict=True
        ):
            names.parameters[own].data[...] = part
    if (
        f"{names.head}.weight" in whole
        and f"{names.head}.bias" not in whole
        and (bias := names.parameters.get("out_head.bias")) is not None
    ):
        bias.data[...] = 0  # theirs has none


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, int], list[str]]:
    """The tensors; how many blocks there are in each fused layer, and the classes, if we have written it."""
    with SafetensorsFile(path) as file:
        arrays = {name: file.read(name) for name in file.infos}
        said, named = file.metadata.get(_BLOCKS, "{}"), file.metadata.get(_CLASSES, "[]")
    try:
        blocks, classes = json.loads(said), json.loads(named)
        fits = all(isinstance(n, int) and 0 < n < 100 for n in blocks.values())
        fits = fits and isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    except (ValueError, AttributeError, RecursionError):
        fits = False
    if not fits:
        raise CorruptCheckpoint(
            f"{path}: its metadata says {_BLOCKS} {said!r:.80}, {_CLASSES} {named!r:.80}: these must be "
            "names with numbers, and names"
        )
    return arrays, blocks, classes


_Pair = dict[str, np.ndarray]  # "A" (r, I) and "B" (O, r)


def _sort(
    arrays: Mapping[str, np.ndarray], names: _Names, theirs: AdapterConfig
) -> tuple[dict[str, _Pair], dict[str, tuple[Entry, np.ndarray]], list[str]]:
    """The pairs by layer, the tensors of what was trained whole, and what is in neither."""
    factors: dict[str, _Pair] = {}
    whole: dict[str, tuple[Entry, np.ndarray]] = {}
    problems: list[str] = []
    for own, array in arrays.items():
        name = own.removeprefix(_PREFIX)
        if array.dtype.kind not in "f":
            problems.append(f"{printable(own)} holds {array.dtype}")
        elif own == name:
            problems.append(f"unexpected {printable(own)} {array.shape}: names begin with {_PREFIX}")
        elif match := _FACTOR.fullmatch(name):
            layer = names.written(match[1])
            if layer not in names.layers:
                tied = ", whose weight is the token embedding here" if layer == names.head else ""
                problems.append(f"unexpected {printable(own)} {array.shape}{tied or did_you_mean(layer, names.layers)}")
            factors.setdefault(layer, {})[match[2]] = array
        elif names.copies(name, array):
            continue
        else:
            written = names.written(name)
            entry = names.entries.get(written)
            module = written.rpartition(".")[0]
            if entry is None or not module.endswith(
                tuple(theirs.modules_to_save)
            ):  # "norm" is input_layernorm too there
                problems.append(f"unexpected {printable(own)} {array.shape}")
            elif array.shape != entry.shape:
                problems.append(f"{printable(own)} is {array.shape}, in the model it is {entry.shape}")
            else:
                whole[written] = entry, array
    return factors, whole, problems


def _misfit(name: str, pair: _Pair, names: _Names, theirs: AdapterConfig, problems: list[str]) -> bool:
    """Whether a pair of matrices does not fit its layer, which is added to the problems."""
    weight = names.entries[f"{name}.weight"]
    n_out, n_in = weight.shape[::-1] if weight.transposed else weight.shape
    before = len(problems)
    for letter, shape in {"A": (theirs.rank(name), n_in), "B": (n_out, theirs.rank(name))}.items():
        if letter not in pair:
            problems.append(f"missing {_PREFIX}{name}.lora_{letter}.weight {shape}")
        elif pair[letter].shape != shape:
            problems.append(f"{_PREFIX}{name}.lora_{letter}.weight is {pair[letter].shape}, here it must be {shape}")
    return len(problems) > before


def _misfits_of_lists(
    theirs: AdapterConfig, names: _Names, factors: Mapping[str, Any], whole: Mapping[str, Any]
) -> list[str]:
    """What target_modules and modules_to_save say and the tensors do not, or the other way round."""
    problems = []
    for target in theirs.targets or []:
        if not any(_ends(layer, target) for layer in factors):
            problems.append(f"target_modules has {printable(target)}, of which there is no tensor")
    if theirs.targets is not None:
        for layer in factors:
            if not any(_ends(layer, target) for target in theirs.targets):
                problems.append(f"{printable(layer)} is not among target_modules")
    saved = {name.rpartition(".")[0] for name in whole}
    for name, entry in names.entries.items():
        if name.rpartition(".")[0] in saved and name not in whole and name != f"{names.head}.bias":  # theirs has none
            problems.append(f"missing {_PREFIX}{name} {entry.shape}")
    for module in theirs.modules_to_save:
        usual = module in ("classifier", "score") and names.head in saved  # PEFT names both for every classifier
        if not usual and not any(name.endswith(module) for name in saved):
            problems.append(f"modules_to_save has {printable(module)}, of which there is no tensor")
    return problems


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _cut(
    layers: Mapping[str, _Pair], names: _Names, theirs: AdapterConfig, blocks: Mapping[str, int], where: str
) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """Ours -> A, B and the scale. Of a fused layer all share A, unless we have written it, block by block."""
    pairs: dict[str, tuple[np.ndarray, np.ndarray, float]] = {}
    for name, pair in layers.items():
        ours, a, b = names.layers[name].ours, pair["A"], pair["B"]
        parts, n = np.split(b, len(ours)), blocks.get(name, 1)
        scale = theirs.scale(name)
        if n == 1:
            pairs |= {own: (a, part, scale) for own, part in zip(ours, parts, strict=True)}
            continue
        if n != len(ours) or len(a) % n:
            raise CorruptCheckpoint(f"{where}: {printable(name)} has {n} blocks in its metadata, and rank {len(a)}")
        r = len(a) // n
        columns = [slice(i * r, (i + 1) * r) for i in range(n)]
        for part, own_columns in zip(parts, columns, strict=True):
            if part[:, : own_columns.start].any() or part[:, own_columns.stop :].any():
                raise CorruptCheckpoint(
                    f"{where}: {printable(name)}: lora_B is not block-diagonal, as its metadata says"
                )
        cut = [(own, a[i], part[:, i]) for own, part, i in zip(ours, parts, columns, strict=True)]
        used = [block for block in cut if block[1].any() or block[2].any()]  # zeros stand for a layer without LoRA
        pairs |= {own: (own_a, own_b, scale) for own, own_a, own_b in used or cut}
    return pairs
