"""Files of torch.save, written without PyTorch: an archive, and the instructions of its pickle one by one."""

import pickle
import struct
import zipfile


def save(path, value_or_pickle, records=(), **more) -> None:
    """An archive as torch.save writes it, around a pickle."""
    program = value_or_pickle if isinstance(value_or_pickle, bytes) else pickle.dumps(value_or_pickle, 2)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", program)
        for name, data in dict(records, **more).items():
            archive.writestr(name if "/" in name else f"model/{name}", data)


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def whole(n: int) -> bytes:
    return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)


def tensor(shape=(2, 3), strides=(3, 1), offset=0, n=6, kind="FloatStorage", key="0", more=b"") -> bytes:
    """The instructions that make a tensor."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + whole(n) + b"tQ"
    sizes, steps = (b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (shape, strides))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + whole(offset) + sizes + steps + b"\x89N" + more + b"tR"


def write_checkpoint(path, arrays, **more) -> None:
    """{"model": arrays in float32, **more} as torch.save writes it."""
    items = b"".join(
        text(name) + tensor(a.shape, [n // 4 for n in a.strides], 0, a.size, key=str(i))
        for i, (name, a) in enumerate(arrays.items())
    )
    rest = b"".join(text(name) + pickle.dumps(value, 2)[2:-1] for name, value in more.items())
    program = b"\x80\x02}(" + text("model") + b"}(" + items + b"u" + rest + b"u."
    save(path, program, {f"model/data/{i}": a.tobytes() for i, a in enumerate(arrays.values())})
