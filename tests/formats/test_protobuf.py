"""The wire form of Protocol Buffers: the examples of its description, and messages that end too early."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.errors import CorruptCheckpoint
from tinygrad_llm.formats.protobuf import read_fields


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("", []),
        ("089601", [(1, 150)]),
        ("120774657374696e67", [(2, b"testing")]),
        ("1a03089601", [(3, b"\x08\x96\x01")]),
        ("08ffffffffffffffffff01", [(1, 2**64 - 1)]),  # -1
        ("a006012501020304", [(100, 1), (4, b"\1\2\3\4")]),
        ("090102030405060708", [(1, bytes(range(1, 9)))]),
    ],
)
def test_fields(message, fields):
    read = list(read_fields(bytes.fromhex(message)))
    assert [(field.number, field.value) for field in read] == fields
    assert [field.start for field in read[:1]] == [0] * bool(fields)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("0801 08", "byte 3: a number that does not end"),
        ("08ffffffffffffffffffff01", "byte 1: a number that does not end"),
        ("0801 0b", "byte 2: field 1 of kind 3"),
        ("00", "byte 0: field 0 of kind 0"),
        ("0801 120474", "byte 2: field 2 takes 4 bytes, 1 are left"),
        ("2501", "byte 0: field 4 takes 4 bytes, 1 are left"),
        ("12ffffffffffffffffff01", "takes 18,446,744,073,709,551,615 bytes, 0 are left"),
    ],
)
def test_what_is_no_message(message, error):
    with pytest.raises(CorruptCheckpoint, match=error):
        list(read_fields(bytes.fromhex(message)))


@given(st.binary())
def test_any_bytes_are_fields_or_refused(message):
    try:
        fields = list(read_fields(message))
    except CorruptCheckpoint:
        return
    assert [field.start for field in fields] == sorted({field.start for field in fields})
