"""Looking into a model that reads texts from both sides: steps by name, the cache of a forward, a report, and its commands."""

import json

import numpy as np
import pytest

from tinygrad_llm import debug
from tinygrad_llm.cli import main
from tinygrad_llm.models import make_model
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import END_OF_TEXT
from tinygrad_llm.training import pretrain
from tinygrad_llm.training.masked_words import masked_loss
from tinygrad_llm.tuning.hidden_words import open_hidden

CONFIG = {
    "vocab_size": 20,
    "context_length": 8,
    "emb_dim": 8,
    "n_heads": 2,
    "n_layers": 2,
    "hidden_dim": 8,
    "drop_rate": 0.0,
}
IDS = np.array([[2, 5, 6, 3, 7, 3], [2, 8, 3, 9, 3, 0]])
SEGMENTS = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0]])
LENGTHS = np.array([6, 5])
TARGETS = np.where(np.isin(IDS, (6, 9)), IDS, -100)


@pytest.fixture
def model():
    return make_model("bert", CONFIG, Generator(1))


def loss_of(model):
    ones = np.full(2, 0.5, np.float32)
    return masked_loss(model, IDS, SEGMENTS, LENGTHS, TARGETS, ones, np.array([0, 1]), ones)


def test_steps_have_the_names_of_the_parts_that_made_them(model):
    loss = loss_of(model)
    modules = {step.name.rpartition(".")[0] for step in loss.backward_steps()}
    assert {
        "emb_norm",
        "trf_blocks.1.att",
        "trf_blocks.0.norm2",
        "transform.norm",
        "pooler",
        "next_sentence",
    } <= modules
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_cache_has_what_each_layer_made_under_segments_and_mask(model):
    mask = np.arange(6) < LENGTHS[:, None]
    logits, cache = model.run_with_cache(IDS, SEGMENTS, mask)
    np.testing.assert_array_equal(logits.data, model(IDS, SEGMENTS, mask).data)
    weights = cache["trf_blocks.1.att.weights"]  # (B, H, T, T)
    assert weights.shape == (2, 2, 6, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not weights[1, :, :, 5].any()  # nobody looks at what fills up
    assert weights[0, 0, 0, 5] > 0  # but at what comes later


def test_a_report_of_its_loss(model, tmp_path):
    written = debug.report(loss_of(model), tmp_path / "report.html")
    assert written.verdicts.get("wrong", 0) == 0
    assert written.verdicts["ok"] > 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    (path / "text.txt").write_text(
        END_OF_TEXT.join(f"one two {word} four. five six {word}." for word in "abcdefgh" * 5)
    )
    options = {"vocab_size": 60, "context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "max_steps": 2}
    pretrain(
        path / "text.txt", out=path / "run", architecture="bert", next_sentence=True, report=lambda _: None, **options
    )
    return path / "run"


def test_hidden_words_of_a_run_are_those_of_its_evaluations(run):
    found = open_hidden(run)
    assert len(found.tables) == 3
    logits = found.model(
        found.batch[0], found.batch[1], np.arange(found.batch[0].shape[1]) < found.batch[2][:, None]
    ).data
    for b, table in enumerate(found.tables):
        hidden, probability = (row.values for row in table.rows)
        places = np.flatnonzero(found.batch[3][b] != -100)
        assert np.flatnonzero(hidden).tolist() == places.tolist()
        assert len(table.facts) == len(places)
        for t in places:
            scores = logits[b, t].astype(np.float64)
            p = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            assert probability[t] == pytest.approx(p[found.batch[3][b, t]], rel=1e-4)
    assert found.loss().item() > 0


def test_the_report_of_a_run_shows_guesses(run, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(run), "-o", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [table["title"] for table in told["tables"]] == [f"Hidden words, text {i}" for i in (1, 2, 3)]
    assert "Hidden words, text 1" in page.read_text()
    assert main(["report", str(run), "-o", str(page), "--prompt", "one two a four", "--json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert table["tokens"][0] == "[CLS]"
    assert main(["report", str(run), "-o", str(page), "--answer", "a", "--prompt", "one"]) == 2
    assert "answers nothing" in capsys.readouterr().err
    assert main(["report", str(run), "-o", str(page), "--prompt", ""]) == 2
    assert "has no word that can be hidden" in capsys.readouterr().err
