"""GPT: configuration, parameter counts, initial values, the book's state dict, causality, dropout and bad input.

Its numbers are compared with PyTorch's in tests/test_reference.py.
"""

import dataclasses
import json
import math
from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError, DTypeError, StateDictError
from tinygrad_llm.models import PRESETS, GPTConfig, GPTModel, preset
from tinygrad_llm.rng import Generator
from tinygrad_llm.testing.language_model import check_language_model

SMALL = GPTConfig(vocab_size=11, context_length=6, emb_dim=8, n_heads=2, n_layers=2, drop_rate=0.0)
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 10]])

both_ways = pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


# ---- configuration


@pytest.mark.parametrize("name", ["vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"])
@pytest.mark.parametrize("bad", [0, -768, "768", 768.0, 1e12, True, None, [768]])
def test_a_bad_size_is_named(name, bad):
    with pytest.raises(ConfigError, match=f"^GPTConfig: {name} is .*: it must be a positive integer$"):
        GPTConfig(**{name: bad})


@pytest.mark.parametrize("n_heads", [5, 7, 769])
def test_heads_must_divide_the_embedding(n_heads):
    with pytest.raises(ConfigError, match=f"n_heads {n_heads} does not divide emb_dim 768"):
        GPTConfig(n_heads=n_heads)


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan"), "0.1", None, True, [0.1]])
def test_a_bad_drop_rate_is_named(bad):
    with pytest.raises(ConfigError, match=r"GPTConfig: drop_rate is .*from 0 to 1"):
        GPTConfig(drop_rate=bad)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qkv_bias": 1}, "qkv_bias is 1: it must be True or False"),
        ({"tie_weights": "no"}, "tie_weights is 'no': it must be True or False"),
        ({"init": "xavier"}, "init is 'xavier': use 'pytorch' or 'gpt2'"),
        ({"init": None}, "init is None: use"),
        ({"activation": "relu"}, "activation is 'relu': use 'gelu' or 'gelu_erf'"),
        ({"activation": True}, "activation is True"),
        ({"norm_eps": -1e-5}, "norm_eps is -1e-05: it must be a number from 0 to 1"),
        ({"norm_eps": float("nan")}, "norm_eps is nan"),
        ({"norm_eps": "1e-5"}, "norm_eps is '1e-5'"),
        ({"hidden_dim": 0}, "hidden_dim is 0: it must be a positive integer"),
        ({"hidden_dim": 1.5}, "hidden_dim is 1.5"),
    ],
)
def test_a_bad_option_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        GPTConfig(**changes)


@pytest.mark.parametrize("integer", [int, np.int64])  # the second overflows where it is not converted
@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vocab_size", 10**12, "1,536,000,085,814,784 parameters need 5,587.94 TiB"),
        ("n_layers", 10**9, "7,085,568,077,982,720 parameters need 25,777.15 TiB"),
        ("context_length", 10**15, "768,000,000,162,223,104 parameters need 2,793,967 TiB"),
        ("emb_dim", 12 * 2**40, "25,068,285,796,870,266,791,663,763,456 parameters"),
    ],
)
def test_absurd_sizes_are_refused_with_their_bytes(name, size, message, integer):
    """By hand, C = 768: 2 V C + T C + L (12 C^2 + 10 C) + 2 C parameters of 4 bytes."""
    config = GPTConfig(**{name: integer(size)})
    with pytest.raises(ConfigError, match=f"^GPTConfig: {message}"):
        GPTModel(config)
    with pytest.raises(ConfigError, match="TiB in float32"):
        GPTModel(GPTConfig(vocab_size=10**400))


