"""Which token comes next: the choice between the scores that the model gives.

Each `keep_` function takes log-probabilities (B, V) and puts -inf where a token is out; what is left is scaled to sum to 1 again
by `log_softmax`. `Strategy` is their sum: all the options, and the order in which they are applied.

A choice is made in stages, each of which can be looked at: the generators here yield them, and what returns the last value only
(`adjust`, `distribution`, `sample_next`) runs the same generator to its end.

Letters in shape comments: B batch, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_number, check_options, is_integer, is_number
from ..errors import ConfigError, NonFiniteError


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (B, V) -> log-probabilities (B, V) in float64; a score of -inf stays -inf."""
    scores = scores - scores.max(-1, keepdims=True).astype(np.float64)
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


def keep_top_k(logprobs: np.ndarray, k: int) -> np.ndarray:
    """The k likeliest tokens, and those that tie with the k-th (Fan et al. 2018 §5.1.1; the book's chapter 5)."""
    k = min(k, logprobs.shape[-1])
    kth = np.partition(logprobs, -k, axis=-1)[:, -k, None]  # (B, 1)
    return np.where(logprobs < kth, -math.inf, logprobs)


def keep_top_p(logprobs: np.ndarray, p: float) -> np.ndarray:
    """The likeliest tokens until their probabilities reach p, the one that crosses p included (Holtzman et al. 2020 §3.1)."""
    return _keep_first(logprobs, np.argsort(-logprobs, axis=-1, kind="stable"), p)


def keep_min_p(logprobs: np.ndarray, p: float) -> np.ndarray:
    """The tokens at least p times as likely as the likeliest (Nguyen et al. 2024 §3)."""
    border = logprobs.max(-1, keepdims=True) + math.log(p) if p else -math.inf
    return np.where(logprobs < border, -math.inf, logprobs)


def keep_typical(logprobs: np.ndarray, p: float) -> np.ndarray:
    """The tokens whose surprise -log P is nearest to the entropy, until their probabilities reach p (Meister et al. 2023 §3)."""
    distance = np.abs(-logprobs - entropy(logprobs)[:, None])  # (B, V)
    return _keep_first(logprobs, np.argsort(distance, axis=-1, kind="stable"), p)


def _keep_first(logprobs: np.ndarray, order: np.ndarray, p: float) -> np.ndarray:
    """The first tokens of `order` (B, V) until their probabilities reach p."""
    probabilities = np.exp(np.take_along_axis(logprobs, order, -1))  # (B, V), in order
    before = np.cumsum(probabilities, -1) - probabilities
    ordered_out = np.concatenate([np.zeros((len(order), 1), bool), before[:, 1:] >= p], -1)  # the first always stays
    out = np.empty_like(ordered_out)
    np.put_along_axis(out, order, ordered_out, -1)
    return np.where(out, -math.inf, logprobs)


def entropy(logprobs: np.ndarray) -> np.ndarray:
    """-Σ P log P of each row, (B,), in nats; a token that cannot come adds nothing."""
    p = np.exp(logprobs)
    return -(p * np.where(p > 0, logprobs, 0)).sum(-1)


def penalize_repetition(scores: np.ndarray, text: Sequence[int], penalty: float) -> None:
    """Scores (V,) of the tokens in `text`, in place: divided by `penalty` where positive, else multiplied (Keskar et al. 2019
    §4.1)."""
    seen = np.unique(text)
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)


def penalize_counts(scores: np.ndarray, written: Sequence[int], frequency: float, presence: float) -> None:
    """Scores (V,) of the tokens written so far, in place: less `frequency` for each time, less `presence` once (OpenAI's API)."""
    seen, counts = np.unique(np.asarray(written, np.int64), return_counts=True)
    scores[seen] -= frequency * counts + presence


def ban_repeated_ngrams(scores: np.ndarray, text: Sequence[int], n: int) -> None:
    """-inf, in place, for every token that would complete an n-gram that `text` already has (Paulus et al. 2018 §2.5)."""
    if len(text) < n:
        return
    ngrams = np.lib.stride_tricks.sliding_window_view(np.asarray(text), n)  # (T - n + 1, n)
    begun = (ngrams[:, :-1] == np.asarray(text[len(text) - n + 1 :], np.int64)).all(-1)
    scores[ngrams[begun, -1]] = -math.inf


