"""`classify` and `predict` as they are called: what they print, as text and as JSON, and what they refuse."""

import io
import json
from contextlib import nullcontext

import pytest

from tinygrad_llm.cli import main

SMALL = ["--emb-dim", "16", "--n-heads", "2", "--n-layers", "1", "--epochs", "1", "--examples", "60", "--seed", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "spam"
    assert main(["classify", "--out", str(folder), *SMALL]) == 0
    return str(folder)


def test_json_is_the_last_line_and_all_of_standard_output(tmp_path, capsys):
    data = tmp_path / "SMS"
    data.write_text(
        "".join(f'{"spam" if i % 3 else "ham"}\tmessage "{i} {"win" if i % 3 else "home"}\n' for i in range(120)) * 2
    )
    assert main(["classify", str(data), "--out", str(tmp_path / "run"), "--json", *SMALL]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["test_size"] == 80 - 56 - 8
    assert found["duplicates_removed"] == 120
    assert found["baselines"].keys() >= {"majority", "features", "naive_bayes"}
    assert 0 <= found["test_accuracy"] <= 1
    assert "quotes are text" in " ".join(err.split())


def test_one_text_or_several(run, capsys):
    assert main(["predict", run, "WINNER!! claim your prize", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"label", "probabilities"}
    assert found["probabilities"].keys() == {"ham", "spam"}
    assert found["label"] == max(found["probabilities"], key=found["probabilities"].get)
    assert main(["predict", run, "one", "two", "--json"]) == 0
    several = json.loads(capsys.readouterr().out)
    assert [len(each["probabilities"]) for each in several["predictions"]] == [2, 2]


def test_texts_from_a_file_or_standard_input(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "texts.txt").write_text("call now\n\nsee you\n")
    assert main(["predict", run, "--file", str(tmp_path / "texts.txt")]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 2

    class Stdin(io.TextIOWrapper):
        def isatty(self):
            return False

    monkeypatch.setattr("sys.stdin", Stdin(io.BytesIO(b"call now\nsee you\n")))
    assert main(["predict", run]) == 0
    assert capsys.readouterr().out == printed
    monkeypatch.setattr("sys.stdin", Stdin(io.BytesIO(b"\xff\n")))
    assert main(["predict", run, "--file", "-"]) == 2
    assert "standard input: not UTF-8 at byte 0" in capsys.readouterr().err


def test_each_token_is_explained(run, capsys, monkeypatch):
    assert main(["predict", run, "call me now", "--explain"]) == 0
    label, tokens, shares, _ = capsys.readouterr().out.split("\n", 3)
    assert label.split()[0] in ("ham", "spam")
    assert len(shares.split()) == tokens.count("|") == 4  # the first word without the space that it has elsewhere
    assert main(["predict", run, "call me now", "--explain", "--json"]) == 0
    assert [set(token) for token in json.loads(capsys.readouterr().out)["tokens"]] == [{"token", "share"}] * 4


def test_evaluate_judges_it_by_its_labels(run, tmp_path, capsys):
    assert main(["evaluate", run]) == 0
    assert "On the texts kept for testing" in capsys.readouterr().out
    (tmp_path / "a.csv").write_text("sms;class\ncall now;spam\nsee you;ham\n")
    assert main(["evaluate", run, "--text", str(tmp_path / "a.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 2
    assert found["classes"]["spam"]["support"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["classify", "--resume", "RUN", "messages"], "data is 'messages': a run that is resumed has its own"),
        (["classify", "--resume", "RUN", "--out", "x"], "out is 'x'"),
        (["classify", "--resume", "RUN"], "has finished its 1 epochs"),
        (["classify", "--labels", "x"], "unknown option '--labels' (did you mean --label?)"),
        (["classify", "nowhere.csv", "--out", "OUT"], "nowhere.csv"),
        (["predict", "RUN", "a", "--file", "b"], "TEXT and --file together"),
        (["predict", "RUN", ""], "has no token"),
        (["predict", "nowhere", "a"], "nowhere"),
        (["predict", "RUN", "a", "--checkpoint", "7"], "the weights after step 7 are not kept"),
        (
            ["generate", "RUN", "--prompt", "a"],
            "a classifier (ham, spam), which writes no text: tinygrad-llm predict asks it",
        ),
        (["pretrain", "--resume", "RUN"], "task is 'classify'"),
    ],
)
def test_what_is_refused(words, message, run, tmp_path, capsys):
    places = {"RUN": run, "OUT": str(tmp_path / "out")}
    with pytest.raises(SystemExit) if "unknown" in message else nullcontext():
        assert main([places.get(word, word) for word in words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
