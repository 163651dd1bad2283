"""The layers beyond their numbers, which tests/test_reference.py compares with PyTorch's: dropout, shapes, bad input."""

from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError, DTypeError, ShapeError
from tinygrad_llm.rng import Generator


def ones(*shape):
    return tg.Tensor(np.ones(shape, np.float32), requires_grad=True)


# ---- dropout


def test_dropout_zeroes_a_share_and_scales_the_rest():
    tg.manual_seed(1)
    x = ones(200, 500)
    y = nn.Dropout(0.3)(x)
    assert y.dtype == np.float32
    kept = y.data != 0
    np.testing.assert_allclose(y.data[kept], 1 / 0.7, rtol=1e-6)
    # 100,000 draws: the share that is kept has a standard deviation of 0.00145
    assert abs(kept.mean() - 0.7) < 0.008
    assert abs(kept.mean(axis=0) - 0.7).max() < 0.2
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)


@pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])
def test_dropout_at_the_ends_of_its_range(way):
    x = ones(4, 5)
    assert nn.Dropout(0.0)(x) is x
    none = nn.Dropout(1)(x)
    np.testing.assert_array_equal(none.data, np.zeros((4, 5)))
    none.sum().backward()
    np.testing.assert_array_equal(x.grad, np.zeros((4, 5)))
    attention = nn.MultiHeadAttention(4, 4, 3, 1.0, 2)
    x = ones(2, 3, 4)
    with way():
        y = attention(x)
    np.testing.assert_array_equal(y.data, np.broadcast_to(attention.out_proj.bias.data, (2, 3, 4)))


@pytest.mark.parametrize("drop_rate", [-0.1, 1.1, float("nan"), float("inf"), "0.1", None, True])
def test_a_bad_drop_rate_is_named(drop_rate):
    with pytest.raises(ConfigError, match="drop_rate is"):
        nn.Dropout(drop_rate)
    with pytest.raises(ConfigError, match="drop_rate is"):
        nn.MultiHeadAttention(4, 4, 3, drop_rate, 2)
    with pytest.raises(ConfigError, match="drop_rate is"):
        nn.TransformerBlock(4, 2, 3, drop_rate)


def test_a_numpy_rate_keeps_float32():
    for layer in (nn.Dropout(np.float64(0.5)), nn.MultiHeadAttention(4, 4, 3, np.float64(0.5), 2)):
        x = ones(2, 3, 4)
        layer(x).sum().backward()
        assert x.grad.dtype == np.float32


def test_dropout_depends_on_the_seed_and_not_on_other_generators():
    layer, x = nn.Dropout(0.5), ones(8, 8)
    tg.manual_seed(7)
    first, second = layer(x).data, layer(x).data
    np.random.seed(0)
    tg.manual_seed(7)
    np.testing.assert_array_equal(layer(x).data, first)
    assert (first != second).any()
    layer.eval()
    assert layer(x) is x


def test_attention_drops_weights_in_training_only():
    tg.manual_seed(3)
    layer = nn.MultiHeadAttention(4, 4, 6, 0.5, 2)
    x = tg.Tensor(np.random.RandomState(0).randn(2, 6, 4).astype(np.float32))
    tg.manual_seed(5)
    trained = layer(x).data
    tg.manual_seed(5)
    with tg.composed():
        np.testing.assert_allclose(layer(x).data, trained, rtol=1e-5, atol=1e-6)
    assert (layer(x).data != trained).any()
    plain = nn.MultiHeadAttention(4, 4, 6, 0.0, 2)
    plain.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(layer.eval()(x).data, plain(x).data)


# ---- initial values


def test_layers_draw_from_the_generator_they_are_given():
    current = tg.manual_seed(5).get_state()
    bound = 1 / 3
    layer = nn.Linear(9, 200, rng=Generator(1))
    assert tg.manual_seed(5).get_state() == current
    for p in layer.parameters():
        assert p.dtype == np.float32
        assert -bound <= p.data.min() < -0.9 * bound
        assert 0.9 * bound < p.data.max() <= bound
    tg.manual_seed(1)
    np.testing.assert_array_equal(nn.Linear(9, 200).weight.data, layer.weight.data)
    table = nn.Embedding(300, 100, rng=Generator(1)).weight.data
    assert abs(table.mean()) < 0.03
    assert abs(table.std() - 1) < 0.03
    for norm in (nn.LayerNorm(5), nn.RMSNorm(5)):
        weight, *shift = norm.parameters()
        assert (weight.data == 1).all()
        assert all((s.data == 0).all() for s in shift)


def test_values_known_from_the_formulas():
    x = tg.Tensor(np.array([1.0, 2, 3, 4]))
    with tg.no_grad():
        layer_norm = nn.LayerNorm(4).astype(np.float64)(x).data
        rms_norm = nn.RMSNorm(4).astype(np.float64)(x).data
    np.testing.assert_allclose(layer_norm, [-1.34163542, -0.44721181, 0.44721181, 1.34163542], atol=5e-9)
    np.testing.assert_allclose(rms_norm, [0.36514813, 0.73029626, 1.09544438, 1.46059251], atol=5e-9)


# ---- bad input


SIZES = {
    nn.Linear: {"in_features": 2, "out_features": 3},
    nn.Embedding: {"num_embeddings": 2, "embedding_dim": 3},
    nn.LayerNorm: {"emb_dim": 4},
    nn.RMSNorm: {"emb_dim": 4},
    nn.MultiHeadAttention: {"d_in": 4, "d_out": 4, "context_length": 3, "dropout": 0.0, "num_heads": 2},
}


@pytest.mark.parametrize("bad", [0, -1, 2.0, "4", None, True, np.float32(2)])
@pytest.mark.parametrize(
    ("layer", "name"), [(layer, name) for layer, sizes in SIZES.items() for name in sizes if name != "dropout"]
)
def test_a_bad_size_is_named(layer, name, bad):
    with pytest.raises(ConfigError, match=f"{layer.__name__}: {name} is .*positive integer"):
        layer(**SIZES[layer] | {name: bad})


def test_heads_must_divide_the_features():
    with pytest.raises(ConfigError, match="num_heads is 4, d_out is 6"):
        nn.MultiHeadAttention(6, 6, 3, 0.0, 4)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match=r"x is \(2, 4\), weight is \(3, 5\): the last axis of x must be 5"):
        nn.Linear(5, 3)(ones(2, 4))
    with pytest.raises(ShapeError, match=r"x is \(2, 4\).*must be \(4,\)"):
        nn.LayerNorm(5)(ones(2, 4))
    with pytest.raises(ShapeError, match=r"x is \(2, 4\).*must be \(4,\)"):
        nn.RMSNorm(5)(ones(2, 4))
    attention = nn.MultiHeadAttention(4, 4, 3, 0.0, 2)
    with pytest.raises(ContextLengthError, match="4 tokens, the context length is 3"):
        attention(ones(1, 4, 4))
    for shape in ((4,), (3, 4), (1, 1, 3, 4)):
        with pytest.raises(ShapeError, match=r"attention: .*\(B, T, 4\)"):
            attention(ones(*shape))


def test_bad_ids_are_named():
    table = nn.Embedding(5, 2)
    with pytest.raises(DataError, match=r"id 5 at position \(1, 0\) is out of range: ids go from 0 to 4"):
        table(np.array([[0, 4], [5, -1]]))
    with pytest.raises(DataError, match=r"id -1 at position \(1,\)"):
        table([0, -1])
    with pytest.raises(DTypeError, match="ids are float64, they must be integers"):
        table(np.array([1.0]))
    assert table([]).shape == (0, 2)
    assert table(3).shape == (2,)
