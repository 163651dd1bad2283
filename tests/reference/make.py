"""Make the reference values that tests/test_reference.py compares with, by PyTorch 2.13 on the CPU in float64.

    pip install '.[reference]'
    python tests/reference/make.py            # write the files anew, a few seconds
    python tests/reference/make.py --check    # make them afresh, compare with the stored ones, exit 1 where they drifted

Every number comes from PyTorch's own functions and autograd; nothing of tinygrad_llm is imported. Inputs have few digits, so that
the files stay small; they are drawn from a seed made of the case's name, so that a new case changes no other.
"""

import argparse
import json
import math
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import plain_llama
import store
import torch
from encoder_layer import EncoderLayer
from float64 import in_float64
from plain_gpt import FeedForward, GPTModel, MultiHeadAttention, TransformerBlock
from plain_hyena import HyenaOperator
from torch import nn
from torch.nn import functional as F

TOLERANCE = 1e-12  # of --check


def draw(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """Normal numbers of three decimals that depend on the name and the shape alone."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return np.round(scale * stream.standard_normal(shape), 3)


def differentiate(name: str, output: torch.Tensor, inputs: dict) -> dict:
    """{output, g, gradients}: a fixed random cotangent g sent back from `output` to the `inputs` (name -> leaf)."""
    g = draw(name + " g", *output.shape)
    gradients = torch.autograd.grad(output, list(inputs.values()), torch.tensor(g))
    return {
        "output": output.detach().numpy(),
        "g": g,
        "gradients": {key: d.numpy() for key, d in zip(inputs, gradients, strict=True)},
    }


# ---- every op


ops: dict[str, dict] = {}


def op(name: str, function, *inputs, **options) -> None:
    """The op that `name` begins with. An input is an array or, as a tuple, the shape of one to draw; options are ours."""
    arrays = [draw(f"{name} {i}", *x) if isinstance(x, tuple) else np.asarray(x, float) for i, x in enumerate(inputs)]
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    made = differentiate(name, function(*leaves), {str(i): leaf for i, leaf in enumerate(leaves)})
    ops[name] = {"options": options, "inputs": {str(i): a for i, a in enumerate(arrays)}} | made


def elementwise_ops() -> None:
    op("add", torch.add, (2, 3, 4), (3, 1))
    op("subtract", torch.subtract, (3, 1), (1, 4))
    op("multiply", torch.multiply, (2, 1, 4), (3, 1))
    op("multiply by one number", torch.multiply, (2, 3), ())
    op("divide", torch.divide, (2, 3), [[1.5], [-0.25]])
    positive = [[0.25, 1.5, 3.0], [0.75, 2.0, 1.0]]
    op("power", torch.pow, positive, (3,))
    op("power of one exponent", torch.pow, positive, -1.5)
    op("power at zero", torch.pow, [0.0, 0.0, 0.0, 2.0], [2.0, 1.0, 0.0, 0.0])
    op("negative", torch.negative, (2, 3))
    op("absolute with zero", torch.abs, [-1.5, 0.0, 2.0])
    op("exp", torch.exp, (2, 3))
    op("log", torch.log, positive)
    op("sqrt", torch.sqrt, positive)
    op("sqrt at zero", torch.sqrt, [0.0, 4.0])
    op("sin", torch.sin, (2, 3))
    op("cos", torch.cos, (2, 3))
    op("maximum", torch.maximum, (2, 3), (3,))
    op("maximum with ties", torch.maximum, [1.0, -2.0, 0.5], [1.0, 2.0, 0.5])
    op("minimum", torch.minimum, (2, 3), (3,))
    op("minimum with ties", torch.minimum, [1.0, -2.0, 0.5], [1.0, 2.0, 0.5])
    condition = np.array([[True, False, True], [False, False, True]])
    op("where", lambda x, y: torch.where(torch.tensor(condition), x, y), (2, 3), (3,), condition=condition)
    op("where with a broadcast condition", lambda x, y: torch.where(torch.tensor(condition), x, y),
       (2, 2, 3), (1, 3), condition=condition)  # fmt: skip
    edges = [-2.0, -1.0, -0.5, 0.0, 0.75, 1.0, 3.0]
    op("clip", lambda x: torch.clamp(x, -1.0, 1.0), edges, low=-1.0, high=1.0)
    op("clip from below", lambda x: torch.clamp(x, min=0.0), edges, low=0.0)
    op("clip from above", lambda x: torch.clamp(x, max=0.75), edges, high=0.75)


def activation_ops() -> None:
    wide = [-40.0, -9.0, -3.0, -1.0, -0.25, 0.0, 0.5, 1.0, 2.699, 6.0, 40.0]
    op("tanh", torch.tanh, wide)
    op("sigmoid", torch.sigmoid, wide)
    op("log_sigmoid", F.logsigmoid, wide)
    op("relu", torch.relu, wide)
    op("gelu", lambda x: F.gelu(x, approximate="tanh"), wide)
    op("gelu_erf", F.gelu, wide)
    op("erf", torch.erf, [-7.0, -4.5, -2.0, -0.46, -1e-9, 0.0, 0.3, 0.47, 1.0, 3.9, 4.1, 30.0])
    op("silu", F.silu, wide)
    op("swiglu", lambda x, y: F.silu(x) * y, wide, (len(wide),))
    op("swiglu of rows", lambda x, y: F.silu(x) * y, (2, 3, 4), (2, 3, 4))


def reductions() -> None:
    every = (0, 1, 2)

    def norm(x, axes, keepdims):
        return torch.linalg.vector_norm(x, dim=axes, keepdim=keepdims)

    kinds = {
        "sum": lambda x, axes, keepdims: x.sum(axes, keepdim=keepdims),
        "mean": lambda x, axes, keepdims: x.mean(axes, keepdim=keepdims),
        "max": lambda x, axes, keepdims: x.amax(axes, keepdim=keepdims),
        "var": lambda x, axes, keepdims: x.var(axes, correction=0, keepdim=keepdims),
        "norm": norm,
        "logsumexp": lambda x, axes, keepdims: x.logsumexp(axes, keepdim=keepdims),
    }
    for kind, function in kinds.items():
        op(kind, lambda x, f=function: f(x, every, False), (2, 3, 4))
        op(f"{kind} over the last axis", lambda x, f=function: f(x, (-1,), False), (2, 3, 4), axis=-1)
        op(f"{kind} over two axes", lambda x, f=function: f(x, (0, 2), False), (2, 3, 4), axis=(0, 2))
        op(f"{kind} that keeps axes", lambda x, f=function: f(x, (1,), True), (2, 3, 4), axis=1, keepdims=True)
    op("max with ties", lambda x: x.amax(1), [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], axis=1)
    op("var with n - 1", lambda x: x.var(1, correction=1), (3, 4), axis=1, ddof=1)
    op("norm at zero", lambda x: norm(x, (1,), False), [[0.0, 0.0], [3.0, 4.0]], axis=1)
    op("logsumexp of large numbers", lambda x: x.logsumexp(0), [1000.0, 1001.0, -1000.0])


def shape_ops() -> None:
    op("reshape", lambda x: x.reshape(4, -1), (2, 3, 2), shape=(4, -1))
    op("transpose", lambda x: x.permute(2, 1, 0), (2, 3, 4))
    op("transpose in an order", lambda x: x.permute(1, 2, 0), (2, 3, 4), axes=(1, 2, 0))
    op("swapaxes", lambda x: x.swapaxes(0, -1), (2, 3, 4), axis1=0, axis2=-1)
    op("expand_dims", lambda x: x.unsqueeze(1), (2, 3), axis=1)
    op("squeeze", torch.squeeze, (1, 3, 1, 2))
    op("squeeze of one axis", lambda x: x.squeeze(0), (1, 3, 1), axis=0)
    op("broadcast_to", lambda x: x.expand(2, 3, 4), (3, 1), shape=(2, 3, 4))
    op("concatenate", lambda *a: torch.cat(a, 1), (2, 1), (2, 3), (2, 2), axis=1)
    op("stack", lambda *a: torch.stack(a, -1), (2, 3), (2, 3), axis=-1)
    mask = np.array([[True, False, True], [False, True, True]])
    twice, rows = np.array([[2, 0], [2, 1]]), np.array([2, 0])
    indices = {
        "slices": (slice(1, None), slice(None, None, 2)),
        "an integer": -1,
        "an integer and None": (slice(None), 1, None),
        "integers, twice the same": twice,
        "a mask": mask,
        "a slice and integers": (slice(None), rows),
    }
    for kind, index in indices.items():
        shape = (2, 3) if kind == "a mask" else (3, 4, 2)
        theirs = _torch_index(index)
        op(f"getitem of {kind}", lambda x, i=theirs: x[i], shape, index=index)
        if index is not twice:
            value_shape = np.empty(shape)[index].shape
            op(f"set_at of {kind}", lambda x, v, i=theirs: _set_at(x, v, i), shape, value_shape, index=index)
    op("set_at with a broadcast value", lambda x, v: _set_at(x, v, slice(1, None)), (3, 4), (4,), index=slice(1, None))


def _torch_index(index):
    if isinstance(index, tuple):
        return tuple(_torch_index(i) for i in index)
    return torch.tensor(index) if isinstance(index, np.ndarray) else index


def _set_at(x, value, index):
    y = x.clone()
    y[index] = value
    return y


def matrix_ops() -> None:
    shapes = [((2, 3), (3, 4)), ((2, 1, 3, 4), (5, 4, 2)), ((3,), (3,)), ((3,), (2, 3, 4)), ((2, 3, 4), (4,))]
    for x, y in shapes:
        op(f"matmul {x} {y}", torch.matmul, x, y)
    op("linear", F.linear, (2, 3, 4), (5, 4), (5,))
    op("linear without bias", F.linear, (2, 3, 4), (5, 4))
    op("linear of a vector", F.linear, (4,), (5, 4), (5,))
    ids = np.array([[1, 4, 1], [0, 1, 4]])
    op("embedding", lambda w: F.embedding(torch.tensor(ids), w), (6, 3), ids=ids)


def softmax_ops() -> None:
    large = [[1e4, 1e4 - 1, -1e4], [-745.0, 0.0, 1.0]]
    for kind, function in {"softmax": torch.softmax, "log_softmax": torch.log_softmax}.items():
        op(kind, lambda x, f=function: f(x, -1), (2, 3, 4))
        op(f"{kind} along the first axis", lambda x, f=function: f(x, 0), (3, 4), axis=0)
        op(f"{kind} of large numbers", lambda x, f=function: f(x, -1), large)
    targets = np.array([[3, 0, -100], [4, -100, 4]])
    for reduction in ("mean", "sum", "none"):
        for smoothing in (0.0, 0.1):
            op(
                f"cross_entropy {reduction}, smoothing {smoothing}",
                lambda x, r=reduction, s=smoothing: F.cross_entropy(
                    x.movedim(-1, 1), torch.tensor(targets), reduction=r, label_smoothing=s
                ),
                (2, 3, 5),
                targets=targets,
                reduction=reduction,
                label_smoothing=smoothing,
            )
    # the check by hand: 1.1269280 and 0.7935947 are known for these rows
    rows = [[-1.0, 1.0], [-0.5, 1.5], [-0.5, 1.5]]
    for targets_of_rows in ([0, 1, 1], [0, 1, 9]):
        op(
            f"cross_entropy of the rows {targets_of_rows}",
            lambda x, t=targets_of_rows: F.cross_entropy(x, torch.tensor(t), ignore_index=9),
            rows,
            targets=np.array(targets_of_rows),
            ignore_index=9,
        )
    for reduction in ("mean", "sum", "none"):
        op(
            f"linear_cross_entropy {reduction}",
            lambda x, w, r=reduction: F.cross_entropy(
                F.linear(x, w).movedim(-1, 1), torch.tensor(targets), reduction=r, label_smoothing=0.1
            ),
            (2, 3, 4),
            (5, 4),
            targets=targets,
            reduction=reduction,
            label_smoothing=0.1,
            rows=4,
        )


def normalization_ops() -> None:
    op("layer_norm", lambda x, s, b: F.layer_norm(x, (4,), s, b, 1e-5), (2, 3, 4), (4,), (4,))
    op("layer_norm with another eps", lambda x, s, b: F.layer_norm(x, (4,), s, b, 0.1), (2, 4), (4,), (4,), eps=0.1)
    op("layer_norm of a constant row", lambda x, s, b: F.layer_norm(x, (3,), s, b, 1e-5), [[2.0] * 3], (3,), (3,))
    op("rms_norm", lambda x, s: F.rms_norm(x, (4,), s, 1e-5), (2, 3, 4), (4,))
    op("rms_norm with another eps", lambda x, s: F.rms_norm(x, (4,), s, 0.1), (2, 4), (4,), eps=0.1)


def attention_ops() -> None:
    """Against scaled_dot_product_attention; `visible` is what is masked in all, ours are causal= and mask=."""

    def sdpa(n_heads, n_kv_heads, visible):
        def attend(q, k, v):
            q, k, v = (
                x.unflatten(-1, (h, -1)).transpose(1, 2) for x, h in ((q, n_heads), (k, n_kv_heads), (v, n_kv_heads))
            )
            seen = None if visible is None else torch.tensor(visible)
            y = F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=n_kv_heads != n_heads)
            return y.transpose(1, 2).flatten(2)

        return attend

    square, later = np.tri(4, dtype=bool), np.tri(2, 5, 3, dtype=bool)
    padding = np.array([[True, True, True, False], [True, True, False, False]])[:, None, None]  # (B, 1, 1, S)
    full = ((2, 4, 6),) * 3
    op("attention", sdpa(2, 2, square), *full, n_heads=2)
    op("attention of one head", sdpa(1, 1, square), (1, 4, 3), (1, 4, 3), (1, 4, 3), n_heads=1)
    op("attention that sees all", sdpa(3, 3, None), *full, n_heads=3, causal=False)
    op("attention with padding", sdpa(2, 2, padding), *full, n_heads=2, causal=False, mask=padding)
    op("attention, causal with padding", sdpa(2, 2, padding & square), *full, n_heads=2, mask=padding)
    op("attention with earlier keys", sdpa(2, 2, later), (2, 2, 6), (2, 5, 6), (2, 5, 6), n_heads=2)
    op("attention with fewer key heads", sdpa(4, 2, square), (2, 4, 8), (2, 4, 4), (2, 4, 4), n_heads=4, n_kv_heads=2)
    op("attention with one key head", sdpa(4, 1, square), (2, 4, 8), (2, 4, 2), (2, 4, 2), n_heads=4, n_kv_heads=1)
    long = np.tri(272, dtype=bool)  # beyond the sizes that any fused attention treats as one block
    op("attention of a long sequence", sdpa(1, 1, long), (1, 272, 1), (1, 272, 1), (1, 272, 1), n_heads=1)
    blind = square.copy()
    blind[2] = False  # a query that sees no key: PyTorch gives 0 too
    op("attention of a blind query", sdpa(2, 2, blind), *full, n_heads=2, causal=False, mask=blind)


def rotary_ops() -> None:
    for kind, interleaved in {"rotary": False, "rotary, interleaved": True}.items():
        for positions in (np.arange(4), np.array([[5, 6, 7, 8], [0, 1, 2, 3]])):
            angles = positions[..., None] / 10000.0 ** (np.arange(0, 4, 2) / 4)
            op(
                f"{kind}, at positions {positions.shape}",
                lambda x, p=positions, i=interleaved: plain_llama.rotate(
                    x.unflatten(-1, (3, 4)), torch.tensor(p), interleaved=i
                ).flatten(2),
                (2, 4, 12),
                cos=np.cos(angles),
                sin=np.sin(angles),
                n_heads=3,
                interleaved=interleaved,
            )


def recurrences_and_convolutions() -> None:
    """WKV by the sums themselves, a token after the other, in differences to the largest exponent; a convolution by conv1d."""

    def wkv(k, v, decay, first):
        t = torch.arange(k.shape[1])
        age = t[:, None] - 1 - t  # (T, S)
        exponents = k[:, None] - age[..., None].clamp(min=0) * decay.exp()  # (B, T, S, C)
        exponents = torch.where((age == -1)[..., None], k[:, None] + first, exponents)
        exponents = exponents.masked_fill((age < -1)[..., None], -math.inf)
        return torch.einsum("btsc,bsc->btc", exponents.softmax(2), v)

    op("wkv", wkv, (2, 6, 3), (2, 6, 3), (3,), (3,))
    op("wkv of one token", wkv, (2, 1, 3), (2, 1, 3), (3,), (3,))
    op("wkv of large keys", wkv, 300 * draw("wkv keys", 1, 5, 2), (1, 5, 2), (2,), (2,))

    def convolve(u, h, d):
        c, t = h.shape
        y = F.conv1d(F.pad(u.reshape(-1, c, t), (t - 1, 0)), h.flip(1)[:, None], groups=c)
        return y.reshape(u.shape) + d[:, None] * u

    op("fft_conv", convolve, (2, 3, 7), (3, 7), (3,))
    op("fft_conv of one row", convolve, (2, 5), (2, 5), (2,))
    op("fft_conv of more leading axes", convolve, (2, 2, 2, 4), (2, 4), (2,))


# ---- the layers, GPT-2 and Llama 2


def fill(name: str, module: nn.Module, scale: float = 0.3) -> dict[str, np.ndarray]:
    """Set every parameter to numbers of three decimals, those of norms near 1; returns them."""
    values = {}
    for key, p in module.named_parameters():
        value = draw(f"{name} {key}", *p.shape, scale=scale)
        if key.endswith("scale") or (p.ndim == 1 and key.endswith("weight")):
            value = np.round(value + 1, 3)
        p.data = torch.tensor(value)
        values[key] = value
    return values


def layers() -> dict[str, dict]:
    cases: dict[str, dict] = {}

    def layer(name: str, module: nn.Module, inputs: np.ndarray | tuple, rename=None, mask=None, **arguments) -> None:
        """The layer that `name` begins with, ours made with `arguments`; `rename` maps PyTorch's names to ours. A `mask` goes
        into both beside the input.
        """
        module = module.double()
        parameters = fill(name, module)
        rename = rename or {}
        x = draw(f"{name} x", *inputs) if isinstance(inputs, tuple) else inputs
        leaf = torch.tensor(x, requires_grad=x.dtype == np.float64)
        wanted = {rename.get(key, key): p for key, p in module.named_parameters()}
        if leaf.requires_grad:
            wanted["x"] = leaf
        seen = {} if mask is None else {"mask": mask}
        made = differentiate(name, module(leaf, **seen), wanted)
        cases[name] = {
            "arguments": arguments,
            **seen,
            "parameters": {rename.get(key, key): value for key, value in parameters.items()},
            "x": x,
        } | made

    layer("Linear", nn.Linear(4, 3), (2, 3, 4), in_features=4, out_features=3)
    layer("Linear without bias", nn.Linear(4, 3, bias=False), (2, 4), in_features=4, out_features=3, bias=False)
    layer("Embedding", nn.Embedding(5, 3), np.array([[4, 1], [1, 0]]), num_embeddings=5, embedding_dim=3)
    scale_shift = {"weight": "scale", "bias": "shift"}
    layer("LayerNorm", nn.LayerNorm(4), (2, 3, 4), scale_shift, emb_dim=4)
    layer("LayerNorm with eps 1e-12", nn.LayerNorm(4, eps=1e-12), (2, 4), scale_shift, emb_dim=4, eps=1e-12)
    layer("RMSNorm", nn.RMSNorm(4, eps=1e-5), (2, 3, 4), emb_dim=4)
    layer("RMSNorm with eps 0.1", nn.RMSNorm(4, eps=0.1), (2, 4), emb_dim=4, eps=0.1)
    layer("GELU", nn.GELU(approximate="tanh"), (2, 3, 4))
    layer("ReLU", nn.ReLU(), (2, 3, 4))
    layer("SiLU", nn.SiLU(), (2, 3, 4))
    attention = {"d_in": 5, "d_out": 6, "context_length": 7, "dropout": 0.0, "num_heads": 2}
    layer("MultiHeadAttention", MultiHeadAttention(**attention), (2, 4, 5), **attention)
    full = attention | {"context_length": 4, "num_heads": 3, "qkv_bias": True}
    layer("MultiHeadAttention of a full context", MultiHeadAttention(**full), (2, 4, 5), **full)
    llama = {
        "d_in": 6,
        "d_out": 6,
        "context_length": 7,
        "dropout": 0.0,
        "num_heads": 4,
        "out_bias": False,
        "head_dim": 4,
    }
    for name, options in {
        "of rotary positions": {"rotary": {"head_dim": 4}},
        "of rotary positions, interleaved": {"rotary": {"head_dim": 4, "base": 100.0, "interleaved": True}},
        "of fewer key heads": {"num_kv_heads": 2},
        "of a window": {"window": 2},
        "of all of these": {"rotary": {"head_dim": 4}, "num_kv_heads": 1, "window": 3, "qkv_bias": True},
    }.items():
        layer(
            f"MultiHeadAttention {name}",
            plain_llama.MultiHeadAttention(**llama | options),
            (2, 5, 6),
            **llama,
            **options,
        )
    layer("SwiGLU", plain_llama.SwiGLU(3, 5), (2, 3, 3), emb_dim=3, hidden_dim=5)
    layer("SwiGLU with bias", plain_llama.SwiGLU(3, 4, True), (2, 3), emb_dim=3, hidden_dim=4, bias=True)
    layer("FeedForward", FeedForward(3), (2, 3, 3), emb_dim=3)
    block = {"emb_dim": 4, "n_heads": 2, "context_length": 5}
    layer("TransformerBlock", TransformerBlock(**block), (2, 4, 4), **block)
    layer("TransformerBlock with bias", TransformerBlock(**block, qkv_bias=True), (2, 5, 4), **block, qkv_bias=True)
    sizes = {"emb_dim": 4, "n_heads": 2, "hidden_dim": 3}
    ours = {**sizes, "context_length": 5}
    norms = {f"norm{i}.{kind}": f"norm{i}.{named}" for i in (1, 2) for kind, named in scale_shift.items()}
    padding = np.array([[True, True, True, True], [True, False, False, True]])
    first = {"norm_first": True, "norm_eps": 1e-2, "activation": "gelu_erf"}
    layer("EncoderBlock", EncoderLayer(**sizes), (2, 4, 4), norms, **ours)
    layer("EncoderBlock with padding", EncoderLayer(**sizes), (2, 4, 4), norms, padding, **ours)
    layer(
        "EncoderBlock whose norms come first",
        EncoderLayer(**sizes, norm_first=True, layer_norm_eps=1e-2, activation="gelu"),
        (2, 4, 4),
        norms,
        padding,
        **ours,
        **first,
    )
    return cases


SMALL = {"vocab_size": 13, "context_length": 6, "emb_dim": 6, "n_heads": 2, "n_layers": 2}
# The key bias has no gradient (it shifts all scores of a row alike) but rounding, about 1e-17, which the usual eps of 1e-8 would
# make a step of 1e-11 that differs from one kind of CPU to the next.
ADAMW = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}


def gpt() -> dict[str, dict]:
    cases = {}
    for tie_weights in (False, True):
        for qkv_bias in (False, True):
            name = f"{'tied' if tie_weights else 'untied'}, {'with' if qkv_bias else 'without'} qkv bias"
            config = SMALL | {"qkv_bias": qkv_bias, "tie_weights": tie_weights}
            cases[name] = trained("gpt", GPTModel(**config), config)
    return cases


def llama() -> dict[str, dict]:
    cases = {}
    for name, options in {
        "as published": {"hidden_dim": 8},
        "fewer key heads, tied": {
            "hidden_dim": 7,
            "n_heads": 3,
            "n_kv_heads": 1,
            "tie_weights": True,
            "rope_base": 100.0,
        },
        "head_dim, window, biases": {"hidden_dim": 5, "n_kv_heads": 1, "head_dim": 4, "window": 2}
        | {"qkv_bias": True, "out_bias": True, "bias": True},
    }.items():
        config = SMALL | {"n_heads": 3} | options
        cases[name] = trained(f"llama {name}", plain_llama.LlamaModel(**config), config)
    return cases


def hyena() -> dict[str, dict]:
    """Operators under safari's names, their convolutions as direct sums, on texts as long as the filters and shorter."""
    cases = {}
    for name, (order, features, n) in {
        "order 2": (2, 3, 7),
        "order 2, a shorter text": (2, 5, 4),
        "order 3": (3, 3, 6),
    }.items():
        model = HyenaOperator(4, 7, order, 5, features).double()
        z = model.filter_fn.pos_emb.z.detach().clone()
        fill(f"hyena {name}", model)
        model.filter_fn.pos_emb.z.data = z  # as it begins
        x = torch.tensor(draw(f"hyena {name} x", 2, n, 4), requires_grad=True)
        wanted = {"x": x, **dict(model.named_parameters())}
        arrays = {key: value.numpy() for key, value in model.state_dict().items()}
        made = differentiate(f"hyena {name}", model(x), wanted)
        cases[name] = {"order": order, "arrays": arrays, "x": x.detach().numpy()} | made
    return cases


def trained(name: str, model: nn.Module, config: dict) -> dict:
    """Logits, loss and gradients of a model whose parameters depend on the name, and what ten steps make of it."""
    ids = np.array([[5, 0, 12, 5, 7], [1, 1, 3, 11, 2]])
    targets = np.array([[0, 12, 5, 7, -100], [1, 3, 11, 2, 9]])
    model = model.double()
    parameters = fill(name, model)

    def loss_of(logits):
        return F.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten())

    logits = model(torch.tensor(ids))
    loss_of(logits).backward()
    gradients = {key: p.grad.numpy().copy() for key, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model(torch.tensor(ids)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {
        "config": config,
        "parameters": parameters,
        "ids": ids,
        "targets": targets,
        "logits": logits.detach().numpy(),
        "loss": loss_of(logits).item(),
        "gradients": gradients,
        "adamw": ADAMW,
        "losses": losses,
        "trained": {key: p.detach().numpy() for key, p in model.named_parameters()},
    }


def saved(model, name: str) -> tuple[dict, dict]:
    """The tensors and the config.json that a model of transformers writes, after its weights were drawn in its place."""
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(torch.tensor(draw(f"{name} {key}", *p.shape, scale=0.5)))
    return written(model)


def written(model) -> tuple[dict, dict]:
    """The tensors and the config.json that a model of transformers writes."""
    import safetensors.numpy

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads(Path(folder, "config.json").read_text())
        return safetensors.numpy.load_file(f"{folder}/model.safetensors"), config


def outcome(model, ids: np.ndarray) -> dict:
    """What a language model of transformers makes of ids: logits, loss, gradients, and how it goes on from the first three."""
    logits = model(torch.tensor(ids)).logits
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), torch.tensor(ids[:, 1:]).flatten())  # theirs is in float32
    loss.backward()
    greedy = model.generate(torch.tensor(ids[:1, :3]), attention_mask=torch.ones(1, 3), max_new_tokens=6, do_sample=False,
                            eos_token_id=99, pad_token_id=0)  # fmt: skip
    return {
        "ids": ids,
        "logits": logits.detach().numpy(),
        "loss": loss.item(),
        "gradients": {key: p.grad.numpy() for key, p in model.named_parameters()},
        "greedy": greedy.numpy(),
    }


