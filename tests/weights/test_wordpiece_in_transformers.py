"""Our WordPiece tokenizers opened by transformers, and theirs here. Skipped where it is not installed (extra `reference`)."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import store
from reference.opened_there import transformers

from tinygrad_llm.text import WordPieceTokenizer, story
from tinygrad_llm.weights.tokenizer_files import read_tokenizer, write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")
OLD = unicodedata.ucd_3_2_0  # letters that are what they were in 2002 are so in the tables of every library
LETTERS = [
    chr(code)
    for code in range(0x110000)
    if not 0xD800 <= code < 0xE000
    and OLD.category(chr(code)) == unicodedata.category(chr(code)) != "Cn"
    and chr(code) != "\u166d"  # punctuation until 2019
]
scripts = st.text(st.sampled_from([letter for letters in store.SCRIPTS.values() for letter in letters]), max_size=30)
texts = st.text(st.sampled_from(LETTERS)) | scripts | st.lists(st.sampled_from(store.WORDS)).map(" ".join)
PIECES = [
    *store.wordpieces(),
    *(letter for letter in LETTERS[200::37] if letter.strip() and letter not in store.wordpieces()),
]
KINDS = {
    "uncased": {},
    "cased": {"lower_case": False},
    "uncased with accents": {"strip_accents": False},
    "cased without accents": {"lower_case": False, "strip_accents": True},
    "Chinese in words": {"split_chinese": False},
}


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """Ours, and what transformers opens of the folder; once from tokenizer.json, once from vocab.txt."""
    folder = tmp_path_factory.mktemp("bert")
    ours = WordPieceTokenizer(PIECES, **KINDS[request.param]).add_special(["<|user|>"])
    write_tokenizer(folder, ours, 64)
    theirs = [transformers.AutoTokenizer.from_pretrained(folder)]
    (folder / "tokenizer.json").unlink()
    theirs.append(transformers.AutoTokenizer.from_pretrained(folder))
    assert [type(opened).__name__ for opened in theirs] == ["BertTokenizer"] * 2
    return ours, theirs


def test_marks_and_sizes_are_the_same_in_transformers(both):
    ours, theirs = both
    for opened in theirs:
        assert len(opened) == ours.vocab_size
        assert {mark: opened.convert_tokens_to_ids(mark) for mark in ours.special} == ours.special
        roles = [getattr(opened, f"{role}_token_id") for role in ("pad", "unk", "cls", "sep", "mask")]
        assert roles == [ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id]
        assert opened.model_max_length == 64


@settings(max_examples=150)
@given(texts, texts.filter(bool))  # to transformers, an empty second text is none
def test_one_text_and_two_give_the_same_ids(both, first, second):
    ours, theirs = both
    marks = ours.special
    for opened in theirs:
        for pair in ([first], [first, second]):
            found = opened(*pair)
            ids = ours.frame(*(ours.encode(text, marks) for text in pair))
            assert (found["input_ids"], found["token_type_ids"]) == ids


def test_what_transformers_saves_is_read(tmp_path, both):
    ours, theirs = both
    for k, opened in enumerate(theirs):
        folder = tmp_path / str(k)
        opened.save_pretrained(folder)
        again = read_tokenizer(folder)
        assert isinstance(again, WordPieceTokenizer)
        assert (again.vocab_size, again.special) == (ours.vocab_size, ours.special)
        more = {"special": [] if k == 0 else ["<|user|>"]}  # which a vocab.txt has among its lines
        assert again.settings() == ours.settings() | more
        for text in store.scripts(300):
            assert again.encode(text, again.special) == ours.encode(text, ours.special)


def test_learned_from_the_story(tmp_path):
    ours = WordPieceTokenizer.train(story(), 500)
    write_tokenizer(tmp_path, ours, 64)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(
        story(), add_special_tokens=False
    ).input_ids == ours.encode(story())
