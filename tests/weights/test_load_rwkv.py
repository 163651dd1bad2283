"""RWKV-4s made elsewhere become our model, and back: against values of transformers, and in BlinkDL's and rwkv.cpp's files."""

import json
import struct
from contextlib import nullcontext

import numpy as np
import pytest
from formats.pytorch_writer import write_checkpoint as write_pytorch
from reference import store
from safetensors.numpy import load_file
from weights.published import arrays_of, config_of, filled, write

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.errors import CheckpointError, ConfigError, CorruptCheckpoint, StateDictError, UnsafeFile
from tinygrad_llm.formats.rwkvcpp import RwkvCppFile
from tinygrad_llm.generation import generate
from tinygrad_llm.models import make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import CharTokenizer
from tinygrad_llm.tuning import lora
from tinygrad_llm.weights import convert, load_pretrained, save_pretrained

CASES = store.read("rwkvs")
HALVED, TIED = CASES
UNTIED = "head.weight differs from emb.weight: the head has weights of its own"
IDS = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])

# What each of our parameters is called by transformers and by BlinkDL, written down a second time, for the tests alone.
ONCE = {
    "tok_emb.weight": ("rwkv.embeddings.weight", "emb.weight"),
    "emb_norm.scale": ("rwkv.blocks.0.pre_ln.weight", "blocks.0.ln0.weight"),
    "emb_norm.shift": ("rwkv.blocks.0.pre_ln.bias", "blocks.0.ln0.bias"),
    "final_norm.scale": ("rwkv.ln_out.weight", "ln_out.weight"),
    "final_norm.shift": ("rwkv.ln_out.bias", "ln_out.bias"),
    "out_head.weight": ("head.weight", "head.weight"),
}
WORDS = {
    "norm1": "ln1",
    "norm2": "ln2",
    "scale": "weight",
    "shift": "bias",
    "decay": "time_decay",
    "first": "time_first",
}
WORDS |= {"mix_key": "time_mix_key", "mix_value": "time_mix_value", "mix_receptance": "time_mix_receptance"}
SHORTER = {"time_mix_key": "time_mix_k", "time_mix_value": "time_mix_v", "time_mix_receptance": "time_mix_r"}


def their_name(name, blinkdl=False):
    if name in ONCE:
        return ONCE[name][blinkdl]
    _, i, *rest = name.split(".")
    modules = {"att": "att", "ff": "ffn"} if blinkdl else {"att": "attention", "ff": "feed_forward"}
    rest = [WORDS.get(word, modules.get(word, word)) for word in rest]
    rest = [SHORTER.get(word, word) if blinkdl else word for word in rest]
    return ".".join(["blocks" if blinkdl else "rwkv.blocks", i, *rest])


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def published(tmp_path):
    return write(tmp_path / "published", arrays_of(CASES[HALVED]), config_of(CASES[HALVED]))


def random_rwkv(dtype=np.float32, seed=3, **changes):
    sizes = {"vocab_size": 11, "emb_dim": 6, "n_layers": 2, "attention_dim": 4, "hidden_dim": 5}
    return filled(make_model("rwkv", sizes | changes, Generator(seed)), dtype, seed)


def in_blinkdl_form(model):
    return {
        their_name(name, True): array[None, None] if ".mix_" in name else array
        for name, array in model.state_dict().items()
    }


def rwkvcpp(model, version=101, half=False):
    """Written as docs/FILE_FORMAT.md and python/convert_pytorch_to_ggml.py there say."""
    values = in_blinkdl_form(model)
    vocab_size, emb_dim = values["emb.weight"].shape
    data = struct.pack("<6i", 0x67676D66, version, vocab_size, emb_dim, model.config.n_layers, int(half))
    for name, array in values.items():
        array = array.squeeze() if ".time_" in name else array
        array = -np.exp(array) if ".time_decay" in name else array
        short = half and array.ndim > 1
        data += struct.pack("<3i", array.ndim, len(name), int(short)) + struct.pack(
            f"<{array.ndim}i", *array.shape[::-1]
        )
        data += name.encode() + array.astype("<f2" if short else "<f4").tobytes()
    return data


def same(model, reference, rtol=0.0):
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_allclose(array, theirs[name], rtol=rtol, atol=rtol, err_msg=name)


def logits(model, ids=IDS):
    with tg.no_grad():
        return model(ids).data


# ---- transformers


@pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])
def test_logits_loss_every_gradient_and_greedy_ids_are_those_of_transformers(case, way, tmp_path):
    model, tokenizer = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)
    assert (model.architecture, tokenizer, model.training) == ("rwkv", None, False)
    ids = np.array(case["ids"])
    with way():
        np.testing.assert_allclose(logits(model, ids), case["evaluated"], rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(generate(model, ids[:1, :3], 6), case["greedy"])
        output = model.train()(ids)
        np.testing.assert_allclose(output.data, case["logits"], rtol=1e-10, atol=1e-10)
        loss = cross_entropy(output[:, :-1], targets=ids[:, 1:])
    loss.backward()
    np.testing.assert_allclose(float(loss.data), case["loss"], rtol=1e-10)
    parameters = dict(model.named_parameters())
    assert {their_name(name) for name in parameters} == case["gradients"].keys()
    for name, parameter in parameters.items():
        expected = np.array(case["gradients"][their_name(name)]).reshape(parameter.shape)
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-10, atol=1e-10, err_msg=name)


def test_the_cases_tell_evaluation_from_training():
    differ = [np.abs(np.array(case["evaluated"]) - case["logits"]).max() > 1e-3 for case in CASES.values()]
    assert differ == [config_of(case)["rescale_every"] > 0 for case in CASES.values()] == [True, False]


def test_it_comes_back_as_it_was_published(case, tmp_path):
    model = load_pretrained(write(tmp_path / "a", arrays_of(case), config_of(case)), dtype=np.float64)[0]
    save_pretrained(model, tmp_path / "b")
    stored, published = load_file(tmp_path / "b/model.safetensors"), arrays_of(case)
    assert stored.keys() == published.keys()
    for name, array in published.items():
        np.testing.assert_array_equal(stored[name], array, strict=True, err_msg=name)
    written = json.loads((tmp_path / "b/config.json").read_text())
    assert {key: written.get(key) for key in config_of(case)} == config_of(case)
    again = load_pretrained(tmp_path / "b", np.float64)[0]
    assert again.config == model.config
    np.testing.assert_array_equal(logits(again), logits(model), strict=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_dim": None, "hidden_dim": None, "tie_weights": True},
        {"rescale_every": 1, "norm_eps": 1e-3},
        {"context_length": 6},
    ],
)
def test_ours_come_back(changes, tmp_path):
    model = random_rwkv(**changes)
    save_pretrained(model, tmp_path / "a", CharTokenizer.train("abcdefghi"))
    loaded, tokenizer = load_pretrained(tmp_path / "a")
    same(loaded, model)
    assert loaded.config.to_dict() == model.config.to_dict() | {"context_length": None}
    assert tokenizer.vocab_size == 10
    np.testing.assert_array_equal(logits(loaded), logits(model), strict=True)


@pytest.mark.parametrize("field", ["rescale_every", "attention_hidden_size", "intermediate_size", "layer_norm_epsilon"])
def test_what_a_configuration_leaves_out_is_as_in_transformers(field, tmp_path):
    config = config_of(CASES[TIED])
    expected = load_pretrained(write(tmp_path, arrays_of(CASES[TIED]), config))[0].config.to_dict()
    del config[field]
    (tmp_path / "config.json").write_text(json.dumps(config))
    usual = {"rescale_every": 6} if field == "rescale_every" else {}
    assert load_pretrained(tmp_path)[0].config.to_dict() == expected | usual


def test_less_than_0_is_never(published):
    (published / "config.json").write_text(json.dumps(config_of(CASES[HALVED]) | {"rescale_every": -1}))
    assert load_pretrained(published)[0].config.rescale_every == 0


