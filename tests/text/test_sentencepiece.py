"""SentencePiece's BPE against `sentencepiece` and `tokenizers`, by ids stored in tests/reference; its files, and damaged ones."""

import json
import re
import struct
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import store

from tinygrad_llm.errors import TokenizerError
from tinygrad_llm.text import TEMPLATES, SentencePieceTokenizer, load_tokenizer
from tinygrad_llm.text.sentencepiece import BYTE_PIECES, Piece, merge_ranked
from tinygrad_llm.text.sentencepiece_files import parse_bin, parse_model
from tinygrad_llm.text.tokenizers import UnknownTokenizer
from tinygrad_llm.text.vocabulary import parse_tokenizer, to_json

CASES = store.read("sentencepiece")
MODEL = store.path("sentencepiece").with_suffix(".model").read_bytes()
TEXTS = store.texts(2000)
HF = {name: case for name, case in CASES.items() if "parts" in case}
BPE = json.loads(CASES["tokenizer.json"]["model"])
STORY = parse_model(MODEL, "here")
NO_DUMMY = parse_model(MODEL + b"\x1a\x02\x18\x00", "here")


def of_case(name):
    case = CASES[name]
    if name in HF:
        return parse_tokenizer(json.loads(case["parts"]) | {"model": BPE}, "here")
    return parse_model(bytes.fromhex(case["model"]) if "model" in case else MODEL + bytes.fromhex(case["more"]), "here")


def assert_as_stored(tokenizer, name, special=(), decode=True):
    ids = [tokenizer.encode(text, special) for text in TEXTS]
    for text, row, stored in zip(TEXTS, ids, CASES[name]["ids"], strict=False):
        assert row == json.loads(stored), text
    texts = [tokenizer.decode(i for i in row if i > 2) if decode else "" for row in ids]
    sums = [zlib.crc32(json.dumps([ids[i : i + 50], texts[i : i + 50]]).encode()) for i in range(0, len(TEXTS), 50)]
    assert tuple(sums) == CASES[name]["sums"]


@pytest.mark.parametrize("name", [name for name in CASES if name != "tokenizer.json"])
def test_ids_and_texts_of_2000_strings(name, tmp_path):
    tokenizer = of_case(name)
    tokenizer.save(tmp_path)
    for each in (tokenizer, load_tokenizer(tmp_path)):
        assert_as_stored(each, name, each.special if name in HF else (), decode=name != "without bytes")


def packed(pieces):
    """tokenizer.bin as llama2.c's tokenizer.py writes it."""
    texts = [
        {1: "\n<s>\n", 2: "\n</s>\n"}.get(i, piece.text.replace("▁", " ")).encode() for i, piece in enumerate(pieces)
    ]
    parts = [struct.pack("<fi", piece.score, len(text)) + text for piece, text in zip(pieces, texts, strict=True)]
    return struct.pack("<I", max(map(len, texts))) + b"".join(parts)


def test_the_same_tokenizer_from_tokenizer_bin():
    tokenizer = parse_bin(packed(STORY.pieces), "here")
    assert (tokenizer.tokens, tokenizer.special) == (STORY.tokens, {"<unk>": 0, "<s>": 1, "</s>": 2})
    assert (tokenizer.bos_id, tokenizer.eot_id, tokenizer.vocab_size) == (1, 2, 600)
    assert_as_stored(tokenizer, "as it is")


