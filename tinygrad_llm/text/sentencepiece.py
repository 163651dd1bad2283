"""BPE as SentencePiece does it, the tokenizer of Llama 2: characters, not bytes, are merged, and a space is a letter like others.

    tokenizer = read_tokenizer(folder)                 # weights/tokenizer_files.py: tokenizer.model, .json or .bin
    tokenizer.encode("the lid")                        # "▁the", "▁lid": spaces are written "▁", one more stands at the start

Each piece of the vocabulary has a score. Of all neighbours whose letters joined are a piece, the pair of the highest score is
merged, the leftmost of equals, until there is none. A character that is no piece becomes its bytes in UTF-8, for which there are
pieces too ("byte fallback"), or else the unknown piece (Kudo and Richardson 2018, https://arxiv.org/abs/1808.06226).
"""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from ..checks import is_integer
from ..errors import TokenizerError
from .tokenizers import Tokenizer, _check_text, register

SPACE = "▁"  # U+2581, which stands for a space; where it stands in a text itself, it comes back as a space
KINDS = ("normal", "unknown", "control", "user", "byte")  # control: a mark such as `<s>`; user: never cut, never merged
PREFIXES = ("always", "first", "never")
BYTE_PIECES = {f"<0x{byte:02X}>": byte for byte in range(256)}
_LONGEST = 256  # characters of a piece that is merged: SentencePiece learns 16 at most
_LONGEST_KEPT = 64  # characters of a stretch whose ids are kept


class Piece(NamedTuple):
    """An entry of the vocabulary; its id is its place in the list."""

    text: str  # with "▁" for each space; of a byte "<0x0A>"
    kind: str = "normal"  # one of KINDS
    score: float = 0.0


