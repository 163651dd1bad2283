"""The three tokenizers: round trips, the plain encoder against tiktoken, GPT-2's ids, special text, files, bad input."""

import time
from functools import cache
from itertools import groupby

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from tinygrad_llm.errors import CheckpointError, ConfigError, TokenizerError
from tinygrad_llm.text import (
    END_OF_TEXT,
    BPETokenizer,
    BPEVocabulary,
    CharTokenizer,
    GPT2Tokenizer,
    load_tokenizer,
    story,
)
from tinygrad_llm.text.bpe import GPT4_SPLIT_PATTERN, rank_merges, split_pieces
from tinygrad_llm.text.merges_file import VISIBLE
from tinygrad_llm.text.vocabulary import parse_tokenizer, to_json

BPE = BPETokenizer.train(story() + "naïve café, Ünïcödé, 안녕하세요 안녕하세요 😀😀 \n\n\n    1234 1234" * 2, 600)
GPT2 = GPT2Tokenizer()
STORY_CHAR = CharTokenizer.train(story())
EVERY = pytest.mark.parametrize("tokenizer", [BPE, GPT2, STORY_CHAR], ids=lambda tokenizer: tokenizer.name)

unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
# Characters that this Python knows: regex and tiktoken may know different editions of Unicode beyond those.
assigned_text = st.text(st.characters(exclude_categories=["Cs", "Cn"]))
# Pieces of a vocabulary glued together reach deeper merges than random characters do.
wordy_text = st.lists(st.sampled_from([token.decode("utf-8", "ignore") for token in BPE.tokens])).map("".join)


@given(unicode_text | wordy_text)
@example("\ufeffa\r\nb\x00 e\u0301 \u00e9 שלום 👩‍👩‍👧 \U0010ffff<|endoftext|>")
def test_byte_level_round_trip(text):
    for tokenizer in (BPE, GPT2):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, errors="strict") == text
        assert tokenizer.decode_bytes(ids) == text.encode()
        assert "".join(tokenizer.decode_stream(ids)) == text
        assert tokenizer.eot_id not in ids


@given(st.data())
def test_char_round_trip(data):
    alphabet = data.draw(unicode_text.filter(bool))
    text = data.draw(st.text(st.sampled_from(alphabet)))
    tokenizer = CharTokenizer.train(alphabet)
    ids = tokenizer.encode(text)
    assert ids == [sorted(set(alphabet)).index(character) for character in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(set(alphabet)) + 1


@given(assigned_text | wordy_text)
def test_plain_encoder_equals_tiktoken(text):
    for tokenizer in (BPE, GPT2):
        assert tokenizer.encode_plain(text) == tokenizer.encode(text)


@given(st.text(st.sampled_from("aab é\n"), max_size=80), st.text(st.sampled_from("aab é\n"), max_size=80))
def test_plain_encoder_equals_tiktoken_whatever_was_learned(training_text, text):
    tokenizer = BPETokenizer.train(training_text + "a", 280)
    assert tokenizer.encode_plain(text) == tokenizer.encode(text)


HELLO_IN_KOREAN = [31373, 995, 10185, 30, 357, 168, 243, 230, 167, 227, 243, 47991]
HELLO_IN_KOREAN += [246, 168, 226, 116, 168, 248, 242, 8133, 19462, 10163, 30325, 231]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("Every effort moves you", [6109, 3626, 6100, 345]),
        ("Every day holds a", [6109, 1110, 6622, 257]),
        ("Hello, I am", [15496, 11, 314, 716]),
        ("Do you have time", [5211, 345, 423, 640]),
        ("Akwirw ier", [33901, 86, 343, 86, 220, 959]),
        ("Hello, world. Is this-- a test?", [15496, 11, 995, 13, 1148, 428, 438, 257, 1332, 30]),
        ("This is some text", [1212, 318, 617, 2420]),
        (" I really like chocolate", [314, 1107, 588, 11311]),
        ("   leading", [220, 220, 3756]),
        ("don't I'LL", [9099, 470, 314, 6, 3069]),
        ("line\n\n\n  x", [1370, 628, 198, 220, 2124]),
        ("1234567", [10163, 2231, 3134]),
        ("naïve café", [2616, 38776, 40304]),
        (
            "hello world!!!? (안녕하세요!) lol123 😉",
            HELLO_IN_KOREAN,
        ),
    ],
)
def test_gpt2_ids(text, ids):
    assert GPT2.encode(text) == ids
    assert GPT2.encode_plain(text) == ids
    assert GPT2.decode(ids) == text