@pytest.mark.parametrize("name", ["as it is", "no space at the beginning", *HF])
def test_what_is_written_into_tokenizer_json(name):
    tokenizer = of_case(name).marking_prompts()
    data = json.loads(json.dumps(to_json(tokenizer)))
    again = parse_tokenizer(data, "here")
    for text in TEXTS[:300]:
        assert again.encode_prompt(text, again.special) == tokenizer.encode_prompt(text, tokenizer.special)
        assert again.decode(again.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert again.marks_prompts
    if (
        name in HF and name != "Metaspace never"
    ):  # of which there is another way: the file is as one that `tokenizers` has opened
        stored = json.loads(CASES[name]["parts"])
        assert {key: data[key] for key in stored} == stored
        assert {key: data["model"][key] for key in BPE} == BPE
    assert (again.tokens, again.special, again.eot_id) == (tokenizer.tokens, tokenizer.special, 2)
    if name == "as it is":
        assert data["model"]["vocab"] == BPE["vocab"]
        assert sorted(data["model"]["merges"]) == sorted(BPE["merges"])
        joined = [left + right for left, right in data["model"]["merges"]]
        assert list(dict.fromkeys(joined)) == list(dict.fromkeys(left + right for left, right in BPE["merges"]))


@pytest.mark.parametrize("name", ["spaces taken together", "pieces that are never cut", "without bytes"])
def test_what_tokenizer_json_cannot_say(name):
    with pytest.raises(TokenizerError, match="none can be written"):
        to_json(of_case(name))


def slowly(symbols, scores):
    """The definition: the best pair of all, again and again."""
    symbols = list(symbols)
    while True:
        pairs = [(-scores[a + b], i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in scores]
        if not pairs:
            return symbols
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


SCORES = st.dictionaries(st.text("ab▁", min_size=2, max_size=5), st.integers(-3, 3), max_size=20)


@given(st.text("ab▁"), SCORES)
def test_merging_by_a_heap_is_merging_the_best_pair_of_all(text, scores):
    ranks = {(piece[:k], piece[k:]): -score for piece, score in scores.items() for k in range(1, len(piece))}
    assert merge_ranked(list(text), ranks) == slowly(text, scores)


@given(st.text("ab▁ c"), SCORES)
def test_encoding_is_merging_the_whole_text(text, scores):
    pieces = [Piece("<unk>", "unknown"), *(Piece(letter) for letter in "ab▁")]
    tokenizer = SentencePieceTokenizer([*pieces, *(Piece(piece, "normal", score) for piece, score in scores.items())])
    merged = [tokenizer._ids.get(piece, 0) for piece in slowly(("▁" if text else "") + text.replace(" ", "▁"), scores)]
    assert tokenizer.encode(text) == [i for k, i in enumerate(merged) if not (i == 0 and k and merged[k - 1] == 0)]


anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"))


@given(anything | st.text(" ab\n"))
def test_no_text_is_lost(text):
    for tokenizer in (STORY, NO_DUMMY, of_case("Prepend")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, errors="strict") == text
        assert not set(ids) & set(tokenizer.special.values())
        assert tokenizer.decode([1, *ids, 2]) == f"<s>{text}</s>"
        assert "".join(tokenizer.decode_stream([1, *ids])) == f"<s>{text}"
    ids = STORY.encode_continuation(text)
    assert "".join(STORY.decode_stream(ids)) == STORY.decode_bytes(ids).decode() == text


def test_where_a_space_is_put():
    first, always = of_case("Metaspace first"), of_case("Metaspace always")
    lid = STORY.encode("the lid")
    bare = STORY.encode_continuation("the lid")
    assert bare == NO_DUMMY.encode("the lid") != lid
    assert STORY.encode("<s>the lid", {"<s>"}) == always.encode("<s>the lid", {"<s>"}) == [1, *lid]
    assert first.encode("<s>the lid", {"<s>"}) == [1, *bare]
    assert first.encode(" the lid") == lid  # which has its space
    assert STORY.encode(" the lid") != lid
    assert "".join(STORY.decode_stream(lid)) == " the lid"


def test_marks_around_a_text(tmp_path):
    assert (STORY.bos_id, STORY.eot_id) == (1, 2)
    assert STORY.encode_prompt("the lid") == STORY.encode("the lid")
    tokenizer = STORY.marking_prompts().add_special(["<|user|>"])
    tokenizer.save(tmp_path)
    for each in (tokenizer, load_tokenizer(tmp_path)):
        assert each.encode_prompt("the lid") == [1, *STORY.encode("the lid")]
        assert each.encode("a<|user|>", each.special) == [*STORY.encode("a"), 600]
        assert not set(each.encode("<s></s><unk><|user|>")) & set(each.special.values())
    assert STORY.unused_ids(602) == [600, 601]


def test_a_conversation_in_the_words_of_llama_2():
    """As chat_completion of its code: each turn by itself, [BOS] + encode(f"[INST] {q} [/INST] {a} ") + [EOS]."""
    said = ["lid?", "the lid", "a", "b"]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    wanted = []
    for question, answer in (("lid?", "the lid"), ("a", "b")):
        wanted += [1, *STORY.encode(f"[INST] {question} [/INST] {answer} "), 2]
    for tokenizer in (STORY, STORY.marking_prompts()):
        ids, is_answer = TEMPLATES["llama2"].encode(tokenizer, turns)
        assert ids == wanted
        assert STORY.decode_bytes([i for i, own in zip(ids, is_answer, strict=True) if own]) == b" the lid </s> b </s>"


# ---- what cannot be


BYTES = [Piece(text, "byte") for text in BYTE_PIECES]
MARKS = [Piece("<unk>", "unknown"), Piece("<s>", "control"), Piece("</s>", "control")]


@pytest.mark.parametrize(
    ("pieces", "options", "message"),
    [
        ([*MARKS, Piece("a"), Piece("a")], {}, "piece 4: 'a' is piece 3 already"),
        ([*MARKS, Piece("")], {}, "piece 3: has 0 characters"),
        ([*MARKS, Piece("a" * 257)], {}, "piece 3: has 257 characters"),
        ([*MARKS, Piece("a", score=float("nan"))], {}, "piece 3: 'a' has the score nan"),
        ([*MARKS, Piece("a", score=float("-inf"))], {}, "piece 3: 'a' has the score -inf"),
        ([*MARKS, Piece("a", "noun")], {}, "piece 3: its kind is 'noun'"),
        ([*MARKS, Piece("\ud800")], {}, "piece 3: position 0: lone surrogate"),
        ([*MARKS, Piece("a", "byte")], {}, "piece 3: 'a' is no byte"),
        ([*MARKS, MARKS[0]._replace(text="x")], {}, "piece 3: a second unknown piece, after piece 0"),
        ([*MARKS, *BYTES[:-1]], {}, "no piece is <0xFF>"),
        ([*MARKS, Piece("a")], {"bos": 3}, "bos is 3: it must be the id of a control piece"),
        ([*MARKS, Piece("a")], {"eos": 9}, "eos is 9: "),
        ([*MARKS, Piece("a")], {"prefix": "often"}, "prefix is 'often'"),
        ([*MARKS, Piece("a"), Piece("aa")], {"merges": [("a", "a"), ("a", "b")]}, "merge 1: 'b' is no piece of text"),
        ([*MARKS, Piece("a")], {"merges": [("a", "a")]}, "merge 0: 'aa' is no piece of text"),
        (
            [*MARKS, Piece("a"), Piece("aa")],
            {"merges": [("a", "a")] * 2},
            "merge 1: 'a' and 'a' are merged by an earlier",
        ),
    ],
)
def test_vocabularies_that_cannot_be(pieces, options, message):
    with pytest.raises(TokenizerError, match=re.escape(message)):
        SentencePieceTokenizer(pieces, **options)


def test_a_letter_without_any_piece():
    with pytest.raises(TokenizerError, match=r"'é' \(U\+00E9\): this sentencepiece tokenizer has no piece for it"):
        SentencePieceTokenizer([Piece("▁"), Piece("a")]).encode("aé")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        STORY.encode_continuation("\ud800")


def field(number, content):
    return bytes([8 * number + 2, len(content)]) + content


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", TokenizerError, "it has no pieces"),
        (MODEL[:-3], TokenizerError, "byte 8,9.*are left"),
        (b"\xff" * 30, TokenizerError, "byte 0: a number that does not end"),
        (b"\x0b\x00", TokenizerError, "byte 0: field 1 of kind 3"),
        (b"\x00\x00", TokenizerError, "byte 0: field 0"),
        (b"\x08\x01", TokenizerError, "a piece: field 1 is not a text"),
        (field(1, b"\x0a\x05ab"), TokenizerError, "takes 5 bytes, 2 are left"),
        (field(1, field(1, b"\xff")), TokenizerError, r"piece 0: b'\\xff' is not text in UTF-8"),
        (field(1, field(1, b"a") + b"\x10\x05"), TokenizerError, "the score of piece 0: field 2 is not 4 bytes"),
        (
            MODEL + field(1, field(1, b"zq") + b"\x15\x00\x00\xc0\x7f"),
            TokenizerError,
            "piece 600: 'zq' has the score nan",
        ),
        (MODEL + field(1, field(1, b"he")), TokenizerError, "piece 600: 'he' is piece 260 already"),
        (MODEL + field(1, field(1, b"zq") + b"\x18\x05"), TokenizerError, "piece 600: its type is 5"),
        (MODEL + field(2, b"\x18\x01"), UnknownTokenizer, "model_type is 'unigram'"),
        (MODEL + field(2, b"\xc0\x01\x01"), UnknownTokenizer, "treat_whitespace_as_suffix is 1"),
        (MODEL + field(2, b"\x98\x02\x00"), TokenizerError, "byte_fallback and pieces for the bytes"),
        (MODEL + field(3, field(1, b"nmt_nfkc") + field(2, b"\x01")), UnknownTokenizer, "the normalizer is 'nmt_nfkc'"),
        (MODEL + field(5, field(1, b"own") + field(2, b"\x01")), UnknownTokenizer, "the denormalizer is 'own'"),
        (MODEL + field(3, b"\x28\x00"), UnknownTokenizer, "escape_whitespaces is 0"),
    ],
)
def test_a_tokenizer_model_that_is_damaged_or_foreign(data, kind, message):
    with pytest.raises(kind, match=f"^here: .*{message}") as caught:
        parse_model(data, "here")
    assert type(caught.value) is kind


