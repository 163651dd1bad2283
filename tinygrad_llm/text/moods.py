"""Tales broken off where one of two people's moods comes next: texts to classify that no bag of words can.

    data = mood_items(seed=1, n=1000)
    data.texts[0]      # '... That night in Inkley Gus was sad, because the bread was gone, but Ada was cross. "You look'
    data.classes       # "calm", "cross", "happy", ...

Two moods stand in every text, the hero's and the friend's, and both fit how the tale ends. The hero is asked about, so who was
what decides; of the words alone two classes are as likely. All is said as in the tales (tales.py) that `pretrain --preset tales`
trains on: a model that has learned to look back there has most of what it takes.
"""

from __future__ import annotations

import numpy as np

from .grammar import Draws, check_split, part_of
from .labelled import Labelled
from .tales import _say, _slots, _world

MOOD_SPLITS = ("train", "validation", "test")

_SHARES = (7, 1, 2)  # of all pairs of people, for each split


def mood_items(seed: int, n: int, split: str = "train") -> Labelled:
    """The first `n` items of a seed, each with the hero's mood as its class, the same on every platform. No two people are
    together in two splits.

    A text is a tale of about 190 words up to the evening, when both were home, and a remark about the hero, broken off before
    the mood. ConfigError for a seed or a number that is no integer of 0 or more, and for another split than "train",
    "validation" and "test".
    """
    part = check_split("mood_items", split, MOOD_SPLITS)
    draws = Draws("mood_items", seed, n, part)
    items = [_item(draws, part) for _ in range(n)]
    classes = tuple(_world().every_mood)
    labels = np.array([classes.index(mood) for _, mood in items], np.int64)
    said = [f"moods of people in tales, made up by this package from the seed {seed}: the {split} part"]
    return Labelled([text for text, _ in items], labels, classes, said)


def _item(draws: Draws, part: int) -> tuple[str, str]:
    world = _world()
    want, obstacle, remedy, ending = draws.pick(world.plots)
    people = draws.some(world.names, 2)
    while part_of(" ".join(sorted(people)), _SHARES) != part:
        people = draws.some(world.names, 2)
    village, goal, thing = (draws.pick(words) for words in (world.villages, world.places, world.things))
    mood, other = draws.some(world.moods[ending], 2)
    slots = _slots({"H": people[0], "F": people[1], "V": village, "P": goal, "T": thing})
    slots |= {"M": mood, "N": other, "errand": world.errands[want]}
    # The reason that is told of the friend's mood may be one for the hero's, or its words would tell which is whose.
    slots["reason"] = _say(draws, f"reason {draws.pick((mood, other))}", slots)
    paragraphs = (
        ("open", "friend", f"want {want}"),
        (f"plan {want}", f"obstacle {obstacle}", f"{obstacle} {remedy}"),
        ("arrive", f"{want} {ending}", f"so {ending}", "home"),
    )
    told = "\n".join(" ".join(_say(draws, each, slots) for each in paragraph) for paragraph in paragraphs)
    remark = _say(draws, "why", slots)
    return f"{told} {remark[: remark.index(mood)].rstrip()}", mood
