"""Tokens in the terminal: colours, ids below, wrapping, and nothing that a terminal would obey."""

import io
import json
import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.cli import main
from tinygrad_llm.text import GPT2Tokenizer
from tinygrad_llm.text.view import show_table, show_tokens, visible, wants_color

COLOR = re.compile(r"\x1b\[30;48;5;(\d+)m(.*?)\x1b\[0m")


def test_ids_stand_below_their_tokens():
    assert show_tokens(["Hello", ",", " world", "x" * 7], [15496, 11, 995, 1], width=18) == (
        "Hello|, |·world|\n15496 11 995\nxxxxxxx|\n1"
    )


def test_a_table_of_shares():
    shares = [[0.004, 0.996], [0.5, 0.5]]
    assert show_table(["wide", "語"], ["a", "long"], shares) == "      a   long\nwide       100\n語    50    50"
    top, *rows = show_table(["wide", "語"], ["a", "long"], shares, color=True).split("\n")
    assert top == "      a   long"
    assert [[cell.strip() for _, cell in COLOR.findall(row)] for row in rows] == [["100"], ["50", "50"]]
    (((dark, _),), ((light, _), _)) = (COLOR.findall(row) for row in rows)
    assert dark != light


def test_colours():
    tokens = ["a", " b", "c"] * 4
    view = show_tokens(tokens, range(12), width=200, color=True)
    top, bottom = view.split("\n")
    colours, shown = zip(*COLOR.findall(top), strict=True)
    assert [word.rstrip(" ") for word in shown] == [visible(token) for token in tokens]
    assert all(one != other for one, other in pairwise(colours))
    assert COLOR.sub(r"\2", top).index("·b") == bottom.index("1")


@given(st.lists(st.text() | st.binary(), max_size=30), st.integers(1, 60))
def test_any_bytes_at_any_width(tokens, width):
    view = show_tokens(tokens, range(len(tokens)), width)
    assert all(letter == "\n" or letter.isprintable() for letter in view)
    rows = view.split("\n") if tokens else []
    assert " ".join(rows[1::2]).split() == [str(i) for i in range(len(tokens))]
    assert "".join(rows[::2]).replace(" ", "").replace("|", "") == "".join(map(visible, tokens)).replace("|", "")


def test_what_does_not_print():
    assert visible("\n\x1b[31m é 한") == "\\n\\x1b[31m·é·한"
    assert visible(b"\xed\x95") == "\\xed\\x95"
    assert visible(b"caf\xc3\xa9") == "café"
    assert show_tokens(["한글", "b"], [1, 2]) == "한글|b|\n1    2"  # four columns wide


def test_when_colours_are_wanted(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_color(terminal)
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(terminal)


# ---- tinygrad-llm tokenize


def tokenized(capsys, *argv):
    assert main(["tokenize", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_command(capsys):
    out = tokenized(capsys, "Hello, world", "--tokenizer", "gpt2")
    assert out == "Hello|, |·world|\n15496 11 995\n3 tokens, 12 characters, 12 bytes, vocabulary 50,257\n"
    assert tokenized(capsys, "", "--tokenizer", "char").startswith("0 tokens, 0 characters")
    assert "<unk>" in tokenized(capsys, "zyzzyva", "--tokenizer", "word")
    assert "vocabulary 300" in tokenized(capsys, "zyzzyva", "--vocab-size", "300")


def test_the_end_of_text_is_letters_unless_it_is_asked_for(capsys):
    text = "a<|endoftext|>"
    letters = json.loads(tokenized(capsys, text, "--tokenizer", "gpt2", "--json"))
    mark = json.loads(tokenized(capsys, text, "--tokenizer", "gpt2", "--json", "--special"))
    assert letters["ids"] == GPT2Tokenizer().encode(text)
    assert mark == {"ids": [64, 50256], "tokens": ["a", "<|endoftext|>"]}


def test_the_text_of_a_file_and_of_standard_input(capsys, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("naïve", encoding="utf-8")
    from_file = tokenized(capsys, "--file", str(path), "--tokenizer", "gpt2")
    assert "5 characters, 6 bytes" in from_file
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("naïve".encode())))
    assert tokenized(capsys, "--tokenizer", "gpt2") == from_file


def test_with_the_tokenizer_of_a_run(capsys, tmp_path):
    GPT2Tokenizer().save(tmp_path)
    assert "15496" in tokenized(capsys, "Hello", "--run", str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "--file", "b"], "TEXT and --file together"),
        (["a", "--run", "b", "--tokenizer", "bpe"], "--run and --tokenizer together"),
        (
            ["a", "--tokenizer", "char", "--vocab-size", "300"],
            "--vocab-size is for the bpe and wordpiece tokenizers only",
        ),
        (["a", "--vocab-size", "3"], "is 3: it must be an integer, 257 or more"),
        (["--file", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["한", "--tokenizer", "char"], "is not among the"),
        (["a\udcff"], "lone surrogate"),
    ],
)
def test_bad_use(capsys, argv, message):
    assert main(["tokenize", *argv]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


def test_standard_input_that_is_not_utf8(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xff")))
    assert main(["tokenize"]) == 2
    assert "standard input: not UTF-8 at byte 1" in capsys.readouterr().err
