"""BERT: configuration, published parameter counts, names, initial values, what padding and order change, and what does not fit.

Its numbers are compared with those of transformers in tests/weights/test_load_bert.py.
"""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError, DTypeError
from tinygrad_llm.models import PRESETS, BertConfig, BertModel, preset
from tinygrad_llm.models.heads import add_classifier, class_logits
from tinygrad_llm.rng import Generator, Zeros
from tinygrad_llm.testing import strategies

SMALL = BertConfig(vocab_size=11, context_length=6, emb_dim=8, n_heads=4, n_layers=2, hidden_dim=5)
ENCODER = {"masked_words": False, "next_sentence": False}
IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 10]])
seeds = st.integers(0, 2**32 - 1)


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def made(seed=1, **changes):
    """In float64, with weights that make a difference."""
    model = BertModel(small(**changes), rng=Generator(seed)).astype(np.float64).eval()
    stream = np.random.default_rng(seed)
    for p in model.parameters():
        p.data = 0.5 * stream.standard_normal(p.shape) + (p.ndim == 1)
    return model


# ---- its configuration


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, "BertConfig: n_layers is 0: it must be a positive integer"),
        ({"context_length": None}, "context_length is None"),
        ({"hidden_dim": 1.5}, r"hidden_dim is 1\.5"),
        ({"n_segments": 0}, "n_segments is 0"),
        ({"n_heads": 3}, "n_heads 3 does not divide emb_dim 8"),
        ({"pooler": False}, "next_sentence without a pooler, on which its head stands"),
        ({"masked_words": 1}, "masked_words is 1: it must be True or False"),
        ({"tie_weights": None}, "tie_weights is None"),
        ({"activation": "mish"}, "activation is 'mish': use one of gelu, gelu_erf, relu, silu"),
        ({"norm_eps": -1.0}, r"norm_eps is -1\.0"),
        ({"init": "gpt2"}, "init is 'gpt2': use 'pytorch' or 'bert'"),
        ({"drop_rate": 2}, "drop_rate is 2"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)


def test_a_config_is_plain_data():
    config = BertConfig(vocab_size=np.int64(11), emb_dim=np.int16(8), n_heads=np.uint8(2), hidden_dim=np.int8(3))
    assert BertConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_a_model_needs_a_config_of_a_size_that_fits():
    with pytest.raises(ConfigError, match=r"BertModel: config is a dict: pass BertConfig\("):
        BertModel({"emb_dim": 8})
    with pytest.raises(ConfigError, match=r"BertConfig: .* parameters need .* GiB in float32"):
        BertModel(BertConfig(emb_dim=12288, n_heads=96, n_layers=96))


@pytest.mark.parametrize(
    ("name", "changes", "n"),
    [
        ("bert-base", ENCODER, 109_482_240),
        ("bert-large", ENCODER, 335_141_888),
        ("bert-tiny", ENCODER, 4_385_920),
        ("bert-base", ENCODER | {"pooler": False}, 108_891_648),
        ("bert-base", {"pooler": False, "next_sentence": False}, 109_514_298),
        ("bert-base", {}, 110_106_428),
        ("bert-base", ENCODER | {"vocab_size": 28996}, 108_310_272),
    ],
)
def test_published_parameter_counts(name, changes, n):
    """By formula, and of a model with one layer instead of them all, by what the others add."""
    config = preset(name, **changes)
    assert config.n_parameters() == n
    one = dataclasses.replace(config, n_layers=1)
    model = BertModel(one, rng=Zeros())
    assert model.n_parameters() == one.n_parameters()
    assert model.n_parameters() + (config.n_layers - 1) * model.trf_blocks[0].n_parameters() == n


def test_a_head_for_two_classes():
    """109,483,778 are bert-base's with one; tiny's has as much less as its encoder has."""
    model = add_classifier(BertModel(preset("bert-tiny"), rng=Zeros()), ["ham", "spam"])
    assert model.n_parameters() == 4_385_920 + 2 * (128 + 1)
    assert 109_482_240 + 2 * (768 + 1) == 109_483_778


@given(strategies.model_configs("bert", 3000))
def test_every_configuration_counts_what_is_made(config):
    model = BertModel(config, rng=Generator(1))
    assert model.n_parameters() == config.n_parameters()
    assert [p.name for p in model.parameters()] == [name for name, _ in model.named_parameters()]


def test_the_names():
    names = list(BertModel(small(n_layers=1, tie_weights=False), rng=Zeros()).state_dict())
    layers = [f"att.{w}" for w in ("W_query", "W_key", "W_value", "out_proj")] + ["ff.layers.0", "ff.layers.2"]
    block = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    block += [f"norm{i}.{kind}" for i in (1, 2) for kind in ("scale", "shift")]
    assert names == [
        "tok_emb.weight",
        "pos_emb.weight",
        "seg_emb.weight",
        "emb_norm.scale",
        "emb_norm.shift",
        *(f"trf_blocks.0.{name}" for name in block),
        "pooler.weight",
        "pooler.bias",
        "transform.dense.weight",
        "transform.dense.bias",
        "transform.norm.scale",
        "transform.norm.shift",
        "out_head.weight",
        "out_head.bias",
        "next_sentence.weight",
        "next_sentence.bias",
    ]


