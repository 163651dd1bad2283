import json
import math
import re
import sys
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    NonFiniteError,
    TokenizerError,
)
from tinygrad_llm.evaluation import longest_copied_run
from tinygrad_llm.evaluation.losses import all_windows, mean_loss
from tinygrad_llm.training import PretrainOptions, load_run, pretrain, resume

TINY = {"context_length": 16, "emb_dim": 16, "n_heads": 2, "n_layers": 1, "batch_size": 8, "sample_tokens": 6}
TINY |= {"stride": 0, "seed": 3}


def silent(line: str) -> None: ...


@pytest.fixture(scope="module")
def rhyme(tmp_path_factory):
    """A text that repeats itself, with different words in every line: half of it can be learned."""
    lines = [
        f"The {who} {what} the {where}, as it did before.\n"
        for who, what, where in product(("cat", "dog", "fox"), ("sat on", "ran to", "dug up"), ("mat", "log", "bed"))
    ]
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(lines) * 2, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def result(rhyme, tmp_path_factory):
    lines = []
    result = pretrain(
        rhyme,
        out=tmp_path_factory.mktemp("runs") / "rhyme",
        report=lines.append,
        epochs=24,
        lr=1e-2,
        **TINY | {"stride": 8},
    )
    return result, lines


def test_it_learns_what_can_be_learned(result):
    run, _ = result
    assert run.metrics[0]["step"] == 0
    assert run.metrics[0]["train_loss"] == pytest.approx(run.chance_loss, abs=0.7)
    assert run.train_loss < 0.5 * run.unigram_train_loss < run.chance_loss
    assert run.val_loss < 0.7 * run.unigram_val_loss


def test_the_folder_holds_the_run(result, rhyme):
    run, lines = result
    names = {"config.json", "loss.png", "metrics.jsonl", "model.safetensors", "samples.txt", "tokenizer.txt", "latest"}
    names |= {"speed.jsonl"}
    steps = sorted({run.metrics[-2]["step"], run.metrics[-1]["step"], run.best_step})
    assert {path.name for path in run.folder.iterdir()} == names | {f"step-{step:06}" for step in steps}
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == run.metrics
    config = json.loads((run.folder / "config.json").read_text())
    assert config["model"]["emb_dim"] == config["training"]["emb_dim"] == 16
    assert config["training"]["seed"] == 3
    assert config["training"]["prompt"] == run.prompt == "The cat sat"
    assert (run.folder / "loss.png").read_bytes()[:4] == b"\x89PNG"
    samples = (run.folder / "samples.txt").read_text()
    assert [line for line in samples.splitlines() if line.startswith("---")] == [
        *(f"--- epoch {epoch}, step {epoch * run.metrics[-1]['step'] // 24}" for epoch in range(1, 25)),
        f"--- epoch 24, step {run.metrics[-1]['step']}",
    ]
    assert samples.count("The cat sat") >= 7
    assert any("tinygrad-llm generate" in line and "--prompt 'The cat sat'" in line for line in lines)


def test_the_figures_are_those_of_the_saved_model(result, rhyme):
    run, _ = result
    model, tokenizer = load_run(run.folder)
    text = rhyme.read_text()
    train_text, val_text = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
    val_ids = tokenizer.encode(val_text)
    loss = mean_loss(model, all_windows(val_ids, 16, 8))
    assert run.val_loss == pytest.approx(loss, rel=1e-6)
    assert run.val_bits_per_byte == pytest.approx(loss * len(val_ids) / math.log(2) / len(val_text), rel=1e-6)
    assert run.chance_loss == math.log(tokenizer.vocab_size)
    best = min(run.metrics, key=lambda row: row["val_loss"])
    assert (run.best_val_loss, run.best_step) == (best["val_loss"], best["step"])
    assert run.sample.startswith(run.prompt)
    assert run.copied.split() == longest_copied_run(run.sample[len(run.prompt) :], train_text)
    assert json.loads(json.dumps(run.summary()))["val_loss"] == run.val_loss


