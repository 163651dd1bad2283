"""Weights as others publish them, for the tests of every architecture: stored cases, folders of these, models of any numbers."""

import json

import numpy as np
from safetensors.numpy import save_file


def config_of(case):
    """The config.json of a stored case."""
    return json.loads(case["config"])


def arrays_of(case, dtype=np.float64):
    """The tensors of a stored case."""
    return {name: np.array(values, dtype) for name, values in case["tensors"].items()}


def write(folder, arrays, config=None, file="model.safetensors"):
    """A folder with these tensors and this configuration, as transformers leaves one."""
    folder.mkdir(exist_ok=True, parents=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / file, {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def filled(model, dtype=np.float32, seed=3):
    """The model with normal numbers in every parameter, so that none is a zero or a one by chance; in evaluation mode."""
    stream = np.random.default_rng(seed)
    for p in model.astype(dtype).eval().parameters():
        p.data = stream.standard_normal(p.shape).astype(dtype)
    return model
