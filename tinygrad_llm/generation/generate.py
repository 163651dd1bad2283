"""The loop that writes: predict, choose, append, again (the book's chapter 5).

Letters in shape comments: B rows of the batch, T tokens of the longest prompt, N new tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..checks import check_integer
from ..engine import no_grad
from ..errors import ConfigError, ContextLengthError, DataError, TinygradLLMError
from ..nn.module import Mode, evaluating
from ..nn.state import State
from ..ops.matrix import check_ids
from ..rng import Generator, get_generator
from .sampling import Stage, Strategy, choice_stages, log_softmax


class Writer(Mode, Protocol):
    """What generation asks of: a LanguageModel, or a decoder in front of its sources, one for each row of a batch."""

    config: Any
    n_rows: int | None  # how many texts it writes at once; None: as many as one likes

    def make_state(self, batch_size: int = 1, capacity: int | None = None) -> State: ...
    def of_rows(self, rows: Sequence[int]) -> Writer: ...
    def __call__(self, ids: Any, *, state: Any = None, last_only: bool = False) -> Any: ...


def generate(
    model: Writer,
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

    The model sees the last `context_length` tokens. Until the context is full, a state spares it reading them again; after that
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
    model: Writer,
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
    stages = explain_tokens(
        model,
        ids,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        stop_ids=stop_ids,
        overflow=overflow,
        use_cache=use_cache,
        rng=rng,
        **options,
    )
    return (stage for stage in stages if isinstance(stage, Step))


def explain_tokens(
    model: Writer,
    ids: Any,
    max_new_tokens: int = 1,
    *,
    stop_ids: Sequence[int] = (),
    overflow: str = "crop",
    use_cache: bool = True,
    rng: Generator | None = None,
    **options: Any,
) -> Iterator[Stage | Step]:
    """How each token is chosen, a Stage at a time, and after its last Stage the Step that `stream_tokens` gives.

    for stage in explain_tokens(model, [[464, 3797]], temperature=0.8, top_k=25):
        ...                                       # logits, temperature, top_k, cumulative, draw; then the Step

    `generate` and `stream_tokens` run this same loop, so that it can be followed through any text; options as there.
    """
    strategy = Strategy.of(**options)
    rows = check_prompts(model, ids, max_new_tokens, overflow)
    stops = frozenset(check_ids(np.asarray(stop_ids), model.config.vocab_size, "stop_ids").tolist())
    check_ids(np.array(list(strategy.logit_bias or ()), np.int64), model.config.vocab_size, "logit_bias")
    return _explain(Predictor(model, use_cache), rows, max_new_tokens, strategy, stops, rng)


def _explain(
    predict: Predictor,
    rows: list[list[int]],
    max_new_tokens: int,
    strategy: Strategy,
    stops: frozenset[int],
    rng: Generator | None,
) -> Iterator[Stage | Step]:
    draws = None if strategy.temperature == 0 or not max_new_tokens else (rng or get_generator()).spawn()
    n_prompt = [len(row) for row in rows]
    running = list(range(len(rows)))
    for _ in range(max_new_tokens):
        texts = [rows[i] for i in running]
        scores = logits = predict(texts)  # (R, V)
        yield Stage("logits", None, logits)
        for stage in strategy.adjust_stages(logits, texts, [n_prompt[i] for i in running]):
            yield stage
            scores = stage.values  # (R, V)
        for stage in choice_stages(scores, strategy, draws):
            yield stage
            chosen = stage.values  # in the end (R,)
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
    """The logits (B, V) of the token after each text, with a state: each call has the texts of the one before, a token longer."""

    def __init__(self, model: Writer, use_cache: bool = True) -> None:
        self.model, self.use_cache = model, use_cache
        self.state: State | None = None
        self.rows: list[int] | None = None  # which rows of the first call the texts are

    def __call__(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        limit = self.model.config.context_length or sys.maxsize
        self.rows = [*range(len(texts))] if self.rows is None else self.rows
        with evaluating(self.model), no_grad():
            if not self.use_cache or max(map(len, texts)) > limit:
                self.state = None
                return self._read([text[-limit:] for text in texts], keep=False)
            if self.state is None:
                return self._read(texts, keep=True)
            ids = np.array([[text[-1]] for text in texts])  # (B, 1)
            return self.model(ids, state=self.state, last_only=True).data[:, 0]

    def _read(self, texts: Sequence[Sequence[int]], keep: bool) -> np.ndarray:
        """All texts of one length in one pass, so that there is no padding; with `keep`, into the state."""
        order: list[int] = []
        parts: list[np.ndarray] = []
        for length in sorted(set(map(len, texts))):
            rows = [i for i, text in enumerate(texts) if len(text) == length]
            model = self.model.of_rows([(self.rows or rows)[i] for i in rows])
            state = model.make_state(len(rows)) if keep else None
            ids = np.array([texts[i] for i in rows])  # (b, T)
            parts.append(model(ids, state=state, last_only=True).data[:, 0])  # (b, V)
            order += rows
            if self.state is None:
                self.state = state
            else:
                self.state.append(state)
        back = np.argsort(order)
        if len(parts) > 1 and self.state is not None:
            self.state.select(back.tolist())
        return np.concatenate(parts)[back]

    def select(self, rows: Sequence[int]) -> None:
        """The next call has these of the texts, in this order."""
        self.rows = [self.rows[i] for i in rows] if self.rows else None
        if self.state is not None:
            self.state.select(rows)


def token_logprobs(model: Writer, ids: Any) -> np.ndarray:
    """The log-probability of every token but the first, given those before it: ids (T,) -> (T - 1,), float64, in nats."""
    ids = check_ids(ids, model.config.vocab_size, "token_logprobs")
    limit = model.config.context_length or sys.maxsize - 1
    if ids.ndim != 1 or not 2 <= len(ids) <= limit + 1:
        raise ContextLengthError(
            f"token_logprobs: ids are {ids.shape}: they must be one row of 2 to {limit + 1} tokens"
        )
    with evaluating(model), no_grad():
        logits = model(ids[None, :-1]).data[0]  # (T - 1, V)
    return log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]


def check_prompts(model: Writer, ids: Any, max_new_tokens: int, overflow: str) -> list[list[int]]:
    """The prompts as lists of Python integers, or an error that says which is wrong."""
    check_integer("max_new_tokens", max_new_tokens, least=0)
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
    if model.n_rows not in (None, len(rows)):
        raise DataError(
            f"generate: {len(rows)} rows for {model.n_rows} sources: pass what begins the target of each source"
        )
    longest = max(map(len, rows))
    context_length = model.config.context_length or sys.maxsize
    if overflow == "error" and longest + max_new_tokens > context_length:
        raise ContextLengthError(
            f"generate: {longest} tokens and {max_new_tokens} new ones, the context length is {context_length}: "
            "write fewer, or pass overflow='crop' to go on with the last of them"
        )
    return rows
