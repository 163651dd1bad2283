"""MarianMTModels made elsewhere become our Transformer, and back: against values of transformers."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from reference import store
from safetensors.numpy import load_file
from weights.published import arrays_of, config_of, filled, write

import tinygrad_llm as tg
from tinygrad_llm.errors import CheckpointError, ConfigError, StateDictError
from tinygrad_llm.generation import beam_search, generate
from tinygrad_llm.models import TransformerConfig, make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights import convert, load_pretrained, save_pretrained
from tinygrad_llm.weights.load import load_with_tokenizer
from tinygrad_llm.weights.seq2seq import from_transformers

CASES = store.read("marians")
both_ways = pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])

# What each of our modules is called there, written down a second time, for the tests alone.
IN_A_LAYER = {
    "att.W_query": "self_attn.q_proj",
    "att.W_key": "self_attn.k_proj",
    "att.W_value": "self_attn.v_proj",
    "att.out_proj": "self_attn.out_proj",
    "cross_att.W_query": "encoder_attn.q_proj",
    "cross_att.W_key": "encoder_attn.k_proj",
    "cross_att.W_value": "encoder_attn.v_proj",
    "cross_att.out_proj": "encoder_attn.out_proj",
    "ff.layers.0": "fc1",
    "ff.layers.2": "fc2",
    "norm1": "self_attn_layer_norm",
}
NORMS = {
    "encoder.norm2": "final_layer_norm",
    "decoder.norm2": "encoder_attn_layer_norm",
    "decoder.norm3": "final_layer_norm",
}


def their_name(name, shared):
    if name == "tok_emb.weight":
        return "model.shared.weight" if shared else "model.decoder.embed_tokens.weight"
    once = {"src_emb.weight": "model.encoder.embed_tokens.weight", "out_head.weight": "lm_head.weight"}
    if name in once:
        return once[name]
    if name == "out_head.bias":
        return "final_logits_bias"
    stack, i, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    there = NORMS.get(f"{stack}.{module}") or IN_A_LAYER[module]
    return f"model.{stack}.layers.{i}.{there}.{ {'scale': 'weight', 'shift': 'bias'}.get(kind, kind) }"


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def published(tmp_path):
    case = CASES["one table"]
    return write(tmp_path / "published", arrays_of(case), config_of(case))


def logits(model, case):
    with tg.no_grad():
        return model(case["sources"], case["targets"], case["source_mask"]).data


def random_model(**changes):
    sizes = {"vocab_size": 11, "context_length": 9, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "n_decoder_layers": 2}
    sizes |= {"hidden_dim": 6, "positions": "halves", "start_id": 10, "end_id": 3, "pad_id": 9}
    return filled(make_model("seq2seq", sizes | changes, Generator(3)))


def same(model, reference):
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True, err_msg=name)


# ---- transformers


@both_ways
def test_logits_loss_and_every_gradient_are_those_of_transformers(case, way, tmp_path):
    model, tokenizer = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)
    assert (model.architecture, tokenizer, model.training) == ("seq2seq", None, False)
    with way():
        output = model(case["sources"], case["targets"], case["source_mask"])
        loss = cross_entropy(output, targets=case["labels"])
    np.testing.assert_allclose(output.data, case["logits"], rtol=1e-10, atol=1e-10)
    loss.backward()
    np.testing.assert_allclose(float(loss.data), case["loss"], rtol=1e-10)
    shared = "model.shared.weight" in case["gradients"]
    parameters = {their_name(name, shared): p for name, p in model.named_parameters()}
    assert parameters.keys() == case["gradients"].keys()
    for name, parameter in parameters.items():
        expected = np.array(case["gradients"][name]).reshape(parameter.shape)
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-10, atol=1e-10, err_msg=name)


def written(row, end):
    """What stands between the first token and the end of a row."""
    ids = list(map(int, row))[1:]
    return ids[: ids.index(end)] if end in ids else ids


def test_what_it_writes_is_what_transformers_writes(case, tmp_path):
    """Greedily for all sources together, and with 4 beams for each."""
    model, _ = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)
    start, end = model.config.start_id, model.config.end_id
    reading = model.reading(case["sources"], case["source_mask"])
    for use_cache in (True, False):
        found = generate(reading, [[start]] * 3, 8, stop_ids=[end], use_cache=use_cache)
        assert [[i for i in row[1:].tolist() if i >= 0] for row in found] == [
            written(row, end) for row in case["greedy"]
        ]
    for alpha in (1.0, 0.6):
        for i, expected in enumerate(case[f"beams, {alpha}"]):
            options = {"length_penalty": alpha, "penalty": "hf", "stop_ids": [end]}
            best = beam_search(reading.of_rows([i]), [start], 8, 4, **options)[0]
            assert best.ids == written(expected, end)


def test_it_comes_back_as_it_was_published(case, tmp_path):
    model = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)[0]
    save_pretrained(model, tmp_path / "b")
    stored, published = load_file(tmp_path / "b/model.safetensors"), arrays_of(case)
    assert stored.keys() == published.keys()
    for name, array in published.items():
        np.testing.assert_array_equal(stored[name], array, strict=True, err_msg=name)
    written, config = json.loads((tmp_path / "b/config.json").read_text()), config_of(case)
    config["activation_function"] = config["activation_function"].replace("swish", "silu")  # two words for one
    assert {key: written.get(key) for key in config} | {"activation_function": config["activation_function"]} == config
    assert load_pretrained(tmp_path / "b", np.float64)[0].config == model.config


@pytest.mark.parametrize("share", ["all", "target", "none"])
@pytest.mark.parametrize("head_bias", [False, True])
def test_ours_comes_back_to_the_bit(share, head_bias, tmp_path):
    model = random_model(
        share=share, head_bias=head_bias, source_vocab_size=None if share == "all" else 13, activation="gelu"
    )
    save_pretrained(model, tmp_path / "a")
    loaded, _, report = load_pretrained(tmp_path / "a", report=True)
    assert loaded.config == model.config
    same(loaded, model)
    assert report.missing == report.unexpected == []
    assert ("final_logits_bias" in report.ignored) == (not head_bias)
    convert(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b/model.safetensors").read_bytes() == (tmp_path / "a/model.safetensors").read_bytes()


def test_one_table_under_each_of_its_names(published):
    """Older files hold it four times, some under other names than the first; and positions, which are not read."""
    case = CASES["one table"]
    arrays, expected = arrays_of(case), np.array(case["logits"])
    table = arrays.pop("model.shared.weight")
    names = ["model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"]
    for kept in (names, names[1:], names[2:], names[3:]):
        copies = {f"{name}.weight": table.copy() for name in kept}
        positions = {f"model.{stack}.embed_positions.weight": np.ones((11, 6)) for stack in ("encoder", "decoder")}
        write(published, arrays | copies | positions, config_of(case))
        model = load_pretrained(published, np.float64)[0]
        assert model.config.share == "all"
        np.testing.assert_allclose(logits(model, case), expected, rtol=1e-10, atol=1e-10)


def test_a_table_that_differs_is_one_by_itself(published):
    case = CASES["one table"]
    arrays = arrays_of(case)
    table = arrays["model.shared.weight"]
    copies = {f"model.{stack}.embed_tokens.weight": table.copy() for stack in ("encoder", "decoder")}
    write(published, arrays | copies | {"lm_head.weight": 2 * table}, config_of(case))
    model, _, report = load_pretrained(published, np.float64, report=True)
    assert model.config.share == "none"
    assert any("lm_head.weight differs from shared.weight" in note for note in report.notes)
    bias = np.array(case["tensors"]["final_logits_bias"])
    np.testing.assert_allclose(logits(model, case) - bias, 2 * (np.array(case["logits"]) - bias), rtol=1e-9, atol=1e-9)


def test_a_file_without_the_bias_of_the_head_has_zeros(published):
    case = CASES["one table"]
    arrays = arrays_of(case)
    bias = arrays.pop("final_logits_bias")
    write(published, arrays, config_of(case))
    model, _, report = load_pretrained(published, np.float64, report=True)
    np.testing.assert_allclose(logits(model, case) + bias, np.array(case["logits"]), rtol=1e-10, atol=1e-10)
    assert report.missing == ["final_logits_bias"]


def test_what_a_folder_of_a_tokenizer_holds_is_left_out(published):
    """source.spm and target.spm are SentencePiece's of a kind that is not read here."""
    (published / "source.spm").write_bytes(b"")
    (published / "target.spm").write_bytes(b"")
    (published / "vocab.json").write_text('{"</s>": 0, "<unk>": 1, "a": 2}')
    (published / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}')
    with pytest.warns(RuntimeWarning, match="no tokenizer: .*source.spm"):
        _, tokenizer, report = load_pretrained(published, report=True)
    assert tokenizer is None
    assert "source.spm" in report.notes[-1]


