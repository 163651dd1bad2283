"""The task of hidden words: its loss and baselines against plain loops, what evaluations compare, and runs that go on."""

import json
import math
import os
import signal
from collections import Counter

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.doctor.doctor import examine
from tinygrad_llm.errors import ConfigError, ConfigMismatch
from tinygrad_llm.evaluation.masked import counting_baselines, masked_scores
from tinygrad_llm.models import make_model, pretraining_of
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.runs.curve import judge_plateau
from tinygrad_llm.runs.loggers import Logger
from tinygrad_llm.text import END_OF_TEXT, WordPieceTokenizer
from tinygrad_llm.training import PretrainOptions, continue_pretraining, load_run, pretrain, resume
from tinygrad_llm.training.masked_words import OBJECTIVE, MaskedWords, masked_loss, show_guesses
from tinygrad_llm.training.step import loss_and_gradients, shard_batch

SIZES = {"context_length": 24, "emb_dim": 32, "n_heads": 2, "n_layers": 1}
SHORT = {"context_length": 12, "batch_size": 32, "lr": 1e-2}  # of few places, which are soon told apart
QUICK = {
    "architecture": "bert",
    "vocab_size": 90,
    "batch_size": 8,
    "eval_batches": 2,
    "seed": 3,
    "report": lambda _: None,
}
OPTIONS = SIZES | QUICK


def story(n=120):
    """Documents in which a word tells the next, of two that know nothing of each other."""
    rng = np.random.default_rng(1)
    colours = {"cat": "red", "dog": "blue", "owl": "green", "hen": "grey"}
    told = []
    for _ in range(n):
        names = rng.choice(list(colours), 4)
        told.append(" ".join(f"the {name} is {colours[name]} and small ." for name in names))
    return END_OF_TEXT.join(told)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("masked") / "text.txt"
    path.write_text(story(), encoding="utf-8")
    return path


def trained(text, folder, **options):
    return pretrain(text, out=folder, **OPTIONS | {"max_steps": 8, "next_sentence": True} | options)


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    return trained(text, tmp_path_factory.mktemp("masked") / "run", max_steps=150, **SHORT)


def task_of(text, **options):
    options = {name: value for name, value in (OPTIONS | options).items() if name != "report"}
    if "tokenizer" in options:
        del options["vocab_size"]
    chosen = PretrainOptions.for_preset(of_files=True, **options)
    return MaskedWords(chosen.corpus([text]), chosen)


def log_softmax(scores):
    scores = scores - scores.max()
    return scores - math.log(np.exp(scores).sum())


# ---- the loss


@pytest.mark.parametrize("next_sentence", [True, False])
def test_the_loss_is_a_mean_over_hidden_words_and_one_over_texts(text, next_sentence):
    task = task_of(text, next_sentence=next_sentence)
    model = make_model("bert", task.options.model_config(task.tokenizer.vocab_size), Generator(1)).astype(np.float64)
    for p in model.parameters():
        p.data = p.data * 5  # far from where all is alike
    batch = next(iter(task.epoch(model)))
    ids, segments, lengths, targets, _weights, *more = batch
    assert bool(more) == next_sentence
    words, texts = [], []
    for b in range(len(ids)):  # a text at a time, without what fills it up, through the whole head
        row = slice(b, b + 1), slice(0, int(lengths[b]))
        logits = model(ids[row], segments[row]).data[0]
        for t in range(int(lengths[b])):
            if targets[b, t] != -100:
                words.append(-log_softmax(logits[t])[targets[b, t]])
        if next_sentence:
            scores = model.next_sentence(model.pooled(ids[row], segments[row])).data[0]
            texts.append(-log_softmax(scores)[more[0][b]])
    assert (targets[:, 24:] == -100).all()
    assert (targets != -100).sum() == len(words)
    expected = np.mean(words) + (np.mean(texts) if texts else 0)
    assert masked_loss(model, *batch).item() == pytest.approx(expected, rel=1e-6)  # weights are float32
    assert OBJECTIVE.count(*batch) == 1


