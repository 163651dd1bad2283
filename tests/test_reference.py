"""Every op, every layer, 2-layer GPTs and Llamas and their training against PyTorch, by the values stored in tests/reference.

The files there were made by tests/reference/make.py with PyTorch 2.13 in float64; no PyTorch is needed here. Each check runs
twice: on the fused ops, and under `tg.composed()` on their twins from small ops.
"""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
from reference import store

import tinygrad_llm as tg
from tinygrad_llm import nn, optim
from tinygrad_llm.models import GPTConfig, GPTModel, make_model
from tinygrad_llm.tuning import dpo, grpo, ppo, reward, sequences

OPS, LAYERS, CLIPPING, INITIAL, FEEDBACK = (
    store.read(name) for name in ("ops", "layers", "clipping", "initial", "feedback")
)
MODELS = {f"{name}: {case}": stored for name in ("gpt", "llama") for case, stored in store.read(name).items()}

OPS_WITHOUT_REFERENCE = {
    "dropout": "PyTorch draws the mask from a stream that depends on the machine",
    "checkpoint": "it runs a module, whose own reference counts: tests/nn/test_checkpoint.py",
}
LAYERS_WITHOUT_REFERENCE = {
    "Dropout": "as the op",
    "checkpoint": "a function; as the op",
    "DecoderBlock": "it has two inputs: tests/weights/test_torch_transformer.py",
    "KVCache": "no layer; generation with it is compared with generation without",
    "Module": "the base class",
    "ModuleDict": "a container",
    "ModuleList": "a container",
    "Parameter": "a tensor",
    "Rotary": "no layer; it is inside MultiHeadAttention",
    "Sequential": "a container; it is inside FeedForward",
}

both_ways = pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])


def assert_equal(ours, reference, what):
    """float64, the same shape, and at most 1e-10 away, absolute or relative; NaN and infinities at the same places."""
    reference = np.array(reference, np.float64)
    assert ours.dtype == np.float64, what
    assert ours.shape == reference.shape, what
    np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-10, err_msg=what)


def assert_gradients(tensors, gradients):
    assert tensors.keys() == gradients.keys()
    for name, tensor in tensors.items():
        assert_equal(tensor.grad, gradients[name], f"gradient of {name}")


def leaf(values):
    return tg.Tensor(np.array(values, np.float64), requires_grad=True)


def arrays(values):
    return {name: np.array(value, np.float64) for name, value in values.items()}


# ---- ops


def test_every_op_has_a_reference_or_a_reason():
    named = {case.split()[0].rstrip(",") for case in OPS}
    assert named | OPS_WITHOUT_REFERENCE.keys() == tg.Op.registry.keys()
    assert not named & OPS_WITHOUT_REFERENCE.keys()


@both_ways
@pytest.mark.parametrize("case", OPS)
def test_op(case, way):
    stored = OPS[case]
    inputs = {name: leaf(value) for name, value in stored["inputs"].items()}
    with way():
        tables = {name: np.array(stored["options"][name]) for name in ("cos", "sin") if name in stored["options"]}
        out = tg.Op.registry[case.split()[0].rstrip(",")](*inputs.values(), **stored["options"] | tables)
    assert_equal(out.data, stored["output"], "output")
    out.backward(np.array(stored["g"]))
    assert_gradients(inputs, stored["gradients"])


# ---- layers


def test_every_layer_has_a_reference_or_a_reason():
    named = {case.split()[0] for case in LAYERS}
    assert named | LAYERS_WITHOUT_REFERENCE.keys() == set(nn.__all__)
    assert not named & LAYERS_WITHOUT_REFERENCE.keys()


