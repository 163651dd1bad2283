"""Write the small checkpoints in files/ anew, with the libraries themselves; the suite needs neither.

python make_files.py tensorflow     with TensorFlow (2.21 wrote those that are here)
python make_files.py pytorch        with PyTorch (2.13)
"""

import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "files"

TENSORFLOW = {
    "model/h0/attn/c_attn/w": ("float32", (1, 3, 9)),
    "model/h0/ln_1/b": ("float16", (3,)),
    "model/h0/ln_1/g": ("bfloat16", (3,)),
    "model/wpe": ("float64", (2, 3)),
    "model/wte": ("float32", (5, 3)),
    "step": ("int64", ()),
    "nothing": ("float32", (0, 4)),
    "mask": ("bool", (2, 2)),
    "small": ("int8", (7,)),
    "large": ("uint64", (3,)),
}


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Quarters from -1.25 to 1.25 (whole numbers from 0 to 10 for integers), which every type holds exactly."""
    whole = np.arange(int(np.prod(shape))) * 7 % 11
    if dtype == "bool":
        return (whole % 2 == 1).reshape(shape)
    if "int" in dtype:
        return whole.astype(dtype).reshape(shape)
    return ((whole - 5) / 4).astype("float32" if dtype in ("bfloat16", "float16") else dtype).reshape(shape)


def make_tensorflow() -> None:
    import tensorflow as tf

    def save(prefix: Path, tensors: dict) -> None:
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(tensors),
            shape_and_slices=[""] * len(tensors),
            tensors=list(tensors.values()),
        )

    tensors = {
        name: tf.cast(tf.constant(numbers(shape, dtype)), dtype) for name, (dtype, shape) in sorted(TENSORFLOW.items())
    }
    tensors["words"] = tf.constant([b"some", b"text"])
    one, two = FOLDER / "part.one", FOLDER / "part.two"
    save(one, {name: tensor for name, tensor in tensors.items() if name.startswith("model/h0")})
    save(two, {name: tensor for name, tensor in tensors.items() if not name.startswith("model/h0")})
    folder = FOLDER / "tensorflow"
    folder.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(one), str(two)], destination_prefix=str(folder / "model.ckpt"), delete_old_dirs=False
    )
    for file in FOLDER.glob("part.*"):
        file.unlink()
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt"\nall_model_checkpoint_paths: "model.ckpt"\n'
    )


if __name__ == "__main__":
    {"tensorflow": make_tensorflow}[sys.argv[1]]()
