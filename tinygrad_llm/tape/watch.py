"""Notice a write into an array that the tape has saved: a silent one would make a wrong gradient.

Results on the tape are read-only. Arrays from outside, such as weights and inputs, must stay writable; of those a fingerprint is
taken when they are saved, and compared when they are used. Who makes them read-only meanwhile needs no fingerprint.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def mark(saved: tuple, given: Sequence[Any]) -> Sequence[tuple[int, int]]:
    """(position, fingerprint) of every saved array that is one of the given ones, or a view of one, and can be written to."""
    marks: list[tuple[int, int]] = []
    for i, array in enumerate(saved):
        if isinstance(array, np.ndarray) and array.flags.writeable:
            base = array if array.base is None else array.base
            for x in given:
                if array is x or base is x:
                    marks.append((i, fingerprint(array)))
                    break
    return marks


def fingerprint(array: np.ndarray) -> int:
    """A number that changes when the array is written to: the hash of its bytes, or of column sums where it is large."""
    if array.nbytes <= 4096:
        return hash(array.tobytes())
    flat = array.ravel(order="K")
    words = flat.view(f"u{min(flat.itemsize, 8)}")
    rows = words.size // 1021  # a prime: values that change places change columns
    columns = np.add.reduce(words[: rows * 1021].reshape(rows, 1021), axis=0, dtype=words.dtype)
    return hash(columns.tobytes() + words[rows * 1021 :].tobytes())