@register
class SentencePieceTokenizer(Tokenizer):
    """BPE on characters, with pieces and scores that were learned elsewhere.

    `encode` puts a space before the text (see `prefix`). `decode` takes ids for a text from its beginning and drops that space;
    `decode_stream` goes on from other text, and drops it after `bos_id` only. "▁" in a text comes back as a space.
    """

    name = "sentencepiece"

    def __init__(
        self,
        pieces: Sequence[Piece],
        merges: Sequence[tuple[str, str]] | None = None,
        *,
        bos: int | None = None,
        eos: int | None = None,
        prefix: str = "always",
        doubled: bool = True,
        squeezed: bool = False,
    ) -> None:
        """`bos` and `eos` are the ids of the marks around a text.

        merges     the pairs that may be merged, the first first; None: all that make a piece, by its score
        prefix     what a space is put before: "always" each stretch of text between special tokens, "first" only one at the
                   beginning of what `encode` is given, "never" none
        doubled    also where there is a space already
        squeezed   several spaces are one, and those at either end are dropped

        TokenizerError naming the piece for a vocabulary that cannot be.
        """
        self.pieces = _check_pieces(pieces)
        kinds = {kind: [i for i, piece in enumerate(self.pieces) if piece.kind == kind] for kind in KINDS}
        self._ids = {self.pieces[i].text: i for i in (*kinds["normal"], *kinds["user"])}
        self._byte_ids = sorted(kinds["byte"], key=lambda i: BYTE_PIECES[self.pieces[i].text])
        self.unknown = next((self.pieces[i].text for i in kinds["unknown"]), None)
        self.tokens = [
            bytes([BYTE_PIECES[piece.text]]) if piece.kind == "byte" else piece.text.replace(SPACE, " ").encode()
            for piece in self.pieces
        ]
        self.special = {self.pieces[i].text: i for i in sorted((*kinds["unknown"], *kinds["control"]))}
        for name, mark in (("bos", bos), ("eos", eos)):
            if mark is not None and mark not in kinds["control"]:
                raise TokenizerError(f"{name} is {mark!r:.40}: it must be the id of a control piece")
        self.bos_id, self.eot_id = bos, eos
        if prefix not in PREFIXES:
            raise TokenizerError(f"prefix is {prefix!r:.40}: it must be one of {', '.join(PREFIXES)}")
        for name, flag in (("doubled", doubled), ("squeezed", squeezed)):
            if not isinstance(flag, bool):
                raise TokenizerError(f"{name} is {flag!r:.40}: it must be True or False")
        self.prefix, self.doubled, self.squeezed = prefix, doubled, squeezed
        self.merges = None if merges is None else list(merges)
        self._ranks = self._rank_by_score() if self.merges is None else self._rank_in_order(self.merges)
        self._joints = {(left[-1], right[0]) for left, right in self._ranks}
        user = sorted((self.pieces[i].text for i in kinds["user"]), key=len, reverse=True)
        self._user = re.compile(f"({'|'.join(map(re.escape, user))})") if user else None
        self._kept = lru_cache(2**16)(self._encode_stretch)

    def encode_continuation(self, text: str) -> list[int]:
        _check_text(text)
        return self._encode_spaced(re.sub(" +", " ", text) if self.squeezed else text)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        ids = list(ids)
        text = super().decode(ids, errors)
        dropped = 0
        most = len(ids) if self.squeezed else int(self.prefix != "never")
        for i in ids[:most]:  # one space of each piece, up to the first other letter
            dropped += self.tokens[i].startswith(b" ")
            if self.tokens[i] != b" ":
                break
        return text[dropped:]

    def list_merges(self) -> list[tuple[str, str]]:
        """The pairs that may be merged, the first first; of equals, the vocabulary's first."""
        return sorted(
            self._ranks,
            key=lambda pair: (
                self._ranks[pair],
                self._ids[pair[0] + pair[1]],
                *(self._ids.get(half, -1) for half in pair),
            ),
        )

    def _pieces(self, ids: Iterable[int]) -> Iterator[bytes]:
        begins = False
        for position, i in enumerate(ids):
            piece = self._token(i, position)
            yield piece.removeprefix(b" ") if begins and self.prefix != "never" else piece
            begins = i == self.bos_id

    def _encode(self, text: str, start: int = 0) -> list[int]:
        if self.squeezed:
            text = re.sub(" +", " ", text.lstrip(" ")).rstrip(f" {SPACE}")
        if not text:
            return []
        prefixed = self.prefix == "always" or (self.prefix == "first" and start == 0)
        return self._encode_spaced(f" {text}" if prefixed and (self.doubled or text[0] not in f" {SPACE}") else text)

    def _encode_spaced(self, text: str) -> list[int]:
        """The ids of a text, cut first at the pieces that are never cut, then where no merge ever joins the letters."""
        ids: list[int] = []
        text = text.replace(" ", SPACE)
        for k, part in enumerate(self._user.split(text) if self._user else [text]):
            if k % 2:
                ids.append(self._ids[part])
                continue
            joints = enumerate(pairwise(part), start=1)
            cuts = [0, *(i for i, joint in joints if joint not in self._joints), len(part)]
            for begin, end in pairwise(cuts):
                ids += (self._kept if end - begin <= _LONGEST_KEPT else self._encode_stretch)(part[begin:end])
        if self.unknown is None or self._byte_ids:
            return ids
        unknown = self.special[self.unknown]  # once for all letters side by side
        return ids[:1] + [i for before, i in pairwise(ids) if not before == i == unknown]

    def _encode_stretch(self, text: str) -> list[int]:
        ids = []
        for piece in merge_ranked(list(text), self._ranks):
            if piece in self._ids:
                ids.append(self._ids[piece])
            elif self._byte_ids:
                ids += [self._byte_ids[byte] for byte in piece.encode()]
            elif self.unknown is not None:
                ids.append(self.special[self.unknown])
            else:
                raise TokenizerError(
                    f"{piece!r} (U+{ord(piece):04X}): this {self.name} tokenizer has no piece for it, and none for bytes"
                )
        return ids

    def _rank_by_score(self) -> dict[tuple[str, str], float]:
        """Every pair that joins to a piece, with minus its score. One letter may be a half though it is no piece."""
        return {
            (text[:k], text[k:]): -score
            for text, kind, score in self.pieces
            if kind == "normal"
            for k in range(1, len(text))
            if (k == 1 or text[:k] in self._ids) and (k == len(text) - 1 or text[k:] in self._ids)
        }

    def _rank_in_order(self, merges: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        ranks: dict[tuple[str, str], float] = {}
        for number, (left, right) in enumerate(merges):
            for text in (left, right, left + right):
                if not text or text not in self._ids:
                    raise TokenizerError(f"merge {number}: {text!r:.80} is no piece of text")
            if (left, right) in ranks:
                raise TokenizerError(
                    f"merge {number}: {left!r:.80} and {right!r:.80} are merged by an earlier one already"
                )
            ranks[left, right] = number
        return ranks

    def _lines(self) -> Iterable[str]:
        settings: dict[str, Any] = {"bos": self.bos_id, "eos": self.eot_id}
        settings |= {"prefix": self.prefix, "doubled": self.doubled, "squeezed": self.squeezed}
        settings |= {} if self.merges is None else {"merges": len(self.merges)}
        return map(json.dumps, [settings, *(self.merges or ()), *self.pieces])

    @classmethod
    def _from_lines(cls, lines: Sequence[str], source: str) -> Tokenizer:
        rows: list[Any] = []
        for number, line in enumerate(lines, start=2):
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError):
                raise TokenizerError(f"{source}: line {number}: {line[:80]!r} is not JSON") from None
        settings = rows[0] if rows and isinstance(rows[0], dict) else {}
        n = settings.pop("merges", None)
        if settings.keys() != {"bos", "eos", "prefix", "doubled", "squeezed"} or not (n is None or is_integer(n)):
            raise TokenizerError(
                f"{source}: line 2: {lines[:1]!r:.80} should be the settings of a sentencepiece tokenizer"
            )
        n_merges = max(0, n or 0)
        for kind, length, part in (("merge", 2, rows[1 : n_merges + 1]), ("piece", 3, rows[n_merges + 1 :])):
            first = 3 if kind == "merge" else n_merges + 3
            for number, row in enumerate(part, start=first):
                if not isinstance(row, list) or len(row) != length or not all(isinstance(x, str) for x in row[:2]):
                    raise TokenizerError(f"{source}: line {number}: {lines[number - 2][:80]!r} is not a {kind}")
        merges = None if n is None else [(left, right) for left, right in rows[1 : n_merges + 1]]
        try:
            return cls([Piece(*row) for row in rows[n_merges + 1 :]], merges, **settings)
        except TokenizerError as error:
            raise TokenizerError(f"{source}: {error}") from None


