"""Optimizers against PyTorch 2.13 and the papers' formulas, clipping and schedules against the figures of others."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.engine import Tensor
from tinygrad_llm.errors import ConfigError, DTypeError, NonFiniteError, ShapeError, StateDictError
from tinygrad_llm.optim import (
    SGD,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    NoamSchedule,
    clip_grad_norm,
)

NAN, INF = math.nan, math.inf


def parameter(values, dtype=np.float64, grad=None):
    p = Tensor(np.array(values, dtype), requires_grad=True, name="w")
    p.grad = None if grad is None else np.array(grad, dtype)
    return p


def run_against_torch(make, steps=4):
    """Minimise sum(a^3) + sum(sin 3b), gradients by hand, from the start at which PyTorch was run too."""
    a, b = parameter([1.0, -2.0, 3.0]), parameter([[0.5, 0.25]])
    optimizer = make(a, b)
    for _ in range(steps):
        a.grad, b.grad = 3 * a.data**2, 3 * np.cos(3 * b.data)
        optimizer.step()
    return [*a.data.ravel(), *b.data.ravel()]


# ---- the rules


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda a, b: SGD([a, b], lr=0.01),
            [0.890039104201958, -2.581221488488077, 2.1567630756898737, 0.4902992930294892, 0.15456907813405313],
        ),
        (
            lambda a, b: SGD([a, b], lr=0.01, momentum=0.9, weight_decay=0.1),
            [0.7435494879167724, -3.2986472731827274, 1.0689492967836218, 0.47291731261777825, 0.0329244691851209],
        ),
        (
            lambda a, b: SGD(
                [{"params": [a], "lr": 0.02}, {"params": [b], "momentum": 0.5}], lr=0.01, weight_decay=0.1
            ),
            [0.7912720676063829, -3.4135583438464634, 1.619224634748286, 0.4815570104386253, 0.10218532482164004],
        ),
        (
            lambda a, b: AdamW([a, b], lr=0.01),
            [0.9596566702003803, -2.0392150652177246, 2.9588222420986, 0.46001616501003095, 0.2098547015994134],
        ),
        (
            lambda a, b: AdamW(
                [
                    {"params": [a], "weight_decay": 0.0},
                    {"params": [b], "lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3},
                ],
                lr=0.01,
                weight_decay=0.1,
            ),
            [0.9600500655129307, -2.040021351013421, 2.960015580216369, 0.37737139004294923, 0.12701000506668775],
        ),
    ],
)
def test_four_steps_equal_pytorch(make, expected):
    np.testing.assert_allclose(run_against_torch(make), expected, rtol=1e-13)


def test_adamw_on_a_parabola():
    p = parameter([1.0])
    optimizer = AdamW([p], lr=0.1, weight_decay=0.01)
    path = []
    for _ in range(3):
        p.grad = 2 * p.data
        optimizer.step()
        path.append(p.data.item())
    np.testing.assert_allclose(path, [0.8990000005, 0.7985190271685, 0.6989111831582], rtol=0, atol=5e-13)


def test_adamw_in_float32_stays_there():
    p = parameter([1.0, -2.0, 0.001], np.float32)
    q = parameter(p.data.copy(), np.float32)
    optimizer = AdamW([p], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    wide = np.float64  # NumPy scalars as options may not widen the arithmetic
    same = AdamW([q], lr=wide(0.01), betas=(wide(0.9), wide(0.999)), eps=wide(1e-8), weight_decay=wide(0.1))
    data = p.data
    for _ in range(3):
        p.grad, q.grad = 3 * p.data**2, 3 * q.data**2
        optimizer.step()
        same.step()
    assert p.data is data
    np.testing.assert_array_equal(p.data, q.data)
    assert {a.dtype for a in optimizer.state_dict()["moments"].values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(data, [0.967056513, -2.02398324, -0.024241643], rtol=3e-7)


def papers_adamw(p, gradients, lr, beta1, beta2, eps, weight_decay):
    """One number at a time: Kingma and Ba, algorithm 1, with the decay of Loshchilov and Hutter, algorithm 2."""
    m = v = 0.0
    t = 0
    for g in gradients:
        if g is None:
            continue
        t += 1
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr * weight_decay * p
        p = p - lr * (m / (1 - beta1**t)) / (math.sqrt(v / (1 - beta2**t)) + eps)
    return p


numbers = st.floats(-10, 10).map(lambda x: round(x, 3))
options = st.fixed_dictionaries(
    {
        "lr": st.floats(0, 0.5),
        "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
        "eps": st.floats(1e-9, 1),
        "weight_decay": st.floats(0, 1),
    }
)


@given(
    st.lists(
        st.tuples(options, numbers, st.lists(st.none() | numbers, min_size=5, max_size=5)), min_size=1, max_size=3
    ),
    options,
)
def test_adamw_equals_the_papers_loop_for_every_group(groups, general):
    parameters = [parameter([start]) for _, start, _ in groups]
    optimizer = AdamW(
        [{"params": [p]} | own for p, (own, _, _) in zip(parameters, groups, strict=True)], **general | {"lr": 1.0}
    )
    for step in range(5):
        for p, (_, _, gradients) in zip(parameters, groups, strict=True):
            p.grad = None if gradients[step] is None else np.array([gradients[step]])
        optimizer.step()
    for p, (own, start, gradients) in zip(parameters, groups, strict=True):
        expected = papers_adamw(start, gradients, own["lr"], *own["betas"], own["eps"], own["weight_decay"])
        assert p.data.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_parameter_without_gradient_is_left_alone():
    for make in (lambda ps: AdamW(ps, weight_decay=0.5), lambda ps: SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.5)):
        frozen, trained = parameter([1.0, 2.0]), parameter([1.0], grad=[1.0])
        optimizer = make([frozen, trained])
        optimizer.step()
        optimizer.step()
        assert frozen.data.tolist() == [1.0, 2.0]
        assert trained.data.item() < 1
        assert optimizer.state_dict()["steps"] == [0, 2]
        assert not any(key.startswith("0.") for key in optimizer.state_dict()["moments"])


def test_a_shared_parameter_takes_one_step():
    once, twice = parameter([1.0], grad=[1.0]), parameter([1.0], grad=[1.0])
    AdamW([once]).step()
    AdamW([twice, twice]).step()
    assert once.data == twice.data


def test_eps_and_lr_of_zero():
    p = parameter([1.0, 2.0, 3.0], np.float32, grad=[0.0, 1.0, 1e-30])  # 1e-30 squared is 0 in float32
    AdamW([p], lr=0.1, eps=0.0, weight_decay=0.0).step()
    np.testing.assert_allclose(p.data, [1.0, 1.9, 3.0], rtol=1e-6)
    AdamW([p], lr=0.1, eps=1e-60, weight_decay=0.0).step()  # 1e-60 is 0 in float32
    np.testing.assert_allclose(p.data, [1.0, 1.8, 3.0], rtol=1e-6)
    before = p.data.copy()
    AdamW([p], lr=0.0, weight_decay=0.5).step()
    SGD([p], lr=0.0, momentum=0.5, weight_decay=0.5).step()
    np.testing.assert_array_equal(p.data, before)


def test_gradients_are_not_written_to_and_zero_grad_forgets_them():
    for make in (AdamW, lambda ps: SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.1)):
        p = parameter([1.0, 2.0], grad=[3.0, 4.0])
        optimizer = make([p])
        optimizer.step()
        optimizer.step()
        assert p.grad.tolist() == [3.0, 4.0]
        optimizer.zero_grad()
        assert p.grad is None


# ---- groups, learning rate, state


def test_set_lr_keeps_the_ratio_of_a_group():
    a, b = parameter([1.0], grad=[1.0]), parameter([1.0], grad=[1.0])
    optimizer = SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.1)
    optimizer.set_lr(0.0)
    optimizer.set_lr(0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 0.1])
    optimizer.step()
    assert [a.data.item(), b.data.item()] == pytest.approx([0.5, 0.9])


def test_writing_to_a_group_counts_and_is_checked():
    p = parameter([1.0], np.float32, grad=[1.0])
    optimizer = AdamW([p])
    optimizer.param_groups[0]["lr"] = np.float64(0.5)
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    assert p.data.item() == pytest.approx(0.5)
    optimizer.param_groups[0]["lr"] = NAN
    with pytest.raises(ConfigError, match="lr is nan"):
        optimizer.step()
    with pytest.raises(ConfigError, match="lr is nan"):
        optimizer.set_lr(NAN)
    assert p.data.item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda ps: AdamW([{"params": ps[:1], "lr": 0.03, "weight_decay": 0.0}, {"params": ps[1:]}], lr=0.1),
        lambda ps: SGD(ps, lr=0.1, momentum=0.9),
        lambda ps: SGD(ps, lr=0.1),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(make):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (5,), (2,))]
    gradients = [[rng.normal(size=p.shape).astype(np.float32) for p in start[:2]] for _ in range(6)]

    def train(parameters, optimizer, steps):
        for step in steps:
            optimizer.set_lr(0.1 / (step + 1))
            for p, g in zip(parameters[:2], gradients[step], strict=True):  # the third never has a gradient
                p.grad = g.copy()
            optimizer.step()

    whole = [parameter(p, np.float32) for p in start]
    train(whole, make(whole), range(6))

    half = [parameter(p, np.float32) for p in start]
    optimizer = make(half)
    train(half, optimizer, range(3))
    saved = optimizer.state_dict()
    moments = {key: a.copy() for key, a in saved.pop("moments").items()}
    state = json.loads(json.dumps(saved)) | {"moments": moments}
    resumed = [parameter(p.data, np.float32) for p in half]
    train(half, optimizer, range(3, 6))
    optimizer = make(resumed)
    for group in optimizer.param_groups:
        group.update(weight_decay=0.7, lr=0.7)  # options come with the state
    optimizer.load_state_dict(state)
    train(resumed, optimizer, range(3, 6))
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    for key, a in optimizer.state_dict()["moments"].items():
        assert not np.shares_memory(a, moments[key])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("steps"), "pass what state_dict"),
        (lambda s: s["param_groups"].pop(), "1 parameters"),
        (lambda s: s["param_groups"][0].update(params=[0, 2]), "2 parameters"),
        (lambda s: s["param_groups"][0].pop("eps"), "eps"),
        (lambda s: s.update(steps=[1]), "steps is"),
        (lambda s: s.update(steps=[1, -1]), "steps is"),
        (lambda s: s["moments"].pop("1.v"), "'1.v' is missing"),
        (lambda s: s["moments"].update({"2.m": np.zeros(1)}), "'2.m' belongs to no parameter"),
        (lambda s: s["moments"].update({"1.m": np.zeros(3)}), r"'1.m' is float64 \(3,\)"),
        (lambda s: s["moments"].update({"1.m": np.zeros(2, np.float32)}), "float32"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(damage, message):
    a, b = parameter([1.0], grad=[1.0]), parameter([1.0, 2.0], grad=[1.0, 1.0])
    optimizer = AdamW([{"params": [a]}, {"params": [b], "lr": 0.1}])
    optimizer.step()
    other = AdamW([{"params": [a]}, {"params": [b], "lr": 0.2}])
    state = optimizer.state_dict()
    damage(state)
    with pytest.raises(StateDictError, match=message):
        other.load_state_dict(state)
    assert other.state_dict()["steps"] == [0, 0]
    assert not other.state_dict()["moments"]
    assert other.param_groups[1]["lr"] == 0.2


# ---- bad input


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", -1),
        ("lr", NAN),
        ("lr", INF),
        ("lr", "0.1"),
        ("lr", None),
        ("lr", True),
        ("betas", (1.0, 0.9)),
        ("betas", (0.9, 1)),
        ("betas", (0.9, -0.1)),
        ("betas", (0.9, NAN)),
        ("betas", 0.9),
        ("betas", (0.9,)),
        ("eps", -1e-8),
        ("eps", NAN),
        ("weight_decay", -0.1),
        ("weight_decay", INF),
    ],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ConfigError, match=f"{option} is "):
        AdamW([parameter([1.0])], **{option: value})
    with pytest.raises(ConfigError, match=f"{option} is "):
        AdamW([{"params": [parameter([1.0])], option: value}])


def test_momentum_out_of_range_is_named():
    for momentum in (-0.1, 1.0, NAN):
        with pytest.raises(ConfigError, match="momentum is"):
            SGD([parameter([1.0])], lr=0.1, momentum=momentum)


def test_parameters_that_cannot_be_optimized():
    p = parameter([1.0])
    read_only = parameter([1.0])
    read_only.data.flags.writeable = False
    for parameters, message in [
        ([], "no parameters"),
        (iter(()), "no parameters"),
        (p, "pass model.parameters"),
        (np.ones(3), "parameter 0 is a float64: it must be a tensor"),
        ([("w", p)], "is a tuple: it must be a tensor"),
        ([{"params": []}], "group 0 has no parameters"),
        ([{"params": [p]}, p], r"group 1 is w float64 \(1,\)"),
        ([{"params": p}], "group 0"),
        ([{"lr": 0.1}], "group 0"),
        ([{"params": [p], "learning_rate": 0.1}], "no option 'learning_rate'"),
        ([{"params": [p]}, {"params": [p]}], "group 1, parameter 0: w .* is in an earlier group"),
        ([read_only], "read-only"),
        ([p * 2.0], "computed from other tensors"),
    ]:
        with pytest.raises(ConfigError, match=message):
            AdamW(parameters)
    with pytest.raises(ConfigError, match="ratio"):
        AdamW([{"params": [p], "lr": 0.1}], lr=0)
    for dtype in (np.int64, np.float16, bool):
        with pytest.raises(DTypeError, match=f"{np.dtype(dtype)}"):
            AdamW([Tensor(np.ones(2, dtype))])


def test_a_gradient_that_does_not_fit_stops_the_step_before_any_change():
    good = parameter([1.0, 2.0], grad=[1.0, 1.0])
    for bad in (parameter([1.0, 2.0], grad=[1.0]), parameter([1.0, 2.0], grad=[[1.0, 1.0]])):
        with pytest.raises(ShapeError, match="gradient has shape"):
            AdamW([good, bad]).step()
    bad = parameter([1.0], grad=[1.0])
    bad.grad = bad.grad.astype(np.float32)
    with pytest.raises(DTypeError, match="gradient is float32"):
        AdamW([good, bad]).step()
    optimizer = AdamW([bad])
    bad.grad = np.ones(1)
    optimizer.step()
    bad.data, bad.grad = bad.data.astype(np.float32), np.ones(1, np.float32)
    with pytest.raises(DTypeError, match="m is float64"):
        optimizer.step()
    assert good.data.tolist() == [1.0, 2.0]


# ---- clipping


def test_clipping_equals_pytorch():
    a, b = parameter([0.0] * 3, np.float32, [1, 2, 2]), parameter([0.0], np.float32, [4])
    assert clip_grad_norm([a, b, parameter([0.0])], 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(a.grad, [0.19999995827674866, 0.3999999165534973, 0.3999999165534973], rtol=1e-7)
    np.testing.assert_allclose(b.grad, [0.7999998331069946], rtol=1e-7)
    assert a.grad.dtype == np.float32


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), max_size=4), st.floats(1e-3, 1e3))
def test_clipping_scales_by_the_formula_and_never_up(gradients, max_norm):
    parameters = [parameter(np.zeros(len(g)), grad=g) for g in gradients]
    everything = np.concatenate([[], *gradients])
    norm = np.sqrt((everything**2).sum())
    assert clip_grad_norm(iter(parameters), max_norm) == pytest.approx(norm)
    after = np.concatenate([[], *(p.grad for p in parameters)])
    np.testing.assert_allclose(after, everything * min(1, max_norm / (norm + 1e-6)), rtol=1e-12)


def test_clipping_counts_a_shared_parameter_once():
    p = parameter([0.0, 0.0], grad=[3.0, 4.0])
    assert clip_grad_norm([p, p], 0.5) == pytest.approx(5)
    np.testing.assert_allclose(p.grad, [0.3, 0.4], rtol=1e-6)


def test_the_norm_of_a_large_gradient_is_exact_to_float32():
    g = np.random.default_rng(0).standard_normal(3_000_000, dtype=np.float32)
    p = parameter(np.zeros_like(g), np.float32, grad=g)
    assert clip_grad_norm([p], INF) == pytest.approx(np.linalg.norm(g.astype(np.float64)), rel=1e-6)
    np.testing.assert_array_equal(p.grad, g)


def test_finite_gradients_whose_squares_overflow_are_clipped():
    p = parameter([0.0, 0.0], np.float32, grad=[3e30, 4e30])
    assert clip_grad_norm([p], 1.0) == pytest.approx(5e30)
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_non_finite_gradient_is_located_and_nothing_changes(bad):
    a, b = parameter([1.0], grad=[2.0]), parameter([[1.0, 2.0]], grad=[[3.0, bad]])
    with pytest.raises(NonFiniteError, match=r"the gradient of w float64 \(1, 2\) is -?(nan|inf) at \(0, 1\)"):
        clip_grad_norm([a, b], 1.0)
    assert a.grad.tolist() == [2.0]
    assert b.grad[0, 0] == 3.0
    assert b.data.tolist() == [[1.0, 2.0]]


def test_zero_and_missing_gradients():
    assert clip_grad_norm([], 1.0) == 0
    p = parameter([1.0], grad=[0.0])
    assert clip_grad_norm([parameter([1.0]), parameter(np.zeros((0, 3)), grad=np.zeros((0, 3))), p], 1.0) == 0
    assert p.grad.tolist() == [0.0]


@pytest.mark.parametrize("max_norm", [0, -1, NAN, "1", None, True])
def test_a_bad_max_norm_is_named(max_norm):
    with pytest.raises(ConfigError, match="max_norm is"):
        clip_grad_norm([parameter([1.0], grad=[5.0])], max_norm)


# ---- schedules


def assert_schedule(schedule, figures):
    for step, lr in figures.items():
        assert schedule(step) == pytest.approx(lr, rel=1e-5), step


def test_the_books_schedule():
    """Appendix D: 135 steps of which 27 warm up, 1e-5 to 1e-3 and back."""
    schedule = CosineSchedule(peak_lr=1e-3, total_steps=135, warmup_steps=27, initial_lr=1e-5, min_lr=1e-5)
    assert_schedule(schedule, {0: 1e-5, 1: 4.66667e-5, 26: 9.63333e-4, 27: 1e-3, 81: 5.05e-4, 134: 1.020941e-5})


def test_nanogpts_schedule():
    """get_lr of nanoGPT's train.py: lr (it + 1) / (warmup + 1), then a cosine, then the minimum."""
    schedule = CosineSchedule(peak_lr=1e-3, total_steps=5000, warmup_steps=100, min_lr=1e-4)
    assert_schedule(schedule, {0: 9.90099e-6, 49: 1e-3 * 50 / 101, 100: 1e-3, 2550: 5.5e-4, 5000: 1e-4, 9999: 1e-4})


