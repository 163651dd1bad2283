"""Instructions with their answers, made up from a seed, of kinds that a small model can really learn (the book's chapter 7).

    for lesson in lessons(seed=1, n=5):            # the same five on every machine
        print(lesson.instruction, lesson.answer)   # Spell: lantern   l-a-n-t-e-r-n
    lessons(1, 100, "test")                        # with words that no lesson to train on has
    check_answer(lesson, answer)

lessons.txt holds the words and wordings. What is kept from training, for validation and for the test:

    upper, spell, last, reverse   words: the splits have none in common, and all four kinds have the same ones; every second
                                  one to train on is a string of letters
    opposite                      pairs of words. It is a look-up: what was not trained cannot be known, and to get none of the
                                  test right is no fault
    passive, german, email        combinations of words; each word is in every split
    addition                      pairs of numbers, in either order
    correct                       mistakes: a word is in every split, each way to misspell it is in one
    question, summary             tales: the splits have no plot in common, and training has no pair of hero and thing, or of
                                  hero and village, of a tale that is not for it (tales.py); to train on, of two of
                                  three a part is told: a paragraph, or how the tale begins or ends
    review                        reviews: the splits have none in common (reviews.py). What is asked is of the 8 things of that
                                  world, in every split; any review of the thing is right

Tales are long, 1,200 characters at most; all else has fewer than 200.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import resources
from itertools import combinations_with_replacement, product
from typing import Any, NamedTuple

from ..checks import did_you_mean
from ..errors import ConfigError, DataError
from .grammar import Draws, check_split, part_of, read_sections
from .reviews import REVIEW_SPLITS, ask, asked, parses, reviews
from .tales import ANSWERS, Tale, _world, questions, tales

LESSON_SPLITS = ("train", "validation", "test")

_SHARES = (7, 1, 2)  # of all words or combinations, for each split
_NEXT = (4, 7)  # from a question on a tale to those asked after it, so that all are asked as often
_ANSWERED = ((0, 1, 2), (3, 4, 5), (1, 2, 4, 6, 7), (0, 2), (6,))  # the questions that each passage of a tale answers
_TALE_SHARES = (1, 2)  # of the plots that tales.py keeps from training


@dataclass(frozen=True)
class Lesson:
    """What is asked, what it is asked about if that is long (a tale, the keywords of an e-mail), and a right answer."""

    kind: str
    instruction: str
    input: str = ""
    answer: str = ""
    more: tuple[tuple[str, str], ...] = ()  # further questions about the input, with their answers


class Kind(NamedTuple):
    """`about`: what it asks for. `items(draws, seed, part)`: endlessly what lessons are made of; `tell(draws, item)`: one of
    them as instruction, input, answer and more. `right(lesson, answer)`: where other answers than the lesson's are right too.
    """

    about: str
    items: Callable[[Draws, int, int], Iterator[Any]]
    tell: Callable[[Draws, Any], tuple[Any, ...]]
    right: Callable[[Lesson, str], bool] | None = None
    look_up: bool = False  # what was not learned cannot be known
    asked_last: bool = False  # the question stands below what it is about, where those asked after it stand too


def lessons(
    seed: int,
    n: int,
    split: str = "train",
    kinds: Sequence[str] = ("upper", "spell", "last", "reverse", "passive"),
) -> list[Lesson]:
    """The first `n` lessons of a seed, the same on every platform. Of every len(kinds) of them, one is of each kind.

    No word or combination comes again before all of its kind and split have come; then they begin anew, in another order: 1,061
    words to train on, besides strings of letters, 153 to validate with, 285 to test on. ConfigError for a seed or a number that
    is no integer of 0 or more, another split than "train", "validation" and "test", and kinds that are not names in LESSONS, each
    once.
    """
    part = check_split("lessons", split, LESSON_SPLITS)
    draws = Draws("lessons", seed, n, part)
    if isinstance(kinds, str) or not kinds or any(kinds.count(kind) > 1 for kind in kinds):
        raise ConfigError(f"lessons: kinds is {kinds!r:.80}: it must be a list of one or more kinds, each once")
    for kind in kinds:
        if not isinstance(kind, str) or kind not in LESSONS:
            near = did_you_mean(str(kind), LESSONS)
            raise ConfigError(f"lessons: kinds has {kind!r:.80}{near}: there are {', '.join(LESSONS)}")
    items = {kind: LESSONS[kind].items(draws, seed, part) for kind in kinds}
    made: list[Lesson] = []
    while len(made) < n:
        for kind in draws.some(kinds, len(kinds)):
            made.append(Lesson(kind, *LESSONS[kind].tell(draws, next(items[kind]))))
    return made[:n]


def check_answer(lesson: Lesson, answer: str) -> bool:
    """Whether an answer is right, white space at its ends aside: it is the lesson's, or is as good.

    A summary is as good if it is one sentence that names the people of the lesson's, in this order, and no others, its place and
    thing and no others, and says how the tale ends, and no other end, in the words of the questions ("the drum was lost"). An
    e-mail is as good if its first line greets the right person, its last two close it and are signed by the right one, and what
    is between them has all keywords and no other topic, day or place. Whether a sentence is English is not looked at. DataError
    for an answer that is no str.
    """
    if not isinstance(answer, str):
        raise DataError(f"check_answer: answer is a {type(answer).__name__}: it must be a str")
    if answer.strip() == lesson.answer:
        return True
    right = LESSONS[lesson.kind].right if lesson.kind in LESSONS else None
    return right is not None and right(lesson, answer.strip())


@lru_cache(maxsize=1)
def _sections() -> dict[str, list[str]]:
    return read_sections(resources.files(__package__).joinpath("lessons.txt").read_text(encoding="utf-8"))


def _words(section: str) -> list[str]:
    return " ".join(_sections()[section]).split()


def _deck(candidates: Callable[[], Iterable[tuple[str, ...]]], draws: Draws, seed: int, part: int) -> Iterator[Any]:
    """What of the candidates is for this part, in random order, again and again."""
    cards = _dealt(candidates)[part]
    while True:
        left = list(cards)
        while left:
            i = draws.pick(range(len(left)))
            left[i], left[-1] = left[-1], left[i]
            yield left.pop()


def _word_cards(draws: Draws, seed: int, part: int) -> Iterator[tuple[str, ...]]:
    """Words; to train on, every second one is a string of letters, for a few hundred words are soon known by heart."""
    deck = _deck(_single_words, draws, seed, part)
    while True:
        yield next(deck)
        if part == 0:
            yield (_letters(draws),)


def _letters(draws: Draws) -> str:
    """3 to 9 letters, two of five of them vowels, that are no word of lessons.txt."""
    while True:
        n = draws.pick(range(3, 10))
        text = "".join(draws.pick("aeiou" if draws.pick(range(5)) < 2 else "bcdfghjklmnpqrstvwxyz") for _ in range(n))
        if text not in _every_word():
            return text


@lru_cache(maxsize=1)
def _every_word() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", " ".join(line for lines in _sections().values() for line in lines).lower()))


@lru_cache
def _dealt(candidates: Callable[[], Iterable[tuple[str, ...]]]) -> tuple[list[tuple[str, ...]], ...]:
    """For each split, the candidates that are for it, by what they are called."""
    parts: tuple[list[tuple[str, ...]], ...] = ([], [], [])
    for one in candidates():
        parts[part_of(" ".join(one), _SHARES)].append(one)
    return parts


def _tales(draws: Draws, seed: int, part: int) -> Iterator[Tale]:
    for tale in tales(seed, sys.maxsize, "validation" if part else "train"):
        plot = " ".join(tale.facts[fact] for fact in ("want", "obstacle", "remedy", "ending"))
        if not part or part_of(plot, _TALE_SHARES) == part - 1:
            yield tale


def _single_words() -> Iterable[tuple[str, ...]]:
    return ((word,) for word in _words("words"))


def _pairs() -> Iterable[tuple[str, ...]]:
    return (tuple(line.split()) for line in _sections()["opposites"])


def _numbers() -> Iterable[tuple[str, ...]]:
    return ((str(a), str(b)) for a, b in combinations_with_replacement(range(100), 2))


def _deeds() -> Iterable[tuple[str, ...]]:
    """Who does what to whom: ("cook", "sees seen", "cat")"""
    people = _words("people")
    return ((one, does, other) for one in people for does in _sections()["verbs"] for other in people if one != other)


def _mistakes() -> Iterable[tuple[str, ...]]:
    """(a misspelled word, the word): two neighbours swapped, a letter left out or there twice. Only one word is near to each,
    and none is itself a word of another section, or a word kept from training might be seen."""
    words = _words("correct")
    others = {word for section in ("words", "opposites", "people", "correct") for word in _words(section)}
    of: dict[str, set[str]] = {}
    for word in words:
        for i, letter in enumerate(word):
            swapped = word[:i] + word[i + 1 : i + 2] + letter + word[i + 2 :]
            for wrong in (swapped, word[:i] + word[i + 1 :], word[:i] + letter + word[i:]):
                of.setdefault(wrong, set()).add(word)
    return ((wrong, *right) for wrong, right in of.items() if len(right) == 1 and wrong not in others)


def _phrases() -> Iterable[tuple[str, ...]]:
    return product(*(_sections()[name] for name in ("adjectives", "animals", "does", "where")))


def _appointments() -> Iterable[tuple[str, ...]]:
    return product(*(_words(name) for name in ("topic", "day", "place")))


def _about_word(ask: str, answer: Callable[[str], str]) -> Callable[[Draws, tuple[str, ...]], tuple[str, str, str]]:
    return lambda draws, item: (f"{ask}: {item[0]}", "", answer(item[0]))


def _opposite(draws: Draws, item: tuple[str, ...]) -> tuple[str, str, str]:
    asked, answer = draws.some(item, 2)
    return f"Opposite: {asked}", "", answer


def _addition(draws: Draws, item: tuple[str, ...]) -> tuple[str, str, str]:
    a, b = item if draws.pick((True, False)) else item[::-1]
    return f"Add: {a} + {b}", "", str(int(a) + int(b))


def _passive(draws: Draws, item: tuple[str, ...]) -> tuple[str, str, str]:
    one, does, other = item
    present, participle = does.split()
    return f"Passive: The {one} {present} the {other}.", "", f"The {other} is {participle} by the {one}."


def _german(draws: Draws, item: tuple[str, ...]) -> tuple[str, str, str]:
    (adjective, adjektiv), (animal, article, tier), (does, tut) = (words.split() for words in item[:3])
    where = item[3].split()  # ["in", "the", "garden", "im", "Garten"]
    english = f"The {adjective} {animal} {does} {' '.join(where[:3])}."
    return f"German: {english}", "", f"{article.capitalize()} {adjektiv} {tier} {tut} {' '.join(where[3:])}."


def _tales_in_part(draws: Draws, seed: int, part: int) -> Iterator[tuple[Tale, int | None]]:
    """Tales, of which all is told (None); to train on, of two of three a passage, in which an answer is found sooner."""
    for i, tale in enumerate(_tales(draws, seed, part)):
        yield tale, draws.pick(range(len(_ANSWERED))) if part == 0 and i % 3 else None


def _passages(tale: Tale) -> list[str]:
    """Its paragraphs; its first two sentences, which name hero and village; and its last four, which have the hero's mood."""
    sentences = re.split(r"(?<=[.?])\s", tale.text)
    return [*tale.text.split("\n"), " ".join(sentences[:2]), " ".join(sentences[-4:])]


