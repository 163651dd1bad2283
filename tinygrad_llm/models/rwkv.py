"""RWKV-4 (Peng et al. 2023): a language model that reads like a recurrent network and learns like a transformer. Top to bottom.

What differs from GPT-2: no attention; a token mixes itself with the one before it, and with a weighted mean of all values before
it whose weights fall with their age (ops.wkv), so that five vectors a layer are all that generation keeps; no positions.

Letters in shape comments: B batch, T tokens, C = emb_dim, A = attention_dim, V = vocab_size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import ops
from ..checks import check_flag, check_integer, check_number
from ..engine import Tensor
from ..errors import ConfigError, GraphError
from ..nn import Embedding, LayerNorm, Linear, Module, Parameter, Sequential, checkpoint
from ..nn.initial import orthogonal
from ..nn.state import Recurrent
from ..ops.recurrence import nothing_yet, wkv_scan
from ..rng import Generator, Zeros, get_generator
from .base import Config, LanguageModel
from .costs import Cost, head_costs, repeated

LayerState = dict[str, np.ndarray]


@dataclass(frozen=True)
class RwkvConfig(Config):
    """The sizes of RWKV-4 169M and a few options, checked when they are put together.

    `context_length`: None, there is no end to what it can read; a number is of the tokens that it reads at once, by which costs
    are counted: more are refused. `attention_dim`: features of time mixing, if not emb_dim. `rescale_every`: in evaluation what
    the blocks add up is halved after so many of them, as files of transformers say, where half precision would overflow; it
    changes results by what eps then weighs in a norm. `norm_eps`: of all norms but the last, which has PyTorch's 1e-5 there.
    `init`: "rwkv" is RWKV_Init of RWKV-v4/src/model.py, without which it hardly learns; "pytorch" each layer as PyTorch does.
    """

    architecture: ClassVar[str] = "rwkv"

    vocab_size: int = 50277
    context_length: int | None = None
    emb_dim: int = 768
    n_layers: int = 12
    attention_dim: int | None = None
    hidden_dim: int | None = None  # None: 4 emb_dim
    drop_rate: float = 0.0
    tie_weights: bool = False
    norm_eps: float = 1e-5
    rescale_every: int = 0
    init: str = "rwkv"

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "emb_dim", "n_layers")
        for name in (*sizes, "context_length", "attention_dim", "hidden_dim"):
            if name in sizes or getattr(self, name) is not None:
                object.__setattr__(self, name, check_integer(f"RwkvConfig: {name}", getattr(self, name)))
        every = check_integer("RwkvConfig: rescale_every", self.rescale_every, least=0)
        object.__setattr__(self, "rescale_every", every)
        check_flag("RwkvConfig: tie_weights", self.tie_weights)
        if self.init not in ("pytorch", "rwkv"):
            raise ConfigError(f"RwkvConfig: init is {self.init!r}: use 'pytorch' or 'rwkv'")
        if self.drop_rate != 0:
            raise ConfigError(f"RwkvConfig: drop_rate is {self.drop_rate}: it drops nothing: use 0")
        object.__setattr__(self, "norm_eps", check_number("RwkvConfig: norm_eps", self.norm_eps, below=1))

    @property
    def attention_width(self) -> int:
        return self.attention_dim or self.emb_dim

    @property
    def hidden_width(self) -> int:
        return self.hidden_dim or 4 * self.emb_dim

    def costs(self) -> list[Cost]:
        c, a, hidden = self.emb_dim, self.attention_width, self.hidden_width
        block = [
            Cost("norm1", 2 * c, kept=c + 1),
            Cost("att", 2 * a + 3 * c, flops=10 * c + 20 * a, kept=4 * c + 12 * a, cached=c + 3 * a),
            Cost("att.key", a * c, kept=c),
            Cost("att.value", a * c, kept=c),
            Cost("att.receptance", a * c, kept=c + 2 * a),
            Cost("att.output", c * a, kept=a),
            Cost("norm2", 2 * c, kept=c + 1),
            Cost("ff", 2 * c, flops=6 * c + 3 * hidden, kept=3 * c + 2 * hidden, cached=c),
            Cost("ff.key", hidden * c, kept=c),
            Cost("ff.receptance", c * c, kept=c + 2 * c),
            Cost("ff.value", c * hidden, kept=hidden),
        ]
        return [
            Cost("tok_emb", self.vocab_size * c, flops=0),
            Cost("emb_norm", 2 * c, kept=c + 1),
            *repeated("trf_blocks", self.n_layers, block),
            Cost("final_norm", 2 * c, kept=c + 1),
            *head_costs(c, self.vocab_size, self.tie_weights),
        ]


# Peng et al. 2023, table 2; vocabulary of the Pile.
PRESETS: dict[str, RwkvConfig] = {
    # beside the GPT of the tales: about as many parameters
    "tales-rwkv": RwkvConfig(vocab_size=1024, emb_dim=128, n_layers=4),
    "rwkv4-169M": RwkvConfig(),
    "rwkv4-430M": RwkvConfig(emb_dim=1024, n_layers=24),
    "rwkv4-1.5B": RwkvConfig(emb_dim=2048, n_layers=24),
    "rwkv4-3B": RwkvConfig(emb_dim=2560, n_layers=32),
    "rwkv4-7B": RwkvConfig(emb_dim=4096, n_layers=32),
    "rwkv4-14B": RwkvConfig(emb_dim=5120, n_layers=40),
}


def shifted(x: Tensor, state: LayerState | None, name: str) -> Tensor:
    """The token before each, (B, T, C); before the first, the last one that was read, or zeros. The state is told of x."""
    last = np.zeros((len(x.data), 1, x.shape[2]), x.dtype) if state is None else state[name][:, None]  # (B, 1, C)
    if state is not None:
        state[name] = x.data[:, -1].copy()  # or all tokens would stay
    return ops.concatenate(last, x[:, :-1], axis=1)  # (B, T, C)


def mixed(x: Tensor, before: Tensor, share: Tensor) -> Tensor:
    """So much of each token, the rest of the one before it: (B, T, C)."""
    return x * share + before * (1 - share)


class TimeMix(Module):
    """Each feature of a token is a weighted mean of the values so far, let through by a gate: (B, T, C) -> (B, T, C) (§3.1.2)."""

    def __init__(self, config: RwkvConfig, *, rng: Generator | None = None) -> None:
        c, a = config.emb_dim, config.attention_width
        self.decay = Parameter(np.zeros(a, np.float32))  # its negative exponential is w
        self.first = Parameter(np.zeros(a, np.float32))  # u: what the token itself has besides
        self.mix_key = Parameter(np.ones(c, np.float32))
        self.mix_value = Parameter(np.ones(c, np.float32))
        self.mix_receptance = Parameter(np.ones(c, np.float32))
        self.key = Linear(c, a, bias=False, rng=rng)
        self.value = Linear(c, a, bias=False, rng=rng)
        self.receptance = Linear(c, a, bias=False, rng=rng)
        self.output = Linear(a, c, bias=False, rng=rng)

    def forward(self, x: Tensor, state: LayerState | None = None) -> Tensor:
        before = shifted(x, state, "att_x")  # (B, T, C)
        k = self.key(mixed(x, before, self.mix_key))  # (B, T, A)
        v = self.value(mixed(x, before, self.mix_value))  # (B, T, A)
        r = self.receptance(mixed(x, before, self.mix_receptance))  # (B, T, A)
        y = ops.wkv(k, v, self.decay, self.first) if state is None else self._go_on(k, v, state)  # (B, T, A)
        return self.output(ops.sigmoid(r) * y)

    def _go_on(self, k: Tensor, v: Tensor, state: LayerState) -> Tensor:
        """ops.wkv after what the state has summed up, which is told of these tokens."""
        if k.requires_grad or v.requires_grad:
            raise GraphError("Recurrent: nothing can be learned through it: run the model under tg.no_grad()")
        sums = np.stack([state["a"], state["b"]])  # (2, B, A)
        y, sums, p, *_ = wkv_scan(k.data, v.data, self.decay.data, self.first.data, sums, state["p"])
        (state["a"], state["b"]), state["p"] = sums[-1].copy(), p[-1].copy()  # or those of all tokens would stay
        return Tensor(y)


class ChannelMix(Module):
    """Each token by itself and the one before it, squared where positive, let through by a gate: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: RwkvConfig, *, rng: Generator | None = None) -> None:
        c, hidden = config.emb_dim, config.hidden_width
        self.mix_key = Parameter(np.ones(c, np.float32))
        self.mix_receptance = Parameter(np.ones(c, np.float32))
        self.key = Linear(c, hidden, bias=False, rng=rng)
        self.receptance = Linear(c, c, bias=False, rng=rng)
        self.value = Linear(hidden, c, bias=False, rng=rng)

    def forward(self, x: Tensor, state: LayerState | None = None) -> Tensor:
        before = shifted(x, state, "ff_x")  # (B, T, C)
        k = ops.relu(self.key(mixed(x, before, self.mix_key)))  # (B, T, H)
        r = self.receptance(mixed(x, before, self.mix_receptance))  # (B, T, C)
        return ops.sigmoid(r) * self.value(k * k)


