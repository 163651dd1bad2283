"""Weights of others become our model: against values of the library transformers, in all forms, and with misfits named."""

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
from formats.pytorch_writer import write_checkpoint as write_pytorch
from formats.safetensors_bytes import entry, file_bytes
from formats.tensorflow_writer import write_checkpoint
from reference import store
from safetensors.numpy import load_file, save_file
from weights.published import arrays_of, write

import tinygrad_llm as tg
from tinygrad_llm.errors import (
    CheckpointError,
    ConfigError,
    DTypeError,
    NonFiniteError,
    StateDictError,
    UnsafeFile,
)
from tinygrad_llm.generation import generate
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights import convert, load_pretrained, save_pretrained
from tinygrad_llm.weights.gpt import TABLE
from tinygrad_llm.weights.load import load_with_tokenizer

CASES = store.read("transformers")
PLAIN = CASES["as published"]

# What each of our parameters is in the words of transformers, written down a second time, for the tests alone.
IN_A_LAYER = {
    "norm1.scale": "ln_1.weight",
    "norm1.shift": "ln_1.bias",
    "att.out_proj.weight": "attn.c_proj.weight",
    "att.out_proj.bias": "attn.c_proj.bias",
    "norm2.scale": "ln_2.weight",
    "norm2.shift": "ln_2.bias",
    "ff.layers.0.weight": "mlp.c_fc.weight",
    "ff.layers.0.bias": "mlp.c_fc.bias",
    "ff.layers.2.weight": "mlp.c_proj.weight",
    "ff.layers.2.bias": "mlp.c_proj.bias",
}
ONCE = {
    "tok_emb.weight": "transformer.wte.weight",
    "pos_emb.weight": "transformer.wpe.weight",
    "final_norm.scale": "transformer.ln_f.weight",
    "final_norm.shift": "transformer.ln_f.bias",
    "out_head.weight": "lm_head.weight",
}


def in_our_layout(name, theirs):
    """One of our parameters, cut out of arrays with the names and the layout of transformers."""
    if name in ONCE:
        return theirs[ONCE[name]]
    _, i, part = name.split(".", 2)
    for k, letter in enumerate(("query", "key", "value")):
        if part.startswith(f"att.W_{letter}."):
            fused = theirs[f"transformer.h.{i}.attn.c_attn.{part.split('.')[-1]}"]
            width = fused.shape[-1] // 3
            return fused[..., k * width : (k + 1) * width].T
    array = theirs[f"transformer.h.{i}.{IN_A_LAYER[part]}"]
    return array.T if array.ndim == 2 else array


@pytest.fixture
def published(tmp_path):
    return write(tmp_path / "published", arrays_of(PLAIN), PLAIN["config"])


@pytest.mark.parametrize("name", CASES)
def test_logits_loss_every_gradient_and_greedy_ids_are_those_of_transformers(name, tmp_path):
    case = CASES[name]
    model, tokenizer = load_pretrained(write(tmp_path / "a", arrays_of(case), case["config"]), dtype=np.float64)
    ids = np.array(case["ids"])
    assert tokenizer is None
    assert not model.training
    logits = model(ids)
    np.testing.assert_allclose(logits.data, case["logits"], rtol=1e-10, atol=1e-10)
    loss = cross_entropy(logits[:, :-1], targets=ids[:, 1:])
    loss.backward()
    np.testing.assert_allclose(float(loss.data), case["loss"], rtol=1e-10)
    gradients = {key: np.array(g, np.float64) for key, g in case["gradients"].items()}
    parameters = dict(model.named_parameters())
    for key, parameter in parameters.items():
        np.testing.assert_allclose(parameter.grad, in_our_layout(key, gradients), rtol=1e-10, atol=1e-10, err_msg=key)
    assert sum(p.size for p in parameters.values()) == sum(g.size for g in gradients.values())
    np.testing.assert_array_equal(generate(model, ids[:1, :3], 6), case["greedy"])


