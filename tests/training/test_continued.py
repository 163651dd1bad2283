"""Continued pretraining: from the weights of others, with their tokenizer and what no option tells, on a text of one's own."""

import json
import shutil

import numpy as np
import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, ConfigMismatch
from tinygrad_llm.evaluation.losses import all_windows, mean_loss
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import BPETokenizer, load_tokenizer, story
from tinygrad_llm.text.corpus import split_texts
from tinygrad_llm.training import continue_pretraining, pretrain, resume
from tinygrad_llm.weights import load_pretrained, save_pretrained

TEXT = "The cat sat on the mat. The dog ran to the log. Who has seen the hen? " * 20
QUICK = {"epochs": 2, "lr": 3e-3, "report": lambda _: None, "sample_tokens": 4}


@pytest.fixture
def published(tmp_path):
    """A tied model with the exact GELU, an odd width and more rows than its tokenizer has ids."""
    tokenizer = BPETokenizer.train(story()[:4000], 300)
    config = GPTConfig(
        320,
        16,
        12,
        3,
        1,
        drop_rate=0.0,
        tie_weights=True,
        qkv_bias=True,
        activation="gelu_erf",
        hidden_dim=7,
        init="gpt2",
    )
    save_pretrained(GPTModel(config, rng=Generator(5)), tmp_path / "published", tokenizer)
    return tmp_path / "published"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_losses_before_and_after_are_those_of_the_two_models(published, text, tmp_path):
    lines = []
    options = QUICK | {"report": lines.append}
    result = continue_pretraining(published, text, out=tmp_path / "run", **options)
    continued = result.continued
    first, tokenizer = load_pretrained(published)
    last, _ = load_pretrained(tmp_path / "run")
    domain = tokenizer.encode(split_texts([text], 0.1)[2][0])
    for model, domain_loss, general_loss in (
        (first, continued.domain_before, continued.general_before),
        (last, continued.domain_after, continued.general_after),
    ):
        assert domain_loss == pytest.approx(mean_loss(model, all_windows(domain, 16, 2)), rel=1e-5)
        assert general_loss == pytest.approx(mean_loss(model, all_windows(tokenizer.encode(story()), 16, 2)), rel=1e-5)
    assert continued.domain_after < continued.domain_before - 1
    assert last.config.activation == "gelu_erf"
    assert last.config.hidden_dim == 7
    assert last.config.tie_weights
    assert result.metrics[0]["val_loss"] == pytest.approx(continued.domain_before, abs=0.5)
    said = "\n".join(lines)
    assert f"{continued.domain_before:8.3f}  {continued.domain_after:8.3f}" in said
    assert f"the bundled story            {continued.general_before:8.3f}" in said
    assert json.loads((tmp_path / "run" / "config.json").read_text())["init_from"] == str(published)


def test_a_continued_run_can_be_resumed(published, text, tmp_path):
    continue_pretraining(published, text, out=tmp_path / "run", **QUICK)
    more = resume(tmp_path / "run", epochs=3, report=lambda _: None)
    assert more.metrics[-1]["epoch"] == 3
    assert more.model.config.activation == "gelu_erf"


def test_another_general_text(published, text, tmp_path):
    (tmp_path / "other.txt").write_text("Una lifted the lid of the box.")
    result = continue_pretraining(published, text, general_text=tmp_path / "other.txt", out=tmp_path / "run", **QUICK)
    assert result.continued.general_text == str(tmp_path / "other.txt")
    assert np.isfinite(result.continued.general_after)
    assert result.summary()["continued"]["general_after"] == result.continued.general_after


@pytest.mark.parametrize("option", [{"n_layers": 3}, {"tokenizer": "char"}, {"preset": "story"}, {"context_length": 4}])
def test_what_the_weights_decide_is_no_option(published, text, tmp_path, option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))} is .*: with init_from it is that of the weights"):
        continue_pretraining(published, text, out=tmp_path / "run", **option)
    assert not (tmp_path / "run").exists()


def test_weights_without_a_tokenizer_cannot_read(text, tmp_path):
    save_pretrained(GPTModel(GPTConfig(20, 16, 12, 3, 1)), tmp_path / "a")
    with pytest.raises(CheckpointError, match="no tokenizer there: put"):
        continue_pretraining(tmp_path / "a", text, out=tmp_path / "run")