def test_a_head_that_is_the_table_of_tokens_may_be_there_twice(tmp_path):
    arrays = arrays_of(CASES[TIED])
    arrays["head.weight"] = arrays["rwkv.embeddings.weight"]
    loaded, _, report = load_pretrained(write(tmp_path / "a", arrays, config_of(CASES[TIED])), report=True)
    assert (loaded.config.tie_weights, report.ignored) == (True, ["head.weight"])
    arrays["head.weight"] = arrays["head.weight"] + 1
    loaded, _, report = load_pretrained(write(tmp_path / "b", arrays, config_of(CASES[TIED])), report=True)
    assert not loaded.config.tie_weights
    assert "the head has weights of its own" in str(report)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rescale_every": 1.5}, r"rescale_every is 1\.5: it must be an integer, 0 or more"),
        ({"rescale_every": None}, "rescale_every is None"),
        ({"hidden_size": 0}, "hidden_size is 0: it must be a positive integer"),
        ({"hidden_size": 1e12}, "hidden_size 1,000,000,000,000, .*TiB"),
        ({"context_length": -1}, "context_length is -1"),
        ({"layer_norm_epsilon": 2}, "layer_norm_epsilon is 2"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"num_hidden_layers": 2}, "has tensors of 3 layers, the configuration says 2"),
        ({"attention_hidden_size": None}, r"time_decay' in model.safetensors: \(4,\) against \(6,\)"),
        ({"model_type": "rwkv5"}, "model_type is 'rwkv5': only .*rwkv.* can be loaded"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_by_field(published, changes, message):
    (published / "config.json").write_text(json.dumps(config_of(CASES[HALVED]) | changes))
    with pytest.raises((ConfigError, StateDictError), match=message) as caught:
        load_pretrained(published)
    assert str(caught.value).startswith(str(published))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("rwkv.blocks.2.ln2.bias"), r"missing blocks.2.ln2.bias \(6,\)"),
        (lambda a: a.pop("rwkv.blocks.0.pre_ln.bias"), r"missing blocks.0.pre_ln.bias \(6,\)"),
        (lambda a: a.pop("head.weight"), r"missing head.weight \(11, 6\)"),
        (lambda a: a.update({"rwkv.blocks.1.pre_ln.bias": np.ones(6)}), "unexpected 'rwkv.blocks.1.pre_ln.bias'"),
        (lambda a: a.update({"rwkv.blocks.0.attention.time_mix_key": np.ones(6)}), r"\(6,\) against \(1, 1, 6\)"),
    ],
)
def test_a_misfit_is_named(published, change, message):
    arrays = arrays_of(CASES[HALVED])
    change(arrays)
    write(published, arrays)
    with pytest.raises(StateDictError, match=message):
        load_pretrained(published)


def test_it_has_no_heads(published, tmp_path):
    write(tmp_path / "bare", random_rwkv().state_dict())
    for folder in (published, tmp_path / "bare"):
        with pytest.raises(ConfigError, match="n_heads is 2, a RWKV-4 has none"):
            load_pretrained(folder, n_heads=2)
    with pytest.raises(ConfigError, match="a RWKV-4 has no rotary positions"):
        load_pretrained(published, rotary="halves")


def test_transformers_has_none_that_tells_classes(tmp_path):
    model = add_classifier(random_rwkv(), ["ham", "spam"], rng=Generator(1))
    with pytest.raises(ConfigError, match="transformers has no RWKV-4 with a head for classes"):
        save_pretrained(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_adapter_has_peft_s_names_and_comes_back(tmp_path):
    """test_rwkv_in_transformers.py has PEFT itself."""
    base = random_rwkv(np.float64)
    save_pretrained(base, tmp_path / "base")
    model = lora.inject(base, targets=["attn", "ff.key"], r=2, alpha=6)
    for p in model.parameters():
        p.data = p.data + (0.1 if p.requires_grad else 0.0)
    lora.save(model, tmp_path / "adapter", base=tmp_path / "base")
    stored = load_file(tmp_path / "adapter/adapter_model.safetensors")
    modules = ("attention.key", "attention.value", "attention.receptance", "attention.output", "feed_forward.key")
    assert stored.keys() == {
        f"base_model.model.rwkv.blocks.{i}.{module}.lora_{letter}.weight"
        for i in range(2)
        for module in modules
        for letter in "AB"
    }
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (sorted(config["target_modules"]), config["task_type"]) == (sorted(modules), "CAUSAL_LM")
    loaded = load_pretrained(tmp_path / "base", np.float64)[0]
    lora.load(loaded, tmp_path / "adapter")
    same(loaded, model)


# ---- BlinkDL's, rwkv.cpp's and the book's names


@pytest.mark.parametrize("changes", [{}, {"attention_dim": None, "hidden_dim": None}, {"tie_weights": True}])
def test_blinkdl_s_files_are_converted(changes, tmp_path):
    model = random_rwkv(**changes)
    write_pytorch(tmp_path / "RWKV-4.pth", in_blinkdl_form(model))
    with pytest.raises(UnsafeFile, match="tinygrad-llm convert"):
        load_pretrained(tmp_path / "RWKV-4.pth")
    with pytest.warns(RuntimeWarning, match="a pickle"):
        _, tokenizer, report = convert(tmp_path / "RWKV-4.pth", tmp_path / "out")
    assert (tokenizer, report.notes) == (None, [] if model.config.tie_weights else [UNTIED])
    assert "RWKV-4, names of BlinkDL, PyTorch" in str(report)
    loaded = load_pretrained(tmp_path / "out")[0]
    same(loaded, model)
    assert loaded.config == model.config
    assert loaded.config.rescale_every == 0


@pytest.mark.parametrize("wrapper", ["", "_orig_mod.", "module.model."])
def test_names_may_have_words_before_them(wrapper, tmp_path):
    model = random_rwkv()
    write(tmp_path, {wrapper + name: array for name, array in in_blinkdl_form(model).items()})
    same(load_pretrained(tmp_path)[0], model)


def test_the_names_of_a_run(tmp_path):
    """The state dict as a run has it, beside nothing, and beside the config.json of the run."""
    model = random_rwkv(rescale_every=1)
    write(tmp_path, model.state_dict())
    loaded, _, report = load_pretrained(tmp_path / "model.safetensors", report=True)
    same(loaded, model)
    assert "RWKV-4, names of the book" in str(report)
    assert loaded.config.rescale_every == 0
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "rwkv", "model": model.config.to_dict()}))
    assert load_pretrained(tmp_path / "model.safetensors")[0].config == model.config


