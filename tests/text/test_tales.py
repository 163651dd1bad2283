"""The world of tales: facts and text agree, the same bytes everywhere, what is held out, and what check_tale notices."""

import hashlib
import math
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.text.tales import _world as read_world
from tinygrad_llm.text.tales import check_tale, curriculum, drills, questions, tales

WORLD = read_world()
TRAIN, VALIDATION = list(tales(1, 4000)), list(tales(1, 400, "validation"))
GOOD = {"names": True, "places": True, "thing": True, "ending": True}
GIRLS_AND_BOYS = {"she": "he", "her": "his", "hers": "his", "herself": "himself", "girl": "boy", "daughter": "son"}
GIRLS_AND_BOYS |= {girl.capitalize(): boy.capitalize() for girl, boy in GIRLS_AND_BOYS.items()}
GIRLS_AND_BOYS |= {boy: girl for girl, boy in GIRLS_AND_BOYS.items()}
SPLITS = st.sampled_from(["train", "validation"])
SEEDS = st.integers(0, 2**64)


def plot(tale):
    return tuple(tale.facts[fact] for fact in ("want", "obstacle", "remedy", "ending"))


def pairs(tale):
    hero = tale.facts["people"][0]
    return {(hero, tale.facts["thing"]), (hero, tale.facts["place"])}


def cast(tale):
    return [*tale.facts["people"], tale.facts["place"], tale.facts["goal"], tale.facts["thing"]]


def swapped(text, words, other):
    """The text, once for each of these words in it, with another word in that one place."""
    for match in re.finditer(rf"\b({'|'.join(words)})\b", text):
        yield text[: match.start()] + other(match[0]) + text[match.end() :]


def words_of(text):
    return re.findall(r"'s|\w+|[^\w\s]|\n", text)


# ---- the tales


@given(SEEDS, SPLITS)
def test_every_tale_agrees_with_its_facts(seed, split):
    for tale in tales(seed, 5, split):
        assert check_tale(tale.text) == check_tale(tale.text, tale.facts) == GOOD
        facts, words = tale.facts, set(words_of(tale.text))
        assert words & set(WORLD.names) == set(facts["people"])
        assert words & {*WORLD.villages, *WORLD.places} == {facts["place"], facts["goal"]}
        assert words & set(WORLD.things) == {facts["thing"]}
        assert facts["mood"] in WORLD.moods[facts["ending"]]
        assert facts["mood"] != facts["friend_mood"]
        assert len(re.findall(rf"\b{facts['place']}\b", tale.text)) >= 2


@given(SEEDS, SPLITS)
def test_a_tale_is_well_written(seed, split):
    for tale in tales(seed, 5, split):
        paragraphs = tale.text.split("\n")
        assert len(paragraphs) == 3
        for paragraph in paragraphs:
            assert re.fullmatch(r"[A-Za-z ,.:?!'\"]+", paragraph)
            assert "  " not in paragraph
            assert re.search(r"[.!?]\"?$", paragraph)
            assert paragraph.count('"') % 2 == 0
            assert all(
                start[-1].isupper() for start in re.findall(r'(?:^|[.!?]"? )"?\w', re.sub('" [a-z]', "", paragraph))
            )
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", tale.text.replace("an hour", ""))


def test_the_same_bytes_from_the_same_seed():
    def digest(texts):
        return hashlib.sha256("\n\n".join(texts).encode()).hexdigest()[:16]

    assert digest(tale.text for tale in tales(7, 200)) == "983408e65d949f43"
    assert digest(tale.text for tale in tales(7, 200, "validation")) == "56ab0e9b1cb537fa"
    assert digest(drills(7, 100)) == "ae9d35ec05b82a65"
    assert sum(tale.nats for tale in tales(7, 200)) == pytest.approx(8927.5291, abs=1e-3)


@given(SEEDS, st.integers(0, 8), st.integers(0, 8), SPLITS)
def test_fewer_tales_are_the_first_of_more(seed, few, more, split):
    assert list(tales(seed, few, split)) == list(tales(seed, few + more, split))[:few]


