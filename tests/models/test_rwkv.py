"""RWKV-4: configuration, published parameter counts, initial values, and a state that does not grow.

What holds for every language model is in tests/test_invariants.py and tests/testing/test_language_model.py; that parallel and
recurrent forms are equal is among it.
"""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm import ops
from tinygrad_llm.errors import ConfigError, ContextLengthError, GraphError, ShapeError
from tinygrad_llm.models import PRESETS, RwkvConfig, RwkvModel, make_model
from tinygrad_llm.ops.recurrence import nothing_yet, wkv_scan
from tinygrad_llm.rng import Generator, Zeros

SMALL = RwkvConfig(vocab_size=11, emb_dim=6, n_layers=2, init="pytorch")
SMALL_DRAWN = dataclasses.replace(SMALL, init="rwkv")
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 10]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, "RwkvConfig: n_layers is 0: it must be a positive integer"),
        ({"attention_dim": 2.5}, r"attention_dim is 2\.5"),
        ({"rescale_every": -1}, "rescale_every is -1"),
        ({"drop_rate": 0.1}, r"drop_rate is 0\.1: it drops nothing"),
        ({"init": "gpt2"}, "init is 'gpt2': use 'pytorch' or 'rwkv'"),
        ({"tie_weights": 1}, "tie_weights is 1"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_published_counts():
    """2 V D + 13 D² L + D (11 L + 4), V = 50,277."""
    published = {
        "rwkv4-169M": 169_342_464,
        "rwkv4-430M": 430_397_440,
        "rwkv4-1.5B": 1_515_106_304,
        "rwkv4-3B": 2_984_627_200,
        "rwkv4-7B": 7_392_649_216,
        "rwkv4-14B": 14_148_597_760,
    }
    assert {name: PRESETS[name].n_parameters() for name in published} == published


def test_weights_to_be_filled_in_are_not_drawn(monkeypatch):
    """The orthogonal tables of 169M take over a minute."""
    monkeypatch.setattr(np.linalg, "qr", None)
    model = RwkvModel(SMALL_DRAWN, rng=Zeros())
    assert not model.tok_emb.weight.data.any()
    assert not model.trf_blocks[1].ff.key.weight.data.any()


def test_initial_values_are_those_of_rwkv_init():
    """Layers 0 and 2 of 3, D = 4, from the formulas of RWKV-v4/src/model.py."""
    model = RwkvModel(RwkvConfig(vocab_size=7, emb_dim=4, n_layers=3), rng=Generator(0))
    first, last = model.trf_blocks[0], model.trf_blocks[2]
    half = np.arange(4) / 3
    np.testing.assert_allclose(first.att.decay.data, -5 + 8 * half**0.7, rtol=1e-6)
    np.testing.assert_allclose(last.att.decay.data, -5 + 8 * half**2.0, rtol=1e-6)
    np.testing.assert_allclose(first.att.first.data, math.log(0.3) + np.array([0.0, 0.5, -0.5, 0.0]), rtol=1e-6)
    quarters = np.arange(4) / 4
    np.testing.assert_allclose(first.att.mix_key.data, quarters)
    np.testing.assert_allclose(last.att.mix_value.data, quarters ** (1 / 3) + 0.3, rtol=1e-6)
    np.testing.assert_allclose(last.att.mix_receptance.data, quarters ** (1 / 6), rtol=1e-6)
    for block in (first, last):
        for zero in (block.att.key, block.att.receptance, block.att.output, block.ff.value, block.ff.receptance):
            assert not zero.weight.data.any()
        w, wide = block.att.value.weight.data, block.ff.key.weight.data  # (4, 4), (16, 4)
        np.testing.assert_allclose(w @ w.T, np.eye(4), atol=1e-6)
        np.testing.assert_allclose(wide.T @ wide, 4 * np.eye(4), atol=1e-5)
    table, head = model.tok_emb.weight.data, model.out_head.weight.data  # (7, 4)
    np.testing.assert_allclose(table.T @ table, 7e-8 * np.eye(4), atol=1e-13)
    np.testing.assert_allclose(head.T @ head, 0.25 * 7 / 4 * np.eye(4), atol=1e-6)
    assert np.isfinite(
        make_model("rwkv", {"vocab_size": 3, "emb_dim": 1, "n_layers": 1}).state_dict()["tok_emb.weight"]
    ).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 7), st.sampled_from([1.0, 30.0, 1000.0]), st.data())
