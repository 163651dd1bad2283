"""An array as a small picture: a byte for each cell, which pages and notebooks turn into colours.

code 0 NaN, 1 -Inf, 2 +Inf; from 3 to 255 a value: 129 is 0, and 126 steps to either side reach the largest magnitude m, as
value = ±m (steps/126)². The square root gives small values more of the colours than large ones.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np

from ..tape.display import norm

_NAN, _ZERO, _STEPS = 0, 129, 126
_SIDE = 128  # cells in a row or a column at most
_WRITTEN = 16  # arrays of up to this many elements come with their values

# red, green, blue
NEGATIVE, POSITIVE, NOT_A_NUMBER, INFINITE = (37, 99, 235), (234, 88, 12), (217, 70, 239), (5, 150, 105)


@np.errstate(all="ignore")
def picture(array: np.ndarray, most: int = 4096) -> dict[str, Any]:
    """What a page needs to show an array, fit for JSON: at most `most` cells, and figures of the whole array.

    `cells` are bytes in base64, row by row, of `rows` x `cols`; `min`, `max` and `mean` are of the finite values, counted
    `nan` and `inf` are the others; `norm` is Euclidean. Up to 16 elements come as `values`, row by row.
    """
    found: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.size == 0:
        return found
    finite = np.isfinite(array)
    n_nan = 0 if finite.all() else int(np.isnan(array).sum())
    n_finite = int(finite.sum())
    values = array if n_finite == array.size else array[finite]
    if n_finite:
        largest = max(abs(float(values.min())), abs(float(values.max())))
        found |= {"min": number(values.min()), "max": number(values.max())}
        found["mean"] = number(values.mean(dtype=np.float64))
    else:
        largest = 0.0
    found |= {"nan": n_nan, "inf": array.size - n_finite - n_nan, "norm": number(norm(array)), "scale": number(largest)}
    if array.size <= _WRITTEN:
        found["values"] = [number(value) for value in array.reshape(-1)]
    if most:
        cells = fold(array, most)
        found |= {"rows": len(cells), "cols": cells.shape[1]}
        found["cells"] = base64.b64encode(encode(cells, largest).tobytes()).decode()
    return found


def fold(array: np.ndarray, most: int = 4096) -> np.ndarray:
    """The array as rows of its last axis, in at most `most` cells: of each block of elements the one of largest magnitude.

    Cell k of K begins at element k n // K. NaN comes before Inf, and Inf before any number.
    """
    x = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    rows = min(len(x), math.isqrt(most), _SIDE)
    cols = min(x.shape[1], most // rows, _SIDE)
    rows = min(len(x), most // cols, _SIDE)
    down, across = np.arange(rows) * len(x) // rows, np.arange(cols) * x.shape[1] // cols
    with np.errstate(invalid="ignore"):
        low, high = (
            f.reduceat(f.reduceat(x, down, axis=0), across, axis=1).astype(np.float64) for f in (np.minimum, np.maximum)
        )
        return np.where(np.abs(low) > np.abs(high), low, high)


def encode(values: np.ndarray, largest: float) -> np.ndarray:
    """The code of each value."""
    with np.errstate(all="ignore"):
        share = np.abs(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)) / (largest or 1.0)
        codes = _ZERO + np.sign(np.nan_to_num(values)) * np.rint(_STEPS * np.sqrt(share))
    codes[np.isnan(values)] = _NAN
    codes[values == -np.inf] = 1
    codes[values == np.inf] = 2
    return codes.astype(np.uint8)


def png(array: np.ndarray, most: int = 4096) -> str:
    """The same picture as a `data:` address, for where no script runs. The background shines through where values are near 0."""
    cells = fold(array, most)
    finite = cells[np.isfinite(cells)]
    codes = encode(cells, float(np.abs(finite).max(initial=0)))
    palette = np.zeros((256, 3), np.uint8)
    palette[0], palette[1:3], palette[3:_ZERO], palette[_ZERO:] = NOT_A_NUMBER, INFINITE, NEGATIVE, POSITIVE
    opacity = np.abs(np.arange(256) - _ZERO) * 255 // _STEPS
    opacity[:3] = 255
    lines = np.concatenate([np.zeros((len(codes), 1), np.uint8), codes], axis=1)  # each begins with its filter: none
    header = struct.pack(">IIBBBBB", codes.shape[1], codes.shape[0], 8, 3, 0, 0, 0)  # 8 bits, from a palette
    parts = [
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"tRNS", opacity.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(lines.tobytes())),
        (b"IEND", b""),
    ]
    image = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return "data:image/png;base64," + base64.b64encode(image).decode()


def number(x: Any) -> float | str:
    """To six digits; NaN and infinities, which JSON lacks, in words."""
    x = float(x)
    return float(f"{x:.6g}") if math.isfinite(x) else "NaN" if math.isnan(x) else "Inf" if x > 0 else "-Inf"