def test_tales_differ():
    assert len({tale.text for tale in TRAIN}) == len(TRAIN)
    assert TRAIN[0].text != next(tales(2, 1)).text


def test_every_name_place_and_thing_occurs_and_every_wording():
    text = "\n".join(tale.text for tale in TRAIN)
    words = Counter(words_of(text))
    for group in (WORLD.names, WORLD.villages, WORLD.places, WORLD.things, WORLD.every_mood):
        counts = [words[word] for word in group]
        assert 2 * max(counts) / len(counts) < 4 * min(counts)
    for part in ("quirk", "habit", "kind", "trade"):
        assert all(wording in text for wording in WORLD.parts[part])


@given(SEEDS)
def test_nats_are_the_choices_that_the_text_shows(seed):
    """Each part's wording is looked for in the text, filled with what the facts say, and its fellows are counted."""
    for tale in tales(seed, 3):
        facts = tale.facts
        hero, friend = facts["people"]
        girl, daughter = (WORLD.people[person] == "girl" for person in facts["people"])
        slots = {"H": hero, "F": friend, "V": facts["place"], "P": facts["goal"], "T": facts["thing"]}
        slots |= {"M": facts["mood"], "N": facts["friend_mood"], "son": "daughter" if daughter else "son"}
        slots |= {
            "a": ("an " if facts["thing"][0] in "aeiou" else "a ") + facts["thing"],
            "him": "her" if girl else "him",
        }
        slots |= {
            word: word if girl else GIRLS_AND_BOYS[word]
            for word in ("she", "She", "her", "Her", "hers", "herself", "girl")
        }
        inner = {"kind", "quirk", "habit", "trade", "reason"}
        looks_like = {"{" + slot + "}": word for slot, word in slots.items()} | {
            "{" + slot + "}": "(.+?)" for slot in inner
        }
        nats = math.log(len(WORLD.plots) * 48 * 47 * 20 * 20 * 40 * len(WORLD.moods[facts["ending"]]) * 7)
        want, ending = facts["want"], facts["ending"]
        looks_like["{errand}"] = WORLD.errands[want]
        parts = ["open", "friend", f"want {want}", f"plan {want}", f"obstacle {facts['obstacle']}"]
        parts += [
            f"{facts['obstacle']} {facts['remedy']}",
            "arrive",
            f"{want} {ending}",
            f"so {ending}",
            "home",
            "why",
            f"close {ending}",
        ]
        for part in parts:
            found = []
            for wording in WORLD.parts[part]:
                pattern = "".join(
                    looks_like.get(piece) or re.escape(piece) for piece in re.split(r"(\{\w+\})", wording)
                )
                found += [re.findall(r"\{(\w+)\}", wording)] if re.search(pattern, tale.text) else []
            assert len(found) == 1
            nats += math.log(len(WORLD.parts[part]))
            for slot in inner.intersection(found[0]):
                nats += math.log(len(WORLD.parts[f"reason {facts['friend_mood']}" if slot == "reason" else slot]))
        assert tale.nats == pytest.approx(nats, rel=1e-12)


# ---- what is held out


def test_validation_has_plots_and_pairs_that_training_never_has():
    plots = {plot(tale) for tale in TRAIN}, {plot(tale) for tale in VALIDATION}
    assert not plots[0] & plots[1]
    assert len(plots[0] | plots[1]) > 0.95 * len(WORLD.plots) == 0.95 * 768
    assert 0.09 < len(plots[1]) / 768 < 0.16
    seen = set().union(*(pairs(tale) for tale in TRAIN))
    assert all(pairs(tale) - seen for tale in VALIDATION)
    everything = {(hero, other) for hero in WORLD.names for other in (*WORLD.things, *WORLD.villages)}
    assert 0.8 * len(everything) < len(seen) < 0.92 * len(everything)


def test_training_sees_every_part_of_a_held_out_plot():
    for some in (lambda tale: (tale.facts["want"], tale.facts["ending"]), lambda tale: plot(tale)[1:3]):
        assert {some(tale) for tale in VALIDATION} <= {some(tale) for tale in TRAIN}


# ---- the check