def test_noam_schedule():
    schedule = NoamSchedule(emb_dim=512, warmup_steps=4000)
    figures = {0: 1.74693e-7, 1: 1.74693e-7, 100: 1.74693e-5, 4000: 6.98771e-4, 100_000: 1.39754e-4}
    assert_schedule(schedule, figures)
    assert NoamSchedule(512, 4000, factor=2.0)(100) == pytest.approx(2 * 1.74693e-5, rel=1e-5)


def test_constant_and_linear_schedules():
    assert [ConstantSchedule(0.3)(step) for step in (0, 10**9)] == [0.3, 0.3]
    schedule = LinearSchedule(peak_lr=1.0, total_steps=10, warmup_steps=4, initial_lr=0.2, min_lr=0.4)
    assert_schedule(schedule, {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 1.0, 5: 0.9, 7: 0.7, 9: 0.5, 10: 0.4, 11: 0.4})
    assert_schedule(LinearSchedule(peak_lr=1.0, total_steps=4), {0: 1.0, 1: 0.75, 4: 0.0})
    assert LinearSchedule(peak_lr=1.0, total_steps=3, warmup_steps=3)(2) == 0.75


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_warm_up_rises_and_the_rest_falls(warmup, rest, peak, low):
    schedule = CosineSchedule(peak_lr=peak + low, total_steps=warmup + rest, warmup_steps=warmup, min_lr=low)
    rates = [schedule(step) for step in range(warmup + rest + 2)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup] == (pytest.approx(peak + low) if rest else low)
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == low
    assert min(rates) >= 0
    assert max(rates) <= peak + low + 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSchedule(-1.0), "lr is -1.0"),
        (lambda: LinearSchedule(NAN, 10), "peak_lr is nan"),
        (lambda: LinearSchedule(1.0, -1), "total_steps is -1"),
        (lambda: LinearSchedule(1.0, 1.5), "total_steps is 1.5"),
        (lambda: CosineSchedule(1.0, 10, 11), "warmup_steps is 11"),
        (lambda: CosineSchedule(1.0, 10, initial_lr=-1.0), "initial_lr is -1.0"),
        (lambda: CosineSchedule(1.0, 10, min_lr=INF), "min_lr is inf"),
        (lambda: NoamSchedule(0), "emb_dim is 0"),
        (lambda: NoamSchedule(512, 0), "warmup_steps is 0"),
        (lambda: NoamSchedule(512, factor=-1.0), "factor is -1.0"),
        (lambda: CosineSchedule(1.0, 10)(-1), "step is -1"),
        (lambda: NoamSchedule(512)(0.5), "step is 0.5"),
        (lambda: ConstantSchedule(1.0)(True), "step is True"),
    ],
)
def test_bad_schedules_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


