"""WordPiece, the tokenizer of BERT: words are cut into the longest pieces that are known, from left to right.

    tokenizer = read_tokenizer(folder)                 # weights/tokenizer_files.py: vocab.txt or tokenizer.json
    tokenizer = WordPieceTokenizer.train(text, 4000)   # or one learned from a text of yours
    ids = tokenizer.encode("Unaffable!")               # "una", "##ffa", "##ble", "!": a piece within a word begins with "##"
    tokenizer.frame(ids)                               # [CLS] ... [SEP], and the segment that each id belongs to

First a text is made plain: control characters vanish, in an uncased model capitals and accents too, and white space, every sign
and every Chinese character end a word. A word with a stretch that no piece begins is one [UNK], however much of it is known
(Devlin et al. 2018, https://arxiv.org/abs/1810.04805; tokenization.py of https://github.com/google-research/bert).

Where the library `tokenizers` (transformers' BertTokenizer) and Google's code differ, this is as the library: letters of the
private use areas vanish, a capital sigma becomes "σ" at the end of a word too, and U+2B820 to U+2B91F do not count as Chinese.
Its tables of signs and accents are older than Python's: characters new to Unicode since 2015 may be cut otherwise there.
"""

from __future__ import annotations

import json
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from ..checks import check_flag, check_integer
from ..errors import TokenizerError
from .bpe import merge_most_frequent
from .tokenizers import Tokenizer, _check_text, register

PAD, UNKNOWN, CLS, SEP, MASK = MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"  # of a piece that goes on within a word
LONGEST_WORD = 100  # characters; a longer word is unknown
_LONGEST_PIECE = 1000  # characters: a longer line is no piece, and the file none of pieces
_SPACES = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
)
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_NO_SPACE_BEFORE, _NO_SPACE_AFTER = frozenset(".,;:!?%)]}'’…"), frozenset("([{'’")

Own = TypeVar("Own", bound="WordPieceTokenizer")


