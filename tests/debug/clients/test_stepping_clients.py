"""F11 under debugpy, with the launch.json that we write; our pdb and ipdb at a terminal. Without the extra `clients`, skipped."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytest.importorskip("debugpy")
pexpect = pytest.importorskip("pexpect")

from editor import Editor  # noqa: E402  # which speaks to debugpy

PROGRAM = """
import numpy as np
import tinygrad_llm as tg
from tinygrad_llm.models.gpt import GPTConfig, GPTModel

ids = np.zeros((1, 4), int)
model = GPTModel(GPTConfig(7, context_length=4, emb_dim=4, n_heads=2, n_layers=12, drop_rate=0.0))
x = tg.Tensor([0.5, -1.0], requires_grad=True, name="x")
loss = tg.ops.cross_entropy(model(ids), targets=ids)
breakpoint()
y = x.tanh()
y.exp().sum().backward()
loss.backward()
print("the end of", tg.__file__)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(params=["checkout", "wheel"])
def python(request):
    """A Python, and what else it is started with, that finds the package in the checkout, or installed from a wheel."""
    if request.param == "checkout":
        return sys.executable, {"PYTHONPATH": str(ROOT)}
    return request.getfixturevalue("installed"), {"PYTHONPATH": ""}


def launch(folder, python, environment):
    """The configuration that --write-vscode writes, as VS Code hands it on."""
    subprocess.run(
        [python, "-m", "tinygrad_llm.debug", "--write-vscode", "."],
        check=True,
        cwd=folder,
        env={**environment, "PATH": ""},
        capture_output=True,
    )
    (configuration,) = json.loads((folder / ".vscode" / "launch.json").read_text())["configurations"]
    for name in ("program", "console"):
        del configuration[name]
    return configuration | {"python": [python], "env": environment}


def test_f11_goes_to_the_maths_and_from_op_to_op(tmp_path, program, python):
    with Editor(program, **launch(tmp_path, *python)) as editor:
        places = [editor.stop()[1][0]]
        for _ in range(100):
            places.append(editor.press("stepIn")[1][0])
            if places[-1][0] == "cross_entropy_backward":
                break
    lines = PROGRAM.splitlines()
    names = [lines[line - 1] if name == "<module>" else name for name, line in places]
    runs = [name for name, before in zip(names, ["", *names], strict=False) if name != before]
    assert runs[runs.index("y = x.tanh()") :] == [
        *("y = x.tanh()", "tanh_forward", "y = x.tanh()"),
        *(
            "y.exp().sum().backward()",
            "exp_forward",
            "y.exp().sum().backward()",
            "sum_forward",
            "y.exp().sum().backward()",
        ),
        *("sum_backward", "spread", "sum_backward", "exp_backward", "tanh_backward", "y.exp().sum().backward()"),
        *("loss.backward()", "cross_entropy_backward"),  # one press in twelve layers
    ]


@pytest.mark.parametrize("prompt", ["(Pdb) ", "ipdb> "])
def test_at_a_terminal(tmp_path, program, python, prompt):
    if prompt == "ipdb> ":
        pytest.importorskip("ipdb")
    else:  # a module that hides the one installed
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "sitecustomize.py").write_text(
            "import importlib.util as u\nfind = u.find_spec\n"
            "u.find_spec = lambda name, *_: None if name == 'ipdb' else find(name)\n"
        )
    program.write_text(PROGRAM.replace("breakpoint()\n", ""))
    executable, environment = python
    path = f"{environment['PYTHONPATH']}:{tmp_path / 'without'}"
    terminal = pexpect.spawn(
        executable,
        ["-m", "tinygrad_llm.debug", str(program)],
        env={"PYTHONPATH": path, "TERM": "dumb", "HOME": str(tmp_path), "PATH": ""},
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    shown = ""

    def press(keys):
        nonlocal shown
        terminal.sendline(keys)
        terminal.expect_exact(prompt)
        shown = re.sub(r"\x1b\[[\d;?]*\w", "", terminal.before)

    terminal.expect_exact(prompt)
    press("tbreak 11")
    press("c")
    assert ".backward()" in shown
    for function in ("exp_forward", "exp_forward", "sum_forward", "sum_backward"):
        press("s")
        assert function in shown
    press("r")
    press("s")
    assert "exp_backward" in shown
    terminal.sendline("q")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
