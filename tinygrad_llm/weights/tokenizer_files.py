"""The tokenizer beside the weights, in whichever files it lies; and the files that transformers opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, TokenizerError
from ..files import write_file
from ..formats.pickles import LONGEST, read_pickle
from ..formats.strict_json import MAX_BYTES, check_is_file, read_json
from ..text import BPETokenizer, Tokenizer, load_tokenizer
from ..text.bpe import SPLIT_PATTERN
from ..text.sentencepiece import SentencePieceTokenizer
from ..text.sentencepiece_files import parse_bin, parse_model
from ..text.tokenizers import END_OF_TEXT, TOKENIZER_FILE
from ..text.vocabulary import UnknownTokenizer, parse_tokenizer, to_json
from ..text.wordpiece import WordPieceTokenizer
from ..text.wordpiece_files import bert_options, is_wordpiece, parse_vocab, role_options, with_options

_JSON_FILE, _OPTIONS_FILE = "tokenizer.json", "tokenizer_config.json"
_VOCAB_FILE, _MERGES_FILE, _PIECES_FILE = "vocab.json", "merges.txt", "vocab.txt"
_SENTENCEPIECE_FILES = {"tokenizer.model": parse_model, "tokenizer.bin": parse_bin}
BESIDE = "put tokenizer.json, tokenizer.model, vocab.txt, or vocab.json and merges.txt beside the weights"  # to whom has none
_BPE_FILES = ((_VOCAB_FILE, _MERGES_FILE), ("encoder.json", "vocab.bpe"))  # of transformers, of OpenAI


def read_tokenizer(folder: Path, eos_id: Any = None) -> Tokenizer | None:
    """The tokenizer in a folder, or None; `eos_id` is what the model's configuration says. TokenizerError for a bad one."""
    if (folder / TOKENIZER_FILE).exists():
        return load_tokenizer(folder)
    options = _read(folder / _OPTIONS_FILE) if (folder / _OPTIONS_FILE).exists() else {}
    eot = options.get("eos_token")
    eot = eot.get("content") if isinstance(eot, dict) else eot
    if not isinstance(eot, str):
        eot = eos_id if type(eos_id) is int else END_OF_TEXT
    if (path := folder / _JSON_FILE).exists():
        data = _read(path)
        data = with_options(data, options) if is_wordpiece(data) else data
        tokenizer = parse_tokenizer(data, str(path), eot) if "model" in data else _characters(data, eot, path)
        return _marking(tokenizer, options) if isinstance(tokenizer, SentencePieceTokenizer) else tokenizer
    for vocab_file, merges_file in _BPE_FILES:
        if (folder / vocab_file).exists() and (folder / merges_file).exists():
            vocab = _read(folder / vocab_file)
            merges = _read_merges(folder / merges_file)
            pieces = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": bool(options.get("add_prefix_space"))}}
            data = {
                "model": {"type": "BPE", "vocab": vocab, "merges": merges},
                "added_tokens": _special(vocab, options),
            }
            return parse_tokenizer(data | pieces, str(folder / vocab_file), eot)
    if (path := folder / _PIECES_FILE).exists():
        return parse_vocab(_read_bytes(path), options, str(path))
    if (path := folder / "source.spm").exists():
        raise UnknownTokenizer(
            f"{path}: Marian's, SentencePiece by the likelihood of pieces (unigram): only its BPE is known"
        )
    for name, parse in _SENTENCEPIECE_FILES.items():
        if (path := folder / name).exists():
            return _marking(parse(_read_bytes(path), str(path)).marking_prompts(), options)
    for name in (_VOCAB_FILE, "meta.json"):
        if (path := folder / name).exists():
            return _characters(_read(path), eot, path)
    return None


