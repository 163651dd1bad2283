"""Checkpoints on a disk that fails, fills up, flips bits and loses files."""

import errno
import hashlib
import json
import os
import random
import shutil
from dataclasses import asdict
from unittest.mock import MagicMock

import numpy as np
import pytest
from safetensors.numpy import load_file

import tinygrad_llm as tg
from tinygrad_llm import files
from tinygrad_llm.errors import CheckpointError, CorruptCheckpoint, DTypeError, StorageError
from tinygrad_llm.formats.safetensors import encode_arrays, read_arrays
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import AdamW, CosineSchedule
from tinygrad_llm.runs import checkpoint
from tinygrad_llm.runs.checkpoint import (
    TrainerState,
    check_room,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)

STRIDE = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 4  # from one flipped byte to the next


def contents(seed):
    """What a checkpoint is made of: a tiny model, an optimizer that has taken a step, and whatever else."""
    tg.manual_seed(seed)
    model = GPTModel(GPTConfig(5, 4, 4, 2, 1))
    optimizer = AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = np.full_like(parameter.data, seed + 1)
    optimizer.step()
    weights = {name: parameter.data for name, parameter in model.named_parameters()}
    about = {
        "model": model.config.to_dict(),
        "training": {},
        "schedule": asdict(CosineSchedule(0.1, 9)),
        "data": {},
        "tokenizer": "",
        "dtype": "float32",
    }
    return {"weights": weights, "optimizer": optimizer.state_dict(), "about": about}


def save(run, step, keep=2, val_loss=None, **changes):
    made = contents(step) | changes
    rng = tg.rng.get_generator().get_state()
    at = {"step": step, "epoch": 1, "epoch_batches": step, "batch": step, "tokens": step}
    state = TrainerState(**at, val_loss=val_loss, epoch_rng=rng, rng=rng)
    return save_checkpoint(run, keep, state, **made)


def everything(run):
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def names(run):
    return sorted(path.name for path in run.iterdir())


def test_what_is_written_is_read_to_the_bit(tmp_path):
    folder, written = save(tmp_path, 7, val_loss=1.25), contents(7)
    verify_checkpoint(folder)
    read = load_checkpoint(folder)
    assert (read.state.step, read.state.val_loss) == (7, 1.25)
    assert read.state.rng == tg.rng.get_generator().get_state()
    assert read.about["model"] == written["about"]["model"]
    for name, array in written["weights"].items():
        np.testing.assert_array_equal(read.weights[name], array, strict=True)
    moments = written["optimizer"]["moments"]
    assert read.optimizer["moments"].keys() == moments.keys()
    for name, array in moments.items():
        np.testing.assert_array_equal(read.optimizer["moments"][name], array, strict=True)
    assert read.optimizer["steps"] == written["optimizer"]["steps"]
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1]: line.split("  ")[0] for line in lines} == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "optimizer.safetensors", "trainer_state.json")
    }
    assert (tmp_path / "latest").read_text() == "step-000007\n"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(5, dtype=">f4"),
        np.arange(10, dtype=np.int64)[::3],
        np.float64(3.5) * np.ones(()),
        np.ones((0, 5), np.float32),
    ],
    ids=["transposed", "Fortran", "big-endian", "strided", "0-d", "empty"],
)
def test_the_library_reads_what_we_write(tmp_path, array):
    path = tmp_path / "a.safetensors"
    files.write_file(path, encode_arrays({"first": np.ones(3, np.float32), 'a "name"\n': array}))
    for read in (load_file(path), read_arrays(path)):
        np.testing.assert_array_equal(read['a "name"\n'], array)
        assert read['a "name"\n'].dtype == array.dtype.newbyteorder("=")


def test_only_numbers_of_the_package_are_written():
    with pytest.raises(DTypeError, match="x is float16"):
        encode_arrays({"x": np.ones(3, np.float16)})


