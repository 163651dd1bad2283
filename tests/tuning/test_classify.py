"""Fine-tuning as a classifier: what learns and what does not, the parts, resuming, the record, bad input."""

import csv
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stopping import StopAfter

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.doctor.doctor import examine
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch, DataError
from tinygrad_llm.models import build_model, describe_model
from tinygrad_llm.models.heads import add_classifier, class_logits
from tinygrad_llm.nn.lora import LoRAConfig, inject, lora_of
from tinygrad_llm.optim import AdamW, decay_groups
from tinygrad_llm.rng import Generator, Zeros, use_generator
from tinygrad_llm.runs.checkpoint import list_checkpoints
from tinygrad_llm.runs.folder import load_config, load_run, save_model, write_config
from tinygrad_llm.runs.records import read_run
from tinygrad_llm.text import WordTokenizer
from tinygrad_llm.training import pretrain, train_step
from tinygrad_llm.tuning.classify import (
    OBJECTIVE,
    Classification,
    classify,
    evaluate_classifier,
    resume_classification,
)
from tinygrad_llm.tuning.lora import merge, save
from tinygrad_llm.tuning.options import ClassifyOptions
from tinygrad_llm.tuning.predict import Classifier
from tinygrad_llm.tuning.run import freeze
from tinygrad_llm.tuning.splits import make_splits
from tinygrad_llm.weights.peft import load_adapter

SMALL = {"emb_dim": 16, "n_heads": 2, "n_layers": 2, "context_length": 64, "drop_rate": 0.1}
QUICK = SMALL | {"epochs": 2, "examples": 48, "eval_every": 2, "save_every": 4}