def test_gpt2_ids_with_the_end_of_text():
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace."
    ids = [15496, 11, 466, 345, 588, 8887, 30, 220, 50256, 554, 262, 4252, 18250, 8812, 2114, 1659, 617]
    ids += [34680, 27271, 13]
    assert GPT2.encode(text, allowed_special={END_OF_TEXT}) == ids
    assert GPT2.decode(ids) == text
    assert GPT2.encode(END_OF_TEXT) == [27, 91, 437, 1659, 5239, 91, 29]
    assert (GPT2.vocab_size, GPT2.eot_id) == (50257, 50256)


@EVERY
def test_end_of_text_is_text_unless_allowed(tokenizer):
    assert tokenizer.eot_id == tokenizer.vocab_size - 1
    text = f"on{END_OF_TEXT}{END_OF_TEXT}no"
    ids = tokenizer.encode(text, allowed_special=[END_OF_TEXT])
    assert ids == [*tokenizer.encode("on"), tokenizer.eot_id, tokenizer.eot_id, *tokenizer.encode("no")]
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("on", allowed_special=[END_OF_TEXT]) == tokenizer.encode("on")
    if tokenizer is STORY_CHAR:  # its alphabet has no "<"
        with pytest.raises(TokenizerError, match="position 2: '<'"):
            tokenizer.encode(text)
    else:
        assert tokenizer.eot_id not in tokenizer.encode(text)
    for wrong in (END_OF_TEXT, {"<|unk|>"}):
        with pytest.raises(TokenizerError, match="pass a set"):
            tokenizer.encode(text, allowed_special=wrong)


def test_encoding_is_a_tiktoken_encoding_of_the_same_vocabulary():
    assert isinstance(BPE.encoding, tiktoken.Encoding)
    assert BPE.encoding.n_vocab == BPE.vocab_size == 600
    assert BPE.encoding.encode(f"it{END_OF_TEXT}", allowed_special="all")[-1] == BPE.eot_id
    assert [BPE.encoding.decode_single_token_bytes(i) for i in range(600)] == BPE.tokens


# ---- special tokens, split patterns, one merge at a time, several texts

USER, ASSISTANT = "<|user|>", "<|assistant|>"
EVERY_KIND = pytest.mark.parametrize(
    "tokenizer",
    [
        BPE,
        BPETokenizer.train(story(), 300, GPT4_SPLIT_PATTERN),
        GPT2,
        STORY_CHAR,
        parse_tokenizer(to_json(BPE), "here"),
        parse_tokenizer(to_json(STORY_CHAR), "here"),
    ],
    ids=["bpe", "bpe, GPT-4", "gpt2", "char", "bpe-vocabulary", "char-vocabulary"],
)


