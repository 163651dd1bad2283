import json
import shutil

import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.files import lock

FLAGS = (
    "--context-length 16 --emb-dim 8 --n-heads 2 --n-layers 1 --stride 32 --epochs 2 --eval-every 9 --vocab-size 290"
)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """runs/high and runs/low, which differ in their learning rate."""
    folder = tmp_path_factory.mktemp("work") / "runs"
    for name, lr in {"high": "2e-2", "low": "1e-4"}.items():
        assert main(["pretrain", "--out", str(folder / name), "--lr", lr, *FLAGS.split()]) == 0
    return folder


@pytest.fixture
def runs(two_runs, tmp_path, monkeypatch, capsys):
    shutil.copytree(two_runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path / "runs"


def listed(capsys, *argv):
    assert main(["runs", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_are_listed_with_what_differs(runs, capsys):
    assert main(["runs"]) == 0
    header, high, high_options, low, low_options = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in (runs / "high" / "metrics.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["val_loss"])
    assert header.split() == ["run", "parameters", "steps", "tokens", "lowest", "val", "last", "val", "state"]
    for word in (
        "high",
        f"{rows[-1]['step']} of {rows[-1]['step']}",
        f"{rows[-1]['tokens']:,}",
        f"{best['val_loss']:.3f} at {best['step']}",
        f"{rows[-1]['val_loss']:.3f}",
        "finished",
    ):
        assert word in high
    assert low.startswith("low")
    assert (high_options.strip(), low_options.strip()) == ("lr 0.02", "lr 0.0001")


def test_json_and_order(runs, capsys):
    both = listed(capsys)["runs"]
    assert [run["folder"] for run in both] == ["runs/high", "runs/low"]
    assert both[0]["best_val_loss"] < both[1]["best_val_loss"]
    assert both[0]["options"]["lr"] == 0.02
    assert [run["folder"] for run in listed(capsys, "runs/low", "runs", "--sort", "best")["runs"]] == [
        "runs/high",
        "runs/low",
    ]
    (runs / "high" / "metrics.jsonl").write_text("")
    assert [run["folder"] for run in listed(capsys, "--sort", "best")["runs"]] == [
        "runs/low",
        "runs/high",
    ]  # without: last
    assert [run["folder"] for run in listed(capsys, "runs/low")["runs"]] == ["runs/low"]


def test_a_run_under_way_and_one_that_was_stopped(runs, capsys):
    (runs / "high" / "model.safetensors").unlink()
    with (runs / "high" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "tok')  # being written
    with lock(runs / "high"):
        high, low = listed(capsys)["runs"]
    assert (high["state"], low["state"]) == ("under way", "finished")
    assert high["step"] == high["total_steps"] == low["step"]
    assert main(["runs"]) == 0
    assert "stopped, " in capsys.readouterr().out


def test_damaged_and_foreign_folders_are_one_line_each(runs, capsys):
    for name in ("empty", ".hidden", "no record", "bad row", "infinite", "no json", "deep", "no sizes"):
        (runs / name).mkdir()
    config = (runs / "high" / "config.json").read_text()
    for name in ("no record", "bad row", "infinite"):
        (runs / name / "config.json").write_text(config)
    (runs / "bad row" / "metrics.jsonl").write_text('{"step": 3}\n')
    row = '{"step": Infinity, "tokens": 1, "lr": 1, "train_loss": 1, "val_loss": 1}\n'
    (runs / "infinite" / "metrics.jsonl").write_text(row)
    (runs / "no json" / "config.json").write_bytes(b"\xff{")
    (runs / "deep" / "config.json").write_text("[" * 100_000)
    (runs / "no sizes" / "config.json").write_text('{"model": {"emb_dim": "wide"}, "training": {}}')
    (runs / "file.txt").write_text("")
    assert main(["runs"]) == 0
    problems = capsys.readouterr().out.splitlines()[5:]
    names = ("bad row", "deep", "empty", "infinite", "no json", "no record", "no sizes")
    assert len(problems) == len(names)
    for name, line in zip(names, problems, strict=True):
        assert line.startswith(f"runs/{name}")
    assert len(listed(capsys)["problems"]) == len(names)


def test_losses_that_are_not_finite_are_not_the_lowest(runs, capsys):
    with (runs / "low" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "tokens": 9, "lr": 1, "train_loss": NaN, "val_loss": NaN}\n')
    low = listed(capsys)["runs"][1]
    assert (low["step"], low["val_loss"]) == (99, None)
    assert low["best_val_loss"] > 1


def test_the_picture(runs, tmp_path, capsys):
    assert main(["runs", "--plot", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    for argv, message in {
        ("--plot", "curves.foo"): "'foo' is not supported",
        ("--plot", "nowhere/curves.png"): "nowhere/curves.png: cannot be written",
        ("nowhere",): "nowhere: not a folder",
    }.items():
        capsys.readouterr()
        assert main(["runs", *argv]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_nothing_to_list(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert "No runs" in capsys.readouterr().out
    assert main(["runs", str(tmp_path), "--plot", str(tmp_path / "x.png")]) == 2
    assert not list(tmp_path.iterdir())


# ---- doctor, which looks at one of them


def test_doctor_says_what_it_finds_and_exits_by_the_worst(runs, capsys):
    assert main(["doctor", "runs/high"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line[19:24].strip() in ("ok", "look") for line in lines)
    checkpoint = runs / "high" / (runs / "high" / "latest").read_text().strip()
    (checkpoint / "trainer_state.json").unlink()
    assert main(["doctor", "runs/high", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "wrong"
    (wrong,) = [each for each in report["findings"] if each["verdict"] == "wrong"]
    assert wrong["check"] == "checkpoints"
    assert "trainer_state.json" in wrong["text"]
    assert "--resume" in wrong["advice"]


def test_doctor_of_what_is_no_run(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no run there" in err
    assert err.count("\n") == 1
