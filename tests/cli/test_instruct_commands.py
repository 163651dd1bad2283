"""`instruct` and `chat` as they are called: what they print, as text and as JSON, commands of a conversation, what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.evaluation.judge import Judged
from tinygrad_llm.tuning.assistant import Assistant, Chat

SMALL = ["--emb-dim", "16", "--n-heads", "2", "--n-layers", "1", "--epochs", "1", "--examples", "60"]
SMALL += ["--kinds", "upper,last", "--seed", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lessons"
    assert main(["instruct", "--out", str(folder), *SMALL]) == 0
    return str(folder)


class Stdin(io.TextIOWrapper):
    def isatty(self):
        return False


@pytest.fixture
def typed(monkeypatch):
    def type_in(text):
        monkeypatch.setattr("sys.stdin", Stdin(io.BytesIO(text.encode()), encoding="utf-8"))

    return type_in


def test_json_is_the_last_line_and_all_of_standard_output(tmp_path, capsys):
    data = tmp_path / "a.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"Say {i}"}, {"role": "assistant", "content": str(i)}]}
        for i in range(30)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ["--emb-dim", "16", "--n-heads", "2", "--n-layers", "1", "--epochs", "1"]
    assert main(["instruct", str(data), "--out", str(tmp_path / "run"), "--json", *small]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["before"]["n"] == found["after"]["n"] == 3
    assert 0 <= found["after"]["exact_match"] <= 1
    assert found["after"]["by_kind"] == {}
    assert "chat: messages" in err


def test_one_question(run, capsys):
    assert main(["chat", run, "-p", "Capitals: pea", "--json", "--max-new-tokens", "6"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]
    assert main(["chat", run, "-p", "Capitals: pea", "--max-new-tokens", "6"]) == 0
    assert capsys.readouterr().out == answer + "\n"


def test_a_conversation_by_its_commands(run, typed, tmp_path, capsys):
    file = tmp_path / "talk.json"
    typed(
        "Capitals: pea\n/why\n/retry\n/undo\n/undo\n/temp 0.5\n/temp hot\n/temp nan\n/save\n/sing\n/system be brief\n"
        f"Capitals: axe\n/save {file}\n/reset\n/load {file}\n/help\n/quit\nCapitals: never\n"
    )
    assert main(["chat", run, "--max-new-tokens", "4"]) == 0
    out, err = capsys.readouterr()
    answers = [line for line in out.splitlines() if line and not line.startswith("/")]
    assert answers[0] == answers[5]  # asked once more; four lines of /why between
    for said in (
        "Taken back.",
        "Nothing has been asked yet.",
        "/temp: could not convert",
        "/temp: temperature is nan",
        "/save: which file?",
        "there is no /sing",
    ):
        assert said in err
    messages = json.loads(file.read_text())["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert "never" not in out


def test_a_question_that_cannot_be_read_does_not_end_it(run, typed, capsys):
    typed("Capitals: ☃\nCapitals: pea\n")
    assert main(["chat", run, "--max-new-tokens", "4"]) == 0
    out, err = capsys.readouterr()
    assert "☃" in err
    assert len(out.splitlines()) == 1


def test_ctrl_c_stops_the_answer_and_not_the_program(run, typed, capsys, monkeypatch):
    def interrupted(self):
        try:
            yield "half"
            raise KeyboardInterrupt
        finally:
            self.messages.append({"role": "assistant", "content": "half"})

    monkeypatch.setattr(Chat, "_answer", interrupted)
    typed("one\ntwo\n")
    assert main(["chat", run]) == 0
    out, err = capsys.readouterr()
    assert out == "half\nhalf\n"
    assert err.count("(stopped)") == 2


def test_control_characters_do_not_reach_the_terminal(run, capsys, monkeypatch):
    monkeypatch.setattr(Chat, "_answer", lambda self: iter(["a\x1b[2Jb", "\x07c\r\n"]))
    assert main(["chat", run, "-p", "x"]) == 0
    assert capsys.readouterr().out == "a[2Jbc\n\n"


def test_evaluate_asks_the_questions_of_the_test(run, capsys, monkeypatch):
    assert main(["evaluate", run]) == 0
    assert "On the questions kept for testing" in capsys.readouterr().out
    asked = []

    def judged(questions, expected, answers, **options):
        asked.append((len(questions), options))
        return Judged([50] * 79 + [None])

    monkeypatch.setattr("tinygrad_llm.evaluation.judge.judge", judged)
    assert main(["evaluate", run, "--json", "--judge", "http://x/v1", "--judge-model", "m"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 80
    assert (found["judge"]["mean"], found["judge"]["unparsed"]) == (50, 1)
    assert asked == [(80, {"url": "http://x/v1", "model": "m"})]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["instruct", "--resume", "RUN", "a.json"], "data is 'a.json': a run that is resumed has its own"),
        (["instruct", "--resume", "RUN"], "has finished its 1 epochs"),
        (["instruct", "nowhere.json", "--out", "OUT"], "nowhere.json"),
        (["instruct", "--kinds", "sing", "--out", "OUT"], "sing"),
        (["evaluate", "RUN", "--judge", "http://x/v1"], "--judge and --judge-model go together"),
        (["chat", "nowhere", "-p", "a"], "nowhere"),
        (["chat", "RUN", "-p", "a", "--template", "mine"], "template is 'mine'"),
        (["chat", "RUN", "-p", "a", "--temperature", "-1"], "temperature is -1"),
        (["predict", "RUN", "a"], "a language model, which has no classes"),
    ],
)
def test_what_is_refused(words, message, run, tmp_path, capsys):
    places = {"RUN": run, "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_report_of_an_answer(run, tmp_path, capsys):
    path = tmp_path / "a.html"
    first = json.loads((Path(run) / "answers.jsonl").read_text().splitlines()[0])
    for more in ([], ["--prompt", first["question"], "--answer", first["expected"]]):
        assert main(["report", run, "-o", str(path), "--json", *more]) == 0
        told = json.loads(capsys.readouterr().out)
        assistant = Assistant.load(run)
        messages = [
            {"role": "user", "content": first["question"]},
            {"role": "assistant", "content": first["expected"]},
        ]
        ids, is_answer = assistant.template.encode(assistant.tokenizer, messages)
        logits = assistant.model(np.array([ids[:-1]])).data[0].astype(np.float64)
        logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses = -logprobs[np.arange(len(ids) - 1), ids[1:]]
        assert told["loss"] == pytest.approx(losses[np.array(is_answer[1:])].mean(), rel=1e-4)


@pytest.mark.parametrize("argv", [["--answer", "a"], ["--answer", "a", "--prompt", "b"]])
def test_an_answer_needs_a_run_and_a_question(argv, capsys):
    assert main(["report", *argv]) == 2
    assert "goes with a run of instruct and a --prompt" in capsys.readouterr().err
