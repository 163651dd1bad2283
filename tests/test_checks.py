"""What passes the checks of arguments, as what it comes back, and what the rest is told."""

import math
from dataclasses import make_dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import checks
from tinygrad_llm.errors import ConfigError

INTEGERS = [int, np.int8, np.int64, np.uint8, np.uint64]
FLOATS = [float, np.float16, np.float32, np.float64]
NEITHER = [True, np.True_, None, "3", [3], np.array([3]), np.array(3), 3j, Fraction(3)]


@given(st.sampled_from(INTEGERS), st.integers(0, 100), st.integers(-5, 100))
def test_an_integer_comes_back_as_pythons(kind, value, least):
    if value < least:
        with pytest.raises(ConfigError, match=rf"^GPTConfig: emb_dim is .*{value}\)?: it must be"):
            checks.check_integer("GPTConfig: emb_dim", kind(value), least)
    else:
        checked = checks.check_integer("GPTConfig: emb_dim", kind(value), least)
        assert type(checked) is int
        assert checked == value


@pytest.mark.parametrize("value", [*NEITHER, 3.0, np.float32(3), math.nan])
def test_what_is_no_integer(value):
    with pytest.raises(ConfigError, match=r"^rows is .*: it must be a positive integer$"):
        checks.check_integer("rows", value)
    with pytest.raises(ConfigError, match=r"^n_shots is .*: it must be an integer, 0 or more$"):
        checks.check_integer("n_shots", value, least=0)
    with pytest.raises(ConfigError, match=r"^Linear: in_features is .*: it must be a positive integer$"):
        checks.check_size("Linear", out_features=3, in_features=value)


@given(st.sampled_from([*INTEGERS, *FLOATS]), st.integers(0, 100), st.integers(0, 100))
def test_a_number_comes_back_as_pythons_float(kind, value, bound):
    for bounds, fits in (({}, True), ({"most": bound}, value <= bound), ({"below": bound}, value < bound)):
        if fits:
            checked = checks.check_number("lr", kind(value), **bounds)
            assert type(checked) is float
            assert checked == value
        else:
            with pytest.raises(
                ConfigError, match=rf"^lr is .*: it must be a number from 0 to {bound}(, {bound} excluded)?$"
            ):
                checks.check_number("lr", kind(value), **bounds)


@pytest.mark.parametrize("value", [*NEITHER, -1e-9, -1, math.nan, math.inf, np.float32("inf"), 10**400])
def test_what_is_no_number(value):
    with pytest.raises(ConfigError, match=r"^lr is .*: it must be a finite number, 0 or more$"):
        checks.check_number("lr", value)
    with pytest.raises(ConfigError, match=r"it must be a number from 0 to 1$"):
        checks.check_number("drop_rate", value, most=1)
    with pytest.raises(ConfigError, match=r"it must be a number from 0 to 1, 1 excluded$"):
        checks.check_number("momentum", value, below=1)


def test_flags():
    assert checks.check_flag("qkv_bias", False) is False
    for value in (0, 1, np.True_, "true", None):
        with pytest.raises(ConfigError, match=r"^qkv_bias is .*: it must be True or False$"):
            checks.check_flag("qkv_bias", value)


def test_a_long_value_is_cut_short():
    for check in (checks.check_integer, checks.check_number, checks.check_flag):
        with pytest.raises(ConfigError) as caught:
            check("n_layer", "9" * 10**6)
        assert len(str(caught.value)) < 200


def test_a_name_that_is_no_option():
    options = make_dataclass("Options", ["top_k", "top_p"])
    checks.check_options("generation", {"top_k": 3}, options)
    with pytest.raises(ConfigError, match=r"^generation has no option 'top_kk' \(did you mean top_k\?\)$"):
        checks.check_options("generation", {"top_p": 1, "top_kk": 3}, options)
    with pytest.raises(ConfigError, match=r"^generation has no option 'colour'$"):
        checks.check_options("generation", {"colour": 3}, options)


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.00 KiB"),
        (4 * 163_009_536, "621.83 MiB"),  # the book's chapter 4
        (4 * 1_637_792_000, "6.10 GiB"),
        (2**60 - 1, "1,048,576.00 TiB"),
        (2**60, "1,048,576 TiB"),
    ],
)
def test_a_number_of_bytes_in_words(n, text):
    assert checks.byte_size(n) == text
    assert checks.byte_size(10**400).endswith(" TiB")


@given(st.integers(1024, 2**60))
def test_a_number_of_bytes_can_be_read_back(n):
    number, unit = checks.byte_size(n).replace(",", "").split()
    size = 1024 ** (1 + ["KiB", "MiB", "GiB", "TiB"].index(unit))
    assert abs(float(number) * size - n) <= 0.00501 * size
    assert size <= n < 1024 * size or unit == "TiB"
