"""Checkpoints of TensorFlow: one that it wrote itself (files/, by make_files.py), sound ones of every shape and broken ones
from a writer of our own.
"""

import contextlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow_writer as tf_writer
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import FOLDER, TENSORFLOW, numbers
from tensorflow_writer import block, entry, field, header, masked, table, varint, write_checkpoint

from tinygrad_llm.errors import CheckpointError, CorruptCheckpoint, UnsafeFile
from tinygrad_llm.formats.crc32c import crc32c
from tinygrad_llm.formats.tensorflow import TensorFlowCheckpoint

WRITTEN = FOLDER / "tensorflow"
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"


def read_all(path) -> dict[str, np.ndarray]:
    with TensorFlowCheckpoint(path) as source:
        return {name: source.read(name) for name, info in source.infos.items() if info.dtype != "text"}


def save(folder: Path, pairs: list[tuple[bytes, bytes]], data: bytes = b"") -> Path:
    """A checkpoint with these entries after the header."""
    (folder / INDEX).write_bytes(table([block([(b"", header()), *pairs])]))
    (folder / DATA).write_bytes(data)
    return folder


def refuse(path, kind, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read_all(path)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


# ---- what TensorFlow wrote


@pytest.mark.parametrize(
    "path", ["", "model.ckpt", "model.ckpt.index", "model.ckpt.data-00001-of-00002", "model.ckpt.meta"]
)
def test_a_checkpoint_that_tensorflow_wrote(path):
    with TensorFlowCheckpoint(WRITTEN / path) as source:
        assert source.form == "TensorFlow"
        assert source.path == WRITTEN / path
        assert list(source.infos) == sorted([*TENSORFLOW, "words"])
        for name, (dtype, shape) in TENSORFLOW.items():
            info = source.infos[name]
            assert (info.dtype, info.shape) == (dtype, shape)
            expected = numbers(shape, dtype)
            array = source.read(name)
            np.testing.assert_array_equal(array, expected, strict=True)
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.dtype.isnative
        assert source.infos["model/h0/ln_1/g"].n_bytes == 6
        assert source.infos["model/h0/ln_1/g"].file.name == "model.ckpt.data-00000-of-00002"
        assert source.infos["model/wte"].file.name == "model.ckpt.data-00001-of-00002"
        assert source.infos["words"].dtype == "text"
        with pytest.raises(CheckpointError, match="'words' holds text"):
            source.read("words")


def test_no_prefix_of_the_index_and_no_file_short_of_a_byte_is_read(tmp_path):
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    data = (tmp_path / INDEX).read_bytes()
    for n in range(len(data)):
        (tmp_path / INDEX).write_bytes(data[:n])
        with pytest.raises(CorruptCheckpoint):
            TensorFlowCheckpoint(tmp_path)
    (tmp_path / INDEX).write_bytes(data)
    for file in sorted(WRITTEN.glob("*.data*")):
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-1])
        refuse(tmp_path, CorruptCheckpoint, f"{file.name}, which has {file.stat().st_size - 1} bytes")
        (tmp_path / file.name).unlink()
        refuse(tmp_path, CheckpointError, f"{file.name}.*(not there|No such file)")
        shutil.copy(file, tmp_path)


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path):
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    for file in sorted(WRITTEN.glob("model.*")):
        whole = file.read_bytes()
        words = range(0)
        if file.name.endswith("00001-of-00002"):  # the text is the last tensor, and is not read
            size = TensorFlowCheckpoint(WRITTEN).infos["words"].n_bytes
            words = range(len(whole) - size, len(whole))
        for i in set(range(len(whole))) - set(words):
            changed = bytearray(whole)
            changed[i] ^= 1 << i % 8
            (tmp_path / file.name).write_bytes(changed)
            with pytest.raises(CheckpointError):
                read_all(tmp_path)
        (tmp_path / file.name).write_bytes(whole)


# ---- sound checkpoints


