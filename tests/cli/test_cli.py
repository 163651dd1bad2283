import json
import os
import signal
import subprocess
import sys

import pytest

from tinygrad_llm.cli import COMMANDS, build_parser, main

ARGV = "--preset story --epochs 2 --batch-size 4 --context-length 32 --emb-dim 32 --n-heads 2 --n-layers 2 --lr 1e-3"
QUICK = [*ARGV.split(), "--stride", "32", "--seed", "3", "--sample-tokens", "8"]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    sentences = [
        f"Number {n} of the ducks, who was called Duck {n * n % 91}, swam round the {n % 7}th stone.\n"
        for n in range(60)
    ]
    path.write_text("".join(sentences))
    return str(path)


@pytest.fixture(scope="module")
def run(text_file, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("runs") / "tale")
    assert main(["pretrain", text_file, "--out", folder, *QUICK]) == 0
    return folder


def refused(capsys, *argv):
    """Run the command line, check that it is refused as wrong use is, and return the one line it says."""
    try:
        code = main([str(word) for word in argv])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("tokenizer", ["bpe", "char", "word", "wordpiece", "gpt2"])
def test_pretrain_and_generate(text_file, tmp_path, capsys, tokenizer):
    folder = str(tmp_path / "run")
    size = [] if tokenizer != "gpt2" else ["--emb-dim", "4", "--epochs", "1", "--eval-every", "99", "--max-norm", "0"]
    assert main(["pretrain", text_file, "--out", folder, "--tokenizer", tokenizer, *QUICK, *size]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "tokens/s" in out
    assert "validation" in out
    assert f"tinygrad-llm generate {folder} --prompt 'Number 0 of'" in out
    files = {"config.json", "loss.png", "metrics.jsonl", "model.safetensors", "samples.txt", "tokenizer.txt", "latest"}
    assert {name for name in os.listdir(folder) if not name.startswith("step-")} == files | {"speed.jsonl"}

    argv = ["generate", folder, "--prompt", "Duck", "--max-new-tokens", "9", "--temperature", "0.8", "--top-k", "25"]
    assert main([*argv, "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert main([*argv, "--seed", "1"]) == 0
    assert capsys.readouterr().out == first
    assert first.startswith("Duck")
    assert main([*argv, "--seed", "2"]) == 0
    assert capsys.readouterr().out != first


def test_generate_without_a_prompt_takes_that_of_the_samples(run, capsys):
    assert main(["generate", run, "--max-new-tokens", "2", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("Number 0 of")


def test_json_for_scripts(text_file, run, tmp_path, capsys):
    assert main(["pretrain", text_file, "--out", str(tmp_path / "run"), *QUICK, "--json"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["folder"] == str(tmp_path / "run")
    assert summary["best_val_loss"] <= summary["val_loss"]
    assert "training loss" in err
    assert main(["generate", run, "--prompt", "Duck", "--max-new-tokens", "5", "--seed", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert main(["generate", run, "--prompt", "Duck", "--max-new-tokens", "5", "--seed", "1"]) == 0
    assert capsys.readouterr().out == answer["prompt"] + answer["text"] + "\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("pretrian", "unknown command 'pretrian' (did you mean pretrain?)"),
        ("dance", "unknown command 'dance'"),
        ("pretrain --epoch 3", "unknown option '--epoch' (did you mean --epochs?)"),
        ("pretrain --emb_dim=3", "unknown option '--emb_dim' (did you mean --emb-dim?)"),
        ("generate run --tempreature 1", "did you mean --temperature?"),
        ("pretrain --lr abc", "argument --lr: invalid float value: 'abc'"),
        ("pretrain --epochs 1.5", "argument --epochs: invalid int value: '1.5'"),
        ("pretrain --lr", "argument --lr: expected one argument"),
        ("generate", "PATH"),
        ("pretrain --tokenizer words", "tokenizer is 'words'"),
        ("pretrain --tokenizer char --vocab-size 300", "bpe and wordpiece tokenizers only"),
        ("pretrain --epochs 0", "epochs is 0"),
        ("pretrain --seed -1", "seed is -1"),
        ("pretrain no/such/file.txt", "no/such/file.txt"),
        ("pretrain .", ".: not a regular file"),
        ("generate no/such/run", "no/such/run: no run there"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *argv.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--temperature -1", "temperature is -1"),
        ("--temperature nan", "temperature is nan"),
        ("--temperature inf", "temperature is inf"),
        ("--top-k 0", "top_k is 0"),
        ("--max-new-tokens -1", "max_new_tokens is -1"),
        ("--seed -1", "seed is -1"),
        ("--prompt=", "prompt is empty"),
    ],
)
def test_generate_refuses(run, capsys, argv, message):
    capsys.readouterr()
    assert message in refused(capsys, "generate", run, *argv.split())


def test_no_command_shows_the_help_and_fails(capsys):
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert all(name in err for name in COMMANDS)


def test_debug_shows_where_an_error_comes_from():
    from tinygrad_llm.errors import CheckpointError

    for argv in (["--debug", "generate", "nowhere"], ["generate", "nowhere", "--debug"]):
        with pytest.raises(CheckpointError):
            main(argv)


def test_every_option_is_explained():
    parser = build_parser()
    subparsers = next(action for action in parser._actions if action.dest == "command").choices
    assert set(subparsers) == set(COMMANDS)
    nested = next(action for action in subparsers["prefer"]._actions if action.dest == "action").choices
    for name, subparser in [*subparsers.items(), *nested.items()]:
        for action in subparser._actions:
            assert action.help, (name, action.dest)
            if action.option_strings and action.nargs != 0 and action.default not in (None, []):
                assert "default: " in action.help, (name, action.dest)
        assert subparser.format_help()


def start(*argv, **options):
    command = [sys.executable, "-m", "tinygrad_llm", *argv]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def test_module_and_version():
    with start("--version") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("tinygrad-llm ")


@pytest.mark.skipif(os.name == "nt", reason="SIGINT")
def test_ctrl_c_saves_and_exits_with_130(text_file, tmp_path):
    folder = str(tmp_path / "run")
    with start("pretrain", text_file, "--out", folder, *QUICK, "--epochs", "100000", "--eval-every", "5") as process:
        for line in process.stdout:
            if line.split()[:1] == ["step"] and not line.split()[1].startswith("0/"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Interrupted after step" in out
    assert main(["generate", folder, "--max-new-tokens", "3"]) == 0


def test_a_closed_pipe_ends_it_quietly(run):
    with start("generate", run, "--max-new-tokens", "1000000") as process:
        process.stdout.read(20)
        process.stdout.close()
        process.wait(timeout=60)
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_letters_that_the_output_cannot_show_become_question_marks(run):
    with start(
        "generate", run, "--prompt", "Duck 🦆", "--max-new-tokens", "1", env=os.environ | {"PYTHONIOENCODING": "ascii"}
    ) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("Duck ?")


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
@pytest.mark.parametrize("columns", [40, 120])
def test_on_a_terminal_there_is_a_bar_that_fits(text_file, tmp_path, columns):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "tinygrad_llm", "pretrain", text_file, "--out", str(tmp_path / "run"), *QUICK]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(timeout=60) == 0
    bars = [part for part in shown.decode().replace("\n", "\r").split("\r") if "%|" in part]
    assert bars
    assert max(map(len, bars)) <= columns
    if columns == 120:
        assert all(word in bars[-1] for word in ("tokens/s", "loss "))


# ---- generate --explain


def test_the_choice_of_a_token_is_explained_and_is_the_one_that_is_written(run, capsys):
    argv = ["generate", run, "--prompt", "Duck", "--seed", "4", "--top-k", "7", "--repetition-penalty", "1.2"]
    assert main([*argv, "--max-new-tokens", "3", "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["text"]
    assert main([*argv, "--explain", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["prompt"], answer["text"]) == ("Duck", text)
    names = [stage["stage"] for stage in answer["stages"]]
    assert names == ["logits", "repetition_penalty", "temperature", "top_k", "draw"]
    assert answer["stages"][3]["left"] == 7
    draw = answer["stages"][-1]
    assert text.endswith(draw["token"])
    assert draw["from"] <= draw["at"] < draw["to"]
    (p,) = [p for token, p in answer["stages"][3]["probability"] if token == draw["token"]] or [
        draw["to"] - draw["from"]
    ]
    assert p == pytest.approx(draw["to"] - draw["from"])

    assert main([*argv, "--explain", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].rstrip(":") for line in lines[:5]] == names
    assert "7 tokens" in lines[3]
    assert "\n".join(lines[5:]) == "Duck" + text

    assert main(["generate", run, "--prompt", "Duck", "--temperature", "0", "--explain"]) == 0
    assert "greedy: the highest score is that of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--explain", "0"], "--explain is 0: it must be one of the 100 new tokens"),
        (["--explain", "9", "--max-new-tokens", "8"], "--explain is 9: it must be one of the 8"),
        (["--explain", "--show-candidates"], "--explain and --show-candidates together"),
        (["--explain", "50", "--stop", "o", "--stop", "e", "--stop", "u"], "the text ends after"),
    ],
)
def test_explain_refuses(run, capsys, argv, message):
    capsys.readouterr()
    assert message in refused(capsys, "generate", run, "--seed", "1", *argv)
