"""The loop that writes: predict, choose, append, again (the book's chapter 5).

Letters in shape comments: B rows of the batch, T tokens of the longest prompt, N new tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine import no_grad
from ..errors import ConfigError, ContextLengthError, DataError, TinygradLLMError
from ..models.gpt import GPTModel
from ..nn import KVCache, Module
from ..ops.matrix import check_ids
from ..rng import Generator, get_generator
from .sampling import Strategy, log_softmax, sample_next


def generate(
    model: GPTModel,
    ids: Any,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    *,
    stop_ids: Sequence[int] = (),
    overflow: str = "crop",
    use_cache: bool = True,
    rng: Generator | None = None,
    **options: Any,
) -> np.ndarray:
    """Token ids (B, T) -> each row with up to `max_new_tokens` more, (B, T + N), int64.

    Prompts may have different lengths, as a list of lists. A row ends before the first of its `stop_ids`; rows that end early,
    or began shorter, are filled up with -1 at the end. Greedy at temperature 0, else drawn with random numbers from `rng` or
    the current generator; `options` are the other fields of `Strategy` (top_p, min_p, repetition_penalty, ...).

    The model sees the last `context_length` tokens. Until the context is full a KV cache spares it reading them again; after that
    each token of the window has a new position with every step, and the window is read anew, with or without `use_cache`. With
    overflow="error" a text that might become longer than the context is refused at once. Weights and mode are left as they were.
    """
    steps = stream_tokens(
        model,
        ids,
        max_new_tokens,
        temperature,
        top_k,
        stop_ids=stop_ids,
        overflow=overflow,
        use_cache=use_cache,
        rng=rng,
        **options,
    )
    rows = [np.asarray(prompt).tolist() for prompt in ids]
    with evaluating(model):
        for step in steps:
            for row, new in zip(rows, step.ids.tolist(), strict=True):
                if new >= 0:
                    row.append(new)
    out = np.full((len(rows), max(map(len, rows))), -1, np.int64)  # (B, T + N)
    for filled, row in zip(out, rows, strict=True):
        filled[: len(row)] = row
    return out


@dataclass(frozen=True)
class Step:
    """One token of every row, and what it was chosen from."""

    ids: np.ndarray  # (B,) int64, -1 for a row that has ended
    scores: np.ndarray  # (R, V), of the rows that had not ended before; after bias, penalties and bans
    logits: np.ndarray  # (R, V), the model's own
    strategy: Strategy
    running: tuple[int, ...]  # R, the rows that `scores` and `logits` are of

    @property
    def logprobs(self) -> np.ndarray:
        """The log-probability of each row's token, by the model alone, (B,) in nats; NaN for a row that has ended."""
        out = np.full(len(self.ids), np.nan)
        for row, logprobs in zip(self.running, log_softmax(self.logits), strict=True):
            if self.ids[row] >= 0:
                out[row] = logprobs[self.ids[row]]
        return out

    @property
    def distribution(self) -> np.ndarray:
        """The log-probabilities that the tokens were drawn from, (R, V)."""
        return self.strategy.distribution(self.scores)


def stream_tokens(
    model: GPTModel,
    ids: Any,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    *,
    stop_ids: Sequence[int] = (),
    overflow: str = "crop",
    use_cache: bool = True,
    rng: Generator | None = None,
    **options: Any,
) -> Iterator[Step]:
    """What `generate` appends, one Step at a time as it is chosen, until `max_new_tokens` are written or every row has ended."""
    strategy = Strategy.of(temperature=temperature, top_k=top_k, **options)
    rows = check_prompts(model, ids, max_new_tokens, overflow)
    stops = frozenset(check_ids(np.asarray(stop_ids), model.config.vocab_size, "stop_ids").tolist())
    check_ids(np.array(list(strategy.logit_bias or ()), np.int64), model.config.vocab_size, "logit_bias")
    return _stream(Predictor(model, use_cache), rows, max_new_tokens, strategy, stops, rng)