@settings(deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), unique=True, max_size=12
    ),
    per_block=st.integers(1, 6),
    big_endian=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(tmp_path_factory, names, per_block, big_endian, seed):
    rng = np.random.default_rng(seed)
    tensors = {}
    for name in sorted(names, key=str.encode):
        dtype = rng.choice([t for t in tf_writer.TYPES if t not in ("bool", "float16")])
        shape = rng.integers(0, 4, rng.integers(0, 4))
        tensors[name] = rng.integers(0, 100, shape).astype(dtype)
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, tensors, per_block=per_block, big_endian=big_endian)
    read = read_all(folder)
    assert list(read) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(read[name], array, strict=True)
        assert read[name].dtype.isnative
    shutil.rmtree(folder)


@pytest.mark.parametrize("n", [0, 1, 3, 16383, 16384, 16385, 32768, 50_001])
def test_the_checksum_against_one_bit_at_a_time(n):
    data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
    assert crc32c(data) == crc32c(data.tobytes()) == tf_writer.crc32c(data.tobytes())


def test_the_checksums_of_rfc_3720():
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_a_bit_in_a_long_tensor_is_noticed(tmp_path):
    write_checkpoint(tmp_path, {"w": np.ones(10_000, np.float32)})
    whole = (tmp_path / DATA).read_bytes()
    for place in (0, 16_383, 16_384, 20_000, 39_999):
        changed = bytearray(whole)
        changed[place] ^= 16
        (tmp_path / DATA).write_bytes(changed)
        refuse(tmp_path, CorruptCheckpoint, "'w' is damaged: its checksum differs")


# ---- which checkpoint of a folder


def test_the_text_says_which_is_the_newest(tmp_path):
    for i in range(3):
        write_checkpoint(tmp_path, {"w": np.full(2, i, np.float32)}, name=f"model.ckpt-{i}")
    (tmp_path / "checkpoint").write_text(
        f'model_checkpoint_path: "{tmp_path}/model.ckpt-1"\nall_model_checkpoint_paths: "x"\n'
    )
    assert read_all(tmp_path)["w"][0] == 1
    assert read_all(tmp_path / "model.ckpt-2")["w"][0] == 2
    (tmp_path / "checkpoint").unlink()
    refuse(tmp_path, CheckpointError, "holds 3 checkpoints: name one of them")
    for i in range(2):
        (tmp_path / f"model.ckpt-{i}.index").unlink()
    assert read_all(tmp_path)["w"][0] == 2
    (tmp_path / "model.ckpt-2.index").unlink()
    refuse(tmp_path, CheckpointError, "holds no TensorFlow checkpoint")


@pytest.mark.parametrize("named", ["../model.ckpt", "/etc/model.ckpt", "sub/model.ckpt", "..", "sub/../../model.ckpt"])
def test_the_text_cannot_lead_out_of_its_folder(tmp_path, named):
    write_checkpoint(tmp_path, {"w": np.zeros(2, np.float32)})
    folder = tmp_path / "folder"
    write_checkpoint(folder, {"w": np.zeros(2, np.float32)})
    (folder / "sub").mkdir()
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    refuse(folder, UnsafeFile, "is not in this folder")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"model_checkpoint_path: model.ckpt",
        b'model_checkpoint_path: ""',
        b"\xff\xfe",
        b'model_checkpoint_path: "a\x1b[31m"',
    ],
)
def test_a_text_that_names_nothing(tmp_path, text):
    write_checkpoint(tmp_path, {"w": np.zeros(2, np.float32)})
    (tmp_path / "checkpoint").write_bytes(text)
    refuse(tmp_path, CorruptCheckpoint, "checkpoint: ")


# ---- entries that contradict themselves, under right checksums

W = np.arange(6, dtype=np.float32).tobytes()


