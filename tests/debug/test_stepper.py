"""Presses of keys in our pdb, from a line of one's own to the maths; and the program that opens it."""

import io
import json
import pdb
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import debug, nn, ops, parallel
from tinygrad_llm.debug.stepper import PASSED, Stepper, is_passed
from tinygrad_llm.debug.vscode import CONFIGURATION, write_launch
from tinygrad_llm.errors import DataError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.optim import SGD
from tinygrad_llm.training.step import train_step

sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
from op_specs import SPECS

HERE = Path(__file__).name
_STOP = re.compile(r"(?:^|\) )> (?:.*[/\\])?([^/\\\n]+)\(\d+\)([\w<>]+)\(\).*(?:\n-> (.*))?$", re.MULTILINE)
IDS = np.random.default_rng(0).integers(0, 23, (2, 8))


class Keys(io.StringIO):
    """These keys, then `c`."""

    def readline(self, *_):
        return super().readline() or "c\n"


def typed(function, keys, debugger=Stepper):
    """Where it stops, (file, function, line of source), when `keys` are typed at the first line of a function."""
    shown, before = io.StringIO(), sys.gettrace()
    stepper = debugger(stdin=Keys("\n".join(keys) + "\n"), stdout=shown, nosigint=True, readrc=False)
    try:
        stepper.runcall(function)
    finally:
        sys.settrace(before)
    assert "***" not in shown.getvalue()
    return _STOP.findall(shown.getvalue())


def functions(stops):
    return [function for _, function, _ in stops]


def presses(stops, since, to):
    """How many presses lead from the last line of one's own in which `since` stands to the next in an op in which `to` does."""
    first = max(i for i, (file, _, line) in enumerate(stops) if file == HERE and since in line)
    return next(i for i, (file, _, line) in enumerate(stops) if i > first and file != HERE and to in line) - first


@pytest.mark.parametrize(
    ("module", "passed"),
    [
        *[
            (name, True)
            for name in (
                "tinygrad_llm.tape.step",
                "numpy",
                "numpy.linalg",
                "posixpath",
                "namedtuple_Hidden",
                "_distutils_hack",
            )
        ],
        *[
            (name, False)
            for name in ("__main__", "tinygrad_llm.ops.matrix", "tinygrad_llm.nn.layers", "numpydoc", None)
        ],
    ],
)
def test_what_is_passed_through(module, passed):
    assert is_passed(module) == passed


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_one_press_to_the_maths_of_any_op(spec):
    sample = spec.draw()[0]
    inputs = [None if a is None else tg.Tensor(a, requires_grad=True) for a in sample.arrays]

    def mine():
        y = spec.op(*inputs, **sample.options)
        y.backward(np.ones_like(y.data))

    forward, backward = spec.op.forward.__name__, spec.op.backward.__name__
    stops = typed(mine, ["s", "r", "s", "s"])
    assert functions(stops) == ["mine", forward, forward, "mine", backward]
    assert not any(line.startswith("def ") for _, _, line in stops)


@pytest.mark.parametrize("n_layers", [2, 12])
def test_one_press_from_op_to_op_whatever_the_size(n_layers):
    model = GPTModel(GPTConfig(23, context_length=8, emb_dim=4, n_heads=2, n_layers=n_layers, drop_rate=0.0))
    loss = ops.cross_entropy(model(IDS), targets=IDS)
    order = [f"{step.op}_backward" for step in loss.backward_steps(retain_graph=True)]

    def mine():
        loss.backward()
        return None

    stops = typed(mine, ["s"] * 100 * len(order))
    assert functions(stops)[:2] == ["mine", "cross_entropy_backward"]
    between = stops[1 : functions(stops).index("mine", 1)]
    files = {Path(sys.modules[op.backward.__module__].__file__).name for op in tg.Op.registry.values()}
    assert {file for file, _, _ in between} <= files
    entered = [
        a for a, b in zip(functions(between), [None, *functions(between)], strict=False) if a in order and a != b
    ]
    runs = [op for op, before in zip(order, [None, *order], strict=False) if op != before]
    helpers_left = [op for op, before in zip(entered, [None, *entered], strict=False) if op != before]
    assert helpers_left == runs
    assert functions(stops)[len(between) + 1 :][:1] == ["mine"]
    assert stops[len(between) + 1][2] == "return None"


