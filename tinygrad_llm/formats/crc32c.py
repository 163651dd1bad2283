"""CRC-32C, the checksum of TensorFlow's files (RFC 3720, appendix B.4): the remainder of the data, taken as a polynomial over
{0, 1}, on division by the polynomial 0x1EDC6F41. The standard library has only the older CRC-32.

Division is linear, so long data is summed up before it is divided: it is cut into rows, and a row followed by n others weighs
as much as that row times x^(bits of a row) added to the next one. A product with a constant is two look-ups for each 32-bit
word. This takes about half a second for 500 MB; dividing byte by byte in Python would take a minute.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bits in reverse: the lowest bit of the first byte is the highest power of x
_ROW = 4096  # words of 32 bits


def crc32c(data: Any) -> int:
    """The checksum of bytes, or of an array of bytes: (n,), uint8."""
    data = memoryview(data)
    remainder = 0xFFFFFFFF
    bulk = len(data) // (4 * _ROW) * (4 * _ROW)
    if bulk:
        rows = np.frombuffer(data[:bulk], dtype="<u4").reshape(-1, _ROW)
        low, high = _times_a_row()
        total = rows[0].astype(np.uint32)
        total[0] ^= remainder
        for row in rows[1:]:
            product = low.take(total & 0xFFFF)
            product ^= high.take(total >> 16)
            np.bitwise_xor(product, row, out=total)
        remainder = _divide(0, total.astype("<u4").tobytes())
    return _divide(remainder, data[bulk:]) ^ 0xFFFFFFFF


def masked_crc32c(data: Any) -> int:
    """The form in which the files hold it, since data with its own checksum inside would have a checksum of no use."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _divide(remainder: int, data: Any) -> int:
    table = _bytes_table()
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ remainder >> 8
    return remainder


@cache
def _bytes_table() -> list[int]:
    """What each byte becomes, eight bits further on."""
    table = []
    for remainder in range(256):
        for _ in range(8):
            remainder = remainder >> 1 ^ _POLYNOMIAL * (remainder & 1)
        table.append(remainder)
    return table


@cache
def _times_a_row() -> np.ndarray:
    """(2, 65536): the products of the lower and the upper half of a word with x^(32 _ROW), to be added."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    products = np.array(_bytes_table(), np.uint32)[bits & 0xFF] ^ bits >> 8  # of each bit with x^8
    n_bytes = 1
    while n_bytes < 4 * _ROW:
        table = _sums(products)
        products = table[0][products & 0xFFFF] ^ table[1][products >> 16]  # the same step twice: with x^16, x^32, ...
        n_bytes *= 2
    return _sums(products)


def _sums(products: np.ndarray) -> np.ndarray:
    """(2, 65536): the sum of those of the 32 products whose bit is set in the index."""
    table = np.zeros((2, 1 << 16), np.uint32)
    for bit in range(16):
        n = 1 << bit
        table[:, n : 2 * n] = table[:, :n] ^ products[[bit, 16 + bit], None]
    return table