def _question(draws: Draws, item: tuple[Tale, int | None]) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    tale, passage = item
    # Not how the friend felt: a model of this size copies by place and not by name, and takes either mood for the other.
    every = [asked for asked in questions(tale) if asked[0] != f"How did {tale.facts['people'][1]} feel in the end?"]
    if passage is None:
        i = draws.pick(range(len(every)))
        text, asked = tale.text, [every[(i + step) % len(every)] for step in (0, *_NEXT)]
    else:
        text = _passages(tale)[passage]
        asked = draws.some([every[i] for i in _ANSWERED[passage]], len(_ANSWERED[passage]))
    (question, answer), *more = asked
    return question, text, answer, tuple(more)


def _summary(draws: Draws, tale: Tale) -> tuple[str, str, str]:
    hero, friend = tale.facts["people"]
    slots = {"H": hero, "F": friend, "P": tale.facts["goal"], "T": tale.facts["thing"]}
    slots |= {"errand": _world().errands[tale.facts["want"]], "end": ANSWERS[tale.facts["ending"]].format(**slots)}
    return "Tell it in one sentence.", tale.text, draws.pick(_sections()["summary"]).format(**slots)


def _is_summary(lesson: Lesson, answer: str) -> bool:
    return re.fullmatch(r"[^.!?\n]+\.", answer) is not None and _told(answer) == _told(lesson.answer)


