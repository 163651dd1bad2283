"""For tests that open our files in PyTorch's libraries, and theirs here: skipped where these are not (the extra `reference`)."""

import warnings

import numpy as np
import pytest

import tinygrad_llm as tg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    from reference.float64 import in_float64

__all__ = ["IDS", "in_float64", "logits", "peft", "shaken", "torch", "transformers"]

IDS = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])


def logits(model):
    with tg.no_grad():
        return model(IDS).data


def shaken(model):
    """The model with other weights where it learns."""
    rng = np.random.default_rng(7)
    for p in model.parameters():
        if p.requires_grad:
            p.data = (0.5 * rng.standard_normal(p.shape)).astype(p.dtype)
    return model
