"""The files that hold a SentencePiece tokenizer: tokenizer.model, tokenizer.bin, and what tokenizer.json says of one.

tokenizer.model is SentencePiece's own: a message of Protocol Buffers, as sentencepiece_model.proto of
https://github.com/google/sentencepiece describes it. tokenizer.bin is that of https://github.com/karpathy/llama2.c: the length of
the longest piece, then for each piece a score, its length and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CorruptCheckpoint, TokenizerError
from ..formats.protobuf import Field, read_fields
from .sentencepiece import BYTE_PIECES, SPACE, Piece, SentencePieceTokenizer
from .tokenizers import UnknownTokenizer

_UNKNOWN, _BOS, _EOS = "<unk>", "<s>", "</s>"
_KINDS = {
    1: "normal",
    2: "unknown",
    3: "control",
    4: "user",
    6: "byte",
}  # 5, unused, is for pieces that were taken away
_MODELS = {1: "unigram", 3: "word", 4: "char"}  # 2 is BPE
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}


def parse_model(data: bytes, source: str) -> SentencePieceTokenizer:
    """The tokenizer in a tokenizer.model. TokenizerError naming the place where it is damaged; UnknownTokenizer for one that is
    no BPE, that changes letters before it cuts (NFKC and the like), or has other ways that are not known here.
    """
    pieces: list[Piece] = []
    trainer, normalizer, denormalizer = b"", b"", b""
    try:
        for field in read_fields(data):
            if field.number == 1:
                pieces.append(_piece(_bytes(field, "a piece"), len(pieces)))
            elif field.number == 2:
                trainer += _bytes(field, "trainer_spec")
            elif field.number == 3:
                normalizer += _bytes(field, "normalizer_spec")
            elif field.number == 5:
                denormalizer += _bytes(field, "denormalizer_spec")
        trained = {field.number: field.value for field in read_fields(trainer)}
        normalized = {field.number: field.value for field in read_fields(normalizer)}
        restored = {field.number: field.value for field in read_fields(denormalizer)}
    except CorruptCheckpoint as error:
        raise TokenizerError(f"{source}: no tokenizer.model, or damaged: {error}") from None
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from None
    if not pieces:
        raise TokenizerError(f"{source}: no tokenizer.model, or damaged: it has no pieces")
    if (kind := trained.get(3, 1)) != 2:
        named = _MODELS.get(kind, kind) if isinstance(kind, int) else kind
        raise UnknownTokenizer(f"{source}: model_type is {named!r:.40}: only BPE is known here")
    for name, values, field_number in (("normalizer", normalized, 2), ("denormalizer", restored, 2)):
        if values.get(field_number):
            rule = values.get(1, b"")
            raise UnknownTokenizer(f"{source}: the {name} is {_text(rule, name)!r:.40}: only identity is known here")
    for name, value, known in (
        ("escape_whitespaces", normalized.get(5, 1), 1),
        ("treat_whitespace_as_suffix", trained.get(24, 0), 0),
    ):
        if value != known:
            raise UnknownTokenizer(f"{source}: {name} is {value!r:.40}: only {known} is known here")
    control = {piece.text: i for i, piece in enumerate(pieces) if piece.kind == "control"}
    try:
        marks = (_text(trained.get(number, mark.encode()), "a mark") for number, mark in ((46, _BOS), (47, _EOS)))
        bos, eos = (control.get(mark) for mark in marks)
        if bool(trained.get(35, 0)) != any(piece.kind == "byte" for piece in pieces):
            raise TokenizerError("byte_fallback and pieces for the bytes: one is there without the other")
        return SentencePieceTokenizer(
            pieces,
            bos=bos,
            eos=eos,
            prefix="always" if normalized.get(3, 1) else "never",
            squeezed=bool(normalized.get(4, 1)),
        )
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from None


def _piece(message: bytes, i: int) -> Piece:
    text, score, kind = b"", 0.0, 1
    for field in read_fields(message):
        if field.number == 1:
            text = _bytes(field, f"the text of piece {i}")
        elif field.number == 2:
            (score,) = struct.unpack("<f", _bytes(field, f"the score of piece {i}", 4))
        elif field.number == 3:
            kind = field.value if isinstance(field.value, int) else 0
    if kind not in _KINDS:
        raise TokenizerError(f"piece {i}: its type is {kind}: those known here are {', '.join(map(str, _KINDS))}")
    return Piece(_text(text, f"piece {i}"), _KINDS[kind], score)


def _bytes(field: Field, what: str, n: int | None = None) -> bytes:
    if not isinstance(field.value, bytes) or (n is not None and len(field.value) != n):
        raise TokenizerError(f"{what}: field {field.number} is not {'a text' if n is None else f'{n} bytes'}")
    return field.value


def _text(data: Any, what: str) -> str:
    try:
        return data.decode("utf-8")
    except (UnicodeDecodeError, AttributeError):
        raise TokenizerError(f"{what}: {data!r:.80} is not text in UTF-8") from None


def parse_bin(data: bytes, source: str) -> SentencePieceTokenizer:
    """The tokenizer in llama2.c's tokenizer.bin, with all pieces that are there. TokenizerError naming the place of a defect."""
    if len(data) < 4:
        raise TokenizerError(f"{source}: {len(data)} bytes: too short for a tokenizer.bin")
    (longest,) = struct.unpack_from("<I", data)
    pieces: list[Piece] = []
    at = 4
    while at < len(data):
        here = f"{source}: piece {len(pieces)}, at byte {at:,}"
        if len(data) - at < 8:
            raise TokenizerError(f"{here}: 8 bytes are its score and length, {len(data) - at} are left")
        score, n = struct.unpack_from("<fi", data, at)
        at += 8
        if not 1 <= n <= longest:
            raise TokenizerError(
                f"{here}: its length is {n:,}: it must be 1 to {longest:,}, the longest by the first bytes"
            )
        if n > len(data) - at:
            raise TokenizerError(f"{here}: its length is {n:,}, {len(data) - at:,} bytes are left")
        text = _text(data[at : at + n], here)
        at += n
        i = len(pieces)
        if i < 3:
            marks = (_UNKNOWN, _BOS, _EOS)
            if text.strip("\n") != marks[i]:
                raise TokenizerError(f"{here}: is {text!r:.80}: it must be {marks[i]}")
            pieces.append(Piece(marks[i], "unknown" if i == 0 else "control", score))
        else:
            pieces.append(Piece(text.replace(" ", SPACE), "byte" if i < 3 + 256 else "normal", score))
    if len(pieces) < 3 + 256:
        raise TokenizerError(f"{source}: {len(pieces)} pieces: it must have 3 marks and 256 bytes at least")
    try:
        return SentencePieceTokenizer(pieces, bos=1, eos=2)
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from None


