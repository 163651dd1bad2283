"""Instructions and answers: each answer found again by other means, no word or combination in two splits, the same everywhere."""

import hashlib
import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.text import CharTokenizer
from tinygrad_llm.text.lessons import LESSON_SPLITS, LESSONS, Lesson, _dealt, _sections, check_answer, lessons
from tinygrad_llm.text.tales import _read, _world, check_tale

SEEDS, SPLITS = st.integers(0, 2**64), st.sampled_from(LESSON_SPLITS)
KINDS = st.lists(st.sampled_from([*LESSONS]), min_size=1, unique=True)
ALL = tuple(LESSONS)
MADE = {split: lessons(1, 1200, split, ALL) for split in LESSON_SPLITS}
WORDS = {*" ".join(_sections()["words"]).split()}
OF_WORDS = ("Capitals", "Spell", "Last letter", "Reverse")
PARTICIPLES = {
    "sees": "seen", "hears": "heard", "finds": "found", "helps": "helped", "calls": "called", "follows": "followed",
    "knows": "known", "likes": "liked", "adores": "adored", "fears": "feared", "meets": "met", "greets": "greeted",
    "teaches": "taught", "feeds": "fed", "hides": "hidden", "visits": "visited", "paints": "painted", "draws": "drawn",
    "thanks": "thanked", "trusts": "trusted", "forgives": "forgiven", "wakes": "woken", "chases": "chased",
    "carries": "carried",
}  # fmt: skip
GERMAN = {
    "little": "kleine", "funny": "lustige", "hungry": "hungrige", "tired": "müde", "brown": "braune", "clever": "schlaue",
    "lazy": "faule", "grey": "graue", "fair": "schöne", "busy": "fleißige", "dog": "Der Hund", "cat": "Die Katze",
    "horse": "Das Pferd", "mouse": "Die Maus", "bear": "Der Bär", "frog": "Der Frosch", "sheep": "Das Schaf", "cow": "Die Kuh",
    "fish": "Der Fisch", "bird": "Der Vogel", "duck": "Die Ente", "pig": "Das Schwein", "fox": "Der Fuchs",
    "snake": "Die Schlange", "sleeps": "schläft", "dreams": "träumt", "eats": "frisst", "drinks": "trinkt", "waits": "wartet",
    "plays": "spielt", "dances": "tanzt", "sings": "singt", "listens": "lauscht", "snores": "schnarcht",
    "in the garden": "im Garten", "in the forest": "im Wald", "in the house": "im Haus", "in the kitchen": "in der Küche",
    "in the snow": "im Schnee", "on the street": "auf der Straße", "on the roof": "auf dem Dach",
    "on the meadow": "auf der Wiese", "at the river": "am Fluss", "under the table": "unter dem Tisch",
    "behind the door": "hinter der Tür", "by the window": "am Fenster",
}  # fmt: skip


def near(wrong, word):
    """One swap of neighbours, one letter too few or one twice."""
    for i in range(len(word)):
        if wrong in (word[:i] + word[i + 1 :], word[: i + 1] + word[i:]):
            return True
        if i and wrong == word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :]:
            return True
    return False


def expected(lesson):
    """The answers that are right, or None where they cannot be told from the instruction alone."""
    ask, _, about = lesson.instruction.partition(": ")
    if ask == "Capitals":
        return {"".join(chr(ord(letter) - 32) for letter in about)}
    if ask == "Spell":
        spelled = about[0]
        for letter in about[1:]:
            spelled += "-" + letter
        return {spelled}
    if ask == "Last letter":
        return {list(about).pop()}
    if ask == "Reverse":
        backwards = ""
        for letter in about:
            backwards = letter + backwards
        return {backwards}
    if ask == "Add":
        a, b = re.fullmatch(r"(\d\d?) \+ (\d\d?)", about).groups()
        return {str(len([*range(int(a)), *range(int(b))]))}
    if ask == "Passive":
        one, does, other = re.fullmatch(r"The (\w+) (\w+) the (\w+)\.", about).groups()
        return {f"The {other} is {PARTICIPLES[does]} by the {one}."}
    if ask == "German":
        adjective, animal, does, where = re.fullmatch(r"The (\w+) (\w+) (\w+) (.+)\.", about).groups()
        article, tier = GERMAN[animal].split()
        return {f"{article} {GERMAN[adjective]} {tier} {GERMAN[does]} {GERMAN[where]}."}
    if ask == "Opposite":
        (pair,) = [pair for pair in map(str.split, _sections()["opposites"]) if about in pair]
        return set(pair) - {about}
    if ask == "Correct":
        return {word for word in " ".join(_sections()["correct"]).split() if near(about, word)}
    return None


