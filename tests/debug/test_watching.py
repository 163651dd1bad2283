"""anomaly, explain, profile, compare, hooks, the cache of activations, graphs, and why there is no gradient."""

import copy
import re
import weakref

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import debug, nn
from tinygrad_llm.engine import Op
from tinygrad_llm.errors import ConfigError, GraphError, NonFiniteError, ShapeError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import SGD
from tinygrad_llm.tape.node import path_of, scope
from tinygrad_llm.tape.observer import Observer, observers
from tinygrad_llm.training.step import train_step

CONFIG = GPTConfig(vocab_size=23, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0)
IDS = np.random.default_rng(0).integers(0, 23, (2, 8))


@pytest.fixture
def model():
    tg.manual_seed(3)
    return GPTModel(CONFIG)


def loss_of(model):
    return tg.ops.cross_entropy(model(IDS), targets=IDS)


def line_of(words):
    with open(__file__) as file:
        return next(i for i, line in enumerate(file, 1) if words in line and "line_of" not in line)


class MaskedAttention(nn.Module):
    """Hides with log(mask) what it should have hidden with where()."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x, cache=None):
        mask = tg.Tensor(np.tri(8, dtype=np.float32))
        return self.inner(x, cache) + 0 * mask.log().sum()  # the planted NaN: 0 times -inf


def test_anomaly_finds_the_log_of_0_in_a_mask_at_its_line(model):
    model.trf_blocks[1].att = MaskedAttention(model.trf_blocks[1].att)
    with pytest.raises(NonFiniteError) as error, debug.anomaly():
        loss_of(model)
    text = str(error.value)
    assert text.startswith("anomaly: log (trf_blocks.1.att.log, called at ")
    assert f"test_watching.py:{line_of('the planted NaN')} in forward" in text
    assert "gave 28 Inf in (8, 8), the first at [0, 1]" in text
    assert "x (8, 8) in [0, 1]" in text
    assert "the logarithm of 0 is -inf" in text
    assert "clip" in text
    assert observers.get() == ()
    assert np.isnan(loss_of(model).item())  # it was there


def test_anomaly_reaches_threads(model):
    model.trf_blocks[1].att = MaskedAttention(model.trf_blocks[1].att)
    with pytest.raises(NonFiniteError, match=r"trf_blocks\.1\.att\.log"), debug.anomaly():
        train_step(model, SGD(model.parameters(), lr=0.1), IDS, IDS, threads=2)


def test_anomaly_lets_masks_pass(model):
    with debug.anomaly():
        loss_of(model).backward()
        with tg.composed():  # where the scores hold -inf
            loss_of(model).backward()


def test_anomaly_in_the_backward_and_in_the_weights(model):
    x = tg.Tensor([4.0, 0.0], True)
    with debug.anomaly():
        root = x.sqrt()  # the root of 0
        with pytest.raises(NonFiniteError) as error:
            root.sum().backward()
        text = str(error.value)
        assert "sqrt_backward" in text
        assert f"test_watching.py:{line_of('the root of 0')}" in text
        assert "1 Inf in (2,), the first at [1] in dx" in text
        assert "dx = g / (2 y)" in text
        assert x.grad is None
        model.trf_blocks[0].ff.layers[2].weight.data[1, 2] = np.nan
        with pytest.raises(NonFiniteError, match=r"weight = trf_blocks.0.ff.layers.2.weight .* with 1 NaN"):
            loss_of(model)


def test_anomaly_names_each_of_several_operands():
    x, y = tg.Tensor([[1.0], [2.0]], True, "x"), tg.Tensor([[np.nan]], True, "y")
    with (
        debug.anomaly(),
        pytest.raises(NonFiniteError, match=r"arrays\[0\] = x \(2, 1\) .*; arrays\[1\] = y \(1, 1\), nothing"),
    ):
        tg.ops.concatenate(x, y)
    both = tg.ops.stack(tg.Tensor([1.0], True, "y"), tg.Tensor([2.0], True, "x"))
    both.node.op = copy.copy(both.node.op)
    both.node.op.backward = lambda g, axis: (g[0], g[1] * np.nan)
    with debug.anomaly(), pytest.raises(NonFiniteError, match=r"1 NaN .* in darrays\[1\] = x, by"):
        both.sum().backward()
    assert [Op.registry["checkpoint"].argument(k) for k in range(3)] == ["x", "parameters[0]", "parameters[1]"]


def test_anomaly_names_a_mask_that_multiplies_with_infinity():
    x = tg.Tensor([1.0, 2.0], True)
    with debug.anomaly(), pytest.raises(NonFiniteError, match=r"1 NaN .*an operand is infinite: 0 \* inf .*where\(\)"):
        x + tg.Tensor([0.0, 1.0]) * -np.inf
    with debug.anomaly(), pytest.raises(NonFiniteError, match="beyond the range of the dtype"):
        x * 3e38


def test_explain_counts_every_step_and_leaves_the_graph(model):
    loss = loss_of(model)
    rows = debug.explain(loss)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    assert [row.i for row in rows] == list(range(len(rows)))
    assert rows[0].name == "cross_entropy#1"
    assert rows[0].norm == 1
    (gelu,) = [row for row in rows if row.name == "trf_blocks.0.ff.layers.1.gelu#1"]
    assert gelu.saved_bytes >= 2 * 8 * 64 * 4
    assert gelu.shapes == "(2, 8, 64) -> (2, 8, 64)"
    assert "test_watching.py" in gelu.line
    lines = str(rows).splitlines()
    assert len(lines) == len(rows) + 1
    assert lines[0].split()[:3] == ["step", "op", "name"]


def test_reprs_of_what_debugging_gives_are_short_and_say_what_is_in_it(model):
    deep = nn.Sequential(*[nn.Sequential(nn.Sequential(nn.Linear(2, 2)))] * 9)
    for a_model, ids in ((model, IDS), (deep, tg.Tensor(np.ones((1, 2), np.float32), True))):
        _, cache = a_model.run_with_cache(ids, grads=True, loss=lambda out: out.sum())
        loss = a_model(ids).sum()
        rows = debug.explain(loss)
        walk = next(loss.backward_steps()).walk
        (first, a), *_, (last, b) = cache.items()
        n = len(cache)
        assert repr(cache) == f"Cache of {n} activations, {n} with a gradient: {first} {a.shape}, ..., {last} {b.shape}"
        assert repr(walk) == f"Walk of {len(rows)} nodes, {rows[-1].name} to sum#1"
        saved = max(rows, key=lambda row: row.saved_bytes).name
        assert repr(rows).startswith(f"Explanation of {len(rows)} steps")
        assert f"the most by {saved[-40:]}, the slowest " in repr(rows)
        assert all(len(repr(shown)) < 200 for shown in (cache, walk, rows))
    assert repr(type(cache)()) == "Cache of 0 activations, 0 with a gradient"
    assert repr(type(rows)([])) == "Explanation of 0 steps"


def test_profile_counts_calls_in_all_threads(model):
    with debug.profile() as p:
        train_step(model, SGD(model.parameters(), lr=0.1), IDS, IDS, threads=2)
    assert p.ops["gelu"].calls == 4  # 2 layers, 2 shards
    assert p.ops["linear"].calls == 2 * 13
    assert p.ops["gelu"].forward > 0
    assert p.ops["gelu"].backward > 0
    assert p.ops["gelu"].bytes >= 2 * 2 * 2 * 8 * 64 * 4
    assert "linear" in repr(p)
    before = p.ops["gelu"].calls
    loss_of(model)
    assert p.ops["gelu"].calls == before


def test_compare_names_the_first_difference_and_the_weight(model):
    other = copy.deepcopy(model)
    assert debug.compare(model, other, IDS, grads=True)
    other.trf_blocks[1].ff.layers[0].weight.data[3, 4] += 1
    found = debug.compare(model, other, IDS)
    assert not found
    assert (found.kind, found.name) == ("activation", "trf_blocks.1.ff.layers.0.linear#1")
    assert found.index[-1] == 3
    assert "trf_blocks.1.ff.layers.0.weight" in str(found)
    _, cache = model.run_with_cache(IDS)
    stored = dict(cache)
    assert debug.compare(model, stored, IDS)
    stored["trf_blocks.0.norm2"] = stored["trf_blocks.0.norm2"] * 1.01
    assert debug.compare(model, stored, IDS).name == "trf_blocks.0.norm2"
    stored["trf_blocks.0.norm2"] = stored["trf_blocks.0.norm2"][:1]
    assert "(1, 8, 16)" in str(debug.compare(model, stored, IDS))
    with pytest.raises(ConfigError, match="no name is common"):
        debug.compare(model, {"x": np.ones(1)}, IDS)


def test_compare_finds_a_gradient_that_differs(model):
    other = copy.deepcopy(model)
    other.trf_blocks[0].on_backward(lambda module, g: g * 1.1)  # not in the forward
    found = debug.compare(model, other, IDS, grads=True)
    assert found.kind == "gradient"
    assert found.name.startswith("trf_blocks.0")


def test_run_with_cache_against_the_plain_computation(model):
    logits, cache = model.run_with_cache(IDS, names="*.att.weights", grads=True)
    assert list(cache) == ["trf_blocks.0.att.weights", "trf_blocks.1.att.weights"]
    assert all(p.grad is None for p in model.parameters())
    _, everything = model.run_with_cache(IDS, grads=True)
    np.testing.assert_array_equal(everything["out_head"], logits.data)
    block, x = model.trf_blocks[1].att, everything["trf_blocks.1.norm1"]
    heads = [
        (x @ w.weight.data.T).reshape(2, 8, 2, 8).swapaxes(1, 2) for w in (block.W_query, block.W_key, block.W_value)
    ]
    q, k, v = heads  # (B, H, T, d)
    scores = np.where(np.tri(8, dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(8), -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(cache["trf_blocks.1.att.weights"], p, rtol=1e-4, atol=1e-6)
    g = everything.grads["trf_blocks.1.att.attention#1"].reshape(2, 8, 2, 8).swapaxes(1, 2)  # dL/d(context)
    np.testing.assert_allclose(cache.grads["trf_blocks.1.att.weights"], g @ v.swapaxes(-1, -2), rtol=1e-3, atol=1e-7)
    parameters: dict = {}
    tg.ops.cross_entropy(model(IDS)[:, :-1], targets=IDS[:, 1:]).backward(into=parameters)
    bias = parameters[model.final_norm.shift]
    np.testing.assert_allclose(everything.grads["final_norm"].sum((0, 1)), bias, rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="no activation is named 'bla'"):
        model.run_with_cache(IDS, names="bla")
    with pytest.raises(ConfigError, match="pass loss="):
        nn.Linear(3, 2).run_with_cache(tg.Tensor(np.ones((1, 3), np.float32)), grads=True)


def test_hooks(model):
    seen = []
    layer = model.trf_blocks[1].ff
    with (
        layer.on_forward(lambda module, args, out: seen.append(("forward", module is layer, args[0].shape, out.shape))),
        layer.on_backward(lambda module, g: seen.append(("backward", module is layer, g.shape))),
    ):
        loss_of(model).backward()
    assert seen == [("forward", True, (2, 8, 16), (2, 8, 16)), ("backward", True, (2, 8, 16))]
    loss_of(model).backward()
    assert len(seen) == 2
    model.zero_grad()
    hook = layer.on_backward(lambda module, g: 0 * g)
    loss_of(model).backward()
    hook.remove()
    assert not np.any(layer.layers[0].weight.grad)
    assert np.any(model.trf_blocks[1].att.out_proj.weight.grad)
    with layer.on_forward(lambda module, args, out: out * 0):
        changed = model(IDS)
    assert not np.array_equal(changed.data, model(IDS).data)
    with layer.on_backward(lambda module, g: g[:1]), pytest.raises(ShapeError, match="a hook on"):
        loss_of(model).backward()


def test_why_no_grad():
    w = tg.Tensor([1.0, 2.0], True, "w")
    assert "no backward has reached it" in w.why_no_grad()
    assert "does not require a gradient" in tg.Tensor([1.0], name="x").why_no_grad()
    hidden = w * 2
    assert "result of multiply" in hidden.why_no_grad()
    cut = hidden.detach()  # the cut
    other = tg.Tensor([3.0], True)
    loss = (cut * other).sum()
    line = line_of("# the cut")
    assert f"detached at {__file__}:{line}" in cut.why_no_grad()
    assert f"detached at {__file__}:{line}" in w.why_no_grad(loss)
    with tg.no_grad():  # the pause
        paused = w * 2
    assert f"under no_grad(), which was entered at {__file__}:{line_of('# the pause')}" in paused.why_no_grad()
    assert "nothing leads back" in w.why_no_grad(paused)
    unrelated = tg.Tensor([1.0], True, "unrelated")
    assert "not on the path" in unrelated.why_no_grad(loss)
    right = (w * w).sum()
    assert "backward() has not been called" in w.why_no_grad(right)
    right.backward()
    assert "has a gradient" in w.why_no_grad(right)
    w.grad = None
    assert "freed" in w.why_no_grad(right)


def test_graphs_as_text(model):
    loss = loss_of(model)
    n = len(debug.explain(loss))
    dot, mermaid = debug.to_dot(loss), debug.to_mermaid(loss)
    leaves = len(list(model.parameters()))
    assert dot.count("shape=ellipse") == leaves
    modules = [path for path, _ in model.named_modules() if path and not path.endswith("drop_shortcut")]
    modules.remove("drop_emb")  # nothing is dropped, so these made nothing
    assert dot.count("label=") == n + leaves + len(modules)
    assert dot.count("subgraph ") == mermaid.count("subgraph ") == len(modules)
    names = [step.name for step in loss.backward_steps(retain_graph=True, into={})]
    parameters = [name for name, _ in model.named_parameters()]
    for lines in (dot.splitlines()[2:-1], mermaid.replace("#35;", "#").splitlines()[1:]):
        inside, found = [], []
        for line in lines:
            if "subgraph" in line:
                inside.append(line.split('"')[1])
            elif line.strip() in ("}", "end"):
                inside.pop()
            elif '"' in line:
                found.append(".".join([*inside, re.split(r"<br/>|\\n", line.split('"')[1])[0]]))
        assert sorted(found) == sorted(names + parameters)
    assert mermaid.startswith("flowchart TD\n")
    assert mermaid.count("([") == leaves
    arrows = sum(len([p for p in step.node.parents if p is not None]) for step in loss.backward_steps())
    assert dot.count(" -> ") == mermaid.count(" --> ") == arrows
    assert 'label="attention#1' in dot
    x = tg.Tensor([1.0], True, 'a "quoted" <name>')
    assert '\\"quoted\\"' in debug.to_dot(x * 2)
    assert "#quot;quoted#quot; #lt;name>" in debug.to_mermaid(x * 2)
    assert "subgraph" not in debug.to_dot(tg.Tensor([1.0], True, "a.b") * 2)
    with pytest.raises(GraphError, match="not on the tape"):
        debug.to_dot(tg.Tensor([1.0]))


def test_why_no_grad_of_a_leaf_that_was_itself_detached():
    w, v = tg.Tensor([1.0, 2.0], True, "w"), tg.Tensor([3.0, 4.0], True)
    loss = (w.detach() * v).sum()  # the leaf
    assert f"what was made from it was detached at {__file__}:{line_of('# the leaf')}" in w.why_no_grad(loss)


def test_checkpointed_blocks_are_watched_under_the_same_names(model):
    def seen():
        watched = []

        class Watch(Observer):
            def before_forward(self, op):
                watched.append(path_of(scope.get(), op.name))

            def before_backward(self, step):
                assert step.gradients == []
                watched.append(step.name)

        with Watch():
            loss_of(model).backward()
        return watched

    plainly = seen()
    model.checkpoint_blocks = True
    watched = seen()
    inside = [name for name in plainly if name.startswith("trf_blocks.")]
    assert len(inside) == 2 * 2 * 12
    backward = [name for name in inside if "#" in name]
    assert [name for name in watched if name in backward] == backward
    assert [name for name in watched if "checkpoint" not in name and "#" not in name and name in inside] == [
        *(
            name for name in inside if "#" not in name
        ),  # all blocks, and again each one in its backward, the last one first
        *(
            name
            for block in ("1", "0")
            for name in inside
            if "#" not in name and name.startswith(f"trf_blocks.{block}.")
        ),
    ]


def test_anomaly_and_the_cache_see_into_checkpointed_blocks(model):
    _, plainly = model.run_with_cache(IDS)
    model.checkpoint_blocks = True
    _, cache = model.run_with_cache(IDS)
    assert set(plainly) <= set(cache)
    for name, array in plainly.items():
        np.testing.assert_array_equal(cache[name], array)
    model.trf_blocks[1].att = MaskedAttention(model.trf_blocks[1].att)
    with pytest.raises(NonFiniteError, match=r"trf_blocks\.1\.att\.log"), debug.anomaly():
        loss_of(model)


def test_profile_counts_the_time_of_an_op_once(model, monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    model.checkpoint_blocks = True
    with debug.profile() as p:
        loss_of(model).backward()
    first_to_last = next(ticks) - 1
    assert p.ops["gelu"].calls == 2 * 2
    assert sum(t.forward + t.backward for t in p.ops.values()) < first_to_last


def test_why_no_grad_knows_what_was_detached_when_that_is_gone(model):
    w = tg.Tensor([1.0, 2.0], True, "w")

    def loose(t):
        for _ in range(30):
            t = t * 2 + t  # as much a leaf is reached on 2^30 ways
        return t.detach()  # in a function

    loss = (loose(w) * tg.Tensor([3.0, 4.0], True)).sum()
    assert f"what was made from it was detached at {__file__}:{line_of('# in a function')}" in w.why_no_grad(loss)
    logits = model(IDS).detach()  # of a model
    loss = tg.ops.cross_entropy(logits * w[0], targets=IDS)
    for parameter in model.parameters():
        assert f"detached at {__file__}:{line_of('# of a model')}" in parameter.why_no_grad(loss)
    mine = w.detach()
    mine.requires_grad = True  # a leaf like any other from now on
    assert "no backward has reached it" in mine.why_no_grad()


def test_what_was_detached_is_remembered_without_keeping_it():
    x = tg.Tensor(np.ones(3), True)
    middle = x * 2
    node, leaf = weakref.ref(middle.node), weakref.ref(x)
    middle.detach()
    del middle
    assert node() is None
    del x
    assert leaf() is None


def test_backward_says_where_it_left_the_tape():
    w = tg.Tensor([1.0, 2.0], True, "w")
    with tg.no_grad():  # entered
        paused = w * 2
    entered = f"made under no_grad(), which was entered at {__file__}:{line_of('# entered')} in test_backward_says"
    with pytest.raises(
        GraphError, match=re.escape(f"backward from a tensor (2,) that is not on the tape: it was {entered}")
    ):
        paused.backward()
    cut = w.detach()  # left
    left = f"detached at {__file__}:{line_of('# left')} in test_backward_says"
    with pytest.raises(GraphError, match=re.escape(f"that is not on the tape: it was {left}")):
        cut.backward()
    for origin, source in ((entered, paused), (left, cut)):
        loss = ((source * 3).exp() + np.ones(2)).sum()
        words = f"was made from what was {origin}"
        assert words in loss.why_no_grad()
        assert words in w.why_no_grad(loss)
        with pytest.raises(GraphError, match=re.escape(words)):
            loss.backward()
    with pytest.raises(
        GraphError, match="does not require a gradient: make it, or what it is made from, with requires_grad"
    ):
        (tg.Tensor([1.0]) * 2).backward()


def test_anomaly_names_the_user_s_line_of_a_twin():
    x = tg.Tensor([-1.0, 2.0], True)
    with (
        tg.composed(),
        debug.anomaly(),
        pytest.raises(NonFiniteError, match=r"test_watching.py:\d+ in test_anomaly_names_the"),
    ):
        tg.ops.norm(x * np.float32(1e30))