def _told(summary: str) -> tuple[list[str], set[str], set[str]]:
    """The people, in the order in which they are named first, the places and things, and the endings that are told."""
    world, words = _world(), re.findall(r"\w+", summary)
    people = list(dict.fromkeys(word for word in words if word in world.people))
    things = {word for word in words if word in world.things}
    said = {ending.format(H=hero, T=thing) for ending in ANSWERS.values() for hero in people for thing in things}
    endings = {ending for ending in said if re.search(rf"\b{ending}\b", summary)}
    return people, {word for word in words if word in (*world.villages, *world.places)} | things, endings


def _email(draws: Draws, item: tuple[str, ...]) -> tuple[str, str, str]:
    to, sender = draws.some(_world().names, 2)
    slots = dict(zip(("topic", "day", "place"), item, strict=True))
    greeting, body, closing = (draws.pick(_sections()[name]) for name in ("greeting", "body", "closing"))
    answer = "\n".join((greeting.format(to=to), body.format(**slots), closing, sender))
    return f"Write an e-mail from {sender} to {to}.", ", ".join(item), answer


def _is_email(lesson: Lesson, answer: str) -> bool:
    lines = answer.split("\n")
    if len(lines) < 4:
        return False
    keywords, (first, *_, sender) = set(lesson.input.split(", ")), lesson.answer.split("\n")
    to = first.rstrip(",").split()[-1]
    greeting, *body, closing, signed = lines
    every = {word for name in ("topic", "day", "place") for word in _words(name)}
    return (
        greeting in {line.format(to=to) for line in _sections()["greeting"]}
        and closing in _sections()["closing"]
        and signed == sender
        and every & set(re.findall(r"\w+", "\n".join(body))) == keywords
    )


