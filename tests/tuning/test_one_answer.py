"""The page of one answer: every figure of its table against a plain loop, and what the commands make of such a run."""

import json
import re

import numpy as np
import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.runs.folder import load_run, load_whole
from tinygrad_llm.tuning import grpo, ppo
from tinygrad_llm.tuning.feedback import open_base
from tinygrad_llm.tuning.instruct import instruct
from tinygrad_llm.tuning.one_answer import open_answer

WORDS = ["pea", "tea", "oak", "ash", "ivy", "fig", "yew", "elm", "rye", "hop"]
REWARD = "own_scores:begins_with_t"
SMALL = {"epochs": 2, "rollouts": 8, "batch_size": 4, "max_new_tokens": 6, "eval_answers": 4, "lr": 2e-2}


def quiet(line):
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a model that answers, prompts, and a reward."""
    folder = tmp_path_factory.mktemp("feedback")
    rows = [{"prompt": f"Say {word}", "completion": other} for word in WORDS for other in ("pea", "tea", "maple")]
    (folder / "a.json").write_text(json.dumps(rows))
    sizes = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "context_length": 24, "epochs": 20, "lr": 1e-2}
    instruct(folder / "a.json", out=folder / "base", report=quiet, batch_size=8, **sizes)
    prompts = [json.dumps({"prompt": f"Say {word}", "answer": word}) + "\n" for word in WORDS]
    (folder / "p.jsonl").write_text("".join(prompts))
    (folder / "own_scores.py").write_text(
        "def begins_with_t(prompts, completions, **columns):\n    return [float(c.startswith('t')) for c in completions]\n"
    )
    return folder


@pytest.fixture(scope="module")
def ppo_run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        begin = {"init_from": folder / "base", "reward": REWARD, "judge": "exact", "report": quiet, "beta": 0.2}
        ppo.train(folder / "p.jsonl", out=folder / "ppo", **begin, **SMALL)
    return folder / "ppo"


@pytest.fixture(scope="module")
def grpo_run(folder):
    grpo.train(
        folder / "p.jsonl",
        out=folder / "grpo",
        init_from=folder / "base",
        reward="exact",
        report=quiet,
        group=4,
        **SMALL,
    )
    return folder / "grpo"


@pytest.fixture(autouse=True)
def beside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


def rows_of(table):
    return {row.name: row.values for row in table.rows}


def said_by(model, ids, temperature=1.0):
    """The log-probability of each token but the first, (T,)."""
    logits = model(ids[None, :-1]).data[0].astype(np.float64) / temperature
    logits -= logits.max(-1, keepdims=True)
    return logits[np.arange(len(ids) - 1), ids[1:]] - np.log(np.exp(logits).sum(-1))


def test_every_figure_of_an_answer_of_ppo(folder, ppo_run):
    found = open_answer(ppo_run)
    rows, answer = rows_of(found.table), found.counted[1:]
    policy, _ = load_run(ppo_run)
    np.testing.assert_allclose(rows["log π"], said_by(policy, found.ids)[answer], atol=1e-5)
    reference = open_base(folder / "base").model
    np.testing.assert_allclose(rows["log ref"], said_by(reference, found.ids)[answer], atol=1e-5)
    np.testing.assert_allclose(rows["KL"], rows["log π"] - rows["log ref"], atol=1e-6)
    assert np.abs(rows["KL"]).max() > 0.01
    n = len(rows["KL"])
    ended = found.table.tokens[-1] == "<|endoftext|>"
    text = "".join(found.table.tokens).removesuffix("<|endoftext|>")
    assert found.table.facts["answer"] == text
    assert found.table.facts["prompt"] == "Say hop"  # the first that is held out
    score = found.table.facts[f"score ({REWARD})"]
    assert score == float(text.startswith("t"))
    assert found.table.facts["true score"] == float(text == "hop")
    expected = -0.2 * rows["KL"]
    expected[-1] += score - (0 if ended else 1)
    np.testing.assert_allclose(rows["reward"], expected, atol=1e-5)
    value = load_whole(ppo_run)[0].value
    np.testing.assert_allclose(rows["value"], value(found.ids[None, :-1]).data[0, :, 0][answer], atol=1e-5)
    advantage, raw = 0.0, np.zeros(n)
    for t in reversed(range(n)):
        following = rows["value"][t + 1] if t + 1 < n else 0
        advantage = rows["reward"][t] + following - rows["value"][t] + 0.95 * advantage
        raw[t] = advantage
    np.testing.assert_allclose(rows["return"], raw + rows["value"], atol=1e-5)
    slope, shift = np.polyfit(raw, rows["advantage"], 1)  # whitened among all answers of the round
    np.testing.assert_allclose(slope * raw + shift, rows["advantage"], atol=1e-5)
    assert slope > 0
    assert abs(rows["advantage"].mean()) > 1e-3
    np.testing.assert_allclose(rows["ratio before"], 1, atol=1e-5)
    assert np.abs(rows["ratio after"] - 1).max() > 1e-3
    too_far = np.where(rows["advantage"] > 0, rows["ratio after"] > 1.2, rows["ratio after"] < 0.8)
    np.testing.assert_array_equal(rows["clipped"], too_far)
    loss = -rows["advantage"].mean() + 0.1 * ((rows["value"] - rows["return"]) ** 2).mean() / 2
    assert found.loss().item() == pytest.approx(loss, abs=1e-5)


def test_the_ratios_after_are_those_of_a_step(ppo_run, monkeypatch):
    """The step is the run's own: where it takes no step, nothing has moved."""
    taken = []

    def no_step(model, optimizer, *batch, objective, **options):
        taken.append((optimizer.param_groups[0]["lr"], len(batch[0]), options["max_norm"]))

    monkeypatch.setattr("tinygrad_llm.tuning.one_answer.train_step", no_step)
    rows = rows_of(open_answer(ppo_run).table)
    np.testing.assert_array_equal(rows["ratio after"], rows["ratio before"])
    assert not rows["clipped"].any()
    assert taken == [(0.02, 4, 1.0)]


