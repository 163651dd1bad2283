"""Tokens as they lie in a text, for the terminal: each on a colour of its own, its id below.

    print(show_tokens(["Hello", ",", " world"], [15496, 11, 995], width=40, color=True))

Nothing of the text reaches the terminal as a command: what does not print is written as an escape ("\\n", "\\x1b"), a
space as "·", and bytes that are not whole characters as "\\xf0".
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from itertools import cycle
from typing import Any, TextIO

_BACKGROUNDS = (151, 153, 223, 183, 224)  # of the 256-colour palette: light, and no two neighbours alike
_SHADES = (231, 189, 153, 117, 75)  # white to blue
_RESET = "\x1b[0m"


def wants_color(stream: TextIO) -> bool:
    """Whether to write colours to a stream: a terminal that knows them, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def visible(token: str | bytes) -> str:
    """A token in characters that print: b"\\n \\xf0" -> "\\\\n·\\\\xf0"."""
    if isinstance(token, bytes):
        token = token.decode("utf-8", "backslashreplace")
    return "".join(
        "·" if letter == " " else letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in token
    )


def show_tokens(
    tokens: Sequence[str | bytes],
    below: Sequence[int | str],
    width: int = 80,
    color: bool = False,
    backgrounds: Sequence[int] = _BACKGROUNDS,
) -> str:
    """Rows of tokens and, below them, rows of their ids or of what else is said of each, up to `width` columns wide.

    `backgrounds` are numbers of the 256-colour palette, for one token after the other; "|" parts what has no colour.
    """
    rows: list[str] = []
    top = bottom = ""
    used = 0
    colors = cycle(backgrounds)
    for token, i in zip(tokens, below, strict=True):
        word, number = visible(token), str(i)
        columns = max(_columns(word), len(number))
        if used and used + columns + 1 > width:
            rows += [top, bottom]
            top, bottom, used = "", "", 0
        word += " " * (columns - _columns(word))
        top += f"\x1b[30;48;5;{next(colors)}m{word}{_RESET} " if color else word + "|"
        bottom += number.ljust(columns + 1)
        used += columns + 1
    rows += [top, bottom] if used else []
    return "\n".join(row.rstrip(" ") for row in rows)


def show_table(rows: Sequence[str], columns: Sequence[str], shares: Any, color: bool = False) -> str:
    """Shares from 0 to 1 (rows, columns) in hundredths, with the names of the rows before them and those of the columns above;
    none where it is less than half a hundredth. In colour, the larger a share, the darker it stands.
    """
    wide = max(map(_columns, rows))
    widths = [max(2, _columns(name)) for name in columns]
    lines = [" " * wide + "  " + "  ".join(_filled(name, n) for name, n in zip(columns, widths, strict=True)).rstrip()]
    for name, row in zip(rows, shares, strict=True):
        cells = []
        for share, n in zip(row, widths, strict=True):
            cell = f"{100 * share:.0f}".replace("nan", "?").rjust(n) if share >= 0.005 else " " * n
            shade = _SHADES[min(len(_SHADES) - 1, int(share * len(_SHADES)))]
            cells.append(f"\x1b[30;48;5;{shade}m{cell}{_RESET}" if color and share >= 0.1 else cell)
        lines.append(f"{_filled(name, wide)}  {'  '.join(cells)}".rstrip())
    return "\n".join(lines)


def _filled(text: str, width: int) -> str:
    return text + " " * (width - _columns(text))


def _columns(text: str) -> int:
    """How wide a terminal shows a text: East Asian wide letters take two columns, combining marks none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
