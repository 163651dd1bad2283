"""Texts with labels: every form of file that people have, every fault with its row and column, splitting and balancing."""

import codecs
import csv
import io
import json
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import Labelled, read_labelled

ROWS = [("Grüße, and\tsix eggs?", "ham"), ('He said "WIN; now"', "spam"), ("see you — at 8", "ham")]
PLAIN = "text,label\nhello you,ham\nwin now,spam\n"


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def check_rows(data, rows=ROWS):
    assert data.texts == [text for text, _ in rows]
    assert [data.classes[k] for k in data.labels] == [label for _, label in rows]
    assert data.labels.dtype == np.int64
    assert all("\n" not in line for line in data.said)


def as_csv(rows, delimiter=",", header=("text", "label"), **options):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, **options).writerows([header, *rows])
    return out.getvalue()


# ---- the forms of files


@pytest.mark.parametrize(("delimiter", "name"), [(",", "comma"), (";", "semicolon"), ("|", "bar")])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_csv(tmp_path, delimiter, name, end):
    data = read_labelled(write(tmp_path / "a", as_csv(ROWS, delimiter, lineterminator=end)))
    check_rows(data)
    assert data.classes == ("ham", "spam")
    assert data.said[0] == f"CSV with a {name} between columns"
    assert "columns 'text', 'label': text from 'text', label from 'label'" in data.said
    assert data.said[-1] == "3 texts: 2 ham, 1 spam"


@given(
    st.lists(st.tuples(st.text(min_size=1), st.sampled_from(["a", "b,", '"c"'])), min_size=1, max_size=6),
    st.sampled_from(",;|"),
)
def test_csv_gives_back_what_the_csv_module_writes(tmp_path_factory, rows, delimiter):
    rows = [(f"-{text}-".replace("\0", "").replace("\r\n", "\n").replace("\r", "\n"), label) for text, label in rows]
    rows = [(text.encode("utf-8", "replace").decode(), label) for text, label in rows] + [("x", "a"), ("y", "b,")]
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", as_csv(rows, delimiter))
    check_rows(read_labelled(path), rows)


def test_tsv_quotes_are_text(tmp_path):
    lines = ["label\ttext\n", 'ham\t"Hi, you\n', 'spam\twin" now\u2028or\x85never\n', "ham\tbye\n"]
    data = read_labelled(write(tmp_path / "a", "".join(lines)))
    check_rows(data, [('"Hi, you', "ham"), ('win" now\u2028or\x85never', "spam"), ("bye", "ham")])
    assert data.said[0] == "TSV with a tab between columns"
    assert "quotes are text" in data.said


def test_the_sms_collection_as_it_comes(tmp_path):
    data = read_labelled(write(tmp_path / "a", 'ham\tGo on, "you\nspam\tText WIN, to 80086\nham\tok" lar\n'))
    check_rows(data, [('Go on, "you', "ham"), ("Text WIN, to 80086", "spam"), ('ok" lar', "ham")])
    assert "no header: label in column 1, text in column 2" in data.said
    check_rows(
        read_labelled(write(tmp_path / "b", "spam\ta, b\nham\tc\nspam\td\n")),
        [("a, b", "spam"), ("c", "ham"), ("d", "spam")],
    )


def test_json_lines_and_an_array(tmp_path):
    records = [{"id": i, "text": text, "label": label} for i, (text, label) in enumerate(ROWS)]
    lines = "\n\n".join(json.dumps(record) for record in records)
    check_rows(read_labelled(write(tmp_path / "a", lines)))
    for indent in (None, 2):
        data = read_labelled(write(tmp_path / "b", json.dumps(records, indent=indent)))
        check_rows(data)
        assert data.said[0] == "a JSON array"


def test_a_folder_with_a_folder_a_class(tmp_path):
    for i, (text, label) in enumerate([*ROWS, ("b", "a")]):
        (tmp_path / label).mkdir(exist_ok=True)
        write(tmp_path / label / f"{i}.txt", text + "\n")
    write(tmp_path / "ham" / "notes.md", "x")
    write(tmp_path / "README", "x")
    data = read_labelled(tmp_path)
    check_rows(data, [("b", "a"), ROWS[0], ROWS[2], ROWS[1]])
    assert "1 files that do not end in .txt left out" in data.said


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-8", "encoding utf-8"),
        ("utf-8-sig", "encoding utf-8, with a byte-order mark"),
        ("utf-16", "encoding utf-16-"),
        ("utf-16-le", "encoding utf-16-le, found by its null bytes"),
        ("utf-16-be", "encoding utf-16-be, found by its null bytes"),
        ("cp1252", "encoding cp1252, since byte 0xfc in line 2 is not utf-8"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "tsv", "json"])