@pytest.mark.parametrize("version", [100, 101])
def test_rwkv_cpp_s_files(version, tmp_path):
    model = random_rwkv()
    (tmp_path / "config.json").write_text("{}")  # of something else
    (tmp_path / "model.bin").write_bytes(rwkvcpp(model, version))
    loaded, tokenizer, report = load_pretrained(tmp_path / "model.bin", report=True)
    assert (loaded.architecture, tokenizer, report.notes) == ("rwkv", None, [UNTIED])
    assert "names of BlinkDL, as rwkv.cpp stores them, rwkv.cpp" in str(report)
    same(loaded, model, rtol=1e-6)  # the decay went through exp
    for name, array in loaded.state_dict().items():
        if not name.endswith("decay"):
            np.testing.assert_array_equal(array, model.state_dict()[name])
    np.testing.assert_allclose(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)


def test_rwkv_cpp_s_files_of_half_precision(tmp_path):
    model = random_rwkv()
    (tmp_path / "model.bin").write_bytes(rwkvcpp(model, half=True))
    loaded = load_pretrained(tmp_path / "model.bin")[0]
    same(loaded, model, rtol=1e-3)
    weight = model.trf_blocks[0].att.key.weight.data
    np.testing.assert_array_equal(loaded.trf_blocks[0].att.key.weight.data, weight.astype(np.float16))


DATA = rwkvcpp(random_rwkv())
FIRST = 24  # where the first tensor begins: 3 integers, its 2 sizes, "emb.weight", 66 numbers
SECOND = FIRST + 12 + 8 + 10 + 4 * 66


def put(at, *values):
    return DATA[:at] + struct.pack(f"<{len(values)}i", *values) + DATA[at + 4 * len(values) :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA[:3], "begins with b'fmg': neither PyTorch's .* nor llama2.c's nor rwkv.cpp's"),
        (DATA[:23], "ends inside the header, at byte 23: cut off"),
        (DATA[:24], "n_vocab is 11, by its tensors it is 0"),
        (DATA[:30], "ends inside the header of a tensor"),
        (DATA[:40], "ends inside the sizes of a tensor"),
        (DATA[:50], "ends inside the name of a tensor"),
        (DATA[:-1], r"'head.weight' \(11, 6\) needs 264 bytes, and 263 follow: cut off"),
        (DATA[:SECOND], "n_layer is 2, by its tensors it is 0"),
        (DATA + b"\0", "ends inside the header of a tensor"),
        (put(4, 99), "version 99 of rwkv.cpp's files, unknown"),
        (put(4, 1), "version 1 of rwkv.cpp's files"),
        (put(8, 12), "n_vocab is 12, by its tensors it is 11"),
        (put(12, 7), "n_embed is 7, by its tensors it is 6"),
        (put(16, 3), "n_layer is 3, by its tensors it is 2"),
        (put(20, 2), "its numbers: Q4_0, numbers of few bits, which cannot be loaded: convert the .pth to FP32"),
        (put(20, 9), "its numbers: Q8_0"),
        (put(20, 77), "its numbers: of type 77, which is unknown"),
        (put(FIRST, 5), "byte 24: a tensor of 5 sizes with a name of 10 bytes"),
        (put(FIRST, -1), "a tensor of -1 sizes"),
        (put(FIRST + 4, 0), "a name of 0 bytes"),
        (put(FIRST + 4, 2**31 - 1), "a name of 2,147,483,647 bytes"),
        (put(FIRST + 8, 8), "'emb.weight': Q5_1"),
        (put(FIRST + 12, -6), r"'emb.weight' \(11, -6\)|no array has these"),
        (put(FIRST + 12, 0, 11), r"'emb.weight' \(11, 0\) needs 0 bytes"),
        (put(FIRST + 12, 2**31 - 1, 2**31 - 1), "no array has these"),
        (put(FIRST + 12, 1000, 1000), r"'emb.weight' \(1000, 1000\) needs 4,000,000 bytes"),
        (DATA[: FIRST + 20] + b"\xff" + DATA[FIRST + 21 :], "the name of a tensor is b'.xffmb.weight', no UTF-8"),
        (DATA + DATA[FIRST:SECOND], "holds 'emb.weight' twice"),
    ],
)
def test_a_damaged_file_of_rwkv_cpp_is_named(data, message, tmp_path):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pretrained(tmp_path / "model.bin")
    assert str(caught.value).startswith(f"{tmp_path / 'model.bin'}")
    assert str(caught.value).isprintable()


