"""LoRA in PEFT's files: theirs give their logits here, ours come back as they were, and what is wrong is refused by name."""

import json
import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import store
from safetensors.numpy import load_file, save_file

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.errors import CheckpointError, ConfigError, TinygradLLMError, UnsafeFile
from tinygrad_llm.files import replace_file
from tinygrad_llm.formats.safetensors import encode_arrays
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.nn.lora import lora_of
from tinygrad_llm.rng import Generator
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import load_pretrained, save_pretrained

THEIRS = {name: case for name, case in store.read("lora").items() if "adapter_config" in case}
SIZES = {
    "vocab_size": 11,
    "context_length": 7,
    "emb_dim": 4,
    "n_heads": 2,
    "n_layers": 2,
    "qkv_bias": True,
    "drop_rate": 0.0,
}
IDS = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


def make(**changes):
    return make_model("gpt", SIZES | changes, Generator(3)).astype(np.float64).eval()


def logits(model, ids=IDS):
    with tg.no_grad():
        return model(ids).data


def shaken(model, seed=7):
    """All that is trained gets other numbers, so that B is not zero."""
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.data = rng.standard_normal(p.shape).astype(p.dtype)
    return model


def their_model(case, folder):
    """The base of a stored case, as transformers published it, opened here."""
    weights = {name: np.array(value) for name, value in case["weights"].items()}
    score = weights.pop("score.weight", None)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps(case["base"] | {"tie_word_embeddings": "lm_head.weight" not in weights})
    )
    model, _ = load_pretrained(folder, dtype=np.float64)
    if score is not None:
        model.out_head = nn.Linear(4, 3).astype(np.float64)  # with a bias, which theirs lacks
    return model


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(config if isinstance(config, str) else json.dumps(config))
    replace_file(folder / TENSORS, encode_arrays({name: np.array(value) for name, value in tensors.items()}))
    return folder


@pytest.mark.parametrize("name", THEIRS)
def test_theirs_give_their_logits(name, tmp_path):
    case = THEIRS[name]
    model = their_model(case, tmp_path / "base")
    adapter = write(tmp_path / "adapter", case["adapter_config"], case["tensors"])
    lora.load(model, adapter)
    out, expected = logits(model, case["ids"]), np.array(case["logits"])
    out = out if expected.ndim == 3 else out[:, -1]
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-10)
    lora.save(model, tmp_path / "again")
    twin = their_model(case, tmp_path / "base2")
    lora.load(twin, tmp_path / "again")
    np.testing.assert_allclose(logits(twin, case["ids"]), logits(model, case["ids"]), rtol=1e-10, atol=1e-10)
    lora.merge(model, keep=False)
    merged = logits(model, case["ids"])
    np.testing.assert_allclose(merged if expected.ndim == 3 else merged[:, -1], expected, rtol=1e-10, atol=1e-10)


OPTIONS = [
    {"targets": "attn"},
    {"targets": "all", "r": 3, "alpha": 5, "use_rslora": True},
    {"targets": ["W_query", "ff.layers.0"], "whole": ["final_norm", "trf_blocks.1.norm2"]},
    {"targets": ["trf_blocks.1.att.W_value"], "r": 1, "dropout": 0.25},
    {"targets": ["out_head"], "whole": "trf_blocks.0.ff"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_ours_come_back_as_they_were(options, tmp_path):
    model = shaken(lora.inject(make(), rng=Generator(5), **options))
    lora.save(model, tmp_path / "adapter", base="somewhere")
    lora.save(model, tmp_path / "adapter", base="somewhere")  # an earlier one is replaced
    twin = make()
    lora.load(twin, tmp_path / "adapter")
    assert twin.state_dict().keys() == model.state_dict().keys()
    for name, array in twin.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name], err_msg=name)
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
    np.testing.assert_array_equal(logits(twin), logits(model))
    one, other = lora_of(twin), lora_of(model)
    assert (one.r, one.scale, one.dropout, one.use_rslora) == (other.r, other.scale, other.dropout, other.use_rslora)
    assert json.loads((tmp_path / "adapter" / CONFIG).read_text())["base_model_name_or_path"] == "somewhere"


