"""What a notebook shows of tensors, modules, steps and checks."""

import base64
import re
import time
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.debug.picture import INFINITE, NEGATIVE, NOT_A_NUMBER, POSITIVE
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.testing import gradcheck

NASTY = "</table><script>alert(1)</script> \" ' &"


class Shown(HTMLParser):
    """Its tags, which must close in order, its text, and the pictures as (rows, cols, red green blue alpha)."""

    def __init__(self, shown):
        super().__init__()
        self.tags, self.text, self.cells, self.images, self._open = [], "", [], [], []
        self.feed(shown._repr_html_())
        self.close()
        assert self._open == []
        assert "script" not in self.tags

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(decode(dict(attributes)["src"]))
        elif tag != "br":
            self._open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self._open:
            self.cells[-1] += data


def decode(address):
    """A PNG with a palette, read by its specification."""
    assert address.startswith("data:image/png;base64,")
    image, parts = base64.b64decode(address.partition(",")[2]), {}
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    k = 8
    while k < len(image):
        n = int.from_bytes(image[k : k + 4], "big")
        kind, body = image[k + 4 : k + 8], image[k + 8 : k + 8 + n]
        assert int.from_bytes(image[k + 8 + n : k + 12 + n], "big") == zlib.crc32(kind + body)
        parts[kind], k = body, k + 12 + n
    cols, rows = (int.from_bytes(parts[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    assert parts[b"IHDR"][8:] == bytes([8, 3, 0, 0, 0])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(rows, cols + 1)
    assert not lines[:, 0].any()
    palette = np.concatenate(
        [np.frombuffer(parts[b"PLTE"], np.uint8).reshape(-1, 3), np.frombuffer(parts[b"tRNS"], np.uint8)[:, None]],
        axis=1,
    )
    return palette[lines[:, 1:]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 4), (2, 2, 3), (8, 8)])
def test_few_values_are_written(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    shown = Shown(tg.Tensor(x, True, NASTY))
    np.testing.assert_allclose([float(cell) for cell in shown.cells], x.ravel(), rtol=1e-3)
    assert f"Tensor({shape} float32" in shown.text
    assert shown.images == []


def test_many_values_are_drawn():
    x = np.random.default_rng(0).standard_normal((3, 4, 30)).astype(np.float32)
    x[0, 1, 2], x[2, 3, 4] = np.nan, -np.inf
    (image,) = Shown(tg.Tensor(x)).images
    assert image.shape == (12, 30, 4)
    flat = x.reshape(12, 30)
    assert tuple(image[1, 2]) == (*NOT_A_NUMBER, 255)
    assert tuple(image[11, 4]) == (*INFINITE, 255)
    finite = np.isfinite(flat)
    largest = np.abs(flat[finite]).max()
    for r, c in np.argwhere(finite & (np.abs(flat) > 1e-3)):
        assert tuple(image[r, c, :3]) == (POSITIVE if flat[r, c] > 0 else NEGATIVE)
        assert image[r, c, 3] == pytest.approx(255 * np.sqrt(abs(flat[r, c]) / largest), abs=3)


def test_a_large_tensor_is_sampled_and_says_so():
    x = np.zeros((5025, 768), np.float32)
    x[0, 0], x[-1, -1] = 1, -1
    tensor = tg.Tensor(x)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        shown = Shown(tensor)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5
    assert len(tensor._repr_html_()) < 10_000
    assert shown.images[0].shape == (64, 64, 4)
    assert tuple(shown.images[0][0, 0]) == (*POSITIVE, 255)
    assert tuple(shown.images[0][-1, -1]) == (*NEGATIVE, 255)
    assert not shown.images[0][1:-1, :, 3].any()
    assert "64 x 64 of 5,025 x 768 elements" in shown.text


@pytest.mark.parametrize(
    "data", [np.zeros((0, 3)), np.zeros((3, 0)), np.arange(3), np.ones((9, 9), bool), np.ones(2, complex)]
)
def test_other_tensors(data):
    assert f"Tensor({data.shape} {data.dtype}" in Shown(tg.Tensor(data)).text


def test_values_that_are_not_finite_are_written():
    shown = Shown(tg.Tensor([np.nan, np.inf, -np.inf, 0.0]))
    assert shown.cells == ["nan", "inf", "-inf", "0"]


def test_a_module_is_a_tree():
    model = GPTModel(GPTConfig(23, 8, 16, 2, 1))
    shown = Shown(model)
    assert f"GPTModel {model.n_parameters():,} parameters" in " ".join(shown.text.split())
    assert shown.tags.count("details") == sum(1 for _, m in model.named_modules() if any(True for _ in m.parameters()))
    for name, parameter in model.named_parameters():
        assert f"{name.rpartition('.')[2]} {parameter.shape} float32" in shown.text
    setattr(model, NASTY, tg.nn.GELU())
    assert NASTY in Shown(model).text


def test_a_step_has_its_arrays():
    x = tg.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3), True, NASTY)
    (_, step) = list(tg.ops.softmax(x, axis=-1)[0, 1].backward_steps(retain_graph=True))
    shown = Shown(step)
    assert step.name in shown.text
    assert step.formula in shown.text
    assert "test_notebook.py" in shown.text
    assert [tuple(shown.cells[5 * k : 5 * k + 3]) for k in range(3)] == [
        ("x", "goes in", "(2, 3)"),
        ("out", "comes out", "(2, 3)"),
        ("g", "arrives", "(2, 3)"),
    ]
    assert NASTY in shown.cells
    names = [name for name in step.saved if isinstance(step.saved[name], np.ndarray)]
    assert set(names) <= set(shown.cells)
    assert len(shown.images) == 4 + len(names)