def _stream(
    predict: Predictor,
    rows: list[list[int]],
    max_new_tokens: int,
    strategy: Strategy,
    stops: frozenset[int],
    rng: Generator | None,
) -> Iterator[Step]:
    draws = None if strategy.temperature == 0 or not max_new_tokens else (rng or get_generator()).spawn()
    n_prompt = [len(row) for row in rows]
    running = list(range(len(rows)))
    for _ in range(max_new_tokens):
        texts = [rows[i] for i in running]
        logits = predict(texts)  # (R, V)
        scores = strategy.adjust(logits, texts, [n_prompt[i] for i in running])
        chosen = sample_next(scores, strategy, draws)  # (R,)
        ids = np.full(len(rows), -1)  # (B,)
        going_on = [k for k, new in enumerate(chosen.tolist()) if new not in stops]
        for k in going_on:
            ids[running[k]] = chosen[k]
            texts[k].append(int(chosen[k]))
        if not going_on:
            return
        yield Step(ids, scores, logits, strategy, tuple(running))
        if len(going_on) < len(running):
            predict.select(going_on)
            running = [running[k] for k in going_on]


class Predictor:
    """The logits (B, V) of the token after each text, with a cache: each call has the texts of the one before, a token longer."""

    def __init__(self, model: GPTModel, use_cache: bool = True) -> None:
        self.model, self.use_cache = model, use_cache
        self.cache: KVCache | None = None

    def __call__(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        context_length = self.model.config.context_length
        longest = max(map(len, texts))
        with evaluating(self.model), no_grad():
            if not self.use_cache or longest > context_length:
                return self._read_anew([text[-context_length:] for text in texts])
            if self.cache is not None and self.cache.length == self.cache.capacity:
                self.cache = None  # the longest text has ended: those that go on fit in with less padding
            if self.cache is None:
                padding = [longest - len(text) for text in texts]
                self.cache = self.model.make_cache(len(texts), padding=padding)
                ids = np.array([[0] * n + list(text) for n, text in zip(padding, texts, strict=True)])  # (B, T)
            else:
                ids = np.array([[text[-1]] for text in texts])  # (B, 1)
            return self.model(ids, cache=self.cache, last_only=True).data[:, 0]

    def _read_anew(self, windows: list[Sequence[int]]) -> np.ndarray:
        """All windows of one length in one pass, and no padding."""
        logits = np.empty((len(windows), self.model.config.vocab_size), self.model.out_head.weight.dtype)
        for length in {len(window) for window in windows}:
            same = [i for i, window in enumerate(windows) if len(window) == length]
            ids = np.array([windows[i] for i in same])  # (b, T)
            logits[same] = self.model(ids, last_only=True).data[:, 0]
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """The next call has these of the texts, in this order."""
        if self.cache is not None:
            self.cache.select(rows)


def token_logprobs(model: GPTModel, ids: Any) -> np.ndarray:
    """The log-probability of every token but the first, given those before it: ids (T,) -> (T - 1,), float64, in nats."""
    ids = check_ids(ids, model.config.vocab_size, "token_logprobs")
    if ids.ndim != 1 or not 2 <= len(ids) <= model.config.context_length + 1:
        raise ContextLengthError(
            f"token_logprobs: ids are {ids.shape}: they must be one row of 2 to {model.config.context_length + 1} tokens"
        )
    with evaluating(model), no_grad():
        logits = model(ids[None, :-1]).data[0]  # (T - 1, V)
    return log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]


def check_prompts(model: GPTModel, ids: Any, max_new_tokens: int, overflow: str) -> list[list[int]]:
    """The prompts as lists of Python integers, or an error that says which is wrong."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, (int, np.integer)) or max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens is {max_new_tokens!r}: it must be an integer, 0 or more")
    if overflow not in ("crop", "error"):
        raise ConfigError(f"overflow is {overflow!r}: use 'crop' or 'error'")
    try:
        arrays = [check_ids(row, model.config.vocab_size, f"generate, row {i}") for i, row in enumerate(ids)]
    except TypeError as error:
        if isinstance(error, TinygradLLMError):
            raise
        raise DataError(f"generate: ids are a {type(ids).__name__}: they must be (batch, tokens)") from None
    if not arrays or any(row.ndim != 1 or row.size == 0 for row in arrays):
        raise DataError(
            f"generate: rows of ids have shapes {', '.join(str(row.shape) for row in arrays) or 'of nothing'}: ids must be "
            "(batch, tokens), with at least one token in each row"
        )
    rows = [row.tolist() for row in arrays]
    longest = max(map(len, rows))
    context_length = model.config.context_length
    if overflow == "error" and longest + max_new_tokens > context_length:
        raise ContextLengthError(
            f"generate: {longest} tokens and {max_new_tokens} new ones, the context length is {context_length}: "
            "write fewer, or pass overflow='crop' to go on with the last of them"
        )
    return rows


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode: without dropout."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