def merge_ranked(symbols: list[str], ranks: Mapping[tuple[str, str], float]) -> list[str]:
    """Merge neighbours, in place, the pair of the lowest rank first and the leftmost of equals, until no pair has a rank.

    A heap holds the pairs that are to be merged, so n symbols take n log n steps; a pair of which a half has been merged with
    another one by then is passed over.
    """
    after = [*range(1, len(symbols) + 1)]  # where the next symbol stands; what was merged into the one before it is ""
    before = [*range(-1, len(symbols))]
    heap = [(ranks[pair], i, pair) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        _, i, (left, right) = heapq.heappop(heap)
        j = after[i]
        if symbols[i] != left or j == len(symbols) or symbols[j] != right:
            continue
        symbols[i], symbols[j] = left + right, ""
        after[i], before[after[j]] = after[j], i
        for k in (before[i], i):
            if k >= 0 and after[k] < len(symbols):
                pair = symbols[k], symbols[after[k]]
                if pair in ranks:
                    heapq.heappush(heap, (ranks[pair], k, pair))
    return [symbol for symbol in symbols if symbol]


def _check_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """TokenizerError naming the piece that cannot be, or that is there twice."""
    owners: dict[str, int] = {}
    checked: list[Piece] = []
    for i, piece in enumerate(pieces):
        text, kind, score = piece
        if kind not in KINDS:
            raise TokenizerError(f"piece {i}: its kind is {kind!r:.40}: it must be one of {', '.join(KINDS)}")
        try:
            _check_text(text)
        except TokenizerError as error:
            raise TokenizerError(f"piece {i}: {error}") from None
        if not text or (kind == "normal" and len(text) > _LONGEST):
            raise TokenizerError(f"piece {i}: has {len(text):,} characters: it must have 1 to {_LONGEST}")
        if kind == "byte" and text not in BYTE_PIECES:
            raise TokenizerError(f"piece {i}: {text!r:.80} is no byte: they are <0x00> to <0xFF>")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise TokenizerError(f"piece {i}: {text!r:.80} has the score {score!r:.40}: it must be a finite number")
        if owners.setdefault(text, i) != i:
            raise TokenizerError(f"piece {i}: {text!r:.80} is piece {owners[text]} already")
        checked.append(Piece(text, kind, score))
    unknown = [i for i, piece in enumerate(checked) if piece.kind == "unknown"]
    if len(unknown) > 1:
        raise TokenizerError(f"piece {unknown[1]}: a second unknown piece, after piece {unknown[0]}")
    missing = [text for text in BYTE_PIECES if text not in owners or checked[owners[text]].kind != "byte"]
    if 0 < len(missing) < 256:
        raise TokenizerError(f"no piece is {missing[0]}: there must be one for each of the 256 bytes, or for none")
    return checked
