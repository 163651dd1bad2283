"""Words as tokens: the two tokenizers with which the book's chapter 2 begins, why byte-pair encoding follows them, and a third.

    tokenizer = SimpleTokenizerV1.train("the cat sat. the end")
    tokenizer.encode("the cat")                    # [4, 1]
    tokenizer.decode([4, 3, 0])                    # "the sat.": spaces come back as a guess
    tokenizer.encode("the dog")                    # TokenizerError: 'dog' is not in the vocabulary
    SimpleTokenizerV2.train("the cat")             # also has <|endoftext|> and <|unk|>, and writes the latter for "dog"

Both lose something: V1 knows no new word, V2 forgets it, and neither remembers where the spaces were. Bytes and their
merges (bpe.py) lose nothing.

`WordTokenizer` takes from them that a space belongs to the word after it, and so gets the spaces right. It is for small worlds,
where each name shall be one token that a model can copy.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..checks import check_flag, is_integer
from ..errors import TokenizerError
from .tokenizers import END_OF_TEXT, Tokenizer, _check_text, register

UNKNOWN = "<|unk|>"
# The parentheses keep what the text is cut at: punctuation and double dashes are tokens too.
_WORD_BORDER = re.compile(r"""([,.:;?_!"()']|--|\s)""")
# A word or a sign with the space before it, an ending such as 's, or what white space remains: all of a text is such pieces.
_PIECE = re.compile(r"['’](?:s|t|re|ve|m|ll|d)\b| ?\w+| ?[^\w\s]|\s")
_SPACE_BEFORE_PUNCTUATION = re.compile(r"""\s+([,.?!"()'])""")


def split_words(text: str) -> list[str]:
    """The words and the punctuation of a text, without its white space: "Is this-- a" -> ["Is", "this", "--", "a"]."""
    _check_text(text)
    return [word for piece in _WORD_BORDER.split(text) if (word := piece.strip())]


class SimpleTokenizerV1:
    """Each word is the id of its place in a list. `vocab` is word -> id, with the ids 0, 1, 2, ..."""

    def __init__(self, vocab: Mapping[str, int]) -> None:
        if set(vocab.values()) != set(range(len(vocab))):
            raise TokenizerError(f"vocab: the ids of {len(vocab)} words must be 0 to {len(vocab) - 1}, each once")
        self.vocab = dict(vocab)
        self.tokens = sorted(vocab, key=vocab.__getitem__)

    @classmethod
    def words_of(cls, text: str) -> list[str]:
        """The vocabulary that `train` makes of a text: its different words in the order of their code points."""
        return sorted(set(split_words(text)))

    @classmethod
    def train(cls, text: str) -> SimpleTokenizerV1:
        """The tokenizer whose vocabulary is every word of `text`; TokenizerError if there is none."""
        if not split_words(text):
            raise TokenizerError("the text to train the tokenizer on has no words")
        return cls({word: i for i, word in enumerate(cls.words_of(text))})

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The id of each word; TokenizerError naming the first word that the vocabulary lacks."""
        return [self._id(word, position) for position, word in enumerate(split_words(text))]

    def decode(self, ids: Iterable[int]) -> str:
        """The words with spaces between them, but none before punctuation. TokenizerError for an id that is no word."""
        text = " ".join(self._word(i, position) for position, i in enumerate(ids))
        return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", text)

    def _id(self, word: str, position: int) -> int:
        if word in self.vocab:
            return self.vocab[word]
        raise TokenizerError(
            f"word {position}: {word!r} is not in the vocabulary of {self.vocab_size} words: "
            f"SimpleTokenizerV2 writes {UNKNOWN} for it"
        )

    def _word(self, i: int, position: int) -> str:
        if is_integer(i) and 0 <= i < self.vocab_size:
            return self.tokens[i]
        raise TokenizerError(f"position {position}: {i!r} is not an id of this vocabulary (0 to {self.vocab_size - 1})")


class SimpleTokenizerV2(SimpleTokenizerV1):
    """V1 with two more words: `<|endoftext|>` between documents, and `<|unk|>` for every word it does not know."""

    def __init__(self, vocab: Mapping[str, int]) -> None:
        super().__init__(vocab)
        if UNKNOWN not in self.vocab:
            raise TokenizerError(f"vocab has no {UNKNOWN}, which stands for the words that it lacks: add it")

    @classmethod
    def words_of(cls, text: str) -> list[str]:
        words = [word for word in super().words_of(text) if word not in (END_OF_TEXT, UNKNOWN)]
        return [*words, END_OF_TEXT, UNKNOWN]

    def _id(self, word: str, position: int) -> int:
        return self.vocab.get(word, self.vocab[UNKNOWN])


@register
class WordTokenizer(Tokenizer):
    """A token for each word and each sign that occurs twice or more, with the space before it where there is one.

    Both "the" and " the" are tokens if both occur. What is known in one form only has the other one in two tokens: a space before
    "the", or a mark before " the" that takes its space away. All else is `<unk>`; spaces and line breaks are always known.
    With `lower_case` it reads all text in small letters, which is for telling texts apart: capitals do not come back.
    """

    name = "word"
    unknown = "<unk>"

    def __init__(self, words: Iterable[str], lower_case: bool = False) -> None:
        """`words` as they stand in a text, with the spaces before them; a space and a line break are always added."""
        self.lower_case = check_flag("WordTokenizer: lower_case", lower_case)
        self.words = sorted({" ", "\n", *words})
        for word in self.words:
            _check_text(word)
            if _PIECE.fullmatch(word) is None:
                raise TokenizerError(f"{word!r} is not one word or sign, with at most a space before it")
        self._ids = {word: i for i, word in enumerate(self.words)}
        self._no_space = len(self.words)
        super().__init__([*(word.encode() for word in self.words), b"", self.unknown.encode()])
        self.special = {self.unknown: self._no_space + 1, **self.special}

    @classmethod
    def train(cls, texts: str | Iterable[str], lower_case: bool = False) -> WordTokenizer:
        """The tokenizer that knows what occurs twice or more in a text, or in several; TokenizerError if nothing does."""
        forms: Counter[str] = Counter()
        for text in [texts] if isinstance(texts, (str, bytes)) else texts:
            _check_text(text)
            forms.update(_PIECE.findall(text.lower() if lower_case else text))
        words: Counter[str] = Counter()
        for form, n in forms.items():
            words[form.strip(" ")] += n
        known = [form for form in forms if words[form.strip(" ")] > 1 and form != " "]
        if not known:
            raise TokenizerError("the text to train the tokenizer on has no word or sign that occurs twice")
        return cls(known, lower_case)

    def unused_ids(self, vocab_size: int) -> list[int]:
        """Those past the table: the mark that takes a space away has no text of its own, and yet is written."""
        return [*range(len(self.tokens), vocab_size)]

    def _encode(self, text: str, start: int = 0) -> list[int]:
        ids: list[int] = []
        text = text.lower() if self.lower_case else text
        for form in _PIECE.findall(text):
            if form not in self._ids and form[0] == " ":
                ids.append(self._ids[" "])
                form = form[1:]
            if form not in self._ids and " " + form in self._ids:
                ids.append(self._no_space)
                form = " " + form
            ids.append(self._ids.get(form, self.special[self.unknown]))
        return ids

    def _pieces(self, ids: Iterable[int]) -> Iterator[bytes]:
        takes_space = False
        for position, i in enumerate(ids):
            piece = b"" if i == self._no_space else self._token(i, position)
            yield piece.removeprefix(b" ") if takes_space else piece
            takes_space = i == self._no_space

    def _lines(self) -> Iterable[str]:
        return [json.dumps(word) for word in self.words]

    def _more(self) -> dict[str, Any]:
        return super()._more() | ({"lower_case": True} if self.lower_case else {})

    def _with_more(self, more: dict[str, Any]) -> Tokenizer:
        if more.get("lower_case") is not True:
            return super()._with_more(more)
        others = {key: value for key, value in more.items() if key != "lower_case"}
        tokenizer = type(self)(self.words, lower_case=True)
        return tokenizer._with_more(others) if others else tokenizer

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> WordTokenizer:
        words: list[str] = []
        for number, line in enumerate(lines, start=2):
            try:
                word = json.loads(line)
                _check_text(word)
                if _PIECE.fullmatch(word) is None:
                    raise ValueError
            except (ValueError, RecursionError):
                raise TokenizerError(f"{source}: line {number}: {line[:80]!r} is not one word in quotes") from None
            if words and word <= words[-1]:
                raise TokenizerError(f"{source}: line {number}: {word!r:.80} is out of order or there twice")
            words.append(word)
        return cls(words)
