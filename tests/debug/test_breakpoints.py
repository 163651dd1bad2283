"""break_on: where it stops, what can be seen there, and what it says of a pattern that matches nothing."""

import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import debug
from tinygrad_llm.debug.other_debuggers import is_another_chosen
from tinygrad_llm.errors import ConfigError, NonFiniteError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import SGD
from tinygrad_llm.tape.observer import observers
from tinygrad_llm.training.step import train_step

CONFIG = GPTConfig(vocab_size=23, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0)
IDS = np.random.default_rng(0).integers(0, 23, (4, 8))


@pytest.fixture
def model():
    tg.manual_seed(3)
    return GPTModel(CONFIG)


@pytest.fixture
def stops(monkeypatch):
    """What another debugger sees: the locals of the frame in which it is called."""
    seen = []
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    monkeypatch.setattr(sys, "breakpointhook", lambda: seen.append(dict(sys._getframe(1).f_locals)))
    return seen


def loss_of(model):
    return tg.ops.cross_entropy(model(IDS), targets=IDS)


def names(stops):
    return [found["step"].name for found in stops]


PROGRAM = """
import numpy as np
import tinygrad_llm as tg
from tinygrad_llm import debug
from tinygrad_llm.models.gpt import GPTConfig, GPTModel

model = GPTModel(GPTConfig(vocab_size=23, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0))
model.checkpoint_blocks = {checkpoint}
ids = np.zeros((2, 8), int)
loss = tg.ops.cross_entropy(model(ids), targets=ids)
with debug.break_on(op="gelu", name="trf_blocks.1.*"):
    loss.backward()
with debug.break_on(op="layer_norm", name="trf_blocks.0.*", forward=True):
    model(ids)
x = tg.Tensor([0.0, 1.0], requires_grad=True)
with debug.break_on(nonfinite=True):
    (x.sqrt() * 2).sum().backward()
print("x.grad is", x.grad)
"""


@pytest.mark.parametrize("checkpoint", [False, True])
def test_pdb_opens_in_the_op(tmp_path, monkeypatch, checkpoint):
    monkeypatch.delenv("PYTHONBREAKPOINT", raising=False)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(checkpoint=checkpoint))
    commands = ["p sorted(locals())", "w", "up", "p step.name", "c"]
    commands += ["p sorted(locals())", "p x.shape", "c"] * 2 + ["p g", "p y", "c"]
    done = subprocess.run(
        [sys.executable, program], input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    opened, *answers = done.stdout.split("(Pdb) ")
    assert "gelu_backward" in opened
    printed = [answer.strip() for command, answer in zip(commands, answers, strict=True) if command.startswith("p")]
    frames = re.findall(r"\.py\(\d+\)(\w+)\(\)", answers[1])
    assert frames[-3:] == ["backward", "backward_steps", "gelu_backward"]
    assert ("checkpoint_backward" in frames) is checkpoint
    assert printed[:2] == ["['g', 's', 'x']", "'trf_blocks.1.ff.layers.1.gelu#1'"]  # before its first line
    assert printed[2:-2] == ["['eps', 'scale', 'shift', 'x']", "(2, 8, 16)"] * 2
    assert printed[-2:] == ["array([2., 2.], dtype=float32)", "array([0., 1.], dtype=float32)"]
    assert answers[-1] == "x.grad is [inf  1.]\n"


SHORT = """
import tinygrad_llm as tg
x = tg.Tensor([0.5, -1.0], requires_grad=True)
with tg.debug.break_on({conditions}):
    x.tanh().exp().sum().backward()
print("at the end")
"""


def session(tmp_path, conditions, commands, *options):
    program = tmp_path / "program.py"
    program.write_text(SHORT.format(conditions=conditions))
    typed = "\n".join(commands) + "\n"
    command = [sys.executable, *options, program]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60).stdout.split("(Pdb) ")


