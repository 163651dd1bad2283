"""ViTs made elsewhere become our model, and back: against values of transformers, and files in timm's form."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from reference import store
from safetensors.numpy import load_file
from weights.published import arrays_of, config_of, filled, write

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, StateDictError, TokenizerError
from tinygrad_llm.models import ViTConfig, make_model
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import CharTokenizer
from tinygrad_llm.weights import load_pretrained, save_pretrained
from tinygrad_llm.weights.vit import from_transformers

CASES = store.read("vits")
GRAY, COLOURED, HEADLESS = CASES

# What each of our modules is called by transformers' files, its models and timm, written down a second time, for the tests alone.
IN_A_LAYER = {
    "att.W_query": ("attention.attention.query", "attention.q_proj", "attn.qkv"),
    "att.W_key": ("attention.attention.key", "attention.k_proj", "attn.qkv"),
    "att.W_value": ("attention.attention.value", "attention.v_proj", "attn.qkv"),
    "att.out_proj": ("attention.output.dense", "attention.o_proj", "attn.proj"),
    "norm1": ("layernorm_before", "layernorm_before", "norm1"),
    "norm2": ("layernorm_after", "layernorm_after", "norm2"),
    "ff.layers.0": ("intermediate.dense", "mlp.fc1", "mlp.fc1"),
    "ff.layers.2": ("output.dense", "mlp.fc2", "mlp.fc2"),
}
ONCE = {
    "patch_emb": ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
    "final_norm": ("vit.layernorm", "norm"),
    "out_head": ("classifier", "head"),
}
ALONE = {
    "class_token": ("vit.embeddings.cls_token", "cls_token"),
    "pos_emb": ("vit.embeddings.position_embeddings", "pos_embed"),
}
FILES, MEMORY, TIMM = 0, 1, 2
LAYERS = ("vit.encoder.layer", "vit.layers", "blocks")


def their_name(name, form=FILES):
    if name in ALONE:
        return ALONE[name][form == TIMM]
    module, _, kind = name.rpartition(".")
    kind = {"scale": "weight", "shift": "bias"}.get(kind, kind)
    if module in ONCE:
        return f"{ONCE[module][form == TIMM]}.{kind}"
    _, i, part = module.split(".", 2)
    return f"{LAYERS[form]}.{i}.{IN_A_LAYER[part][form]}.{kind}"


def in_form(model, form):
    """The tensors under other names, those that are one in timm's one after the other."""
    config, arrays = model.config, {}
    for name, array in model.state_dict().items():
        if name == "patch_emb.weight":
            array = array.reshape(config.emb_dim, config.n_channels, config.patch_size, config.patch_size)
        array = array[None] if name == "pos_emb" else array[None] if name == "class_token" else array
        theirs = their_name(name, form)
        arrays[theirs] = np.concatenate([arrays[theirs], array]) if theirs in arrays else array
    return arrays


def publish(folder, name):
    return write(folder, arrays_of(CASES[name]), config_of(CASES[name]))


@pytest.fixture
def published(tmp_path):
    return publish(tmp_path / "published", GRAY)


def random_vit(dtype=np.float32, seed=3, **changes):
    sizes = {
        "n_classes": 3,
        "image_size": 6,
        "patch_size": 2,
        "n_channels": 3,
        "emb_dim": 8,
        "n_heads": 2,
        "n_layers": 2,
    }
    return filled(make_model("vit", sizes | {"hidden_dim": 5} | changes, Generator(seed)), dtype, seed)


def same(model, reference):
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True, err_msg=name)
    assert model.classes == reference.classes
    sizes = reference.config
    images = np.random.default_rng(1).standard_normal((2, sizes.n_channels, sizes.image_size, sizes.image_size))
    with tg.no_grad():
        np.testing.assert_array_equal(model(images).data, reference(images).data, strict=True)


# ---- transformers


@pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:.*no head")
def test_scores_loss_and_every_gradient_are_those_of_transformers(name, way, tmp_path):
    case = CASES[name]
    model, tokenizer = load_pretrained(publish(tmp_path / "a", name), dtype=np.float64)
    assert (model.architecture, tokenizer, model.training) == ("vit", None, False)
    images = np.array(case["images"])
    with way():
        if name == HEADLESS:
            output = model.features(images)
            loss = (output * np.array(case["g"])).sum()
        else:
            output = model(images)
            loss = cross_entropy(output, targets=case["labels"])
    np.testing.assert_allclose(output.data, case["output"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(float(loss.data), case["loss"], rtol=1e-10)
    loss.backward()
    parameters = {their_name(own, MEMORY): p for own, p in model.named_parameters() if p.grad is not None}
    if name == HEADLESS:
        parameters = {own.removeprefix("vit."): p for own, p in parameters.items()}
    assert parameters.keys() == case["gradients"].keys()
    for own, parameter in parameters.items():
        expected = np.array(case["gradients"][own]).reshape(parameter.shape)
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-10, atol=1e-10, err_msg=own)


@pytest.mark.parametrize("name", [GRAY, COLOURED])
def test_it_comes_back_as_it_was_published(name, tmp_path):
    model = load_pretrained(publish(tmp_path / "a", name), dtype=np.float64)[0]
    save_pretrained(model, tmp_path / "b")
    stored, arrays = load_file(tmp_path / "b/model.safetensors"), arrays_of(CASES[name])
    assert stored.keys() == arrays.keys()
    for own, array in arrays.items():
        np.testing.assert_array_equal(stored[own], array, strict=True, err_msg=own)
    written = json.loads((tmp_path / "b/config.json").read_text())
    assert {key: written.get(key) for key in config_of(CASES[name])} == config_of(CASES[name])
    again = load_pretrained(tmp_path / "b", np.float64)[0]
    assert again.config == model.config
    same(again, model)


def test_one_without_a_head_gets_one_of_zeros(tmp_path):
    publish(tmp_path / "a", HEADLESS)
    with pytest.warns(RuntimeWarning, match="no head: that for 2 classes is of zeros, to be learned"):
        model, _, report = load_pretrained(tmp_path / "a", report=True)
    assert not model.out_head.weight.data.any()
    assert sorted(report.missing) == ["classifier.bias", "classifier.weight"]
    assert sorted(report.ignored) == ["pooler.dense.bias", "pooler.dense.weight"]
    config = config_of(CASES[HEADLESS]) | {"id2label": {str(i): f"a{i}" for i in range(5)}}
    (tmp_path / "a/config.json").write_text(json.dumps(config))
    with pytest.warns(RuntimeWarning, match="that for 5 classes"):
        assert load_pretrained(tmp_path / "a")[0].out_head.weight.shape == (5, 8)
    arrays = arrays_of(CASES[HEADLESS]) | {"classifier.weight": np.ones((4, 8))}  # half of a head is damage
    with pytest.raises(CheckpointError, match=r"id2label is .* must name the 4 classes of classifier"):
        load_pretrained(write(tmp_path / "a", arrays))
    del config["id2label"]
    with pytest.raises(StateDictError, match=r"missing classifier.bias \(4,\)"):
        load_pretrained(write(tmp_path / "a", arrays, config))


@pytest.mark.parametrize("changes", [
    {},
    {"activation": "gelu", "norm_eps": 1e-3, "drop_rate": 0.2, "qkv_bias": False},
    {"hidden_dim": None, "n_channels": 1, "patch_size": 3, "activation": "silu"},
    {"n_classes": 1},
])  # fmt: skip
@pytest.mark.parametrize("named", [True, False])
def test_ours_come_back(changes, named, tmp_path):
    model = random_vit(**changes)
    if named:
        model.classes = tuple(f"kind {i}" for i in range(model.config.n_classes))
    save_pretrained(model, tmp_path / "a")
    loaded, tokenizer = load_pretrained(tmp_path / "a")
    same(loaded, model)
    assert (loaded.config, tokenizer) == (model.config, None)
    config = json.loads((tmp_path / "a/config.json").read_text())
    names = [f"kind {i}" if named else f"LABEL_{i}" for i in range(model.config.n_classes)]
    assert config["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config["label2id"] == {name: i for i, name in enumerate(names)}


def test_what_transformers_has_no_place_for(tmp_path):
    with pytest.raises(ConfigError, match="pool is 'mean': transformers' ViT has 'token' alone"):
        save_pretrained(random_vit(pool="mean"), tmp_path / "a")
    with pytest.raises(ConfigError, match="patch_order is 'channels_last'"):
        save_pretrained(random_vit(patch_order="channels_last"), tmp_path / "a")
    with pytest.raises(TokenizerError, match="a ViTModel reads no text: pass no tokenizer"):
        save_pretrained(random_vit(), tmp_path / "a", CharTokenizer.train("ab"))
    assert not (tmp_path / "a").exists()


def test_what_a_configuration_does_not_say_is_as_in_transformers():
    """Their ViTConfig: ViT-B/16, two classes, an eps of 1e-12; test_vit_in_transformers.py asks them."""
    made, notes = from_transformers({"model_type": "vit"}, "config.json")
    assert (made, notes) == (ViTConfig(n_classes=2, norm_eps=1e-12), [])


def test_sizes_may_be_pairs(published):
    expected = load_pretrained(published)[0]
    (published / "config.json").write_text(
        json.dumps(config_of(CASES[GRAY]) | {"image_size": [4, 4], "patch_size": [2, 2]})
    )
    same(load_pretrained(published)[0], expected)


def test_rates_that_differ_are_said(published):
    (published / "config.json").write_text(json.dumps(config_of(CASES[GRAY]) | {"hidden_dropout_prob": 0.1}))
    loaded, _, report = load_pretrained(published, report=True)
    assert loaded.config.drop_rate == 0.1
    assert "the model has one rate, drop_rate 0.1, that of hidden_dropout_prob" in str(report)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act is 'mish': use one of gelu, gelu_new, relu, silu"),
        ({"image_size": [4, 6]}, r"image_size is \[4, 6\]: only squares can be loaded"),
        ({"image_size": [4, 4, 4]}, "image_size is .*: only squares"),
        ({"patch_size": "2"}, "patch_size is '2'"),
        ({"patch_size": 3}, "patch_size 3 does not divide image_size 4"),
        ({"image_size": 8}, r"position_embeddings' in model.safetensors: \(1, 5, 8\) against \(1, 17, 8\)"),
        ({"num_channels": 3}, r"projection.weight' .*: \(8, 1, 2, 2\) against \(8, 3, 2, 2\)"),
        ({"num_attention_heads": 3}, "num_attention_heads 3 does not divide hidden_size 8"),
        ({"qkv_bias": False}, "unexpected 'vit.encoder.layer.0.attention.attention.*.bias'"),
        ({"qkv_bias": 1}, "qkv_bias is 1: it must be True or False"),
        ({"hidden_size": 1e12}, "hidden_size 1,000,000,000,000, .*TiB"),
        ({"layer_norm_eps": -1}, "layer_norm_eps is -1"),
        ({"quantization_config": {}}, "quantization_config: numbers of few bits"),
        ({"id2label": {"0": "a"}}, "id2label is .*: it must name the 3 classes of classifier"),
        ({"num_hidden_layers": 3}, "has tensors of 2 layers, the configuration says 3"),
        ({"model_type": "deit"}, "model_type is 'deit': only .*vit.* can be loaded"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_field(published, changes, message):
    (published / "config.json").write_text(json.dumps(config_of(CASES[GRAY]) | changes))
    with pytest.raises((ConfigError, StateDictError, CheckpointError), match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("vit.embeddings.cls_token"), r"missing embeddings.cls_token \(1, 1, 8\)"),
        (lambda a: a.pop("classifier.bias"), r"missing classifier.bias \(3,\)"),
        (lambda a: a.update({"decoder.0.weight": np.ones((4, 8, 1, 1))}), "unexpected 'decoder.0.weight'"),
        (lambda a: a.update({"classifier.weight": np.ones(1)}), r"classifier.weight' .*: \(1,\) against"),
        (lambda a: a.update({"classifier.weight": np.ones((0, 8))}), "id2label is .* must name the 0 classes"),
    ],
)
def test_a_misfit_is_named(published, change, message):
    arrays = arrays_of(CASES[GRAY])
    change(arrays)
    if "against" in message:
        (published / "config.json").write_text(json.dumps(config_of(CASES[GRAY]) | {"id2label": None}))
    write(published, arrays)
    with pytest.raises((StateDictError, CheckpointError), match=message):
        load_pretrained(published)


# ---- other names, and sizes from shapes


@pytest.mark.parametrize("form", [FILES, MEMORY, TIMM])
@pytest.mark.parametrize("changes", [{}, {"n_channels": 1}, {"qkv_bias": False, "hidden_dim": None}])
def test_without_a_configuration_shapes_tell(form, changes, tmp_path):
    eps = 1e-6 if form == TIMM else 1e-12
    model = random_vit(norm_eps=eps, **changes)
    write(tmp_path, in_form(model, form))
    with pytest.raises(ConfigError, match="number of heads cannot be told from a width of 8: pass n_heads="):
        load_pretrained(tmp_path)
    loaded, _, report = load_pretrained(tmp_path, n_heads=2, report=True)
    same(loaded, model)
    assert loaded.config == model.config
    assert ("names of transformers,", "names of transformers 5 in memory,", "names of timm,")[form] in str(report)
    assert f"the exact GELU and layer_norm_eps {eps:g}" in str(report)


def test_heads_of_64_are_a_guess_that_is_said(tmp_path):
    model = random_vit(emb_dim=128, norm_eps=1e-12)
    save_pretrained(model, tmp_path / "a")
    (tmp_path / "a/config.json").unlink()
    same(load_pretrained(tmp_path / "a")[0], model)  # our own files say it
    write(tmp_path / "b", in_form(model, MEMORY))
    loaded, _, report = load_pretrained(tmp_path / "b", report=True)
    same(loaded, model)
    assert "n_heads is not in the file: 2, 64 numbers for each" in str(report)


def test_timm_s_configuration_has_no_sizes(tmp_path):
    model = random_vit(norm_eps=1e-6)
    config = {"architecture": "vit_tiny_patch2_6", "num_classes": 3, "num_features": 8, "global_pool": "token"}
    write(tmp_path, in_form(model, TIMM), config)
    same(load_pretrained(tmp_path, n_heads=2)[0], model)
    write(tmp_path, in_form(model, TIMM), config | {"global_pool": "avg"})
    with pytest.raises(ConfigError, match="global_pool is 'avg': only 'token' can be loaded"):
        load_pretrained(tmp_path, n_heads=2)
    arrays = in_form(model, TIMM)
    del arrays["head.weight"], arrays["head.bias"]
    with pytest.warns(RuntimeWarning, match="no head"):
        assert not load_pretrained(write(tmp_path, arrays, config), n_heads=2)[0].out_head.weight.data.any()


def test_new_names_beside_a_configuration(tmp_path):
    expected = load_pretrained(publish(tmp_path / "a", GRAY), np.float64)[0]
    arrays = in_form(expected, MEMORY)
    same(load_pretrained(write(tmp_path / "b", arrays, config_of(CASES[GRAY])), np.float64)[0], expected)
    arrays["vit.embeddings.mask_token"] = np.ones((1, 1, 8))
    loaded, _, report = load_pretrained(write(tmp_path / "b", arrays, config_of(CASES[GRAY])), np.float64, report=True)
    same(loaded, expected)
    assert report.ignored == ["vit.embeddings.mask_token"]


@pytest.mark.parametrize("changes", [{}, {"pool": "mean"}, {"n_channels": 1, "patch_size": 3}])
def test_the_names_of_a_run(changes, tmp_path):
    """The state dict as a run has it, beside nothing, and beside the config.json of the run."""
    model = random_vit(**changes)
    write(tmp_path, model.state_dict())
    loaded, _, report = load_pretrained(tmp_path / "model.safetensors", n_heads=2, report=True)
    same(loaded, model)
    assert loaded.config == model.config
    assert "ViT, names of the book" in str(report)
    model = random_vit(patch_order="channels_last", **changes)
    write(tmp_path, model.state_dict(), {"architecture": "vit", "model": model.config.to_dict()})
    loaded = load_pretrained(tmp_path / "model.safetensors")[0]
    same(loaded, model)
    assert loaded.config == model.config


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("pos_embed", np.ones((1, 9, 8)), "8 patches of 3 x 4 numbers: only squares"),
        ("pos_embed", np.ones((1, 1, 8)), "0 patches"),
        ("pos_embed", np.ones(8), "missing pos_embed, or of another form"),
        ("patch_embed.proj.weight", np.ones((8, 3, 2)), "missing patch_embed.proj.weight, or of another form"),
        ("patch_embed.proj.weight", np.ones((8, 3, 2, 4)), r"proj.weight' .*against \(8, 3, 4, 4\)"),
        ("patch_embed.proj.weight", np.ones((0, 3, 2, 2)), "or of another form"),
        ("head.weight", np.ones(3), "missing head.weight, or of another form"),
        ("blocks.0.mlp.fc1.weight", np.ones(3), "missing blocks.0.mlp.fc1.weight, or"),
    ],
)
def test_shapes_that_tell_nothing(name, array, message, tmp_path):
    with pytest.raises(StateDictError, match=message):
        load_pretrained(write(tmp_path, in_form(random_vit(), TIMM) | {name: array}), n_heads=2)


# ---- commands


def test_inspect_and_convert_say_what_it_is(published, tmp_path, capsys):
    write(tmp_path / "timm", in_form(random_vit(), TIMM))
    sizes = "width 8, pictures of 1 x 4 x 4 in patches of 2, 3 classes"
    for path, words in {
        published: f"ViT with the names of transformers: 2 layers, {sizes}",
        tmp_path
        / "timm": "ViT with the names of timm: 2 layers, width 8, pictures of 3 x 6 x 6 in patches of 2, 3 classes",
    }.items():
        assert main(["inspect", str(path)]) == 0
        assert words in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "timm"), str(tmp_path / "out"), "--n-heads", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["image_size"] == 6
    expected = load_pretrained(tmp_path / "timm", n_heads=2)[0]
    same(load_pretrained(tmp_path / "out")[0], expected)