def test_from_the_command_line(published, text, tmp_path, capsys):
    argv = ["pretrain", str(text), "--out", str(tmp_path / "run"), "--epochs", "1", "--sample-tokens", "2"]
    assert main([*argv, "--init-from", str(published), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["continued"]["domain_after"] < json.loads(out)["continued"]["domain_before"]
    assert "Continued from" in err
    assert main([*argv, "--general-text", str(text)]) == 2
    assert main(["pretrain", "--resume", str(tmp_path / "run"), "--init-from", str(published)]) == 2


# ---- special tokens

MARKS = ["<|user|>", "<|assistant|>"]


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.txt"
    path.write_text("".join(f"<|user|>Who is {n}?<|assistant|>The cat is {n}.<|endoftext|>" for n in range(80)))
    return path


@pytest.mark.parametrize("rows", [300, 320])
def test_special_tokens_are_added_and_the_model_grows_where_it_must(talk, tmp_path, rows):
    tokenizer = BPETokenizer.train(story()[:4000], 300)
    model = GPTModel(GPTConfig(rows, 16, 12, 3, 1, drop_rate=0.0), rng=Generator(5))
    save_pretrained(model, tmp_path / "published", tokenizer)
    lines = []
    options = QUICK | {"report": lines.append, "special_tokens": " ".join(MARKS), "lr": 1e-30, "weight_decay": 0.0}
    result = continue_pretraining(tmp_path / "published", talk, out=tmp_path / "run", **options)
    assert result.tokenizer.special == {"<|endoftext|>": 299, "<|user|>": 300, "<|assistant|>": 301}
    grown = max(rows, 302)
    assert result.model.config.vocab_size == grown
    for table, old in (
        (result.model.tok_emb.weight.data, model.tok_emb.weight.data),
        (result.model.out_head.weight.data, model.out_head.weight.data),
    ):
        np.testing.assert_array_equal(table[:rows], old)
        np.testing.assert_allclose(
            table[rows:], np.stack([old.mean(0)] * (grown - rows)) if grown > rows else table[:0], atol=1e-7
        )
    said = "\n".join(lines)
    assert "Special tokens added, with their ids: <|user|> (300), <|assistant|> (301)." in said
    assert ("have 302 rows now instead of 300, each new one the mean of the old" in said) == (rows == 300)
    assert ("have rows for them already: there are 320" in said) == (rows == 320)
    assert "<|user|> stands in the text 80 times: each is the special token 300, not letters." in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["added_special"] == {"<|user|>": 300, "<|assistant|>": 301}
    assert config["model"]["vocab_size"] == grown
    loaded, again = load_pretrained(tmp_path / "run")
    assert again.special == result.tokenizer.special
    assert loaded.config.vocab_size == grown
    more = resume(tmp_path / "run", epochs=3, report=lambda _: None)
    assert more.tokenizer.special == result.tokenizer.special


def test_a_run_with_special_tokens_is_stopped_and_goes_on(talk, tmp_path):
    sizes = {
        "context_length": 16,
        "emb_dim": 8,
        "n_heads": 2,
        "n_layers": 1,
        "vocab_size": 290,
        "special_tokens": " ".join(MARKS),
    }
    lines = []
    result = pretrain(talk, out=tmp_path / "run", **QUICK | {"report": lines.append}, **sizes)
    assert result.model.config.vocab_size == result.tokenizer.vocab_size <= 290
    assert "<|endoftext|> stands in the text 80 times: each is the end of a document." in lines
    assert {*MARKS, "<|endoftext|>"} == set(result.tokenizer.special)
    assert resume(tmp_path / "run", epochs=3, report=lambda _: None).tokenizer.special == result.tokenizer.special
    with pytest.raises(ConfigMismatch, match="special_tokens"):
        resume(tmp_path / "run", epochs=4, special_tokens="<|user|>", report=lambda _: None)


def test_a_run_with_the_tokenizer_of_a_folder_needs_the_folder_no_more(text, tmp_path):
    folder = tmp_path / "tokenizer"
    BPETokenizer.train(story()[:4000], 300).add_special(MARKS).save(folder)
    sizes = {"context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    result = pretrain(text, out=tmp_path / "run", tokenizer=str(folder), **QUICK, **sizes)
    assert result.tokenizer.tokens == load_tokenizer(folder).tokens
    (folder / "tokenizer.txt").unlink()
    assert resume(tmp_path / "run", epochs=3, report=lambda _: None).tokenizer.tokens == result.tokenizer.tokens
    for checkpoint in (tmp_path / "run").glob("step-*"):
        shutil.rmtree(checkpoint)  # as if it had been killed before the first
    (tmp_path / "run" / "model.safetensors").unlink()
    assert resume(tmp_path / "run", report=lambda _: None).tokenizer.tokens == result.tokenizer.tokens
    with pytest.raises(
        ConfigError, match=r"tokenizer is .*tokenizer': use one of bpe, char, word, wordpiece, gpt2, or a folder"
    ):
        pretrain(text, out=tmp_path / "other", tokenizer=str(folder), **QUICK, **sizes)
