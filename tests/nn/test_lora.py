"""LoRA in a model: nothing changes at the start, gradients are PyTorch's, and merging can be taken back to the bit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import store

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.models import build_model, describe_model, make_model
from tinygrad_llm.models.heads import add_classifier
from tinygrad_llm.nn.lora import LoRAConfig, LoRALinear, inject, lora_of, merge, shorten, unmerge
from tinygrad_llm.optim import AdamW, decay_groups
from tinygrad_llm.rng import Generator, Zeros, use_generator
from tinygrad_llm.training import train_step

SIZES = {"vocab_size": 17, "context_length": 8, "emb_dim": 12, "n_heads": 3, "n_layers": 2, "drop_rate": 0.0}
IDS = np.arange(16).reshape(2, 8) % 17
REFERENCE = store.read("lora")


def make(**changes):
    return make_model("gpt", SIZES | changes, Generator(3))


def trained(model, steps=3):
    """The model after some steps, so that B is not zero any more."""
    optimizer = AdamW(decay_groups(model.parameters()), lr=0.02)
    with use_generator(Generator(4)):
        for _ in range(steps):
            train_step(model, optimizer, IDS, np.roll(IDS, -1, 1), threads=1)
    return model


def logits(model):
    with tg.no_grad():
        return model(IDS).data


def learned(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("targets", [("all",), ("attn",), ("ff.layers.*",), ("W_query", "W_value"), ("out_head",)])
@pytest.mark.parametrize("init", ["kaiming", "book"])
def test_at_the_start_nothing_has_changed(targets, init):
    model = make()
    before, names = logits(model), list(model.state_dict())
    inject(model, LoRAConfig(r=2, targets=targets, init=init, dropout=0.5), Generator(5))
    np.testing.assert_array_equal(logits(model), before)
    assert [name for name in model.state_dict() if ".lora_" not in name] == names
    assert learned(model) == [name for name in model.state_dict() if ".lora_" in name]
    for p in model.parameters():
        assert p.requires_grad == p.name.endswith(("lora_A", "lora_B"))


@pytest.mark.parametrize("case", [name for name in REFERENCE if name.startswith("layer")])
@pytest.mark.parametrize("composed", [False, True])
def test_outputs_and_gradients_are_pefts(case, composed):
    stored = REFERENCE[case]
    options = dict(stored["config"])
    config = LoRAConfig(options["r"], options["lora_alpha"], use_rslora=options.get("use_rslora", False))
    layer = LoRALinear(nn.Linear(5, 4).astype(np.float64), config)
    layer.load_state_dict({name: np.array(value) for name, value in stored["parameters"].items()})
    x = tg.Tensor(np.array(stored["x"]), requires_grad=True)
    if composed:
        with tg.composed():
            out = layer(x)
    else:
        out = layer(x)
    np.testing.assert_allclose(out.data, np.array(stored["output"]), rtol=1e-10, atol=1e-10)
    out.backward(np.array(stored["g"]))
    for name, tensor in {"x": x, "lora_A": layer.lora_A, "lora_B": layer.lora_B}.items():
        np.testing.assert_allclose(
            tensor.grad, np.array(stored["gradients"][name]), rtol=1e-10, atol=1e-10, err_msg=name
        )


def test_what_is_drawn_is_pytorchs():
    stored, rng = REFERENCE["what is drawn after seed 123"], Generator(123)
    linear = nn.Linear(6, 4, rng=rng)
    np.testing.assert_array_equal(linear.weight.data, np.array(stored["weight"]))
    np.testing.assert_array_equal(LoRALinear(linear, LoRAConfig(r=3), rng=rng).lora_A.data, np.array(stored["lora_A"]))


@pytest.mark.parametrize(("init", "bound"), [("kaiming", 1 / math.sqrt(400)), ("book", 1 / math.sqrt(16))])
def test_the_bound_of_what_is_drawn(init, bound):
    layer = LoRALinear(nn.Linear(400, 3), LoRAConfig(r=16, init=init), rng=Generator(1))
    assert 0.98 * bound < np.abs(layer.lora_A.data).max() <= bound
    assert not layer.lora_B.data.any()


def test_the_counts_of_the_book():
    """Appendix E: 124M, r = 16 in every Linear, with a head of two classes."""
    for whole, n in (((), 2_666_528), (("out_head",), 2_655_746)):
        model = make_model("gpt", {}, Zeros())
        model.out_head = nn.Linear(768, 2, rng=Zeros())
        inject(model, LoRAConfig(r=16, alpha=16, targets=("all",), whole=whole), Zeros())
        assert sum(p.size for p in model.parameters() if p.requires_grad) == n


@given(
    r=st.integers(1, 9),
    n_in=st.integers(1, 6),
    n_out=st.integers(1, 6),
    alpha=st.floats(0, 50),
    use_rslora=st.booleans(),
    lead=st.lists(st.integers(0, 3), max_size=3),
    bias=st.booleans(),
)
def test_any_shape(r, n_in, n_out, alpha, use_rslora, lead, bias):
    rng = np.random.default_rng(r)
    config = LoRAConfig(r, alpha, use_rslora=use_rslora)
    layer = LoRALinear(nn.Linear(n_in, n_out, bias, rng=Generator(1)).astype(np.float64), config, rng=Generator(2))
    layer.lora_B.data = rng.standard_normal((n_out, r))
    x = tg.Tensor(rng.standard_normal((*lead, n_in)), requires_grad=True)
    y = layer(x)
    s = alpha / (math.sqrt(r) if use_rslora else r)
    w = layer.weight.data + s * layer.lora_B.data @ layer.lora_A.data
    expected = x.data @ w.T + (layer.bias.data if bias else 0)
    assert y.shape == (*lead, n_out)
    np.testing.assert_allclose(y.data, expected, rtol=1e-9, atol=1e-9)
    y.sum().backward()
    assert layer.lora_A.grad.shape == (r, n_in)
    assert layer.lora_B.grad.shape == (n_out, r)
    before = layer.weight.data.copy()
    layer.merge()
    np.testing.assert_allclose(layer(x).data, y.data, rtol=1e-9, atol=1e-9)
    layer.unmerge()
    np.testing.assert_array_equal(layer.weight.data, before)


def test_merged_is_unmerged_to_rounding_and_back_to_the_bit():
    model = make()
    inject(model, LoRAConfig(r=2, targets=("all",)), Generator(5))
    trained(model)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    plain, out = set(make().state_dict()), logits(model)
    merge(model)
    merge(model)
    assert model.state_dict().keys() == plain
    assert lora_of(model) is None
    assert "lora" not in describe_model(model)
    np.testing.assert_allclose(logits(model), out, rtol=0, atol=1e-5)
    again = make_model("gpt", SIZES, Zeros())
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(logits(again), logits(model))
    unmerge(model)
    unmerge(model)
    assert model.state_dict().keys() == before.keys()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    np.testing.assert_array_equal(logits(model), out)
    assert all(name.endswith(("lora_A", "lora_B")) for name in learned(model))


def test_a_model_merged_for_good_is_plain():
    model = make()
    layer = model.trf_blocks[0].att.W_query
    layer.on_forward(lambda module, args, out: None)
    inject(model, LoRAConfig(r=2), Generator(5))
    trained(model).eval()
    out = logits(model)
    merge(model, keep=False)
    assert not any(isinstance(module, LoRALinear) for _, module in model.named_modules())
    assert list(model.state_dict()) == list(make().state_dict())
    assert learned(model) == [name for name, _ in model.named_parameters()]
    assert type(model.trf_blocks[0].att.W_query) is nn.Linear
    assert model.trf_blocks[0].att.W_query.hooks is layer.hooks
    assert not any(module.training for _, module in model.named_modules())
    np.testing.assert_allclose(logits(model), out, rtol=0, atol=1e-5)
    inject(model, LoRAConfig(r=3))  # again, now that it is plain


def test_unmerging_follows_the_dtype():
    model = make()
    inject(model, LoRAConfig(r=2), Generator(5))
    merge(model)
    model.astype(np.float64)
    unmerge(model)
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    model(IDS)


def test_only_lora_learns_and_the_loss_falls():
    model = make()
    base = {name: array.copy() for name, array in model.state_dict().items()}
    inject(model, LoRAConfig(r=4, targets=("all",)), Generator(5))
    before = float(tg.ops.cross_entropy(tg.Tensor(logits(model)), targets=np.roll(IDS, -1, 1)))
    trained(model, 30)
    after = float(tg.ops.cross_entropy(tg.Tensor(logits(model)), targets=np.roll(IDS, -1, 1)))
    assert after < before - 0.5
    for name, array in model.state_dict().items():
        if name in base:
            np.testing.assert_array_equal(array, base[name], err_msg=name)
        elif name.endswith("lora_B"):
            assert array.any()


def test_dropout_acts_on_the_thin_path_alone_and_only_in_training():
    layer = LoRALinear(nn.Linear(50, 3, rng=Generator(1)), LoRAConfig(r=2, dropout=0.5), rng=Generator(2))
    x = tg.Tensor(np.ones((4, 50), np.float32))
    with use_generator(Generator(1)):
        plain = layer(x).data
        layer.lora_B.data[...] = 1
        one, other = layer(x).data, layer(x).data
        assert not np.array_equal(one, other)
        layer.eval()
        np.testing.assert_array_equal(layer(x).data, layer(x).data)
    with use_generator(Generator(1)):
        layer.train()
        layer(x)
        np.testing.assert_array_equal(layer(x).data, one)  # the second draw of this seed
    layer.lora_B.data[...] = 0
    np.testing.assert_array_equal(layer(x).data, plain)


def test_what_is_trained_whole():
    model = make()
    inject(model, LoRAConfig(r=2, targets=("all",), whole=("out_head", "final_norm")), Generator(5))
    assert type(model.out_head) is nn.Linear
    assert [name for name in learned(model) if ".lora_" not in name] == [
        "final_norm.scale",
        "final_norm.shift",
        "out_head.weight",
    ]


def test_tied_weights():
    model = make(tie_weights=True)
    inject(model, LoRAConfig(r=2, targets=("all",)), Generator(5))
    assert type(model.out_head) is nn.Linear
    assert not any(name.startswith("out_head") for name in learned(model))
    for options in ({"targets": ("out_head",)}, {"whole": ("out_head",)}, {"targets": ("*",)}):
        model = make(tie_weights=True)
        with pytest.raises(ConfigError, match=r"out_head.weight is tok_emb.weight too"):
            inject(model, LoRAConfig(r=2, **options))
        assert len(learned(model)) == len(list(model.parameters()))


def test_a_linear_in_two_places_gets_one_pair():
    model = make()
    model.trf_blocks[1].att.W_query = model.trf_blocks[0].att.W_query
    inject(model, LoRAConfig(r=2, targets=("W_query",)), Generator(5))
    assert model.trf_blocks[1].att.W_query is model.trf_blocks[0].att.W_query
    assert len(learned(model)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("W_quary",)}, r"targets has 'W_quary': nothing has that name.*there are att.W_query, att.W_key"),
        ({"targets": ("all", "nothing*")}, r"'nothing\*': nothing has that name"),
        ({"whole": ("head",)}, r"whole has 'head': nothing has that name"),
        ({"targets": ("out_head",), "whole": ("out_head",)}, r"out_head is among targets \(out_head\) and .* whole"),
    ],
)
def test_names_that_fit_nothing(options, message):
    model = make()
    with pytest.raises(ConfigError, match=message):
        inject(model, LoRAConfig(r=2, **options))
    assert len(learned(model)) == len(list(model.parameters()))
    assert not any(".lora_" in name for name in model.state_dict())


def test_never_twice():
    model = make()
    inject(model, LoRAConfig(r=2))
    with pytest.raises(ConfigError, match="the model has LoRA layers"):
        inject(model, LoRAConfig(r=2, targets=("out_head",)))
    for function in (merge, unmerge):
        with pytest.raises(ConfigError, match="no LoRA layers"):
            function(make())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r is 0: it must be a positive integer"),
        ({"r": 10**9}, "r is 1,000,000,000: it must be 65,536 or less"),
        ({"r": True}, "r is True"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"targets": ()}, "targets is empty"),
        ({"targets": 3}, "targets is 3: it must be a list of names"),
        ({"targets": [""]}, "targets has '' in it"),
        ({"use_rslora": 1}, "use_rslora is 1"),
        ({"init": "zeros"}, "init is 'zeros': use kaiming or book"),
    ],
)
def test_configurations_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        LoRAConfig(**options)


def test_a_model_is_built_again_from_its_description():
    model = make()
    inject(model, LoRAConfig(r=2, alpha=3, targets=("attn", "ff.layers.0"), whole=("final_norm",)), Generator(5))
    trained(model)
    about = describe_model(model)
    assert about["lora"]["targets"] == ["attn", "ff.layers.0"]
    again = build_model(about, Zeros())
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(logits(again), logits(model))
    assert learned(again) == learned(model)
    assert describe_model(again) == about
    model = add_classifier(make(tie_weights=True), ["ham", "spam"], rng=Generator(1))
    inject(model, LoRAConfig(r=2, targets=("all",)), Generator(5))
    model.out_head.lora_B.data[...] = 0.5
    again = build_model(describe_model(model), Zeros())
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(logits(again), logits(model))
    assert learned(again) == learned(model)
    assert "out_head.lora_B" in learned(again)
    with pytest.raises(ConfigError, match=r"lora has no option 'rank'"):
        build_model(about | {"lora": {"rank": 3}}, Zeros())


def test_names_are_shortened_only_where_the_short_one_means_the_same():
    names = [f"h.{i}.{name}" for i in range(3) for name in ("att.q", "att.k")] + ["head"]
    assert shorten(names, names) == ["att.q", "att.k", "head"]
    assert shorten(["h.0.att.q", "h.1.att.q", "h.2.att.q"], names) == ["att.q"]
    assert shorten(["h.0.att.q", "h.2.att.q", "head"], names) == ["h.0.att.q", "h.2.att.q", "head"]


def test_it_says_what_it_is():
    layer = LoRALinear(nn.Linear(4, 3), LoRAConfig(r=2, alpha=8))
    assert "lora_A (2, 4), lora_B (3, 2), r 2, scale 4" in repr(layer)
    layer.merge()
    assert "r 2, merged" in repr(layer)


def test_a_larger_vocabulary():
    model = make()
    inject(model, LoRAConfig(r=2, targets=("out_head",)), Generator(5))
    model.resize_vocabulary(20)
    assert model(IDS).shape == (2, 8, 20)
