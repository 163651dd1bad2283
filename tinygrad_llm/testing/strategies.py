"""What hypothesis draws for tests of gradients: shapes, axes, indices, tensors, models, token ids, masks and texts.

    from hypothesis import given
    from tinygrad_llm.testing import strategies

    @given(strategies.tensors(shape=(3, 4), regime="spaced"))
    def test_my_op(x): ...

Where the numbers come from. Each array takes its numbers from `np.random.default_rng(seed)` with a *drawn* seed, so that
hypothesis owns every bit of an example: it can vary, repeat, store and shrink it. The two usual ways fall short:

- Global NumPy state (`np.random.randn` in a test) is reseeded with 0 by hypothesis before every example. The values look random
  and are the same a hundred times over.
- `hypothesis.extra.numpy.arrays` fills large arrays with one value and prefers few distinct ones. Nearly every example has
  ties, many are constant: the kinks of max and the blind spots of softmax and layer_norm, where a wrong gradient is invisible.

How an example shrinks. Shapes shrink to few and short axes, the layout to "C", and the seed to 0, which stands for the ramp
1, -2, 3, -4, ... (times a half): no ties, no zeros, and easy to follow by hand. Token ids, indices and texts shrink
element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np

from ..engine import Tensor
from ..errors import ConfigError, MissingPackage
from ..models import make_config, model_class

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ModuleNotFoundError:
    raise MissingPackage(
        "tinygrad_llm.testing.strategies: hypothesis is not installed: pip install hypothesis, or the extra [test]; "
        "all else in tinygrad_llm.testing works without it"
    ) from None

Shape = tuple[int, ...]
_seeds = st.integers(0, 2**32 - 1)


def shapes(*, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes from () up; `min_side=0` adds empty ones."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


def broadcastable_shapes(
    n: int = 2, *, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """`n` shapes that broadcast together: equal, or with axes of length 1, or with fewer axes."""
    return hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=max_dims, min_side=min_side, max_side=max_side).map(
        lambda found: found.input_shapes
    )


def matmul_shapes(*, max_dims: int = 2, min_side: int = 1, max_side: int = 4) -> st.SearchStrategy[tuple[Shape, ...]]:
    """Two shapes for `x @ y`: vectors, matrices, and stacks of them with up to `max_dims` leading axes that broadcast."""
    return hnp.mutually_broadcastable_shapes(
        signature="(m?,k),(k,n?)->(m?,n?)", max_dims=max_dims, min_side=min_side, max_side=max_side
    ).map(lambda found: found.input_shapes)


def axes(shape: Any) -> st.SearchStrategy[int | Shape | None]:
    """Every way to name axes of a shape (or of an array or tensor): None, one from either end, or a tuple without repeats."""
    return _axes(len(_shape(shape)))


def indices(shape: Any, *, repeats: bool = True) -> st.SearchStrategy[Any]:
    """Every way to index a shape (or an array or tensor): integers, slices, None, Ellipsis, integer arrays and boolean masks.

    `repeats=False` leaves out integer arrays that name an element twice: what is left can be assigned to.
    """
    return _indices(_shape(shape), repeats)


@cache  # hypothesis looks a new strategy over before its first draw, which takes longer than the draw
def _axes(n: int) -> st.SearchStrategy[int | Shape | None]:
    one = [st.integers(-n, n - 1)] if n else []
    return st.one_of(st.none(), *one, hnp.valid_tuple_axes(n))


@cache
def _indices(shape: Shape, repeats: bool) -> st.SearchStrategy[Any]:
    basic = hnp.basic_indices(shape, allow_newaxis=True) | hnp.arrays(bool, shape, fill=st.nothing())
    if 0 in shape or not shape:
        return basic
    if not repeats:
        orders = st.permutations(range(shape[0]))
        return basic | st.tuples(orders, st.integers(1, shape[0])).map(lambda drawn: np.array(drawn[0][: drawn[1]]))
    some = shapes(min_dims=1, max_dims=2)
    rows = hnp.arrays(np.int64, some, elements=st.integers(-shape[0], shape[0] - 1), fill=st.nothing())
    return basic | rows | hnp.integer_array_indices(shape, result_shape=some)


# Regimes: what the numbers are like. Each is a function of a generator, how many, and the dtype.


def _generic(rng: np.random.Generator, n: int, info: np.finfo) -> np.ndarray:
    return rng.standard_normal(n)


def _spaced(rng: np.random.Generator, n: int, info: np.finfo) -> np.ndarray:
    magnitudes = 0.25 + 2 / max(1, n) * (np.arange(n) + rng.uniform(0, 0.5, n))
    return rng.permutation(magnitudes) * rng.choice([-1, 1], n)


def _tiny(rng: np.random.Generator, n: int, info: np.finfo) -> np.ndarray:
    least = info.minexp - info.nmant  # 2**least is the smallest subnormal
    return rng.choice([-1, 1], n) * np.exp2(rng.uniform(least, least / 2 - 1, n))


def _huge(rng: np.random.Generator, n: int, info: np.finfo) -> np.ndarray:
    return rng.choice([-1, 1], n) * np.exp2(rng.uniform(info.maxexp / 2, info.maxexp - 1, n))


def _near_ties(rng: np.random.Generator, n: int, info: np.finfo) -> np.ndarray:
    few = _generic(rng, max(1, n // 3), info).astype(info.dtype)
    return rng.choice(few, n) * (1 + rng.integers(0, 4, n).astype(info.dtype) * info.eps)


def _constant(rng: np.random.Generator, n: int, info: np.finfo) -> np.ndarray:
    return np.full(n, rng.standard_normal())


_REGIMES: dict[str, Callable[[np.random.Generator, int, np.finfo], np.ndarray]] = {
    "generic": _generic,
    "spaced": _spaced,
    "tiny": _tiny,
    "huge": _huge,
    "near_ties": _near_ties,
    "masked_rows": _generic,  # _values then masks it
    "constant": _constant,
}
REGIMES: tuple[str, ...] = tuple(_REGIMES)
LAYOUTS: tuple[str, ...] = ("C", "F", "strided", "negative_stride", "read_only", "broadcast")


def arrays(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: Any = np.float64,
    regime: str | Sequence[str] = "generic",
    layout: str | Sequence[str] = "C",
) -> st.SearchStrategy[np.ndarray]:
    """Float arrays of a shape (or a strategy for one; `shapes()` by default), by what is in them and how it lies in memory.

    regime: one of REGIMES, or several to choose from.
        generic      standard normal
        spaced       without ties or zeros: |x| between 0.25 and 2.25, each at least 1/size from the next
        tiny         down to the smallest subnormal: squares are 0
        huge         up to half of the largest number: squares are infinite
        near_ties    few values, and the floats right beside them
        masked_rows  generic, with -inf in places, along whole rows (the last axis), and always along the first
        constant     one value throughout
    layout: one of LAYOUTS, or several to choose from.
        C, F             contiguous, rows or columns first
        strided          every other element of a larger array, which holds NaN in between
        negative_stride  backwards along every axis
        read_only        C, and a write into it raises
        broadcast        one axis of stride 0, so that its elements repeat (and the array is read-only)

    "spaced" and "broadcast" are never drawn together: the one has no ties. ConfigError where no other choice is left.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ConfigError(f"strategies: dtype is {dtype}: use np.float32 or np.float64")
    regimes, layouts = _names("regime", regime, REGIMES), _names("layout", layout, LAYOUTS)
    if "spaced" in regimes and layouts == ["broadcast"]:
        raise ConfigError("strategies: regime 'spaced' has no ties, layout 'broadcast' repeats elements: leave one out")
    without_ties = [name for name in layouts if name != "broadcast"]

    @st.composite
    def draw_array(draw: Any) -> np.ndarray:
        size = draw(
            shape if isinstance(shape, st.SearchStrategy) else st.just(shape) if shape is not None else shapes()
        )
        chosen = draw(st.sampled_from(regimes))
        values = _values(size, dtype, chosen, draw(_seeds))
        return _lay_out(values, draw(st.sampled_from(without_ties if chosen == "spaced" else layouts)), draw)

    return draw_array()


