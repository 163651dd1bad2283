"""Answers that a policy draws to prompts, and what models say of each of their tokens.

drawn = roll_out(policy, tokenizer, template, prompts, max_new_tokens=36, rng=generator.spawn())
drawn.answers                                          # texts
token_values(lambda ids: token_logprobs(reference, ids).data, drawn.ids)    # (B, T), under another model

Letters in shape comments: B answers, T tokens but the first, R rows still under way, V vocabulary.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import parallel
from ..engine import no_grad
from ..errors import ContextLengthError
from ..generation.generate import Predictor
from ..generation.sampling import Strategy, log_softmax, sample_next
from ..models import LanguageModel
from ..nn.module import evaluating
from ..text import Tokenizer
from ..text.templates import Message, Template

_AT_ONCE = 32  # rows of a forward


@dataclass(frozen=True, eq=False)
class Rollouts:
    """B prompts with an answer each. A token t of T is ids[:, t + 1]: what the model said after reading ids[:, : t + 1]."""

    prompts: list[list[Message]]
    answers: list[str]  # without their end
    ids: np.ndarray  # (B, T + 1) int64: the prompt, the answer, the end if it was drawn, then that again and again
    mask: np.ndarray  # (B, T) bool: the tokens that were drawn
    sampled: np.ndarray  # (B, T) float64: their log-probabilities under the policy, else 0
    ended: np.ndarray  # (B,) bool: whether the end was drawn

    @property
    def last(self) -> np.ndarray:
        """(B,): the last token that was drawn."""
        return self.mask.shape[1] - 1 - self.mask[:, ::-1].argmax(1)

    @property
    def lengths(self) -> np.ndarray:
        """(B,): tokens that were drawn."""
        return self.mask.sum(1)


def roll_out(
    policy: LanguageModel,
    tokenizer: Tokenizer,
    template: Template,
    prompts: Sequence[Sequence[Message]],
    max_new_tokens: int,
    temperature: float = 1.0,
    *,
    rng: np.random.Generator,
) -> Rollouts:
    """Draw an answer to each prompt, whose last message is a user's, up to the template's end or `max_new_tokens`.

    The distribution is that of the logits divided by `temperature`, nothing else: what learns from the answers has to be able to
    say how likely each token was. Rows for which the tokenizer has no id are not drawn, and keep their share of it.
    ContextLengthError for a prompt that leaves no room for an answer.
    """
    texts = [template.encode(tokenizer, prompt, generation_prompt=True)[0] for prompt in prompts]
    starts, context = list(map(len, texts)), policy.config.context_length or sys.maxsize
    if max(starts) >= context:
        i = int(np.argmax(starts))
        raise ContextLengthError(f"prompt {i + 1} has {starts[i]} tokens, the model reads {context}: leave it out")
    end_id = template.end_id(tokenizer)
    draw = partial(
        _draw,
        policy,
        most=[min(start + max_new_tokens, context) for start in starts],
        end_id=end_id,
        never=[*tokenizer.unused_ids(policy.config.vocab_size)],
        strategy=Strategy(temperature=temperature),
    )
    # Parts with random numbers of their own, which threads share: as many as ever, whatever the number of threads.
    numbered = [*enumerate(texts)]
    parts = [numbered[i : i + _AT_ONCE] for i in range(0, len(texts), _AT_ONCE)]
    with parallel.threads(), evaluating(policy):
        drawn = parallel.spread(lambda part: draw(*part), list(zip(parts, rng.spawn(len(parts)), strict=True)))
    logprobs = [row for part in drawn for row in part]
    ids = np.full((len(texts), max(map(len, texts))), end_id, np.int64)  # (B, T + 1)
    mask, sampled = np.zeros((len(texts), ids.shape[1] - 1), bool), np.zeros((len(texts), ids.shape[1] - 1))
    answers, ended = [], np.zeros(len(texts), bool)
    for i, (text, start) in enumerate(zip(texts, starts, strict=True)):
        ids[i, : len(text)] = text
        mask[i, start - 1 : len(text) - 1] = True
        sampled[i, start - 1 : len(text) - 1] = logprobs[i]
        ended[i] = text[-1] == end_id
        answers.append("".join(tokenizer.decode_stream(text[start : len(text) - int(ended[i])])))
    return Rollouts([list(prompt) for prompt in prompts], answers, ids, mask, sampled, ended)


def _draw(
    policy: LanguageModel,
    part: list[tuple[int, list[int]]],
    rng: np.random.Generator,
    *,
    most: Sequence[int],
    end_id: int,
    never: list[int],
    strategy: Strategy,
) -> list[list[float]]:
    """Append to each text, which come with their numbers, what is drawn; the log-probabilities of that."""
    texts, logprobs = dict(part), {i: list[float]() for i, _ in part}
    predict, running = Predictor(policy), [*texts]
    while running:
        logits = predict([texts[i] for i in running])  # (R, V)
        distribution = log_softmax(logits / strategy.temperature) if strategy.temperature else np.zeros_like(logits)
        logits = logits.copy()
        logits[:, never] = -math.inf
        for k, new in enumerate(sample_next(logits, strategy, rng).tolist()):
            texts[running[k]].append(new)
            logprobs[running[k]].append(distribution[k, new])
        going_on = [k for k, i in enumerate(running) if texts[i][-1] != end_id and len(texts[i]) < most[i]]
        if going_on and len(going_on) < len(running):
            predict.select(going_on)
        running = [running[k] for k in going_on]
    return [*logprobs.values()]


def token_values(of: Callable[[np.ndarray], np.ndarray], ids: np.ndarray) -> np.ndarray:
    """What a function of ids (b, T + 1) gives for all rows (B, T + 1), a few at a time on all threads, off the tape."""
    parts = [ids[i : i + _AT_ONCE] for i in range(0, len(ids), _AT_ONCE)]
    with parallel.threads(sharing_rows=len(parts) == 1):
        return np.concatenate(parallel.spread(partial(_off_the_tape, of), parts))


def _off_the_tape(of: Callable[[np.ndarray], np.ndarray], ids: np.ndarray) -> np.ndarray:
    with no_grad():
        return of(ids)
