"""The ladder: each rung equals the one before it where the maths says so, and the last ones equal ops.attention."""

import math

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import nn, ops
from tinygrad_llm.errors import ConfigError, ContextLengthError, ShapeError
from tinygrad_llm.nn.attention_ladder import (
    CausalAttention,
    FusedAttention,
    GroupedQueryAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    MultiQueryAttention,
    RotaryAttention,
    SelfAttention_v1,
    SelfAttention_v2,
    SimpleAttention,
    SlidingWindowAttention,
)
from tinygrad_llm.rng import Generator

B, T, C, H = 2, 7, 12, 4
SIZES = (C, C, T, 0.0, H)  # d_in, d_out, context_length, dropout, num_heads


def text(*shape):
    return tg.Tensor(np.random.RandomState(5).randn(*shape), requires_grad=True)


def made(layer, *sizes, **options):
    return layer(*sizes, rng=Generator(3), **options).astype(np.float64)


def assert_same(one, other, x, names=None):
    """The same result, the same gradient of x and, where they have the names in common, of the weights."""
    gradients = []
    for layer in (one, other):
        x.grad = None
        layer.zero_grad()
        y = layer(x)
        g = np.random.RandomState(6).randn(*y.shape)
        y.backward(g)
        gradients.append((y.data, x.grad, {n: p.grad for n, p in layer.named_parameters()}))
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], rtol=1e-10, atol=1e-12)
    shared = gradients[0][2].keys() & gradients[1][2].keys()
    for name in shared if names is None else names:
        np.testing.assert_allclose(gradients[0][2][name], gradients[1][2][name], rtol=1e-10, atol=1e-12, err_msg=name)


def test_without_weights_by_the_formula():
    x = text(5, 3)
    e = np.exp(x.data @ x.data.T)
    np.testing.assert_allclose(SimpleAttention()(x).data, e @ x.data / e.sum(1, keepdims=True), rtol=1e-12)


def test_v1_with_the_unit_matrix_is_simple_attention_of_scaled_scores():
    x, layer = text(5, 3), made(SelfAttention_v1, 3, 3)
    layer.load_state_dict({"W_query": math.sqrt(3) * np.eye(3), "W_key": np.eye(3), "W_value": np.eye(3)})
    assert_same(layer, SimpleAttention(), x)


def test_v2_with_the_matrices_of_v1():
    x, v1, v2 = text(5, 3), made(SelfAttention_v1, 3, 2), made(SelfAttention_v2, 3, 2)
    v2.load_state_dict({f"{name}.weight": array.T for name, array in v1.state_dict().items()})
    assert_same(v1, v2, x)
    np.testing.assert_allclose(v2.W_key.weight.grad, v1.W_key.grad.T, rtol=1e-10)


def test_causal_attention_is_v2_of_what_came_before():
    x, v2, causal = text(B, T, C), made(SelfAttention_v2, C, 5, True), made(CausalAttention, C, 5, T, 0.0, True)
    causal.load_state_dict(v2.state_dict())
    with tg.no_grad():
        y = causal(x).data
        for t in range(T):
            np.testing.assert_allclose(y[:, t], v2(tg.Tensor(x.data[:, : t + 1])).data[:, -1], rtol=1e-10)
        assert np.abs(y[:, 0] - v2(x).data[:, 0]).max() > 1e-3


def test_no_rung_from_causal_attention_on_sees_the_future():
    x = text(B, T, C)
    rungs = [
        made(CausalAttention, C, C, T, 0.0),
        made(MultiHeadAttentionWrapper, C, 3, T, 0.0, H),
        *(made(layer, *SIZES) for layer in (MultiHeadAttention, FusedAttention, MultiQueryAttention)),
        made(GroupedQueryAttention, *SIZES, 2),
        made(SlidingWindowAttention, *SIZES, 3),
        made(RotaryAttention, C, C, T, 0.0, 3),
    ]
    for layer in rungs:
        x.grad = None
        layer(x)[:, 3].sum().backward()
        assert (x.grad[:, 4:] == 0).all(), type(layer)
        assert np.abs(x.grad[:, 3]).min() > 0, type(layer)
        if isinstance(layer, SlidingWindowAttention):
            assert (x.grad[:, :1] == 0).all()
            assert np.abs(x.grad[:, 1]).min() > 0
        else:
            assert np.abs(x.grad[:, 0]).min() > 0, type(layer)


