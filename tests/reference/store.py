"""The stored reference values: one JSON file a family, {case: {field: value}}, one line a field.

JSON keeps every digit of a float64, reads without NumPy and shows in a diff what changed. What it lacks is written as a
one-key object: a slice as {"slice": [1, null, 2]}, an array of integers or booleans as {"int64": [...]}, {"bool": [...]}.
A plain list is an array of float64, or in `options` a tuple: axes, shapes, indices.
"""

import json
import random
import unicodedata
from pathlib import Path

import numpy as np


def _encode(value):
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype == np.float64 else {value.dtype.name: value.tolist()}
    raise TypeError(f"{type(value).__name__} {value!r} cannot be stored")


def _decode(value):
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "slice" in value:
        return slice(*value["slice"])
    for kind in ("int64", "bool"):
        if kind in value:
            return np.array(value[kind], kind)
    return {key: _decode(v) for key, v in value.items()}


def text(cases: dict) -> str:
    """What is stored: each case and each of its fields begins a line."""
    return (
        "{\n"
        + ",\n".join(
            f"{json.dumps(name)}: {{\n"
            + ",\n".join(f"{json.dumps(field)}: {json.dumps(value, default=_encode)}" for field, value in case.items())
            + "\n}"
            for name, case in cases.items()
        )
        + "\n}\n"
    )


def parse(stored: str) -> dict:
    """The cases in a text: integer and boolean arrays and slices as they were, lists as tuples."""
    return {name: _decode(case) for name, case in json.loads(stored).items()}


def path(family: str) -> Path:
    return Path(__file__).parent / f"{family}.json"


def read(family: str) -> dict:
    return parse(path(family).read_text())


def drift(stored, fresh, tolerance: float, where: str = "") -> list[str]:
    """One line for each place where two decoded structures differ: in keys, in kind, or in numbers by over `tolerance`."""
    if isinstance(stored, dict) and isinstance(fresh, dict):
        return [
            line
            for key in {**stored, **fresh}
            for line in (
                drift(stored[key], fresh[key], tolerance, f"{where}/{key}")
                if key in stored and key in fresh
                else [f"{where}/{key}: only in the {'stored file' if key in stored else 'fresh values'}"]
            )
        ]
    try:
        a, b = np.asarray(stored, np.float64), np.asarray(fresh, np.float64)
    except (TypeError, ValueError):  # a slice, a word, or a tuple with such a thing inside
        return [] if str(stored) == str(fresh) else [f"{where}: {stored!r} stored, {fresh!r} fresh"]
    if a.shape != b.shape:
        return [f"{where}: {a.shape} stored, {b.shape} fresh"]
    if np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
        return []
    with np.errstate(invalid="ignore"):
        return [f"{where}: off by up to {np.nanmax(np.abs(a - b)):.1e}"]


def texts(n: int) -> list[str]:
    """n texts to try a tokenizer on, always the same: words, spaces, other scripts, control characters, what looks like marks."""
    draw = random.Random(0)
    words = [
        "the",
        "lid",
        "Una",
        "lifted",
        "night",
        "naïve",
        "café",
        "return",
        "12",
        "345",
        "and,",
        "had.",
        "“I”",
        "was;",
    ]
    words += ["안녕", "日本", "x[X]ab", "<U>"]
    pools = [
        "ab the lid",
        "     \n\t",
        "aàé日本😀👩\u200d🚀",
        "0123456789 .,",
        "\x00\x01\x7f\u200b\ufeff\xa0\u3000",
        "▁ a▁b",
    ]
    pools += ["<s></s><unk><0x41>[X]<U>xab"]
    made = [
        "",
        " ",
        "  ",
        "   a",
        "a   ",
        "▁",
        "▁▁ ",
        "▁a",
        "\n",
        " \n ",
        "<s>",
        "</s> x",
        "a<unk>b",
        "<0x0A>",
        "x" * 99,
        " " * 77,
    ]
    made += ["aaaa" * 20, "ha" * 30, "the lid<s>the lid", "<s> the lid", "[X]xab [X] <U> ▁ "]
    while len(made) < n:
        kind = draw.randrange(3)
        if kind == 0:
            made.append(
                "".join(
                    draw.choice(words) + draw.choice([" ", " ", " ", "  ", "\n", ""])
                    for _ in range(draw.randrange(1, 9))
                )
            )
        elif kind == 1:
            made.append("".join(draw.choice(draw.choice(pools)) for _ in range(draw.randrange(1, 30))))
        else:
            codes = (draw.randrange(draw.choice([0x80, 0x800, 0x20000])) for _ in range(draw.randrange(1, 20)))
            made.append("".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000))
    return made


