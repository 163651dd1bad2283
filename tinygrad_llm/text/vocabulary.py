"""Tokenizers made elsewhere, whose ids stay as they are: byte-level BPE as in GPT-2, a token for each character, SentencePiece's
BPE as in Llama 2 (sentencepiece_files.py), WordPiece as in BERT (wordpiece_files.py).

`parse_tokenizer` takes the contents of a tokenizer.json, as the library `tokenizers` writes it; `to_json` goes the other way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import TokenizerError
from . import sentencepiece_files, wordpiece_files
from .bpe import SPLIT_PATTERN, apply_merges, split_pieces
from .byte_level import BPETokenizer, GPT2Tokenizer, check_pattern
from .merges_file import VISIBLE, format_merges
from .sentencepiece import SentencePieceTokenizer
from .tokenizers import END_OF_TEXT, CharTokenizer, Tokenizer, UnknownTokenizer, _check_text, register
from .wordpiece import WordPieceTokenizer

if TYPE_CHECKING:
    import tiktoken

_BYTES = {letter: byte for byte, letter in VISIBLE.items()}
_MOST_IDS = 10_000_000
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_EACH_CHARACTER = {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": False}
_EACH_PATTERNS = {"", ".", "[\\s\\S]", "(?s:.)", "(?s).", "(.|\\n)", ".|\\n", "[\\S\\s]"}


class _Vocabulary(Tokenizer):
    """What both kinds share: ids of a file, and special tokens anywhere among them."""

    def _set_tokens(self, tokens: Mapping[int, bytes], special: Mapping[str, int], eot: str | None) -> None:
        every = dict(tokens) | {i: mark.encode() for mark, i in special.items()}
        self.tokens = [every.get(i, b"") for i in range(max(every, default=-1) + 1)]
        self.special = dict(special)
        self.bos_id = self.eot_id = None if eot is None else special[eot]

    def _lines(self) -> Iterable[str]:
        return [json.dumps(to_json(self))]

    def _more(self) -> dict[str, Any]:
        return {"marks_prompts": True} if self.marks_prompts else {}  # the lines say all else

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer:
        try:
            (line,) = lines
            return parse_tokenizer(json.loads(line), source)
        except (ValueError, RecursionError) as error:
            if isinstance(error, TokenizerError):
                raise
            raise TokenizerError(f"{source}: line 2: not the one line of JSON that stands there: {error}") from None


@register
class BPEVocabulary(_Vocabulary, BPETokenizer):
    """Byte-level BPE whose ids are those of a file: `vocab` spells each token in GPT-2's visible letters.

    The ids need not follow the order of the merges, so these are applied pair by pair, the earliest first.
    """

    name = "bpe-vocabulary"

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        special: Mapping[str, int],
        eot: str | None,
        pattern: str = SPLIT_PATTERN,
    ) -> None:
        tokens = {i: bytes(_BYTES[letter] for letter in word) for word, i in vocab.items() if word not in special}
        self._set_tokens(tokens, special, eot)
        self.pattern = pattern
        self._byte_ids = {token[0]: i for i, token in tokens.items() if len(token) == 1}
        self.merges = [(vocab[left], vocab[right]) for left, right in merges]
        self._new_ids = {(vocab[left], vocab[right]): vocab[left + right] for left, right in merges}
        self._encode_piece = lru_cache(2**16)(self._merge_piece)

    def _encode(self, text: str, start: int = 0) -> list[int]:
        return [i for piece in split_pieces(text, self.pattern) for i in self._encode_piece(piece)]

    def _merge_piece(self, piece: str) -> tuple[int, ...]:
        return tuple(apply_merges(self._spell(piece), self._new_ids, self._ranks))

    def _tiktoken(self, pattern: str) -> tiktoken.Encoding:
        made = [-1, *self._new_ids.values()]
        if len(self._byte_ids) < 256 or any(i >= j for i, j in pairwise(made)):
            raise TokenizerError(
                "tiktoken merges in the order of the ids, which is another one here: there is no such Encoding"
            )
        return super()._tiktoken(pattern)

    def _spell(self, piece: str) -> list[int]:
        try:
            return super()._spell(piece)
        except KeyError as error:
            raise TokenizerError(f"{piece!r}: this tokenizer has no token for the byte {error.args[0]}") from None


@register
class CharVocabulary(_Vocabulary, CharTokenizer):
    """One token for each character, with the ids of a file. What it does not know is an error, or `unknown` if that is given."""

    name = "char-vocabulary"

    def __init__(
        self, vocab: Mapping[str, int], special: Mapping[str, int], eot: str | None, unknown: str | None = None
    ) -> None:
        self._ids = {character: i for character, i in vocab.items() if character not in special}
        self.alphabet = "".join(self._ids)
        self.unknown = unknown
        self._set_tokens({i: character.encode() for character, i in self._ids.items()}, special, eot)

    def _encode(self, text: str, start: int = 0) -> list[int]:
        if self.unknown is None:
            return super()._encode(text, start)
        unknown = self.special[self.unknown]
        return [self._ids.get(character, unknown) for character in text]


def parse_tokenizer(data: Mapping[str, Any], source: str, eot: str | int | None = END_OF_TEXT) -> Tokenizer:
    """The tokenizer that a tokenizer.json describes; `eot` is the token, or its id, that ends a document.

    TokenizerError for contents that contradict themselves; UnknownTokenizer for another kind than those three.
    """
    model = _object(data, "model", source)
    vocab, added = _object(model, "vocab", source), data.get("added_tokens") or []
    special: dict[str, Any] = {}
    for entry in added if isinstance(added, list) else [added]:
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not entry["content"]:
            raise TokenizerError(f"{source}: added_tokens has {entry!r:.80}: it must have id and content")
        if not entry.get("special", False):
            raise UnknownTokenizer(f"{source}: the added token {entry['content']!r:.80} is not special")
        special[entry["content"]] = entry.get("id")
    kind = model.get("type") or ("BPE" if "merges" in model else "WordLevel")
    merges, unknown = model.get("merges") or [], model.get("unk_token")
    _check_vocab(vocab, special, source)
    if isinstance(eot, int):
        eot = next((mark for mark, i in special.items() if i == eot), None)
    eot = next((mark for mark in (eot, END_OF_TEXT) if mark in special), None)
    if sentencepiece_files.is_sentencepiece(data):
        return sentencepiece_files.parse_json(data, _pairs(vocab, merges, source), special, eot, source)
    if wordpiece_files.is_wordpiece(data):
        return wordpiece_files.parse_json(data, special, source)
    if data.get("normalizer") is not None:
        raise UnknownTokenizer(f"{source}: has a normalizer, {data['normalizer']!r:.80}")
    pattern = _split_pattern(data.get("pre_tokenizer"), source)
    if kind == "BPE" and pattern is not None:
        for field in (
            "dropout",
            "continuing_subword_prefix",
            "end_of_word_suffix",
            "fuse_unk",
            "byte_fallback",
            "ignore_merges",
        ):
            if model.get(field):
                raise UnknownTokenizer(f"{source}: model.{field} is {model[field]!r:.80}")
        return _byte_level(vocab, merges, special, eot, pattern, source)
    if kind not in ("BPE", "WordLevel") or merges or not _is_each_character(data.get("pre_tokenizer"), kind):
        raise UnknownTokenizer(f"{source}: a {kind!r:.40} tokenizer of a kind that is not known here")
    if unknown in vocab and len(unknown) != 1:
        special.setdefault(unknown, vocab[unknown])
    words = [word for word in vocab if len(word) != 1 and word not in special]
    if words:
        raise UnknownTokenizer(f"{source}: {words[0]!r:.80} is neither a character nor a special token")
    return CharVocabulary(vocab, special, eot, unknown if unknown in special else None)


def to_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a tokenizer.json says of it, for transformers; `parse_tokenizer` makes the same tokenizer of it."""
    if not isinstance(tokenizer, (BPETokenizer, CharTokenizer, SentencePieceTokenizer, WordPieceTokenizer)):
        raise TokenizerError(
            f"{type(tokenizer).__name__}: only BPE, WordPiece and tokenizers of characters can be written"
        )
    plain = {i: token for i, token in enumerate(tokenizer.tokens) if token and i not in tokenizer.special.values()}
    model: dict[str, Any]
    parts: dict[str, Any]
    if isinstance(tokenizer, (SentencePieceTokenizer, WordPieceTokenizer)):
        if isinstance(tokenizer, SentencePieceTokenizer):
            parts = sentencepiece_files.parts_of_json(tokenizer)
        else:
            parts = wordpiece_files.parts_of_json(tokenizer)
        model = parts.pop("model")
    elif isinstance(tokenizer, BPETokenizer):
        words = {"".join(VISIBLE[byte] for byte in token): i for i, token in plain.items()}
        if both := words.keys() & tokenizer.special.keys():
            raise TokenizerError(
                f"{both.pop()!r:.80}: a special token and, in GPT-2's letters, one of text: none can be written"
            )
        pairs = [line.split(" ") for line in format_merges(tokenizer.merges, tokenizer.tokens)]
        model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                 "fuse_unk": False, "vocab": words | tokenizer.special, "merges": pairs}  # fmt: skip
        cut = _BYTE_LEVEL
        if tokenizer.pattern != SPLIT_PATTERN:
            split = {"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
            cut = {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL | {"use_regex": False}]}
        parts = {"pre_tokenizer": cut, "post_processor": _BYTE_LEVEL, "decoder": _BYTE_LEVEL}
    else:
        letters = {token.decode(): i for i, token in plain.items()}
        unknown = getattr(tokenizer, "unknown", None) or "<unk>"
        model = {"type": "WordLevel", "vocab": letters | tokenizer.special, "unk_token": unknown}
        parts = {"pre_tokenizer": _EACH_CHARACTER, "post_processor": None, "decoder": {"type": "Fuse"}}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    marks = sorted(tokenizer.special.items(), key=lambda item: item[1])
    added = [{"id": i, "content": mark, **flags} for mark, i in marks]
    nothing = {"truncation": None, "padding": None, "normalizer": None}  # parts may have a normalizer
    return {"version": "1.0", **nothing, "added_tokens": added, **parts, "model": model}