def test_the_breakpoints_of_a_pdb_that_is_open_stay(tmp_path):
    out = session(tmp_path, 'op="tanh"', ["b 6", "c", "p sorted(locals())", "c", "p 6 * 7", "q"], "-m", "pdb")
    assert "tanh_backward()" in out[2]
    assert out[3] == "['g', 'y']\n"
    assert "program.py(6)<module>()" in out[4]
    assert out[5] == "42\n"


def test_steps_lead_from_op_to_op_and_not_into_what_judges_them(tmp_path):
    out = session(tmp_path, "when=lambda step: step.n == 3", ["s"] * 100)
    stops = [line for part in out for line in part.splitlines() if line.startswith("> ")]
    backward = [line for line in stops if "_backward()" in line]
    assert list(dict.fromkeys(re.findall(r"\w+_backward", " ".join(backward)))) == [
        "sum_backward",
        "exp_backward",
        "tanh_backward",
    ]
    assert not any("run again" in line for line in stops)


@pytest.mark.parametrize(
    ("module", "connected", "chosen"), [("pydevd", False, False), ("pydevd", True, True), ("mine", False, True)]
)
def test_a_hook_is_a_choice_unless_it_is_that_of_a_debugpy_without_a_client(
    stops, monkeypatch, module, connected, chosen
):
    monkeypatch.setitem(sys.modules, "debugpy", SimpleNamespace(is_client_connected=lambda: connected))
    sys.breakpointhook.__module__ = module
    assert is_another_chosen() == chosen


def test_by_name_and_op(model, stops):
    with debug.break_on(name="trf_blocks.1.*", op="gelu"):
        loss_of(model).backward()
    assert names(stops) == ["trf_blocks.1.ff.layers.1.gelu#1"]
    (found,) = stops
    assert found["grad_out"].shape == (4, 8, 64)
    assert found["node"].op.name == "gelu"
    assert found["saved"]["x"].shape == (4, 8, 64)
    with debug.break_on(name="trf_blocks.*.add#2"):
        loss_of(model).backward()
    assert names(stops)[1:] == ["trf_blocks.1.add#2", "trf_blocks.0.add#2"]
    loss_of(model).backward()
    assert len(stops) == 3  # the block is over


def test_by_values(stops):
    x = tg.Tensor([0.0, 1.0], True)
    watch = debug.break_on(nonfinite=True)
    (x.sqrt() * 2).sum().backward()
    assert names(stops) == ["sqrt#1"]
    np.testing.assert_array_equal(stops[0]["gradients"], [[np.inf, 1]])
    (x * 1).sum().backward(np.float32(np.nan))  # which comes in
    assert names(stops)[1:] == ["sum#1", "multiply#1"]
    watch.off()
    with debug.break_on(norm_gt=5):
        (x * 10 * 2).sum().backward()  # |g| is 1, √2, 2√2
        assert len(stops) == 3
        (x * 10 * 20).sum().backward()
    assert names(stops)[3:] == ["multiply#1"]
    with debug.break_on(when=lambda step: step.gradients[0][1] == 6, op="m*"):
        (x * 3 * 2).sum().backward()
    assert names(stops)[4:] == ["multiply#1"]


def test_it_stops_before_the_op_has_run(stops):
    ran = []

    def twice_forward(x):
        return 2 * x, ()

    def twice_backward(g):
        ran.append(len(stops))
        return (2 * g,)

    twice = tg.Op(twice_forward, twice_backward)
    try:
        x = tg.Tensor([1.0], True)
        with debug.break_on(op="twice"):
            twice(x).sum().backward()
    finally:
        del tg.Op.registry["twice"]
    assert ran == [1]


def test_before_a_forward(model, stops):
    with debug.break_on(op="layer_norm", name="trf_blocks.1.*", forward=True):
        loss_of(model).backward()
    assert [found["op"].name for found in stops] == ["layer_norm", "layer_norm"]
    with tg.no_grad(), debug.break_on(name="final_norm.*", forward=True):
        model(IDS)
    assert len(stops) == 3


