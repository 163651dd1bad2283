"""Files of texts as people have them, down to text and JSON records: one reading for labels and for conversations.

The encoding is found where it is not told: a byte-order mark, the null bytes of UTF-16, else UTF-8, else cp1252. A file whose
lines have no end is given up early, whatever its size. Every fault is a DataError that names the file and the line.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from pathlib import Path
from typing import Any

from ..checks import byte_size
from ..errors import ConfigError, DataError

_LONGEST_LINE, _LONGEST_ARRAY = 1 << 20, 1 << 28  # bytes
_BLOCK = 1 << 20
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def file_name(path: str | os.PathLike[str]) -> Path:
    """`path` as a Path; ConfigError for what is none."""
    try:
        return Path(path)
    except TypeError:
        raise ConfigError(f"path is {path!r:.80}: it must be the name of a file or folder") from None


# ---- bytes to text


def read_bytes(path: Path) -> bytes:
    """All of a file, in blocks, so that one without line ends is given up early: lines of 1 MiB, an array of 256 MiB are read."""
    blocks, longest, since = list[bytes](), _LONGEST_LINE, 0
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise DataError(f"{path}: not a regular file")
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                if not blocks and block.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"["):
                    longest = _LONGEST_ARRAY  # which may well be one line
                blocks.append(block)
                ends = [end for end in (block.find(b"\n"), block.find(b"\r")) if end >= 0]
                since += min(ends, default=len(block))
                if since > longest:
                    row = sum(map(_n_lines, blocks[:-1])) + 1
                    raise DataError(
                        f"{path}: line {row} is longer than {byte_size(longest)}: not a file with a text a line"
                    )
                if ends:
                    since = len(block) - max(block.rfind(b"\n"), block.rfind(b"\r")) - 1
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return b"".join(blocks)


def _n_lines(data: bytes) -> int:
    return data.count(b"\n") or data.count(b"\r")


def decode(path: Path, data: bytes, encoding: str | None) -> tuple[str, list[str]]:
    """The text, with line ends \\n, and what there is to say about its bytes. `encoding`: None to find it out."""
    said: list[str] = []
    bom, marked = next(((bom, name) for bom, name in _BOMS if data.startswith(bom)), (b"", ""))
    if encoding is None:
        encoding = marked or _unmarked_utf16(data[:4096]) or "utf-8"
        if encoding == "utf-8" and not bom:
            encoding = _utf8_or_cp1252(path, data, said)
        else:
            said.append(f"encoding {encoding}{', with a byte-order mark' if bom else ', found by its null bytes'}")
    else:
        said.append(f"encoding {encoding}, as told")
    try:
        content = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _undecodable(path, data, error, encoding) from None
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    if not content.strip():
        raise DataError(f"{path}: empty")
    if "\0" in content:
        row = content.count("\n", 0, content.index("\0")) + 1
        raise DataError(
            f"{path}: line {row} holds a null character: not a file of text, or in another encoding: name it"
        )
    return content, said


def _unmarked_utf16(start: bytes) -> str:
    """Latin letters in UTF-16 have a null byte each, in one of the two places."""
    half = len(start) // 2
    nulls = start[: 2 * half : 2].count(0), start[1 : 2 * half : 2].count(0)
    if max(nulls) * 2 > half and min(nulls) * 10 < half:
        return "utf-16-le" if nulls[1] > nulls[0] else "utf-16-be"
    return ""


def _utf8_or_cp1252(path: Path, data: bytes, said: list[str]) -> str:
    """UTF-8 where all of it is; what holds no letter of UTF-8's and bytes that it has not is from Windows."""
    try:
        data.decode("utf-8")
        said.append("encoding utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        # where most of what is not ASCII is well-formed, it is UTF-8 with a fault in it
        n_good = len(_MULTIBYTE.findall(data))
        n_bad = data.decode("utf-8", "replace").count("\ufffd")
        if n_good > n_bad:
            raise _undecodable(path, data, error, "utf-8") from None
        line = _n_lines(data[: error.start]) + 1
        said.append(f"encoding cp1252, since byte 0x{data[error.start]:02x} in line {line} is not utf-8")
        return "cp1252"


def _undecodable(path: Path, data: bytes, error: UnicodeDecodeError, encoding: str) -> DataError:
    line = _n_lines(data[: error.start].replace(b"\0", b"")) + 1
    return DataError(
        f"{path}: line {line}: byte 0x{data[error.start]:02x} is not {encoding} ({error.reason}): "
        "correct it, or say the encoding of the file, for example latin-1"
    )


# ---- JSON


def is_json(content: str) -> bool:
    """Whether it begins as JSON lines or as an array of objects does."""
    return re.match(r"\s*(\{|\[\s*[\[{\]])", content) is not None


def json_records(path: Path, content: str, wanted: str, said: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file, a line each or all in one array, each with its place, "row 3" or "item 3".

    `wanted` is what they should hold, for the message; `said` gets a line about the form.
    """
    rows: list[tuple[str, Any]]
    if content.lstrip()[0] == "[":
        rows = [(f"item {i}", row) for i, row in enumerate(_parse(f"{path}", content), 1)]
        said.insert(0, "a JSON array")
    else:
        lines = ((i, line) for i, line in enumerate(content.split("\n"), 1) if line.strip())
        rows = [(f"row {i}", _parse(f"{path}: row {i}", line)) for i, line in lines]
        said.insert(0, "JSON lines")
    for where, row in rows:
        if not isinstance(row, dict):
            raise DataError(f"{path}: {where} is {row!r:.40}: it must be an object with {wanted}")
    return rows


def _parse(where: str, content: str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=_unique)
    except RecursionError:
        raise DataError(f"{where}: lists or objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in content else f"character {error.pos + 1}"
        raise DataError(f"{where}: not JSON at {place}: {error.msg}") from None
    except ValueError as error:  # a key twice, an integer of thousands of digits
        raise DataError(f"{where}: {error}".split(";")[0]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"a key stands twice in the object with {list(made)!r:.80}")
    return made