SCRIPTS = {
    "Latin": "aàéÅßﬁzIİıǅe\u0301o\u0308\u0323",
    "Greek": "ΑΣσςΐὈ",
    "Cyrillic": "йЙёЖ",
    "Hebrew": "שָׁלוֹם",
    "Arabic": "مُحَمَّد",
    "Devanagari": "\u0928\u093f\u092e\u0938\u094d\u0924\u0947\u093e",
    "Thai": "ก็น้ำ",
    "Hangul": "안녕각",
    "Kana": "かがハパー",
    "Chinese": "日本語\u3400\uf900\U00020000\U0002a700\U0002b740\U0002b820\U0002b920\U0002f800",
    "emoji": "😀👩\u200d🚀🇩🇪👍🏽",
    "controls": "\x00\x07\x0b\x1c\x7f\x85\xad\u200b\u200d\ufeff\ufffd\ue000",
    "spaces": " \t\n\r\xa0\u2003\u2028\u2029\u3000",
    "signs": "!?.,$^`~-_#[]«»“”—…¿・。、",
    "digits": "09²½٣",
}
WORDS = [
    "the",
    "The",
    "unaffable",
    "affable",
    "Café",
    "NAÏVE",
    "lids",
    "don't",
    "##a",
    "[MASK]",
    "[SEP]",
    "[mask]",
    "[unused1]",
    "<U>",
]


def wordpieces() -> list[str]:
    """A vocabulary of WordPiece, always the same: marks with others between them, most letters of SCRIPTS, in capitals
    and without, as they are and decomposed, at the beginning and within a word, and parts of WORDS.
    """
    draw = random.Random(0)
    letters = "".join(SCRIPTS[name] for name in SCRIPTS if name not in ("controls", "spaces"))
    letters += letters.lower() + "".join(chr(code) for code in range(33, 127)) + "\ue000\ufffd\x1c"
    letters = "".join(dict.fromkeys(letters + unicodedata.normalize("NFD", letters)))
    pieces = ["[PAD]", "[unused0]", "[UNK]", "[unused1]", "[CLS]", "[SEP]", "<U>", "[MASK]"]
    pieces += [letter for letter in letters if draw.random() < 0.97 or letter in "mx"]
    pieces += [f"##{letter}" for letter in letters if draw.random() < 0.85 or letter in "xéask"]
    pieces += [
        "the",
        "The",
        "un",
        "una",
        "##ffa",
        "##ff",
        "##ble",
        "##able",
        "affable",
        "caf",
        "Caf",
        "##é",
        "naive",
        "li",
        "##ds",
    ]
    return list(dict.fromkeys(pieces))


def scripts(n: int) -> list[str]:
    """n texts in many scripts, with control characters, marks, signs and words of about a hundred characters, always the same.

    No character is newer than Unicode 8, so that all editions of its tables agree.
    """
    draw = random.Random(0)
    made = [
        "",
        " ",
        "x" * 100,
        "x" * 101,
        "é" * 100,
        "안" * 33,
        "안" * 34,
        "ΑΣ ΑΣΑ",
        "a\u2028b",
        "[MASK][SEP] [mask]",
        "a<U>b",
    ]
    while len(made) < n:
        kind = draw.randrange(3)
        pool = SCRIPTS[draw.choice(list(SCRIPTS))]
        if kind == 0:
            made.append(
                "".join(
                    draw.choice(WORDS) + draw.choice([" ", " ", "  ", "\n", ""]) for _ in range(draw.randrange(1, 9))
                )
            )
        elif kind == 1:
            made.append("".join(draw.choice(draw.choice([pool, " ", "aé"])) for _ in range(draw.randrange(1, 30))))
        else:
            made.append("".join(draw.choice(SCRIPTS[draw.choice(list(SCRIPTS))]) for _ in range(draw.randrange(1, 30))))
    return made