def is_sentencepiece(data: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is of this kind: BPE that falls back on bytes, or writes spaces as "▁"."""
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return False
    cut = data.get("pre_tokenizer")
    return (
        bool(model.get("byte_fallback"))
        or _normalizers(data)[-1:] == [_REPLACE]
        or (isinstance(cut, dict) and cut.get("type") == "Metaspace")
    )


def parse_json(
    data: Mapping[str, Any], merges: Sequence[tuple[str, str]], special: Mapping[str, int], eos: str | None, source: str
) -> SentencePieceTokenizer:
    """The tokenizer that a tokenizer.json of this kind describes; `special` are its marks. UnknownTokenizer for what it does in
    a way that is not known here.
    """
    model = data["model"]
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(field):
            raise UnknownTokenizer(f"{source}: model.{field} is {model[field]!r:.80}: it is not known here")
    if not model.get("byte_fallback") and not model.get("fuse_unk"):
        raise UnknownTokenizer(f"{source}: model.fuse_unk is false: only unknown letters taken together are known here")
    prefix, doubled = _prefix(data, source)
    by_id = {i: text for text, i in (*model["vocab"].items(), *special.items())}
    if missing := next((i for i in range(max(by_id, default=0)) if i not in by_id), None):
        raise TokenizerError(
            f"{source}: no piece has the id {missing}, there are {len(by_id):,} pieces up to {max(by_id):,}"
        )
    fallback, unknown = model.get("byte_fallback"), model.get("unk_token")
    if unknown is not None and unknown not in model["vocab"]:
        raise TokenizerError(f"{source}: model.unk_token is {unknown!r:.80}: it is not in the vocabulary")
    pieces = []
    for i in range(len(by_id)):
        text = by_id[i]
        kind = "unknown" if text == unknown else "control" if text in special else "normal"
        pieces.append(Piece(text, "byte" if kind == "normal" and fallback and text in BYTE_PIECES else kind))
    template = _template(data)
    if len(template) > 1:
        raise UnknownTokenizer(
            f"{source}: post_processor puts {', '.join(template)!r:.80} before a text: one mark is known here"
        )
    bos = next((mark for mark in (*template, _BOS) if mark in special), None)
    eos = next((mark for mark in (eos, _EOS) if mark in special), None)
    try:
        tokenizer = SentencePieceTokenizer(
            pieces,
            merges,
            bos=None if bos is None else special[bos],
            eos=None if eos is None else special[eos],
            prefix=prefix,
            doubled=doubled,
        )
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from None
    return tokenizer.marking_prompts(bool(template) and template == [bos])


def _normalizers(data: Mapping[str, Any]) -> list[Any]:
    normalizer = data.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        parts = normalizer.get("normalizers")
        return parts if isinstance(parts, list) else [parts]
    return [] if normalizer is None else [normalizer]


def _prefix(data: Mapping[str, Any], source: str) -> tuple[str, bool]:
    """Where a space is put first, and whether also before one; these are a matter of the normalizer, or of the pre-tokenizer."""
    normalizers, cut = _normalizers(data), data.get("pre_tokenizer")
    if cut is None and normalizers in ([_PREPEND, _REPLACE], [_REPLACE]):
        return ("always" if len(normalizers) == 2 else "never"), True
    if not normalizers and isinstance(cut, dict) and cut.get("type") == "Metaspace":
        older = "always" if cut.get("add_prefix_space", True) else "never"
        prefix = cut.get("prepend_scheme", older)
        if (
            cut.get("replacement") == SPACE
            and cut.get("split", True) is False
            and prefix in ("always", "first", "never")
        ):
            return prefix, False
    raise UnknownTokenizer(
        f"{source}: normalizer {data.get('normalizer')!r:.120} with pre_tokenizer {cut!r:.120}: not known here together"
    )


def _template(data: Mapping[str, Any]) -> list[str]:
    """The marks that the file puts before a text."""
    processor = data.get("post_processor")
    single = processor.get("single") if isinstance(processor, dict) else None
    marks: list[str] = []
    for part in single if isinstance(single, list) else []:
        mark = part.get("SpecialToken") if isinstance(part, dict) else None
        if not isinstance(mark, dict) or not isinstance(mark.get("id"), str):
            break
        marks.append(mark["id"])
    return marks


def parts_of_json(tokenizer: SentencePieceTokenizer) -> dict[str, Any]:
    """What a tokenizer.json says of it beside its special tokens. Of pieces with one score, the first is merged first.

    TokenizerError for what it cannot say: pieces that are never cut, spaces taken together, merges of what is no piece.
    """
    user = next((piece.text for piece in tokenizer.pieces if piece.kind == "user"), None)
    if user is not None or tokenizer.squeezed:
        what = "several spaces are one" if user is None else f"{user!r:.80} is never cut"
        raise TokenizerError(f"a sentencepiece tokenizer for which {what}: none can be written")
    merges = tokenizer.list_merges()
    vocab = {piece.text: i for i, piece in enumerate(tokenizer.pieces)} | tokenizer.special
    if half := next((half for pair in merges for half in pair if half not in vocab), None):
        raise TokenizerError(
            f"a sentencepiece tokenizer in which {half!r:.80} is merged and is no piece: none can be written"
        )
    prepend = {"always": [_PREPEND], "never": []}.get(tokenizer.prefix)
    parts: dict[str, Any] = {"normalizer": None, "pre_tokenizer": None, "post_processor": None}
    if prepend is not None and (tokenizer.doubled or not prepend):
        parts["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, _REPLACE]}
    else:
        parts["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": SPACE,
            "prepend_scheme": tokenizer.prefix,
            "split": False,
        }
    if tokenizer.marks_prompts and tokenizer.bos_id is not None:
        bos = tokenizer.tokens[tokenizer.bos_id].decode()
        one, two = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
        mark, other = ({"SpecialToken": {"id": bos, "type_id": i}} for i in range(2))
        known = {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}}
        parts["post_processor"] = {"type": "TemplateProcessing", "single": [mark, one], "pair": [mark, one, other, two],
                                   "special_tokens": known}  # fmt: skip
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if tokenizer.prefix != "never" else []
    spaces = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders = [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": tokenizer.unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": any(piece.kind == "byte" for piece in tokenizer.pieces),
        "ignore_merges": False,
        "vocab": vocab,
        "merges": list(map(list, merges)),
    }
    return {**parts, "decoder": {"type": "Sequence", "decoders": decoders}, "model": model}
