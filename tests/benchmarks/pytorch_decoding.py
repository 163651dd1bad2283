"""The loop of decoding.py in PyTorch, with keys and values kept in preallocated buffers. Prints one JSON line.

    python tests/benchmarks/pytorch_decoding.py 50257 1024 768 12 12 1 1 [--new 200]

The numbers are those of pytorch_twins.py, of which batch and steps do not count here. One matrix for queries, keys and values,
scaled_dot_product_attention over the filled part of the buffers, inference mode, greedy.
"""

import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_twins import Size
from torch import nn


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        d, self.heads = size.emb_dim, size.n_heads
        self.qkv, self.out_proj = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d)
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d))
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.keys, self.values = (torch.empty(1, self.heads, size.context_length, d // self.heads) for _ in "kv")

    def forward(self, x, start):
        b, t, d = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(d, dim=2))
        self.keys[:, :, start : start + t], self.values[:, :, start : start + t] = k, v
        k, v = self.keys[:, :, : start + t], self.values[:, :, : start + t]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)  # a prompt comes first, so its mask is square
        x = x + self.out_proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.ff(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, size):
        super().__init__()
        d = size.emb_dim
        self.tok_emb, self.pos_emb = nn.Embedding(size.vocab_size, d), nn.Embedding(size.context_length, d)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.n_layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, size.vocab_size, bias=False)

    def forward(self, ids, start):
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(start, start + ids.shape[1]))
        for block in self.blocks:
            x = block(x, start)
        return self.head(self.norm(x[:, -1:]))


@torch.inference_mode()
def generate(model, ids, n):
    new, start, times = ids, 0, [time.perf_counter()]
    for _ in range(n):
        logits = model(new, start)
        start += new.shape[1]
        new = logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat((ids, new), 1)
        times.append(time.perf_counter())
    return 1000 * np.diff(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs=7, type=int, metavar="INT")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=200)
    args = parser.parse_args()
    size = Size(*args.size)
    torch.manual_seed(123)
    model = GPT(size).eval()
    ids = torch.tensor(np.random.default_rng(0).integers(0, size.vocab_size, (1, args.prompt)))
    generate(model, ids, 3)  # warm up
    ms = generate(model, ids, args.new)
    print(json.dumps({"mean_ms": ms.mean(), "median_ms": np.median(ms), "least_ms": ms.min(), "first_ms": ms[0]}))


if __name__ == "__main__":
    main()
