"""The doctor must find what is planted, and find nothing in what is sound."""

import json
import math
import shutil

import numpy as np
import pytest

from tinygrad_llm import ops
from tinygrad_llm.doctor import doctor, health
from tinygrad_llm.doctor.health import (
    Sweep,
    check_batches,
    check_gradients,
    check_initial_loss,
    check_learning_rate,
    check_speed,
)
from tinygrad_llm.engine import Op
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import AdamW
from tinygrad_llm.runs.curve import Finding
from tinygrad_llm.text import SlidingWindowDataset
from tinygrad_llm.training import pretrain

TINY = {"context_length": 16, "emb_dim": 16, "n_heads": 2, "n_layers": 1, "batch_size": 8, "sample_tokens": 3}
TINY |= {"stride": 16, "epochs": 3, "eval_every": 20, "save_every": 40, "vocab_size": 300, "lr": 1e-2}
MACHINE = ["versions", "BLAS", "gradients"]
MODEL = ["memory", "batches", "first loss", "causality", "overfitting", "learning rate", "speed"]


def silent(line): ...


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "story"
    pretrain(out=folder, report=silent, **TINY)
    return folder


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "story")


def diagnose(folder=None, gradients=False):
    """{check: Finding}; the check of the gradients, which takes longest, only where it is wanted."""
    with pytest.MonkeyPatch.context() as patch:
        if not gradients:
            patch.setattr(doctor, "check_gradients", lambda: Finding("ok", "not looked at"))
        return {each.check: each for each in doctor.examine(folder)}


def wrong(found):
    return {check for check, each in found.items() if each.verdict == "wrong"}


def test_a_sound_installation():
    found = diagnose(gradients=True)
    assert list(found) == [*MACHINE, *MODEL]
    assert {each.verdict for check, each in found.items() if check not in ("BLAS", "memory")} == {
        "ok"
    }  # others use it too
    assert "numpy " + np.__version__ in found["versions"].text


