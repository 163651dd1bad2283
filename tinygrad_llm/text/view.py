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
from typing import TextIO

_BACKGROUNDS = (151, 153, 223, 183, 224)  # of the 256-colour palette: light, and no two neighbours alike
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


def _columns(text: str) -> int:
    """How wide a terminal shows a text: East Asian wide letters take two columns, combining marks none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
