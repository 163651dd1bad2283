"""Parallel text: both forms of file, every fault with its line, and splits in which no source comes twice."""

import codecs
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.text.pairs import Pair, read_pairs, split_pairs

BY = "CC-BY 2.0 (France) Attribution: tatoeba.org #2877272 (CM) & #1158250 (Wittydev)"
ROWS = [("Go.", "Va !"), ('He said "hm".', 'Il a dit « hm\u2028» "'), ("Übung?", "Exercice ?")]


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def rows(found):
    return [(pair.source, pair.target) for pair in found.pairs]


# ---- reading


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_two_columns(tmp_path, end, mark, last):
    content = mark + end.join(f"{source}\t {target}" for source, target in ROWS) + end * last
    found = read_pairs(write(tmp_path / "a.tsv", content))
    assert rows(found) == ROWS
    assert found.said == ["3 pairs, a source, a tab and a target a line"]


def test_tatoeba_as_it_comes(tmp_path):
    found = read_pairs(write(tmp_path / "fra.txt", "".join(f"{a}\t{b}\t{BY}\n" for a, b in ROWS)))
    assert rows(found) == ROWS
    assert found.said[1:] == ["the third column, who wrote it, of 3 is left out"]  # said once


@pytest.mark.parametrize("ends", [("", ""), ("\n", ""), ("\r\n", "\n")])
def test_two_files(tmp_path, ends):
    sides = ["\n".join(side) for side in zip(*ROWS, strict=True)]
    one, other = (write(tmp_path / name, side + end) for name, side, end in zip("ab", sides, ends, strict=True))
    found = read_pairs(one, other)
    assert rows(found) == ROWS
    assert found.said == ["3 pairs, line by line"]


def test_other_encodings_are_told(tmp_path):
    path = write(tmp_path / "a", "Übung\tétude\n", "latin-1")
    assert rows(read_pairs(path, encoding="latin-1")) == [("Übung", "étude")]
    path = write(tmp_path / "b", codecs.BOM_UTF16_LE + "Übung\tétude\n".encode("utf-16-le"))
    assert rows(read_pairs(path, encoding="utf-16")) == [("Übung", "étude")]
    with pytest.raises(ConfigError, match="encoding is 'utf-88'"):
        read_pairs(path, encoding="utf-88")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("a\tb\nno tab here\n", "line 2, 'no tab here', has no tab: a source, a tab and a target are needed"),
        ("a\tb\n\nc\td\n", "line 2, '', has no tab"),
        ("a\tb\na\tb\tc\n", "line 2 has 3 columns: a source, a tab and a target are needed"),
        (f"a\tb\tc\t{BY}\n", "line 1 has 4 columns"),
        (f"a\tb\t{BY}\nc\td\t\n", "line 2 has 3 columns"),
        ("a\tb\n \tb\n", "line 2: the source is empty: drop the line"),
        ("a\tb\nb\t\n", "line 2: the target is empty: drop the line"),
        (f"a\t \t{BY}\n", "line 1: the target is empty"),
        (b"a\tb\nc\t\xe9\n", "line 2: byte 0xe9 is not utf-8 .*: correct it, or say the encoding of the file"),
        (codecs.BOM_UTF16_LE + "a\tb\n".encode("utf-16-le"), "line 1: byte 0xff is not utf-8"),
        (b"a\tb\nc\0\td\n", "line 2 holds a null character"),
        ("", "empty"),
        ("\n\n", "empty"),
        ("a" * (1 << 21), "line 1 is longer than 1.00 MiB"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path, content, match):
    with pytest.raises(DataError, match=match) as error:
        read_pairs(write(tmp_path / "p.tsv", content))
    assert str(error.value).startswith(f"{tmp_path / 'p.tsv'}:") or " line " in str(error.value)
    assert "\n" not in str(error.value)


