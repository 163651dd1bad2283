"""The reader of safetensors: every number right, and every kind of damage named before anything is read."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file
from safetensors_bytes import entry, file_bytes

from tinygrad_llm.errors import CheckpointError, CorruptCheckpoint, TinygradLLMError, UnsafeFile
from tinygrad_llm.formats.safetensors import SafetensorsFile
from tinygrad_llm.formats.sharded import Sharded


@pytest.fixture
def written(tmp_path):
    def write(data):
        path = tmp_path / "a.safetensors"
        path.write_bytes(data)
        return path

    return write


def refused(path, message, kind=CorruptCheckpoint):
    """Opening fails with the message, on one line that begins with the path, and takes neither time nor memory."""
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(kind, match=message) as caught:
        SafetensorsFile(path)
    assert time.process_time() - begin < 1
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(str(path))
    assert text.isprintable()
    assert len(text) < len(str(path)) + 400


two = np.array([1.5, -2], np.float32)
GOOD = file_bytes({"a": entry()}, two.tobytes())
NINES = "9" * 5000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header too small: the file has 0 bytes"),
        (GOOD[:7], "header too small: the file has 7 bytes"),
        (file_bytes("", length=0), "header too small"),
        (file_bytes("{", length=1), "header too small"),
        (file_bytes({}, length=99), "header of 99 bytes in a file of 10"),
        (file_bytes({}, length=2**63), "header too large: 9,223,372,036,854,775,808 bytes"),
        (file_bytes({}, length=100_000_001), "header too large"),
        (file_bytes('["a"]'), "must be a JSON object"),
        (file_bytes(" {}"), "must be a JSON object"),
        (file_bytes(b'{"\xff": 1}'), "not UTF-8 at byte 2"),
        (file_bytes('{"a": '), "not JSON at byte 6"),
        (file_bytes("{} {}"), "not JSON at byte 3"),
        (file_bytes("{}\0"), "not JSON at byte 2"),
        (file_bytes('{"a": 1, "a": 2}'), "'a' stands there twice"),
        (file_bytes('{"a": {"dtype": "F32", "dtype": "F32"}}'), "'dtype' stands there twice"),
        (file_bytes('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"), "nested too deeply"),
        (file_bytes('{"a": ' + '{"b":' * 100_000 + "1" + "}" * 100_000 + "}"), "nested too deeply"),
    ],
)
def test_a_broken_header_is_named(written, data, message):
    refused(written(data), message)


@pytest.mark.parametrize(
    "bad", ["NaN", "Infinity", "-Infinity", "1e400", "1.0", "true", '"1"', "-1", "null", "[]", NINES]
)
@pytest.mark.parametrize("field", ["shape[0]", "shape[1]", "data_offsets[0]", "data_offsets[1]"])
def test_what_is_no_size_is_refused_by_field(written, bad, field):
    values = {"shape": ["1", "2"], "data_offsets": ["0", "8"]}
    name, place = field[:-3], int(field[-2])
    values[name][place] = bad
    header = '{"a": {"dtype": "F32", ' + ", ".join(f'"{key}": [{", ".join(v)}]' for key, v in values.items()) + "}}"
    message = (
        "is not JSON" if bad.endswith(("NaN", "Infinity")) else "too large" if bad == "1e400" else re.escape(field)
    )
    refused(written(file_bytes(header, two.tobytes())), message)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(offsets=(4, 12))}, bytes(12), "between the beginning and 'a' 4 bytes belong to nobody"),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20), "between 'a' and 'b' 4 bytes belong to nobody"),
        ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12), "between 'a' and 'b' 4 bytes are in both"),
        ({"a": entry(), "b": entry()}, bytes(8), "8 bytes are in both"),
        ({"a": entry(offsets=(8, 0))}, bytes(8), "ends before it begins"),
        ({"a": entry(offsets=(0, 8, 8))}, bytes(8), "data_offsets is .* must be .begin, end."),
        ({"a": entry(offsets=(0,))}, bytes(8), "data_offsets is"),
        ({"a": entry() | {"data_offsets": {"0": 8}}}, bytes(8), "data_offsets is"),
        ({"a": entry(offsets=(0, 2**64))}, bytes(8), "beyond the 8 bytes of data"),
        ({"a": entry(shape=(3,))}, bytes(8), r"\[3\] of F32 takes 12 bytes, data_offsets \[0, 8\] has 8"),
        ({"a": entry(shape=(2**62, 4))}, bytes(8), "takes 73,786,976,294,838,206,464 bytes"),
        ({"a": entry(shape=(2**32, 2**32, 4))}, bytes(8), "takes 295,147,905,179,352,825,856 bytes"),
        ({"a": entry(shape=[1] * 65)}, bytes(8), "at most 64 sizes"),
        ({"a": entry() | {"shape": 2}}, bytes(8), "shape is 2"),
        ({"a": entry()}, bytes(9), "1 bytes after 'a' belong to no tensor"),
        ({"a": entry()}, bytes(7), "beyond the 7 bytes of data"),
        ({}, bytes(1), "1 bytes after the beginning belong to no tensor"),
        ({"a": entry("F33")}, bytes(8), "dtype is 'F33': readable are F64, F32, F16, BF16"),
        ({"a": entry("F4", offsets=(0, 1))}, bytes(1), "dtype is 'F4'"),
        ({"a": entry("F8_E4M3", offsets=(0, 2))}, bytes(2), "dtype is 'F8_E4M3': readable are F64, F32, F16, BF16"),
        ({"a": entry(7)}, bytes(8), "dtype is 7"),
        ({"a": entry(["F32"])}, bytes(8), r"dtype is \['F32'\]"),
        ({"a": 7}, b"", "must have dtype, shape and data_offsets, and has 7"),
        ({"a": entry(extra=1)}, bytes(8), "and has .*extra"),
        ({"a": {"dtype": "F32", "shape": []}}, b"", "must have dtype"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__ must map words to words"),
        ({"__metadata__": ["a"]}, b"", "__metadata__ must map words to words"),
        ({"x" * 1_000_000: entry()}, bytes(8), "a name of 1,000,000 characters"),
        ({"\ud800": entry()}, bytes(8), "lone surrogate"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(written, header, data, message):
    refused(written(file_bytes(header, data)), message)


def test_names_are_words_and_never_paths(written, tmp_path):
    names = ["", "../x", "/etc/passwd", "a\x1b[31m\n", "🦆", "con", "a" * 1000]
    header = {name: entry(offsets=(8 * i, 8 * i + 8)) for i, name in enumerate(names)}
    with SafetensorsFile(written(file_bytes(header, two.tobytes() * len(names)))) as file:
        assert list(file.infos) == names
        for name in names:
            np.testing.assert_array_equal(file.read(name), two)
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("pad", [b"", b"   ", b"\n\t\r \n"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (6,), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_what_the_library_writes_is_read(written, dtype, shape, pad):
    array = (np.arange(np.prod(shape)) * 37 - 5).astype("i8").astype(dtype).reshape(shape)
    other = np.array([7, 8], np.int16)
    data = save({"a": array, "b": other}, metadata={"format": "np"})
    n = int.from_bytes(data[:8], "little")
    with SafetensorsFile(written((n + len(pad)).to_bytes(8, "little") + data[8 : 8 + n] + pad + data[8 + n :])) as file:
        got = file.read("a")
        assert file.metadata == {"format": "np"}
        assert file.infos["a"].shape == shape
        assert file.infos["a"].n_bytes == array.nbytes
        np.testing.assert_array_equal(file.read("b"), other)
    assert got.dtype == array.dtype
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array, strict=True)


def bits_to_float(bits, exponent_bits, mantissa_bits):
    """The number that IEEE's rules give to bits, computed by them alone."""
    sign = -1.0 if bits >> (exponent_bits + mantissa_bits) else 1.0
    exponent, mantissa = (bits >> mantissa_bits) & (2**exponent_bits - 1), bits & (2**mantissa_bits - 1)
    bias, top = 2 ** (exponent_bits - 1) - 1, 2**exponent_bits - 1
    if exponent == top:
        return sign * np.inf if mantissa == 0 else np.nan
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / 2**mantissa_bits) * 2.0 ** (exponent - bias)