@both_ways
@pytest.mark.parametrize("case", LAYERS)
def test_layer(case, way):
    stored = LAYERS[case]
    arguments = stored["arguments"]
    if "rotary" in arguments:
        arguments = arguments | {"rotary": nn.Rotary(**arguments["rotary"])}
    layer = getattr(nn, case.split()[0])(**arguments).astype(np.float64)
    layer.load_state_dict(arrays(stored["parameters"]))
    wanted = dict(layer.named_parameters())
    x = stored["x"]
    if isinstance(x, tuple):  # numbers, not ids
        x = wanted["x"] = leaf(x)
    seen = {"mask": stored["mask"]} if "mask" in stored else {}
    with way():
        out = layer(x, **seen)
    assert_equal(out.data, stored["output"], "output")
    out.backward(np.array(stored["g"]))
    assert_gradients(wanted, stored["gradients"])


# ---- models


def stored_model(case):
    stored = MODELS[case]
    model = make_model(case.split(":")[0], {**stored["config"], "drop_rate": 0.0}).astype(np.float64)
    model.load_state_dict(arrays(stored["parameters"]))
    return model


def test_gpt_is_stored_tied_and_untied_with_and_without_bias():
    configs = [stored["config"] for case, stored in MODELS.items() if case.startswith("gpt")]
    assert len({(config["tie_weights"], config["qkv_bias"]) for config in configs}) == len(configs) == 4


@both_ways
@pytest.mark.parametrize("case", MODELS)
def test_model(case, way):
    stored = MODELS[case]
    model = stored_model(case)
    with way():
        logits = model(stored["ids"])
        loss = tg.ops.cross_entropy(logits, targets=stored["targets"])
    assert_equal(logits.data, stored["logits"], "logits")
    assert_equal(loss.data, stored["loss"], "loss")
    loss.backward()
    assert_gradients(dict(model.named_parameters()), stored["gradients"])