@given(st.data())
def test_no_damage_to_a_model_goes_any_other_way(data):
    """It is read, or it is refused by a TokenizerError: nothing else is raised."""
    whole = data.draw(st.sampled_from([MODEL, packed(STORY.pieces)]))
    damaged = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(whole)))])
    for parse in (parse_model, parse_bin):
        with suppress(TokenizerError):
            parse(damaged, "here").encode("the lid")


BIN = packed(STORY.pieces)
AT_A = BIN.index(b"<0x00>") - 8  # where piece 3 begins


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01", "1 bytes: too short"),
        (BIN[:-1], r"piece 599, at byte [\d,]+: its length is \d, 0 bytes are left"),
        (BIN[:10], "piece 0, at byte 4: 8 bytes are its score and length, 6 are left"),
        (BIN[:AT_A], "3 pieces: it must have 3 marks and 256 bytes"),
        (BIN[: AT_A + 4] + b"\xff\xff\xff\xff" + BIN[AT_A + 8 :], r"piece 3, at byte \d+: its length is -1"),
        (
            BIN[: AT_A + 4] + b"\x00\x01\x00\x00" + BIN[AT_A + 8 :],
            r"piece 3, at byte \d+: its length is 256: it must be 1 to",
        ),
        (BIN.replace(b"\n<s>\n", b"\n<x>\n"), r"piece 1, at byte 17: is '\\n<x>\\n': it must be <s>"),
        (BIN.replace(b"<0x41>", b"<0x42>"), "piece 69: '<0x42>' is piece 68 already"),
        (BIN.replace(b"<0x41>", b"<0xx1>"), "piece 68: '<0xx1>' is no byte"),
        (BIN.replace(b"<0x41>", b"<0x\xff1>"), r"piece 68, at byte [\d,]+: .* is not text in UTF-8"),
        (BIN[:AT_A] + struct.pack("<f", float("nan")) + BIN[AT_A + 4 :], "piece 3: '<0x00>' has the score nan"),
    ],
)
def test_a_damaged_tokenizer_bin(data, message):
    with pytest.raises(TokenizerError, match=f"^here: {message}"):
        parse_bin(data, "here")


