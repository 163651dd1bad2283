"""Words as tokens: where a text is cut, what each tokenizer loses, bad input."""

import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinygrad_llm.errors import TokenizerError
from tinygrad_llm.text import END_OF_TEXT, WordTokenizer, load_tokenizer, story
from tinygrad_llm.text.tales import curriculum, tales
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


# ---- the one that gets the spaces right

WORDS = ["the", "The", "cat", "Ada", "tea", "7", "x_1", "naïve", "Tür", "안녕", ".", ",", "?", '"', "(", "-", "…"]
# each word twice: some with a space before them, some without, some in both ways
WORD = WordTokenizer.train(" ".join(WORDS) + "\n" + "\n".join(WORDS[:9]) + " ".join(["", *WORDS[9:]]))
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="'’"))
wordy_text = st.lists(st.sampled_from([*WORDS, "dog", " ", "  ", "\n", "\t"])).map("".join)


def without_unknown(text, known):
    """The text with `<unk>` for each word and sign that is not known; a text without apostrophes."""
    return re.sub(r"\w+|[^\w\s]|[^\S \n]", lambda word: word[0] if word[0] in known else "<unk>", text)


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from([" ", "\n", "  ", " \n\n "]))))
def test_a_text_of_known_words_comes_back(pieces):
    text = "".join(word + between for word, between in pieces)
    text = text.replace(" .", ".").replace("( ", "(")
    ids = WORD.encode(text)
    assert WORD.special["<unk>"] not in ids
    assert WORD.decode(ids) == "".join(WORD.decode_stream(ids)) == text
    assert WORD.decode_bytes(ids) == text.encode()


@given(any_text | wordy_text)
@example("Ada  cat\n dog, \tthe<unk>")
def test_of_any_text_only_unknown_words_are_lost(text):
    assert WORD.decode(WORD.encode(text)) == without_unknown(text, WORDS)


@given(
    (any_text | wordy_text).filter(
        lambda text: len(set(re.findall(r"\w+|\W", text))) < len(re.findall(r"\w+|\W", text))
    )
)
def test_what_occurs_twice_is_known(text):
    counts = Counter(re.findall(r"\w+|[^\w\s]|[^\S \n]", text))
    twice = {word for word, n in counts.items() if n > 1}
    if not twice:
        return
    tokenizer = WordTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == without_unknown(text, twice)


def test_a_word_and_the_space_before_it_are_one_token():
    tokenizer = WordTokenizer.train("the cat saw the cat. Ada's tea is Ada's.\nthe tea")
    assert tokenizer.words == ["\n", " ", " Ada", " cat", " tea", " the", "'s", ".", "the"]
    assert tokenizer.vocab_size == 12
    for text, tokens in {
        "the cat. the tea": ["the", " cat", ".", " the", " tea"],
        "cat's the": ["", " cat", "'s", " the"],
        " .  cat dog": [" ", ".", " ", " cat", " ", "<unk>"],
        "\n\nthe\n the": ["\n", "\n", "the", "\n", " the"],
    }.items():
        assert [tokenizer.tokens[i].decode() for i in tokenizer.encode(text)] == tokens
    assert tokenizer.unused_ids(12) == []


def test_marks_are_only_text_unless_allowed():
    text = f"the cat{END_OF_TEXT} the"
    assert WORD.eot_id not in WORD.encode(text)
    assert WORD.encode(text, {END_OF_TEXT}) == [*WORD.encode("the cat"), WORD.eot_id, *WORD.encode(" the")]


def test_a_tale_has_one_token_for_each_name_place_and_thing():
    tokenizer = WordTokenizer.train("\n\n".join(curriculum(1, 800)))
    assert tokenizer.vocab_size < 1200
    for tale in tales(1, 50, "validation"):
        ids = tokenizer.encode(tale.text)
        assert tokenizer.decode(ids) == tale.text
        assert tokenizer.special["<unk>"] not in ids
        facts = tale.facts
        for word in (*facts["people"], facts["place"], facts["goal"], facts["thing"], facts["mood"]):
            (i,) = tokenizer.encode(" " + word)
            assert ids.count(i) == len(re.findall(rf"\b{word}\b", tale.text))


