"""Files of JSON records that come in several forms, told apart by their keys, as those of conversations and preferences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import DataError
from .data_files import decode, file_name, is_json, json_records, read_bytes
from .datasets import check_encoding

Row = TypeVar("Row")


class LeftOut(Exception):
    """Raised for a record that is well-formed and of no use here, with what such records do: "call tools"."""


@dataclass(frozen=True)
class Form(Generic[Row]):
    """One way to write a record. `read` takes it and its place, and gives what it holds and the keys in it that are not used."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[dict[str, Any], str], tuple[Row, list[str]]]
    optional: tuple[str, ...] = ()  # of the keys
    open: bool = False  # whether other keys than these are used as well

    def fits(self, record: dict[str, Any]) -> bool:
        return set(self.keys) - set(self.optional) <= record.keys()


@dataclass(frozen=True)
class Records(Generic[Row]):
    """What was read: the rows, their places in the file, lines about it, and the form that all had."""

    rows: list[Row]
    where: list[str]
    said: list[str]
    form: Form[Row]


def read_records(
    path: str | os.PathLike[str], encoding: str | None, forms: Sequence[Form[Row]], one: str, many: str
) -> Records[Row]:
    """The records of a JSON array, or of JSON lines, of the first of the `forms` whose keys the first record has.

    `one` and `many` are what a record is called: "a conversation", "conversations". DataError, with file, record and field.
    """
    path = file_name(path)
    if encoding is not None:
        check_encoding(encoding)
    content, said = decode(path, read_bytes(path), encoding)
    if not is_json(content):
        raise DataError(
            f"{path}: begins with {content.lstrip()[:40]!r}: {many} are a JSON array of objects, or JSON lines"
        )
    records = json_records(path, content, one, said)
    if not records:
        raise DataError(f"{path}: there are no records in it")
    form = _form_of(forms, records[0][1])
    if form is None:
        known = "; ".join(", ".join(known.keys) for known in forms)
        raise DataError(
            f"{path}: {records[0][0]} has the keys {listed(records[0][1])}: none of the forms that are known: {known}"
        )
    rows, where, unused, left_out = list[Row](), list[str](), dict[str, None](), dict[str, list[str]]()
    for place, record in records:
        here = f"{path}: {place}"
        missing = [key for key in form.keys if key not in record and key not in form.optional]
        if missing:
            other = _form_of(forms, record)
            if other is None:
                raise DataError(
                    f"{here}: {missing[0]!r} is missing: it has {listed(record)}: complete or drop the record"
                )
            raise DataError(
                f"{here}: it is of the form {other.name}, and {records[0][0]} is of {form.name}: put them in two files"
            )
        unused.update(dict.fromkeys(key for key in record if key not in form.keys and not form.open))
        try:
            row, not_used = form.read(record, here)
        except LeftOut as reason:
            left_out.setdefault(str(reason), []).append(place)
            continue
        unused.update(dict.fromkeys(not_used))
        rows.append(row)
        where.append(place)
    if not rows:
        raise DataError(f"{path}: all {len(records):,} {many} {' or '.join(left_out)}: there is nothing to learn from")
    said.append(f"{form.name}: {', '.join(key for key in form.keys if any(key in record for _, record in records))}")
    if unused:
        said.append(f"keys that are not used: {listed(unused)}")
    for what, places in left_out.items():
        said.append(f"{len(places):,} of {len(records):,} {what} and are left out: {few(places)}")
    return Records(rows, where, said, form)


def _form_of(forms: Sequence[Form[Row]], record: dict[str, Any]) -> Form[Row] | None:
    return next((form for form in forms if form.fits(record)), None)


def objects(values: Any, here: str) -> list[tuple[dict[str, Any], str]]:
    """The objects of a list, each with its place; DataError for what is no list of objects."""
    if not isinstance(values, list):
        raise DataError(f"{here} is {values!r:.80}: it must be a list of messages")
    for i, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(f"{here}[{i}] is {value!r:.80}: it must be an object")
    return [(value, f"{here}[{i}]") for i, value in enumerate(values)]


def listed(keys: Iterable[str]) -> str:
    """Keys in quotes, the first twelve."""
    keys = list(keys)
    return ", ".join(f"{key!r:.40}" for key in keys[:12]) + (" and more" if len(keys) > 12 else "")


def few(places: Sequence[str]) -> str:
    """Places, the first eight, and how many more."""
    return ", ".join(places[:8]) + (f" and {len(places) - 8:,} more" if len(places) > 8 else "")
