"""ViT: configuration, published counts, the order of patches, and interpolated positions.

Its outputs and gradients are compared with those of transformers in tests/weights.
"""

import dataclasses

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.models import PRESETS, ViTConfig, ViTModel
from tinygrad_llm.models.vit import cubic_weights, patches
from tinygrad_llm.rng import Generator

SMALL = ViTConfig(n_classes=3, image_size=6, patch_size=2, n_channels=2, emb_dim=8, n_heads=2, n_layers=2)


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 4}, "patch_size 4 does not divide image_size 6"),
        ({"n_heads": 3}, "n_heads 3 does not divide emb_dim 8"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"pool": "max"}, "pool is 'max': use one of token, mean"),
        ({"patch_order": "columns"}, "patch_order is 'columns'"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"drop_rate": -1}, "drop_rate is -1"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_published_counts():
    published = {
        "vit-Ti/16": 5_717_416,
        "vit-S/16": 22_050_664,
        "vit-B/16": 86_567_656,
        "vit-B/32": 88_224_232,
        "vit-L/16": 304_326_632,
        "vit-H/14": 632_045_800,
    }
    assert {name: PRESETS[name].n_parameters() for name in published} == published
    for changes in ({}, {"pool": "mean"}, {"hidden_dim": 5}):
        config = dataclasses.replace(SMALL, **changes)
        assert ViTModel(config).n_parameters() == config.n_parameters()
    without = dataclasses.replace(SMALL, qkv_bias=False)
    assert ViTModel(without).n_parameters() == without.n_parameters()
    assert SMALL.n_parameters() - without.n_parameters() == 3 * SMALL.emb_dim * SMALL.n_layers


def test_the_numbers_of_a_patch_lie_in_the_order_that_is_asked_for():
    x = np.arange(2 * 4 * 4).reshape(1, 2, 4, 4)
    first = patches(x, 2)[0]
    assert first[1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]  # row by row, then the next channel
    assert patches(x, 2, "channels_last")[0][1].tolist() == [2, 18, 3, 19, 6, 22, 7, 23]
    assert first[2, 0] == 8  # the patch below the first one


def test_one_order_of_the_weights_is_the_other_by_exchanging_columns():
    a = ViTModel(SMALL, rng=Generator(0)).astype(np.float64).eval()
    b = ViTModel(dataclasses.replace(SMALL, patch_order="channels_last"), rng=Generator(0)).astype(np.float64).eval()
    b.load_state_dict(a.state_dict())
    b.patch_emb.weight.data = a.patch_emb.weight.data.reshape(8, 2, 2, 2).transpose(0, 2, 3, 1).reshape(8, 8)
    x = images(2, 2, 6, 6)
    np.testing.assert_allclose(b.features(x).data, a.features(x).data, rtol=1e-12, atol=1e-12)


def test_without_positions_the_order_of_patches_says_nothing():
    model = (
        ViTModel(dataclasses.replace(SMALL, pool="mean", init="pytorch"), rng=Generator(0)).astype(np.float64).eval()
    )
    x = images(1, 2, 6, 6)
    turned = x.reshape(1, 2, 3, 2, 3, 2)[:, :, [2, 0, 1]][:, :, :, :, [1, 2, 0]].reshape(x.shape)
    with_positions = model(x).data, model(turned).data
    assert np.abs(with_positions[0] - with_positions[1]).max() > 1e-6
    model.pos_emb.data = np.zeros_like(model.pos_emb.data)
    np.testing.assert_allclose(model(turned).data, model(x).data, rtol=1e-12, atol=1e-12)


def test_positions_of_another_size():
    np.testing.assert_array_equal(cubic_weights(5, 5), np.eye(5))
    np.testing.assert_allclose(cubic_weights(3, 7).sum(1), 1, rtol=1e-12)
    # PyTorch 2.13: interpolate(tensor([1., 2., 4.]), size 5, mode="bicubic", align_corners=False)
    expected = [0.904, 1.244, 2.0, 3.296, 4.192]
    np.testing.assert_allclose(cubic_weights(3, 5) @ [1.0, 2.0, 4.0], expected, rtol=1e-12)
    model = ViTModel(SMALL, rng=Generator(0)).eval()
    first, square = model.pos_emb.data[0], model.pos_emb.data[1:]  # the class token's, and 3 x 3 row by row
    model.resize_positions(10)
    assert model.pos_emb.shape == (26, 8)
    np.testing.assert_array_equal(model.pos_emb.data[0], first)
    both_ways = np.kron(cubic_weights(3, 5), cubic_weights(3, 5))  # (25, 9)
    np.testing.assert_allclose(model.pos_emb.data[1:], both_ways @ square, rtol=1e-5, atol=1e-6)
    assert model(images(1, 2, 10, 10)).shape == (1, 3)
    with pytest.raises(ConfigError, match="patch_size 2 does not divide image_size 7"):
        model.resize_positions(7)
    with pytest.raises(ConfigError, match="TiB in float32, more than"):
        model.resize_positions(2_000_000)
    assert (model.config.image_size, model.pos_emb.shape) == (10, (26, 8))


@pytest.mark.parametrize(
    "wrong", [images(2, 2, 6, 5), images(2, 3, 6, 6), images(2, 6, 6), np.zeros((0, 2, 6, 6)), np.array([["a"]])]
)
def test_images_of_another_size_or_number_of_channels_are_refused(wrong):
    with pytest.raises(DataError, match=r"ViTModel: images are .* must be numbers of the shape \(batch, 2, 6, 6\)"):
        ViTModel(SMALL)(wrong)


def test_images_that_are_no_array_or_not_finite_are_refused():
    model, spoilt = ViTModel(SMALL), images(3, 2, 6, 6)
    with pytest.raises(DataError, match="the images are a ragged list"):
        model([[1.0], [1.0, 2.0]])
    for bad in (np.nan, np.inf):
        spoilt[1, 0, 5, 5] = bad
        with pytest.raises(DataError, match="image 1 of 3 holds NaN or infinite numbers"):
            model(spoilt)


def test_initial_values_are_those_of_a_truncated_normal():
    """A normal with what is beyond two deviations left out has 0.8796 of its deviation."""
    model = ViTModel(dataclasses.replace(SMALL, emb_dim=64), rng=Generator(0))
    for name, p in model.named_parameters():
        if p.ndim == 2 and name.startswith(("patch_emb", "trf_blocks")):
            assert np.abs(p.data).max() <= 0.04
            np.testing.assert_allclose(p.data.std(), 0.02 * 0.8796, rtol=0.1, err_msg=name)
        elif name == "pos_emb":
            np.testing.assert_allclose(p.data.std(), 0.02, rtol=0.1)
        else:
            assert (p.data == (1.0 if name.endswith("scale") else 0.0)).all(), name


def test_every_gradient_arrives():
    model = ViTModel(dataclasses.replace(SMALL, init="pytorch"), rng=Generator(0))
    tg.ops.cross_entropy(model(images(2, 2, 6, 6)), targets=np.array([0, 2])).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not np.isfinite(p.grad).all()]
    assert without == []
