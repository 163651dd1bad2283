"""WordPiece against the library `tokenizers`, by ids stored in tests/reference; training against counting; bad files."""

import json
import re
import zlib
from collections import Counter
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import store

from tinygrad_llm.errors import ConfigError, TokenizerError
from tinygrad_llm.text import WordPieceTokenizer, load_tokenizer, story
from tinygrad_llm.text.bpe import merge
from tinygrad_llm.text.corpus import encode_texts, read_corpus
from tinygrad_llm.text.tokenizers import UnknownTokenizer
from tinygrad_llm.text.vocabulary import parse_tokenizer, to_json
from tinygrad_llm.text.wordpiece import MARKS
from tinygrad_llm.text.wordpiece_files import parse_vocab, with_options

CASES = store.read("wordpiece")
PIECES = store.wordpieces()
TEXTS = store.scripts(2000)
NAMES = {
    "lowercase": "lower_case",
    "strip_accents": "strip_accents",
    "clean_text": "clean",
    "handle_chinese_chars": "split_chinese",
    "max_input_chars_per_word": "longest_word",
}
BERT = WordPieceTokenizer(PIECES)
CASED = WordPieceTokenizer(PIECES, lower_case=False)
STORY = WordPieceTokenizer.train(story(), 700)
any_text = st.text(st.characters(exclude_categories=["Cs"]))
every = pytest.mark.parametrize("tokenizer", [BERT, CASED, STORY], ids=["uncased", "cased", "learned"])


def of_case(name):
    case = CASES[name]
    options = {NAMES[key]: value for part in ("normalizer", "model") for key, value in case.get(part, {}).items()}
    return WordPieceTokenizer(PIECES, **options, special=["<U>"] if name == "marks" else ())


def assert_as_stored(tokenizer, name, special=()):
    ids = [tokenizer.encode(text, special) for text in TEXTS]
    for text, row, stored in zip(TEXTS, ids, CASES[name]["ids"], strict=False):
        assert row == json.loads(stored), text
    texts = [tokenizer.decode(row).replace(" ", "") for row in ids]
    sums = [zlib.crc32(json.dumps([ids[i : i + 50], texts[i : i + 50]]).encode()) for i in range(0, len(TEXTS), 50)]
    assert tuple(sums) == CASES[name]["sums"]
    assert (
        0.02 < sum(row.count(tokenizer.unk_id) for row in ids) / sum(map(len, ids)) < 0.4
    )  # some are unknown, most not


@pytest.mark.parametrize("name", [name for name in CASES if name != "frames"])
def test_ids_and_texts_of_2000_strings(name, tmp_path):
    tokenizer = of_case(name)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for each in (tokenizer, loaded, parse_tokenizer(json.loads(json.dumps(to_json(tokenizer))), "here")):
        assert_as_stored(each, name, each.special if name == "marks" else ())
        assert (each.pieces, each.tokens, each.special) == (PIECES, tokenizer.tokens, tokenizer.special)
        assert (each.settings(), each.eot_id) == (tokenizer.settings(), 5)


def test_ids_are_the_places_in_the_file():
    assert BERT.vocab_size == len(PIECES)
    assert BERT.special == {"[PAD]": 0, "[UNK]": 2, "[CLS]": 4, "[SEP]": 5, "[MASK]": 7}
    assert (BERT.pad_id, BERT.unk_id, BERT.cls_id, BERT.sep_id, BERT.mask_id) == (0, 2, 4, 5, 7)
    assert BERT.eot_id == BERT.bos_id == BERT.sep_id
    small = WordPieceTokenizer(["a", "[UNK]", "[MASK]"])
    assert (small.pad_id, small.cls_id, small.sep_id, small.mask_id, small.eot_id) == (None, None, None, 2, None)
    assert [PIECES[i] for i in BERT.encode("Unaffable the x[MASK]")] == [
        "una", "##ffa", "##ble", "the", "x", "[", "m", "##a", "##s", "##k", "]"
    ]  # fmt: skip