def with_parts(**changes):
    """The first of the stored files with other parts; what is of its model goes there."""
    model = BPE | {key: value for key, value in changes.items() if key in BPE or key == "dropout"}
    return (
        json.loads(CASES["Prepend"]["parts"]) | {"model": model} | {k: v for k, v in changes.items() if k not in model}
    )


META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
VOCAB = BPE["vocab"]
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"SpecialToken": {"id": "</s>"}}]}


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"dropout": 0.1}, UnknownTokenizer, "model.dropout is 0.1"),
        ({"byte_fallback": False, "fuse_unk": False}, UnknownTokenizer, "model.fuse_unk is false"),
        ({"normalizer": {"type": "NFKC"}}, UnknownTokenizer, "not known here together"),
        ({"pre_tokenizer": META}, UnknownTokenizer, "not known here together"),  # beside Prepend
        ({"normalizer": None, "pre_tokenizer": META | {"split": True}}, UnknownTokenizer, "not known here together"),
        (
            {"normalizer": None, "pre_tokenizer": META | {"replacement": "_"}},
            UnknownTokenizer,
            "not known here together",
        ),
        ({"post_processor": TEMPLATE}, UnknownTokenizer, "puts '<s>, </s>' before a text"),
        ({"vocab": {word: i + (i > 300) for word, i in VOCAB.items()}}, TokenizerError, "no piece has the id 301"),
        (
            {"vocab": {w: i for w, i in VOCAB.items() if w != "<0x41>"}, "merges": []},
            TokenizerError,
            "no piece has the id 68",
        ),
        ({"vocab": {w.replace("<0x41>", "<A>"): i for w, i in VOCAB.items()}}, TokenizerError, "no piece is <0x41>"),
        ({"merges": [*BPE["merges"], ["h", "e"]]}, TokenizerError, "'h' and 'e' are merged by an earlier one"),
        ({"merges": ["h e", "q \u2581zz"]}, TokenizerError, "merge 1: 'q' is not in the vocabulary"),
        ({"unk_token": "<none>"}, TokenizerError, "model.unk_token is '<none>'"),
        ({"added_tokens": [{"id": 1, "content": "<s>", "special": False}]}, UnknownTokenizer, "'<s>' is not special"),
    ],
)
def test_a_tokenizer_json_that_is_damaged_or_foreign(changes, kind, message):
    with pytest.raises(kind, match=f"^here: .*{re.escape(message)}"):
        parse_tokenizer(with_parts(**changes), "here")


