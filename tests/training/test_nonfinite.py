"""Losses and gradients that are not finite: the run stops before a weight is touched, or skips the step."""

import json
import math

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, LossSpike, NonFiniteError, OutOfMemory
from tinygrad_llm.optim import CosineSchedule
from tinygrad_llm.runs.checkpoint import load_checkpoint, verify_checkpoint
from tinygrad_llm.training import loop, pretrain, reproduce, resume
from tinygrad_llm.training.nonfinite import highest_loss

TEXT = "the cat sat on the mat and the rat sat on the hat; " * 6
OPTIONS = {"tokenizer": "char", "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.1}
OPTIONS |= {"epochs": 3, "batch_size": 6, "stride": 6, "eval_every": 3, "eval_batches": 1, "sample_tokens": 2}


def silent(line): ...


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def poison(monkeypatch, *steps):
    """At these steps the loss is not finite, as a weight that is NaN for a moment would make it."""
    real, n = loop.train_step, []

    def train_step(model, optimizer, *args, **options):
        n.append(1)
        if len(n) not in steps:
            return real(model, optimizer, *args, **options)
        data = model.final_norm.scale.data
        before = data.copy()
        data[0] = np.nan
        try:
            return real(model, optimizer, *args, **options)
        finally:
            data[:] = before

    monkeypatch.setattr(loop, "train_step", train_step)


def explode(text, tmp_path, lines, **options):
    """Weights far out after a first step with a huge learning rate; the next step overflows."""
    return pretrain(
        text,
        out=tmp_path / "run",
        report=lines.append,
        **OPTIONS | {"eval_every": 100, "warmup": 0.0, "lr": 1e30} | options,
    )


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_what_happened_happens_again_to_the_bit(text, tmp_path, max_norm):
    with pytest.raises(
        NonFiniteError, match=r"step 2: .*no weight was changed, and .*reproduce\('.*nonfinite-step-000002'\)"
    ) as caught:
        explode(text, tmp_path, [], max_norm=max_norm)
    folder = tmp_path / "run" / "nonfinite-step-000002"
    verify_checkpoint(folder)
    record = json.loads((folder / "trainer_state.json").read_text())
    assert record["error"] == str(caught.value.__cause__)
    for threads in (1, 2):
        with pytest.raises(NonFiniteError) as again:
            reproduce(folder, threads=threads)
        assert str(again.value) == record["error"]
    with tg.debug.anomaly(), pytest.raises(NonFiniteError, match=r"trf_blocks|final_norm|out_head|tok_emb"):
        reproduce(folder, threads=1)


def test_the_weights_are_those_before_the_step(text, tmp_path, monkeypatch):
    poison(monkeypatch, 5)
    lines = []
    with pytest.raises(NonFiniteError, match="step 5: train_step: the loss is nan"):
        pretrain(text, out=tmp_path / "run", report=lines.append, **OPTIONS)
    assert "step-000003 is whole; to go on from there: tinygrad-llm pretrain --resume" in lines[-1]
    monkeypatch.undo()
    kept = load_checkpoint(tmp_path / "run" / "nonfinite-step-000005")
    loss = reproduce(kept.folder)  # the poison was not in the weights, so here the step goes well
    losses, real = [], loop.train_step
    monkeypatch.setattr(
        loop, "train_step", lambda *args, **options: losses.append(real(*args, **options)) or losses[-1]
    )
    pretrain(text, out=tmp_path / "other", report=silent, **OPTIONS | {"save_every": 4, "keep": 9})
    assert loss == losses[4]  # batch, dropout and all
    peace = load_checkpoint(tmp_path / "other" / "step-000004")
    for name, array in peace.weights.items():
        np.testing.assert_array_equal(kept.weights[name], array)
    for name, array in peace.optimizer["moments"].items():
        np.testing.assert_array_equal(kept.optimizer["moments"][name], array)
    assert kept.optimizer["steps"] == peace.optimizer["steps"]
    assert kept.state.epoch_rng == peace.state.epoch_rng
    resume(tmp_path / "run", report=silent)
    name = "model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_skipped_step_changes_nothing_but_the_place(text, tmp_path, monkeypatch):
    poison(monkeypatch, 5, 6, 9)
    lines, options = [], OPTIONS | {"save_every": 1, "keep": 30, "on_nonfinite": "skip"}
    pretrain(text, out=tmp_path / "run", report=lines.append, **options)
    assert [line.split(":")[0] for line in lines if "is skipped" in line] == [f"step {k} is skipped" for k in (5, 6, 9)]
    four, six, last = (load_checkpoint(tmp_path / "run" / f"step-{step:06}") for step in (4, 6, 21))
    for name, array in four.weights.items():
        np.testing.assert_array_equal(six.weights[name], array)
    for name, array in four.optimizer["moments"].items():
        np.testing.assert_array_equal(six.optimizer["moments"][name], array)
    assert set(six.optimizer["steps"]) == {4}
    assert set(last.optimizer["steps"]) == {18}
    assert (last.state.step, last.state.skipped, last.state.skipped_in_a_row) == (21, 3, 0)
    assert not list((tmp_path / "run").glob("nonfinite-*"))


def test_ten_skipped_steps_in_a_row_are_enough(text, tmp_path, monkeypatch):
    poison(monkeypatch, *range(4, 99))
    with pytest.raises(NonFiniteError, match="step 13: "):
        pretrain(text, out=tmp_path / "run", report=silent, **OPTIONS | {"on_nonfinite": "skip"})
    assert (tmp_path / "run" / "nonfinite-step-000013").is_dir()


def test_a_gradient_that_is_not_finite_stops_a_run_that_does_not_clip(text, tmp_path, monkeypatch):
    from tinygrad_llm.training import step

    real = step.loss_and_gradients

    def nan_gradient(*args):
        loss, gradients = real(*args)
        next(iter(gradients.values()))[...] = np.nan
        return loss, gradients

    monkeypatch.setattr(step, "loss_and_gradients", nan_gradient)
    with pytest.raises(NonFiniteError, match=r"step 1: .*gradient"):
        pretrain(text, out=tmp_path / "run", report=silent, **OPTIONS | {"max_norm": 0.0})


def test_an_evaluation_that_is_not_finite_stops_before_it_is_saved(text, tmp_path):
    with pytest.raises(NonFiniteError, match="after step 1 the training loss is"):
        explode(text, tmp_path, [], eval_every=1)
    assert not list((tmp_path / "run").glob("step-*"))
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1


def test_a_policy_that_does_not_exist(text, tmp_path):
    with pytest.raises(ConfigError, match="on_nonfinite is 'ignore': use one of stop, skip"):
        pretrain(text, out=tmp_path / "run", on_nonfinite="ignore")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_too_little_memory_is_one_error_and_the_last_checkpoint_is_whole(text, tmp_path, monkeypatch, error):
    real, n, lines = loop.train_step, [], []

    def train_step(*args, **options):
        n.append(1)
        if len(n) == 5:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(loop, "train_step", train_step)
    with pytest.raises(
        OutOfMemory, match=r"on batches of 6 x 8 tokens needs about \d[\d.]+ KiB: use a smaller batch_size"
    ) as caught:
        pretrain(text, out=tmp_path / "run", report=lines.append, **OPTIONS)
    assert isinstance(caught.value, MemoryError)
    assert "step-000003 is whole" in lines[-1]
    resume(tmp_path / "run", report=silent)


class LeapingSchedule(CosineSchedule):
    def __call__(self, step):
        return 10.0 if step == 24 else super().__call__(step)


def test_a_loss_that_explodes_stops_the_run_and_happens_again_to_the_bit(text, tmp_path, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.training.options.CosineSchedule", LeapingSchedule)
    options = OPTIONS | {"epochs": 5, "eval_every": 100}
    with pytest.raises(
        LossSpike, match=r"step 26: train_step: the loss is \d+\.\d+, above \d+\.\d+: .*no weight"
    ) as caught:
        pretrain(text, out=tmp_path / "run", report=silent, **options)
    folder = tmp_path / "run" / "nonfinite-step-000026"
    with pytest.raises(LossSpike) as again:
        reproduce(folder)
    assert str(again.value) == str(caught.value.__cause__)
    assert f"{folder / 'report.html'} shows it" in str(caught.value)
    page = (folder / "report.html").read_text()
    assert "cross_entropy" in page
    assert '"text":{' in page  # attention and the loss of each token as well
    state = load_checkpoint(folder).state
    assert len(state.losses) == 20
    assert max(state.losses) < float(str(again.value).split("is ")[1].split(",")[0]) / 3

    pretrain(text, out=tmp_path / "off", report=silent, **options | {"spike": 0.0, "on_nonfinite": "skip"})
    assert load_checkpoint(next((tmp_path / "off").glob("step-*"))).state.skipped == 0


def test_what_counts_as_a_spike():
    assert highest_loss([2.0] * 19, 3.0, math.log(100)) == np.inf  # too few to tell
    assert highest_loss([2.0] * 10 + [4.0] * 10, 3.0, math.log(100)) == 9.0  # three times the median
    assert highest_loss([0.1] * 20, 3.0, math.log(100)) == pytest.approx(
        np.log(100) + 1
    )  # a little more than little is no explosion
    assert highest_loss([2.0] * 20, 0.0, math.log(100)) == np.inf
