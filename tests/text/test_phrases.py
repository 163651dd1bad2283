"""English and German by grammar: forms beside paradigms written out, combinations found again in the English words, splits."""

import hashlib
import re
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.text.grammar import part_of
from tinygrad_llm.text.phrase_words import article_of, described, form_of, world
from tinygrad_llm.text.phrases import PATTERNS, PHRASE_SPLITS, _told, pattern_of, phrases

N = 2000
TOLD = {split: _told(1, N, split) for split in PHRASE_SPLITS}
EVERY = [phrase for told in TOLD.values() for phrase in told]
NOUNS = {form: noun.english for noun in world().nouns for form in (noun.english, noun.plural)}
ADJECTIVES = {adjective.english for some in world().adjectives.values() for adjective in some}

# as a grammar book prints them: nominative, accusative, dative of "old man", "old woman", "old child", "old children"
PARADIGMS = {
    "the": """der alte Mann, die alte Frau, das alte Kind, die alten Kinder
              den alten Mann, die alte Frau, das alte Kind, die alten Kinder
              dem alten Mann, der alten Frau, dem alten Kind, den alten Kindern""",
    "this": """dieser alte Mann, diese alte Frau, dieses alte Kind, diese alten Kinder
              diesen alten Mann, diese alte Frau, dieses alte Kind, diese alten Kinder
              diesem alten Mann, dieser alten Frau, diesem alten Kind, diesen alten Kindern""",
    "our": """unser alter Mann, unsere alte Frau, unser altes Kind, unsere alten Kinder
              unseren alten Mann, unsere alte Frau, unser altes Kind, unsere alten Kinder
              unserem alten Mann, unserer alten Frau, unserem alten Kind, unseren alten Kindern""",
    "no": """kein alter Mann, keine alte Frau, kein altes Kind, keine alten Kinder
              keinen alten Mann, keine alte Frau, kein altes Kind, keine alten Kinder
              keinem alten Mann, keiner alten Frau, keinem alten Kind, keinen alten Kindern""",
    "two": """-, -, -, zwei alte Kinder
              -, -, -, zwei alte Kinder
              -, -, -, zwei alten Kindern""",
    "": """-, -, -, alte Kinder
              -, -, -, alte Kinder
              -, -, -, alten Kindern""",
}  # fmt: skip


@pytest.mark.parametrize("article", [*PARADIGMS])
def test_forms_are_those_of_the_grammar_book(article):
    nouns = {noun.english: noun for noun in world().nouns}
    old = next(adjective for adjective in world().adjectives["man"] if adjective.english == "old")
    for case, row in zip(("nominative", "accusative", "dative"), PARADIGMS[article].split("\n"), strict=True):
        for name, wanted in zip(("man", "woman", "child", "children"), row.split(","), strict=True):
            if wanted.strip() == "-":
                continue
            noun, plural = nouns["child" if name == "children" else name], name == "children"
            gender = "plural" if plural else noun.gender
            artikel, shows = article_of(article, case, gender)
            found = f"{artikel} {described(old, case, gender, shows)} {form_of(noun, case, plural)}"
            assert found.strip() == wanted.strip()


def test_the_dative_plural_ends_in_n_unless_it_is_a_plural_in_s():
    forms = {noun.english: form_of(noun, "dative", True) for noun in world().nouns}
    assert {name for name, form in forms.items() if not form.endswith("n")} == {"car"}
    assert (forms["uncle"], forms["girl"], forms["window"], forms["flower"], forms["book"]) == (
        "Onkeln", "Mädchen", "Fenstern", "Blumen", "Büchern",
    )  # fmt: skip


