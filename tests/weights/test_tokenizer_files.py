"""Tokenizers beside weights: the ids of the file, in whatever order it has them; and back to the same file."""

import json
import pickle
import re

import numpy as np
import pytest
from reference import store

from tinygrad_llm.errors import CorruptCheckpoint, TokenizerError, UnsafeFile
from tinygrad_llm.generation import stream_text
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import (
    BPETokenizer,
    BPEVocabulary,
    CharTokenizer,
    CharVocabulary,
    GPT2Tokenizer,
    SentencePieceTokenizer,
    WordPieceTokenizer,
    load_tokenizer,
    story,
)
from tinygrad_llm.text.bpe import GPT4_SPLIT_PATTERN, SPLIT_PATTERN
from tinygrad_llm.text.merges_file import VISIBLE
from tinygrad_llm.text.sentencepiece_files import parse_model
from tinygrad_llm.text.vocabulary import UnknownTokenizer, parse_tokenizer, to_json
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.tokenizer_files import read_meta, read_tokenizer, write_tokenizer

TEXTS = [
    "Una lifted the lid.",
    "  two  spaces\n\n\ttab ",
    "naïve ☕ 日本 👩‍🚀",
    "don't we'll I'M 12 345",
    "<|endoftext|>",
    "",
    "a" * 99,
]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
SPECIAL = [{"id": 0, "content": "<|endoftext|>", "special": True}]


@pytest.fixture(scope="module")
def trained():
    return BPETokenizer.train(story(), 400)


def shuffled(tokenizer, seed=0):
    """The same tokenizer with its ids dealt out anew, as a tokenizer.json."""
    data = to_json(tokenizer)
    new = np.random.default_rng(seed).permutation(tokenizer.vocab_size).tolist()
    model = data["model"] | {"vocab": {word: new[i] for word, i in data["model"]["vocab"].items()}}
    added = [entry | {"id": new[entry["id"]]} for entry in data["added_tokens"]]
    return data | {"model": model, "added_tokens": added}, new


@pytest.mark.parametrize("merges_as", [list, " ".join])
def test_ids_of_a_file_are_kept_whatever_their_order(trained, merges_as):
    data, new = shuffled(trained)
    data["model"]["merges"] = [merges_as(pair) for pair in data["model"]["merges"]]
    tokenizer = parse_tokenizer(json.loads(json.dumps(data)), "here")
    assert isinstance(tokenizer, BPETokenizer)
    assert tokenizer.eot_id == new[trained.eot_id]
    for text in TEXTS:
        assert tokenizer.encode(text) == [new[i] for i in trained.encode(text)]
        assert tokenizer.encode_plain(text) == tokenizer.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    mark = "<|endoftext|>"
    assert tokenizer.encode(f"a{mark}b", {mark}) == [new[i] for i in trained.encode(f"a{mark}b", {mark})]


def test_a_tiktoken_encoding_only_of_ids_in_the_order_of_the_merges(trained):
    same = parse_tokenizer(to_json(trained), "here")
    assert same.encoding.encode_ordinary(story()) == trained.encode(story())
    with pytest.raises(TokenizerError, match="another one here"):
        parse_tokenizer(shuffled(trained)[0], "here").encoding  # noqa: B018


def test_two_merges_may_make_one_token():
    """Merges are looked up by pair: a+b first, then ab+c, and where a stands alone b+c, then a+bc makes the same token."""
    vocab = {VISIBLE[byte]: byte for byte in range(256)} | {"bc": 256, "ab": 257, "abc": 258}
    merges = ["b c", "a bc", "a b", "ab c"]
    data = {"model": {"type": "BPE", "vocab": vocab, "merges": merges}, "pre_tokenizer": BYTE_LEVEL}
    tokenizer = parse_tokenizer(data, "here")
    assert tokenizer.encode("abc") == [258]
    assert tokenizer.encode("abab") == [257, 257]
    assert tokenizer.eot_id is None


