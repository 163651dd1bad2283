"""What may differ when a run is resumed, what may not, and what is said about it."""

import json
import math
import shutil

import numpy as np
import pytest

from tinygrad_llm import files
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, CorruptCheckpoint, DataError, StorageError
from tinygrad_llm.runs import checkpoint as checkpoints
from tinygrad_llm.training import load_run, loop, pretrain, resume

TEXT = "the cat sat on the mat and the rat sat on the hat; " * 6
OPTIONS = {"tokenizer": "char", "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.1}
OPTIONS |= {"epochs": 3, "batch_size": 6, "stride": 6, "eval_every": 3, "eval_batches": 1, "sample_tokens": 2}
OPTIONS |= {"save_every": 2, "keep": 3}
STEPS = 21


def silent(line): ...


class Enough(Exception):
    """Ends a run in the middle, as an unexpected error would."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A text, a finished run, and one that was cut off after step 11, in its second epoch: its checkpoints are 6, 8 and 10."""
    folder = tmp_path_factory.mktemp("made")
    text = folder / "text.txt"
    text.write_text(TEXT)
    pretrain(text, out=folder / "whole", report=silent, **OPTIONS)
    steps, real = [], loop.train_step

    def until_11(*args, **options):
        steps.append(1)
        if len(steps) > 11:
            raise Enough
        return real(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", until_11)
        with pytest.raises(Enough):
            pretrain(text, out=folder / "cut", report=silent, **OPTIONS)
    return folder


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made / "cut", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def whole(made, tmp_path):
    shutil.copytree(made / "whole", tmp_path / "whole")
    return tmp_path / "whole"


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def steps(folder):
    return sorted(path.name for path in folder.glob("step-*"))


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def refused(error, message, folder, *args, **changes):
    """It is refused with these words, and nothing in the folder has changed."""
    before = everything(folder)
    with pytest.raises(error, match=message) as caught:
        resume(folder, *args, report=silent, **changes)
    assert everything(folder) == before
    return caught.value


def test_in_the_middle_of_an_epoch_it_goes_on_to_the_bit(run, made):
    lines = []
    result = resume(run, report=lines.append)
    assert lines[0] == f"Going on after step 10 of {STEPS}."
    expected, after = everything(made / "whole"), everything(run)
    last = f"step-{STEPS:06}"
    for name in ["model.safetensors", "metrics.jsonl", "samples.txt", f"{last}/optimizer.safetensors", "config.json"]:
        assert after[name] == expected[name], name
    assert result.metrics == rows(made / "whole")


def test_the_command_line_resumes(run, made, capsys):
    assert main(["pretrain", "--resume", str(run)]) == 0
    assert "Going on after step 10" in capsys.readouterr().out
    assert everything(run)["model.safetensors"] == everything(made / "whole")["model.safetensors"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--out", "elsewhere"], "--out is for a new run"),
        (["--emb-dim", "16", "--n-layers", "2"], "emb_dim: 8 there, 16 here; n_layers: 1 there, 2 here"),
        (["--lrr", "3"], "unknown option '--lrr'"),
        (["--epochs", "1"], "epochs is 1: the run is in epoch 2"),
    ],
)
def test_the_command_line_refuses_in_one_line(run, capsys, argv, message):
    before = everything(run)
    try:
        code = main(["pretrain", "--resume", str(run), *argv])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert everything(run) == before


def test_weights_only_needs_a_run(capsys):
    assert main(["pretrain", "--weights-only"]) == 2
    assert "--resume RUN" in capsys.readouterr().err


def test_an_unfinished_run_writes_with_its_newest_checkpoint(run):
    model, _ = load_run(run)
    newest = checkpoints.load_checkpoint(run / "step-000010")
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.data, newest.weights[name])
    (run / "step-000010" / "optimizer.safetensors").unlink()  # not needed for this
    assert load_run(run)[0].tok_emb.weight.data.tolist() == model.tok_emb.weight.data.tolist()
    assert main(["generate", str(run), "--max-new-tokens", "2"]) == 0


