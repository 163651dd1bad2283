"""Files of torch.save: some that PyTorch wrote itself (files/, by make_files.py), and hostile ones made here."""

import collections
import contextlib
import os
import pickle
import shutil
import struct
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import FOLDER, PYTORCH, numbers
from pytorch_writer import save, tensor, text, whole

from tinygrad_llm.errors import CheckpointError, CorruptCheckpoint, UnsafeFile
from tinygrad_llm.formats.pickles import LONGEST, read_pickle
from tinygrad_llm.formats.pytorch import PyTorchFile
from tinygrad_llm.formats.source import TensorInfo


def read_all(path) -> dict[str, np.ndarray]:
    with PyTorchFile(path) as source:
        return {name: source.read(name) for name in source.infos}


def assert_plain(arrays: dict[str, np.ndarray]) -> None:
    assert list(arrays) == list(PYTORCH)
    for name, (dtype, shape) in PYTORCH.items():
        np.testing.assert_array_equal(arrays[name], numbers(shape, dtype), strict=True)


# ---- what PyTorch wrote


@pytest.mark.parametrize("file", ["plain2.pth", "plain5.pth"])
def test_a_state_dict(file):
    with PyTorchFile(FOLDER / file) as source:
        assert (source.form, source.path, source.state_dict_key) == ("PyTorch", FOLDER / file, None)
        assert source.metadata == {}
        for name, (dtype, shape) in PYTORCH.items():
            assert (source.infos[name].dtype, source.infos[name].shape) == (dtype, shape)
            array = source.read(name)
            assert array.flags.c_contiguous
            assert array.flags.writeable
        assert source.infos["trf_blocks.0.norm1.shift"].n_bytes == 6
    assert_plain(read_all(FOLDER / file))


def test_views_of_one_storage():
    read = read_all(FOLDER / "views.pth")
    base = numbers((4, 5), "float32")
    expected = {
        "base": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "one": base[2, 3],
        "expanded": np.full((6, 2), base[0, 0]),
        "parameter": base[:, 1],
    }
    assert read.keys() == expected.keys()
    for name, array in read.items():
        np.testing.assert_array_equal(array, np.asarray(expected[name]), strict=True)
        assert array.flags.c_contiguous
        array += 1  # of its own, and not of its neighbour
    np.testing.assert_array_equal(read["base"], base + 1)
    np.testing.assert_array_equal(read["expanded"], np.full((6, 2), base[0, 0] + 1))


def test_the_model_of_a_checkpoint_and_what_else_it_holds():
    path = FOLDER / "nanogpt.pt"
    with PyTorchFile(path) as source:
        assert source.state_dict_key == "model"
        assert source.metadata == {
            "optimizer": {
                "state": {0: {"exp_avg": TensorInfo("float32", (4, 5), 80, path)}},
                "param_groups": [{"betas": (0.9, 0.95), "params": [0, 1]}],
            },
            "model_args": {"n_layer": 1, "bias": False, "dropout": 0.5, "init_from": None},
            "best_val_loss": TensorInfo("float32", (), 4, path),
            "dtype": "torch.bfloat16",
            "device": "cuda:1",
            "size": (4, 5),
        }
    assert_plain(read_all(path))


def test_files_that_are_no_state_dicts():
    with pytest.raises(CheckpointError, match=r"PyTorch before 1.6: save it again.*weights_only=True"):
        PyTorchFile(FOLDER / "legacy.pth")
    with pytest.raises(UnsafeFile, match=r"names 'torch.nn.modules.linear.Linear'.*torch.save\(model.state_dict\(\)"):
        PyTorchFile(FOLDER / "module.pth")


# ---- archives made here


def state_dict(*tensors: bytes) -> bytes:
    items = b"".join(text(f"w{i}") + item for i, item in enumerate(tensors))
    return b"\x80\x02}(" + items + b"u."


W = np.arange(6, dtype="<f4")