# ---- initial values


def test_initial_values_are_normal_without_what_is_far_away():
    """std 0.02 of a normal distribution that is cut at two deviations: 0.8796 of it is left (Johnson and Kotz, 1970)."""
    model = BertModel(preset("bert-tiny"), rng=Generator(2))
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert (p.data == name.endswith("scale")).all(), name
            continue
        assert np.abs(p.data).max() <= np.float32(0.04), name
        assert abs(p.data.mean()) < 4 * 0.02 / np.sqrt(p.size), name
        if p.size > 10_000:
            assert abs(p.data.std() / (0.8796 * 0.02) - 1) < 0.02, name
            assert np.abs(p.data).max() > 0.038, name


@pytest.mark.parametrize("init", ["bert", "pytorch"])
def test_initial_values_follow_the_seed(init):
    one, other, third = (BertModel(small(init=init), rng=Generator(seed)).state_dict() for seed in (4, 4, 5))
    assert all((one[name] == other[name]).all() for name in one)
    assert (one["tok_emb.weight"] != third["tok_emb.weight"]).any()
    zeros = BertModel(small(init=init), rng=Zeros())
    assert all((p.data == name.endswith("scale")).all() for name, p in zeros.named_parameters())


# ---- padding and order


@st.composite
def padded_texts(draw, vocab_size=11, longest=6):
    """Ids (B, T), segments (B, T) and lengths (B,); what comes after a text is drawn too."""
    b, t = draw(st.integers(1, 3)), draw(st.integers(1, longest))
    stream = np.random.default_rng(draw(seeds))
    lengths = np.array(draw(st.lists(st.integers(1, t), min_size=b, max_size=b)))
    return stream.integers(0, vocab_size, (b, t)), stream.integers(0, 2, (b, t)), lengths