def test_merges_as_pairs_or_in_one_string_and_older_files():
    text = "the lid, the lid"
    ids = of_case("Metaspace always").encode(text)
    merges = [" ".join(pair) for pair in BPE["merges"]]
    older = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "split": False}
    assert parse_tokenizer(with_parts(merges=merges, normalizer=None, pre_tokenizer=older), "here").encode(text) == ids


SETTINGS = '{"bos": null, "eos": null, "prefix": "always", "doubled": true, "squeezed": false'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 2"),
        (["["], r"line 2: '\[' is not JSON"),
        (['{"bos": 1}'], "line 2: .* should be the settings"),
        ([SETTINGS + "}", '["a", "normal"]'], "line 3: .* is not a piece"),
        ([SETTINGS + "}", '["a", "normal", NaN]'], "piece 0: 'a' has the score nan"),
        ([SETTINGS + "}", '["a", "normal", 0]', '["a", "normal", 0]'], "piece 1: 'a' is piece 0 already"),
        ([SETTINGS + ', "merges": 1}', '["a", "normal", 0]'], "line 3: .* is not a merge"),
        ([SETTINGS + ', "merges": 9}', '["a", "a"]'], "merge 0: 'a' is no piece"),
        ([SETTINGS.replace("null", '"x"', 1) + "}"], "bos is 'x'"),
        ([SETTINGS.replace("true", "7") + "}"], "doubled is 7"),
    ],
)
def test_a_damaged_tokenizer_txt(lines, message, tmp_path):
    path = tmp_path / "tokenizer.txt"
    path.write_text("\n".join(["tinygrad_llm tokenizer 1: sentencepiece", *lines, ""]), encoding="utf-8")
    with pytest.raises(TokenizerError, match=f"tokenizer.txt: .*{message}"):
        load_tokenizer(tmp_path)
