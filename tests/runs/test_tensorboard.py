"""Event files: the bytes that TensorBoard's own encoders and record writer make, and what its reader would see."""

import math

import pytest
from event_files import read_folder

from tinygrad_llm.runs.tensorboard import (
    TensorBoard,
    crc32c,
    event,
    has_events,
    markdown,
    message,
    record,
    scalars,
    string,
    varint,
)

# Written by tensorboard 2.21.0: RecordWriter().write(Event(...).SerializeToString()), text by plugins.text.summary_v2.text_pb.
GOLDEN = {
    "file version": "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d",
    "start of a session": "100000000000000095fbfe180900001040fc54d94110ad023a020801cb79b93b",
    "scalars": "3c00000000000000c8b7a3520900002040fc54d94110ac022a2e0a140a0d6c6f73732f747261696e696e6715000020400a160a0f6c6f"
    "73732f76616c69646174696f6e1566664640b3092adb",
    "NaN at a late step": "1c00000000000000c8c1951d0900000040fc54d941108080808080202a0a0a080a0178150000c07fa83b919a",
    "text": "3a000000000000001295eae20900000040fc54d94110072a2d0a2b0a0673616d706c654217080712004211556e61206c69667465640ae28094"
    "20c3a94a080a060a04746578746b678b4c",
    "a long text": "f000000000000000974165aa0900000040fc54d94110072ae2010adf010a017442cf010807120042c801"
    + 100 * "6162"
    + "4a080a060a047465787456923b7f",
}
OURS = {
    "file version": event(1.7e9, 0, string(3, "brain.Event:2")),
    "start of a session": event(1.7e9 + 0.25, 301, message(7, varint(1, 1))),
    "scalars": event(1.7e9 + 0.5, 300, scalars({"loss/training": 2.5, "loss/validation": 3.1})),
    "NaN at a late step": event(1.7e9, 2**40, scalars({"x": math.nan})),
    "text": event(1.7e9, 7, markdown("sample", "Una lifted\n— é")),
    "a long text": event(1.7e9, 7, markdown("t", 100 * "ab")),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_are_those_of_tensorboard(name):
    assert record(OURS[name]).hex() == GOLDEN[name]


@pytest.mark.parametrize(
    ("content", "checksum"),
    [
        (b"123456789", 0xE3069283),  # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_known_checksums(content, checksum):
    assert crc32c(content) == checksum


def log(folder, first, last, salt=0.0):
    logger = TensorBoard()
    logger.start(folder, {"training": {"lr": 0.003, "prompt": "Una"}}, first)
    for step in range(first + 1, last + 1):
        logger.log_step(step, 5 - step / 8 + salt, step / 1024)
        if step % 2 == 0:
            logger.log_evaluation({"step": step, "lr": 0.5, "train_loss": step + salt, "val_loss": 2.0 * step})
    logger.log_sample(last, "Una lifted\n\nthe *lamp*")
    logger.finish()


def test_what_is_logged_is_read_back(tmp_path):
    assert not has_events(tmp_path)
    log(tmp_path, 0, 4)
    assert has_events(tmp_path)
    assert read_folder(tmp_path) == {
        "options": [(0, '    lr: 0.003\n    prompt: "Una"')],
        "loss/batch": [(step, 5 - step / 8) for step in (1, 2, 3, 4)],
        "lr": [(step, step / 1024) for step in (1, 2, 3, 4)],
        "loss/training": [(2, 2.0), (4, 4.0)],
        "loss/validation": [(2, 4.0), (4, 8.0)],
        "sample": [(4, "    Una lifted\n    \n    the *lamp*")],
    }


def test_a_resumed_run_takes_back_what_did_not_happen(tmp_path):
    log(tmp_path, 0, 9)
    log(tmp_path, 4, 7, salt=16.0)  # within the same second
    log(tmp_path, 6, 8, salt=32.0)
    series = read_folder(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    assert [step for step, _ in series["loss/batch"]] == list(range(1, 9))
    assert series["loss/training"] == [(2, 2.0), (4, 4.0), (6, 22.0), (8, 40.0)]
    assert [step for step, _ in series["sample"]] == [8]


def test_a_file_cut_short_in_a_record_does_not_stop_the_next(tmp_path):
    log(tmp_path, 0, 3)
    (first,) = tmp_path.iterdir()
    first.write_bytes(first.read_bytes()[:-9])
    log(tmp_path, 2, 4)
    assert [step for step, _ in read_folder(tmp_path)["lr"]] == [1, 2, 3, 4]


def test_a_new_run_in_the_same_folder_takes_everything_back(tmp_path):
    log(tmp_path, 0, 9)
    log(tmp_path, 0, 1, salt=1.0)
    assert read_folder(tmp_path)["loss/batch"] == [(1, 5 - 1 / 8 + 1)]
    assert "loss/validation" not in {tag for tag, points in read_folder(tmp_path).items() if points}


def test_files_are_read_in_the_order_they_were_written_even_if_the_clock_is_set_back(tmp_path, monkeypatch):
    log(tmp_path, 0, 5)
    monkeypatch.setattr("time.time", lambda: 1e9)
    log(tmp_path, 3, 5, salt=1.0)
    assert read_folder(tmp_path)["loss/batch"][-1] == (5, 5 - 5 / 8 + 1)