def test_a_model_is_stepped_through_by_its_forwards():
    model = GPTModel(GPTConfig(23, context_length=8, emb_dim=4, n_heads=2, n_layers=2, drop_rate=0.1))

    def mine():
        logits = model(IDS)
        return logits

    stops = typed(mine, ["s"] * 2000)
    assert functions(stops)[:2] == ["mine", "forward"]
    files = {file for file, _, _ in stops[1 : functions(stops).index("mine", 1)]}
    assert {"gpt.py", "transformer.py", "attention.py", "layers.py", "scaled_dot_product.py"} <= files
    assert not files & {"engine.py", "module.py", "node.py", "places.py", "parallel.py", "arguments.py", "rng.py"}


X = tg.Tensor(np.random.default_rng(0).standard_normal((1, 3, 4)), requires_grad=True)
ONES = tg.Tensor(np.ones(4), requires_grad=True)
FORMULAS = {
    "attention": (lambda: ops.attention(X, X, X, n_heads=2), "np.exp(p, out=p)", "ds *= p"),
    "cross_entropy": (
        lambda: ops.cross_entropy(X, targets=np.array([[0, 1, 2]])),
        "np.exp(e[i]",
        "targets[i]] -= weights",
    ),
    "layer_norm": (lambda: ops.layer_norm(X, ONES, ONES), "y = z * scale", "dx *= r"),
}


@pytest.mark.parametrize("op", FORMULAS)
def test_twelve_presses_to_the_formula_of_the_large_ops(op):
    call, forward, backward = FORMULAS[op]

    def mine():
        y = call()
        y.backward(np.ones_like(y.data))

    stops = typed(mine, ["s"] * 200)
    assert presses(stops, "y = call()", forward) <= 14  # two of them in the lambda
    assert presses(stops, "y.backward", backward) <= 12


def test_in_plain_pdb_few_lines_lead_to_the_maths_and_from_op_to_op():
    x, g = tg.Tensor([0.5, -1.0], requires_grad=True), np.ones(2, "f")

    def mine():
        z = (x + x).tanh().exp()
        z.backward(g)
        z = x.tanh()
        z.backward(g)
        z = (x * x).sum()
        z.backward()

    names = functions(typed(mine, ["s"] * 1200, pdb.Pdb))

    def presses(since, to, nth=0):
        arrive = [i for i, name in enumerate(names) if name == to and names[i - 1] != to][nth]
        return arrive - max(i for i in range(arrive) if names[i] == since)

    assert presses("mine", "add_forward") <= 25
    assert presses("tanh_forward", "exp_forward") <= 57
    assert presses("exp_backward", "tanh_backward") <= 39
    assert presses("mine", "tanh_backward", nth=1) <= 49
    assert presses("mine", "sum_backward") <= 53
    assert presses("sum_backward", "multiply_backward") <= 57


def test_a_loop_of_ones_own():
    x = tg.Tensor([0.5, -1.0], requires_grad=True)

    def mine():
        for step in x.tanh().exp().backward_steps(np.ones(2, "f")):
            assert step.i >= 0
        return x.grad

    stops = functions(typed(mine, ["s"] * 60))
    assert [s for s, before in zip(stops, [None, *stops], strict=False) if s != before] == [
        *("mine", "tanh_forward", "exp_forward", "exp_backward", "mine", "tanh_backward", "mine"),
    ]


@pytest.mark.parametrize("look", [lambda step: step.args, lambda step: step.check()])
def test_what_a_step_runs_again_is_passed_through(look):
    step = next(ops.layer_norm(X, ONES, ONES).backward_steps(np.ones(X.shape)))

    def mine():
        seen = look(step)
        return seen

    names = functions(typed(mine, ["s"] * 6))
    assert [name for name in names if name != "<lambda>"] == ["mine", "mine"]


def test_what_an_op_returns_and_the_loop_around_it_are_shown_where_they_are_asked_for():
    x = tg.Tensor([0.5, -1.0], requires_grad=True)

    def mine():
        loss = x.tanh().exp().sum()
        loss.backward()
        return x.grad

    stops = typed(mine, ["n", "s", "r", "r", "n", "s", "r", "s", "s"])
    assert [function for _, function, _ in stops] == [
        *("mine", "mine", "sum_backward", "sum_backward", "backward_steps", "backward_steps"),
        *("exp_backward", "exp_backward", "tanh_backward", "mine"),
    ]


