"""Words as tokens: where a text is cut, what each tokenizer loses, bad input."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import TokenizerError
from tinygrad_llm.text import END_OF_TEXT, story
from tinygrad_llm.text.word import UNKNOWN, SimpleTokenizerV1, SimpleTokenizerV2, split_words

STORY_V1, STORY_V2 = SimpleTokenizerV1.train(story()), SimpleTokenizerV2.train(story())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t ", []),
        ("Hello, world. This, is a test.", ["Hello", ",", "world", ".", "This", ",", "is", "a", "test", "."]),
        ("Hello, world. Is this-- a test?", ["Hello", ",", "world", ".", "Is", "this", "--", "a", "test", "?"]),
        ('"It\'s" (a_b)', ['"', "It", "'", "s", '"', "(", "a", "_", "b", ")"]),
        ("a;b:c!d ---", ["a", ";", "b", ":", "c", "!", "d", "--", "-"]),
        ("tea? <|endoftext|> In", ["tea", "?", END_OF_TEXT, "In"]),
        ("two\u00a0words", ["two", "words"]),
    ],
)
def test_where_a_text_is_cut(text, words):
    assert split_words(text) == words


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_nothing_but_white_space_is_lost_in_cutting(text):
    words = split_words(text)
    assert "".join(words) == "".join(text.split())
    assert all(word and word == word.strip() for word in words)


def test_ids_follow_the_sorted_words():
    tokenizer = SimpleTokenizerV1.train("the cat sat. The end, the cat")
    assert tokenizer.tokens == [",", ".", "The", "cat", "end", "sat", "the"]
    assert tokenizer.vocab_size == 7
    assert tokenizer.encode("the end.") == [6, 4, 1]
    assert tokenizer.decode([6, 4, 1]) == "the end."
    two = SimpleTokenizerV2.train("the cat sat. The end, the cat")
    assert two.tokens == [*tokenizer.tokens, END_OF_TEXT, UNKNOWN]
    assert two.encode(f"the dog. {END_OF_TEXT} The end") == [6, 8, 1, 7, 2, 4]
    assert two.decode([6, 8, 1, 7, 2, 4]) == f"the {UNKNOWN}. {END_OF_TEXT} The end"


def test_spaces_come_back_as_a_guess():
    text = "(so) -- 'tis"
    assert SimpleTokenizerV1.train(text).decode(SimpleTokenizerV1.train(text).encode(text)) == "( so) --' tis"


def test_the_words_of_the_story_come_back():
    for tokenizer in (STORY_V1, STORY_V2):
        ids = tokenizer.encode(story())
        assert split_words(tokenizer.decode(ids)) == split_words(story())
        assert max(ids) < len(set(re.findall(r"\S+", " ".join(split_words(story())))))
    assert STORY_V1.encode(story()) == STORY_V2.encode(story())
    assert STORY_V2.vocab_size == STORY_V1.vocab_size + 2


def test_a_word_that_is_not_in_the_vocabulary():
    with pytest.raises(TokenizerError, match=r"word 1: 'zyzzyva' is not in the vocabulary.*SimpleTokenizerV2"):
        STORY_V1.encode("the zyzzyva")
    ids = STORY_V2.encode("the zyzzyva")
    assert ids == [STORY_V2.vocab["the"], STORY_V2.vocab[UNKNOWN]]
    assert STORY_V2.decode(ids) == "the <|unk|>"


def test_the_special_words_in_the_training_text_count_once():
    tokenizer = SimpleTokenizerV2.train(f"a {END_OF_TEXT} b {UNKNOWN} c")
    assert tokenizer.tokens == ["a", "b", "c", END_OF_TEXT, UNKNOWN]


@pytest.mark.parametrize("bad", [-1, 4, 1.0, True, "a", None])
def test_decoding_what_is_no_id(bad):
    with pytest.raises(TokenizerError, match=r"position 1: .* is not an id of this vocabulary \(0 to 3\)"):
        SimpleTokenizerV2.train("a b").decode([0, bad])


def test_bad_input():
    for text in ("", " \n"):
        with pytest.raises(TokenizerError, match="no words"):
            SimpleTokenizerV2.train(text)
    with pytest.raises(TokenizerError, match="must be a str, not bytes"):
        STORY_V2.encode(b"a")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        STORY_V2.encode("a \ud800")
    for vocab in ({"a": 1}, {"a": 0, "b": 0}, {"a": "0"}):
        with pytest.raises(TokenizerError, match=r"ids of \d words must be 0 to"):
            SimpleTokenizerV1(vocab)
    with pytest.raises(TokenizerError, match=r"vocab has no <\|unk\|>"):
        SimpleTokenizerV2({"a": 0})