def test_a_config_is_frozen_and_plain_data():
    config = GPTConfig(
        vocab_size=np.int64(11), emb_dim=np.int16(8), n_heads=np.uint8(2), n_layers=np.int32(2), drop_rate=np.float32(0)
    )
    assert GPTConfig(**json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.emb_dim = 16


def test_presets_and_changes():
    assert preset("124M") == GPTConfig()
    assert preset("355M", context_length=256).context_length == 256
    assert PRESETS["355M"].context_length == 1024
    with pytest.raises(
        ConfigError,
        match=r"preset '124m' is not one of .*story, tales, 124M, 355M, 774M, 1558M, gpt3-175B, .*tales-llama",
    ):
        preset("124m")
    with pytest.raises(ConfigError, match="n_heads 5 does not divide"):
        preset("124M", n_heads=5)


def test_a_model_needs_a_config():
    with pytest.raises(ConfigError, match=r"config is a dict: pass GPTConfig\("):
        GPTModel({"emb_dim": 8})


# ---- how many parameters: figures published for GPT-2 and printed in the book, by formula


@pytest.mark.parametrize(
    ("name", "untied", "tied", "published"),
    [
        ("124M", 163_009_536, 124_412_160, 124_439_808),
        ("355M", 406_212_608, 354_749_440, 354_823_168),
        ("774M", 838_220_800, 773_891_840, 774_030_080),
        ("1558M", 1_637_792_000, 1_557_380_800, 1_557_611_200),
    ],
)
def test_parameters_of_gpt2(name, untied, tied, published):
    assert preset(name).n_parameters() == untied
    assert preset(name, tie_weights=True).n_parameters() == tied
    assert preset(name, tie_weights=True, qkv_bias=True).n_parameters() == published


def test_parameters_of_other_sizes():
    assert preset("124M", context_length=256).n_parameters() == 162_419_712
    assert preset("124M", vocab_size=50304, tie_weights=True, qkv_bias=True).n_parameters() == 124_475_904
    sizes = {"vocab_size": 65, "context_length": 64, "emb_dim": 128, "n_heads": 4, "n_layers": 4}
    nanogpt = GPTConfig(**sizes, bias=False, tie_weights=True).n_parameters()
    assert nanogpt - 64 * 128 == 795_904  # as its get_num_params() says, which leaves out positions
    gpt3 = {"context_length": 2048, "emb_dim": 12288, "n_heads": 96, "n_layers": 96, "qkv_bias": True}
    assert GPTConfig(**gpt3, tie_weights=True).n_parameters() == 174_604_259_328


def test_a_block_of_gpt2_allocates_what_the_book_counts():
    block = tg.nn.TransformerBlock(768, 12, 1024)
    assert block.att.n_parameters() == 2_360_064
    assert block.ff.n_parameters() == 4_722_432


@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "sizes", [{}, {"vocab_size": 3, "n_layers": 1}, {"emb_dim": 12, "n_heads": 1, "context_length": 1}]
)
def test_the_formula_counts_what_is_allocated(sizes, bias, qkv_bias, tie_weights):
    config = small(bias=bias, qkv_bias=qkv_bias, tie_weights=tie_weights, **sizes)
    model = GPTModel(config)
    assert model.n_parameters() == config.n_parameters()
    assert len({p.data.ctypes.data for p in model.parameters()}) == len(list(model.parameters()))
    assert model.n_parameters() == sum(a.size for a in {id(a): a for a in model.state_dict().values()}.values())


def test_without_biases_it_is_the_model_whose_biases_are_zero():
    plain, model = (GPTModel(small(init="gpt2", bias=bias), rng=Generator(4)).eval() for bias in (False, True))
    biases = {name for name, _ in model.named_parameters() if name.endswith(("bias", "shift"))}
    assert {name for name, _ in model.named_parameters()} - {name for name, _ in plain.named_parameters()} == biases
    assert len(biases) == 5 * model.config.n_layers + 1
    for name, value in plain.state_dict().items():
        np.testing.assert_array_equal(value, model.state_dict()[name])
    ids = np.array([[1, 2, 3], [4, 0, 1]])
    for one in (plain, model):
        tg.ops.cross_entropy(one(ids), targets=ids).backward()
    np.testing.assert_array_equal(plain(ids).data, model(ids).data)
    with tg.composed():
        np.testing.assert_allclose(plain(ids).data, model(ids).data, rtol=1e-4, atol=1e-6)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, parameter in plain.named_parameters():
        np.testing.assert_array_equal(parameter.grad, gradients[name])