def test_it_is_always_the_same_answer_and_the_run_stays_as_it_was(ppo_run):
    before = {path: path.read_bytes() for path in ppo_run.rglob("*") if path.is_file()}
    one, other = open_answer(ppo_run), open_answer(ppo_run, "Say hop")
    for name, values in rows_of(one.table).items():
        np.testing.assert_array_equal(values, rows_of(other.table)[name], err_msg=name)
    assert one.loss().item() == other.loss().item()
    assert {path: path.read_bytes() for path in ppo_run.rglob("*") if path.is_file()} == before


def test_a_prompt_that_the_run_does_not_know(ppo_run, grpo_run):
    facts = open_answer(ppo_run, "Say no").table.facts
    assert facts[f"score ({REWARD})"] == float(facts["answer"].startswith("t"))
    assert "true score" not in facts  # which a judge that compares with the right answer cannot say
    with pytest.raises(ConfigError, match="a column 'answer' is needed"):  # and "exact" would be wrong without one
        open_answer(grpo_run, "Say no")
    assert open_answer(grpo_run, "Say pea").table.facts["prompt"] == "Say pea"


def test_the_coefficient_that_adapts(folder, tmp_path):
    options = SMALL | {"target_kl": 0.1, "horizon": 20.0, "epochs": 3}
    ppo.train(
        folder / "p.jsonl", out=tmp_path / "run", init_from=folder / "base", reward="exact", report=quiet, **options
    )
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["objective/beta"] != 0.05
    assert open_answer(tmp_path / "run").table.facts["β"] == last["objective/beta"]