class FailingDisk:
    """Counts writes, flushes, renames and the like; the `k`-th raises."""

    def __init__(self, monkeypatch, k=None, code=errno.ENOSPC):
        self.n, self.k, self.code = 0, k, code
        for name in ("fsync", "rename", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))
        monkeypatch.setattr(files, "open", self.open, raising=False)

    def step(self):
        self.n += 1
        if self.n == self.k:
            raise OSError(self.code, os.strerror(self.code))

    def failing(self, function):
        def call(*args, **options):
            self.step()
            return function(*args, **options)

        return call

    def open(self, *args):
        self.step()
        file = open(*args)  # noqa: SIM115
        failing = MagicMock(wraps=file)
        failing.write, failing.flush = self.failing(file.write), self.failing(file.flush)
        failing.__enter__.return_value = failing
        failing.__exit__.side_effect = lambda *error: file.close()
        return failing


@pytest.mark.parametrize("step", [2, 1], ids=["another step", "the same step again"])
def test_a_disk_that_fails_at_any_point_leaves_the_last_checkpoint(tmp_path, monkeypatch, step):
    save(tmp_path, 1)
    before = everything(tmp_path)
    with monkeypatch.context() as patch:
        disk = FailingDisk(patch)
        save(tmp_path, step)
    assert disk.n > 25
    for k in range(1, disk.n + 1):
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        save(tmp_path, 1)
        code = (errno.ENOSPC, errno.EIO, errno.EROFS)[k % 3]
        with monkeypatch.context() as patch:
            FailingDisk(patch, k, code)
            with pytest.raises(StorageError, match=os.strerror(code)) as caught:
                save(tmp_path, step)
        assert caught.value.errno == code
        assert isinstance(caught.value, OSError)
        after = everything(tmp_path)
        if step != 1:  # what was there is there as it was, but `latest`, which may be done
            assert {name: data for name, data in after.items() if name in before and name != "latest"} == {
                name: data for name, data in before.items() if name != "latest"
            }
        assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
        assert newest_checkpoint(tmp_path, verify_checkpoint) is not None


def test_a_full_disk_is_said_with_the_bytes_needed(tmp_path, monkeypatch):
    FailingDisk(monkeypatch, 4)
    with pytest.raises(
        StorageError,
        match=r"step-000001: cannot be written: No space left .*\(\d[\d.]+ KiB are needed, \d[\d,.]+ [GT]iB are free",
    ):
        save(tmp_path, 1)


def test_too_little_room_is_found_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    lines = []
    for free, outcome in [(15_999, StorageError), (16_000, 1), (51_999, 1), (52_000, 0)]:
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        lines.clear()
        if outcome is StorageError:
            with pytest.raises(StorageError, match=r"take 15\.62 KiB, 15\.62 KiB are free"):
                check_room(tmp_path / "new" / "run", 1000, 2, lines.append)
        else:
            check_room(tmp_path / "new" / "run", 1000, 2, lines.append)
            assert len(lines) == outcome
    assert names(tmp_path) == []


def test_every_flipped_bit_is_noticed_and_its_file_named(tmp_path):
    folder = save(tmp_path, 3)
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        for i in range(rng.randrange(STRIDE), len(data), STRIDE):
            bad = bytearray(data)
            bad[i] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            with pytest.raises(CorruptCheckpoint, match=path.name):
                verify_checkpoint(folder)
        path.write_bytes(data)
    verify_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "SHA256SUMS"])
