"""What a finished run is worth, in figures that can be compared: `tinygrad-llm evaluate RUN`.

Small models score near chance on most of them; the figures are for comparing runs, not for boasting.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_integer
from ..engine import no_grad
from ..errors import CheckpointError, ConfigError, ContextLengthError, DataError, TokenizerError
from ..generation import choose, few_shot, stream_text
from ..models import LanguageModel
from ..nn.module import evaluating
from ..rng import Generator
from ..runs.folder import find_run, load_config
from ..text import END_OF_TEXT, Tokenizer, read_text
from ..text.corpus import encode_texts, opening, split_at, split_texts, tell_tales, tells_tales
from ..weights.load import load_with_tokenizer
from .losses import bits_per_byte, copied_run, evaluation_batches, mean_loss, split_words

Task = dict[str, Any]

_BATCH = 8
_WORDS = 200  # last words that are tried at most


@dataclass(frozen=True)
class Evaluation:
    """How good a model is. A share is None where there was nothing to try it on."""

    text: str  # what it was judged on
    n_tokens: int
    loss: float  # nats per token
    perplexity: float  # e^loss: among how many equally likely tokens the next one seems to be
    bits_per_byte: float  # comparable between tokenizers
    last_word_accuracy: float | None
    n_last_words: int
    choice_accuracy: float | None
    choice_chance: float | None  # what guessing gives
    n_choices: int
    sample: str
    copied: str | None  # the sample's longest run of words from the training text; None where that text is gone
    copied_words: int | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_run(
    folder: str | os.PathLike[str],
    *files: str | os.PathLike[str],
    n_shots: int = 0,
    sample_tokens: int = 200,
    seed: int = 123,
    encoding: str | None = None,
    checkpoint: str | int | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> Evaluation:
    """Judge the model of a run on `files`, or on the part of its own text that was kept from training.

    The bundled tasks are asked with `n_shots` solved examples before each question. The sample is drawn from `seed` with the
    run's own prompt and options. `encoding` is that of `files`, by default that of the run's text; `checkpoint` as
    in `load_run`, `adapter` as in `load_with_tokenizer`. CheckpointError or DataError for a run or text that cannot be read.
    """
    check_integer("evaluate: n_shots", n_shots, least=0)
    run = find_run(folder, checkpoint)
    if run:
        config = load_config(run[0])
    elif files:  # weights made elsewhere: nothing is known of how they were trained
        config = {"training": {"prompt": opening(read_text(files[0], encoding or "utf-8"))}, "files": files}
    else:
        raise ConfigError(f"{folder} is not a run, so no text was kept from training: give one (--text FILE)")
    model, tokenizer = load_with_tokenizer(folder, checkpoint, adapter)
    options = config["training"]
    try:
        if run and tells_tales(options.get("preset", "story"), config.get("files")):
            corpus = tell_tales(options.get("seed"), tokenizer)
            names, train_texts, texts = "the tales", corpus.train_texts, corpus.val_texts
        else:
            names, train_texts, texts = split_texts(
                config.get("files", []),
                options.get("val_ratio", 0.1),
                options.get("val_file", ""),
                options.get("encoding", encoding or "utf-8"),
                {END_OF_TEXT, *tokenizer.special},
            )
    except DataError:
        if not files:
            raise
        names, train_texts, texts = "", [], []
    if not run:
        train_texts = []
    if files:
        names, texts = (
            ", ".join(map(str, files)),
            [read_text(file, encoding or options.get("encoding", "utf-8")) for file in files],
        )
    ids, windows = encode_texts(tokenizer, texts), options.get("windows", "stride")
    loss = mean_loss(model, evaluation_batches(ids, model.config.reading_length, _BATCH, windows, tokenizer.eot_id))
    if windows == "documents":  # of which the model reads one at a time
        texts = list(filter(None, split_at(texts, [END_OF_TEXT])))
    right_words = [
        outcome for text in texts for outcome in last_words(model, tokenizer, text, _WORDS // len(texts) or 1)
    ]
    tasks = load_tasks()
    right_choices, chances = choices_right(model, tokenizer, tasks, n_shots)
    sample = write_sample(model, tokenizer, options, sample_tokens, seed)
    copied = copied_run(sample, train_texts) if train_texts else None
    return Evaluation(
        text=names if files else f"validation part of {names}",
        n_tokens=len(ids),
        loss=loss,
        perplexity=math.exp(min(loss, 700)),
        bits_per_byte=bits_per_byte(loss, len(ids), sum(len(text.encode()) for text in texts)),
        last_word_accuracy=_share(right_words),
        n_last_words=len(right_words),
        choice_accuracy=_share(right_choices),
        choice_chance=_share(chances),
        n_choices=len(right_choices),
        sample=sample,
        copied=copied,
        copied_words=None if copied is None else len(split_words(copied)),
    )


def last_words(model: LanguageModel, tokenizer: Tokenizer, text: str, most: int) -> list[bool]:
    """For sentences from all over the text, at most `most`: does the model, reading all before it, write the last word?

    The idea of LAMBADA (Paperno et al. 2016), with greedy decoding: each token of the word must be the likeliest.
    """
    ends = [match for match in re.finditer(r"\s\w+(?=[.!?])", text) if match.start()]
    ends = [ends[i * len(ends) // most] for i in range(most)] if len(ends) > most else ends
    right = []
    for end in ends:
        # no token is longer than a few dozen characters, so this much text fills the context
        before = text[max(0, end.start() - 64 * model.config.reading_length) : end.start()]
        word = tokenizer.encode_continuation(end.group())
        window = np.array(
            [(tokenizer.encode_prompt(before, tokenizer.special) + word)[-model.config.reading_length - 1 :]]
        )  # (1, T + 1)
        if len(word) >= window.size:
            continue
        with evaluating(model), no_grad():
            logits = model(window[:, :-1]).data[0, -len(word) :]  # (W, V)
        right.append(bool((logits.argmax(-1) == window[0, -len(word) :]).all()))
    return right


def load_tasks(path: str | os.PathLike[str] | None = None) -> list[Task]:
    """The bundled tasks, or those of a JSON file of the same form: [{"task", "template", "items": [{"question", "choices",
    "answer"}]}]. DataError says what is wrong with it."""
    source = resources.files(__package__).joinpath("tasks.json") if path is None else Path(path)
    try:
        tasks = json.loads(source.read_text(encoding="utf-8"))
        for task in tasks:
            for item in task["items"]:
                if item["answer"] not in item["choices"] or len(set(item["choices"])) < 2 or not item["question"]:
                    raise DataError(
                        f"{source}: {item['question']!r} must have two choices or more, the answer among them"
                    )
                few_shot(task["template"], [item], {"question": item["question"], "answer": None})
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, (DataError, ConfigError)):
            raise
        raise DataError(f"{source}: not a file of tasks: {type(error).__name__}: {error}") from error
    return tasks


def choices_right(
    model: LanguageModel, tokenizer: Tokenizer, tasks: Sequence[Task], n_shots: int = 0
) -> tuple[list[bool], list[float]]:
    """For every item: is the likeliest choice the answer, and how likely would a guess be right? Log-probabilities are divided by
    bytes. Examples are the other items of the task, from the first. Items that the tokenizer cannot encode
    or the context cannot hold are left out.
    """
    right, chances = [], []
    for task in tasks:
        for item in task["items"]:
            examples = [other for other in task["items"] if other is not item][:n_shots]
            question = {**item, "answer": None}
            try:
                prompt = few_shot(task["template"], examples, question)
                best = choose(model, tokenizer, prompt, [" " + choice for choice in item["choices"]], per_byte=True)
            except (TokenizerError, ContextLengthError):
                continue
            right.append(item["choices"][best] == item["answer"])
            chances.append(1 / len(item["choices"]))
    return right, chances


def write_sample(model: LanguageModel, tokenizer: Tokenizer, options: dict[str, Any], n_tokens: int, seed: int) -> str:
    """What the model writes after the run's prompt, without it."""
    prompt = options.get("prompt")
    if not prompt:
        raise CheckpointError("config.json has no prompt to go on from: it is not the configuration of a finished run")
    temperature, top_k = options.get("temperature", 0.8), options.get("top_k")
    return "".join(stream_text(model, tokenizer, prompt, n_tokens, temperature, top_k, rng=Generator(seed)))


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