# ---- initial values


def test_initial_values_follow_the_seed_and_the_generator():
    tg.manual_seed(4)
    first = GPTModel(SMALL).state_dict()
    tg.manual_seed(4)
    second = GPTModel(SMALL).state_dict()
    third = GPTModel(SMALL, rng=Generator(4)).state_dict()
    other = GPTModel(SMALL).state_dict()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
        np.testing.assert_array_equal(third[name], array)
    assert (other["tok_emb.weight"] != first["tok_emb.weight"]).any()


@pytest.mark.parametrize("tie_weights", [False, True])
def test_initial_values_of_gpt2(tie_weights):
    config = GPTConfig(
        vocab_size=300, context_length=100, emb_dim=64, n_heads=4, n_layers=3, qkv_bias=True, tie_weights=tie_weights,
        init="gpt2",
    )  # fmt: skip
    model = GPTModel(config, rng=Generator(2))
    seen = set()
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert (p.data == (1 if name.endswith("scale") else 0)).all(), name
            continue
        onto_residual = name.endswith(("out_proj.weight", "layers.2.weight"))
        std = 0.01 if name == "pos_emb.weight" else 0.02 / math.sqrt(2 * 3) if onto_residual else 0.02
        seen.add(std)
        # over 4,096 draws the standard deviation of the estimate is 1.1 %, that of the mean 1.6 % of std
        assert abs(p.data.std() / std - 1) < 0.05, name
        assert abs(p.data.mean() / std) < 0.07, name
    assert len(seen) == 3
    largest = max(np.abs(a).max() for n, a in model.state_dict().items() if n == "tok_emb.weight")
    assert largest > 3 * 0.02  # normal, neither uniform nor truncated at two


@pytest.mark.parametrize("init", ["pytorch", "gpt2"])
def test_zeros_come_from_the_generator_and_not_from_the_configuration(init):
    before = tg.manual_seed(9).get_state()
    model = GPTModel(small(init=init), rng=tg.rng.Zeros())
    assert model.config.init == init
    assert tg.rng.get_generator().get_state() == before
    for name, p in model.named_parameters():
        assert (p.data == (1 if name.endswith("scale") else 0)).all(), name


# ---- names, ties and the book's state dict


def test_the_names_are_the_books():
    names = list(GPTModel(small(n_layers=1, qkv_bias=True)).state_dict())
    block = [f"att.{w}.{p}" for w in ("W_query", "W_key", "W_value", "out_proj") for p in ("weight", "bias")]
    block += [f"ff.layers.{i}.{p}" for i in (0, 2) for p in ("weight", "bias")]
    block += [f"norm{i}.{p}" for i in (1, 2) for p in ("scale", "shift")]
    assert names == [
        "tok_emb.weight",
        "pos_emb.weight",
        *(f"trf_blocks.0.{name}" for name in block),
        "final_norm.scale",
        "final_norm.shift",
        "out_head.weight",
    ]
    model = GPTModel(SMALL)
    assert [p.name for p in model.parameters()] == [name for name, _ in model.named_parameters()]
    assert model.trf_blocks[1].att.W_query.weight.name == "trf_blocks.1.att.W_query.weight"


def test_a_tied_head_is_the_token_embedding():
    model = GPTModel(small(tie_weights=True)).astype(np.float64)
    assert model.out_head.weight is model.tok_emb.weight
    assert "out_head.weight" not in dict(model.named_parameters())
    state = model.state_dict()
    assert state["out_head.weight"] is state["tok_emb.weight"]

    # its gradient is the sum of both uses: those of an untied model with the same numbers
    apart = GPTModel(SMALL).astype(np.float64)
    apart.load_state_dict(state)
    for m in (model, apart):
        tg.ops.cross_entropy(m(IDS), targets=IDS).backward()
    both = apart.tok_emb.weight.grad + apart.out_head.weight.grad
    np.testing.assert_allclose(model.tok_emb.weight.grad, both, rtol=1e-12, atol=1e-15)
    assert np.abs(apart.tok_emb.weight.grad).max() > 1e-3
    assert np.abs(apart.out_head.weight.grad).max() > 1e-3

    with pytest.raises(StateDictError, match=r"out_head\.weight differs from tok_emb\.weight"):
        model.load_state_dict(GPTModel(SMALL).state_dict())