def transformers() -> dict[str, dict]:
    """GPT-2s of the library transformers as it saves them: what config.json and model.safetensors hold, and what they give."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 11, "n_positions": 9, "n_embd": 6, "n_layer": 2, "n_head": 2}
    ids = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])
    cases = {}
    for name, options in {
        "as published": {},
        "exact gelu, untied, odd widths": {
            "activation_function": "gelu",
            "tie_word_embeddings": False,
            "n_inner": 7,
            "layer_norm_epsilon": 1e-3,
        },
    }.items():
        config = GPT2Config(**sizes, **options, bos_token_id=0, eos_token_id=0, attn_implementation="eager")
        model = GPT2LMHeadModel(config).double().eval()
        tensors, written = saved(model, f"transformers {name}")
        fields = ("model_type", *sizes, "activation_function", "layer_norm_epsilon", "n_inner", "tie_word_embeddings",
                  "resid_pdrop")  # fmt: skip
        cases[name] = {"config": {key: written[key] for key in fields}, "tensors": tensors, **outcome(model, ids)}
    return cases


def llamas() -> dict[str, dict]:
    """Llamas of the library transformers as it saves them, and what they give: with 4, 2 and 1 key heads, and with a window."""
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    sizes = {
        "vocab_size": 11,
        "max_position_embeddings": 9,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 6,
        "head_dim": 4,
    }
    ids = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])
    cases = {}
    for name, (config_class, model_class, options) in {
        "4 key heads": (LlamaConfig, LlamaForCausalLM, {"rms_norm_eps": 1e-5}),
        "2 key heads, tied": (
            LlamaConfig,
            LlamaForCausalLM,
            {"num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-2,
             "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
        ),
        "1 key head, biases": (
            LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}
        ),
        "a window": (MistralConfig, MistralForCausalLM, {"num_key_value_heads": 2, "sliding_window": 3}),
    }.items():  # fmt: skip
        model = in_float64(model_class(config_class(**sizes, **options, attn_implementation="sdpa")))
        tensors, written = saved(model, f"llamas {name}")
        fields = ("model_type", *sizes, "num_key_value_heads", "rms_norm_eps", "rope_parameters", "tie_word_embeddings",
                  "attention_bias", "mlp_bias", "sliding_window", "hidden_act")  # fmt: skip
        config = json.dumps({key: written[key] for key in fields if key in written})
        cases[name] = {"config": config, "tensors": tensors, **outcome(model, ids)}
    return cases


SOURCES = np.array([[5, 0, 7, 5, 4, 3], [1, 2, 9, 9, 9, 9], [2, 6, 3, 1, 9, 9]])
SOURCE_MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
TARGETS = np.array([[9, 3, 1, 6], [9, 9, 2, 9], [9, 0, 5, 1]])
LABELS = np.array([[3, 1, 6, 0], [9, 2, 0, -100], [0, -100, -100, -100]])


def translated(logits: torch.Tensor, learned: dict) -> dict:
    """What an encoder-decoder made of SOURCES and TARGETS, its loss by LABELS and the gradients of that."""
    loss = F.cross_entropy(logits.flatten(0, 1), torch.tensor(LABELS).flatten())
    gradients = torch.autograd.grad(loss, list(learned.values()))
    return {
        "sources": SOURCES,
        "source_mask": SOURCE_MASK,
        "targets": TARGETS,
        "labels": LABELS,
        "logits": logits.detach().numpy(),
        "loss": loss.item(),
        "gradients": {key: g.numpy() for key, g in zip(learned, gradients, strict=True)},
    }


def marians() -> dict[str, dict]:
    """MarianMTModels of the library transformers as it saves them, what they give, and what they write, also with 4 beams."""
    from transformers import MarianConfig, MarianMTModel

    sizes = {"vocab_size": 10, "d_model": 6, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": 11}
    sizes |= {f"{stack}_attention_heads": 2 for stack in ("encoder", "decoder")}
    sizes |= {f"{stack}_ffn_dim": 5 for stack in ("encoder", "decoder")}
    marks = {"decoder_start_token_id": 9, "pad_token_id": 9, "eos_token_id": 0, "forced_eos_token_id": None}
    cases = {}
    for name, options in {
        "one table": {"scale_embedding": True, "activation_function": "swish"},
        "tables of their own, odd width": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 11, "d_model": 9,
                                           "encoder_attention_heads": 3, "decoder_attention_heads": 3},
        "a head of its own": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False,
                              "activation_function": "relu", "scale_embedding": True},
    }.items():  # fmt: skip
        model = in_float64(MarianMTModel(MarianConfig(**sizes | options, **marks, attn_implementation="sdpa")))
        bias = torch.tensor(draw(f"marians {name} bias", *model.final_logits_bias.shape, scale=0.5))
        model.final_logits_bias = bias.requires_grad_()
        for module in model.modules():
            module.padding_idx = None  # else the row of the pad, which begins every target, has less than its gradient
        fill(f"marians {name} 0", model, scale=0.8)  # of such weights that texts end at different times
        tensors, stored = written(model)
        in_float64(model)  # the positions, which were drawn too
        learned = {key: p for key, p in model.named_parameters() if p.requires_grad} | {"final_logits_bias": bias}
        seen = {"input_ids": torch.tensor(SOURCES), "attention_mask": torch.tensor(SOURCE_MASK)}
        made = translated(model(**seen, decoder_input_ids=torch.tensor(TARGETS)).logits, learned)
        greedy = model.generate(**seen, max_new_tokens=8, do_sample=False)
        beams = {
            str(alpha): model.generate(**seen, max_new_tokens=8, num_beams=4, length_penalty=alpha, do_sample=False)
            for alpha in (1.0, 0.6)
        }
        fields = ("model_type", *sizes, "decoder_vocab_size", "activation_function", "scale_embedding", "dropout",
                  "share_encoder_decoder_embeddings", "tie_word_embeddings", *list(marks)[:3])  # fmt: skip
        config = json.dumps({key: stored[key] for key in fields})
        cases[name] = {"config": config, "tensors": tensors, **made, "greedy": greedy.numpy()}
        cases[name] |= {f"beams, {alpha}": found.numpy() for alpha, found in beams.items()}
    return cases


class TranslatingTransformer(nn.Module):
    """torch.nn.Transformer between tables and a head; no positions."""

    def __init__(self, n_source: int, n_target: int, d: int, n_heads: int, **options) -> None:
        super().__init__()
        self.src_embed, self.tgt_embed = nn.Embedding(n_source, d), nn.Embedding(n_target, d)
        self.transformer = nn.Transformer(d, n_heads, dropout=0.0, batch_first=True, **options)
        self.generator = nn.Linear(d, n_target)

    def forward(self, source, target, mask):
        scale, hidden = math.sqrt(self.src_embed.embedding_dim), ~mask
        later = torch.triu(torch.ones(target.shape[1], target.shape[1], dtype=torch.bool), 1)
        y = self.transformer(self.src_embed(source) * scale, self.tgt_embed(target) * scale, tgt_mask=later,
                             src_key_padding_mask=hidden, memory_key_padding_mask=hidden)  # fmt: skip
        return self.generator(y)


def torch_transformers() -> dict[str, dict]:
    """torch.nn.Transformer, whole, and a layer of its decoder."""
    cases = {}
    for name, options in {
        "post-norm": {"norm_first": False, "activation": "relu"},
        "pre-norm": {"norm_first": True, "activation": "gelu"},
    }.items():
        sizes = {"num_encoder_layers": 2, "num_decoder_layers": 1, "dim_feedforward": 5}
        model = TranslatingTransformer(10, 11, 6, 2, **sizes, **options).double()
        parameters = fill(f"torch {name}", model)
        logits = model(torch.tensor(SOURCES), torch.tensor(TARGETS), torch.tensor(SOURCE_MASK, dtype=torch.bool))
        made = translated(logits, dict(model.named_parameters()))
        cases[name] = {"options": {"n_heads": 2, **options}, "parameters": parameters, **made}
        layer = nn.TransformerDecoderLayer(6, 3, 7, 0.0, batch_first=True, **options).double()
        parameters = fill(f"torch layer {name}", layer)
        x, memory = (draw(f"torch layer {name} {key}", 3, n, 6) for key, n in (("x", 4), ("memory", 6)))
        leaves = {key: torch.tensor(value, requires_grad=True) for key, value in (("x", x), ("memory", memory))}
        later = torch.triu(torch.ones(4, 4, dtype=torch.bool), 1)
        output = layer(*leaves.values(), tgt_mask=later, memory_key_padding_mask=torch.tensor(SOURCE_MASK == 0))
        cases[f"layer, {name}"] = {
            "options": options,
            "parameters": parameters,
            "x": x,
            "memory": memory,
            "mask": SOURCE_MASK,
            **differentiate(f"torch layer {name}", output, leaves | dict(layer.named_parameters())),
        }
    return cases


def classifiers() -> dict[str, dict]:
    """A GPT2ForSequenceClassification as it is saved, its scores of texts of unequal length, and the gradients of their loss."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    names = {0: "ham", 1: "spam", 2: "neither"}
    config = GPT2Config(vocab_size=11, n_positions=9, n_embd=6, n_layer=2, n_head=2, id2label=names, pad_token_id=10,
                        bos_token_id=0, eos_token_id=0, attn_implementation="eager")  # fmt: skip
    model = GPT2ForSequenceClassification(config).double().eval()
    stored, written = saved(model, "classifier")
    ids, labels = np.array([[5, 0, 7, 5, 9, 3], [1, 4, 3, 10, 10, 10], [2, 10, 10, 10, 10, 10]]), np.array([2, 0, 1])
    logits = model(torch.tensor(ids)).logits
    loss = F.cross_entropy(logits, torch.tensor(labels))
    loss.backward()
    case = {
        "config": {key: written[key] for key in ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head",
                                                 "activation_function", "id2label")},
        "tensors": stored,
        "ids": ids,
        "lengths": np.array([6, 3, 1]),
        "labels": labels,
        "logits": logits.detach().numpy(),
        "loss": loss.item(),
        "gradients": {key: p.grad.numpy() for key, p in model.named_parameters()},
    }  # fmt: skip
    return {"texts of unequal length": case}


