"""What pretraining asks of an architecture: presets and options by name, and a Llama that goes the whole way a GPT goes."""

import json
import os
import signal

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.doctor.doctor import examine
from tinygrad_llm.errors import ConfigError, ConfigMismatch
from tinygrad_llm.evaluation import evaluate_run
from tinygrad_llm.generation import generate
from tinygrad_llm.models import PRESETS, LanguageModel, LlamaConfig, LlamaModel, architectures, make_model
from tinygrad_llm.nn.lora import lora_of
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs.loggers import Logger
from tinygrad_llm.text import BPETokenizer, corpus, story
from tinygrad_llm.training import PretrainOptions, continue_pretraining, load_run, pretrain, resume
from tinygrad_llm.tuning.classify import Classifier, classify
from tinygrad_llm.weights import save_pretrained

LLAMA = {"architecture": "llama", "n_kv_heads": 2, "hidden_dim": 12, "window": 5, "drop_rate": 0.1}
SIZES = {"tokenizer": "bpe", "vocab_size": 270, "context_length": 16, "emb_dim": 16, "n_heads": 4, "n_layers": 2}
QUICK = {"batch_size": 8, "sample_tokens": 4, "stride": 0, "eval_batches": 2, "seed": 3, "report": lambda _: None}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(story()[:3000], encoding="utf-8")
    return path


def trained(text, folder, **options):
    return pretrain(text, out=folder, **LLAMA | SIZES | QUICK | {"max_steps": 8} | options)


# ---- which model is meant


def test_the_first_preset_of_an_architecture_stands_for_it():
    assert (
        PretrainOptions.for_preset()
        == PretrainOptions.for_preset("story")
        == PretrainOptions.for_preset(architecture="gpt")
    )
    llama = PretrainOptions.for_preset(architecture="llama")
    assert llama == PretrainOptions.for_preset("tales-llama")
    assert llama.model_config(1024) == PRESETS["tales-llama"]


@pytest.mark.parametrize(
    "name", [name for name, config in PRESETS.items() if config.architecture in architectures(LanguageModel)]
)
def test_options_say_what_the_preset_says(name):
    if name in ("gpt3-175B", "llama2-70B"):
        with pytest.raises(ConfigError, match="choose smaller sizes"):
            PretrainOptions.for_preset(name)
        return
    options = PretrainOptions.for_preset(name)
    assert options.architecture == PRESETS[name].architecture
    assert options.model_config(PRESETS[name].vocab_size) == PRESETS[name]


def test_the_llama_of_the_tales_trains_as_the_gpt_of_the_tales():
    gpt, llama = (vars(PretrainOptions.for_preset(name)) for name in ("tales", "tales-llama"))
    assert {name for name in gpt if gpt[name] != llama[name]} == {
        "preset", "architecture", "hidden_dim", "bias", "activation"
    }  # fmt: skip
    of_files = PretrainOptions.for_preset("tales-llama", of_files=True)
    assert (of_files.tokenizer, of_files.epochs) == ("bpe", 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "lama"}, "architecture is 'lama': use one of bert, gpt, hyena, llama, rwkv"),
        ({"architecture": 3}, "architecture is 3"),
        ({"preset": "story", "architecture": "llama"}, "preset is 'story' and architecture is 'llama': it is a gpt's"),
        ({"preset": "llama2-7B", "architecture": "gpt"}, "it is a llama's: leave out one of them"),
        ({"architecture": "llama", "activation": "gelu"}, "activation is 'gelu': a llama has no such option"),
        ({"head_dim": 2}, "head_dim is 2: a gpt has no such option"),
        ({"architecture": "llama", "n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4"),
        ({"architecture": "llama", "n_heads": 128}, "head_dim is 1"),
        ({"hidden_dim": -1}, "hidden_dim is -1"),
        ({"preset": "llama2-13B", "emb_dim": 51200}, "TiB in float32, more than 64.00 GiB: choose smaller sizes"),
    ],
)
def test_what_an_architecture_has_not_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        PretrainOptions.for_preset(**options)


def test_the_command_line(text, tmp_path, capsys):
    argv = (
        f"pretrain {text} --architecture llama --n-kv-heads 1 --hidden-dim 6 --context-length 8 --emb-dim 8 --n-heads 2"
    )
    argv += f" --n-layers 1 --tokenizer char --stride 0 --max-steps 2 --sample-tokens 1 --out {tmp_path / 'run'} --json"
    assert main(argv.split()) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["architecture"] == "llama"
    assert (config["model"]["n_kv_heads"], config["model"]["hidden_dim"], config["model"]["window"]) == (1, 6, None)
    assert main(["pretrain", str(text), "--architecture", "llama", "--activation", "gelu"]) == 2
    assert "activation is 'gelu': a llama has no such option" in capsys.readouterr().err


# ---- a Llama goes the whole way


