"""From text to token ids and back: tokenizers with one interface.

    tokenizer = BPETokenizer.train(text, vocab_size=512)     # or CharTokenizer.train(text), or GPT2Tokenizer()
    ids = tokenizer.encode("Hello")                          # a list of ints
    tokenizer.decode(ids)                                    # "Hello"
    tokenizer.save("runs/story"); load_tokenizer("runs/story")

`tokens[id]` are the bytes that an id stands for, so a tokenizer is little more than that list. `eot_id`, with ours the last, is
the mark `<|endoftext|>` between documents. In text the same letters are only letters unless the caller allows the mark:
nobody can end a document by typing it. Other such marks are added to a tokenizer by `add_special`.

byte_level.py has byte-pair encoding, word.py words as tokens, sentencepiece.py Llama 2's, wordpiece.py BERT's; vocabulary.py
reads tokenizers made elsewhere.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

from ..checks import is_integer
from ..errors import CheckpointError, TokenizerError
from ..files import make_folder, replace_file, storing
from ..formats.strict_json import check_is_file
from ..parallel import spread, threads

Self = TypeVar("Self", bound="Tokenizer")  # typing.Self came with Python 3.11

END_OF_TEXT = "<|endoftext|>"
TOKENIZER_FILE = "tokenizer.txt"
_HEADER = "tinygrad_llm tokenizer "  # then the version of the file, a colon, and the kind


class UnknownTokenizer(TokenizerError):
    """A tokenizer made elsewhere that works in another way than those that are known here."""


class Tokenizer(ABC):
    """What all tokenizers share. A subclass says how text is cut (`_encode`) and how it is stored (`_lines`)."""

    name: str  # "bpe", "char", "word", "wordpiece" or "gpt2", as in `--tokenizer`
    added: tuple[str, ...] = ()  # the special tokens that `add_special` has added, in the order of their ids
    marks_prompts: bool = (
        False  # whether a model that was trained with it expects the mark `bos_id` before the first word
    )

    def __init__(self, tokens: Iterable[bytes]) -> None:
        self.tokens = [*tokens, END_OF_TEXT.encode()]  # b"" for an id that stands for nothing
        self.special = {END_OF_TEXT: len(self.tokens) - 1}  # marks that are no text, and their ids
        self.eot_id: int | None = self.special[END_OF_TEXT]  # ends a document; None in some vocabularies made elsewhere
        self.bos_id: int | None = self.eot_id  # begins one; only SentencePiece has a mark of its own for it

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def known_marks(self) -> dict[str, int]:
        """Mark -> id. `<|endoftext|>` is whatever ends a document, which some vocabularies made elsewhere spell otherwise."""
        ends = {} if self.eot_id is None else {END_OF_TEXT: self.eot_id}
        return ends | self.special

    def unused_ids(self, vocab_size: int) -> list[int]:
        """The ids of a model of `vocab_size` that stand for nothing here: such a table is often longer than need be."""
        return [i for i in range(vocab_size) if i >= len(self.tokens) or not self.tokens[i]]

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of `text`. With allowed_special={"<|endoftext|>"} that mark becomes one id, else it is text.

        TokenizerError for a lone surrogate (no Unicode text has one) and, from CharTokenizer, for a foreign character.
        """
        _check_text(text)
        if isinstance(allowed_special, str) or set(allowed_special) - self.special.keys():
            raise TokenizerError(
                f"allowed_special={allowed_special!r}: pass a set; special tokens are {', '.join(map(repr, self.special))}"
            )
        if not allowed_special:
            return self._encode(text)
        ids: list[int] = []
        start = 0
        marks = "|".join(re.escape(mark) for mark in sorted(allowed_special, key=len, reverse=True))
        for mark in re.finditer(marks, text):
            ids += [*self._encode(text[start : mark.start()], start), self.special[mark.group()]]
            start = mark.end()
        return ids + self._encode(text[start:], start)

    def encode_prompt(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The ids of a text from its beginning, as a model reads it: as `encode`, and with `marks_prompts` after the mark."""
        ids = self.encode(text, allowed_special)
        return [self.bos_id, *ids] if self.marks_prompts and self.bos_id is not None else ids

    def encode_continuation(self, text: str) -> list[int]:
        """The ids of a text that goes on from other text: as `encode`, but without a space that it puts before a text."""
        return self.encode(text)

    def marking_prompts(self: Self, marks: bool = True) -> Self:
        """This tokenizer, for a model that reads the mark before each document, or for one that does not."""
        tokenizer = copy(self)
        tokenizer.marks_prompts = marks
        return tokenizer

    def encode_batch(
        self, texts: Iterable[str], allowed_special: Collection[str] = (), n_threads: int | None = None
    ) -> list[list[int]]:
        """`[encode(text, allowed_special) for text in texts]`, shared among threads (None: `parallel.default_threads()`).

        Worth it for GPT-2's pieces, which tiktoken cuts and merges without holding up other threads.
        """
        texts = list(texts)
        self._encode("")  # what is made with the first text is made once
        with threads(n_threads):
            return spread(lambda text: self.encode(text, allowed_special), texts)

    def add_special(self: Self, marks: Iterable[str]) -> Self:
        """A tokenizer that has more special tokens, such as ["<|user|>"]: the new ids follow the old ones, which stay.

        A model needs rows for them: `model.resize_vocabulary(tokenizer.vocab_size)`. TokenizerError for a mark that is there
        already, as a special token or as a token of text.
        """
        if isinstance(marks, str):
            raise TokenizerError(f"special tokens are {marks!r:.80}: pass a list of them")
        tokenizer = copy(self)
        for mark in marks:
            _check_text(mark)
            if not mark:
                raise TokenizerError("a special token is empty: it must be text that is written nowhere else")
            if mark in tokenizer.special:
                raise TokenizerError(f"{mark!r:.80} is a special token already, with the id {tokenizer.special[mark]}")
            if mark.encode() in self.tokens:
                i = self.tokens.index(mark.encode())
                raise TokenizerError(
                    f"{mark!r:.80} is a token of text, with the id {i}: it cannot be a special one too"
                )
            tokenizer.special = tokenizer.special | {mark: len(tokenizer.tokens)}
            tokenizer.tokens = [*tokenizer.tokens, mark.encode()]
            tokenizer.added = (*tokenizer.added, mark)
        return tokenizer

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, which may begin or end within a character. TokenizerError for an id that is no token."""
        return b"".join(self._pieces(ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of `ids`. `errors`: bytes that are not UTF-8 become "\\ufffd", vanish ("ignore"), raise ("strict")."""
        try:
            return self.decode_bytes(ids).decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise TokenizerError(f"the ids decode to bytes that are not UTF-8 at byte {error.start}") from error

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode ids as they come: each piece of text as soon as its characters are complete, never half of one.

        The pieces joined are `decode(ids)`, or go on from other text with a space that `decode` drops as the first of a text
        (SentencePieceTokenizer, WordPieceTokenizer); a character still incomplete at the end becomes "\\ufffd".
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for piece in self._pieces(ids):
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.txt` into `folder`, which is made if need be: plain text, to be read by `load_tokenizer`."""
        path = Path(folder, TOKENIZER_FILE)
        more = self._more()
        header = f"{_HEADER}{2 if more else 1}: {self.name}"
        text = "\n".join([header, *self._lines(), *([json.dumps(more)] if more else []), ""])
        with storing(path):
            make_folder(path.parent)
        replace_file(path, [text.encode()])

    @abstractmethod
    def _encode(self, text: str, start: int = 0) -> list[int]: ...  # start: where `text` stands in the caller's text

    @abstractmethod
    def _lines(self) -> Iterable[str]: ...

    @classmethod
    @abstractmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer: ...

    def _pieces(self, ids: Iterable[int]) -> Iterator[bytes]:
        """The bytes of each id, as they come."""
        return (self._token(i, position) for position, i in enumerate(ids))

    def _more(self) -> dict[str, Any]:
        """What the lines do not say. Where there is such a thing, the file is of version 2 and this is its last line."""
        special = {"special": list(self.added)} if self.added else {}
        return special | ({"marks_prompts": True} if self.marks_prompts else {})

    def _with_more(self, more: dict[str, Any]) -> Tokenizer:
        """The tokenizer of the lines and this. TokenizerError for what cannot be."""
        special, marks = more.get("special", ["one"]), more.get("marks_prompts", True)
        others = more.keys() - {"special", "marks_prompts"}
        if not more or others or not isinstance(special, list) or not special or marks is not True:
            raise TokenizerError(f'{more!r:.80} should be {{"special": [...]}}, {{"marks_prompts": true}} or both')
        tokenizer = self.add_special(more.get("special", []))
        return tokenizer.marking_prompts("marks_prompts" in more)

    def _token(self, i: int, position: int) -> bytes:
        if is_integer(i) and 0 <= i < len(self.tokens) and self.tokens[i]:
            return self.tokens[i]
        raise TokenizerError(
            f"position {position}: {i!r} is not a token id of this {self.name} tokenizer (0 to {self.vocab_size - 1})"
        )


_KINDS: dict[str, type[Tokenizer]] = {}


def register(kind: type[Tokenizer]) -> type[Tokenizer]:
    """Let `load_tokenizer` read what a tokenizer of this kind has saved."""
    _KINDS[kind.name] = kind
    return kind


@register
class CharTokenizer(Tokenizer):
    """One token per character of an alphabet: the simplest tokenizer there is.

    Ids follow the code points: `alphabet` is put in order, and repeated characters count once.
    """

    name = "char"

    def __init__(self, alphabet: str) -> None:
        _check_text(alphabet)
        self.alphabet = "".join(sorted(set(alphabet)))
        self._ids = {character: i for i, character in enumerate(self.alphabet)}
        super().__init__(character.encode() for character in self.alphabet)

    @classmethod
    def train(cls, text: str) -> CharTokenizer:
        """The tokenizer whose alphabet is every character of `text`; TokenizerError if there is none."""
        if text == "":
            raise TokenizerError("the text to train the tokenizer on is empty")
        return cls(text)

    def _encode(self, text: str, start: int = 0) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            (character,) = error.args
            raise TokenizerError(
                f"position {start + text.index(character)}: {character!r} (U+{ord(character):04X}) is not among the "
                f"{len(self.alphabet)} characters of this tokenizer"
            ) from None

    def _lines(self) -> Iterable[str]:
        return [json.dumps(character) for character in self.alphabet]

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer:
        alphabet = ""
        for number, line in enumerate(lines, start=2):
            try:
                character = json.loads(line)
                _check_text(character)
            except (ValueError, RecursionError):
                character = ""
            if len(character) != 1:
                raise TokenizerError(f"{source}: line {number}: {line[:80]!r} is not one character in quotes")
            if alphabet and character <= alphabet[-1]:
                raise TokenizerError(f"{source}: line {number}: {character!r} is out of order or there twice")
            alphabet += character
        return cls(alphabet)


def load_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer that `save` left in `folder`. TokenizerError naming the file, and the line where it is damaged."""
    path = Path(folder, TOKENIZER_FILE)
    try:
        check_is_file(path)
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 at byte {error.start}: not a tokenizer of ours, or damaged") from error
    version, _, name = header.removeprefix(_HEADER).partition(": ")
    if not header.startswith(_HEADER) or version not in ("1", "2") or name not in _KINDS:
        raise TokenizerError(
            f"{path}: line 1: {header[:80]!r} should be {_HEADER + '1: '!r} or {_HEADER + '2: '!r} and one of "
            f"{', '.join(_KINDS)}"
        )
    if version == "1":
        return _KINDS[name]._from_lines(lines, str(path))
    tokenizer = _KINDS[name]._from_lines(lines[:-1], str(path))
    try:
        more = json.loads(lines[-1]) if lines else None
        if not isinstance(more, dict):
            raise TokenizerError(f"{more!r:.80} should be a JSON object")
        return tokenizer._with_more(more)
    except (ValueError, RecursionError) as error:  # a TokenizerError is a ValueError
        raise TokenizerError(f"{path}: line {len(lines) + 1}: {error}") from None


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise TokenizerError(f"text must be a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"position {error.start}: lone surrogate U+{ord(text[error.start]):04X}, half a character: "
            "decode the text with the right encoding"
        ) from None