def test_each_option_of_the_configuration_counts(published):
    """The same numbers under another activation, epsilon or number of heads give other logits."""
    ids = np.array(PLAIN["ids"])
    for changes in ({"activation_function": "gelu"}, {"layer_norm_epsilon": 1e-2}, {"n_head": 3}):
        (published / "config.json").write_text(json.dumps(PLAIN["config"] | changes))
        logits = load_pretrained(published, dtype=np.float64)[0](ids).data
        assert np.abs(logits - PLAIN["logits"]).max() > 1e-5


def same(model, reference):
    """The same parameters under the same names, to the bit."""
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True, err_msg=name)


def nanogpt(arrays):
    """The layout of nn.Linear; the head is there too, though it is tied."""
    linear = {n: a.T if a.ndim == 2 and ".h." in n else a for n, a in arrays.items()}
    return linear | {"lm_head.weight": arrays["transformer.wte.weight"].copy()}


def test_every_form_of_the_names_gives_the_same_model(published, tmp_path):
    reference = load_pretrained(published)[0]
    arrays = arrays_of(PLAIN)
    bare = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    masks = {f"h.{i}.attn.{n}": np.ones((1, 1, 9, 9), np.float32) for i in range(2) for n in ("bias", "masked_bias")}
    forms = {
        "no prefix": bare,
        "causal masks": bare | masks,
        "compiled": {"_orig_mod." + name: array for name, array in arrays.items()},
        "head beside the table": arrays | {"lm_head.weight": arrays["transformer.wte.weight"].copy()},
        "head instead of the table": {n.replace("transformer.wte", "lm_head"): a for n, a in arrays.items()},
    }
    for name, form in forms.items():
        model = load_pretrained(write(tmp_path / name, form, PLAIN["config"]))[0]
        same(model, reference)
        assert model.config.tie_weights
    assert sorted(load_pretrained(tmp_path / "causal masks", report=True)[2].ignored) == sorted(masks)
    # single files, of which only the number of heads must be said
    book = {name: parameter.data for name, parameter in reference.named_parameters()}
    for name, form in {"nano": nanogpt(arrays), "book": book, "theirs": bare}.items():
        file = write(tmp_path / "single", form, file=f"{name}.safetensors") / f"{name}.safetensors"
        model, _, report = load_pretrained(file, n_heads=2, report=True)
        same(model, reference)
        assert model.config.activation == ("gelu_erf" if name == "nano" else "gelu")
        assert report.transposed == (sorted(report.transposed) if name == "theirs" else [])
        with pytest.raises(ConfigError, match=r"cannot be told from a width of 6: pass n_heads="):
            load_pretrained(file)


def test_shards_give_the_same_model(published, tmp_path):
    arrays = arrays_of(PLAIN)
    names = list(arrays)
    files = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(names)}
    folder = tmp_path / "sharded"
    for file in set(files.values()):
        write(folder, {n: a for n, a in arrays.items() if files[n] == file}, PLAIN["config"], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    same(load_pretrained(folder)[0], load_pretrained(published)[0])


def test_shards_of_pytorch_give_the_same_model(published, tmp_path):
    arrays = arrays_of(PLAIN, np.float32)
    folder = tmp_path / "sharded"
    files = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(arrays)}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PLAIN["config"]))
    for file in set(files.values()):
        write_pytorch(folder / file, {n: a for n, a in arrays.items() if files[n] == file})
    (folder / "training_args.bin").write_bytes(b"of somebody's own")
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    for given in (folder, index):
        with pytest.raises(UnsafeFile, match=rf"tinygrad-llm convert {given} FOLDER"):
            load_pretrained(given)
    with pytest.warns(RuntimeWarning, match="index.json: a pickle, which other programs run"):
        convert(folder, tmp_path / "out")
    same(load_pretrained(tmp_path / "out")[0], load_pretrained(published)[0])
    index.write_text(json.dumps({"weight_map": files | {"lm_head.weight": "../b.bin"}}))
    with pytest.raises(UnsafeFile, match="leads to"):
        convert(folder, tmp_path / "other")


