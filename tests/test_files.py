"""What is written is written to files of one's own, and lasts."""

import json
import os
from pathlib import Path

import pytest

from tinygrad_llm import files
from tinygrad_llm.errors import StorageError, UnsafeFile
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.runs.folder import new_run
from tinygrad_llm.text import BPETokenizer, CharTokenizer
from tinygrad_llm.weights import save_pretrained

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="POSIX links, pipes and folders that are flushed"),
    pytest.mark.usefixtures("alarm"),
]


class Disk:
    """Knows the files and folders that were flushed, and in what order names were given."""

    def __init__(self, monkeypatch):
        self.flushed, fsync = [], os.fsync
        for name in ("rename", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self.naming(getattr(os, name)))

        def flush(descriptor):
            self.flushed.append(os.fstat(descriptor).st_ino)
            return fsync(descriptor)

        monkeypatch.setattr(os, "fsync", flush)
        self.named = {}  # what got a name -> how much had been flushed by then

    def naming(self, function):
        def call(*names, **options):
            done = function(*names, **options)
            self.named[os.stat(names[-1] if function.__name__ != "mkdir" else names[0]).st_ino] = len(self.flushed)
            return done

        return call

    def lasts(self, path):
        """It was flushed before it got its name, and its name after."""
        inode, around = path.stat().st_ino, path.parent.stat().st_ino
        if path.is_file():
            assert inode in self.flushed[: self.named.get(inode, len(self.flushed))], path
        assert around in self.flushed[self.named.get(inode, 0) :], path


def test_a_new_run_lasts_with_its_tokenizer_and_the_folders_around_it(tmp_path, monkeypatch):
    disk, run = Disk(monkeypatch), tmp_path / "a" / "b" / "run"
    with new_run(run, {"model": {}, "training": {}}, CharTokenizer.train("abc")):
        pass
    assert {path.name for path in run.iterdir()} == {"config.json", "metrics.jsonl", "samples.txt", "tokenizer.txt"}
    for path in (*run.iterdir(), run, run.parent, run.parent.parent):
        disk.lasts(path)


def test_the_place_of_a_run_that_was_kept_lasts(tmp_path, monkeypatch):
    def begin():
        with new_run(tmp_path / "run", {"model": {}, "training": {}}, CharTokenizer.train("abc")):
            (tmp_path / "run" / "model.safetensors").write_bytes(b"")

    begin()
    disk = Disk(monkeypatch)
    begin()
    disk.lasts(tmp_path / "run")
    disk.lasts(tmp_path / "run.1")


def test_an_export_lasts_with_its_tokenizer(tmp_path, monkeypatch):
    tokenizer = BPETokenizer.train("the cat and the hat", 262)
    disk, folder = Disk(monkeypatch), tmp_path / "new" / "export"
    save_pretrained(GPTModel(GPTConfig(tokenizer.vocab_size, 8, 8, 2, 1)), folder, tokenizer)
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.iterdir():
        assert path.stat().st_ino in disk.flushed, path
    disk.lasts(folder)
    disk.lasts(folder.parent)
    assert json.loads((folder / "vocab.json").read_text())


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir(mode=0o700)
    files.make_folder(tmp_path / "a")
    files.make_folder(Path(os.path.relpath(tmp_path / "a" / "b" / "c")))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "c").is_dir()


# ---- what is appended to


def test_a_pipe_that_somebody_reads_is_not_written_to(tmp_path):
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(UnsafeFile, match="log: is a device or pipe"):
            files.append(tmp_path / "log", "line")
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("name", "error"), [("link", StorageError), ("second name", UnsafeFile), ("pipe", StorageError)]
)
def test_what_is_exchanged_after_it_was_looked_at_is_not_written_to(tmp_path, monkeypatch, name, error):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to("mine")
    (tmp_path / "second name").hardlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "pipe")

    def nothing_there(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(files.os, "lstat", nothing_there)
    with pytest.raises(error, match=name):
        files.append(tmp_path / name, "line")
    with pytest.raises(error, match=name):
        files.sync_file(tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_log_is_made_and_gone_on_with(tmp_path):
    files.append(tmp_path / "log", "one\n")
    files.append(tmp_path / "log", b"two\n")
    files.sync_file(tmp_path / "log")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
