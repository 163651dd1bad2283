"""Made-up messages: the same everywhere, no wording in two splits, and neither too easy nor too hard for naive Bayes."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError
from tinygrad_llm.evaluation.baselines import baselines
from tinygrad_llm.text import exact_duplicates, near_duplicates
from tinygrad_llm.text.messages import MESSAGE_SPLITS, _sections, _wordings, messages

SLOTTED = re.compile(r"\{\w+\}")
MADE = {split: messages(1, n, split) for split, n in {"train": 1000, "validation": 200, "test": 300}.items()}
SUBJECTS = {section: lines for section, lines in _sections().items() if " " in section}


def skeleton(wording):
    """What no filling changes."""
    return [piece for piece in SLOTTED.split(wording) if re.search(r"\w", piece)]


def says(text, wording):
    return all(piece in text for piece in skeleton(wording))


def test_the_same_bytes_from_the_same_seed():
    digest = hashlib.sha256("\n".join(MADE["train"].texts).encode() + MADE["train"].labels.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "455f520f77a9e4f0"
    assert messages(2, 100).texts != MADE["train"].texts[:100]


@given(st.integers(0, 2**64), st.sampled_from(MESSAGE_SPLITS))
def test_fewer_messages_are_the_first_of_more(seed, split):
    few, more = messages(seed, 20, split), messages(seed, 30, split)
    assert (few.texts, few.labels.tolist()) == (more.texts[:20], more.labels[:20].tolist())


@pytest.mark.parametrize("split", MESSAGE_SPLITS)
def test_messages_are_different_and_of_both_kinds(split):
    made = MADE[split]
    assert made.classes == ("ham", "spam")
    assert not exact_duplicates(made.texts).size
    assert 0.4 < made.labels.mean() < 0.6
    for text in made.texts:
        assert re.fullmatch(r"[\w .,:;?!'£&/()-]+", text), text
        assert "  " not in text
        assert text == text.strip()
    assert len(messages(3, 5000)) == 5000


def test_a_message_has_the_label_of_its_wording():
    for split, made in MADE.items():
        for text, label in zip(made.texts, made.labels, strict=True):
            kinds = {
                name
                for name, subjects in _wordings()[split].items()
                for lines in subjects
                for line in lines
                if says(text, line)
            }
            assert made.classes[label] in kinds


def test_no_wording_is_in_two_splits_and_none_is_lost():
    of_split = {
        split: [line for some in _wordings()[split].values() for lines in some for line in lines]
        for split in MESSAGE_SPLITS
    }
    assert Counter(line for lines in of_split.values() for line in lines) == Counter(
        line for lines in SUBJECTS.values() for line in lines
    )
    assert [len(of_split[split]) for split in MESSAGE_SPLITS] == [108, 36, 36]
    skeletons = [" ".join(skeleton(line)) for lines in of_split.values() for line in lines]
    assert len(set(skeletons)) == len(skeletons)
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        told = {line for line in of_split[other] if len(" ".join(skeleton(line))) > 8}
        assert not [text for text in MADE[one].texts for line in told if says(text, line)]
        assert not near_duplicates(MADE[one].texts, MADE[other].texts, 0.7)


def test_every_wording_and_filling_is_used():
    for split, made in MADE.items():
        for subjects in _wordings()[split].values():
            for line in (line for lines in subjects for line in lines):
                assert any(says(text, line) for text in made.texts), line
    slots = {slot for lines in _sections().values() for line in lines for slot in re.findall(r"\{(\w+)\}", line)}
    assert slots - {"body"} == {section for section in _sections() if " " not in section} - {"ham", "spam"}


def test_what_is_wanted_may_look_like_spam():
    for split in MESSAGE_SPLITS:
        ham = [line for lines in _wordings()[split]["ham"] for line in lines]
        assert any("{amount}" in line or "prize" in line for line in ham)
        spam = [line for lines in _wordings()[split]["spam"] for line in lines]
        assert any(line.startswith(("Hi", "Hey", "{name}")) for line in spam)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_neither_too_easy_nor_too_hard(seed):
    train = messages(seed, 600)
    for split in ("validation", "test"):
        found = baselines(train, messages(seed, 300, split))
        assert 0.84 < found["naive_bayes"].accuracy < 0.96
        assert 0.84 < found["features"].accuracy < 0.97
        assert found["majority"].accuracy < 0.6


def test_bad_arguments():
    with pytest.raises(ConfigError, match="messages: seed is -1"):
        messages(-1, 3)
    with pytest.raises(ConfigError, match=r"messages: n is 2\.0"):
        messages(1, 2.0)
    with pytest.raises(ConfigError, match="messages: split is 'dev': use 'train', 'validation' or 'test'"):
        messages(1, 3, "dev")
    assert len(messages(1, 0)) == 0
    assert messages(1, np.int64(2)).texts == messages(1, 2).texts


def test_more_messages_than_there_are(monkeypatch):
    few = {split: {"ham": [["ok"]], "spam": [["Win!"]]} for split in MESSAGE_SPLITS}
    monkeypatch.setattr("tinygrad_llm.text.messages._wordings", lambda: few)
    monkeypatch.setattr("tinygrad_llm.text.messages._sections", lambda: {"ham": ["{body}"], "spam": ["{body}"]})
    with pytest.raises(ConfigError, match=r"n is 3: there are hardly more than [12] different ones: take fewer"):
        messages(1, 3)