@register
class WordPieceTokenizer(Tokenizer):
    """Pieces of words, with ids as they stand in a file of BERT's or learned by `train`.

    Ids are places in `pieces`, and the five marks [PAD] [UNK] [CLS] [SEP] [MASK] are wherever these have them: `pad_id`,
    `cls_id`, `sep_id` and `mask_id` are None where they have not, `unk_id` must be there.

    BERT has no `<|endoftext|>`. [SEP], which ends a text there, ends a document here (`eot_id`), and as with our other
    tokenizers begins the next (`bos_id`), so that a causal model can be trained with this one too; what fills rows up for such a
    model is the end of a document, and counts for nothing. A BERT reads what `frame` returns, filled up with `pad_id`.

    `decode` puts a space before every piece without "##", but none before or after what closes or opens a bracket or stands
    within a word (`.,;:!?%)]}'’…` and `([{'’`); where the text had spaces is not known. `decode_stream` goes on from other text,
    and so begins with the space that `decode` drops as the first of a text.
    """

    name = "wordpiece"

    def __init__(
        self,
        pieces: Iterable[str],
        *,
        lower_case: bool = True,
        strip_accents: bool | None = None,
        clean: bool = True,
        split_chinese: bool = True,
        prefix: str = PREFIX,
        longest_word: int = LONGEST_WORD,
        unknown: str = UNKNOWN,
        special: Iterable[str] = (),
    ) -> None:
        """`pieces` are the lines of a vocab.txt, and the id of each its place.

        lower_case     text is read in small letters
        strip_accents  "é" is read as "e"; None: where it is read in small letters, as BERT does
        clean          control characters, U+FFFD and private letters vanish, but for tabs and ends of lines
        split_chinese  a Chinese character is a word
        prefix         of the pieces that go on within a word
        longest_word   a word of more characters is unknown
        unknown        the mark for a word that cannot be cut into pieces
        special        pieces that are marks, besides that one and MARKS

        TokenizerError naming the piece or the option that cannot be.
        """
        self.pieces = check_pieces(pieces)
        self.lower_case = check_flag("WordPieceTokenizer: lower_case", lower_case)
        if strip_accents is not None:
            check_flag("WordPieceTokenizer: strip_accents", strip_accents)
        self.strip_accents = strip_accents
        self.clean = check_flag("WordPieceTokenizer: clean", clean)
        self.split_chinese = check_flag("WordPieceTokenizer: split_chinese", split_chinese)
        self.longest_word = check_integer("WordPieceTokenizer: longest_word", longest_word)
        _check_text(prefix)
        _check_text(unknown)
        self.prefix, self.unknown = prefix, unknown
        ids = {piece: i for i, piece in enumerate(self.pieces)}
        more = list(special)
        if missing := [mark for mark in (unknown, *more) if mark not in ids]:
            raise TokenizerError(f"no piece is {missing[0]!r:.80}: the special tokens must be pieces")
        marks = [mark for mark in (unknown, *MARKS, *more) if mark in ids]
        self.special = {mark: ids[mark] for mark in sorted(set(marks), key=ids.__getitem__)}
        self.unk_id = ids[unknown]
        self.pad_id, self.cls_id, self.sep_id, self.mask_id = (ids.get(mark) for mark in (PAD, CLS, SEP, MASK))
        self.eot_id = self.bos_id = self.sep_id
        self._ids = {piece: i for piece, i in ids.items() if piece not in self.special}
        self._longest_piece = max(map(len, self._ids), default=0)
        self.tokens = [self._rendered(piece).encode() for piece in self.pieces]
        self._opening = {self._ids[sign] for sign in _NO_SPACE_AFTER if sign in self._ids}
        self._table = _table(lower_case, lower_case if strip_accents is None else strip_accents, clean, split_chinese)
        self._kept = lru_cache(2**16)(self._cut)

    @classmethod
    def train(
        cls, texts: str | Iterable[str], vocab_size: int, lower_case: bool = True, strip_accents: bool | None = None
    ) -> WordPieceTokenizer:
        """Learn pieces from a text, or from several: MARKS, then all characters, first those that begin a word, then pieces.

        Again and again the two neighbours that occur together most often become a piece, the first of equals, until there are
        `vocab_size` or none occur twice: as byte-pair encoding does, and as the trainer of the library `tokenizers` does for
        WordPiece, since Google's was never published. By Schuster and Nakajima 2012 that pair is joined which makes the text
        likeliest, count(ab) / (count(a) count(b)) in the form that is often given; taken at its word this begins with the rarest
        letters, which always stand together, and has to see most words whole before it comes to "the". Only the choice of
        pieces differs, a word is cut in the same way. Of more characters than there are places for, the rarest become [UNK].
        """
        check_integer(
            f"vocab_size ({len(MARKS)} special tokens, characters and pieces)", vocab_size, least=len(MARKS) + 1
        )
        pieces = list(MARKS)
        plain = cls(pieces, lower_case=lower_case, strip_accents=strip_accents)
        words: Counter[str] = Counter()
        for text in [texts] if isinstance(texts, (str, bytes)) else texts:
            _check_text(text)
            words.update(word for word in plain.words(text) if len(word) <= LONGEST_WORD)
        if not words:
            raise TokenizerError("the text to train the tokenizer on has no words")
        letters: Counter[str] = Counter()
        within: set[str] = set()
        for word, n in words.items():
            for letter in word:
                letters[letter] += n
            within.update(word if len(word) > 1 else "")
        # A letter that was seen in a word can begin another one, or go on in it; a sign is always a word by itself.
        forms = {letter: [letter, PREFIX + letter][: 1 + (letter in within)] for letter in letters}
        often = sorted(letters, key=lambda letter: (-letters[letter], letter))
        chosen = [form for letter in often for form in forms[letter]][: vocab_size - len(MARKS)]
        pieces += sorted(chosen, key=lambda form: (len(form) > 1, form))
        ids = {piece: i for i, piece in enumerate(pieces)}
        spelled = ((word, n, [word[0], *(PREFIX + letter for letter in word[1:])]) for word, n in words.items())
        rows = [([ids[form] for form in forms], n) for _, n, forms in spelled if all(form in ids for form in forms)]

        def joined(pair: tuple[int, int]) -> int:  # two pairs can make one piece: "a" + "##bc" and "ab" + "##c"
            left, right = pair
            piece = pieces[left] + pieces[right].removeprefix(PREFIX)
            if piece not in ids:
                ids[piece] = len(pieces)
                pieces.append(piece)
            return ids[piece]

        if len(pieces) < vocab_size:
            for _ in merge_most_frequent(rows, joined):
                if len(pieces) == vocab_size:
                    break
        return cls(pieces, lower_case=lower_case, strip_accents=strip_accents)

    def words(self, text: str) -> list[str]:
        """The words and signs of a text, made plain, that are then cut into pieces: "Café (1)" -> ["cafe", "(", "1", ")"]."""
        return [word for word in text.translate(self._table).split(" ") if word]

    def frame(self, ids: Sequence[int], more: Sequence[int] | None = None) -> tuple[list[int], list[int]]:
        """What a BERT reads: [CLS] ids [SEP], and with `more`, a second text, more [SEP]; and the segment of each, 0 or 1."""
        if self.cls_id is None or self.sep_id is None:
            raise TokenizerError(
                f"this vocabulary of {self.vocab_size} pieces has no {CLS if self.cls_id is None else SEP}"
            )
        first = [self.cls_id, *ids, self.sep_id]
        second = [] if more is None else [*more, self.sep_id]
        return first + second, [0] * len(first) + [1] * len(second)

    def add_special(self: Own, marks: Iterable[str]) -> Own:
        marks = marks if isinstance(marks, str) else list(marks)  # a str is refused below
        taken = [] if isinstance(marks, str) else [mark for mark in marks if mark in self._ids]
        if taken:  # whose bytes have a space before them
            raise TokenizerError(
                f"{taken[0]!r:.80} is a token of text, with the id {self._ids[taken[0]]}: it cannot be a special one too"
            )
        return super().add_special(marks)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        return super().decode(ids, errors).removeprefix(" ")

    def _rendered(self, piece: str) -> str:
        """A piece with the space before it, if there is one."""
        if piece in self.special or piece in _NO_SPACE_BEFORE:
            return piece
        return piece.removeprefix(self.prefix) if piece.startswith(self.prefix) else f" {piece}"

    def _pieces(self, ids: Iterable[int]) -> Iterator[bytes]:
        marks = set(self.special.values())
        opened = False
        for position, i in enumerate(ids):
            piece = self._token(i, position)
            if i in marks:  # whose bytes are the mark alone
                piece = b" " + piece
            yield piece.removeprefix(b" ") if opened else piece
            opened = i in self._opening

    def _encode(self, text: str, start: int = 0) -> list[int]:
        ids: list[int] = []
        for word in self.words(text):
            ids += self._kept(word) if len(word) <= self.longest_word else (self.unk_id,)
        return ids

    def _cut(self, word: str) -> tuple[int, ...]:
        """The ids of the longest piece that the word begins with, then of the longest that goes on, until its end."""
        ids: list[int] = []
        begin, prefix = 0, ""
        while begin < len(word):
            most = min(len(word), begin + self._longest_piece - len(prefix))
            end = next((end for end in range(most, begin, -1) if prefix + word[begin:end] in self._ids), None)
            if end is None:
                return (self.unk_id,)
            ids.append(self._ids[prefix + word[begin:end]])
            begin, prefix = end, self.prefix
        return tuple(ids)

    def settings(self) -> dict[str, Any]:
        """The options that it was made with."""
        names = ("lower_case", "strip_accents", "clean", "split_chinese", "prefix", "longest_word", "unknown")
        marks = [mark for mark in self.special if mark not in (self.unknown, *MARKS, *self.added)]
        return {name: getattr(self, name) for name in names} | {"special": marks}

    def _lines(self) -> Iterable[str]:
        return map(json.dumps, [self.settings(), *self.pieces])

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer:
        rows: list[Any] = []
        for number, line in enumerate(lines, start=2):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                raise TokenizerError(f"{source}: line {number}: {line[:80]!r} is not JSON") from None
        settings = rows[0] if rows and isinstance(rows[0], dict) else {}
        marks = settings.get("special")
        if settings.keys() != cls(MARKS).settings().keys() or not isinstance(marks, list):
            raise TokenizerError(f"{source}: line 2: {lines[:1]!r:.80} should be the settings of a wordpiece tokenizer")
        try:
            check_pieces(rows[1:], "line", 3)
            return cls(rows[1:], **settings)
        except (ValueError, TypeError) as error:  # which the errors of options and pieces are
            raise TokenizerError(f"{source}: {error}") from None