@given(any_text | wordy_text)
def test_every_vocabulary_survives_a_file(tmp_path_factory, text):
    tokenizer = WordTokenizer.train(text + " so so")
    folder = tmp_path_factory.mktemp("run")
    tokenizer.save(folder)
    loaded = load_tokenizer(folder)
    assert type(loaded) is WordTokenizer
    assert (loaded.words, loaded.tokens, loaded.special) == (tokenizer.words, tokenizer.tokens, tokenizer.special)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('" a"\n" b c"\n', "line 3: '\" b c\"' is not one word in quotes"),
        ('" a"\n"b\n', "line 3"),
        ('""\n', "line 2"),
        ("7\n", "line 2: '7' is not one word"),
        ('"\\ud800"\n', "line 2"),
        ('" b"\n" a"\n', "line 3: ' a' is out of order or there twice"),
        ('" b"\n" b"\n', "line 3: ' b' is out of order or there twice"),
    ],
)
def test_damaged_files(lines, message, tmp_path):
    (tmp_path / "tokenizer.txt").write_text("tinygrad_llm tokenizer 1: word\n" + lines, encoding="utf-8")
    with pytest.raises(TokenizerError, match=re.escape(message)):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["", "each word is here once", "  "])
def test_training_on_a_text_where_nothing_occurs_twice(text):
    with pytest.raises(TokenizerError, match="no word or sign that occurs twice"):
        WordTokenizer.train(text)


@pytest.mark.parametrize("word", ["two words", "", "  ", " \n"])
def test_what_is_not_one_word(word):
    with pytest.raises(TokenizerError, match="is not one word or sign"):
        WordTokenizer([word])


@given(any_text | wordy_text)
def test_small_letters_are_those_of_the_text_in_small_letters(tmp_path_factory, text):
    plain = WordTokenizer.train(text.lower() + " so so")
    tokenizer = WordTokenizer.train(text + " SO so", lower_case=True)
    assert tokenizer.words == plain.words
    assert tokenizer.encode(text) == plain.encode(text.lower())
    folder = tmp_path_factory.mktemp("run")
    tokenizer.add_special(["<|user|>"]).marking_prompts().save(folder)
    loaded = load_tokenizer(folder)
    assert (loaded.lower_case, loaded.marks_prompts, loaded.added) == (True, True, ("<|user|>",))
    assert loaded.encode(text) == tokenizer.encode(text)


def test_a_mark_is_not_made_small():
    tokenizer = WordTokenizer.train("OH oh", lower_case=True)
    assert tokenizer.encode("Oh" + END_OF_TEXT, {END_OF_TEXT})[-1] == tokenizer.eot_id


@pytest.mark.parametrize("more", ['{"lower_case": false}', '{"lower_case": 1}', '{"lower_case": true, "loud": true}'])
def test_damaged_last_lines(more, tmp_path):
    (tmp_path / "tokenizer.txt").write_text(f'tinygrad_llm tokenizer 2: word\n" a"\n{more}\n', encoding="utf-8")
    with pytest.raises(TokenizerError, match="line 3"):
        load_tokenizer(tmp_path)


def test_the_mark_that_takes_a_space_away_can_be_written():
    tokenizer = WordTokenizer.train("it was a cat, a cat it was")
    ids = tokenizer.encode("cat")  # known with a space before it alone
    assert len(ids) == 2
    assert not {*ids} & {*tokenizer.unused_ids(tokenizer.vocab_size)}
    assert tokenizer.unused_ids(tokenizer.vocab_size + 2) == [tokenizer.vocab_size, tokenizer.vocab_size + 1]
    assert tokenizer.decode(ids) == "cat"