def test_a_wrapper_of_one_head_and_of_heads_side_by_side():
    x = text(B, T, C)
    wrapper = made(MultiHeadAttentionWrapper, C, 3, T, 0.0, H)
    assert_same(made(MultiHeadAttentionWrapper, C, 3, T, 0.0, 1), made(CausalAttention, C, 3, T, 0.0), x)
    together = np.concatenate([head(x).data for head in wrapper.heads], axis=-1)
    np.testing.assert_array_equal(wrapper(x).data, together)
    assert wrapper(x).shape == (B, T, H * 3)


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention_is_the_wrapper_with_its_heads_stacked(bias):
    x = text(B, T, C)
    wrapper = made(MultiHeadAttentionWrapper, C, C // H, T, 0.0, H, bias)
    stacked = {"out_proj.weight": np.eye(C), "out_proj.bias": np.zeros(C)}
    for name in list(wrapper.heads[0].state_dict()):
        stacked[name] = np.concatenate([head.state_dict()[name] for head in wrapper.heads])
    layer = made(MultiHeadAttention, *SIZES, bias)
    layer.load_state_dict(stacked)
    assert_same(wrapper, layer, x)


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention_is_the_one_the_model_uses(bias):
    small, fused = made(MultiHeadAttention, *SIZES, bias), made(nn.MultiHeadAttention, *SIZES, bias)
    assert list(small.state_dict()) == list(fused.state_dict())
    for name, array in small.state_dict().items():  # and drawn alike
        np.testing.assert_array_equal(array, fused.state_dict()[name])
    assert_same(small, fused, text(B, T, C))


@pytest.mark.parametrize("bias", [False, True])
def test_fused_matrices(bias):
    apart, fused = made(MultiHeadAttention, *SIZES, bias), made(FusedAttention, *SIZES, bias)
    state = apart.state_dict()
    for kind in ("weight", "bias") if bias else ("weight",):
        state[f"W_qkv.{kind}"] = np.concatenate([state.pop(f"W_{name}.{kind}") for name in ("query", "key", "value")])
    fused.load_state_dict(state)
    assert_same(apart, fused, text(B, T, C))
    stacked = np.concatenate([layer.weight.grad for layer in (apart.W_query, apart.W_key, apart.W_value)])
    np.testing.assert_allclose(fused.W_qkv.weight.grad, stacked, rtol=1e-10, atol=1e-12)


def test_as_many_key_heads_as_heads():
    assert_same(made(GroupedQueryAttention, *SIZES, H), made(MultiHeadAttention, *SIZES), text(B, T, C))


def test_one_key_head_is_multi_query():
    layer = made(MultiQueryAttention, *SIZES)
    assert layer.W_key.weight.shape == layer.W_value.weight.shape == (C // H, C)
    assert_same(made(GroupedQueryAttention, *SIZES, 1), layer, text(B, T, C))


@pytest.mark.parametrize("n_kv", [1, 2])
def test_grouped_queries_are_multi_head_attention_with_repeated_heads(n_kv):
    """Key head i serves the query heads i H/G, ..., (i + 1) H/G - 1."""
    x, grouped, full = text(B, T, C), made(GroupedQueryAttention, *SIZES, n_kv), made(MultiHeadAttention, *SIZES)
    state = grouped.state_dict()
    for name in ("W_key.weight", "W_value.weight"):
        heads = state[name].reshape(n_kv, C // H, C)
        state[name] = np.repeat(heads, H // n_kv, axis=0).reshape(C, C)
    full.load_state_dict(state)
    assert_same(grouped, full, x, names=["W_query.weight", "out_proj.weight"])
    repeated = full.W_key.weight.grad.reshape(n_kv, H // n_kv, C // H, C).sum(1).reshape(-1, C)
    np.testing.assert_allclose(grouped.W_key.weight.grad, repeated, rtol=1e-10, atol=1e-12)

    fused = ops.attention(grouped.W_query(x), grouped.W_key(x), grouped.W_value(x), n_heads=H, n_kv_heads=n_kv)
    np.testing.assert_allclose(grouped.out_proj(fused).data, grouped(x).data, rtol=1e-10)


@pytest.mark.parametrize("window", [T, T + 5])
def test_a_window_as_long_as_the_text(window):
    assert_same(made(SlidingWindowAttention, *SIZES, window), made(MultiHeadAttention, *SIZES), text(B, T, C))


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_window_by_brute_force(window):
    """Every token by itself: full attention over the `window` tokens that end with it."""
    x, layer, full = text(B, T, C), made(SlidingWindowAttention, *SIZES, window), made(MultiHeadAttention, *SIZES)
    with tg.no_grad():
        y = layer(x).data
        for t in range(T):
            seen = tg.Tensor(x.data[:, max(0, t - window + 1) : t + 1])
            np.testing.assert_allclose(y[:, t], full(seen).data[:, -1], rtol=1e-10, atol=1e-13)


def same_weights(small, fused, x):
    fused.load_state_dict(small.state_dict())
    assert_same(small, fused, x)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("base", [10000.0, 50.0])
def test_rotary_attention_is_the_one_the_model_uses(base, interleaved):
    sizes, rotary = (C, C, T, 0.0, 3), nn.Rotary(C // 3, base, interleaved)
    small = made(RotaryAttention, *sizes, base=base, interleaved=interleaved)
    same_weights(small, made(nn.MultiHeadAttention, *sizes, rotary=rotary), text(B, T, C))
    plain = made(MultiHeadAttention, *sizes)
    plain.load_state_dict(small.state_dict())
    apart = np.abs(small(text(B, T, C)).data - plain(text(B, T, C)).data).max((0, 2))  # (T,)
    assert apart[0] < 1e-12  # the first token is not turned, and sees no other
    assert apart[1:].min() > 1e-3


@pytest.mark.parametrize(
    ("rung", "size", "option"), [(GroupedQueryAttention, 2, "num_kv_heads"), (SlidingWindowAttention, 3, "window")]
)
def test_key_heads_and_windows_are_those_that_the_model_uses(rung, size, option):
    same_weights(made(rung, *SIZES, size), made(nn.MultiHeadAttention, *SIZES, **{option: size}), text(B, T, C))


@pytest.mark.parametrize(
    "layer", [CausalAttention(4, 4, 6, 0.5, rng=Generator(1)), MultiHeadAttention(4, 4, 6, 0.5, 2, rng=Generator(1))]
)
def test_dropout_in_training_only(layer):
    tg.manual_seed(1)
    x = tg.Tensor(np.random.RandomState(0).randn(1, 6, 4).astype(np.float32))
    assert (layer(x).data != layer(x).data).any()
    assert layer(x).dtype == np.float32
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, layer(x).data)


def test_dropped_weights_are_scaled():
    """The mean over many draws is the result without dropout."""
    tg.manual_seed(2)
    layer = CausalAttention(3, 3, 5, 0.5, rng=Generator(1))
    x = tg.Tensor(np.broadcast_to(np.random.RandomState(0).randn(1, 5, 3).astype(np.float32), (4000, 5, 3)))
    dropped = layer(x).data.mean(axis=0)
    np.testing.assert_allclose(dropped, layer.eval()(x).data[0], atol=0.05)


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match="num_heads 5"):
        MultiHeadAttention(12, 12, 7, 0.0, 5)
    with pytest.raises(ConfigError, match="num_kv_heads 3"):
        GroupedQueryAttention(12, 12, 7, 0.0, 4, 3)
    with pytest.raises(ConfigError, match="SlidingWindowAttention: window is 0"):
        SlidingWindowAttention(12, 12, 7, 0.0, 4, 0)
    with pytest.raises(ConfigError, match="RotaryAttention: a head has 3 features"):
        RotaryAttention(12, 12, 7, 0.0, 4)
    with pytest.raises(ConfigError, match="drop_rate is 2"):
        CausalAttention(3, 3, 7, 2)
    with pytest.raises(ConfigError, match="num_heads is 0"):
        MultiHeadAttentionWrapper(3, 3, 7, 0.0, 0)
    with pytest.raises(ConfigError, match="d_in is 0"):
        SelfAttention_v1(0, 3)
    layer = made(MultiHeadAttention, *SIZES)
    with pytest.raises(ContextLengthError, match="8 tokens, the context length is 7"):
        layer(text(1, 8, C))
    with pytest.raises(ShapeError, match=r"x is \(7, 12\)"):
        layer(text(T, C))