def test_one_text_and_two_are_framed_as_by_transformers():
    for row, (first, *second) in zip(
        CASES["frames"]["rows"], [["the café"], ["", "a"], ["un unaffable", "The lids!"]], strict=True
    ):
        assert BERT.frame(BERT.encode(first), *map(BERT.encode, second)) == tuple(map(json.loads, row))
    with pytest.raises(TokenizerError, match=r"of 3 pieces has no \[CLS\]"):
        WordPieceTokenizer(["[UNK]", "[SEP]", "a"]).frame([2])
    with pytest.raises(TokenizerError, match=r"has no \[SEP\]"):
        WordPieceTokenizer(["[UNK]", "[CLS]"]).frame([])


@every
@given(any_text, any_text)
@example("a[MASK]", "[SEP]b")
def test_texts_beside_each_other_with_a_space_between(tokenizer, first, second):
    assert tokenizer.encode(f"{first} {second}") == tokenizer.encode(first) + tokenizer.encode(second)
    assert tokenizer.encode_batch([first, second], n_threads=1) == [tokenizer.encode(first), tokenizer.encode(second)]
    if "[MASK]" not in first + second:
        masked = tokenizer.encode(f"{first}[MASK]{second}", {"[MASK]"})
        assert masked == [*tokenizer.encode(first), tokenizer.mask_id, *tokenizer.encode(second)]
    assert not {*tokenizer.encode(first)} & {*tokenizer.special.values()} - {tokenizer.unk_id}


@every
@given(any_text)
@example("don't (say) 50%, 'a'.")
def test_what_is_decoded_is_encoded_as_before(tokenizer, text):
    ids = tokenizer.encode(text)
    decoded = tokenizer.decode(ids)
    assert tokenizer.encode(decoded, {"[UNK]"}) == ids
    stream = "".join(tokenizer.decode_stream(ids))
    assert decoded == stream.removeprefix(" ")
    assert tokenizer.decode_bytes(ids).decode() == stream


@every
def test_every_id_comes_back(tokenizer):
    begins = ends = 0
    for i, piece in enumerate(tokenizer.pieces):
        text = tokenizer.decode([i])
        if piece.startswith("##") and len(piece) > 2:
            assert text == piece[2:]
            ends += 1
        elif i in tokenizer.special.values():
            assert tokenizer.encode(text, tokenizer.special) == [i]
        else:
            assert text == piece
            begins += tokenizer.encode(piece) == [i]
    assert begins > 100
    assert ends > 100
    assert tokenizer.unused_ids(tokenizer.vocab_size + 1) == [tokenizer.vocab_size]


def test_where_decode_puts_spaces():
    tokenizer = WordPieceTokenizer.train("the lid and (it's, so -; salt). a", 99)

    def through(text):
        return tokenizer.decode(tokenizer.encode(text, {"[UNK]", "[SEP]"}))

    assert through("The  lid, and (the salt); it's \n so.") == "the lid, and (the salt); it's so."
    assert through("[UNK] the[SEP]lid") == "[UNK] the [SEP] lid"
    assert through("a - a") == "a - a"
    assert tokenizer.decode([]) == ""


# ---- training


def learned_slowly(text, vocab_size):
    """The definition: count all pairs anew for every piece. `text` is of small letters and spaces alone."""
    words = [[word[0], *(f"##{letter}" for letter in word[1:])] for word in text.split()]
    within = {letter for word in text.split() if len(word) > 1 for letter in word}
    pieces = [*MARKS, *sorted(set(text) - {" "}), *sorted(f"##{letter}" for letter in within)]
    while len(pieces) < vocab_size:
        counts = Counter(pair for word in words for pair in pairwise(word))
        numbered = {pair: tuple(map(pieces.index, pair)) for pair in counts}
        best = min(counts, key=lambda pair: (-counts[pair], numbered[pair]), default=None)
        if best is None or counts[best] < 2:
            break
        joined = best[0] + best[1].removeprefix("##")
        words = [merge(word, best, joined) for word in words]
        if joined not in pieces:
            pieces.append(joined)
    return pieces