def _reviews(draws: Draws, seed: int, part: int) -> Iterator[str]:
    return reviews(seed, sys.maxsize, REVIEW_SPLITS[part])


def _review(draws: Draws, review: str) -> tuple[str, str, str]:
    return ask(review.split()[1]), "", review


def _is_review(lesson: Lesson, answer: str) -> bool:
    return parses(answer, asked(lesson.instruction))


LESSONS: dict[str, Kind] = {
    "upper": Kind("a word in capitals", _word_cards, _about_word("Capitals", str.upper)),
    "spell": Kind("a word, letter by letter", _word_cards, _about_word("Spell", "-".join)),
    "last": Kind("the last letter of a word", _word_cards, _about_word("Last letter", lambda w: w[-1])),
    "reverse": Kind("a word backwards", _word_cards, _about_word("Reverse", lambda w: w[::-1])),
    "passive": Kind("a sentence in the passive voice", partial(_deck, _deeds), _passive),
    "addition": Kind("the sum of two numbers from 0 to 99", partial(_deck, _numbers), _addition),
    "correct": Kind(
        "a misspelled word, spelled right",
        partial(_deck, _mistakes),
        lambda draws, item: (f"Correct: {item[0]}", "", item[1]),
    ),
    "german": Kind("a sentence in German", partial(_deck, _phrases), _german),
    "opposite": Kind("the opposite of a word", partial(_deck, _pairs), _opposite, look_up=True),
    "question": Kind("who, where, what and how, of a tale", _tales_in_part, _question, asked_last=True),
    "summary": Kind("a tale in one sentence", _tales, _summary, _is_summary),
    "email": Kind("an e-mail from three keywords", partial(_deck, _appointments), _email, _is_email),
    "review": Kind("praise and blame of a thing", _reviews, _review, _is_review),
}