def test_a_sound_run(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = diagnose(run)
    curve = ["curve", "curve: start", "curve: fall", "curve: jumps", "curve: validation"]
    assert list(found) == [*MACHINE, "weights", "checkpoints", "text", *curve, *MODEL]
    assert not wrong(found)
    assert found["checkpoints"].verdict == found["weights"].verdict == found["curve: start"].verdict == "ok"
    assert "the bundled story" in found["text"].text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


# ---- planted faults


@pytest.mark.parametrize(
    "name", ["add", "attention", "cross_entropy", "dropout", "embedding", "gelu", "layer_norm", "linear"]
)
def test_a_wrong_backward_is_named(monkeypatch, name):
    op = Op.registry[name]
    right = op.backward

    def slightly_wrong(*args, **kwargs):
        first, *others = right(*args, **kwargs)
        return (None if first is None else first * first.dtype.type(1.01), *others)

    monkeypatch.setattr(op, "backward", slightly_wrong)
    found = check_gradients()
    assert found.verdict == "wrong"
    assert found.text.startswith(f"{name}_backward")


@pytest.mark.parametrize("name", ["exp", "tanh", "matmul", "where"])
def test_a_wrong_backward_of_a_small_op_is_found_where_the_fused_ones_are_taken_apart(monkeypatch, name):
    op = Op.registry[name]
    right = op.backward
    monkeypatch.setattr(
        op, "backward", lambda *args, **kwargs: tuple(d if d is None else -d for d in right(*args, **kwargs))
    )
    assert check_gradients().text.startswith(f"{name}_backward")


def test_targets_that_are_not_shifted(monkeypatch):
    monkeypatch.setattr(SlidingWindowDataset, "__getitem__", lambda self, i: 2 * (self._windows[i][:-1],))
    found = diagnose()
    assert wrong(found) == {"batches"}
    assert "inputs themselves" in found["batches"].text


def test_targets_shifted_by_two():
    ids = np.arange(20)
    assert check_batches([(ids[None, :-2], ids[None, 2:])], 20).verdict == "wrong"
    assert check_batches([(ids[None, :-1], ids[None, 1:])], 20).verdict == "ok"
    assert check_batches([(ids[None, :-1], ids[None, 1:])], 19).verdict == "wrong"
    same = np.zeros((2, 5), int)
    assert check_batches([(same, same)], 20).verdict == "ok"  # a text of one letter
    row, goals = (
        np.array([[5, 6, 7, 0, 0]]),
        np.array([[6, 7, 9, -100, -100]]),
    )  # a document that ends with 9, filled up
    assert check_batches([(row, goals)], 20).verdict == "ok"
    goals[0, 0] = 5
    assert check_batches([(row, goals)], 20).verdict == "wrong"


def test_an_optimizer_that_does_nothing(monkeypatch):
    monkeypatch.setattr(AdamW, "update", staticmethod(lambda *args, **options: None))
    found = diagnose()
    assert wrong(found) == {"overfitting", "learning rate"}
    assert "no weight has changed" in found["overfitting"].text


def test_a_weight_that_the_optimizer_does_not_have(monkeypatch):
    monkeypatch.setattr(health, "AdamW", lambda parameters, **options: AdamW(list(parameters)[1:], **options))
    found = diagnose()
    assert wrong(found) == {"overfitting"}
    assert "tok_emb.weight" in found["overfitting"].text


def test_gradients_that_climb(monkeypatch):
    update = AdamW.update
    monkeypatch.setattr(AdamW, "update", staticmethod(lambda p, g, **options: update(p, -g, **options)))
    assert {"overfitting", "learning rate"} <= wrong(diagnose())


@pytest.mark.parametrize(("factor", "verdict"), [(1, "ok"), (2.5, "look"), (10, "wrong")])
def test_first_weights_that_are_too_large(factor, verdict):
    model = GPTModel(GPTConfig(500, 8, 32, 2, 1))
    model.out_head.weight.data *= factor
    ids = np.random.default_rng(0).integers(0, 500, (16, 9))
    assert check_initial_loss(model, [(ids[:, :-1], ids[:, 1:])]).verdict == verdict


@pytest.mark.parametrize("config", [{"init": "gpt2"}, {"init": "gpt2", "tie_weights": True}])
def test_first_weights_as_they_should_be(config):
    model = GPTModel(GPTConfig(500, 8, 64, 2, 2, **config))
    ids = np.random.default_rng(0).integers(0, 500, (16, 9))
    assert check_initial_loss(model, [(ids[:, :-1], ids[:, 1:])]).verdict == "ok"


def test_a_model_that_knows_the_answer_from_the_start():
    model = GPTModel(GPTConfig(500, 8, 64, 2, 1, tie_weights=True))
    ids = np.random.default_rng(0).integers(0, 500, (16, 8))
    assert check_initial_loss(model, [(ids, ids)]).verdict == "wrong"


def test_attention_that_looks_ahead(monkeypatch):
    attention = ops.attention
    monkeypatch.setattr(ops, "attention", lambda *args, **options: attention(*args, **options | {"causal": False}))
    assert "causality" in wrong(diagnose())


def test_a_step_that_fails(monkeypatch):
    def fail(x):
        raise ZeroDivisionError("planted\nfault")

    monkeypatch.setattr(Op.registry["gelu"], "forward", fail)
    found = diagnose(gradients=True)
    assert {"gradients", "first loss", "overfitting", "learning rate"} <= wrong(found)
    assert found["gradients"].text == "ZeroDivisionError: planted fault"


# ---- a run


def test_a_damaged_checkpoint_is_named(run):
    path = sorted(run.glob("step-*"))[-1] / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = diagnose(run)
    assert wrong(found) == {"checkpoints"}
    assert str(path) in found["checkpoints"].text


def test_weights_that_are_not_finite(run):
    from safetensors.numpy import load_file, save_file

    arrays = load_file(run / "model.safetensors")
    arrays["pos_emb.weight"][3, 4] = math.nan
    save_file(arrays, run / "model.safetensors")
    assert "pos_emb.weight" in diagnose(run)["weights"].text


def test_how_long_a_run_of_so_many_steps_takes(run):
    config = json.loads((run / "config.json").read_text())
    config["training"] |= {"max_steps": 1000, "epochs": 0}
    (run / "config.json").write_text(json.dumps(config))
    n_tokens = 1000 * config["training"]["batch_size"] * config["training"]["context_length"]
    assert f"for the {n_tokens:,} of the run" in diagnose(run)["speed"].text


@pytest.mark.parametrize(("lr", "verdict"), [(1e-6, "look"), (1e-3, "ok"), (1e-2, "ok"), (30.0, "wrong")])
def test_the_learning_rate_of_a_run(run, lr, verdict):
    config = json.loads((run / "config.json").read_text())
    config["training"] |= {"lr": lr, "min_lr": 0.0}
    (run / "config.json").write_text(json.dumps(config))
    assert diagnose(run)["learning rate"].verdict == verdict


@pytest.mark.parametrize("training", [{"lr": 0}, {"lr": "high"}, {"wings": 2}])
def test_options_that_cannot_be(run, training):
    config = json.loads((run / "config.json").read_text())
    config["training"] |= training
    (run / "config.json").write_text(json.dumps(config))
    assert "options" in wrong(diagnose(run))


def test_a_text_that_is_gone_or_another(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["files"] = [str(tmp_path / "tale.txt")]
    (run / "config.json").write_text(json.dumps(config))
    found = diagnose(run)
    assert found["text"].verdict == "look"
    assert "tale.txt" in found["text"].text
    assert "overfitting" not in found
    (tmp_path / "tale.txt").write_text("It is another tale than that of the run. " * 60)
    found = diagnose(run)
    assert found["text"].verdict == "look"
    assert "not the text" in found["text"].text
    assert found["overfitting"].verdict == "ok"


def test_a_run_that_has_only_begun(run):
    for path in (run / "model.safetensors", run / "latest"):
        path.unlink()
    for path in run.glob("step-*"):
        shutil.rmtree(path)
    (run / "metrics.jsonl").write_text("")
    found = diagnose(run)
    assert not wrong(found)
    assert found["curve"].verdict == found["checkpoints"].verdict == "look"


def test_a_record_with_a_damaged_line(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3}\n')
    found = diagnose(run)
    assert "line" in found["curve"].text
    assert wrong(found) == {"curve"}


# ---- figures


def test_a_sweep():
    lrs = np.geomspace(1e-5, 1, 6)
    sweep = Sweep(lrs, np.array([7.0, 7.0, 6.0, 4.0, 5.0, math.nan]), 100.0)
    verdicts = {lr: check_learning_rate(sweep, lr).verdict for lr in (1e-6, 1e-4, 1e-2, 0.3, 1.0)}
    assert verdicts == {1e-6: "look", 1e-4: "ok", 1e-2: "ok", 0.3: "look", 1.0: "wrong"}
    assert "diverges at 1e+00" in check_learning_rate(sweep, 1.0).text
    assert check_learning_rate(Sweep(lrs, np.full(6, 7.0), 100.0), 1e-3).verdict == "wrong"
    assert check_learning_rate(Sweep(lrs, np.full(6, math.nan), 100.0), 1e-3).verdict == "wrong"


def test_speed():
    assert "about 20 s" in check_speed(100.0, 2000).text
    assert check_speed(100.0, 10**9).verdict == "look"


# ---- runs that learn from feedback


def as_run_of(run, task, rows):
    """The same folder, as if it were a run of this task with these rows."""
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"task": task}))
    common = {"tokens": 0, "lr": 1e-3, "train_loss": 0.0, "val_loss": 0.0}
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({**common, "step": i, **row}) + "\n" for i, row in enumerate(rows))
    )


