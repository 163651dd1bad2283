"""A world of reviews with a score that is true: what a model says of a film can be counted, so that feedback can be simulated.

    for review in reviews(seed=1, n=3):            # the same three on every machine
        print(review)                              # the film was good and the ending was dull.
    true_score("the film was good and the ending was dull.")     # 0.0: one good, one bad
    true_score("the film was goodly.")             # -1.0: no review

A review makes one to three judgements, joined by "and" or "but": of a thing, and then, if it goes on to that, of one of its
aspects. A judgement of the subject before it is an adjective alone: "the film was good but cold and the cast was weak." No
adjective comes twice in what `reviews` gives. reviews.txt has 8 things with 4 aspects each, and 8 adjectives of either kind.
The true score counts adjectives, and what it says of texts that are no reviews is all that keeps a policy to the language: a
reward that was learned from reviews alone has not seen such texts, and there lies its flaw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources

from ..checks import did_you_mean
from ..errors import ConfigError, DataError
from .grammar import Draws, check_split, part_of, read_sections

REVIEW_SPLITS = ("train", "validation", "test")
MOST_JUDGEMENTS = 3

_SHARES = (7, 1, 2)  # of all reviews, for each split


def reviews(seed: int, n: int, split: str = "train") -> Iterator[str]:
    """The first `n` reviews of a seed, the same on every platform; no review is in two splits.

    An adjective is as often good as bad, so that the mean of their true scores is near 0. ConfigError for a seed or a number
    that is no integer of 0 or more, and for another split than "train", "validation" and "test".
    """
    part = check_split("reviews", split, REVIEW_SPLITS)
    draws = Draws("reviews", seed, n, part)
    return (_review(draws, part) for _ in range(n))


def things() -> tuple[str, ...]:
    """What can be reviewed."""
    return tuple(_aspects())


def ask(thing: str) -> str:
    """The instruction that asks for a review."""
    return f"Review the {thing}."


def asked(text: str) -> str | None:
    """The first thing that a text names; None if there is none."""
    return next((word for word in re.findall(r"\w+", text.lower()) if word in _aspects()), None)


def true_score(text: str, thing: str | None = None) -> float:
    """The number of its good adjectives less that of its bad ones; -1 for a text that is no review, or not one of `thing`.

    ConfigError for a thing that nothing is said of, DataError for a text that is no str.
    """
    found = _read("true_score", text, thing)
    if found is None:
        return -1.0
    return float(sum(1 if adjective in _adjectives("good") else -1 for adjective in found))


def parses(text: str, thing: str | None = None) -> bool:
    """Whether a text is a review, to the letter, and of `thing`; errors as `true_score`."""
    return _read("parses", text, thing) is not None


def _review(draws: Draws, part: int) -> str:
    while True:
        thing = draws.pick(things())
        n = draws.pick(range(1, MOST_JUDGEMENTS + 1))
        turn = draws.pick(range(1, n + 1))  # the judgement from which it is about the aspect; n: none is
        aspect, adjectives, text = draws.pick(_aspects()[thing]), list[str](), f"the {thing} was "
        for i in range(n):
            kind = _adjectives(draws.pick(("good", "bad")))
            adjectives.append(draws.pick([one for one in kind if one not in adjectives]))
            if i > 0:
                text += f" {draws.pick(('and', 'but'))} "
            text += f"the {aspect} was {adjectives[-1]}" if i == turn else adjectives[-1]
        if part_of(f"{text}.", _SHARES) == part:
            return f"{text}."


def _read(who: str, text: str, thing: str | None) -> list[str] | None:
    """The adjectives of a review; None for what is no review, or not one of `thing`."""
    if not isinstance(text, str):
        raise DataError(f"{who}: text is a {type(text).__name__}: it must be a str")
    if thing is not None and thing not in _aspects():
        near = did_you_mean(str(thing), _aspects())
        raise ConfigError(f"{who}: thing is {thing!r:.80}{near}: there are {', '.join(_aspects())}")
    judgements = re.split(" and | but ", text.removesuffix("."))
    found = [re.fullmatch(r"(?:the ([a-z]+) was )?([a-z]+)", judgement) for judgement in judgements]
    if not text.endswith(".") or len(found) > MOST_JUDGEMENTS:
        return None
    (first, *later), adjectives = [match and match[1] for match in found], [match[2] for match in found if match]
    aspects = [subject for subject in later if subject]
    right = (
        len(adjectives) == len(found)
        and first in ([*_aspects()] if thing is None else [thing])
        and (not aspects or aspects in ([aspect] for aspect in _aspects()[first]))
        and {*adjectives} <= {*_adjectives("good"), *_adjectives("bad")}
    )
    return adjectives if right else None


@lru_cache(maxsize=1)
def _sections() -> dict[str, list[str]]:
    return read_sections(resources.files(__package__).joinpath("reviews.txt").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _aspects() -> dict[str, list[str]]:
    return {thing: aspects for thing, *aspects in map(str.split, _sections()["things"])}


@lru_cache
def _adjectives(kind: str) -> list[str]:
    return " ".join(_sections()[kind]).split()