class Stop(Logger):
    def log_step(self, step, loss, lr):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(text, tmp_path):
    whole = trained(text, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(text, tmp_path / "run", loggers=[Stop()])
    more = resume(tmp_path / "run", report=QUICK["report"])
    assert more.metrics == whole.metrics
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(more.model.state_dict()[name], value)
    with pytest.raises(ConfigMismatch, match="window: 5 there, 4 here"):
        resume(tmp_path / "run", window=4, report=QUICK["report"])


def test_from_a_run_on_generation_continued_pretraining_and_lora(text, tmp_path):
    run = trained(text, tmp_path / "run", max_steps=40, lr=1e-2, drop_rate=0.0)
    assert run.val_loss < run.metrics[0]["val_loss"] - 0.5
    model, tokenizer = load_run(run.folder)
    ids = np.array([tokenizer.encode("The")])
    cached, uncached = (generate(model, ids, 12, temperature=0, use_cache=use) for use in (True, False))
    np.testing.assert_array_equal(cached, uncached)  # 12 tokens and more than the window

    more = continue_pretraining(
        run.folder, text, out=tmp_path / "more", epochs=1, report=QUICK["report"], sample_tokens=1
    )
    config = json.loads((tmp_path / "more" / "config.json").read_text())
    assert config["model"] == model.config.to_dict()
    assert config["training"]["architecture"] == "llama"
    assert more.continued.domain_after < more.continued.domain_before
    resumed = resume(tmp_path / "more", epochs=2, report=QUICK["report"])
    assert resumed.metrics[-1]["step"] == 2 * more.metrics[-1]["step"]

    result = classify("messages", init_from=run.folder, out=tmp_path / "classified", lora="r=2,alpha=4", examples=24,
                      epochs=1, batch_size=8, max_length=12, report=QUICK["report"])  # fmt: skip
    classifier = Classifier.load(result.folder)
    assert lora_of(classifier.model).targets == ("attn",)
    learned = {name for name, p in classifier.model.named_parameters() if "lora" in name}
    assert {name.split(".")[3] for name in learned} == {"W_query", "W_key", "W_value", "out_proj"}


def test_tales_for_a_llama(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "_TALES", 64)
    monkeypatch.setattr(corpus, "_VAL_TALES", 16)
    small = {"emb_dim": 16, "n_heads": 2, "n_layers": 1, "hidden_dim": 8, "max_steps": 2}
    run = pretrain(preset="tales-llama", out=tmp_path / "run", report=QUICK["report"], sample_tokens=2, **small)
    assert run.entropy is not None
    found = evaluate_run(run.folder)
    assert found.text == "validation part of the tales"
    assert tg.models.make_config("llama", json.loads((run.folder / "config.json").read_text())["model"]).hidden_dim == 8


def test_what_no_option_says_of_a_model_made_elsewhere_stays(text, tmp_path):
    """Its angles, its norms, heads that do not divide the width, and rows for which the tokenizer has no ids."""
    tokenizer = BPETokenizer.train(story(), 270)
    config = LlamaConfig(
        vocab_size=280, context_length=16, emb_dim=10, n_heads=4, n_layers=2, n_kv_heads=2, head_dim=2, hidden_dim=12,
        rope_base=500.0, out_bias=True,
    )  # fmt: skip
    save_pretrained(LlamaModel(config, rng=Generator(3)), tmp_path / "published", tokenizer)
    options = {"batch_size": 8, "sample_tokens": 1, "report": QUICK["report"]}
    run = continue_pretraining(tmp_path / "published", text, out=tmp_path / "run", max_steps=2, **options)
    assert run.model.config == config
    again = resume(tmp_path / "run", max_steps=1, weights_only=True, report=QUICK["report"])
    assert again.model.config == load_run(tmp_path / "run")[0].config == config
    assert not [found for found in examine(tmp_path / "run") if found.verdict == "wrong"]


@pytest.mark.parametrize("architecture", ["rwkv", "hyena"])
def test_what_mixes_without_attention_is_pretrained_written_with_and_judged(tmp_path, architecture):
    text = tmp_path / "text.txt"
    text.write_text("a fox saw a dog, a dog saw a fox. " * 40)
    sizes = {"emb_dim": 8, "n_layers": 2, "context_length": 12, "epochs": 1, "stride": 0, "tokenizer": "char"}
    options = sizes | {
        "lr": 3e-3,
        "batch_size": 4,
        "preset": f"tales-{architecture}",
        "windows": "stride",
        "prompt": "a",
    }
    run = pretrain(text, out=tmp_path / "run", report=lambda line: None, **options)
    assert run.val_loss < run.metrics[0]["val_loss"]
    model, tokenizer = tg.weights.load_pretrained(tmp_path / "run")
    assert model.config.context_length == (None if architecture == "rwkv" else 12)
    found = evaluate_run(tmp_path / "run")
    assert found.loss == pytest.approx(
        run.val_loss, rel=0.05 if architecture == "rwkv" else 1e-5
    )  # which reads more at once
    if architecture == "rwkv":  # which goes on beyond the windows that it was trained on
        ids = np.array([tokenizer.encode("a fox saw a dog, ")])
        assert generate(model, ids, 20).shape == (1, ids.size + 20)


def test_positions_of_filters_learn_at_a_rate_of_their_own():
    model = make_model("hyena", {"vocab_size": 5, "context_length": 4, "emb_dim": 4, "n_layers": 1, "filter_width": 3})
    options = PretrainOptions.for_preset("tales-hyena", lr=2e-3)
    groups = options.optimizer(model).param_groups
    assert [(len(group["params"]), group["lr"], group["weight_decay"]) for group in groups] == [
        (sum(1 for _ in model.parameters()) - 1, 2e-3, options.weight_decay),
        (1, 1e-5, 0.0),
    ]
    assert groups[1]["params"][0] is model.trf_blocks[0].att.filter.z