@EVERY_KIND
def test_special_tokens_are_added_behind_the_old_ids(tokenizer, tmp_path):
    before = tokenizer.encode(story())
    chat = tokenizer.add_special([USER, ASSISTANT])
    assert type(chat) is type(tokenizer)
    assert chat.tokens == [*tokenizer.tokens, USER.encode(), ASSISTANT.encode()]
    assert chat.special == tokenizer.special | {USER: tokenizer.vocab_size, ASSISTANT: tokenizer.vocab_size + 1}
    assert chat.eot_id == tokenizer.eot_id
    assert USER not in tokenizer.special  # the old one is as it was
    assert chat.encode(story()) == tokenizer.encode(story()) == before
    text = f"{USER}the lid{ASSISTANT}the end{END_OF_TEXT}"
    ids = [chat.special[USER], *tokenizer.encode("the lid"), chat.special[ASSISTANT], *tokenizer.encode("the end")]
    ids.append(tokenizer.eot_id)
    chat.save(tmp_path)
    for each in (chat, load_tokenizer(tmp_path)):
        assert type(each) is type(tokenizer)
        assert each.tokens == chat.tokens
        assert each.encode(text, chat.special) == ids
        assert each.decode(ids) == text
        assert each.encode(story()) == before
        if isinstance(each, CharTokenizer):
            with pytest.raises(TokenizerError, match="'<'"):  # a character like any other, which the story has not
                each.encode(text, {USER})
        else:
            assert not set(each.encode(text)) & set(each.special.values())  # text, unless they are allowed
            assert each.encode(text, {USER})[0] == chat.special[USER]


def test_the_longest_special_token_is_taken():
    tokenizer = BPE.add_special(["<|a", "<|a|>"])
    assert tokenizer.encode("<|a|><|a", tokenizer.special) == [tokenizer.special["<|a|>"], tokenizer.special["<|a"]]


def test_special_tokens_may_be_added_again(tmp_path):
    one = STORY_CHAR.add_special([USER])
    two = one.add_special([ASSISTANT])
    two.save(tmp_path)
    assert load_tokenizer(tmp_path).special == two.special == STORY_CHAR.add_special([USER, ASSISTANT]).special
    assert STORY_CHAR.add_special([]).tokens == STORY_CHAR.tokens


def test_a_tiktoken_encoding_has_the_added_tokens():
    assert USER not in BPE.encoding.special_tokens_set
    chat = BPE.add_special([USER])
    assert chat.encoding.encode(f"it{USER}", allowed_special="all") == [*BPE.encode("it"), chat.special[USER]]


@EVERY_KIND
@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([END_OF_TEXT], r"'<\|endoftext\|>' is a special token already, with the id \d+"),
        ([USER, USER], r"'<\|user\|>' is a special token already"),
        (["e"], "'e' is a token of text, with the id"),
        ([""], "empty"),
        (USER, "pass a list"),
        ([b"<|user|>"], "must be a str, not bytes"),
        (["\ud800"], "lone surrogate"),
    ],
)
def test_special_tokens_that_cannot_be(tokenizer, marks, message):
    with pytest.raises(TokenizerError, match=message):
        tokenizer.add_special(marks)


def test_a_file_without_anything_new_is_as_older_versions_wrote_it(tmp_path):
    BPE.save(tmp_path)
    lines = (tmp_path / "tokenizer.txt").read_text(encoding="utf-8").splitlines()
    assert (lines[0], len(lines)) == ("tinygrad_llm tokenizer 1: bpe", 1 + len(BPE.merges))
    BPETokenizer(BPE.merges, pattern=GPT4_SPLIT_PATTERN).add_special([USER]).save(tmp_path)
    newer = (tmp_path / "tokenizer.txt").read_text(encoding="utf-8").splitlines()
    assert newer[0] == "tinygrad_llm tokenizer 2: bpe"
    assert newer[1:-1] == lines[1:]
    assert load_tokenizer(tmp_path).pattern == GPT4_SPLIT_PATTERN