def berts() -> dict[str, dict]:
    """BERTs of the library transformers as it saves them, with each kind of heads; what they give for texts of unequal length in
    two segments, and every gradient of their own loss, or for a model without heads of the sum of what it gives times g.
    """
    from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertModel

    sizes = {
        "vocab_size": 11,
        "max_position_embeddings": 9,
        "hidden_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 5,
    }
    texts = {
        "ids": np.array([[5, 1, 7, 5, 10, 3], [1, 4, 3, 9, 0, 0]]),
        "segments": np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0]]),
        "mask": np.array([[True] * 6, [True] * 4 + [False] * 2]),
    }
    words = torch.tensor([[-100, 2, -100, 5, -100, 10], [1, -100, 8, -100, -100, -100]])
    labels, follows = torch.tensor([2, 0]), torch.tensor([1, 0])
    names = {0: "ham", 1: "spam", 2: "neither"}
    cases = {}
    for name, (kind, options, asked) in {
        "the encoder": (BertModel, {"layer_norm_eps": 1e-3}, {}),
        "hidden words": (BertForMaskedLM, {"hidden_act": "gelu_new", "type_vocab_size": 3}, {"labels": words}),
        "hidden words, untied": (
            BertForMaskedLM,
            {"hidden_act": "relu", "tie_word_embeddings": False},
            {"labels": words},
        ),
        "hidden words and what follows": (BertForPreTraining, {}, {"labels": words, "next_sentence_label": follows}),
        "classes": (BertForSequenceClassification, {"id2label": names, "hidden_act": "silu"}, {"labels": labels}),
    }.items():
        model = kind(BertConfig(**sizes, **options, attn_implementation="eager")).double().eval()
        tensors, written = saved(model, f"berts {name}")
        output = model(
            torch.tensor(texts["ids"]),
            token_type_ids=torch.tensor(texts["segments"]),
            attention_mask=torch.tensor(texts["mask"]).long(),
            **asked,
        )
        given = {key: x for key, x in output.items() if key != "loss"}
        g = {key: draw(f"berts {name} {key}", *x.shape) for key, x in given.items() if not asked}
        if not asked:
            g["last_hidden_state"] *= texts["mask"][:, :, None]  # what fills a text up is of no interest
        loss = output.loss if asked else sum((x * torch.tensor(g[key])).sum() for key, x in given.items())
        loss.backward()
        fields = ("architectures", "model_type", *sizes, "hidden_act", "layer_norm_eps", "type_vocab_size", "id2label",
                  "tie_word_embeddings", "hidden_dropout_prob", "attention_probs_dropout_prob")  # fmt: skip
        cases[name] = {
            "config": json.dumps({key: written[key] for key in fields if key in written}),
            "tensors": tensors,
            **texts,
            "labels": {key: x.numpy() for key, x in asked.items()},
            "g": g,
            "outputs": {key: x.detach().numpy() for key, x in given.items()},
            "loss": loss.item(),
            "gradients": {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None},
        }
    return cases


