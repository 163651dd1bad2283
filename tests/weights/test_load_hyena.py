"""Hyena operators under safari's names against PyTorch's direct sums (plain_hyena.py), and what is no operator."""

from contextlib import nullcontext

import numpy as np
import pytest
from reference import store

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ContextLengthError, StateDictError
from tinygrad_llm.nn.hyena import Hyena, positions
from tinygrad_llm.rng import Generator
from tinygrad_llm.weights.hyena import _FIXED, _NAMES, read_operator, write_operator

CASES = store.read("hyena")


def arrays_of(case):
    return {name: np.array(values, np.float64) for name, values in CASES[case]["arrays"].items()}


@pytest.mark.parametrize("way", [nullcontext, tg.composed], ids=["fused", "composed"])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_every_gradient_are_those_of_the_direct_sum(case, way):
    stored = CASES[case]
    operator = read_operator(arrays_of(case), stored["order"])
    x = tg.Tensor(np.array(stored["x"], np.float64), requires_grad=True)
    with way():
        y = operator(x)
    np.testing.assert_allclose(y.data, stored["output"], rtol=1e-10, atol=1e-10)
    y.backward(np.array(stored["g"]))
    gradients = {theirs: dict(operator.named_parameters())[ours].grad for ours, theirs in _NAMES.items()} | {
        "x": x.grad
    }
    assert gradients.keys() == stored["gradients"].keys()
    for name, expected in stored["gradients"].items():
        expected = np.array(expected)
        found = gradients[name].reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_what_was_read(case):
    arrays = arrays_of(case)
    written = write_operator(read_operator(arrays, CASES[case]["order"]))
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_allclose(written[name], array, rtol=1e-15 if name in _FIXED else 0, atol=0, err_msg=name)


def test_positions_begin_as_safari_has_them():
    """L = 4, one band of frequency 1e-4: t, cos and -sin; and of three bands 1e-4, 1.00005 and 2."""
    np.testing.assert_allclose(positions(4, 3)[:, 0], [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(positions(4, 3)[1], [1 / 3, np.cos(1e-4 * np.pi / 2), -np.sin(1e-4 * np.pi / 2)])
    expected = [1, -7.853982e-5, -1, -1.570796e-4, -1, 0]  # cos(π/2 1.00005) is -π/2 5e-5
    np.testing.assert_allclose(positions(4, 7)[1, 1:], expected, rtol=0, atol=2e-8)
    z = arrays_of("order 2, a shorter text")["filter_fn.pos_emb.z"]
    np.testing.assert_allclose(positions(7, 5), z[0], atol=1e-7)


def test_the_published_size():
    operator = Hyena(512, 1024, order=2, filter_width=64)
    assert operator.n_parameters() - operator.filter.z.size == 1_098_688
    assert operator.filter.z.size == 3072


def test_no_output_depends_on_a_later_input():
    operator = Hyena(4, 12, order=3, filter_width=5, rng=Generator(0)).astype(np.float64)
    x = tg.Tensor(np.random.default_rng(0).standard_normal((1, 12, 4)), requires_grad=True)
    (operator(x)[:, 10]).sum().backward()
    assert np.abs(x.grad[:, 11:]).max() < 1e-12 * np.abs(x.grad).max()
    assert np.abs(x.grad[:, :11]).min() > 1e-9


def test_what_is_no_operator_is_named():
    arrays = arrays_of("order 2")
    with pytest.raises(ConfigError, match=r"order is 3: in_proj\.weight is \(12, 4\), which is of order 2"):
        read_operator(arrays, 3)
    with pytest.raises(StateDictError, match=r"missing out_proj\.bias"):
        read_operator({name: array for name, array in arrays.items() if name != "out_proj.bias"}, 2)
    with pytest.raises(StateDictError, match=r"has 'out_proj\.biass'"):
        read_operator(arrays | {"out_proj.biass": np.ones(4)}, 2)
    with pytest.raises(StateDictError, match=r"short_filter\.weight is \(12, 3\): it must be \(12, 1, 3\)"):
        read_operator(arrays | {"short_filter.weight": np.ones((12, 3))}, 2)
    with pytest.raises(StateDictError, match="the frequency is shared"):
        read_operator(arrays | {"filter_fn.implicit_filter.3.freq": np.full((1, 5), 2.0)}, 2)
    for n in (3, 4):
        with pytest.raises(StateDictError, match="deltas are others"):
            read_operator(arrays | {"filter_fn.modulation.deltas": np.ones((1, 1, n))}, 2)
    with pytest.raises(StateDictError, match=r"z is \(7, 3\)"):
        read_operator(arrays | {"filter_fn.pos_emb.z": np.ones((7, 3))}, 2)
    operator = read_operator(arrays, 2)
    with pytest.raises(ContextLengthError, match="8 tokens, the filter has 7"):
        operator(tg.Tensor(np.ones((1, 8, 4))))