def test_an_answer_of_grpo(grpo_run, monkeypatch):
    asked, draw = [], grpo.GRPO.draw

    def spy(self, *args):
        drawn, scores = draw(self, *args)
        asked.extend(prompt[-1]["content"] for prompt in drawn.prompts)
        return drawn, scores

    monkeypatch.setattr(grpo.GRPO, "draw", spy)
    found = open_answer(grpo_run)
    assert asked[:4] == ["Say hop"] * 4  # its group
    assert len(set(asked[4:])) == 1
    assert "Say hop" not in asked[4:]  # which is held out
    rows = rows_of(found.table)
    assert list(rows) == ["log π", "log ref", "KL", "entropy", "advantage", "ratio before", "ratio after", "clipped"]
    scores = [float(word) for word in found.table.facts["scores of its group"].split(", ")]
    assert len(scores) == 4
    assert scores[0] == found.table.facts["score (exact)"]
    assert len(set(rows["advantage"].tolist())) == 1
    assert np.sign(rows["advantage"][0]) == np.sign(scores[0] - np.mean(scores))
    assert found.loss().item() == pytest.approx(-rows["advantage"][0], abs=1e-5)


def test_the_picture_of_a_run(ppo_run, grpo_run):
    """Scores, KL and entropy side by side."""
    for run in (ppo_run, grpo_run):
        header = (run / "loss.png").read_bytes()[:20]
        assert header[1:4] == b"PNG"
        assert int.from_bytes(header[16:20], "big") == 540 * 3


def test_only_what_learns_has_a_gradient(folder, tmp_path):
    begin = {"init_from": folder / "base", "reward": "exact", "report": quiet, "lora": "r=2"}
    ppo.train(folder / "p.jsonl", out=tmp_path / "run", **begin, **SMALL)
    found = open_answer(tmp_path / "run")
    found.loss().backward()
    learning = {name for name, p in found.model.named_parameters() if p.grad is not None}
    assert {name.split(".")[-1] for name in learning if name.startswith("policy.")} == {"lora_A", "lora_B"}
    assert "value.out_head.weight" in learning


def test_a_run_that_learns_from_no_answers_of_its_own(folder):
    with pytest.raises(ConfigError, match=r"a run of instruct: only those of ppo, grpo"):
        open_answer(folder / "base")


# ---- commands


def test_report(ppo_run, tmp_path, capsys):
    assert main(["report", str(ppo_run), "--json", "-o", str(tmp_path / "a.html")]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out.splitlines()[-1])
    found = open_answer(ppo_run)
    (table,) = told["tables"]
    assert [row["name"] for row in table["rows"]] == [row.name for row in found.table.rows]
    np.testing.assert_allclose(table["rows"][0]["values"], found.table.rows[0].values, rtol=1e-5)
    sums = {row["name"]: row["sum"] for row in table["rows"] if "sum" in row}
    assert sums["KL"] == pytest.approx(rows_of(found.table)["KL"].sum(), rel=1e-4)
    assert set(sums) == {"log π", "log ref", "KL", "reward", "clipped"}
    assert told["loss"] == pytest.approx(found.loss().item(), abs=1e-6)
    assert captured.err.startswith(found.said)
    assert json.dumps(found.table.facts["answer"])[1:-1] in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize("composed", [[], ["--composed"]])
def test_step(ppo_run, composed, capsys, monkeypatch):
    lines = iter(["next", "list", "quit"])
    monkeypatch.setattr(
        "tinygrad_llm.debug.console.Console.cmdloop", lambda self: [self.onecmd(line) for line in lines]
    )
    assert main(["step", str(ppo_run), "--prompt", "Say tea", *composed]) == 0
    captured = capsys.readouterr()
    assert "Say tea | " in captured.err
    assert "maximum" in captured.out
    fused = re.search(r"^ *\d+ \S+\.attention#", captured.out, re.MULTILINE)  # composed, it is a heading alone
    assert (fused is None) == bool(composed)


@pytest.mark.parametrize("option", ["--answer", "--adapter"])
def test_options_that_are_of_no_use(ppo_run, option, capsys):
    assert main(["step", str(ppo_run), option, "x"]) == 2
    assert f"{option} is not for a run that learns from its own answers" in capsys.readouterr().err