def test_encodings_are_found(tmp_path, encoding, said, form):
    rows = [(text.replace("\t", " "), label) for text, label in ROWS]
    content = {
        "csv": as_csv(rows, ";"),
        "tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows),
        "json": "\n"
        + "\n".join(json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows),
    }[form]
    data = read_labelled(write(tmp_path / "a", content, encoding))
    check_rows(data, rows)
    assert any(line.startswith(said) for line in data.said), data.said


def test_an_encoding_that_is_told(tmp_path):
    path = write(tmp_path / "a", "text,label\nпривет,a\nпока,b\n", "koi8-r")
    assert read_labelled(path, encoding="koi8-r").texts == ["привет", "пока"]
    with pytest.raises(ConfigError, match="encoding is 'koi9'"):
        read_labelled(path, encoding="koi9")


# ---- columns


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("Message, Category ,x", {}),
        ("SMS,spam,x", {}),
        ("v2,v1,", {}),
        ("a,b,c", {"text": "a", "label": "b"}),
        ("a,b,c", {"text": "A", "label": 2}),
        ("a,b,c", {"text": 1, "label": "2"}),
        ("text,label,class", {}),
    ],
)
def test_columns_are_found_or_named(tmp_path, header, options):
    path = write(tmp_path / "a", f"{header}\nhello,ham,1\nwin,spam,2\n")
    check_rows(read_labelled(path, **options), [("hello", "ham"), ("win", "spam")])


def test_columns_by_number_of_a_file_without_header(tmp_path):
    path = write(tmp_path / "a", "1,hello,ham\n2,win,spam\n3,bye,ham\n")
    data = read_labelled(path, text=2, label=3)
    check_rows(data, [("hello", "ham"), ("win", "spam"), ("bye", "ham")])
    assert "no header: label in column 3, text in column 2" in data.said


def test_labels_of_every_kind(tmp_path):
    def classes(labels, **options):
        lines = "\n".join(json.dumps({"text": "x", "label": label}) for label in labels)
        data = read_labelled(write(tmp_path / "a", lines), **options)
        return data.classes, data.labels.tolist()

    assert classes([10, 9, 2.0, -1]) == (("-1", "2", "9", "10"), [3, 2, 1, 0])
    assert classes(["1", "01", "-2", "3"]) == (("-2", "01", "1", "3"), [2, 1, 0, 3])
    assert classes(["7" * 5000, "8"])[1] == [0, 1]
    assert classes([True, False]) == (("false", "true"), [1, 0])
    assert classes(["b", " a ", "c"]) == (("a", "b", "c"), [1, 0, 2])
    assert classes(["b", "b"], classes=("c", "b")) == (("c", "b"), [1, 1])


