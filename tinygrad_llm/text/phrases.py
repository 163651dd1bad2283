"""A world of sentences in English and German, made up from a seed by the rules of both, to learn to translate from.

    for english, german in phrases(seed=1, n=3):   # the same three on every machine
        print(english, german)                     # Today he buys an old book   Heute kauft er ein altes Buch
    phrases(1, 100, "test")                        # with combinations of words that none to train on has
    pattern_of("This is an example")               # "this"

phrases.txt holds the words. German is inflected here by its own rules: articles and adjectives agree in gender, number and case,
the verb stands second, or last after "dass", and what can be split off it, the infinitive and the participle stand last. So
words change places, and no look-up of single words makes a sentence (evaluation/translation.py counts how often it does).

What is kept from training is combinations of two words: an adjective and its noun ("old" and "book" in any form, and in "the
book is old" too), a verb and its object, a preposition and its noun, and "be" with the noun that "this is", "there is" or "where
is" is about. Each belongs to training (7 of 10), validation (1) or test (2), by what it is called. A sentence to train on has
combinations of training only; one to test on has one of the test or more, and none of validation; and the other way about. All
words and patterns are in all three; sentences without such a combination ("I am tired", "Who helps him?") are in training alone.

An English sentence has one German one: "you" is "du", what was is told in the perfect ("I bought it": "ich habe ... gekauft").
Statements end with a period or with nothing, and so in both languages; questions with their mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..errors import ConfigError, DataError
from .grammar import Draws, check_split, part_of
from .phrase_words import NUMBERS, POSSESSIVES, Modal, Noun, Verb, article_of, described, form_of, spaced, world

PHRASE_SPLITS = ("train", "validation", "test")
PATTERNS = {
    "this": "This is an old book",
    "is": "The book is not old",
    "there": "There is an old book in the house",
    "where": "Where is the book?",
    "act": "He gives the book to the child",
    "not": "He does not buy an old book",
    "ask": "Did he buy the book?",
    "modal": "He must look at the book",
    "past": "He bought the book",
    "first": "Today he buys the book",
    "that": "I know that he buys the book",
    "who": "Who can repair the car?",
}

_SHARES = (7, 1, 2)  # of all combinations, for each split
_MOST = 200_000  # sentences of a call: there are far more, but those that are short come to an end
_IN_A_ROW = 10_000  # draws without one that is new: never seen, and a loop without an end is worse than an error
_SUBJECTS = (("I", "ich"), ("you", "du"), ("he", "er"), ("she", "sie"), ("we", "wir"), ("they", "sie"))
_OBJECTS = ("me mich mir", "you dich dir", "him ihn ihm", "her sie ihr", "us uns uns", "them sie ihnen")
_PERSON = (0, 1, 2, 2, 3, 3)  # of the six: which of the four forms of a verb; the last is the infinitive
_BE = (("am", "are", "is", "are"), ("bin", "bist", "ist", "sind"))
_HAVE = ("habe", "hast", "hat", "haben")
_I_AND_WE = {0, 4}  # of the six: "I see us" is nothing that people say
_TENSES = ("present", "past", "modal")


def phrases(seed: int, n: int, split: str = "train") -> list[tuple[str, str]]:
    """The first `n` sentences of a seed, (English, German), the same on every platform; no English one is there twice.

    ConfigError for a seed or a number that is no integer of 0 or more, a number above 200,000, and another split than "train",
    "validation" and "test".
    """
    return [(one.english, one.german) for one in _told(seed, n, split)]


def pattern_of(english: str) -> str:
    """Which of PATTERNS a sentence of this world has, by its English words. DataError for what is of none."""
    words = english.rstrip(".?").split() if isinstance(english, str) else []
    if len(words) < 2:
        raise DataError(f"pattern_of: {english!r:.80} is no sentence of phrases.py")
    lower, known = [word.lower() for word in words], _known()
    if "that" in lower:
        return "that"
    if lower[0] in ("who", "where"):
        return lower[0]
    if "there" in lower[:2]:
        return "there"
    if words[1] in ("is", "are") and lower[0] in ("this", "these"):
        return "this"
    if lower[0] in ("is", "are") and lower[1] in ("this", "these") and lower[-1] in known.nouns:
        return "is" if {*lower} & known.prepositions else "this"
    if {"is", "are", "am"} & {*lower}:
        return "is"
    if lower[0] in known.first:
        return "first"
    if "not" in lower or "cannot" in lower:
        return "not"
    if lower[0] in ("do", "does", "did") or lower[0] in known.modals:
        return "ask"
    if known.modals & {*lower}:
        return "modal"
    return "past" if known.past & {*lower} else "act"


class _Known(NamedTuple):
    """Words by which a pattern is known, and the first words of what is more than one."""

    nouns: set[str]
    prepositions: set[str]
    modals: set[str]
    past: set[str]
    first: set[str]


@lru_cache(maxsize=1)
def _known() -> _Known:
    words = world()
    return _Known(
        {form for noun in words.nouns for form in (noun.english, noun.plural)},
        {place.english.split()[0] for place in words.places},
        {word.split("_")[0] for modal in words.modals for word in modal.english[:2]},
        {verb.english[2].split("_")[0] for verb in words.verbs},
        {first.english.split()[0] for first in words.first},
    )


class _Phrase(NamedTuple):
    english: str
    german: str
    pattern: str
    combinations: tuple[str, ...]


def _told(seed: int, n: int, split: str) -> list[_Phrase]:
    part = check_split("phrases", split, PHRASE_SPLITS)
    draws = Draws("phrases", seed, n, part)
    if n > _MOST:
        raise ConfigError(f"phrases: n is {n:,}: at most {_MOST:,} are made at once")
    made: dict[str, _Phrase] = {}
    for _ in range(n):
        for _ in range(_IN_A_ROW):
            phrase = _Teller(draws).tell()
            if phrase.english not in made and _is_of(phrase.combinations, part):
                made[phrase.english] = phrase
                break
        else:
            raise ConfigError(f"phrases: of split {split!r} there are only {len(made):,} sentences: ask for fewer")
    return [*made.values()]


def _is_of(combinations: Sequence[str], part: int) -> bool:
    parts = {_dealt(one) for one in combinations}
    return part in parts and parts <= {0, part} if part else parts <= {0}


@lru_cache(maxsize=1 << 14)
def _dealt(combination: str) -> int:
    return part_of(combination, _SHARES)


# ---- sentences


class _Both(NamedTuple):
    """A piece in both languages. Of a subject or object `person` is its form of a verb, and `one_of` which of the six it is."""

    english: str
    german: str
    person: int = 2
    one_of: int = -1


_NOTHING = _Both("", "")


class _Doing(NamedTuple):
    """A verb with what belongs to it; "nicht", where there is one, stands before `at`."""

    verb: Verb
    whom: _Both
    at: _Both
    nicht: str


class _Teller:
    """One sentence, from the choices of `draws`."""

    def __init__(self, draws: Draws) -> None:
        self.pick, self.world = draws.pick, world()
        self.combinations: list[str] = []

    def tell(self) -> _Phrase:
        pattern = self.pick([*PATTERNS])
        english, german = getattr(self, f"_{pattern}")()
        end = "?" if english.endswith("?") else self.pick(("", "."))
        english, german = (" ".join(text.rstrip("?").split()) + end for text in (english, german))
        english, german = (text[0].upper() + text[1:] for text in (english, german))
        return _Phrase(english, german, pattern, (*self.combinations,))

    def combine(self, word: str, noun: Noun) -> None:
        self.combinations.append(f"{noun.english} {word}")

    def once_in(self, n: int) -> bool:
        return bool(self.pick(range(n)) == 0)

    # ---- nouns and what stands before them

    def noun(
        self, noun: Noun, case: str, kind: str, *, kein: bool = False, plural: bool | None = None, adjective: int = 2
    ) -> _Both:
        """A noun with its article and, once in `adjective`, an adjective.

        `kind` of the article: "the", with "this" and "my"; "a", with none and "two" in the plural; "no". `kein`: "a" where all
        is denied, for which German says "kein" and English nothing more.
        """
        plural = self.once_in(3) if plural is None else plural
        gender = "plural" if plural else noun.gender
        word, chosen = noun.plural if plural else noun.english, None
        if self.once_in(adjective):
            chosen = self.pick(self.world.adjectives[noun.english])
            self.combine(chosen.english, noun)
            word = f"{chosen.english} {word}"
        if kind == "the" or "kin" in noun.kinds:
            this = () if "kin" in noun.kinds else ("this",)
            article = self.pick(("the", "the", "the", *this, *(() if "nobody's" in noun.kinds else POSSESSIVES)))
        elif kind == "no":
            article = "no"
        elif not plural:
            article = "an" if word[0] in "aeiou" else "a"
        else:
            article = self.pick(("", "") if kein else ("", "", *NUMBERS))
        artikel, shows = article_of("kein" if kein and article in ("a", "an", "") else article, case, gender)
        adjektiv = described(chosen, case, gender, shows) if chosen else ""
        if article == "this" and plural:
            article = "these"
        return _Both(f"{article} {word}", f"{artikel} {adjektiv} {form_of(noun, case, plural)}", 3 if plural else 2)

    def pronoun(self, besides: int = -1) -> _Both:
        i = self.pick([i for i in range(len(_SUBJECTS)) if i != besides and {i, besides} != _I_AND_WE])
        return _Both(*_SUBJECTS[i], _PERSON[i], i)

    def place(self, besides: Noun | None = None) -> _Both:
        """A preposition and its noun, in the dative."""
        place = self.pick(self.world.places)
        noun = self.pick([noun for noun in place.nouns if noun is not besides])
        self.combine(place.english, noun)
        at = self.noun(noun, "dative", "the", plural=False, adjective=4)
        german = f"{place.german} {at.german}"
        return _Both(f"{place.english} {at.english}", german.replace("in dem ", "im "))

    # ---- what is

    def _this(self) -> tuple[str, str]:
        noun, how, kind = self.pick(self.world.nouns), self.pick(("", "", "", "not", "?")), self.pick(("the", "a"))
        self.combine("be", noun)
        kein = how == "not" and kind == "a" and "kin" not in noun.kinds
        it = self.noun(noun, "nominative", kind, kein=kein)
        this, be, ist = ("these", "are", "sind") if it.person == 3 else ("this", "is", "ist")
        if how == "?":
            return f"{be} {this} {it.english}?", f"{ist} das {it.german}"
        nicht = "nicht" if how and not kein else ""
        return f"{this} {be} {how} {it.english}", f"das {ist} {nicht} {it.german}"

    def _is(self) -> tuple[str, str]:
        """Somebody or something is so, or is somewhere."""
        noun = self.pick(self.world.nouns)
        if "person" in noun.kinds and self.once_in(3):
            it, adjective = self.pronoun(), self.pick(self.world.adjectives["friend"])
            so = _Both(adjective.english, adjective.german)
        else:
            it = self.noun(noun, "nominative", "the", adjective=6)
            if noun.kinds & {"talk", "place"} or self.once_in(2):
                adjective = self.pick(self.world.adjectives[noun.english])
                self.combine(adjective.english, noun)
                very, sehr = self.pick((("", ""), ("", ""), ("very", "sehr")))
                so = _Both(f"{very} {adjective.english}", f"{sehr} {adjective.german}")
            else:
                so = self.place(besides=noun)
        be, ist = (forms[it.person] for forms in _BE)
        if self.once_in(4):
            return f"{be} {it.english} {so.english}?", f"{ist} {it.german} {so.german}"
        no, nicht = self.pick((("", ""), ("", ""), ("not", "nicht")))
        return f"{it.english} {be} {no} {so.english}", f"{it.german} {ist} {nicht} {so.german}"

    def _there(self) -> tuple[str, str]:
        noun = self.pick([noun for noun in self.world.nouns if "kin" not in noun.kinds])
        self.combine("be", noun)
        kind = self.pick(("a", "a", "no"))
        it = self.noun(noun, "accusative", kind)
        at = self.place(besides=noun) if self.once_in(2) else _NOTHING
        be = _BE[0][it.person]
        if kind == "a" and self.once_in(3):
            return f"{be} there {it.english} {at.english}?", f"gibt es {it.german} {at.german}"
        return f"there {be} {it.english} {at.english}", f"es gibt {it.german} {at.german}"

    def _where(self) -> tuple[str, str]:
        noun = self.pick([noun for noun in self.world.nouns if "talk" not in noun.kinds])
        self.combine("be", noun)
        it = self.noun(noun, "nominative", "the")
        be, ist = (forms[it.person] for forms in _BE)
        return f"where {be} {it.english}?", f"wo {ist} {it.german}"

    # ---- what is done

    def _act(self) -> tuple[str, str]:
        return self.clause("present")

    def _not(self) -> tuple[str, str]:
        return self.clause(self.pick(("present", "present", "past", "modal")), denied=True)

    def _ask(self) -> tuple[str, str]:
        return self.clause(self.pick(("present", "present", "past", "modal")), asked=True)

    def _modal(self) -> tuple[str, str]:
        return self.clause("modal")

    def _past(self) -> tuple[str, str]:
        return self.clause("past")

    def _first(self) -> tuple[str, str]:
        first = self.pick(self.world.first)
        return self.clause(first.tense, first=_Both(first.english, first.german))

    def _that(self) -> tuple[str, str]:
        return self.clause(self.pick(_TENSES), head=_Both(*self.pick(self.world.heads)))

    def _who(self) -> tuple[str, str]:
        english, german = self.clause(self.pick(_TENSES), who=_Both("who", "wer"))
        return f"{english}?", german

    def clause(
        self,
        tense: str,
        *,
        denied: bool = False,
        asked: bool = False,
        first: _Both | None = None,
        head: _Both | None = None,
        who: _Both | None = None,
    ) -> tuple[str, str]:
        """Who does what; `tense` may be a modal verb; `first` comes before the verb, `head` before all."""
        # where a pronoun stands among nouns has rules of its own once the subject comes after the verb: it is left out there
        doing = self.doing(tense, denied, pronouns=not (asked or first or head))
        if who is None and self.once_in(2):
            who = self.pronoun(besides=doing.whom.one_of)
        elif who is None:
            whose = doing.verb.nouns if doing.verb in self.world.stays else self.world.people
            who = self.noun(self.pick(whose), "nominative", "the", adjective=4)
        modal = None
        if tense in ("modal", "future"):
            modal = self.pick([m for m in self.world.modals if (m.english[0] == "will") == (tense == "future")])
            if denied and modal.english[2] == "-":
                modal = self.world.modals[0]
        english = _english(who, doing, tense, modal, denied, asked)
        verb, inflected, last = doing.verb, doing.verb.german[who.person], doing.verb.split_off
        if modal:
            inflected, last = modal.german[who.person], f"{verb.split_off}{verb.german[-1]}"
        elif tense == "past":
            inflected, last = _HAVE[who.person], verb.participle
        middle = f"{doing.whom.german} {doing.nicht} {doing.at.german}"
        if head:
            space = "" if last == verb.split_off else " "
            return f"{head.english} {english}", f"{head.german} {who.german} {middle} {last}{space}{inflected}"
        if first:
            return f"{first.english} {english}", f"{first.german} {inflected} {who.german} {middle} {last}"
        if asked:
            return f"{english}?", f"{inflected} {who.german} {middle} {last}"
        return english, f"{who.german} {inflected} {middle} {last}"

    def doing(self, tense: str, denied: bool, pronouns: bool) -> _Doing:
        """A verb with its object, its gift or its place."""
        kind, nicht = self.pick(("objects", "objects", "objects", "gifts", "stays")), "nicht" if denied else ""
        verb = self.pick([verb for verb in getattr(self.world, kind) if tense != "past" or verb.english[2] != "-"])
        if kind == "stays":
            return _Doing(verb, _NOTHING, self.place(), nicht)
        if pronouns and kind == "objects" and self.once_in(4) and self.world.people[0] in verb.nouns:
            i = self.pick(range(len(_OBJECTS)))
            english, accusative, dative = _OBJECTS[i].split()
            return _Doing(verb, _Both(english, dative if verb.case == "dative" else accusative, 2, i), _NOTHING, nicht)
        noun, article = self.pick(verb.nouns), self.pick(("the", "a"))
        self.combine(spaced(verb.english[0]), noun)
        kein = denied and article == "a" and "kin" not in noun.kinds
        it = self.noun(noun, verb.case, article, kein=kein)
        if kind == "gifts":
            to = self.noun(
                self.pick([one for one in self.world.people if one is not noun]), "dative", "the", adjective=6
            )
            it = _Both(f"{it.english} to {to.english}", f"{to.german} {it.german}")
        return _Doing(verb, it, _NOTHING, "" if kein else nicht)


def _english(who: _Both, doing: _Doing, tense: str, modal: Modal | None, denied: bool, asked: bool) -> str:
    plain, third, past = (spaced(form) for form in doing.verb.english)
    rest = f"{doing.whom.english} {doing.at.english}"
    is_third = who.person == 2
    if modal and modal.english[0] != "want_to":
        can, _, cannot = (spaced(form) for form in modal.english)
        if asked:
            return f"{can} {who.english} {plain} {rest}"
        return f"{who.english} {cannot if denied else can} {plain} {rest}"
    if modal:  # "wants to" is a verb as any other, with "does" where that needs it
        plain, third = (f"{spaced(want)} {plain}" for want in modal.english[:2])
    do = "did" if tense == "past" else "does" if is_third else "do"
    if asked:
        return f"{do} {who.english} {plain} {rest}"
    if denied:
        return f"{who.english} {do} not {plain} {rest}"
    return f"{who.english} {past if tense == 'past' else third if is_third else plain} {rest}"
