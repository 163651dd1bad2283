"""Two people in a tale, each with a mood, and a question about one of them: texts to classify that no bag of words can.

    data = mood_items(seed=1, n=1000)
    data.texts[0]      # "... Gus was sad, because the bread was gone, but Ada was merry.\\nHow did Ada feel in the end?"

A glad mood and a sad one stand in every text, and a coin decides whose is which and who is asked about: only who was what
decides, not which words there are. Words, sentences and question are those of the tales (tales.py) that `pretrain --preset tales`
trains on, so a model that has learned to look back there has most of what it takes.
"""

from __future__ import annotations

import numpy as np

from .grammar import Draws, check_split, part_of
from .labelled import Labelled
from .tales import QUESTIONS, _say, _slots, _world

MOOD_SPLITS = ("train", "validation", "test")
MOODS = {"happy": ("happy", "proud", "merry"), "sad": ("sad", "cross", "sorry")}

_SHARES = (7, 1, 2)  # of all pairs of people, for each split


def mood_items(seed: int, n: int, split: str = "train") -> Labelled:
    """The first `n` items of a seed, "happy" or "sad", the same on every platform. No two people are together in two splits.

    A text is the beginning of a tale, how the two felt in the evening, and the question, a line each: about 75 words. It ends
    with the question, to which the answer in the tales is the mood: one of three for each class. Guessing is right in a half.
    ConfigError for a seed or a number that is no integer of 0 or more, and for another split than "train", "validation" and
    "test".
    """
    part = check_split("mood_items", split, MOOD_SPLITS)
    draws = Draws("mood_items", seed, n, part)
    items = [_item(draws, part) for _ in range(n)]
    said = [f"moods of people in tales, made up by this package from the seed {seed}: the {split} part"]
    return Labelled([text for text, _ in items], np.array([label for _, label in items], np.int64), tuple(MOODS), said)


def _item(draws: Draws, part: int) -> tuple[str, int]:
    world = _world()
    people = draws.some(world.names, 2)
    while part_of(" ".join(sorted(people)), _SHARES) != part:
        people = draws.some(world.names, 2)
    village, thing = draws.pick(world.villages), draws.pick(world.things)
    of_hero, asked = draws.pick((0, 1)), draws.pick("HF")
    glad_or_sad = [*MOODS.values()]
    slots = _slots({"H": people[0], "F": people[1], "V": village, "T": thing})
    slots |= {"M": draws.pick(glad_or_sad[of_hero]), "N": draws.pick(glad_or_sad[1 - of_hero])}
    want = draws.pick([part for part in world.parts if part.startswith("want ")])
    begin = " ".join(_say(draws, told, slots) for told in ("open", "friend", want))
    question = next(one for one, answer in QUESTIONS.items() if answer == {"H": "{M}", "F": "{N}"}[asked])
    label = of_hero if asked == "H" else 1 - of_hero
    return f"{begin}\n{_say(draws, 'home', slots)}\n{question.format(**slots)}", label
