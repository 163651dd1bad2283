import json
from itertools import product

import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.errors import StorageError
from tinygrad_llm.runs.loggers import Logger
from tinygrad_llm.runs.tensorboard import TensorBoard
from tinygrad_llm.training import pretrain, resume

TINY = {"context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "batch_size": 8, "sample_tokens": 3}
TINY |= {"stride": 8, "epochs": 2, "eval_every": 4, "save_every": 3, "vocab_size": 280, "seed": 3}


def silent(line): ...


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    words = product(("cat", "dog", "fox"), ("sat on", "ran to", "dug up"), ("mat", "log", "bed"))
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"The {a} {b} the {c}, as it did before.\n" for a, b, c in words))
    return path


class Recorder(Logger):
    """Keeps what it hears; with `stop_at`, raises Ctrl-C after that step."""

    def __init__(self, stop_at=None):
        self.heard, self.stop_at = [], stop_at

    def start(self, folder, config, step):
        self.heard.append(("start", folder.name, config["training"]["seed"], step))

    def log_step(self, step, loss, lr):
        self.heard.append(("step", step, loss, lr))
        if step == self.stop_at:
            raise RuntimeError("as if killed")

    def log_evaluation(self, row):
        self.heard.append(("evaluation", row))

    def log_sample(self, step, text):
        self.heard.append(("sample", step, text))

    def finish(self):
        self.heard.append(("finish",))


def of(kind, *recorders):
    return [heard[1:] for recorder in recorders for heard in recorder.heard if heard[0] == kind]


def test_a_logger_hears_everything_once_and_in_order(text_file, tmp_path):
    ears = Recorder()
    result = pretrain(text_file, out=tmp_path / "run", report=silent, loggers=[ears], **TINY)
    n = result.metrics[-1]["step"]
    assert ears.heard[0] == ("start", "run", 3, 0)
    assert ears.heard[-1] == ("finish",)
    assert [step for step, _, _ in of("step", ears)] == list(range(1, n + 1))
    assert [row for (row,) in of("evaluation", ears)] == result.metrics
    assert [step for step, _ in of("sample", ears)] == [n // 2, n, n]
    assert of("sample", ears)[-1][1] == result.sample
    rates = [lr for _, _, lr in of("step", ears)]
    assert max(rates) == pytest.approx(3e-3)
    assert all(rates[row["step"]] == row["lr"] for row in result.metrics[:-1])  # of the step that follows
    assert rates[-1] < 0.1 * max(rates)
    losses = [loss for _, loss, _ in of("step", ears)]
    assert losses[0] == pytest.approx(result.metrics[0]["train_loss"], abs=0.3)
    assert losses[-1] < losses[0]


def test_a_logger_changes_nothing(text_file, tmp_path):
    pretrain(text_file, out=tmp_path / "with", report=silent, loggers=[Recorder(), TensorBoard()], **TINY)
    pretrain(text_file, out=tmp_path / "without", report=silent, **TINY)
    for name in ("model.safetensors", "metrics.jsonl", "samples.txt", "config.json"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


@pytest.mark.parametrize("stop_at", [1, 4, 8])
def test_after_a_resume_every_step_is_there_once_with_the_same_figures(text_file, tmp_path, stop_at):
    whole, before, after = Recorder(), Recorder(stop_at), Recorder()
    pretrain(text_file, out=tmp_path / "whole", report=silent, loggers=[whole], **TINY)
    with pytest.raises(RuntimeError):
        pretrain(text_file, out=tmp_path / "run", report=silent, loggers=[before, TensorBoard()], **TINY)
    assert before.heard[-1] == ("finish",)
    resume(tmp_path / "run", report=silent, loggers=[after, TensorBoard()])

    ((_, _, start),) = of("start", after)
    assert start == stop_at // 3 * 3 if stop_at != 4 else start in (3, 4)
    kept = [line for line in of("step", before) if line[0] <= start]
    assert kept + of("step", after) == of("step", whole)

    from test_tensorboard import read_folder

    series = read_folder(tmp_path / "run")
    assert [step for step, _ in series["loss/batch"]] == [step for step, _, _ in of("step", whole)]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows == [row for (row,) in of("evaluation", whole)]
    for tag, key in {"loss/training": "train_loss", "loss/validation": "val_loss"}.items():
        assert [step for step, _ in series[tag]] == [row["step"] for row in rows]
        assert [value for _, value in series[tag]] == pytest.approx([row[key] for row in rows], rel=1e-6)


def test_the_command_line_logs_and_goes_on_logging(text_file, tmp_path, capsys):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    run = str(tmp_path / "run")
    assert main(["pretrain", str(text_file), "--out", run, "--tensorboard", *flags]) == 0
    assert main(["pretrain", "--resume", run, "--epochs", "3"]) == 0
    capsys.readouterr()
    from test_tensorboard import read_folder

    steps = [step for step, _ in read_folder(tmp_path / "run")["loss/batch"]]
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert steps == list(range(1, last + 1))
    assert len(list((tmp_path / "run").glob("*tfevents*"))) == 2


def test_a_logger_that_cannot_write_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"tfevents.*cannot be written"):
        TensorBoard().start(tmp_path / "gone", {}, 0)