def _pairs(vocab: Mapping[str, int], merges: Any, source: str) -> list[tuple[str, str]]:
    """The merges, all of whose tokens are in the vocabulary."""
    pairs = []
    if not isinstance(merges, list):
        raise TokenizerError(f"{source}: merges is {merges!r:.80}: it must be a list")
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(half, str) for half in pair):
            raise TokenizerError(f"{source}: merge {number} is {merge!r:.80}: it must be two tokens")
        for word in (*pair, pair[0] + pair[1]):
            if word not in vocab:
                raise TokenizerError(f"{source}: merge {number}: {word!r:.80} is not in the vocabulary")
        pairs.append((pair[0], pair[1]))
    return pairs


def _byte_level(
    vocab: Mapping[str, int], merges: Any, special: Mapping[str, int], eot: str | None, pattern: str, source: str
) -> Tokenizer:
    pairs = _pairs(vocab, merges, source)
    for word in vocab.keys() - special.keys():
        if not all(letter in _BYTES for letter in word):
            raise UnknownTokenizer(f"{source}: {word!r:.80} is not spelled in GPT-2's letters for bytes")
    tokenizer = BPEVocabulary(vocab, pairs, special, eot, pattern)
    if tokenizer.vocab_size >= 50257 and pattern == SPLIT_PATTERN:
        try:
            gpt2 = GPT2Tokenizer()
        except TokenizerError:  # its files are not on this machine: these will do
            return tokenizer
        more = sorted(special.keys() - gpt2.special.keys(), key=special.__getitem__)
        tokens = gpt2.tokens + [mark.encode() for mark in more]
        if (gpt2.merges, tokens, gpt2.eot_id) == (tokenizer.merges, tokenizer.tokens, tokenizer.eot_id):
            return gpt2.add_special(more)
    return tokenizer


