"""Continued pretraining: a model that was trained elsewhere reads the text of a domain.

What it gains there it may lose elsewhere, so the loss on a general text is measured too, before and after
(Gururangan et al. 2020, "Don't stop pretraining", §3).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, TokenizerError
from ..models import TextModel
from ..runs.loggers import Logger
from ..text import Tokenizer, read_text, story
from ..text.corpus import encode_texts, kind_of
from ..weights.load import load_with_tokenizer
from .masked_words import MaskedResult
from .pretrain import begin, task_of
from .pretrain_options import FORM, SIZES, PretrainOptions, first_preset, model_options
from .result import Continued, PretrainResult

_OF_THE_MODEL = ("architecture", *SIZES, *(name for name in FORM if name != "next_sentence"))  # which may be left out


def continue_pretraining(
    init_from: str | os.PathLike[str],
    *files: str | os.PathLike[str],
    general_text: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> PretrainResult | MaskedResult:
    """Go on training the model in `init_from` (any form that `load_pretrained` reads) with its own tokenizer, on `files`.

    The tokenizer is given the `special_tokens` that it lacks, and the model rows for them (`resize_vocabulary`). Otherwise as
    `pretrain`, with the defaults of the first preset of a published size that the architecture has, such as 124M.
    `result.continued` has the losses before and after on the validation part of `files` and on `general_text`, by default the
    bundled story. ConfigError for options that the weights decide.
    """
    for name in ("preset", "tokenizer", *_OF_THE_MODEL):
        if name in options:
            raise ConfigError(f"{name} is {options[name]!r}: with init_from it is that of the weights: leave it out")
    model, tokenizer = load_with_tokenizer(init_from, kind=TextModel)
    options = {"drop_rate": model.config.drop_rate} | options
    chosen = replace(
        PretrainOptions.for_preset(first_preset(model.architecture, published=True), **options),
        tokenizer=kind_of(tokenizer),
        **{name: value for name, value in model_options(model.config).items() if name in _OF_THE_MODEL},
    )
    if chosen.next_sentence and not model.config.next_sentence:
        raise ConfigError(f"next_sentence is True: {init_from} has no head for it: leave it out")
    task = task_of(model.architecture)
    corpus = chosen.corpus(files, tokenizer)
    added = {mark: i for mark, i in corpus.tokenizer.special.items() if mark not in tokenizer.special}
    tokenizer = corpus.tokenizer
    before = model.config.vocab_size
    if tokenizer.vocab_size > before:
        model.resize_vocabulary(tokenizer.vocab_size)
        chosen = replace(chosen, vocab_size=model.config.vocab_size)
    chosen = task.settle(chosen, corpus)
    if added:
        report(_about_rows(added, before, model.config.vocab_size))
    general_name, general_ids = _general(general_text, tokenizer, bool(files), chosen.encoding)

    def measure(model: Any, ids: list[int]) -> float:
        return task.measure(model, chosen, ids, tokenizer)

    domain_before = measure(model, corpus.val_ids)
    general_before = measure(model, general_ids) if general_ids else None
    result = begin(
        Path(out) if out is not None else Path("runs", Path(files[0]).stem if files else "story"),
        files,
        chosen,
        corpus,
        report,
        loggers,
        model.state_dict(),
        replace(model.config, drop_rate=chosen.drop_rate),
        init_from=str(init_from),
        **({"added_special": added} if added else {}),
    )
    domain_after = measure(result.model, corpus.val_ids)
    general_after = measure(result.model, general_ids) if general_ids else None
    continued = Continued(str(init_from), domain_before, domain_after, general_name, general_before, general_after)
    for line in continued.lines():
        report(line)
    return replace(result, continued=continued)


def _about_rows(added: dict[str, int], before: int, now: int) -> str:
    """What the special tokens that were added did to the model."""
    marks = ", ".join(f"{mark} ({i})" for mark, i in added.items())
    rows = f"have {now:,} rows now instead of {before:,}, each new one the mean of the old"
    if now == before:
        rows = f"have rows for them already: there are {now:,}"
    return f"Special tokens added, with their ids: {marks}. The embedding and the head {rows}."


def _general(
    file: str | os.PathLike[str] | None, tokenizer: Tokenizer, elsewhere: bool, encoding: str
) -> tuple[str | None, list[int]]:
    """The general text's name and ids; none where the story is the text itself, or has letters the tokenizer does not know."""
    if file is not None:
        ids = encode_texts(tokenizer, [read_text(file, encoding)])
        if len(ids) < 2:
            raise DataError(f"{file}: {len(ids)} tokens: a general text needs 2")
        return str(file), ids
    try:
        return ("the bundled story", tokenizer.encode(story())) if elsewhere else (None, [])
    except TokenizerError:
        return None, []
