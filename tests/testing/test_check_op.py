"""The kit as its users meet it: public names only, ops of their own, one right and several subtly wrong."""

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import Op
from tinygrad_llm.errors import ConfigError, DTypeError, ShapeError
from tinygrad_llm.testing import GradcheckError, OpSpec, applicable, check_op, kill_table, mutants

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _registry():
    """The ops made here are gone afterwards."""
    before = dict(Op.registry)
    yield
    Op.registry.clear()
    Op.registry.update(before)


def affine_forward(x, scale, shift):
    """y = x scale + shift, row by row"""
    if scale.shape != x.shape[-1:]:
        raise ShapeError(f"affine: x is {x.shape}, scale is {scale.shape}: scale must be {x.shape[-1:]}")
    return x * scale + shift, (x, scale)


def affine_backward(g, x, scale):
    """dx = g scale,  dscale = Σ g x,  dshift = Σ g"""
    return g * scale, (g * x).sum(0), g.sum(0)


def no_sum_backward(g, x, scale):
    return g * scale, (g * x).sum(0), g[0]


def a_thousandth_backward(g, x, scale):
    return g * scale, (g * x).sum(0) * 1.001, g.sum(0)


def writing_backward(g, x, scale):
    dscale, dshift = (g * x).sum(0), g.sum(0)
    g *= scale
    return g, dscale, dshift


def widening_backward(g, x, scale):
    return g * scale, (g * x).sum(0), (g * np.float64(1)).sum(0, dtype=np.float64)


def shifting_backward(g, x, scale):
    return g * scale, (g * x).sum(0), g.sum(0) + 1e-3


def spec_of(backward):
    return OpSpec(
        Op(affine_forward, backward),
        samples=lambda rng: [tuple(rng.standard_normal(shape) for shape in ((3, 4), 4, 4))],
        reference=lambda x, scale, shift: np.einsum("ij,j->ij", x, scale) + shift,
        analytic=True,
        special=[((np.zeros((1, 1)), np.ones(1), np.array([2.0])), [[2.0]], ([[1.0]], [0.0], [1.0]))],
        errors=[((np.ones((3, 4)), np.ones(3), np.ones(4)), ShapeError, "scale must be (4,)")],
    )


def test_a_right_op_passes_every_check_that_applies():
    spec = spec_of(affine_backward)
    assert check_op(spec) == applicable(spec)
    assert set(applicable(spec)) >= {"gradient", "complex step", "value", "nothing written", "special values", "errors"}


@pytest.mark.parametrize(
    ("backward", "words"),
    [
        (no_sum_backward, r"affine fails the check 'gradient' with inputs .*argument 2 \(shift\) at \[\d\] of output"),
        (
            a_thousandth_backward,
            r"affine fails the check 'gradient'.*argument 1 \(scale\) at \[\d\].*relative error 0\.000999",
        ),
        (writing_backward, "affine fails the check 'gradient'|'linear in g'|'nothing written'"),
        (widening_backward, r"'shape and dtype'.*gradient 2 is \(4,\) float64, its input is \(4,\) float32"),
        (shifting_backward, "'gradient'"),
    ],
)
def test_a_wrong_op_is_found_and_the_place_is_named(backward, words):
    start = time.process_time()
    with pytest.raises(GradcheckError, match=words):
        check_op(spec_of(backward))
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("backward", "check", "words"),
    [
        (shifting_backward, "linear in g", "not close"),
        (writing_backward, "nothing written", "read-only|was changed"),
        (writing_backward, "nothing shared", "shares memory with g"),
    ],
)
def test_one_check_alone(backward, check, words):
    with pytest.raises(GradcheckError, match=words):
        check_op(spec_of(backward), only=[check])


def test_a_wrong_value_special_value_and_error_are_found():
    right = spec_of(affine_backward)
    wrong_value = replace(right, reference=lambda x, scale, shift: x * scale)
    wrong_special = replace(
        right, special=[((np.zeros((1, 1)), np.ones(1), np.ones(1)), [[1.0]], ([[2.0]], None, None))]
    )
    wrong_error = replace(right, errors=[((np.ones((3, 4)), np.ones(4), np.ones(4)), ShapeError, "")])
    for spec, check in [(wrong_value, "value"), (wrong_special, "special values"), (wrong_error, "errors")]:
        with pytest.raises(GradcheckError, match=f"'{check}'"):
            check_op(spec)


def test_a_twin_that_differs_at_a_special_row_alone_is_found():
    spec = spec_of(affine_backward)

    @spec.op.twin
    def twin(x, scale, shift):
        return x / (1 / scale) + shift  # of a scale of 0, 0 * inf in the backward

    spec = replace(
        spec,
        special=[((np.ones((1, 1)), np.zeros(1), np.ones(1)), [[1.0]], ([[0.0]], [1.0], [1.0]))],
    )
    check_op(spec, only=["composed twin"])
    with pytest.raises(GradcheckError, match=r"'special values'.*array\(\[0\.\]\).* beside the composed twin: .*nan"):
        check_op(spec, only=["special values"])


