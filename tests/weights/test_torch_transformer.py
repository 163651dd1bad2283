"""torch.nn.Transformer and ours: values, every gradient, and its decoder's layer, by what is stored in tests/reference."""

from contextlib import nullcontext

import numpy as np
import pytest
from reference import store

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.errors import ConfigError, DTypeError, StateDictError
from tinygrad_llm.models import make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights import torch_transformer

CASES = store.read("torch_transformers")
MODELS = [name for name in CASES if not name.startswith("layer")]
both_ways = pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])


def arrays(values):
    return {name: np.array(value, np.float64) for name, value in values.items()}


def close(found, expected, name=""):
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-10, atol=1e-10, err_msg=name)


def read(case, **changes):
    return torch_transformer.read(**{"arrays": arrays(case["parameters"]), **case["options"]} | changes)


@both_ways
@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_every_gradient_are_pytorchs(name, way):
    case = CASES[name]
    model = read(case)
    with way():
        output = model(case["sources"], case["targets"], case["source_mask"])
        loss = cross_entropy(output, targets=case["labels"])
    close(output.data, case["logits"])
    loss.backward()
    close(loss.data, case["loss"])
    parameters = dict(model.named_parameters())
    for p in parameters.values():
        p.data = p.grad
    gradients = torch_transformer.write(model)  # under PyTorch's names
    assert gradients.keys() == case["gradients"].keys()
    for key, expected in case["gradients"].items():
        close(gradients[key], expected, key)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_is_written(name):
    case = CASES[name]
    written = torch_transformer.write(read(case))
    assert written.keys() == case["parameters"].keys()
    for key, array in arrays(case["parameters"]).items():
        np.testing.assert_array_equal(written[key], array, strict=True, err_msg=key)
    model = read(case, arrays={name: a.astype(np.float32) for name, a in written.items()}, context_length=5)
    assert (model.config.context_length, model.tok_emb.weight.dtype, model.training) == (5, np.float32, False)


@both_ways
@pytest.mark.parametrize("name", [name for name in CASES if name not in MODELS])
def test_a_layer_of_the_decoder(name, way):
    case = CASES[name]
    activation = {"relu": "relu", "gelu": "gelu_erf"}[case["options"]["activation"]]
    options = {"hidden_dim": 7, "norm_first": case["options"]["norm_first"], "activation": activation}
    block = nn.DecoderBlock(6, 3, 4, **options).astype(np.float64)
    parameters = dict(block.named_parameters())
    theirs = {}  # ours -> PyTorch's, and which third
    for key, p in parameters.items():
        key_there = (
            key.replace("cross_att", "multihead_attn")
            .replace("ff.layers.0", "linear1")
            .replace("ff.layers.2", "linear2")
        )
        key_there = key_there.replace("scale", "weight").replace("shift", "bias")
        key_there = "self_attn" + key_there[3:] if key_there.startswith("att") else key_there
        part = next((i for i, x in enumerate(("W_query.", "W_key.", "W_value.")) if x in key_there), None)
        if part is not None:
            attention, _, kind = key_there.split(".")
            theirs[key] = f"{attention}.in_proj_{kind}", slice(6 * part, 6 * part + 6)
        else:
            theirs[key] = key_there, slice(None)
        p.data = np.array(case["parameters"][theirs[key][0]])[theirs[key][1]]
    leaves = {key: tg.Tensor(np.array(case[key]), requires_grad=True) for key in ("x", "memory")}
    with way():
        output = block(leaves["x"], block.cross_att.keys_and_values(leaves["memory"]), case["mask"])
    close(output.data, case["output"])
    output.backward(np.array(case["g"]))
    for key, p in parameters.items():
        close(p.grad, np.array(case["gradients"][theirs[key][0]])[theirs[key][1]], key)
    for key, leaf in leaves.items():
        close(leaf.grad, case["gradients"][key], key)