# one or more of each pattern, read by a person, as they came of the seeds 3 and 10
READ = {
    "This is an example": "Das ist ein Beispiel",
    "This is not a small orange.": "Das ist keine kleine Orange.",
    "Is this his newspaper?": "Ist das seine Zeitung?",
    "These are our heavy shirts": "Das sind unsere schweren Hemden",
    "Are her stories very famous?": "Sind ihre Geschichten sehr berühmt?",
    "This king is behind this car": "Dieser König ist hinter diesem Auto",
    "There is no new question behind the house.": "Es gibt keine neue Frage hinter dem Haus.",
    "Where is the friend?": "Wo ist der Freund?",
    "You lend the cups to your king.": "Du leihst deinem König die Tassen.",
    "They meet her": "Sie treffen sie",
    "The woman does not understand her": "Die Frau versteht sie nicht",
    "Her beautiful child does not trust a friend": "Ihr schönes Kind vertraut keinem Freund",
    "Your uncle did not cry behind her house": "Dein Onkel hat nicht hinter ihrem Haus geweint",
    "Did I buy shoes?": "Habe ich Schuhe gekauft?",
    "Must the small child bring a green umbrella to your doctor?": "Muss das kleine Kind deinem Arzt einen grünen Regenschirm "
    "bringen?",
    "We want to repair my heavy chair.": "Wir wollen meinen schweren Stuhl reparieren.",
    "She gave three eggs to the aunts.": "Sie hat den Tanten drei Eier gegeben.",
    "Sometimes she shows a dog to our kings": "Manchmal zeigt sie unseren Königen einen Hund",
    "Tomorrow he will lend a letter to the women": "Morgen wird er den Frauen einen Brief leihen",
    "I know that her child sleeps in front of her big school.": "Ich weiß, dass ihr Kind vor ihrer großen Schule schläft.",
    "You know that she can read a book.": "Du weißt, dass sie ein Buch lesen kann.",
    "Who found him?": "Wer hat ihn gefunden?",
}


def test_sentences_that_a_person_has_read():
    made = dict([*phrases(3, 150), *phrases(10, 400, "test")])
    assert {english: made.get(english) for english in READ} == READ
    assert {pattern_of(english) for english in READ} == {*PATTERNS}


def test_separable_verbs_are_apart_or_together():
    made = {phrase.english.rstrip("."): phrase.german.rstrip(".") for phrase in EVERY}
    assert made["They call the aunt"] == "Sie rufen die Tante an"
    assert made["The friendly kings can call the girl"] == "Die freundlichen Könige können das Mädchen anrufen"
    assert made["He says that she calls my queen"] == "Er sagt, dass sie meine Königin anruft"
    assert made["They do not bring back new pictures"] == "Sie bringen keine neuen Bilder zurück"
    assert made["You did not bring back your clock"] == "Du hast deine Uhr nicht zurückgebracht"


def test_an_english_sentence_has_one_german_one():
    germans = defaultdict(set)
    for english, german in [*((one.english, one.german) for one in EVERY), *phrases(2, N), *phrases(2, N, "test")]:
        germans[english].add(german)
    assert max(map(len, germans.values())) == 1
    assert len(germans) > 4 * N  # of 5 N: seeds have short sentences in common


def test_marks_and_capitals():
    for english, german in ((phrase.english, phrase.german) for phrase in EVERY):
        assert english[0].isupper()
        assert german[0].isupper()
        assert "  " not in english + german
        assert re.search("[.?]?$", english)[0] == re.search("[.?]?$", german)[0]
        asked = re.match("(?:Who|Where|Is|Are|Am|Do|Does|Did|Can|Must|Should|Will) ", english)
        assert english.endswith("?") == (asked is not None)
        for article, word in re.findall(r"\b(an?) (\w)", english):
            assert (article == "an") == (word in "aeiou")
    without = sum(phrase.english[-1] not in ".?" for phrase in EVERY)
    assert 0.3 < without / len(EVERY) < 0.5


# ---- what is kept from training


