"""Words as tokens: the two tokenizers with which the book's chapter 2 begins, and why byte-pair encoding follows them.

    tokenizer = SimpleTokenizerV1.train("the cat sat. the end")
    tokenizer.encode("the cat")                    # [4, 1]
    tokenizer.decode([4, 3, 0])                    # "the sat.": spaces come back as a guess
    tokenizer.encode("the dog")                    # TokenizerError: 'dog' is not in the vocabulary
    SimpleTokenizerV2.train("the cat")             # also has <|endoftext|> and <|unk|>, and writes the latter for "dog"

Both lose something: V1 knows no new word, V2 forgets it, and neither remembers where the spaces were. Bytes and their
merges (bpe.py) lose nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..checks import is_integer
from ..errors import TokenizerError
from .tokenizers import END_OF_TEXT, _check_text

UNKNOWN = "<|unk|>"
# The parentheses keep what the text is cut at: punctuation and double dashes are tokens too.
_WORD_BORDER = re.compile(r"""([,.:;?_!"()']|--|\s)""")
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
