"""Byte-pair encoding: how a tokenizer learns its vocabulary and how it uses it, in plain Python.

The idea (Sennrich, Haddow and Birch 2016, section 3.2; on bytes, Radford et al. 2019, section 2.2): begin with the 256
bytes as tokens, find the two neighbours that occur most often, make the pair a new token, and go on until there are as
many tokens as wished. The pairs in the order they were learned, the *merges*, are the whole result; text is encoded by
applying them again in that order.

    ids = list("aaabdaaabac".encode())             # [97, 97, 97, 98, 100, 97, 97, 97, 98, 97, 99]
    get_stats(ids)[97, 97]                         # 4: the most frequent pair
    merge(ids, (97, 97), 256)                      # [256, 97, 98, 100, 256, 97, 98, 97, 99]
    merges = train_bpe("aaabdaaabac", 3)           # [(97, 97), (97, 98), (256, 257)]
    apply_merges(ids, rank_merges(merges))         # [258, 100, 258, 97, 99]
    list(merge_steps(ids, rank_merges(merges)))    # the same, a merge at a time

Ties have a rule here, so that one text gives one vocabulary: the most frequent pair, and among equals the smallest pair
of ids. A pair that occurs once is never merged: that would shorten one place and no other.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice, pairwise

Pair = tuple[int, int]
_BORDER = -1  # no id: between two pieces, and where a merged token has left a hole

# GPT-2 never merges across the borders of words: text is first cut into contractions, words, numbers, punctuation (each
# with the space before it) and white space, whose last character stays with what follows. The form is tiktoken's: the
# same cuts as the pattern in OpenAI's encoder.py, with less going back on the way ("++" never gives back what it took).
SPLIT_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# GPT-4's (tiktoken's cl100k_base): contractions in capitals too, any sign before a word instead of a space, at most three
# digits, and line ends with the punctuation or the white space before them.
GPT4_SPLIT_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)


def split_pieces(text: str, pattern: str = SPLIT_PATTERN) -> list[str]:
    """Cut `text` into pieces, by default GPT-2's; joined again they are the text: "Hello, world" -> ["Hello", ",", " world"].

    `pattern` is a regular expression of the package `regex`; what lies between its matches is a piece too.
    """
    import regex  # re has no \p{L}; loaded with the first text, not with the package

    if pattern in (SPLIT_PATTERN, GPT4_SPLIT_PATTERN):  # they leave nothing out
        return regex.findall(pattern, text)
    pieces, end = [], 0
    for match in regex.finditer(pattern, text):
        pieces += [text[end : match.start()], match.group()]
        end = match.end()
    return [piece for piece in (*pieces, text[end:]) if piece]


def get_stats(ids: Sequence[int]) -> dict[Pair, int]:
    """Count each pair of neighbours: [1, 2, 3, 1, 2] -> {(1, 2): 2, (2, 3): 1, (3, 1): 1}."""
    return dict(Counter(pairwise(ids)))


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every `pair`, from left to right, by `new_id`: [1, 2, 3, 1, 2], (1, 2), 4 -> [4, 3, 4]."""
    left, right = pair
    merged = []
    i = 0
    while i < len(ids):
        if ids[i] == left and i + 1 < len(ids) and ids[i + 1] == right:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def rank_merges(merges: Iterable[Pair]) -> dict[Pair, int]:
    """The id that each pair becomes: the first merge makes token 256, the next 257."""
    return {pair: 256 + rank for rank, pair in enumerate(merges)}


def merge_steps(
    ids: Sequence[int], new_ids: Mapping[Pair, int], ranks: Mapping[Pair, int] | None = None
) -> Iterator[tuple[Pair, list[int]]]:
    """Each merge of one piece as it happens: the pair, and the ids after it. The pair that was learned first comes first.

    That is the one of the lowest rank; without `ranks`, the order of the new ids is the order of learning. For every merge
    this looks at the whole piece; tiktoken is faster and agrees.
    """
    ranks = new_ids if ranks is None else ranks
    merged = list(ids)
    while True:
        pair = min(pairwise(merged), key=lambda pair: ranks.get(pair, math.inf), default=(_BORDER, _BORDER))
        if pair not in ranks:
            return
        merged = merge(merged, pair, new_ids[pair])
        yield pair, merged