def test_a_step_has_the_numbers_of_its_formula_and_attention_its_matrices():
    a = tg.Tensor(2.0, True)
    b = a + a
    c = b * b
    shown = Shown(next(c.backward_steps()))
    assert shown.text.startswith("multiply#1, c")
    assert "dx = g y = 1 * 4 = 4,  dy = g x = 1 * 4 = 4" in shown.text
    assert shown.cells[10:14] == ["c", "comes out", "()", "16."]
    x = tg.Tensor(np.ones((1, 3, 8), np.float32), True)
    shown = Shown(next(tg.ops.attention(x, x, x, n_heads=2).backward_steps(np.ones((1, 3, 8)))))
    where = shown.cells.index("inside head 1")
    assert (shown.cells[where - 1], shown.cells[where + 1]) == ("P", "(3, 3)")
    rows = np.array(re.findall(r"[\d.]+", shown.cells[where + 2]), float).reshape(3, 3)
    np.testing.assert_allclose(rows, [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]], atol=1e-4)


def test_a_gradcheck_has_its_verdict_and_worst_entries(monkeypatch):
    from tinygrad_llm.engine import Op

    monkeypatch.setattr(Op, "registry", dict(Op.registry))
    monkeypatch.setattr("tinygrad_llm.engine.registry", Op.registry)
    right = Shown(gradcheck(tg.ops.tanh, np.array([0.5, 1.0])))
    assert right.text.startswith("✓ gradcheck of tanh: 6 derivatives agree")
    assert right.cells == []

    def cube_forward(x):
        return x**3, (x,)

    def cube_backward(g, x):
        return (2 * g * x**2,)

    result = gradcheck(Op(cube_forward, cube_backward), np.arange(1.0, 13.0), raise_on_failure=False)
    wrong = Shown(result)
    assert wrong.text.startswith("✗ gradcheck of cube: wrong gradient")
    assert len(wrong.cells) == 8 * 6
    worst = result.mismatches[0]
    assert wrong.cells[:3] == [worst.argument, str(list(worst.index)), str(worst.output)]
    assert float(wrong.cells[3]) == pytest.approx(worst.analytic)
    assert float(wrong.cells[4]) == pytest.approx(worst.numeric)
    assert f"and {len(result.mismatches) - 8} more" in wrong.text
    kink = Shown(gradcheck(tg.ops.relu, np.array([0.0, 1.0])))
    assert "kink" in kink.cells


def test_what_debugging_gives_and_an_optimizer_are_tables():
    model = GPTModel(GPTConfig(23, 8, 16, 2, 1))
    ids = np.arange(16).reshape(2, 8)
    _, cache = model.run_with_cache(ids, grads=True)
    cache.arrays[NASTY] = np.full((2, 3), np.nan)
    shown = Shown(cache)
    assert [cell for cell in shown.cells[::5] if cell] == list(cache)
    assert len(shown.images) == len(cache) + len(cache.grads)
    assert "[nan, nan, nan]" in shown.text
    loss = (model(ids) * 2).sum()
    rows = tg.debug.explain(loss)
    shown = Shown(rows)
    assert len(shown.cells) == 8 * len(rows)
    assert [cell.partition(",")[0] for cell in shown.cells[2::8]] == [row.name for row in rows]
    assert shown.cells[2] == "sum#1, loss"
    shown = Shown(next(loss.backward_steps()).walk)
    assert shown.cells[::3] == [row.name for row in rows]
    assert f"Walk of {len(rows)} nodes" in shown.text
    optimizer = tg.optim.AdamW(tg.optim.decay_groups(model.parameters()), lr=0.5, weight_decay=0.25)
    shown = Shown(optimizer)
    numbers = [f"{sum(p.size for p in group['params']):,}" for group in optimizer.param_groups]
    assert shown.cells[1::6] == numbers
    assert shown.cells[5::6] == ["0.25", "0.0"]
    assert "and 50 more" in Shown(tg.debug.Explanation(list(rows)[:1] * 150)).text
