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


PYTORCH = {
    "trf_blocks.0.att.W_query.weight": ("float32", (3, 3)),
    "trf_blocks.0.norm1.scale": ("float16", (3,)),
    "trf_blocks.0.norm1.shift": ("bfloat16", (3,)),
    "mask": ("bool", (2, 2)),
    "step": ("int64", ()),
    "nothing": ("float64", (0, 4)),
    "small": ("int8", (7,)),
    "large": ("uint32", (3,)),
}


def make_pytorch() -> None:
    from collections import OrderedDict

    import torch

    def tensor(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(numbers(shape, dtype)).to(getattr(torch, dtype))

    plain = OrderedDict((name, tensor(*what)) for name, what in PYTORCH.items())
    base = tensor("float32", (4, 5))
    views = {
        "base": base,
        "transposed": base.t(),
        "part": base[1:3, ::2],
        "one": base[2, 3],
        "expanded": base[0, :1].expand(6, 1).expand(6, 3)[:, :2],
        "parameter": torch.nn.Parameter(base[:, 1]),
    }
    FOLDER.mkdir(exist_ok=True)
    for protocol in (2, 5):
        torch.save(plain, FOLDER / f"plain{protocol}.pth", pickle_protocol=protocol)
    torch.save(views, FOLDER / "views.pth")
    torch.save(
        {
            "model": plain,
            "optimizer": {"state": {0: {"exp_avg": base}}, "param_groups": [{"betas": (0.9, 0.95), "params": [0, 1]}]},
            "model_args": {"n_layer": 1, "bias": False, "dropout": 0.5, "init_from": None},
            "best_val_loss": torch.tensor(1.5),
            "dtype": torch.bfloat16,
            "device": torch.device("cuda", 1),
            "size": base.shape,
        },
        FOLDER / "nanogpt.pt",
    )
    torch.save(plain, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), FOLDER / "module.pth")


if __name__ == "__main__":
    {"tensorflow": make_tensorflow, "pytorch": make_pytorch}[sys.argv[1]]()
