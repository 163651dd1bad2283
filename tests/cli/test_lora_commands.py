"""lora merge, lora info and --adapter; and runs whose config.json has a LoRA."""

import json

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.models import describe_model
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.runs.folder import FORMAT, load_run, save_model, start_run
from tinygrad_llm.text import BPETokenizer, story
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import load_pretrained, save_pretrained

IDS = np.arange(24).reshape(2, 12)


def shaken(model):
    rng = np.random.default_rng(3)
    for p in model.parameters():
        if p.requires_grad:
            p.data = rng.standard_normal(p.shape).astype(p.dtype)
    return model


def logits(model):
    with tg.no_grad():
        return model(IDS).data


@pytest.fixture
def tokenizer():
    return BPETokenizer.train(story()[:3000], 280)


@pytest.fixture
def base(tmp_path, tokenizer):
    model = GPTModel(GPTConfig(280, 12, 8, 2, 1, drop_rate=0.0), rng=Generator(2))
    save_pretrained(model, tmp_path / "base", tokenizer)
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path, base):
    model = shaken(lora.inject(load_pretrained(base)[0], r=2, rng=Generator(1)))
    lora.save(model, tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def run(tmp_path, base, tokenizer):
    model = shaken(lora.inject(load_pretrained(base)[0], r=2, targets=["attn"], whole=["out_head"], rng=Generator(1)))
    start_run(tmp_path / "run", {"format": FORMAT, **describe_model(model), "training": {"prompt": "Una"}}, tokenizer)
    save_model(tmp_path / "run", model)
    return tmp_path / "run", model


def printed(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def refused(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_run_with_lora_opens_alone(run, capsys):
    folder, model = run
    opened, _ = load_run(folder)
    np.testing.assert_array_equal(logits(opened), logits(model.eval()))
    assert [p.requires_grad for p in opened.parameters()] == [p.requires_grad for p in model.parameters()]
    assert printed(capsys, "generate", folder, "--max-new-tokens", "3", "--seed", "1").startswith("Una")
    assert "name its folder" in refused(capsys, "generate", folder / "model.safetensors", "--prompt", "Una")


def test_a_damaged_lora_in_config_json(run, capsys):
    folder, _ = run
    config = json.loads((folder / "config.json").read_text())
    for wrong, message in {
        3: "lora is 3: it must be an object",
        "x": "it must be an object",
        (("rank", 2),): "lora has no option 'rank'",
        (("r", 10**30),): "r is",
        (("r", 3),): "does not fit config.json",
        (("targets", "all"),): "does not fit config.json",
    }.items():
        changed = config["lora"] | dict(wrong) if isinstance(wrong, tuple) else wrong
        (folder / "config.json").write_text(json.dumps(config | {"lora": changed}))
        assert message in refused(capsys, "lora", "info", folder)


def test_merge_a_run(run, tmp_path, capsys):
    folder, model = run
    out = printed(capsys, "lora", "merge", folder, tmp_path / "plain")
    assert out == f"{tmp_path / 'plain'}: 5,440 parameters, with LoRA of rank 2 folded in\n"
    merged, tokenizer = load_pretrained(tmp_path / "plain")
    assert tokenizer.vocab_size == 280
    assert not any(".lora_" in name for name in merged.state_dict())
    np.testing.assert_allclose(logits(merged), logits(model.eval()), rtol=1e-4, atol=1e-4)
    about = json.loads(printed(capsys, "lora", "merge", folder, tmp_path / "plain", "--json").splitlines()[-1])
    assert about["out"] == str(tmp_path / "plain")
    assert "not kept" in refused(capsys, "lora", "merge", folder, tmp_path / "other", "--checkpoint", "7")
    assert "nothing is to be merged" in refused(capsys, "lora", "merge", tmp_path / "plain", tmp_path / "other")
    assert "merge(model) first" in refused(capsys, "convert", folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_info(run, adapter, base, tmp_path, capsys):
    out = printed(capsys, "lora", "info", run[0])
    assert "trainable params: 2,368 || all params: 5,568 || trainable%: 42.5287\nr 2, alpha 8" in out
    assert "beside attn; trained whole: out_head" in out
    about = json.loads(printed(capsys, "lora", "info", adapter, "--json"))
    assert about["trainable_params"] == 128
    assert about["base"] == str(base)
    assert about["lora"]["targets"] == ["att.W_query", "att.W_key", "att.W_value", "att.out_proj"]
    base.rename(tmp_path / "moved")
    assert "is not here: name it (base=, --base)" in refused(capsys, "lora", "info", adapter)
    assert "trainable params: 128" in printed(capsys, "lora", "info", adapter, "--base", tmp_path / "moved")
    assert "is no adapter" in refused(capsys, "lora", "info", run[0], "--base", tmp_path / "moved")
    assert "no LoRA" in printed(capsys, "lora", "info", tmp_path / "moved")


def test_adapter_on_every_command(adapter, base, tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("Una lifted the lid. " * 9)
    merged = tmp_path / "merged"
    printed(capsys, "lora", "merge", adapter, merged)
    for command, *options in (
        ["generate", "--prompt", "Una", "--max-new-tokens", "9", "--temperature", "0"],
        ["evaluate", "--text", text, "--sample-tokens", "3", "--json"],
    ):
        plain = printed(capsys, command, base, *options)
        tuned = printed(capsys, command, base, "--adapter", adapter, *options)
        folded = printed(capsys, command, merged, *options)
        if command == "evaluate":
            plain, tuned, folded = (round(json.loads(out)["loss"], 4) for out in (plain, tuned, folded))
        assert tuned == folded
        assert tuned != plain
    monkeypatch.chdir(tmp_path)
    printed(capsys, "report", base, "--adapter", adapter, "--prompt", "Una lifted")
    assert "lora_A" in (tmp_path / "report.html").read_text()
    for command in ("generate", "evaluate", "step", "report"):
        options = ["--text", text] if command == "evaluate" else []
        assert "no adapter there" in refused(capsys, command, base, "--adapter", tmp_path, *options)
    assert "--adapter is for the weights of a run" in refused(capsys, "step", "--adapter", adapter)


def test_use(capsys):
    for words in (["lora"], ["lora", "split"], ["lora", "merge", "only-one"]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