@pytest.mark.parametrize("changes", [
    ({"encoder_layers": 2}, StateDictError, "has tensors of 1 layers in encoder, the configuration says 2"),
    ({"decoder_layers": 1}, StateDictError, "has tensors of 2 layers in decoder, the configuration says 1"),
    ({"decoder_ffn_dim": 7}, ConfigError, "decoder_ffn_dim is 7, encoder_ffn_dim 5: both stacks have the same here"),
    ({"decoder_attention_heads": 3}, ConfigError, "decoder_attention_heads is 3, encoder_attention_heads 2"),
    ({"encoder_attention_heads": 4, "decoder_attention_heads": 4}, ConfigError, "encoder_attention_heads 4 does not"),
    ({"normalize_before": True}, ConfigError, "normalize_before is True: only False can be loaded"),
    ({"static_position_embeddings": False}, ConfigError, "static_position_embeddings is False: only True"),
    ({"is_encoder_decoder": False}, ConfigError, "is_encoder_decoder is False"),
    ({"activation_function": "tanh"}, ConfigError, "activation_function is 'tanh': use one of gelu"),
    ({"activation_function": ["relu"]}, ConfigError, "activation_function"),
    ({"d_model": -1}, ConfigError, "d_model is -1"),
    ({"d_model": 8}, StateDictError, r"\(10, 6\) against \(10, 8\)"),
    ({"vocab_size": 12}, ConfigError, "they share no table"),
    ({"vocab_size": 1e12, "decoder_vocab_size": None}, ConfigError, "config.json: .*parameters need"),
    ({"decoder_start_token_id": 10}, ConfigError, "decoder_start_token_id is 10: ids go to 9"),
    ({"decoder_start_token_id": None}, ConfigError, "decoder_start_token_id is None"),
    ({"eos_token_id": [0, 1]}, ConfigError, r"eos_token_id is \[0, 1\]"),
    ({"tie_word_embeddings": "yes"}, ConfigError, "tie_word_embeddings is 'yes'"),
    ({"scale_embedding": 1}, ConfigError, "scale_embedding is 1"),
    ({"model_type": "bart"}, ConfigError, "model_type is 'bart'"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused_by_field(published, changes):
    changes, error, message = changes
    (published / "config.json").write_text(json.dumps(config_of(CASES["one table"]) | changes))
    with pytest.raises(error, match=message) as caught:
        load_pretrained(published)
    assert str(published) in str(caught.value)


@pytest.mark.parametrize(("change", "message"), [
    (lambda a: a.pop("model.decoder.layers.1.encoder_attn.k_proj.bias"),
     r"missing decoder.layers.1.encoder_attn.k_proj.bias \(6,\)"),
    (lambda a: a.update({"model.decoder.layers.0.encoder_attn.k_proj.bia": np.ones(6)}), "unexpected .*k_proj.bia"),
    (lambda a: a.pop("model.shared.weight"), r"missing shared.weight \(10, 6\)"),
    (lambda a: a.update({"final_logits_bias": np.ones(10)}), r"final_logits_bias.*\(10,\) against \(1, 10\)"),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_by_name(published, change, message):
    arrays = arrays_of(CASES["one table"])
    change(arrays)
    write(published, arrays)
    with pytest.raises(StateDictError, match=message):
        load_pretrained(published)


def test_without_a_configuration_it_says_what_is_missing(published):
    (published / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config.json beside it: .*heads, activation"):
        load_pretrained(published)


@pytest.mark.parametrize(("changes", "message"), [
    ({"positions": "interleaved"}, "positions is 'interleaved': transformers' Marian"),
    ({"norm_first": True, "final_norms": False}, "norm_first is True"),
    ({"final_norms": True}, "final_norms is True"),
    ({"norm_eps": 1e-6}, "norm_eps is 1e-06"),
])  # fmt: skip
def test_what_marian_has_no_place_for_is_not_written(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        save_pretrained(random_model(**changes), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_defaults_are_those_of_transformers():
    """MarianConfig's own, which small files leave out; rates that differ are said."""
    config, notes = from_transformers({"model_type": "marian"}, "config.json")
    expected = TransformerConfig(58101, 1024, 1024, 16, 12, 12, 4096, activation="gelu_erf", positions="halves", head_bias=True,
                                 scale_embedding=False, start_id=58100, end_id=0, pad_id=58100)  # fmt: skip
    assert config == expected
    assert "attention_dropout': 0.0" in notes[0]


def test_who_goes_on_from_a_text_is_told_that_this_does_not(published):
    with pytest.raises(CheckpointError, match=r"no tokenizer there|does not write on from a text"):
        load_with_tokenizer(published)