@given(st.text("abc ", min_size=1).filter(str.strip), st.integers(11, 60))
@example("abcabc bcabc cabc abc abcab", 60)
def test_training_is_joining_the_most_frequent_pair_again_and_again(text, vocab_size):
    assert WordPieceTokenizer.train(text, vocab_size).pieces == learned_slowly(text, vocab_size)


def test_a_vocabulary_learned_from_the_story():
    assert STORY.pieces[:5] == list(MARKS)
    assert STORY.vocab_size == 700
    assert STORY.unk_id not in STORY.encode(story())
    assert STORY.pieces == WordPieceTokenizer.train([story()], 700).pieces
    letters = [piece for piece in STORY.pieces[5:] if len(piece.removeprefix("##")) == 1]
    assert STORY.pieces[5 : 5 + len(letters)] == letters == sorted(letters, key=lambda piece: (len(piece), piece))
    assert {"the", "##ing", "una"} <= {*STORY.pieces}
    sizes = [len(WordPieceTokenizer.train(story(), size).encode(story())) for size in (100, 300, 900)]
    assert sizes == sorted(sizes, reverse=True)
    cased = WordPieceTokenizer.train(story(), 700, lower_case=False)
    assert not cased.lower_case
    assert "Una" in cased.pieces
    assert cased.decode(cased.encode("Una Gellatly")) == "Una Gellatly"
    assert "é" in WordPieceTokenizer.train("café café", 100, strip_accents=False).decode([*range(5, 12)])


def test_of_too_many_characters_the_rarest_are_unknown():
    tokenizer = WordPieceTokenizer.train("aaa aaa bb bb c 日 日 日 本", 5 + 6)
    assert tokenizer.pieces[5:] == ["a", "b", "c", "日", "##a", "##b"]
    assert tokenizer.encode("日本 aab") == [8, 1, 5, 9, 10]
    assert WordPieceTokenizer.train("ab ab", 6).pieces[5:] == ["a"]
    assert WordPieceTokenizer.train("x" * 101 + " a", 99).pieces[5:] == ["a"]


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("", 100, "has no words"),
        (" \n\x00", 100, "has no words"),
        ("a", 5, "vocab_size (5 special tokens, characters and pieces) is 5"),
        ("a", "9", "vocab_size"),
        (b"a", 100, "must be a str, not bytes"),
        ("a\ud800", 100, "lone surrogate"),
    ],
)
def test_what_cannot_be_learned_from(text, size, message):
    with pytest.raises((TokenizerError, ConfigError), match=re.escape(message)):
        WordPieceTokenizer.train(text, size)


# ---- corpora, marks


def test_a_corpus_of_documents(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("<|endoftext|>".join(["The lid. " * 20, "Salt and the lid [SEP] " * 20, "Una. " * 40]))
    corpus = read_corpus([path], "wordpiece", context_length=8, vocab_size=100, special_tokens=["<|user|>"])
    tokenizer = corpus.tokenizer
    assert isinstance(tokenizer, WordPieceTokenizer)
    assert tokenizer.special["<|user|>"] == tokenizer.vocab_size - 1 < 100
    assert "##text" not in tokenizer.pieces
    assert corpus.train_ids.count(tokenizer.sep_id) == 22
    assert corpus.introduce_marks()[:1] == ["<|endoftext|> stands in the text 2 times: each is the end of a document."]
    assert encode_texts(STORY, ["the lid", "una"]) == [*STORY.encode("the lid"), STORY.sep_id, *STORY.encode("una")]


def test_more_marks(tmp_path):
    tokenizer = STORY.add_special(["<|user|>"]).marking_prompts()
    assert tokenizer.encode("the<|user|>Lid", {"<|user|>"}) == [*STORY.encode("the"), 700, *STORY.encode("lid")]
    assert 700 not in tokenizer.encode("the<|user|>Lid")
    assert tokenizer.decode([700, *STORY.encode("the")]) == "<|user|> the"
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.special, loaded.added, loaded.marks_prompts) == (tokenizer.special, ("<|user|>",), True)
    assert loaded.encode_prompt("the") == [loaded.sep_id, *STORY.encode("the")]
    with pytest.raises(TokenizerError, match="'the' is a token of text, with the id"):
        STORY.add_special(["the"])
    with pytest.raises(TokenizerError, match="pass a list"):
        STORY.add_special("the")
    with pytest.raises(TokenizerError, match=r"'\[SEP\]' is a special token already"):
        STORY.add_special(["[SEP]"])