# What cl100k_base, GPT-4's vocabulary, has for the texts below: bytes, and each merge with the id of what it makes.
CL100K_BYTES = dict(zip(
    b"!()123?dehlorw\xb8\xeb\xec\xed\xf0 \x84\x85\x88\x89\x94\x95\x98\x9a\x9f",
    [0, 7, 8, 16, 17, 18, 30, 67, 68, 71, 75, 78, 81, 86, 116, 167, 168, 169, 172, 220, 226, 227, 230, 231, 242, 243, 246, 248,
     253],
    strict=True,
))  # fmt: skip
CL100K_MERGES = [
    (269, b"o", b"r"), (289, b" ", b"w"), (301, b"e", b"l"), (320, b" ", b"("), (383, b"h", b"e"), (385, b"l", b"o"),
    (509, b"l", b"d"), (616, b"el", b"l"), (657, b"l", b"l"), (717, b"1", b"2"), (1146, b"w", b"o"), (1410, b"or", b"ld"),
    (1419, b"2", b"3"), (1917, b" w", b"orld"), (2438, b"r", b"l"), (3001, b"!", b"!"), (4191, b" w", b"or"), (4513, b"12", b"3"),
    (4896, b"el", b"lo"), (7459, b"\xed", b"\x95"), (9468, b"\xf0", b"\x9f"), (11410, b" ", b"\xf0\x9f"), (12340, b"!!", b"!"),
    (14901, b"\xec", b"\x84"), (14957, b"w", b"orld"), (15269, b"\xec", b"\x9a"), (15339, b"h", b"ello"),
    (16582, b"\xed\x95", b"\x98"), (16715, b"!", b")"), (24670, b" w", b"o"), (27623, b" \xf0\x9f", b"\x98"),
    (31495, b"\xec", b"\x95"), (36811, b"\xec\x9a", b"\x94"), (42529, b"\xec\x84", b"\xb8"), (50222, b"h", b"el"),
    (50810, b"w", b"or"), (51402, b"\xec\x84\xb8", b"\xec\x9a\x94"), (57037, b" \xf0\x9f\x98", b"\x89"), (57195, b"h", b"ell"),
    (58490, b"!", b"?"), (75265, b"\xeb", b"\x85"), (76460, b"\xf0\x9f", b"\x98"),
    (92245, b"\xed\x95\x98", b"\xec\x84\xb8\xec\x9a\x94"),
]  # fmt: skip


def test_gpt4_ids():
    def seen(token):
        return "".join(VISIBLE[byte] for byte in token)

    vocab = {seen([byte]): i for byte, i in CL100K_BYTES.items()}
    vocab |= {seen(left + right): i for i, left, right in CL100K_MERGES}
    pairs = [(seen(left), seen(right)) for _, left, right in CL100K_MERGES]
    tokenizer = BPEVocabulary(vocab, pairs, {END_OF_TEXT: 100257}, END_OF_TEXT, GPT4_SPLIT_PATTERN)
    text = "hello123!!!? (안녕하세요!) 😉"
    ids = [15339, 4513, 12340, 30, 320, 31495, 230, 75265, 243, 92245, 16715, 57037]
    assert tokenizer.encode(text) == tokenizer.encode_plain(text) == ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(f"{END_OF_TEXT}hello world", {END_OF_TEXT}) == [100257, 15339, 1917]


@cache
def trained(pattern):
    return BPETokenizer.train([story(), "12345 123456 I'LL WE'LL\n\n\n !!\n" * 9], 500, pattern)


OWN = [GPT4_SPLIT_PATTERN, r"\w+", r"(\s)\1+|(?i:the)|\w", r"[\s\S]+"]


@given(assigned_text | wordy_text | st.text(st.sampled_from("aI'L1 \n!é")), st.sampled_from(OWN))
def test_any_pattern_round_trips_and_the_fast_encoder_is_the_plain_one(text, pattern):
    tokenizer = trained(pattern)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, errors="strict") == text
    assert tokenizer.encode_plain(text) == ids


def test_gpt4_pieces_are_cut_as_tiktoken_cuts_them():
    tokenizer = trained(GPT4_SPLIT_PATTERN)
    text = story() + "I'LL 1234567\n\n  (x)\n"
    assert tokenizer.encode(text) == tokenizer.encoding.encode_ordinary(text)
    assert tokenizer.encode(text) != BPETokenizer(tokenizer.merges).encode(text)


