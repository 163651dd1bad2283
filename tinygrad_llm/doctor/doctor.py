"""`tinygrad-llm doctor [RUN]`: is this installation sound, and is my run, or its curve, as it should be?"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, ConfigError, DataError, TinygradLLMError, TokenizerError
from ..evaluation.losses import Batch, unigram_cross_entropy, unigram_entropy
from ..models import make_config, make_model
from ..rng import Generator, use_generator
from ..runs.checkpoint import MODEL_FILE, list_checkpoints, read_state, step_of, verify_checkpoint
from ..runs.curve import (
    LOOK,
    OK,
    WRONG,
    Finding,
    judge_fall,
    judge_numbers,
    judge_plateau,
    judge_spikes,
    judge_start,
    judge_validation,
)
from ..runs.feedback_curve import JUDGES, Judge
from ..runs.folder import CONFIG_FILE, load_config, load_run
from ..runs.records import read_metrics
from ..text import load_tokenizer
from ..text.corpus import Corpus
from ..training.pretrain import TASKS
from ..training.pretrain_options import PretrainOptions
from .health import (
    check_batches,
    check_blas,
    check_causality,
    check_gradients,
    check_initial_loss,
    check_learning_rate,
    check_memory,
    check_overfitting,
    check_speed,
    check_versions,
    sweep_learning_rates,
)

# Without a run: a model that takes seconds, on the bundled story.
_SMALL: dict[str, Any] = {
    "tokenizer": "char",
    "context_length": 32,
    "emb_dim": 32,
    "n_heads": 2,
    "n_layers": 2,
    "stride": 0,
    "lr": 1e-2,
}
_BATCHES = 4  # whose targets and first loss are looked at


def examine(
    run: str | os.PathLike[str] | None = None, announce: Callable[[str], None] = lambda check: None
) -> Iterator[Finding]:
    """One Finding for each check, as soon as it is known; `announce` is told which one is next. Nothing in `run` is changed.

    CheckpointError if there is no run in that folder.
    """
    config = None if run is None else load_config(run)
    try:
        yield from _examine(run, config, announce)
    except Exception as error:  # the doctor survives what the patient has
        yield _failed("text and model", error)


def _failed(check: str, error: Exception) -> Finding:
    kind = "" if isinstance(error, TinygradLLMError) else f"{type(error).__name__}: "
    return Finding(WRONG, f"{kind}{error}".replace("\n", " "), check=check)


def _examine(
    run: str | os.PathLike[str] | None, config: dict[str, Any] | None, announce: Callable[[str], None]
) -> Iterator[Finding]:
    def found(name: str, check: Callable[..., Finding], *args: Any) -> Finding:
        announce(name)
        try:
            with use_generator(Generator(123)):
                return replace(check(*args), check=name)
        except Exception as error:
            return _failed(name, error)

    yield found("versions", check_versions)
    yield found("BLAS", check_blas)
    yield found("gradients", check_gradients)
    if run is None or config is None:
        options = PretrainOptions.for_preset("story", **_SMALL)
        corpus = options.corpus([])
        yield from _examine_model(options.model_config(corpus.tokenizer.vocab_size), options, corpus, found)
        return
    folder = Path(run)
    yield found("weights", check_weights, folder)
    yield found("checkpoints", check_checkpoints, folder)
    if config["task"] not in TASKS:
        classes = config.get("head", {}).get("classes")
        n_outcomes = len(classes) if isinstance(classes, list) else config["model"].get("vocab_size", 2)
        yield from _examine_record(folder, n_outcomes, None, found, JUDGES.get(config["task"]))
        return
    try:
        options = PretrainOptions.of_run(config["training"])
        model = make_config(config["architecture"], config["model"])
    except (ConfigError, TypeError) as error:
        yield Finding(WRONG, f"{folder / CONFIG_FILE}: {error}", "write it as it was", "options")
        return
    announce("text")
    text, read = _read_corpus(folder, config, options)
    yield replace(text, check="text")
    hides = bool(options.mask_share)
    yield from _examine_record(folder, model.vocab_size, read, found, hides=hides)
    if read is not None and not hides:
        yield from _examine_model(model, options, read, found)


def _examine_model(
    config: Any, options: PretrainOptions, corpus: Corpus, found: Callable[..., Finding]
) -> Iterator[Finding]:
    """Throw-away models of this configuration, on a few batches of this text."""
    windows = options.training_windows(corpus)
    val_batches = options.evaluation_batches(corpus.val_ids, corpus.tokenizer)

    speeds: list[float] = []

    def some_batches() -> list[Batch]:
        return list(islice(windows.epoch(), _BATCHES))

    def first_loss() -> Finding:
        return check_initial_loss(make_model(config.architecture, config), some_batches())

    def overfitting() -> Finding:
        return check_overfitting(config, some_batches()[0])

    def learning_rate() -> Finding:
        sweep = sweep_learning_rates(
            config, windows.epoch, options.lr, weight_decay=options.weight_decay, max_norm=options.max_norm or None
        )
        speeds.append(sweep.tokens_per_second)
        return check_learning_rate(sweep, options.lr)

    yield found("memory", check_memory, options.memory(config, corpus))
    yield found("batches", lambda: check_batches(some_batches() + val_batches[:_BATCHES], config.vocab_size))
    yield found("first loss", first_loss)
    yield found("causality", lambda: check_causality(make_model(config.architecture, config)))
    yield found("overfitting", overfitting)
    yield found("learning rate", learning_rate)
    if speeds:
        steps = options.max_steps or options.epochs * len(windows)
        n_tokens = steps * options.batch_size * options.context_length
        yield found("speed", check_speed, speeds[0], n_tokens)


def _examine_record(
    folder: Path,
    n_outcomes: int,
    corpus: Corpus | None,
    found: Callable[..., Finding],
    judges: Sequence[tuple[str, Judge]] | None = None,
    hides: bool = False,
) -> Iterator[Finding]:
    """The curve in metrics.jsonl, of losses among so many tokens or classes, or with judges of its own. `hides`: words are
    guessed that were hidden."""
    try:
        rows = read_metrics(folder)
    except CheckpointError as error:
        yield Finding(WRONG, str(error), "remove the lines that are damaged", "curve")
        return
    unigram_train = unigram_val = None
    if corpus is not None:
        unigram_train = unigram_entropy(corpus.train_ids)
        unigram_val = unigram_cross_entropy(corpus.train_ids, corpus.val_ids, corpus.tokenizer.vocab_size)
    numbers = found("curve", judge_numbers, rows)
    yield numbers
    if numbers.verdict != OK:
        return
    if judges is not None:
        for name, judge in judges:
            yield found(f"curve: {name}", judge, rows)
        return
    yield found("curve: start", judge_start, rows, n_outcomes)
    yield found("curve: fall", judge_fall, rows, unigram_train)
    if hides:
        yield found("curve: plateau", judge_plateau, rows, unigram_val)
    yield found("curve: jumps", judge_spikes, rows)
    yield found("curve: validation", judge_validation, rows, unigram_val)


def check_weights(folder: Path) -> Finding:
    if not (folder / MODEL_FILE).exists():
        return Finding(OK, "not finished: there are no final weights yet")
    model, _ = load_run(folder)
    if bad := [name for name, p in model.named_parameters() if not np.isfinite(p.data).all()]:
        return Finding(WRONG, f"{', '.join(bad[:3])}: not finite", "go on from an earlier checkpoint")
    return Finding(OK, f"{model.n_parameters():,} numbers, all finite")


def check_checkpoints(folder: Path) -> Finding:
    """Every file of every checkpoint against its checksum, and where the run was against the rest."""
    folders, damaged = list_checkpoints(folder), []
    for checkpoint in folders:
        try:
            verify_checkpoint(checkpoint)
            read_state(checkpoint)
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        left = f"{len(folders) - len(damaged)} of {len(folders)} are whole"
        return Finding(WRONG, "; ".join(damaged), f"{left}; remove the folder, --resume takes the newest whole one")
    if not folders:
        return Finding(LOOK, "there are none", "a run that has none begins again from its first step")
    return Finding(OK, f"{len(folders)} are whole, the newest of step {step_of(folders[0])}")


def _read_corpus(folder: Path, config: dict[str, Any], options: PretrainOptions) -> tuple[Finding, Corpus | None]:
    files = config.get("files", [])
    names = ", ".join(files) or ("the tales" if options.tells_tales(files) else "the bundled story")
    try:
        corpus = options.corpus(files, load_tokenizer(folder))
    except (DataError, TokenizerError) as error:
        return Finding(LOOK, str(error), "put it back: without it, neither text nor model can be looked at"), None
    if "data" in config and config["data"] != corpus.fingerprint():
        return Finding(
            LOOK, f"{names}: not the text that the run was trained on", "put it back before you resume"
        ), corpus
    return Finding(OK, f"{names}: {len(corpus.train_ids):,} tokens to learn from, {len(corpus.val_ids):,} kept"), corpus