def rwkvs() -> dict[str, dict]:
    """RWKV-4s of the library transformers as it saves them: logits and every gradient in training, and in evaluation, where some
    are computed with smaller numbers, logits and how they go on from three tokens.
    """
    from transformers import RwkvConfig, RwkvForCausalLM

    sizes = {"vocab_size": 11, "hidden_size": 6, "num_hidden_layers": 3}
    ids = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])
    cases = {}
    for name, options in {
        "halved after 2 blocks, odd widths": {
            "rescale_every": 2,
            "attention_hidden_size": 4,
            "intermediate_size": 5,
            "layer_norm_epsilon": 1e-2,
        },
        "never halved, tied": {"rescale_every": 0, "tie_word_embeddings": True},
    }.items():
        model = in_float64(RwkvForCausalLM(RwkvConfig(**sizes, **options))).train()
        tensors, written = saved(model, f"rwkvs {name}")
        logits = model(torch.tensor(ids), use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), torch.tensor(ids[:, 1:]).flatten())  # theirs is in float32
        loss.backward()
        gradients = {key: p.grad.numpy() for key, p in model.named_parameters()}
        model.eval()  # from now on its weights are others
        greedy = torch.tensor(ids[:1, :3])
        with torch.no_grad():
            evaluated = model(torch.tensor(ids), use_cache=False).logits
            for _ in range(6):
                best = model(greedy, use_cache=False).logits[:, -1:].argmax(-1)
                greedy = torch.cat((greedy, best), 1)
        fields = ("model_type", *sizes, "attention_hidden_size", "intermediate_size", "layer_norm_epsilon", "rescale_every",
                  "tie_word_embeddings", "context_length")  # fmt: skip
        cases[name] = {
            "config": json.dumps({key: written[key] for key in fields}),
            "tensors": tensors,
            "ids": ids,
            "logits": logits.detach().numpy(),
            "loss": loss.item(),
            "gradients": gradients,
            "evaluated": evaluated.numpy(),
            "greedy": greedy.numpy(),
        }
    return cases


