"""A person at the terminal: lines as they are typed, and texts of models without what would steer the terminal."""

from __future__ import annotations

import sys


def read_line(prompt: str = "> ") -> str | None:
    """The next line, asked for where someone types; None at the end."""
    try:
        if sys.stdin.isatty():
            return input(prompt)
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    except EOFError:
        return None


def printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
