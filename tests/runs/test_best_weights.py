"""The weights of the lowest validation loss: kept whatever is saved, taken where they are clearly better, and asked for."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError
from tinygrad_llm.evaluation import evaluate_run
from tinygrad_llm.evaluation.losses import all_windows, mean_loss
from tinygrad_llm.runs.checkpoint import TrainerState
from tinygrad_llm.runs.folder import better_weights
from tinygrad_llm.runs.loggers import Logger
from tinygrad_llm.training import continue_pretraining, load_run, loop, pretrain, resume
from tinygrad_llm.weights import convert, load_pretrained

# Training and validation text have the same letters and different order: the model learns the first by heart.
TEXT = "the cat sat on the mat. " * 30 + "tam eht no tas tac eht. " * 4
OPTIONS = {"tokenizer": "char", "context_length": 8, "emb_dim": 16, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0}
OPTIONS |= {"batch_size": 8, "stride": 8, "lr": 3e-2, "sample_tokens": 4, "eval_every": 2, "max_steps": 24, "keep": 1}
SILENT = {"report": lambda line: None}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


class Weights(Logger):
    """Keeps the weights at every evaluation; with `stop_at`, raises Ctrl-C in that step."""

    def __init__(self, stop_at=None):
        self.stop_at, self.at = stop_at, {}

    def log_step(self, step, loss, lr):
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module", params=[0, 100, 5], ids=["saved at each evaluation", "only at the end", "in between"])
def run(request, text, tmp_path_factory):
    """A run whose validation loss was lowest long before its end, however often it was saved."""
    return pretrain(text, out=tmp_path_factory.mktemp("runs") / "run", save_every=request.param, **OPTIONS, **SILENT)


def validation(model, tokenizer):
    return mean_loss(model, all_windows(tokenizer.encode(TEXT[int(0.9 * len(TEXT)) :]), 8, 8))


def test_the_best_weights_are_kept_however_seldom_a_run_is_saved(run):
    best = min(run.metrics, key=lambda row: row["val_loss"])
    assert 0 < best["step"] < 24
    assert best["val_loss"] < run.val_loss - 0.1
    for checkpoint in ("best", best["step"], str(best["step"])):
        assert validation(*load_run(run.folder, checkpoint)) == pytest.approx(best["val_loss"], rel=1e-6)
    for checkpoint in (None, "last", 24):
        assert validation(*load_run(run.folder, checkpoint)) == pytest.approx(run.val_loss, rel=1e-6)
    assert validation(*load_pretrained(run.folder, checkpoint="best")) == pytest.approx(best["val_loss"], rel=1e-6)
    assert evaluate_run(run.folder, checkpoint="best").loss == pytest.approx(best["val_loss"], rel=1e-6)
    folders = [path for path in run.folder.glob("step-*") if path.name == f"step-{best['step']:06}"]
    assert len(folders) + (run.folder / "best.safetensors").exists() == 1


def test_a_checkpoint_is_a_path(run, tmp_path):
    folder = sorted(run.folder.glob("step-*"))[0]
    step = int(folder.name.removeprefix("step-"))
    expected = load_run(run.folder, step)[0].state_dict()
    for model, tokenizer in (load_run(folder), load_pretrained(folder), load_run(str(folder) + "/")):
        assert tokenizer.vocab_size == model.config.vocab_size
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, expected[name])
    convert(folder, tmp_path / "out")
    for name, value in load_pretrained(tmp_path / "out")[0].state_dict().items():
        np.testing.assert_array_equal(value, expected[name])
    with pytest.raises(ConfigError, match=f"{folder} is a checkpoint, and checkpoint is 'best'"):
        load_run(folder, "best")


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "RUN", "--max-new-tokens", "3", "--json"],
        ["evaluate", "RUN", "--sample-tokens", "3", "--json"],
        ["report", "RUN", "-o", "page.html", "--prompt", "the cat", "--json"],
        ["convert", "RUN", "out", "--json"],
    ],
    ids=lambda command: command[0],
)
def test_commands_take_the_best_weights_and_say_so_in_one_line(run, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    best = min(run.metrics, key=lambda row: row["val_loss"])
    words = f"the weights after step {best['step']} are taken, where validation loss is {best['val_loss']:.3f}"
    command = [str(run.folder) if word == "RUN" else word for word in command]
    for more in ([], ["--checkpoint", "best"], ["--checkpoint", "last"], ["--checkpoint", "24"]):
        for path in ("out",):
            if Path(path).exists():
                for file in Path(path).iterdir():
                    file.unlink()
        assert main([*command, *more]) == 0
        printed = capsys.readouterr()
        result = json.loads(printed.out.splitlines()[-1])
        assert printed.err.count("\n") == (0 if more else 1)
        assert (words in printed.err) is (not more)
        if command[0] == "evaluate":
            row = best if more in ([], ["--checkpoint", "best"]) else run.metrics[-1]
            assert result["loss"] == pytest.approx(row["val_loss"], rel=1e-6)
        if command[0] == "generate":
            assert result.keys() == {"prompt", "text"}


def test_step_takes_them_too(run, monkeypatch, capsys):
    losses = []
    monkeypatch.setattr("tinygrad_llm.debug.console.open_console", losses.append)
    for more in ([], ["--checkpoint", "best"], ["--checkpoint", "last"]):
        assert main(["step", str(run.folder), "--prompt", "the mat", *more]) == 0
    assert losses[0].item() == losses[1].item() != losses[2].item()
    assert "are taken" in capsys.readouterr().err


def test_a_run_that_was_no_better_before_says_nothing(text, tmp_path, capsys):
    pretrain(text, out=tmp_path / "run", **OPTIONS | {"max_steps": 4}, **SILENT)
    assert main(["generate", str(tmp_path / "run"), "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("checkpoint", "error", "message"),
    [
        ("bset", ConfigError, "checkpoint is 'bset': use best, last, or a number of steps"),
        ("-3", ConfigError, "checkpoint is '-3'"),
        (True, ConfigError, "checkpoint is True"),
        ("7" * 5000, ConfigError, "checkpoint is '7777"),
        (7, CheckpointError, r"the weights after step 7 are not kept: of those saved there are .*24, and last"),
    ],
)
def test_weights_that_are_not_there_are_named(run, checkpoint, error, message):
    with pytest.raises(error, match=message):
        load_run(run.folder, checkpoint)


def test_a_step_that_is_no_name_of_a_file_is_not_the_best(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    row = {"step": 10**300, "epoch": 1, "tokens": 1, "lr": 0.1, "train_loss": 0.1, "val_loss": 0.1}
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(json.dumps(row) + "\n" + log.read_text())
    assert better_weights(tmp_path / "run") is None
    with pytest.raises(CheckpointError, match="are not kept"):
        load_run(tmp_path / "run", "best")


def test_other_weights_are_there_only_once(run, tmp_path, capsys):
    convert(run.folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="out is not a run, and checkpoint is 'best'"):
        load_pretrained(tmp_path / "out", checkpoint="best")
    assert main(["step", "--checkpoint", "best"]) == 2
    assert "--checkpoint is for the weights of a run" in capsys.readouterr().err


@pytest.mark.parametrize("stop_at", [3, 9, 17])
def test_an_interrupted_run_ends_with_the_same_best_weights_to_the_bit(text, tmp_path, stop_at):
    options = OPTIONS | {"save_every": 7}
    pretrain(text, out=tmp_path / "whole", **options, **SILENT)
    with pytest.raises(KeyboardInterrupt):
        pretrain(text, out=tmp_path / "run", loggers=[Weights(stop_at)], **options, **SILENT)
    resume(tmp_path / "run", **SILENT)
    whole, run = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "run")
    )
    assert "best.safetensors" in whole
    for name in [*(name for name in whole if "/" not in name and name != "speed.jsonl"), "step-000024/SHA256SUMS"]:
        assert run[name] == whole[name], name


def test_continuing_from_a_checkpoint_begins_with_its_weights(run, text, tmp_path):
    folder = sorted(run.folder.glob("step-*"))[0]
    more = continue_pretraining(folder, text, out=tmp_path / "more", epochs=1, batch_size=8, lr=1e-4, **SILENT)
    assert more.metrics[0]["val_loss"] == pytest.approx(validation(*load_run(folder)), rel=1e-6)


# ---- stopping


def test_a_run_stops_after_so_many_evaluations_without_progress(text, tmp_path):
    whole = pretrain(text, out=tmp_path / "whole", **OPTIONS, **SILENT)
    losses = [row["val_loss"] for row in whole.metrics]
    end = next(i for i in range(len(losses)) if i - losses.index(min(losses[: i + 1])) == 3)
    lines = []
    run = pretrain(text, out=tmp_path / "run", stop_after=3, report=lines.append, **OPTIONS)
    assert [row["step"] for row in run.metrics] == [row["step"] for row in whole.metrics[: end + 1]]
    assert [row["val_loss"] for row in run.metrics[:-1]] == losses[:end]
    assert run.val_loss == pytest.approx(validation(run.model, run.tokenizer), rel=1e-6)  # on all of it
    step = 2 * end
    assert any(f"for 3 evaluations (stop_after): the run stops after step {step} of 24" in line for line in lines)
    with pytest.raises(ConfigError, match="has ended before its last step, by stop_after 3: to go on"):
        resume(run.folder, **SILENT)
    (run.folder / "model.safetensors").unlink()  # killed before it was written
    assert resume(run.folder, **SILENT).metrics == run.metrics
    assert resume(run.folder, stop_after=0, **SILENT).metrics[-1]["step"] == 24


def test_a_run_that_goes_on_getting_better_is_not_stopped(text, tmp_path):
    assert (
        pretrain(text, out=tmp_path / "run", stop_after=1, **OPTIONS | {"max_steps": 4}, **SILENT).metrics[-1]["step"]
        == 4
    )
    assert not TrainerState().stopped


# ---- how much is written


def test_checkpoints_that_are_large_are_fewer_unless_asked_for(text, tmp_path, monkeypatch):
    lines = []
    pretrain(text, out=tmp_path / "a", **OPTIONS, report=lines.append)
    (line,) = (line for line in lines if line.startswith("Checkpoints: "))
    saved = (tmp_path / "a" / "step-000024").stat()
    n_bytes = sum(
        (tmp_path / "a" / "step-000024" / name).stat().st_size
        for name in ("model.safetensors", "optimizer.safetensors")
    )
    assert saved
    assert "Checkpoints: 12 of " in line
    assert float(line.split(" of ")[1].split(" KiB")[0]) == pytest.approx(n_bytes / 1024, rel=0.2)
    assert "one every 2 steps; the newest 1 stay" in line
    monkeypatch.setattr(loop, "_WRITTEN", 3.5 * n_bytes)
    written = []
    real = loop.save_checkpoint
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda *args, **more: written.append(more["state"].step) or real(*args, **more)
    )
    run = pretrain(text, out=tmp_path / "b", **OPTIONS, report=lines.append)
    assert written == [8, 16, 24]
    assert any("Checkpoints: 3 of " in line and "one every 8 steps" in line for line in lines)
    assert validation(*load_run(run.folder, "best")) == pytest.approx(run.best_val_loss, rel=1e-6)
    written.clear()
    pretrain(text, out=tmp_path / "c", save_every=5, **OPTIONS, **SILENT)
    assert written == [5, 10, 15, 20, 24]


def test_a_run_of_124m_writes_its_2_gb_four_times():
    from tinygrad_llm.models import preset

    n_bytes = 12 * preset("124M", context_length=256).n_parameters()
    most = loop._WRITTEN // n_bytes
    assert (round(n_bytes / 1e9, 1), most) == (1.9, 4)
