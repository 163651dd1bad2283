"""Files of texts with their labels, as people have them, down to one value of each column for each row.

What a file is, is found from what stands in it: CSV with commas, semicolons or bars, TSV, JSON lines, a JSON array, or the form
of the SMS Spam Collection (Almeida and Gómez Hidalgo 2011): a label, a tab and a text, without a header. CSV follows the rules of
Python's csv module, with quotes around what holds a delimiter; in TSV a quote is text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import did_you_mean, is_integer
from ..errors import ConfigError, DataError
from .data_files import decode, is_json, json_records, read_bytes
from .datasets import check_encoding

# in the order in which they are looked for; Kaggle's copy of the SMS collection has v1 and v2
TEXT_COLUMNS = ("text", "message", "sms", "content", "sentence", "review", "v2")
LABEL_COLUMNS = ("label", "class", "category", "target", "sentiment", "spam", "v1")
ID_COLUMN = "id"
MISSING = object()  # the value of a column that a row lacks

_DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}
_Named = str | int | None


@dataclass(frozen=True)
class Pairs:
    """Values as they stand in a file, a row each: `where` begins the message about a row, `column` names the label's column."""

    where: list[str]
    texts: list[Any]
    labels: list[Any]
    ids: list[Any]
    text_column: str
    label_column: str
    said: list[str]


def read_pairs(path: Path, text: _Named, label: _Named, delimiter: str | None, encoding: str | None) -> Pairs:
    """What stands in a file or in a folder of folders; DataError where that cannot be read or has no such columns."""
    for name, value in {"text": text, "label": label}.items():
        if value is not None and not isinstance(value, str) and not (is_integer(value) and value > 0):
            raise ConfigError(f"{name} is {value!r:.80}: it must be the name of a column, or its number, from 1")
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ConfigError(f"delimiter is {delimiter!r:.80}: it must be one character, such as ',' or '\\t'")
    if encoding is not None:
        check_encoding(encoding)
    if path.is_dir():
        return _read_folders(path, encoding)
    content, said = decode(path, read_bytes(path), encoding)
    if delimiter is None and is_json(content):
        return _read_json(path, content, text, label, said)
    return _read_table(path, content, text, label, delimiter, said)


# ---- folders