def test_a_file_that_is_missing_cut_or_longer_is_named(tmp_path, name):
    folder = save(tmp_path, 3)
    path, data = folder / name, (folder / name).read_bytes()
    for bad in (data[:-1], data + b"\n", b"", data[: len(data) // 2]):
        path.write_bytes(bad)
        with pytest.raises(CorruptCheckpoint, match=name):
            verify_checkpoint(folder)
    path.unlink()
    with pytest.raises(CorruptCheckpoint, match=f"{name}: missing"):
        verify_checkpoint(folder)


def test_a_damaged_checkpoint_gives_way_to_the_newest_whole_one(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    lines = []
    shutil.rmtree(tmp_path / "step-000003")
    assert newest_checkpoint(tmp_path, verify_checkpoint, lines.append) == tmp_path / "step-000002"
    assert "latest names 'step-000003', which is not there: step-000002 is used instead" in lines.pop()
    (tmp_path / "step-000002" / "optimizer.safetensors").unlink()
    assert newest_checkpoint(tmp_path, verify_checkpoint, lines.append) == tmp_path / "step-000001"
    assert len(lines) == 2
    assert "optimizer.safetensors: missing: step-000001 is used instead" in lines[1]
    (tmp_path / "step-000001" / "SHA256SUMS").unlink()
    with pytest.raises(CorruptCheckpoint, match=r"optimizer\.safetensors: missing.*SHA256SUMS: missing"):
        newest_checkpoint(tmp_path, verify_checkpoint)
    assert newest_checkpoint(tmp_path / "step-000001", verify_checkpoint) is None


@pytest.mark.parametrize("text", ["", "../../etc", "step-1", "\x00", "step-000002/../step-000001", "no\n" * 5])
def test_a_damaged_latest_is_no_way_out_of_the_run(tmp_path, text):
    save(tmp_path, 1, keep=2)
    save(tmp_path, 2, keep=2)
    (tmp_path / "latest").write_text(text)
    assert newest_checkpoint(tmp_path, verify_checkpoint) == tmp_path / "step-000002"


def test_latest_is_believed(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "latest").write_text("step-000001\n")
    assert newest_checkpoint(tmp_path, verify_checkpoint) == tmp_path / "step-000001"


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    folder = save(tmp_path, 1)
    monkeypatch.undo()
    verify_checkpoint(folder)
    with pytest.raises(CheckpointError, match="written by format 3, this reads up to 1"):
        load_checkpoint(folder)


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    losses = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.0, 50: 4.0, 60: 5.0}
    for step, loss in losses.items():
        save(tmp_path, step, val_loss=loss)
    assert names(tmp_path) == ["latest", "step-000020", "step-000050", "step-000060"]
    save(tmp_path, 70, keep=1, val_loss=1.0)
    assert names(tmp_path) == ["latest", "step-000070"]


def test_what_was_given_up_goes_with_the_next_checkpoint(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    save(tmp_path, 2, keep=3)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-000002", "step-000001"]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    dead = os.fork() if hasattr(os, "fork") else 0
    if hasattr(os, "fork") and not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    for process in (dead, os.getppid(), 99**9):
        (tmp_path / f".step-000004.{process}.tmp").mkdir()
        (tmp_path / f".step-000004.{process}.tmp" / "model.safetensors").write_text("half")
        (tmp_path / f".latest.{process}.tmp").write_text("half")
    (tmp_path / ".mine.tmp").write_text("")
    files.remove_stale(tmp_path)
    assert names(tmp_path) == sorted([".mine.tmp", f".latest.{os.getppid()}.tmp", f".step-000004.{os.getppid()}.tmp"])


def test_a_lock_is_for_one_and_for_as_long_as_it_is_held(tmp_path):
    expected = pytest.raises(StorageError, match="another process is training in this folder")
    with files.lock(tmp_path), expected, files.lock(tmp_path):
        pass
    with files.lock(tmp_path):
        pass


def test_a_log_shorter_than_the_checkpoint_knows(tmp_path):
    (tmp_path / "log").write_bytes(b"123")
    with pytest.raises(CheckpointError, match="has 3 bytes, it had 5"):
        files.truncate({tmp_path / "log": 5})
    with pytest.raises(CheckpointError, match="has 0 bytes"):
        files.truncate({tmp_path / "log": 1, tmp_path / "other": 1})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"log": b"123"}
    files.truncate({tmp_path / "log": 2, tmp_path / "other": 0})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"log": b"12", "other": b""}


def test_trainer_state_is_plain_json(tmp_path):
    record = json.loads((save(tmp_path, 3) / "trainer_state.json").read_text())
    assert record["format"] == 1
    assert record["state"]["step"] == 3
    assert set(record["versions"]) == {"tinygrad_llm", "numpy", "python"}