@given(SEEDS, SPLITS, KINDS)
def test_answers_are_right(seed, split, kinds):
    for lesson in lessons(seed, 30, split, kinds):
        assert check_answer(lesson, lesson.answer)
        assert check_answer(lesson, f" {lesson.answer}\n")
        assert not check_answer(lesson, "")
        assert not check_answer(lesson, lesson.answer + "x")
        right = expected(lesson)
        if right is not None:
            assert right == {lesson.answer}
            assert len(lesson.instruction + lesson.answer) < 130
            assert lesson.input == ""
        else:
            assert lesson.kind in ("question", "summary", "email", "review")
        for text in (lesson.instruction, lesson.input, lesson.answer):
            assert not re.search(r"[{}]|  ", text)
            assert text == text.strip()


def test_of_three_tales_to_train_on_two_are_told_in_part_which_answers_what_is_asked():
    asked = Counter()
    for i, lesson in enumerate(lessons(1, 300, "train", ["question"])):
        assert ("\n" in lesson.input) == (i % 3 == 0)
        if i % 3:
            asked[1 + len(lesson.more)] += 1
        for question, answer in [(lesson.instruction, lesson.answer), *lesson.more]:
            if question not in ("How does it end?", "What was in the way?"):
                assert answer.removeprefix("the ") in lesson.input
    assert asked.keys() == {1, 2, 3, 5}  # of how it ends, of how it begins, of the first two paragraphs, of the last
    assert min(asked[1], asked[2], asked[3] / 2, asked[5]) > 25


def test_nobody_is_asked_how_the_friend_felt():
    made = [lesson for lesson in lessons(1, 600, "train", ["question"]) if "\n" in lesson.input]
    asked = [(lesson.input, question) for lesson in made for question, _ in [(lesson.instruction, ""), *lesson.more]]
    felt = [(tale, question.split()[2]) for tale, question in asked if "feel" in question]
    assert len(felt) > 50
    for tale, who in felt:
        assert who == next(word for word in re.findall(r"\w+", tale) if word in _world().names)


@given(SEEDS, SPLITS)
def test_questions_and_summaries_are_of_their_tale(seed, split):
    world = _world()
    for lesson in lessons(seed, 4, split, ("question", "summary")):
        whole = "\n" in lesson.input
        assert whole or (lesson.kind, split) == ("question", "train")
        if not whole:
            continue
        assert all(check_tale(lesson.input).values())
        answer = lesson.answer
        said = {word for word in re.findall(r"\w+", lesson.instruction + " " + answer) if word in lesson.input}
        named = {*re.findall(r"\w+", answer)} & {*world.names, *world.villages, *world.places, *world.things}
        assert named <= said
        if lesson.kind == "summary":
            people = [word for word in re.findall(r"\w+", answer) if word in world.names]
            first = [word for word in re.findall(r"\w+", lesson.input) if word in world.names]
            assert people[:2] == list(dict.fromkeys(first))
            ending = check_tale(
                lesson.input,
                {
                    "ending": "success" if answer.endswith("did it.")
                    else "loss" if answer.endswith("was lost.")
                    else "kindness" if answer.endswith("away.")
                    else "change"
                },
            )  # fmt: skip
            assert all(ending.values())


