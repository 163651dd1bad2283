"""The text of a run: files read or tales told, parts kept for validation, a tokenizer learned, all turned into token ids.

corpus = read_corpus(["story.txt"], "bpe", vocab_size=1024, context_length=64)
windows = TrainingWindows(corpus.train_ids, context_length=64, batch_size=8, stride=4)
for inputs, targets in windows.epoch():     # (B, T), (B, T)
    ...
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import check_integer
from ..errors import ConfigError, DataError
from ..rng import get_generator
from . import story
from .byte_level import BPETokenizer, GPT2Tokenizer
from .datasets import DataLoader, SlidingWindowDataset, Subset, read_text, train_val_split
from .tales import curriculum, tales
from .tokenizers import END_OF_TEXT, TOKENIZER_FILE, CharTokenizer, Tokenizer, load_tokenizer
from .word import WordTokenizer
from .wordpiece import MARKS, WordPieceTokenizer

TOKENIZERS = ("bpe", "char", "word", "wordpiece", "gpt2")  # kinds that a corpus can be made with
WINDOWS = ("stride", "shuffled", "random", "documents")  # ways to choose what an epoch reads

_TALES, _VAL_TALES = 14_400, 400
_IGNORED = -100  # a target that does not count


@dataclass(frozen=True)
class Corpus:
    """Training and validation text, one entry for each file, and their ids, with `<|endoftext|>` between files.

    Where a file of its own is for validation, it is the one validation text, and the others are for training as a whole.
    Where the texts have special tokens in them, `<|endoftext|>` at the end of each document or others, so have the ids. From
    index `alike_from` on, `train_ids` are of the kind of the validation text; what precedes may not be. `entropy` is that of the
    validation text in nats per token, where it is known: the least loss there can be.
    """

    train_texts: list[str]
    val_texts: list[str]
    tokenizer: Tokenizer
    train_ids: list[int]
    val_ids: list[int]
    val_file: str = ""
    alike_from: int = 0
    entropy: float | None = None

    def opening(self) -> str:
        """The first three words, as a prompt; of a text without words, its first characters."""
        parts = (part[:200] for part in split_at(self.train_texts[:1], self._marks()))
        return opening(next((part for part in parts if part.strip()), self.train_texts[0][:200]))

    def introduce_marks(self) -> list[str]:
        """A line for each special token that stands in the texts: how often, and what became of it."""
        lines = []
        pattern = _pattern(self._marks())
        found = Counter(mark for text in self.train_texts + self.val_texts for mark in re.findall(pattern, text))
        known = self.tokenizer.known_marks()
        for mark, n in found.items():
            if mark not in known:
                became = f"letters like any others, since this {self.tokenizer.name} tokenizer has no such token"
            elif known[mark] == self.tokenizer.eot_id:
                became = "the end of a document"
            else:
                became = f"the special token {known[mark]}, not letters"
            lines.append(f"{mark} stands in the text {n:,} {'times: each' if n > 1 else 'time: it'} is {became}.")
        return lines

    def _marks(self) -> set[str]:
        return {END_OF_TEXT, *self.tokenizer.special}

    @property
    def n_bytes(self) -> int:
        """Memory that the texts take, and their ids: Python's integers in lists, and the arrays that windows are cut from."""
        n_ids = len(self.train_ids) + len(self.val_ids)
        return 56 * n_ids + sum(map(sys.getsizeof, self.train_texts + self.val_texts))

    def fingerprint(self) -> dict[str, Any]:
        """SHA-256 of each text and of all token ids: what decides the batches of a run, besides its options."""
        ids = np.array([*self.train_ids, -1, *self.val_ids], "<i8")
        texts = [*self.train_texts, *self.val_texts]
        if not self.val_file:
            texts = [train + val for train, val in zip(self.train_texts, self.val_texts, strict=True)]
        return {
            "texts": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "ids": hashlib.sha256(ids.tobytes()).hexdigest(),
        }