def test_a_folder_of_nanogpt(published, tmp_path):
    """out/ckpt.pt of a compiled model, with the characters of its text beside it; and the same as safetensors."""
    arguments = {
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 6,
        "block_size": 9,
        "bias": True,
        "vocab_size": 11,
        "dropout": 0.2,
    }
    letters = {letter: i for i, letter in enumerate("\n !abcdefgh")}
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in nanogpt(arrays_of(PLAIN)).items()}
    nano, plain = tmp_path / "nano", tmp_path / "plain"
    write(plain, arrays, arguments)
    nano.mkdir()
    compiled = {"_orig_mod." + name: a for name, a in arrays.items()}
    write_pytorch(nano / "ckpt.pt", compiled, model_args=arguments, iter_num=7)
    for folder in (nano, plain):
        (folder / "meta.pkl").write_bytes(pickle.dumps({"stoi": letters}))
    with pytest.raises(CheckpointError, match=r"no tokenizer there: meta.pkl is a pickle, .*convert \S*plain FOLDER"):
        load_with_tokenizer(plain)
    with pytest.warns(RuntimeWarning, match="a pickle"):
        convert(nano, tmp_path / "a")
    convert(plain, tmp_path / "b")
    for folder in (tmp_path / "a", tmp_path / "b"):
        model, tokenizer = load_with_tokenizer(folder)
        same(model, load_pretrained(published)[0])
        assert (model.config.activation, model.config.drop_rate, model.config.n_heads) == ("gelu_erf", 0.2, 2)
        assert tokenizer.encode("bad!") == [4, 3, 6, 2]
    (plain / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 11}))
    with pytest.warns(RuntimeWarning, match=r"no tokenizer: \S*meta.pkl: 'vocab_size' is neither a character"):
        assert convert(plain, tmp_path / "c")[1] is None


def test_openai_s_layout(published, tmp_path):
    """As in OpenAI's checkpoints, under its names: matrices (1, inputs, outputs), no head."""
    renamed = {}
    for name, array in arrays_of(PLAIN).items():
        parts = name.removeprefix("transformer.").split(".")
        if parts[0] == "h":
            leaf = {"ln_1": ("g", "b"), "ln_2": ("g", "b")}.get(parts[2], ("w", "b"))[parts[-1] == "bias"]
            array = array[None] if array.ndim == 2 else array
            renamed["/".join(["model", f"h{parts[1]}", *parts[2:-1], leaf])] = array
        elif parts[0] == "ln_f":
            renamed[f"model/ln_f/{'b' if parts[-1] == 'bias' else 'g'}"] = array
        else:
            renamed[f"model/{parts[0]}"] = array
    folder = write(tmp_path / "openai", renamed)
    hparams = {"n_vocab": 11, "n_ctx": 9, "n_embd": 6, "n_head": 2, "n_layer": 2}
    (folder / "hparams.json").write_text(json.dumps(hparams))
    same(load_pretrained(folder)[0], load_pretrained(published)[0])
    checkpoint = tmp_path / "tensorflow"
    write_checkpoint(checkpoint, renamed | {"global_step": np.array(7)})
    shutil.copy(folder / "hparams.json", checkpoint)
    model, _, report = load_pretrained(checkpoint, report=True)
    same(model, load_pretrained(published)[0])
    assert "names of OpenAI, TensorFlow" in str(report)
    assert report.ignored == ["global_step"]


def test_nanogpt_without_biases(tmp_path):
    arrays = {n: a for n, a in nanogpt(arrays_of(PLAIN)).items() if not n.endswith("bias")}
    model, _, report = load_pretrained(write(tmp_path / "a", arrays) / "model.safetensors", n_heads=2, report=True)
    assert not model.config.qkv_bias
    assert not [n for n, _ in model.named_parameters() if n.endswith(("bias", "shift"))]
    assert "ln_f.bias" in report.missing
    assert report.transposed == []