@both_ways
@pytest.mark.parametrize("case", MODELS)
def test_ten_steps_of_adamw(case, way):
    stored = MODELS[case]
    model = stored_model(case)
    optimizer = optim.AdamW(model.parameters(), **stored["adamw"])
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        with way():
            loss = tg.ops.cross_entropy(model(stored["ids"]), targets=stored["targets"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert_equal(np.array(losses), stored["losses"], "losses")
    assert losses[-1] < losses[0] - 0.5
    trained = dict(model.named_parameters())
    assert trained.keys() == stored["trained"].keys()
    for name, parameter in trained.items():
        assert_equal(parameter.data, stored["trained"][name], name)


@pytest.mark.parametrize("case", CLIPPING)
def test_clip_grad_norm(case):
    stored = CLIPPING[case]
    parameters = {name: leaf(np.zeros_like(g)) for name, g in arrays(stored["gradients"]).items()}
    for name, parameter in parameters.items():
        parameter.grad = np.array(stored["gradients"][name])
    norm = optim.clip_grad_norm(parameters.values(), stored["max_norm"])
    assert_equal(np.array(norm), stored["norm"], "norm")
    assert_gradients(parameters, stored["clipped"])


# ---- learning from feedback


@both_ways
@pytest.mark.parametrize("case", [case for case in FEEDBACK if case != "entropy"])
def test_feedback(case, way):
    stored = FEEDBACK[case]
    learned = {name: leaf(value) for name, value in stored["learned"].items()}
    fixed = {name: np.array(value) for name, value in stored["fixed"].items()}
    loss = {"reward": reward.loss, "dpo": dpo.loss, "ppo": ppo.loss, "grpo": grpo.loss}[case.split(",")[0].split()[0]]
    with way():
        found = loss(**learned, **fixed, **stored["options"])
    more = {}
    if isinstance(found, tuple):
        found, *rest = found
        more = rest[0] if len(rest) == 1 else dict(zip(("chosen_rewards", "rejected_rewards"), rest, strict=True))
    assert_equal(found.data, stored["output"], "loss")
    found.backward(np.array(stored["g"]))
    assert_gradients(learned, stored["gradients"])
    assert more.keys() == stored["more"].keys()
    for name, value in more.items():
        assert isinstance(value, float) or type(value) is np.ndarray
        assert_equal(np.asarray(value), stored["more"][name], name)


def test_entropy():
    stored = FEEDBACK["entropy"]
    assert_equal(sequences.entropy(np.array(stored["learned"]["logits"])), stored["output"], "entropy")


# ---- initial values


@pytest.mark.parametrize("case", INITIAL)
def test_initial_values_are_pytorchs(case):
    """The same seed, the book's order of construction: uniform draws are equal to the bit, normal ones to a few ulps."""
    stored = INITIAL[case]
    tg.manual_seed(123)
    model = GPTModel(GPTConfig(**stored["config"], init="pytorch"))
    state = model.state_dict()
    expected = {name: entry for name, entry in stored["state"].items() if not name.endswith("att.mask")}
    assert list(state) == list(expected)
    for name, entry in expected.items():
        array = state[name]
        assert array.dtype == np.float32
        assert array.shape == tuple(int(n) for n in entry["shape"])
        normal = "emb" in name or (name == "out_head.weight" and model.config.tie_weights)
        ends = np.concatenate([array.ravel()[:3], array.ravel()[-2:]])
        known = np.array([*entry["first"], *entry["last"]], np.float32)
        np.testing.assert_allclose(ends, known, rtol=0, atol=3e-6 if normal else 0, err_msg=name)
        total = array.sum(dtype=np.float64)
        np.testing.assert_allclose(total, entry["sum"], rtol=0, atol=1e-3 if normal else 1e-9, err_msg=name)


# ---- the comparison that `make.py --check` ends with


def test_what_is_stored_survives_the_file():
    case = {
        "options": {"axis": (0, 2), "index": (slice(1, None, 2), np.array([[True, False]]), 3), "reduction": "none"},
        "output": np.array([1 / 3, np.inf, np.nan]),
        "gradients": {},
    }
    parsed = store.parse(store.text({"case": case}))["case"]
    assert parsed["options"]["axis"] == (0, 2)
    assert parsed["options"]["index"][0] == slice(1, None, 2)
    np.testing.assert_array_equal(parsed["options"]["index"][1], [[True, False]], strict=True)
    np.testing.assert_array_equal(np.array(parsed["output"]), case["output"], strict=True)
    assert parsed["gradients"] == {}


def changed(change):
    fresh = {"ops": copy.deepcopy(OPS), "models": copy.deepcopy(MODELS)}
    change(fresh)
    return store.drift({"ops": OPS, "models": MODELS}, fresh, 1e-12)


def test_drift_is_named():
    def move(fresh):
        case = fresh["models"]["gpt: tied, with qkv bias"]
        case["loss"] += 1e-9

    def move_one(fresh):
        rows = np.array(fresh["ops"]["linear"]["gradients"]["1"])
        rows[2, 3] -= 1e-9
        fresh["ops"]["linear"]["gradients"]["1"] = rows

    def drop(fresh):
        del fresh["ops"]["gelu"]

    def add(fresh):
        fresh["ops"]["new"] = {}

    def reshape(fresh):
        fresh["ops"]["exp"]["output"] = (fresh["ops"]["exp"]["output"],)

    def reindex(fresh):
        fresh["ops"]["getitem of slices"]["options"]["index"] = (slice(0, None), slice(None, None, 2))

    assert changed(lambda fresh: None) == []
    assert changed(move) == ["/models/gpt: tied, with qkv bias/loss: off by up to 1.0e-09"]
    assert changed(move_one) == ["/ops/linear/gradients/1: off by up to 1.0e-09"]
    assert changed(drop) == ["/ops/gelu: only in the stored file"]
    assert changed(add) == ["/ops/new: only in the fresh values"]
    assert changed(reshape) == ["/ops/exp/output: (2, 3) stored, (1, 2, 3) fresh"]
    assert [line.split(":")[0] for line in changed(reindex)] == ["/ops/getitem of slices/options/index"]
