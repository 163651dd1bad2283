"""Llama: configuration, published parameter counts, names, initial values, and what does not fit.

What holds for every architecture is in tests/test_invariants.py and tests/testing/test_language_model.py; its numbers are
compared with PyTorch's in tests/test_reference.py.
"""

import dataclasses
import json
import math

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError
from tinygrad_llm.models import PRESETS, LlamaConfig, LlamaModel, preset
from tinygrad_llm.models.llama import hidden_dim_of
from tinygrad_llm.rng import Generator, Zeros

SMALL = LlamaConfig(vocab_size=11, context_length=6, emb_dim=8, n_heads=4, n_layers=2, n_kv_heads=2, hidden_dim=5)
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 10]])


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, "LlamaConfig: n_layers is 0: it must be a positive integer"),
        ({"hidden_dim": 1.5}, r"hidden_dim is 1\.5"),
        ({"n_kv_heads": 0}, "n_kv_heads is 0"),
        ({"head_dim": "4"}, "head_dim is '4'"),
        ({"window": True}, "window is True"),
        ({"n_heads": 3, "n_kv_heads": None}, "n_heads 3 does not divide emb_dim 8"),
        ({"n_kv_heads": 3}, "n_kv_heads 3 does not divide n_heads 4"),
        ({"n_kv_heads": 8}, "n_kv_heads 8 does not divide n_heads 4"),
        ({"head_dim": 3}, "head_dim is 3: features are turned in pairs, so it must be even"),
        ({"n_heads": 8}, "head_dim is 1: features are turned in pairs"),
        ({"rope_base": 1}, "base is 1"),
        ({"norm_eps": -1.0}, r"norm_eps is -1\.0"),
        ({"bias": 1}, "bias is 1: it must be True or False"),
        ({"init": "zeros"}, "init is 'zeros': use 'pytorch' or 'gpt2'"),
        ({"drop_rate": 2}, "drop_rate is 2"),
        ({"global_every": 2}, "global_every without a window"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)


def test_a_config_is_plain_data():
    config = LlamaConfig(vocab_size=np.int64(11), emb_dim=np.int16(8), n_heads=np.uint8(2), n_kv_heads=np.int8(1))
    assert LlamaConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_presets_have_names_of_their_own_and_can_be_changed():
    files = [getattr(tg.models, architecture) for architecture in tg.models.architectures()]
    assert len(PRESETS) == sum(len(file.PRESETS) for file in files)  # no name twice
    assert preset("llama2-7B", n_kv_heads=8) == LlamaConfig(n_kv_heads=8)
    with pytest.raises(ConfigError, match="llama has no option 'activation'"):
        preset("tales-llama", activation="gelu")


def test_hidden_dim_is_metas():
    """Of 7B, 13B and 70B (multiplier 1.3, a multiple of 4096), and of llama2.c's stories of 15M (of 32)."""
    assert [hidden_dim_of(4096), hidden_dim_of(5120), hidden_dim_of(8192, 4096, 1.3)] == [11008, 13824, 28672]
    assert hidden_dim_of(288, 32) == 768
    with pytest.raises(ConfigError, match=r"parameters need .* TiB"):  # before there is a float of so many digits
        LlamaConfig(emb_dim=32 * 10**400).check_bytes()


def test_the_llama_of_the_tales_has_as_many_parameters_as_the_gpt():
    """By hand, at V words: 256 V + 263,296 + 1,536 x 365, and 256 V + 824,576; a hidden_dim of one more is further away."""
    for v in (1024, 1200):
        llama, gpt = (preset(name, vocab_size=v).n_parameters() for name in ("tales-llama", "tales"))
        assert (llama, gpt) == (256 * v + 823_936, 256 * v + 824_576)
        further = [preset("tales-llama", vocab_size=v, hidden_dim=h).n_parameters() for h in (364, 366)]
        assert all(abs(n - gpt) > gpt - llama for n in further)


def test_a_model_needs_a_config_of_a_size_that_fits():
    with pytest.raises(ConfigError, match=r"LlamaModel: config is a dict: pass LlamaConfig\("):
        LlamaModel({"emb_dim": 8})
    with pytest.raises(ConfigError, match=r"LlamaConfig: 68,976,648,192 parameters need 256\.96 GiB in float32"):
        LlamaModel(LlamaConfig(emb_dim=8192, n_heads=64, n_layers=80, n_kv_heads=8, hidden_dim=28672))