# ---- bad pieces, options and files


@pytest.mark.parametrize(
    ("pieces", "options", "message"),
    [
        ([], {}, "the vocabulary is empty"),
        (["a", "b"], {}, "no piece is '[UNK]'"),
        (["[UNK]"], {"unknown": "<unk>"}, "no piece is '<unk>'"),
        (["[UNK]"], {"special": ["<U>"]}, "no piece is '<U>'"),
        (["[UNK]", "a", "a"], {}, "piece 2: 'a' is piece 1 already"),
        (["[UNK]", ""], {}, "piece 1: has 0 characters"),
        (["[UNK]", "a" * 1001], {}, "piece 1: has 1,001 characters"),
        (["[UNK]", "a\nb"], {}, "piece 1: 'a\\nb' has the end of a line in it"),
        (["[UNK]", 7], {}, "piece 1: text must be a str, not int"),
        (["[UNK]", "\ud800"], {}, "piece 1: position 0: lone surrogate"),
        (["[UNK]"], {"lower_case": 1}, "lower_case is 1"),
        (["[UNK]"], {"strip_accents": "no"}, "strip_accents is 'no'"),
        (["[UNK]"], {"longest_word": 0}, "longest_word is 0"),
        (["[UNK]"], {"prefix": None}, "must be a str, not NoneType"),
    ],
)
def test_what_is_no_vocabulary(pieces, options, message):
    with pytest.raises((TokenizerError, ConfigError), match=re.escape(message)):
        WordPieceTokenizer(pieces, **options)


SETTINGS = json.dumps(BERT.settings())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 2: [] should be the settings"),
        (['"[UNK]"'], "line 2"),
        (["{}", '"[UNK]"'], "line 2: ['{}'] should be the settings"),
        ([SETTINGS.replace("true", "7", 1), '"[UNK]"'], "lower_case is 7"),
        ([SETTINGS.replace("[]", "7"), '"[UNK]"'], "line 2"),
        ([SETTINGS.replace("[]", "[[]]"), '"[UNK]"'], "tokenizer.txt: "),
        ([SETTINGS.replace("100", "1e3"), '"[UNK]"'], "longest_word is 1000.0"),
        ([SETTINGS], "the vocabulary is empty"),
        ([SETTINGS, '"a"'], "no piece is '[UNK]'"),
        ([SETTINGS, '"[UNK]"', '"[UNK]"'], "line 4: '[UNK]' is line 3 already"),
        ([SETTINGS, '"[UNK]"', "a"], "line 4: 'a' is not JSON"),
        ([SETTINGS, '"[UNK]"', "7"], "line 4: text must be a str"),
        ([SETTINGS, '"[UNK]"', '"\\ud800"'], "line 4: position 0: lone surrogate"),
        ([SETTINGS, '"[UNK]"', "[" * 100_000], "line 4"),
        ([SETTINGS, '"[UNK]"', json.dumps("a" * 5000)], "line 4: has 5,000 characters"),
    ],
)
def test_damaged_files_of_ours(lines, message, tmp_path):
    path = tmp_path / "tokenizer.txt"
    path.write_text("\n".join(["tinygrad_llm tokenizer 1: wordpiece", *lines, ""]))
    with pytest.raises(TokenizerError, match=re.escape(message)) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def added(i, content):
    return {"added_tokens_decoder": {str(i): {"content": content, "special": True}}}


