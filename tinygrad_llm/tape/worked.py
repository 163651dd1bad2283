"""An equation with numbers put in for its letters: `g y` becomes `1 * 4`. Text alone: nothing is computed here."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BETWEEN = re.compile(r"[,;]  ")  # two equations
_EQUATION = re.compile(r"d(\w+) = (.+?)(?: = .*|[,;] .*)?$")  # of an input, without a second form and without remarks
_TOKEN = re.compile(r"(\s*)(\d+\.?\d*|[^\W\d²³][^\W²³]*'?|<=|>=|[-+*/^()\[\]<>√²³])")
_FUNCTIONS = ("cos", "log", "sign", "sin")


def equations(formula: str) -> list[tuple[str, str, str]]:
    """The equations of a formula: of which input, its right side, and the whole; both are empty where it is of none."""
    found = []
    for text in _BETWEEN.split(formula):
        equation = _EQUATION.match(text)
        found.append((equation[1], equation[2], text) if equation else ("", "", text))
    return found


def letters(side: str) -> set[str]:
    """The words and letters of a right side."""
    return {token for _, token in _TOKEN.findall(side) if token[0].isalpha()}


def substitute(side: str, numbers: Mapping[str, float]) -> str | None:
    """The right side with numbers for all its letters, and `*` where these stood side by side; None where one is not known."""
    text, position, multiplied = "", 0, False
    while position < len(side.rstrip()):
        found = _TOKEN.match(side, position)
        if found is None:
            return None
        space, token = found.groups()
        position = found.end()
        power = side[position : position + 1] in ("^", "²", "³")
        function = token in _FUNCTIONS or token == "√"
        operand = (token[0].isalnum() and token not in "²³") or token in "([√"
        if token in numbers:
            token = shown = f"{numbers[token]:.4g}"
            if shown.startswith("-") and (text or power):
                token = f"({shown})"
        elif token[0].isalpha() and not (function or token == "π" or (token == "e" and power)):
            return None
        text += (" * " if multiplied and operand else space) + token
        multiplied = (operand or token in ")]²³") and not function and token not in "(["
    return text
