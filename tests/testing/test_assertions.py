"""assert_close, assert_no_alias and assert_unchanged: each passes, and each fails with words that help."""

import math

import numpy as np
import pytest

from tinygrad_llm import Tensor
from tinygrad_llm.testing import assert_close, assert_no_alias, assert_unchanged


def test_close_is_measured_by_the_dtype():
    x = np.linspace(1, 2, 10)
    assert_close(x * (1 + 1e-13), x)
    assert_close((x * (1 + 1e-6)).astype(np.float32), x)
    with pytest.raises(AssertionError):
        assert_close(x * (1 + 1e-6), x)
    with pytest.raises(AssertionError):
        assert_close((x * (1 + 1e-4)).astype(np.float32), x)


def test_the_worst_index_and_its_ulps_are_named():
    x = np.ones((2, 3), np.float32)
    y = x.copy()
    y[0, 1] += 2e-5
    y[1, 2] += np.float32(2.0**-13)
    with pytest.raises(AssertionError, match=r"not close at \[1, 2\].*1\.02e\+03 ulps of float32; 1 of 6|2 of 6"):
        assert_close(y, x)


def test_nan_and_inf_have_to_match():
    odd = np.array([math.nan, math.inf, -math.inf, 1.0])
    assert_close(odd, odd.copy())
    for i, wrong in [(0, 1.0), (1, -math.inf), (2, 0.0), (3, math.nan), (3, math.inf)]:
        other = odd.copy()
        other[i] = wrong
        with pytest.raises(AssertionError, match=rf"at \[{i}\]"):
            assert_close(other, odd)


def test_shapes_have_to_match_but_for_one_number():
    assert_close(np.zeros((2, 3)), 0.0)
    with pytest.raises(AssertionError, match=r"actual \(2, 3\), expected \(3,\)"):
        assert_close(np.zeros((2, 3)), np.zeros(3))


def test_tensors_and_lists_and_empty_arrays_are_taken():
    assert_close(Tensor([1.0, 2.0]), [1.0, 2.0])
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(AssertionError):
        assert_close(Tensor([1.0, 2.0]), [1.0, 2.1])


def test_alias():
    x = np.zeros((4, 4))
    assert_no_alias(x, x.copy(), None, Tensor(np.zeros(3)))
    assert_no_alias(x[::2], x[1::2])  # interleaved, but no element in common
    for view in (x, x.T, x[1:], x.reshape(-1), Tensor(x)):
        with pytest.raises(AssertionError, match=r"arrays 0 \(4, 4\) and 2 .* share memory"):
            assert_no_alias(x, None, view)


def test_unchanged():
    x, t = np.zeros((2, 2)), Tensor([1.0, 2.0])
    with assert_unchanged(x, t):
        _ = x + t.data[0]
    with (
        pytest.raises(AssertionError, match=r"argument 0 \(2, 2\) was changed, first at \[1, 0\], 1 elements"),
        assert_unchanged(x, t),
    ):
        x[1, 0] = 3
    with (
        pytest.raises(AssertionError, match=r"argument 1 was changed: its \.data is another array"),
        assert_unchanged(x, t),
    ):
        t.data = t.data.copy()
    with pytest.raises(AssertionError, match="sign or payload"), assert_unchanged(x):
        x[0, 0] = -0.0
    x[0, 0] = math.nan
    with assert_unchanged(x):
        pass