class Stage(NamedTuple):
    """What has become of the model's logits so far, on the way to a token for each row."""

    name: str  # "logits", then the options that are in use, by name, "cumulative", and in the end "draw", or "greedy" alone
    setting: Any  # of that option; of "draw", how far along the sums the random number fell, 0 to 1, (B,)
    values: (
        np.ndarray
    )  # scores (B, V); from "temperature" on log-probabilities; "cumulative" sums; in the end the ids (B,)


def _last(stages: Iterable[Stage], values: np.ndarray) -> np.ndarray:
    for stage in stages:
        values = stage.values
    return values


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Strategy:
    """How the next token is chosen: the options of `generate`, checked when it is made. ConfigError for one that cannot work.

    The scores of the model are changed in this order: `logit_bias` and penalties, `no_repeat_ngram`, `temperature`, `top_k`,
    `top_p`, `min_p`, `typical_p`. At temperature 0 the highest score wins, the lowest id among equals, so those after the bans
    make no difference.
    """

    temperature: float = _option(0.0, "0 takes the likeliest token each time, 1 the model's own odds")
    top_k: int | None = _option(None, "choose among this many likeliest tokens")
    top_p: float | None = _option(None, "choose among the likeliest tokens that together have this probability")
    min_p: float | None = _option(None, "leave out tokens less likely than this times the likeliest")
    typical_p: float | None = _option(None, "choose among the most typical tokens that together have this probability")
    repetition_penalty: float = _option(1.0, "above 1, tokens in the text so far become less likely")
    frequency_penalty: float = _option(0.0, "taken from a token's score for each time it was written")
    presence_penalty: float = _option(0.0, "taken from a token's score once it was written")
    no_repeat_ngram: int | None = _option(None, "never write a run of this many tokens a second time")
    logit_bias: Mapping[int, float] | None = _option(None, "id -> what is added to its score; -inf forbids it")

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature)
        for name in ("top_k", "no_repeat_ngram"):
            value = getattr(self, name)
            if value is not None and (not is_integer(value) or value < 1):
                raise ConfigError(f"{name} is {value!r}: it must be an integer of at least 1, or None to leave it out")
        for name in ("top_p", "min_p", "typical_p"):
            value = getattr(self, name)
            if value is not None and (not is_number(value) or not 0 < value <= 1):
                raise ConfigError(f"{name} is {value!r}: it must be above 0 and at most 1, or None to leave it out")
        if not is_number(self.repetition_penalty) or not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(
                f"repetition_penalty is {self.repetition_penalty!r}: it must be above 0; 1 changes nothing"
            )
        for name in ("frequency_penalty", "presence_penalty"):
            if not is_number(value := getattr(self, name)) or not math.isfinite(value):
                raise ConfigError(f"{name} is {value!r}: it must be a finite number; 0 changes nothing")
        for i, bias in (self.logit_bias or {}).items():
            if not is_integer(i) or i < 0 or not is_number(bias) or not bias < math.inf:
                raise ConfigError(f"logit_bias has {i!r}: {bias!r}: it must map ids to finite numbers or -inf")

    @classmethod
    def of(cls, **options: Any) -> Strategy:
        """The strategy of these options; ConfigError names one that does not exist, and the nearest that does."""
        check_options("generation", options, cls)
        return cls(**options)

    def adjust(self, logits: np.ndarray, texts: Sequence[Sequence[int]], n_prompt: Sequence[int]) -> np.ndarray:
        """Logits (B, V) with bias, penalties and bans; texts[b][: n_prompt[b]] is the prompt of row b, the rest was written."""
        return _last(self.adjust_stages(logits, texts, n_prompt), logits)

    def adjust_stages(
        self, logits: np.ndarray, texts: Sequence[Sequence[int]], n_prompt: Sequence[int]
    ) -> Iterator[Stage]:
        """The stages of `adjust`: none where no option asks for one."""
        scores = logits
        if self.logit_bias:
            scores = scores.astype(np.float64)  # each stage has numbers of its own
            for i, bias in self.logit_bias.items():
                scores[:, i] += bias
            yield Stage("logit_bias", self.logit_bias, scores)
        if self.repetition_penalty != 1:
            scores = scores.astype(np.float64)
            for row, text in zip(scores, texts, strict=True):
                penalize_repetition(row, text, self.repetition_penalty)
            yield Stage("repetition_penalty", self.repetition_penalty, scores)
        if self.frequency_penalty or self.presence_penalty:
            scores = scores.astype(np.float64)
            for row, text, start in zip(scores, texts, n_prompt, strict=True):
                penalize_counts(row, text[start:], self.frequency_penalty, self.presence_penalty)
            yield Stage("frequency_penalty, presence_penalty", (self.frequency_penalty, self.presence_penalty), scores)
        if self.no_repeat_ngram:
            scores = scores.astype(np.float64)
            for row, text in zip(scores, texts, strict=True):
                ban_repeated_ngrams(row, text, self.no_repeat_ngram)
            yield Stage("no_repeat_ngram", self.no_repeat_ngram, scores)

    def distribution(self, scores: np.ndarray) -> np.ndarray:
        """Adjusted scores (B, V) -> the log-probabilities (B, V) from which a token is drawn; of temperature 0, those of 1."""
        return _last(self.distribution_stages(scores), scores)

    def distribution_stages(self, scores: np.ndarray) -> Iterator[Stage]:
        """The stages of `distribution`: the temperature, and what then leaves tokens out."""
        logprobs = log_softmax(scores)
        if self.temperature not in (0, 1):
            with np.errstate(
                over="ignore"
            ):  # a difference divided by a temperature near 0 is -inf, and its probability 0
                logprobs = log_softmax((logprobs - logprobs.max(-1, keepdims=True)) / self.temperature)
        yield Stage("temperature", self.temperature, logprobs)
        if self.top_k is not None:
            logprobs = log_softmax(keep_top_k(logprobs, self.top_k))
            yield Stage("top_k", self.top_k, logprobs)
        for name, keep in (("top_p", keep_top_p), ("min_p", keep_min_p), ("typical_p", keep_typical)):
            p = getattr(self, name)
            if p is not None and (p < 1 or keep is keep_min_p):
                logprobs = log_softmax(keep(logprobs, p))
                yield Stage(name, p, logprobs)