def test_the_books_state_dict_loads_as_it_is():
    """A PyTorch model of the book saves the causal mask of each block as `att.mask`; nothing there is learned."""
    model, source = GPTModel(SMALL), GPTModel(SMALL)
    arrays = source.state_dict()
    mask = np.triu(np.ones((6, 6), np.float32), 1)
    with_masks = {}
    for name, array in arrays.items():
        with_masks[name] = array
        if name.endswith("W_query.weight"):
            with_masks[name.replace("W_query.weight", "mask")] = mask
    assert len(with_masks) == len(arrays) + 2
    model.load_state_dict(with_masks)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, arrays[name])
    np.testing.assert_array_equal(model(IDS).data, source(IDS).data)
    with pytest.raises(StateDictError, match=r"unexpected mask \(6, 6\)"):
        model.load_state_dict(arrays | {"mask": mask})


def test_a_wrong_state_dict_changes_nothing():
    model = GPTModel(SMALL)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    arrays = GPTModel(small(n_layers=1)).state_dict() | {"out_head.wieght": np.zeros((11, 8))}
    with pytest.raises(StateDictError, match=r"missing trf_blocks\.1\.att\.W_query\.weight \(8, 8\).*and 6 more"):
        model.load_state_dict(arrays)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# ---- causality


@both_ways
def test_a_later_token_changes_nothing_before_it(way):
    model = GPTModel(SMALL, rng=Generator(1)).eval()
    with tg.no_grad(), way():
        logits = model(IDS).data
        for j in range(IDS.shape[1]):
            changed = IDS.copy()
            changed[:, j] = (changed[:, j] + 1) % 11
            new = model(changed).data
            np.testing.assert_array_equal(new[:, :j], logits[:, :j])  # to the bit
            assert (new[:, j:] != logits[:, j:]).any(axis=-1).all()


@both_ways
def test_no_gradient_flows_to_a_later_token(way):
    model = GPTModel(SMALL, rng=Generator(1))
    for j in range(5):
        x = tg.Tensor(np.random.RandomState(j).randn(2, 5, 8).astype(np.float32), requires_grad=True)
        with way():
            logits = model.out_head(model.final_norm(model.trf_blocks(x)))
            (logits[:, j] ** 2).sum().backward()
        assert (x.grad[:, j + 1 :] == 0).all()
        assert (x.grad[:, : j + 1] != 0).any(axis=-1).all()


def test_other_sequences_of_the_batch_change_nothing():
    model = GPTModel(SMALL, rng=Generator(1)).eval()
    both, one = model(IDS).data, model(IDS[:1]).data
    np.testing.assert_allclose(both[:1], one, rtol=1e-5, atol=1e-6)


# ---- dropout


def test_dropout_is_off_in_eval_and_reproducible_in_training():
    model = GPTModel(small(drop_rate=0.5), rng=Generator(1))
    plain = GPTModel(SMALL, rng=Generator(1))
    tg.manual_seed(3)
    first, second = model(IDS).data, model(IDS).data
    tg.manual_seed(3)
    np.testing.assert_array_equal(model(IDS).data, first)
    assert (first != second).any()
    state = tg.manual_seed(3).get_state()
    np.testing.assert_array_equal(model.eval()(IDS).data, plain(IDS).data)
    assert tg.rng.get_generator().get_state() == state  # nothing is drawn
    model.train()
    assert (model(IDS).data != plain(IDS).data).any()


