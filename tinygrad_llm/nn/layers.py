"""The layers that models are made of, with the book's names and PyTorch's initial values.

Letters in shape comments: ... leading axes, I inputs, O outputs, V rows of a table, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import ops
from ..checks import check_number, check_size
from ..engine import Tensor
from ..rng import Generator, get_generator
from .module import Module, Parameter


class Linear(Module):
    """y = x Wᵀ + b: (..., I) -> (..., O). Weight and bias are drawn from ±1/√I, the weight first, as PyTorch does."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: Generator | None = None) -> None:
        check_size("Linear", in_features=in_features, out_features=out_features)
        rng, bound = rng or get_generator(), 1 / math.sqrt(in_features)
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)))
        self.bias = Parameter(rng.uniform(-bound, bound, (out_features,))) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)  # (..., O)


class Embedding(Module):
    """Row `id` of a table for each id: (...) -> (..., D). Drawn from N(0, 1), as PyTorch does."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, rng: Generator | None = None) -> None:
        check_size("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.weight = Parameter((rng or get_generator()).normal(0.0, 1.0, (num_embeddings, embedding_dim)))

    def forward(self, ids: Any) -> Tensor:
        return ops.embedding(self.weight, ids=ids)  # (..., D)


class LayerNorm(Module):
    """Each row to mean 0 and variance 1 (biased), then scale and shift: (..., D) -> (..., D) (Ba et al. 2016).

    Without `bias` there is no shift.
    """

    def __init__(self, emb_dim: int, eps: float = 1e-5, bias: bool = True) -> None:
        check_size("LayerNorm", emb_dim=emb_dim)
        self.eps = eps
        self.scale = Parameter(np.ones(emb_dim, np.float32))
        self.shift = Parameter(np.zeros(emb_dim, np.float32)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.scale, self.shift, eps=self.eps)


class RMSNorm(Module):
    """Each row divided by its root mean square, then weighted: (..., D) -> (..., D) (Zhang and Sennrich 2019)."""

    def __init__(self, emb_dim: int, eps: float = 1e-5) -> None:
        check_size("RMSNorm", emb_dim=emb_dim)
        self.eps = eps
        self.weight = Parameter(np.ones(emb_dim, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.weight, eps=self.eps)


class Dropout(Module):
    """In training, each element becomes 0 with probability `drop_rate`, the others are scaled by 1/(1 - drop_rate)."""

    def __init__(self, drop_rate: float) -> None:
        self.drop_rate = check_number("Dropout: drop_rate", drop_rate, most=1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_rate == 0:
            return x
        return ops.dropout(x, drop_rate=self.drop_rate, rng=get_generator().spawn())

    def describe(self) -> str:
        return f"drop_rate {self.drop_rate}"


class GELU(Module):
    """x Φ(x), in its tanh form, as in GPT-2 and the book, or `exact`, with the error function."""

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu_erf(x) if self.exact else ops.gelu(x)

    def describe(self) -> str:
        return "exact" if self.exact else ""


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class SiLU(Module):
    """x σ(x), also called swish (Ramachandran et al. 2017)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.silu(x)


ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "gelu": GELU,
    "gelu_erf": partial(GELU, exact=True),
    "relu": ReLU,
    "silu": SiLU,
}
