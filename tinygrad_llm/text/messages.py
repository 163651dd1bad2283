"""Short messages, spam and not, made up from a seed: data to try a classifier on where there is none, and nothing is fetched.

    train, test = messages(seed=1, n=600), messages(seed=1, n=300, split="test")
    train.texts[0], train.classes[train.labels[0]]

messages.txt holds their wordings. Which of them are for training, for validation and for the test is decided before they are
filled, so that no part has a sentence of another one with but a number or a name changed: that would be a leak, as it is in
collections of real messages.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import numpy as np

from ..errors import ConfigError
from .grammar import SLOT, Draws, check_split, read_sections
from .labelled import Labelled

MESSAGE_SPLITS = ("train", "validation", "test")
CLASSES = ("ham", "spam")

_OF_FIVE = (0, 0, 0, 1, 2)  # of every five wordings of a section, which is for which split
_TRIES = 200  # draws for a message that is not there yet


def messages(seed: int, n: int, split: str = "train") -> Labelled:
    """The first `n` messages of a seed, all different, about half of them "spam", the others "ham"; the same on every platform.

    ConfigError for a seed or a number that is no integer of 0 or more, for another split than "train", "validation" and "test",
    and for more messages than there are.
    """
    draws = Draws("messages", seed, n, check_split("messages", split, MESSAGE_SPLITS))
    wordings = _wordings()[split]
    found: dict[str, int] = {}
    while len(found) < n:
        label = draws.pick(range(len(CLASSES)))
        for _ in range(_TRIES):
            text = _tell(draws, CLASSES[label], draws.pick(draws.pick(wordings[CLASSES[label]])))
            if text not in found:
                break
        else:
            raise ConfigError(f"messages: n is {n}: there are hardly more than {len(found)} different ones: take fewer")
        found[text] = label
    said = [f"messages made up by this package from the seed {seed}: wordings of the {split} part"]
    return Labelled([*found], np.array([*found.values()], np.int64), CLASSES, said)


@lru_cache(maxsize=1)
def _sections() -> dict[str, list[str]]:
    return read_sections(resources.files(__package__).joinpath("messages.txt").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _wordings() -> dict[str, dict[str, list[list[str]]]]:
    """By split and by class: for each subject the wordings of this part."""
    made: dict[str, dict[str, list[list[str]]]] = {}
    for place, split in enumerate(MESSAGE_SPLITS):
        made[split] = {name: [] for name in CLASSES}
        for section, lines in _sections().items():
            if " " in section:
                of_split = [line for i, line in enumerate(lines) if _OF_FIVE[i % len(_OF_FIVE)] == place]
                made[split][section.split()[0]].append(of_split)
    return made


def _tell(draws: Draws, name: str, wording: str) -> str:
    return _fill(draws, draws.pick(_sections()[name]).replace("{body}", wording))


def _fill(draws: Draws, wording: str) -> str:
    return SLOT.sub(lambda slot: _fill(draws, draws.pick(_sections()[slot[1]])), wording)
