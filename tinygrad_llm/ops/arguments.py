"""What attention and cross-entropy are given: checked, and cut into the pieces that their maths runs over.

Nothing here is differentiated, and a debugger that goes from line to line of the maths passes through this file.

Letters in shape comments are those of scaled_dot_product.py and of loss.py.
"""

import math
from typing import NamedTuple

import numpy as np

from ..checks import check_number
from ..errors import ConfigError, DataError, DTypeError, ShapeError
from .regularization import kept, scale_of

REDUCTIONS = ("mean", "sum", "none")
_QUERIES = (64, 128)  # least and most queries in a block: longer ones waste more on scores that the mask hides
_SCORES = 2**18  # scores in a block of heads: about what the cache of one core holds


def check_targets(shape: tuple[int, ...], targets, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The targets as a flat array in which ignored ones are 0, and which of them count (both (N,))."""
    targets = np.asarray(targets)
    if targets.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: targets are {targets.dtype}, they must be integers: use targets.astype(np.int64)"
        )
    if len(shape) == 0 or targets.shape != shape[:-1]:
        raise ShapeError(
            f"cross_entropy: logits are {shape}, targets are {targets.shape}: targets must be {shape[:-1]}"
        )
    counted = targets != ignore_index
    wrong = counted & ((targets < 0) | (targets >= shape[-1]))
    if wrong.any():
        position = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"cross_entropy: target {targets[position]} at position {position} is out of range: "
            f"targets go from 0 to {shape[-1] - 1}, or are ignore_index {ignore_index}"
        )
    return np.where(counted, targets, 0).reshape(-1), counted.reshape(-1)


def check_options(label_smoothing, reduction):
    """Refuse what cross-entropy does not know."""
    if reduction not in REDUCTIONS:
        raise ConfigError(f"cross_entropy: reduction is {reduction!r}: use 'mean', 'sum' or 'none'")
    check_number("cross_entropy: label_smoothing", label_smoothing, most=1)


def check_heads(q, k, v, n_heads: int, n_kv_heads: int | None) -> int:
    """How many query heads share a key head, or an error that names the shapes."""
    n_kv_heads = n_kv_heads or n_heads
    if n_heads < 1 or n_heads % n_kv_heads or q.shape[-1] % n_heads:
        raise ConfigError(
            f"attention: {q.shape[-1]} features in {n_heads} heads with {n_kv_heads} key heads: "
            "heads must divide the features, and key heads the heads"
        )
    width = q.shape[-1] // n_heads * n_kv_heads
    if q.ndim != 3 or k.shape != v.shape or k.ndim != 3 or (len(k), k.shape[2]) != (len(q), width):
        raise ShapeError(
            f"attention: q is {q.shape}, k is {k.shape}, v is {v.shape}: they must be (B, T, {q.shape[-1]}) "
            f"and twice (B, S, {width})"
        )
    return n_heads // n_kv_heads


def split_heads(x, n_heads, group=1):
    """(B, T, H d) -> (B H, T, d), contiguous: products of strided views take twice as long; each head `group` times."""
    b, t, c = x.shape
    x = x.reshape(b, t, n_heads, c // n_heads).transpose(0, 2, 1, 3)  # (B, H, T, d)
    return x.repeat(group, axis=1).reshape(-1, t, c // n_heads) if group > 1 else x.reshape(-1, t, c // n_heads).copy()


def split_all(q, k, v, n_heads, group):
    """Queries (N, T, d), and for each its keys and values, (N, S, d)."""
    return split_heads(q, n_heads), split_heads(k, n_heads // group, group), split_heads(v, n_heads // group, group)


def merge_heads(x, b, group=1):
    """(B H, T, d) -> (B, T, H d); of each `group` heads the sum."""
    n, t, d = x.shape
    x = x.reshape(b, -1, group, t, d).sum(2) if group > 1 else x.reshape(b, -1, t, d)  # (B, H, T, d)
    return x.transpose(0, 2, 1, 3).reshape(b, t, n // b // group * d)


class Hidden(NamedTuple):
    """What keeps a query from a key."""

    causal: bool
    mask: np.ndarray | None  # (N, T, S), False where hidden
    drop_rate: float
    seed: int  # of the weights that are dropped

    def hide(self, scores, h, i):
        """-inf into the scores (n, s, t) of the heads h and queries i where a key is hidden."""
        if self.causal:
            corner = scores[:, -scores.shape[2] :]  # elsewhere these queries see all of these keys
            corner += np.tril(np.full(corner.shape[1:], -math.inf, scores.dtype), scores.shape[2] - corner.shape[1] - 1)
        if self.mask is not None:
            scores[~self.mask[h, i, : scores.shape[1]].swapaxes(-1, -2)] = -math.inf

    def keep(self, shape, dtype, h, i):
        """keep / (1 - p) of a block: drawn anew in the backward from the same seed instead of being saved."""
        stream = np.random.SFC64([self.seed, h.start, i.start])
        return kept(shape, self.drop_rate, stream) * dtype.type(scale_of(self.drop_rate))


def hidden_keys(causal, mask, drop_rate, rng, shape):
    """The Hidden of a call, for scores of this shape (B, H, T, S); draws the seed of what is dropped."""
    if drop_rate:
        drop_rate = check_number("attention: drop_rate", drop_rate, most=1)
    if mask is not None:
        mask = np.broadcast_to(mask, shape).reshape(-1, *shape[2:])  # (N, T, S)
    return Hidden(causal, mask, drop_rate, int(rng.integers(2**63)) if drop_rate else 0)


def head_blocks(queries, keys):
    """Slices of heads, each with no more scores at a time than the cache holds."""
    heads = max(1, _SCORES // max(1, _block(queries.shape[1]) * keys.shape[1]))
    starts = range(0, len(queries), heads)
    return list(map(slice, starts, [*starts[1:], len(queries)]))


def query_blocks(queries, keys, causal):
    """A slice of queries, and how many keys the last of them sees."""
    t, n_keys = queries.shape[1], keys.shape[1]
    for i in range(0, t, _block(t)):
        last = min(i + _block(t), t)
        yield slice(i, last), max(0, n_keys - t + last) if causal else n_keys


def _block(t):
    return max(_QUERIES[0], min(t // 8, _QUERIES[1]))


def dropout_pattern(q, k, n_heads, causal, drop_rate, seed):
    """keep / (1 - p) of all blocks together, (B, H, T, S): what the twin needs to drop the same weights."""
    hidden = Hidden(causal, None, drop_rate, seed)
    queries, keys = split_heads(q, n_heads), k.repeat(n_heads, axis=0)  # of keys only the shape (N, S) counts
    pattern = np.zeros((len(queries), q.shape[1], k.shape[1]), q.dtype)
    for h in head_blocks(queries, keys):
        for i, end in query_blocks(queries, keys, causal):
            shape = h.stop - h.start, end, i.stop - i.start
            pattern[h, i, :end] = hidden.keep(shape, q.dtype, h, i).swapaxes(-1, -2)
    return pattern.reshape(len(q), n_heads, *pattern.shape[1:])