def test_the_names_are_the_books():
    names = list(LlamaModel(small(n_layers=1)).state_dict())
    block = [f"att.{w}.weight" for w in ("W_query", "W_key", "W_value", "out_proj")]
    block += [f"ff.fc{i}.weight" for i in (1, 2, 3)] + ["norm1.weight", "norm2.weight"]
    assert names == [
        "tok_emb.weight",
        *(f"trf_blocks.0.{name}" for name in block),
        "final_norm.weight",
        "out_head.weight",
    ]
    biased = LlamaModel(small(n_layers=1, qkv_bias=True, out_bias=True, bias=True))
    more = {name.removeprefix("trf_blocks.0.") for name in biased.state_dict()} - set(block)
    assert {name for name in more if name.endswith("bias")} == {
        *(f"att.{w}.bias" for w in ("W_query", "W_key", "W_value", "out_proj")),
        *(f"ff.fc{i}.bias" for i in (1, 2, 3)),
    }
    assert [p.name for p in biased.parameters()] == [name for name, _ in biased.named_parameters()]


def test_initial_values():
    config = small(emb_dim=128, n_heads=8, n_kv_heads=4, hidden_dim=200, vocab_size=100, n_layers=3)
    model, seen = LlamaModel(config, rng=Generator(2)), set()
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert (p.data == 1).all(), name
            continue
        std = 0.02 / math.sqrt(2 * 3) if name.endswith(("out_proj.weight", "fc3.weight")) else 0.02
        seen.add(std)
        assert abs(p.data.std() / std - 1) < 0.05, name
    assert len(seen) == 2
    state = Generator(9).get_state()
    rng = Generator(9)
    zeros = LlamaModel(config, rng=Zeros())
    assert all((p.data == (p.ndim == 1)).all() for p in zeros.parameters())
    assert rng.get_state() == state


@pytest.mark.parametrize("init", ["gpt2", "pytorch"])
def test_initial_values_follow_the_seed(init):
    one, other, third = (LlamaModel(small(init=init), rng=Generator(seed)).state_dict() for seed in (4, 4, 5))
    assert all((one[name] == other[name]).all() for name in one)
    assert (one["tok_emb.weight"] != third["tok_emb.weight"]).any()


def test_each_second_layer_sees_all_where_told_so():
    model = LlamaModel(small(n_layers=5, window=2, global_every=2))
    assert [block.att.window for block in model.trf_blocks] == [2, None, 2, None, 2]


def test_positions_matter_and_only_their_distance():
    """A token twice in a row is read otherwise the second time only where something else came before."""
    model = LlamaModel(SMALL, rng=Generator(1)).astype(np.float64).eval()
    with tg.no_grad():
        same = model(np.array([[7, 7, 7, 7]])).data[0]
        np.testing.assert_allclose(same, same[:1].repeat(4, 0), rtol=1e-12, atol=1e-14)  # the mean of equal values
        one, other = model(np.array([[1, 2, 3, 4]])).data[0, -1], model(np.array([[2, 1, 3, 4]])).data[0, -1]
    assert np.abs(one - other).max() > 1e-9


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([[0, 11]], DataError, "LlamaModel: id 11 at position"),
        ([[-1, 0]], DataError, "LlamaModel: id -1 at position"),
        ([1, 2], DataError, r"ids have shape \(2,\)"),
        ([[0] * 7], ContextLengthError, "LlamaModel: 7 tokens, the context length is 6"),
    ],
)
def test_ids_that_it_cannot_read(ids, error, message):
    with pytest.raises(error, match=message):
        LlamaModel(SMALL)(np.array(ids))


def test_a_state_of_key_heads_alone_and_its_end():
    model = LlamaModel(SMALL).eval()
    state = model.make_state(2)
    assert state.layers[0].keys.shape == (2, 6, 2 * 2)  # 2 key heads of 2 features
    with tg.no_grad():
        model(IDS, state=state)
        with pytest.raises(ContextLengthError):
            model(IDS[:, :2], state=state)
