"""In a debugger: a session of pdb, and the frames between backward() and the maths."""

import re
import subprocess
import sys
from functools import reduce
from pathlib import Path

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm import parallel
from tinygrad_llm.engine import Op
from tinygrad_llm.models.gpt import GPTConfig, GPTModel

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = """
import tinygrad_llm as tg
x = tg.Tensor([0.5, -1.0], requires_grad=True, name="x")
loss = x.tanh().exp().sum()
loss.backward()
print("grad", x.grad)
"""


def pdb_session(tmp_path, commands, lines=SCRIPT):
    script = tmp_path / "script.py"
    script.write_text(lines)
    done = subprocess.run(
        [sys.executable, "-m", "pdb", str(script)],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    return done.stdout


def test_a_pdb_session(tmp_path):
    out = pdb_session(
        tmp_path,
        [
            "import tinygrad_llm.ops",
            "b tinygrad_llm.ops.elementwise.exp_backward",
            "b tinygrad_llm.ops.activation.tanh_backward",
            "c",
            "a",
            "w",
            "r",
            "c",
            "a",
            "c",
            "q",
        ],
    )
    stops = out.split("(Pdb)")
    arguments = [s for s in stops if s.strip().startswith("g = ")]
    assert len(arguments) == 2
    assert "y = array([1.58" in arguments[0]  # exp(tanh 0.5)
    assert "y = array([ 0.46" in arguments[1]  # tanh 0.5
    stack = next(s for s in stops if "script.py(5)" in s and "exp_backward()" in s)
    frames = [line.split(")")[1].rstrip("(") for line in stack.splitlines() if ".py(" in line]
    assert frames[-4:] == [
        "<module>",
        "backward",
        "backward_steps",
        "exp_backward",
    ]  # nothing of Python's or ours besides
    assert "grad [1.24" in out


def test_a_check_is_not_stopped_in(tmp_path):
    """Example 00 checks every step in its loop: the stops are those that it announces, c with g = 1 and b with g = 2."""
    page = (EXAMPLES / "00_step_through_backprop.py").read_text()
    assert "first stop is c with g = 1, the second is b with g = 2" in page
    commands = ["import tinygrad_llm as tg", "b tg.ops.add.forward", "b tg.ops.add.backward", *["c", "p locals()"] * 5]
    out = pdb_session(tmp_path, [*commands, "q"], page)
    stops = re.findall(r"\d\)(add_\w+)\(\)\n.*\n\(Pdb\) .*?(?:'g': array\((.)|'x')", out)
    assert stops == [
        ("add_forward", ""),
        ("add_forward", ""),
        ("add_backward", "1"),
        ("add_backward", "2"),
        ("add_forward", ""),
    ]


def test_the_breakpoint_of_the_readme_is_hit(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text()
    (lines,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (breakpoint_line,) = re.findall(r"^In pdb, `(b [\w.]+)` after the first line", readme, re.MULTILINE)
    out = pdb_session(tmp_path, ["n", breakpoint_line, "c", "a", "c", "q"], lines)
    assert "***" not in out
    arguments = out.split("gelu_backward()")[1].split("(Pdb)")[1]
    assert [line.split(" = ")[0] for line in arguments.strip().splitlines() if " = " in line] == ["g", "x", "s"]


def found_by_pdb(name):
    """What `b name` looks up: attributes, from the package on."""
    return reduce(getattr, name.split(".")[1:], tg)


def test_every_backward_can_be_named_in_a_breakpoint():
    ours = [op.backward for op in Op.registry.values() if op.backward.__module__.startswith("tinygrad_llm.")]
    assert len(ours) > 45
    for backward in ours:
        assert found_by_pdb(f"{backward.__module__}.{backward.__name__}") is backward
    pages = [page.read_text() for page in (EXAMPLES / "README.md", EXAMPLES / "00_step_through_backprop.py")]
    for page in pages:
        breakpoints = re.findall(r"\bb (tg\.[\w.]+)", page)
        assert breakpoints
        assert all(found_by_pdb(name) in ours for name in breakpoints)


CONFIG = GPTConfig(vocab_size=23, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0)
IDS = np.random.default_rng(0).integers(0, 23, (4, 8))


def test_names_are_of_the_tape_of_each_thread():
    model = GPTModel(CONFIG)

    def walk(rows):
        loss = tg.ops.cross_entropy(model(IDS[rows]), targets=IDS[rows])
        return [(step.name, step.check().verdict) for step in loss.backward_steps(into={})]

    with parallel.threads(2):
        one, other = parallel.spread(walk, [slice(0, 2), slice(2, 4)])
    assert one == other == walk(slice(0, 4))


def test_one_frame_up_from_the_maths_stands_its_own_step(tmp_path):
    stops = ["b tg.ops.exp.backward", "b tg.ops.tanh.backward", "c"]
    look = ["up", "p step", "p step.grad_out is g", "p step.saved.keys()", "p step.check().verdict", "c"]
    out = pdb_session(tmp_path, ["n", *stops, *look, *look, "q"])
    assert "***" not in out
    assert re.findall(r"Step (\d)/3: (\w+), g \(2,\), \w+#1, .*script.py:4", out) == [("2", "exp"), ("3", "tanh")]
    assert (
        re.findall(r"^\(Pdb\) (True|dict_keys.*|'ok')$", out, re.MULTILINE) == ["True", "dict_keys(['y'])", "'ok'"] * 2
    )


def test_in_a_hook_stands_the_step_of_the_hook():
    seen = []

    def hook(g):
        seen.append((g, sys._getframe(2).f_locals["step"]))
        return 2 * g

    x = tg.Tensor([1.0, 2.0], True)
    y = x * 3
    y.node.hooks = [hook]
    step = list(y.sum().backward_steps())[1]
    ((g, at_the_hook),) = seen
    assert at_the_hook is step
    np.testing.assert_array_equal(step.grad_out, 2 * g)
    np.testing.assert_array_equal(x.grad, [6, 6])