def test_state_kept_between_calls_is_found():
    calls = []

    def counting_forward(x):
        calls.append(1)
        return x * (1 + 1e-9 * len(calls)), ()

    def counting_backward(g):
        return (g,)

    with pytest.raises(GradcheckError, match="not deterministic"):
        check_op(OpSpec(Op(counting_forward, counting_backward), samples=lambda rng: [(rng.standard_normal(3),)]))


def test_memory_layout_that_changes_the_result_is_found():
    def flat_forward(x):
        return x.ravel(order="K").reshape(x.shape) * 2, ()

    def flat_backward(g):
        return (g * 2,)

    spec = OpSpec(Op(flat_forward, flat_backward), samples=lambda rng: [(rng.standard_normal((3, 4)),)])
    with pytest.raises(GradcheckError, match="'any layout'"):
        check_op(spec)


def test_every_mutant_of_a_users_op_is_killed():
    table = kill_table(spec_of(affine_backward))
    assert len(table) > 35
    assert None not in table.values()


def test_a_thin_spec_lets_mutants_live():
    """The table is honest: with one sample at which x is 0, a wrong sign of dscale cannot be noticed, and it says so."""
    spec = OpSpec(Op(affine_forward, affine_backward), samples=lambda rng: [(np.zeros((1, 4)), np.ones(4), np.ones(4))])
    assert kill_table(spec)["dscale: wrong sign"] is None


def test_mutants_of_an_op_without_source_are_those_of_its_result():
    names = {}
    exec("def twice_forward(x): return 2 * x, ()\ndef twice_backward(g): return (2 * g,)", names)
    faults = [m.fault for m in mutants(Op(names["twice_forward"], names["twice_backward"]))]
    assert "dx: wrong sign" in faults
    assert not any(fault.startswith("line") for fault in faults)


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ({}, ConfigError, "give samples=, or elementwise=True"),
        ({"samples": lambda rng: []}, ConfigError, "gave no samples"),
        (
            {"samples": lambda rng: [(np.ones((2, 4)), np.array([1, 2, 3, 4]), np.ones(4))]},
            DTypeError,
            "sample 0, array 1 is int64",
        ),
    ],
)
def test_specs_that_would_check_nothing(row, error, words):
    with pytest.raises(error, match=words):
        check_op(OpSpec(Op(affine_forward, affine_backward), **row))


def test_an_unknown_check():
    with pytest.raises(ConfigError, match="no check 'speed' applies to affine: use shape and dtype, gradient"):
        check_op(spec_of(affine_backward), only=["speed"])


def test_options_with_a_generator_start_afresh_in_every_call():
    spec = OpSpec(
        Op.registry["dropout"],
        samples=lambda rng: [(rng.standard_normal((4, 5)), {"drop_rate": 0.5, "rng": np.random.default_rng(1)})],
    )
    assert "gradient" in check_op(spec)


def _run(*command):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    ).stdout


def test_the_example_shows_a_pass_and_a_failure():
    out = _run("-W", "error", "examples/90_add_your_own_op.py", "--quick")
    assert "Passed: shape and dtype, gradient" in out
    assert (
        "wrong gradient of argument 0 (x) at [1, 0] of output 2: analytic 0.119202922022, numeric 0.880797077978" in out
    )
    assert "None\n" not in out  # no survivor
    assert math.isclose(1 / (1 + math.exp(2)), 0.119202922022, rel_tol=1e-11)


def test_the_kit_does_not_need_hypothesis_and_the_package_does_not_need_the_kit():
    loaded = "import sys; print(sorted({m.split('.')[0] for m in sys.modules} & {'hypothesis', 'scipy', 'pytest'}))"
    assert _run("-c", f"import tinygrad_llm.testing; {loaded}") == "[]\n"
    out = _run("-c", "import sys, tinygrad_llm; print([m for m in sys.modules if 'testing' in m and 'tinygrad' in m])")
    assert out == "[]\n"


def test_without_hypothesis_all_works_but_the_strategies_which_say_what_to_install():
    absent = "import sys, runpy; sys.modules['hypothesis'] = sys.modules['pytest'] = sys.modules['scipy'] = None"
    out = _run("-c", f"{absent}; runpy.run_path('examples/90_add_your_own_op.py', run_name='__main__')")
    assert "Passed: shape and dtype, gradient" in out
    assert "other wrong backwards" in out
    lines = (absent, "from tinygrad_llm.testing import OpSpec, check_op, gradcheck, gradcheck_module, mutants")
    lines += (
        "try:",
        "    from tinygrad_llm.testing import strategies",
        "except ImportError as error:",
        "    print(error)",
    )
    said = _run("-c", "\n".join(lines))
    assert said.startswith("tinygrad_llm.testing.strategies: hypothesis is not installed: pip install hypothesis, or")
    assert said.count("\n") == 1


def test_the_entry_point_gives_profiles_and_costs_nothing():
    out = _run(
        "-c",
        "import sys, hypothesis; print('numpy' in sys.modules, 'tinygrad_llm' in sys.modules); "
        "print([hypothesis.settings.get_profile('tinygrad-llm-' + p).max_examples for p in ('dev', 'ci', 'nightly')])",
    )
    assert out == "False False\n[10, 30, 3000]\n"