def tensors(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: Any = np.float64,
    regime: str | Sequence[str] = "generic",
    layout: str | Sequence[str] = "C",
    requires_grad: bool = True,
) -> st.SearchStrategy[Tensor]:
    """Leaves of a graph: `arrays(...)`, each as a Tensor that shares the array's memory and so keeps its layout."""
    return arrays(shape, dtype, regime, layout).map(lambda array: Tensor(array, requires_grad=requires_grad))


def _values(shape: Shape, dtype: np.dtype, regime: str, seed: int) -> np.ndarray:
    n = math.prod(shape)
    rng = np.random.default_rng(seed)
    flat = _REGIMES[regime](rng, n, np.finfo(dtype)).astype(dtype)
    if seed == 0 and regime in ("generic", "masked_rows"):
        flat = (0.5 * np.arange(1, n + 1) * (-1.0) ** np.arange(n)).astype(dtype)
    elif seed == 0 and regime == "constant":
        flat = np.ones(n, dtype)
    values = flat.reshape(shape)
    if regime == "masked_rows" and n:
        values[rng.random(shape) < 0.3] = -math.inf
        rows = values.reshape(-1, shape[-1] if shape else 1)
        rows[rng.random(len(rows)) < 0.2] = -math.inf
        rows[0] = -math.inf
    return values