def test_dropping_everything_leaves_the_norms_shift():
    model = GPTModel(small(drop_rate=1.0), rng=Generator(1))
    logits = model(IDS)
    np.testing.assert_array_equal(logits.data, np.zeros((2, 5, 11)))
    tg.ops.cross_entropy(logits, targets=IDS).backward()
    assert all(np.isfinite(p.grad).all() for p in model.parameters())


# ---- token ids


@pytest.fixture(scope="module")
def model():
    return GPTModel(SMALL, rng=Generator(1)).eval()


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.array([[1, 2], [3, 11]]), DataError, r"id 11 at position \(1, 1\) is out of range: ids go from 0 to 10"),
        (np.array([[1, -1], [3, 4]]), DataError, r"id -1 at position \(0, 1\) is out of range"),
        ([[2**40]], DataError, r"id 1099511627776 at position \(0, 0\)"),
        (np.array([[2**64 - 1]], np.uint64), DataError, r"id 18446744073709551615 at position \(0, 0\)"),
        (np.array([[1.0, 2.0]]), DTypeError, "ids are float64, they must be integers"),
        ([[1.5]], DTypeError, "ids are float64, they must be integers"),
        (np.array([[True, False]]), DTypeError, "ids are bool, they must be integers"),
        ([["a"]], DTypeError, "ids are <U1, they must be integers"),
        ([[1, None]], DTypeError, "ids are object, they must be integers"),
        (None, DTypeError, "ids are object, they must be integers"),
        ([[1, 2], [3]], DataError, "ids are a ragged list: pad the sequences to one length"),
        (
            np.zeros((0, 4), int),
            DataError,
            r"ids have shape \(0, 4\): they must be \(batch, tokens\), neither of them 0",
        ),
        (
            np.zeros((2, 0), int),
            DataError,
            r"ids have shape \(2, 0\): they must be \(batch, tokens\), neither of them 0",
        ),
        ([[]], DataError, r"ids have shape \(1, 0\): they must be"),
        ([], DataError, r"ids have shape \(0,\): they must be"),
        (np.array([1, 2, 3]), DataError, r"ids have shape \(3,\): they must be \(batch, tokens\)"),
        (np.zeros((1, 2, 3), int), DataError, r"ids have shape \(1, 2, 3\): they must be \(batch, tokens\)"),
        (5, DataError, r"ids have shape \(\): they must be \(batch, tokens\)"),
        (np.zeros((1, 7), int), ContextLengthError, "7 tokens, the context length is 6"),
    ],
)
def test_bad_ids_are_named(model, ids, error, message):
    with pytest.raises(error, match=message) as caught:
        model(ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint64, ">i4"])
def test_ids_of_any_integer_type(model, dtype):
    np.testing.assert_array_equal(model(IDS.astype(dtype)).data, model(IDS).data)