@pytest.mark.parametrize(
    ("data", "options", "kind", "message"),
    [
        (b"", {}, TokenizerError, "the vocabulary is empty"),
        (b"[UNK]\na\nb\na\n", {}, TokenizerError, "line 4: 'a' is line 2 already"),
        (b"a\nb\n", {}, TokenizerError, "no piece is '[UNK]'"),
        (b"[UNK]\na\n\nb\n", {}, TokenizerError, "line 3: has 0 characters"),
        (b"[UNK]\n" + b"a" * 2000, {}, TokenizerError, "line 2: has 2,000 characters"),
        (b"[UNK]\na\nb\xff\n", {}, TokenizerError, "line 3: not UTF-8 at byte 9"),
        (b"[UNK]\n", {"do_lower_case": "no"}, TokenizerError, "lower_case is 'no'"),
        (b"[UNK]\n", {"unk_token": "<unk>"}, TokenizerError, "no piece is '<unk>'"),
        (b"[UNK]\n", {"cls_token": {"content": "<s>"}}, UnknownTokenizer, "cls_token is '<s>'"),
        (b"[UNK]\n", {"do_basic_tokenize": False}, UnknownTokenizer, "do_basic_tokenize is false"),
        (b"[UNK]\n", {"never_split": ["AT&T"]}, UnknownTokenizer, "never_split has 'AT&T'"),
        (b"[UNK]\n", {"added_tokens_decoder": {"1": {"content": "x"}}}, UnknownTokenizer, "'x' is not special"),
        (b"[UNK]\n", {"added_tokens_decoder": {"x": 7}}, TokenizerError, "added_tokens_decoder has 'x': 7"),
        (b"[UNK]\n", added(7, "x"), TokenizerError, "the special token 'x' has the id 7: its place is 1"),
        (b"[UNK]\n", added(7, "[UNK]"), TokenizerError, "the special token '[UNK]' has the id 7: its place is 0"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_vocab_txt(data, options, kind, message):
    with pytest.raises(kind, match="^here: .*" + re.escape(message)) as caught:
        parse_vocab(data, options, "here")
    assert isinstance(caught.value, UnknownTokenizer) == (kind is UnknownTokenizer)


def test_vocab_txt_with_its_options():
    data = "\n".join(PIECES).encode()
    for stored in (data, data + b"\n", data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data):
        assert_as_stored(parse_vocab(stored, {}, "here"), "uncased")
    assert_as_stored(
        parse_vocab(data, {"do_lower_case": False, "strip_accents": None, "never_split": None}, "here"), "cased"
    )
    assert_as_stored(parse_vocab(data, {"strip_accents": False}, "here"), "uncased with accents")
    assert_as_stored(parse_vocab(data, {"tokenize_chinese_chars": False}, "here"), "Chinese in words")
    entry = {"content": "<U>", "special": True}
    for options in (
        {"additional_special_tokens": ["<U>"]},
        {"added_tokens_decoder": {"6": entry}, "never_split": ["[MASK]"]},
    ):
        tokenizer = parse_vocab(data, options, "here")
        assert_as_stored(tokenizer, "marks", tokenizer.special)
    new = {"added_tokens_decoder": {str(len(PIECES) + k): {"content": f"<{k}>", "special": True} for k in (1, 0)}}
    assert parse_vocab(data, new, "here").added == ("<0>", "<1>")
    assert (
        "\u2028" in parse_vocab("[UNK]\n\u2028\n\x85".encode(), {}, "here").pieces
    )  # ends of lines to Python, not to BERT


BERT_PROCESSING = {"type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4]}
NEW = {"id": 9999, "content": "<9>"}


def changed(part, **fields):
    data = json.loads(json.dumps(to_json(BERT)))
    if part is None:
        return data | fields
    return data | {part: data[part] | fields}


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (changed(None, normalizer={"type": "NFC"}), UnknownTokenizer, "the normalizer is {'type': 'NFC'}"),
        (changed(None, pre_tokenizer={"type": "Whitespace"}), UnknownTokenizer, "pre_tokenizer is {'type': 'Whitespace'}"),
        (changed(None, pre_tokenizer=None), UnknownTokenizer, "pre_tokenizer is None"),
        (changed("post_processor", single=[]), UnknownTokenizer, "post_processor makes"),
        (changed(None, post_processor={"type": "ByteLevel"}), UnknownTokenizer, "post_processor makes"),
        (changed(None, post_processor=BERT_PROCESSING | {"sep": ["</s>", 5]}), UnknownTokenizer, "</s>"),
        (changed("normalizer", lowercase="yes"), TokenizerError, "lower_case is 'yes'"),
        (changed("model", max_input_chars_per_word=-1), TokenizerError, "longest_word is -1"),
        (changed("model", unk_token="<unk>"), TokenizerError, "no piece is '<unk>'"),
        (changed("model", continuing_subword_prefix=7), TokenizerError, "must be a str, not int"),
        (changed("model", vocab={"[UNK]": 0, "a": 2}), TokenizerError, "id 0 belongs to '[UNK]' and to '[PAD]'"),
        (changed(None, added_tokens=[NEW | {"special": True}]), TokenizerError, "the id 9999: its place is"),
        (changed(None, added_tokens=[NEW]), UnknownTokenizer, "'<9>' is not special"),
    ],
)  # fmt: skip
def test_a_bad_or_foreign_tokenizer_json(data, kind, message):
    with pytest.raises(kind, match="^here: .*" + re.escape(message)) as caught:
        parse_tokenizer(data, "here")
    assert isinstance(caught.value, UnknownTokenizer) == (kind is UnknownTokenizer)


def test_other_forms_of_tokenizer_json():
    assert_as_stored(parse_tokenizer(changed(None, post_processor=BERT_PROCESSING, added_tokens=[]), "here"), "uncased")
    older = changed(None, post_processor=None)
    del older["model"]["type"]
    assert_as_stored(parse_tokenizer(older, "here"), "uncased")
    assert_as_stored(parse_tokenizer(changed(None, normalizer=None), "here"), "nothing")
    with pytest.raises(TokenizerError, match="no piece has the id 1, there are 2 up to 2"):
        parse_tokenizer(changed("model", vocab={"[UNK]": 0, "a": 2}) | {"added_tokens": []}, "here")


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats()
    | st.sampled_from(["", "[UNK]", "a", "7", "9" * 5000, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["content", "type", "special", "id", "a", "3"]), inner, max_size=3)
    ),
    max_leaves=5,
)
SMALL = WordPieceTokenizer(["[UNK]", "a", "[SEP]"])
JSON = to_json(SMALL)
FIELDS = [(None, key) for key in JSON] + [(part, key) for part in ("model", "normalizer") for key in JSON[part]]
SAID = [
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "unk_token",
    "sep_token",
    "additional_special_tokens",
]
SAID += ["added_tokens_decoder", "never_split", "do_basic_tokenize"]


