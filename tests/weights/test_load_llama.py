"""Llamas made elsewhere become our model, and back: against values of transformers, and files written byte by byte."""

import json
import shutil
import struct
import warnings

import numpy as np
import pytest
from formats.pytorch_writer import write_checkpoint as write_pytorch
from formats.safetensors_bytes import entry, file_bytes
from reference import store
from safetensors.numpy import load_file, save_file
from weights.published import arrays_of, config_of, filled, write

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, CorruptCheckpoint, StateDictError, UnsafeFile
from tinygrad_llm.formats.llama2c import Llama2CFile
from tinygrad_llm.formats.open import open_weights
from tinygrad_llm.generation import generate
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier, class_logits
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.optim import AdamW
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import CharTokenizer
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import convert, load_pretrained, save_pretrained
from tinygrad_llm.weights.llama import SENTENCE
from tinygrad_llm.weights.tensor_map import reorder_pairs

CASES = store.read("llamas")
IDS = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])

# What each of our parameters is called elsewhere, written down a second time, for the tests alone: transformers, Meta.
IN_A_LAYER = {
    "norm1": ("input_layernorm", "attention_norm"),
    "att.W_query": ("self_attn.q_proj", "attention.wq"),
    "att.W_key": ("self_attn.k_proj", "attention.wk"),
    "att.W_value": ("self_attn.v_proj", "attention.wv"),
    "att.out_proj": ("self_attn.o_proj", "attention.wo"),
    "norm2": ("post_attention_layernorm", "ffn_norm"),
    "ff.fc1": ("mlp.gate_proj", "feed_forward.w1"),
    "ff.fc2": ("mlp.up_proj", "feed_forward.w3"),
    "ff.fc3": ("mlp.down_proj", "feed_forward.w2"),
}
ONCE = {
    "tok_emb": ("model.embed_tokens", "tok_embeddings"),
    "final_norm": ("model.norm", "norm"),
    "out_head": ("lm_head", "output"),
}


def their_name(name, meta=False):
    module, _, kind = name.rpartition(".")
    if module in ONCE:
        return f"{ONCE[module][meta]}.{kind}"
    _, i, part = module.split(".", 2)
    return f"{'' if meta else 'model.'}layers.{i}.{IN_A_LAYER[part][meta]}.{kind}"


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def published(tmp_path):
    case = CASES["2 key heads, tied"]
    return write(tmp_path / "published", arrays_of(case), config_of(case))


def logits(model, ids=IDS):
    with tg.no_grad():
        return model(ids).data


def random_llama(dtype=np.float32, seed=3, **changes):
    sizes = {"vocab_size": 11, "context_length": 9, "emb_dim": 8, "n_heads": 2, "n_layers": 2, "hidden_dim": 6}
    return filled(make_model("llama", sizes | {"n_kv_heads": 1} | changes, Generator(seed)), dtype, seed)


def same(model, reference):
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True, err_msg=name)


# ---- transformers


def test_logits_loss_every_gradient_and_greedy_ids_are_those_of_transformers(case, tmp_path):
    model, tokenizer = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)
    assert (model.architecture, tokenizer, model.training) == ("llama", None, False)
    ids = np.array(case["ids"])
    output = model(ids)
    np.testing.assert_allclose(output.data, case["logits"], rtol=1e-10, atol=1e-10)
    loss = cross_entropy(output[:, :-1], targets=ids[:, 1:])
    loss.backward()
    np.testing.assert_allclose(float(loss.data), case["loss"], rtol=1e-10)
    parameters = dict(model.named_parameters())
    assert {their_name(name) for name in parameters} == case["gradients"].keys()
    for name, parameter in parameters.items():
        expected = np.array(case["gradients"][their_name(name)])
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-10, atol=1e-10, err_msg=name)
    np.testing.assert_array_equal(generate(model, ids[:1, :3], 6), case["greedy"])