def test_white_space_without_end_between_gpt4_pieces():
    text = "x!" + "\n" * 100_000 + " " * 1_000_000 + "x"  # on which tiktoken's own cutting gives up
    assert trained(GPT4_SPLIT_PATTERN).decode(trained(GPT4_SPLIT_PATTERN).encode(text)) == text


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "not a regular expression"), (r"\w*", "matches an empty text"), ("", "empty text"), (7, "must be a str")],
)
def test_patterns_that_cannot_be(pattern, message):
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer.train("some text", 300, pattern)
    with pytest.raises(TokenizerError, match=message):
        BPETokenizer([], pattern=pattern)


@given(assigned_text | wordy_text)
def test_merges_can_be_watched_and_end_in_the_ids(text):
    for tokenizer in (BPE, GPT2):
        ids = []
        for piece, steps in groupby(tokenizer.explain_merges(text), lambda step: step.piece):
            before = None
            for step in steps:
                assert tokenizer.decode_bytes(step.ids) == piece.encode()
                if step.pair is None:
                    ids += before or []  # the same piece again
                    assert len(step.ids) == len(piece.encode())
                else:
                    assert len(step.ids) < len(before)
                    assert step.pair == tokenizer.merges[step.rank]
                before = step.ids
            ids += before
        assert ids == tokenizer.encode(text)


def test_the_merges_of_a_word():
    """The ranks are lines of OpenAI's vocab.bpe, of which the first, "Ġ t", has the rank 0."""
    steps = [("|".join(GPT2.decode([i]) for i in step.ids), step.rank) for step in GPT2.explain_merges(" hello")]
    assert steps == [
        (" |h|e|l|l|o", None),
        (" |he|l|l|o", 2),
        (" |he|ll|o", 41),
        (" he|ll|o", 83),
        (" hell|o", 5712),
        (" hello", 23492),
    ]


def test_plain_encoding_does_not_rank_all_merges_each_time(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "tinygrad_llm.text.byte_level.rank_merges", lambda merges: calls.append(1) or rank_merges(merges)
    )
    tokenizer = BPETokenizer(BPE.merges)
    for _ in range(3):
        assert tokenizer.encode_plain("the lid of the box") == BPE.encode("the lid of the box")
    assert len(calls) == 1


@EVERY_KIND
@pytest.mark.parametrize("n_threads", [None, 1, 4])
def test_a_batch_is_encoded_as_one_by_one(tokenizer, n_threads):
    chat = tokenizer.add_special([USER])
    texts = ["", USER, *split_pieces(story())[:50], story()[:5000]]
    assert chat.encode_batch(texts, {USER}, n_threads) == [chat.encode(text, {USER}) for text in texts]
    assert chat.encode_batch(iter(texts[2:])) == [tokenizer.encode(text) for text in texts[2:]]
    assert chat.encode_batch([]) == []
    with pytest.raises(TokenizerError, match="lone surrogate"):
        chat.encode_batch([*texts[2:], "\ud800"], (), n_threads)


def test_learning_from_texts_that_come_one_after_the_other():
    lines = story().splitlines(keepends=True)
    assert BPETokenizer.train(iter([story()]), 400).merges == BPETokenizer.train(story(), 400).merges
    assert BPETokenizer.train((line for line in lines), 400).vocab_size == 400
    for texts, message in [([], "empty"), (["", ""], "empty"), (["a", 7], "not int"), (["a", "\ud800"], "surrogate")]:
        with pytest.raises(TokenizerError, match=message):
            BPETokenizer.train(texts, 300)


# ---- decoding


def test_decoding_half_a_character():
    ids = GPT2.encode(" 안")
    assert len(ids) > 2
    assert GPT2.decode(ids[:-1]) == " \ufffd"
    assert GPT2.decode(ids[:-1], errors="ignore") == " "
    with pytest.raises(TokenizerError, match="not UTF-8 at byte 1"):
        GPT2.decode(ids[:-1], errors="strict")


