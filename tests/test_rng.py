"""The streams of rng.py against figures that PyTorch 2.13 (CPU) and the book print for the same seeds."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from tinygrad_llm.errors import ConfigError
from tinygrad_llm.rng import Generator, get_generator, manual_seed, use_generator

NORMAL_TOLERANCE = 3e-6  # PyTorch itself moves by this much between its AVX2 and its plain kernels


def assert_bits(ours, torch_values):
    """`torch_values` carry nine digits, which name a float32 uniquely."""
    np.testing.assert_array_equal(np.ravel(ours), np.array(torch_values, np.float32), strict=True)


def assert_normal(ours, torch_values):
    assert ours.dtype == np.float32
    np.testing.assert_allclose(np.ravel(ours), torch_values, rtol=0, atol=NORMAL_TOLERANCE)


def linear(rng, in_features, out_features, bias=True):
    """What torch.nn.Linear draws: weight (out, in), then bias (out,)."""
    bound = in_features**-0.5
    weight = rng.uniform(-bound, bound, (out_features, in_features))
    return (weight, rng.uniform(-bound, bound, out_features)) if bias else weight


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ---- PyTorch's figures


def test_uniform_draws():
    rng = Generator(123)
    assert_bits(rng.rand(3), [0.296111941, 0.516562283, 0.251670718])
    assert_bits(rng.uniform(-0.3, 0.7, (2, 2)), [0.388556778, -0.226027548, 0.566521943, -0.163420141])


def test_few_normals_come_in_pairs_whose_second_half_waits():
    rng = Generator(123)
    assert_bits(rng.randn(5), [-0.111467116, 0.120362945, -0.369634509, -0.240417972, -1.19692433])
    assert_bits(rng.rand(2), [0.075635314, 0.196638167])
    assert_bits(rng.randn(2), [0.20926936, -2.3890667])
    assert_bits(rng.normal(0.5, 2, 3), [-0.451867223, 4.02052164, 1.80949581])
    assert_bits(rng.rand(1), [0.636725366])


def test_sixteen_normals_or_more():
    rng = Generator(7)
    expected = [
        -1.01640272,
        -0.992087364,
        -0.982021809,
        -1.02776814,
        -1.00333989,
        -0.994297028,
        -1.01282179,
        -1.01787305,
    ]
    expected += [
        -0.981469154,
        -1.01071024,
        -1.02319443,
        -1.0092032,
        -0.985829234,
        -0.979744911,
        -0.995392084,
        -0.978196681,
    ]
    assert_normal(rng.normal(-1, 0.02, (4, 4)), expected)
    assert_bits(rng.rand(1), [0.720380425])


def test_a_last_row_that_is_not_full_redraws_the_last_sixteen():
    rng = Generator(123)
    expected = [0.337370187, -0.177777216, -0.303527594, 0.917764604, 1.58096957, 1.30103993, 1.27530122, -0.200953096]
    expected += [
        -0.160563782,
        -0.401488006,
        0.69572413,
        -1.14814401,
        -1.15886784,
        0.325471014,
        -0.63150537,
        -2.83999395,
    ]
    assert_normal(rng.randn(19), [*expected, -0.784853339, -1.40957248, -0.407626867])
    assert_bits(rng.rand(1), [0.433980227])


def test_normals_over_many_blocks():
    rng = Generator(123)
    x = rng.randn(50257, 7)
    first = [0.337370187, -0.177777216, -0.303527594, -0.588011861, 0.348605186, 0.660340965, -0.219637617]
    last = [-0.944877744, -0.658052027, 0.205769151, -0.295476437, 0.266031504, -1.09163475, -1.19512284]
    assert_normal(x[0], first)
    assert_normal(x[-1], last)
    assert x.sum(dtype=np.float64) == pytest.approx(-100.54657117, abs=1e-3)
    assert np.square(x, dtype=np.float64).sum() == pytest.approx(352894.5900186, abs=1e-1)
    assert_bits(rng.rand(1), [0.0130309463])


def test_linear_then_embedding():
    rng = Generator(123)
    weight, bias = linear(rng, 3, 2)
    assert_bits(weight, [-0.235429645, 0.0191244762, -0.286745936, 0.217726618, -0.49193421, 0.423223078])
    assert_bits(bias, [-0.419641405, -0.459017664])
    assert_bits(rng.randn(2, 3), [-1.19692433, 0.20926936, -0.972355008, -0.755045474, 0.323902756, -0.108522631])


def test_integers():
    rng = Generator(123)
    assert rng.randperm(10).tolist() == [2, 0, 8, 1, 3, 7, 4, 9, 5, 6]
    assert rng.randperm(1).tolist() == [0]
    assert rng.randint(0, 10, 5).tolist() == [4, 1, 1, 6, 1]
    assert rng.randint(-5, 2**28 - 6, 3).tolist() == [
        256966757,
        73848949,
        186538624,
    ]  # the last range that takes one word
    assert rng.randint(-5, 2**28 - 5, 3).tolist() == [73519172, 131761065, 178454634]
    expected = [1367842601990243667, -96674224608441091, -1019087143678100896]
    assert rng.randint(-(2**62), 2**62, 3).tolist() == expected
    assert_bits(rng.rand(1), [0.0390138626])
    assert Generator(0).random64() % 2**63 == 900450186894289455
    assert rng.randint(0, 3, (2, 2)).dtype == rng.randperm(3).dtype == np.int64


def test_three_epochs_of_a_shuffled_loader():
    rng = Generator(123)
    assert rng.shuffle_order(10).tolist() == [8, 2, 6, 7, 0, 3, 9, 1, 5, 4]
    assert rng.shuffle_order(10).tolist() == [5, 9, 2, 7, 8, 6, 4, 0, 1, 3]
    assert rng.shuffle_order(10).tolist() == [6, 0, 5, 3, 2, 4, 9, 7, 8, 1]
    assert_bits(rng.rand(1), [0.075635314])


def test_only_the_low_32_bits_of_a_seed_count():
    assert_bits(Generator(2**32 + 123).rand(1), [0.296111941])
    assert_bits(Generator(2**64 - 1).rand(1), [0.993799388])
    assert Generator(np.int64(2**40 + 1)).seed == 2**40 + 1


# ---- the book's figures (chapters 2 to 4)

INPUTS = np.array(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ],
    np.float32,
)


def test_chapter_2_embedding():
    np.testing.assert_allclose(Generator(123).randn(6, 3)[3], [-0.4015, 0.9666, -1.1481], atol=5e-5)


def test_chapter_3_attention_from_rand():
    rng = Generator(123)
    query, key, value = (INPUTS @ rng.rand(3, 2) for _ in range(3))
    np.testing.assert_allclose(query[1], [0.4306, 1.4551], atol=5e-5)
    out = softmax(query @ key.T / 2**0.5) @ value
    np.testing.assert_allclose(out[1], [0.3061, 0.8210], atol=5e-5)


def test_chapter_3_attention_from_linear():
    rng = Generator(789)
    query, key, value = (INPUTS @ linear(rng, 3, 2, bias=False).T for _ in range(3))
    scores = query @ key.T / 2**0.5
    np.testing.assert_allclose((softmax(scores) @ value)[0], [-0.0739, 0.0713], atol=5e-5)
    np.testing.assert_allclose(softmax(scores[1, :2]), [0.5517, 0.4483], atol=5e-5)


def test_chapter_4_linear_relu():
    rng = Generator(123)
    x = rng.randn(2, 5)
    weight, bias = linear(rng, 5, 6)
    out = np.maximum(x @ weight.T + bias, 0)
    expected = [[0.2260, 0.3470, 0, 0.2216, 0, 0], [0.2133, 0.2394, 0, 0.5198, 0.3297, 0]]
    np.testing.assert_allclose(out, expected, atol=5e-5)


# ---- the distribution, where PyTorch's last bits cannot be had


def test_moments():
    x = Generator(5).normal(3, 2, 1_000_000).astype(np.float64)
    assert x.mean() == pytest.approx(3, abs=0.01)
    assert x.std() == pytest.approx(2, abs=0.01)
    u = Generator(5).uniform(2, 6, 1_000_000)
    assert u.min() >= 2
    assert u.max() <= 6
    assert u.mean(dtype=np.float64) == pytest.approx(4, abs=0.01)


def test_permutations_are_permutations_and_all_occur():
    rng = Generator(0)
    seen = {tuple(rng.randperm(4).tolist()) for _ in range(500)}
    assert len(seen) == 24
    assert sorted(rng.shuffle_order(1000).tolist()) == list(range(1000))


# ---- state and the current generator


def test_state_survives_json_and_holds_the_waiting_normal():
    rng = Generator(11)
    rng.rand(700)
    rng.randn(3)
    state = json.loads(json.dumps(rng.get_state()))
    other = Generator(0)
    other.set_state(state)
    assert other.seed == 11
    for draw in (lambda g: g.randn(4), lambda g: g.rand(1000), lambda g: g.randperm(9), lambda g: g.spawn().random(5)):
        np.testing.assert_array_equal(draw(other), draw(rng))


@pytest.mark.parametrize(
    "damage",
    [
        {"key": [1, 2, 3]},
        {"key": [2**32] * 624},
        {"key": None},
        {"position": 625},
        {"position": -1},
        {"position": 1.5},
        {"spare_normal": "x"},
        {"seed": -1},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    rng = Generator(3)
    before = rng.get_state()
    with pytest.raises(ConfigError, match=r"state|seed"):
        rng.set_state(before | damage)
    with pytest.raises(ConfigError, match="position"):
        rng.set_state({k: v for k, v in before.items() if k != "position"})
    assert rng.get_state() == before


def test_spawn_depends_on_the_stream_alone():
    a, b = Generator(3), Generator(3)
    first = a.spawn().random(4)
    np.testing.assert_array_equal(first, b.spawn().random(4))
    assert not np.array_equal(first, a.spawn().random(4))


def test_manual_seed_restarts_the_current_generator():
    rng = manual_seed(123)
    assert rng is get_generator()
    first = rng.randn(3)
    rng.rand(5)
    manual_seed(123)
    np.testing.assert_array_equal(get_generator().randn(3), first)


def test_use_generator_is_undone_and_stays_in_its_context():
    outer, mine = get_generator(), Generator(5)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(get_generator()))
    with use_generator(mine):
        thread.start()
        thread.join()
        assert manual_seed(6) is mine
    with pytest.raises(KeyError), use_generator(mine):
        raise KeyError
    assert get_generator() is outer
    assert seen == [outer]


def test_a_process_without_a_seed_starts_anywhere():
    command = [sys.executable, "-c", "from tinygrad_llm.rng import get_generator as g; print(g().seed)"]
    first, second = (subprocess.run(command, capture_output=True, check=True).stdout for _ in range(2))
    assert first != second


# ---- bad input


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None, True, np.float64(3)])
def test_a_bad_seed_is_named(seed):
    rng = Generator(3)
    with pytest.raises(ConfigError, match="seed is"):
        Generator(seed)
    with pytest.raises(ConfigError, match="seed is"):
        rng.manual_seed(seed)
    assert rng.seed == 3


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: g.rand(2, -1),
        lambda g: g.rand(2.0),
        lambda g: g.randperm(-1),
        lambda g: g.shuffle_order(-1),
        lambda g: g.randn(True),
        lambda g: g.uniform(1, 0, 3),
        lambda g: g.uniform(float("nan"), 1, 3),
        lambda g: g.uniform(0, float("nan"), 3),
        lambda g: g.uniform(0, 1e39, 3),
        lambda g: g.normal(0, -1, 3),
        lambda g: g.normal(float("nan"), 1, 3),
        lambda g: g.normal(0, float("inf"), 3),
        lambda g: g.randint(3, 3, 2),
        lambda g: g.randint(0, 2**63, 2),
    ],
)
def test_bad_arguments_raise(draw):
    with pytest.raises(ConfigError):
        draw(Generator(0))


def test_empty_shapes_draw_nothing():
    rng = Generator(1)
    before = rng.get_state()
    assert rng.rand(0, 3).shape == rng.randn(0, 3).shape == (0, 3)
    assert rng.randperm(0).size == rng.randint(0, 5, 0).size == 0
    assert rng.get_state() == before
