"""What a step shows beside its gradients: arrays of the forward, the user's variables, formulas with numbers, fused ops."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import debug, nn
from tinygrad_llm.debug.attention import heads
from tinygrad_llm.engine import Op
from tinygrad_llm.errors import GraphError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import AdamW
from tinygrad_llm.tape.observer import Observer
from tinygrad_llm.training.step import train_step

ELEMENTWISE = ["absolute", "exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid", "log_sigmoid", "relu", "erf", "silu"]
IDS = np.random.default_rng(0).integers(0, 23, (2, 8))


def make_model(rate=0.0):
    tg.manual_seed(3)
    return GPTModel(GPTConfig(23, 8, 16, 2, 2, rate))


def loss_of(model):
    return tg.ops.cross_entropy(model(IDS), targets=IDS)


@pytest.mark.parametrize("retain_graph", [False, True])
def test_what_went_in_and_came_out(retain_graph):
    model = make_model(0.5)
    outputs = {}

    class Keep(Observer):
        def after_forward(self, op, inputs, arrays, options, out, node):
            outputs[node] = out.copy(), [a if a is None else a.copy() for a in arrays]

    with Keep():
        loss = loss_of(model)
    n = 0
    for step in loss.backward_steps(retain_graph=retain_graph):
        out, arrays = outputs[step.node]
        np.testing.assert_array_equal(step.out, out)
        for found, expected in zip(step.args.values(), arrays, strict=False):
            np.testing.assert_array_equal(found, expected)
        assert all(name.isidentifier() for name in step.args)
        if step.op == "linear":
            assert list(step.args)[:2] == ["x", "weight"]
            assert step.args["weight"] is step.node.parents[1].data
        n += 1
    assert n == len(outputs)
    assert model.tok_emb.weight.grad is not None


@pytest.mark.parametrize("change", [lambda x: x.data.__setitem__(0, 3.0), lambda x: setattr(x, "data", x.data * 2)])
def test_what_went_in_is_refused_once_it_was_written_to(change):
    x = tg.Tensor([1.0, 2.0], True)
    y = x + x
    change(x)
    (step,) = y.backward_steps(np.ones(2, "f"))
    for look in (lambda: step.args, lambda: step.out):
        with pytest.raises(GraphError, match="an input was written to since"):
            look()
    assert "add" in step._repr_html_()  # without them


def test_what_went_in_is_refused_after_an_optimizer_s_step():
    model = make_model()
    steps = list(loss_of(model).backward_steps())
    optimizer = AdamW(model.parameters(), lr=0.01)
    optimizer.step()
    with pytest.raises(GraphError, match="an input was written to since"):
        _ = steps[0].out


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_went_in_is_shown_where_it_is_not_finite(bad):
    x = tg.Tensor([1.0, bad], True)
    (step,) = (x * 2).backward_steps(np.ones(2, "f"))
    np.testing.assert_array_equal(step.args["x"], x.data)


def test_arguments_of_ops_that_take_several_and_constants():
    x = tg.Tensor([1.0, 2.0], True)
    step = next(tg.ops.concatenate(x, x * 2, axis=0).backward_steps(np.ones(4, np.float32)))
    assert {name: array.tolist() for name, array in step.args.items()} == {"arrays[0]": [1, 2], "arrays[1]": [2, 4]}
    (step,) = (x * 3).backward_steps(np.ones(2, np.float32))
    assert {name: array.tolist() for name, array in step.args.items()} == {"x": [1, 2], "y": 3}
    assert step.out.tolist() == [3, 6]


def variables(loss):
    """What the steps are called, in the order of the forward."""
    return [
        step.variable for step in list(loss.backward_steps(np.ones(loss.shape, loss.dtype), retain_graph=True))[::-1]
    ]


def test_the_variable_is_what_the_result_is_stored_in():
    a, w = tg.Tensor(2.0, True), tg.Tensor([1.0, 2.0], True)
    b = a + a
    c = b * b
    assert variables(c) == ["b", "c"]
    c = d = b * b * 3
    assert variables(d) == ["b", None, "c"]
    assert variables(e := -b) == ["b", "e"]
    total = (w @ w).exp()
    total += 1
    assert variables(total) == [None, "total", "total"]
    assert variables((b + 1) * 2) == ["b", None, None]
    names = {"w": w}
    exec("y = w[0]\nz: object = y.tanh()", names)
    assert variables(names["z"]) == ["y", "z"]
    many = "".join(f"v{i} = {i}\n" for i in range(300))
    exec(f"{many}last = w * 2", names)
    assert variables(names["last"]) == ["last"]
    module = nn.Module()
    module.h = b * 2
    assert variables(module.h) == ["b", "module.h"]
    module.h, f = b * 3, module.h
    assert variables(module.h) == ["b", None]
    assert variables(module.h * 2)[-1] is None
    kept = [b * 2]
    assert variables(kept[0]) == ["b", None]
    assert e is not f


def test_the_variable_of_a_call_belongs_to_the_last_that_it_recorded():
    model = make_model()
    x = tg.Tensor([1.0, 2.0], True)
    logits = model(IDS)
    loss = logits.sum()
    names = variables(loss)
    assert names[-2:] == ["logits", "loss"]
    assert not any(names[:-2])
    for _ in range(3):
        x = x * 2
    assert variables(x) == ["x", "x", "x"]


def test_what_is_not_stored_yet_has_no_variable():
    seen = []

    class Look(Observer):
        def after_backward(self, step):
            seen.append(step.variable)

    model = make_model()
    with Look():
        value = train_step(model, AdamW(model.parameters()), IDS, IDS)
    assert value > 0
    assert seen
    assert not any(seen)


def test_a_leaf_without_a_name_goes_by_its_variable():
    a, b, named = tg.Tensor(2.0, True), tg.Tensor(3.0, True), tg.Tensor(4.0, True, "w")
    assert [list(step.inputs) for step in (2 * a + b * named).backward_steps()] == [
        ["multiply#1", "multiply#2"],
        ["b", "w"],
        ["a"],
    ]
    here = True
    (step,) = ((a if here else b) * b).backward_steps()
    assert list(step.inputs) == ["x", "b"]  # which of the two cannot be told from the line
    (step,) = (a - (a if here else b)).backward_steps()
    assert list(step.inputs) == ["x", "y"]
    (step,) = (-a).backward_steps()
    assert list(step.inputs) == ["a"]
    (step,) = a.tanh().backward_steps()
    assert list(step.inputs) == ["x"]


def test_variables_and_numbers_are_in_what_a_step_prints():
    a = tg.Tensor(2.0, True)
    b = a + a
    c = b * b
    first, second = list(c.backward_steps(retain_graph=True))
    assert f"multiply#1, c, {__file__}:" in repr(first)
    assert f"add#1, b, {__file__}:" in repr(second)
    assert (first.worked, second.worked) == ("dx = g y = 1 * 4 = 4,  dy = g x = 1 * 4 = 4", "dx = g = 8,  dy = g = 8")
    explained = debug.explain(c)
    assert [row.variable for row in explained] == ["c", "b"]
    assert "multiply#1, c " in str(explained)


def computed(text):
    """The value of a right side with numbers, by Python."""
    text = (
        text.replace("[", "(")
        .replace("]", ")")
        .replace("²", "**2")
        .replace("^", "**")
        .replace("√π", "math.sqrt(math.pi)")
    )
    text = re.sub(r"\be(?=\*\*)", "math.e", text)
    text = re.sub(r"\b(log|sin|cos) (\(?-?[\d.]+\)?)", r"math.\1(\2)", text)
    return eval(text.replace("sign(", "np.sign("), {"math": math, "np": np})


@pytest.mark.parametrize(
    ("function", "worked"),
    [
        (lambda x: x + 1, 1),
        (lambda x: 1 - x, 1),
        (lambda x: x * 3, 1),
        (lambda x: x * -3, 1),
        (lambda x: x / 3, 1),
        (lambda x: 3 / x, 1),
        (lambda x: x**3, 1),
        (lambda x: 2**x, 1),
        (lambda x: x * x, 2),
        (lambda x: -x, 1),
        *((Op.registry[name], 1) for name in ELEMENTWISE),
        (lambda x: x.sum(), 1),
        (lambda x: x.mean(), 1),
        (tg.ops.norm, 1),
    ],
)
@pytest.mark.parametrize("data", [0.7, 2.0, [0.7, 2.0, 3.0], -0.4, [[-0.4, 2.0]]])
def test_a_formula_with_numbers_is_true(function, worked, data):
    x = tg.Tensor(np.array(data), True)
    if np.min(data) < 0 and function in (tg.ops.log, tg.ops.sqrt):
        return
    y = function(x)
    step = next(y.backward_steps(np.full(y.shape, -1.5)))
    if worked == 2 or np.size(data) == 1 or y.shape in ((), x.shape):
        found = [part.split(" = ") for part in step.worked.split(",  ") if " = " in part]
        assert len(found) == worked, step.worked
        for name, side, *numbers, result in found:
            name = name[1:].partition("[")[0]
            dx = next(d for k, d in enumerate(step.gradients) if step.argument(k) == name)
            assert float(result) == pytest.approx(dx.flat[0], rel=1e-3)
            assert computed(numbers[0] if numbers else result) == pytest.approx(dx.flat[0], rel=5e-3), step.worked
            assert f"d{name} = {side}" in step.formula


@pytest.mark.parametrize(
    ("function", "data"),
    [
        (tg.ops.softmax, [1.0, 2.0]),
        (tg.ops.gelu, 1.0),
        (lambda x: x @ x, [[1.0, 2.0], [3.0, 4.0]]),
        (lambda x: x * np.ones((2, 2)), [1.0, 2.0]),  # a sum over copies
        (lambda x: x.sum(axis=0), [[1.0, 2.0], [3.0, 4.0]]),
        (lambda x: x.at(0).set(1.0), [1.0, 2.0]),
        (lambda x: tg.ops.maximum(x, 1.5), 1.0),
        (lambda x: x[0], [1.0]),
        (lambda x: x.reshape(1, 2), [1.0, 2.0]),
        (lambda x: x + x, np.zeros((0, 2))),
    ],
)
def test_a_formula_that_says_more_than_arithmetic_stays_as_it_is(function, data):
    y = function(tg.Tensor(np.array(data), True))
    (step,) = y.backward_steps(np.ones(y.shape))
    assert step.worked == step.formula


def test_numbers_of_a_wrong_derivative_are_those_of_the_pass():
    for step in (tg.Tensor(2.0, True) * 3).backward_steps():
        step.gradients[0] = np.float32(7)
        assert step.worked == "dx = g y = 1 * 3 = 7"


def test_once_the_pass_has_gone_on_the_formula_stands_alone():
    x = tg.Tensor(2.0, True)
    first, _ = list((x * x * 3).backward_steps())
    assert first.worked == first.formula


def test_small_ops_know_the_line_and_the_fused_op_that_they_came_from():
    model = make_model()
    with tg.composed():
        loss = loss_of(model)
    groups, lines = {}, []
    for step in loss.backward_steps():
        assert step.site.endswith("in loss_of")
        assert __file__ in step.site
        if step.group is not None:
            file, line, function = re.fullmatch(r"(.*):(\d+) in (\w+)", step.node.twin_site).groups()
            lines.append((function, step.op, Path(file).read_text().splitlines()[int(line) - 1]))
            groups.setdefault(step.group, []).append(step.name)
            assert repr(step).endswith(f"unfused.py:{line} in {function}")
    assert groups["trf_blocks.1.norm2.layer_norm#1"][0] == "trf_blocks.1.norm2.add#2"
    assert {name.rpartition(".")[2] for name in groups} >= {"cross_entropy#1", "attention#1", "gelu#1", "linear#1"}
    assert all(name.rpartition(".")[0] == group.rpartition(".")[0] for group, names in groups.items() for name in names)
    assert ("gelu", "tanh", "    return 0.5 * x * (1 + u.tanh())") in lines
    assert ("softmax", "exp", "    e = (x - _shift(x, axis)).exp()") in lines  # inside attention
    assert not any("softmax" in group for group in groups)  # which counts as attention
    fused = next(loss_of(model).backward_steps())
    assert (fused.group, fused.node.twin_site, fused.idle) == (None, None, False)


def test_a_branch_that_was_not_taken_is_idle():
    def idle(x):
        with tg.composed():
            y = tg.ops.sigmoid(x)
        return [step.name for step in y.backward_steps(np.ones(y.shape, y.dtype)) if step.idle]

    assert idle(tg.Tensor([1.0, 2.0], True)) == ["where#2"]  # 1 above 0
    assert idle(tg.Tensor([-1.0, -2.0], True)) == ["negative#1"]
    assert idle(tg.Tensor([1.0, -2.0], True)) == []
    (step,) = (tg.Tensor(1.0, True) * 0).backward_steps()
    assert not step.idle  # nobody's branch


def test_micrograd_s_own_example_as_graphs():
    a = tg.Tensor(2.0, requires_grad=True)
    b = a + a
    c = b * b
    dot, mermaid = debug.to_dot(c), debug.to_mermaid(c)
    assert a.grad is None
    for lines in (
        ["a", "()", "data 2", "grad 8 + 8 = 16"],
        ["add#1, b", "()", "data 4", "grad 4 + 4 = 8", "dx = g = 8,  dy = g = 8"],
        ["multiply#1, c", "()", "data 16", "grad 1", "dx = g y = 1 * 4 = 4,  dy = g x = 1 * 4 = 4"],
    ):
        assert '"' + "\\n".join(lines) + '"' in dot
        assert '"' + "<br/>".join(lines).replace("#", "#35;") + '"' in mermaid
    assert mermaid.count("leaf0 --> node1") == mermaid.count("node1 --> node2") == 2
    b.node.hooks = [lambda g: 3 * g]
    assert "data 4\\ngrad 24\\n" in debug.to_dot(c)
    b.node.hooks = None
    c.backward()
    assert a.grad == 16
    assert "data" not in debug.to_dot(c)  # the graph was freed


def test_a_graph_puts_parts_of_a_fused_op_into_a_box_and_leaves_out_what_is_idle():
    x = tg.Tensor([1.0, 2.0], True)
    with tg.composed():
        y = tg.ops.sigmoid(x)
    mermaid = debug.to_mermaid(y.sum())
    assert 'subgraph module0["sigmoid#35;1: 6 steps, of which 1 pass on zeros alone"]' in mermaid
    assert "where#35;1" in mermaid
    assert "where#35;2" not in mermaid


def test_nobody_is_told_of_what_a_graph_or_a_matrix_runs_again():
    x = tg.Tensor(np.ones((1, 2, 4), np.float32), True)
    loss = tg.ops.attention(x, x, x, n_heads=2).sum() * np.float32(np.nan)
    with debug.anomaly(), tg.no_grad():
        assert "nan" in debug.to_dot(loss)
    (_, _, step) = loss.backward_steps(retain_graph=True)
    seen = []

    class Watch(Observer):
        def after_forward(self, op, inputs, arrays, options, out, node):
            seen.append(op.name)

    with Watch(), tg.no_grad(), tg.composed():
        assert [list(head) for head in heads(step)] == [["P", "dP", "dS"]] * 2
    assert seen == []
    np.testing.assert_array_equal(heads(step)[1]["P"], [[1, 0], [0.5, 0.5]])