def vits() -> dict[str, dict]:
    """ViTs of the library transformers as it saves them, their scores of pictures, and the gradients of their loss. One without
    a head gives features, and the gradients of the sum of these times g.
    """
    from transformers import ViTConfig, ViTForImageClassification, ViTModel

    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 6,
        "image_size": 4,
        "patch_size": 2,
    }
    names = {0: "cat", 1: "dog", 2: "neither"}
    cases = {}
    for name, (kind, channels, options) in {
        "gray pictures": (ViTForImageClassification, 1, {"id2label": names}),
        "coloured pictures, no biases on queries": (
            ViTForImageClassification,
            3,
            {"num_labels": 3, "qkv_bias": False, "hidden_act": "gelu_new", "layer_norm_eps": 1e-2},
        ),
        "no head": (ViTModel, 1, {"hidden_act": "relu"}),
    }.items():
        config = ViTConfig(**sizes, num_channels=channels, **options, attn_implementation="sdpa")
        model = in_float64(kind(config))
        tensors, written = saved(model, f"vits {name}")
        images = draw(f"vits {name} images", 2, channels, 4, 4)
        output = model(torch.tensor(images))
        if kind is ViTModel:
            given = output.last_hidden_state
            asked = {"g": draw(f"vits {name} g", 2, 5, 8)}
            loss = (given * torch.tensor(asked["g"])).sum()
        else:
            given = output.logits
            asked = {"labels": np.array([2, 0])}
            loss = F.cross_entropy(given, torch.tensor(asked["labels"]))
        loss.backward()
        fields = ("architectures", "model_type", *sizes, "num_channels", "qkv_bias", "hidden_act", "layer_norm_eps", "id2label",
                  "hidden_dropout_prob", "attention_probs_dropout_prob")  # fmt: skip
        cases[name] = {
            "config": json.dumps({key: written[key] for key in fields if key in written}),
            "tensors": tensors,
            "images": images,
            **asked,
            "output": given.detach().numpy(),
            "loss": loss.item(),
            "gradients": {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None},
        }
    return cases