@pytest.mark.parametrize("marks", [[], ["<|user|>", "<|assistant|>"]])
@pytest.mark.parametrize(
    "make",
    [
        lambda: BPETokenizer.train(story(), 300),
        lambda: BPETokenizer.train(story(), 300, GPT4_SPLIT_PATTERN),
        lambda: CharTokenizer.train(story()),
        GPT2Tokenizer,
    ],
)
def test_what_is_written_is_read(tmp_path, make, marks):
    tokenizer = make().add_special(marks)
    write_tokenizer(tmp_path, tokenizer, 16)
    names = {path.name for path in tmp_path.iterdir()}
    bpe = getattr(tokenizer, "pattern", None) == SPLIT_PATTERN  # the two files know of no other
    assert names == {"tokenizer.json", "tokenizer_config.json"} | ({"vocab.json", "merges.txt"} if bpe else set())
    again = read_tokenizer(tmp_path)
    text = "<|endoftext|>".join([story(), *marks, "I'LL WE'LL 1234567" if bpe else ""])
    ids = tokenizer.encode(text, tokenizer.special)
    if bpe:
        (tmp_path / "tokenizer.json").unlink()
        assert read_tokenizer(tmp_path).encode(text, tokenizer.special) == ids
    assert isinstance(again, GPT2Tokenizer) == isinstance(tokenizer, GPT2Tokenizer)
    assert again.tokens == tokenizer.tokens
    assert (again.special, again.eot_id) == (tokenizer.special, tokenizer.eot_id)
    assert again.encode(text, tokenizer.special) == ids
    again.save(tmp_path / "run")
    assert load_tokenizer(tmp_path / "run").encode(text, tokenizer.special) == ids


def test_a_special_token_spelled_as_one_of_text_cannot_be_written():
    tokenizer = BPETokenizer([(32, 97)]).add_special(["Ġa"])  # in GPT-2's letters that is " a"
    with pytest.raises(TokenizerError, match="'Ġa': a special token and, in GPT-2's letters, one of text"):
        to_json(tokenizer)


SPLIT = {"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": False}


def test_a_pattern_of_its_own_is_that_of_the_file(trained):
    cut = {"type": "Sequence", "pretokenizers": [SPLIT, BYTE_LEVEL | {"use_regex": False}]}
    tokenizer = parse_tokenizer(to_json(trained) | {"pre_tokenizer": cut}, "here")
    assert tokenizer.pattern == "[a-z]+"
    assert tokenizer.encode("the end") == [*trained.encode("the"), *trained.encode(" "), *trained.encode("end")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SPLIT | {"behavior": "Removed"}, {"use_regex": False}),
        (SPLIT | {"invert": True}, {"use_regex": False}),
        (SPLIT | {"pattern": {"String": "a"}}, {"use_regex": False}),
        (SPLIT | {"pattern": {"Regex": "("}}, {"use_regex": False}),
        (SPLIT, {"use_regex": True}),
        (SPLIT, {"use_regex": False, "add_prefix_space": True}),
        ({"type": "Digits"}, {"use_regex": False}),
    ],
)
def test_other_ways_of_cutting_are_said_to_be_unknown(trained, first, second):
    cut = {"type": "Sequence", "pretokenizers": [first, BYTE_LEVEL | second]}
    with pytest.raises(UnknownTokenizer, match="here"):
        parse_tokenizer(to_json(trained) | {"pre_tokenizer": cut}, "here")


def test_openai_s_files(tmp_path):
    write_tokenizer(tmp_path, GPT2Tokenizer(), 16)
    for old, new in {"vocab.json": "encoder.json", "merges.txt": "vocab.bpe"}.items():
        (tmp_path / old).rename(tmp_path / new)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert isinstance(read_tokenizer(tmp_path), GPT2Tokenizer)


LETTERS = {"b": 0, "a": 3, "\n": 1, "é": 7}


