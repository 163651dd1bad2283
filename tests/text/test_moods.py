"""Moods of two people in a tale: the text gives the answer, its words alone do not, and all of them are words of the tales."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError
from tinygrad_llm.evaluation.baselines import baselines
from tinygrad_llm.text import WordTokenizer
from tinygrad_llm.text.moods import MOOD_SPLITS, MOODS, mood_items
from tinygrad_llm.text.tales import _world, curriculum

SPLITS = st.sampled_from(MOOD_SPLITS)
SEEDS = st.integers(0, 2**64)
WORLD = _world()
GROUP = {mood: name for name, moods in MOODS.items() for mood in moods}
MADE = {split: mood_items(1, 1000, split) for split in MOOD_SPLITS}


def words_of(text):
    return re.findall(r"\w+", text)


def told(text):
    """Who felt what, read from the evening's line alone: a name, and the next mood after it."""
    *_, evening, question = text.split("\n")
    pairs = re.findall(rf"\b({'|'.join(WORLD.names)})\b[^.]*?\b({'|'.join(GROUP)})\b", evening)
    (asked,) = (word for word in words_of(question) if word in WORLD.people)
    return dict(pairs), asked


@given(SEEDS, SPLITS)
def test_the_answer_stands_in_the_text(seed, split):
    data = mood_items(seed, 5, split)
    assert data.classes == ("happy", "sad")
    for text, label in zip(data.texts, data.labels, strict=True):
        moods, asked = told(text)
        assert len(moods) == 2
        assert GROUP[moods[asked]] == data.classes[label]
        assert {GROUP[mood] for mood in moods.values()} == {"happy", "sad"}
        assert len(text.split("\n")) == 3
        assert re.fullmatch(r"How did [A-Z][a-z]+ feel in the end\?", text.split("\n")[-1])
        assert sorted(word for word in words_of(text) if word in GROUP) == sorted(moods.values())  # each once
        assert {word for word in words_of(text) if word in WORLD.people} == set(moods)
        assert not re.search(r"[{}]|  ", text)


def test_the_same_bytes_from_the_same_seed():
    data = MADE["train"]
    digest = hashlib.sha256("\n\n".join(data.texts).encode() + data.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "32646997907f6930"
    assert mood_items(2, 10).texts != data.texts[:10]


@given(SEEDS, SPLITS)
def test_fewer_are_the_first_of_more(seed, split):
    few, more = mood_items(seed, 3, split), mood_items(seed, 8, split)
    assert (few.texts, few.labels.tolist()) == (more.texts[:3], more.labels[:3].tolist())


def test_no_two_people_are_together_in_two_splits():
    pairs = {split: {frozenset(told(text)[0]) for text in data.texts} for split, data in MADE.items()}
    assert not pairs["train"] & (pairs["validation"] | pairs["test"])
    assert not pairs["validation"] & pairs["test"]
    for split in MOOD_SPLITS:  # each of them is in every split
        assert {name for pair in pairs[split] for name in pair} == set(WORLD.names)


def test_nothing_but_the_binding_decides():
    for data in MADE.values():
        heroes = [told(text)[1] in text.split("\n")[0].split(".")[0] for text in data.texts]
        assert 0.4 < sum(heroes) / len(heroes) < 0.6
        assert 0.42 < data.labels.mean() < 0.58
        assert 0.42 < data.labels[heroes].mean() < 0.58


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bag_of_words_is_near_chance(seed):
    found = baselines(mood_items(seed, 2000), mood_items(seed, 1000, "test"))
    assert all(0.44 < scores.accuracy < 0.56 for scores in found.values())


def test_every_word_is_known_from_the_tales():
    tokenizer = WordTokenizer.train(curriculum(1, 1000))
    unknown = tokenizer.special[tokenizer.unknown]
    for data in MADE.values():
        for text in data.texts:
            ids = tokenizer.encode(text)
            assert unknown not in ids
            assert len(ids) < 128
        assert {word for text in data.texts for word in words_of(text)} >= set(GROUP) | set(WORLD.names)


def test_the_evening_and_the_question_are_told_as_tales_tell_them():
    lines = {line for text in curriculum(1, 2000) for line in text.split("\n")}
    shapes = {
        re.sub(r"\b(" + "|".join([*WORLD.names, *WORLD.villages, *WORLD.every_mood]) + r")\b", "_", line)
        for line in lines
    }
    for text in MADE["train"].texts:
        evening, question = (
            re.sub(r"\b(" + "|".join([*WORLD.names, *WORLD.villages, *WORLD.every_mood]) + r")\b", "_", line)
            for line in text.split("\n")[1:]
        )
        assert any(evening in shape for shape in shapes)
        assert f"{question} _." in shapes


def test_bad_arguments():
    with pytest.raises(ConfigError, match="mood_items: seed is True"):
        mood_items(True, 3)
    with pytest.raises(ConfigError, match="mood_items: n is -1"):
        mood_items(1, -1)
    with pytest.raises(ConfigError, match="split is 'dev': use 'train', 'validation' or 'test'"):
        mood_items(1, 3, "dev")
    assert len(mood_items(1, 0)) == 0
