"""Byte-level BPE: the tokenizer that learns its tokens from a text of yours, and GPT-2's own. bpe.py shows how they work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ..checks import check_integer
from ..errors import TokenizerError
from .bpe import SPLIT_PATTERN, Pair, merge_steps, rank_merges, split_pieces, train_bpe
from .merges_file import GPT2_BYTE_ORDER, check_reachable, format_merges, parse_merges, read_gpt2_merges
from .tokenizers import END_OF_TEXT, Self, Tokenizer, _check_text, register

if TYPE_CHECKING:
    import tiktoken


class MergeStep(NamedTuple):
    """Where the tokens of one piece of text stand: before the first merge, its bytes, or after one."""

    piece: str
    pair: Pair | None  # the two ids that became one; None before the first merge
    rank: int | None  # which merge that is, in the order of learning, from 0
    ids: list[int]  # of the piece


@register
class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: encodes any Unicode text, with tokens learned from a text of yours.

    Ids 0 to 255 are the bytes, merge k (from 0) makes id 256 + k. bpe.py shows how merges are learned and applied;
    `encode` applies them with tiktoken, `encode_plain` with the lines of bpe.py, and both give the same ids.
    """

    name = "bpe"

    def __init__(
        self, merges: Sequence[Pair], byte_order: bytes = bytes(range(256)), pattern: str = SPLIT_PATTERN
    ) -> None:
        """`merges` as `train_bpe` returns them; byte_order[id] is the byte of an id below 256; `pattern`: see `train`."""
        self.pattern = check_pattern(pattern)
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
    def train(cls, texts: str | Iterable[str], vocab_size: int, pattern: str = SPLIT_PATTERN) -> BPETokenizer:
        """Learn from a text, or from several, each of which is read once. `vocab_size` counts the 256 bytes, the merges and
        `<|endoftext|>`.

        Texts too short to have that many pairs that occur twice give a smaller vocabulary. `pattern` is the regular expression
        (of the package `regex`) that cuts text into the pieces within which merges are made: SPLIT_PATTERN is GPT-2's,
        GPT4_SPLIT_PATTERN that of GPT-4, or one of your own.
        """
        check_integer(f"vocab_size (256 bytes, {END_OF_TEXT} and merges)", vocab_size, least=257)
        texts = [texts] if isinstance(texts, (str, bytes)) else texts
        return cls(train_bpe(_checked(texts), vocab_size - 257, check_pattern(pattern)), pattern=pattern)

    def explain_merges(self, text: str) -> Iterator[MergeStep]:
        """How `text` becomes tokens, one step at a time: for each piece first its bytes, then every merge within it.

        One caveat: text is cut by `regex` here, and for GPT-2's pattern by tiktoken's own engine in `encode`. Beside characters
        that only the newer of the two knows (added to Unicode in the last editions) they may cut, and so merge, differently.
        """
        _check_text(text)
        for piece in split_pieces(text, self.pattern):
            ids = self._spell(piece)
            yield MergeStep(piece, None, None, ids)
            for pair, after in merge_steps(ids, self._new_ids, self._ranks):
                yield MergeStep(piece, pair, self._ranks[pair], after)

    def encode_plain(self, text: str) -> list[int]:
        """What `encode(text)` does, in Python one can step through: all of `explain_merges`, and what it leaves."""
        before: list[int] = []
        ids: list[int] = []  # of the piece under way
        for step in self.explain_merges(text):
            if step.pair is None:
                before += ids
            ids = step.ids
        return before + ids

    def add_special(self: Self, marks: Iterable[str]) -> Self:
        tokenizer = super().add_special(marks)
        vars(tokenizer).pop("encoding", None)  # which has the old marks
        return tokenizer

    @cached_property
    def encoding(self) -> tiktoken.Encoding:
        """The same tokenizer as a `tiktoken.Encoding`."""
        return self._tiktoken(self.pattern)

    @cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: rank for rank, pair in enumerate(self.merges)}

    @cached_property
    def _new_ids(self) -> dict[Pair, int]:
        return rank_merges(self.merges)

    @cached_property
    def _encode_piece(self) -> Callable[[str], Sequence[int]]:
        """The ids of one piece, whatever it looks like; those of the latest pieces are kept."""
        return lru_cache(2**16)(self._tiktoken(r"[\s\S]+").encode_ordinary)

    def _tiktoken(self, pattern: str) -> tiktoken.Encoding:
        import tiktoken  # here, so that a program that only decodes never loads it

        ranks = {self.tokens[i]: i for i in (*self._byte_ids.values(), *self._new_ids.values())}
        return tiktoken.Encoding(self.name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=self.special)

    def _spell(self, piece: str) -> list[int]:
        return [self._byte_ids[byte] for byte in piece.encode()]

    def _encode(self, text: str, start: int = 0) -> list[int]:
        if self.pattern != SPLIT_PATTERN:  # tiktoken's engine knows other expressions than the one that trained
            return [i for piece in split_pieces(text, self.pattern) for i in self._encode_piece(piece)]
        import regex

        # tiktoken's regex engine panics on about a million characters of white space before a word. All but the last
        # of them are one piece anyway, so cutting the text there leaves every id as it is.
        cuts = [run.end() for run in regex.finditer(r"(?<!\s)\s{10000,}(?=\s\S)", text)]
        ids: list[int] = []
        for begin, end in pairwise([0, *cuts, len(text)]):
            ids += self.encoding.encode_ordinary(text[begin:end])
        return ids

    def _more(self) -> dict[str, Any]:
        return ({} if self.pattern == SPLIT_PATTERN else {"pattern": self.pattern}) | super()._more()

    def _with_more(self, more: dict[str, Any]) -> Tokenizer:
        tokenizer = self
        if "pattern" in more:
            tokenizer = BPETokenizer(self.merges, pattern=more["pattern"])
            more = {key: value for key, value in more.items() if key != "pattern"}
        return super(BPETokenizer, tokenizer)._with_more(more) if more else tokenizer

    def _lines(self) -> Iterable[str]:
        return format_merges(self.merges, self.tokens)

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer:
        merges = parse_merges(lines, bytes(range(256)), source)
        check_reachable(merges, source)
        return cls(merges)


@register
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


def check_pattern(pattern: str) -> str:
    """`pattern`, if text can be cut with it. TokenizerError for what is no regular expression."""
    import regex

    _check_text(pattern)
    try:
        matches_nothing = regex.compile(pattern).match("") is not None
    except (regex.error, RecursionError) as error:
        raise TokenizerError(f"split pattern {pattern!r:.80}: not a regular expression: {error}") from None
    if matches_nothing:
        raise TokenizerError(f"split pattern {pattern!r:.80}: matches an empty text: use + in place of *")
    return pattern


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts as they come; TokenizerError for what is none, and where nothing came."""
    empty = True
    for text in texts:
        _check_text(text)
        empty = empty and not text
        yield text
    if empty:
        raise TokenizerError("the text to train the tokenizer on is empty")