def quiet(line):
    pass


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A language model of the bundled story, hardly trained."""
    folder = tmp_path_factory.mktemp("runs") / "story"
    sizes = {"tokenizer": "bpe", "vocab_size": 300, "context_length": 64, "emb_dim": 16, "n_heads": 2, "n_layers": 2}
    pretrain(out=folder, report=quiet, max_steps=2, **sizes)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "messages"
    classify("messages", out=folder, report=quiet, **QUICK)
    return folder


def table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def fruits(path, n=60):
    """Texts that a word tells apart, every tenth of them twice."""
    rng = np.random.RandomState(0)
    rows = [(f"the {kind} number {i} is {'red and ripe' if kind == 'apple' else 'yellow and long'}", kind)
            for i in range(n) for kind in rng.permutation(["apple", "banana"])]  # fmt: skip
    return table(path, rows + rows[::10])


# ---- what learns


@pytest.mark.parametrize("train", ["head", "last_block", "all", "lora"])
def test_only_what_is_to_learn_changes(train, story, tmp_path):
    lora = {"lora": "r=2,alpha=4,targets=W_query"} if train == "lora" else {"train": train}
    result = classify(fruits(tmp_path / "a.csv"), init_from=story, out=tmp_path / "run", report=quiet, epochs=1, **lora)
    before = load_run(story)[0].state_dict()
    changed = {name for name, value in result.model.state_dict().items() if not np.array_equal(before.get(name), value)}
    learning = {
        "head": ("out_head.",),
        "last_block": ("out_head.", "final_norm.", "trf_blocks.1."),
        "all": ("",),
        "lora": ("out_head.", "trf_blocks.0.att.W_query.lora_", "trf_blocks.1.att.W_query.lora_"),
    }[train]
    still = {"pos_emb.weight"} if train == "all" else set()  # of which not all rows are read, but some
    assert changed | still == {name for name in result.model.state_dict() if name.startswith(learning)}
    trained = sum(p.size for name, p in result.model.named_parameters() if name.startswith(learning))
    assert result.trained_parameters == trained
    assert (lora_of(result.model) is not None) == (train == "lora")
    for name, value in load_run(tmp_path / "run")[0].state_dict().items():  # which opens alone
        np.testing.assert_array_equal(value, result.model.state_dict()[name])


def test_the_head_can_learn_through_lora_too(story, tmp_path):
    options = {"init_from": story, "report": quiet, "max_steps": 1}
    result = classify("messages", out=tmp_path / "run", lora="r=2,targets=W_query+out_head", **options)
    assert {name for name, p in result.model.named_parameters() if p.requires_grad} == {
        f"{path}.lora_{letter}"
        for path in ("trf_blocks.0.att.W_query", "trf_blocks.1.att.W_query", "out_head")
        for letter in "AB"
    }
    assert Classifier.load(tmp_path / "run").classes == ("ham", "spam")


def test_a_base_with_lora_is_taken_with_it_folded_in(story, tmp_path):
    model, tokenizer = load_run(story)
    inject(model, LoRAConfig(r=2), Generator(1))
    for name, p in model.named_parameters():
        if name.endswith("lora_B"):
            p.data += 0.1
    config = load_config(story) | describe_model(model)
    (tmp_path / "base").mkdir()
    write_config(tmp_path / "base", config)
    tokenizer.save(tmp_path / "base")
    save_model(tmp_path / "base", model)
    (tmp_path / "base/metrics.jsonl").write_bytes((story / "metrics.jsonl").read_bytes())
    result = classify(
        "messages", init_from=tmp_path / "base", out=tmp_path / "run", report=quiet, max_steps=1, train="head"
    )
    assert lora_of(result.model) is None
    ids = np.arange(20).reshape(2, 10)
    np.testing.assert_allclose(result.model.eval().features(ids).data, model.features(ids).data, rtol=1e-4, atol=1e-5)


def test_the_last_block_of_the_book_s_model_has_as_many_parameters_as_in_the_book():
    config = {
        "vocab_size": 50257,
        "context_length": 1024,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "qkv_bias": True,
    }
    model = build_model({"model": config | {"tie_weights": True}, "head": {"classes": ["not spam", "spam"]}}, Zeros())
    freeze(model, "last_block")
    assert model.n_parameters() == 124_441_346
    assert sum(p.size for p in model.parameters() if p.requires_grad) == 7_090_946


def test_frozen_parameters_have_no_moments(story, tmp_path):
    classify(fruits(tmp_path / "a.csv"), init_from=story, out=tmp_path / "run", report=quiet, train="head", max_steps=2)
    checkpoint = list_checkpoints(tmp_path / "run")[0]
    assert (checkpoint / "optimizer.safetensors").stat().st_size < (checkpoint / "model.safetensors").stat().st_size / 2


def test_a_step_is_that_of_a_plain_loop(tmp_path):
    """The weighted mean of the classes' losses, and its gradients, against one text after the other."""
    path = table(
        tmp_path / "a.csv", [(f"a {word} of {i}", "big" if i % 4 else "small") for i in range(60) for word in ("cat",)]
    )
    options = ClassifyOptions(
        **ClassifyOptions.defaults() | SMALL | {"balance": "weights", "drop_rate": 0.0, "batch_size": 6}
    )
    splits = make_splits(path, 1, balance="weights", keep_duplicates=False, examples=0)
    task = Classification(splits, options, WordTokenizer.train(splits.train.texts))
    model = build_model({"model": {"vocab_size": task.tokenizer.vocab_size, **SMALL, "drop_rate": 0.0}}, Generator(1))
    model = add_classifier(model.astype(np.float64), splits.classes, rng=Generator(2))
    with use_generator(Generator(3)):
        ids, lengths, labels, weights = next(task.epoch(model))
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    total = norm = 0.0
    for row, length, label in zip(ids, lengths, labels, strict=True):
        loss = tg.ops.cross_entropy(model(row[None, :length])[:, -1], targets=np.array([label]))
        weight = splits.class_weights[label]
        total, norm = total + loss * weight, norm + weight
    (total / norm).backward()
    expected = {name: p.grad.copy() for name, p in model.named_parameters()}
    found = OBJECTIVE.loss(model, ids, lengths, labels, weights.astype(np.float64))
    assert found.item() == pytest.approx((total / norm).item(), rel=1e-6)
    model.zero_grad()
    found.backward()
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad, expected[name], rtol=1e-5, atol=1e-9, err_msg=name)
    assert len(np.unique(splits.class_weights)) == 2


