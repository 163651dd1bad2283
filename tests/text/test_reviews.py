"""Reviews: the true score counted again by reading word by word, and of all there can be; the splits; the same everywhere."""

import hashlib
import re
from collections import Counter
from itertools import product
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.text.lessons import Lesson, check_answer
from tinygrad_llm.text.reviews import REVIEW_SPLITS, ask, asked, parses, reviews, things, true_score

ASPECTS = {
    "film": "ending cast music title", "play": "ending cast stage title", "poem": "ending rhyme title hero",
    "opera": "ending cast music stage", "game": "ending hero music board", "meal": "soup bread cake wine",
    "tale": "ending hero title rhyme", "dance": "music stage tempo beat",
}  # fmt: skip
GOOD = ["good", "fine", "warm", "vivid", "nice", "merry", "rich", "epic"]
BAD = ["bad", "poor", "dull", "cold", "stale", "awful", "tired", "harsh"]
SPLITS = st.sampled_from(REVIEW_SPLITS)
MADE = {split: list(reviews(1, 3000, split)) for split in REVIEW_SPLITS}
WORDS = ["the", "was", "and", "but", "film", "play", "ending", "stage", *GOOD[:2], *BAD[:2]]


def every_review(thing, good, bad):
    """All reviews of a thing in some of the adjectives, each with its score."""
    for n in (1, 2, 3):
        for adjectives in product((*good, *bad), repeat=n):
            score = sum((one in good) - (one in bad) for one in adjectives)
            for joints in product(("and", "but"), repeat=n - 1):
                for turn in range(1, n + 1):
                    for aspect in ASPECTS[thing].split() if turn < n else [""]:
                        words = ["the", thing, "was", adjectives[0]]
                        for i in range(1, n):
                            words += [joints[i - 1], *(["the", aspect, "was"] if i == turn else []), adjectives[i]]
                        yield " ".join(words) + ".", score


EVERY = {thing: dict(every_review(thing, GOOD[:2], BAD[:2])) for thing in ("film", "play")}


def test_every_review_has_its_score():
    assert set(things()) == set(ASPECTS)
    for thing, scores in EVERY.items():
        for text, score in scores.items():
            assert parses(text)
            assert true_score(text) == true_score(text, thing) == score
            assert not parses(text, "meal")
            assert true_score(text, "meal") == -1
    for thing in ASPECTS:
        for text, score in every_review(thing, GOOD, BAD) if thing == "opera" else every_review(thing, "", BAD[:1]):
            assert true_score(text, thing) == score
            assert len(text) <= 56


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from([".", "", "..", " .", "\n", ".\n"]))
def test_a_text_of_its_words_is_a_review_if_it_is_one_of_all(words, end):
    text = " ".join(words) + end
    found = [scores[text] for scores in EVERY.values() if text in scores]
    assert true_score(text) == (found or [-1])[0]
    assert parses(text) == bool(found)


@given(st.sampled_from(sorted(EVERY["film"])), st.data())
def test_a_letter_more_less_or_another_makes_it_none(text, data):
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("abdeost .\n"))
    for changed in (text[:at] + text[at + 1 :], text[:at] + letter + text[at:], text[:at] + letter + text[at + 1 :]):
        assert parses(changed) == (changed in EVERY["film"])


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "good.", "The film was good.", "the film was good", "the film was good. ", "the film is good.",
        "the film was goodly.", "the ending was good.", "the film was good and.", "the film was good and the film was bad.",
        "the film was good and the stage was bad.", "the film was good and the cast was bad and the music was bad.",
        "the film was good, and the cast was bad.", "the film was good and bad and dull and cold.",
        "the film was  good.", "the film was good.the film was good.", "the film was good and but bad.",
    ],
)  # fmt: skip
def test_what_is_no_review(text):
    assert not parses(text)
    assert true_score(text) == -1


@given(st.integers(0, 2**64), SPLITS)
def test_what_is_made_is_a_review(seed, split):
    for text in reviews(seed, 30, split):
        assert parses(text)
        adjectives = re.findall(r"\w+(?= and| but|\.)", text)
        assert len({*adjectives}) == len(adjectives)
        assert true_score(text) == sum((one in GOOD) - (one in BAD) for one in adjectives)
        assert true_score(text) == true_score(text, asked(ask(text.split()[1])))
        assert len(text) <= 56


def test_sentiment_is_balanced_and_all_is_in_it():
    for made in MADE.values():
        scores = [true_score(text) for text in made]
        assert abs(mean(scores)) < 0.1
        assert set(scores) == {-3, -2, -1, 0, 1, 2, 3}
        assert {word for text in made for word in re.findall(r"\w+", text)} == {
            *("the", "was", "and", "but", *ASPECTS, *" ".join(ASPECTS.values()).split(), *GOOD, *BAD)
        }
        lengths = Counter(len(re.findall(r" and | but ", text)) for text in made)
        assert min(lengths[i] for i in range(3)) > 800


def test_no_review_is_in_two_splits():
    train, validation, test = ({*made} for made in MADE.values())
    assert not train & validation
    assert not train & test
    assert not validation & test


@given(st.integers(0, 2**64), SPLITS, st.integers(0, 20), st.integers(0, 20))
def test_fewer_reviews_are_the_first_of_more(seed, split, few, more):
    assert list(reviews(seed, few, split)) == list(reviews(seed, max(few, more), split))[:few]


def test_the_same_bytes_from_the_same_seed():
    told = "\n".join(text for split in REVIEW_SPLITS for text in MADE[split])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "255f4a40b6810184"
    assert list(reviews(2, 50)) != MADE["train"][:50]


def test_any_review_of_the_thing_is_a_right_answer():
    lesson = Lesson("review", "Review the film.", answer="the film was cold.")
    assert check_answer(lesson, " the film was good but bad and the cast was dull.\n")
    assert not check_answer(lesson, "the play was cold.")
    assert not check_answer(lesson, "the film was cold and so on.")


def test_what_is_asked_for():
    assert asked("Review the opera, and not the film.") == "opera"
    assert asked("the filmmaker") is None


def test_bad_arguments():
    with pytest.raises(ConfigError, match="reviews: split is 'dev': use 'train', 'validation' or 'test'"):
        reviews(1, 1, "dev")
    with pytest.raises(ConfigError, match="reviews: seed is -1"):
        reviews(-1, 1)
    with pytest.raises(ConfigError, match=r"true_score: thing is 'flim' \(did you mean film\?\): there are film, play"):
        true_score("the film was good.", "flim")
    with pytest.raises(ConfigError, match="parses: thing is 'novel': there are"):
        parses("x", "novel")
    with pytest.raises(DataError, match="true_score: text is a NoneType: it must be a str"):
        true_score(None)
