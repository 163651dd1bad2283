"""The files that hold a WordPiece tokenizer: vocab.txt, a piece a line, with tokenizer_config.json; and what tokenizer.json says.

Google's files of BERT have vocab.txt alone, and only the name of the folder says "cased": without options, text is read in small
letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, TokenizerError
from .tokenizers import UnknownTokenizer
from .wordpiece import CLS, LONGEST_WORD, MARKS, MASK, PAD, PREFIX, SEP, UNKNOWN, WordPieceTokenizer, check_pieces

_ROLES = {"pad_token": PAD, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
_NORMALIZER = {  # what BertNormalizer calls our options, and how it is without them
    "lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "clean": ("clean_text", True),
    "split_chinese": ("handle_chinese_chars", True),
}
_OPTIONS = {  # what tokenizer_config.json calls them
    "lower_case": "do_lower_case",
    "strip_accents": "strip_accents",
    "split_chinese": "tokenize_chinese_chars",
}


def parse_vocab(data: bytes, options: Mapping[str, Any], source: str) -> WordPieceTokenizer:
    """The tokenizer of a vocab.txt, with the `options` of a tokenizer_config.json (or {}).

    TokenizerError naming the line that cannot be; UnknownTokenizer for options that are not known here.
    """
    try:
        lines = data.decode("utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TokenizerError(f"{source}: line {line}: not UTF-8 at byte {error.start}") from None
    if lines[-1] == "":  # the last line has an end too
        lines.pop()
    marks, beside = _marks(options, source), "tokenizer_config.json beside it"
    if options.get("do_basic_tokenize") is False:
        raise UnknownTokenizer(
            f"{source}: do_basic_tokenize is false in {beside}: only BERT's way to words is known here"
        )
    never = options.get("never_split") or []
    if other := next((word for word in never if word not in (*MARKS, *marks)), None):
        raise UnknownTokenizer(
            f"{source}: never_split has {other!r:.80} in {beside}: only special tokens are known here"
        )
    try:
        pieces = check_pieces((line.removesuffix("\r") for line in lines), "line", 1)
        known = [mark for mark in marks if mark in set(pieces)]
        unknown = _content(options.get("unk_token")) or UNKNOWN
        tokenizer = WordPieceTokenizer(pieces, unknown=unknown, special=known, **_said(options))
    except (ConfigError, TokenizerError) as error:
        raise TokenizerError(f"{source}: {error}") from None
    return _with_added(tokenizer, marks, source)


def is_wordpiece(data: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is of this kind; the oldest do not name it."""
    model = data.get("model")
    return isinstance(model, dict) and (
        model.get("type") == "WordPiece" or ("type" not in model and "max_input_chars_per_word" in model)
    )


