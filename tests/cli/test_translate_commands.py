"""`translate` and `predict` of its runs as they are called: what they print, as text and as JSON, and what they refuse."""

import json
import os
import subprocess
import sys
from itertools import product

import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.tuning.translator import Translator

SMALL = ["--emb-dim", "16", "--n-heads", "2", "--n-layers", "1", "--context-length", "12", "--max-steps", "4"]
WORDS = {"red": "rot", "green": "grün", "blue": "blau", "old": "alt", "new": "neu", "big": "groß"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "colours.tsv"
    pairs = [*product(WORDS, WORDS), *product(WORDS, list(WORDS)[:2], WORDS)]
    lines = (f"{' '.join(pair)}\t{' '.join(WORDS[word] for word in pair)}\tCC-BY Attribution: me\n" for pair in pairs)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    folder = str(tmp_path_factory.mktemp("runs") / "colours")
    assert main(["translate", data, "--out", folder, *SMALL]) == 0
    return folder


def test_json_is_the_last_line_and_all_of_standard_output(data, tmp_path, capsys):
    sides = [tmp_path / "en.txt", tmp_path / "de.txt"]
    with open(data, encoding="utf-8") as file:
        columns = [line.split("\t")[:2] for line in file]
    for path, column in zip(sides, zip(*columns, strict=True), strict=True):
        path.write_text("\n".join(column) + "\n", encoding="utf-8")
    out = str(tmp_path / "run")
    assert main(["translate", *map(str, sides), "--out", out, "--json", "--schedule", "noam", *SMALL]) == 0
    printed, err = capsys.readouterr()
    (line,) = printed.splitlines()
    found = json.loads(line)
    assert found["steps"] == 4
    assert 0 <= found["test"]["exact_match"] <= 1
    assert found["baselines"]["word_by_word"]["exact_match"] == 1.0
    assert found["val_nll"] > 0
    assert "108 pairs, line by line" in " ".join(err.split())
    assert main(["translate", "--resume", out, "--max-steps", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 5


def test_the_printed_end(data, tmp_path, capsys):
    assert main(["translate", data, "--out", str(tmp_path / "run"), *SMALL]) == 0
    told = capsys.readouterr().out
    for words in (
        "always the commonest target",
        "a word for a word",
        "the model",
        "To let it translate: tinygrad-llm predict",
    ):
        assert words in told
    assert "BLEU nrefs:1" in told or "pip install sacrebleu" in told


def test_one_text_or_several(run, capsys):
    (wanted,) = Translator.load(run).translate(["old red"], beams=3, length_penalty=1.0)
    assert main(["predict", run, "old red", "--beams", "3", "--length-penalty", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"translation": wanted.text, "score": wanted.score}
    assert main(["predict", run, "old red", "new", "--json"]) == 0
    several = json.loads(capsys.readouterr().out)["predictions"]
    assert [each.keys() for each in several] == [{"translation", "score"}] * 2
    assert main(["predict", run, "old red", "new"]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [each["translation"] for each in several]


def test_texts_from_a_file(run, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("old red\n\nnew\n")
    assert main(["predict", run, "--file", str(tmp_path / "texts.txt"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 2


def test_the_table_of_attention(run, capsys):
    assert main(["predict", run, "old red", "--explain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == ["old", "·red", "<|endoftext|>"]
    assert [sum(row) for row in found["attention"]] == pytest.approx([1] * len(found["target"]), abs=1e-3)
    for chosen in ([], ["--layer", "1", "--head", "2"]):
        assert main(["predict", run, "old red", "--explain", *chosen]) == 0
        _, columns, *rows, _ = capsys.readouterr().out.splitlines()
        assert columns.split() == found["source"]
        assert [row.split()[0] for row in rows] == found["target"]
        for row in rows:
            assert sum(map(int, row.split()[1:])) == pytest.approx(100, abs=3)
    hundredths = [round(100 * share) for share in found["attention"][-1]]
    assert main(["predict", run, "old red", "--explain"]) == 0
    assert [*map(int, capsys.readouterr().out.splitlines()[-2].split()[1:])] == pytest.approx(hundredths, abs=1)


def test_evaluate_judges_it_by_its_test_or_by_other_pairs(run, data, tmp_path, capsys):
    with open(os.path.join(run, "predictions.jsonl"), encoding="utf-8") as file:
        told = [json.loads(line) for line in file]
    assert main(["evaluate", run, "--checkpoint", "last", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["n"]) == ("the pairs kept for testing", len(told))
    assert found["exact_match"] == sum(each["exact"] for each in told) / len(told)
    (tmp_path / "a.txt").write_text("".join(each["source"] + "\n" for each in told))
    (tmp_path / "b.txt").write_text("".join(each["translation"] + "x\n" for each in told), encoding="utf-8")
    assert main(["evaluate", run, "--text", str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]) == 0
    assert f"  all            {len(told):6}  0.000" in capsys.readouterr().out
    for words, message in ((["--text", data, data, data], "3 files"), (["--adapter", "x"], "takes none")):
        assert main(["evaluate", run, *words]) == 2
        assert message in capsys.readouterr().err


def test_unknown_words_are_told(run):
    command = [sys.executable, "-m", "tinygrad_llm", "predict", run, "old zebra"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=os.environ)
    assert done.stderr == "tinygrad-llm predict: warning: zebra: not among the words that were learned\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "RUN", " "], "text 1 is empty"),
        (
            ["predict", "RUN", " ".join(["old"] * 12)],
            "13 tokens with the mark at its end, the positions are 12: translate it in parts",
        ),
        (["predict", "RUN", "old", "--beams", "0"], "beams is 0"),
        (["predict", "RUN", "old", "--length-penalty", "-1"], "length_penalty"),
        (["predict", "RUN", "old", "--head", "1"], "--layer and --head say what --explain shows"),
        (["predict", "RUN", "old", "--explain", "--head", "3"], "head is 3: the decoder has 2: use 1 to 2"),
        (["predict", "RUN", "old", "--adapter", "x"], "a translator takes none"),
        (["translate", "a", "b", "c"], "give one file of pairs, or two files"),
        (["translate", "nowhere.tsv"], "nowhere.tsv"),
        (["translate", "--resume", "RUN", "--out", "x"], "a run that is resumed has its own"),
        (["translate", "--resume", "RUN", "--emb-dim", "8"], "emb_dim: 16 there, 8 here"),
        (["translate", "--lr", "abc"], "--lr"),
        (["generate", "RUN", "--prompt", "old"], "which does not write on from a text: tinygrad-llm predict asks it"),
        (["classify", "--init-from", "RUN"], "which does not write on from a text: tinygrad-llm predict asks it"),
        (["predict", "RUN", "old", "--checkpoint", "7"], "the weights after step 7 are not kept"),
    ],
)
def test_what_is_refused(words, message, run, capsys):
    try:
        code = main([run if word == "RUN" else word for word in words])
    except SystemExit as error:
        code = error.code
    assert code == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