def _lay_out(values: np.ndarray, layout: str, draw: Callable[[st.SearchStrategy[int]], int]) -> np.ndarray:
    """The same numbers in another memory layout; for "broadcast", the first of them along one axis."""
    if layout == "C":
        return values
    if layout == "F":
        return values.copy(order="F")
    if layout == "strided":
        larger = np.full((2, *(2 * n for n in values.shape)), math.nan, values.dtype)
        every_other: Any = (1, ..., *[slice(None, None, 2)] * values.ndim)
        view = larger[every_other]
        view[...] = values
        return view
    if layout == "negative_stride":
        backwards = (slice(None, None, -1),) * values.ndim
        return values[backwards].copy()[backwards] if values.ndim else values
    if layout == "broadcast" and values.size and values.ndim:
        axis = draw(st.integers(0, values.ndim - 1))
        return np.broadcast_to(values.take([0], axis), values.shape)
    values.flags.writeable = False
    return values


def gpt_configs(max_parameters: int = 10_000, **fixed: Any) -> st.SearchStrategy[Any]:
    """GPT configurations of at most `max_parameters`, without dropout unless `drop_rate=` is given: of GPT-2's form.

    Any key of GPTConfig can be fixed: `gpt_configs(n_layers=1, tie_weights=True)`. ConfigError where nothing fits.
    """
    plain = dict.fromkeys(("hidden_dim", "n_kv_heads", "window", "global_every"))
    return model_configs("gpt", max_parameters, **plain | fixed)


_FEATURES = 2  # of a head at least: rotary positions turn pairs
_CHOICES: dict[str, Sequence[Any]] = {  # those that a configuration has, the sizes before what must fit in them
    **{"tie_weights": (False,), "qkv_bias": (True,), "init": ("pytorch", "gpt2")},
    **{"n_layers": range(2, 4), "n_heads": range(2, 5), "emb_dim": range(3, 33)},
    **{"context_length": range(2, 17), "vocab_size": range(3, 65)},
    **{"n_kv_heads": (1, 2), "head_dim": (2, 4), "window": (1, 2, 4), "global_every": (2,)},
    **{"hidden_dim": (None,), "out_bias": (True,), "bias": (True,), "attention_dim": (2, 5), "order": (3,)},
    **{"n_segments": (1, 3), "masked_words": (False,), "next_sentence": (False,), "pooler": (False,)},
}


