"""The Hyena operator (Poli et al. 2023 §3): long convolutions with gates between them, in the place of attention.

The filters are not learned number by number: a small network draws them from the position, and a window makes them fall.

Letters in shape comments: B batch, T tokens, L = context_length, C features, N order, E features of a position, F of the network.
"""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from ..checks import check_integer, check_size
from ..engine import Tensor
from ..errors import ConfigError, ContextLengthError, GraphError
from ..rng import Generator, get_generator
from .layers import Linear
from .module import Module, Parameter

_SHORT = 3  # tokens that the short convolution sees
_TARGET, _FAST, _SLOW = 0.01, 0.3, 1.5  # a filter falls to this share after these parts of its length


class HyenaFilter(Module):
    """Filters (N - 1, C, L), the same for every text: a network with sines on positions, times a window (§3.3).

    The positions z, (L, E), are sines and cosines, and learned, at a rate of their own, 1e-5.
    """

    def __init__(
        self,
        emb_dim: int,
        n_filters: int,
        context_length: int,
        width: int,
        n_features: int,
        *,
        rng: Generator | None = None,
    ) -> None:
        if check_integer("HyenaFilter: n_features", n_features, least=3) % 2 == 0:
            raise ConfigError(
                f"HyenaFilter: n_features is {n_features}: it must be odd, 3 or more: time, and pairs of waves"
            )
        rng, c = rng or get_generator(), emb_dim * n_filters
        self.n_filters = n_filters
        self.layer1, self.layer2 = Linear(n_features, width, rng=rng), Linear(width, width, rng=rng)
        self.layer3, self.layer4 = Linear(width, width, rng=rng), Linear(width, c, bias=False, rng=rng)
        self.freq = Parameter(np.ones(width, np.float32))  # of all three layers of sines
        self.bias = Parameter(rng.normal(0.0, 1.0, (c,)))  # what passes by the filter
        self.z = Parameter(positions(context_length, n_features).astype(np.float32), lr=1e-5)
        self.falls = np.abs(np.linspace(math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST, c))  # (N - 1) C

    def forward(self, n_tokens: int) -> list[tuple[Tensor, Tensor]]:
        """For each filter its first `n_tokens` (C, T), and its bias (C,)."""
        x = ops.sin(self.freq * self.layer1(self.z[:n_tokens]))  # (T, F)
        x = ops.sin(self.freq * self.layer2(x))
        x = ops.sin(self.freq * self.layer3(x))
        time = np.linspace(0, 1, len(self.z.data))[:n_tokens, None]  # (T, 1)
        h = self.layer4(x) * np.exp(-time * self.falls).astype(x.dtype)  # (T, (N - 1) C)
        filters = h.transpose().reshape(self.n_filters, -1, n_tokens)  # (N - 1, C, T)
        bias = self.bias.reshape(self.n_filters, -1)  # (N - 1, C)
        return [(filters[i], bias[i]) for i in range(self.n_filters)]


def positions(context_length: int, n_features: int) -> np.ndarray:
    """t from 0 to 1, and cos and -sin of f w for the frequencies f, where w goes once round: (L, E)."""
    bands = (n_features - 1) // 2
    angles = 2 * math.pi * np.arange(context_length) / context_length  # (L,)
    waves = np.linspace(1e-4, bands - 1, bands) * angles[:, None]  # (L, bands)
    return np.concatenate([np.linspace(0, 1, context_length)[:, None], np.cos(waves), -np.sin(waves)], 1)


class Hyena(Module):
    """Each feature of a token is a long convolution of those before it, with gates: (B, T, C) -> (B, T, C).

    v <- filter(v · x) for the gates x but the first, from the last on, then v · x of the first; v and the gates are projections
    that a short convolution has run over. `order`: gates.
    """

    def __init__(
        self,
        emb_dim: int,
        context_length: int,
        order: int = 2,
        filter_width: int = 64,
        filter_features: int = 3,
        *,
        rng: Generator | None = None,
    ) -> None:
        check_size("Hyena", emb_dim=emb_dim, context_length=context_length, filter_width=filter_width)
        self.order, self.context_length = check_integer("Hyena: order", order, least=2), context_length
        rng, inner = rng or get_generator(), emb_dim * (order + 1)
        bound = 1 / math.sqrt(_SHORT)
        self.in_proj = Linear(emb_dim, inner, rng=rng)
        self.short_weight = Parameter(rng.uniform(-bound, bound, (inner, _SHORT)))
        self.short_bias = Parameter(rng.uniform(-bound, bound, (inner,)))
        self.filter = HyenaFilter(emb_dim, order - 1, context_length, filter_width, filter_features, rng=rng)
        self.out_proj = Linear(emb_dim, emb_dim, rng=rng)

    def forward(self, x: Tensor, past: dict[str, np.ndarray] | None = None) -> Tensor:
        """With `past`, x are the tokens that follow those whose inputs are in it (nn.state.Window); it is told of them."""
        t = x.shape[1]
        n_past = 0 if past is None else past["v0"].shape[2]
        if n_past + t > self.context_length:
            raise ContextLengthError(
                f"Hyena: {n_past + t} tokens, the filter has {self.context_length}: pass the last of them"
            )
        u = self.in_proj(x).swapaxes(1, 2)  # (B, (N + 1) C, T)
        if past is not None and u.requires_grad:
            raise GraphError("Window: nothing can be learned through it: run the model under tg.no_grad()")
        u = self._short(u, past)  # (B, (N + 1) C, T)
        *gates, v = ops.split(u, self.order + 1, axis=1)  # N of (B, C, T), and one
        for i, (gate, (h, bias)) in enumerate(zip(gates[:0:-1], self.filter(n_past + t), strict=True)):
            v = v * gate
            v = ops.fft_conv(v, h, bias) if past is None else _go_on(v, h, bias, past, f"v{i}")  # (B, C, T)
        return self.out_proj((v * gates[0]).swapaxes(1, 2))  # (B, T, C)

    def _short(self, u: Tensor, past: dict[str, np.ndarray] | None) -> Tensor:
        """Each channel's sum of its last three inputs, weighted: (B, N', T) -> (B, N', T)."""
        t = u.shape[2]
        before = np.zeros((*u.shape[:2], _SHORT - 1), u.dtype) if past is None else past["short"]  # (B, N', 2)
        u = ops.concatenate(before, u, axis=2)  # (B, N', T + 2)
        if past is not None:
            past["short"] = u.data[:, :, -(_SHORT - 1) :].copy()
        y = self.short_bias[:, None]
        for i in range(_SHORT):
            y = y + self.short_weight[:, i : i + 1] * u[:, :, i : i + t]
        return y


def _go_on(v: Tensor, h: Tensor, bias: Tensor, past: dict[str, np.ndarray], name: str) -> Tensor:
    """The convolution of the last of all inputs so far: (B, C, T) -> (B, C, T)."""
    every = past[name] = np.concatenate([past[name], v.data], 2)  # (B, C, all)
    if v.shape[2] > 1:
        return Tensor(ops.fft_conv(every, h.data, bias.data).data[:, :, -v.shape[2] :])
    return Tensor(np.vecdot(every, h.data[:, ::-1])[..., None] + bias.data[:, None] * v.data)  # (B, C, 1)