def test_it_comes_back_as_it_was_published(case, tmp_path):
    model = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)[0]
    save_pretrained(model, tmp_path / "b")
    stored, published = load_file(tmp_path / "b/model.safetensors"), arrays_of(case)
    assert stored.keys() == published.keys()
    for name, array in published.items():
        np.testing.assert_array_equal(stored[name], array, strict=True, err_msg=name)
    written, config = json.loads((tmp_path / "b/config.json").read_text()), config_of(case)
    assert {key: written.get(key) for key in config} == config
    assert load_pretrained(tmp_path / "b", np.float64)[0].config == model.config


def test_rope_theta_stands_at_the_top_in_older_files(published):
    config = config_of(CASES["2 key heads, tied"])
    expected = logits(load_pretrained(published)[0])
    theta = config.pop("rope_parameters")["rope_theta"]
    for changes in ({"rope_theta": theta}, {"rope_theta": theta, "rope_scaling": None}):
        (published / "config.json").write_text(json.dumps(config | changes))
        np.testing.assert_array_equal(logits(load_pretrained(published)[0]), expected)
    (published / "config.json").write_text(json.dumps(config))
    assert load_pretrained(published)[0].config.rope_base == 10000


@pytest.mark.parametrize("field", ["rms_norm_eps", "num_key_value_heads", "max_position_embeddings", "vocab_size"])
def test_what_a_configuration_leaves_out_is_as_in_transformers(field, published):
    config = config_of(CASES["2 key heads, tied"])
    del config[field]
    (published / "config.json").write_text(json.dumps(config))
    if field in ("num_key_value_heads", "vocab_size"):
        with pytest.raises(StateDictError, match=r"against \((16, 8|32000, 8)\)"):
            load_pretrained(published)
    else:
        made = load_pretrained(published)[0].config
        assert (made.norm_eps, made.context_length) == ((1e-6, 9) if field == "rms_norm_eps" else (1e-2, 2048))


def test_every_option_of_ours_comes_back(tmp_path):
    for i, changes in enumerate((
        {"tie_weights": True, "n_kv_heads": 2},
        {"qkv_bias": True},
        {"out_bias": True, "bias": True, "norm_eps": 1e-3, "rope_base": 500.0},
        {"qkv_bias": True, "out_bias": True, "head_dim": 6, "n_kv_heads": None, "drop_rate": 0.1},
        {"window": 3, "head_dim": 2},
    )):  # fmt: skip
        model = random_llama(**changes)
        save_pretrained(model, tmp_path / str(i))
        loaded = load_pretrained(tmp_path / str(i))[0]
        same(loaded, model)
        np.testing.assert_array_equal(logits(loaded), logits(model))
        sizes = {"n_kv_heads": model.config.kv_heads, "head_dim": model.config.head_width}
        assert loaded.config.to_dict() == model.config.to_dict() | sizes
    zeros = load_file(tmp_path / "1/model.safetensors")[
        "model.layers.1.self_attn.o_proj.bias"
    ]  # theirs has all four or none
    np.testing.assert_array_equal(zeros, np.zeros(8, np.float32), strict=True)
    for changes in ({"qkv_bias": True}, {"global_every": 2}):
        with pytest.raises(ConfigError, match=f"no Llama or Mistral with a window and {next(iter(changes))}"):
            save_pretrained(random_llama(window=3, **changes), tmp_path / "mistral")
    assert not (tmp_path / "mistral").exists()