# What the publishers put into tokenizer_config.json, written out.
CHAT_TEMPLATES = {
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "phi3": (
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ '<|system|>\\n' + message['content'] + '<|end|>\\n' }}"
        "{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '<|end|>\\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\\n' + message['content'] + '<|end|>\\n' }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}"
        "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
        "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
}


def templates() -> dict[str, dict]:
    """What the chat templates of transformers make of conversations, as text."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    said = [" Spell: freind", " friend\n", "And\n\n“naïve” 😀 <|im_end|> </s>?  ", "It's right: {content} [INST]"]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    system = [{"role": "system", "content": " Be brief. "}]
    conversations = [turns[:1], turns[:2], turns, system + turns[:1], system + turns[2:], system + turns]
    cases = {}
    for name, template in CHAT_TEMPLATES.items():
        eos = "</s>" if name == "llama2" else "<|endoftext|>"
        core = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
        core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos)
        for i, messages in enumerate(conversations):
            for generate in (False, True)[: 1 + (messages[-1]["role"] == "user")]:
                text = tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=generate
                )
                case = {"messages": messages, "generation_prompt": generate, "text": text}
                cases[f"{name} {i}{' to be answered' if generate else ''}"] = {"template": name} | case
    return cases


# Each begins as tokenizer.model does, whose later fields take the place of earlier ones: what is written behind it changes it.
SENTENCEPIECE = {
    "as it is": b"",
    "no space at the beginning": b"\x1a\x02\x18\x00",  # normalizer_spec: add_dummy_prefix
    "spaces taken together": b"\x1a\x02\x20\x01",  # remove_extra_whitespaces
    "both": b"\x1a\x04\x18\x00\x20\x01",
    "pieces that are never cut": b"".join(
        b"\x0a" + bytes([len(text) + 4, 0x0A, len(text)]) + text + b"\x18\x04"
        for text in (b"[X]", b"<U>", b"xa", b"xab")
    ),
}


def sentencepiece() -> dict[str, dict]:
    """The ids that SentencePiece and tokenizers give for 2,000 texts: those of the first 40, and a checksum for each 50.

    sentencepiece.model was trained on the story of the package with a few lines of code and of other scripts, 600 pieces, with
    byte_fallback and without split_by_whitespace, so that pieces have spaces within.
    """
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

    texts = store.texts(2000)

    def case(encode, decode) -> dict:
        ids = [encode(text) for text in texts]
        decoded = [decode(row) for row in ids]
        sums = [
            zlib.crc32(json.dumps([ids[i : i + 50], decoded[i : i + 50]]).encode()) for i in range(0, len(texts), 50)
        ]
        return {"ids": [json.dumps(row) for row in ids[:40]], "sums": sums}

    model = store.path("sentencepiece").with_suffix(".model").read_bytes()
    cases = {}
    for name, more in SENTENCEPIECE.items():
        processor = SentencePieceProcessor(model_proto=model + more)
        cases[name] = {"more": more.hex()} | case(processor.encode, processor.decode)
    processor = SentencePieceProcessor(model_proto=model)
    vocab = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    score = {piece: processor.get_score(i) for piece, i in vocab.items()}
    few = b"\x12\x02\x18\x02\x1a\x02\x20\x00"  # BPE without byte_fallback; spaces as they are
    for piece, i in vocab.items():
        if (i < 3 or i > 258) and piece not in ("h", "▁l"):  # of which other pieces are made
            text, kind = piece.encode(), {0: 2, 1: 3, 2: 3}.get(i, 1)
            few += b"\x0a" + bytes([len(text) + 9, 0x0A, len(text)]) + text
            few += b"\x15" + struct.pack("<f", score[piece]) + bytes([0x18, kind])
    processor = SentencePieceProcessor(model_proto=few)
    cases["without bytes"] = {"model": few.hex()} | case(processor.encode, lambda ids: "")
    processor = SentencePieceProcessor(model_proto=model)
    merges = [
        (piece[:k], piece[k:])
        for piece in sorted(vocab, key=score.__getitem__, reverse=True)
        if vocab[piece] > 258
        for k in range(1, len(piece))
        if piece[:k] in vocab and piece[k:] in vocab
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": processor.id_to_piece(i), **flags} for i in range(3)]
    bpe = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": vocab,
        "merges": merges,
    }
    to_spaces = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    metaspace = {"type": "Metaspace", "replacement": "▁", "split": False}
    ways = {
        "Prepend": {"normalizer": {"type": "Sequence", "normalizers": [prepend, replace]}},
        "Replace": {"normalizer": {"type": "Sequence", "normalizers": [replace]}},
        "Metaspace always": {"pre_tokenizer": metaspace | {"prepend_scheme": "always"}},
        "Metaspace first": {"pre_tokenizer": metaspace | {"prepend_scheme": "first"}},
        "Metaspace never": {"pre_tokenizer": metaspace | {"prepend_scheme": "never"}},
    }
    for name, parts in ways.items():
        decoders = to_spaces if name in ("Replace", "Metaspace never") else to_spaces + strip
        parts |= {"version": "1.0", "added_tokens": added, "decoder": {"type": "Sequence", "decoders": decoders}}
        tokenizer = Tokenizer.from_str(json.dumps(parts | {"model": bpe}))

        def encode(text, tokenizer=tokenizer):
            return tokenizer.encode(text, add_special_tokens=False).ids

        def decode(ids, tokenizer=tokenizer):
            return tokenizer.decode([i for i in ids if i > 2])  # without the marks

        cases[name] = {"parts": json.dumps(parts)} | case(encode, decode)
    cases["tokenizer.json"] = {"model": json.dumps(bpe, ensure_ascii=False)}
    return cases


WORDPIECE = {
    "uncased": {},
    "cased": {"lowercase": False},
    "uncased with accents": {"strip_accents": False},
    "cased without accents": {"lowercase": False, "strip_accents": True},
    "with control characters": {"clean_text": False},
    "Chinese in words": {"handle_chinese_chars": False},
    "nothing": {"lowercase": False, "clean_text": False, "handle_chinese_chars": False},
}


def wordpiece() -> dict[str, dict]:
    """The ids that `tokenizers` gives for 2,000 texts in the options of BertNormalizer, as for `sentencepiece`; and with marks in
    the texts, and what transformers' BertTokenizer makes of one text and of two.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import BertTokenizer

    texts, pieces = store.scripts(2000), store.wordpieces()
    vocab = {piece: i for i, piece in enumerate(pieces)}

    def case(tokenizer) -> dict:
        ids = [tokenizer.encode(text).ids for text in texts]
        decoded = [tokenizer.decode(row, skip_special_tokens=False).replace(" ", "") for row in ids]
        sums = [
            zlib.crc32(json.dumps([ids[i : i + 50], decoded[i : i + 50]]).encode()) for i in range(0, len(texts), 50)
        ]
        return {"ids": [json.dumps(row) for row in ids[:40]], "sums": sums}

    def made(options: dict, **model):
        tokenizer = Tokenizer(
            models.WordPiece(vocab, **{"unk_token": "[UNK]", "max_input_chars_per_word": 100} | model)
        )
        tokenizer.normalizer = normalizers.BertNormalizer(**options)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        return tokenizer

    cases = {}
    for name, options in WORDPIECE.items():
        tokenizer = made(options)
        cases[name] = {"normalizer": options} | case(tokenizer)
    cases["short words"] = {"model": {"max_input_chars_per_word": 3}} | case(made({}, max_input_chars_per_word=3))
    tokenizer = made({})
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<U>"])
    cases["marks"] = case(tokenizer)
    bert = BertTokenizer(vocab=vocab)
    framed = [bert("the café"), bert("", "a"), bert("un unaffable", "The lids!")]
    rows = [[json.dumps(one[key]) for key in ("input_ids", "token_type_ids")] for one in framed]
    cases["frames"] = {"rows": rows}
    return cases


