"""Steps: names, formulas, saved arrays, and the check of one op at its actual values."""

import copy
import math
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.engine import Op
from tinygrad_llm.errors import NonFiniteError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel

CONFIG = GPTConfig(vocab_size=23, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.1)
IDS = np.random.default_rng(0).integers(0, 23, (2, 8))


def make_model(rate=0.1):
    tg.manual_seed(3)
    return GPTModel(GPTConfig(**CONFIG.to_dict() | {"drop_rate": rate}))


def loss_of(model):
    return tg.ops.cross_entropy(model(IDS), targets=IDS)


@pytest.fixture
def scratch_ops(monkeypatch):
    monkeypatch.setattr(Op, "registry", dict(Op.registry))
    monkeypatch.setattr("tinygrad_llm.engine.registry", Op.registry)


def test_a_step_says_what_it_is():
    a, b = tg.Tensor([1.0, 2.0], True, "a"), tg.Tensor([3.0, 5.0], True, "b")
    loss = (a * b).sum()
    first, second = list(loss.backward_steps(retain_graph=True))
    assert (first.i, first.n, first.op, first.name) == (0, 2, "sum", "sum#1")
    assert (second.i, second.op, second.name) == (1, "multiply", "multiply#1")
    assert second.formula == "dx = g y,  dy = g x"
    assert "test_stepping.py" in second.site
    assert "test_a_step_says_what_it_is" in second.site
    np.testing.assert_array_equal(second.grad_out, [1, 1])
    assert list(second.saved) == ["x", "y"]
    np.testing.assert_array_equal(second.saved["y"], [3, 5])
    assert list(second.inputs) == ["a", "b"]
    np.testing.assert_array_equal(second.inputs["b"], [1, 2])


def test_names_of_a_gpt_are_module_paths_and_numbered():
    names = [step.name for step in loss_of(make_model()).backward_steps()]
    assert names[0] == "cross_entropy#1"
    assert len(set(names)) == len(names)
    assert {
        "tok_emb.embedding#1",
        "trf_blocks.1.att.attention#1",
        "trf_blocks.0.ff.layers.1.gelu#1",
        "trf_blocks.0.drop_shortcut.dropout#2",
        "trf_blocks.1.att.W_query.linear#1",
        "final_norm.layer_norm#1",
    } <= set(names)
    with tg.composed():
        names = [step.name for step in loss_of(make_model()).backward_steps()]
    assert "trf_blocks.0.att.exp#1" in names


def test_parents_that_are_the_same_tensor_are_told_apart():
    a = tg.Tensor(3.0, True, "a")
    (step,) = (a + a).backward_steps()
    assert list(step.inputs) == ["a", "a as y"]


@pytest.mark.parametrize("composed", [False, True])
def test_every_step_of_a_gpt_checks(composed):
    model = make_model(0.2)
    with tg.composed() if composed else nullcontext():
        loss = loss_of(model)
    verdicts = {step.name: step.check() for step in loss.backward_steps()}
    assert {v.verdict for v in verdicts.values()} == {"ok"}, [str(v) for v in verdicts.values() if v.verdict != "ok"]
    assert sum(v.compared for v in verdicts.values()) > 300
    assert len(verdicts) > (150 if composed else 30)


def test_checking_leaves_the_gradients_alone():
    one, other = make_model(), make_model()
    tg.manual_seed(5)
    loss = loss_of(one)
    for step in loss.backward_steps():
        step.check()
    tg.manual_seed(5)
    loss_of(other).backward()
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)


def swish_forward(x):
    """y = x s,  s = 1 / (1 + e^-x)"""
    s = 1 / (1 + np.exp(-x))
    return x * s, (x, s)


def swish_backward(g, x, s):
    """dx = g s (1 - x (1 - s))"""
    return (g * s * (1 - x * (1 - s)),)  # the sign is wrong