def test_from_a_breakpoint_in_an_op_one_comes_back_to_ones_own_lines():
    x = tg.Tensor([0.5, -1.0], requires_grad=True)

    def inner():
        loss = x.tanh().exp().sum()
        loss.backward()
        return x.grad

    def mine():
        return inner()

    stops = typed(mine, ["import tinygrad_llm", "b tinygrad_llm.ops.activation.tanh_backward", "c", "s", "cl 1", "s"])
    debug_stops = functions(stops)
    assert debug_stops == ["mine", "tanh_backward", "inner", "inner"]


def test_the_finders_of_modules_are_passed_through_but_not_what_is_imported(tmp_path, monkeypatch):
    (tmp_path / "found_by_a_finder.py").write_text("number = 42\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Finder:
        @staticmethod
        def find_spec(*_):
            return None

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])

    def mine():
        import found_by_a_finder

        return found_by_a_finder.number

    assert list(dict.fromkeys(functions(typed(mine, ["s"] * 4)))) == ["mine", "<module>"]


def test_a_layer_of_ones_own_is_entered_and_left_without_a_stop_of_its_own():
    class Twice(nn.Module):
        def forward(self, x):
            return x + x

    layer, x = Twice(), tg.Tensor([1.0], requires_grad=True)

    def mine():
        y = layer(x)
        return y

    assert functions(typed(mine, ["s"] * 5)) == ["mine", "forward", "add_forward", "mine"]


# ---- the program ------------------------------------------------------------------------------------------------------------


def session(tmp_path, lines, keys, *args, module=("-m", "tinygrad_llm.debug")):
    script = tmp_path / "script.py"
    script.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    return subprocess.run(
        [sys.executable, *module, str(script), *args],
        input="".join(f"{key}\n" for key in keys),
        capture_output=True,
        text=True,
        timeout=60,
    )


PROGRAM = """\
import tinygrad_llm as tg
x = tg.Tensor([0.5, -1.0], requires_grad=True, name="x")
loss = x.tanh().exp().sum()
loss.backward()
"""


def test_a_program_is_opened_at_its_first_line_and_stepped_to_its_end(tmp_path):
    done = session(tmp_path, PROGRAM, ["s", "s", "n", *["s"] * 6, "p x.grad", "s"])
    assert done.stderr == ""
    assert done.returncode == 0
    assert [stop[:2] for stop in _STOP.findall(done.stdout)] == [
        *[("script.py", "<module>")] * 4,
        *[("reduction.py", "sum_backward"), ("reduction.py", "spread"), ("reduction.py", "spread")],
        *[("elementwise.py", "exp_backward"), ("activation.py", "tanh_backward")],
        ("script.py", "<module>"),
    ]
    assert "array([1.2484317 , 0.19609502]" in done.stdout


def test_set_trace(tmp_path):
    lines = PROGRAM.replace("loss =", "tg.debug.set_trace()\nloss =").replace(
        "import tinygrad_llm as tg", "import tinygrad_llm as tg, tinygrad_llm.debug"
    )
    keys = ["n"] if sys.version_info >= (3, 13) else []  # from there on it opens at set_trace() itself
    done = session(tmp_path, lines, [*keys, "n", "s", "r", "s", "c"], module=())
    stops = functions(_STOP.findall(done.stdout))
    assert stops[-4:] == ["<module>", "sum_backward", "sum_backward", "exp_backward"]
    assert done.stderr == ""


def test_a_program_has_its_arguments_its_folder_and_its_exit_code(tmp_path):
    lines = (
        "import sys\ndef f(x: int): 0\n"
        "print(sys.argv[1:], sys.path[0], __name__, __file__, f.__annotations__)\nsys.exit(3)\n"
    )
    done = session(tmp_path, lines, ["c"], "a", "--quick", "-h")
    assert f"['a', '--quick', '-h'] {tmp_path} __main__ {tmp_path}/script.py {{'x': <class 'int'>}}" in done.stdout
    assert done.returncode == 3
    assert done.stderr == ""


def test_a_program_may_be_left_and_begun_again(tmp_path):
    done = session(tmp_path, "print(6 * 7)\nprint('after')\n", ["n", "run", "n", "q"])
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.removeprefix("(Pdb) ") for line in done.stdout.splitlines()]
    assert said.count("42") == 2
    assert "after" not in said


