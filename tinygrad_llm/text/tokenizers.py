"""From text to token ids and back: three tokenizers with one interface.

    tokenizer = BPETokenizer.train(text, vocab_size=512)     # or CharTokenizer.train(text), or GPT2Tokenizer()
    ids = tokenizer.encode("Hello")                          # a list of ints
    tokenizer.decode(ids)                                    # "Hello"
    tokenizer.save("runs/story"); load_tokenizer("runs/story")

`tokens[id]` are the bytes that an id stands for, so a tokenizer is little more than that list. `eot_id`, with ours the last, is
the mark `<|endoftext|>` between documents. In text the same letters are only letters unless the caller allows the mark:
nobody can end a document by typing it. vocabulary.py reads tokenizers made elsewhere.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks import check_integer, is_integer
from ..errors import CheckpointError, TokenizerError
from ..files import make_folder, replace_file, storing
from ..formats.strict_json import check_is_file
from .bpe import SPLIT_PATTERN, Pair, apply_merges, rank_merges, split_pieces, train_bpe
from .merges_file import GPT2_BYTE_ORDER, check_reachable, format_merges, parse_merges, read_gpt2_merges

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
TOKENIZER_FILE = "tokenizer.txt"


class Tokenizer(ABC):
    """What all tokenizers share. A subclass says how text is cut (`_encode`) and how it is stored (`_lines`)."""

    name: str  # "bpe", "char" or "gpt2", as in `--tokenizer`

    def __init__(self, tokens: Iterable[bytes]) -> None:
        self.tokens = [*tokens, END_OF_TEXT.encode()]  # b"" for an id that stands for nothing
        self.special = {END_OF_TEXT: len(self.tokens) - 1}  # marks that are no text
        self.eot_id: int | None = self.special[END_OF_TEXT]  # ends a document; None in some vocabularies made elsewhere

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

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

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, which may begin or end within a character. TokenizerError for an id that is no token."""
        return b"".join(self._token(i, position) for position, i in enumerate(ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of `ids`. `errors`: bytes that are not UTF-8 become "\\ufffd", vanish ("ignore"), raise ("strict")."""
        try:
            return self.decode_bytes(ids).decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise TokenizerError(f"the ids decode to bytes that are not UTF-8 at byte {error.start}") from error

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Decode ids as they come: each piece of text as soon as its characters are complete, never half of one.

        The pieces joined are `decode(ids)`; a character still incomplete at the end becomes "\\ufffd".
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for position, i in enumerate(ids):
            if text := decoder.decode(self._token(i, position)):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.txt` into `folder`, which is made if need be: plain text, to be read by `load_tokenizer`."""
        path = Path(folder, TOKENIZER_FILE)
        with storing(path):
            make_folder(path.parent)
        replace_file(path, ["\n".join([_HEADER + self.name, *self._lines(), ""]).encode()])

    @abstractmethod
    def _encode(self, text: str, start: int = 0) -> list[int]: ...  # start: where `text` stands in the caller's text

    @abstractmethod
    def _lines(self) -> Iterable[str]: ...

    @classmethod
    @abstractmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer: ...

    def _token(self, i: int, position: int) -> bytes:
        if is_integer(i) and 0 <= i < len(self.tokens) and self.tokens[i]:
            return self.tokens[i]
        raise TokenizerError(
            f"position {position}: {i!r} is not a token id of this {self.name} tokenizer (0 to {self.vocab_size - 1})"
        )


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


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: encodes any Unicode text, with tokens learned from a text of yours.

    Ids 0 to 255 are the bytes, merge k (from 0) makes id 256 + k. bpe.py shows how merges are learned and applied;
    `encode` applies them with tiktoken, `encode_plain` with the lines of bpe.py, and both give the same ids.
    """

    name = "bpe"

    def __init__(self, merges: Sequence[Pair], byte_order: bytes = bytes(range(256))) -> None:
        """`merges` as `train_bpe` returns them; byte_order[id] is the byte of an id below 256."""
        self.merges = list(merges)
        self._byte_ids = {byte: i for i, byte in enumerate(byte_order)}
        tokens = [bytes([byte]) for byte in byte_order]
        for rank, pair in enumerate(self.merges):
            left, right = pair
            if not (0 <= left < len(tokens) and 0 <= right < len(tokens)):
                raise TokenizerError(f"merge {rank}: {pair} names a token that no earlier merge makes")
            tokens.append(tokens[left] + tokens[right])
        if len(set(tokens)) != len(tokens):
            raise TokenizerError("two merges make the same token")
        super().__init__(tokens)

    @classmethod
    def train(cls, text: str, vocab_size: int) -> BPETokenizer:
        """Learn from `text`. `vocab_size` counts the 256 bytes, the merges and `<|endoftext|>`.

        A text too short to have that many pairs that occur twice gives a smaller vocabulary.
        """
        check_integer(f"vocab_size (256 bytes, {END_OF_TEXT} and merges)", vocab_size, least=257)
        _check_text(text)
        if text == "":
            raise TokenizerError("the text to train the tokenizer on is empty")
        return cls(train_bpe(text, vocab_size - 257))

    def encode_plain(self, text: str) -> list[int]:
        """What `encode(text)` does, in Python one can step through: cut into pieces, then merge within each.

        One caveat: the cutting is done by `regex` here and by tiktoken's own engine there. Beside characters that
        only the newer of the two knows (added to Unicode in the last editions) they may cut, and so merge, differently.
        """
        _check_text(text)
        new_ids = rank_merges(self.merges)
        ids = []
        for piece in split_pieces(text):
            ids += apply_merges([self._byte_ids[byte] for byte in piece.encode()], new_ids)
        return ids

    @cached_property
    def encoding(self) -> tiktoken.Encoding:
        """The same tokenizer as a `tiktoken.Encoding`."""
        import tiktoken  # here, so that a program that only decodes never loads it

        return tiktoken.Encoding(
            self.name,
            pat_str=SPLIT_PATTERN,
            mergeable_ranks={token: i for i, token in enumerate(self.tokens[:-1])},
            special_tokens=self.special,
        )

    def _encode(self, text: str, start: int = 0) -> list[int]:
        import regex  # type: ignore[import-untyped]

        # tiktoken's regex engine panics on about a million characters of white space before a word. All but the last
        # of them are one piece anyway, so cutting the text there leaves every id as it is.
        cuts = [run.end() for run in regex.finditer(r"(?<!\s)\s{10000,}(?=\s\S)", text)]
        ids: list[int] = []
        for begin, end in pairwise([0, *cuts, len(text)]):
            ids += self.encoding.encode_ordinary(text[begin:end])
        return ids

    def _lines(self) -> Iterable[str]:
        return format_merges(self.merges, self.tokens)

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer:
        merges = parse_merges(lines, bytes(range(256)), source)
        check_reachable(merges, source)
        return cls(merges)


class GPT2Tokenizer(BPETokenizer):
    """GPT-2's own tokenizer, 50,257 ids, from a vocabulary file on this machine (see `read_gpt2_merges`).

    TokenizerError with the remedies when there is no such file; the network is never asked.
    """

    name = "gpt2"

    def __init__(self) -> None:
        super().__init__(read_gpt2_merges(), GPT2_BYTE_ORDER)

    def _lines(self) -> Iterable[str]:
        return []  # the name says it all

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> GPT2Tokenizer:
        if lines:
            raise TokenizerError(f"{source}: line 2: nothing may follow the first line of a gpt2 tokenizer")
        return cls()


_HEADER = "tinygrad_llm tokenizer 1: "
_KINDS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in (BPETokenizer, CharTokenizer, GPT2Tokenizer)}


def register(kind: type[Tokenizer]) -> type[Tokenizer]:
    """Let `load_tokenizer` read what a tokenizer of this kind has saved."""
    _KINDS[kind.name] = kind
    return kind


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
    kind = _KINDS.get(header.removeprefix(_HEADER)) if header.startswith(_HEADER) else None
    if kind is None:
        raise TokenizerError(f"{path}: line 1: {header[:80]!r} should be {_HEADER!r} and one of {', '.join(_KINDS)}")
    return kind._from_lines(lines, str(path))


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