def _read_folders(path: Path, encoding: str | None) -> Pairs:
    """A class a folder, a text a file."""
    pairs = Pairs([], [], [], [], "text", "folder", [])
    encodings, n_others = set[str](), 0
    try:
        folders = sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
        for folder in folders:
            files = sorted(folder.iterdir())
            n_others += sum(file.suffix != ".txt" for file in files)
            for file in files:
                if file.suffix == ".txt":
                    content, said = decode(file, read_bytes(file), encoding)
                    encodings.update(re.findall(r"encoding (\S+?)(?:,|$)", said[0]))
                    pairs.where.append(str(file))
                    pairs.texts.append(content.rstrip("\n"))
                    pairs.labels.append(folder.name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not pairs.texts:
        raise DataError(f"{path}: no texts in it: a folder of texts has a folder for each class, and in it .txt files")
    pairs.said.extend(["a folder with a folder a class", f"encoding {', '.join(sorted(encodings))}"])
    if n_others:
        pairs.said.append(f"{n_others} files that do not end in .txt left out")
    return pairs


# ---- JSON


def _read_json(path: Path, content: str, text: _Named, label: _Named, said: list[str]) -> Pairs:
    """Objects, a line each or all in one array."""
    rows = json_records(path, content, "a text and a label", said)
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    at_text, at_label = _find_both(path, names, text, label)
    at_id = next((name for name in names if name.casefold() == ID_COLUMN), None)
    said.append(f"columns {_listed(names)}: text from {names[at_text]!r}, label from {names[at_label]!r}")
    return Pairs(
        [f"{path}: {where}" for where, _ in rows],
        [row.get(names[at_text], MISSING) for _, row in rows],
        [row.get(names[at_label], MISSING) for _, row in rows],
        [] if at_id is None else [row.get(at_id) for _, row in rows],
        names[at_text],
        names[at_label],
        said,
    )


# ---- tables


def _read_table(path: Path, content: str, text: _Named, label: _Named, delimiter: str | None, said: list[str]) -> Pairs:
    if delimiter is None:
        delimiter = _find_delimiter(content, text, label)
        if delimiter is None:
            first = content.lstrip("\n").split("\n", 1)[0]
            raise DataError(
                f"{path}: its first line, {first!r:.60}, has no tab, comma, semicolon or bar: a table with a header, JSON lines, "
                "or a folder with a folder for each class is needed"
            )
    rows = [(i, cells) for i, cells in _split(path, content, delimiter) if any(map(str.strip, cells))]
    names, at_text, at_label = _find_columns(path, [cells for _, cells in rows], text, label, delimiter)
    kind = "TSV" if delimiter == "\t" else "CSV"
    said.insert(0, f"{kind} with a {_DELIMITERS.get(delimiter, repr(delimiter))} between columns")
    if delimiter == "\t" and '"' in content:
        said.append("quotes are text")
    if names is None:
        n_columns, at_id = len(rows[0][1]), None
        said.append(f"no header: label in column {at_label + 1}, text in column {at_text + 1}")
        columns = [f"{i + 1}" for i in range(n_columns)]
    else:
        columns, rows = names, rows[1:]
        n_columns = len(names)
        at_id = next((i for i, name in enumerate(names) if name.casefold() == ID_COLUMN), None)
        said.append(f"columns {_listed(names)}: text from {names[at_text]!r}, label from {names[at_label]!r}")
    for i, cells in rows:
        if len(cells) > n_columns:
            raise DataError(
                f"{path}: row {i} has {len(cells)} columns, and there are {n_columns}: "
                + ("a tab within a text?" if delimiter == "\t" else f"put quotes around what holds a {delimiter!r}")
            )
    columns_of = [[*cells, *[MISSING] * (n_columns - len(cells))] for _, cells in rows]
    return Pairs(
        [f"{path}: row {i}" for i, _ in rows],
        [cells[at_text] for cells in columns_of],
        [cells[at_label] for cells in columns_of],
        [] if at_id is None else [cells[at_id] for cells in columns_of],
        columns[at_text],
        columns[at_label],
        said,
    )


def _split(path: Path | str, content: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows, counted from 1 as a spreadsheet counts them."""
    if delimiter == "\t":
        # at \n alone: str.splitlines would also cut at marks that stand within texts
        yield from ((i, line.split("\t")) for i, line in enumerate(content.removesuffix("\n").split("\n"), 1))
        return
    i = 0
    try:
        for i, cells in enumerate(csv.reader(io.StringIO(content), delimiter=delimiter, strict=True), 1):
            yield i, cells
    except csv.Error as error:
        raise DataError(f"{path}: row {i + 1}: not CSV: {error}: is there a quote too few or too many?") from None


def _find_delimiter(content: str, text: _Named, label: _Named) -> str | None:
    """The one by which the first row has the columns; else the one by which it has most, and more than one."""
    most: tuple[int, str | None] = (1, None)
    for delimiter in _DELIMITERS:
        try:
            first = next((cells for _, cells in _split("", content, delimiter) if any(map(str.strip, cells))), [])
        except DataError:
            continue
        names = [name.strip() for name in first]
        if len(names) > 1 and None not in (_find(names, text, TEXT_COLUMNS), _find(names, label, LABEL_COLUMNS)):
            return delimiter
        if len(names) > most[0]:
            most = len(names), delimiter
        if delimiter == "\t" and len(names) == 2:  # commas in a text say nothing
            return delimiter
    return most[1]


def _find_columns(
    path: Path, rows: Sequence[Sequence[str]], text: _Named, label: _Named, delimiter: str
) -> tuple[list[str] | None, int, int]:
    """The header, if there is one, and the places of text and label."""
    names = [name.strip() for name in rows[0]]
    by_number = _is_number(text, names) and _is_number(label, names)
    if by_number:
        at_text, at_label = _find_both(path, names, text, label)
    else:
        found = _find(names, text, TEXT_COLUMNS), _find(names, label, LABEL_COLUMNS)
        plain = text is None and label is None and delimiter == "\t" and len(names) == 2 and None in found
        at_text, at_label = (1, 0) if plain else (-1, -1)
    if at_text >= 0:  # a header is no label, so what stands there does not come again
        labels = {cells[at_label] for cells in rows[1:] if len(cells) > at_label}
        if rows[0][at_label] in labels:
            return None, at_text, at_label
    return (names, *_find_both(path, names, text, label))


def _is_number(named: _Named, names: Sequence[str]) -> bool:
    return is_integer(named) or (isinstance(named, str) and named.isdecimal() and named not in names)


def _find_both(path: Path, names: list[str], text: _Named, label: _Named) -> tuple[int, int]:
    at = []
    for what, named, usual in (("text", text, TEXT_COLUMNS), ("label", label, LABEL_COLUMNS)):
        found = _find(names, named, usual)
        if found is None:
            if named is None:
                problem = f"no column of its header is known for a {what}: name one ({what}=, --{what})"
            else:
                problem = f"no column {named!r:.80}{did_you_mean(str(named), names)} for the {what}"
            raise DataError(f"{path}: {problem}; there are {_listed(names)}")
        if names.count(names[found]) > 1:
            raise DataError(f"{path}: two columns are called {names[found]!r:.80}: rename one")
        at.append(found)
    if at[0] == at[1]:
        raise ConfigError(f"{path}: column {names[at[0]]!r:.80} cannot be text and label at once")
    return at[0], at[1]


def _find(names: Sequence[str], named: _Named, usual: Sequence[str]) -> int | None:
    """The place of a column: by its name, by its number, or by a usual name."""
    if named is not None and _is_number(named, names):
        return int(named) - 1 if 0 < int(named) <= len(names) else None
    folded = [name.casefold() for name in names]
    if isinstance(named, str):
        if named.strip() in names:
            return names.index(named.strip())
        usual = [named.strip().casefold()]
    return next((folded.index(name) for name in usual if name in folded), None)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return ", ".join(f"{name!r:.40}" for name in names[:12]) + more