@pytest.mark.parametrize("kind", ["vocab.json", "meta.json", "tokenizer.json", "WordLevel", "BPE"])
def test_characters_keep_their_ids(tmp_path, kind):
    split = {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated"}
    model = {"type": kind, "vocab": LETTERS, "merges": [], "unk_token": None}
    contents = {
        "vocab.json": ("vocab.json", LETTERS),
        "meta.json": ("meta.json", {"stoi": LETTERS, "itos": {}}),
        "tokenizer.json": ("tokenizer.json", {"stoi": LETTERS}),
        "WordLevel": ("tokenizer.json", {"model": model, "pre_tokenizer": split}),
        "BPE": ("tokenizer.json", {"model": model, "pre_tokenizer": None}),
    }
    name, content = contents[kind]
    (tmp_path / name).write_text(json.dumps(content))
    tokenizer = read_tokenizer(tmp_path)
    assert isinstance(tokenizer, CharTokenizer)
    assert tokenizer.encode("ab\né") == [3, 0, 1, 7]
    assert tokenizer.decode([7, 3]) == "éa"
    assert tokenizer.eot_id is None
    assert tokenizer.unused_ids(10) == [2, 4, 5, 6, 8, 9]
    with pytest.raises(TokenizerError, match=r"position 1: 'c' .* is not among the 4 characters"):
        tokenizer.encode("ac")
    with pytest.raises(TokenizerError, match="2 is not a token id"):
        tokenizer.decode([2])
    tokenizer.save(tmp_path / "run")
    assert load_tokenizer(tmp_path / "run").encode("ab\né") == [3, 0, 1, 7]


def test_special_tokens_beside_characters(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1, "[PAD]": 2}))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.encode("axa") == [1, 0, 1]
    assert tokenizer.encode("a[PAD]", {"[PAD]"}) == [1, 2]


def test_the_characters_of_nanogpt(tmp_path):
    path = tmp_path / "meta.pkl"
    path.write_bytes(pickle.dumps({"vocab_size": 2, "itos": {0: "x", 1: "\n"}, "stoi": {"x": 0, "\n": 1}}))
    assert read_meta(path).encode("x\nx") == [0, 1, 0]
    for content, kind, words in (
        (pickle.dumps({"stoi": open}), UnsafeFile, "names 'io.open'"),
        (pickle.dumps({"stoi": {"x": 0}})[:-3], CorruptCheckpoint, "damaged"),
        (b"x" * 5_000_000, CorruptCheckpoint, "are the most"),
        (pickle.dumps({"stoi": {1: "x"}}), UnknownTokenizer, "has no characters with their ids"),
    ):
        path.write_bytes(content)
        with pytest.raises(kind, match=r"^\S*meta.pkl: .*" + words):
            read_meta(path)


def test_the_end_of_a_document_is_what_the_files_say(tmp_path):
    added = [*SPECIAL, {"id": 5, "content": "<eos>", "special": True}]
    data = {
        "model": {"type": "BPE", "vocab": {"a": 1}, "merges": []},
        "pre_tokenizer": BYTE_LEVEL,
        "added_tokens": added,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert read_tokenizer(tmp_path).eot_id == 0
    assert read_tokenizer(tmp_path, eos_id=5).eot_id == 5
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<eos>"}}))
    assert read_tokenizer(tmp_path).eot_id == 5


def bpe(**changes):
    model = {"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"]}
    data = {"model": model, "pre_tokenizer": BYTE_LEVEL, "added_tokens": SPECIAL}
    return data | {key: value for key, value in changes.items() if key in data or key == "normalizer"} | (
        {"model": model | {key: value for key, value in changes.items() if key in (*model, "byte_fallback")}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ({}, TokenizerError, "model is None: it must be an object"),
        (bpe(vocab=[]), UnknownTokenizer, "Unigram"),
        (bpe(vocab={"a": True}), TokenizerError, "the id of 'a' is True"),
        (bpe(vocab={"a": -1}), TokenizerError, "the id of 'a' is -1"),
        (bpe(vocab={"a": 10**9}), TokenizerError, "the id of 'a' is 1000000000"),
        (bpe(vocab={"a": 1, "b": 1}), TokenizerError, "id 1 belongs to 'a' and to 'b'"),
        (bpe(vocab={"<|endoftext|>": 9, "a": 1}, merges=[]), TokenizerError, "'<|endoftext|>' has two ids, 0 and 9"),
        (bpe(merges=["a c"]), TokenizerError, "merge 0: 'c' is not in the vocabulary"),
        (bpe(merges=["b a"]), TokenizerError, "merge 0: 'ba' is not in the vocabulary"),
        (bpe(merges=["a b c"]), TokenizerError, "merge 0 is 'a b c': it must be two tokens"),
        (bpe(merges=[["a", 1]]), TokenizerError, "merge 0 is"),
        (bpe(merges="a b"), TokenizerError, "merges is 'a b': it must be a list"),
        (bpe(vocab={"語": 1}, merges=[]), UnknownTokenizer, "'語' is not spelled in GPT-2's letters"),
        (bpe(normalizer={"type": "NFC"}), UnknownTokenizer, "has a normalizer"),
        (bpe(pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True}), UnknownTokenizer, "it is not GPT-2's"),
        (bpe(pre_tokenizer={"type": "Metaspace"}), UnknownTokenizer, "model.fuse_unk is false"),
        (bpe(byte_fallback=True), UnknownTokenizer, "not known here together"),
        (bpe(added_tokens=[{"id": 7, "content": "x", "special": False}]), UnknownTokenizer, "'x' is not special"),
        (bpe(vocab={"": 4}), TokenizerError, "id 4 belongs to an empty text"),
        (bpe(added_tokens=[7]), TokenizerError, "added_tokens has 7"),
        (bpe(added_tokens=[{"content": "x", "special": True}]), TokenizerError, "the id of 'x' is None"),
    ],
)
def test_a_bad_or_foreign_tokenizer_is_named(data, kind, message):
    with pytest.raises(kind, match="^here: .*" + re.escape(message)):
        parse_tokenizer(data, "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [(bpe(normalizer={"type": "NFC"}), "has a normalizer"), ({"chars": ["a"]}, "has no characters with their ids")],
)
def test_a_foreign_tokenizer_leaves_the_weights_usable(tmp_path, data, message):
    save_pretrained(GPTModel(GPTConfig(5, 4, 8, 2, 1)), tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(data))
    with pytest.warns(RuntimeWarning, match="no tokenizer: .*" + message):
        _, tokenizer, report = load_pretrained(tmp_path / "a", report=True)
    assert tokenizer is None
    assert "no tokenizer" in str(report)