def without(name):
    return lambda a: a.pop(name)


def having(name, *shape, dtype=np.float64):
    return lambda a: a.update({name: np.zeros(shape, dtype)})


@pytest.mark.parametrize(("change", "error", "message"), [
    (without("transformer.decoder.layers.0.norm3.bias"), StateDictError, r"missing .*decoder.layers.0.norm3.bias \(6,\)"),
    (without("src_embed.weight"), StateDictError, "missing src_embed.weight, or not a matrix"),
    (having("src_embed.weight", 7), StateDictError, "missing src_embed.weight, or not a matrix"),
    (without("generator.weight"), StateDictError, "missing generator.weight"),
    (having("transformer.encoder.norm.wieght", 6), StateDictError, "unexpected .*wieght"),
    (having("transformer.encoder.layers.7.norm1.bias", 6), StateDictError, "unexpected .*7.norm1.bias.*missing .*layers.2"),
    (having("transformer.decoder.layers.999999999.norm1.bias", 6), StateDictError, "unexpected .*layers.999999999"),
    (having("transformer.decoder.layers.0.linear2.weight", 5, 6), StateDictError, r"linear2.weight: \(5, 6\) against \(6, 5\)"),
    (having("generator.bias", 11, dtype=np.float32), DTypeError, "float32, float64"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(change, error, message, monkeypatch):
    case = CASES["post-norm"]
    changed = arrays(case["parameters"])
    change(changed)
    monkeypatch.setattr(torch_transformer, "make_model", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(error, match=message):
        read(case, arrays=changed)


def test_one_without_a_decoder_is_refused():
    case = CASES["post-norm"]
    encoder = {name: a for name, a in arrays(case["parameters"]).items() if not name.startswith("transformer.decoder")}
    with pytest.raises(
        StateDictError, match=r"missing transformer.decoder.layers.0.self_attn.in_proj_weight \(18, 6\)"
    ):
        read(case, arrays=encoder)


def test_options_that_cannot_be_are_refused():
    case = CASES["post-norm"]
    with pytest.raises(ConfigError, match="activation is 'silu': use one of relu, gelu"):
        read(case, activation="silu")
    with pytest.raises(ConfigError, match="n_heads 4 does not divide emb_dim 6"):
        read(case, n_heads=4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"positions": "halves"}, "positions is 'halves': torch.nn.Transformer has 'none'"),
    ({"final_norms": False}, "final_norms is False"),
    ({"norm_eps": 1e-6}, "norm_eps is 1e-06"),
    ({"scale_embedding": False}, "scale_embedding is False"),
    ({"activation": "silu"}, "activation is 'silu'"),
])  # fmt: skip
def test_what_pytorch_has_no_place_for_is_not_written(changes, message):
    sizes = {"vocab_size": 5, "context_length": 4, "emb_dim": 4, "n_heads": 2, "n_layers": 1, "hidden_dim": 3}
    fitting = {"positions": "none", "final_norms": True, "scale_embedding": True}
    with pytest.raises(ConfigError, match=message):
        torch_transformer.write(make_model("seq2seq", sizes | fitting | changes, Generator(1)))


def test_a_shared_table_is_written_for_each_use():
    sizes = {"vocab_size": 5, "context_length": 4, "emb_dim": 4, "n_heads": 2, "n_layers": 1, "hidden_dim": 3}
    model = make_model("seq2seq", sizes | {"positions": "none", "final_norms": True}, Generator(1))
    written = torch_transformer.write(model)
    for name in ("src_embed.weight", "tgt_embed.weight", "generator.weight"):
        np.testing.assert_array_equal(written[name], model.tok_emb.weight.data)
    assert "generator.bias" not in written
    again = torch_transformer.read(written, 2, context_length=4)
    ids = np.array([[1, 2, 3]])
    with tg.no_grad():
        np.testing.assert_array_equal(again(ids, ids).data, model.eval()(ids, ids).data)