def test_a_wrong_sign_in_an_op_inside_a_gpt_is_found_in_one_pass(scratch_ops):
    model, swish = make_model(), Op(swish_forward, swish_backward)
    for block in model.trf_blocks:
        block.ff.layers[1].forward = swish
    wrong = [verdict for verdict in (step.check() for step in loss_of(model).backward_steps()) if not verdict]
    assert [v.name for v in wrong] == ["trf_blocks.1.ff.layers.1.swish#1", "trf_blocks.0.ff.layers.1.swish#1"]
    assert all(v.verdict == "wrong" and v.index is not None and v.relative_error > 1e-3 for v in wrong)
    assert "swish_backward says" in str(wrong[0])
    assert "dx = g s (1 - x (1 - s))" in str(wrong[0])
    # what the verdict says is the derivative, by the formula
    x = np.float64(0.7)
    (step,) = swish(tg.Tensor(x, True)).backward_steps()
    s = 1 / (1 + np.exp(-x))
    assert step.check().numeric == pytest.approx(s * (1 + x * (1 - s)), rel=1e-8)
    assert step.check().analytic == pytest.approx(s * (1 - x * (1 - s)), rel=1e-12)


def test_a_kink_is_not_wrong():
    (step,) = tg.ops.relu(tg.Tensor([0.0, 1.0, -1.0], True)).backward_steps(np.ones(3, np.float32))
    verdict = step.check()
    assert verdict.verdict == "kink"
    assert verdict.index == (0,)
    assert verdict


def check_with(op, backward, *arrays):
    """The verdict on the op with another backward, which does not enter the registry."""
    claims = copy.copy(op)
    claims.backward = backward
    out = claims(*(tg.Tensor(np.array(a), True) for a in arrays))
    (step,) = out.backward_steps(np.ones(out.shape))
    return step.check()


@pytest.mark.parametrize("slope", [math.nan, math.inf, 1e6, -0.001, 1.001])
def test_what_is_not_between_the_slopes_of_a_kink_is_wrong(slope):
    verdict = check_with(tg.ops.relu, lambda g, x: (g * np.where(x == 0, slope, x > 0),), [0.0, 1.0, -1.0])
    assert verdict.verdict == "wrong"
    assert verdict.index == (0,)
    for right in (0.25, 1.0):
        assert check_with(tg.ops.relu, lambda g, x, s=right: (g * np.where(x == 0, s, x > 0),), [0.0, 1.0, -1.0])


def test_elements_that_tie_are_moved_together():
    x, y = [1.0, 2.0, 5.0], [3.0, 2.0, 5.0]
    assert check_with(tg.ops.maximum, tg.ops.maximum.backward, x, y)
    for left, right, verdict in [
        (1, 0, "kink"),
        (0.25, 0.75, "kink"),
        (1, 1, "wrong"),
        (0, 0, "wrong"),
        (0.6, 0.6, "wrong"),
    ]:
        found = check_with(
            tg.ops.maximum,
            lambda g, x, y, a=left, b=right: (g * np.where(x == y, a, x > y), g * np.where(x == y, b, x < y)),
            x,
            y,
        )
        assert found.verdict == verdict
        assert ("worst dx and dy along all 2 elements equal to 2 together" in str(found)) == (verdict == "wrong")
    # of three that tie, half for each is the mean of the two slopes, one by one, but half too much together
    halves = check_with(tg.ops.max, lambda g, x, y, axis: (g * 0.5 * (x == y),), [4.0, 4.0, 4.0])
    assert (halves.verdict, halves.analytic, halves.numeric) == ("wrong", 1.5, pytest.approx(1.0))


def test_a_steep_function_is_not_at_a_kink(scratch_ops):
    def switch_forward(x):
        y = np.tanh(1e6 * x)
        return y, (y,)

    def switch_backward(g, y):
        return (1e6 * g * (1 - y * y),)

    switch, x = Op(switch_forward, switch_backward), [1e-7, -3e-7]
    assert check_with(switch, switch_backward, x).verdict == "ok"
    assert check_with(tg.ops.log, tg.ops.log.backward, [1e-7, 1e-9, 1e-13]).verdict == "ok"
    for factor in (3, 2, 1.001, math.nan):
        assert check_with(switch, lambda g, y, c=factor: (c * 1e6 * g * (1 - y * y),), x).verdict == "wrong"
        for number in (1e-7, 1e-9, 1e-13):
            assert check_with(tg.ops.log, lambda g, x, c=factor: (c * g / x,), [number]).verdict == "wrong"