def lora() -> dict[str, dict]:
    """LoRA by PEFT: layers with their gradients, what is drawn for A, and adapters of a GPT-2 with what they give."""
    import safetensors.numpy
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    cases: dict[str, dict] = {}
    for name, options in {
        "layer": {"r": 2, "lora_alpha": 5},
        "layer of rank 3, rslora": {"r": 3, "lora_alpha": 4, "use_rslora": True},
    }.items():
        base = nn.Sequential()
        base.add_module("lin", nn.Linear(5, 4))
        base = base.double()
        values = fill(name, base)
        layer = get_peft_model(base, LoraConfig(target_modules=["lin"], **options)).double()
        pair = {"lora_A": draw(f"{name} A", options["r"], 5), "lora_B": draw(f"{name} B", 4, options["r"])}
        leaves = {}
        for key, p in layer.named_parameters():
            for letter, value in pair.items():
                if letter in key:
                    p.data = torch.tensor(value)
                    leaves[letter] = p
        x = draw(f"{name} x", 2, 3, 5)
        leaves["x"] = torch.tensor(x, requires_grad=True)
        cases[name] = {
            "config": options,
            "parameters": {key.removeprefix("lin."): value for key, value in values.items()} | pair,
            "x": x,
        } | differentiate(name, layer(leaves["x"]), leaves)
    torch.manual_seed(123)
    weight, a = nn.Linear(6, 4).weight.detach(), torch.empty(3, 6)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as PEFT and loralib do
    cases["what is drawn after seed 123"] = {"weight": weight.double().numpy(), "lora_A": a.double().numpy()}
    sizes = {"vocab_size": 11, "n_positions": 7, "n_embd": 4, "n_layer": 2, "n_head": 2, "n_inner": 6}
    ids = np.array([[5, 0, 7, 5, 10, 3], [1, 1, 3, 9, 2, 8]])
    for name, (kind, options) in {
        "attention": (GPT2LMHeadModel, {"r": 2, "lora_alpha": 5, "target_modules": ["c_attn"]}),
        "every layer and the head": (
            GPT2LMHeadModel,
            {"r": 3, "lora_alpha": 4, "use_rslora": True, "target_modules": ["c_attn", "attn.c_proj", "mlp.c_proj", "c_fc",
                                                                                     "lm_head"]},
        ),
        "ranks of their own": (
            GPT2LMHeadModel,
            {"r": 2, "lora_alpha": 5, "target_modules": ["c_attn", "mlp.c_proj"], "rank_pattern": {"c_attn": 3},
             "alpha_pattern": {"h.1.mlp.c_proj": 1}},
        ),
        "a norm trained whole": (
            GPT2LMHeadModel,
            {"r": 1, "lora_alpha": 2, "target_modules": ["c_fc"], "modules_to_save": ["ln_f", "transformer.h.1.ln_1"]},
        ),
        "a classifier": (
            GPT2ForSequenceClassification,
            {"r": 2, "lora_alpha": 3, "target_modules": ["c_attn"], "task_type": "SEQ_CLS"},
        ),
    }.items():  # fmt: skip
        tied = kind is GPT2LMHeadModel and "lm_head" not in options["target_modules"]
        config = GPT2Config(
            **sizes, num_labels=3, pad_token_id=0, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied
        )
        base = kind(config).double().eval()
        for key, p in base.named_parameters():
            p.data = torch.tensor(draw(f"lora {name} {key}", *p.shape, scale=0.5))
        before = {key: p.detach().numpy().copy() for key, p in base.named_parameters()}
        adapted = get_peft_model(base, LoraConfig(**options)).double().eval()
        for key, p in adapted.named_parameters():
            if p.requires_grad:
                p.data = torch.tensor(draw(f"lora {name} {key}", *p.shape, scale=0.5))
        with tempfile.TemporaryDirectory() as folder:
            adapted.save_pretrained(folder)
            stored = safetensors.numpy.load_file(f"{folder}/adapter_model.safetensors")
            written = json.loads(Path(folder, "adapter_config.json").read_text())
        for field in ("target_modules", "modules_to_save"):  # sets, in any order
            written[field] = written[field] and sorted(written[field])
        logits = adapted(torch.tensor(ids)).logits
        cases[name] = {
            "base": {"model_type": "gpt2", **sizes, "tie_word_embeddings": tied},
            "weights": before,
            "adapter_config": json.dumps(written),
            "tensors": stored,
            "ids": ids,
            "logits": logits.detach().numpy(),
        }
    return cases