@pytest.mark.parametrize(
    ("dtype", "n_bytes", "exponent_bits", "mantissa_bits"),
    [("BF16", 2, 8, 7), ("F16", 2, 5, 10)],
)
def test_every_small_float_is_widened_exactly(written, dtype, n_bytes, exponent_bits, mantissa_bits):
    n = 256**n_bytes
    data = np.arange(n, dtype=f"<u{n_bytes}").tobytes()
    with SafetensorsFile(written(file_bytes({"a": entry(dtype, (n,), (0, len(data)))}, data))) as file:
        got = file.read("a")
    assert got.dtype == np.float32
    want = np.array([bits_to_float(bits, exponent_bits, mantissa_bits) for bits in range(n)])
    np.testing.assert_array_equal(got, want.astype(np.float32))  # exact: each of them is a float32 too
    np.testing.assert_array_equal(np.signbit(got)[want == 0], np.signbit(want)[want == 0])


def test_a_hundred_thousand_tensors_open_in_a_moment(written):
    path = written(file_bytes({f"t{i}": entry(shape=(0,), offsets=(0, 0)) for i in range(100_000)}))
    begin = time.process_time()
    with SafetensorsFile(path) as file:
        assert len(file.infos) == 100_000
    assert time.process_time() - begin < 10  # less than 1 s where nothing else runs


