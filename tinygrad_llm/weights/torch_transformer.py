"""PyTorch's own Transformer and the one here, array by array: for comparing them, and for going on with what was trained there.

The module that holds it, in PyTorch, has no positions, as torch.nn.Transformer has none:

    self.src_embed, self.tgt_embed = nn.Embedding(n_source, d), nn.Embedding(n_target, d)
    self.transformer = nn.Transformer(d, n_heads, ..., batch_first=True)
    self.generator = nn.Linear(d, n_target)

    memory = self.transformer.encoder(self.src_embed(source) * math.sqrt(d), src_key_padding_mask=~mask)
    ...                                                     # the target causal, the memory with the same mask

Letters of shapes: V vocab_size, S that of the sources, C emb_dim, H hidden_dim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..checks import did_you_mean
from ..errors import ConfigError, DTypeError, StateDictError
from ..formats.source import printable
from ..models import Model, make_config, make_model
from ..rng import Zeros
from .tensor_map import Entry, collect

_LAYER = re.compile(r"^transformer\.(encoder|decoder)\.layers\.(\d{1,9})\.")
_SIZES = (
    "src_embed.weight",
    "tgt_embed.weight",
    "transformer.encoder.layers.0.linear1.weight",
)  # (S, C), (V, C), (H, C)
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu_erf"}  # PyTorch's GELU is the exact one
# What nn.Transformer always has, and what the module above does with it.
_FIXED = {"positions": "none", "scale_embedding": True, "has_final_norms": True, "norm_eps": 1e-5}


def read(
    arrays: Mapping[str, np.ndarray],
    n_heads: int,
    norm_first: bool = False,
    activation: str = "relu",
    *,
    context_length: int = 512,
) -> Model:
    """The model of a state dict, in evaluation mode and in its dtype. What no shape tells is to be said.

    `context_length`, which PyTorch does not limit, is the longest text that is accepted. Without generator.bias the head has
    none. StateDictError names what is missing, unexpected or of another shape, before a model is made.
    """
    if activation not in _ACTIVATIONS:
        raise ConfigError(f"torch_transformer: activation is {activation!r:.80}: use one of {', '.join(_ACTIVATIONS)}")
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    for name in _SIZES:
        if len(shapes.get(name, ())) != 2:
            raise StateDictError(
                f"torch_transformer: missing {name}, or not a matrix: the sizes cannot be told without it"
            )
    (n_source, emb_dim), (n_target, _), (hidden_dim, _) = (shapes[name] for name in _SIZES)
    layers = {match.groups() for name in shapes if (match := _LAYER.match(name))}  # as many as there are numbers
    config = make_config(
        "seq2seq",
        {
            "vocab_size": n_target,
            "source_vocab_size": n_source,
            "context_length": context_length,
            "emb_dim": emb_dim,
            "n_heads": n_heads,
            "n_layers": sum(stack == "encoder" for stack, _ in layers),
            "n_decoder_layers": max(1, sum(stack == "decoder" for stack, _ in layers)),
            "hidden_dim": hidden_dim,
            "activation": _ACTIVATIONS[activation],
            "norm_first": norm_first,
            "final_norms": True,
            "positions": "none",
            "share": "none",
            "head_bias": "generator.bias" in shapes,
        },
    )
    entries = _entries(config)
    _check({entry.theirs: entry.shape for entry in entries}, shapes)
    dtypes = {np.asarray(array).dtype for array in arrays.values()}
    if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise DTypeError(
            f"torch_transformer: arrays are {', '.join(sorted(map(str, dtypes)))}: use one of float32 and float64"
        )
    model = make_model("seq2seq", config, Zeros())
    parameters = dict(model.named_parameters())
    for entry in entries:
        for name, part in zip(entry.ours, np.split(np.asarray(arrays[entry.theirs]), len(entry.ours)), strict=True):
            parameters[name].data = part.copy()
    return model.eval()


def write(model: Model) -> dict[str, np.ndarray]:
    """The state dict of the module above; ConfigError for what nn.Transformer has no place for. A shared table comes twice."""
    config = model.config
    for name, value in _FIXED.items():
        if (said := getattr(config, name)) != value:
            raise ConfigError(f"{name.removeprefix('has_')} is {said!r}: torch.nn.Transformer has {value!r}")
    if config.activation not in _ACTIVATIONS.values():
        raise ConfigError(f"activation is {config.activation!r}: torch.nn.Transformer has relu or gelu_erf")
    values = model.state_dict()
    return {entry.theirs: collect(values, entry, values["tok_emb.weight"].dtype).copy() for entry in _entries(config)}


def _entries(config: Any) -> list[Entry]:
    c, h = config.emb_dim, config.hidden_width
    made = [
        Entry("src_embed.weight", (config.source_vocabulary, c), ("src_emb.weight",)),
        Entry("tgt_embed.weight", (config.vocab_size, c), ("tok_emb.weight",)),
    ]

    def pair(theirs: str, ours: str, *shape: int, words: tuple[str, str] = ("weight", "bias")) -> None:
        made.append(Entry(f"{theirs}.weight", shape, (f"{ours}.{words[0]}",)))
        made.append(Entry(f"{theirs}.bias", shape[:1], (f"{ours}.{words[1]}",)))

    for stack, depth in (("encoder", config.n_layers), ("decoder", config.decoder_layers)):
        attentions = {"self_attn": "att"} | ({"multihead_attn": "cross_att"} if stack == "decoder" else {})
        for i in range(depth):
            theirs, ours = f"transformer.{stack}.layers.{i}", f"{stack}.{i}"
            for name, own in attentions.items():
                for kind, shape in (("weight", (3 * c, c)), ("bias", (3 * c,))):
                    three = tuple(f"{ours}.{own}.W_{part}.{kind}" for part in ("query", "key", "value"))
                    made.append(Entry(f"{theirs}.{name}.in_proj_{kind}", shape, three))
                pair(f"{theirs}.{name}.out_proj", f"{ours}.{own}.out_proj", c, c)
            pair(f"{theirs}.linear1", f"{ours}.ff.layers.0", h, c)
            pair(f"{theirs}.linear2", f"{ours}.ff.layers.2", c, h)
            for n in range(1, len(attentions) + 2):
                pair(f"{theirs}.norm{n}", f"{ours}.norm{n}", c, words=("scale", "shift"))
        pair(f"transformer.{stack}.norm", f"{stack}_norm", c, words=("scale", "shift"))
    pair("generator", "out_head", config.vocab_size, c)
    return made if config.head_bias else made[:-1]


def _check(wanted: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    absent = [name for name in wanted if name not in shapes]
    unexpected = [name for name in shapes if name not in wanted]
    problems = [
        f"unexpected {printable(name)}{did_you_mean(name, absent) if i < 8 else ''}"
        for i, name in enumerate(unexpected)
    ]
    problems += [f"missing {name} {wanted[name]}" for name in absent]
    problems += [
        f"{name}: {shapes[name]} against {shape}" for name, shape in wanted.items() if shapes.get(name, shape) != shape
    ]
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise StateDictError(f"torch_transformer: {'; '.join(problems[:8])}{more}. Nothing was made")