def test_a_model_without_biases_comes_back_without_them(tmp_path):
    model = GPTModel(GPTConfig(5, 4, 8, 2, 2, bias=False), rng=Generator(0)).eval()
    save_pretrained(model, tmp_path / "a")
    loaded = load_pretrained(tmp_path / "a")[0]
    same(model, loaded)
    assert not loaded.config.bias
    stored = load_file(tmp_path / "a" / "model.safetensors")  # transformers finds zeros
    assert not stored["transformer.h.1.mlp.c_fc.bias"].any()


def test_64_numbers_a_head_unless_told_otherwise(tmp_path):
    model = GPTModel(GPTConfig(5, 4, 128, 4, 1), rng=Generator(0))
    file = write(tmp_path / "a", {n: p.data for n, p in model.named_parameters()}) / "model.safetensors"
    loaded, _, report = load_pretrained(file, report=True)
    assert loaded.config.n_heads == 2
    assert "n_heads is not in the file: 2, 64 numbers for each" in str(report)
    assert load_pretrained(file, n_heads=4)[0].config.n_heads == 4
    with pytest.raises(ConfigError, match="n_heads 3 does not divide"):
        load_pretrained(file, n_heads=3)


def test_a_file_of_ours_says_its_heads_by_itself(tmp_path):
    save_pretrained(random_model(), tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    model = load_pretrained(tmp_path / "out")[0]
    assert model.config.n_heads == 2
    same_logits = np.array_equal(model([[1, 2, 3]]).data, random_model().eval()([[1, 2, 3]]).data)
    assert same_logits


@pytest.mark.parametrize("words", [{"model_args": "x"}, {"n_heads": "many"}, {"n_heads": "9" * 5000}])
def test_words_in_a_file_that_say_nothing_are_passed_over(tmp_path, words):
    save_file({n: p.data for n, p in random_model(emb_dim=64).named_parameters()}, tmp_path / "a.safetensors", words)
    assert load_pretrained(tmp_path / "a.safetensors")[0].config.n_heads == 1


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"": (4, 4)}, "it holds '', ... and"),
        ({f"h.{i}.ln_1.bias": (0,) for i in range(20_001)}, "holds 20,001 tensors"),
    ],
)
def test_what_is_no_gpt2_is_said_at_once(shapes, message):
    with pytest.raises(StateDictError, match="not a GPT-2: .*" + message):
        TABLE.recognise(shapes)


def test_an_untied_head_is_kept_and_a_missing_one_said(tmp_path):
    case = CASES["exact gelu, untied, odd widths"]
    arrays = arrays_of(case)
    config = {n: v for n, v in case["config"].items() if n != "tie_word_embeddings"}  # says that it is tied, by default
    model, _, report = load_pretrained(write(tmp_path / "a", arrays, config), np.float64, report=True)
    np.testing.assert_array_equal(model.out_head.weight.data, arrays["lm_head.weight"])
    assert "lm_head.weight differs from wte.weight" in str(report)
    del arrays["lm_head.weight"]
    with pytest.raises(StateDictError, match=r"missing lm_head.weight \(11, 6\)"):
        load_pretrained(write(tmp_path / "b", arrays, case["config"]))


