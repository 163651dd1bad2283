"""Text from text: generation with a tokenizer at both ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..errors import ConfigError, DataError
from ..models import LanguageModel
from ..text import Tokenizer
from .generate import Step, explain_tokens
from .sampling import Stage


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    *,
    stop: Sequence[str] = (),
    on_step: Callable[[Step], None] | None = None,
    on_stage: Callable[[Stage], None] | None = None,
    **options: Any,
) -> Iterator[str]:
    """The text that follows `prompt`, in pieces as they are written; a piece never ends within a character.

    The text ends before the first of the `stop` strings, wherever the borders of its tokens fall. `on_stage` is given each Stage
    of the choice of a token, `on_step` then the token's Step, before its text comes. `options` are those of `generate`. Special
    tokens in the prompt are plain text.
    """
    if prompt == "":
        raise DataError("the prompt is empty: the model needs at least one token to go on from")
    if isinstance(stop, str) or not all(isinstance(string, str) and string for string in stop):
        raise ConfigError(f"stop is {stop!r}: it must be a list of strings, none of them empty")
    if unused := tokenizer.unused_ids(model.config.vocab_size):  # a table longer than the vocabulary: never written
        options["logit_bias"] = {**dict(options.get("logit_bias") or ()), **dict.fromkeys(unused, -math.inf)}
    stages = explain_tokens(
        model, [tokenizer.encode_prompt(prompt)], max_new_tokens, temperature=temperature, top_k=top_k, **options
    )
    return before_stop(tokenizer.decode_stream(_ids(stages, on_step, on_stage)), stop)


def _ids(
    stages: Iterable[Stage | Step],
    on_step: Callable[[Step], None] | None,
    on_stage: Callable[[Stage], None] | None,
) -> Iterator[int]:
    for stage in stages:
        if isinstance(stage, Step):
            if on_step is not None:
                on_step(stage)
            yield int(stage.ids[0])
        elif on_stage is not None:
            on_stage(stage)


def before_stop(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """The pieces up to the stop string that is complete first, the longest of those that end there; text that may be the
    beginning of one is held back until the next piece shows whether it is.
    """
    text = ""
    for piece in pieces:
        text += piece
        ends = [(text.index(string) + len(string), -len(string)) for string in stop if string in text]
        if ends:
            end, minus_length = min(ends)
            if text[: end + minus_length]:
                yield text[: end + minus_length]
            return
        held = max((n for string in stop for n in range(1, len(string)) if text.endswith(string[:n])), default=0)
        if len(text) > held:
            yield text[: len(text) - held]
            text = text[len(text) - held :]
    if text:
        yield text