class TrainingWindows:
    """The windows of an epoch, shuffled into batches. len() is the number of batches, the same in every epoch.

    "stride": there is one window for every `stride` tokens, without `stride` for every `context_length`. Where windows overlap,
    each begins anywhere within its stride: were they always the same, a token would be seen in few of the positions, and the
    model would learn to count on it. Windows side by side stay where they are, as in the book. "shuffled": side by side, from
    another beginning in each epoch, so that no token is a target twice in one. "random": as many, each of them anywhere, as
    nanoGPT draws them.
    """

    def __init__(
        self, ids: list[int], context_length: int, batch_size: int, stride: int | None = None, kind: str = "stride"
    ) -> None:
        self._kind = kind
        self._every = SlidingWindowDataset(ids, context_length, stride=1)
        self._stride = context_length if stride is None else check_integer("stride", stride)
        self._overlap = self._stride < context_length
        self._starts = np.arange(0, len(self._every), self._stride)
        if kind == "shuffled":  # as many as there are from any beginning
            self._starts = self._starts[: max(1, len(self._every) // self._stride)]
        self._batch_size = batch_size
        self._n_batches = len(self._loader(self._starts))

    def __len__(self) -> int:
        return self._n_batches

    def epoch(self) -> DataLoader:
        """Batches of ids and targets (B, T), drawn with the current generator."""
        starts = self._starts
        if self._kind == "random":
            starts = get_generator().randint(0, len(self._every), len(starts))
        elif self._kind == "shuffled":
            starts = starts + get_generator().randint(0, min(self._stride, len(self._every)), 1)
        elif self._overlap:
            starts = starts + get_generator().randint(0, self._stride, len(starts))
        return self._loader(starts.clip(max=len(self._every) - 1))

    def _loader(self, starts: np.ndarray) -> DataLoader:
        return DataLoader(Subset(self._every, starts), self._batch_size)


class DocumentWindows:
    """A document a row, in the order of the text, and in batches as long as their longest; what is left of a row does not count.

    A document ends with the mark `eot_id`; a row begins with the mark before it, and one that is longer than `context_length`
    goes on in the next row. So all that a document refers back to is there when it is read. len() is the number of batches.
    ConfigError without such a mark.
    """

    def __init__(self, ids: Sequence[int], context_length: int, batch_size: int, eot_id: int | None) -> None:
        if eot_id is None:
            raise ConfigError(f"windows is 'documents', which end with {END_OF_TEXT}: this tokenizer lacks it")
        row = np.array(ids)  # (N,)
        borders = sorted({0, *np.flatnonzero(row == eot_id).tolist(), len(row) - 1})
        self._rows = [
            row[i : min(i + context_length, end) + 1]
            for start, end in pairwise(borders)
            for i in range(start, end, context_length)
        ]
        self._batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    def epoch(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of ids and targets (B, T), each with a T of its own; targets of -100 are left out of the loss."""
        for start in range(0, len(self._rows), self._batch_size):
            rows = self._rows[start : start + self._batch_size]
            shape = len(rows), max(map(len, rows)) - 1
            ids, targets = np.zeros(shape, np.int64), np.full(shape, _IGNORED, np.int64)  # (B, T) each
            for i, row in enumerate(rows):
                ids[i, : len(row) - 1], targets[i, : len(row) - 1] = row[:-1], row[1:]
            yield ids, targets


def read_corpus(
    files: Sequence[str | os.PathLike[str]],
    tokenizer: Tokenizer | str,
    *,
    context_length: int,
    val_ratio: float = 0.1,
    val_file: str = "",
    encoding: str = "utf-8",
    vocab_size: int = 1024,
    special_tokens: Sequence[str] = (),
) -> Corpus:
    """The corpus of these files, or of the bundled story if there are none. DataError names a file that is too short.

    The end of each file is for validation, so that both losses are about the same mixture of texts, or all of `val_file`.
    `tokenizer` is one that is there already, the folder of one, or the kind of one to make: "bpe", which learns
    `vocab_size` entries, as "wordpiece" does, "char", "word" or "gpt2".
    It is given those `special_tokens` that it lacks. Special tokens in the files are read as such: `<|endoftext|>` ends a
    document.
    """
    tokenizer = _if_there_already(tokenizer)
    known = () if isinstance(tokenizer, str) else tokenizer.special
    names, train_texts, val_texts = split_texts(
        files, val_ratio, val_file, encoding, {END_OF_TEXT, *special_tokens, *known}
    )
    corpus = _encode_corpus(train_texts, val_texts, tokenizer, vocab_size, special_tokens)
    if len(corpus.train_ids) <= context_length:
        raise DataError(
            f"{names}: {len(corpus.train_ids)} tokens to train on: context_length {context_length} needs at least "
            f"{context_length + 1}; use a longer text or a smaller context_length"
        )
    if len(corpus.val_ids) < 2:
        raise DataError(
            f"{val_file or names}: {len(corpus.val_ids)} tokens for validation, 2 are needed: use a longer text"
        )
    return replace(corpus, val_file=val_file)


def tells_tales(preset: str, files: Any) -> bool:
    """Whether a run of this preset learns from tales: where it is made for them, and there are no files."""
    return preset.startswith("tales") and not files


def tell_tales(
    seed: int, tokenizer: Tokenizer | str = "word", vocab_size: int = 1024, special_tokens: Sequence[str] = ()
) -> Corpus:
    """Tales (tales.py), with a mark around each: a curriculum to train on, and for validation plots and casts that it lacks.

    The other arguments are as for `read_corpus`.
    """
    told = list(tales(seed, _VAL_TALES, "validation"))
    train_text, val_text = (
        END_OF_TEXT + "".join(document + END_OF_TEXT for document in documents)
        for documents in (curriculum(seed, _TALES), (tale.text for tale in told))
    )
    corpus = _encode_corpus([train_text], [val_text], _if_there_already(tokenizer), vocab_size, special_tokens)
    marks = np.flatnonzero(np.array(corpus.train_ids) == corpus.tokenizer.eot_id)
    if len(marks) <= _TALES:
        raise ConfigError(f"tales are told apart by {END_OF_TEXT}, which this {corpus.tokenizer.name} tokenizer lacks")
    entropy = sum(tale.nats for tale in told) / (len(corpus.val_ids) - 1)
    return replace(corpus, alike_from=int(marks[-_TALES - 1]), entropy=entropy)


def _if_there_already(tokenizer: Tokenizer | str) -> Tokenizer | str:
    """The tokenizer of a folder; a kind stays one. ConfigError for what is neither."""
    if not isinstance(tokenizer, str):
        return tokenizer
    check_kind(tokenizer)
    return tokenizer if tokenizer in TOKENIZERS else load_tokenizer(tokenizer)


def _encode_corpus(
    train_texts: list[str],
    val_texts: list[str],
    tokenizer: Tokenizer | str,
    vocab_size: int,
    special_tokens: Sequence[str],
) -> Corpus:
    if isinstance(tokenizer, str):
        tokenizer = _make_tokenizer(tokenizer, train_texts, val_texts, vocab_size, special_tokens)
    tokenizer = tokenizer.add_special([mark for mark in special_tokens if mark not in tokenizer.special])
    train_ids, val_ids = encode_texts(tokenizer, train_texts), encode_texts(tokenizer, val_texts)
    return Corpus(train_texts, val_texts, tokenizer, train_ids, val_ids)


def opening(text: str) -> str:
    """Its first three words; of a text without words, its first characters."""
    words = re.match(r"\s*(\S+(\s+\S+){0,2})", text[:200])
    return (words.group(1) if words else text)[:40]


def split_texts(
    files: Sequence[str | os.PathLike[str]],
    val_ratio: float,
    val_file: str = "",
    encoding: str = "utf-8",
    marks: Iterable[str] = (END_OF_TEXT,),
) -> tuple[str, list[str], list[str]]:
    """The names of these files, or of the bundled story, and what of each is to train on and to validate with.

    With a `val_file`, all of each is to train on, and that file to validate with. Otherwise a text is cut at its character
    (1 - val_ratio) n; where that lies within one of `marks`, behind the mark.
    """
    named_texts = [(str(file), read_text(file, encoding)) for file in files] or [("the story", story())]
    names = ", ".join(name for name, _ in named_texts)
    if val_file:
        return names, [text for _, text in named_texts], [read_text(val_file, encoding)]
    train_texts, val_texts = [], []
    for name, text in named_texts:
        try:
            train_text, val_text = train_val_split(text, 1 - val_ratio)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        cut = len(train_text)
        for mark in marks:
            begin = text.find(mark, max(0, cut - len(mark) + 1), cut + len(mark) - 1)
            if begin >= 0:
                train_text, val_text = text[: begin + len(mark)], text[begin + len(mark) :]
        train_texts.append(train_text)
        val_texts.append(val_text)
    return names, train_texts, val_texts


def split_at(texts: Iterable[str], marks: Iterable[str]) -> Iterator[str]:
    """What stands between the marks: the documents of the texts."""
    pattern = _pattern(marks)
    for text in texts:
        yield from re.split(pattern, text)


def _pattern(marks: Iterable[str]) -> str:
    return "|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True))


def check_kind(kind: str) -> None:
    """ConfigError unless there are tokenizers of this kind, or one in a folder of this name."""
    if kind not in TOKENIZERS and not Path(kind, TOKENIZER_FILE).is_file():
        raise ConfigError(
            f"tokenizer is {kind!r}: use one of {', '.join(TOKENIZERS)}, or a folder with a {TOKENIZER_FILE}"
        )


def kind_of(tokenizer: Tokenizer) -> str:
    """The kind that a tokenizer is of, whatever file it came from."""
    kinds = {"gpt2": GPT2Tokenizer, "char": CharTokenizer, "word": WordTokenizer, "wordpiece": WordPieceTokenizer}
    return next((kind for kind, of_kind in kinds.items() if isinstance(tokenizer, of_kind)), "bpe")


def _make_tokenizer(
    kind: str, train_texts: list[str], val_texts: list[str], vocab_size: int, special_tokens: Sequence[str]
) -> Tokenizer:
    """Learned from what stands between the special tokens, which it is not given yet."""
    marks = [END_OF_TEXT, *special_tokens]
    if kind == "gpt2":
        return GPT2Tokenizer()
    if kind == "char":  # knows no character but those it was made from, so it has to see the whole text
        return CharTokenizer.train("".join(split_at(train_texts + val_texts, marks)))
    if kind == "word":
        return WordTokenizer.train(split_at(train_texts, marks))
    n = len(special_tokens)
    if kind == "wordpiece":
        check_integer(
            f"vocab_size ({len(MARKS)} + {n} special tokens, characters and pieces)", vocab_size, len(MARKS) + n + 1
        )
        return WordPieceTokenizer.train(split_at(train_texts, {*marks, *MARKS}), vocab_size - n)
    what = f"vocab_size (256 bytes, {END_OF_TEXT}, {n} special tokens and merges)"
    check_integer(what, vocab_size, least=257 + n)
    return BPETokenizer.train(split_at(train_texts, marks), vocab_size - n)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The ids of all texts and of the special tokens in them, with the end of a document between texts if the tokenizer has it.

    `<|endoftext|>` in a text is that end, however the tokenizer spells it: [SEP] in WordPiece, `</s>` in SentencePiece.
    """
    ids: list[int] = []
    end = next((mark for mark, i in tokenizer.special.items() if i == tokenizer.eot_id), None)
    if end is not None and END_OF_TEXT not in tokenizer.special:
        texts = [text.replace(END_OF_TEXT, end) for text in texts]
    for text_ids in tokenizer.encode_batch(texts, tokenizer.special):
        if ids and tokenizer.eot_id not in (None, ids[-1]):  # which ends a text already if it ends with that mark
            ids.append(tokenizer.eot_id)
        ids += text_ids
    return ids
