"""Tales broken off before a mood: the text gives the answer, its words alone do not, and all of them are words of the tales."""

import hashlib
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError
from tinygrad_llm.evaluation.baselines import baselines
from tinygrad_llm.text import WordTokenizer
from tinygrad_llm.text.moods import MOOD_SPLITS, mood_items
from tinygrad_llm.text.tales import _world, curriculum

SPLITS = st.sampled_from(MOOD_SPLITS)
SEEDS = st.integers(0, 2**64)
WORLD = _world()
MADE = {split: mood_items(1, 1000, split) for split in MOOD_SPLITS}


def words_of(text):
    return re.findall(r"\w+", text)


def told(text):
    """Who felt what, read from the evening alone: a name, and the next mood after it; the hero is who is named first of all."""
    evening = re.split(r"In the evening they|They walked home|Then they came home|That night in", text)[-1]
    pairs = re.findall(rf"\b({'|'.join(WORLD.names)})\b[^.]*?\b({'|'.join(WORLD.every_mood)})\b", evening)
    return dict(pairs), next(word for word in words_of(text) if word in WORLD.people)


@given(SEEDS, SPLITS)
def test_the_answer_stands_in_the_text(seed, split):
    data = mood_items(seed, 5, split)
    assert data.classes == tuple(WORLD.every_mood)
    for text, label in zip(data.texts, data.labels, strict=True):
        moods, hero = told(text)
        assert len(moods) == 2
        assert moods[hero] == data.classes[label]
        assert sorted(word for word in words_of(text) if word in WORLD.every_mood) == sorted(
            moods.values()
        )  # each once
        assert any(set(moods.values()) <= set(fitting) for fitting in WORLD.moods.values())
        assert {word for word in words_of(text) if word in WORLD.people} == set(moods)
        assert not re.search(r"[{}]|  ", text)


def test_the_same_bytes_from_the_same_seed():
    data = MADE["train"]
    digest = hashlib.sha256("\n\n".join(data.texts).encode() + data.labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "25aa9974cdde2c45"
    assert mood_items(2, 10).texts != data.texts[:10]


@given(SEEDS, SPLITS)
def test_fewer_are_the_first_of_more(seed, split):
    few, more = mood_items(seed, 3, split), mood_items(seed, 8, split)
    assert (few.texts, few.labels.tolist()) == (more.texts[:3], more.labels[:3].tolist())


def test_no_two_people_are_together_in_two_splits():
    pairs = {split: {frozenset(told(text)[0]) for text in data.texts} for split, data in MADE.items()}
    assert not pairs["train"] & (pairs["validation"] | pairs["test"])
    assert not pairs["validation"] & pairs["test"]


def test_of_two_moods_neither_is_likelier():
    """Given the two that are told, and the reason that is told, each is the answer as often."""
    right = Counter()
    for data in MADE.values():
        for text, label in zip(data.texts, data.labels, strict=True):
            moods = sorted(told(text)[0].values())
            right[moods[0] == data.classes[label]] += 1
    assert 0.47 < right[True] / right.total() < 0.53


def test_a_bag_of_words_knows_one_of_two():
    found = baselines(mood_items(1, 600), mood_items(1, 600, "test"))
    assert all(scores.accuracy < 0.56 for scores in found.values())
    assert found["bag_of_words"].accuracy > 0.38


def test_every_word_is_known_from_the_tales():
    tokenizer = WordTokenizer.train(curriculum(1, 1000))
    unknown = tokenizer.special[tokenizer.unknown]
    for data in MADE.values():
        for text in data.texts:
            ids = tokenizer.encode(text)
            assert unknown not in ids
            assert len(ids) < 256


def test_a_text_is_told_as_tales_are():
    """Each of its three paragraphs, names and moods aside, is the beginning of one in a tale, but for the reason of the mood."""
    blank = re.compile(
        r"\b(" + "|".join([*WORLD.names, *WORLD.villages, *WORLD.places, *WORLD.things, *WORLD.every_mood]) + r")\b"
    )
    known = {sentence for text in curriculum(1, 4000) for sentence in re.split(r"(?<=[.!?])\s", blank.sub("_", text))}
    for text in MADE["train"].texts[:200]:
        *whole, _, last = re.split(r"(?<=[.!?])\s", blank.sub("_", text))
        missing = [sentence for sentence in whole if sentence not in known]
        assert len(missing) <= 3, missing  # rare combinations
        assert any(sentence.startswith(last) for sentence in known), last


def test_bad_arguments():
    with pytest.raises(ConfigError, match="mood_items: seed is True"):
        mood_items(True, 3)
    with pytest.raises(ConfigError, match="mood_items: n is -1"):
        mood_items(1, -1)
    with pytest.raises(ConfigError, match="split is 'dev': use 'train', 'validation' or 'test'"):
        mood_items(1, 3, "dev")
    assert len(mood_items(1, 0)) == 0