def feedback() -> dict[str, dict]:
    """Losses of rewards, DPO, PPO and GRPO from their published formulas, token by token where a mask says so."""
    cases: dict[str, dict] = {}

    def case(name: str, function, learned: dict, fixed: dict, options: dict) -> None:
        """`function` of leaves, arrays and options gives what is differentiated, and a dictionary of what else it gives."""
        leaves = {key: torch.tensor(x, requires_grad=True) for key, x in learned.items()}
        output, more = function(**leaves, **{key: torch.tensor(x) for key, x in fixed.items()}, **options)
        made = differentiate(name, output, leaves)
        more = {key: x.detach().numpy() if x.ndim else x.item() for key, x in more.items()}
        cases[name] = {"learned": learned, "fixed": fixed, "options": options, "more": more} | made

    def rows(name: str, *fields: str, shape: tuple = (5,), scale: float = 1.0) -> dict[str, np.ndarray]:
        return {field: draw(f"feedback {name} {field}", *shape, scale=scale) for field in fields}

    def reward(better, worse, margin=0.0):
        return -torch.log(torch.sigmoid(better - worse - margin)).mean(), {}

    case("reward", reward, rows("reward", "better", "worse"), {}, {})
    case("reward with margins", reward, rows("reward", "better", "worse"), rows("reward", "margin"), {})

    def dpo(chosen, rejected, ref_chosen, ref_rejected, beta, kind="sigmoid", label_smoothing=0.0, nll=None, alpha=0.0):
        h, eps = chosen - rejected - ref_chosen + ref_rejected, label_smoothing
        right, wrong = F.softplus(-beta * h), F.softplus(beta * h)
        losses = {
            "sigmoid": (1 - eps) * right + eps * wrong,
            "robust": ((1 - eps) * right - eps * wrong) / (1 - 2 * eps),
            "ipo": (h - 1 / (2 * beta)).square(),
            "hinge": torch.clamp(1 - beta * h, min=0),
        }[kind]
        losses = losses if nll is None else losses + alpha * nll
        return losses, {
            "chosen_rewards": beta * (chosen - ref_chosen),
            "rejected_rewards": beta * (rejected - ref_rejected),
        }

    pair = rows("dpo", "chosen", "rejected", scale=8)
    refs = rows("dpo", "ref_chosen", "ref_rejected", scale=8)
    case("dpo", dpo, pair, refs, {"beta": 0.1})
    case("dpo, smoothed", dpo, pair, refs, {"beta": 0.3, "label_smoothing": 0.1})
    case("dpo, robust", dpo, pair, refs, {"beta": 0.3, "label_smoothing": 0.2, "kind": "robust"})
    case("dpo, ipo", dpo, pair, refs, {"beta": 0.2, "kind": "ipo"})
    case("dpo, hinge", dpo, pair, refs, {"beta": 0.2, "kind": "hinge"})
    case("dpo, rpo", dpo, pair | rows("dpo", "nll"), refs, {"beta": 0.1, "alpha": 0.7})

    mask = np.array(
        [[True, True, True, False, False], [False, True, True, True, True], [True, False, False, False, False]]
    )
    shape = mask.shape

    def policy(logprobs, old_logprobs, advantages, clip):
        ratio = torch.exp(logprobs - old_logprobs)
        free, clipped = -advantages * ratio, -advantages * torch.clamp(ratio, 1 - clip, 1 + clip)
        return torch.max(free, clipped), ratio, (clipped > free).double()

    def ppo(
        logprobs, values, old_logprobs, advantages, old_values, returns, mask, clip=0.2, value_clip=0.2, vf_coef=0.1
    ):
        losses, ratio, clipped = policy(logprobs, old_logprobs, advantages, clip)
        near = torch.clamp(values, old_values - value_clip, old_values + value_clip)
        errors = torch.max((values - returns).square(), (near - returns).square())
        policy_loss, value_loss = losses[mask].mean(), 0.5 * errors[mask].mean()
        return policy_loss + vf_coef * value_loss, {
            "approxkl": 0.5 * (logprobs - old_logprobs)[mask].square().mean(),
            "clipfrac": clipped[mask].mean(),
            "ratio": ratio[mask].mean(),
            "policy_loss": policy_loss,
            "value_loss": value_loss,
        }

    learned = rows("ppo", "logprobs", "values", shape=shape, scale=0.3)
    fixed = rows("ppo", "old_logprobs", "old_values", shape=shape, scale=0.3)
    fixed |= rows("ppo", "advantages", "returns", shape=shape) | {"mask": mask}
    case("ppo", ppo, learned, fixed, {})
    case("ppo, other options", ppo, learned, fixed, {"clip": 0.05, "value_clip": 0.5, "vf_coef": 1.5})

    def grpo(logprobs, old_logprobs, ref_logprobs, advantages, mask, clip=0.2, beta=0.0, kind="grpo", max_length=None,
             n_tokens=None):  # fmt: skip
        losses, _, clipped = policy(logprobs, old_logprobs, advantages[:, None], clip)
        kl = torch.exp(ref_logprobs - logprobs) - (ref_logprobs - logprobs) - 1

        def mean(x):
            if kind == "grpo":
                return torch.stack([row[counts].mean() for row, counts in zip(x, mask, strict=True)]).mean()
            return (
                x[mask].sum() / {"bnpo": mask.sum(), "dapo": n_tokens, "dr_grpo": len(mask) * (max_length or 0)}[kind]
            )

        ones = mean(torch.ones_like(kl))
        return mean(losses + beta * kl), {"kl": mean(kl) / ones, "clip_ratio": mean(clipped) / ones}

    learned = rows("grpo", "logprobs", shape=shape, scale=0.3)
    fixed = rows("grpo", "old_logprobs", "ref_logprobs", shape=shape, scale=0.3)
    fixed |= rows("grpo", "advantages", shape=shape[:1]) | {"mask": mask}
    for options in (
        {},
        {"beta": 0.04},
        {"kind": "bnpo", "beta": 0.5},
        {"kind": "dapo", "n_tokens": 11, "clip": 0.1},
        {"kind": "dr_grpo", "max_length": 6, "beta": 0.04},
    ):
        case(", ".join(["grpo", *(f"{key} {value}" for key, value in options.items())]), grpo, learned, fixed, options)

    case("entropy", lambda logits: (torch.distributions.Categorical(logits=logits).entropy(), {}),
         rows("entropy", "logits", shape=(2, 3, 7), scale=3), {}, {})  # fmt: skip
    return cases


def clipping() -> dict[str, dict]:
    cases = {}
    for name, max_norm in {"above": 1.5, "below": 100.0, "to almost nothing": 1e-3}.items():
        gradients = {shape: draw(f"clip {shape}", *shape) for shape in ((2, 3), (4,), ())}
        leaves = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in gradients]
        for leaf, g in zip(leaves, gradients.values(), strict=True):
            leaf.grad = torch.tensor(g)
        total = nn.utils.clip_grad_norm_(leaves, max_norm)
        cases[name] = {
            "max_norm": max_norm,
            "gradients": {str(i): g for i, g in enumerate(gradients.values())},
            "norm": total.item(),
            "clipped": {str(i): leaf.grad.numpy() for i, leaf in enumerate(leaves)},
        }
    return cases


def initial() -> dict[str, dict]:
    """What PyTorch draws for the book's model after manual_seed(123): a few numbers and the sum of each entry of state_dict.

    Float32, so --check allows what its vectorised logarithm and cosine differ by from one kind of CPU to the next.
    """
    cases = {}
    sizes = {"vocab_size": 65, "context_length": 11, "emb_dim": 12, "n_heads": 3, "n_layers": 2}
    for changes in ({}, {"qkv_bias": True}, {"tie_weights": True}):
        torch.manual_seed(123)
        model = GPTModel(**sizes, **changes)
        cases[", ".join(changes) or "plain"] = {
            "config": sizes | changes,
            "state": {
                key: {
                    "shape": list(p.shape),
                    "first": p.flatten()[:3].double().numpy(),
                    "last": p.flatten()[-2:].double().numpy(),
                    "sum": p.double().sum().item(),
                }
                for key, p in model.state_dict().items()
            },
        }
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the stored files and write nothing")
    check = parser.parse_args().check
    torch.set_num_threads(1)
    for make in (elementwise_ops, activation_ops, reductions, shape_ops, matrix_ops, softmax_ops, normalization_ops):
        make()
    attention_ops()
    rotary_ops()
    recurrences_and_convolutions()
    made = {
        "ops": ops,
        "layers": layers(),
        "gpt": gpt(),
        "llama": llama(),
        "hyena": hyena(),
        "clipping": clipping(),
        "initial": initial(),
    }
    made |= {
        "transformers": transformers(),
        "llamas": llamas(),
        "marians": marians(),
        "torch_transformers": torch_transformers(),
        "berts": berts(),
        "rwkvs": rwkvs(),
        "vits": vits(),
        "classifiers": classifiers(),
        "lora": lora(),
        "templates": templates(),
    }
    made |= {"feedback": feedback(), "sentencepiece": sentencepiece(), "wordpiece": wordpiece()}
    drifted = []
    for family, cases in made.items():
        if check:
            tolerance = 1e-5 if family == "initial" else TOLERANCE
            drifted += store.drift(store.read(family), store.parse(store.text(cases)), tolerance, family)
        else:
            store.path(family).write_text(store.text(cases))
    print("\n".join(drifted) or f"{sum(map(len, made.values()))} cases {'checked' if check else 'written'}")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
