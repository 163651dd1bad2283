"""The words of phrases.py, from phrases.txt, and how German ones are inflected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from .grammar import read_sections

POSSESSIVES = {"my": "mein", "your": "dein", "his": "sein", "her": "ihr", "our": "unser"}
_LIKE_EIN = {"a": "ein", "an": "ein", "no": "kein", "kein": "kein", **POSSESSIVES}
NUMBERS = {"two": "zwei", "three": "drei"}

# Endings that show gender and case: of "dieser", of "ein" where it has any, and of an adjective after nothing that shows them. An
# adjective after what shows them ends in -e in five places (_WEAK), else in -en.
_STRONG = {
    "nominative": {"m": "er", "f": "e", "n": "es", "plural": "e"},
    "accusative": {"m": "en", "f": "e", "n": "es", "plural": "e"},
    "dative": {"m": "em", "f": "er", "n": "em", "plural": "en"},
}
_WEAK = {("nominative", "m"), ("nominative", "f"), ("nominative", "n"), ("accusative", "f"), ("accusative", "n")}
_BARE = {("nominative", "m"), ("nominative", "n"), ("accusative", "n")}  # where "ein" has no ending
_THE = {
    "nominative": {"m": "der", "f": "die", "n": "das", "plural": "die"},
    "accusative": {"m": "den", "f": "die", "n": "das", "plural": "die"},
    "dative": {"m": "dem", "f": "der", "n": "dem", "plural": "den"},
}


@dataclass(frozen=True)
class Noun:
    english: str
    plural: str
    gender: str  # m f n
    german: str
    german_plural: str
    kinds: frozenset[str]  # with its own name and "any"


@dataclass(frozen=True)
class Verb:
    english: tuple[str, ...]  # plain, third person, past or "-"
    split_off: str
    german: tuple[str, ...]  # I, you, he, and the infinitive, all without what is split off
    participle: str
    case: str
    nouns: tuple[Noun, ...]  # its objects, or who does it


class Adjective(NamedTuple):
    english: str
    german: str
    stem: str


class Modal(NamedTuple):
    english: tuple[str, ...]  # plain, third person, denied or "-"
    german: tuple[str, ...]


class Place(NamedTuple):
    english: str
    german: str
    nouns: tuple[Noun, ...]


class First(NamedTuple):
    english: str
    german: str
    tense: str


class World(NamedTuple):
    nouns: list[Noun]
    adjectives: dict[str, list[Adjective]]  # by noun
    objects: list[Verb]
    gifts: list[Verb]
    stays: list[Verb]
    places: list[Place]
    modals: list[Modal]
    first: list[First]
    heads: list[list[str]]
    people: list[Noun]

    @property
    def verbs(self) -> list[Verb]:
        return [*self.objects, *self.gifts, *self.stays]


@lru_cache(maxsize=1)
def world() -> World:
    sections = read_sections(resources.files(__package__).joinpath("phrases.txt").read_text(encoding="utf-8"))
    rows = {name: [line.split(" | ") for line in lines] for name, lines in sections.items()}
    nouns = []
    for english, german, kinds in rows["nouns"]:
        one, many = english.split()
        article, eins, viele = german.split()
        gender = {"der": "m", "die": "f", "das": "n"}[article]
        nouns.append(Noun(one, many, gender, eins, viele, frozenset({"any", one, *kinds.split()})))

    def fitting(kinds: str) -> tuple[Noun, ...]:
        return tuple(noun for noun in nouns if noun.kinds & {*kinds.split()})

    def verbs(section: str) -> list[Verb]:
        made = []
        for english, german, case, kinds in rows[section]:
            infinitive, *forms, participle = german.split()
            split_off, _, plain = infinitive.rpartition("/")
            made.append(Verb(tuple(english.split()), split_off, (*forms, plain), participle, case, fitting(kinds)))
        return made

    adjectives: dict[str, list[Adjective]] = {noun.english: [] for noun in nouns}
    for english, german, kinds in rows["adjectives"]:
        plain, *stem = german.split()
        for noun in fitting(kinds):
            adjectives[noun.english].append(Adjective(english, plain, stem[0] if stem else plain))
    return World(
        nouns,
        adjectives,
        verbs("verbs"),
        verbs("gifts"),
        verbs("stays"),
        [Place(spaced(english), german, fitting(kinds)) for english, german, kinds in rows["prepositions"]],
        [Modal(tuple(english.split()), tuple(german.split())) for english, german in rows["modals"]],
        [First(spaced(english), german, tense) for english, german, tense in rows["first"]],
        rows["heads"],
        [noun for noun in nouns if "person" in noun.kinds],
    )


def spaced(word: str) -> str:
    return word.replace("_", " ")


def article_of(article: str, case: str, gender: str) -> tuple[str, bool]:
    """The German one, and whether it shows gender and case, so that an adjective need not."""
    if article in ("", *NUMBERS):
        return NUMBERS.get(article, ""), False
    if article == "the":
        return _THE[case][gender], True
    if article == "this":
        return f"dies{_STRONG[case][gender]}", True
    word = _LIKE_EIN[article]
    bare = (case, gender) in _BARE
    return (word if bare else f"{word}{_STRONG[case][gender]}"), not bare


def described(adjective: Adjective, case: str, gender: str, shows: bool) -> str:
    """The adjective before its noun; `shows`: whether the article shows gender and case."""
    weak = "e" if (case, gender) in _WEAK else "en"
    return adjective.stem + (weak if shows else _STRONG[case][gender])


def form_of(noun: Noun, case: str, plural: bool) -> str:
    """The noun itself: of the three cases here only the dative plural is another word, with an -n."""
    form = noun.german_plural if plural else noun.german
    return f"{form}n" if plural and case == "dative" and form[-1] not in "ns" else form