def test_faults_of_two_files(tmp_path):
    one, other = write(tmp_path / "one", "a\nb\nc\n"), write(tmp_path / "other", "d\ne\n")
    with pytest.raises(DataError, match=r"one has 3 lines and \S*other has 2: line by line"):
        read_pairs(one, other)
    with pytest.raises(DataError, match=r"other: line 2 is empty: drop it, and line 2 of the other file"):
        read_pairs(one, write(other, "d\n\ne\n"))
    with pytest.raises(DataError, match="nothing: cannot be read"):
        read_pairs(one, tmp_path / "nothing")
    with pytest.raises(DataError, match="not a regular file"):
        read_pairs(tmp_path)
    with pytest.raises(ConfigError, match="path is 3"):
        read_pairs(3)


# ---- splitting


PAIRS = st.lists(
    st.builds(Pair, st.text("aA b", min_size=1, max_size=3), st.text("xyz", min_size=1, max_size=2)), max_size=40
)


@given(PAIRS, st.integers(0, 2**32))
def test_no_source_is_in_two_parts_and_no_target_is_lost(pairs, seed):
    def plain(text):
        return " ".join(text.lower().split())

    n = len({plain(pair.source) for pair in pairs})
    if min(int(n * 0.5), int(n * 0.25)) == 0:
        with pytest.raises(DataError, match=f"of {n} sources none is left"):
            split_pairs(pairs, seed, (0.5, 0.25, 0.25))
        return
    splits = split_pairs(pairs, seed, (0.5, 0.25, 0.25))
    assert [len(splits.train), len(splits.validation)] == [n // 2, n // 4]
    found = [*splits.train, *splits.validation, *splits.test]
    assert Counter(plain(pair.source) for pair in found) == Counter({plain(pair.source) for pair in pairs})
    for pair in found:
        its = [one for one in pairs if plain(one.source) == plain(pair.source)]
        assert (pair.source, pair.target) == (its[0].source, its[0].target)
        assert pair.targets == tuple(dict.fromkeys(one.target for one in its))
    assert splits == split_pairs(pairs, seed, (0.5, 0.25, 0.25))
    assert splits.fingerprint() == split_pairs(pairs, seed, (0.5, 0.25, 0.25)).fingerprint()


def test_what_is_said():
    pairs = [Pair(f"{i}", f"t{i % 8}") for i in range(20)] + [Pair(" 3 ", "other"), Pair("4", "t4"), Pair("ok", "ok")]
    splits = split_pairs(pairs, 7)
    known = {pair.target for pair in splits.train}
    seen = sum(pair.target in known for pair in splits.validation + splits.test)
    assert splits.said == [
        "2 of 23 pairs have a source that came before: the first target is kept, and the others count as right as well.",
        "1 targets are the same as their sources.",
        "16 pairs to train on, 2 to validate with, 3 to test on; "
        f"{seen} of the latter two have a target that is trained on, of another source.",
    ]
    three = next(pair for part in (splits.train, splits.validation, splits.test) for pair in part if pair.source == "3")
    assert three.also == ("other",)
    assert split_pairs([Pair(f"{i}", f"t{i}") for i in range(20)], 7).said == [
        "16 pairs to train on, 2 to validate with, 2 to test on."
    ]


def test_seeds_and_fingerprints():
    pairs = [Pair(f"{i}", f"t{i}") for i in range(50)]
    one, other = split_pairs(pairs, 1), split_pairs(pairs, 2)
    assert {pair.source for pair in one.test} != {pair.source for pair in other.test}
    assert one.fingerprint() != other.fingerprint()
    changed = [*pairs[:-1], Pair("49", "t49", ("also",))]
    assert one.fingerprint() != split_pairs(changed, 1).fingerprint()
    assert one.n_bytes() > 0
    with pytest.raises(ConfigError, match=r"split: ratios are \(1, 1, 1\)"):
        split_pairs(pairs, 1, (1, 1, 1))