def test_names_shapes_and_blocks_in_our_files(tmp_path):
    model = shaken(lora.inject(make(), r=2, alpha=6, targets=["W_query", "W_value", "out_proj"], rng=Generator(5)))
    lora.save(model, tmp_path / "adapter")
    arrays = load_file(tmp_path / "adapter" / TENSORS)
    layer = "base_model.model.transformer.h.1.attn.c_attn"
    assert len(arrays) == 8
    a, b = arrays[f"{layer}.lora_A.weight"], arrays[f"{layer}.lora_B.weight"]
    assert (a.shape, b.shape) == ((6, 4), (12, 6))
    assert arrays["base_model.model.transformer.h.1.attn.c_proj.lora_A.weight"].shape == (2, 4)
    att = model.trf_blocks[1].att
    np.testing.assert_array_equal(b @ a, np.concatenate(
        [att.W_query.lora_B.data @ att.W_query.lora_A.data, np.zeros((4, 4)), att.W_value.lora_B.data @ att.W_value.lora_A.data]
    ))  # fmt: skip
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert config["peft_type"] == "LORA"
    assert config["fan_in_fan_out"] is True
    assert config["target_modules"] == ["attn.c_attn", "attn.c_proj"]
    assert (config["r"], config["lora_alpha"]) == (2, 6)
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({"attn.c_attn": 6}, {"attn.c_attn": 18})
    assert config["task_type"] == "CAUSAL_LM"


@pytest.mark.parametrize("options", [{"targets": "all"}, {"targets": "attn"}, {"targets": "attn", "whole": "out_head"}])
def test_a_classifier_takes_its_head_along(options, tmp_path):
    """The base does not have it: without it, the classifier that is loaded would have a random one."""

    def classifier(seed):
        return add_classifier(make(), ["ham", "spam", "eggs"], rng=Generator(seed))

    model = shaken(lora.inject(classifier(1), **options))
    lora.save(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["score"]
    twin = classifier(2)
    lora.load(twin, tmp_path / "adapter")
    np.testing.assert_allclose(logits(twin), logits(model), rtol=1e-10, atol=1e-10)
    base = make()
    lora.load(base, tmp_path / "adapter")
    assert base.classes == ("ham", "spam", "eggs")
    np.testing.assert_allclose(logits(base), logits(model), rtol=1e-10, atol=1e-10)


@given(
    r=st.integers(1, 5),
    targets=st.sets(st.sampled_from(["W_query", "W_key", "W_value", "out_proj", "ff.layers.2"]), min_size=1),
    use_rslora=st.booleans(),
    alpha=st.integers(1, 40),
)
def test_any_part_of_the_fused_layer_comes_back(tmp_path_factory, r, targets, use_rslora, alpha):
    folder = tmp_path_factory.mktemp("adapter") / "a"
    model = shaken(lora.inject(make(), r, alpha, sorted(targets), use_rslora=use_rslora), r)
    lora.save(model, folder)
    twin = make()
    lora.load(twin, folder)
    assert lora_of(twin).r == r
    np.testing.assert_allclose(logits(twin), logits(model), rtol=1e-10, atol=1e-10)


def test_what_peft_saved_again_without_our_note_still_gives_the_same(tmp_path):
    model = shaken(lora.inject(make(), r=2, targets=["attn", "ff.layers.0"]))
    lora.save(model, tmp_path / "a")
    arrays = load_file(tmp_path / "a" / TENSORS)
    save_file(arrays, tmp_path / "a" / TENSORS, metadata={"format": "pt"})
    twin = make()
    lora.load(twin, tmp_path / "a")
    assert lora_of(twin).r == 6
    np.testing.assert_allclose(logits(twin), logits(model), rtol=1e-10, atol=1e-10)


def test_an_adapter_of_a_model_without_its_head(tmp_path):
    case = THEIRS["attention"]
    tensors = {name.replace("transformer.", ""): value for name, value in case["tensors"].items()}
    model = their_model(case, tmp_path / "base")
    lora.load(model, write(tmp_path / "adapter", case["adapter_config"], tensors))
    np.testing.assert_allclose(logits(model, case["ids"]), np.array(case["logits"]), rtol=1e-10, atol=1e-10)


# ---- what is wrong with it


def config(**changes):
    return json.loads(THEIRS["attention"]["adapter_config"]) | changes


LAYER = "base_model.model.transformer.h.0.attn.c_attn"
ANY = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA': only LORA"),
        ({"use_dora": True}, "'?use_dora'? is True, which is not implemented"),
        ({"layers_to_transform": [0]}, "'?layers_to_transform'? is"),
        ({"exclude_modules": "c_fc"}, "'?exclude_modules'? is"),
        ({"a_field_of_tomorrow": 3}, "'?a_field_of_tomorrow'? is 3"),
        ({"lora_bias": True}, "'?lora_bias'? is"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"rank_pattern": {"(a+)+$": 2}}, r"rank_pattern has the key '?\(a\+\)\+\$"),
        ({"rank_pattern": [1]}, "rank_pattern is"),
        ({"alpha_pattern": {"c_attn": "x"}}, "alpha_pattern: c_attn is 'x'"),
        ({"r": "2"}, "r is '2'"),
        ({"r": 3}, r"lora_A.weight is \(2, 4\), here it must be \(3, 4\)"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_dropout": 1}, "lora_dropout is 1"),
        ({"target_modules": {"a": 1}}, "target_modules is"),
        ({"target_modules": ["c_fc", "c_attn"]}, "target_modules has '?c_fc'?, of which there is no tensor"),
        ({"target_modules": ["h.0.attn.c_attn"]}, "h.1.attn.c_attn'? is not among target_modules"),
        ({"modules_to_save": ["ln_f"]}, "modules_to_save has '?ln_f'?, of which there is no tensor"),
    ],
)
def test_configurations_that_are_refused_by_name(changes, message, tmp_path):
    refused(tmp_path, config(**changes), THEIRS["attention"]["tensors"], message)


