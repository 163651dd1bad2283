"""The same GPT in PyTorch, twice: as the book writes it, and tuned by hand. Prints the time of each training step.

    python tests/benchmarks/pytorch_twins.py book 65 64 128 4 4 12 60 --drop-rate 0.1

after book|tuned: vocabulary, context, width, heads, layers, batch, steps. beside_pytorch.py runs it beside ours.

"tuned" is what PyTorch offers for a GPT on a CPU: one matrix for queries, keys and values, scaled_dot_product_attention, F.gelu,
LayerNorm of the library and the fused AdamW. Its output is one JSON line: milliseconds of every step, peak memory, loss.
"""

import argparse
import json
import resource
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

LEARNING_RATE, WEIGHT_DECAY = 4e-4, 0.1  # as in tinygrad_llm/doctor/bench.py


class Size(NamedTuple):
    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int
    batch_size: int
    steps: int


class BookLayerNorm(nn.Module):
    def __init__(self, emb_dim):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(emb_dim)), nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(var + 1e-5) + self.shift


class BookGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1 + torch.tanh(torch.sqrt(torch.tensor(2.0 / torch.pi)) * (x + 0.044715 * torch.pow(x, 3))))


class BookAttention(nn.Module):
    def __init__(self, size, drop_rate):
        super().__init__()
        d = size.emb_dim
        self.heads = size.n_heads
        self.W_query, self.W_key, self.W_value = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.out_proj, self.dropout = nn.Linear(d, d), nn.Dropout(drop_rate)
        self.register_buffer("mask", torch.triu(torch.ones(size.context_length, size.context_length), diagonal=1))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (w(x).view(b, t, self.heads, -1).transpose(1, 2) for w in (self.W_query, self.W_key, self.W_value))
        scores = q @ k.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:t, :t], -torch.inf)
        weights = self.dropout(torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1))
        return self.out_proj((weights @ v).transpose(1, 2).contiguous().view(b, t, d))


class TunedAttention(nn.Module):
    def __init__(self, size, drop_rate):
        super().__init__()
        d = size.emb_dim
        self.heads, self.drop_rate = size.n_heads, drop_rate
        self.qkv, self.out_proj = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(x).split(d, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.drop_rate if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).contiguous().view(b, t, d))


class Block(nn.Module):
    def __init__(self, size, drop_rate, tuned):
        super().__init__()
        d = size.emb_dim
        norm = nn.LayerNorm if tuned else BookLayerNorm
        self.att = (TunedAttention if tuned else BookAttention)(size, drop_rate)
        gelu = nn.GELU(approximate="tanh") if tuned else BookGELU()
        self.ff = nn.Sequential(nn.Linear(d, 4 * d), gelu, nn.Linear(4 * d, d))
        self.norm1, self.norm2, self.drop = norm(d), norm(d), nn.Dropout(drop_rate)

    def forward(self, x):
        x = x + self.drop(self.att(self.norm1(x)))
        return x + self.drop(self.ff(self.norm2(x)))


class GPT(nn.Module):
    def __init__(self, size, drop_rate, tuned):
        super().__init__()
        d = size.emb_dim
        self.tok_emb, self.pos_emb = nn.Embedding(size.vocab_size, d), nn.Embedding(size.context_length, d)
        self.drop = nn.Dropout(drop_rate)
        self.blocks = nn.Sequential(*(Block(size, drop_rate, tuned) for _ in range(size.n_layers)))
        self.final_norm = (nn.LayerNorm if tuned else BookLayerNorm)(d)
        self.out_head = nn.Linear(d, size.vocab_size, bias=False)

    def forward(self, ids):
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1]))
        return self.out_head(self.final_norm(self.blocks(self.drop(x))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["book", "tuned"])
    parser.add_argument("size", nargs=7, type=int, metavar="INT")
    parser.add_argument("--drop-rate", type=float, default=0.0)
    args = parser.parse_args()
    size, tuned = Size(*args.size), args.kind == "tuned"
    torch.manual_seed(123)
    model = GPT(size, args.drop_rate, tuned)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=tuned or None)
    ids = torch.randint(0, size.vocab_size, (size.batch_size, size.context_length + 1))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    times = []
    for _ in range(min(10, size.steps) + size.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"ms": times[-size.steps :], "peak_mb": peak, "loss": loss.item(), "version": torch.__version__}))


if __name__ == "__main__":
    main()
