"""The preset "tales": its corpus, a document a row, and a run that is measured against the tales' own entropy."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.evaluation import evaluate_run, mean_loss
from tinygrad_llm.generation import choose, stream_text
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.runs import load_run
from tinygrad_llm.text import END_OF_TEXT, CharVocabulary, WordTokenizer, corpus
from tinygrad_llm.text.corpus import DocumentWindows, tell_tales
from tinygrad_llm.text.tales import curriculum, tales
from tinygrad_llm.training import PretrainOptions, pretrain, resume

QUICK = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "sample_tokens": 8}


@pytest.fixture
def few_tales(monkeypatch):
    monkeypatch.setattr(corpus, "_TALES", 64)
    monkeypatch.setattr(corpus, "_VAL_TALES", 16)


DOCUMENTS = st.lists(st.lists(st.integers(1, 9), max_size=7), min_size=1, max_size=9)


@given(DOCUMENTS, st.integers(1, 4), st.integers(1, 12), st.booleans(), st.booleans())
def test_a_row_is_a_document_and_the_rest_does_not_count(documents, batch_size, context_length, opened, closed):
    ids = [0] if opened else []
    for document in documents:
        ids += [*document, 0]
    ids = ids if closed or len(ids) < 3 else ids[:-1]
    if len(ids) < 2:
        return
    windows = DocumentWindows(ids, context_length, batch_size, 0)
    batches = list(windows.epoch())
    assert len(batches) == len(windows)
    assert all(len(inputs) == batch_size for inputs, _ in batches[:-1])
    rows = [(row, goals) for inputs, targets in batches for row, goals in zip(inputs, targets, strict=True)]
    read = []
    for row, goals in rows:
        n = int((goals != -100).sum())
        assert 1 <= n <= context_length
        assert (goals[n:] == -100).all()
        assert row[1:n].tolist() == goals[: n - 1].tolist()
        assert 0 not in row[1:n], "a row goes on over the end of a document"
        assert n == context_length or goals[n - 1] == 0 or len(read) + n == len(ids) - 1
        read += goals[:n].tolist()
    assert read == ids[1:]  # each token but the first is a target once
    assert all(inputs.shape[1] == max((goals != -100).sum() for goals in targets) for inputs, targets in batches)


def test_documents_need_a_mark_that_ends_them():
    options = PretrainOptions.for_preset("tales")
    with pytest.raises(ConfigError, match=r"windows is 'documents', which end with <\|endoftext\|>"):
        options.evaluation_batches([0, 1, 2], CharVocabulary({"a": 0, "b": 1, "c": 2}, {}, None))
    with pytest.raises(ConfigError, match=r"tales are told apart by <\|endoftext\|>"):
        tell_tales(1, CharVocabulary({chr(i): i - 10 for i in range(10, 127)}, {}, None))


def test_mean_loss_leaves_out_what_does_not_count():
    tg.manual_seed(0)
    model = GPTModel(GPTConfig(11, 8, 8, 2, 1)).astype(np.float64)
    ids = np.random.default_rng(0).integers(0, 11, (3, 9))
    long, short = (ids[:, :-1], ids[:, 1:].copy()), (ids[:1, :4], ids[:1, 1:5])
    rows = [*zip(*long, strict=True), *zip(*short, strict=True)]
    long[1][0, 5:] = -100
    losses = []
    for row, goals in rows:
        logits = model.eval()(row[None]).data[0]
        losses += [math.log(np.exp(z).sum()) - z[goal] for z, goal in zip(logits, goals, strict=True) if goal >= 0]
    assert len(losses) == 5 + 16 + 4
    assert mean_loss(model, [long, short]) == pytest.approx(np.mean(losses), rel=1e-12)


def test_the_corpus_is_told_afresh_from_the_seed(few_tales):
    told = PretrainOptions.for_preset("tales", seed=5).corpus([])
    assert told.train_texts[0].split(END_OF_TEXT)[1:-1] == list(curriculum(5, 64))
    val_tales = list(tales(5, 16, "validation"))
    assert told.val_texts[0].split(END_OF_TEXT)[1:-1] == [tale.text for tale in val_tales]
    assert isinstance(told.tokenizer, WordTokenizer)
    for ids, text in ((told.train_ids, told.train_texts[0]), (told.val_ids, told.val_texts[0])):
        assert ids.count(told.tokenizer.eot_id) == text.count(END_OF_TEXT)
    assert told.entropy * (len(told.val_ids) - 1) == pytest.approx(sum(tale.nats for tale in val_tales))
    whole_tales = END_OF_TEXT + "".join(tale.text + END_OF_TEXT for tale in tales(5, 64))
    assert told.train_ids[told.alike_from :] == told.tokenizer.encode(whole_tales, {END_OF_TEXT})


def test_a_run_says_how_near_it_is_to_the_entropy(few_tales, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = [word for name, value in QUICK.items() for word in ("--" + name.replace("_", "-"), str(value))]
    assert main(["pretrain", "--preset", "tales", *argv, "--json"]) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert summary["folder"] == "runs/tales"
    assert summary["entropy"] == pytest.approx(0.205, abs=0.02)
    assert f"the text's own entropy {summary['entropy']:17.3f}" in err
    assert summary["steps"] == 14  # of 8 documents: 28 drills, 16 tales in brief, 64 tales
    assert summary["train_loss"] == pytest.approx(summary["val_loss"], abs=0.3)
    assert summary["prompt"] == "Once there was"
    model, tokenizer = load_run("runs/tales")
    rows = []
    with model.on_forward(lambda module, args, out: rows.append(args[0])):
        "".join(stream_text(model, tokenizer, "Once there", 1))
        choose(model, tokenizer, "Once there", [" was", " is"])
    assert {int(np.asarray(ids)[0][0]) for ids in rows} == {
        tokenizer.eot_id
    }  # a prompt is read like the tales of training
    assert tokenizer.name == "word"
    assert not any(words in tokenizer.words for words in ("Ada", "kite"))
    found = evaluate_run("runs/tales", sample_tokens=5)
    assert found.loss == pytest.approx(summary["val_loss"], rel=1e-5)
    assert found.text == "validation part of the tales"
    assert found.copied is not None
    (tmp_path / "other.txt").write_text(next(tales(9, 1, "validation")).text)
    elsewhere = evaluate_run("runs/tales", tmp_path / "other.txt", sample_tokens=5)
    assert elsewhere.text == str(tmp_path / "other.txt")
    assert elsewhere.copied == found.copied  # the sample, put beside what the run was trained on
    assert main(["doctor", "runs/tales"]) in (0, 1)
    assert "the tales: " in capsys.readouterr().out


def test_what_a_config_says_of_tales_is_checked(few_tales, tmp_path, capsys):
    run = pretrain(preset="tales", out=tmp_path / "run", report=lambda line: None, max_steps=1, **QUICK)
    path = run.folder / "config.json"
    config = json.loads(path.read_text())
    for seed, words in [("x", "training.seed is 'x'"), (-1, "training.seed is -1"), (None, "seed is None")]:
        path.write_text(json.dumps(config | {"training": config["training"] | {"seed": seed}}))
        assert main(["evaluate", str(run.folder)]) == 2
        err = capsys.readouterr().err
        assert words in err
        assert err.count("\n") == 1


def test_a_run_on_documents_is_judged_as_it_was_trained(tmp_path):
    texts = [tale.text for tale in tales(3, 60)]
    (tmp_path / "tales.txt").write_text(END_OF_TEXT.join(texts))
    sizes = QUICK | {"context_length": 256, "max_steps": 3, "batch_size": 4}
    run = pretrain(
        tmp_path / "tales.txt",
        out=tmp_path / "run",
        tokenizer="word",
        windows="documents",
        report=lambda line: None,
        **sizes,
    )
    assert evaluate_run(run.folder, sample_tokens=5).loss == pytest.approx(run.val_loss, rel=1e-5)
    assert END_OF_TEXT not in run.sample


def test_a_run_goes_on_to_the_bit(few_tales, tmp_path):
    whole = pretrain(preset="tales", out=tmp_path / "whole", report=lambda line: None, save_every=2, keep=9, **QUICK)
    checkpoint = whole.folder / "step-000004"
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    for name in ("config.json", "tokenizer.txt", "metrics.jsonl", "samples.txt"):
        (stopped / name).write_bytes((whole.folder / name).read_bytes())
    checkpoint.rename(stopped / checkpoint.name)
    (stopped / "latest").write_text(checkpoint.name)
    again = resume(stopped, report=lambda line: None)
    assert again.metrics == whole.metrics
    for (name, one), (_, other) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert np.array_equal(one.data, other.data), name


def test_with_a_file_the_preset_is_the_sizes_alone(tmp_path):
    path = tmp_path / "rhyme.txt"
    path.write_text("The cat sat on the mat, as it did before. " * 60)
    sizes, story = PretrainOptions.defaults("tales"), PretrainOptions.defaults("story")
    run = pretrain(path, preset="tales", out=tmp_path / "run", report=lambda line: None, **QUICK, context_length=16)
    training = json.loads((run.folder / "config.json").read_text())["training"]
    for name in ("epochs", "tokenizer", "batch_size", "lr", "beta2", "stride"):
        assert training[name] == story[name]
    assert training["drop_rate"] == sizes["drop_rate"]
    assert run.entropy is None
    assert run.prompt == "The cat sat"
    assert not any("entropy" in line for line in run.lines())


def test_the_preset_has_between_one_and_two_million_parameters():
    sizes = PretrainOptions.for_preset("tales")
    assert 1e6 < sizes.model_config(WordTokenizer.train("\n".join(curriculum(1, 2000))).vocab_size).n_parameters() < 2e6


def test_what_does_not_go_with_tales(tmp_path):
    (tmp_path / "text.txt").write_text("once upon a time")
    with pytest.raises(ConfigError, match="tales have tales to validate with"):
        pretrain(preset="tales", val_file=str(tmp_path / "text.txt"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