def check_pieces(pieces: Iterable[Any], what: str = "piece", first: int = 0) -> list[str]:
    """The pieces of a vocabulary, if they can be. TokenizerError naming the one that cannot, or that is there twice, as
    `what` and its number, which begin with `first`.
    """
    owners: dict[str, int] = {}
    for number, piece in enumerate(pieces, first):
        try:
            _check_text(piece)
        except TokenizerError as error:
            raise TokenizerError(f"{what} {number}: {error}") from None
        if not 0 < len(piece) <= _LONGEST_PIECE:
            raise TokenizerError(f"{what} {number}: has {len(piece):,} characters: a piece has 1 to {_LONGEST_PIECE:,}")
        if "\n" in piece or "\r" in piece:
            raise TokenizerError(f"{what} {number}: {piece!r:.80} has the end of a line in it")
        if owners.setdefault(piece, number) != number:
            raise TokenizerError(f"{what} {number}: {piece!r:.80} is {what} {owners[piece]} already")
    if not owners:
        raise TokenizerError("the vocabulary is empty: it has no piece")
    return list(owners)


class _Table(dict[int, str]):
    """What `str.translate` makes of each character, found when it is first met."""

    def __init__(self, lower_case: bool, strip_accents: bool, clean: bool, split_chinese: bool) -> None:
        super().__init__()
        self._options = lower_case, strip_accents, clean, split_chinese

    def __missing__(self, code: int) -> str:
        made = self[code] = _plain(chr(code), *self._options)
        return made