def test_ids_as_a_list_a_tensor_and_a_view(model):
    expected = model(IDS).data
    np.testing.assert_array_equal(model(IDS.tolist()).data, expected)
    np.testing.assert_array_equal(model(tg.Tensor(IDS)).data, expected)
    np.testing.assert_array_equal(model(np.asfortranarray(IDS)).data, expected)
    repeated = model(np.broadcast_to(IDS[0], (3, 5))).data[
        2
    ]  # of more rows than IDS has: BLAS may round them otherwise
    np.testing.assert_allclose(repeated, expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("t", [1, 5, 6])
def test_lengths_up_to_the_context(model, t):
    ids = np.arange(t)[None] % 11
    logits = model(ids)
    assert logits.shape == (1, t, 11)
    assert logits.dtype == np.float32
    assert np.isfinite(logits.data).all()


def test_token_order_matters(model):
    assert np.abs(model([[1, 2, 3]]).data[0, -1] - model([[2, 1, 3]]).data[0, -1]).max() > 1e-3


# ---- a larger vocabulary


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_a_larger_vocabulary_keeps_the_old_rows_and_begins_at_their_mean(tie_weights, dtype):
    model = GPTModel(small(tie_weights=tie_weights), rng=Generator(3)).astype(dtype).eval()
    tables = {name: table.copy() for name, table in model.state_dict().items()}
    parameters, logits = list(model.parameters()), model(IDS).data
    model.tok_emb.weight.grad = np.ones_like(model.tok_emb.weight.data)
    model.resize_vocabulary(14)
    assert model.config == small(tie_weights=tie_weights, vocab_size=14)
    assert (model.out_head.weight is model.tok_emb.weight) == tie_weights
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    assert model.n_parameters() == model.config.n_parameters()
    assert model.tok_emb.weight.grad is None
    for name, table in model.state_dict().items():
        assert table.dtype == dtype
        np.testing.assert_array_equal(table[: len(tables[name])], tables[name])
        if name in ("tok_emb.weight", "out_head.weight"):
            assert table.shape == (14, 8)
            np.testing.assert_allclose(table[11:], np.stack([tables[name].mean(0)] * 3), rtol=1e-5, atol=1e-7)
        else:
            assert table.shape == tables[name].shape
    p = np.exp(model(IDS).data)
    np.testing.assert_allclose(model(IDS).data[..., :11], logits, rtol=1e-6)
    assert (p[..., 11:] <= p[..., :11].mean(-1, keepdims=True) * (1 + 1e-6)).all()  # the mean of logits is below
    model(np.array([[13, 11]]))


def test_a_vocabulary_of_the_same_size_changes_nothing():
    model = GPTModel(SMALL, rng=Generator(3))
    before = {name: table.copy() for name, table in model.state_dict().items()}
    model.resize_vocabulary(11)
    assert all(np.array_equal(table, before[name]) for name, table in model.state_dict().items())


def test_a_classifier_s_head_does_not_grow():
    model = GPTModel(SMALL, rng=Generator(3))
    model.out_head = tg.nn.Linear(8, 2)
    model.resize_vocabulary(12)
    assert (model.tok_emb.weight.shape, model.out_head.weight.shape) == ((12, 8), (2, 8))
    assert model.out_head.bias.shape == (2,)


def test_the_bias_of_a_head_grows_too():
    model = GPTModel(SMALL, rng=Generator(3))
    model.out_head = tg.nn.Linear(8, 11)
    bias = model.out_head.bias.data.copy()
    model.resize_vocabulary(12)
    np.testing.assert_allclose(model.out_head.bias.data, [*bias, bias.mean()], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [
        (10, "vocab_size is 10: the model has 11 tokens"),
        (0, "must be a positive integer"),
        (12.0, "must be a positive integer"),
        (True, "must be a positive integer"),
        (10**12, "choose smaller sizes"),
    ],
)
def test_a_vocabulary_that_cannot_be_changes_nothing(vocab_size, message):
    model = GPTModel(SMALL, rng=Generator(3))
    with pytest.raises(ConfigError, match=message):
        model.resize_vocabulary(vocab_size)
    assert model.config == SMALL
    assert model.tok_emb.weight.shape == model.out_head.weight.shape == (11, 8)


@pytest.mark.parametrize(
    "changes", [{"n_kv_heads": 1}, {"window": 2}, {"n_kv_heads": 1, "window": 2, "global_every": 2}]
)
def test_key_heads_and_windows_as_of_later_models(changes):
    config = small(**changes)
    check_language_model(lambda rng: GPTModel(config, rng=rng).astype(np.float64))
    near = [block.att.window for block in GPTModel(config).trf_blocks]
    assert near == [changes.get("window"), None if "global_every" in changes else changes.get("window")]


def test_key_heads_must_divide_the_heads_and_layers_see_all_but_for_a_window():
    with pytest.raises(ConfigError, match="GPTConfig: n_kv_heads 5 does not divide n_heads 12"):
        GPTConfig(n_kv_heads=5)
    with pytest.raises(ConfigError, match="GPTConfig: global_every without a window"):
        GPTConfig(global_every=2)