# ---- numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stored", ["F16", "BF16", "F32", "F64"])
def test_numbers_are_cast_and_it_is_said(tmp_path, stored, dtype):
    header, data = {}, b""
    for name, array in arrays_of(PLAIN, np.float32).items():
        if stored == "BF16":
            raw = (array.view(np.uint32) >> 16).astype(np.uint16)
        else:
            raw = array.astype({"F16": "f2", "F32": "f4", "F64": "f8"}[stored])
        header[name] = entry(stored, array.shape, (len(data), len(data) + raw.nbytes))
        data += raw.tobytes()
    (tmp_path / "model.safetensors").write_bytes(file_bytes(header, data))
    (tmp_path / "config.json").write_text(json.dumps(PLAIN["config"]))
    model, _, report = load_pretrained(tmp_path, dtype=dtype, report=True)
    assert {p.dtype for p in model.parameters()} == {np.dtype(dtype)}
    assert set(report.cast.values()) == (
        set() if stored == f"F{np.dtype(dtype).itemsize * 8}" else {f"{stored} -> {np.dtype(dtype)}"}
    )
    table = arrays_of(PLAIN, np.float32)["transformer.wte.weight"]
    want = {"BF16": (table.view(np.uint32) & 0xFFFF0000).view(np.float32), "F16": table.astype(np.float16)}.get(
        stored, table
    )
    np.testing.assert_array_equal(model.tok_emb.weight.data, want.astype(dtype))


def test_nan_and_infinities_are_counted(published):
    arrays = arrays_of(PLAIN)
    arrays["transformer.wpe.weight"][0, :2] = np.nan
    arrays["transformer.h.1.ln_2.bias"][3] = -np.inf
    arrays["transformer.ln_f.bias"][0] = 1e300  # too large for float32
    write(published, arrays)
    with pytest.warns(RuntimeWarning, match="4 of the weights are NaN or infinite"):
        _, _, report = load_pretrained(published, report=True)
    assert "'transformer.wpe.weight': 2 of 54 numbers are NaN or infinite" in str(report)
    with pytest.raises(NonFiniteError, match=r"4 of the weights are NaN or infinite.*Nothing was loaded"):
        load_pretrained(published, strict_finite=True)
    with pytest.warns(RuntimeWarning, match="3 of the weights"):
        load_pretrained(published, np.float64)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, "bool"])
def test_parameters_are_of_two_types(published, dtype):
    with pytest.raises(DTypeError, match=r"use np\.float32 or np\.float64"):
        load_pretrained(published, dtype)


# ---- what does not fit


def without(name):
    return lambda arrays: arrays.pop(name)


def renamed(old, new):
    return lambda arrays: arrays.__setitem__(new, arrays.pop(old))


def changed(name, function):
    return lambda arrays: arrays.__setitem__(name, function(arrays[name]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("transformer.ln_f.bias"), r"missing ln_f.bias \(6,\)"),
        (renamed("transformer.ln_f.bias", "transformer.ln_f.bais"), r"ln_f.bais' \(6,\) .did you mean ln_f.bias\?"),
        (lambda a: a.update(extra=np.ones(2)), r"unexpected 'extra' \(2,\)"),
        (changed("transformer.h.0.mlp.c_fc.weight", np.transpose), r"\(24, 6\) against \(6, 24\): Linear layout, where Conv1D"),
        (changed("transformer.wte.weight", lambda a: a[:10]), r"wte.weight' in model.safetensors: \(10, 6\) against \(11, 6\)"),
        (changed("transformer.ln_f.bias", lambda a: a > 0), r"'transformer.ln_f.bias' in model.safetensors: holds BOOL"),
        (lambda a: a.update({"wte.weight": a["transformer.wte.weight"]}), "are the same tensor"),
        (lambda a: [a.pop(n) for n in list(a) if ".h.1." in n], "has tensors of 1 layers, the configuration says 2"),
        (lambda a: [a.update({n + "x": a.pop(n)}) for n in list(a)], "not a GPT-2: it holds"),
    ],
)  # fmt: skip
def test_a_misfit_is_named_with_its_likely_reason(published, change, message):
    arrays = arrays_of(PLAIN)
    change(arrays)
    write(published, arrays)
    with pytest.raises(StateDictError, match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))
    assert str(caught.value).isprintable()