def check_scores(scores: np.ndarray) -> None:
    """NonFiniteError where a row of scores (B, V) holds a NaN, +inf, or nothing but -inf."""
    highest = scores.max(-1)  # (B,)
    if not np.isfinite(highest).all():
        row = int(np.argmin(np.isfinite(highest)))
        raise NonFiniteError(
            f"generation: the highest score of row {row} is {highest[row]}: "
            + ("every token is forbidden" if highest[row] == -math.inf else "look for NaN or inf in the weights")
        )


def sample_next(scores: np.ndarray, strategy: Strategy, rng: np.random.Generator | None = None) -> np.ndarray:
    """Adjusted scores (B, V) -> token ids (B,), int64. NonFiniteError as in `check_scores`."""
    return _last(choice_stages(scores, strategy, rng), scores)


def choice_stages(scores: np.ndarray, strategy: Strategy, rng: np.random.Generator | None = None) -> Iterator[Stage]:
    """The stages of `sample_next`: those of the distribution, and the draw from it."""
    check_scores(scores)
    if strategy.temperature == 0:
        yield Stage("greedy", None, scores.argmax(-1))  # (B,)
        return
    if rng is None:
        raise ConfigError(
            f"temperature is {strategy.temperature} and there is no rng to draw from: pass rng=generator.spawn()"
        )
    logprobs = scores
    for stage in strategy.distribution_stages(scores):
        yield stage
        logprobs = stage.values  # (B, V)
    # Inverse of the cumulative distribution, in float64 and never normalised: nothing has to sum to 1.
    cumulative = np.exp(logprobs).cumsum(-1)  # (B, V)
    yield Stage("cumulative", None, cumulative)
    u = rng.random((len(scores), 1))  # (B, 1)
    below = cumulative <= u * cumulative[:, -1:]  # (B, V), up to the first id whose sum exceeds that share of the total
    yield Stage("draw", u[:, 0], below.sum(-1))