# ---- what is wrong, and where


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("text,label\nhi,ham\nyou,\n", "a: row 3, column 'label': the label is empty"),
        ("text,label\nhi,ham\n  ,spam\n", "a: row 3, column 'text': the text is empty"),
        ("text,label\n\nhi,ham\nyou\n", "a: row 4, column 'label': there is none in this row"),
        ("text,label\nhi,ham\nyou,nan\n", "a: row 3, column 'label': 'nan' is no label"),
        ("text,label\nhi,ham\nnull,spam\n", "a: row 3, column 'text': 'null' is no text"),
        ("text,label\nhi,ham\nyou,spam\nx,Ham\n", "a: row 4, column 'label': 'Ham' differs from 'ham' .*row 2.* by case"),
        ("text,label\nhi,ham\nyou,spam\nx, ham\n", "a: row 4, column 'label': ' ham' differs from 'ham'"),
        ("text,label\nhi,ham\nyou,ham\n", "a: all 2 labels are 'ham': two classes are needed"),
        ("text,label\n", "a: a header, and no rows under it"),
        ("text,label\nhi, you,ham\n", "a: row 2 has 3 columns, and there are 2: put quotes around what holds a ','"),
        ("text\tlabel\nhi\tham\nyou\tspam\tx\n", "a: row 3 has 3 columns, and there are 2: a tab within a text?"),
        ('text,label\nhi,ham\n"you,spam\n', "a: row 3: not CSV: .*is there a quote too few"),
        ("id,text,label\n7,hi,ham\n8,you,spam\n7,x,ham\n", "a: row 4, column 'id': '7' stands there .* second time, .*row 2"),
        ("message,kind\nhi,ham\n", "a: no column of its header is known for a label: .*label=.*; there are 'message', 'kind'"),
        ("foo\tkind\nhi\tham\n", "a: no column of its header is known for a text: .*there are 'foo', 'kind'"),
        ("text,label,label\nhi,ham,spam\n", "two columns are called 'label'"),
        ("hello\nthere\n", "a: its first line, 'hello', has no tab, comma, semicolon or bar"),
        ("", "a: empty"),
        ("\ufeff \n", "a: empty"),
        ("text,label\nhi,ham\n\0x,spam\n", "a: line 3 holds a null character"),
        (b"text,label\nhi,ham\n\x81\x8d,spam\n", r"a: line 3: byte 0x81 is not cp1252"),
        ("text,label\nGrüße,ham\n".encode() + b"na\xefve,spam\nh\xc3\xb6\xc3\xa4,ham", r"a: line 3: byte 0xef is not utf-8"),
        ('{"text": "a", "label": "x"}\n{"text": "b"}\n', "a: row 2, column 'label': there is none in this row"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": null}', "a: row 2, column 'label': None is no label"),
        ('{"text": "a", "label": "x"}\n{"text": NaN, "label": "y"}', "a: row 2, column 'text': nan is no text"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": NaN}', "a: row 2, column 'label': nan is no label"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": 0.5}', "a: row 2, column 'label': 0.5 is a float"),
        ('{"text": "a", "label": "x"}\n{"text": 7, "label": "y"}', "a: row 2, column 'text': 7 is a int"),
        ('{"text": "a", "label": "x"}\n{"text": ["b"], "label": "y"}', r"a: row 2, column 'text': \['b'\] is a list"),
        ('{"text": "a", "label": "x"}\n\n["b"]', r"a: row 3 is \['b'\]: it must be an object"),
        ('{"text": "a", "label": "x"}\n{"text": "b",', "a: row 2: not JSON at character 14"),
        ('{"text": "a", "label": "x"}\n{"text": "b\\ud83d", "label": "y"}', "a: row 2, column 'text': character 2 is half of a"),
        ('{"text": "a", "text": "b", "label": "x"}', "a: row 1: a key stands twice"),
        ('{"sms": "a", "y": "x"}', "a: no column of its header is known for a label.*there are 'sms', 'y'"),
        ('[{"text": "a", "label": "x"},\n3]', "a: item 2 is 3: it must be an object"),
        ('[{"text": "a", "label": "x"},\n{]', "a: not JSON at line 2, column 2"),
        ('[' * 100_000 + "{", "a: lists or objects are nested too deeply|a: not JSON"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(tmp_path, content, match):
    path = write(tmp_path / "a", content)
    with pytest.raises(DataError, match=match) as caught:
        read_labelled(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"text": "txt"},
            DataError,
            r"no column 'txt' \(did you mean text\?\) for the text; there are 'text', 'label'",
        ),
        ({"label": 3}, DataError, "no column 3 for the label"),
        ({"text": 0}, ConfigError, "text is 0: it must be the name of a column, or its number, from 1"),
        ({"text": "label"}, ConfigError, "column 'label' cannot be text and label at once"),
        ({"delimiter": "ab"}, ConfigError, "delimiter is 'ab'"),
        ({"delimiter": "\t"}, DataError, "no column .*there are 'text,label'"),
        ({"classes": ("ham",)}, ConfigError, "two or more different words"),
        ({"classes": "ham"}, ConfigError, "two or more different words"),
        (
            {"classes": ("ham", "spammy")},
            DataError,
            r"row 3, column 'label': 'spam' is none of the classes 'ham', 'spammy' \(did",
        ),
    ],
)
def test_bad_arguments(tmp_path, options, error, match):
    with pytest.raises(error, match=match):
        read_labelled(write(tmp_path / "a", PLAIN), **options)


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match="missing: cannot be read: No such file"):
        read_labelled(tmp_path / "missing")
    with pytest.raises(DataError, match="no texts in it"):
        read_labelled(tmp_path)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "1.txt", " ")
    with pytest.raises(DataError, match=r"1\.txt: empty"):
        read_labelled(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled("a\0b")
    with pytest.raises(ConfigError, match="path is 7"):
        read_labelled(7)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path, alarm):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_labelled(tmp_path / "pipe")


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    path = write(tmp_path / "a", PLAIN)
    with open(path, "r+b") as file:
        file.truncate(1 << 40)  # zeros that take no room, and no machine's memory holds
    with pytest.raises(DataError, match=r"line 4 is longer than 1\.00 MiB"):
        read_labelled(path)
    write(path, "text,label\n" + "x" * (1 << 20) + ",spam\n" + "y,ham\n" * 1_000_000)
    with pytest.raises(DataError, match="line 2 is longer"):
        read_labelled(path)


