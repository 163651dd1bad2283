"""A run that somebody else made: whatever is in it, nothing outside its folder is written, nothing hangs, no traceback."""

import hashlib
import json
import os
import shutil
from itertools import product
from pathlib import Path

import pytest

from tinygrad_llm.cli import main

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="POSIX links and pipes"), pytest.mark.usefixtures("alarm")]

GOLDEN = Path(__file__).parents[1] / "golden"
TEXT = "the cat sat on the mat and the rat sat on the hat; a hen in a pen met ten men in a den.\n" * 6
CHECKPOINT = "step-000013"
MISSING = object()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that was stopped in its second epoch, beside what is its user's own."""
    home = tmp_path / "home"
    (home / "notes").mkdir(parents=True)
    for name in (".bashrc", "thesis.tex", "notes/model.safetensors", "notes/SHA256SUMS"):
        (home / name).write_text("mine\n" * 9)
    os.mkfifo(home / "pipe")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("text.txt").write_text(TEXT)
    return shutil.copytree(GOLDEN / "stopped", "run") and Path("run")


def tree(folder):
    """{name: what it is, and a hash of what it holds}; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = os.readlink(path)
        elif path.is_file():
            found[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[path] = path.stat().st_mode
    return found


def sign(checkpoint):
    """Write the sums of what is there, as a stranger would."""
    names = sorted(path.name for path in checkpoint.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (checkpoint / "SHA256SUMS").write_text("".join(lines))


def change(values, field, value):
    """Set values["a"]["b"] of "a.b", or take it away."""
    *parents, last = field.split(".")
    for parent in parents:
        values = values[int(parent) if parent.isdecimal() else parent]
    if value is MISSING:
        del values[last]
    else:
        values[int(last) if last.isdecimal() else last] = value


def rewrite(path, *changes):
    values = json.loads(path.read_text())
    for field, value in changes:
        change(values, field, value)
    path.write_text(json.dumps(values))
    if path.parent.name == CHECKPOINT:
        sign(path.parent)


def refused(capsys, *argv, what):
    """One line that has these words, exit code 2, and neither the run nor anything outside it has changed."""
    before = tree(Path("..").resolve())
    try:
        code = main([*argv])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert (code, err.count("\n")) == (2, 1), err
    for words in what:
        assert words in err
    assert tree(Path("..").resolve()) == before
    return out, err


# ---- trainer_state.json

STATES = [
    ("format", MISSING),
    ("format", None),
    ("format", "1"),
    ("format", 0),
    ("format", True),
    ("state", MISSING),
    ("state", None),
    ("state", [1, 2]),
    ("state.wings", 2),
    *((f"state.{name}", MISSING) for name in ("step", "epoch", "batch", "losses", "log_bytes", "epoch_rng", "rng")),
    *((f"state.{name}", None) for name in ("step", "recorded", "losses", "log_bytes", "epoch_rng", "rng")),
    *((f"state.{name}", "13") for name in ("step", "epoch", "epoch_batches", "batch", "tokens", "val_loss")),
    *((f"state.{name}", -1) for name in ("step", "epoch_batches", "batch", "tokens", "skipped", "skipped_in_a_row")),
    *((f"state.{name}", 1.5) for name in ("step", "epoch", "batch")),
    ("state.epoch", -(10**9)),
    ("state.epoch", True),
    ("state.epoch", 0),
    ("state.epoch", 15),
    ("state.step", 14),
    ("state.step", 10**9),
    ("state.step", 10**40),
    ("state.batch", 10),
    ("state.epoch_batches", 3),
    ("state.epoch_batches", 10**9),
    ("state.tokens", 5),
    ("state.skipped", 14),
    ("state.skipped_in_a_row", 1),
    ("state.recorded", 1),
    ("state.losses", "none"),
    ("state.losses", [1.0, "2.0"]),
    ("state.losses", 50 * [1.0]),
    ("state.losses", {"0": 1.0}),
    ("state.val_loss", [1.0]),
    ("state.val_loss", False),
    ("state.log_bytes", {}),
    ("state.log_bytes", [1, 2]),
    ("state.log_bytes", {"metrics.jsonl": 0}),
    ("state.log_bytes.metrics.jsonl", -5),
    ("state.rng", {}),
    ("state.rng", [1]),
    ("state.rng.key", 5),
    ("state.rng.key", 624 * [1.5]),
    ("state.rng.key", 624 * ["1"]),
    ("state.rng.key", 623 * [1]),
    ("state.rng.key", 624 * [2**32]),
    ("state.rng.position", 625),
    ("state.rng.spare_normal", "0.5"),
    ("state.rng.seed", -1),
    ("state.epoch_rng", {}),
    ("state.epoch_rng.position", None),
    ("optimizer", MISSING),
    ("optimizer", 5),
    ("optimizer.steps", MISSING),
    ("optimizer.steps", 31 * [None]),
    ("optimizer.steps", 30 * [13]),
    ("optimizer.steps", 31 * [14]),
    ("optimizer.wings", 2),
    ("optimizer.param_groups", {}),
    ("optimizer.param_groups", []),
    ("optimizer.param_groups", [5]),
    ("optimizer.param_groups.0.params", MISSING),
    ("optimizer.param_groups.0.params", "all"),
    ("optimizer.param_groups.0.lr", "high"),
    ("optimizer.param_groups.0.lr", -1),
    ("optimizer.param_groups.0.betas", [0.9]),
    ("optimizer.param_groups.0.betas", {"a": 1}),
    ("optimizer.param_groups.0.eps", None),
    ("model", MISSING),
    ("model", 5),
    ("training", MISSING),
    ("training", "story"),
    ("training.batch_size", []),
    ("schedule", 5),
    ("schedule.total_steps", "27"),
    ("schedule.peak_lr", None),
    ("versions", 5),
    ("data", MISSING),
    ("data", []),
    ("data.ids", MISSING),
    ("data.ids", 5),
    ("tokenizer", MISSING),
    ("tokenizer", None),
    ("dtype", MISSING),
    ("dtype", 32),
]


@pytest.mark.parametrize(("field", "value"), STATES, ids=lambda part: f"{part!r:.30}" if part is not MISSING else "no")
def test_a_state_that_cannot_be(run, capsys, field, value):
    path = run / CHECKPOINT / "trainer_state.json"
    if field == "state.log_bytes.metrics.jsonl":
        rewrite(path, ("state.log_bytes", {"metrics.jsonl": value, "samples.txt": 0}))
        field = "state.log_bytes"
    else:
        rewrite(path, (field, value))
    names = {word for word in field.split(".") if not word.isdecimal()} - {"state"}
    out, err = refused(capsys, "pretrain", "--resume", "run", what=[str(path)])
    assert out == ""
    assert any(name in err for name in names or {"state"}), err


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 200_000 + "]" * 200_000, "must be a JSON object"),
        ('{"format": 1, "state": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"format": 1, "state": ' + 500 * '{"a": ' + "1" + 500 * "}" + "}", "trainer_state.json"),
        ('{"format": 1, "format": 1}', "twice"),
        ('{"format": NaN}', "NaN"),
        ("[1]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("", "must be a JSON object"),
        ("\udcff", "trainer_state.json"),
    ],
    ids=["nested lists", "nested in it", "nested objects", "twice", "NaN", "a list", "null", "empty", "not UTF-8"],
)
def test_a_state_that_is_no_state(run, capsys, text, what):
    path = run / CHECKPOINT / "trainer_state.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    sign(path.parent)
    refused(capsys, "pretrain", "--resume", "run", what=[str(path), what])


@pytest.mark.parametrize("name", ["{home}/thesis.tex", "../../home/thesis.tex", "../../home/new", "config.json", ""])
def test_the_names_of_logs_lead_nowhere(run, capsys, tmp_path, name):
    """A key of log_bytes used to be joined to the folder: with 0 after it, that file was emptied."""
    name = name.format(home=tmp_path / "home")
    rewrite(
        run / CHECKPOINT / "trainer_state.json",
        ("state.log_bytes", {"metrics.jsonl": 0, "samples.txt": 0, name: 0}),
    )
    refused(capsys, "pretrain", "--resume", "run", what=["trainer_state.json: state.log_bytes", ascii(name)[:40]])


def test_an_odd_checkpoint_beside_a_good_one_is_pruned_like_any_other(run):
    old = shutil.copytree(run / CHECKPOINT, run / "step-000009")
    values = json.loads((old / "trainer_state.json").read_text())
    values["state"] |= {"step": 9, "val_loss": "low"}
    (old / "trainer_state.json").write_text(json.dumps(values))
    assert main(["pretrain", "--resume", "run"]) == 0
    assert [path.name for path in run.glob("step-*")] == ["step-000027"]


@pytest.mark.parametrize(
    ("field", "value"), [("val_ratio", "much"), ("prompt", 5), ("top_k", "all"), ("temperature", [])]
)
def test_an_evaluation_of_odd_options(run, capsys, field, value):
    rewrite(run / "config.json", (f"training.{field}", value))
    refused(capsys, "evaluate", "run", what=[field])


def test_those_who_only_look_survive_an_odd_state(run, capsys):
    rewrite(run / CHECKPOINT / "trainer_state.json", ("schedule", {"total_steps": "many"}), ("state.step", None))
    assert main(["runs", "run"]) == 0
    assert main(["doctor", "run"]) == 1
    out, err = capsys.readouterr()
    assert f"{CHECKPOINT}/trainer_state.json: state.step is None" in out
    assert err == ""


# ---- config.json and metrics.jsonl

CONFIGS = [
    ("training", None),
    ("training.wings", 2),
    ("training.epochs", "3"),
    ("training.epochs", -3),
    ("training.lr", None),
    ("training.lr", [1]),
    ("training.preset", []),
    ("training.preset", None),
    ("training.tokenizer", {}),
    ("training.prompt", 5),
    ("training.on_nonfinite", 1),
    ("training.emb_dim", 1.5),
    ("training.seed", 2**64),
    ("model", []),
    ("model.qkv_bias", "x"),
    ("model.emb_dim", 0),
    ("model.n_heads", 4),
    ("model.wings", 2),
    ("files", 5),
    ("files", [5]),
    ("files", "text.txt"),
    ("files", ["text.txt", "text.txt"]),
    ("files", MISSING),
    ("data", MISSING),
    ("data", 5),
    ("data.texts", 5),
    ("data.texts", [5]),
    ("data.texts", []),
    ("data.ids", None),
    ("changes", 5),
    ("changes", [5]),
    ("init_from", 5),
    ("task", 5),
    ("task", "classify"),
    ("architecture", 5),
    ("architecture", "base"),
    ("training.val_ratio", "much"),
    ("format", "two"),
    ("format", 99),
]


@pytest.mark.parametrize(("field", "value"), CONFIGS, ids=lambda part: f"{part!r:.30}" if part is not MISSING else "no")
def test_a_configuration_that_cannot_be(run, capsys, field, value):
    rewrite(run / "config.json", (field, value))
    _, err = refused(capsys, "pretrain", "--resume", "run", what=["run/config.json"])
    assert field.split(".")[-1] in err


@pytest.mark.parametrize(
    "line",
    ["5", "[]", '{"step": 1}', '{"step": "1", "tokens": 1, "lr": 1, "train_loss": 1, "val_loss": 1}', "[" * 9999],
)
def test_a_record_that_cannot_be(run, capsys, line):
    path = run / "metrics.jsonl"
    path.write_text((line + "\n").ljust(path.stat().st_size - 1) + "\n")
    refused(capsys, "pretrain", "--resume", "run", what=["metrics.jsonl", "line 1"])


def test_a_record_that_is_empty_though_something_was_recorded(run, capsys):
    rewrite(run / CHECKPOINT / "trainer_state.json", ("state.log_bytes", {"metrics.jsonl": 0, "samples.txt": 0}))
    rewrite(run / CHECKPOINT / "trainer_state.json", ("state.recorded", True))
    refused(capsys, "pretrain", "--resume", "run", what=["trainer_state.json", "log_bytes"])


# ---- links, pipes and devices where the run is written to

LOGS = ["metrics.jsonl", "samples.txt"]


def plant(run, name, kind, home):
    """Something else in the place of a file of the run."""
    path = run / name
    target = home / "copy"
    if path.is_file():
        shutil.copyfile(path, target)
    else:
        target.write_text("mine\n")
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(target)
    elif kind == "relative link":
        path.symlink_to(os.path.relpath(target, run))
    elif kind == "dangling link":
        path.symlink_to(home / "new")
    elif kind == "hard link":
        path.hardlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/full")


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("kind", ["link", "relative link", "dangling link", "hard link", "pipe", "folder", "device"])
def test_a_log_that_is_not_the_runs_own(run, capsys, tmp_path, name, kind):
    plant(run, name, kind, tmp_path / "home")
    refused(capsys, "pretrain", "--resume", "run", what=[f"run/{name}"])


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe"])
def test_a_new_run_in_the_place_of_one_that_saved_nothing_has_logs_of_its_own(run, tmp_path, name, kind):
    shutil.rmtree(run / CHECKPOINT)
    plant(run, name, kind, tmp_path / "home")
    before = tree(tmp_path / "home")
    assert main(["pretrain", "--resume", "run", "--epochs", "1"]) == 0
    assert tree(tmp_path / "home") == before
    assert (run / name).is_file()
    assert not (run / name).is_symlink()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *product(["loss.png", "model.safetensors", "latest", "tokenizer.tmp"], ["link", "dangling link", "hard link"]),
        *product(["config.json", "tokenizer.txt"], ["link", "hard link"]),  # which the run cannot do without
    ],
)
def test_what_is_renamed_into_its_place_takes_the_place_of_a_link(run, tmp_path, name, kind):
    """The link is replaced, what it leads to stays; configuration and tokenizer are read through a link, and stay."""
    plant(run, name, kind, tmp_path / "home")
    before = tree(tmp_path / "home")
    argv = ["--lr", "1e-3"] if name == "config.json" else ["--weights-only"] if name.startswith("tokenizer") else []
    assert main(["pretrain", "--resume", "run", "--epochs", "3", *argv]) == 0
    assert tree(tmp_path / "home") == before
    if name != "tokenizer.tmp":
        assert (run / name).is_file()
        assert not (run / name).is_symlink()


@pytest.mark.parametrize("name", ["latest", "config.json", "tokenizer.txt", f"{CHECKPOINT}/SHA256SUMS"])
def test_a_pipe_in_the_place_of_what_is_read(run, capsys, tmp_path, name):
    plant(run, name, "pipe", tmp_path / "home")
    if name == "latest":  # only says which checkpoint to try first
        assert main(["pretrain", "--resume", "run"]) == 0
    else:
        refused(capsys, "pretrain", "--resume", "run", what=[f"run/{name}"])


def test_a_checkpoint_elsewhere_is_read_and_left_as_it_is(run, tmp_path):
    elsewhere = shutil.move(run / CHECKPOINT, tmp_path / "home")
    (run / CHECKPOINT).symlink_to(elsewhere)
    (run / "step-000004").symlink_to(tmp_path / "home" / "notes")
    (run / "step-000020").symlink_to(tmp_path / "home" / "notes")
    (run / "step-000027").symlink_to(tmp_path / "home" / "notes")
    before = tree(tmp_path / "home")
    assert main(["pretrain", "--resume", "run"]) == 0
    assert tree(tmp_path / "home") == before
    assert [(path.name, path.is_symlink()) for path in run.glob("step-*")] == [("step-000027", False)]
    assert not list(run.glob(".*"))


def test_evidence_is_not_left_elsewhere(run, tmp_path, capsys):
    (run / "nonfinite-step-000015").symlink_to(tmp_path / "home" / "notes")
    before = tree(tmp_path / "home")
    assert main(["pretrain", "--resume", "run", "--max-norm", "0", "--lr", "1e30", "--spike", "0"]) == 2
    assert "report.html shows it" in capsys.readouterr().err
    assert tree(tmp_path / "home") == before
    (evidence,) = run.glob("nonfinite-*")
    assert (evidence / "report.html").is_file()
    assert not evidence.is_symlink()


def test_event_files_are_not_written_elsewhere(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.runs.tensorboard.time.time", lambda: 1.0e9)
    (run / "events.out.tfevents.1000000000.tinygrad_llm").symlink_to(tmp_path / "home" / ".bashrc")
    before = tree(tmp_path / "home")
    assert main(["pretrain", "--resume", "run", "--tensorboard"]) == 0
    assert tree(tmp_path / "home") == before


def test_a_link_that_is_put_there_while_it_trains(run, tmp_path, capsys, monkeypatch):
    from tinygrad_llm.training import loop

    real = loop.train_step

    def train_step(*args, **options):
        (run / "samples.txt").unlink(missing_ok=True)
        (run / "samples.txt").symlink_to(tmp_path / "home" / ".bashrc")
        return real(*args, **options)

    monkeypatch.setattr(loop, "train_step", train_step)
    before = tree(tmp_path / "home")
    assert main(["pretrain", "--resume", "run"]) == 2
    assert "run/samples.txt" in capsys.readouterr().err
    assert tree(tmp_path / "home") == before


def test_a_run_may_itself_be_a_link(run, tmp_path):
    """Its user named it."""
    moved = shutil.move("run", tmp_path / "elsewhere")
    run.symlink_to(moved)
    assert main(["pretrain", "--resume", "run"]) == 0
    assert (Path(moved) / "model.safetensors").is_file()
    assert run.is_symlink()
    assert main(["pretrain", "--resume", "run", "--weights-only", "--epochs", "1"]) == 0
    assert Path("run.1").is_symlink()
    assert not run.is_symlink()


def test_the_place_of_an_older_run_is_not_a_link(run, tmp_path):
    Path("run.1").symlink_to(tmp_path / "home" / "new")
    before = tree(tmp_path / "home")
    assert main(["pretrain", "--resume", "run", "--weights-only", "--epochs", "1"]) == 0
    assert tree(tmp_path / "home") == before
    assert Path("run.2", CHECKPOINT).is_dir()