@given(st.lists(st.integers(0, 255)))
def test_stream_never_shows_half_a_character_and_equals_decode(ids):
    pieces = list(BPE.decode_stream(ids))
    assert "" not in pieces
    assert "".join(pieces) == BPE.decode(ids)


def test_stream_waits_for_the_character():
    given_out = []

    def ids():
        for byte in "a😀b".encode():
            yield byte
            given_out.append(byte)

    stream = BPE.decode_stream(ids())
    assert (next(stream), len(given_out)) == ("a", 0)
    assert (next(stream), len(given_out)) == ("😀", 4)
    assert list(stream) == ["b"]
    assert list(BPE.decode_stream([0xF0, 0x9F])) == ["\ufffd"]


@EVERY
@pytest.mark.parametrize("bad", [-1, 10**6, 2**70, 1.0, True, "1", None])
def test_decoding_what_is_no_id(tokenizer, bad):
    for decode in (tokenizer.decode, tokenizer.decode_bytes, lambda ids: list(tokenizer.decode_stream(ids))):
        with pytest.raises(TokenizerError, match="position 2: ") as caught:
            decode([0, 1, bad])
        assert repr(bad) in str(caught.value)
        assert f"0 to {tokenizer.eot_id}" in str(caught.value)


@EVERY
def test_decoding_arrays(tokenizer):
    ids = tokenizer.encode("the end")
    for dtype in (np.int64, np.uint16):
        assert tokenizer.decode(np.array(ids, dtype)) == "the end"
    with pytest.raises(TokenizerError, match=f"position 0: .*{tokenizer.vocab_size}"):
        tokenizer.decode([tokenizer.vocab_size])


# ---- bad text


@EVERY
def test_lone_surrogate(tokenizer):
    for text in ("on\ud800", "on\ud83d\ude00"):  # a pair of them in a str is no character either
        with pytest.raises(TokenizerError, match="position 2: lone surrogate U\\+D8"):
            tokenizer.encode(text)
    with pytest.raises(TokenizerError, match="position 2: lone surrogate"):
        BPE.encode_plain("on\udfff")
    with pytest.raises(TokenizerError, match="position 2: lone surrogate"):
        BPETokenizer.train("on\udfff", 300)
    with pytest.raises(TokenizerError, match="position 2: lone surrogate"):
        CharTokenizer.train("on\udfff")


@EVERY
def test_text_that_is_no_str(tokenizer):
    with pytest.raises(TokenizerError, match="must be a str, not bytes"):
        tokenizer.encode(b"on")


def test_char_tokenizer_names_the_foreign_character_and_its_place():
    tokenizer = CharTokenizer.train("abc")
    with pytest.raises(TokenizerError, match=r"position 3: 'é' \(U\+00E9\)"):
        tokenizer.encode("abcé")
    with pytest.raises(TokenizerError, match=r"position 15: 'é'"):
        tokenizer.encode(f"a{END_OF_TEXT}bé", allowed_special={END_OF_TEXT})


def test_training_on_nothing():
    with pytest.raises(TokenizerError, match="empty"):
        BPETokenizer.train("", 300)
    with pytest.raises(TokenizerError, match="empty"):
        CharTokenizer.train("")


@pytest.mark.parametrize("vocab_size", [256, 0, -1, 300.0, True, "300", None])
def test_vocab_size_that_cannot_be(vocab_size):
    with pytest.raises(ConfigError, match=r"vocab_size .*256 bytes.* is .*: it must be an integer, 257 or more"):
        BPETokenizer.train("some text", vocab_size)


