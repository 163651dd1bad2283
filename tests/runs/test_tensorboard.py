"""Event files: the bytes that TensorBoard's own encoders and record writer make, and what its reader would see."""

import math
import sys

import pytest
from event_files import read_folder

from tinygrad_llm.cli import main
from tinygrad_llm.errors import MissingPackage
from tinygrad_llm.runs.tensorboard import TensorBoard, has_events

# Written by tensorboard 2.21.0: RecordWriter().write(Event(...).SerializeToString()), text by plugins.text.summary_v2.text_pb.
GOLDEN = {
    "file version": "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d",
    "start of a session": "100000000000000095fbfe180900001040fc54d94110ad023a020801cb79b93b",
    "options": "4a00000000000000af77dbb00900002040fc54d94110ac022a3c0a3a0a076f7074696f6e73422508071200421f202020206c"
    "723a20302e3030330a2020202070726f6d70743a2022556e61224a080a060a0474657874d043e8cc",
    "NaN at a late step": "300000000000000095f5d05f0900003040fc54d941108080808080202a1e0a110a0a6c6f73732f6261746368150000c07f0a"
    "090a026c72150000003f7bf6cbec",
    "scalars": "3c00000000000000c8b7a3520900004040fc54d94110ac022a2e0a140a0d6c6f73732f747261696e696e6715000020400a16"
    "0a0f6c6f73732f76616c69646174696f6e15666646404461a883",
    "sample": "420000000000000079f36eaa0900005040fc54d94110072a350a330a0673616d706c65421f08071200421920202020556e61"
    "206c69667465640a20202020e2809420c3a94a080a060a0474657874169bddba",
    "a long sample": "f900000000000000892b9b960900006040fc54d94110082aeb010ae8010a0673616d706c6542d3010807120042cc01202020"
    "20" + 100 * "6162" + "4a080a060a047465787447fdbace",
}


def test_the_bytes_are_those_of_tensorboard(tmp_path, monkeypatch):
    times = iter([1.7e9, *(1.7e9 + i / 4 for i in range(len(GOLDEN)))])  # the first is for the name of the file
    logger = TensorBoard()
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: next(times))
        logger.start(tmp_path, {"training": {"lr": 0.003, "prompt": "Una"}}, 300)
        logger.log_step(2**40, math.nan, 0.5)
        logger.log_evaluation({"step": 300, "train_loss": 2.5, "val_loss": 3.1})
        logger.log_sample(7, "Una lifted\n— é")
        logger.log_sample(8, 100 * "ab")
    (path,) = tmp_path.iterdir()
    assert path.name == "events.out.tfevents.1700000000.tinygrad_llm"
    assert path.read_bytes().hex() == "".join(GOLDEN.values())


def test_without_tensorboardx_nothing_is_begun_and_the_remedy_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # which makes its import fail
    monkeypatch.setitem(sys.modules, "tensorboardX.proto.event_pb2", None)
    with pytest.raises(
        MissingPackage, match=r"tensorboardX is not installed: pip install tensorboardX, or the extra \[tens"
    ):
        TensorBoard()
    assert main(["pretrain", "--tensorboard", "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tinygrad-llm pretrain: TensorBoard: tensorboardX is not installed")
    assert not list(tmp_path.iterdir())


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