def with_options(data: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.json with what the tokenizer_config.json beside it says otherwise, which transformers puts first."""
    normalizer = data.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return dict(data)
    return {**data, "normalizer": normalizer | {_NORMALIZER[name][0]: value for name, value in _said(options).items()}}


def parse_json(data: Mapping[str, Any], special: Mapping[str, int], source: str) -> WordPieceTokenizer:
    """The tokenizer that a tokenizer.json of this kind describes; `special` are its marks. UnknownTokenizer for what it does in
    a way that is not known here.
    """
    model, normalizer, cut = data["model"], data.get("normalizer"), data.get("pre_tokenizer")
    if normalizer is None:
        normalizer = {"type": "BertNormalizer"} | {name: False for name, _ in _NORMALIZER.values()}
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        raise UnknownTokenizer(f"{source}: the normalizer is {normalizer!r:.120}: only BertNormalizer is known here")
    if not isinstance(cut, dict) or cut.get("type") != "BertPreTokenizer":
        raise UnknownTokenizer(f"{source}: pre_tokenizer is {cut!r:.120}: only BertPreTokenizer is known here")
    if (frame := _frame(data.get("post_processor"))) not in (None, _frame(_template(1, 2))):
        raise UnknownTokenizer(
            f"{source}: post_processor makes {frame!r:.120}: only {CLS} A {SEP} B {SEP} is known here"
        )
    vocab = model["vocab"]
    by_id = {i: piece for piece, i in vocab.items()}
    if missing := [i for i in range(len(by_id)) if i not in by_id]:
        raise TokenizerError(
            f"{source}: no piece has the id {missing[0]}, there are {len(by_id):,} up to {max(by_id):,}"
        )
    options: dict[str, Any] = {ours: normalizer.get(theirs, usual) for ours, (theirs, usual) in _NORMALIZER.items()}
    try:
        tokenizer = WordPieceTokenizer(
            [by_id[i] for i in range(len(by_id))],
            prefix=model.get("continuing_subword_prefix", PREFIX),
            longest_word=model.get("max_input_chars_per_word", LONGEST_WORD),
            unknown=model.get("unk_token", UNKNOWN),
            special=[mark for mark in special if mark in vocab],
            **options,
        )
    except (ConfigError, TokenizerError) as error:
        raise TokenizerError(f"{source}: {error}") from None
    return _with_added(tokenizer, special, source)


def parts_of_json(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    """What a tokenizer.json says of it beside its special tokens."""
    cls_id, sep_id = tokenizer.cls_id, tokenizer.sep_id
    return {
        "normalizer": {"type": "BertNormalizer"}
        | {theirs: getattr(tokenizer, ours) for ours, (theirs, _) in _NORMALIZER.items()},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None if cls_id is None or sep_id is None else _template(cls_id, sep_id),
        "decoder": {"type": "WordPiece", "prefix": tokenizer.prefix, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": tokenizer.unknown,
            "continuing_subword_prefix": tokenizer.prefix,
            "max_input_chars_per_word": tokenizer.longest_word,
            "vocab": {piece: i for i, piece in enumerate(tokenizer.pieces)},
        },
    }


def bert_options(tokenizer: WordPieceTokenizer) -> dict[str, Any] | None:
    """What tokenizer_config.json says of it for transformers' BertTokenizer; None for one that this cannot be told."""
    if not tokenizer.clean or (tokenizer.prefix, tokenizer.longest_word) != (PREFIX, LONGEST_WORD):
        return None
    options = {theirs: getattr(tokenizer, ours) for ours, theirs in _OPTIONS.items()}
    return {"tokenizer_class": "BertTokenizer", **options}


def role_options(tokenizer: WordPieceTokenizer) -> dict[str, str]:
    """The names of its marks, as tokenizer_config.json has them."""
    return {"unk_token": tokenizer.unknown} | {role: mark for role, mark in _ROLES.items() if mark in tokenizer.special}


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Our options as far as a tokenizer_config.json speaks of them."""
    return {ours: options[theirs] for ours, theirs in _OPTIONS.items() if options.get(theirs) is not None}


def _marks(options: Mapping[str, Any], source: str) -> dict[str, int | None]:
    """The special tokens in a tokenizer_config.json besides BERT's own, with their ids, None where these are not said."""
    for role, mark in _ROLES.items():
        if (said := _content(options.get(role))) not in (None, mark):
            raise UnknownTokenizer(
                f"{source}: {role} is {said!r:.80} in tokenizer_config.json beside it: only {mark} is known here"
            )
    marks: dict[str, int | None] = {}
    more = options.get("additional_special_tokens")
    for entry in more if isinstance(more, list) else []:
        if (also := _content(entry)) is not None:
            marks[also] = None
    added = options.get("added_tokens_decoder")
    for i, entry in (added if isinstance(added, dict) else {}).items():
        content = _content(entry) if isinstance(entry, dict) else None
        if content is None or not i.isdecimal() or len(i) > 9:
            raise TokenizerError(
                f"{source}: added_tokens_decoder has {i!r:.40}: {entry!r:.80} in tokenizer_config.json beside it"
            )
        if not entry.get("special"):
            raise UnknownTokenizer(f"{source}: the added token {content!r:.80} is not special")
        marks[content] = int(i)
    return marks


def _content(token: Any) -> str | None:
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _with_added(tokenizer: WordPieceTokenizer, marks: Mapping[str, int | None], source: str) -> WordPieceTokenizer:
    """With those of the marks that are no pieces, in the order of their ids. TokenizerError for other ids than they can have."""
    after = tokenizer.vocab_size
    new = sorted((mark for mark in marks if mark not in tokenizer.special), key=lambda mark: marks[mark] or after)
    try:
        tokenizer = tokenizer.add_special(new)
    except TokenizerError as error:
        raise TokenizerError(f"{source}: {error}") from None
    for mark, i in marks.items():
        if i not in (None, tokenizer.special[mark]):
            raise TokenizerError(
                f"{source}: the special token {mark!r:.80} has the id {i}: its place is {tokenizer.special[mark]}"
            )
    return tokenizer


def _template(cls_id: int, sep_id: int) -> dict[str, Any]:
    """[CLS] A [SEP], and of two texts [CLS] A [SEP] B [SEP] with 1 for the second, as `WordPieceTokenizer.frame` makes them."""

    def mark(text: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": text, "type_id": segment}}

    def sequence(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [mark(CLS, 0), sequence("A", 0), mark(SEP, 0)]
    known = {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in ((CLS, cls_id), (SEP, sep_id))}
    pair = [*single, sequence("B", 1), mark(SEP, 1)]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}


def _frame(processor: Any) -> Any:
    """What a post_processor makes of one text and of two, in a form that can be compared; None where there is none."""
    if processor is None:
        return None
    if isinstance(processor, dict) and processor.get("type") == "BertProcessing":
        marks = [processor.get(role) for role in ("cls", "sep")]
        names = [mark[0] if isinstance(mark, list) and mark else None for mark in marks]
        return _frame(_template(1, 2)) if names == [CLS, SEP] else names
    if isinstance(processor, dict) and processor.get("type") == "TemplateProcessing":
        return processor.get("single"), processor.get("pair")
    return processor
