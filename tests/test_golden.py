"""What must not change from one version to the next: weights after training, texts, and runs that an older version began.

The golden files were made by commit 9bfe6eb (tests/golden/make.py). Where this machine computes with the same bits as the one
that made them, the bits must be those; elsewhere the numbers must be close.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden import measure

from tinygrad_llm.cli import main
from tinygrad_llm.training import load_run, resume
from tinygrad_llm.weights import load_pretrained

HERE = measure.HERE

GOLDEN = json.loads((HERE / "golden.json").read_text())
SAME_BITS = measure.arithmetic() == GOLDEN["arithmetic"]
CASES = {
    "float32": {},
    "float32, one thread": {"threads": 1},
    "float64, GPT-2": {"dtype": np.float64, "init": "gpt2", "tie_weights": True, "qkv_bias": True},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the text and copies of the runs."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(measure.TEXT)
    for name in ("stopped", "finished", "export"):
        shutil.copytree(HERE / name, name)
    return tmp_path


def close(dtype):
    return {"rtol": 1e-3, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize("name", CASES)
def test_five_training_steps_give_the_same_weights(name):
    losses, model = measure.trained(**CASES[name])
    values, golden = model.state_dict(), GOLDEN[name]
    assert values.keys() == golden["weights"].keys()
    if SAME_BITS:
        assert [float(loss).hex() for loss in losses] == golden["losses"]
        assert {key: measure.digest(value) for key, value in values.items()} == golden["weights"]
    stored = np.load(HERE / "weights.npz")
    for key, value in values.items():
        np.testing.assert_allclose(value, stored[f"{name.removesuffix(', one thread')}: {key}"], **close(value.dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_models_write_the_same_texts(dtype):
    if dtype == "float32" and not SAME_BITS:
        dtype = "float64"  # where tokens are this close to each other, other roundings choose another one
    model = measure.trained(**CASES["float64, GPT-2" if dtype == "float64" else "float32"])[1]
    written = measure.texts(model)
    assert written.keys() == GOLDEN["texts"][dtype].keys()
    for name, ids in written.items():
        assert ids == GOLDEN["texts"][dtype][name], name


def test_a_run_that_was_stopped_in_the_middle_of_an_epoch_ends_as_it_would_have(here):
    resume("stopped", report=lambda line: None)
    rows = [json.loads(line) for line in Path("stopped/metrics.jsonl").read_text().splitlines()]
    values = load_run("stopped")[0].state_dict()
    assert values.keys() == GOLDEN["run"]["weights"].keys()
    for row, golden in zip(rows, GOLDEN["run"]["metrics"], strict=True):
        for key, value in golden.items():
            assert row[key] == (value if SAME_BITS else pytest.approx(value, rel=1e-2)), key
    if SAME_BITS:
        assert {key: measure.digest(value) for key, value in values.items()} == GOLDEN["run"]["weights"]
        assert Path("stopped/samples.txt").read_text() == GOLDEN["run"]["samples"]


def test_a_run_from_the_beginning_ends_the_same(here):
    measure.begin_run(Path("whole"), stop=False)
    values = load_run("whole")[0].state_dict()
    finished = load_run("finished")[0].state_dict()
    for key, value in values.items():
        np.testing.assert_allclose(value, finished[key], **({"rtol": 0, "atol": 0} if SAME_BITS else close(np.float32)))


def test_a_finished_run_and_its_export_are_the_same_model(here):
    (run, tokenizer), (export, exported) = load_run("finished"), load_pretrained("export")
    assert {k: measure.digest(v) for k, v in run.state_dict().items()} == GOLDEN["run"]["weights"]
    assert {k: measure.digest(v) for k, v in export.state_dict().items()} == GOLDEN["run"]["weights"]
    assert tokenizer.encode(measure.TEXT) == exported.encode(measure.TEXT)
    ids = [tokenizer.encode("the cat")]
    np.testing.assert_array_equal(run(ids).data, export(ids).data)


@pytest.mark.parametrize("folder", ["stopped", "finished", "export"])
def test_commands_read_what_an_older_version_wrote(here, folder, capsys):
    assert main(["generate", folder, "--prompt", "the cat", "--max-new-tokens", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["prompt"] == "the cat"
    assert main(["report", folder, "--prompt", "the cat sat", "-o", "page.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] > 20
    assert Path("page.html").stat().st_size > 50_000