def test_a_run_of_ppo_is_judged_by_its_answers(run):
    scores = [{"eval/score": i / 5, "val_loss": -i / 5, "train_loss": i / 5} for i in range(5)]
    as_run_of(run, "ppo", scores)
    found = diagnose(run)
    assert [check for check in found if check.startswith("curve")] == [
        "curve",
        *(f"curve: {name}" for name in ("score", "KL", "entropy", "logprobs", "ends", "clipping")),
    ]
    assert not wrong(found)
    as_run_of(run, "ppo", [row | {"objective/kl": -2.0, "objective/kl_interval": 0.1} for row in scores])
    assert wrong(diagnose(run)) == {"curve: KL"}


@pytest.mark.parametrize("task", ["grpo", "dpo", "reward"])
def test_strange_rows_do_not_stop_the_doctor(run, task):
    names = [
        "objective/kl",
        "entropy",
        "eval/true",
        "reward",
        "rewards/margins",
        "val_accuracy",
        "frac_reward_zero_std",
    ]
    strange = [math.nan, None, "x", 10**400, [], {"a": 1}, True]
    losses = [0.7, 0.6, 0.5, 0.45, 0.4, 0.38, 0.37]
    rows = [dict(zip(names, strange[i:] + strange[:i], strict=True)) | {"train_loss": losses[i]} for i in range(7)]
    as_run_of(run, task, rows)
    assert not wrong(diagnose(run))
