"""The bare loop of example 01, which knows nothing of the engine's own, has the same gradients to the bit."""

import ast
import contextlib
import inspect
import runpy
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import ops
from tinygrad_llm.models.gpt import GPTConfig, GPTModel

EXAMPLE = Path(__file__).parents[1] / "examples" / "01_engine_in_fifteen_lines.py"
page = runpy.run_path(str(EXAMPLE))
backward = page["backward"]


def assert_equal_to_the_bit(loss):
    bare = backward(loss)
    theirs: dict = {}
    loss.backward(into=theirs)
    assert bare.keys() == theirs.keys()
    for leaf, g in theirs.items():
        assert (g.shape, g.dtype) == (leaf.shape, leaf.dtype) == (bare[leaf].shape, bare[leaf].dtype)
        assert g.tobytes() == bare[leaf].tobytes(), leaf
    return theirs


def test_it_has_fifteen_lines():
    (function,) = ast.parse(inspect.getsource(backward)).body
    _docstring, *body = function.body
    lines = inspect.getsource(backward).splitlines()[body[0].lineno - 1 :]
    assert len(lines) == 15


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("built", [contextlib.nullcontext, tg.composed])
def test_a_gpt_with_dropout(seed, built):
    tg.manual_seed(seed)
    model = GPTModel(GPTConfig(23, 8, 16, 2, 2, drop_rate=0.3, tie_weights=seed % 2 == 1))
    model.checkpoint_blocks = seed >= 2
    for parameter in list(model.parameters())[3 : 3 + seed]:
        parameter.requires_grad = False
    ids = np.random.default_rng(seed).integers(0, 23, (3, 9))
    with built():
        loss = ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:])
    found = assert_equal_to_the_bit(loss)
    assert len(found) == sum(1 for p in model.parameters() if p.requires_grad)
    assert any(g.any() for g in found.values())


@pytest.mark.parametrize("seed", range(8))
def test_a_graph_that_uses_its_leaves_again_and_looks_at_them_from_elsewhere(seed):
    rng = np.random.default_rng(seed)
    x = tg.Tensor(rng.standard_normal((3, 4)), True)
    w = tg.Tensor(rng.standard_normal((3, 4)).astype(np.float64), True)
    tensors = [x, w]
    for _ in range(12):
        a, b = (tensors[i] for i in rng.integers(0, len(tensors), 2))
        made = [
            lambda a, b: a + b,
            lambda a, b: a * b.tanh(),
            lambda a, b: (a.T.reshape(3, 4) - x).swapaxes(0, 1).reshape(3, 4),
            lambda a, b: ops.concatenate(a[1:], b[:1]),
            lambda a, b: ops.stack(a, b)[0],
            lambda a, b: a.reshape(12)[np.arange(12) // 2].reshape(3, 4) / 2,
        ][rng.integers(0, 6)]
        tensors.append(made(a, b))
    assert_equal_to_the_bit(sum(t.mean() for t in tensors[1:]) * x.sum())


def test_a_gradient_that_nobody_sends():
    x = tg.Tensor([1.0, 2.0], True)
    one = tg.nn.Linear(2, 2)
    one.forward = lambda x: one.weight * 2  # which does not look at x
    assert list(assert_equal_to_the_bit(tg.nn.checkpoint(one, x * 2).sum())) == [one.weight]


def test_both_parts_of_each_sum_are_seen_to_arrive(capsys):
    page["partial_sums"]()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    start = rows.index(["turn", "of", "sends", "to", "which", "has", "so", "far"]) + 1
    assert rows[start : start + 4] == [
        ["c", "1.0", "b", "1.0"],
        ["c", "1.0", "b", "2.0"],
        ["b", "2.0", "a", "2.0"],
        ["b", "2.0", "a", "4.0"],
    ]
    page["gpt"]()
    assert "31 of 31" in capsys.readouterr().out