def test_shards_of_a_batch_add_up_to_it(text):
    task = task_of(text, next_sentence=True)
    model = make_model("bert", task.options.model_config(task.tokenizer.vocab_size), Generator(1)).astype(np.float64)
    batch = tuple(
        each.astype(np.float64) if each.dtype == np.float32 else each for each in next(iter(task.epoch(model)))
    )
    parameters = list(model.parameters())
    whole, of_whole = loss_and_gradients(model, parameters, batch, [slice(0, 8)], OBJECTIVE)
    parts, of_parts = loss_and_gradients(model, parameters, batch, shard_batch(batch[0], 4), OBJECTIVE)
    assert parts == pytest.approx(whole, rel=1e-12)
    assert len(of_whole) == len(parameters)  # all learn, the head of texts and the pooler too
    for parameter in parameters:
        np.testing.assert_allclose(of_parts[parameter], of_whole[parameter], rtol=1e-9, atol=1e-12)


# ---- what evaluations compare


def test_evaluations_hide_the_same_words_and_draw_nothing(text):
    task, again = task_of(text), task_of(text)
    model = make_model("bert", task.options.model_config(task.tokenizer.vocab_size), Generator(1))
    with use_generator(Generator(5)) as rng:
        before = rng.get_state()
        first = task.evaluate(model, True)
        task.sample(model, 3, True)
        after = rng.get_state()
    assert str(before) == str(after)
    assert first == task.evaluate(model, True) == again.evaluate(model, True)
    for mine, other in zip(task.val_batches, again.val_batches, strict=True):
        np.testing.assert_array_equal(mine[0], other[0])


def test_words_are_hidden_anew_in_each_epoch(text):
    task = task_of(text)
    with use_generator(Generator(5)):
        first, second = (list(task.epoch(None)) for _ in range(2))
    assert len(first) == len(second) == len(task)
    assert sum(len(batch[0]) for batch in first) == len(task.documents)
    assert any(a[0].shape != b[0].shape or (a[0] != b[0]).any() for a, b in zip(first, second, strict=True))


def test_counting_baselines_are_plain_counts():
    rng, v = np.random.default_rng(1), 12
    train = rng.integers(2, v, 400)
    ids = rng.integers(0, v, (3, 9))
    targets = np.where(rng.random(ids.shape) < 0.4, rng.integers(2, v, ids.shape), -100)
    targets[:, [0, -1]] = -100
    found = counting_baselines(train, [(ids, None, None, targets, None)], v, [0, 1])
    counts = Counter(train.tolist())
    alone = np.array([counts[w] + 1.0 if w > 1 else 0.0 for w in range(v)])
    alone /= alone.sum()
    pairs = Counter(zip(train[:-1].tolist(), train[1:].tolist(), strict=True))

    def given(weigh):
        p = np.array([alone[w] + (weigh(w) if w > 1 else 0) for w in range(v)])
        return p / p.sum()

    losses, right = Counter(), Counter()
    places = [(b, t) for b in range(3) for t in range(9) if targets[b, t] != -100]
    for b, t in places:
        left, behind = int(ids[b, t - 1]), int(ids[b, t + 1])
        before = given(lambda w, left=left: pairs[left, w])
        after = given(lambda w, behind=behind: pairs[w, behind])
        both = np.array([before[w] * after[w] / alone[w] if alone[w] else 0 for w in range(v)])
        for name, p in {"unigram": alone, "bigram": before, "neighbours": both / both.sum()}.items():
            losses[name] -= math.log(p[targets[b, t]])
            right[name] += p.argmax() == targets[b, t]
    for name, scores in found.items():
        assert scores.word_loss == pytest.approx(losses[name] / len(places), rel=1e-9)
        assert scores.word_accuracy == right[name] / len(places)
    assert set(found) == {"unigram", "bigram", "neighbours"}


