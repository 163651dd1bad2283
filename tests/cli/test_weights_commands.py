"""convert and inspect, and the commands that take weights of any form."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import save_file

from tinygrad_llm.cli import main
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import BPETokenizer, story
from tinygrad_llm.weights import load_pretrained, save_pretrained


@pytest.fixture
def published(tmp_path):
    tokenizer = BPETokenizer.train(story()[:3000], 280)
    model = GPTModel(GPTConfig(280, 12, 8, 2, 1, drop_rate=0.0), rng=Generator(2))
    save_pretrained(model, tmp_path / "published", tokenizer)
    return str(tmp_path / "published")


def refused(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_published_folder_writes_and_is_judged(published, tmp_path, capsys):
    assert main(["generate", published, "--prompt", "Una", "--max-new-tokens", "4", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("Una")
    text = tmp_path / "text.txt"
    text.write_text("Una lifted the lid. " * 9)
    assert main(["evaluate", published, "--text", str(text), "--sample-tokens", "3", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["loss"] == pytest.approx(np.log(280), abs=1.0)
    assert figures["copied"] is None
    assert "give one with --prompt" in refused(capsys, "generate", published)
    assert "no text was kept from training: give one (--text FILE)" in refused(capsys, "evaluate", published)


def test_inspect_shows_names_and_never_reads_numbers(published, tmp_path, capsys, monkeypatch):
    save_file({"wte.weight": np.ones((5, 6), np.float16), "a\x1b[31m\n": np.ones(2)}, tmp_path / "a.safetensors")
    monkeypatch.setattr("tinygrad_llm.formats.safetensors.SafetensorsFile.read", None)
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "'wte.weight'" in out
    assert "(5, 6)" in out
    assert "60 bytes" in out
    assert r"a\x1b[31m\n" in out
    assert "2 tensors, 32 numbers, 76 bytes" in out
    assert "\x1b" not in out
    assert main(["inspect", published, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["guess"] == "GPT-2 with the names of transformers: 1 layers, width 8, context 12, 280 tokens"
    assert about["tensors"]["transformer.wte.weight"] == {
        "dtype": "F32", "shape": [280, 8], "bytes": 8960, "file": "model.safetensors"}  # fmt: skip
    assert about["bytes"] == sum(tensor["bytes"] for tensor in about["tensors"].values())


def test_convert_makes_a_folder_that_loads_to_the_same_bits(published, tmp_path, capsys):
    model, tokenizer = load_pretrained(published)
    arrays = {name: parameter.data for name, parameter in model.named_parameters()}
    save_file(arrays, tmp_path / "book.safetensors")
    argv = ["convert", str(tmp_path / "book.safetensors"), str(tmp_path / "out")]
    assert "pass n_heads=" in refused(capsys, *argv)
    assert not (tmp_path / "out").exists()
    assert main([*argv, "--n-heads", "2"]) == 0
    assert "names of the book" in capsys.readouterr().out
    converted, none = load_pretrained(tmp_path / "out")
    assert none is None
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(converted.state_dict()[name], array)
    assert main(["convert", published, str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["n_heads"] == 2
    assert load_pretrained(tmp_path / "again")[1].tokens == tokenizer.tokens


def test_a_pickle_with_code_in_it_does_nothing(tmp_path, capsys):
    class Canary:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "a.pth").write_bytes(pickle.dumps({"wte.weight": Canary()}))
    for command in (["convert", tmp_path / "a.pth", tmp_path / "out"], ["inspect", tmp_path / "a.pth"]):
        refused(capsys, *command)
    assert "tinygrad-llm convert" in refused(capsys, "generate", tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(published, capsys):
    model, tokenizer = load_pretrained(published)
    model.pos_emb.weight.data[11] = np.nan
    save_pretrained(model, published, tokenizer)
    assert main(["convert", published, published + "2"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("tinygrad-llm convert: warning: ")
    assert "8 of the weights are NaN or infinite" in err
    assert err.count("\n") == 1
