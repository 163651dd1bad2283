"""Our ViTs opened by transformers, and theirs here. Where it is not installed (the extra `reference`), skipped."""

import numpy as np
import pytest
from reference.opened_there import shaken, torch, transformers

import tinygrad_llm as tg
from tinygrad_llm.models import make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.vit import from_transformers

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = {"n_classes": 3, "image_size": 6, "patch_size": 2, "emb_dim": 8, "n_heads": 2, "n_layers": 2}
MODELS = {
    "usual": {},
    "gray, no biases on queries": {"n_channels": 1, "qkv_bias": False, "activation": "gelu", "hidden_dim": 5},
    "one class": {"n_classes": 1, "activation": "silu", "norm_eps": 1e-2, "patch_size": 3},
}


def vit(name):
    return shaken(make_model("vit", SIZES | MODELS[name], Generator(3)).astype(np.float64).eval())


def images(model):
    n, side = model.config.n_channels, model.config.image_size
    return np.random.default_rng(1).standard_normal((2, n, side, side))


def opened(folder, kind=transformers.ViTForImageClassification):
    return kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="sdpa").eval()


def close(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_ours_give_our_scores_and_learn_the_same_in_transformers(name, tmp_path):
    model = vit(name)
    model.classes = tuple(f"kind {i}" for i in range(model.config.n_classes))
    save_pretrained(model, tmp_path / "a")
    theirs, x = opened(tmp_path / "a"), images(model)
    assert tuple(theirs.config.id2label.values()) == model.classes
    output, expected = model(x), theirs(torch.tensor(x)).logits
    close(output.data, expected)
    features = opened(tmp_path / "a", transformers.AutoModel)(torch.tensor(x)).last_hidden_state
    close(model.features(x).data, features)
    labels = np.array([0, model.config.n_classes - 1])
    (cross_entropy(output, targets=labels) + output.sum()).backward()
    (torch.nn.functional.cross_entropy(expected, torch.tensor(labels)) + expected.sum()).backward()
    embeddings = theirs.vit.embeddings
    close(model.class_token.grad, embeddings.cls_token.grad[0])
    close(model.pos_emb.grad, embeddings.position_embeddings.grad[0])
    close(model.patch_emb.weight.grad, embeddings.patch_embeddings.projection.weight.grad.flatten(1))
    for block, layer in zip(model.trf_blocks, theirs.vit.layers, strict=True):
        close(block.att.W_key.weight.grad, layer.attention.k_proj.weight.grad)
        close(block.ff.layers[2].bias.grad, layer.mlp.fc2.bias.grad)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_of_theirs_open_here(dtype, tmp_path):
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, image_size=6,
                                    patch_size=3, num_labels=4)  # fmt: skip
    theirs = transformers.ViTForImageClassification(config).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path, max_shard_size="1KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model = load_pretrained(tmp_path, np.float64)[0]
    theirs.double().eval().set_attn_implementation("sdpa")
    with tg.no_grad():
        close(model(images(model)).data, theirs(torch.tensor(images(model))).logits)


def test_larger_pictures_are_seen_as_there(tmp_path):
    model = vit("usual")
    save_pretrained(model, tmp_path / "a")
    model.resize_positions(10)
    x = images(model)
    expected = opened(tmp_path / "a")(torch.tensor(x), interpolate_pos_encoding=True).logits
    close(model(x).data, expected)


def test_what_a_configuration_does_not_say_is_as_in_transformers():
    made, theirs = from_transformers({"model_type": "vit"}, "config.json")[0], transformers.ViTConfig()
    assert (made.emb_dim, made.hidden_width, made.n_layers, made.n_heads) == (
        theirs.hidden_size,
        theirs.intermediate_size,
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
    )
    assert (made.image_size, made.patch_size, made.n_channels) == (
        theirs.image_size,
        theirs.patch_size,
        theirs.num_channels,
    )
    assert (made.norm_eps, made.drop_rate, made.qkv_bias, made.n_classes) == (1e-12, 0.0, True, theirs.num_labels)
    assert (theirs.layer_norm_eps, theirs.hidden_act, made.activation) == (1e-12, "gelu", "gelu_erf")
