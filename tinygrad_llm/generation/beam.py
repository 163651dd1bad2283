"""Beam search: not the likeliest token each time, but the likeliest text among those that are followed (Graves 2012).

Letters in shape comments: K beams, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_number, check_size
from ..errors import ConfigError
from ..nn.module import evaluating
from ..ops.matrix import check_ids
from .generate import Predictor, Writer, check_prompts
from .sampling import check_scores, log_softmax


class Hypothesis(NamedTuple):
    """A text that beam search found, without the prompt and without the stop id that ended it."""

    ids: list[int]
    logprob: float  # of all its tokens, the stop id included, in nats
    score: float  # logprob over the length penalty
    ended: bool  # by a stop id


def beam_search(
    model: Writer,
    ids: Any,
    max_new_tokens: int,
    n_beams: int,
    *,
    length_penalty: float = 0.0,
    penalty: str = "gnmt",
    stop_ids: Sequence[int] = (),
    overflow: str = "crop",
    use_cache: bool = True,
) -> list[Hypothesis]:
    """The `n_beams` best continuations of one prompt (T,) that the search finds, the best first; deterministic.

    At each step the `n_beams` likeliest continuations of all beams go on; of those that end in one of `stop_ids`, the best are
    set aside. A text Y of |Y| tokens, the stop id counted and the prompt not, scores log P(Y) / ((5 + |Y|) / 6)^length_penalty
    (Wu et al. 2016 §7): a penalty of 0 prefers short texts, 1 weighs the tokens nearly alike. The search is over when no beam
    can become better than the worst text set aside.

    With `penalty="hf"` it is the search of transformers (early_stopping=False): a text scores log P(Y) / |Y|^length_penalty; it
    is set aside only if it is one of the `n_beams` likeliest of all continuations, those that go on among them; and the search
    is over when the best beam, by its score at its present length, is no better than the worst of `n_beams` texts set aside,
    though it might become so.
    """
    if penalty not in ("gnmt", "hf"):
        raise ConfigError(f"beam_search: penalty is {penalty!r:.80}: use 'gnmt' or 'hf'")
    as_hf = penalty == "hf"

    def divisor(n: int) -> float:
        return (n if as_hf else (5 + n) / 6) ** length_penalty

    check_size("beam_search", n_beams=n_beams)
    check_number("beam_search: length_penalty", length_penalty)
    (prompt,) = check_prompts(model, [ids], max_new_tokens, overflow)
    stops = check_ids(np.asarray(stop_ids), model.config.vocab_size, "stop_ids")
    predict = Predictor(model, use_cache)
    beams: list[list[int]] = [[]]
    totals = np.zeros(1)  # (K,) log-probabilities
    best: list[Hypothesis] = []
    with evaluating(model):
        for n in range(1, max_new_tokens + 1):
            logits = predict([prompt + beam for beam in beams])  # (K, V)
            check_scores(logits)
            logprobs = totals[:, None] + log_softmax(logits)
            order = _largest(logprobs.ravel(), n_beams * (1 + len(stops)))
            sources, tokens = np.unravel_index(order, logprobs.shape)
            stopped = np.isin(tokens, stops)
            ending = stopped & (np.arange(len(stopped)) < n_beams) if as_hf else stopped
            for k, i in zip(sources[ending], tokens[ending], strict=True):
                logprob = float(logprobs[k, i])
                best.append(Hypothesis(beams[k], logprob, logprob / divisor(n), True))
            best = sorted(best, key=lambda hypothesis: -hypothesis.score)[:n_beams]
            sources, tokens = sources[~stopped][:n_beams], tokens[~stopped][:n_beams]
            beams = [[*beams[k], int(i)] for k, i in zip(sources, tokens, strict=True)]
            totals = logprobs[sources, tokens]
            # a log-probability only falls, and its divisor grows no further than that of the longest text
            highest = divisor(n if as_hf else max_new_tokens)
            if not beams or (len(best) == n_beams and best[-1].score >= totals[0] / highest):
                return best
            predict.select(sources.tolist())
    longest = divisor(max(max_new_tokens, 1))
    best += [
        Hypothesis(beam, float(total), float(total / longest), False) for beam, total in zip(beams, totals, strict=True)
    ]
    return sorted(best, key=lambda hypothesis: -hypothesis.score)[:n_beams]


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """Where the n largest are, in order, the first of equals first: a stable sort of those that may be among them."""
    least = np.partition(values, -min(n, values.size))[-min(n, values.size)]
    near = np.flatnonzero(values >= least)
    return near[np.argsort(-values[near], kind="stable")][:n]