def test_another_learning_rate_is_noted_and_followed(run):
    lines = []
    result = resume(run, lr=1e-4, eval_every=1, report=lines.append)
    assert "  lr: 0.003 until now, 0.0001 from here on" in lines
    assert json.loads((run / "config.json").read_text())["changes"] == [
        {"step": 10, "lr": [3e-3, 1e-4], "eval_every": [3, 1]}
    ]
    expected = [0.5e-4 * (1 + math.cos(math.pi * (step - 1) / (STEPS - 1))) for step in range(11, STEPS)]
    assert [row["lr"] for row in result.metrics if 10 < row["step"] < STEPS] == pytest.approx(expected)


def test_what_was_changed_stays_so_when_it_is_killed_again(run, monkeypatch):
    def killed(*args, **options):
        raise Enough

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", killed)
        with pytest.raises(Enough):
            resume(run, weight_decay=0.5, report=silent)
    lines = []
    resume(run, report=lines.append)
    assert not any("until now" in line for line in lines)
    record = checkpoints.read_state(run / f"step-{STEPS:06}")
    assert record["training"]["weight_decay"] == record["optimizer"]["param_groups"][0]["weight_decay"] == 0.5


@pytest.mark.parametrize(("change", "n_batches"), [({"batch_size": 3}, 45 // 3), ({"stride": 3}, 89 // 6)])
def test_other_batches_begin_the_epoch_again(run, change, n_batches):
    result = resume(run, **change, report=silent)
    assert result.metrics[-1]["epoch"] == 3
    assert result.metrics[-1]["step"] == 10 + 2 * n_batches


def test_more_epochs_for_a_finished_run(whole):
    refused(ConfigError, "has finished its 3 epochs", whole)
    refused(ConfigError, "has finished its 3 epochs", whole, lr=1e-4)
    before, lines = rows(whole), []
    result = resume(whole, epochs=5, report=lines.append)
    assert f"Going on after step {STEPS} of 35." in lines
    assert any("the learning rate of the next step is" in line for line in lines)
    assert result.metrics[: len(before)] == before
    assert (result.metrics[-1]["step"], result.metrics[-1]["epoch"]) == (35, 5)
    assert (whole / "model.safetensors").exists()


def test_a_text_that_changed_is_refused_unless_it_is_named(run, made):
    text = made / "text.txt"
    try:
        text.write_text(TEXT.replace("hat", "mat"))
        refused(DataError, r"text\.txt: not the text any more that this run began with", run)
        refused(DataError, r"text\.txt: not the text any more", run, weights_only=True)
        lines = []
        resume(run, text, report=lines.append)
    finally:
        text.write_text(TEXT)
    assert json.loads((run / "config.json").read_text())["changes"] == [
        {"step": 10, "files": [[str(text)], [str(text)]]}
    ]
    assert any(line.startswith("  files: ") for line in lines)


def test_a_text_that_moved_is_the_same_text(run, made, tmp_path):
    refused(DataError, "nowhere.txt", run, tmp_path / "nowhere.txt")
    (tmp_path / "moved.txt").write_text(TEXT)
    resume(run, tmp_path / "moved.txt", report=silent)
    assert (run / "model.safetensors").read_bytes() == (made / "whole" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"emb_dim": 16}, {"n_layers": 2}, {"n_heads": 1}, {"context_length": 4}, {"tokenizer": "bpe"}, {"seed": 5}],
)
def test_another_model_is_refused(run, change):
    error = refused(ConfigMismatch, "a run cannot go on as another one", run, **change)
    (name, value), *_ = change.items()
    assert error.differences == {name: (OPTIONS.get(name, 123), value)}


def test_a_misspelt_option(run):
    refused(ConfigError, "no option 'learning_rat'|no option 'epoch'", run, epoch=3)


def edit_record(folder, **changes):
    """Write other things into trainer_state.json, with the right sum."""
    path = folder / "trainer_state.json"
    old = path.read_bytes()
    path.write_text(json.dumps(json.loads(old) | changes))
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(checkpoints._hash([old]), checkpoints._hash_file(path)))


def test_files_of_different_runs_are_refused_with_their_differences(run):
    edit_record(run / "step-000010", dtype="float64")
    assert refused(ConfigMismatch, "dtype: float64 there, float32 here", run).differences == {
        "dtype": ("float64", "float32")
    }
    edit_record(run / "step-000010", dtype="float32")
    config = json.loads((run / "config.json").read_text())
    edit_record(run / "step-000010", model=config["model"] | {"n_layers": 7})
    refused(ConfigMismatch, "n_layers: 7 there, 1 here", run)
    edit_record(run / "step-000010", model=config["model"], tokenizer="0" * 64)
    refused(ConfigMismatch, r"tokenizer\.txt: 0000", run)