def read_meta(path: Path) -> Tokenizer:
    """The tokenizer in nanoGPT's meta.pkl: {"stoi": {"a": 0, ...}, ...}. Nothing in it is called: see pickles.py."""
    check_is_file(path)
    try:
        with path.open("rb") as file:
            meta = read_pickle(file.read(LONGEST + 1))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    return _characters(meta if isinstance(meta, dict) else {}, None, path)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, context_length: int | None) -> None:
    """tokenizer.json and tokenizer_config.json; for GPT-2's BPE vocab.json and merges.txt too, for BERT's pieces vocab.txt."""
    data = to_json(tokenizer)
    eot = next((mark for mark, i in tokenizer.special.items() if i == tokenizer.eot_id), None)
    bpe = isinstance(tokenizer, BPETokenizer) and tokenizer.pattern == SPLIT_PATTERN
    options = {
        "tokenizer_class": "GPT2Tokenizer" if bpe else "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        **({"add_prefix_space": False} if bpe else {"unk_token": getattr(tokenizer, "unknown", None)}),
        **({"bos_token": eot, "eos_token": eot, "unk_token": eot} if bpe else {"eos_token": eot}),
    }
    if isinstance(tokenizer, SentencePieceTokenizer):
        bos = None if tokenizer.bos_id is None else tokenizer.tokens[tokenizer.bos_id].decode()
        options |= {"bos_token": bos, "add_bos_token": tokenizer.marks_prompts}
    if isinstance(tokenizer, WordPieceTokenizer):
        del options["eos_token"]  # which BERT has none of: [SEP] is its sep_token
        bert = bert_options(tokenizer)
        options |= role_options(tokenizer) | (bert or {})
        if bert is not None:
            _write(folder / _PIECES_FILE, "\n".join([*tokenizer.pieces, *tokenizer.added]))
    options = {key: value for key, value in options.items() if value is not None}
    if len(tokenizer.special) > 1:  # beside a vocab.json, nothing else tells which of its words are marks
        options["added_tokens_decoder"] = {str(entry.pop("id")): entry for entry in map(dict, data["added_tokens"])}
    _write(folder / _JSON_FILE, json.dumps(data, ensure_ascii=False))
    _write(folder / _OPTIONS_FILE, json.dumps(options, indent=2))
    if bpe:
        _write(folder / _VOCAB_FILE, json.dumps(data["model"]["vocab"], ensure_ascii=False))
        lines = [" ".join(pair) for pair in data["model"]["merges"]]
        _write(folder / _MERGES_FILE, "\n".join(["#version: 0.2", *lines]))


def _marking(tokenizer: Tokenizer, options: dict[str, Any]) -> Tokenizer:
    """With the mark before prompts or without, where tokenizer_config.json says so."""
    marks = options.get("add_bos_token")
    return tokenizer.marking_prompts(marks) if isinstance(marks, bool) else tokenizer


def _special(vocab: dict[str, Any], options: dict[str, Any]) -> list[dict[str, Any]]:
    """The special tokens that stand beside a vocab.json: `<|endoftext|>`, and what tokenizer_config.json adds."""
    special = {END_OF_TEXT: vocab[END_OF_TEXT]} if END_OF_TEXT in vocab else {}
    added = options.get("added_tokens_decoder")
    for i, entry in (added if isinstance(added, dict) else {}).items():
        if isinstance(entry, dict) and entry.get("special") and isinstance(entry.get("content"), str) and i.isdecimal():
            special[entry["content"]] = int(i)
    return [{"id": i, "content": mark, "special": True} for mark, i in special.items()]


def _characters(vocab: dict[str, Any], eot: str | int | None, path: Path) -> Tokenizer:
    """A vocabulary of characters by itself; longer words in brackets are special tokens."""
    vocab = vocab.get("stoi", vocab)
    if not isinstance(vocab, dict) or not all(type(word) is str and type(i) is int for word, i in vocab.items()):
        raise UnknownTokenizer(f"{path}: has no characters with their ids")
    marks = [word for word in vocab if len(word) > 2 and word[0] + word[-1] in ("<>", "[]")]
    unknown = next((word for word in marks if "unk" in word.lower()), None)
    added = [{"id": vocab[mark], "content": mark, "special": True} for mark in marks]
    model: dict[str, Any] = {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": unknown}
    return parse_tokenizer({"model": model, "added_tokens": added}, str(path), eot)


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None


def _read_bytes(path: Path) -> bytes:
    try:
        check_is_file(path)
        if path.stat().st_size > MAX_BYTES:
            raise TokenizerError(f"{path}: {path.stat().st_size:,} bytes: more than {MAX_BYTES:,}")
        return path.read_bytes()
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_merges(path: Path) -> list[str]:
    try:
        lines = _read_bytes(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 at byte {error.start}") from None
    return [
        line.rstrip("\r")
        for i, line in enumerate(lines)
        if line.strip() and not (i == 0 and line.startswith("#version"))
    ]


def _write(path: Path, text: str) -> None:
    write_file(path, [f"{text}\n".encode()])