@given(SEEDS, SPLITS, KINDS, st.integers(0, 30), st.integers(0, 30))
def test_fewer_lessons_are_the_first_of_more(seed, split, kinds, few, more):
    assert lessons(seed, few, split, kinds) == lessons(seed, max(few, more), split, kinds)[:few]


def test_the_same_bytes_from_the_same_seed():
    kinds = [kind for kind in LESSONS if kind != "review"]  # which came later, and has its own test
    made = [lesson for split in LESSON_SPLITS for lesson in lessons(1, 1200, split, kinds)]
    told = "\n".join(f"{x.kind}|{x.instruction}|{x.input}|{x.answer}" for x in made)
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "220ade8cc18434e6"
    assert lessons(2, 100) != lessons(1, 100)


@given(SEEDS, SPLITS, KINDS, st.integers(0, 40))
def test_kinds_are_mixed_evenly(seed, split, kinds, n):
    made = lessons(seed, n, split, kinds)
    assert len(made) == n
    for i in range(0, n - len(kinds) + 1, len(kinds)):
        assert {lesson.kind for lesson in made[i : i + len(kinds)]} == {*kinds}


def test_the_order_of_kinds_is_random():
    after = Counter((one.kind, other.kind) for one, other in zip(MADE["train"], MADE["train"][1:], strict=False))
    assert len(after) > 0.9 * len(LESSONS) ** 2


def test_nothing_comes_again_before_all_have_come():
    for kind in ("upper", "opposite", "email", "addition"):
        for split in LESSON_SPLITS:
            made = lessons(3, 1500, split, [kind])
            asked = [combination(lesson) for lesson in made]
            if kind == "upper" and split == "train":  # every second one is a string of letters
                assert not {*asked[1::2]} & WORDS
                asked = asked[::2]
                assert {*asked} <= WORDS
            n = len({*asked})
            assert max(Counter(asked).values()) - min(Counter(asked).values()) <= 1
            assert len({*asked[:n]}) == min(n, len(asked))
            if kind == "upper":
                assert n == {"train": 750, "validation": 153, "test": 285}[split]


def combination(lesson):
    """What may be in one split only."""
    ask, _, about = lesson.instruction.partition(": ")
    if lesson.kind == "email":
        return lesson.input
    if lesson.kind in ("question", "summary"):
        return lesson.input  # the plots are looked at below
    if lesson.kind == "review":
        return lesson.answer  # the things are asked for in every split
    if ask in OF_WORDS:
        return about
    return (
        frozenset({about, lesson.answer})
        if ask == "Opposite"
        else frozenset(about.split(" + "))
        if ask == "Add"
        else about
    )


def test_no_word_or_combination_is_in_two_splits():
    everything = {
        split: {
            kind: {
                combination(lesson)
                for lesson in lessons(5, 2200 if kind not in ("question", "summary") else 300, split, [kind])
            }
            for kind in LESSONS
        }
        for split in LESSON_SPLITS
    }
    words = {
        split: set().union(*(of[kind] for kind in ("upper", "spell", "last", "reverse")))
        for split, of in everything.items()
    }
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for kind in LESSONS:
            assert not everything[one][kind] & everything[other][kind], kind
        assert not words[one] & words[other]
    assert {split: len(of & WORDS) for split, of in words.items()} == {"train": 1061, "validation": 153, "test": 285}


def test_a_word_kept_from_training_is_in_no_other_kind_either():
    """Tales aside, which are prose."""
    kept = {
        word
        for split in ("validation", "test")
        for kind in ("upper", "opposite")
        for lesson in lessons(1, 300, split, [kind])
        for word in re.findall(r"\w+", lesson.instruction.split(": ")[1] + " " + lesson.answer.lower())
    }
    kinds = [kind for kind in LESSONS if kind not in ("question", "summary", "reverse")]  # reversed, "pots" is a word
    made = lessons(1, 6000, "train", kinds)
    seen = {word for x in made for word in re.findall(r"\w+", f"{x.instruction} {x.input} {x.answer}".lower())}
    assert not kept & seen
    assert len(kept) > 450


