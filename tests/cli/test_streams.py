"""Standard streams that are closed, full, or read by nobody: one line or none, an exit code, and no training is lost."""

import os
import subprocess
import sys

import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import COMMANDS, main
from tinygrad_llm.runs.folder import METRICS_FILE

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")

TINY = "--tokenizer char --context-length 8 --emb-dim 8 --n-heads 2 --n-layers 1 --sample-tokens 4 --epochs 2 --eval-every 5"
FULL = "tinygrad-llm: standard output cannot be written: No space left on device\n"
LOST = "tinygrad-llm pretrain: warning: what the run says can no longer be written ({}): training goes on, and"
SHELL = {
    "closed": '"$@" >&-',
    "full": '"$@" >/dev/full',
    "both closed": '"$@" >&- 2>&-',
    "errors full": '"$@" 2>/dev/full',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a text, a prompt and a run."""
    path = tmp_path_factory.mktemp("streams")
    (path / "the.jsonl").write_text('{"prompt": "the"}\n')
    (path / "text.txt").write_text("the cat sat on the mat; " * 20)
    pretraining(path, "run", stdout=subprocess.PIPE)
    return path


def command_line(*argv):
    return [sys.executable, "-m", "tinygrad_llm", *map(str, argv)]


def pretraining(folder, name, *options, shell='"$@"', **streams):
    command = command_line("pretrain", "text.txt", "--out", name, *TINY.split(), *options)
    return subprocess.run(
        ["sh", "-c", shell, "sh", *command], cwd=folder, text=True, timeout=120, check=False, **streams
    )


def is_whole(run):
    """Trained to the end, as with all streams in order."""
    return tg.runs.load_run(run) and (run / METRICS_FILE).read_text() == (run.parent / "run" / METRICS_FILE).read_text()


ARGUMENTS = {
    "pretrain": ["--help"],
    "generate": ["run", "--prompt", "the"],
    "evaluate": ["run"],
    "tokenize": ["--run", "run", "--file", "text.txt"],
    "estimate": ["--preset", "story"],
    "bench": ["nano", "--steps", "1", "--threads", "1"],
    "doctor": ["run"],
    "runs": ["run"],
    "step": ["run", "--prompt", "the"],
    "report": ["run", "--prompt", "the"],
    "convert": ["run", "converted"],
    "inspect": ["run"],
    "lora": ["info", "run"],
    "classify": ["--help"],
    "translate": ["--help"],
    "predict": ["--help"],
    "embed": ["--help"],
    "instruct": ["--dry-run", "--examples", "20"],
    "prefer best-of-n": ["run", "--prompts", "the.jsonl", "--reward", "reviews", "--n", "2", "--template", "bare"],
    "prefer compare": ["run", "run", "--prompts", "the.jsonl", "--by", "reviews", "--template", "bare", "--json"],
    "prefer dpo": ["--help"],
    "prefer": ["label", "run", "--prompts", "the.jsonl", "--out", "pairs.jsonl", "--template", "bare"],
    "chat": ["run", "-p", "the", "--template", "bare", "--max-new-tokens", "3"],
}


def finish(argv):
    """Run a command here; argparse leaves by SystemExit."""
    try:
        return main(argv)
    except SystemExit as left:
        return left.code


def test_every_command_is_here():
    assert set(COMMANDS) <= set(ARGUMENTS)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_full_output_is_said_in_one_line(folder, monkeypatch, capsys, command):
    monkeypatch.chdir(folder)
    with open("/dev/full", "w") as full, open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stdin", nothing)
        assert finish([*command.split(), *ARGUMENTS[command]]) == 2
    assert capsys.readouterr().err == FULL


@pytest.mark.parametrize("command", [command for command in ARGUMENTS if command not in ("bench", "doctor")])
def test_closed_streams_are_not_missed(folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    arguments = [word.replace("converted", "again") for word in ARGUMENTS[command]]
    assert finish([*command.split(), *arguments]) == 0
    assert finish([*command.split(), "--no-such-option"]) == 2


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["runs", "run"], ["generate", "run"], ["inspect", "run"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_reads_only_the_beginning_sees_no_complaint(folder, words, unbuffered):
    with subprocess.Popen(
        command_line(*words),
        cwd=folder,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize(("how", "code", "said"), [("closed", 0, ""), ("both closed", 0, ""), ("errors full", 0, "")])
def test_a_run_trains_whatever_is_closed(folder, how, code, said):
    done = pretraining(folder, how, shell=SHELL[how], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (code, said)
    assert is_whole(folder / how)


def test_a_run_trains_though_its_output_is_full_and_says_so_once(folder):
    done = pretraining(folder, "full", shell=SHELL["full"], stderr=subprocess.PIPE)
    assert done.returncode == 2
    warning, line = done.stderr.splitlines()
    assert warning.startswith(LOST.format("No space left on device"))
    assert line + "\n" == FULL
    assert is_whole(folder / "full")


def test_a_run_trains_though_nobody_reads_any_more(folder):
    done = pretraining(folder, "head", shell='{ "$@"; echo "code $?" >&2; } | head -n 1', capture_output=True)
    assert done.stdout.startswith("Text: ")
    warning, code = done.stderr.splitlines()
    assert warning.startswith(LOST.format("Broken pipe"))
    assert code == "code 141"
    assert is_whole(folder / "head")


def test_json_is_printed_though_the_record_cannot_be(folder):
    done = pretraining(folder, "json", "--json", shell=SHELL["errors full"], stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert done.stdout.startswith('{"folder": "json"')
    assert done.stdout.count("\n") == 1


def test_a_run_trains_though_its_terminal_is_gone(folder):
    import pty

    ours, theirs = pty.openpty()
    command = command_line("pretrain", "text.txt", "--out", "terminal", *TINY.split())
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 5) == b"Text:"
    os.close(ours)
    assert process.wait(timeout=120) == 2
    assert is_whole(folder / "terminal")
