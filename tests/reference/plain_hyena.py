"""A Hyena operator in plain PyTorch under safari's names, its convolutions as direct sums: what ours is compared with.

Written from Poli et al. 2023 §3 and what its code is known to do: positions [t, cos, -sin], one frequency for all sines, a
window that falls to 1 % after .3 to 1.5 of the length. Letters in shape comments: B batch, T tokens, C features, N order.
"""

import math

import torch
from torch import nn


class Sin(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.freq = nn.Parameter(torch.ones(1, width))

    def forward(self, x):
        return torch.sin(self.freq * x)


class Filter(nn.Module):
    def __init__(self, channels, n_features, width, length):
        super().__init__()
        bands = (n_features - 1) // 2
        w = 2 * math.pi * torch.arange(length).double() / length
        angles = torch.linspace(1e-4, bands - 1, bands).double()[None] * w[:, None]
        t = torch.linspace(0, 1, length, dtype=torch.float64)
        z = torch.cat([t[:, None], angles.cos(), -angles.sin()], 1)
        self.pos_emb = nn.Module()
        self.pos_emb.z = nn.Parameter(z[None])
        self.pos_emb.register_buffer("t", t[None, :, None])
        self.modulation = nn.Module()
        deltas = torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, channels, dtype=torch.float64)
        self.modulation.register_buffer("deltas", deltas[None, None])
        self.bias = nn.Parameter(torch.randn(channels))
        sin = Sin(width)
        layers = [nn.Linear(n_features, width), sin, nn.Linear(width, width), sin, nn.Linear(width, width), sin]
        self.implicit_filter = nn.Sequential(*layers, nn.Linear(width, channels, bias=False))

    def forward(self, n):
        h = self.implicit_filter(self.pos_emb.z[:, :n])[0]  # (T, C)
        return h * torch.exp(-self.pos_emb.t[0, :n] * self.modulation.deltas[0].abs())


class HyenaOperator(nn.Module):
    def __init__(self, emb_dim, length, order=2, width=64, n_features=3):
        super().__init__()
        self.order, inner = order, emb_dim * (order + 1)
        self.in_proj = nn.Linear(emb_dim, inner)
        self.short_filter = nn.Conv1d(inner, inner, 3, padding=2, groups=inner)
        self.filter_fn = Filter(emb_dim * (order - 1), n_features, width, length)
        self.out_proj = nn.Linear(emb_dim, emb_dim)

    def forward(self, x):
        n, c = x.shape[1:]
        u = self.short_filter(self.in_proj(x).transpose(1, 2))[..., :n]  # (B, (N + 1) C, T)
        *gates, v = u.split(c, 1)
        filters = self.filter_fn(n).T.reshape(self.order - 1, c, n)
        bias = self.filter_fn.bias.reshape(self.order - 1, c)
        lag = torch.arange(n)[:, None] - torch.arange(n)
        for h, d, gate in zip(filters, bias, reversed(gates[1:]), strict=True):
            v = v * gate
            matrix = torch.where(lag >= 0, h[:, lag.clamp(min=0)], 0.0)  # (C, T, T)
            v = torch.einsum("cts,bcs->bct", matrix, v) + d[:, None] * v
        return self.out_proj((v * gates[0]).transpose(1, 2))