def _object(data: Mapping[str, Any], field: str, source: str) -> dict[str, Any]:
    value = data.get(field)
    if not isinstance(value, dict):
        if field == "vocab" and isinstance(value, list):
            raise UnknownTokenizer(f"{source}: a Unigram tokenizer, which is not known here")
        raise TokenizerError(f"{source}: {field} is {value!r:.40}: it must be an object")
    return value


def _check_vocab(vocab: Mapping[str, Any], special: Mapping[str, Any], source: str) -> None:
    """Each id is a number of its own; a special token may be in the vocabulary too, under the same id."""
    owners: dict[int, str] = {}
    for word, i in [*vocab.items(), *special.items()]:
        if type(i) is not int or not 0 <= i < _MOST_IDS:
            raise TokenizerError(f"{source}: the id of {word!r:.80} is {i!r:.40}: it must be an integer of 0 or more")
        if word == "":
            raise TokenizerError(f"{source}: id {i} belongs to an empty text")
        if owners.setdefault(i, word) != word:
            raise TokenizerError(f"{source}: id {i} belongs to {owners[i]!r:.80} and to {word!r:.80}")
        _check_text(word)
    for word, i in special.items():
        if vocab.get(word, i) != i:
            raise TokenizerError(f"{source}: {word!r:.80} has two ids, {i} and {vocab[word]}")


def _split_pattern(pre_tokenizer: Any, source: str) -> str | None:
    """The regular expression with which text is cut for byte-level BPE; None for a tokenizer that is not byte-level."""
    own = None
    if isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Sequence":
        parts = pre_tokenizer.get("pretokenizers")
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, dict) for part in parts):
            raise UnknownTokenizer(f"{source}: pre_tokenizer is {pre_tokenizer!r:.120}: it is none that is known here")
        split, pre_tokenizer = parts
        own = split.get("pattern")
        own = own.get("Regex") if isinstance(own, dict) else None
        if split.get("type") != "Split" or split.get("behavior") != "Isolated" or split.get("invert") or own is None:
            raise UnknownTokenizer(f"{source}: pre_tokenizer begins with {split!r:.120}: it is none that is known here")
    if not isinstance(pre_tokenizer, dict) or pre_tokenizer.get("type") != "ByteLevel":
        return None
    if pre_tokenizer.get("add_prefix_space", True) or pre_tokenizer.get("use_regex", True) != (own is None):
        raise UnknownTokenizer(f"{source}: pre_tokenizer is {pre_tokenizer!r:.120}: it is not GPT-2's")
    try:
        return SPLIT_PATTERN if own is None else check_pattern(own)
    except TokenizerError as error:
        raise UnknownTokenizer(f"{source}: {error}") from None


def _is_each_character(pre_tokenizer: Any, kind: str) -> bool:
    if pre_tokenizer is None:
        return kind == "BPE"  # without merges
    if not isinstance(pre_tokenizer, dict) or pre_tokenizer.get("type") != "Split":
        return False
    pattern = pre_tokenizer.get("pattern")
    isolated = pre_tokenizer.get("behavior") == "Isolated"
    return (
        isolated
        and isinstance(pattern, dict)
        and any(pattern.get(key) in _EACH_PATTERNS for key in ("Regex", "String"))
    )