@pytest.mark.parametrize("tale", [*TRAIN[:10], *VALIDATION[:10]], ids=range(20))
def test_the_check_catches_what_is_swapped(tale):
    facts, text = tale.facts, tale.text
    hero, friend = facts["people"]
    stranger = next(name for name in WORLD.names if name not in facts["people"])
    for name, others in {hero: [friend, stranger, "Griselda"], friend: [hero, stranger, "Griselda"]}.items():
        for other in others:
            wrong = list(swapped(text, [name], lambda _, other=other: other))
            assert len(wrong) >= 3
            assert not any(check_tale(one)["names"] for one in wrong)
    wrong = list(swapped(text, GIRLS_AND_BOYS, GIRLS_AND_BOYS.__getitem__))
    assert not any(check_tale(one)["names"] for one in wrong)

    for place, others in {facts["place"]: WORLD.villages, facts["goal"]: WORLD.places}.items():
        for other in [*(other for other in others if other != place), "Nowhere" if place[0].isupper() else "nowhere"]:
            wrong = list(swapped(text, [place], lambda _, other=other: other))
            assert len(wrong) >= 2
            assert not any(check_tale(one)["places"] for one in wrong)

    for other in [*(other for other in WORLD.things if other != facts["thing"]), "nothing"]:
        wrong = list(swapped(text, [facts["thing"]], lambda _, other=other: other))
        assert len(wrong) >= 2
        assert not any(check_tale(one)["thing"] for one in wrong)

    for mood in {*WORLD.every_mood} - {facts["mood"]}:
        last = text.rindex("\n")
        wrong = list(swapped(text[last:], [facts["mood"]], lambda _, mood=mood: mood))
        assert len(wrong) >= 2
        assert not any(check_tale(text[:last] + one)["ending"] for one in wrong)


def test_the_check_catches_another_ending():
    by_end = {}
    for tale in TRAIN:
        by_end.setdefault((tale.facts["want"], tale.facts["ending"]), tale)
    assert len(by_end) == 32
    for (want, ending), tale in by_end.items():
        begun = tale.text[: tale.text.rindex("\n")]
        for (other_want, other_ending), other in by_end.items():
            end = other.text[other.text.rindex("\n") :]
            for mine, its in zip(cast(tale), cast(other), strict=True):
                end = end.replace(its, mine)
            assert check_tale(begun + end)["ending"] == (want == other_want)
            fits = check_tale(begun + end, {"ending": ending, "want": want})["ending"]
            assert fits == ((want, ending) == (other_want, other_ending))
            if ending != other_ending:
                last = (
                    tale.text[: tale.text.rindex(" {mood}".format(**tale.facts))]
                    + end[end.rindex(" {mood}".format(**other.facts)) :]
                )
                assert not check_tale(last)["ending"]


def test_the_check_catches_another_errand():
    for tale in TRAIN[:20]:
        errand = WORLD.errands[tale.facts["want"]]
        for other in {*WORLD.errands.values()} - {errand}:
            wrong = list(swapped(tale.text, [errand], lambda _, other=other: other))
            assert len(wrong) >= 2
            assert not any(check_tale(one)["ending"] for one in wrong if f"{other} the " in one)


def test_the_check_compares_with_facts():
    tale = TRAIN[0]
    rules = {
        "people": "names",
        "place": "places",
        "goal": "places",
        "thing": "thing",
        "want": "ending",
        "ending": "ending",
        "mood": "ending",
    }
    for fact, rule in rules.items():
        other = next(other.facts[fact] for other in TRAIN if other.facts[fact] != tale.facts[fact])
        assert check_tale(tale.text, tale.facts | {fact: other}) == GOOD | {rule: False}
        assert check_tale(tale.text, {fact: tale.facts[fact]}) == GOOD
    assert check_tale(tale.text, tale.facts | {"people": tale.facts["people"][::-1]}) == GOOD | {"names": False}


@pytest.mark.parametrize(
    "text", ["", "Once upon a time.", "Ada", "Ada and Gus went to the mill with the kite.", "\n\n", "{H}"]
)
def test_what_is_no_tale_has_nothing_right(text):
    assert not any(value for rule, value in check_tale(text).items())


