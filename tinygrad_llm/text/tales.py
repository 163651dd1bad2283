"""A world of tales: short tales for children from a seed, with their facts, and a check of what a model has written of it.

    for tale in tales(seed=1, n=3):                # the same three on every machine
        print(tale.text)
    tale.facts["thing"], tale.facts["ending"]      # "lantern", "loss"
    check_tale(tale.text)                          # {"names": True, "places": True, "thing": True, "ending": True}
    questions(tale)                                # [("Who is the tale about?", "Ada"), ...]

tales.txt holds the world and its wordings. A plot is a want, an obstacle, a way past it and an ending, 768 in all; a tale has 12
parts, and for each of them one wording is drawn. No wording says who, where and what it will be about, so a model that is to
write such tales has to learn to look back at how the tale began. `drills` are rhymes and games that ask for nothing else.

One plot in eight, and one in ten of the pairs of hero and thing and of hero and village, are kept from training. A tale to
validate with has such a plot and such a pair.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any

from ..errors import DataError
from .grammar import SLOT, Draws, check_split, is_held, read_sections

SPLITS = ("train", "validation")
QUESTIONS = {
    "Who is the tale about?": "{H}",
    "Who went with {H}?": "{F}",
    "Where did {H} live?": "{V}",
    "Where did they go?": "the {P}",
    "What was it all about?": "the {T}",
    "What was in the way?": "the {obstacle}",
    "How did {H} feel in the end?": "{M}",
    "How did {F} feel in the end?": "{N}",
}
HOW_DOES_IT_END = "How does it end?"
ANSWERS = {
    "success": "{H} did it",
    "loss": "the {T} was lost",
    "kindness": "{H} gave the {T} away",
    "change": "{H} had a change of mind about the {T}",
}

_NAME, _WORD = "([A-Z][a-z]+)", "([a-z]+)"
_ROLES = {"H": _NAME, "F": _NAME, "V": _NAME, "P": _WORD, "T": _WORD, "a": f"an? {_WORD}", "M": _WORD, "N": _WORD}
_HEROSLOTS = ("girl", "she", "She", "her", "Her", "him", "hers", "herself")
_HERO_WORDS = {
    "girl": ("girl", "she", "She", "her", "Her", "her", "hers", "herself"),
    "boy": ("boy", "he", "He", "his", "His", "him", "his", "himself"),
}
_FACTS = {"V": "place", "P": "goal", "T": "thing", "M": "mood", "N": "friend_mood", "obstacle": "obstacle"}
_CHILD = {"girl": "daughter", "boy": "son"}
_INNER_PARTS = ("kind", "quirk", "habit", "trade", "reason", "errand")
_N_PARTS, _LESS_NEEDED = 12, (1, 3, 4, 5, 10)  # of a tale; friend, plan, obstacle, remedy and why may be left out
_WORD_LISTS = ("girls", "boys", "villages", "places", "things", "moods")


@dataclass(frozen=True)
class Tale:
    """One tale. `text` is three paragraphs, a line each.

    `facts`: people (hero, friend), place (the hero's village), goal (where they go), thing, want, obstacle, remedy, ending, mood
    (the hero's in the end), friend_mood. `nats` is -ln of the probability that the world, held-out parts and all, tells just
    this tale: the sum of ln n over its choices among n.
    """

    text: str
    facts: dict[str, Any]
    nats: float


def tales(seed: int, n: int, split: str = "train") -> Iterator[Tale]:
    """The first `n` tales of a seed, the same on every platform. The splits have no plot and no such pair in common.

    ConfigError for a seed or a number that is no integer of 0 or more, and for another split than "train" and "validation".
    """
    draws = Draws("tales", seed, n, check_split("tales", split, SPLITS))
    return (_tell(draws, split) for _ in range(n))


def drills(seed: int, n: int) -> Iterator[str]:
    """Memory games and rhymes about the people and things of the tales, made to be copied from, the easy ones first."""
    draws = Draws("drills", seed, n, len(SPLITS))
    games = (_remembering, _remembering, _chain_of_people, _chain_of_things, _chain_of_places, _packing)
    return (_remembering(draws, 1) if 3 * i < 2 * n else draws.pick(games)(draws, draws.pick((2, 3))) for i in range(n))


def curriculum(seed: int, n: int) -> Iterator[str]:
    """What to train on, in this order: 9 n / 20 drills; n / 4 tales in brief that grow to whole ones, each with a question and
    its answer; and `n` tales.

    To copy from what was read is learned first on short texts, where there is little else to look at, and then serves for whole
    tales.
    """
    draws = Draws("curriculum", seed, n, len(SPLITS) + 1)
    yield from drills(seed, 9 * n // 20)
    least = _N_PARTS - len(_LESS_NEEDED)
    for i in range(n // 4):
        yield _tell_and_ask(draws, least + (len(_LESS_NEEDED) + 1) * i // (n // 4))
    yield from (tale.text for tale in tales(seed, n))


def questions(tale: Tale) -> list[tuple[str, str]]:
    """Questions about the facts of a tale, each with its answer."""
    facts = tale.facts
    values = dict(zip("HF", facts["people"], strict=True)) | {role: facts[fact] for role, fact in _FACTS.items()}
    templates = [*QUESTIONS.items(), (HOW_DOES_IT_END, ANSWERS[facts["ending"]])]
    return [(question.format(**values), answer.format(**values)) for question, answer in templates]


def check_tale(text: str, facts: Mapping[str, Any] | None = None) -> dict[str, bool]:
    """Does a tale, whoever wrote it, hold together? By the rules of the world and, where `facts` are given, by these too.

    names: nobody acts but the two people introduced, each says and does what hero or friend says and does, and "he" and "she"
    are right. places: it ends in the village in which it began, and there is one other place, to which they go. thing: there is
    one only, and it is the one wanted. ending: what was wanted ends in one of its four ways, and mood and last words fit.
    """
    if not isinstance(text, str):
        raise DataError(f"check_tale: text is a {type(text).__name__}: it must be a str")
    world, words = _world(), set(re.findall(r"\w+", text))
    parts, roles = _read(text)
    hero, friend, village, goal, thing, mood = (_only(roles[role]) for role in "HFVPTM")
    want, ending = _only({part for part in parts if part in world.outcomes}, " ").split(" ")
    good = {
        "names": "open" in parts
        and "friend" in parts
        and hero != friend
        and words & world.people.keys() == {hero, friend}
        and not words & _wrong_words(world.people[hero], world.people[friend]),
        "places": "open" in parts
        and "home" in parts
        and village in world.villages
        and goal in world.places
        and words & {*world.villages, *world.places} == {village, goal},
        "thing": thing in world.things and words & {*world.things} == {thing},
        "ending": want != ""
        and {part for part in parts if part.split()[0] in ("want", "plan", "so", "close")}
        == {f"want {want}", f"plan {want}", f"so {ending}", f"close {ending}"}
        and {errand for errand in world.errands.values() if f" {errand} the " in text} == {world.errands[want]}
        and mood in world.moods[ending],
    }
    if facts is not None:
        found = {"place": village, "goal": goal, "thing": thing, "want": want, "ending": ending, "mood": mood}
        rule = {"place": "places", "goal": "places", "thing": "thing"}
        for fact in facts.keys() & found.keys():
            good[rule.get(fact, "ending")] &= facts[fact] == found[fact]
        if "people" in facts:
            good["names"] &= list(facts["people"]) == [hero, friend]
    return good


class _World:
    """tales.txt, read: lists of words, and the wordings of each part."""

    def __init__(self, source: str) -> None:
        self.parts = read_sections(source)
        lists = {part: " ".join(lines).split() for part, lines in self.parts.items() if part.split()[0] in _WORD_LISTS}
        self.people = dict.fromkeys(lists["girls"], "girl") | dict.fromkeys(lists["boys"], "boy")
        self.names, self.villages, self.places = [*self.people], lists["villages"], lists["places"]
        self.things = lists["things"]
        self.moods = {part.split()[1]: words for part, words in lists.items() if part.startswith("moods ")}  # by ending
        self.every_mood = sorted({mood for moods in self.moods.values() for mood in moods})
        wants = [part.split()[1] for part in self.parts if part.startswith("want ")]
        obstacles = [part.split()[1] for part in self.parts if part.startswith("obstacle ")]
        ways = [part.split() for part in self.parts if part.split()[0] in obstacles]
        self.errands = {want: self.parts[f"errand {want}"][0] for want in wants}
        self.outcomes = {f"{want} {ending}" for want in wants for ending in self.moods}
        self.plots = [(want, *way, ending) for want in wants for way in ways for ending in self.moods]


@lru_cache(maxsize=1)
def _world() -> _World:
    return _World(resources.files(__package__).joinpath("tales.txt").read_text(encoding="utf-8"))


def _tell(draws: Draws, split: str, n_parts: int = _N_PARTS) -> Tale:
    """One tale; with fewer parts than all, the way there and what was said is told in part."""
    world, cast = _world(), dict[str, str]()
    while not cast:
        draws.nats = 0.0
        want, obstacle, remedy, ending = plot = draws.pick(world.plots)
        hero, friend = draws.some(world.names, 2)
        village, goal, thing = (draws.pick(words) for words in (world.villages, world.places, world.things))
        held_plot = is_held(" ".join(plot), 8)
        held_pair = is_held(f"{hero} {thing}", 10) or is_held(f"{hero} {village}", 10)
        if held_plot == held_pair == (split == "validation"):
            cast = {"H": hero, "F": friend, "V": village, "P": goal, "T": thing}
    mood = draws.pick(world.moods[ending])
    friend_mood = draws.pick([other for other in world.every_mood if other != mood])
    slots = _slots(cast) | {"M": mood, "N": friend_mood, "errand": world.errands[want]}
    parts = ["open", "friend", f"want {want}", f"plan {want}", f"obstacle {obstacle}", f"{obstacle} {remedy}"]
    parts += ["arrive", f"{want} {ending}", f"so {ending}", "home", "why", f"close {ending}"]
    told = list(range(_N_PARTS))
    while len(told) > n_parts:
        told.remove(draws.pick([i for i in told if i in _LESS_NEEDED]))
    said = {i: _say(draws, parts[i], slots) for i in told}
    paragraphs = (
        " ".join(said[i] for i in told if i in those) for those in (range(3), range(3, 6), range(6, _N_PARTS))
    )
    facts = {
        "people": [hero, friend],
        "place": village,
        "goal": goal,
        "thing": thing,
        "want": want,
        "obstacle": obstacle,
        "remedy": remedy,
        "ending": ending,
        "mood": mood,
        "friend_mood": friend_mood,
    }
    return Tale("\n".join(filter(None, paragraphs)), facts, draws.nats)


def _tell_and_ask(draws: Draws, n_parts: int) -> str:
    """So many parts of a tale, and a question that they answer."""
    tale = _tell(draws, "train", n_parts)
    names = {*_world().names, *_world().villages, *_world().places, *_world().things, *_world().every_mood}
    told = {*re.findall(r"\w+", tale.text)} & names
    asked = [
        (question, answer, {*re.findall(r"\w+", question + " " + answer)} & names)
        for question, answer in questions(tale)
    ]
    if n_parts < _N_PARTS:
        asked = [(question, answer, about) for question, answer, about in asked if about]
    question, answer, _ = draws.pick([one for one in asked if one[2] <= told])
    return f"{tale.text}\n{question} {answer}."


def _say(draws: Draws, part: str, slots: Mapping[str, str]) -> str:
    """One wording of a part; a slot that nothing fills has a part of its own."""
    wording = draws.pick(_world().parts[part])
    return SLOT.sub(lambda slot: slots.get(slot[1]) or _say(draws, _part_of(slot[1], slots), slots), wording)


def _part_of(slot: str, slots: Mapping[str, str]) -> str:
    return f"reason {slots['N']}" if slot == "reason" else slot


def _slots(cast: dict[str, str]) -> dict[str, str]:
    hero, friend = (_world().people[cast[role]] for role in "HF")
    article = "an" if cast["T"][0] in "aeiou" else "a"
    words = dict(zip(_HEROSLOTS, _HERO_WORDS[hero], strict=True))
    return cast | words | {"son": _CHILD[friend], "a": f"{article} {cast['T']}"}


def _chain_of_people(draws: Draws, n: int) -> str:
    """Ada told Gus, Gus told Polly, ..."""
    does = draws.pick(["told", "woke", "followed", "tickled"])
    links = pairwise(draws.some(_world().names, 3 * n))
    return "One night " + ", ".join(f"{one} {does} {other}" for one, other in links) + ", and everybody laughed."


def _chain_of_things(draws: Draws, n: int) -> str:
    does = draws.pick(["stood on", "leaned on", "fell over", "hid behind"])
    links = pairwise(draws.some(_world().things, 3 * n))
    return "See how " + ", ".join(f"the {one} {does} the {other}" for one, other in links) + ", and everybody laughed."


def _chain_of_places(draws: Draws, n: int) -> str:
    links = pairwise(draws.some(_world().places, 3 * n))
    return "We ran " + ", ".join(f"from the {one} to the {other}" for one, other in links) + ", and so to bed."


def _packing(draws: Draws, n: int) -> str:
    """Each one packs what the one before packed, and one thing more."""
    things = [f"the {thing}" for thing in draws.some(_world().things, n + 1)]
    people = draws.some(_world().names, n + 1)
    return " ".join(f"Then {one} packed {' and '.join(things[: i + 1])}." for i, one in enumerate(people))


def _remembering(draws: Draws, n: int) -> str:
    """Who was who, lived where, and had what?"""
    world = _world()
    lists = world.names, world.villages, world.places, world.things
    told, asked = [], []
    for one, village, place, thing in zip(*(draws.some(words, n) for words in lists), strict=True):
        told += [
            draws.pick(
                [
                    f"In {village} lived {one}, who had the {thing} from the {place}.",
                    f"There was a {world.people[one]} called {one}, who took the {thing} to the {place} of {village}.",
                ]
            )
        ]
        asked += [
            (
                f"Who had the {thing}? {one}. Where did {one} live? {village}. And where was the {thing}? At the {place}.",
                f"So {one} went home to {village} with the {thing} from the {place}.",
                f"They say in {village} that {one} still has the {thing} from the {place}.",
            )
        ]
    return " ".join(told + [draws.pick(ways) for ways in draws.some(asked, n)])


def _wrong_words(hero: str, friend: str) -> set[str]:
    """Words that do not go with a hero and a friend, each "girl" or "boy"."""
    other = {"girl": "boy", "boy": "girl"}
    return {*_HERO_WORDS[other[hero]], _CHILD[other[friend]]}


def _only(values: Collection[str], otherwise: str = "") -> str:
    return next(iter(values)) if len(values) == 1 else otherwise


def _read(text: str) -> tuple[set[str], dict[str, set[str]]]:
    """The parts whose wordings stand in the text, and all that stands there for each role."""
    parts: set[str] = set()
    roles: dict[str, set[str]] = {role: set() for role in "HFVPTMN"}
    for part, piece, pattern, slots in _patterns():
        for match in pattern.finditer(text) if piece in text else ():
            parts.add(part)
            for role, value in zip(slots, match.groups(), strict=True):
                roles[role].add(value)
    return parts, roles


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, str, re.Pattern[str], list[str]]]:
    """For each wording its part, the longest piece without a slot, what it looks like in a tale, and the role of each group."""
    patterns = []
    for part, wordings in _world().parts.items():
        if part.split()[0] in (*_WORD_LISTS, *_INNER_PARTS):
            continue
        for wording in wordings:
            pieces = SLOT.split(wording)  # text, slot, text, ..., text
            pattern = "".join(_of_slot(piece) if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))
            roles = ["T" if slot == "a" else slot for slot in pieces[1::2] if slot in _ROLES]
            patterns.append(
                (part, max(pieces[::2], key=len), re.compile(rf"\b{pattern}" if pieces[0] == "" else pattern), roles)
            )
    return patterns


def _of_slot(slot: str) -> str:
    if slot in _ROLES:
        return _ROLES[slot]
    if slot in _HEROSLOTS:
        words = [gender[_HEROSLOTS.index(slot)] for gender in _HERO_WORDS.values()]
    elif slot == "son":
        words = [*_CHILD.values()]
    else:
        words = [
            wording for part, wordings in _world().parts.items() if part.split()[0] == slot for wording in wordings
        ]
    return f"(?:{'|'.join(map(re.escape, words))})"