@pytest.mark.parametrize("tokenizer", ["bpe", "char"])
def test_the_same_seed_gives_the_same_folder_to_the_bit(rhyme, tmp_path, tokenizer):
    def files(name, seed):
        pretrain(
            rhyme,
            out=tmp_path / name,
            report=silent,
            epochs=2,
            tokenizer=tokenizer,
            **TINY | {"stride": 11, "seed": seed},
        )
        folder = tmp_path / name
        (folder / "speed.jsonl").unlink()  # what the clock said
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first, again, other = files("first", 3), files("again", 3), files("other", 4)
    assert first == again
    for name in ("model.safetensors", "metrics.jsonl", "samples.txt"):
        assert first[name] != other[name]


def test_samples_and_evaluations_do_not_touch_the_training(rhyme, tmp_path):
    one = pretrain(rhyme, out=tmp_path / "1", report=silent, epochs=2, eval_every=1, **TINY)
    two = pretrain(rhyme, out=tmp_path / "2", report=silent, epochs=2, eval_every=999, temperature=0.0, **TINY)
    for name, array in one.model.state_dict().items():
        np.testing.assert_array_equal(array, two.model.state_dict()[name])


def test_the_generator_of_the_caller_is_left_alone(rhyme, tmp_path):
    tg.manual_seed(1)
    before = tg.rng.get_generator().get_state()
    pretrain(rhyme, out=tmp_path / "run", report=silent, epochs=1, **TINY)
    assert tg.rng.get_generator().get_state() == before


def test_without_a_file_it_is_the_story(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    run = pretrain(epochs=1, report=lines.append, **TINY | {"context_length": 64, "stride": 0})
    assert str(run.folder) == "runs/story"
    assert tg.text.story().startswith(run.prompt)
    assert f"{int(0.9 * len(tg.text.story())):,} characters" in lines[0]


def test_without_matplotlib_a_line_says_how_to_get_it(rhyme, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines = []
    run = pretrain(rhyme, out=tmp_path / "run", report=lines.append, epochs=1, **TINY)
    assert not (run.folder / "loss.png").exists()
    assert any("pip install matplotlib" in line for line in lines)


def test_a_loss_that_explodes_is_one_error(rhyme, tmp_path):
    with pytest.raises(NonFiniteError):
        pretrain(rhyme, out=tmp_path / "run", report=silent, epochs=4, lr=1e30, warmup=0.0, max_norm=0.0, **TINY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "words"}, "tokenizer is 'words'"),
        ({"preset": "125M"}, "preset '125M'"),
        ({"epoch": 3}, r"no option 'epoch' \(did you mean epochs\?\)"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -2}, "batch_size is -2"),
        ({"batch_size": 500}, "batch_size=500"),
        ({"batch_size": 10**9}, "GiB"),
        ({"stride": -1}, "stride is -1"),
        ({"lr": 0.0}, "lr is 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": -1e-3}, "lr is -0.001"),
        ({"lr": 1e-4, "min_lr": 1e-3}, "min_lr is 0.001"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"val_ratio": 1.0}, "val_ratio is 1"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"n_heads": 3}, "n_heads 3 does not divide emb_dim 16"),
        ({"emb_dim": 10**6}, "GiB"),
        ({"n_layers": 10**9}, "GiB"),
        ({"drop_rate": 2.0}, "drop_rate is 2"),
        ({"context_length": 10_000}, "needs at least 10001"),
        ({"vocab_size": 100}, r"vocab_size .* is 100: .* 257 or more"),
        ({"vocab_size": 300, "tokenizer": "char"}, "bpe and wordpiece tokenizers only"),
        ({"tokenizer": "char", "prompt": "日本"}, "日"),
    ],
)
def test_bad_options_are_found_before_anything_is_written(rhyme, tmp_path, options, message):
    with pytest.raises((ConfigError, DataError, TokenizerError), match=message):
        pretrain(rhyme, out=tmp_path / "run", report=silent, **TINY | options)
    assert not list(tmp_path.iterdir())