def test_a_batch_in_parts_and_on_threads_is_the_batch(story, tmp_path):
    found = []
    splits = make_splits(fruits(tmp_path / "a.csv"), 1, balance="none", keep_duplicates=False, examples=0)
    for how in ({}, {"threads": 1}, {"accumulate": 3, "threads": 1}):
        model, tokenizer = load_run(story)
        task = Classification(splits, ClassifyOptions.choose(model, batch_size=6), tokenizer)
        add_classifier(model, splits.classes, rng=Generator(2))
        freeze(model, "last_block")
        optimizer = AdamW(decay_groups(model.parameters(), "all"), lr=1e-3)
        with use_generator(Generator(3)):
            loss = train_step(model, optimizer, *next(task.epoch(model)), objective=OBJECTIVE, **how)
        found.append((loss, model.out_head.weight.data.copy()))
    for loss, weight in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        np.testing.assert_allclose(weight, found[0][1], rtol=1e-4, atol=1e-6)


# ---- a run


def test_a_run_learns_what_a_word_tells(tmp_path):
    lines = []
    result = classify(
        fruits(tmp_path / "fruits.csv"), out=tmp_path / "run", report=lines.append, **SMALL, epochs=8, lr=5e-3
    )
    assert result.test.accuracy == 1.0
    assert result.baselines["majority"].accuracy < 0.7
    assert result.duplicates_removed == 12
    assert result.test.n == 120 - int(0.7 * 120) - int(0.1 * 120)
    text = "\n".join(lines)
    for said in ("12 texts occur again", "84 texts to train on, 12 to validate with, 24 to test on",
                 "always the largest class", "naive Bayes on words", "the model", "tinygrad-llm predict"):  # fmt: skip
        assert said in text, said
    summary = json.loads(json.dumps(result.summary()))
    assert summary["test_accuracy"] == 1.0
    assert summary["baselines"].keys() == {"majority", "features", "naive_bayes", "bag_of_words"}
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "config.json",
        "tokenizer.txt",
        "metrics.jsonl",
        "samples.txt",
        "predictions.jsonl",
        "model.safetensors",
    } <= files
    told = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert len(told) == result.test.n
    classifier = Classifier.load(tmp_path / "run")
    p = classifier.probabilities([row["text"] for row in told])
    assert (
        [classifier.classes[k] for k in p.argmax(1)]
        == [row["predicted"] for row in told]
        == [row["label"] for row in told]
    )
    np.testing.assert_allclose(p, [row["probabilities"] for row in told], atol=2e-6)


@pytest.mark.parametrize("targets", ["attn", "all", "ff.layers.*"])
def test_an_adapter_makes_the_same_classifier_of_its_base(targets, story, tmp_path):
    result = classify(
        "messages", init_from=story, out=tmp_path / "run", report=quiet, lora=f"r=2,targets={targets}", max_steps=2
    )
    save(result.model, tmp_path / "adapter")
    texts = ["call now to win", "see you"]
    ours = Classifier.load(tmp_path / "run").probabilities(texts)
    table(tmp_path / "judged.csv", [(text, "spam") for text in texts])
    assert (
        main(["evaluate", str(story), "--adapter", str(tmp_path / "adapter"), "--text", str(tmp_path / "judged.csv")])
        == 0
    )
    assert main(["generate", str(story), "--adapter", str(tmp_path / "adapter"), "--prompt", "a"]) == 2
    base = Classifier.load(story, adapter=tmp_path / "adapter")
    assert base.classes == ("ham", "spam")
    np.testing.assert_allclose(base.probabilities(texts), ours, rtol=1e-5)
    merged, _ = load_run(tmp_path / "run")
    merge(merged)
    np.testing.assert_allclose(
        Classifier(merged, base.tokenizer, base.max_length).probabilities(texts), ours, rtol=1e-4
    )


