"""Everything that can be chosen about a pretraining run, with its help text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import numpy as np

from ..checks import check_options
from ..errors import ConfigError
from ..evaluation.losses import Batch, evaluation_batches
from ..formats.strict_json import read_json
from ..models import PRESETS, architectures, preset, pretraining_of
from ..models.estimate import TrainingMemory
from ..parallel import default_threads
from ..text import Tokenizer
from ..text.corpus import (
    WINDOWS,
    Corpus,
    DocumentWindows,
    TrainingWindows,
    check_kind,
    read_corpus,
    tell_tales,
    tells_tales,
)
from ..text.datasets import check_encoding
from .options import LoopOptions, common_defaults, option, with_changes
from .step import shard_batch

# What a preset trains with unless told otherwise: the story in many passes over windows that overlap, the published sizes as
# GPT-2 in the book's chapter 5.
_STORY = {"tokenizer": "bpe", "epochs": 6, "batch_size": 8, "lr": 3e-3, "stride": 4}
# The tales are told once, and enough of them to learn to copy what was read. Batches of 8 come nearer to the entropy than half as
# many of 16. The loss jumps where drills give way to tales, which is no reason to stop.
_TALES = {
    "tokenizer": "word",
    "windows": "documents",
    "epochs": 1,
    "batch_size": 8,
    "lr": 3e-3,
    "beta2": 0.98,
    "spike": 0.0,
    "prompt": "Once there was",
}
_PUBLISHED = {"tokenizer": "gpt2", "epochs": 10, "batch_size": 2, "lr": 4e-4}
# Models that guess hidden words: of the tales, and of other texts, where a second document is not always there. Short texts,
# and many of them: it takes some hundred steps until attention finds the words beside a hidden one, longer in longer texts.
_HIDDEN = {
    **{"tokenizer": "wordpiece", "windows": "shuffled", "epochs": 20, "batch_size": 32, "lr": 1e-3, "beta2": 0.98},
    **{"spike": 0.0, "mask_share": 0.15, "next_sentence": False},
}
# Twice as many words are hidden as in the paper: as many more are learned from, at the price of a smaller part of each text.
_HIDDEN_TALES = _HIDDEN | {"epochs": 0, "max_steps": 4000, "lr": 3e-3, "mask_share": 0.3, "next_sentence": True}
_ARCHITECTURES = [name for name in architectures() if pretraining_of(name)]
_PRESETS = [name for name, config in PRESETS.items() if config.architecture in _ARCHITECTURES]
_IF_ANY = ("n_kv_heads", "head_dim", "hidden_dim", "window")  # sizes that a model may do without: 0
# Of the model; drop_rate is no size.
SIZES = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers", *_IF_ANY)
FORM = ("init", "tie_weights", "qkv_bias", "bias", "activation", "next_sentence")
_MODEL = (*SIZES, "drop_rate", *FORM)


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(LoopOptions):
    """The options of one run, complete and checked. `for_preset` fills in what is not given; ConfigError for bad values."""

    task: ClassVar[str] = "pretrain"

    preset: str = option("model and training defaults: " + ", ".join(_PRESETS), choices=_PRESETS)
    architecture: str = option(
        "of the model: that of the preset; given alone, it means the first preset that it has",
        choices=_ARCHITECTURES,
    )
    tokenizer: str = option(
        "bpe or wordpiece (learned from the text), char, word (those that occur twice), gpt2, or the folder of a tokenizer"
    )
    vocab_size: int = option("entries of a bpe tokenizer, the 256 bytes among them, or of a wordpiece tokenizer")
    special_tokens: str = option(
        "tokens for marks in the text, besides <|endoftext|>: separated by spaces, such as '<|user|> <|assistant|>'", ""
    )
    context_length: int = option("tokens that the model sees at once")
    emb_dim: int = option("width of the model: numbers for each token")
    n_heads: int = option("attention heads in each layer; must divide the width; 0: an architecture without", least=0)
    n_layers: int = option("transformer blocks")
    n_kv_heads: int = option("key and value heads, if fewer; 0: as many as heads", least=0)
    head_dim: int = option("features of a head of a llama; 0: of the width, its share", least=0)
    hidden_dim: int = option("width of the feed-forward layers; 0: as is usual for the architecture", least=0)
    window: int = option("tokens back that a token sees, itself among them; 0: all", least=0)
    drop_rate: float = option("share of the activations dropped in training", most=1)
    init: str = option(
        "first weights: pytorch draws each layer as PyTorch does, gpt2 smaller and by depth, bert smaller"
    )
    tie_weights: bool = option("the table of tokens is that of the head too")
    qkv_bias: bool = option("queries, keys and values have biases")
    bias: bool = option(
        "the other layers have biases, and the norms of a gpt shifts; of a llama the feed-forward layers"
    )
    activation: str = option(
        "between the layers of each block of a gpt or bert: gelu in its tanh form, gelu_erf exactly"
    )
    next_sentence: bool = option(
        "a bert is also asked whether the second part of a text follows the first, which in half the texts is another document's"
    )
    mask_share: float = option("share of the words that are hidden from a bert, to be guessed", 0.0, below=1)
    stride: int = option(
        "tokens from one window to the next; below the context length they overlap, 0: side by side", 0, least=0
    )
    windows: str = option(
        "what an epoch reads: a window for every stride of tokens, side by side but from another beginning each time "
        "(shuffled), as many anywhere (random, as nanoGPT does), or one for each document, in the order of the text; of a bert "
        "those of a document, shuffled or in the order of the text (documents)",
        "stride",
        choices=WINDOWS,
    )
    val_ratio: float = option("share of each text, at its end, kept from training for validation", 0.1, most=1)
    val_file: str = option("a text to validate with, in place of the ends of the others", "")
    encoding: str = option("of all text files: utf-8, or another that Python knows, such as gbk or big5", "utf-8")
    eval_batches: int = option("batches of each text in an evaluation; the last evaluation takes all of validation", 8)
    prompt: str = option("the samples go on from here; without one, from the first words of the text", "")
    sample_tokens: int = option("tokens in the sample after each epoch", 50, least=0)
    temperature: float = option("of the samples: 0 takes the likeliest token, 1 the model's own odds", 0.8)
    top_k: int = option("of the samples: choose among this many likeliest tokens", 25)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind(self.tokenizer)
        check_encoding(self.encoding)
        if self.val_file and self.val_ratio:
            raise ConfigError(f"val_file is {self.val_file!r} and val_ratio is {self.val_ratio}: leave out one of them")
        if not self.val_file and self.val_ratio in (0, 1):
            raise ConfigError(f"val_ratio is {self.val_ratio}: it may be neither 0 nor 1")
        if self.stride and self.windows != "stride":
            raise ConfigError(f"stride is {self.stride} and windows is {self.windows!r}: these have no stride")
        config = self.model_config(self.vocab_size)
        config.check_bytes()
        self._check_hiding(getattr(config, "masked_words", False))

    def _check_hiding(self, hides: bool) -> None:
        """ConfigError for what goes with the other of both: to guess hidden words, or the next one."""
        if not hides and self.mask_share:
            raise ConfigError(f"mask_share is {self.mask_share}: a {self.architecture} has no such option")
        if not hides:
            return
        if not self.mask_share:
            raise ConfigError("mask_share is 0: there would be no word to guess")
        if self.windows not in ("shuffled", "documents"):
            raise ConfigError(f"windows is {self.windows!r}: a {self.architecture} has 'shuffled' or 'documents'")
        if self.prompt:
            raise ConfigError(f"prompt is {self.prompt!r:.60}: a {self.architecture} does not write on: leave it out")

    def model_config(self, vocab_size: int) -> Any:
        """The model of these sizes, for a tokenizer of `vocab_size` entries."""
        config = preset(self.preset)
        if config.architecture != self.architecture:
            raise ConfigError(
                f"preset is {self.preset!r} and architecture is {self.architecture!r}: it is a {config.architecture}'s: "
                "leave out one of them"
            )
        chosen = {name: getattr(self, name) for name in _MODEL} | {"vocab_size": vocab_size}
        if config.context_length is None:  # it reads windows of so many tokens, and can read more
            del chosen["context_length"]
        lacking = [name for name in chosen if not hasattr(config, name)]
        for name in lacking:
            if value := chosen.pop(name):
                raise ConfigError(f"{name} is {value!r}: a {self.architecture} has no such option")
        return preset(
            self.preset, **{name: value or None if name in _IF_ANY else value for name, value in chosen.items()}
        )

    def corpus(self, files: Sequence[str | os.PathLike[str]], tokenizer: Tokenizer | None = None) -> Corpus:
        """The corpus of these files, or the tales of the preset, with this tokenizer or the one that the options describe."""
        made_with: dict[str, Any] = {"vocab_size": self.vocab_size, "special_tokens": self.special_tokens.split()}
        if self.tells_tales(files):
            if self.val_file:
                raise ConfigError(f"val_file is {self.val_file!r}: tales have tales to validate with: leave it out")
            corpus = tell_tales(self.seed, tokenizer or self.tokenizer, **made_with)
        else:
            corpus = read_corpus(
                files,
                tokenizer or self.tokenizer,
                context_length=self.context_length,
                val_ratio=self.val_ratio,
                val_file=self.val_file,
                encoding=self.encoding,
                **made_with,
            )
        marks = self.windows == "documents" and not self.mask_share
        return replace(corpus, tokenizer=corpus.tokenizer.marking_prompts(marks))

    def tells_tales(self, files: Sequence[Any]) -> bool:
        """Whether there is no text but the tales of the seed."""
        return tells_tales(self.preset, files)

    def memory(self, config: Any, corpus: Corpus) -> TrainingMemory:
        """What training a model on a corpus takes: of each batch, as many shards are under way as there are threads."""
        config = replace(config, context_length=self.context_length)
        batch = np.broadcast_to(np.int8(0), (self.batch_size, self.context_length))
        under_way = shard_batch(batch, self.accumulate)[: default_threads()]
        at_once = sum(shard.stop - shard.start for shard in under_way)
        return TrainingMemory(config, self.batch_size, at_once, corpus.n_bytes)

    def training_windows(self, corpus: Corpus) -> TrainingWindows | DocumentWindows:
        """The batches of an epoch."""
        ids, sizes = corpus.train_ids, (self.context_length, self.batch_size)
        if self.windows == "documents":
            return DocumentWindows(ids, *sizes, corpus.tokenizer.eot_id)
        return TrainingWindows(ids, *sizes, self.stride or None, self.windows)

    def evaluation_batches(self, ids: list[int], tokenizer: Tokenizer) -> list[Batch]:
        """Batches in which each token of `ids` but the first is a target once, in rows like those of training."""
        return evaluation_batches(ids, self.context_length, self.batch_size, self.windows, tokenizer.eot_id)

    @classmethod
    def defaults(cls, name: str, of_files: bool = False) -> dict[str, Any]:
        """What `for_preset` fills in for a preset."""
        told, hides = tells_tales(name, of_files), getattr(preset(name), "masked_words", False)
        recipe = _TALES if told else _STORY if _is_ours(name) else _PUBLISHED
        if hides:
            recipe = _HIDDEN_TALES if told else _HIDDEN
        return {"preset": name} | model_options(preset(name)) | common_defaults(cls) | recipe

    @classmethod
    def for_preset(cls, preset: str | None = None, of_files: bool = False, **changes: Any) -> PretrainOptions:
        """The options of a preset with some changed. ConfigError for a name that is no option, with the nearest that is.

        Without one, that of the story, or the first one of an `architecture`. `of_files`: for texts of the caller's own, for
        which the presets of tales are only the sizes of a model.
        """
        preset = preset or first_preset(changes.get("architecture", "gpt"))
        options = with_changes(cls.defaults(preset, of_files), changes, cls)
        if "vocab_size" in changes and options["tokenizer"] not in ("bpe", "wordpiece"):
            raise ConfigError(
                f"vocab_size is {changes['vocab_size']}: it can be chosen for the bpe and wordpiece tokenizers only, "
                f"not for {options['tokenizer']!r}"
            )
        return cls(**options)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], of_files: bool = False, **changes: Any) -> PretrainOptions:
        """The options in a JSON file with some changed: a run's config.json, or its "training" part, or some of that.

        What the file does not say is as in its preset. ConfigError names the file and what in it cannot be.
        """
        if "preset" in changes:
            raise ConfigError(
                f"preset is {changes['preset']!r}: {path} says which preset it goes from: leave out one of them"
            )
        values = read_json(Path(path))
        if values.get("task", cls.task) != cls.task:
            raise ConfigError(f"{path}: task is {values['task']!r:.80}: these options are those of pretrain")
        training = values.get("training", values)
        try:
            if not isinstance(training, dict):
                raise ConfigError(f"training is {training!r:.80}: it must hold options by their names")
            return cls.of_run(training, of_files).changed(**changes)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def of_run(cls, training: dict[str, Any], of_files: bool = False) -> PretrainOptions:
        """The options in a run's config.json; one that did not exist yet when the run began has its default."""
        check_options("training", training, cls)
        name = training.get("preset", "story")
        return cls(**with_changes(cls.defaults(name if isinstance(name, str) else "story", of_files), training, cls))


def model_options(config: Any) -> dict[str, Any]:
    """What of a model can be chosen here, as its configuration has it; 0 or "" for what it has not."""
    kinds = get_type_hints(PretrainOptions)
    found = {name: getattr(config, name, None) for name in ("architecture", *_MODEL)}
    found["context_length"] = config.reading_length
    return {name: kinds[name]() if value is None else value for name, value in found.items()}  # 0, "" or False


def first_preset(architecture: str, published: bool = False) -> str:
    """The first preset of an architecture; with `published`, of a size in which weights are published."""
    for name, config in PRESETS.items():
        if config.architecture == architecture and not (published and _is_ours(name)):
            return name
    raise ConfigError(f"architecture is {architecture!r}: use one of {', '.join(_ARCHITECTURES)}")


def _is_ours(name: str) -> bool:
    """Whether a preset is for a text that comes with the package."""
    return name == "story" or name.startswith("tales")
