"""The text of a run: files read, parts kept for validation, a tokenizer learned, everything turned into token ids."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError
from ..text import BPETokenizer, CharTokenizer, GPT2Tokenizer, Tokenizer, read_text, story, train_val_split
from .options import PretrainOptions


@dataclass(frozen=True)
class Corpus:
    """Training and validation text, one entry for each file, and their ids, with `<|endoftext|>` between files."""

    train_texts: list[str]
    val_texts: list[str]
    tokenizer: Tokenizer
    train_ids: list[int]
    val_ids: list[int]


def read_corpus(files: Sequence[str | os.PathLike[str]], options: PretrainOptions) -> Corpus:
    """The corpus of these files, or of the bundled story if there are none. DataError names a file that is too short.

    The end of each file is for validation, so that both losses are about the same mixture of texts.
    """
    texts = {str(file): read_text(file) for file in files} or {"the story": story()}
    train_texts, val_texts = [], []
    for name, text in texts.items():
        try:
            train_text, val_text = train_val_split(text, 1 - options.val_ratio)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        train_texts.append(train_text)
        val_texts.append(val_text)
    tokenizer = _make_tokenizer(train_texts, val_texts, options)
    train_ids, val_ids = _encode(tokenizer, train_texts), _encode(tokenizer, val_texts)
    names = ", ".join(texts)
    if len(train_ids) <= options.context_length:
        raise DataError(
            f"{names}: {len(train_ids)} tokens to train on: context_length {options.context_length} needs at least "
            f"{options.context_length + 1}; use a longer text or a smaller context_length"
        )
    if len(val_ids) < 2:
        raise DataError(f"{names}: {len(val_ids)} tokens for validation, 2 are needed: use a longer text")
    return Corpus(train_texts, val_texts, tokenizer, train_ids, val_ids)


def _make_tokenizer(train_texts: list[str], val_texts: list[str], options: PretrainOptions) -> Tokenizer:
    if options.tokenizer == "gpt2":
        return GPT2Tokenizer()
    if options.tokenizer == "char":  # knows no character but those it was made from, so it has to see the whole text
        return CharTokenizer.train("".join(train_texts + val_texts))
    # One text of several would join the end of a file and the beginning of the next; a blank line keeps them apart.
    return BPETokenizer.train("\n\n".join(train_texts), options.vocab_size)


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += [*tokenizer.encode(text), tokenizer.eot_id]
    return ids[:-1]  # between files, not after the last
