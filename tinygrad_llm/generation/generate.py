"""The loop that writes: predict, choose, append, again (the book's chapter 5).

Letters in shape comments: B batch, T tokens so far, N new tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..engine import no_grad
from ..errors import ConfigError, DataError
from ..models.gpt import GPTModel
from ..ops.linear import check_ids
from ..rng import Generator, get_generator
from ..text import Tokenizer
from .sampling import check_sampling, sample_next


def generate(
    model: GPTModel,
    ids: Any,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    *,
    rng: Generator | None = None,
) -> np.ndarray:
    """Token ids (B, T) -> the same with `max_new_tokens` more after each row, (B, T + N), int64.

    Greedy at temperature 0, else drawn as `sample_next` says, with random numbers from `rng` or the current generator.
    The model sees the last `context_length` tokens. Its weights and mode are left as they were.
    """
    new = [next_ids[:, None] for next_ids in stream_tokens(model, ids, max_new_tokens, temperature, top_k, rng=rng)]
    return np.concatenate([np.asarray(ids, np.int64), *new], axis=1)  # (B, T + N)


def stream_tokens(
    model: GPTModel,
    ids: Any,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    *,
    rng: Generator | None = None,
) -> Iterator[np.ndarray]:
    """What `generate` appends, one column at a time as it is chosen: `max_new_tokens` arrays (B,)."""
    check_sampling(temperature, top_k)
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, (int, np.integer)) or max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens is {max_new_tokens!r}: it must be an integer, 0 or more")
    ids = check_ids(ids, model.config.vocab_size, "generate")
    if ids.ndim != 2 or ids.size == 0:
        raise DataError(f"generate: ids have shape {ids.shape}: they must be (batch, tokens), with at least one token")
    return _stream(model, ids, max_new_tokens, temperature, top_k, rng)


def _stream(model, ids, max_new_tokens, temperature, top_k, rng) -> Iterator[np.ndarray]:
    draws = None if temperature == 0 else (rng or get_generator()).spawn()
    for _ in range(max_new_tokens):
        training = model.training
        model.eval()
        try:
            with no_grad():
                logits = model(ids[:, -model.config.context_length :])  # (B, T, V)
        finally:
            model.train(training)
        next_ids = sample_next(logits.data[:, -1], temperature, top_k, rng=draws)  # (B,)
        ids = np.concatenate([ids, next_ids[:, None]], axis=1)  # (B, T + 1)
        yield next_ids


def stream_text(
    model: GPTModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    *,
    rng: Generator | None = None,
) -> Iterator[str]:
    """The text that follows `prompt`, in pieces as they are written; a piece never ends within a character."""
    if prompt == "":
        raise DataError("the prompt is empty: the model needs at least one token to go on from")
    ids = [tokenizer.encode(prompt)]  # (1, T)
    new = stream_tokens(model, ids, max_new_tokens, temperature, top_k, rng=rng)
    return tokenizer.decode_stream(int(next_ids[0]) for next_ids in new)