def refuse(path, kind, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        read_all(path)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


def test_either_order_of_bytes(tmp_path):
    path = tmp_path / "model.pth"
    for order, kind in (("little", "<f4"), ("big", ">f4")):
        save(
            path,
            state_dict(tensor()),
            {"model/data/0": W.astype(kind).tobytes()},
            byteorder=order,
        )
        np.testing.assert_array_equal(read_all(path)["w0"], W.reshape(2, 3))
    save(path, state_dict(tensor()), {"model/data/0": W.tobytes()}, byteorder="middle")
    refuse(path, CorruptCheckpoint, "neither little nor big")


@pytest.mark.parametrize(
    ("item", "kind", "words"),
    [
        (tensor(shape=(2, 4), strides=(4, 1)), CorruptCheckpoint, "is not inside its storage"),
        (tensor(offset=1), CorruptCheckpoint, "from 1 on is not inside its storage"),
        (tensor(strides=(4, 1)), CorruptCheckpoint, "is not inside its storage"),
        (tensor(strides=(2**62, 1)), CorruptCheckpoint, "is not inside its storage"),
        (tensor(shape=(2**40,), strides=(0,)), CorruptCheckpoint, "repeats the 24 bytes of its storage too often"),
        (tensor(shape=(2**62, 2**62), strides=(0, 0)), CorruptCheckpoint, "no array has these"),
        (tensor(shape=(2**62, 0), strides=(0, 0)), CorruptCheckpoint, "no array has these"),
        (tensor(shape=(1,) * 100, strides=(1,) * 100), CorruptCheckpoint, "no array has these"),
        (tensor(shape=(-1, 3)), CorruptCheckpoint, "without an offset, sizes or strides"),
        (tensor(strides=(-3, 1), offset=3), CorruptCheckpoint, "without an offset, sizes or strides"),
        (tensor(offset=-1), CorruptCheckpoint, "without an offset, sizes or strides"),
        (tensor(shape=(6,)), CorruptCheckpoint, "without an offset, sizes or strides"),
        (tensor(n=5), CorruptCheckpoint, "24 bytes, which are not 5 numbers of float32"),
        (tensor(n=2**60), CorruptCheckpoint, "which are not"),
        (tensor(kind="DoubleStorage"), CorruptCheckpoint, "not 6 numbers of float64"),
        (tensor(kind="ComplexFloatStorage"), UnsafeFile, "names 'torch.ComplexFloatStorage'"),
        (tensor(key="1"), CorruptCheckpoint, "refers to data/1, which it does not hold"),
        (tensor(key="../data.pkl"), CorruptCheckpoint, "which it does not hold"),
        (tensor(more=b"}(" + text("neg") + b"\x88u"), CheckpointError, "negated"),
        (tensor(more=b"NN"), CorruptCheckpoint, "a tensor without a storage"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R", CorruptCheckpoint, "a tensor without a storage"),
        (b"ctorch._utils\n_rebuild_tensor_v3\n)R", CorruptCheckpoint, "a tensor without a storage"),
        (b"ctorch._utils\n_rebuild_parameter\n)R", CorruptCheckpoint, "a parameter without a tensor"),
        (b"ctorch\nSize\n)R", CorruptCheckpoint, "has no sizes"),
        (b"ctorch\ndevice\n)R", CorruptCheckpoint, "without a name"),
        (b"ccollections\nOrderedDict\n]\x85R", CorruptCheckpoint, "not made empty"),
        (text("storage") + b"Q", CorruptCheckpoint, "no storage"),
        (b"(" + text("storage") + b"NNNNtQ", CorruptCheckpoint, "without a type"),
    ],
)
def test_a_tensor_that_cannot_be(tmp_path, item, kind, words):
    path = tmp_path / "model.pth"
    save(path, state_dict(item), {"model/data/0": W.tobytes()})
    refuse(path, kind, words)


def test_strides_that_are_never_stepped_may_be_anything(tmp_path):
    path = tmp_path / "model.pth"
    items = tensor(shape=(1, 6), strides=(2**63, 1)), tensor(shape=(0, 5), strides=(2**63, 1)), tensor((), (), 5)
    save(path, state_dict(*items), {"model/data/0": W.tobytes()})
    read = read_all(path)
    np.testing.assert_array_equal(read["w0"], W[None])
    assert read["w1"].shape == (0, 5)
    assert read["w2"] == 5


def test_a_damaged_record_is_noticed(tmp_path):
    path = tmp_path / "model.pth"
    for file in ("plain2.pth", "plain5.pth"):
        data = (FOLDER / file).read_bytes()
        with zipfile.ZipFile(FOLDER / file) as archive:
            info = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        with PyTorchFile(FOLDER / file) as source:
            start = source._archive.records[info.filename].start
        for i in range(start, start + info.file_size):
            path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
            refuse(path, CorruptCheckpoint, "'trf_blocks.0.att.W_query.weight': damaged: its checksum differs")


def test_no_prefix_is_read(tmp_path):
    data, path = (FOLDER / "plain2.pth").read_bytes(), tmp_path / "model.pth"
    for n in range(0, len(data), 3):
        path.write_bytes(data[:n])
        with pytest.raises(CorruptCheckpoint):
            PyTorchFile(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "model/../../x", "model\\..\\x"])
def test_records_that_lead_out(tmp_path, name):
    save(tmp_path / "model.pth", state_dict(), {name.replace("\\", "/"): b""})
    data = (tmp_path / "model.pth").read_bytes().replace(name.replace("\\", "/").encode(), name.encode())
    (tmp_path / "model.pth").write_bytes(data)
    refuse(tmp_path / "model.pth", UnsafeFile, "leads out of the archive")


def test_archives_that_torch_does_not_write(tmp_path):
    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # a zip bomb is compressed
        archive.writestr("model/data.pkl", state_dict(tensor()))
        archive.writestr("model/data/0", bytes(50_000_000))
    assert path.stat().st_size < 100_000
    refuse(path, CorruptCheckpoint, "is compressed or encrypted")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", state_dict(tensor()))
        archive.writestr("model/data/0", W.tobytes())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("model/data/0", W.tobytes())
    refuse(path, CorruptCheckpoint, "two records have the name")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/other", b"")
    refuse(path, CorruptCheckpoint, "no record NAME/data.pkl")
    for program in (b"", b"hello", b"\x80\x02}."):
        path.write_bytes(program)
        refuse(path, CorruptCheckpoint, "is no zip archive")
    save(path, b"N" * (LONGEST + 1))
    refuse(path, CorruptCheckpoint, "are the most")
    refuse(tmp_path, CheckpointError, "folder")
    refuse(tmp_path / "none.pth", CheckpointError, "not there")


def test_declared_sizes_against_the_file(tmp_path):
    path = tmp_path / "model.pth"
    save(path, state_dict(tensor()), {"model/data/0": W.tobytes()})
    data = path.read_bytes()
    for size in (25, 2**31):
        places = [i for i in range(len(data)) if data[i : i + 8] == struct.pack("<2I", 24, 24)]
        assert len(places) == 2  # in front of the record, and in the directory
        changed = bytearray(data)
        for i in places:
            changed[i : i + 8] = struct.pack("<2I", size, size)
        path.write_bytes(changed)
        refuse(path, CorruptCheckpoint, "runs into another one, or out of the file|which are not 6 numbers|checksum")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "holds a list, not a state dict"),
        ({"a": 1}, "holds 0 dicts with tensors, at no key"),
        (7, "holds a int"),
    ],
)
def test_values_without_tensors(tmp_path, value, words):
    save(tmp_path / "model.pth", value)
    refuse(tmp_path / "model.pth", CheckpointError, words)


