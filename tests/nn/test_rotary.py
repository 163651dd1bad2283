"""Rotary positions, shared key heads and windows of attention: properties of the maths, and a cache that changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm import nn, ops
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.nn import KVCache, MultiHeadAttention, Rotary
from tinygrad_llm.rng import Generator
from tinygrad_llm.testing import strategies

seeds = st.integers(0, 2**32 - 1)
close = {"rtol": 1e-12, "atol": 1e-12}


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@st.composite
def rotaries(draw):
    return Rotary(2 * draw(st.integers(1, 4)), draw(st.sampled_from([2, 1e4, 1e6])), draw(st.booleans()))


# ---- what turning does


@given(rotaries(), st.integers(1, 3), st.lists(st.integers(0, 5000), min_size=1, max_size=4), seeds)
def test_turning_keeps_the_length_of_every_pair(rotary, n_heads, positions, seed):
    x = normal(seed, 2, len(positions), n_heads * rotary.head_dim)
    (y,) = rotary(np.array(positions), tg.Tensor(x))
    heads = x.reshape(2, -1, n_heads, rotary.head_dim), y.data.reshape(2, -1, n_heads, rotary.head_dim)
    half = rotary.head_dim // 2
    for i in range(half):
        pair = [2 * i, 2 * i + 1] if rotary.interleaved else [i, i + half]
        before, after = (np.square(h[..., pair]).sum(-1) for h in heads)
        np.testing.assert_allclose(after, before, rtol=1e-12)


@given(rotaries(), seeds)
def test_the_first_position_is_left_as_it_is(rotary, seed):
    x = normal(seed, 2, 1, 2 * rotary.head_dim)
    (y,) = rotary(np.zeros(1, int), tg.Tensor(x))
    np.testing.assert_array_equal(y.data, x)


@given(rotaries(), seeds, st.integers(0, 50), st.integers(0, 50), st.integers(1, 1000))
def test_only_the_distance_of_query_and_key_counts(rotary, seed, i, j, shift):
    q, k = (tg.Tensor(x) for x in normal(seed, 2, 1, 1, rotary.head_dim))

    def product(i, j):
        (turned_q,), (turned_k,) = rotary(np.array([i]), q), rotary(np.array([j]), k)
        return (turned_q.data * turned_k.data).sum()

    assert product(i + shift, j + shift) == pytest.approx(product(i, j), rel=1e-9, abs=1e-11)


def test_the_distance_does_count():
    q = tg.Tensor(np.ones((1, 1, 4)))
    products = [(Rotary(4)(np.array([i]), q)[0].data * q.data).sum() for i in range(4)]
    assert len(set(np.round(products, 3))) == 4


@given(rotaries(), seeds, st.integers(1, 3))
def test_one_convention_is_the_other_with_features_in_another_order(rotary, seed, n_heads):
    """halves(perm q) = perm(interleaved q), perm: evens, then odds of each head."""
    d = rotary.head_dim
    perm = np.concatenate([h * d + np.r_[np.arange(0, d, 2), np.arange(1, d, 2)] for h in range(n_heads)])
    x, positions = normal(seed, 2, 3, n_heads * d), np.array([[0, 5, 2], [7, 1, 3]])
    (halves,) = Rotary(d, rotary.base)(positions, tg.Tensor(x[..., perm]))
    (interleaved,) = Rotary(d, rotary.base, interleaved=True)(positions, tg.Tensor(x))
    np.testing.assert_allclose(halves.data, interleaved.data[..., perm], **close)


def test_rows_stand_at_positions_of_their_own():
    x, rotary = tg.Tensor(normal(0, 2, 3, 8)), Rotary(4)
    (both,) = rotary(np.array([[4, 5, 6], [0, 1, 2]]), x)
    for row, first in enumerate((4, 0)):
        (alone,) = rotary(first + np.arange(3), x[row : row + 1])
        np.testing.assert_array_equal(both.data[row], alone.data[0])


def test_angles_of_far_positions_are_those_of_float64():
    x = tg.Tensor(np.tile(np.float32([1, 0]), (1, 1, 1)))
    (y,) = Rotary(2)(np.array([100_003]), x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.data[0, 0], [np.cos(100_003), np.sin(100_003)], atol=1e-7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "Rotary: head_dim is 3: features are turned in pairs, so it must be even"),
        ((0,), "Rotary: head_dim is 0: it must be a positive integer"),
        ((4, 1.0), r"Rotary: base is 1\.0: it must be above 1"),
        ((4, float("nan")), "Rotary: base is nan"),
    ],
)
def test_a_rotary_that_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Rotary(*arguments)


# ---- attention with key heads, windows and positions


def attention(*, num_heads=4, seed=3, head_dim=4, **options):
    d = {"head_dim": head_dim} | options
    return MultiHeadAttention(6, 8, 24, 0.0, num_heads, rng=Generator(seed), **d).astype(np.float64)


def result_and_gradients(layer, x):
    x = tg.Tensor(x, requires_grad=True)
    layer.zero_grad()
    y = layer(x)
    y.backward(normal(1, *y.shape))
    return y.data, {"x": x.grad} | {name: p.grad for name, p in layer.named_parameters()}


def assert_same(one, other, x):
    (y, gradients), (expected, theirs) = result_and_gradients(one, x), result_and_gradients(other, x)
    np.testing.assert_allclose(y, expected, **close)
    assert gradients.keys() == theirs.keys()
    for name, gradient in theirs.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("rotary", [None, Rotary(4)])
def test_as_many_key_heads_as_heads_and_a_window_as_long_as_the_text_change_nothing(rotary):
    x = normal(0, 2, 7, 6)
    plain = attention(rotary=rotary)
    assert_same(attention(rotary=rotary, num_kv_heads=4), plain, x)
    assert_same(attention(rotary=rotary, window=7), plain, x)
    apart = attention(rotary=rotary, window=6)(tg.Tensor(x)).data - plain(tg.Tensor(x)).data
    assert np.abs(apart[:, -1]).max() > 1e-3
    assert np.abs(apart[:, :-1]).max() < 1e-12


@pytest.mark.parametrize("rotary", [None, Rotary(4), Rotary(4, interleaved=True)])
@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_shared_key_heads_are_heads_with_equal_matrices(num_kv_heads, rotary):
    x, shared = normal(0, 2, 5, 6), attention(num_kv_heads=num_kv_heads, rotary=rotary, qkv_bias=True)
    plain = attention(rotary=rotary, qkv_bias=True)
    n = 4 // num_kv_heads

    def each(array):
        """A key head's rows, once for each of its query heads."""
        return np.repeat(array.reshape(num_kv_heads, 4, -1), n, axis=0).reshape(16, *array.shape[1:])

    values = shared.state_dict()
    plain.load_state_dict({k: each(v) if k.startswith(("W_key", "W_value")) else v for k, v in values.items()})
    (y, found), (expected, theirs) = result_and_gradients(shared, x), result_and_gradients(plain, x)
    np.testing.assert_allclose(y, expected, **close)
    for name, gradient in found.items():
        theirs_here = theirs[name]
        if name.startswith(("W_key", "W_value")):
            theirs_here = theirs_here.reshape(num_kv_heads, n, 4, -1).sum(1).reshape(gradient.shape)
        np.testing.assert_allclose(gradient, theirs_here, rtol=1e-11, atol=1e-12, err_msg=name)