def test_options_are_kept_as_pythons_numbers():
    """config.json takes no other."""
    changes = {"emb_dim": np.int64(48), "batch_size": np.int32(4), "stride": np.uint8(0), "seed": np.int64(5)}
    changes |= {"lr": np.float32(0.5), "drop_rate": np.float64(0.25), "temperature": np.float16(2), "keep": np.int8(3)}
    options = PretrainOptions.for_preset(**changes)
    plain = PretrainOptions.for_preset(**{name: value.item() for name, value in changes.items()})
    assert json.dumps(asdict(options)) == json.dumps(asdict(plain))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"x", "1 characters"),
        (b"A short text.", r"\d+ tokens to train on: context_length 16 needs at least 17"),
        (b"\xff\xfe", "not UTF-8: byte 0xff"),
    ],
)
def test_bad_files_are_found_before_anything_is_written(tmp_path, data, message):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        pretrain(path, out=tmp_path / "run", report=silent, **TINY)
    with pytest.raises(DataError, match=r"missing\.txt"):
        pretrain(tmp_path / "missing.txt", out=tmp_path / "run", report=silent, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


STRANGE = {
    "spaces": " " * 400,
    "one letter": "a" * 400,
    "white space": "\n \t" * 200,
    "NUL": "\0" * 400,
    "Japanese": "日本語" * 200,
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_texts_train_character_by_character(tmp_path, name):
    path = tmp_path / "text.txt"
    path.write_text(STRANGE[name], encoding="utf-8", newline="")
    run = pretrain(path, out=tmp_path / "run", report=silent, tokenizer="char", epochs=1, **TINY)
    assert math.isfinite(run.val_loss)


@pytest.mark.parametrize("name", STRANGE)
def test_byte_pairs_shorten_repetition_so_far_that_too_little_is_left(tmp_path, name):
    path = tmp_path / "text.txt"
    path.write_text(STRANGE[name], encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"\d+ tokens to train on: context_length 16 needs at least 17"):
        pretrain(path, out=tmp_path / "run", report=silent, tokenizer="bpe", epochs=1, **TINY)


def test_an_output_that_cannot_be_written_is_found_before_training(rhyme, tmp_path):
    (tmp_path / "file").write_text("")
    lines = []
    with pytest.raises(CheckpointError, match="cannot be written"):
        pretrain(rhyme, out=tmp_path / "file" / "run", report=lines.append, **TINY)
    assert lines == []


def test_when_the_record_cannot_be_written_training_goes_on(rhyme, tmp_path):
    said = []

    def report(line):
        said.append(line)
        if line.startswith("  "):  # the first sample
            raise BrokenPipeError

    with pytest.warns(
        RuntimeWarning, match="what the run says can no longer be written .BrokenPipeError.: training goes on"
    ):
        run = pretrain(rhyme, out=tmp_path / "run", report=report, epochs=3, **TINY)
    assert said[-1].startswith("  ")  # nothing is said after it
    assert run.metrics[-1]["epoch"] == 3
    whole = pretrain(rhyme, out=tmp_path / "whole", report=silent, epochs=3, **TINY)
    assert run.metrics == whole.metrics


def test_a_batch_has_no_more_parts_than_windows():
    with pytest.raises(ConfigError, match="accumulate is 9: a batch of 8 has no more parts than rows"):
        PretrainOptions.for_preset("story", accumulate=9)


def test_more_memory_than_is_free_is_said_and_more_than_there_is_refused(rhyme, tmp_path, monkeypatch):
    lines, words = (
        [],
        r"on batches of 8 x 16 tokens needs about \d+\.\d\d KiB, 256\.00 KiB are {}: use a smaller batch_size",
    )
    monkeypatch.setattr("tinygrad_llm.models.estimate.memory_there", lambda: (2**20, 2**18))
    pretrain(rhyme, out=tmp_path / "run", report=lines.append, epochs=1, **TINY)
    assert re.search(words.format("free"), lines[0])
    monkeypatch.setattr("tinygrad_llm.models.estimate.memory_there", lambda: (2**18, 2**18))
    for refused in (
        lambda: pretrain(rhyme, out=tmp_path / "other", report=lines.append, **TINY),
        lambda: resume(tmp_path / "run", epochs=2, report=lines.append),
    ):
        with pytest.raises(ConfigError, match=words.format("there")):
            refused()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