def test_a_tale_without_its_end_is_not_whole():
    tale = TRAIN[0]
    begun = tale.text[: tale.text.rindex("\n")]
    assert check_tale(begun) == GOOD | {"places": False, "ending": False}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((-1, 3), "tales: seed is -1: it must be an integer, 0 or more"),
        ((1, -3), "tales: n is -3"),
        ((True, 3), "seed is True"),
        ((1, 2.0), "n is 2.0"),
        ((1, 3, "test"), "split is 'test': use 'train' or 'validation'"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ConfigError, match=match):
        tales(*arguments)


def test_a_text_that_is_none():
    with pytest.raises(DataError, match="text is a list: it must be a str"):
        check_tale([])


# ---- questions and drills


@given(SEEDS)
def test_the_answers_stand_in_the_tale(seed):
    for tale in tales(seed, 3):
        asked = dict(questions(tale))
        assert len(asked) == 9
        hero, friend = tale.facts["people"]
        assert asked["Who is the tale about?"] == hero
        assert asked[f"Who went with {hero}?"] == friend
        assert asked[f"Where did {hero} live?"] == tale.facts["place"]
        assert asked[f"How did {hero} feel in the end?"] == tale.facts["mood"]
        assert asked[f"How did {friend} feel in the end?"] == tale.facts["friend_mood"]
        for question, answer in asked.items():
            if question not in ("How does it end?", "What was in the way?"):
                assert answer.removeprefix("the ") in tale.text


def test_a_curriculum_is_drills_then_tales_in_brief_then_tales():
    texts = list(curriculum(3, 400))
    assert texts[:180] == list(drills(3, 180))
    assert texts[280:] == [tale.text for tale in tales(3, 400)]
    brief = texts[180:280]
    lengths = [len(words_of(text)) for text in brief]
    assert sum(lengths[:15]) < 0.8 * sum(lengths[40:55]) < 0.8 * sum(lengths[-15:])
    for text in brief:
        told, asked = text.rsplit("\n", 1)
        question, answer = re.fullmatch(r"(.+\?) (.+)\.", asked).groups()
        everything = {*WORLD.names, *WORLD.villages, *WORLD.places, *WORLD.things, *WORLD.every_mood}
        assert set(words_of(question + answer)) & everything <= set(words_of(told))
    assert all(check_tale(text) == GOOD for text in brief[-16:])
    assert [check_tale(text) for text in brief[:16]].count(GOOD) == 0


def test_a_curriculum_has_the_words_of_all_questions():
    known = Counter(word for text in curriculum(3, 8000) for word in words_of(text))
    for tale in VALIDATION:
        assert all(known[word] > 1 for question in questions(tale) for word in words_of(" ".join(question)))


@given(SEEDS)
def test_a_drill_repeats_what_it_names(seed):
    for drill in drills(seed, 9):
        named = Counter(re.findall(rf"\b(?:{'|'.join([*WORLD.names, *WORLD.things, *WORLD.places])})\b", drill))
        assert sum(count - 1 for count in named.values()) >= 0.3 * sum(named.values())


# ---- the wordings


def test_no_word_has_two_roles():
    lists = [WORLD.names, WORLD.villages, WORLD.places, WORLD.things, WORLD.every_mood]
    everything = [word for words in lists for word in words]
    assert len(set(everything)) == len(everything) == 48 + 20 + 20 + 40 + 8
    for part, wordings in WORLD.parts.items():
        if part.split()[0] not in ("girls", "boys", "villages", "places", "things", "moods"):
            for wording in wordings:
                assert not set(words_of(re.sub(r"\{\w+\}", "", wording))) & set(everything), (part, wording)
                assert not set(words_of(re.sub(r"\{\w+\}", "", wording))) & set(GIRLS_AND_BOYS), (part, wording)


def test_no_wording_is_there_twice():
    wordings = [
        wording for part, wordings in WORLD.parts.items() for wording in wordings if not part.startswith("moods")
    ]
    assert len(set(wordings)) == len(wordings) > 240