def test_a_file_cut_short_while_it_is_open_is_an_error(written):
    path = written(file_bytes({"a": entry(shape=(100_000,), offsets=(0, 400_000))}, bytes(400_000)))
    with SafetensorsFile(path) as file:
        os.truncate(path, 300_000)
        with pytest.raises(CorruptCheckpoint, match="bytes early: changed while it was read"):
            file.read("a")


def test_what_is_no_file_is_refused(tmp_path):
    refused(tmp_path / "none", "not there", CheckpointError)
    refused(tmp_path, "a folder, not a file", CheckpointError)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused(tmp_path / "pipe", "a device or pipe, not a file", CheckpointError)


mutations = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "insert", "delete", "repeat"]), st.integers(0, 255)),
    max_size=4,
)


@given(mutations, st.booleans())
def test_mutated_files_give_the_library_s_values_or_an_error(tmp_path_factory, changes, keep_length):
    """Where this reader says yes, so does the library, and with the same numbers."""
    data = bytearray(save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([5], np.int64)}))
    n = int.from_bytes(data[:8], "little")
    body = data[8:]
    for place, kind, byte in changes:
        i = place % len(body)
        if kind == "set":
            body[i] = byte
        elif kind == "insert":
            body.insert(i, byte)
        elif kind == "delete" and len(body) > 1:
            del body[i]
        else:
            body[i:i] = body[i : i + 5]
    if keep_length:
        n += len(body) - len(data) + 8
    path = tmp_path_factory.getbasetemp() / "mutant.safetensors"
    path.write_bytes(max(n, 0).to_bytes(8, "little") + bytes(body))
    try:
        with SafetensorsFile(path) as file:
            ours = {name: file.read(name) for name in file.infos}
    except TinygradLLMError:
        return
    with safe_open(path, "numpy") as library:
        assert set(library.keys()) == set(ours)
        for name, array in ours.items():
            if file.infos[name].dtype in ("F32", "I64", "I32", "F64"):
                np.testing.assert_array_equal(array, library.get_tensor(name))


@pytest.mark.skipif(not safetensors.__version__.startswith("0.8."), reason="it is said of safetensors 0.8")
def test_what_is_said_of_the_library_is_true(written):
    path, twice = written(file_bytes({"a": entry("BF16", (4,))}, two.tobytes())), json.dumps(entry())
    with safe_open(path, "numpy") as library, pytest.raises(TypeError, match="bfloat16"):
        library.get_tensor("a")
    path.write_bytes(
        file_bytes(f'{{"a": {{"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, "a": {twice}}}', two.tobytes())
    )
    with safe_open(path, "numpy") as library:
        np.testing.assert_array_equal(library.get_tensor("a"), two)
    refused(path, "'a' stands there twice")
    if sys.platform == "linux":
        path.write_bytes(file_bytes({"a": entry(shape=(100_000,), offsets=(0, 400_000))}, bytes(400_000)))
        lines = "with safe_open(sys.argv[1], 'numpy') as f: os.truncate(sys.argv[1], 4096); f.get_tensor('a').sum()"
        lines = "import os, sys; from safetensors import safe_open\n" + lines
        assert subprocess.run([sys.executable, "-c", lines, path], timeout=60).returncode == -signal.SIGBUS


