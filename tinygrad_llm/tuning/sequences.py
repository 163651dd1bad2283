"""What the losses of feedback are made of: log-probabilities of tokens, and how far apart two models are on them.

Everything takes arrays or Tensors; what comes back is a Tensor where an argument of it has a graph.

Letters in shape comments: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..checks import check_number
from ..engine import Tensor
from ..errors import ConfigError, DataError, DTypeError, NonFiniteError, ShapeError
from ..nn import Module
from ..ops import cross_entropy, log_softmax

Numbers = Tensor | np.ndarray


def token_logprobs(model: Module, ids: Any, temperature: float = 1.0) -> Tensor:
    """log π(ids[t + 1] | ids[: t + 1]), (B, T - 1), of token ids (B, T), differentiable in the model's weights.

    The logits are divided by `temperature`, which must be the one that the tokens were drawn at: otherwise the model that drew
    them seems to be another one, and the KL between the two negative. TRL divides by temperature + 1e-7. DataError for less than
    two tokens; else as the model.
    """
    ids = np.asarray(ids)
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise DataError(f"token_logprobs: ids have shape {ids.shape}: they must be (rows, tokens), two tokens or more")
    temperature = check_number("token_logprobs: temperature", temperature)
    if temperature == 0:
        raise ConfigError("token_logprobs: temperature is 0, at which one token has all the probability: use 1")
    logits = model(ids[:, :-1])  # (B, T - 1, V)
    if temperature != 1:
        logits = logits / temperature
    return -cross_entropy(logits, targets=ids[:, 1:], reduction="none")


def entropy(logits: Numbers) -> np.ndarray:
    """H = -Σ_v p_v log p_v in nats, p = softmax(logits): (..., V) -> (...), an array without a graph."""
    log_p = log_softmax(numbers("entropy: logits", logits)).data
    return -(np.exp(log_p) * np.where(log_p == -math.inf, 0, log_p)).sum(-1)


# ---- KL(π ‖ ref) of tokens that π drew, estimated by their log-probabilities alone (Schulman 2020, joschu.net/blog/kl-approx)


def k1(logprobs: Any, ref_logprobs: Any) -> Any:
    """log π - log ref: unbiased; negative for half of the tokens of two models that are alike."""
    return logprobs - ref_logprobs


def k2(logprobs: Any, ref_logprobs: Any) -> Any:
    """(log π - log ref)² / 2: never negative, biased; its gradient, unlike that of k1, is that of the KL."""
    difference = logprobs - ref_logprobs
    return 0.5 * difference * difference


def k3(logprobs: Any, ref_logprobs: Any) -> Any:
    """ref/π - 1 - log(ref/π): never negative, and unbiased. Infinite where ref/π is (e^709; in float32 e^88)."""
    difference = ref_logprobs - logprobs
    return np.exp(difference) - 1 - difference


ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


# ---- checks of arrays


def numbers(name: str, x: Any) -> np.ndarray:
    """`x` as an array of floats, off the tape."""
    if isinstance(x, Tensor):
        return x.data
    try:
        array = np.asarray(x)
    except ValueError:
        raise ShapeError(f"{name}: its rows are of unequal length: fill them up to one length") from None
    if array.dtype.kind in "biu":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise DTypeError(f"{name} is an array of {array.dtype}: it must be one of numbers")
    return array


def tensors(where: str, **given: Any) -> list[Tensor]:
    """Tensors as they are; arrays become Tensors of the same dtype, as they do in an op."""
    dtypes = [x.dtype for x in given.values() if isinstance(x, Tensor)]
    made = []
    for name, x in given.items():
        if not isinstance(x, Tensor):
            array = numbers(f"{where}: {name}", x)
            x = Tensor(array.astype(dtypes[0]) if dtypes else array)
        made.append(x)
    return made


def check_shapes(where: str, ndim: int, **arrays: Numbers) -> None:
    """Refuse arrays that are not all of one shape, with `ndim` axes and something in them."""
    first, shape = next((name, array.shape) for name, array in arrays.items())
    if len(shape) != ndim or 0 in shape:
        axes = {1: "(rows,)", 2: "(rows, tokens)"}[ndim]
        raise ShapeError(f"{where}: {first} is {shape}: it must be {axes}, and not empty")
    for name, array in arrays.items():
        if array.shape != shape:
            raise ShapeError(f"{where}: {name} is {array.shape}, {first} is {shape}: they must be equal")


def check_finite(name: str, array: np.ndarray, where: Any = True) -> None:
    """Refuse NaN and infinities, of those numbers that count."""
    wrong = ~np.isfinite(array) & where
    if wrong.any():
        index = tuple(map(int, np.argwhere(wrong)[0]))
        raise NonFiniteError(f"{name}{list(index)} is {array[index]}: it must be finite")


def check_mask(where: str, mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The mask (B, T) as booleans: which tokens count, of which there must be some."""
    array = numbers(f"{where}: mask", mask)
    if array.shape != shape:
        raise ShapeError(f"{where}: mask is {array.shape}, the tokens are {shape}: they must be equal")
    if not np.isin(array, (0, 1)).all():
        raise DataError(f"{where}: mask holds numbers other than 0 and 1: pass which tokens count, not what they weigh")
    if not array.any():
        raise DataError(f"{where}: mask is 0 everywhere, so no token counts: leave out a batch without answers")
    return array != 0
