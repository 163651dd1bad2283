"""The folder of a run: what is in it, how it is begun, written and read.

config.json         the model's sizes and every option of the run
model.safetensors   the weights, under the book's names
tokenizer.txt       written by the tokenizer itself
metrics.jsonl       one line for each evaluation
samples.txt         what the model wrote after each epoch
loss.png            the losses as a picture
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ConfigError, StateDictError
from ..models.gpt import GPTConfig, GPTModel
from ..text import Tokenizer, load_tokenizer

CONFIG_FILE, MODEL_FILE = "config.json", "model.safetensors"
METRICS_FILE, SAMPLES_FILE, PLOT_FILE = "metrics.jsonl", "samples.txt", "loss.png"


def start_run(folder: str | os.PathLike[str], config: dict[str, Any], tokenizer: Tokenizer) -> Path | None:
    """Make the folder and write what is known before training. A finished run already there is kept beside it as
    `folder.1`, `folder.2`, ...: that path is returned. CheckpointError if the folder holds something else or cannot be
    written.
    """
    folder, previous = Path(folder), None
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not _is_run(folder):
                raise CheckpointError(f"{folder}: holds files that are not those of a run: choose another folder")
            if (folder / MODEL_FILE).exists():
                previous = _free_name(folder)
                folder.rename(previous)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in (METRICS_FILE, SAMPLES_FILE):
            (folder / name).write_text("", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error.strerror or error}: choose another folder"
        ) from error
    tokenizer.save(folder)
    return previous


def append(path: Path, text: str) -> None:
    """Add `text` to a file of the run; it is there even if the run dies."""
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def save_model(folder: str | os.PathLike[str], model: GPTModel) -> None:
    """Write the weights; the file is complete or not there, and an older one stays until the new one is."""
    from safetensors import SafetensorError  # here, so that it is not loaded with the package
    from safetensors.numpy import save_file

    path = Path(folder, MODEL_FILE)
    unfinished = path.with_suffix(".tmp")
    try:
        save_file({name: parameter.data for name, parameter in model.named_parameters()}, unfinished)
        umask = os.umask(0)
        os.umask(umask)
        unfinished.chmod(0o666 & ~umask)  # safetensors makes it readable for the owner alone
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written: {error}") from error


def load_run(folder: str | os.PathLike[str]) -> tuple[GPTModel, Tokenizer]:
    """The model, ready to write (in evaluation mode), and its tokenizer. CheckpointError naming the file that is wrong."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    config = load_config(folder)
    path = Path(folder, MODEL_FILE)
    try:
        model = GPTModel(GPTConfig(**config["model"] | {"init": "zeros"}))
        model.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: not there: the run was stopped before it saved its weights") from None
    except (OSError, SafetensorError, StateDictError, ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: does not fit {CONFIG_FILE}, or is damaged: {error}") from error
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} entries, the model {model.config.vocab_size}: "
            "they are not of one run"
        )
    model.eval()
    return model, tokenizer


def load_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of config.json: {"model": {...}, "training": {...}, ...}."""
    path = Path(folder, CONFIG_FILE)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no run there: {CONFIG_FILE} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("model", "training")):
        raise CheckpointError(f"{path}: not the configuration of a run")
    return config


def _is_run(folder: Path) -> bool:
    try:
        load_config(folder)
    except CheckpointError:
        return False
    return True


def _free_name(folder: Path) -> Path:
    n = 1
    while (name := folder.with_name(f"{folder.name}.{n}")).exists():
        n += 1
    return name
