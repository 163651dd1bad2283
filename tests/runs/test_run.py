import json

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import CheckpointError, TokenizerError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.runs.folder import load_config, save_model, start_run
from tinygrad_llm.text import BPETokenizer
from tinygrad_llm.training import load_run


def make_run(folder, tie_weights=False):
    tg.manual_seed(4)
    tokenizer = BPETokenizer.train("the cat and the hat and the bat", 262)
    model = GPTModel(GPTConfig(tokenizer.vocab_size, 8, 16, 2, 1, tie_weights=tie_weights))
    start_run(folder, {"model": model.config.to_dict(), "training": {}, "files": []}, tokenizer)
    save_model(folder, model)
    return model, tokenizer


@pytest.mark.parametrize("tie_weights", [False, True])
def test_what_is_saved_is_loaded_to_the_bit(tmp_path, tie_weights):
    model, tokenizer = make_run(tmp_path / "a" / "b", tie_weights)
    loaded, loaded_tokenizer = load_run(tmp_path / "a" / "b")
    assert loaded.config.tie_weights == tie_weights
    assert loaded.n_parameters() == model.n_parameters()
    assert not loaded.drop_emb.training
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, loaded.state_dict()[name])
    assert loaded_tokenizer.tokens == tokenizer.tokens
    assert not list(tmp_path.rglob("*.tmp"))
    modes = {path.stat().st_mode for path in (tmp_path / "a" / "b").iterdir()}
    assert len(modes) == 1  # who may read one file may read the run


def test_a_finished_run_is_kept_beside_its_successor(tmp_path):
    first, _ = make_run(tmp_path / "run")
    first_bytes = (tmp_path / "run" / "model.safetensors").read_bytes()
    make_run(tmp_path / "run")
    make_run(tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.1", "run.2"]
    assert (tmp_path / "run.1" / "model.safetensors").read_bytes() == first_bytes
    assert load_run(tmp_path / "run.1")[0].n_parameters() == first.n_parameters()


def test_a_run_that_never_saved_weights_gives_up_its_place(tmp_path):
    make_run(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    make_run(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"somebody": "else"}')
    with pytest.raises(CheckpointError, match="not those of a run"):
        make_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == '{"somebody": "else"}'


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        make_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="cannot be written"):
        make_run(tmp_path / "run" / "below")


def test_a_failed_save_keeps_the_weights_there_were(tmp_path, monkeypatch):
    model, _ = make_run(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(tmp_path, model)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob("*.tmp"))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no run there"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="no run there, but weights of transformers"):
        load_run(tmp_path)
    (tmp_path / "config.json").unlink()
    make_run(tmp_path)
    (tmp_path / "tokenizer.txt").unlink()
    with pytest.raises(TokenizerError, match=r"tokenizer\.txt"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not there"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ('{"model": []}', r"config\.json: has no 'training'"),
        ('{"model": {}, "training": {"lr": NaN}}', "NaN is not JSON"),
        ('{"model": {}, "model": {}, "training": {}}', "the key 'model' stands there twice"),
        ('{"model": {"emb_dim": 3, "wings": 2}, "training": {}}', "wings"),
        ('{"model": {"emb_dim": -1}, "training": {}}', "emb_dim is -1"),
        ('{"model": {"emb_dim": "8"}, "training": {}}', "emb_dim is '8'"),
    ],
)
def test_a_damaged_configuration(tmp_path, text, message):
    make_run(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_run(tmp_path)


def test_weights_that_do_not_fit(tmp_path):
    make_run(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["model"]["emb_dim"] = 32
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"\(262, 16\).*\(262, 32\)|\(\d+, 16\), here it is \(\d+, 32\)"):
        load_run(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_weights_cut_short(tmp_path, keep):
    make_run(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_run(tmp_path)


def test_a_tokenizer_of_another_run(tmp_path):
    make_run(tmp_path)
    BPETokenizer([]).save(tmp_path)
    with pytest.raises(CheckpointError, match="not of one run"):
        load_run(tmp_path)


@pytest.mark.parametrize("number", [3, 0, "2", None, [1]])
def test_a_configuration_of_another_format_is_refused(tmp_path, number):
    (tmp_path / "config.json").write_text(json.dumps({"format": number, "model": {}, "training": {}}))
    with pytest.raises(CheckpointError, match="this reads up to 2: use a newer tinygrad_llm"):
        load_config(tmp_path)