def refused(folder, about, tensors, message, kinds=TinygradLLMError):
    model = make()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(kinds, match=message) as raised:
        lora.load(model, write(folder / "adapter", about, tensors))
    assert "\n" not in str(raised.value)
    assert str(folder / "adapter") in str(raised.value)
    assert model.state_dict().keys() == before.keys()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert all(p.requires_grad for p in model.parameters())


def without(name):
    return {key: value for key, value in THEIRS["attention"]["tensors"].items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            without(f"{LAYER}.lora_B.weight"),
            r"missing base_model.model.transformer.h.0.attn.c_attn.lora_B.weight \(12, 2\)",
        ),
        (
            without("") | {f"{LAYER}.lora_B.weight": np.zeros((2, 12))},
            r"lora_B.weight is \(2, 12\), here it must be \(12, 2\)",
        ),
        (without("") | {f"{LAYER}.lora_A.weight": np.full((2, 4), np.nan)}, "lora_A.weight'? holds NaN or infinities"),
        (without("") | {"base_model.model.x.lora_A.weight": np.zeros((2, 4))}, "unexpected .*x.lora_A.weight"),
        (
            without("") | {"something": np.zeros(3)},
            r"unexpected '?something'? \(3,\): names begin with base_model.model.",
        ),
        (without("") | {"base_model.model.transformer.ln_f.weight": np.zeros(4)}, "unexpected .*ln_f.weight"),
        (without("") | {f"{LAYER}.lora_A.weight": np.zeros((2, 4), np.int64)}, "lora_A.weight'? holds int64"),
        (without("") | {f"{LAYER}.lora_A.default.weight": np.zeros((2, 4))}, "unexpected .*lora_A.default.weight"),
        ({}, "of which there is no tensor"),
    ],
)
def test_tensors_that_do_not_fit(tensors, message, tmp_path):
    refused(tmp_path, config(), tensors, message)


def test_a_module_saved_in_part_or_tied(tmp_path):
    case = THEIRS["a norm trained whole"]
    tensors = {name: value for name, value in case["tensors"].items() if not name.endswith("ln_f.bias")}
    refused(tmp_path, case["adapter_config"], tensors, r"missing base_model.model.transformer.ln_f.bias \(4,\)")
    case = THEIRS["every layer and the head"]
    model = make(tie_weights=True)
    with pytest.raises(TinygradLLMError, match=r"lm_head.*, whose weight is the token embedding here"):
        lora.load(model, write(tmp_path / "tied", case["adapter_config"], case["tensors"]))
    assert lora_of(model) is None


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"r": NaN}', '{"r": 1, "r": 2}', "\xff", "[" * 10_000])
def test_a_configuration_that_is_not_json(text, tmp_path):
    refused(tmp_path, text, without(""), CONFIG)


