"""Llama 2 in plain PyTorch under our names: the independent model that ours is compared with.

Positions turn pairs of features as complex numbers, key heads are repeated, and a window is a band in the mask. Letters in shape
comments: B batch, T tokens, H heads, d features of a head.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


def rotate(x, positions, base=10000.0, interleaved=False):
    """x (B, T, H, d) as d/2 complex numbers a head, each times e^(i position / base^(2j/d)); positions are (T,) or (B, T)."""
    d = x.shape[-1]
    angles = positions[..., None, None].double() / base ** (2 * torch.arange(d // 2).double() / d)  # (..., T, 1, d/2)
    pairs = x.unflatten(-1, (-1, 2)) if interleaved else x.unflatten(-1, (2, -1)).transpose(-1, -2)  # (B, T, H, d/2, 2)
    turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    y = torch.view_as_real(turned)
    return (y if interleaved else y.transpose(-1, -2)).flatten(-2)


class MultiHeadAttention(nn.Module):
    def __init__(self, d_in, d_out, context_length, dropout, num_heads, qkv_bias=False, *, out_bias=True,
                 num_kv_heads=None, head_dim=None, rotary=None, window=None):  # fmt: skip
        super().__init__()
        self.heads, self.kv_heads = num_heads, num_kv_heads or num_heads
        d = head_dim or d_out // num_heads
        self.rotary, self.window = rotary, window
        self.W_query = nn.Linear(d_in, self.heads * d, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, self.kv_heads * d, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, self.kv_heads * d, bias=qkv_bias)
        self.out_proj = nn.Linear(self.heads * d, d_out, bias=out_bias)

    def forward(self, x):
        positions = torch.arange(x.shape[1])
        q = self.W_query(x).unflatten(-1, (self.heads, -1))  # (B, T, H, d)
        k, v = (w(x).unflatten(-1, (self.kv_heads, -1)) for w in (self.W_key, self.W_value))
        if self.rotary is not None:
            options = {"base": self.rotary.get("base", 10000.0), "interleaved": self.rotary.get("interleaved", False)}
            q, k = rotate(q, positions, **options), rotate(k, positions, **options)
        k, v = (y.repeat_interleave(self.heads // self.kv_heads, dim=2) for y in (k, v))
        scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(q.shape[-1])
        back = positions[:, None] - positions  # how far key s is behind query t
        hidden = (back < 0) | (back >= (self.window or len(positions)))
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return self.out_proj(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, emb_dim, hidden_dim, bias=False):
        super().__init__()
        self.fc1 = nn.Linear(emb_dim, hidden_dim, bias=bias)
        self.fc2 = nn.Linear(emb_dim, hidden_dim, bias=bias)
        self.fc3 = nn.Linear(hidden_dim, emb_dim, bias=bias)

    def forward(self, x):
        return self.fc3(F.silu(self.fc1(x)) * self.fc2(x))


class Block(nn.Module):
    def __init__(self, c, attention, hidden_dim, bias):
        super().__init__()
        self.att = attention
        self.ff = SwiGLU(c, hidden_dim, bias)
        self.norm1, self.norm2 = nn.RMSNorm(c, eps=1e-5), nn.RMSNorm(c, eps=1e-5)

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class LlamaModel(nn.Module):
    def __init__(self, *, vocab_size, context_length, emb_dim, n_heads, n_layers, hidden_dim, n_kv_heads=None, head_dim=None,
                 window=None, rope_base=10000.0, qkv_bias=False, out_bias=False, bias=False, tie_weights=False):  # fmt: skip
        super().__init__()
        self.tok_emb = nn.Embedding(vocab_size, emb_dim)
        attention = {"num_kv_heads": n_kv_heads, "head_dim": head_dim, "window": window, "rotary": {"base": rope_base}}
        self.trf_blocks = nn.Sequential(
            *(
                Block(
                    emb_dim,
                    MultiHeadAttention(
                        emb_dim, emb_dim, context_length, 0.0, n_heads, qkv_bias, out_bias=out_bias, **attention
                    ),
                    hidden_dim,
                    bias,
                )
                for _ in range(n_layers)
            )
        )
        self.final_norm = nn.RMSNorm(emb_dim, eps=1e-5)
        self.out_head = nn.Linear(emb_dim, vocab_size, bias=False)
        if tie_weights:
            self.out_head.weight = self.tok_emb.weight

    def forward(self, ids):
        return self.out_head(self.final_norm(self.trf_blocks(self.tok_emb(ids))))