def apply_merges(ids: Sequence[int], new_ids: Mapping[Pair, int], ranks: Mapping[Pair, int] | None = None) -> list[int]:
    """Encode the byte ids of one piece: all of its `merge_steps`, and what they leave."""
    merged = list(ids)
    for _, after in merge_steps(ids, new_ids, ranks):
        merged = after
    return merged


def train_bpe_plain(text: str, n_merges: int, pattern: str = SPLIT_PATTERN) -> list[Pair]:
    """Learn up to `n_merges` merges, counting everything again for each: the definition that `train_bpe` must equal."""
    pieces = [list(piece.encode()) for piece in split_pieces(text, pattern)]
    merges: list[Pair] = []
    while len(merges) < n_merges:
        counts: Counter[Pair] = Counter()
        for ids in pieces:
            counts.update(get_stats(ids))
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] < 2:
            break
        pieces = [merge(ids, best, 256 + len(merges)) for ids in pieces]
        merges.append(best)
    return merges


def train_bpe(texts: str | Iterable[str], n_merges: int, pattern: str = SPLIT_PATTERN) -> list[Pair]:
    """Learn up to `n_merges` merges, fewer if no pair is left that occurs twice; merge k (from 0) makes token 256 + k.

    Of several texts, each is read once and need not be kept: only the distinct pieces are. No piece spans two of them.
    """
    pieces: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        pieces.update(split_pieces(text, pattern))
    new_ids = count(256)
    rows = ((piece.encode(), n) for piece, n in pieces.items())
    return list(islice(merge_most_frequent(rows, lambda pair: next(new_ids)), n_merges))


def merge_most_frequent(pieces: Iterable[tuple[Sequence[int], int]], joined: Callable[[Pair], int]) -> Iterator[Pair]:
    """The merges as they are learned: the pair that occurs most often, of equals the smallest, as long as one occurs twice.

    `pieces` are ids, each with the number of its occurrences; `joined(pair)` is the id that the pair becomes, a new one or one
    that stands for the same letters.

    A merge changes the counts of its neighbours only, so only those are counted again. Each distinct piece is stored
    once, with its number of occurrences, in one long row of ids where every token knows its left and right neighbour.
    A merge shortens the row, so the number of merge steps is bounded by its length, whatever the text looks like.
    """
    ids, weights = [_BORDER], [0]
    for piece, n in pieces:
        ids += [*piece, _BORDER]
        weights += [n] * (len(piece) + 1)
    left = array("q", range(-1, len(ids) - 1))
    right = array("q", range(1, len(ids) + 1))

    counts: dict[Pair, int] = defaultdict(int)
    places: dict[Pair, list[int]] = defaultdict(list)  # where the first id of a pair stands, or stood

    def tally(i: int, j: int, sign: int) -> Pair:
        pair = ids[i], ids[j]
        if _BORDER not in pair:
            counts[pair] += sign * weights[i]
            if sign > 0:
                places[pair].append(i)
        return pair

    for i in range(len(ids) - 1):
        tally(i, i + 1, +1)

    # A count only falls after its pair was pushed: both ids exist, and a merge makes none but its own, whose pairs are pushed
    # with their new counts. So no pair lacks an entry as large as its count, and a larger one goes back with the true count.
    heap = [(-n, pair) for pair, n in counts.items()]
    heapq.heapify(heap)
    while heap:
        negative_count, pair = heapq.heappop(heap)
        if counts[pair] != -negative_count:
            heapq.heappush(heap, (-counts[pair], pair))
            continue
        if counts[pair] < 2:
            break
        new_id = joined(pair)
        yield pair
        new_pairs: set[Pair] = set()
        for i in sorted(places.pop(pair)):  # from left to right, as in merge(): "aaa" is [aa, a]
            j = right[i]
            if (ids[i], ids[j]) != pair:  # one of the two has been merged with its other neighbour
                continue
            before, after = left[i], right[j]  # before, i, j, after  ->  before, i, after
            tally(before, i, -1)
            tally(j, after, -1)
            ids[i], ids[j] = new_id, _BORDER
            right[i], left[after] = after, i
            new_pairs |= {tally(before, i, +1), tally(i, after, +1)}
        del counts[pair]
        for new_pair in new_pairs & counts.keys():
            heapq.heappush(heap, (-counts[new_pair], new_pair))