@given(st.sampled_from(FIELDS), anything)
def test_whatever_stands_in_a_tokenizer_json_is_read_or_refused(field, value):
    part, key = field
    data = JSON | {key: value} if part is None else JSON | {part: JSON[part] | {key: value}}
    with suppress(TokenizerError):
        assert parse_tokenizer(data, "here").encode("x") in ([], [0])


@given(st.dictionaries(st.sampled_from(SAID), anything, max_size=3))
def test_whatever_is_said_beside_a_vocab_txt_is_read_or_refused(options):
    with suppress(TokenizerError):
        assert parse_vocab(b"[UNK]\na\n[SEP]", options, "here").encode("x")
    with suppress(TokenizerError):
        assert parse_tokenizer(with_options(JSON, options), "here").encode("x")


@given(st.dictionaries(st.sampled_from([*SMALL.settings(), "other"]), anything, max_size=2))
def test_whatever_stands_in_a_file_of_ours_is_read_or_refused(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("run")
    lines = [
        "tinygrad_llm tokenizer 1: wordpiece",
        json.dumps(SMALL.settings() | changes),
        *map(json.dumps, SMALL.pieces),
    ]
    (folder / "tokenizer.txt").write_text("\n".join(lines))
    with suppress(TokenizerError):
        assert load_tokenizer(folder).encode("x")