def test_plots_and_pairs_of_tales_are_in_one_split():
    world = _world()
    plots, pairs = {}, {}
    for split in LESSON_SPLITS:
        made = lessons(7, 400, split, ["summary"])
        plots[split], pairs[split] = set(), set()
        for lesson in made:
            plots[split].add(plot_of(lesson.input))
            words = re.findall(r"\w+", lesson.input)
            hero = next(word for word in words if word in world.names)
            thing = next(word for word in words if word in world.things)
            pairs[split].add((hero, thing, next(word for word in words if word in world.villages)))
    assert not plots["train"] & plots["validation"]
    assert not plots["train"] & plots["test"]
    assert not plots["validation"] & plots["test"]
    assert not pairs["train"] & (pairs["validation"] | pairs["test"])
    assert len(plots["validation"]) > 15
    assert len(plots["test"]) > 30


def plot_of(tale):
    """The wordings of a tale, as far as they name no way: want, obstacle, way past it, ending, by what check_tale reads."""
    parts, _ = _read(tale)
    obstacles = {part.split()[1] for part in parts if part.startswith("obstacle ")}
    way = {part for part in parts if part.split()[0] in obstacles}
    outcome = {part for part in parts if part in _world().outcomes}
    assert len(obstacles) == len(way) == len(outcome) == 1
    return (*way, *outcome)


def test_every_mistake_has_one_word_that_it_is_near_to():
    words = " ".join(_sections()["correct"]).split()
    mistakes = {one for part in _dealt(LESSONS["correct"].items.args[0]) for one in part}
    assert {len(one) for one in mistakes} == {2}
    assert len({wrong for wrong, _ in mistakes}) == len(mistakes)
    for wrong, right in mistakes:
        assert [word for word in words if near(wrong, word)] == [right]
    for name in ("words", "opposites", "people", "correct"):
        assert not {wrong for wrong, _ in mistakes} & {*" ".join(_sections()[name]).split()}


def test_sums_and_opposites_are_asked_both_ways():
    sums = [x.instruction for x in lessons(1, 200, "test", ["addition"])]
    larger = sum(int(a) > int(b) for a, b in (re.findall(r"\d+", one) for one in sums))
    assert 60 < larger < 140
    asked = {x.instruction.split(": ")[1] for x in lessons(1, 600, "train", ["opposite"])}
    assert len(asked) > 120  # of 130 words, in 65 pairs


def test_every_word_of_a_combination_is_seen_in_training():
    for split in ("validation", "test"):
        for kind in ("passive", "german", "email", "correct", "addition", "review"):
            made = {name: lessons(1, 3000, name, [kind]) for name in ("train", split)}
            seen = {
                name: {
                    word
                    for x in some
                    for word in re.findall(
                        r"\w+", (x.answer if kind in ("correct", "review") else x.instruction + " " + x.input)
                    )
                }
                for name, some in made.items()
            }
            assert seen[split] <= seen["train"]


def test_shares_of_the_splits():
    for kind in ("passive", "german", "addition", "email", "correct"):
        parts = _dealt(LESSONS[kind].items.args[0])
        whole = sum(map(len, parts))
        for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
            assert abs(len(part) / whole - share) < 0.03


def test_sections_have_no_word_in_common_that_one_of_them_keeps():
    sections = _sections()
    kept = [word for name in ("words", "opposites") for word in " ".join(sections[name]).split()]
    assert len({*kept}) == len(kept)
    assert all(re.fullmatch("[a-z]{3,9}", word) for word in " ".join(sections["words"]).split())
    others = {
        word
        for name, lines in sections.items()
        if name not in ("words", "opposites")
        for line in lines
        for word in re.findall(r"\w+", re.sub(r"\{\w+\}", "", line).lower())
    }
    assert not {*kept} & others


