"""Ops against figures from papers, from the book and from other people's code: written down, not computed here."""

import math
import warnings

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import ops
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.testing import assert_close

_X = np.array([-3.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0])
# The six 3-d embeddings of "Your journey starts with one step", from chapter 3 of the book.
_JOURNEY = np.array(
    [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.10], [0.05, 0.80, 0.55]]
)  # fmt: skip


def _leaf(data):
    return tg.Tensor(np.array(data, np.float64), requires_grad=True)


def test_micrograds_expression():
    """The README of micrograd: g = 24.7041, da = 138.8338, db = 645.5773."""
    a, b = _leaf(-4.0), _leaf(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + ops.relu(b + a)
    d += 3 * d + ops.relu(b - a)
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    assert round(g.item(), 4) == 24.7041
    assert round(float(a.grad), 4) == 138.8338
    assert round(float(b.grad), 4) == 645.5773


def test_gelu_tables():
    assert_close(
        ops.gelu_erf(_X),
        [-0.00404969, -0.15865525, -0.15426877, 0.34573123, 0.84134475, 1.95449974, 2.99595031],
        rtol=0, atol=5e-9,
    )  # fmt: skip
    assert_close(
        ops.gelu(_X),
        [-0.00363739, -0.15880801, -0.15428599, 0.34571401, 0.84119199, 1.95459769, 2.99636261],
        rtol=0, atol=5e-9,
    )  # fmt: skip
    x = np.linspace(-6, 6, 24001)
    gap = np.abs(ops.gelu(x).data - ops.gelu_erf(x).data)
    assert gap.max() == pytest.approx(4.732e-4, abs=5e-8)
    assert abs(x[gap.argmax()]) == pytest.approx(2.699, abs=1e-3)


@pytest.mark.parametrize(("op", "slope"), [(ops.gelu_erf, 1.08331547), (ops.gelu, 1.08296408)])
def test_gelu_slope_at_one(op, slope):
    x = _leaf(1.0)
    op(x).backward()
    assert_close(x.grad, slope, rtol=0, atol=5e-9)


def test_silu_at_one():
    assert ops.silu(np.float64(1.0)).item() == pytest.approx(0.73105858, abs=5e-9)


def test_rotary_at_position_one():
    """q = [1, 2, 3, 4] turned by the angles 1 and 0.01, in both conventions."""
    q = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    turn = {"cos": np.cos([[1.0, 0.01]]), "sin": np.sin([[1.0, 0.01]]), "n_heads": 1}
    halves, interleaved = (
        [-1.98411065, 1.95990067, 2.4623779, 4.01979967],
        [-1.14263966, 1.9220756, 2.95985067, 4.0297995],
    )
    assert_close(ops.rotary(q, **turn).data[0, 0], halves, rtol=0, atol=5e-9)
    assert_close(ops.rotary(q, interleaved=True, **turn).data[0, 0], interleaved, rtol=0, atol=5e-9)


def test_wkv_of_four_tokens_and_of_keys_that_overflow():
    """w = -e^-0.7, u = ln 0.3, by the recurrence of RWKV-4's CUDA kernel."""

    def wkv(k, v):
        column = [np.array(x)[None, :, None] for x in (k, v)]
        return ops.wkv(*column, np.array([-0.7]), np.array([math.log(0.3)])).data[0, :, 0]

    four = wkv([0.5, -1.0, 2.0, 0.1], [1.0, 2.0, 3.0, -1.0])
    assert_close(four, [1.0, 1.0627393366, 2.3381523452, 2.6760477169], rtol=0, atol=5e-11)
    assert_close(wkv([1e3, 1e3, -1e3], [1.0, 2.0, 3.0]), [1.0, 1.2307692308, 1.6216565300], rtol=0, atol=5e-11)


def test_a_convolution_of_four():
    y = ops.fft_conv(np.array([1.0, 2, 3, 4]), np.array([0.5, 0.25, 0.125, 0.0625]), np.array(0.1))
    assert_close(y, [0.6, 1.45, 2.425, 3.4625], rtol=0, atol=1e-12)


def test_normalisation_of_one_to_four():
    x, one, zero = _leaf([1.0, 2.0, 3.0, 4.0]), np.ones(4), np.zeros(4)
    y = ops.layer_norm(x, one, zero)
    assert_close(y, [-1.34163542, -0.44721181, 0.44721181, 1.34163542], rtol=0, atol=5e-9)
    y.backward([1.0, 0.0, 0.0, 0.0])
    assert_close(x.grad, [0.2683303, -0.35776837, -0.08944343, 0.1788815], rtol=0, atol=5e-8)

    x = _leaf([1.0, 2.0, 3.0, 4.0])
    y = ops.rms_norm(x, one)
    assert_close(y, [0.36514813, 0.73029626, 1.09544438, 1.46059251], rtol=0, atol=5e-9)
    y.backward([1.0, 0.0, 0.0, 0.0])
    assert_close(x.grad, [0.35297654, -0.02434318, -0.03651476, -0.04868635], rtol=0, atol=5e-9)


def test_cross_entropy_means_over_counted_targets():
    x = _leaf([[-1.0, 1.0], [-0.5, 1.5]])
    loss = ops.cross_entropy(x, targets=[0, 1])
    loss.backward()
    assert loss.item() == pytest.approx(1.1269280, abs=5e-8)
    assert_close(x.grad, [[-0.44039854, 0.44039854], [0.05960146, -0.05960146]], rtol=0, atol=5e-9)
    rows = np.array([[-1.0, 1.0], [-0.5, 1.5], [-0.5, 1.5]])
    assert ops.cross_entropy(rows, targets=[0, 1, 1]).item() == pytest.approx(0.7935947, abs=5e-8)
    assert ops.cross_entropy(rows, targets=[0, 1, -100]).item() == pytest.approx(1.1269280, abs=5e-8)


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    loss = ops.cross_entropy(np.zeros((2, 3, 50257)), targets=np.zeros((2, 3), int))
    assert loss.item() == pytest.approx(math.log(50257), rel=1e-14)  # 10.824905
    assert round(loss.item(), 6) == 10.824905


def test_label_smoothing_spreads_over_all_classes():
    """Szegedy et al. 2016 §7, as PyTorch has it: 1 - ε of the target's loss and ε of the mean loss."""
    log_p = np.array([1.0, 2.0, 4.0]) - math.log(math.exp(1) + math.exp(2) + math.exp(4))
    loss = ops.cross_entropy(np.array([[1.0, 2.0, 4.0]]), targets=[2], label_smoothing=0.1)
    assert loss.item() == pytest.approx(-0.9 * log_p[2] - 0.1 * log_p.mean(), rel=1e-14)


def test_cross_entropy_of_nothing_but_ignored_targets_is_zero_and_says_so():
    x = _leaf([[1.0, 2.0], [3.0, 4.0]])
    with pytest.warns(UserWarning, match="every target is ignored"):
        loss = ops.cross_entropy(x, targets=[-100, -100])
    loss.backward()
    assert loss.item() == 0
    assert_close(x.grad, np.zeros((2, 2)))


def test_attention_weights_of_the_book():
    scores = _JOURNEY @ _JOURNEY[1]
    assert_close(scores, [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865], rtol=0, atol=5e-5)
    p = ops.softmax(scores)
    assert_close(p, [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581], rtol=0, atol=5e-5)
    assert_close(p @ _JOURNEY, [0.4419, 0.6515, 0.5683], rtol=0, atol=5e-5)


def test_gradient_of_attention_without_weights():
    x = _leaf(_JOURNEY)
    f = (ops.softmax(x @ x.T) @ x).sum()
    f.backward()
    assert f.item() == pytest.approx(9.764117524, abs=5e-10)
    assert_close(x.grad[0], [0.88780553, 0.91481154, 0.88816311], rtol=0, atol=5e-9)
    assert_close(x.grad[5], [0.90191237, 0.88288656, 0.88099599], rtol=0, atol=5e-9)


@pytest.mark.parametrize("mode", ["fused", "composed"])
def test_gradient_of_causal_attention(mode):
    x = _leaf(_JOURNEY)
    q = x.reshape(1, 6, 3)
    if mode == "fused":
        f = ops.attention(q, q, q, n_heads=1).sum()
    else:
        with tg.composed():
            f = ops.attention(q, q, q, n_heads=1).sum()
    f.backward()
    assert f.item() == pytest.approx(10.115298349, abs=5e-10)
    assert_close(x.grad[0], [2.14851109, 2.08889579, 2.13421882], rtol=0, atol=5e-9)
    assert_close(x.grad[5], [0.19877506, 0.20616555, 0.20127914], rtol=0, atol=5e-9)


def test_long_attention_in_blocks_is_the_short_kind_row_by_row():
    """300 keys are more than a block holds: the first 40 rows and their gradients are those of a text of 40."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 300, 8)) for _ in range(3))
    g = np.zeros((1, 300, 8))
    g[:, :40] = rng.standard_normal((1, 40, 8))
    long = [_leaf(a) for a in (q, k, v)]
    short = [_leaf(a[:, :40]) for a in (q, k, v)]
    y_long, y_short = ops.attention(*long, n_heads=2), ops.attention(*short, n_heads=2)
    assert_close(y_long.data[:, :40], y_short, rtol=1e-11)
    y_long.backward(g)
    y_short.backward(g[:, :40])
    for a, b in zip(long, short, strict=True):
        assert_close(a.grad[:, :40], b.grad, rtol=1e-11)
        assert_close(a.grad[:, 40:], np.zeros((1, 260, 8)), atol=0)


@pytest.mark.parametrize("t", [70, 300])
def test_long_attention_against_its_twin(t):
    """Several blocks of queries, and P made again in the backward."""
    rng = np.random.default_rng(t)
    arrays = [rng.standard_normal((1, t, 4)) for _ in range(3)]
    g = rng.standard_normal((1, t, 4))
    mask = rng.random((1, 1, t, t)) < 0.8
    found = []
    for twin in (False, True):
        leaves = [_leaf(a) for a in arrays]
        if twin:
            with tg.composed():
                y = ops.attention(*leaves, n_heads=2, mask=mask)
        else:
            y = ops.attention(*leaves, n_heads=2, mask=mask)
        y.backward(g)
        found.append([y.data, *(leaf.grad for leaf in leaves)])
    for fused, composed in zip(*found, strict=True):
        assert_close(fused, composed, rtol=1e-10)


def test_no_future_in_causal_attention():
    """The outputs before position 5 have not one bit of what comes after, nor has their gradient."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 8, 6))
    other = x.copy()
    other[:, 5:] += 1
    y, z = (ops.attention(a, a, a, n_heads=2).data for a in (x, other))
    assert y[:, :5].tobytes() == z[:, :5].tobytes()
    leaf = _leaf(x)
    ops.attention(leaf, leaf, leaf, n_heads=2)[:, :5].sum().backward()
    assert_close(leaf.grad[:, 5:], np.zeros((1, 3, 6)), atol=0)


@pytest.mark.parametrize("op", [ops.softmax, ops.log_softmax])
def test_softmax_does_not_see_a_shift(op):
    x = np.random.default_rng(0).standard_normal((4, 7))
    assert_close(op(x + 1000.0), op(x), rtol=1e-12, atol=1e-12)


def test_softmax_gradients_sum_to_zero():
    x = _leaf(np.random.default_rng(0).standard_normal((4, 7)))
    ops.softmax(x).backward(np.random.default_rng(1).standard_normal((4, 7)))
    assert_close(x.grad.sum(-1), np.zeros(4), atol=1e-15)


def test_normalisation_does_not_see_what_it_removes():
    rng = np.random.default_rng(0)
    x, one, zero = rng.standard_normal((3, 8)), np.ones(8), np.zeros(8)
    assert_close(ops.layer_norm(5 * x + 3, one, zero, eps=0.0), ops.layer_norm(x, one, zero, eps=0.0), rtol=1e-13)
    assert_close(ops.rms_norm(7 * x, one, eps=0.0), ops.rms_norm(x, one, eps=0.0), rtol=1e-13)


def test_normalisation_where_the_squares_overflow_float32():
    x = np.array([[1e18, -2e18, 3e18, 5e19]], np.float32)
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    for run in (lambda t: ops.layer_norm(t, one, zero), lambda t: ops.rms_norm(t, one)):
        t = tg.Tensor(x, requires_grad=True)
        y = run(t)
        y.backward(np.array([[1.0, 0.5, -1.0, 2.0]], np.float32))
        assert_close(y, run(tg.Tensor(x.astype(np.float64), requires_grad=True)).data, rtol=1e-6)
        assert np.isfinite(t.grad).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "name",
    ["gelu", "gelu_erf", "silu", "sigmoid", "log_sigmoid", "tanh", "relu", "exp", "log", "sqrt", "erf", "softmax"],
)
def test_far_out_values_give_no_warning(name, dtype):
    """±90 and ±1e4, where e^x overflows, and 0 and negative numbers: IEEE's answers, and gradients that are right or infinite."""
    x = tg.Tensor(np.array([-1e4, -90.0, -1.0, 0.0, 90.0, 1e4], dtype), requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = tg.Op.registry[name](x)
        y.backward(np.ones(6, dtype))
    if name not in ("exp", "log", "sqrt"):
        assert np.isfinite(y.data).all()
        assert np.isfinite(x.grad).all()


@pytest.mark.parametrize("v", [3.0, -2.0])
def test_sqrt_and_norm_at_zero(v):
    x = _leaf([0.0, v * v])
    ops.sqrt(x).backward([1.0, 1.0])
    assert x.grad.tolist() == [math.inf, 0.5 / abs(v)]
    z = _leaf([0.0, 0.0])
    ops.norm(z).backward()
    assert z.grad.tolist() == [0.0, 0.0]


def test_embedding_adds_up_repeated_ids():
    weight = _leaf(np.zeros((4, 2)))
    ops.embedding(weight, ids=np.array([[1, 1], [3, 1]])).backward(np.arange(8.0).reshape(2, 2, 2))
    assert_close(weight.grad, [[0, 0], [0 + 2 + 6, 1 + 3 + 7], [0, 0], [4, 5]])


def test_split_gives_parts_whose_gradients_go_back_to_their_places():
    x = _leaf(np.arange(10.0).reshape(2, 5))
    a, b = ops.split(x, [2, 3], axis=1)
    assert (a.shape, b.shape) == ((2, 2), (2, 3))
    (a.sum() + 10 * b.sum()).backward()
    assert_close(x.grad, [[1, 1, 10, 10, 10]] * 2)
    assert [part.shape for part in ops.split(x, 2)] == [(1, 5), (1, 5)]
    with pytest.raises(ValueError, match="5 does not split into 2"):
        ops.split(x, 2, axis=1)
    with pytest.raises(ValueError, match="add up to 4"):
        ops.split(x, [1, 3], axis=1)


def test_dropout_keeps_the_expectation_and_repeats_with_its_seed():
    x = np.ones((400, 500))
    a, b = (ops.dropout(x, drop_rate=0.3, rng=np.random.default_rng(7)).data for _ in range(2))
    assert a.tobytes() == b.tobytes()
    assert set(np.unique(a)) == {0.0, 1 / 0.7}
    kept = np.count_nonzero(a) / a.size  # 200,000 draws: the standard deviation of the share is 0.001
    assert kept == pytest.approx(0.7, abs=0.005)


def test_dropout_gradient_goes_where_the_value_went():
    x = _leaf(np.ones((50, 4)))
    y = ops.dropout(x, drop_rate=0.5, rng=np.random.default_rng(0))
    y.backward(np.ones((50, 4)))
    assert x.grad.tobytes() == y.data.tobytes()


def test_clip_refuses_bounds_in_the_wrong_order():
    with pytest.raises(ConfigError, match=r"low is 2\.0, high is 1\.0"):
        ops.clip(np.ones(2), low=2.0, high=1.0)
