"""`prefer` as it is called: from pairs to a reward and a policy, resumed, compared, judged; what is missing is said in a line."""

import json

import pytest
from preferring import assistant, pairs

from tinygrad_llm.cli import main

QUICK = ["--max-steps", "3", "--batch-size", "16", "--seed", "1"]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prefer")
    assistant(folder)
    pairs(folder / "pairs.jsonl", 60)
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "Say {a}{b}"}}\n' for a in "abcd" for b in "abcd"))
    return folder


@pytest.fixture
def called(here, monkeypatch, capsys):
    """The JSON of a command, which is one line, and all of standard output."""
    monkeypatch.chdir(here)

    def call(*words):
        assert main([*words, "--json"]) == 0, capsys.readouterr().err
        (line,) = capsys.readouterr().out.splitlines()
        return json.loads(line)

    return call


@pytest.fixture
def refused(here, monkeypatch, capsys):
    """The last line on standard error of a command that ends with 2."""
    monkeypatch.chdir(here)

    def call(*words):
        assert main([*words]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return call


@pytest.fixture(scope="module")
def runs(here):
    for task in ("reward", "dpo"):
        words = ["prefer", task, str(here / "pairs.jsonl"), "--init-from", str(here / "assistant"), *QUICK]
        assert main([*words, "--out", str(here / task)]) == 0
    return here


def test_the_summary_is_one_line(called):
    for task in ("reward", "dpo"):
        told = called("prefer", task, "pairs.jsonl", "--init-from", "assistant", "--out", f"json-{task}", *QUICK)
        assert {"accuracy", "accuracy_interval", "margin", "pairs", "calibration", "steps"} <= told.keys()
        assert (told["folder"], told["pairs"], told["steps"]) == (f"json-{task}", 6, 3)
        longer = called("prefer", task, "--resume", f"json-{task}", "--max-steps", "5")
        assert longer["steps"] == 5


def test_a_policy_learns_from_a_reward_model(runs, called, capsys):
    words = ["prompts.jsonl", "--init-from", "assistant", "--reward", "reward", "--out", "ppo", "--max-steps", "1"]
    words += [
        "--rollouts",
        "8",
        "--batch-size",
        "8",
        "--ppo-epochs",
        "1",
        "--max-new-tokens",
        "4",
        "--eval-answers",
        "4",
    ]
    told = called("prefer", "ppo", *words)
    assert {"reward", "kl"} <= told["after"].keys()
    told = called("prefer", "ppo", "--resume", "ppo", "--max-steps", "2")
    assert told["steps"] == 2
    at = words.index("--ppo-epochs")
    words[words.index("ppo")], words[at : at + 2] = "grpo", ["--group", "4"]
    assert called("prefer", "grpo", *words)["steps"] == 1
    assert main(["doctor", "ppo", "--json"]) in (0, 1)
    checks = {found["check"] for found in json.loads(capsys.readouterr().out)["findings"]}
    assert {"curve: score", "curve: KL", "curve: entropy"} <= checks
    assert not {"curve: start", "curve: fall", "curve: jumps"} & checks  # losses are scores, with the sign changed
    found = called("runs", "reward", "dpo", "ppo", "grpo")
    assert [run["state"] for run in found["runs"]] == ["finished"] * 4
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("task", "check", "words"),
    [("reward", "curve: start", "chance among 2 is 0.693"), ("dpo", "curve: fall", "training loss 0.693 -> ")],
)
def test_doctor_looks_at_such_runs(runs, capsys, task, check, words):
    assert main(["doctor", str(runs / task), "--json"]) in (0, 1)
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {"weights", "checkpoints", "curve"} <= {found["check"] for found in findings}
    assert not [found for found in findings if "Error" in found["text"]]
    (one,) = (found for found in findings if found["check"] == check)
    assert one["verdict"] != "wrong"
    assert words in one["text"]


def test_the_best_of_many(runs, called, capsys):
    words = ["prefer", "best-of-n", "assistant", "--prompts", "prompts.jsonl", "--reward", "reward", "--n", "4"]
    told = called(*words, "--judge", "preferring:by_length", "--max-new-tokens", "6")
    assert (told["prompts"], told["n"]) == (16, 4)
    assert told["best"]["reward"] > told["one"]["reward"]
    assert {"judged", "judged_interval"} <= told["best"].keys()
    assert main([*words, "--max-new-tokens", "6", "--examples", "3"]) == 0
    assert "3 prompts; one answer, and the best of 4" in capsys.readouterr().out