def good(size=24, shape=(2, 3), shard=0, offset=0, dtype=1, more=b""):
    return entry(dtype, shape, shard, offset, size, masked(W), more)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (good(size=20), CorruptCheckpoint, "takes 24 bytes, but 20 are stored"),
        (good(shape=(2, -3)), CorruptCheckpoint, "no array has these"),
        (good(shape=(2**62, 2**62)), CorruptCheckpoint, "no array has these"),
        (good(shape=(2**62, 0), size=0), CorruptCheckpoint, "no array has these"),
        (good(shape=(10**11,), size=4 * 10**11), CorruptCheckpoint, "which has 24 bytes"),
        (good(shape=(1,) * 65 + (6,)), CorruptCheckpoint, "66 sizes, .* no array has these"),
        (good(offset=1), CorruptCheckpoint, "is at 1 to 25 of"),
        (good(offset=2**64 - 8), CorruptCheckpoint, "which has 24 bytes"),
        (good(shard=1), CorruptCheckpoint, "is in file 1 of 1"),
        (good(shard=2**63), CorruptCheckpoint, "of 1"),
        (good(dtype=8), CheckpointError, "holds type 8, which cannot be read"),
        (good(more=field(7, b"")), CheckpointError, "slices"),
        (good(more=field(4, b"abc")), CorruptCheckpoint, "field 4 of an entry is no number"),
        (good(more=field(2, 7)), CorruptCheckpoint, "field 2 of an entry is a number"),
        (good(more=field(2, field(2, 7))), CorruptCheckpoint, "a number where its shape should be"),
        (good(more=field(2, field(3, 1))), CorruptCheckpoint, "has no shape"),
        (good(more=varint(9 * 8 + 3)), CorruptCheckpoint, "a field of kind 3"),
        (good(more=varint(9 * 8 + 2) + varint(2**60)), CorruptCheckpoint, "cut off"),
        (good(more=b"\xff" * 11), CorruptCheckpoint, "more than 64 bits"),
        (good(more=b"\x80"), CorruptCheckpoint, "a number is cut off"),
        (b"", CheckpointError, "holds type 0"),
    ],
)
def test_an_entry_that_cannot_be(tmp_path, value, kind, words):
    refuse(save(tmp_path, [(b"w", value)], W), kind, words)


def test_unknown_fields_are_passed_over(tmp_path):
    more = field(9, 3) + field(10, b"abc") + varint(11 * 8 + 1) + bytes(8) + varint(12 * 8 + 5) + bytes(4)
    save(tmp_path, [(b"w", good(more=more))], W)
    np.testing.assert_array_equal(read_all(tmp_path)["w"], [[0, 1, 2], [3, 4, 5]])


def test_two_tensors_cannot_share_bytes(tmp_path):
    save(tmp_path, [(b"v", good()), (b"w", good())], W)
    refuse(tmp_path, CorruptCheckpoint, "'w': begins before the tensor in front of it ends")


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        (b"\0w", CheckpointError, "slices"),
        (b"\xff", CorruptCheckpoint, "is not UTF-8"),
        (b"x" * 1025, CorruptCheckpoint, "a name of 1,025 bytes"),
    ],
)
def test_names_that_cannot_be(tmp_path, key, kind, words):
    refuse(save(tmp_path, [(key, good())], W), kind, words)


def test_names_that_could_move_the_cursor_are_escaped(tmp_path):
    refuse(save(tmp_path, [(b"\x1b[2J\n", good(size=1))], W), CorruptCheckpoint, r"'\\x1b\[2J\\n'")


@pytest.mark.parametrize(
    ("head", "kind", "words"),
    [
        (header(shards=0), CorruptCheckpoint, "counts 0 data files"),
        (header(shards=10**9), CorruptCheckpoint, "counts 1,000,000,000 data files"),
        (header(min_consumer=2), CheckpointError, "of version 2, newer than 1"),
    ],
)
def test_a_header_that_cannot_be(tmp_path, head, kind, words):
    (tmp_path / INDEX).write_bytes(table([block([(b"", head)])]))
    refuse(tmp_path, kind, words)


# ---- tables that contradict themselves, under right checksums

HEAD = [(b"", header())]