def test_an_adapter_that_does_not_fit_leaves_the_model_alone(story, tmp_path):
    result = classify("messages", init_from=story, out=tmp_path / "run", report=quiet, lora="r=2", max_steps=1)
    save(result.model, tmp_path / "adapter")
    other = build_model({"model": SMALL | {"vocab_size": 300, "emb_dim": 32}}, Generator(1))
    with pytest.raises(tg.errors.StateDictError):
        load_adapter(other, tmp_path / "adapter")
    assert other.classes is None
    assert other.out_head.weight.shape == (300, 32)


def test_the_record_names_the_classes(run):
    config = load_config(run)
    assert config["task"] == "classify"
    assert config["head"] == {"classes": ["ham", "spam"], "position": "last", "bias": True, "causal": True}
    assert config["training"]["max_length"] > 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[0].keys() >= {"train_loss", "val_loss", "train_accuracy", "val_accuracy"}
    assert rows[0]["val_loss"] == pytest.approx(math.log(2), abs=0.2)


def test_evaluation_is_that_of_the_run_or_of_other_texts(tmp_path):
    data = fruits(tmp_path / "a.csv")
    result = classify(data, out=tmp_path / "run", report=quiet, **SMALL, epochs=4, lr=5e-3)
    name, scores = evaluate_classifier(tmp_path / "run")
    assert name == "the texts kept for testing"
    assert scores == result.test
    table(tmp_path / "b.csv", [("the apple is red and ripe", "apple"), ("the banana is red and ripe", "apple")])
    assert evaluate_classifier(tmp_path / "run", tmp_path / "b.csv")[1].support == (2, 0)
    table(tmp_path / "c.csv", [("the apple is red", "pear"), ("the banana is red", "apple")])
    with pytest.raises(DataError, match="'pear' is none of the classes"):
        evaluate_classifier(tmp_path / "run", tmp_path / "c.csv")
    data.write_text(data.read_text().replace("red", "green"))
    with pytest.raises(DataError, match="not the texts any more"):
        evaluate_classifier(tmp_path / "run")


def test_the_doctor_and_the_list_of_runs_know_it(run):
    found = {finding.check: finding for finding in examine(run)}
    assert {"weights", "checkpoints", "curve: start", "curve: validation"} <= found.keys()
    assert all(found[check].verdict != "wrong" for check in found), found
    assert "where chance among 2 is 0.693" in found["curve: start"].text
    record = read_run(run)
    assert record.n_parameters == load_run(run)[0].n_parameters()


@pytest.mark.parametrize("options", [{}, {"position": "mean"}, {"lora": "r=2,alpha=4,dropout=0.2"}, {"train": "head"}])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(options, story, tmp_path):
    chosen = {"init_from": story, "epochs": 2, "eval_every": 3, "save_every": 5, "drop_rate": 0.1, **options}
    data = fruits(tmp_path / "a.csv", 40)
    whole = classify(data, out=tmp_path / "whole", report=quiet, **chosen)
    with pytest.raises(KeyboardInterrupt):
        classify(data, out=tmp_path / "cut", report=quiet, loggers=[StopAfter(9)], **chosen)
    resumed = resume_classification(tmp_path / "cut", report=quiet)
    for name, value in whole.model.state_dict().items():
        assert resumed.model.state_dict()[name].tobytes() == value.tobytes(), name
    for file in ("metrics.jsonl", "samples.txt", "predictions.jsonl", "model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_a_finished_run_can_be_longer(run, tmp_path):
    with pytest.raises(ConfigError, match=r"finished its 2 epochs: to go on, give more \(epochs, --epochs\)"):
        resume_classification(run, report=quiet)
    lines = []
    result = resume_classification(run, report=lines.append, epochs=3)
    assert "  epochs: 2 until now, 3 from here on" in lines
    assert result.metrics[-1]["epoch"] == 3


@pytest.mark.parametrize(
    "change",
    [{"position": "first"}, {"seed": 5}, {"balance": "none"}, {"train": "head"}, {"emb_dim": 32}, {"max_length": 5}],
)
def test_what_stays_in_a_resumed_run(change, run):
    (name,) = change
    with pytest.raises(ConfigMismatch, match=name):
        resume_classification(run, report=quiet, **change)


def test_texts_that_have_changed_are_not_gone_on_with(tmp_path):
    data = fruits(tmp_path / "a.csv", 30)
    with pytest.raises(KeyboardInterrupt):
        classify(data, out=tmp_path / "run", report=quiet, loggers=[StopAfter(2)], **SMALL, epochs=2)
    data.write_text(data.read_text().replace("red", "green"))
    with pytest.raises(DataError, match="not the texts any more that this run began with"):
        resume_classification(tmp_path / "run", report=quiet)


def test_a_run_of_another_task(story, run):
    with pytest.raises(CheckpointError, match="task is 'pretrain'"):
        resume_classification(story, report=quiet)
    with pytest.raises(CheckpointError, match="task is 'classify': only 'pretrain' and 'masked_words' go on here"):
        tg.training.resume(run, report=quiet)
    with pytest.raises(CheckpointError, match=r"a classifier \(ham, spam\)"):
        classify("messages", init_from=run, out=run.parent / "other", report=quiet)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"classes": []}, "one or more"),
        ({"classes": ["ham"]}, "out_head"),
        ({"classes": ["ham", "spam"], "position": "end"}, "position is 'end'"),
        ({"classes": 7}, "head.classes is 7"),
        ([], r"head is \[\]"),
        ({"classes": ["ham", "spam", "eggs"]}, "out_head"),
    ],
)
def test_a_stranger_s_record(head, message, run, tmp_path):
    for name in ("tokenizer.txt", "model.safetensors", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(load_config(run) | {"head": head}))
    with pytest.raises(CheckpointError, match=message):
        Classifier.load(tmp_path)