def test_a_newer_format_is_refused_even_where_an_older_checkpoint_is_there(run):
    edit_record(run / "step-000010", format=3)
    refused(CheckpointError, "written by format 3, this reads up to 1", run)


def test_a_damaged_checkpoint_gives_way_and_the_bits_are_the_same(run, made):
    path = run / "step-000010" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    lines = []
    resume(run, report=lines.append)
    assert "model.safetensors: damaged" in lines[0]
    assert "step-000008 is used instead" in lines[0]
    assert (run / "model.safetensors").read_bytes() == (made / "whole" / "model.safetensors").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (made / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["optimizer.safetensors", "trainer_state.json", "SHA256SUMS"])
def test_without_a_file_only_a_new_run_from_the_weights(run, name):
    for folder in run.glob("step-*"):
        (folder / name).unlink()
    refused(CorruptCheckpoint, f"{name}: missing", run)
    weights = checkpoints.read_arrays(run / "step-000010" / "model.safetensors")
    lines = []
    result = resume(run, weights_only=True, lr=1e-9, weight_decay=0.0, epochs=1, report=lines.append)
    assert f"The run that was in {run} is now in {run}.1." in lines
    assert (result.metrics[0]["step"], result.metrics[-1]["step"]) == (0, 7)
    for key, parameter in result.model.named_parameters():
        np.testing.assert_allclose(parameter.data, weights[key], atol=1e-7)
    assert steps(run.with_name("run.1")) == ["step-000006", "step-000008", "step-000010"]


def test_a_finished_run_without_checkpoints_has_weights_only(whole):
    for folder in whole.glob("step-*"):
        shutil.rmtree(folder)
    refused(CheckpointError, "no checkpoint there, only weights: weights_only", whole, epochs=5)
    assert resume(whole, weights_only=True, report=silent).metrics[-1]["step"] == STEPS


def test_killed_before_its_first_checkpoint_it_begins_again(run, made):
    for folder in run.glob("step-*"):
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="no weights there"):
        resume(run, weights_only=True, report=silent)
    resume(run, report=silent)
    ended, whole = everything(run), everything(made / "whole")
    assert ended.pop("speed.jsonl") != b""
    assert whole.pop("speed.jsonl") != b""  # what the clock said is another each time
    assert ended == whole


def test_two_in_one_folder(run):
    with files.lock(run):
        refused(StorageError, "another process is training in this folder", run)
        with pytest.raises(StorageError, match="another process is training"):
            pretrain(out=run, report=silent)


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.txt"])
def test_a_log_that_was_cut(run, name):
    (run / name).write_bytes((run / name).read_bytes()[:5])
    refused(CheckpointError, name, run)


def test_no_run_there(tmp_path):
    with pytest.raises(CheckpointError, match="no run there"):
        resume(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_cut(run, monkeypatch):
    def read_only(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "open", read_only, raising=False)
    refused(StorageError, "Read-only file system", run)


@pytest.mark.parametrize("out", ["x" * 256, "a/" + "x" * 300, "file", "file/below", "/proc/no/such"])
def test_an_output_that_cannot_be_is_one_error_before_training(tmp_path, monkeypatch, out, made):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError) as caught:
        pretrain(made / "text.txt", out=out, report=silent, **OPTIONS)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == ""
    assert not list(tmp_path.rglob("config.json"))


def test_a_run_beside_the_caller_needs_no_parent(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    pretrain(made / "text.txt", out="run", report=silent, **OPTIONS | {"epochs": 1})
    pretrain(made / "text.txt", out="run", report=silent, **OPTIONS | {"epochs": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1"]


def test_a_full_disk_in_the_middle_leaves_the_last_checkpoint(tmp_path, monkeypatch, made):
    real, n = files.os.fsync, []

    def full(descriptor):
        n.append(1)
        if len(n) > 60:
            raise OSError(28, "No space left on device")
        return real(descriptor)

    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            pretrain(made / "text.txt", out=tmp_path / "run", report=lines.append, **OPTIONS)
    assert "is whole; to go on from there: tinygrad-llm pretrain --resume" in lines[-1]
    resume(tmp_path / "run", report=silent)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (made / "whole" / "model.safetensors").read_bytes()