@given(data=st.data())
def test_no_value_of_a_field_gives_a_traceback(data, tmp_path_factory):
    field = data.draw(st.sampled_from([*config(), "more"]))
    values = ANY | st.lists(ANY, max_size=2) | st.dictionaries(st.text(max_size=5), ANY, max_size=2)
    folder = tmp_path_factory.mktemp("adapter")
    about = config(**{field: data.draw(values)})
    with suppress(TinygradLLMError):
        lora.load(make(), write(folder / "a", about, without("")))


def test_files_that_are_not_there_or_cut_off(tmp_path):
    adapter = write(tmp_path / "adapter", config(), without(""))
    whole = (adapter / TENSORS).read_bytes()
    for n in (0, 7, 100, len(whole) - 1):
        (adapter / TENSORS).write_bytes(whole[:n])
        with pytest.raises(CheckpointError, match=re.escape(str(adapter / TENSORS))):
            lora.load(make(), adapter)
    (adapter / TENSORS).unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: not there"):
        lora.load(make(), adapter)
    (adapter / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(UnsafeFile, match=r"adapter_model.bin: a pickle"):
        lora.load(make(), adapter)
    with pytest.raises(CheckpointError, match="no adapter there"):
        lora.load(make(), tmp_path)


@pytest.mark.parametrize("note", ["3", '{"a": "b"}', "{", f'{{"{LAYER[17:]}": 2}}', f'{{"{LAYER[17:]}": 3}}'])
def test_a_note_of_ours_that_is_not_so(note, tmp_path):
    model = shaken(lora.inject(make(), r=2))
    lora.save(model, tmp_path / "a")
    arrays = load_file(tmp_path / "a" / TENSORS)
    arrays[f"{LAYER}.lora_B.weight"] += 1
    save_file(arrays, tmp_path / "a" / TENSORS, metadata={"format": "pt", "fused_blocks": note})
    with pytest.raises(CheckpointError, match="metadata"):
        lora.load(make(), tmp_path / "a")


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ConfigError, match="no LoRA layers"):
        lora.save(make(), tmp_path / "a")
    model = lora.inject(make(), targets="attn")
    with pytest.raises(ConfigError, match="merge"):
        save_pretrained(model, tmp_path / "plain")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("...")
    with pytest.raises(CheckpointError, match="holds more than an adapter"):
        lora.save(model, tmp_path / "full")
    model.trf_blocks[0].att.W_query.bias.requires_grad = True
    with pytest.raises(ConfigError, match=r"W_query.bias is trained, and PEFT's files have no place"):
        lora.save(model, tmp_path / "a")
    lora.merge(model)
    save_pretrained(model, tmp_path / "plain")
    np.testing.assert_allclose(logits(load_pretrained(tmp_path / "plain", np.float64)[0]), logits(model))
    assert not (tmp_path / "a").exists()


# ---- what is said on the command line


def test_parse():
    assert lora.parse("") == lora.LoRAConfig()
    assert lora.parse("r=16,alpha=32,targets=attn,dropout=0.05") == lora.LoRAConfig(16, 32, 0.05, ("attn",))
    assert lora.parse("targets=W_query+ff.layers.*, use_rslora=true,init=book,whole=out_head") == lora.LoRAConfig(
        targets=("W_query", "ff.layers.*"), use_rslora=True, init="book", whole=("out_head",)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank=3", r"lora has no option 'rank'"),
        ("r", "'r' is not KEY=VALUE"),
        ("r=x", "r is 'x': it must be an integer"),
        ("alpha=x", "alpha is 'x': it must be a number"),
        ("r=1,r=2", "r is given twice"),
        ("use_rslora=1", "use_rslora is '1': use true or false"),
        ("r=0", "r is 0"),
        ("targets=", "targets has ''"),
        ("init=ones", "init is 'ones'"),
    ],
)
def test_parse_names_the_key(text, message):
    with pytest.raises(ConfigError, match=message):
        lora.parse(text)


def test_info():
    model = lora.inject(make_model("gpt", SIZES), r=2, alpha=8)
    about = lora.info(model)
    assert about.trainable_params == 2 * 4 * 2 * (4 + 4)
    assert str(about).startswith(f"trainable params: 128 || all params: {about.all_params:,} || trainable%: ")
    assert "r 2, alpha 8, scale 4, dropout 0, beside attn" in str(about)
    assert about.to_dict()["lora"]["targets"] == ["attn"]
    lora.merge(model)
    assert "no LoRA" in str(lora.info(model))
