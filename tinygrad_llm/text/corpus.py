"""The text of a run: files read, parts kept for validation, a tokenizer learned, everything turned into token ids.

corpus = read_corpus(["story.txt"], "bpe", vocab_size=1024, context_length=64)
windows = TrainingWindows(corpus.train_ids, context_length=64, batch_size=8, stride=4)
for inputs, targets in windows.epoch():     # (B, T), (B, T)
    ...
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_integer
from ..errors import ConfigError, DataError
from ..rng import get_generator
from . import story
from .byte_level import BPETokenizer, GPT2Tokenizer
from .datasets import DataLoader, SlidingWindowDataset, Subset, read_text, train_val_split
from .tokenizers import CharTokenizer, Tokenizer

TOKENIZERS = ("bpe", "char", "gpt2")  # kinds that a corpus can be made with


@dataclass(frozen=True)
class Corpus:
    """Training and validation text, one entry for each file, and their ids, with `<|endoftext|>` between files."""

    train_texts: list[str]
    val_texts: list[str]
    tokenizer: Tokenizer
    train_ids: list[int]
    val_ids: list[int]

    def opening(self) -> str:
        """The first three words, as a prompt; of a text without words, its first characters."""
        beginning = self.train_texts[0][:200]
        words = re.match(r"\s*(\S+(\s+\S+){0,2})", beginning)
        return (words.group(1) if words else beginning)[:40]

    @property
    def n_bytes(self) -> int:
        """Memory that the texts take, and their ids: Python's integers in lists, and the arrays that windows are cut from."""
        n_ids = len(self.train_ids) + len(self.val_ids)
        return 56 * n_ids + sum(map(sys.getsizeof, self.train_texts + self.val_texts))

    def fingerprint(self) -> dict[str, Any]:
        """SHA-256 of each text and of all token ids: what decides the batches of a run, besides its options."""
        ids = np.array([*self.train_ids, -1, *self.val_ids], "<i8")
        texts = [train + val for train, val in zip(self.train_texts, self.val_texts, strict=True)]
        return {
            "texts": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "ids": hashlib.sha256(ids.tobytes()).hexdigest(),
        }


class TrainingWindows:
    """The windows of an epoch, shuffled into batches. len() is the number of batches, the same in every epoch.

    There is one window for every `stride` tokens, without `stride` for every `context_length`. Where windows overlap, each
    begins anywhere within its stride: were they always the same, a token would be seen in few of the positions, and the
    model would learn to count on it. Windows side by side stay where they are, as in the book.
    """

    def __init__(self, ids: list[int], context_length: int, batch_size: int, stride: int | None = None) -> None:
        self._every = SlidingWindowDataset(ids, context_length, stride=1)
        self._stride = context_length if stride is None else check_integer("stride", stride)
        self._overlap = self._stride < context_length
        self._starts = np.arange(0, len(self._every), self._stride)
        self._batch_size = batch_size
        self._n_batches = len(self._loader(self._starts))

    def __len__(self) -> int:
        return self._n_batches

    def epoch(self) -> DataLoader:
        """Batches of ids and targets (B, T), drawn with the current generator."""
        starts = self._starts
        if self._overlap:
            starts = starts + get_generator().randint(0, self._stride, len(starts))
        return self._loader(starts.clip(max=len(self._every) - 1))

    def _loader(self, starts: np.ndarray) -> DataLoader:
        return DataLoader(Subset(self._every, starts), self._batch_size)


def read_corpus(
    files: Sequence[str | os.PathLike[str]],
    tokenizer: Tokenizer | str,
    *,
    context_length: int,
    val_ratio: float = 0.1,
    vocab_size: int = 1024,
) -> Corpus:
    """The corpus of these files, or of the bundled story if there are none. DataError names a file that is too short.

    The end of each file is for validation, so that both losses are about the same mixture of texts. `tokenizer` is one that
    is there already, or the kind of one to make: "bpe", which learns `vocab_size` entries, "char" or "gpt2".
    """
    names, train_texts, val_texts = split_texts(files, val_ratio)
    if isinstance(tokenizer, str):
        tokenizer = _make_tokenizer(tokenizer, train_texts, val_texts, vocab_size)
    train_ids, val_ids = encode_texts(tokenizer, train_texts), encode_texts(tokenizer, val_texts)
    if len(train_ids) <= context_length:
        raise DataError(
            f"{names}: {len(train_ids)} tokens to train on: context_length {context_length} needs at least "
            f"{context_length + 1}; use a longer text or a smaller context_length"
        )
    if len(val_ids) < 2:
        raise DataError(f"{names}: {len(val_ids)} tokens for validation, 2 are needed: use a longer text")
    return Corpus(train_texts, val_texts, tokenizer, train_ids, val_ids)


def split_texts(files: Sequence[str | os.PathLike[str]], val_ratio: float) -> tuple[str, list[str], list[str]]:
    """The names of these files, or of the bundled story, and what of each is to train on and to validate with."""
    named_texts = [(str(file), read_text(file)) for file in files] or [("the story", story())]
    train_texts, val_texts = [], []
    for name, text in named_texts:
        try:
            train_text, val_text = train_val_split(text, 1 - val_ratio)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        train_texts.append(train_text)
        val_texts.append(val_text)
    return ", ".join(name for name, _ in named_texts), train_texts, val_texts


def check_kind(kind: str) -> None:
    """ConfigError unless there are tokenizers of this kind."""
    if kind not in TOKENIZERS:
        raise ConfigError(f"tokenizer is {kind!r}: use one of {', '.join(TOKENIZERS)}")


def _make_tokenizer(kind: str, train_texts: list[str], val_texts: list[str], vocab_size: int) -> Tokenizer:
    check_kind(kind)
    if kind == "gpt2":
        return GPT2Tokenizer()
    if kind == "char":  # knows no character but those it was made from, so it has to see the whole text
        return CharTokenizer.train("".join(train_texts + val_texts))
    # One text of several would join the end of a file and the beginning of the next; a blank line keeps them apart.
    return BPETokenizer.train("\n\n".join(train_texts), vocab_size)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The ids of all texts, with `<|endoftext|>` between them if the tokenizer has it."""
    between = [] if tokenizer.eot_id is None else [tokenizer.eot_id]
    ids: list[int] = []
    for text in texts:
        ids += [*tokenizer.encode(text), *between]
    return ids[: len(ids) - len(between)]  # between files, not after the last