def test_smallest_vocabulary_and_one_that_the_text_cannot_fill():
    assert BPETokenizer.train("some text", 257).encode("é") == [0xC3, 0xA9]
    tokenizer = BPETokenizer.train("ab ab", 10**9)
    assert tokenizer.merges == [(97, 98)]
    assert tokenizer.vocab_size == 258


@pytest.mark.parametrize("merges", [[(97, 256)], [(-1, 97)], [(97, 98), (97, 98)]])
def test_merges_that_cannot_be(merges):
    with pytest.raises(TokenizerError, match="merge"):
        BPETokenizer(merges)


@pytest.mark.parametrize(
    "text",
    [
        " " * 1_000_000,
        " " * 1_000_000 + "x",
        "x" + " \n" * 500_000 + "x" + "\t" * 50_000 + "y ",
        "a" * 300_000,
        "the cat sat on a mat. " * 100_000,
    ],
    ids=["spaces", "spaces before a word", "runs", "letters", "one line"],
)
def test_long_runs(text):
    BPE.encode("")  # builds the encoding
    started = time.process_time()
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert time.process_time() - started < 10  # about a second; in quadratic time the letters alone take half a minute


@pytest.mark.parametrize("after", ["", "x", " x", "\n"])
@pytest.mark.parametrize("n", [9_999, 10_000, 10_001, 10_002])
@pytest.mark.parametrize("space", [" ", "\n"])
def test_cutting_a_long_run_changes_no_id(n, after, space):
    text = "x" + space * n + after
    assert BPE.encode(text) == BPE.encoding.encode_ordinary(text)
    assert GPT2.encode(text) == GPT2.encoding.encode_ordinary(text)


# ---- files


@EVERY
def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["tokenizer.txt"]
    loaded = load_tokenizer(tmp_path / "run")
    assert type(loaded) is type(tokenizer)
    assert loaded.tokens == tokenizer.tokens
    assert loaded.encode(story()) == tokenizer.encode(story())


@given(unicode_text.filter(bool))
def test_any_alphabet_and_any_merges_survive_a_file(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("run")
    for tokenizer in (CharTokenizer.train(text), BPETokenizer.train(text * 2, 300)):
        tokenizer.save(folder)
        assert load_tokenizer(folder).tokens == tokenizer.tokens


def test_saved_merges_can_be_read_by_people(tmp_path):
    BPETokenizer.train("the then the\n\n the\n\n", 270).save(tmp_path)
    lines = (tmp_path / "tokenizer.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "tinygrad_llm tokenizer 1: bpe"
    assert lines[1:] == ["h e", "t he", "Ġ the", "Ċ Ċ"]


HEADER, HEADER_2 = "tinygrad_llm tokenizer 1: ", "tinygrad_llm tokenizer 2: "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: ''"),
        ("bpe\n", "line 1: 'bpe'"),
        (HEADER + "unigram\n", "line 1"),
        (HEADER + "bpe\na b\nab\n", "line 3: 'ab' is not two tokens"),
        (HEADER + "bpe\na b\n\nc d\n", "line 3: '' is not two tokens"),
        (HEADER + "bpe\na  b\n", "line 2: 'a  b' is not two tokens"),
        (HEADER + "bpe\na b c\n", "line 2"),
        (HEADER + "bpe\nab c\na b\n", "line 2: 'ab' is no token"),
        (HEADER + "bpe\na b\nab \u4e2d\n", "line 3: '\u4e2d' is no token"),
        (HEADER + "bpe\na b\nc d\na b\n", "line 4: 'ab' is a token already"),
        (HEADER + "bpe\na b\nab c\nb c\na bc\n", "line 5: 'abc' is a token already"),
        (HEADER + "bpe\na b\nb c\na bc\n", "line 4: earlier merges never leave"),
        (HEADER + 'char\n"b"\n"a"\n', "line 3: 'a' is out of order"),
        (HEADER + 'char\n"b"\n"b"\n', "line 3: 'b' is out of order"),
        (HEADER + 'char\n"b"\n"cd"\n', "line 3"),
        (HEADER + 'char\n"b"\n7\n', "line 3: '7' is not one character"),
        (HEADER + 'char\n"b"\n"c\n', "line 3"),
        (HEADER + 'char\n"b"\n"\\ud800"\n', "line 3"),
        (HEADER + "gpt2\na b\n", "line 2"),
        (HEADER_2 + "bpe\n", "line 1: None should be a JSON object"),
        (HEADER_2 + "bpe\na b\n", "line 2"),
        (HEADER_2 + 'bpe\na b\n{"special": "<|user|>"}\n', "line 3: .* should be"),
        (HEADER_2 + 'bpe\na b\n{"special": ["ab"]}\n', "line 3: 'ab' is a token of text"),
        (HEADER_2 + 'bpe\na b\n{"special": [7]}\n', "line 3: text must be a str"),
        (HEADER_2 + 'bpe\na b\n{"specials": ["<|user|>"]}\n', "line 3: .* should be"),
        (HEADER_2 + 'bpe\na b\n{"special": [], "marks_prompts": true}\n', "line 3: .* should be"),
        (HEADER_2 + 'bpe\na b\n{"marks_prompts": 1}\n', "line 3: .* should be"),
        (HEADER_2 + 'char\n"b"\n{}\n', "line 3: .* should be"),
        (HEADER_2 + 'bpe\na b\n{"pattern": "("}\n', "line 3: .*not a regular expression"),
        (HEADER_2 + 'bpe\na b\n["<|user|>"]\n', "line 3: .* should be a JSON object"),
        (HEADER_2 + "bpe\na b\n" + "[" * 100_000 + "\n", "line 3"),
        (HEADER_2 + 'char\n"b"\n{"pattern": "a"}\n', "line 3"),
        ("tinygrad_llm tokenizer 3: bpe\n", "line 1"),
    ],
)
def test_damaged_files(content, message, tmp_path):
    path = tmp_path / "tokenizer.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("marks", [(), ("<|user|>",)], ids=["plain", "special"])