def test_the_doctor_looks_at_a_stranger_s_head(run, tmp_path):
    for name in ("tokenizer.txt", "model.safetensors", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(load_config(run) | {"head": {"classes": 7}}))
    found = list(examine(tmp_path))
    assert [finding.check for finding in found if finding.verdict == "wrong"] == ["weights"]
    assert not any("Error: " in finding.text for finding in found)  # of a class that is not ours
    (tmp_path / "config.json").write_text(json.dumps(load_config(run) | {"head": []}))
    with pytest.raises(CheckpointError, match=r"head is \[\]: it must be an object"):
        list(examine(tmp_path))


@pytest.mark.parametrize("max_length", [0.5, -1, 10**9, "ten", True])
def test_a_stranger_s_length(max_length, run, tmp_path):
    for name in ("tokenizer.txt", "model.safetensors", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    config = load_config(run)
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"training": config["training"] | {"max_length": max_length}})
    )
    with pytest.raises(CheckpointError, match="max_length"):
        Classifier.load(tmp_path)


# ---- positions and lengths


def test_the_padded_position_fills_every_row_up(story, tmp_path):
    options = {"max_steps": 1, "position": "padded", "max_length": 12}
    result = classify(fruits(tmp_path / "a.csv"), init_from=story, out=tmp_path / "run", report=quiet, **options)
    assert result.truncated > 0
    classifier = Classifier.load(tmp_path / "run")
    ids = classifier.rows(["the apple"])
    padded = np.full((1, 12), classifier.pad_id)
    padded[0, : len(ids[0])] = ids[0]
    scores = class_logits(classifier.model, padded, np.array([len(ids[0])])).data
    expected = np.exp(scores[0] - scores[0].max()) / np.exp(scores[0] - scores[0].max()).sum()
    np.testing.assert_allclose(classifier.probabilities(["the apple"])[0], expected, rtol=1e-5)


def test_texts_are_judged_alone_or_together_alike(run):
    classifier = Classifier.load(run)
    texts = ["WINNER!! claim your prize", "see you at home", "a", "call 0800 now to win a free phone " * 40]
    together = classifier.probabilities(texts)
    for text, p in zip(texts, together, strict=True):
        np.testing.assert_allclose(classifier.probabilities([text])[0], p, rtol=1e-4)
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-12)
    assert classifier.probabilities([]).shape == (0, 2)
    with pytest.raises(DataError, match="has no token"):
        classifier.probabilities(["fine", ""])