@given(padded_texts(), seeds)
def test_what_fills_a_text_up_changes_nothing(texts, seed):
    """Each text as if it were alone: its features, its pooled features, its mean, and their gradients."""
    ids, segments, lengths = texts
    model = made(seed % 100)
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    x = model.features(ids, segments, mask)
    pooled, embedded = model.pooled(ids, segments, mask).data, model.embed(ids, mask).data
    for i, n in enumerate(lengths):
        alone = ids[i : i + 1, :n], segments[i : i + 1, :n]
        np.testing.assert_allclose(x.data[i, :n], model.features(*alone).data[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(pooled[i], model.pooled(*alone).data[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(embedded[i], model.embed(alone[0]).data[0], rtol=1e-9, atol=1e-12)
    g = np.random.default_rng(seed).standard_normal(x.shape) * mask[:, :, None]
    x.backward(g)
    found = [p.grad.copy() for p in model.trf_blocks.parameters()]
    model.zero_grad()
    for i, n in enumerate(lengths):
        model.features(ids[i : i + 1, :n], segments[i : i + 1, :n]).backward(g[i : i + 1, :n])
    for p, grad in zip(model.trf_blocks.parameters(), found, strict=True):
        np.testing.assert_allclose(grad, p.grad, rtol=1e-8, atol=1e-10)


@given(padded_texts(), seeds)
def test_without_positions_the_order_of_tokens_says_nothing(texts, seed):
    """Features go where their tokens go."""
    ids, segments, lengths = texts
    model = made(seed % 100)
    model.pos_emb.weight.data[:] = model.pos_emb.weight.data[0]
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    order = np.random.default_rng(seed).permutation(ids.shape[1])
    expected = model.features(ids, segments, mask).data[:, order]
    found = model.features(ids[:, order], segments[:, order], mask[:, order]).data
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_with_positions_it_does_and_every_token_sees_all_others():
    model = made()
    x = model.features(IDS).data
    assert np.abs(model.features(IDS[:, ::-1]).data[:, ::-1] - x).max() > 1e-3
    for t in range(IDS.shape[1]):
        changed = IDS.copy()
        changed[:, t] = 7
        assert (np.abs(model.features(changed).data - x).max(-1) > 1e-6).all()
    assert np.abs(model.features(IDS, np.ones_like(IDS)).data - x).max() > 1e-3
    np.testing.assert_array_equal(model.features(IDS, np.zeros_like(IDS), np.ones(IDS.shape)).data, x)


@given(padded_texts(), seeds)
def test_an_embedding_has_length_1_and_is_the_mean_of_the_features(texts, seed):
    ids, _, lengths = texts
    model = made(seed % 100)
    mask = np.arange(ids.shape[1]) < lengths[:, None]
    found, x = model.embed(ids, mask).data, model.features(ids, mask=mask).data
    np.testing.assert_allclose((found**2).sum(-1), 1, rtol=1e-12)
    for i, n in enumerate(lengths):
        mean = x[i, :n].mean(0)
        np.testing.assert_allclose(found[i], mean / np.sqrt(mean @ mean), rtol=1e-9, atol=1e-12)


@given(padded_texts())
def test_a_classifier_judges_each_text_as_if_it_were_alone(texts):
    ids, _, lengths = texts
    model = add_classifier(made(), ["a", "b", "c"], rng=Generator(2))
    found = class_logits(model, ids, lengths).data
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(found[i], model(ids[i : i + 1, :n]).data[0], rtol=1e-9, atol=1e-12)


# ---- what it cannot read, and what it has not


@pytest.mark.parametrize(
    ("segments", "mask", "error", "message"),
    [
        (
            None,
            np.ones((2, 4)),
            DataError,
            r"BertModel: mask is float64 \(2, 4\): it must be \(2, 5\), 1 or True where",
        ),
        (None, np.full((2, 5), 0.5), DataError, "mask is float64"),
        (None, np.full((2, 5), "1"), DataError, "mask is <U1"),
        (None, np.ones(5), DataError, r"mask is float64 \(5,\)"),
        (np.ones((2, 4), int), None, DataError, r"segments have shape \(2, 4\): it must be that of ids, \(2, 5\)"),
        (np.full((2, 5), 2), None, DataError, r"BertModel: segments: id 2 at position \(0, 0\) is out of range"),
        (np.ones((2, 5)), None, DTypeError, "BertModel: segments: ids are float64"),
    ],
)
def test_segments_and_masks_that_cannot_be(segments, mask, error, message):
    with pytest.raises(error, match=message):
        BertModel(SMALL, rng=Zeros())(IDS, segments, mask)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([[0, 11]], DataError, "BertModel: id 11 at position"),
        ([1, 2], DataError, r"ids have shape \(2,\)"),
        ([[]], DataError, r"ids have shape \(1, 0\)"),
        ([[0] * 7], ContextLengthError, "BertModel: 7 tokens, the context length is 6"),
    ],
)
def test_ids_that_it_cannot_read(ids, error, message):
    with pytest.raises(error, match=message):
        BertModel(SMALL, rng=Zeros())(np.array(ids))


def test_a_text_without_tokens_has_no_embedding():
    mask = np.array([[True] * 5, [False] * 5])
    with pytest.raises(DataError, match="BertModel: row 1 of mask has no token: no text has no features"):
        made().embed(IDS, mask)


def test_a_text_without_tokens_gives_no_nan():
    model = made()
    x = model.features(IDS, mask=np.array([[True] * 5, [False] * 5]))
    assert np.isfinite(x.data).all()
    x.backward(np.ones(x.shape))
    assert all(np.isfinite(p.grad).all() for p in model.trf_blocks.parameters())


def test_what_a_bare_model_does_not_have_is_named():
    bare = BertModel(small(**ENCODER, pooler=False), rng=Zeros())
    with pytest.raises(ConfigError, match=r"has no head for masked words: features\(ids\), pooled\(ids\) and embed"):
        bare(IDS)
    with pytest.raises(ConfigError, match=r"has no pooler: embed\(ids\) is the mean of features\(ids\)"):
        bare.pooled(IDS)
    with pytest.raises(ConfigError, match="has no pooler, on which a head for classes stands"):
        add_classifier(bare, ["a", "b"])
    assert bare.classes is None
    with pytest.raises(ConfigError, match="position is 'last': use one of pooled"):
        add_classifier(made(), ["a", "b"], "last")


@pytest.mark.parametrize("changes", [{}, {"tie_weights": False}, ENCODER])
def test_a_longer_vocabulary_leaves_the_old_words_as_they_were(changes):
    model = made(**changes)
    before, scores = model.features(IDS).data, None if changes is ENCODER else model(IDS).data
    model.resize_vocabulary(13)
    np.testing.assert_array_equal(model.features(IDS).data, before)
    assert model.n_parameters() == model.config.n_parameters()
    if scores is not None:
        np.testing.assert_allclose(model(IDS).data[..., :11], scores, rtol=1e-12, atol=1e-12)
        means = scores.mean(-1, keepdims=True).repeat(2, -1)  # (B, T, 2)
        np.testing.assert_allclose(model(IDS).data[..., 11:], means, rtol=1e-9)


def test_dropout_drops_in_training_alone():
    model = BertModel(small(drop_rate=0.5, init="pytorch"), rng=Generator(1))
    with tg.no_grad():
        assert (model(IDS).data != model(IDS).data).any()
        model.eval()
        np.testing.assert_array_equal(model(IDS).data, model(IDS).data)
    assert PRESETS["bert-base"].drop_rate == 0.1
