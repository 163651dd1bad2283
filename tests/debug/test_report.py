"""The page that `debug.report` writes, read as a browser would: every figure on it against the arrays it is of."""

import base64
import json
import math
import os
from html.parser import HTMLParser

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import debug
from tinygrad_llm.cli import main
from tinygrad_llm.debug import report_steps, report_text
from tinygrad_llm.engine import Op
from tinygrad_llm.errors import ConfigError, DataError, GraphError, ShapeError, StorageError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.text import BPETokenizer

NASTY = "</script ><script>alert(1)</script><!-- \" ' & \u2028 \x01"
IDS = np.random.default_rng(0).integers(0, 257, (1, 9))


class Page(HTMLParser):
    """The elements of a page, and what its scripts hold."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.scripts, self._in_script = [], [], False
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        self.close()
        self.size = len(text.encode())
        (island,) = [content for attributes, content in self.scripts if attributes.get("id") == "data"]
        assert "<" not in island  # a browser ends the script at "</script " too, which this parser lets pass
        self.data = json.loads(island, parse_constant=pytest.fail)  # NaN is no JSON

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data):
        if self._in_script:
            attributes, content = self.scripts[-1]
            self.scripts[-1] = (attributes, content + data)

    def notes(self):
        return " ".join(self.data["notes"])


def make_model(**changes):
    config = {"vocab_size": 257, "context_length": 8, "emb_dim": 16, "n_heads": 2, "n_layers": 2, "drop_rate": 0.0}
    return GPTModel(GPTConfig(**config | changes), rng=tg.rng.Generator(1))


def loss_of(model, ids=IDS):
    return tg.ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:])


def number(x):
    return {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf}.get(x, x)


def values_of(picture):
    """The cells of a picture, by the formula in debug/picture.py."""
    codes = np.frombuffer(base64.b64decode(picture["cells"]), np.uint8).reshape(picture["rows"], picture["cols"])
    steps = codes.astype(float) - 129
    values = np.sign(steps) * (steps / 126) ** 2 * picture["scale"]
    values[codes == 0], values[codes == 1], values[codes == 2] = np.nan, -np.inf, np.inf
    return values


def assert_shows(picture, array):
    """Figures of the whole array; in each cell the element of largest magnitude, as near as a byte can be."""
    assert picture["shape"] == list(array.shape)
    assert picture["dtype"] == str(array.dtype)
    exact = array.astype(np.float64)
    finite = exact[np.isfinite(exact)]
    assert picture["nan"] == np.isnan(exact).sum()
    assert picture["inf"] == np.isinf(exact).sum()
    if finite.size:
        assert picture["min"] == pytest.approx(finite.min(), rel=1e-5)
        assert picture["max"] == pytest.approx(finite.max(), rel=1e-5)
        assert picture["mean"] == pytest.approx(finite.mean(), rel=1e-5, abs=1e-9 * np.abs(finite).max())
    np.testing.assert_allclose(number(picture["norm"]), math.sqrt((exact**2).sum()), rtol=1e-5)
    if array.size <= 16:
        np.testing.assert_allclose([number(v) for v in picture["values"]], exact.ravel(), rtol=1e-5)
    flat = exact.reshape(-1, array.shape[-1] if array.ndim else 1)
    shown, scale = values_of(picture), picture["scale"] or 1.0
    rows, cols = shown.shape
    for r in range(rows):
        for c in range(cols):
            block = flat[
                r * len(flat) // rows : (r + 1) * len(flat) // rows,
                c * flat.shape[1] // cols : (c + 1) * flat.shape[1] // cols,
            ]
            if np.isnan(block).any():
                assert np.isnan(shown[r, c])
            elif np.isinf(block).any():
                assert np.isinf(shown[r, c])
            else:
                largest = np.abs(block).max()
                assert abs(abs(shown[r, c]) - largest) <= scale * (math.sqrt(largest / scale) / 126 + 1e-4)
                if abs(shown[r, c]) > 1e-4 * scale:
                    assert np.sign(shown[r, c]) * largest in block


def test_every_step_and_array_of_a_gpt(tmp_path):
    model = make_model()
    written = debug.report(loss_of(model), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    data, arrays = page.data, page.data["arrays"]
    loss = loss_of(model)
    assert data["loss"] == pytest.approx(loss.item(), rel=1e-5)
    n = 0
    for shown, step in zip(data["steps"], loss.backward_steps(retain_graph=True, into={}), strict=True):
        n += 1
        assert (shown["i"], shown["name"], shown["op"]) == (step.i, step.name, step.op)
        assert data["ops"][step.op]["backward"] == step.formula
        assert step.formula in data["ops"][step.op]["source"]
        assert f"def {step.op}_backward(" in data["ops"][step.op]["source"]
        assert data["modules"][shown["module"]]["path"] + "." == (step.name.rpartition(".")[0] or "") + "."
        assert (shown["file"], shown["function"]) == (__file__, "loss_of")
        assert shown["code"].startswith("return tg.ops.cross_entropy(model(")
        if step.name.endswith("W_key.linear#1"):
            assert shown["layer"]["place"].endswith("in Linear.forward")
            assert shown["layer"]["code"].startswith("return ops.linear(x, self.weight, self.bias)")
        assert (shown["layer"] is None) == (step.name == "cross_entropy#1")
        assert (shown["verdict"], "Finite differences agree" in shown["check"]) == ("ok", True)
        assert shown["norm"] == pytest.approx(np.linalg.norm(step.grad_out), rel=1e-4)
        assert_shows(arrays[shown["g"]], step.grad_out)
        assert shown["worked"] == (step.worked if len(step.worked) <= 300 else step.worked[:299] + "…")
        assert shown["label"] == step.name.rpartition(".")[2]
        assert (shown["variable"], shown["twin"]) == ("", None)
        assert [item["name"] for item in shown["args"]] == list(step.args)
        for item, array in zip(shown["args"], step.args.values(), strict=True):
            assert_shows(arrays[item["array"]], array)
        assert_shows(arrays[shown["result"]], step.out)
        kept = {name: value for name, value in step.saved.items() if name != "probabilities"}  # which heads show
        assert len(shown["heads"]) == (2 if step.op == "attention" else 0)
        saved = {item["name"]: item for item in shown["saved"]}
        assert list(saved) == list(kept)[:8]
        for name, value in list(kept.items())[:8]:
            if isinstance(value, np.ndarray):
                assert_shows(arrays[saved[name]["array"]], value)
            else:
                assert saved[name]["text"]
        gradients = list(step.inputs.values())
        assert [out["to"] for out in shown["out"]] == [name.split(" as ")[0] for name in step.inputs]
        for out, gradient in zip(shown["out"], gradients, strict=True):
            assert_shows(arrays[out["array"]], gradient)
            if "step" in out:
                assert data["steps"][out["step"]]["name"] == out["to"]
                assert shown["i"] in [data["steps"][k]["i"] for k in data["steps"][out["step"]]["senders"]]
            else:
                assert data["leaves"][out["leaf"]]["name"] == out["to"]
    assert (written.steps, written.shown, written.verdicts, data["n"]) == (n, n, {"ok": n}, n)
    assert written.bytes == page.size == os.path.getsize(tmp_path / "report.html")
    loss.backward()
    norms = {leaf["name"]: leaf["norm"] for leaf in data["leaves"]}
    assert set(norms) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert norms[name] == pytest.approx(np.linalg.norm(parameter.grad), rel=1e-4)
    assert sum(module["ops"] for module in data["modules"]) == n
    assert not any(module["left_out"] for module in data["modules"])


def test_micrograd_s_own_example(tmp_path):
    a = tg.Tensor(2.0, requires_grad=True)
    b = a + a
    c = b * b
    debug.report(c, tmp_path / "a.html")
    data = Page(tmp_path / "a.html").data
    first, second = data["steps"]

    def value(k):
        return data["arrays"][k]["values"][0]

    assert (first["variable"], first["worked"]) == ("c", "dx = g y = 1 * 4 = 4,  dy = g x = 1 * 4 = 4")
    assert (second["variable"], second["worked"]) == ("b", "dx = g = 8,  dy = g = 8")
    assert [(item["name"], item["variable"], value(item["array"])) for item in first["args"]] == [
        ("x", "b", 4),
        ("y", "b", 4),
    ]
    assert [(item["name"], item["variable"], value(item["array"])) for item in second["args"]] == [
        ("x", "a", 2),
        ("y", "a", 2),
    ]
    assert (value(first["result"]), value(second["result"])) == (16, 4)
    assert (value(first["g"]), value(second["g"])) == (1, 8)
    assert [value(out["array"]) for out in first["out"]] == [4, 4]
    assert [(out["to"], value(out["array"])) for out in second["out"]] == [("a", 8), ("a", 8)]
    assert [(leaf["name"], leaf["norm"]) for leaf in data["leaves"]] == [("a", 16)]


def test_the_matrices_of_attention_are_those_of_the_model(tmp_path):
    """Beside the activations of a run: P and dP of each head, dropped weights and all, and dS by the formula."""
    model = make_model(drop_rate=0.3)
    tg.manual_seed(7)
    loss = loss_of(model)
    debug.report(loss, tmp_path / "a.html")
    page = Page(tmp_path / "a.html").data
    tg.manual_seed(7)
    _, cache = model.run_with_cache(
        IDS[:, :-1], names="*.att.weights", grads=True, loss=lambda y: tg.ops.cross_entropy(y, targets=IDS[:, 1:])
    )
    n = 0
    for step in page["steps"]:
        for h, head in enumerate(step["heads"]):
            name = step["name"].replace("attention#1", "weights")
            p, dp = cache[name][0, h], cache.grads[name][0, h]
            assert list(head) == ["P", "dP", "dS"]
            for key, expected in (("P", p), ("dP", dp), ("dS", p * (dp - (p * dp).sum(-1, keepdims=True)))):
                picture = page["arrays"][head[key]]
                np.testing.assert_allclose(values_of(picture), expected, atol=0.02 * np.abs(expected).max())
            n += 1
    assert n == 4


def test_matrices_that_are_too_large_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.debug.attention._ELEMENTS", 2 * 8 * 8 - 1)
    debug.report(loss_of(make_model()), tmp_path / "a.html")
    assert not any(step["heads"] for step in Page(tmp_path / "a.html").data["steps"])


def test_small_ops_are_in_the_box_of_the_fused_op_that_they_came_from(tmp_path):
    x = tg.Tensor([[1.0, 2.0, 3.0]], True)
    norm = tg.nn.LayerNorm(3)
    with tg.composed():
        y = tg.ops.sigmoid(norm(x))
        loss = y.sum()
    debug.report(loss, tmp_path / "a.html")
    data = Page(tmp_path / "a.html").data
    boxes = {module["path"]: module["ops"] for module in data["modules"]}
    assert boxes.keys() == {"", "sigmoid#1", "layer_norm#1"}
    last = next(step for step in data["steps"] if step["variable"] == "y")
    assert (last["op"], data["modules"][last["module"]]["path"], last["label"]) == ("divide", "sigmoid#1", last["name"])
    assert last["twin"]["code"] == "return ops.where(e, 1.0, condition=negative) / (1 + e)"
    assert last["twin"]["place"].endswith("in sigmoid")
    assert last["code"] == "y = tg.ops.sigmoid(norm(x))"
    inner = next(step for step in data["steps"] if step["op"] == "sqrt")
    assert inner["layer"]["code"].startswith("return ops.layer_norm(")
    assert inner["twin"]["code"] == "y = scale * (centered / (variance + eps).sqrt())"
    with tg.composed():
        y = tg.ops.sigmoid(tg.Tensor([1.0, 2.0], True))
    debug.report(y.sum(), tmp_path / "b.html")
    data = Page(tmp_path / "b.html").data
    assert {module["path"]: module["ops"] for module in data["modules"]} == {
        "": 1,
        "sigmoid#1": 5,
        "sigmoid#1.only zeros": 1,
    }
    assert [data["modules"][step["module"]]["path"] for step in data["steps"] if step["op"] == "where"] == [
        "sigmoid#1.only zeros",
        "sigmoid#1",
    ]


def test_the_page_needs_nothing_from_anywhere(tmp_path):
    debug.report(loss_of(make_model()), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    addresses = [v for _, attributes in page.tags for k, v in attributes.items() if k in ("src", "href", "action")]
    assert addresses == ["data:,"]
    (policy,) = [a["content"] for tag, a in page.tags if "http-equiv" in a]
    assert "default-src 'none'" in policy
    script = page.scripts[-1][1]
    assert not [
        word
        for word in ("innerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "XMLHttp")
        if word in script
    ]
    assert script.count("http") == script.count("http://www.w3.org/2000/svg") == 1  # the name of SVG


def test_the_graph_can_be_walked_after_and_grads_are_left_alone(tmp_path):
    one, other = make_model(drop_rate=0.2), make_model(drop_rate=0.2)
    tg.manual_seed(4)
    loss = loss_of(one)
    debug.report(loss, tmp_path / "a.html", model=one, ids=IDS)
    assert one.training
    assert all(parameter.grad is None for parameter in one.parameters())
    loss.backward()
    later = loss_of(one).item()
    tg.manual_seed(4)
    loss_of(other).backward()
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)
    assert later == loss_of(other).item()  # no random number was drawn for the report


def test_what_a_model_makes_of_a_text(tmp_path):
    model, tokenizer = make_model(), BPETokenizer([])
    ids = np.array(tokenizer.encode("a <b>\n\x1b"))
    debug.report(loss_of(model, ids[None]), tmp_path / "a.html", model=model, ids=ids, tokenizer=tokenizer)
    text = Page(tmp_path / "a.html").data["text"]
    logits = model(ids[None, :-1]).data[0].astype(np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(text["losses"], -np.log(p[np.arange(len(p)), ids[1:]]), rtol=1e-4)
    assert text["mean"] == pytest.approx(np.mean(text["losses"]), rel=1e-4)
    assert [text["tokens"][str(i)] for i in text["ids"]] == ["a", "·", "<", "b", ">", "\\n", "\\x1b"]
    _, cache = model.run_with_cache(ids[None, :-1], names="*.att.weights")
    assert [layer["layer"] for layer in text["attention"]] == ["trf_blocks.0", "trf_blocks.1"]
    for layer in text["attention"]:
        weights = cache[f"{layer['layer']}.att.weights"][0]
        assert len(layer["heads"]) == 2
        for head, expected in zip(layer["heads"], weights, strict=True):
            n = len(ids) - 1
            found = values_of({"cells": head, "rows": n, "cols": n, "scale": 1.0})
            np.testing.assert_allclose(found, expected, atol=0.005)
    # the last block is the model itself; the first goes through norm and head, here by hand
    _, cache = model.run_with_cache(ids[None, :-1], names="trf_blocks.0")
    x = cache["trf_blocks.0"][0].astype(np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    early = (x * model.final_norm.scale.data + model.final_norm.shift.data) @ model.out_head.weight.data.T
    early = np.exp(early) / np.exp(early).sum(-1, keepdims=True)
    for row, expected in zip(text["lens"], (early, p), strict=True):
        for candidates, q in zip(row, expected, strict=True):
            assert [i for i, _ in candidates] == np.argsort(-q)[:3].tolist()
            np.testing.assert_allclose([x for _, x in candidates], np.sort(q)[::-1][:3], rtol=1e-3)


def test_a_long_text_is_cut_where_the_page_says(tmp_path, monkeypatch):
    monkeypatch.setattr(report_text, "_TOKENS", 20)
    model = make_model(context_length=100)
    ids = np.random.default_rng(1).integers(0, 257, (1, 91))
    debug.report(loss_of(model, ids), tmp_path / "a.html", model=model, ids=ids)
    text = Page(tmp_path / "a.html").data["text"]
    assert (len(text["ids"]), len(text["losses"]), text["looked_at"]) == (21, 20, 64)
    assert len(text["lens"][0]) == 64
    assert text["mean"] == pytest.approx(loss_of(model, ids).item(), rel=1e-4)  # of all of them
    assert "has 91 tokens; the losses of the first 20" in text["notes"][0]
    assert "the first 64 of 90 tokens" in text["notes"][1]


def test_checkpointed_blocks_are_on_the_page(tmp_path):
    model = make_model(drop_rate=0.1)
    model.checkpoint_blocks = True
    found = debug.report(loss_of(model), tmp_path / "a.html", model=model, ids=IDS)
    page = Page(tmp_path / "a.html")
    assert found.verdicts == {"ok": found.steps}
    blocks = [step for step in page.data["steps"] if step["op"] == "checkpoint"]
    assert [step["name"] for step in blocks] == ["trf_blocks.1.checkpoint#1", "trf_blocks.0.checkpoint#1"]
    names = [name for name, _ in model.trf_blocks[1].named_parameters()]
    assert [out["to"] for out in blocks[0]["out"]][1:8] == [f"trf_blocks.1.{name}" for name in names[:7]]
    model.checkpoint_blocks = False
    debug.report(loss_of(model), tmp_path / "b.html", model=model, ids=IDS)
    assert page.data["text"] == Page(tmp_path / "b.html").data["text"]


def test_no_name_or_token_ends_the_script(tmp_path):
    class Nasty:
        def decode_bytes(self, ids):
            return NASTY.encode()

    model = make_model()
    model.tok_emb.weight.name = NASTY
    names = {"__builtins__": __builtins__, "x": tg.Tensor([1.0], True, NASTY)}
    exec(compile("y = (x * 2).sum()", f"{NASTY}.py", "exec"), names)
    debug.report(names["y"], tmp_path / "a.html")
    data = Page(tmp_path / "a.html").data
    assert data["leaves"][0]["name"] == NASTY
    assert data["steps"][0]["file"] == f"{NASTY}.py"
    debug.report(loss_of(model), tmp_path / "b.html", model=model, ids=IDS, tokenizer=Nasty())
    page = Page(tmp_path / "b.html")
    assert len(page.scripts) == 2
    assert NASTY in [leaf["name"] for leaf in page.data["leaves"]]
    assert set(page.data["text"]["tokens"].values()) == {NASTY.replace(" ", "·")[:40]}


def test_nan_and_infinities_are_counted_and_coloured(tmp_path):
    x = tg.Tensor(np.array([[0.0, 4.0, -2.0], [np.nan, np.inf, -np.inf]], np.float32), True, "x")
    written = debug.report((x * x).sum(), tmp_path / "a.html")
    data = Page(tmp_path / "a.html").data
    step = data["steps"][1]
    (out, _), picture = step["out"], data["arrays"][step["out"][0]["array"]]
    assert out["argument"] == "x"
    assert_shows(picture, x.data)
    assert picture["values"] == [0, 4, -2, "NaN", "Inf", "-Inf"]
    assert data["loss"] == "NaN"
    assert (picture["min"], picture["max"], picture["nan"], picture["inf"]) == (-2, 4, 1, 2)
    assert written.verdicts == {"ok": 2}  # at the elements that can be moved

    g = tg.Tensor([1.0, 2.0], True, "g")
    debug.report((g * 1.0).sum() * np.float32(np.inf), tmp_path / "b.html")
    steps = Page(tmp_path / "b.html").data["steps"]
    assert [step["verdict"] for step in steps] == ["none", "none", "none"]
    assert "not finite" in steps[1]["check"]
    assert steps[1]["norm"] == "Inf"


def test_a_wrong_derivative_is_marked(tmp_path, monkeypatch):
    monkeypatch.setattr(Op, "registry", dict(Op.registry))
    monkeypatch.setattr("tinygrad_llm.engine.registry", Op.registry)

    def cube_forward(x):
        """y = x³"""
        return x**3, (x,)

    def cube_backward(g, x):
        """dx = 2 g x²"""
        return (2 * g * x**2,)

    x = tg.Tensor([1.0, 2.0], True, "x")
    written = debug.report(Op(cube_forward, cube_backward)(x).sum(), tmp_path / "a.html")
    assert written.verdicts == {"ok": 1, "wrong": 1}
    assert "1 WRONG" in str(written)
    step = Page(tmp_path / "a.html").data["steps"][1]
    assert step["verdict"] == "wrong"
    assert "cube_backward says" in step["check"]
    debug.report(tg.ops.relu(tg.Tensor([0.0, 1.0], True)).sum(), tmp_path / "b.html")
    assert Page(tmp_path / "b.html").data["steps"][1]["verdict"] == "kink"


def test_an_op_that_cannot_be_run_again_is_not_called_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(Op, "registry", dict(Op.registry))
    monkeypatch.setattr("tinygrad_llm.engine.registry", Op.registry)

    def fussy_forward(x):
        if x.dtype != np.float32:
            raise TypeError("float32 alone")
        return 2 * x, ()

    def fussy_backward(g):
        return (2 * g,)

    debug.report(Op(fussy_forward, fussy_backward)(tg.Tensor([1.0], True)).sum(), tmp_path / "a.html")
    step = Page(tmp_path / "a.html").data["steps"][1]
    assert (step["verdict"], step["check"]) == ("none", "Could not be checked: TypeError: float32 alone")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("_CHECK_ELEMENTS", 5, "its arrays have 6 elements, and steps of up to 5 are"),
        ("_CHECK_SECONDS", -1.0, "were used up"),
        ("_RUN_ELEMENTS", 2, "too large"),
    ],
)
def test_checks_that_are_left_out_say_why(tmp_path, monkeypatch, name, value, words):
    monkeypatch.setattr(report_steps, name, value)
    x = tg.Tensor([1.0, 2.0, 3.0], True)
    debug.report((x.exp()).sum(), tmp_path / "a.html")
    step = Page(tmp_path / "a.html").data["steps"][1]
    assert step["verdict"] == "none"
    assert words in step["check"]


def test_of_more_inputs_fewer_elements_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(report_steps, "_CHECK_ELEMENTS", 24)
    for inputs, verdict in ((3, "ok"), (6, "none")):  # each time 12 elements and as many in the result
        parts = [tg.Tensor(np.ones(12 // inputs), True) for _ in range(inputs)]
        debug.report(tg.ops.concatenate(*parts).sum(), tmp_path / "a.html")
        step = Page(tmp_path / "a.html").data["steps"][1]
        assert step["verdict"] == verdict
    assert "its arrays have 24 elements, and steps of up to 12 are" in step["check"]


def test_a_graph_of_30_000_nodes_keeps_to_5_megabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(report_steps, "_CHECK_SECONDS", 0.2)
    x = y = tg.Tensor(np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32), True, "x")
    for _ in range(14_999):
        y = (y * 1.0001) + 0.001
    loss = (y * x).sum()
    written = debug.report(loss, tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert 1e5 < page.size < 5e6
    assert (written.steps, written.shown) == (30_000, 400)
    assert [step["i"] for step in page.data["steps"]] == [*range(200), *range(29_800, 30_000)]
    assert "Steps 201 to 29,800 of 30,000 are left out" in page.notes()
    assert page.data["modules"] == [
        {"path": "", "ops": 30_000, "bytes": page.data["modules"][0]["bytes"], "left_out": 29_600}
    ]
    last = page.data["steps"][199]["out"][0]
    assert "step" not in last  # its gradient goes to a step that is left out
    assert last["module"] == 0
    loss.backward()
    np.testing.assert_allclose(x.grad.mean(), float((y.data + x.data * 1.0001**14_999).mean()), rtol=1e-2)


def test_the_worst_that_fits_keeps_to_5_megabytes(tmp_path, monkeypatch):
    """As many arrays, leaves and modules as are shown, all different, with names as long as they may be."""
    monkeypatch.setattr(report_steps, "_CHECK_SECONDS", 0.2)
    rng = np.random.default_rng(0)

    class Layer(tg.nn.Module):
        def __init__(self, k):
            self.w = [tg.Tensor(rng.standard_normal((20, 30)), True, f"{'module' * 50}.{k}.{i}") for i in range(9)]

        def forward(self, x):
            return tg.ops.concatenate(x, *self.w, axis=0)[:20] * self.w[0]

    class Model(tg.nn.Module):
        def __init__(self):
            for k in range(250):
                setattr(self, f"{'layer' * 60}{k}", Layer(k))

        def forward(self, x):
            for layer in vars(self).values():
                x = layer(x)
            return x

    loss = Model()(tg.Tensor(rng.standard_normal((20, 30)), True)).sum()
    debug.report(loss, tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert page.size < 5e6
    assert max(step["more_out"] for step in page.data["steps"]) == 2  # ten inputs, eight are shown


def test_large_arrays_are_drawn_small(tmp_path):
    rng = np.random.default_rng(0)
    w = tg.Tensor(rng.standard_normal((3000, 701)).astype(np.float32), True, "w")
    debug.report((w * w).sum(), tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert page.size < 2e5
    picture = page.data["arrays"][page.data["steps"][1]["out"][0]["array"]]
    assert (picture["rows"], picture["cols"]) == (64, 64)
    assert_shows(picture, w.data)
    assert page.data["steps"][1]["verdict"] == "none"


@pytest.mark.parametrize(
    "shape", [(), (1,), (17,), (0,), (3, 0), (300,), (2, 3, 4), (1, 1), (5, 1), (1000, 3), (129, 129)]
)
def test_arrays_of_any_shape(tmp_path, shape):
    x = tg.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float64), True, "x")
    debug.report((x.tanh() * x).sum(), tmp_path / "a.html")
    data = Page(tmp_path / "a.html").data
    picture = data["arrays"][data["steps"][1]["saved"][1]["array"]]
    if x.size:
        assert_shows(picture, x.data)
    else:
        assert picture == {"shape": list(shape), "dtype": "float64"}


def test_a_loss_that_cannot_be_walked_is_refused(tmp_path):
    x = tg.Tensor([1.0, 2.0], True)
    freed = (x * x).sum()
    freed.backward()
    (tmp_path / "a.html").write_text("before")
    for loss, words in (
        (freed, "retain_graph"),
        (x * 2, "scalar"),
        (tg.Tensor(3.0), "no steps back"),
        (tg.Tensor(3.0, True), "it is a leaf"),
    ):
        with pytest.raises(GraphError, match=words):
            debug.report(loss, tmp_path / "a.html")
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text() == "before"


def test_paths_that_cannot_be_written(tmp_path, monkeypatch):
    x = tg.Tensor(2.0, True)
    monkeypatch.setattr(report_steps, "recorded", pytest.fail)  # found out before the work
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "a.html", "cannot be written: No such file"),
        ("/dev/full", "may not be written over"),
        (tmp_path / ("a" * 300), "cannot be written"),
    ):
        with pytest.raises(StorageError, match=words):
            debug.report(x * x, path)
    with pytest.raises(OSError, match="is a folder"):
        debug.report(x * x, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_a_file_replaced(tmp_path):
    (tmp_path / "page.html").write_text("before")
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    x = tg.Tensor(2.0, True)
    debug.report(x * x, tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert Page(tmp_path / "page.html").data["n"] == 1
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": make_model()}, ConfigError, "go together"),
        ({"ids": [1, 2]}, ConfigError, "go together"),
        ({"model": tg.nn.Linear(2, 2), "ids": [1, 2]}, ConfigError, "model is a Linear"),
        ({"model": make_model(), "ids": [1]}, DataError, "two tokens or more"),
        ({"model": make_model(), "ids": []}, DataError, "two tokens or more"),
        ({"model": make_model(), "ids": [[1, 2], [3]]}, DataError, "ragged"),
        ({"model": make_model(), "ids": [1, 999]}, DataError, "id 999 at position"),
        ({"model": make_model(), "ids": list(range(20))}, DataError, "context length is 8"),
    ],
)
def test_models_and_ids_that_do_not_go_together(tmp_path, arguments, error, words):
    x = tg.Tensor(2.0, True)
    with pytest.raises(error, match=words):
        debug.report(x * x, tmp_path / "a.html", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("composed", [False, True])
def test_the_command(tmp_path, capsys, composed):
    path = tmp_path / "a.html"
    argv = ["report", "--prompt", "Every <b> effort", "-o", str(path), *(["--composed"] if composed else [])]
    assert main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    summary, page = json.loads(out), Page(path)
    assert err == ""
    assert summary["path"] == str(path)
    assert summary["loss"] == pytest.approx(page.data["loss"], rel=1e-5)
    assert summary["loss"] == pytest.approx(page.data["text"]["mean"], rel=1e-5)
    assert summary["bytes"] == page.size
    assert summary["steps"] == summary["verdicts"]["ok"] == len(page.data["steps"])
    assert ("trf_blocks.0.att.exp#1" in [step["name"] for step in page.data["steps"]]) is composed
    assert [page.data["text"]["tokens"][str(i)] for i in page.data["text"]["ids"]] == [*"Every·<b>·effort"]
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(f"{path}: {summary['steps']} backward steps, {summary['steps']} agree")


def test_the_command_says_what_it_cuts_and_what_it_cannot_do(tmp_path, capsys):
    assert main(["report", "--prompt", "x" * 50, "-o", str(tmp_path / "a.html")]) == 0
    assert "50 tokens: the first 33" in capsys.readouterr().err
    for argv, words in (
        (["-o", str(tmp_path)], "is a folder"),
        (["no/run", "-o", str(tmp_path / "b.html")], "no run there"),
        (["--prompt", "x", "-o", str(tmp_path / "b.html")], "two or more"),
    ):
        assert main(["report", *argv]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_only_what_counts_has_a_loss(tmp_path):
    model, tokenizer = make_model(), BPETokenizer([])
    ids, counted = np.array(tokenizer.encode("ab=ba")), np.array([False, False, False, True, True])
    targets = np.where(counted, ids, -100)[None, 1:]
    loss = tg.ops.cross_entropy(model(ids[None, :-1]), targets=targets)
    path = tmp_path / "a.html"
    debug.report(loss, path, model=model, ids=ids, tokenizer=tokenizer, counted=counted)
    text = Page(path).data["text"]
    assert text["losses"][:2] == [None, None]
    assert text["mean"] == pytest.approx(loss.item(), rel=1e-4)
    assert np.mean(text["losses"][2:]) == pytest.approx(loss.item(), rel=1e-4)
    assert "2 of 4 tokens are in the loss" in text["notes"][0]


def test_figures_of_tokens(tmp_path):
    rows = [
        debug.Row("KL", np.array([0.5, -np.inf, np.nan]), NASTY, summed=True),
        debug.Row("ratio", np.array([1.0, 1.25, 0.5]), "odds", neutral=1.0),
        debug.Row("clipped", np.array([False, True, True]), "too far", summed=True),
        debug.Row("value", np.array([3.0, -4.0, 0.0]), "expected", scale=2.0),
    ]
    table = debug.TokenTable(NASTY, [NASTY, "b", "c"], rows, {"score": np.float32(0.5), "answer": NASTY})
    debug.report(loss_of(make_model()), tmp_path / "a.html", tables=[table, table])
    (shown, other) = Page(tmp_path / "a.html").data["tables"]
    assert shown == other == table.to_dict()
    assert (shown["title"], shown["tokens"], shown["facts"]) == (
        NASTY,
        [NASTY, "b", "c"],
        {"score": 0.5, "answer": NASTY},
    )
    kl, ratio, clipped, value = shown["rows"]
    assert (kl["values"], kl["scale"], kl["sum"], kl["about"]) == ([0.5, "-Inf", "NaN"], 0.5, "NaN", NASTY)
    assert (ratio["values"], ratio["neutral"], ratio["scale"]) == ([1.0, 1.25, 0.5], 1.0, 0.5)
    assert (clipped["values"], clipped["sum"], "sum" in ratio) == ([False, True, True], 2, False)
    assert value["scale"] == 2.0
    with pytest.raises(ShapeError, match=r"value is \(3,\): it must be \(2,\)"):
        debug.TokenTable("", ["a", "b"], rows[3:], {})