def test_gradient_times_input_against_differences(run):
    classifier = Classifier.load(run)
    model = classifier.model.astype(np.float64)
    text = "see you at home now, or call me"
    explained = classifier.explain(text, "spam")
    assert b"".join(explained.tokens) == classifier.tokenizer.decode_bytes(explained.ids)
    table, ids = model.tok_emb.weight.data, explained.ids
    score = class_logits(model, np.array([ids]), np.array([len(ids)])).data[0, 1]
    for position in range(len(ids)):
        own = len(table)  # a row for this one token alone, which is made larger
        model.resize_vocabulary(own + 1)
        model.tok_emb.weight.data[own] = table[ids[position]] * (1 + 1e-6)
        changed = np.array([[*ids[:position], own, *ids[position + 1 :]]])
        slope = (class_logits(model, changed, np.array([len(ids)])).data[0, 1] - score) / 1e-6
        assert explained.shares[position] == pytest.approx(slope, rel=1e-3, abs=1e-6), position
        model.tok_emb.weight.data = table
        object.__setattr__(model, "config", type(model.config)(**model.config.to_dict() | {"vocab_size": len(table)}))
    assert classifier.explain(text).label in ("ham", "spam")


def test_texts_are_explained_on_two_threads_as_on_one(run):
    classifier = Classifier.load(run)
    texts = ["call me now", "see you at home, or call", "a", "you are at home now, are you"] * 4
    alone = [classifier.explain(text) for text in texts]
    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(alone, pool.map(classifier.explain, texts), strict=True):
            assert one.ids == other.ids
            np.testing.assert_array_equal(one.shares, other.shares)


# ---- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "some"}, "train is 'some': use one of head, last_block, all, lora"),
        ({"train": "lora"}, "train is 'lora' and lora is ''"),
        ({"train": "all", "lora": "r=2"}, "they go together"),
        ({"lora": "r=0"}, "LoRA: r is 0"),
        ({"lora": "rank=2"}, "rank"),
        ({"lora": "targets=W_nothing"}, "W_nothing"),
        ({"position": "middle"}, "position is 'middle'"),
        ({"balance": "much"}, "balance is 'much'"),
        ({"max_length": 1000}, "max_length is 1000: the model reads 256"),
        ({"examples": -1}, "examples is -1"),
        ({"epoch": 3}, r"has no option 'epoch' \(did you mean epochs\?\)"),
        ({"text": "body"}, "messages comes with the package"),
        ({"emb_dim": 10, "n_heads": 4}, "n_heads 4 does not divide emb_dim 10"),
    ],
)
def test_options_that_cannot_be(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        classify("messages", out=tmp_path / "run", report=quiet, **options)
    assert not (tmp_path / "run").exists()


def test_what_the_weights_decide_is_no_option(story, tmp_path):
    with pytest.raises(ConfigError, match="emb_dim is 8: with init_from it is that of the weights"):
        classify("messages", init_from=story, out=tmp_path / "run", report=quiet, emb_dim=8)


def test_a_character_that_the_tokenizer_does_not_know(tmp_path):
    sizes = {"context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "tokenizer": "char"}
    pretrain(out=tmp_path / "story", report=quiet, max_steps=1, **sizes)
    path = table(tmp_path / "a.csv", [(f"snow {i} ☃", "yes" if i % 2 else "no") for i in range(40)])
    with pytest.raises(tg.errors.TokenizerError, match="☃"):
        classify(path, init_from=tmp_path / "story", out=tmp_path / "run", report=quiet)


def test_a_class_without_a_text_to_learn_from_is_said_before_training(tmp_path):
    with pytest.raises(DataError, match="of 3 texts to learn from none is"):
        classify("moods", out=tmp_path / "run", report=quiet, examples=3)
    assert not (tmp_path / "run").exists()


def test_too_few_texts(tmp_path):
    path = table(tmp_path / "a.csv", [("one", "yes"), ("two", "no"), ("three", "no")])
    with pytest.raises(DataError, match=re.escape("take more texts of it")):
        classify(path, out=tmp_path / "run", report=quiet)
    with pytest.raises(DataError, match=r"absent\.csv"):
        classify(tmp_path / "absent.csv", out=tmp_path / "run", report=quiet)
