"""Zero-shot and few-shot (Radford et al. 2019 §3, Brown et al. 2020 §2): a task put as text that a language model goes on from.

template = "Question: {question}\nAnswer: {answer}"
prompt = few_shot(template, [{"question": "2 + 2?", "answer": "4"}], {"question": "3 + 3?"})
choose(model, tokenizer, prompt, [" 5", " 6"])                      # 0 or 1
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import ConfigError, ContextLengthError, DataError
from ..models import LanguageModel
from ..text import Tokenizer
from .generate import token_logprobs


def fill(template: str, values: Mapping[str, str | None]) -> str:
    """The template with each `{name}` replaced, once, by its value: braces in values stay as they are.

    ConfigError for a name without a value. The template is cut off, without the white space before, at the first name whose
    value is None: that is for the model to write.
    """
    parts: list[str] = []
    end = 0
    for name in re.finditer(r"\{(\w+)\}", template):
        if name[1] not in values:
            raise ConfigError(
                f"the template asks for {{{name[1]}}}, there are values for {', '.join(values) or 'nothing'}"
            )
        parts.append(template[end : name.start()])
        value = values[name[1]]
        if value is None:
            return "".join(parts).rstrip()
        parts.append(value)
        end = name.end()
    return "".join(parts) + template[end:]


def few_shot(
    template: str, examples: Sequence[Mapping[str, str]], question: Mapping[str, str | None], separator: str = "\n\n"
) -> str:
    """Filled-in examples, then the question up to the name it has no value for; without examples it is zero-shot."""
    names: dict[str, None] = dict.fromkeys(re.findall(r"\{(\w+)\}", template))
    return separator.join([*(fill(template, example) for example in examples), fill(template, {**names, **question})])


def continuation_logprobs(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, continuations: Sequence[str]
) -> list[np.ndarray]:
    """The log-probabilities of the tokens of each continuation after `prompt`, in nats.

    A continuation is encoded by itself (`encode_continuation`) and so carries the space it begins with. Of a prompt too long for
    the context, the end counts. DataError for an empty prompt or continuation, ContextLengthError for a continuation longer than
    the context.
    """
    prompt_ids = tokenizer.encode_prompt(prompt)
    context_length = model.config.context_length or sys.maxsize - 1
    logprobs = []
    for continuation in continuations:
        ids = tokenizer.encode_continuation(continuation)
        if not prompt or not ids:
            raise DataError(f"prompt {prompt!r:.60}, continuation {continuation!r:.60}: neither may be empty")
        if len(ids) > context_length:
            raise ContextLengthError(
                f"continuation {continuation!r:.60} is {len(ids)} tokens, the context length is {context_length}"
            )
        window = (prompt_ids + ids)[-context_length - 1 :]
        logprobs.append(token_logprobs(model, window)[-len(ids) :])
    return logprobs


def choose(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, choices: Sequence[str], per_byte: bool = False
) -> int:
    """Which of the choices the model finds likeliest after `prompt`; the first among equals.

    The log-probabilities of a choice's tokens are added up; with `per_byte` the sum is divided by its length in bytes, so that
    long choices are not at a disadvantage (Brown et al. 2020 §2.4 divide by tokens, which depends on the tokenizer).
    """
    totals = [logprobs.sum() for logprobs in continuation_logprobs(model, tokenizer, prompt, choices)]
    if not totals:
        raise DataError("choose: there are no choices")
    return int(np.argmax([t / len(c.encode()) if per_byte else t for t, c in zip(totals, choices, strict=True)]))
