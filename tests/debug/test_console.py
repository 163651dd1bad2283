"""The console of `tinygrad-llm step`."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.cli import main
from tinygrad_llm.debug.console import Console


def session(loss, *lines):
    out = io.StringIO()
    console = Console(loss, io.StringIO("\n".join(lines) + "\n"), out)
    console.cmdloop()
    return out.getvalue().split("(step) ")


def twice_squared():
    """(2 a)² at a = 2."""
    a = tg.Tensor(2.0, requires_grad=True, name="a")
    b = a + a
    return b * b


def test_a_walk_over_two_steps():
    loss = twice_squared()
    intro, first, check, again, last, through, done, *_ = session(
        loss, "next", "check", "list", "", "next", "grad", "next"
    )
    assert intro.startswith("Loss 16, 2 steps back")
    assert "  -> add#1: () 4." in first
    assert first.startswith("1/2  multiply#1\n  dx = g y = 1 * 4 = 4,  dy = g x = 1 * 4 = 4\n")
    assert check.startswith("ok: multiply#1, 2 derivatives measured")
    assert again == ">    1 multiply#1\n     2 add#1, b\n"
    assert last.startswith("2/2  add#1, b\n")
    assert "-> a: () 8." in last
    assert "through" in through
    assert done == "a: () 16., 8 + 8 from add#1\n"


def test_micrograd_s_own_example_with_variables_data_and_both_parts_of_each_gradient():
    a = tg.Tensor(2.0, requires_grad=True)
    b = a + a
    c = b * b
    _, first, last, parts, _, leaf, _ = session(c, "next", "next", "grad g", "next", "grad")
    assert first.splitlines() == [
        "1/2  multiply#1, c",
        "  dx = g y = 1 * 4 = 4,  dy = g x = 1 * 4 = 4",
        "  x = b: () 4.",
        "  y = b: () 4.",
        "  out: () 16.",
        "  g (), |g| 1",
        "  -> add#1: () 4.",
        "  -> add#1 as y: () 4.",
    ]
    assert last.splitlines() == [
        "2/2  add#1, b",
        "  dx = g = 8,  dy = g = 8",
        "  x = a: () 2.",
        "  y = a: () 2.",
        "  out: () 4.",
        "  g (), |g| 8, 4 + 4 from multiply#1",
        "  -> a: () 8.",
        "  -> a as y: () 8.",
    ]
    assert parts == "g: () 8., 4 + 4 from multiply#1\n"
    assert leaf == "a: () 16., 8 + 8 from add#1\n"
    assert a.grad == 16


def test_parts_of_a_fused_op_stand_together_and_a_branch_not_taken_is_passed_over():
    x = tg.Tensor([[0.5, 1.0, 2.0]], True)
    with tg.composed():
        y = tg.ops.sigmoid(x)
    _, listed, *shown = session((y * x).sum(), "list", *["next"] * 6, "until where#2")
    assert [line.strip() for line in listed.splitlines()][:4] == [
        "1 sum#1",
        "2 multiply#1",
        "sigmoid#1: 6 steps",
        "3 divide#1, y",
    ]
    assert "  in sigmoid#1, unfused.py:" in shown[2]
    assert " in sigmoid: return ops.where(e, 1.0, condition=negative) / (1 + e)\n" in shown[2]
    assert shown[4].startswith(
        "passed over, as nothing but zeros is passed on: where#2\n6/8  exp#1\n"
    )  # x > 0: 1 is a constant
    assert "summed from add#1 and where#2" in shown[4]
    loss = (y * x).sum()
    assert session(loss, "until where#2")[1].startswith("5/8  where#2\n")  # who asks for it sees it


def test_until_saved_grad_and_what_is_not_there():
    x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True, name="x")
    loss = (x.tanh() * 2).sum().exp()
    _, before, nothing, stop, saved, grad, one, wrong, unknown, number, again, _ = session(
        loss,
        "check",
        "until softmax",
        "until tanh",
        "saved",
        "grad",
        "grad g",
        "grad z",
        "jump",
        "next x",
        "until exp",
        "quit",
    )
    assert "first step" in before
    assert "no step to come is named 'softmax'" in nothing
    assert stop.startswith("4/4  tanh#1")
    assert "y: (3,) [0.7616, 0.964 , 0.9951]" in saved
    assert grad.count("\n") == 2
    assert one.startswith("g: (3,)")
    assert "there are g, x" in wrong
    assert "no command 'jump'" in unknown
    assert "a number of steps" in number
    assert "no step to come" in again


def test_what_the_forward_saved_takes_a_line_each():
    x = tg.Tensor(np.ones((1, 12, 8), np.float32), True)
    _, shown, saved, _ = session(tg.ops.attention(x, x, x, n_heads=2).sum(), "next 2", "saved", "quit")
    assert shown.startswith("2/2  attention#1")
    kept = tg.ops.attention(x, x, x, n_heads=2).node.saved
    assert [line.partition(":")[0] for line in saved.splitlines()] == [
        *("queries", "keys", "values", "hidden", "y", "lse", "group"),
        *("P", "dP", "dS"),
    ]
    assert len(kept) == 8  # and the blocks of P


def test_the_matrices_of_attention_by_hand():
    rng = np.random.default_rng(3)
    q, k, v = (rng.standard_normal((2, 3, 4)) for _ in range(3))
    g = rng.standard_normal((2, 3, 4))
    loss = (tg.ops.attention(*(tg.Tensor(a, True) for a in (q, k, v)), n_heads=2, causal=False) * g).sum()
    _, other, _, first, second, none, _ = session(
        loss, "attention", "next 3", "attention", "attention 1", "attention 2", "quit"
    )
    assert "`next` makes" in other
    for shown, head in ((first, slice(0, 2)), (second, slice(2, 4))):
        s = q[0, :, head] @ k[0, :, head].T / np.sqrt(2)
        p = np.exp(s) / np.exp(s).sum(1, keepdims=True)
        dp = g[0, :, head] @ v[0, :, head].T
        ds = p * (dp - (dp * p).sum(1, keepdims=True))
        found = re.split(r"d?[PS] \(3, 3\)", shown.translate(str.maketrans("[]", "  ")))[1:]
        for text, expected in zip(found, (p, dp, ds), strict=True):
            np.testing.assert_allclose(np.array(text.split(), float).reshape(3, 3), expected, atol=6e-4)
    assert none == "attention#1 has no head 2\n"


def test_html_writes_the_walk_and_leaves_it_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loss = twice_squared()
    _, _, page, other, folder, here, _ = session(loss, "next", "html", "html other.html", "html .", "list", "quit")
    assert page.startswith(f"{tmp_path / 'report.html'}: 2 backward steps, 2 agree")
    assert "other.html" in other
    assert "is a folder" in folder
    assert here.startswith(">    1 multiply#1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "report.html"]


def test_completion():
    loss = tg.Tensor([1.0, 2.0], requires_grad=True).tanh().sum().exp()
    console = Console(loss, io.StringIO(), io.StringIO())
    assert console.complete_until("", "until ", 6, 6) == ["exp#1", "sum#1", "tanh#1"]
    assert console.complete_until("ta", "until ta", 6, 8) == ["tanh#1"]
    assert "check" in console.completenames("ch")
    for name in ("next", "until", "check", "grad", "saved", "list", "html", "quit"):
        assert getattr(console, f"do_{name}").__doc__.startswith(name)


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "tinygrad_llm", "step"]
    done = subprocess.run(
        command, input="next\nuntil *.0.att.attention\ncheck\nquit\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "trf_blocks.0.att.attention#1" in done.stdout
    assert "ok: trf_blocks.0.att.attention#1" in done.stdout
    assert done.stderr == ""


def test_the_command_on_a_run_and_composed(tmp_path, monkeypatch, capsys):
    from tinygrad_llm.models.gpt import GPTConfig, GPTModel
    from tinygrad_llm.runs.folder import save_model, start_run
    from tinygrad_llm.text import BPETokenizer

    tokenizer = BPETokenizer.train("the cat and the hat and the bat", 262)
    model = GPTModel(GPTConfig(tokenizer.vocab_size, 8, 16, 2, 1), rng=tg.rng.Generator(5))
    start_run(tmp_path / "run", {"model": model.config.to_dict(), "training": {}, "files": []}, tokenizer)
    save_model(tmp_path / "run", model)
    monkeypatch.setattr(sys, "stdin", io.StringIO("list *att.exp*\nquit\n"))
    assert main(["step", str(tmp_path / "run"), "--prompt", "the cat and the hat", "--composed"]) == 0
    assert "trf_blocks.0.att.exp#1" in capsys.readouterr().out
    ids = tokenizer.encode("the cat and the hat")[:9]
    model.eval()
    expected = tg.ops.cross_entropy(model([ids[:-1]]), targets=[ids[1:]]).item()
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    main(["step", str(tmp_path / "run"), "--prompt", "the cat and the hat"])
    assert float(capsys.readouterr().out.split()[1].rstrip(",")) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "x"], "two or more"),
        (["no/such/run"], "no run there"),
    ],
)
def test_bad_arguments_get_one_line(arguments, words, capsys):
    assert main(["step", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