def test_conv1d_where_linear_is_expected_is_suspected(tmp_path):
    arrays = nanogpt(arrays_of(PLAIN))
    arrays["transformer.h.1.mlp.c_fc.weight"] = np.ascontiguousarray(arrays["transformer.h.1.mlp.c_fc.weight"].T)
    del arrays["transformer.h.0.ln_1.weight"]
    with pytest.raises(StateDictError) as caught:
        load_pretrained(write(tmp_path / "a", arrays) / "model.safetensors", n_heads=2)
    assert "(6, 24) against (24, 6): Conv1D layout?" in str(caught.value)
    assert "missing h.0.ln_1.weight (6,)" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "swish"}, "activation_function is 'swish': use one of gelu_new"),
        ({"activation_function": 7}, "activation_function is 7"),
        ({"n_head": 4}, "n_head 4 does not divide n_embd 6"),
        ({"n_embd": -6}, "n_embd is -6: it must be a positive integer"),
        ({"n_embd": "6"}, "n_embd is '6'"),
        ({"n_layer": True}, "n_layer is True"),
        ({"n_positions": None}, "n_positions is None"),
        ({"n_positions": 1.5}, "n_positions is 1.5"),
        ({"n_inner": 0}, "n_inner is 0"),
        ({"vocab_size": 1e12}, "vocab_size 1,000,000,000,000, .* need 21.83 TiB"),
        ({"vocab_size": int("9" * 29)}, "TiB"),
        ({"vocab_size": int("9" * 4000)}, "vocab_size is '9999"),
        ({"n_layer": 10**9}, "n_layer 1,000,000,000:.* 1.86 TiB"),
        ({"n_layer": 10**6}, "the configuration says 1000000"),
        ({"model_type": "t5"}, "model_type is 't5': only .*gpt2, llama, mistral.* can be loaded"),
        ({"model_type": ["gpt2"]}, "model_type is .'gpt2'.: only"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False: only True"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon is '1e-5'"),
        ({"resid_pdrop": 2}, "resid_pdrop is 2"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_field(published, changes, message):
    (published / "config.json").write_text(json.dumps(PLAIN["config"] | changes))
    with pytest.raises((ConfigError, StateDictError), match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))


def test_the_sizes_have_other_words_too(published):
    config = dict(PLAIN["config"])
    words = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
    words |= {"n_positions": "max_position_embeddings"}
    (published / "config.json").write_text(json.dumps({words.get(name, name): n for name, n in config.items()}))
    assert load_pretrained(published)[0].config.n_heads == config["n_head"]


def test_dropouts_that_differ_are_said(published):
    (published / "config.json").write_text(
        json.dumps(PLAIN["config"] | {"resid_pdrop": 0.3, "reorder_and_upcast_attn": True})
    )
    model, _, report = load_pretrained(published, report=True)
    assert model.config.drop_rate == 0.3
    assert "the model has one rate, drop_rate 0.3" in str(report)
    assert "reorder_and_upcast_attn" in str(report)


# ---- files


def canary(path):
    class Canary:
        def __reduce__(self):
            return (open, (str(path), "w"))

    return Canary()


@pytest.mark.parametrize(
    "name", ["model.pth", "model.pt", "pytorch_model.bin", "a.ckpt", "weights", "a.pkl", "a.npz", "a.npy"]
)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_pickles_are_refused_and_do_not_run(tmp_path, name, given):
    folder = tmp_path / "model"
    folder.mkdir()
    data = pickle.dumps({"wte.weight": canary(tmp_path / "ran")})
    (folder / name).write_bytes(data)
    if given == "folder" and not name.endswith((".pth", ".pt", ".bin", ".ckpt", ".pkl")):
        with pytest.raises(CheckpointError, match="no weights there"):
            load_pretrained(folder)
    else:
        with pytest.raises(UnsafeFile, match="safetensors" if name.startswith("a.np") else "tinygrad-llm convert"):
            load_pretrained(folder / name if given == "file" else folder)
    assert not (tmp_path / "ran").exists()


