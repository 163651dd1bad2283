"""break_on in a Jupyter kernel and under debugpy, both of them real. Without the extra `clients`, skipped."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytest.importorskip("debugpy")
client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")

from editor import Editor  # noqa: E402  # which speaks to debugpy

PROGRAM = """
import tinygrad_llm as tg
from tinygrad_llm import debug

x = tg.Tensor([0.5, -1.0], requires_grad=True, name="x")
loss = x.tanh().exp().sum()
with debug.break_on(op="tanh"):
    loss.backward()
with debug.break_on(op="exp", forward=True):
    x.exp().tanh()
x.tanh().exp().sum().backward()  # nobody watches
print("the end of", tg.__file__, x.grad)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def opens_in_both(editor):
    reason, stack, found = editor.stop()
    assert reason == "function breakpoint"
    functions = [function for function, _ in stack]
    assert functions[: functions.index("<module>") + 1] == ["tanh_backward", "backward_steps", "backward", "<module>"]
    assert found == ["g", "y"]
    reason, stack, found = editor.press("continue")
    assert [function for function, _ in stack][:2] == ["exp_forward", "__call__"]
    assert found == ["x"]
    assert editor.press("continue") is None
    assert "UserWarning" not in editor.printed
    assert "the end of" in editor.printed


@pytest.mark.parametrize("just_my_code", [True, False])
def test_vscode_opens_in_the_op_of_a_checkout(program, just_my_code):
    environment = {"PYTHONPATH": str(ROOT)}
    with Editor(program, python=[sys.executable], justMyCode=just_my_code, env=environment) as editor:
        opens_in_both(editor)


def test_vscode_opens_in_the_op_of_a_wheel(program, installed):
    with Editor(program, python=[installed], justMyCode=False, env={"PYTHONPATH": ""}) as editor:
        opens_in_both(editor)
        assert "site-packages" in editor.printed


def test_vscode_by_default_passes_through_a_wheel_and_we_say_so(program, installed):
    with Editor(program, python=[installed], env={"PYTHONPATH": ""}) as editor:
        assert editor.stop() is None
        assert 'and so tanh_backward: set "justMyCode": false in launch.json' in editor.printed
        assert "and so exp_forward" in editor.printed
        assert "site-packages" in editor.printed


def test_an_op_of_ones_own_is_stopped_in_by_default(tmp_path, installed):
    program = tmp_path / "own.py"
    program.write_text(
        "import tinygrad_llm as tg\nfrom tinygrad_llm import debug\n"
        "def twice_forward(x):\n    return 2 * x, ()\n\n"
        "def twice_backward(g):\n    return (2 * g,)\n\n"
        "twice = tg.Op(twice_forward, twice_backward)\n"
        "with debug.break_on(op='twice'):\n    twice(tg.Tensor([1.0], True)).sum().backward()\n"
    )
    with Editor(program, python=[installed], env={"PYTHONPATH": ""}) as editor:
        assert editor.stop()[1][0] == ("twice_backward", 6)


@pytest.fixture(scope="module")
def kernel():
    with client.manager.run_kernel() as kernel:
        yield kernel


def cell(kernel, code, typed=()):
    """Its status and what it shows, with a line of `typed` where it asks for input."""
    typed, shown = list(typed), []

    def show(message):
        content = message["content"]
        text = content.get("text") or content.get("data", {}).get("text/plain")
        shown.append(text or "".join(content.get("traceback", ())))

    reply = kernel.execute_interactive(
        code, allow_stdin=True, stdin_hook=lambda _: kernel.input(typed.pop(0)), output_hook=show, timeout=60
    )
    assert typed == []
    return reply["content"]["status"], re.sub(r"\x1b\[[\d;]*m", "", "".join(shown))


def test_a_notebook_opens_in_the_op(kernel):
    section = (ROOT / "examples" / "README.md").read_text().split("### Jupyter\n")[1]
    first, second = re.findall(r"^```python(?: no-run)?\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[:2]
    assert "break_on" in second
    assert cell(kernel, first)[0] == "ok"
    status, shown = cell(kernel, second, ["a", "p y", "c"])
    assert status == "ok"
    assert "tanh_backward" in shown
    shown = " ".join(shown.split())
    assert "g = array([1.5874313 , 0.46692145], dtype=float32)" in shown  # e^tanh x
    assert shown.count("array([ 0.4621172, -0.7615942], dtype=float32)") == 2  # tanh x: `a` and `p y`
    cell(kernel, second, ["q"])
    status, shown = cell(kernel, "import sys; sys.gettrace(), x.grad")
    assert (status, shown.count("array")) == ("ok", 1)
    assert "(None, array([" in shown


def test_set_trace_opens_pdb_in_a_notebook(kernel):
    code = "import tinygrad_llm as tg\ntg.debug.set_trace()\nnumber = 3\n"
    status, shown = cell(kernel, code, ["p 40 + 2", "c"])
    assert status == "ok"
    assert "number" in shown
    assert "42\n" in shown


def test_a_notebook_opens_before_a_forward_and_says_what_matched_nothing(kernel):
    cell(kernel, "import tinygrad_llm as tg\nfrom tinygrad_llm import debug\nx = tg.Tensor([0.5, -1.0], True)")
    status, shown = cell(kernel, "with debug.break_on(op='exp', forward=True): x.exp()", ["p x", "c"])
    assert status == "ok"
    assert "exp_forward" in shown
    assert "array([ 0.5, -1. ], dtype=float32)" in shown
    status, shown = cell(kernel, "with debug.break_on(name='tan'): x.tanh().sum().backward()")
    assert status == "ok"
    assert "matches name='tan'; the nearest: tanh" in shown
