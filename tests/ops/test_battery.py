"""Every op through every check of the battery."""

import pytest
from op_specs import MORE_SPECS, SPECS

import tinygrad_llm as tg
from tinygrad_llm import parallel
from tinygrad_llm.testing import applicable, check_op


@pytest.mark.parametrize(
    ("spec", "check"),
    [pytest.param(s, c, id=f"{s.name}-{c}") for s in SPECS + MORE_SPECS for c in applicable(s)],
)
def test_op(spec, check):
    check_op(spec, only=[check])


@pytest.mark.parametrize(
    ("spec", "check"),
    [
        pytest.param(s, c, id=f"{s.name}-{c}")
        for s in SPECS
        if "composed twin" in applicable(s)
        for c in applicable(s)
        if c != "threads"  # which compares with threads of its own, on which nothing is shared out
    ],
)
def test_fused_op_on_two_threads(spec, check, monkeypatch):
    monkeypatch.setattr(parallel, "_PRODUCT", 1)  # so that the smallest arrays are cut into blocks and shared out
    monkeypatch.setattr(parallel, "_BLOCK", 4)
    with parallel.threads(2, sharing_rows=True):
        check_op(spec, only=[check])


def test_every_op_has_a_row_and_every_row_an_op():
    names = [spec.name for spec in SPECS]
    ours = {name for name, op in tg.Op.registry.items() if op.forward.__module__.startswith("tinygrad_llm.")}
    assert len(set(names)) == len(names)
    ours.remove("checkpoint")  # its inputs are a module's own parameters: tests/nn/test_checkpoint.py
    assert set(names) == ours


def test_every_fused_op_has_a_twin():
    assert {spec.name for spec in SPECS if "composed twin" in applicable(spec)} >= {
        "linear", "embedding", "softmax", "log_softmax", "cross_entropy", "layer_norm", "rms_norm", "attention", "gelu",
        "gelu_erf", "silu", "swiglu", "rotary", "sigmoid", "log_sigmoid", "relu", "mean", "var", "norm", "logsumexp",
        "wkv", "fft_conv",
    }  # fmt: skip