@lru_cache
def _table(lower_case: bool, strip_accents: bool, clean: bool, split_chinese: bool) -> _Table:
    return _Table(lower_case, strip_accents, clean, split_chinese)


def _plain(character: str, lower_case: bool, strip_accents: bool, clean: bool, split_chinese: bool) -> str:
    """A character as it is cut into words at spaces: "É" -> "e", "?" -> " ? ".

    Letters are decomposed one by one. In a whole text, marks on one letter would be put in order too, but of these all that are
    not spacing vanish. (A few spacing ones of musical notes and Balinese stay as they stood.)
    """
    control = character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co")
    if clean and control and character not in "\t\n\r":
        return ""
    if character in _SPACES:
        return " "
    letters = character
    if strip_accents:
        decomposed = unicodedata.normalize("NFD", character)
        letters = "".join(letter for letter in decomposed if unicodedata.category(letter) != "Mn")
    if lower_case:
        letters = "".join(letter.lower() for letter in letters)
    if split_chinese and any(first <= ord(character) <= last for first, last in _CHINESE):
        return f" {letters} "
    return "".join(f" {letter} " if _is_sign(letter) else letter for letter in letters)


def _is_sign(letter: str) -> bool:
    """Punctuation, as Unicode has it, and all of ASCII that is neither letter nor digit: "$" and "^" end words too."""
    return letter in string.punctuation or unicodedata.category(letter)[0] == "P"