def model_configs(architecture: str, max_parameters: int = 10_000, **fixed: Any) -> st.SearchStrategy[Any]:
    """As gpt_configs, for any architecture that `models.make_config` knows, with key heads, windows and what else it has."""
    n_heads = fixed.get("n_heads", 1)
    sizes = {"vocab_size": 2, "context_length": 1, "emb_dim": n_heads * _FEATURES, "n_heads": n_heads}
    plain = {"n_layers": 1, "drop_rate": 0.0, "tie_weights": True, "hidden_dim": 3, "filter_width": 2}
    plain |= {"n_classes": 2, "image_size": 4, "patch_size": 2}
    kind: Any = model_class(architecture).config_class
    options = {each.name for each in fields(kind)}
    least = make_config(
        architecture, {name: value for name, value in (sizes | plain).items() if name in options} | fixed
    )
    if least.n_parameters() > max_parameters:
        said = {name: value for name, value in fixed.items() if value is not None}
        raise ConfigError(
            f"strategies: the smallest {architecture} with {said or 'no key fixed'} has {least.n_parameters()} parameters, "
            f"max_parameters is {max_parameters}: raise it"
        )
    choices = {name: values for name, values in _CHOICES.items() if name in options}

    def that_fit(config: Any, name: str) -> list[Any]:
        """The configuration as it is, and with each choice for one key, where that can be and the budget allows it."""
        found = [config]
        for value in choices[name]:
            wider = {"emb_dim": value * _FEATURES} if name == "n_heads" and "emb_dim" not in fixed else {}
            with suppress(ConfigError):
                found.append(replace(config, **{name: value, **wider}))
        return [c for c in found if c.n_parameters() <= max_parameters]

    @st.composite
    def draw_config(draw: Any) -> Any:
        config = least
        for name in choices:
            if name not in fixed:
                config = draw(st.sampled_from(that_fit(config, name)))
        return config

    return draw_config()


def token_batches(vocab_size: int, max_tokens: int, *, max_batch: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Token ids (B, T) for a vocabulary, with B up to `max_batch` and T up to `max_tokens`, the context length."""
    return st.tuples(st.integers(1, max_batch), st.integers(1, max_tokens)).flatmap(
        lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(0, vocab_size - 1), fill=st.nothing())
    )


@st.composite
def causal_masks(draw: Any, max_tokens: int = 6, *, max_batch: int = 3) -> np.ndarray:
    """Boolean masks (B, 1, T, S) for attention: True where query t may see key s, with T <= S <= `max_tokens`.

    Causal, and in each row of the batch some keys at the start or the end are padding. Queries that see nothing occur.
    """
    n_keys = draw(st.integers(1, max_tokens))
    n_queries = draw(st.integers(1, n_keys))
    n_padding = draw(st.lists(st.integers(0, n_keys), min_size=1, max_size=max_batch))
    real = np.arange(n_keys) >= np.array(n_padding)[:, None]  # (B, S)
    if draw(st.booleans()):
        real = real[:, ::-1]
    return np.tri(n_queries, n_keys, n_keys - n_queries, dtype=bool) & real[:, None, None, :]  # (B, 1, T, S)


_PIECES = (
    "<|endoftext|>", "<|endoftext", "<s>", "</s>", "[PAD]", "[MASK]", "<pad>", "<unk>",
    "\0", "\r\n", "\r", "\n\n", "\t", " ", "   ", "\u00a0", "\u3000", "\ufeff", "\u2028",
    "it's", "I'LL", "3.14", "1234567", "naïve", "e\u0301", "\ufb01", "İstanbul", "ß",
    "שלום", "مرحبا", "\u202eabc\u202c", "\u200f", "日本語", "한국어", "हिन्दी",
    "🙂", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "\U0010ffff", "\ufffd", "\uffff",
)  # fmt: skip
_SURROGATES = ("\ud83d", "\ude42", "\ude42\ud83d", "\udc80")


def texts(*, surrogates: bool = True, max_pieces: int = 8) -> st.SearchStrategy[str]:
    """Texts that trip tokenizers and files: special-token strings, NUL, CRLF, right-to-left, emoji, combining marks.

    With `surrogates`, lone ones too: a str that is no Unicode text and has no UTF-8; `surrogates=False` can be encoded.
    """
    pieces = st.sampled_from(_PIECES) | st.text(st.characters(codec="utf-8"), max_size=5)
    if surrogates:
        pieces = pieces | st.sampled_from(_SURROGATES)
    return st.lists(pieces, max_size=max_pieces).map("".join)


def _shape(x: Any) -> Shape:
    """A shape as it is, or the shape of an array or tensor."""
    return tuple(getattr(x, "shape", x))


def _names(what: str, given: str | Sequence[str], known: tuple[str, ...]) -> list[str]:
    """The chosen names in the order of `known`, so that a choice shrinks to the plainest."""
    chosen = [given] if isinstance(given, str) else list(given)
    for name in chosen:
        if name not in known:
            raise ConfigError(f"strategies: {what} {name!r} is not one of {', '.join(known)}")
    return [name for name in known if name in chosen]
