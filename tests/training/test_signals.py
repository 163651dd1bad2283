"""SIGINT, SIGTERM and a lack of memory, in processes of their own."""

import os
import signal
import subprocess
import sys

import pytest

from tinygrad_llm.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and limits")

TEXT = "the cat sat on the mat and the rat sat on the hat; " * 8
SMALL = {"tokenizer": "char", "context-length": 8, "emb-dim": 8, "n-heads": 2, "n-layers": 1, "stride": 1}
SMALL |= {"sample-tokens": 1, "epochs": 10_000, "eval-every": 3}
SMALL = [f"--{name}={value}" for name, value in SMALL.items()]

IN_A_TERMINAL = """
import signal, sys
from tinygrad_llm.cli import main
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which these tests may have been told to ignore
sys.exit(main(sys.argv[1:]))
"""
SLOW_DISK = """
import os, sys, time
from tinygrad_llm.cli import main
real, saving = os.fsync, []
def fsync(descriptor):
    if "step-" in os.readlink(f"/proc/self/fd/{descriptor}") and not saving:
        saving.append(1)
        print("saving", flush=True)
        for _ in range(TENTHS):  # in one long sleep, a signal that came just before it would wait for its end
            time.sleep(0.1)
    return real(descriptor)
os.fsync = fsync
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return str(tmp_path / "text.txt")


def start(*argv, program=None):
    command = [sys.executable, *(["-m", "tinygrad_llm"] if program is None else ["-c", program]), *argv]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(process, beginning):
    for line in process.stdout:
        if " ".join(line.split()).startswith(beginning):
            return
    raise AssertionError(process.stderr.read())


def whole(run):
    """The run's newest checkpoint loads, nothing half-written is there, and it goes on."""
    assert not list(run.glob(".*.tmp"))
    newest = (run / "latest").read_text().strip()
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=run / newest, check=False)
    assert sums.returncode == 0
    assert main(["pretrain", "--resume", str(run), "--epochs", "1", "--eval-every", "1000"]) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_a_step_saves_and_says_how_to_go_on(text, tmp_path, number, code):
    run = tmp_path / "run"
    with start("pretrain", text, "--out", str(run), *SMALL, program=IN_A_TERMINAL) as process:
        wait_for(process, "step 3/")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert f"to go on: tinygrad-llm pretrain --resume {run}" in out
    whole(run)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_save_waits_for_it(text, tmp_path, number, code):
    run, program = tmp_path / "run", SLOW_DISK.replace("TENTHS", "5")
    with start("pretrain", text, "--out", str(run), *SMALL, program=program) as process:
        wait_for(process, "saving")
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert out.count("Interrupted after step 3 ") == out.count("Interrupted") == 1
    assert (run / "latest").read_text() == "step-000003\n"
    whole(run)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_a_second_signal_quits_at_once_and_leaves_nothing_half_written(text, tmp_path):
    run, program = tmp_path / "run", SLOW_DISK.replace("TENTHS", "1200")
    with start("pretrain", text, "--out", str(run), *SMALL, program=program) as process:
        wait_for(process, "saving")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # of two of a kind, a process that sleeps may see one
        _, err = process.communicate(timeout=60)  # the save would take longer
    assert (process.returncode, err) == (130, "")
    assert not list(run.glob("step-*"))
    assert not list(run.glob(".*.tmp"))
    assert main(["pretrain", "--resume", str(run), "--epochs", "1", "--eval-every", "1000"]) == 0


LITTLE_MEMORY = """
import resource, sys
from tinygrad_llm.cli import main
from tinygrad_llm.training import loop
real, steps = loop.train_step, []
def train_step(model, optimizer, ids, targets, **options):
    steps.append(1)
    if len(steps) == 5:  # the first array of this step, the embeddings, is larger than the room that is left:
        # NumPy says so in a MemoryError, where a lack that BLAS meets first ends the process
        ids, targets = ids.repeat(250_000, axis=0), targets.repeat(250_000, axis=0)
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**24, resource.RLIM_INFINITY))
    return real(model, optimizer, ids, targets, **options)
loop.train_step = train_step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_a_lack_of_memory_is_one_line_and_the_last_checkpoint_is_whole(text, tmp_path):
    run = tmp_path / "run"
    with start("pretrain", text, "--out", str(run), *SMALL, program=LITTLE_MEMORY) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert err.count("\n") == 1
    assert "out of memory: training" in err
    assert "use a smaller batch_size" in err
    assert f"step-000003 is whole; to go on from there: tinygrad-llm pretrain --resume {run}" in out
    whole(run)