def test_scores_are_means_over_words_not_over_batches(run, text):
    task = task_of(text, next_sentence=True, **SHORT)
    model = run.model
    together = masked_scores(model, task.val_batches)
    rows = [tuple(each[i : i + 1] for each in batch) for batch in task.val_batches for i in range(len(batch[0]))]
    apart = masked_scores(model, rows)
    assert vars(together) == pytest.approx(vars(apart), rel=1e-5)


def test_a_sample_shows_the_guess_beside_each_hidden_word():
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s"])
    p = np.full((6, 9), 0.05)
    p[2, 6] = p[4, 7] = 0.6
    ids, targets = np.array([2, 5, 4, 7, 4, 3]), np.array([-100, -100, 6, -100, 8, -100])
    assert show_guesses(tokenizer, ids, targets, p) == "the [cat] sat [##s: sat 0.60]"


# ---- a run


def test_a_run_learns_what_counting_cannot_and_says_so(run, capsys):
    assert run.scores.word_accuracy > run.baselines["unigram"].word_accuracy + 0.3
    assert run.val_loss < run.baselines["unigram"].word_loss - 1
    assert run.metrics[0]["val_loss"] == pytest.approx(math.log(run.tokenizer.vocab_size), abs=0.3)
    told = "\n".join(run.lines())
    for words in ("which words come often", "and the words on both sides", "the model", "does the second part follow?"):
        assert words in told
    summary = json.loads(json.dumps(run.summary()))
    assert summary["word_accuracy"] == run.scores.word_accuracy
    assert set(summary["baselines"]) == {"unigram", "bigram", "neighbours"}
    config = json.loads((run.folder / "config.json").read_text())
    assert (config["task"], config["architecture"]) == ("masked_words", "bert")
    assert config["training"]["mask_share"] == 0.15
    model, tokenizer = load_run(run.folder)
    assert isinstance(tokenizer, WordPieceTokenizer)
    assert not tokenizer.marks_prompts
    assert model.config.next_sentence
    assert (run.folder / "samples.txt").read_text().count("[") > 3