def test_which_of_several_dicts_of_tensors(tmp_path):
    path = tmp_path / "model.pth"
    inner = b"}" + text("w") + tensor() + b"s"
    save(path, b"\x80\x02}(" + text("a") + inner + text("b") + inner + b"u.", {"model/data/0": W.tobytes()})
    refuse(path, CheckpointError, r"2 dicts with tensors, at 'a', 'b': save the one")
    save(path, b"\x80\x02}(" + text("a") + inner + text("b") + b"Nu.", {"model/data/0": W.tobytes()})
    with PyTorchFile(path) as source:
        assert (source.state_dict_key, list(source.infos), source.metadata) == ("a", ["w"], {"b": None})
    both = text("model_state_dict") + inner + text("optimizer_state_dict") + inner
    save(path, b"\x80\x02}(" + both + b"u.", {"model/data/0": W.tobytes()})
    with PyTorchFile(path) as source:
        assert source.state_dict_key == "model_state_dict"


# ---- pickles that would run something


class Canary:
    """Pickled, it calls what it was given."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def programs(command: str) -> dict[str, bytes]:
    call = command.encode()
    made = {
        f"{name} {protocol}": pickle.dumps({"w": Canary(function, (argument,))}, protocol)
        for protocol in range(2, 6)
        for name, function, argument in (
            ("system", os.system, command),
            ("eval", eval, f"__import__('os').system({command!r})"),
            ("exec", exec, f"import os; os.system({command!r})"),
            ("getattr", getattr, "x"),
            ("open", open, command),
        )
    }
    made |= {
        "inst": b"(" + text(command) + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + text(command) + b"o.",
        "newobj": b"cos\nsystem\n" + text(command) + b"\x85\x81.",
        "newobj of a known name": b"ccollections\nOrderedDict\n)\x81.",
        "newobj_ex": b"ccollections\nOrderedDict\n)}\x92.",
        "ext1": b"\x82\x01.",
        "ext2": b"\x83\x01\x00.",
        "ext4": b"\x84\x01\x00\x00\x00.",
        "persid": b"P" + call + b"\n.",
        "a name in two texts": b"\x80\x04" + text("os") + text("system") + b"\x93" + text(command) + b"\x85R.",
        "a name out of the memo": b"\x80\x04"
        + text("os")
        + b"\x94"
        + text("system")
        + b"\x940h\0h\1\x93"
        + text(command)
        + b"\x85R.",
        "a module of torch": b"ctorch.hub\nload\n" + text(command) + b"\x85R.",
        "a dotted name": b"ctorch\nSize.__class__\n" + text(command) + b"\x85R.",
        "a name in the place of a name": b"}}\x93.",
        "state of a made tensor": b"\x80\x02" + tensor() + b"}(" + text("__setstate__") + text(command) + b"ub.",
        "state that is no dict": b"ccollections\nOrderedDict\n)R" + text(command) + b"b.",
        "call of a text": text("os.system") + text(command) + b"\x85R.",
        "call of a dtype": b"ctorch\nfloat32\n" + text(command) + b"\x85R.",
        "call of a result": b"ccollections\nOrderedDict\n)R" + text(command) + b"\x85R.",
        "call without a tuple": b"ccollections\nOrderedDict\n" + text(command) + b"R.",
        "a function that stays": b"}" + text("w") + b"ccollections\nOrderedDict\ns.",
        "buffer": b"\x97.",
        "build by a class": pickle.dumps(collections.Counter("abc"), 2),
    }
    return made


@pytest.mark.parametrize("name", programs("x"))
def test_nothing_runs(tmp_path, name):
    canary = tmp_path / "canary"
    program = programs(f"echo ran > {canary}")[name]
    save(tmp_path / "model.pth", program, {"model/data/0": W.tobytes()})
    refuse(tmp_path / "model.pth", UnsafeFile, "nothing of it was run")
    with pytest.raises(UnsafeFile):
        read_pickle(program)
    assert not canary.exists()


def test_the_canary_would_have_sung(tmp_path):
    """The library does run it; else the test above would show nothing."""
    canary = tmp_path / "canary"
    pickle.loads(programs(f"echo ran > {canary}")["system 4"])
    assert canary.exists()


# ---- plain pickles

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text() | st.integers(-(2**31), 2**31 - 1), inner)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(value=plain, protocol=st.integers(3, 5))
def test_plain_values_against_the_library(value, protocol):
    read = read_pickle(pickle.dumps(value, protocol))
    assert read == value
    assert repr(read) == repr(value)  # True is not 1, nor () []


def test_the_meta_file_of_nanogpt():
    meta = {"vocab_size": 3, "itos": {0: "\n", 1: "a", 2: "é"}, "stoi": {"\n": 0, "a": 1, "é": 2}}
    for protocol in range(2, 6):
        assert read_pickle(pickle.dumps(meta, protocol)) == meta


@pytest.mark.parametrize("one", [b"K\1a", b"]\x94a", b"K\1r\1\0\0\0a", b"(K\1e"])
def test_long_programs_take_time_by_their_length(one):
    """Appended one by one, kept in the memo, between marks. Time that grows with the square would be hours."""
    n = 200_000
    start = time.process_time()
    assert len(read_pickle(b"]" + one * n + b".")) == n
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"]" * 100_000 + b"a" * 99_999 + b".", "more than 64 deep"),
        (b")" + b"\x85" * 200_000 + b".", "more than 64 deep"),
        (b"(" * 200_000 + b".", "ends too early"),
        (b"]\x94h\0a.", "more than 64 deep"),  # a list that holds itself
        (b"}\x8a\x2100000000000000000000000000000000000000", "a whole number of 33 bytes"),
        (b"}\x8b\xff\xff\xff\x7f", "a whole number of 2,147,483,647 bytes"),
        (b"X\xff\xff\xff\x7fabc.", "cut off"),
        (b"\x8d" + b"\xff" * 8 + b"abc.", "cut off"),
        (b"X\1\0\0\0\xff.", "not UTF-8"),
        (b"h\5.", "place of the memo"),
        (b"t.", "a mark that is not there"),
        (b"0.", "the instruction '0' at 0"),
        (b"R.", "a value is missing"),
        (b"(q\0.", "a value is missing"),
        (b"N(\x85.", "a value is missing"),
        (b"}(Nu.", "a key without a value"),
        (b"}NNs.", "a key of type NoneType"),
        (b"}" + whole(2**61 - 1) + b"Ns.", "a key of type int"),
        (b"})Ns.", "a key of type tuple"),
        (b"NNNs.", "adds to a NoneType"),
        (b"}Na.", "adds to a dict"),
        (b"N", "cut off"),
        (b"N.N", "ends too early"),
        (b"NN.", "ends too early"),
        (b".", "ends too early"),
        (b"\x80\6N.", "protocol 6"),
        (b"cos", "a name does not end"),
        (b"", "cut off"),
    ],
)
def test_programs_that_fail(program, words):
    with pytest.raises(CheckpointError, match=words):
        read_pickle(program)


def test_few_instructions_cannot_stand_for_a_value_without_end():
    program = b"K\1\x94" + b"".join(b"(h" + bytes([i]) + b"h" + bytes([i]) + b"t\x94" for i in range(50))
    program = b"(" + program + b"t."
    with pytest.raises(CorruptCheckpoint, match="again and again"):
        read_pickle(program)


@settings(deadline=None)
@given(data=st.data())
def test_nothing_but_our_errors_from_any_program(tmp_path_factory, data):
    """Sound programs with some bytes replaced, taken out or put in, in archives with right checksums."""
    with zipfile.ZipFile(
        FOLDER / data.draw(st.sampled_from(["plain2.pth", "plain5.pth", "views.pth", "nanogpt.pt"]))
    ) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(records)).split("/")[0]
    program = bytearray(records.pop(f"{root}/data.pkl"))
    for _ in range(data.draw(st.integers(1, 4))):
        i, n = data.draw(st.integers(0, len(program) - 1)), data.draw(st.integers(0, 3))
        program[i : i + n] = data.draw(st.binary(max_size=4))
    folder = tmp_path_factory.mktemp("broken")
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        archive.writestr(f"{root}/data.pkl", bytes(program))
        for name, content in records.items():
            archive.writestr(name, content)
    with contextlib.suppress(CheckpointError):
        read_all(folder / "model.pth")
    shutil.rmtree(folder)


@settings(deadline=None)
@given(data=st.data())
def test_nothing_but_our_errors_from_any_archive(tmp_path_factory, data):
    content = bytearray((FOLDER / "plain2.pth").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[-data.draw(st.integers(1, 1200))] = data.draw(st.integers(0, 255))  # the directory is at the end
    path = tmp_path_factory.mktemp("broken") / "model.pth"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        read_all(path)
    shutil.rmtree(path.parent)
