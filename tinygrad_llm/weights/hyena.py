"""Hyena operators under the names of safari, the code of the paper (Poli et al. 2023; standalone_hyena.py).

No trained model is published under them.

operator = read_operator(arrays, order=2)              # arrays: name -> array, as the state dict of a HyenaOperator
y = operator(x)                                        # (B, T, C) -> (B, T, C)
arrays = write_operator(operator)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ConfigError, StateDictError
from ..nn.hyena import Hyena
from ..rng import Zeros

_MLP = "filter_fn.implicit_filter"
# ours -> theirs; the frequency is one, with a name for each layer of sines
_NAMES = {
    "in_proj.weight": "in_proj.weight",
    "in_proj.bias": "in_proj.bias",
    "short_weight": "short_filter.weight",
    "short_bias": "short_filter.bias",
    "filter.layer1.weight": f"{_MLP}.0.weight",
    "filter.layer1.bias": f"{_MLP}.0.bias",
    "filter.layer2.weight": f"{_MLP}.2.weight",
    "filter.layer2.bias": f"{_MLP}.2.bias",
    "filter.layer3.weight": f"{_MLP}.4.weight",
    "filter.layer3.bias": f"{_MLP}.4.bias",
    "filter.layer4.weight": f"{_MLP}.6.weight",
    "filter.freq": f"{_MLP}.1.freq",
    "filter.bias": "filter_fn.bias",
    "filter.z": "filter_fn.pos_emb.z",
    "out_proj.weight": "out_proj.weight",
    "out_proj.bias": "out_proj.bias",
}
_FREQUENCIES = tuple(f"{_MLP}.{i}.freq" for i in (1, 3, 5))
_FIXED = ("filter_fn.pos_emb.t", "filter_fn.modulation.deltas")  # not learned, and made by formula here


def read_operator(arrays: Mapping[str, Any], order: int) -> Hyena:
    """The operator of a state dict. StateDictError names what is missing, odd or of a wrong shape; ConfigError an order that the
    shapes are not of."""
    found = {name: np.asarray(array) for name, array in arrays.items()}
    missing = [name for name in _NAMES.values() if name not in found]
    odd = [name for name in found if name not in (*_NAMES.values(), *_FREQUENCIES, *_FIXED)]
    if missing or odd:
        words = ", ".join(f"missing {name}" for name in missing[:3]) or f"has {odd[0]!r:.80}"
        raise StateDictError(f"read_operator: not a HyenaOperator of safari: {words}")
    freq = found[_FREQUENCIES[0]]
    if any(name in found and not np.array_equal(found[name], freq) for name in _FREQUENCIES):
        raise StateDictError(f"read_operator: {', '.join(_FREQUENCIES)} differ: the frequency is shared by all layers")
    inner, emb_dim = _matrix(found, "in_proj.weight")
    if type(order) is not int or order < 2 or inner != emb_dim * (order + 1):
        raise ConfigError(
            f"read_operator: order is {order!r}: in_proj.weight is {(inner, emb_dim)}, which is of order {inner // emb_dim - 1}"
        )
    width, n_features = _matrix(found, f"{_MLP}.0.weight")
    z = found["filter_fn.pos_emb.z"]
    if z.ndim != 3 or z.shape[::2] != (1, n_features):
        raise StateDictError(f"read_operator: filter_fn.pos_emb.z is {z.shape}: it must be (1, L, {n_features})")
    operator = Hyena(emb_dim, z.shape[1], order, width, n_features, rng=Zeros())
    shapes = {name: p.shape for name, p in operator.named_parameters()}
    values = {}
    for ours, theirs in _NAMES.items():
        array = found[theirs]
        wanted = _their_shape(ours, shapes[ours])
        if array.shape != wanted:
            raise StateDictError(f"read_operator: {theirs} is {array.shape}: it must be {wanted}")
        values[ours] = array.reshape(shapes[ours])
    deltas = found.get("filter_fn.modulation.deltas")
    falls = operator.filter.falls
    if deltas is not None and not (
        deltas.size == falls.size and np.allclose(np.abs(deltas).ravel(), falls, rtol=1e-5, atol=1e-6)
    ):
        raise StateDictError(
            "read_operator: filter_fn.modulation.deltas are others than safari's default, the only ones known"
        )
    operator.astype(values["in_proj.weight"].dtype)
    operator.load_state_dict(values)
    return operator


def write_operator(operator: Hyena) -> dict[str, np.ndarray]:
    """The state dict of a HyenaOperator of safari with these weights, what is not learned with it."""
    values = operator.state_dict()
    arrays = {theirs: values[ours].reshape(_their_shape(ours, values[ours].shape)) for ours, theirs in _NAMES.items()}
    arrays |= dict.fromkeys(_FREQUENCIES, arrays[_FREQUENCIES[0]])
    dtype, n = arrays["in_proj.weight"].dtype, operator.context_length
    arrays["filter_fn.pos_emb.t"] = np.linspace(0, 1, n, dtype=dtype)[None, :, None]  # (1, L, 1)
    arrays["filter_fn.modulation.deltas"] = -operator.filter.falls.astype(dtype)[None, None]  # (1, 1, (N - 1) C)
    return arrays


def _their_shape(ours: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A convolution's weight is (channels, 1, 3) there, what is added to a batch begins with 1."""
    if ours == "short_weight":
        return shape[0], 1, *shape[1:]
    return (1, *shape) if ours in ("filter.freq", "filter.z") else shape


def _matrix(found: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    if found[name].ndim != 2 or 0 in found[name].shape:
        raise StateDictError(f"read_operator: {name} is {found[name].shape}: it must be a matrix")
    rows, columns = found[name].shape
    return rows, columns