def test_a_tokenizer_of_the_training_texts_knows_every_character():
    def texts(split, n):
        return [text for x in lessons(1, n, split, ALL) for text in (x.instruction, x.input, x.answer)]

    tokenizer = CharTokenizer.train("".join(texts("train", 2400)))
    for split in LESSON_SPLITS:
        for text in texts(split, 1200):
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_summaries_told_otherwise():
    tale = "as told"
    lesson = Lesson("summary", "", tale, "Ada took Gus to the mill to sell the drum, and the drum was lost.")
    for right in (
        "Ada and Gus went to the mill to sell the drum, and the drum was lost.",
        "To the mill went Ada with Gus, and the drum was lost.",
    ):
        assert check_answer(lesson, right)
    for wrong in (
        "Gus and Ada went to the mill to sell the drum, and the drum was lost.",
        "Ada went to the mill to sell the drum, and the drum was lost.",
        "Ada and Polly went to the mill to sell the drum, and the drum was lost.",
        "Ada and Gus and Polly went to the mill to sell the drum, and the drum was lost.",
        "Ada and Gus went to the forge to sell the drum, and the drum was lost.",
        "Ada and Gus went to the mill to sell the kite, and the kite was lost.",
        "Ada and Gus went to the mill to sell the drum, and Ada did it.",
        "Ada and Gus went to the mill to sell the drum.",
        "Ada and Gus went to the mill to sell the drum, and the drum was lost, and Ada did it.",
        "Ada and Gus went to the mill. They sold the drum, and the drum was lost.",
        "Ada and Gus went to the mill to sell the drum, and the drum was lost",
    ):
        assert not check_answer(lesson, wrong), wrong


def test_who_did_it_counts():
    lesson = Lesson("summary", "", "", "Ada and Gus went to the mill to sell the drum, and Ada did it.")
    assert not check_answer(lesson, "Ada and Gus went to the mill to sell the drum, and Gus did it.")


def test_emails_written_otherwise():
    lesson = Lesson(
        "email", "Write an e-mail from Tom to Ada.", "picnic, Sunday, lake", "Dear Ada,\nx\nMany thanks,\nGus"
    )
    good = "Hello Ada,\nCome to the lake on Sunday.\nThere is a picnic!\nBest wishes,\nGus"
    assert check_answer(lesson, good)
    for old, new in (
        ("Ada", "Gus"),
        ("\nGus", "\nAda"),
        ("Hello", "Oi"),
        ("Best wishes,\n", ""),
        ("Best wishes", "Go away"),
        ("\nGus", ""),
        ("lake", "sea"),
        ("picnic", "meal"),
        ("Sunday", "Sundays"),
        ("Sunday", "Sunday or Monday"),
        ("a picnic", "a picnic and a race"),
        (good, ""),
    ):
        assert not check_answer(lesson, good.replace(old, new)), (old, new)


def test_answers_of_other_kinds_are_compared():
    assert check_answer(Lesson("my own", "?", answer="yes"), "yes ")
    assert not check_answer(Lesson("my own", "?", answer="yes"), "Yes")
    lesson = MADE["train"][0]
    assert not check_answer(replace(lesson, answer="q"), "")
    with pytest.raises(DataError, match="check_answer: answer is a bytes: it must be a str"):
        check_answer(lesson, b"")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"seed": -1}, "lessons: seed is -1"),
        ({"n": 2.0}, r"lessons: n is 2\.0"),
        ({"split": "dev"}, "lessons: split is 'dev': use 'train', 'validation' or 'test'"),
        ({"kinds": "upper"}, "lessons: kinds is 'upper': it must be a list of one or more kinds, each once"),
        ({"kinds": []}, "one or more"),
        ({"kinds": ["upper", "upper"]}, "each once"),
        ({"kinds": ["uper"]}, r"lessons: kinds has 'uper' \(did you mean upper\?\): there are upper, spell"),
        ({"kinds": [[]]}, r"lessons: kinds has \[\]"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ConfigError, match=match):
        lessons(**{"seed": 1, "n": 3} | arguments)
    assert lessons(1, 0) == []
