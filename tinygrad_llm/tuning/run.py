"""What tuning runs have in common, whatever the task: how one begins, and how it is gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, ConfigError, DataError
from ..files import check_writable, lock, remove_stale
from ..models import LanguageModel, TextModel, build_model, describe_model
from ..models.heads import policy_of
from ..nn import Module
from ..nn.lora import inject, lora_of, merge
from ..rng import Generator, Zeros, use_generator
from ..runs.checkpoint import check_room, load_checkpoint, newest_checkpoint, verify_checkpoint
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, FORMAT, command_of, find_run, load_config, new_run
from ..runs.loggers import Logger
from ..text import Tokenizer, load_tokenizer
from ..training.loop import TrainingLoop
from ..training.options import LoopOptions
from ..training.resume import changed_options, refuse_differences, take_up
from ..training.task import Task
from ..weights.load import load_with_tokenizer
from .options import SIZES, TuningOptions

Options = TypeVar("Options", bound=TuningOptions)


def load_base(path: str | os.PathLike[str], kind: type[TextModel] = LanguageModel) -> tuple[Any, Tokenizer]:
    """The model to begin from, by default one that writes, with its LoRA folded in if it has any, and its tokenizer."""
    model, tokenizer = load_with_tokenizer(path, kind=kind)
    if lora_of(model) is not None:
        merge(model, keep=False)
    return model, tokenizer


def freeze(model: Any, train: str) -> None:
    """Let only the head, or the last block, the final norm and the head, or all learn. What values answers learns as a whole."""
    model = policy_of(model)
    learning: list[Module] = [model]
    if train != "all":  # of a language model
        learning = model.last_modules() if train == "last_block" else [model.out_head]
    for parameter in model.parameters():
        parameter.requires_grad = False
    for module in learning:
        for parameter in module.parameters():
            parameter.requires_grad = True


class TuningTask(Task):
    """A task on texts, of which it knows how long they are."""

    tokenizer: Tokenizer
    max_length: int  # tokens in a row

    def n_bytes(self) -> int:
        """Memory that the texts take, and their ids."""
        raise TypeError(f"{type(self).__name__} must define n_bytes()")


def begin(
    task: TuningTask,
    options: TuningOptions,
    config: Any,
    make: Callable[[], Any],
    data: str | os.PathLike[str] | Sequence[str],
    init_from: str | os.PathLike[str] | None,
    out: str | os.PathLike[str] | None,
    report: Callable[[str], None],
    loggers: Sequence[Logger],
    **more: Any,
) -> Any:
    """Train from the first step, in a new run folder: `out`, or runs/ and the name of `data`, of several files the first.

    `make` gives the model, of this `config`, and draws what is new in it; `more` goes into config.json.
    """
    files = [str(data)] if isinstance(data, (str, os.PathLike)) else list(data)
    folder = Path(out) if out is not None else Path("runs", Path(files[0]).stem)
    memory = options.memory(config, task.max_length, task.n_bytes())
    memory.check(report)
    check_room(folder, config.n_parameters(), options.keep, report)
    if init_from is not None:
        for line in _inherited(init_from, config, options, task.tokenizer):
            report(line)
    options.lr_schedule(options.max_steps or options.epochs * len(task))  # an error now, before anything is written
    with memory.explain(), use_generator(Generator(options.seed)):
        model = make().train()  # a loaded one is in evaluation mode
        model.set_drop_rate(options.drop_rate)
        if options.train == "lora":
            inject(policy_of(model), options.lora_config())
        else:
            freeze(model, options.train)
        record = {
            "format": FORMAT,
            **describe_model(model),
            "task": task.name,
            "training": asdict(options),
            "files": files,
            "data": task.about()["data"],
            **({} if init_from is None else {"init_from": str(init_from)}),
            **more,
        }
        with new_run(folder, record, task.tokenizer) as previous:
            if previous is not None:
                report(f"The run that was in {folder} is now in {previous}.")
            return TrainingLoop(task, options, model, folder, report, loggers).run()


def _inherited(
    path: str | os.PathLike[str], config: Any, options: TuningOptions, tokenizer: Tokenizer
) -> Iterator[str]:
    """What comes with the weights, and what is otherwise here than in the run that they are from."""
    yield f"Inherited from {path}: tokenizer = {tokenizer.name}, {tokenizer.vocab_size:,} tokens"
    for name in SIZES:
        yield f"Inherited from {path}: {name} = {getattr(config, name)}"
    found = find_run(path)
    before = {"drop_rate": config.drop_rate} | (load_config(found[0]).get("training", {}) if found else {})
    for field in fields(LoopOptions):
        here, there = getattr(options, field.name), before.get(field.name)
        if there is not None and there != here:
            yield f"Not inherited: {field.name} = {here}, there {there}"
    if (there := before["drop_rate"]) != options.drop_rate:
        yield f"Not inherited: drop_rate = {options.drop_rate}, there {there}"


def go_on(
    run: str | os.PathLike[str],
    kind: type[Options],
    make_task: Callable[[dict[str, Any], Options, Tokenizer], TuningTask],
    report: Callable[[str], None],
    loggers: Sequence[Logger],
    changes: dict[str, Any],
) -> Any:
    """Go on with a run from its newest whole checkpoint. `make_task` is given the contents of
    config.json, options and tokenizer.

    ConfigMismatch for a change of what `kind.fixed` names, DataError for data that is no longer what it was, CheckpointError
    without a whole checkpoint.
    """
    folder = Path(run)
    config = load_config(folder)
    with naming(folder / CONFIG_FILE):
        if config["task"] != kind.task:
            raise ConfigError(f"task is {config['task']!r:.80}: only {kind.task!r} goes on here")
        before, data = kind.of_run(config["training"]), data_of(config, kind.most_files)
    options = before.changed(**changes)
    refuse_differences(folder, {name: (getattr(before, name), getattr(options, name)) for name in kind.fixed})
    with lock(folder):
        remove_stale(folder)
        found = newest_checkpoint(folder, verify_checkpoint, report)
        if found is None:
            begun_from = f" --init-from {config['init_from']}" if "init_from" in config else ""
            raise CheckpointError(
                f"{folder}: no checkpoint there: begin it again ({command_of(kind.task)} {data}{begun_from} --out {folder})"
            )
        task = make_task(config, options, load_tokenizer(folder))
        check_same(data, task, config)
        with naming(folder / CONFIG_FILE):
            model = build_model(config, Zeros())
        model.set_drop_rate(options.drop_rate)
        if options.train != "lora":
            freeze(model, options.train)
        memory = options.memory(model.config, task.max_length, task.n_bytes())
        memory.check(report)
        check_room(folder, model.n_parameters(), options.keep, report)
        check_writable(folder)
        with memory.explain(), use_generator(Generator(0)):
            loop = TrainingLoop(task, options, model, folder, report, loggers)
            told = {"model": model.config.to_dict()}
            return take_up(loop, load_checkpoint(found), before, config, changed_options(before, options), told)


def data_of(config: dict[str, Any], most: int = 1) -> str:
    """The name of what a run learns from, or the names of up to so many files. ConfigError if its config.json does not say."""
    files = config.get("files", [])
    if not 1 <= len(files) <= most or not isinstance(config.get("data"), dict):
        raise ConfigError("files and data do not say what the run learns from")
    return " ".join(files)


def check_same(data: str, task: Task, config: dict[str, Any]) -> None:
    """DataError if the data is not what the run in `config` began with."""
    if task.about()["data"] != config["data"]:
        raise DataError(f"{data}: not the texts any more that this run began with: put them back")