def test_a_place_without_weights_is_named(tmp_path, published):
    with pytest.raises(CheckpointError, match="nowhere: no run there, and no other weights"):
        load_pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no weights there: it holds nothing, and should hold model.safetensors"):
        load_pretrained(tmp_path / "empty")
    (published / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config.json: begins with b'\[1\]'"):
        load_pretrained(published)


def test_a_run_is_loaded_as_what_it_is(tmp_path):
    result = tg.training.pretrain(out=tmp_path / "run", report=lambda _: None, epochs=1, emb_dim=8, n_layers=1, n_heads=2,
                                  context_length=8, stride=400, sample_tokens=2)  # fmt: skip
    model, tokenizer, report = load_pretrained(tmp_path / "run", dtype=np.float64, report=True)
    for name, array in result.model.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    assert tokenizer.tokens == result.tokenizer.tokens
    assert not model.training
    assert len(report.mapped) == len(model.state_dict())


# ---- and out again


def random_model(dtype=np.float32, **changes):
    sizes = {"vocab_size": 13, "context_length": 7, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "drop_rate": 0.2}
    return GPTModel(GPTConfig(**(sizes | changes)), rng=Generator(3)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "changes",
    [{}, {"qkv_bias": True}, {"tie_weights": True}, {"activation": "gelu_erf", "norm_eps": 1e-3, "hidden_dim": 5}],
)
def test_what_is_saved_is_loaded_to_the_bit(tmp_path, changes, dtype):
    model = random_model(dtype, **changes)
    save_pretrained(model, tmp_path / "out")
    loaded = load_pretrained(tmp_path / "out", dtype=dtype)[0]
    same(loaded, model)
    assert loaded.config.to_dict() | {"init": "pytorch"} == model.config.to_dict()
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored["transformer.h.0.attn.c_attn.weight"].shape == (8, 24)
    assert ("lm_head.weight" in stored) == (not model.config.tie_weights)
    for name, parameter in model.named_parameters():
        if name in ONCE or not ("W_" in name and name.endswith("bias")):
            np.testing.assert_array_equal(in_our_layout(name, stored), parameter.data, strict=True)


def test_arrays_of_any_order_are_written_right(tmp_path):
    model = random_model()
    save_pretrained(model, tmp_path / "plain")
    for parameter in model.parameters():
        wide = np.repeat(parameter.data, 2, axis=-1)
        parameter.data = np.asfortranarray(parameter.data) if parameter.ndim == 2 else wide[::2]
    save_pretrained(model, tmp_path / "odd")
    assert (tmp_path / "odd/model.safetensors").read_bytes() == (tmp_path / "plain/model.safetensors").read_bytes()
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(parameter.dtype.newbyteorder(">"))
    save_pretrained(model, tmp_path / "big")
    assert (tmp_path / "big/model.safetensors").read_bytes() == (tmp_path / "plain/model.safetensors").read_bytes()


def test_a_folder_is_replaced_only_if_it_was_ours(tmp_path):
    model, folder = random_model(), tmp_path / "out"
    save_pretrained(model, folder)
    save_pretrained(model, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="choose another folder"):
        save_pretrained(model, folder)
    assert (folder / "model.safetensors").exists()
    with pytest.raises(ConfigError, match="model is a dict"):
        save_pretrained({}, tmp_path / "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    model = random_model()
    save_pretrained(model, tmp_path / "out")
    before = (tmp_path / "out/model.safetensors").read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    model.tok_emb.weight.data[...] = 0
    with pytest.raises(CheckpointError, match="space"):
        save_pretrained(model, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_biases_that_must_be_zero_are_looked_at(tmp_path):
    save_pretrained(random_model(), tmp_path / "out")
    arrays = load_file(tmp_path / "out/model.safetensors")
    arrays["transformer.h.0.attn.c_attn.bias"][4] = 1
    write(tmp_path / "out", arrays)
    with pytest.raises(StateDictError, match="must be zeros here"):
        load_pretrained(tmp_path / "out")


def test_loading_warns_of_nothing_without_need(published):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pretrained(published)
    shutil.rmtree(published)
