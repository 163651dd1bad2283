"""Our weights out: folders that transformers opens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import __name__ as package
from ..errors import CheckpointError, ConfigError, TokenizerError
from ..files import make_folder, new_folder, storing, write_file
from ..formats.open import CONFIG_FILE, MODEL_FILE
from ..formats.safetensors import encode_arrays
from ..formats.strict_json import read_json
from ..models import Model, TextModel
from ..nn.lora import lora_of
from ..text import Tokenizer
from ..text.vocabulary import to_json
from .table import ClassHead, table_of
from .tensor_map import collect
from .tokenizer_files import write_tokenizer


def save_pretrained(model: Model, folder: str | os.PathLike[str], tokenizer: Tokenizer | None = None) -> None:
    """Write a folder in the form and with the names of transformers, in the model's dtype; whole or not at all.

    A folder that an earlier call made, or an empty one, is replaced; anything else there is a CheckpointError. What
    `load_pretrained` makes of the folder is the same to the bit.
    """
    if not isinstance(model, Model):
        raise ConfigError(f"save_pretrained: model is a {type(model).__name__}: it must be one that make_model makes")
    if lora_of(model) is not None:
        raise ConfigError(
            "save_pretrained: the model has LoRA layers, which this form has no place for: merge(model) first "
            "(tuning.lora, tinygrad-llm lora merge), or save them alone (tuning.lora.save)"
        )
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_ours(folder))):
        raise CheckpointError(f"{folder}: is there already, and was not written by this command: choose another folder")
    values = model.state_dict()
    dtype = next(iter(values.values())).dtype
    if tokenizer is not None:
        if not hasattr(model.config, "vocab_size"):
            raise TokenizerError(f"save_pretrained: a {type(model).__name__} reads no text: pass no tokenizer")
        if tokenizer.vocab_size > model.config.vocab_size:
            raise TokenizerError(
                f"the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}: they do not belong together"
            )
        to_json(tokenizer)  # an error now, rather than after writing
    table, classes = table_of(model.architecture), getattr(model, "classes", None)
    config = table.write_config(model.config) | {"torch_dtype": dtype.name}
    entries = table.entries(model.config, table.written)
    if classes is not None:
        entries = table.entries_of_classifier(model.config, table.written, len(classes))
        config |= {"id2label": {str(i): name for i, name in enumerate(classes)}}
        config |= {"label2id": {name: i for i, name in enumerate(classes)}}
        if isinstance(model, TextModel):
            head = table.class_head()
            _check_classifier(model, head, folder)
            values.setdefault("out_head.bias", np.zeros(len(classes), dtype))  # for those that always have one there
            config |= {"architectures": [head.model], "pad_token_id": None}
    if tokenizer is not None and config.get("pad_token_id", 0) is None:
        config["pad_token_id"] = getattr(tokenizer, "pad_id", tokenizer.eot_id)
    bos, eot = (None, None) if tokenizer is None else (tokenizer.bos_id, tokenizer.eot_id)
    config |= {
        "bos_token_id": bos,
        "eos_token_id": config.get("eos_token_id", eot),
    }  # a model may have marks of its own
    config |= {"transformers_version": "4.50.0", "written_by": package}
    arrays = {table.written_name(entry.theirs, model): collect(values, entry, dtype) for entry in entries}
    with storing(folder.parent):
        make_folder(folder.absolute().parent)
    n_bytes = sum(array.nbytes for array in arrays.values())
    with new_folder(folder, n_bytes) as unfinished:
        write_file(unfinished / CONFIG_FILE, [(json.dumps(config, indent=2) + "\n").encode()])
        metadata = {"format": "pt"}
        if hasattr(model.config, "n_heads"):
            metadata["n_heads"] = str(model.config.n_heads)
        write_file(unfinished / MODEL_FILE, encode_arrays(arrays, metadata))
        if tokenizer is not None:
            write_tokenizer(unfinished, tokenizer, model.config.context_length)


def _check_classifier(model: Any, theirs: ClassHead, folder: Path) -> None:
    """ConfigError for what a classifier of transformers cannot be told: how it judges, and a bias where its head has none."""
    if model.position != theirs.position:
        raise ConfigError(
            f"{folder}: the classifier judges by {model.position!r}: those of transformers do by {theirs.position!r}"
        )
    bias = model.out_head.bias
    if not theirs.bias and bias is not None and bias.data.any():
        raise ConfigError(
            f"{folder}: the classifier's head has a bias, those of transformers have none: train one without (--no-head-bias)"
        )


def _is_ours(folder: Path) -> bool:
    try:
        return read_json(folder / CONFIG_FILE).get("written_by") == package
    except CheckpointError:
        return False