@pytest.mark.parametrize(
    ("line", "function", "error"),
    [("y.backward()", "f", "GraphError"), ("(y @ x.reshape((1, 2))).sum()", "matmul_forward", "matmul")],
)
def test_an_error_opens_it_where_it_arose(tmp_path, line, function, error):
    lines = f"import tinygrad_llm as tg\nx = tg.Tensor([0.5, -1.0], True)\ndef f():\n    y = x + x\n    {line}\nf()\n"
    done = session(tmp_path, lines, ["c", "p 40 + 2", "q"])
    assert done.returncode == 1
    assert error in done.stderr
    assert _STOP.findall(done.stdout)[-1][1] == function
    assert "42" in done.stdout


@pytest.mark.parametrize(
    ("lines", "words"),
    [("x = (\n", "script.py:1: "), ("x = 1\nreturn\n", "script.py:2: "), (b"\xff\xfe\n", "script.py"), ("\0", "null")],
)
def test_a_program_that_python_cannot_read_is_one_line(tmp_path, lines, words):
    done = session(tmp_path, lines, [])
    assert done.returncode == 2
    assert done.stderr.startswith("python -m tinygrad_llm.debug: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [([], "give a PROGRAM"), (["nowhere.py"], "nowhere.py: No such file"), (["."], ".: Is a directory")],
)
def test_no_program_is_one_line(tmp_path, args, words):
    done = subprocess.run([sys.executable, "-m", "tinygrad_llm.debug", *args], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


def test_without_a_standard_input_there_is_one_line(tmp_path):
    (tmp_path / "script.py").write_text(PROGRAM)
    command = f"{sys.executable} -m tinygrad_llm.debug {tmp_path}/script.py <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "standard input is closed" in done.stderr


# ---- VS Code: what is written; tests/debug/clients has it read by debugpy ---------------------------------------------------


def test_launch_json_is_written_once(tmp_path):
    assert "now" in write_launch(tmp_path)
    path = tmp_path / ".vscode" / "launch.json"
    written = path.read_bytes()
    assert json.loads(written) == {"version": "0.2.0", "configurations": [CONFIGURATION]}
    assert {rule["module"] for rule in CONFIGURATION["rules"]} >= set(PASSED)
    assert "already" in write_launch(tmp_path)
    assert path.read_bytes() == written


def test_launch_json_keeps_what_it_has(tmp_path):
    path = tmp_path / ".vscode" / "launch.json"
    path.parent.mkdir()
    mine = {"version": "0.2.0", "configurations": [{"name": "mïne"}], "compounds": []}
    path.write_text(json.dumps(mine, ensure_ascii=False), encoding="utf-8")
    write_launch(tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == mine | {"configurations": [{"name": "mïne"}, CONFIGURATION]}


@pytest.mark.parametrize("text", ['{"configurations": [] // mine\n}', "[]", '{"configurations": {}}', "", "\xff"])
def test_a_launch_json_that_cannot_be_read_is_left_alone(tmp_path, text):
    path = tmp_path / ".vscode" / "launch.json"
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=re.escape("launch.json")) as error:
        write_launch(tmp_path)
    assert "\n" not in str(error.value)
    assert path.read_text(encoding="latin-1") == text


def test_launch_json_needs_a_folder(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        write_launch(tmp_path / "nowhere")


# ---- threads ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch):
    """A training step in two threads, and the pool that it took: the weights' bits, and how often it asked for others' work."""
    asked, pool = [], parallel._pool
    monkeypatch.setattr(parallel, "_pool", lambda: asked.append(1) or pool())

    def train():
        tg.manual_seed(1)
        model = GPTModel(GPTConfig(23, context_length=8, emb_dim=4, n_heads=2, n_layers=1, drop_rate=0.1))
        before = len(asked)
        train_step(model, SGD(model.parameters(), lr=0.1), IDS, IDS, threads=2)
        return [parameter.data.tobytes() for parameter in model.parameters()], len(asked) - before

    return train


def test_a_training_step_is_not_shared_out_under_a_debugger(trained):
    before = sys.gettrace()
    try:
        sys.settrace(lambda *_: None)
        bits, shared = trained()
    finally:
        sys.settrace(before)
    assert shared == 0
    again, shared = trained()
    assert again == bits
    assert shared > 0 or before is not None


def test_a_training_step_is_not_shared_out_while_a_break_on_is_alive(trained):
    with debug.break_on(when=lambda step: False):
        bits, shared = trained()
    assert shared == 0
    assert trained()[0] == bits


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring came with Python 3.12")
def test_a_debugger_that_does_not_trace_is_seen_too():
    sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, "test")
    try:
        assert parallel.debugged()
    finally:
        sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)
    assert not parallel.debugged()