@pytest.mark.parametrize("pattern", [None, r"\w+|\W"], ids=["gpt2's", "own"])
def test_a_tokenizer_whose_prompts_begin_with_the_mark(tmp_path, marks, pattern):
    made = BPETokenizer.train("the cat and the hat " * 3, 300, **({} if pattern is None else {"pattern": pattern}))
    plain = made.add_special(marks)
    tokenizer = plain.marking_prompts()
    assert not plain.marks_prompts
    assert plain.encode_prompt("the cat") == plain.encode("the cat") == tokenizer.encode("the cat")
    assert tokenizer.encode_prompt("the cat") == [plain.eot_id, *plain.encode("the cat")]
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.marks_prompts
    assert (again.tokens, again.special) == (plain.tokens, plain.special)
    assert again.encode_prompt("a hat") == tokenizer.encode_prompt("a hat")
    assert not again.marking_prompts(False).marks_prompts
    vocabulary = parse_tokenizer(to_json(made), "x").marking_prompts()
    vocabulary.save(tmp_path / "vocabulary")
    assert (
        load_tokenizer(tmp_path / "vocabulary").encode_prompt("the")
        == vocabulary.encode_prompt("the")
        != made.encode("the")
    )


def test_file_that_is_missing_or_not_utf8(tmp_path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.txt: not there"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "tokenizer.txt").write_bytes(b"tiny\xff")
    with pytest.raises(TokenizerError, match="not UTF-8 at byte 4"):
        load_tokenizer(tmp_path)


def test_file_with_the_line_ends_of_windows(tmp_path):
    BPE.save(tmp_path)
    path = tmp_path / "tokenizer.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_tokenizer(tmp_path).merges == BPE.merges


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file, not a folder")
    with pytest.raises(CheckpointError, match=r"run.*cannot be written"):
        STORY_CHAR.save(tmp_path / "run")