# ---- together


def test_training_with_all_of_it_finds_the_minimum():
    w = Tensor(np.array([3.0, -4.0], np.float32), requires_grad=True)
    optimizer = AdamW([w], lr=0.3, weight_decay=0.0)
    schedule = CosineSchedule(peak_lr=0.3, total_steps=300, warmup_steps=10)
    for step in range(300):
        optimizer.zero_grad()
        ((w - np.array([1.0, 2.0], np.float32)) ** 2).sum().backward()
        clip_grad_norm([w], 1.0)
        optimizer.set_lr(schedule(step))
        optimizer.step()
    np.testing.assert_allclose(w.data, [1.0, 2.0], atol=1e-3)


def test_repr_says_how_many_numbers_learn_and_how():
    w, b = Tensor(np.ones((3, 400), np.float32), True), Tensor(np.ones(3, np.float32), True)
    assert repr(SGD([w, b], lr=0.1)) == "SGD(2 parameters, 1,203 numbers, lr 0.1, momentum 0, weight_decay 0, step 0)"
    optimizer = AdamW([{"params": [w]}, {"params": [b], "weight_decay": 0.0}], lr=4e-4, weight_decay=0.1)
    b.grad = np.ones(3, np.float32)
    optimizer.step()
    optimizer.set_lr(1 / 3)
    assert repr(optimizer) == (
        "AdamW(1 + 1 parameters, 1,203 numbers, lr 0.333333, betas (0.9, 0.999), eps 1e-08, weight_decay 0.1 | 0, step 1)"
    )
    many = [{"params": [Tensor(np.ones(9), True)], "lr": 0.9**i, "weight_decay": 0.7**i} for i in range(1, 500)]
    assert "lr 0.9 | 0.81 | ... | 1.4" in repr(AdamW(many))
    assert len(repr(AdamW(many))) < 200