def combinations_of(english):
    """Found again in the words: "old" before "book", or said of it; what follows a verb, a preposition, "this is"."""
    words = [word.lower() for word in english.rstrip(".?").split()]
    text, pattern, found = " ".join(words), pattern_of(english), set()
    nouns = [(i, NOUNS[word]) for i, word in enumerate(words) if word in NOUNS]

    def noun_after(i):
        return next(noun for j, noun in nouns if j > i)

    found |= {(noun, words[i - 1]) for i, noun in nouns if words[i - 1] in ADJECTIVES}
    if pattern == "is" and words[-1] in ADJECTIVES and nouns:
        found.add((nouns[0][1], words[-1]))
    if pattern in ("this", "there", "where"):
        found.add((nouns[0][1], "be"))
    for place in world().places:
        if at := re.search(rf"\b{place.english} (?:the|this|my|your|his|her|our) ", text):
            found.add((noun_after(text[: at.end()].count(" ") - 1), place.english))
    for verb in (*world().objects, *world().gifts):
        for form in verb.english:
            if at := re.search(rf"\b{form.replace('_', ' ')}\b(?! back)", text):
                i = text[: at.end()].count(" ")
                if i + 1 < len(words) and not (
                    i + 2 == len(words) and words[i + 1] in ("me", "you", "him", "her", "us", "them")
                ):
                    found.add((noun_after(i), verb.english[0].replace("_", " ")))
    return {" ".join(one) for one in found}


@pytest.mark.parametrize("split", PHRASE_SPLITS)
def test_no_combination_is_in_two_splits(split):
    others = {"train": {1, 2}, "validation": {2}, "test": {1}}[split]
    for phrase in TOLD[split][:800]:
        found = combinations_of(phrase.english)
        assert found == {*phrase.combinations}, phrase
        parts = {part_of(one, (7, 1, 2)) for one in found}
        assert not parts & others
        assert split == "train" or PHRASE_SPLITS.index(split) in parts
    assert not {phrase.english for phrase in TOLD["train"]} & {phrase.english for phrase in TOLD["test"]}


def test_each_split_has_every_pattern_and_training_every_word():
    words = {
        split: {word for phrase in told for word in re.findall(r"\w+", phrase.english.lower())}
        for split, told in TOLD.items()
    }
    trained = words["train"] | {word for english, _ in phrases(2, N) for word in re.findall(r"\w+", english.lower())}
    for split in PHRASE_SPLITS:
        assert {phrase.pattern for phrase in TOLD[split]} == {*PATTERNS}
        assert words[split] <= trained
    assert words["test"] >= {noun.english for noun in world().nouns}


def test_shares_of_the_combinations():
    every = {f"{noun} {one.english}" for noun, some in world().adjectives.items() for one in some}
    parts = [part_of(one, (7, 1, 2)) for one in every]
    assert len(every) > 700
    for part, share in enumerate((0.7, 0.1, 0.2)):
        assert abs(parts.count(part) / len(parts) - share) < 0.03


@given(st.integers(0, 2**64), st.sampled_from(PHRASE_SPLITS))
def test_a_seed_begins_in_the_same_way(seed, split):
    some = phrases(seed, 8, split)
    assert phrases(seed, 5, split) == some[:5]
    assert len({english for english, _ in some}) == 8
    assert all(pattern_of(english) in PATTERNS for english, _ in some)


def test_the_pattern_is_told_by_the_words():
    for phrase in EVERY:
        assert pattern_of(phrase.english) == phrase.pattern, phrase
    for bad in ("", "Hello", 3):
        with pytest.raises(DataError, match=r"is no sentence of phrases\.py"):
            pattern_of(bad)
    assert {name: pattern_of(example) for name, example in PATTERNS.items()} == {name: name for name in PATTERNS}


def test_the_same_on_every_machine():
    told = "\n".join(
        f"{split}: {phrase.english} = {phrase.german}" for split in PHRASE_SPLITS for phrase in TOLD[split][:500]
    )
    assert (
        hashlib.sha256(told.encode()).hexdigest() == "2f4f992edf3d7fc1dfbf3fe4d75fdc2286196f3d652f2e7605c769d0b4d21695"
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"seed": -1}, "phrases: seed is -1"),
        ({"n": 2.0}, r"phrases: n is 2\.0"),
        ({"n": 200_001}, "phrases: n is 200,001: at most 200,000"),
        ({"split": "dev"}, "phrases: split is 'dev': use 'train', 'validation' or 'test'"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ConfigError, match=match):
        phrases(**{"seed": 1, "n": 3} | arguments)
    assert phrases(1, 0) == []