def test_ids_beyond_the_vocabulary_are_never_written(tmp_path):
    """A table padded to a round size: the extra rows get the highest scores, and are not chosen."""
    tokenizer = CharVocabulary({"a": 0, "b": 2}, {}, None)
    model = GPTModel(GPTConfig(64, 8, 8, 2, 1, drop_rate=0.0), rng=Generator(1)).eval()
    model.out_head.weight.data[...] = 0
    model.out_head.weight.data[[1, *range(3, 64)]] = model.final_norm.scale.data  # 0 for a centred row: a tie at least
    model.final_norm.shift.data[...] = 1  # so that unknown ids score 8, known ones 0
    save_pretrained(model, tmp_path / "padded", tokenizer)
    model, tokenizer = load_pretrained(tmp_path / "padded")
    assert tokenizer.vocab_size == 3
    for options in ({}, {"temperature": 5.0, "rng": Generator(0)}, {"logit_bias": {0: 3.0}}):
        text = "".join(stream_text(model, tokenizer, "ab", 20, **options))
        assert len(text) == 20
        assert set(text) <= {"a", "b"}
    assert isinstance(tokenizer, CharVocabulary)
    assert not isinstance(tokenizer, BPEVocabulary)


def test_a_tokenizer_larger_than_the_model_is_said(tmp_path):
    save_pretrained(GPTModel(GPTConfig(2, 4, 8, 2, 1)), tmp_path / "a")
    (tmp_path / "a" / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "c": 2}))
    with pytest.warns(RuntimeWarning, match="the tokenizer has 3 ids, the model 2"):
        load_pretrained(tmp_path / "a")
    with pytest.raises(TokenizerError, match="they do not belong together"):
        save_pretrained(
            GPTModel(GPTConfig(2, 4, 8, 2, 1)), tmp_path / "b", CharVocabulary({"a": 0, "b": 1, "c": 2}, {}, None)
        )
    assert not (tmp_path / "b").exists()


LLAMA = store.path("sentencepiece").with_suffix(".model").read_bytes()


