"""The tape against a naive scalar tape on random graphs; the naive tape against differences; and planted faults, all found."""

import numpy as np
import pytest
from autograd_machine import AutogradMachine, Scalar, gradients, largest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tinygrad_llm import Op, engine

TestAutograd = AutogradMachine.TestCase
TestAutograd.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=30)


def test_the_scalar_tape_against_differences():
    def f(x, y, z):
        shared = x * y - z.exp()
        return largest([shared.tanh(), -(x / y)]) + shared * shared + (y - z).relu()

    def value(*at):
        return f(*(Scalar(number) for number in at)).value

    for at in ([0.3, -0.8, 0.2], [0.7, 0.9, -0.4]):
        inputs = [Scalar(number) for number in at]
        found = gradients([f(*inputs)], [2.0])
        for i, scalar in enumerate(inputs):
            h = 1e-5
            up, down = ([number + sign * h * (i == k) for k, number in enumerate(at)] for sign in (1, -1))
            gradient, rounding = found[scalar]
            assert gradient == pytest.approx(2 * (value(*up) - value(*down)) / (2 * h), rel=1e-8)
            assert rounding >= abs(gradient)


def test_the_scalar_tape_on_a_diamond_and_on_ties():
    x = Scalar(3.0)
    y = x * x
    assert gradients([y * y], [1.0])[x][0] == 4 * 3.0**3
    a, b = Scalar(1.0), Scalar(1.0)
    found = gradients([largest([a, b, Scalar(0.0)])], [1.0])
    assert (found[a][0], found[b][0]) == (0.5, 0.5)


def _wrong_backward(name, wrong):
    """The op with its backward replaced by `wrong(right gradients, g, *saved)`."""

    def plant(monkeypatch):
        op = Op.registry[name]
        right = op.backward

        def backward(g, *saved):
            return wrong(right(g, *saved), g, *saved)

        monkeypatch.setattr(op, "backward", backward)
        monkeypatch.setattr(op, "takes", set())

    return plant


def _mutate(gradients, g, *saved):
    if g.flags.writeable:
        g *= 2
    return gradients


def _alias(monkeypatch):
    """An op that hands on g itself and says that it does not."""
    monkeypatch.setattr(Op.registry["add"], "view", False)


def _always_with(**forced):
    """Every backward with an option that nobody asked for."""

    def plant(monkeypatch):
        right = engine.Tensor.backward_steps
        monkeypatch.setattr(
            engine.Tensor, "backward_steps", lambda self, g, **options: right(self, g, **options | forced)
        )

    return plant


def _detach_keeps_the_node(monkeypatch):
    monkeypatch.setattr(engine.Tensor, "detach", lambda self: self * 1.0)


FAULTS = {
    "tanh: a factor of 1.001": _wrong_backward("tanh", lambda right, g, y: (1.001 * right[0],)),
    "divide: the sign of dy": _wrong_backward("divide", lambda right, g, x, y: (right[0], -right[1])),
    "matmul: dy is 0": _wrong_backward("matmul", lambda right, g, x, y: (right[0], 0 * right[1])),
    "max: ties share too much": _wrong_backward(
        "max", lambda right, g, x, y, axis: (np.where(right[0] == 0, 0.0, np.sign(right[0]) * np.abs(g).max()),)
    ),
    "set_at: dx is not cut out": _wrong_backward("set_at", lambda right, g, *saved: (g.copy(), right[1])),
    "getitem: an element named twice gets one gradient": _wrong_backward(
        "getitem", lambda right, g, shape, index: (_put(shape, index, g),)
    ),
    "multiply: writes into g": _wrong_backward("multiply", _mutate),
    "add: an alias of g that is not declared": _alias,
    "the graph is never freed": _always_with(retain_graph=True),
    "the graph is freed in spite of retain_graph": _always_with(retain_graph=False),
    "detach stays on the tape": _detach_keeps_the_node,
}


def _put(shape, index, g):
    dx = np.zeros(shape)
    dx[index] = g
    return dx


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, monkeypatch):
    FAULTS[fault](monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            AutogradMachine,
            settings=settings(
                max_examples=300,
                phases=[Phase.generate],
                derandomize=True,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