class Stop(Logger):
    def log_step(self, step, loss, lr):
        if step == 9:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("windows", ["shuffled", "documents"])
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(text, tmp_path, windows):
    options = {"max_steps": 14, "drop_rate": 0.1, "windows": windows, "batch_size": 6}  # within the second epoch
    whole = trained(text, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        trained(text, tmp_path / "run", loggers=[Stop()], **options)
    more = resume(tmp_path / "run", report=QUICK["report"])
    assert more.metrics == whole.metrics
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(more.model.state_dict()[name], value)
    assert more.sample == whole.sample
    with pytest.raises(ConfigMismatch, match="next_sentence: True there, False here"):
        resume(tmp_path / "run", next_sentence=False, report=QUICK["report"])
    resume(tmp_path / "run", mask_share=0.3, max_steps=15, report=QUICK["report"])
    (change,) = json.loads((tmp_path / "run" / "config.json").read_text())["changes"]
    assert change["mask_share"] == [0.15, 0.3]


def test_going_on_with_the_weights_of_others(run, text, tmp_path):
    more = continue_pretraining(
        run.folder, text, out=tmp_path / "more", max_steps=6, batch_size=8, lr=1e-3, seed=3, report=QUICK["report"]
    )
    kept = task_of(text, tokenizer=str(run.folder), **SHORT | {"batch_size": 8}).val_batches
    assert more.continued.domain_before == pytest.approx(masked_scores(run.model, kept).word_loss)
    assert more.model.config == run.model.config
    assert "val_next_loss" not in more.metrics[-1]  # of files a second document is not sure
    again = resume(tmp_path / "more", max_steps=8, report=QUICK["report"])
    assert again.metrics[-1]["step"] == 8


def test_the_command_and_the_doctor(text, tmp_path, capsys):
    argv = (
        f"pretrain {text} --architecture bert --vocab-size 60 --context-length 16 --emb-dim 8 --n-heads 2 --n-layers 1"
    )
    argv += f" --max-steps 3 --out {tmp_path / 'run'} --next-sentence --json"
    assert main(argv.split()) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["steps"] == 3
    assert 0 <= summary["next_accuracy"] <= 1
    found = {finding.check: finding for finding in examine(tmp_path / "run")}
    assert found["curve: plateau"].verdict == "look"
    assert "counting words" in found["curve: plateau"].text
    assert found["curve: start"].verdict == "ok"
    assert not [name for name, finding in found.items() if finding.verdict == "wrong" and name != "curve: fall"]
    assert main(["generate", str(tmp_path / "run"), "--prompt", "the"]) == 2
    assert "predict, embed, classify ask it" in capsys.readouterr().err


def test_a_plateau_is_told_from_learning():
    rows = [{"step": i, "val_loss": loss, "train_loss": loss, "lr": 1e-3} for i, loss in enumerate([7.0, 5.2, 5.01])]
    assert judge_plateau(rows, 5.0).verdict == "look"
    assert judge_plateau([*rows, rows[-1] | {"val_loss": 4.7}], 5.0).verdict == "ok"
    assert judge_plateau(rows).verdict == "ok"


def test_tales_for_a_bert(monkeypatch, tmp_path):
    monkeypatch.setattr(tg.text.corpus, "_TALES", 64)
    monkeypatch.setattr(tg.text.corpus, "_VAL_TALES", 16)
    small = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "max_steps": 2, "report": QUICK["report"]}
    found = pretrain(preset="tales-bert", out=tmp_path / "run", **small)
    assert found.scores.next_accuracy is not None


# ---- what is refused


def test_architectures_say_what_they_are_pretrained_by():
    assert {name: pretraining_of(name) for name in ("gpt", "llama", "bert", "seq2seq")} == {
        "gpt": "pretrain",
        "llama": "pretrain",
        "bert": "masked_words",
        "seq2seq": "",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "seq2seq"}, "preset is .transformer-base.: use one of tales-bert, bert-tiny"),
        ({"architecture": "gpt", "mask_share": 0.2}, "mask_share is 0.2: a gpt has no such option"),
        ({"architecture": "gpt", "next_sentence": True}, "next_sentence is True: a gpt has no such option"),
        ({"architecture": "bert", "mask_share": 0.0}, "mask_share is 0: there would be no word to guess"),
        ({"architecture": "bert", "mask_share": 1.0}, "mask_share is 1.0"),
        ({"architecture": "bert", "windows": "random"}, "windows is 'random': a bert has 'shuffled' or 'documents'"),
        ({"architecture": "bert", "prompt": "Una"}, "prompt is 'Una': a bert does not write on"),
        ({"architecture": "bert", "qkv_bias": True}, "qkv_bias is True: a bert has no such option"),
        ({"architecture": "bert", "emb_dim": 10, "n_heads": 4}, "n_heads 4 does not divide emb_dim 10"),
    ],
)
def test_what_goes_with_the_other_of_both_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        PretrainOptions.for_preset(**options)


def test_a_text_of_one_document_and_tokenizers_without_marks_are_refused(text, tmp_path):
    (tmp_path / "one.txt").write_text("one two three. " * 40)
    with pytest.raises(ConfigError, match="next_sentence needs a second document"):
        trained(tmp_path / "one.txt", tmp_path / "run")
    with pytest.raises(ConfigError, match=r"tokenizer is .char.: words are hidden by a \[MASK\]"):
        pretrain(
            text, out=tmp_path / "run", **{k: v for k, v in OPTIONS.items() if k != "vocab_size"}, tokenizer="char"
        )
    assert not (tmp_path / "run").exists()