def test_shards_of_bfloat16(published, tmp_path):
    arrays, folder = arrays_of(CASES["2 key heads, tied"]), tmp_path / "shards"
    folder.mkdir()
    shutil.copy(published / "config.json", folder)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(arrays)}
    for file in set(files.values()):
        header, data = {}, b""
        for name in (name for name in arrays if files[name] == file):
            raw = (arrays[name].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            header[name] = entry("BF16", raw.shape, (len(data), len(data) + raw.nbytes))
            data += raw.tobytes()
        (folder / file).write_bytes(file_bytes(header, data))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    model, _, report = load_pretrained(folder, report=True)
    assert set(report.cast.values()) == {"BF16 -> float32"}
    table = arrays["model.embed_tokens.weight"].astype(np.float32)
    np.testing.assert_array_equal(model.tok_emb.weight.data.view(np.uint32), table.view(np.uint32) & 0xFFFF0000)


def test_a_classifier_goes_both_ways(tmp_path):
    model = add_classifier(random_llama(), ["ham", "spam", "eggs"], bias=False, rng=Generator(1))
    save_pretrained(model, tmp_path / "a")
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    stored = load_file(tmp_path / "a/model.safetensors")
    assert stored["score.weight"].shape == (3, 8)
    assert "lm_head.weight" not in stored
    loaded = load_pretrained(tmp_path / "a")[0]
    assert loaded.classes == ("ham", "spam", "eggs")
    lengths = np.array([6, 4])
    np.testing.assert_array_equal(class_logits(loaded, IDS, lengths).data, class_logits(model, IDS, lengths).data)


def test_an_adapter_has_peft_s_names_and_comes_back(tmp_path):
    """test_llama_in_transformers.py has PEFT itself."""
    base = random_llama(np.float64)
    save_pretrained(base, tmp_path / "base")
    model = lora.inject(base, targets=["W_query", "W_value"], r=2, alpha=6)
    stream = np.random.default_rng(1)
    for p in model.parameters():
        p.data = stream.standard_normal(p.shape) if p.requires_grad else p.data
    lora.save(model, tmp_path / "adapter", base=tmp_path / "base")
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    prefix = "base_model.model.model.layers"
    assert {name: array.shape for name, array in stored.items()} == {
        f"{prefix}.{i}.self_attn.{name}.lora_{letter}.weight": shape
        for i in range(2)
        for name, width in (("q_proj", 8), ("v_proj", 4))
        for letter, shape in (("A", (2, 8)), ("B", (width, 2)))
    }
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == ["self_attn.q_proj", "self_attn.v_proj"]
    assert (config["fan_in_fan_out"], config["lora_alpha"], config["task_type"]) == (False, 6, "CAUSAL_LM")
    loaded = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(loaded, tmp_path / "adapter")
    np.testing.assert_array_equal(logits(loaded), logits(model))


# ---- Meta's, llama2.c's and the book's


def interleaved(array, n_heads):
    """Rows of queries or keys, head by head from (i, i + d/2) to (2i, 2i + 1)."""
    heads = []
    for head in np.split(array, n_heads):
        half = len(head) // 2
        heads += [row for i in range(half) for row in (head[i], head[i + half])]
    return np.stack(heads)


def in_meta_form(model):
    config, arrays = model.config, {}
    for name, array in model.state_dict().items():
        heads = {"W_query": config.n_heads, "W_key": config.kv_heads}.get(name.split(".")[-2])
        arrays[their_name(name, meta=True)] = interleaved(array, heads) if heads else array
    return arrays


def params_of(config):
    """As in params.json: hidden_dim is not said, but what it is made of."""
    return {
        "dim": config.emb_dim,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.kv_heads,
        "vocab_size": -1,
        "multiple_of": 16,
        "ffn_dim_multiplier": 1.3,
        "norm_eps": config.norm_eps,
    }


def llama2c_v0(model, untied):
    arrays, c = in_meta_form(model), model.config
    layers = range(c.n_layers)
    sizes = (c.emb_dim, c.hidden_width, c.n_layers, c.n_heads, c.kv_heads, c.vocab_size * (-1 if untied else 1))
    parts = [arrays["tok_embeddings.weight"]]
    for name in ("attention_norm", "attention.wq", "attention.wk", "attention.wv", "attention.wo", "ffn_norm",
                 "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"):  # fmt: skip
        parts += [arrays[f"layers.{i}.{name}.weight"] for i in layers]
    parts += [arrays["norm.weight"], *2 * [np.full((c.context_length, c.head_width // 2), np.nan)]]
    parts += [arrays["output.weight"]] if untied else []
    return struct.pack("<7i", *sizes, c.context_length) + b"".join(p.astype("<f4").tobytes() for p in parts)


def llama2c_v1(model, untied):
    arrays, c = in_meta_form(model), model.config
    layers = range(c.n_layers)
    sizes = (c.emb_dim, c.hidden_width, c.n_layers, c.n_heads, c.kv_heads, c.vocab_size, c.context_length)
    head = struct.pack("<Ii7iB", 0x616B3432, 1, *sizes, not untied)
    parts = [arrays[f"layers.{i}.{name}.weight"] for name in ("attention_norm", "ffn_norm") for i in layers]
    parts += [arrays["norm.weight"], arrays["tok_embeddings.weight"]]
    for name in ("attention.wq", "attention.wk", "attention.wv", "attention.wo", "feed_forward.w1", "feed_forward.w2",
                 "feed_forward.w3"):  # fmt: skip
        parts += [arrays[f"layers.{i}.{name}.weight"] for i in layers]
    parts += [arrays["output.weight"]] if untied else []
    return head.ljust(256, b"\0") + b"".join(p.astype("<f4").tobytes() for p in parts)


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_meta_s_files_have_other_pairs(n_kv_heads, tmp_path):
    """consolidated.00.pth beside params.json through convert; the same as safetensors, and as llama2.c's train.py writes it."""
    model = random_llama(emb_dim=24, n_heads=4, n_kv_heads=n_kv_heads, hidden_dim=96, context_length=4096)
    arrays, params = in_meta_form(model), params_of(model.config)
    meta = tmp_path / "meta"
    meta.mkdir()
    write_pytorch(meta / "consolidated.00.pth", arrays | {"rope.freqs": np.ones(3, np.float32)})
    (meta / "params.json").write_text(json.dumps(params))
    with pytest.raises(UnsafeFile, match="tinygrad-llm convert"):
        load_pretrained(meta)
    with pytest.warns(RuntimeWarning, match="a pickle"):
        _, _, report = convert(meta, tmp_path / "out")
    assert report.ignored == ["rope.freqs"]
    assert "Llama, names of Meta, PyTorch" in str(report)
    assert "the context length is not in the file: 4096" in str(report)
    write(tmp_path / "safe", arrays)
    (tmp_path / "safe/params.json").write_text(json.dumps(params))
    write_pytorch(
        tmp_path / "ckpt.pt",
        {"_orig_mod." + name: a for name, a in arrays.items()},
        model_args=params | {"vocab_size": 11, "max_seq_len": 4096, "dropout": 0.0},
        iter_num=3,
    )
    with pytest.warns(RuntimeWarning, match="a pickle"):
        convert(tmp_path / "ckpt.pt", tmp_path / "trained")
    for folder in ("out", "safe", "trained"):
        loaded = load_pretrained(tmp_path / folder)[0]
        same(loaded, model)
        np.testing.assert_array_equal(logits(loaded), logits(model))


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("form", [llama2c_v0, llama2c_v1])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_llama2c_s_files(form, untied, n_kv_heads, tmp_path):
    model = random_llama(emb_dim=24, n_heads=4, n_kv_heads=n_kv_heads, tie_weights=not untied)
    file = tmp_path / "model.bin"
    file.write_bytes(form(model, untied))
    for path in (file, tmp_path):
        loaded, tokenizer, report = load_pretrained(path, report=True)
        same(loaded, model)
        assert tokenizer is None
        assert (loaded.config.tie_weights, loaded.config.n_kv_heads) == (not untied, n_kv_heads)
        np.testing.assert_array_equal(logits(loaded), logits(model))
        assert "Llama, names of Meta, llama2.c" in str(report)
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "n_embd": 4}'
    )  # of something else: the header says it all
    same(load_pretrained(file)[0], model)


@pytest.mark.parametrize("dim", [128, 640])
def test_a_width_like_the_first_byte_of_a_pickle(dim, tmp_path):
    model = random_llama(emb_dim=dim, n_layers=1)
    (tmp_path / "model.bin").write_bytes(llama2c_v0(model, untied=True))
    same(load_pretrained(tmp_path / "model.bin")[0], model)


def put(data, at, value):
    return data[:at] + struct.pack("<i", value) + data[at + 4 :]


DAMAGE = {
    "cut off": (lambda d: d[:-1], "1 too few for llama2.c's version {v} with dim 8, hidden_dim 6, n_layers 2"),
    "too long": (lambda d: d + b"\0", "1 too many"),
    "a header alone": (lambda d: d[:256], "too few"),
    "heads": (lambda d: put(d, 12 + 8 * (d[0] == 0x32), 3), "dim is 8, n_heads 3, n_kv_heads 1: each must divide"),
    "key heads": (lambda d: put(d, 16 + 8 * (d[0] == 0x32), 3), "n_heads 2, n_kv_heads 3: each must divide"),
    "odd heads": (lambda d: put(d, 12 + 8 * (d[0] == 0x32), 8), "have an even number"),
    "huge": (lambda d: put(d, 8 + 8 * (d[0] == 0x32), 999), "too few"),
}


@pytest.mark.parametrize("form", [llama2c_v0, llama2c_v1])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_llama2c_is_named(damage, form, tmp_path):
    change, message = DAMAGE[damage]
    file = tmp_path / "model.bin"
    file.write_bytes(change(form(random_llama(), True)))
    with pytest.raises(CorruptCheckpoint, match=message.replace("{v}", str(int(form is llama2c_v1)))) as caught:
        load_pretrained(file)
    assert str(caught.value).startswith(str(file))
    assert str(caught.value).isprintable()


def test_every_bit_of_the_header_counts(tmp_path):
    """Version 0 has no checksum, and its header gives the length of the file."""
    data, file = llama2c_v0(random_llama(), True), tmp_path / "model.bin"
    for i in range(8 * 28):
        flipped = bytearray(data)
        flipped[i // 8] ^= 1 << i % 8
        file.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            load_pretrained(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with b'': neither PyTorch's .* nor llama2.c's"),
        (bytes(5000), r"begins with b'\\x00.*neither PyTorch's"),
        (struct.pack("<7i", 8, 6, 2, 2, 1, 0, 9), "neither PyTorch's"),
        (struct.pack("<2i", 0x67676D6C, 1) + bytes(60), "begins with b'lmgg"),
        (struct.pack("<Ii", 0x616B3432, 1), "header too small: the file has 8 bytes"),
        (struct.pack("<Ii7iB", 0x616B3432, 1, 8, 6, 2, 2, 1, -11, 9, 1), "vocab_size is -11, and byte 36"),
        (struct.pack("<Ii7iB", 0x616B3432, 1, 8, 6, 2, 2, 1, 11, 9, 7), "head is the table of tokens, 7"),
        (struct.pack("<Ii7iB", 0x616B3432, 1, 8, -6, 2, 2, 1, 11, 9, 1), "hidden_dim is -6: it must be from 1 to"),
        (struct.pack("<Ii7iB", 0x616B3432, 1, 8, 6, 2**30, 2, 1, 11, 9, 1), "n_layers is 1,073,741,824"),
        (struct.pack("<Ii7iBi", 0x616B3432, 2, 8, 6, 2, 2, 1, 11, 9, 1, 64), "version 2 of llama2.c's files, numbers of 8 bits"),
        (struct.pack("<Ii", 0x616B3432, -7), "version -7 of llama2.c's files, unknown"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_llama2c_s_is_named(data, message, tmp_path):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(tmp_path / "model.bin")


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path):
    file = tmp_path / "model.bin"
    data = llama2c_v0(random_llama(), True)
    file.write_bytes(data)
    with Llama2CFile(file) as source:
        file.write_bytes(data[:100])
        with pytest.raises(CorruptCheckpoint, match="bytes early: changed while it was read"):
            source.read("output.weight")


def test_a_tokenizer_beside_a_bin_is_no_second_file_of_weights(tmp_path):
    (tmp_path / "model.bin").write_bytes(llama2c_v0(random_llama(), True))
    (tmp_path / "tokenizer.bin").write_bytes(struct.pack("<I", 27))
    with open_weights(tmp_path) as source:
        assert (source.form, source.path.name) == ("llama2.c", "model.bin")


def test_the_book_s_names(tmp_path):
    model = random_llama()
    masks = {f"trf_blocks.{i}.att.{name}": np.ones((9, 9)) for i in range(2) for name in ("mask", "cos", "sin")}
    write(tmp_path, model.state_dict() | masks)
    loaded, _, report = load_pretrained(tmp_path / "model.safetensors", n_heads=2, report=True)
    same(loaded, model)
    assert loaded.config.kv_heads == 1
    assert sorted(report.ignored) == sorted(masks)
    with pytest.raises(ConfigError, match=r"cannot be told from queries of 8 features and keys of 4: pass n_heads="):
        load_pretrained(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model.safetensors: n_heads is 0: it must be a positive integer"):
        load_pretrained(tmp_path / "model.safetensors", n_heads=0)
    for wrong in (1, 3, 16, 100):
        with pytest.raises(ConfigError, match=rf"n_heads is {wrong}, which does not fit queries of 8"):
            load_pretrained(tmp_path / "model.safetensors", n_heads=wrong)
    save_file(random_llama(emb_dim=256).state_dict(), tmp_path / "b.safetensors")
    loaded, _, report = load_pretrained(tmp_path / "b.safetensors", report=True)
    assert (loaded.config.n_heads, loaded.config.kv_heads) == (2, 1)
    assert "no configuration: 2 heads of 128, a context of 4096" in str(report)


# ---- which pairs


@pytest.fixture(scope="module")
def trained():
    """A model that has learned the sentence, and cannot say it without knowing where it is; and its tokenizer."""
    tokenizer = CharTokenizer.train(SENTENCE)
    sizes = {"vocab_size": tokenizer.vocab_size, "context_length": 128, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    model = make_model("llama", sizes | {"n_kv_heads": 1, "hidden_dim": 64}, Generator(1))
    ids = np.array([tokenizer.encode(SENTENCE)])
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(100):
        optimizer.zero_grad()
        loss = cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:])
        loss.backward()
        optimizer.step()
    assert float(loss.data) < 0.1
    return model.eval(), tokenizer


def test_files_with_the_right_pairs_give_no_warning(trained, tmp_path):
    save_pretrained(*_ordered(trained, tmp_path / "a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(load_pretrained(tmp_path / "a")[0], trained[0])


def _ordered(trained, folder):
    model, tokenizer = trained
    return model, folder, tokenizer


def test_files_with_the_wrong_pairs_are_noticed_and_can_be_read_all_the_same(trained, tmp_path):
    """Names of transformers with Meta's pairs, and names of Meta with those of transformers."""
    model, tokenizer = trained
    save_pretrained(model, tmp_path / "good", tokenizer)
    swapped = load_file(tmp_path / "good/model.safetensors")
    for name, heads in (("q_proj", 2), ("k_proj", 1)):
        for i in range(2):
            key = f"model.layers.{i}.self_attn.{name}.weight"
            swapped[key] = interleaved(swapped[key], heads)
    shutil.copytree(tmp_path / "good", tmp_path / "theirs")
    write(tmp_path / "theirs", swapped)
    shutil.copytree(tmp_path / "good", tmp_path / "metas")
    (tmp_path / "metas/config.json").unlink()
    write(tmp_path / "metas", {their_name(name, meta=True): a for name, a in model.state_dict().items()})
    params = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "hidden_dim": 64, "max_seq_len": 128}
    (tmp_path / "metas/params.json").write_text(json.dumps(params))
    for folder, said, other in (("theirs", "halves", "interleaved"), ("metas", "interleaved", "halves")):
        message = rf"a sentence has loss \d.* \({said}\), and 0.0.*: pass rotary='{other}'"
        with pytest.warns(RuntimeWarning, match=message):
            loaded, _, report = load_pretrained(tmp_path / folder, report=True)
        assert f"pass rotary='{other}'" in str(report)
        as_read = loaded.state_dict()["trf_blocks.0.att.W_key.weight"]
        assert not np.array_equal(as_read, model.state_dict()["trf_blocks.0.att.W_key.weight"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same(load_pretrained(tmp_path / folder, rotary=other)[0], model)
            assert (
                main(["convert", str(tmp_path / folder), str(tmp_path / f"{folder} put right"), "--rotary", other]) == 0
            )
            same(load_pretrained(tmp_path / f"{folder} put right")[0], model)


def test_pairs_go_there_and_back():
    rows = np.arange(24.0).reshape(12, 2)
    np.testing.assert_array_equal(reorder_pairs(rows, 2, True), interleaved(rows, 2))
    np.testing.assert_array_equal(reorder_pairs(interleaved(rows, 3), 3, False), rows)
    np.testing.assert_array_equal(reorder_pairs(rows[:, 0], 3, True), interleaved(rows[:, 0], 3))


def test_rotary_is_for_rotary_positions(tmp_path):
    save_pretrained(random_llama(), tmp_path / "llama")
    with pytest.raises(ConfigError, match=r"rotary is 'Meta': use 'halves' or 'interleaved'"):
        load_pretrained(tmp_path / "llama", rotary="Meta")
    sizes = {"vocab_size": 5, "context_length": 4, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
    save_pretrained(make_model("gpt", sizes, Generator(0)), tmp_path / "gpt")
    with pytest.raises(ConfigError, match="rotary is 'halves': a GPT-2 has no rotary positions"):
        load_pretrained(tmp_path / "gpt", rotary="halves")


def test_a_tokenizer_that_cannot_read_the_sentence_or_has_more_ids_checks_nothing(tmp_path):
    model = random_llama()
    save_pretrained(model, tmp_path / "foreign", CharTokenizer.train("abcdefghi"))
    same(load_pretrained(tmp_path / "foreign")[0], model)
    save_pretrained(random_llama(vocab_size=40), tmp_path / "long", CharTokenizer.train(SENTENCE + "xyz"))
    write(tmp_path / "long", load_file(tmp_path / "foreign/model.safetensors"))
    shutil.copy(tmp_path / "foreign/config.json", tmp_path / "long")
    with pytest.warns(RuntimeWarning, match=r"the tokenizer has \d\d ids, the model 11") as caught:
        load_pretrained(tmp_path / "long")
    assert len(caught) == 1


# ---- what cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': only silu"),
        ({"num_attention_heads": 3}, "num_key_value_heads 2 does not divide num_attention_heads 3"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ({"num_key_value_heads": 4}, r"k_proj.weight' in model.safetensors: \(8, 8\) against \(16, 8\)"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0: it must be a positive integer"),
        ({"head_dim": 3}, "head_dim is 3: features are turned in pairs"),
        ({"head_dim": 2}, r"q_proj.weight' in model.safetensors: \(16, 8\) against \(8, 8\)"),
        ({"head_dim": None, "hidden_size": 6}, "num_attention_heads 4 does not divide hidden_size 6"),
        ({"vocab_size": 10}, r"embed_tokens.weight' in model.safetensors: \(11, 8\) against \(10, 8\)"),
        ({"vocab_size": 1e12}, "vocab_size 1,000,000,000,000, .* TiB"),
        ({"head_dim": 1e18}, "head_dim 1,000,000,000,000,000,000: .* TiB"),
        ({"num_hidden_layers": 1e300}, r"num_hidden_layers is 1e\+300: it must be a positive integer"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_hidden_layers": 3}, "has tensors of 2 layers, the configuration says 3"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "rope_parameters: rope_type is 'llama3': only 'default'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling: type is 'linear': only 'default'"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling: 'factor' is 2, which is not implemented here"),
        ({"rope_scaling": 2}, "rope_scaling is 2: it must be an object"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_parameters: rope_theta is 'x'"),
        ({"rope_parameters": {"rope_theta": 0.5}}, "base is 0.5: it must be above 1"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: numbers of few bits"),
        ({"attention_bias": True}, r"missing layers.0.self_attn.q_proj.bias \(16,\)"),
        ({"attention_bias": 1}, "attention_bias is 1: it must be True or False"),
        ({"tie_word_embeddings": False}, r"missing lm_head.weight \(11, 8\)"),
        ({"model_type": "qwen2"}, "config.json: model_type is 'qwen2': only .*gpt2, llama, mistral.* can be loaded"),
        ({"model_type": "gpt2"}, "not a GPT-2: it holds 'model.embed_tokens.weight'"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused_by_field(published, changes, message):
    (published / "config.json").write_text(json.dumps(config_of(CASES["2 key heads, tied"]) | changes))
    with pytest.raises((ConfigError, StateDictError), match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_scaled_rope": True}, "'use_scaled_rope' is True, which is not implemented"),
        ({"moe": {"num_experts": 8}}, "'moe' is .* not implemented"),
        ({"dim": None}, "dim is missing"),
        ({"n_heads": "2"}, "n_heads is '2'"),
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 2"),
        ({"multiple_of": 0}, "multiple_of is 0"),
        ({"multiple_of": 256}, r"w1.weight' in model.safetensors: \(32, 8\) against \(256, 8\)"),
        ({"ffn_dim_multiplier": "x"}, "ffn_dim_multiplier is 'x'"),
        ({"ffn_dim_multiplier": 1e308}, r"ffn_dim_multiplier is 1e\+308"),
        ({"ffn_dim_multiplier": 0}, "hidden_dim is 0"),
        ({"vocab_size": 12}, r"tok_embeddings.weight' in model.safetensors: \(11, 8\) against \(12, 8\)"),
    ],
)
def test_a_params_json_that_cannot_be_is_refused_by_field(tmp_path, changes, message):
    model = random_llama(hidden_dim=32)
    write(tmp_path, in_meta_form(model))
    params = params_of(model.config)
    (tmp_path / "params.json").write_text(json.dumps(params))
    same(load_pretrained(tmp_path)[0], model)
    (tmp_path / "params.json").write_text(json.dumps(params | changes))
    with pytest.raises((ConfigError, StateDictError), match=message) as caught:
        load_pretrained(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("model.layers.1.mlp.up_proj.weight"), r"missing layers.1.mlp.up_proj.weight \(6, 8\)"),
        (lambda a: a.update({"model.layers.0.self_attn.W_pack.weight": np.ones((24, 8))}), "unexpected .*W_pack"),
        (lambda a: a.update({"layers.0.attention.wq.weight": np.ones((16, 8))}), "unexpected 'layers.0.attention.wq.weight'"),
        (lambda a: a.update({"model.norm.weight": np.ones(9)}), r"model.norm.weight' .*: \(9,\) against \(8,\)"),
        (lambda a: a.update({"embed_tokens.weight": np.ones((11, 8))}), "are the same tensor of a Llama"),
    ],
)  # fmt: skip
def test_a_misfit_is_named(published, change, message):
    arrays = arrays_of(CASES["2 key heads, tied"])
    change(arrays)
    write(published, arrays)
    with pytest.raises(StateDictError, match=message):
        load_pretrained(published)


# ---- commands


def test_inspect_says_what_it_is(published, tmp_path, capsys):
    model = random_llama()
    (tmp_path / "model.bin").write_bytes(llama2c_v0(model, True))
    write(tmp_path / "meta", in_meta_form(model))
    for path, words in {
        published: "Llama with the names of transformers: 2 layers, width 8, context 9, 11 tokens",
        tmp_path / "model.bin": "Llama with the names of Meta: 2 layers, width 8, context 9, 11 tokens",
        tmp_path / "meta": "Llama with the names of Meta: 2 layers; how many heads is not in the file",
    }.items():
        assert main(["inspect", str(path)]) == 0
        assert words in capsys.readouterr().out


def test_convert_writes_a_folder_of_transformers(tmp_path, capsys):
    model = random_llama(tie_weights=True)
    (tmp_path / "model.bin").write_bytes(llama2c_v0(model, False))
    assert main(["convert", str(tmp_path / "model.bin"), str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] is None
    same(load_pretrained(tmp_path / "out")[0], model)