@given(st.sampled_from([1, 2, 3, 5, 20]), st.sampled_from([None, Rotary(4), Rotary(4, 100, True)]), seeds)
def test_a_window_is_attention_with_its_mask(window, rotary, seed):
    layer, x = attention(window=window, rotary=rotary, num_kv_heads=2), tg.Tensor(normal(seed, 2, 6, 6))
    q, k, v = layer.W_query(x), layer.W_key(x), layer.W_value(x)
    if rotary is not None:
        q, k = rotary(np.arange(6), q, k)
    near = np.array([[0 <= i - j < window for j in range(6)] for i in range(6)])
    context = ops.attention(q, k, v, mask=near, n_heads=4, n_kv_heads=2)
    np.testing.assert_array_equal(layer(x).data, layer.out_proj(context).data)


@given(
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([None, Rotary(4), Rotary(4, 100, True)]),
    st.lists(st.integers(1, 3), min_size=1, max_size=5),
    st.integers(0, 4),
    seeds,
)
def test_with_a_cache_it_is_what_it_is_without(window, num_kv_heads, rotary, pieces, older, seed):
    """Text in pieces, and a second row that has read `older` tokens more."""
    layer = attention(window=window, num_kv_heads=num_kv_heads, rotary=rotary)
    n = sum(pieces)
    rows = [normal(seed, 1, n, 6), normal(seed + 1, 1, older + n, 6)]
    with tg.no_grad():
        expected = np.concatenate([layer(tg.Tensor(x)).data[:, -n:] for x in rows])
        cache, old = (KVCache(1, 1, 24, 4 * num_kv_heads, np.float64) for _ in range(2))
        if older:
            layer(tg.Tensor(rows[1][:, :older]), old.layers[0])
            old.lengths += older
        cache.append(old)
        found, start = [], 0
        for piece in pieces:
            x = np.concatenate([rows[0][:, start : start + piece], rows[1][:, older + start : older + start + piece]])
            found.append(layer(tg.Tensor(x), cache.layers[0]).data)
            cache.lengths += piece
            start += piece
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, **close)
    assert cache.layers[0].keys.shape[-1] == 4 * num_kv_heads


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads is 3, num_heads is 4: key heads must divide the heads"),
        ({"num_kv_heads": 0}, "num_kv_heads is 0: it must be a positive integer"),
        ({"num_kv_heads": True}, "num_kv_heads is True"),
        ({"head_dim": 2.0}, r"head_dim is 2\.0"),
        ({"window": 0}, "window is 0: it must be a positive integer"),
        ({"rotary": Rotary(2)}, "rotary is for heads of 2 features, these have 4"),
        ({"num_heads": 3, "head_dim": None}, "num_heads is 3, d_out is 8: heads must divide it"),
    ],
)
def test_attention_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=f"MultiHeadAttention: {message}"):
        attention(**options)


# ---- the gate


@given(strategies.arrays((3, 4)), seeds)
def test_swiglu_by_its_formula_and_with_gates_wide_open(x, seed):
    layer = nn.SwiGLU(4, 5, bias=True, rng=Generator(seed)).astype(np.float64)
    w = {name: p.data for name, p in layer.named_parameters()}
    a = x @ w["fc1.weight"].T + w["fc1.bias"]
    b = x @ w["fc2.weight"].T + w["fc2.bias"]
    expected = (a / (1 + np.exp(-a)) * b) @ w["fc3.weight"].T + w["fc3.bias"]
    np.testing.assert_allclose(layer(tg.Tensor(x)).data, expected, rtol=1e-12, atol=1e-14)
    layer.fc1.weight.data = np.zeros((5, 4))
    layer.fc1.bias.data = np.full(5, 50.0)  # silu(50) = 50: what is left is linear
    w = {name: p.data for name, p in layer.named_parameters()}
    np.testing.assert_allclose(
        layer(tg.Tensor(x)).data, 50 * b @ w["fc3.weight"].T + w["fc3.bias"], rtol=1e-12, atol=1e-12
    )