def test_a_long_array_on_one_line(tmp_path):
    records = [{"text": "x" * 1000, "label": i % 2} for i in range(1500)]
    assert len(read_labelled(write(tmp_path / "a", json.dumps(records)))) == 1500


def test_a_mark_before_a_utf16_array(tmp_path):
    content = json.dumps([{"text": "a", "label": 0}, {"text": "b", "label": 1}])
    path = write(tmp_path / "a", codecs.BOM_UTF16_BE + content.encode("utf-16-be"))
    assert read_labelled(path).texts == ["a", "b"]


# ---- counting, choosing, splitting, balancing


def some(counts):
    """Texts "a0", "a1", ..., as many of each class as told."""
    classes = tuple(counts)
    texts = [f"{name}{i}" for name, n in counts.items() for i in range(n)]
    return Labelled(texts, np.array([classes.index(text[0]) for text in texts]), classes)


def test_counts_and_selection():
    data = some({"a": 3, "b": 2, "c": 0})
    assert data.counts() == {"a": 3, "b": 2, "c": 0}
    chosen = data.select([4, 0])
    assert (chosen.texts, chosen.labels.tolist(), chosen.classes) == (["b1", "a0"], [1, 0], data.classes)
    assert data.without([0, 3]).texts == ["a1", "a2", "b1"]
    assert data.without([]).texts == data.texts
    assert len(data.select([])) == 0
    with pytest.raises(DataError, match="indices go from -1 to 5: there are 5"):
        data.select([-1, 5])


@given(st.integers(40, 60), st.integers(40, 60), st.integers(0, 2**32))
def test_a_split_loses_nothing_and_is_that_of_the_seed(n_a, n_b, seed):
    data = some({"a": n_a, "b": n_b})
    parts = data.split(seed=seed)
    n = n_a + n_b
    assert [len(part) for part in parts] == [int(n * 0.7), int(n * 0.1), n - int(n * 0.7) - int(n * 0.1)]
    assert Counter(text for part in parts for text in part.texts) == Counter(data.texts)
    for part in parts:
        assert [part.classes[k] for k in part.labels] == [text[0] for text in part.texts]
    assert [part.texts for part in data.split(seed=seed)] == [part.texts for part in parts]
    assert parts[0].texts == [data.texts[i] for i in Generator(seed).randperm(n)[: len(parts[0])]]


def test_a_split_has_the_sizes_of_the_book():
    assert [len(part) for part in some({"h": 747, "s": 747}).split()] == [1045, 149, 300]


def test_a_part_without_a_class_is_refused():
    with pytest.raises(
        DataError, match="none of the 11 texts of the validation part is 'b', and 1 of all 110 are: take more"
    ):
        some({"a": 109, "b": 1}).split((0.8, 0.1, 0.1), seed=1)
    for ratios in ((0.7, 0.3), (0.7, 0.1, 0.1), (1.0, 0.0, 0.0), (0.7, -0.1, 0.4), "abc"):
        with pytest.raises(ConfigError, match="ratios are"):
            some({"a": 50, "b": 50}).split(ratios)


def test_undersampling():
    data = some({"a": 50, "b": 7, "c": 20})
    balanced, weights = data.balance("undersample", seed=3)
    assert balanced.counts() == {"a": 7, "b": 7, "c": 7}
    assert balanced.texts == sorted(set(balanced.texts), key=data.texts.index)
    assert weights.tolist() == [1, 1, 1]
    assert data.balance("undersample", seed=3)[0].texts == balanced.texts
    drawn = Counter(text for seed in range(200) for text in data.balance(seed=seed)[0].texts)
    assert all(5 < drawn[f"a{i}"] < 60 for i in range(50))  # 28 of each on average


def test_weights():
    data = some({"a": 50, "b": 10})
    same, weights = data.balance("weights")
    assert same is data
    assert (weights * [50, 10]).tolist() == [30, 30]
    assert weights[data.labels].mean() == pytest.approx(1)
    assert data.balance("none")[1].tolist() == [1, 1]
    with pytest.raises(ConfigError, match="how is 'over': use one of undersample, weights, none"):
        data.balance("over")
    with pytest.raises(DataError, match="no text is 'b'"):
        some({"a": 5, "b": 0}).balance("weights")


@pytest.mark.parametrize("labels", [[0], [0, 2], [-1, 0], [0.0, 1.0], [[0], [1]]])
def test_labels_that_do_not_fit(labels):
    with pytest.raises(DataError, match="Labelled: labels"):
        Labelled(["a", "b"], np.array(labels), ("x", "y"))