@pytest.mark.parametrize("checkpoint", [False, True])
def test_nothing_changes_by_stopping(stops, checkpoint):
    def gradients(**conditions):
        tg.manual_seed(5)
        model = GPTModel(GPTConfig(**(CONFIG.to_dict() | {"drop_rate": 0.2})))
        model.checkpoint_blocks = checkpoint
        loss = loss_of(model)
        if conditions:
            with debug.break_on(**conditions):
                loss.backward()
        else:
            loss.backward()
        return [p.grad.tobytes() for p in model.parameters()]

    plainly = gradients()
    for conditions in ({"op": "*"}, {"when": lambda step: True}, {"nonfinite": True}):
        assert gradients(**conditions) == plainly
    gelus = [name for name in names(stops) if "gelu" in name]
    assert gelus == [f"trf_blocks.{i}.ff.layers.1.gelu#1" for i in (1, 0)] * 2


def test_it_reaches_the_threads_of_a_training_step(model, stops):
    with debug.break_on(name="trf_blocks.0.att.attention"):
        train_step(model, SGD(model.parameters(), lr=0.1), IDS, IDS, threads=2)
    assert names(stops) == ["trf_blocks.0.att.attention#1"] * 2  # one a shard


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        (
            {"name": "trf_block.1.att.attention"},
            "name='trf_block.1.att.attention'; the nearest: trf_blocks.1.att.attention, ",
        ),
        ({"name": "gelu"}, "name='gelu'; the nearest: trf_blocks.1.ff.layers.1.gelu, trf_blocks.0.ff.layers.1.gelu"),
        ({"op": "gelu", "name": "gelu"}, "op='gelu' and name='gelu'; the nearest: trf_blocks.1.ff.layers.1.gelu, "),
        ({"name": "trf_blocks.1"}, "name='trf_blocks.1'; the nearest: trf_blocks.1."),
        ({"name": "trf_blocks.*.gelu#7"}, "the nearest: trf_blocks.1.ff.layers.1.gelu, trf_blocks.0.ff.layers.1.gelu"),
        ({"op": "log_soft*", "nonfinite": True}, "op='log_soft*'; the nearest: "),
        (
            {"name": "final_norm", "forward": True},
            "forward matches name='final_norm'; the nearest: final_norm.layer_norm",
        ),
    ],
)
def test_a_pattern_that_matches_nothing_says_so(model, stops, conditions, words):
    with pytest.warns(UserWarning, match=re.escape(words)) as caught, debug.break_on(**conditions):
        loss_of(model).backward()
    assert [w.filename for w in caught] == [__file__]
    watch = debug.break_on(**conditions)
    loss_of(model).backward()
    with pytest.warns(UserWarning, match=re.escape(words)) as caught:
        watch.off()
    assert [w.filename for w in caught] == [__file__]
    watch.off()  # and no second time
    assert stops == []


def test_when_there_is_nothing_to_say(model, stops):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with debug.break_on(name="no such name"):
            model(IDS)  # no backward
        with debug.break_on(op="gelu", norm_gt=1e9), debug.break_on(nonfinite=True):
            loss_of(model).backward()
        root = tg.Tensor([0.0], True).sqrt().sum()
        with pytest.raises(NonFiniteError), debug.anomaly(), debug.break_on(name="no such name"):
            root.backward()
    assert stops == []


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({}, "no condition"),
        ({"forward": True}, "no condition"),
        ({"norm_gt": float("nan")}, "norm_gt is nan"),
        ({"norm_gt": "5"}, "norm_gt is .5."),
        ({"op": "gleu"}, r"no op 'gleu' \(did you mean gelu\?\)"),
        ({"op": "gelu*_"}, r"no op 'gelu\*_'"),
        ({"op": tg.ops.gelu}, r"op is Op\(gelu\): it must be a pattern"),
        ({"name": 3}, "name is 3: it must be a pattern"),
        ({"op": "gelu", "forward": 1}, "forward is 1"),
        ({"op": "gelu", "forward": True, "norm_gt": 3}, "before a forward there is no gradient"),
        ({"when": all, "forward": True}, "pass op= and name= alone"),
    ],
)
def test_it_refuses(conditions, words):
    with pytest.raises(ConfigError, match=words):
        debug.break_on(**conditions)
    assert observers.get() == ()