def test_sentencepiece_beside_weights_and_back(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(LLAMA)
    tokenizer = read_tokenizer(tmp_path)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    ids = tokenizer.encode(story())
    assert tokenizer.encode_prompt("The lid") == [1, *tokenizer.encode("The lid")]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))
    assert read_tokenizer(tmp_path).encode_prompt("The lid") == tokenizer.encode("The lid")
    for marked in (tokenizer, tokenizer.marking_prompts(False), tokenizer.add_special(["<|user|>"])):
        folder = tmp_path / f"{marked.marks_prompts}{marked.vocab_size}"
        model = GPTModel(GPTConfig(marked.vocab_size, 8, 8, 2, 1))
        save_pretrained(model, folder, marked)
        assert {path.name for path in folder.iterdir()} == {
            "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
        }  # fmt: skip
        config, options = (json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json"))
        assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
        assert [options[f"{name}_token"] for name in ("bos", "eos", "unk")] == ["<s>", "</s>", "<unk>"]
        _, again = load_pretrained(folder)
        assert (again.special, again.bos_id, again.eot_id) == (marked.special, 1, 2)
        assert again.encode(story()) == ids
        assert again.encode_prompt("The lid") == marked.encode_prompt("The lid")


def test_a_damaged_sentencepiece_file_is_named(tmp_path):
    for name in ("tokenizer.model", "tokenizer.bin"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(LLAMA[:100])
        with pytest.raises(TokenizerError, match=re.escape(str(folder / name))):
            read_tokenizer(folder)
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(TokenizerError, match="a folder, not a file"):
            read_tokenizer(folder)


def test_what_is_written_keeps_the_space_that_it_begins_with():
    tokenizer = parse_model(LLAMA, "here").marking_prompts()
    model = GPTModel(GPTConfig(600, 16, 8, 2, 1, drop_rate=0.0), rng=Generator(1)).eval()
    model.out_head.weight.data[...] = 0
    (the,) = tokenizer.encode("the")
    assert "".join(stream_text(model, tokenizer, "Una", 2, logit_bias={the: 5.0})) == " the the"


@pytest.mark.parametrize("marks", [[], ["<|user|>"]])
@pytest.mark.parametrize(
    ("options", "bert"),
    [
        ({}, True),
        ({"lower_case": False, "strip_accents": True}, True),
        ({"clean": False}, False),
        ({"prefix": "@@"}, False),
    ],
)
def test_wordpiece_beside_weights_and_back(tmp_path, options, bert, marks):
    pieces = [piece.replace("##", options.get("prefix", "##")) for piece in store.wordpieces()]
    tokenizer = WordPieceTokenizer(pieces, **options, special=["<U>"]).add_special(marks)
    folder = tmp_path / "a"
    model = GPTModel(GPTConfig(tokenizer.vocab_size, 8, 8, 2, 1))
    save_pretrained(model, folder, tokenizer)
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names | ({"vocab.txt"} if bert else set())
    said = json.loads((folder / "tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == ("BertTokenizer" if bert else "PreTrainedTokenizerFast")
    assert said["unk_token"] == "[UNK]"
    for name in ("tokenizer.json", "vocab.txt")[: 1 + bert]:
        _, again = load_pretrained(folder)
        assert isinstance(again, WordPieceTokenizer)
        assert (again.tokens, again.special, again.eot_id) == (tokenizer.tokens, tokenizer.special, 5)
        for text in store.scripts(200):
            assert again.encode(text, again.special) == tokenizer.encode(text, tokenizer.special)
        (folder / name).unlink()
    if bert:
        (folder / "vocab.txt").write_bytes(b"[UNK]\na\na\n")
        with pytest.raises(TokenizerError, match=r"^\S*vocab.txt: line 3: 'a' is line 2 already$"):
            read_tokenizer(folder)


def test_what_is_said_beside_a_tokenizer_json_comes_first(tmp_path):
    """As in transformers, whose BertTokenizer is made anew of tokenizer_config.json."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(to_json(WordPieceTokenizer(["[UNK]", "a", "A", "é"]))))
    assert read_tokenizer(tmp_path).encode("a A é") == [1, 1, 0]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert read_tokenizer(tmp_path).encode("a A é") == [1, 2, 3]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"strip_accents": False}))
    assert read_tokenizer(tmp_path).encode("a A é") == [1, 1, 3]