def test_every_bit_of_the_headers_counts(tmp_path):
    """There is no checksum; whichever bit of what says where things are is another, something does not fit."""
    file = tmp_path / "model.bin"
    for bit in [*range(32, 8 * 20), *range(8 * FIRST, 8 * (FIRST + 30))]:
        flipped = bytearray(DATA)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        if bit == 32:  # version 100
            continue
        with pytest.raises((CheckpointError, StateDictError)):
            load_pretrained(file)


def test_a_decay_that_is_no_exponential(tmp_path):
    model = random_rwkv()
    data = rwkvcpp(model)
    decay = (-np.exp(model.trf_blocks[1].att.decay.data)).astype("<f4").tobytes()
    at = data.index(decay)
    (tmp_path / "model.bin").write_bytes(data[:at] + struct.pack("<f", 0.5) + data[at + 4 :])
    with pytest.raises(CorruptCheckpoint, match=r"'blocks.1.att.time_decay' holds 0.5: it must be -exp of something"):
        load_pretrained(tmp_path / "model.bin")


def test_too_many_tensors(tmp_path):
    tensors = b"".join(struct.pack("<3i", 0, 5, 0) + b"%05d" % i + bytes(4) for i in range(20_001))
    (tmp_path / "model.bin").write_bytes(struct.pack("<6i", 0x67676D66, 101, 11, 6, 2, 0) + tensors)
    with pytest.raises(CorruptCheckpoint, match="holds more than 20,000 tensors"):
        load_pretrained(tmp_path / "model.bin")


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path):
    file = tmp_path / "model.bin"
    file.write_bytes(DATA)
    with RwkvCppFile(file) as source:
        file.write_bytes(DATA[:100])
        with pytest.raises(CorruptCheckpoint, match="bytes early: changed while it was read"):
            source.read("head.weight")


# ---- commands


def test_inspect_and_convert_say_what_it_is(published, tmp_path, capsys):
    model = random_rwkv()
    (tmp_path / "model.bin").write_bytes(rwkvcpp(model))
    for path, words in {
        published: "RWKV-4 with the names of transformers: 3 layers, width 6, context without end, 11 tokens",
        tmp_path / "model.bin": "RWKV-4 with the names of BlinkDL, as rwkv.cpp stores them: 2 layers, width 6, ",
    }.items():
        assert main(["inspect", str(path)]) == 0
        assert words in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "model.bin"), str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] is None
    same(load_pretrained(tmp_path / "out")[0], model, rtol=1e-6)
    assert main(["convert", str(tmp_path / "model.bin"), str(tmp_path / "no"), "--n-heads", "2"]) == 2
    assert "a RWKV-4 has none" in capsys.readouterr().err


def test_estimate_counts_a_token_where_there_is_no_end(capsys):
    assert main(["estimate", "--preset", "rwkv4-169M", "--batch-size", "3"]) == 0
    assert "training with AdamW in float32, 3 x 1 tokens at a time" in capsys.readouterr().out
