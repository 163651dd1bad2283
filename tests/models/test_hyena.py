"""Hyena: initial values, published count, and a state whose rows come and go.

What holds for every language model is in tests/test_invariants.py and tests/testing/test_language_model.py; the operator is
compared with direct sums in tests/weights/test_load_hyena.py.
"""

import dataclasses
import math

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.generation import generate
from tinygrad_llm.models import PRESETS, HyenaConfig, HyenaModel
from tinygrad_llm.rng import Generator

SMALL = HyenaConfig(vocab_size=7, context_length=12, emb_dim=4, n_layers=2, filter_width=3)
IDS = np.array([[3, 1, 4, 1, 5, 6, 2, 6, 5, 3, 5, 0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": 1}, "order is 1: it must be 2 or more"),
        ({"filter_features": 4}, "filter_features is 4: it must be odd, 3 or more"),
        ({"filter_width": 0}, "HyenaConfig: filter_width is 0: it must be a positive integer"),
        ({"activation": "relu"}, "activation is 'relu'"),
        ({"init": "rwkv"}, "init is 'rwkv': use 'pytorch' or 'gpt2'"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_published_count():
    """Which the paper names it by."""
    assert round(PRESETS["hyena-153M"].n_parameters(), -6) == 153_000_000


def test_a_row_has_its_whole_context_after_a_longer_one_is_gone():
    model = HyenaModel(SMALL, rng=Generator(0)).astype(np.float64).eval()
    with tg.no_grad():
        long, short = model.make_state(1), model.make_state(1)
        model(IDS[:, :10], state=long)
        model(IDS[:, :3], state=short)
        long.append(short)
        long.select([1])
        for state in (long, short):  # what is appended stays as it is
            logits = model(IDS[:, 3:], state=state).data
            np.testing.assert_allclose(logits, model(IDS).data[:, 3:], rtol=1e-12, atol=1e-12)
            assert state.layers[0]["v0"].shape == (1, 4, 12)


def test_a_text_is_written_to_the_end_of_its_context_after_a_longer_one_has_ended():
    model = HyenaModel(SMALL, rng=Generator(2)).eval()
    prompts = [IDS[0, :10].tolist(), IDS[0, :3].tolist()]
    end = int(generate(model, prompts[:1], 1)[0, 10])  # what the longer one writes first
    expected = generate(model, prompts, 9, stop_ids=[end], use_cache=False)
    assert (expected >= 0).sum(1).tolist() == [10, 12]
    np.testing.assert_array_equal(generate(model, prompts, 9, stop_ids=[end]), expected)


def test_initial_values_of_gpt2_leave_filters_alone():
    config = dataclasses.replace(SMALL, vocab_size=200, emb_dim=64, filter_width=32)
    drawn = {
        name: p.data
        for name, p in HyenaModel(dataclasses.replace(config, init="gpt2"), rng=Generator(0)).named_parameters()
    }
    plain = {name: p.data for name, p in HyenaModel(config, rng=Generator(0)).named_parameters()}
    for name, array in drawn.items():
        if ".filter." in name or array.ndim < 2 or name.endswith("short_weight"):
            np.testing.assert_array_equal(array, plain[name], err_msg=name)
        else:
            onto_residual = name.endswith(("att.out_proj.weight", "ff.layers.2.weight"))
            std = 0.02 / math.sqrt(4) if onto_residual else 0.02
            np.testing.assert_allclose(array.std(), std, rtol=0.1, err_msg=name)