def test_two_runs_beside_each_other(runs, called, capsys, monkeypatch):
    words = ["prefer", "compare", "dpo", "assistant", "--prompts", "prompts.jsonl", "--max-new-tokens", "6"]
    told = called(*words, "--by", "reward")
    assert told["wins"] + told["ties"] + told["losses"] == told["prompts"] == 16
    assert told["interval"][0] <= told["win_rate"] <= told["interval"][1]
    assert called(*words, "--by", "reward") == told
    replies = iter(["A", "B"] * 16)
    monkeypatch.setattr("tinygrad_llm.evaluation.judge._reply", lambda *arguments: next(replies))
    assert called(*words, "--judge", "http://x/v1", "--judge-model", "m")["win_rate"] == 1
    assert main([*words, "--by", "reward"]) == 0
    assert "win rate" in capsys.readouterr().out


def test_runs_are_judged_on_pairs(runs, called, refused, capsys):
    for task in ("reward", "dpo"):
        told = called("evaluate", task)
        assert told["text"] == "the pairs kept for testing"
        assert told["pairs"] == 6
        assert {"accuracy", "margin", "calibration"} <= told.keys()
    told = called("evaluate", "reward", "--text", "pairs.jsonl")
    assert (told["text"], told["pairs"]) == ("pairs.jsonl", 60)
    assert called("evaluate", "dpo", "--text", "conversations.json")["n"] == 80
    assert main(["evaluate", "reward"]) == 0
    assert "how often it is right" in capsys.readouterr().out
    assert "one with pairs" in refused("evaluate", "reward", "--text", "pairs.jsonl", "pairs.jsonl")
    assert "--adapter x" in refused("evaluate", "reward", "--adapter", "x")
    assert "none of the forms" in refused("evaluate", "reward", "--text", "prompts.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dpo", "PAIRS is missing: tinygrad-llm prefer dpo PAIRS --init-from RUN, or --resume RUN"),
        ("reward pairs.jsonl", "--init-from is missing: it begins with weights that answer already"),
        ("ppo prompts.jsonl --init-from assistant", "--reward is missing, a run of `prefer reward`, reviews"),
        ("ppo prompts.jsonl --init-from assistant --reward assistant", "it gives no score: tinygrad-llm prefer reward"),
        ("dpo pairs.jsonl --init-from assistant --beta 0", "beta is 0"),
        ("dpo pairs.jsonl --init-from assistant --set sort=ipo", "has no option 'sort'"),
        ("dpo pairs.jsonl --resume assistant", "a run that is resumed has its own: leave it out"),
        ("dpo --resume assistant", "task is 'instruct': only 'dpo' goes on here"),
        ("dpo pairs.jsonl --init-from nowhere", "nowhere"),
        ("best-of-n assistant --prompts prompts.jsonl --reward reviws", "did you mean reviews?"),
        ("best-of-n assistant --prompts nothing.jsonl --reward reviews", "no such file, nor a kind of lessons"),
        ("best-of-n assistant --prompts prompts.jsonl --reward reviews --n 0", "n is 0"),
        ("best-of-n assistant --prompts prompts.jsonl --reward reviews --max-new-tokens 0", "max_new_tokens is 0"),
        ("compare assistant assistant --prompts prompts.jsonl", "--by or --judge: give one of them"),
        (
            "compare assistant assistant --prompts prompts.jsonl --judge http://x",
            "--judge and --judge-model go together",
        ),
        ("compare assistant assistant --prompts prompts.jsonl --by assistant", "it gives no score"),
        ("label assistant --prompts prompts.jsonl --out out.jsonl --by assistant", "it gives no score"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_a_line(refused, words, message):
    assert message in refused("prefer", *words.split())


def test_a_run_of_ppo_has_no_questions(runs, refused):
    config = json.loads((runs / "dpo" / "config.json").read_text()) | {"task": "ppo"}
    (runs / "none").mkdir()
    (runs / "none" / "config.json").write_text(json.dumps(config))
    assert "name a file of them with --text" in refused("evaluate", "none")