def test_the_library_agrees_that_the_good_file_is_good(written):
    path = written(GOOD)
    with safe_open(path, "numpy") as library:
        np.testing.assert_array_equal(library.get_tensor("a"), two)
    path.write_bytes(GOOD + b"x")
    with pytest.raises(SafetensorError):
        safe_open(path, "numpy")


# ---- shards


@pytest.fixture
def sharded(tmp_path):
    """A folder of two shards and a function that rewrites the index."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": np.arange(3.0)}, folder / "1.safetensors")
    save_file({"b": np.arange(4), "c": np.ones(1)}, folder / "2.safetensors")

    def index(weight_map):
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return path

    return index


MAP = {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}


def test_shards_are_read_as_one(sharded):
    with Sharded(sharded(MAP), SafetensorsFile) as source:
        assert set(source.infos) == {"a", "b", "c"}
        np.testing.assert_array_equal(source.read("a"), np.arange(3.0))
        np.testing.assert_array_equal(source.read("b"), np.arange(4))
        assert source.infos["c"].file.name == "2.safetensors"


@pytest.mark.parametrize(
    "place",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "sub/../1.safetensors",
        "..",
        ".",
        "",
        "a\\b",
        "a\0b",
        "a\x1b[31m",
        "link",
    ],
)
def test_an_index_cannot_lead_out_of_its_folder(sharded, tmp_path, place):
    save_file({"a": np.arange(3.0)}, tmp_path / "secret.safetensors")
    os.symlink(tmp_path / "secret.safetensors", tmp_path / "model" / "link")
    with pytest.raises(UnsafeFile, match=r"leads to|leads out") as caught:
        Sharded(sharded(MAP | {"a": place}), SafetensorsFile)
    assert str(caught.value).isprintable()


def test_links_of_the_hub_s_cache_are_followed(sharded, tmp_path):
    folder = tmp_path / "models--x" / "snapshots" / "0123"
    (tmp_path / "models--x" / "blobs").mkdir(parents=True)
    folder.mkdir(parents=True)
    for file in ("1.safetensors", "2.safetensors"):
        os.rename(tmp_path / "model" / file, tmp_path / "models--x" / "blobs" / file[0])
        os.symlink(f"../../blobs/{file[0]}", folder / file)
    os.rename(sharded(MAP), folder / "model.safetensors.index.json")
    with Sharded(folder / "model.safetensors.index.json", SafetensorsFile) as source:
        np.testing.assert_array_equal(source.read("a"), np.arange(3.0))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (MAP | {"a": "3.safetensors"}, "3.safetensors: not there, but model.safetensors.index.json says"),
        (MAP | {"d": "1.safetensors"}, "1.safetensors: lacks 'd'"),
        (MAP | {"a": "2.safetensors"}, "2.safetensors: lacks 'a'"),
        (MAP | {"b": "1.safetensors"}, "1.safetensors: lacks 'b'"),
        ({"a": "1.safetensors", "b": "2.safetensors"}, "holds 'c', but the index does not know it"),
        (MAP | {"a": 7}, "'a' is in 7, no file's name"),
        ([], "weight_map must map"),
        ({}, "weight_map must map"),
    ],
)
def test_an_index_that_disagrees_with_its_files_is_refused(sharded, weight_map, message):
    with pytest.raises(CorruptCheckpoint, match=message):
        Sharded(sharded(weight_map), SafetensorsFile)


def test_a_tensor_in_two_shards_is_refused(sharded, tmp_path):
    save_file({"a": np.arange(3.0), "b": np.arange(4)}, tmp_path / "model" / "1.safetensors")
    with pytest.raises(CorruptCheckpoint, match=r"1.safetensors: holds 'b', but '2.safetensors' has it too"):
        Sharded(sharded(MAP), SafetensorsFile)