class RwkvBlock(Module):
    """x + time mixing(norm(x)), then x + channel mixing(norm(x)): (B, T, C) -> (B, T, C)."""

    def __init__(self, config: RwkvConfig, *, rng: Generator | None = None) -> None:
        self.att = TimeMix(config, rng=rng)
        self.ff = ChannelMix(config, rng=rng)
        self.norm1 = LayerNorm(config.emb_dim, config.norm_eps)
        self.norm2 = LayerNorm(config.emb_dim, config.norm_eps)

    def forward(self, x: Tensor, state: LayerState | None = None, scale: float = 1.0) -> Tensor:
        """`scale`: of what is added to x."""
        x = x + _scaled(self.att(self.norm1(x), state), scale)
        return x + _scaled(self.ff(self.norm2(x), state), scale)


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1 else x * scale


class RwkvModel(LanguageModel):
    """Token ids (B, T) -> logits (B, T, V): for every position, the scores of the next token."""

    architecture = "rwkv"
    config_class = RwkvConfig

    def __init__(self, config: RwkvConfig, *, rng: Generator | None = None) -> None:
        self.check_config(config)
        rng = rng or get_generator()
        draw = rng if config.init == "pytorch" else Zeros()
        c = config.emb_dim
        self.config = config
        self.tok_emb = Embedding(config.vocab_size, c, rng=draw)
        self.emb_norm = LayerNorm(c, config.norm_eps)
        self.trf_blocks = Sequential(*(RwkvBlock(config, rng=draw) for _ in range(config.n_layers)))
        self.final_norm = LayerNorm(c)
        self.out_head = Linear(c, config.vocab_size, bias=False, rng=draw)
        if config.tie_weights:
            self.out_head.weight = self.tok_emb.weight
        if config.init == "rwkv":
            self._draw_rwkv(rng)
        self.name_parameters()

    def features(self, ids: Any, *, state: Recurrent | None = None) -> Tensor:
        ids = self.check_ids(ids)
        if state is not None:
            state.check_rows(len(ids))
        x = self.emb_norm(self.tok_emb(ids))  # (B, T, C)
        every = 0 if self.training else self.config.rescale_every
        for i, block in enumerate(self.trf_blocks):
            scale = 0.5 ** (i // every) if every else 1.0
            if self.checkpoint_blocks and state is None and scale == 1:
                x = checkpoint(block, x)  # (B, T, C)
            else:
                x = block(x, state and state.layers[i], scale)  # (B, T, C)
            if every and (i + 1) % every == 0:
                x = x * 0.5
        if state is not None:
            state.lengths += ids.shape[1]
        return x

    def make_state(self, batch_size: int = 1, capacity: int | None = None) -> Recurrent:
        """An empty state; it does not grow, so that `capacity` says nothing."""
        batch_size, dtype = check_integer("make_state: batch_size", batch_size), self.tok_emb.weight.dtype
        c, a = self.config.emb_dim, self.config.attention_width

        def empty() -> LayerState:
            sums, p = nothing_yet(batch_size, a, dtype)
            return {"a": sums[0], "b": sums[1], "p": p} | {
                name: np.zeros((batch_size, c), dtype) for name in ("att_x", "ff_x")
            }

        return Recurrent([empty() for _ in range(self.config.n_layers)])

    def _draw_rwkv(self, rng: Generator) -> None:
        """RWKV_Init: what is added to the residual stream begins as zeros, what stays is orthogonal, and each feature of each
        layer decays and mixes at a speed of its own (RWKV-v4/src/model.py; Peng et al. 2023, appendix E)."""
        n, c, a = self.config.n_layers, self.config.emb_dim, self.config.attention_width
        table = self.tok_emb.weight
        table.data = orthogonal(rng, table.shape, 1e-4 * math.sqrt(max(table.shape)))
        if not self.config.tie_weights:
            head: Any = self.out_head
            head.weight.data = orthogonal(rng, table.shape, 0.5 * _gain(table.shape))
        channels, half = np.arange(c) / c, np.arange(a) / max(1, a - 1)
        for i, block in enumerate(self.trf_blocks):
            depth, height = i / max(1, n - 1), 1 - i / n  # 0 to 1, 1 to near 0
            zigzag = ((np.arange(a) + 1) % 3 - 1) * 0.5
            drawn = {
                "att.decay": -5 + 8 * half ** (0.7 + 1.3 * depth),
                "att.first": math.log(0.3) + zigzag,
                "att.mix_key": channels**height,
                "att.mix_value": channels**height + 0.3 * depth,
                "att.mix_receptance": channels ** (0.5 * height),
                "ff.mix_key": channels**height,
                "ff.mix_receptance": channels**height,
            }
            for name, parameter in block.named_parameters():
                if name in drawn:
                    parameter.data = drawn[name].astype(np.float32)
                elif name in ("att.value.weight", "ff.key.weight"):
                    parameter.data = orthogonal(rng, parameter.shape, _gain(parameter.shape))


def _gain(shape: tuple[int, ...]) -> float:
    rows, columns = shape
    return math.sqrt(rows / columns) if rows > columns else 1.0