@pytest.mark.parametrize(
    ("index", "kind", "words"),
    [
        (b"", CorruptCheckpoint, "another kind of file"),
        (bytes(100), CorruptCheckpoint, "another kind of file"),
        (table([]), CorruptCheckpoint, "no header"),
        (table([block([(b"w", good())])]), CorruptCheckpoint, "no header"),
        (table([block([*HEAD, (b"b", good()), (b"a", good())])]), CorruptCheckpoint, "b'a' comes after b'b'"),
        (table([block(HEAD), block(HEAD)]), CorruptCheckpoint, "b'' comes after b''"),
        (table([block(HEAD)], handles=[varint(0) + varint(2**40)]), CorruptCheckpoint, "does not fit"),
        (table([block(HEAD)], handles=[varint(2**63) + varint(4)]), CorruptCheckpoint, "does not fit"),
        (
            table([block(HEAD)], handles=[varint(0) + varint(len(block(HEAD)) - 1)]),
            CorruptCheckpoint,
            "checksum differs",
        ),
        (
            table([block(HEAD)], handles=[varint(0) + varint(len(block(HEAD))) + b"x"]),
            CorruptCheckpoint,
            "do not follow",
        ),
        (table([block(HEAD)], handles=[b"\x80"]), CorruptCheckpoint, "cut off"),
        (table([block(HEAD)], compression=1), CheckpointError, "compressed"),
        (table([b""]), CorruptCheckpoint, "too short"),
        (table([struct.pack("<I", 2**32 - 1)]), CorruptCheckpoint, "too short"),
        (table([b"\0" + block(HEAD)]), CorruptCheckpoint, "longer than its block"),
        (table([b"\x05\0\0" + struct.pack("<2I", 0, 1)]), CorruptCheckpoint, "or than the key that it goes on from"),
        (table([b"\0\x03\x00ab" + struct.pack("<2I", 0, 1)]), CorruptCheckpoint, "longer than its block"),
        (table([b"\0\0" + varint(2**50) + struct.pack("<2I", 0, 1)]), CorruptCheckpoint, "longer than its block"),
        (table([b"\0" + struct.pack("<2I", 0, 1)]), CorruptCheckpoint, "runs into its restarts|longer than its block"),
    ],
)
def test_an_index_that_cannot_be(tmp_path, index, kind, words):
    (tmp_path / INDEX).write_bytes(index)
    refuse(tmp_path, kind, words)


def test_a_block_named_many_times_is_refused_at_once(tmp_path):
    content = block(HEAD)
    handle = varint(0) + varint(len(content))
    (tmp_path / INDEX).write_bytes(table([content] * 2, last_keys=[b"a", b"b"], handles=[handle, handle]))
    refuse(tmp_path, CorruptCheckpoint, "do not follow one another")


def test_short_entries_cannot_stand_for_long_names_without_end(tmp_path):
    """70,000 names of 1,000 bytes each would take 5 bytes each here; a checkpoint's index is not compressed so well."""
    entries = b"\0" + varint(996) + b"\0" + b"x" * 996
    last = b""
    for i in range(70_000):
        digits = i.to_bytes(4, "big")
        shared = next((k for k in range(4) if digits[k : k + 1] != last[k : k + 1]), 4)
        entries += varint(996 + shared) + varint(4 - shared) + b"\0" + digits[shared:]
        last = digits
    content = entries + struct.pack("<2I", 0, 1)
    (tmp_path / INDEX).write_bytes(table([content]))
    refuse(tmp_path, CorruptCheckpoint, "its names take more than")


def test_an_index_that_is_too_long_is_not_read(tmp_path):
    with (tmp_path / INDEX).open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    refuse(tmp_path / "model.ckpt", CorruptCheckpoint, "more than 8,388,608 bytes")


@settings(deadline=None)
@given(data=st.data())
def test_nothing_but_our_errors_from_broken_blocks_with_right_checksums(tmp_path_factory, data):
    pairs = [(b"", header()), (b"a/b", good()), (b"a/c", good(offset=24)), (b"b", good(offset=48))]
    content = bytearray(block(pairs, restart_every=data.draw(st.integers(1, 4))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    folder = tmp_path_factory.mktemp("broken")
    (folder / INDEX).write_bytes(table([bytes(content)]))
    (folder / DATA).write_bytes(W * 3)
    with contextlib.suppress(CheckpointError):
        read_all(folder)
    shutil.rmtree(folder)