def test_a_gradient_that_was_replaced_is_noticed():
    x = tg.Tensor(np.linspace(1, 2, 40), True)
    for step in x.exp().sum().backward_steps():
        if step.op == "exp":
            assert step.check().verdict == "ok"
            step.gradients[0] = step.gradients[0] * 1.01
            verdict = step.check()
            assert verdict.verdict == "wrong"
            assert "replaced" in verdict.remark
            assert verdict.relative_error == pytest.approx(0.01, rel=0.05)


def test_a_gradient_is_replaced_by_the_name_of_its_parent():
    x, y = tg.Tensor([1.0, 2.0], True, "x"), tg.Tensor([3.0, 4.0], True, "y")
    for step in (x * y).sum().backward_steps():
        if step.op == "multiply":
            step.inputs["x"] = np.array([7, 8], np.float32)
            step.inputs["y"] *= 2
            with pytest.raises(KeyError, match="z"):
                step.inputs["z"] = step.grad_out
            np.testing.assert_array_equal(step.inputs["x"], [7, 8])
    np.testing.assert_array_equal(x.grad, [7, 8])
    np.testing.assert_array_equal(y.grad, [2, 4])


def test_stepping_shows_saved_arrays_as_they_were():
    model = make_model(0.0)
    loss = loss_of(model)
    kept = loss.node.saved[0].copy()
    step = next(loss.backward_steps())
    np.testing.assert_array_equal(step.saved["e"], kept)
    assert step.check().verdict == "ok"


def test_stopping_leaves_no_grad_and_an_infinite_gradient_is_refused():
    x = tg.Tensor([0.0, 1.0], True)
    steps = x.sqrt().exp().sum().backward_steps()
    next(steps)
    steps.close()
    assert x.grad is None
    (step,) = x.exp().backward_steps(np.array([np.inf, 1], np.float32))
    with pytest.raises(NonFiniteError, match="not finite"):
        step.check()


def test_masked_scores_can_be_checked():
    x = tg.Tensor(np.random.default_rng(0).standard_normal((3, 40)), True)
    hidden = tg.ops.where(x, -np.inf, condition=np.arange(40) < 30)
    for step in (tg.ops.softmax(hidden) * np.arange(40)).sum().backward_steps():
        assert step.check().verdict == "ok", str(step.check())


def test_repr_of_a_step_is_short():
    (step,) = (tg.Tensor(np.ones(3), True) * 2).backward_steps(np.ones(3))
    assert len(repr(step)) < 1000


def test_every_op_shows_its_equations():
    for name, op in Op.registry.items():
        if op.forward.__module__.startswith("tinygrad_llm."):
            assert "backward: " in op.__doc__, name
            assert op.backward.__doc__, name
            assert not any(line.startswith(" " * 4) for line in op.__doc__.splitlines()), name
            assert op.backward.__name__ == f"{name}_backward"


def test_a_constant_that_may_not_move_is_left_where_it_is():
    (step,) = (tg.Tensor([-1.5, 2.0], True) ** 2).backward_steps(np.ones(2, np.float32))
    assert step.check().verdict == "ok", str(step.check())


def test_the_example_checks_every_step_it_shows():
    from pathlib import Path

    example = Path(__file__).parents[2] / "examples" / "00_step_through_backprop.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "a.grad = 4.0" in done.stdout
    assert done.stdout.count(" ok -> ") > 40
    assert " wrong -> " not in done.stdout


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x * x).sum(),
        lambda x: x.exp().sum(axis=0).mean(),
        lambda x: tg.ops.softmax(x, axis=-1)[0, 1],
        lambda x: (tg.ops.layer_norm(x, tg.Tensor(np.ones(3)), tg.Tensor(np.zeros(3))) ** 2).sum(),
    ],
)
def test_what_is_not_finite_is_not_called_wrong(f):
    x = np.array([[1.0, -2.0, 0.5], [np.nan, np.inf, -np.inf]])
    for step in f(tg.Tensor(x, True)).backward_steps():
        if np.isfinite(step.grad_out).all():
            assert step.check().verdict == "ok", str(step.check())


def test_a_wrong_sign_is_found_beside_an_infinity(scratch_ops):
    (step,) = Op(swish_forward, swish_backward)(tg.Tensor([0.7, np.inf], True)).backward_steps(np.ones(2, np.float32))
    assert step.check().verdict == "wrong"
    assert step.check().index == (0,)
    step.gradients[0] = np.array([np.inf, 0], np.float32)
    assert step.check().verdict == "wrong"