def test_wkv_goes_on_from_any_token_as_if_it_had_never_stopped(seed, b, t, scale, data):
    rng = np.random.default_rng(seed)
    k, v, decay, first = (
        scale * rng.standard_normal((b, t, 2)),
        rng.standard_normal((b, t, 2)),
        *rng.standard_normal((2, 2)),
    )
    whole = ops.wkv(k, v, decay, first).data
    sums, p = nothing_yet(b, 2, np.float64)
    cut, parts = data.draw(st.integers(0, t), "cut"), []
    for piece in (slice(cut), slice(cut, None)):
        y, all_sums, all_p, *_ = wkv_scan(k[:, piece], v[:, piece], decay, first, sums, p)
        sums, p = all_sums[-1], all_p[-1]
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-12, atol=1e-12)


def test_keys_of_a_thousand_have_finite_values_and_gradients():
    for dtype in (np.float32, np.float64):
        k = tg.Tensor(np.array([[[1e3], [-1e3], [1e3], [-1e3]]], dtype), requires_grad=True)
        v = tg.Tensor(np.array([[[1.0], [2.0], [3.0], [4.0]]], dtype), requires_grad=True)
        decay, first = (tg.Tensor(np.array([x], dtype), requires_grad=True) for x in (-0.7, 0.3))
        y = ops.wkv(k, v, decay, first)
        y.sum().backward()
        assert all(np.isfinite(x).all() for x in (y.data, k.grad, v.grad, decay.grad, first.grad))


def test_a_state_is_as_large_after_ten_thousand_tokens_as_after_ten():
    model = RwkvModel(RwkvConfig(vocab_size=11, emb_dim=8, n_layers=2), rng=Generator(0)).eval()
    state = model.make_state(1)

    def held():
        """Bytes of the arrays, and of those that they are a part of."""
        whole = [array if array.base is None else array.base for layer in state.layers for array in layer.values()]
        return sum({id(array): array.nbytes for array in whole}.values())

    with tg.no_grad():
        model(np.zeros((1, 10), int), state=state)
        early = held()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            model(np.zeros((1, 999), int), state=state, last_only=True)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert held() == early == 2 * 5 * 8 * 4  # five vectors of 8 floats a layer
    assert grown < 20_000  # bytes; the inputs of these tokens took 320,000
    assert state.lengths.tolist() == [10_000]


def test_a_context_length_is_of_what_is_read_at_once():
    model = RwkvModel(dataclasses.replace(SMALL, context_length=5), rng=Generator(0)).eval()
    with tg.no_grad():
        whole = RwkvModel(SMALL, rng=Generator(0)).eval()(np.tile(IDS, 2)).data
        state = model.make_state(2)
        parts = [model(IDS, state=state).data for _ in range(2)]
        np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)
        with pytest.raises(ContextLengthError, match="10 tokens, the context length is 5"):
            model(np.tile(IDS, 2))


def test_a_state_of_another_batch_and_learning_through_one_are_refused():
    model = RwkvModel(SMALL, rng=Generator(0))
    with tg.no_grad(), pytest.raises(ShapeError, match="2 rows of ids for a state of 3"):
        model(IDS, state=model.make_state(3))
    with pytest.raises(GraphError, match="nothing can be learned through it"):
        model(IDS, state=model.make_state(2))


def test_rescaling_is_for_evaluation_and_hardly_seen():
    plain = RwkvModel(dataclasses.replace(SMALL, n_layers=5), rng=Generator(0)).astype(np.float64)
    scaled = RwkvModel(dataclasses.replace(SMALL, n_layers=5, rescale_every=2), rng=Generator(0)).astype(np.float64)
    np.testing.assert_array_equal(plain(IDS).data, scaled(IDS).data)  # in training
    a, b = plain.eval()(IDS).data, scaled.eval()(IDS).data
    assert 0 < np.abs(a - b).max() < 1e-2  # eps weighs more beside what is smaller
