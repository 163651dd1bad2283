"""An assistant at work: a model, its tokenizer, and the template in which it was taught to answer.

assistant = Assistant.load("runs/lessons")
assistant.answer([{"role": "user", "content": "Spell: lantern"}])         # "l-a-n-t-e-r-n"
for piece in assistant.stream(messages, temperature=0.7): ...
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, ContextLengthError
from ..files import replace_file, storing
from ..generation.generate import Step, generate, stream_tokens
from ..generation.sampling import log_softmax
from ..models import LanguageModel
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config
from ..text import Tokenizer
from ..text.conversations import read_conversations
from ..text.templates import TEMPLATES, Message, Template
from ..weights.load import load_with_tokenizer

_BATCH = 32
_LEAST_ROOM = 16  # tokens that are kept free for an answer


def write_answers(
    model: LanguageModel,
    tokenizer: Tokenizer,
    template: Template,
    conversations: Sequence[Sequence[Message]],
    max_new_tokens: int,
    **options: Any,
) -> list[str]:
    """The likeliest answer to each conversation, whose last message is a user's, up to the template's end or `max_new_tokens`.

    `options` are those of `generate`: with temperature=1.0 and an rng, answers are drawn.
    """
    rows = [template.encode(tokenizer, messages, generation_prompt=True)[0] for messages in conversations]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    options["logit_bias"] = _never_written(model, tokenizer) | dict(options.get("logit_bias") or ())
    answers = [""] * len(rows)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        stop_ids = [template.end_id(tokenizer)]
        prompts = [rows[i] for i in chosen]
        written = generate(model, prompts, max_new_tokens, stop_ids=stop_ids, **options)
        for i, prompt, row in zip(chosen, prompts, written.tolist(), strict=True):
            answers[i] = "".join(tokenizer.decode_stream(j for j in row[len(prompt) :] if j >= 0))
    return answers


def _never_written(model: LanguageModel, tokenizer: Tokenizer) -> dict[int, float]:
    """The ids of a longer table that stand for nothing."""
    return dict.fromkeys(tokenizer.unused_ids(model.config.vocab_size), -math.inf)


@dataclass(frozen=True)
class Assistant:
    """A model that answers messages."""

    model: LanguageModel
    tokenizer: Tokenizer
    template: Template

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        checkpoint: str | int | None = None,
        adapter: str | os.PathLike[str] | None = None,
        template: str | None = None,
    ) -> Assistant:
        """From a run of `instruct`, which knows its template; other weights need the name of one. ConfigError without one."""
        found = find_run(path, checkpoint)
        config = load_config(found[0]) if found else {}
        if template is not None:
            chosen = template_named(template)
        elif found and "template" in config:
            with naming(found[0] / CONFIG_FILE):
                chosen = Template.from_dict(config["template"])
        else:
            raise ConfigError(
                f"{path}: not a run of instruct, so it knows no template: name one ({', '.join(TEMPLATES)}), or teach it first"
            )
        model, tokenizer = load_with_tokenizer(path, checkpoint, adapter)
        chosen.end_id(tokenizer)  # TokenizerError now if it lacks the marks
        return cls(model, tokenizer, chosen)

    def room(self, messages: Sequence[Message]) -> float:
        """The tokens that are left of the context for an answer to messages."""
        context = self.model.config.context_length
        ids, _ = self.template.encode(self.tokenizer, messages, generation_prompt=True)
        return math.inf if context is None else context - len(ids)

    def stream(
        self,
        messages: Sequence[Message],
        max_new_tokens: int | None = None,
        *,
        on_step: Callable[[Step], None] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """The answer to messages, of which the last is a user's, in pieces as they are written.

        Up to `max_new_tokens`, or what is left of the context; `on_step` is given the Step of each token before its text comes,
        `options` are those of `generate`. ContextLengthError where the messages leave no room for an answer.
        """
        left = self.room(messages)
        if left < 1:
            context = self.model.config.context_length
            raise ContextLengthError(
                f"the messages take {int(context - left)} tokens, the model reads {context}: leave some out"
            )
        ids, _ = self.template.encode(self.tokenizer, messages, generation_prompt=True)
        n = int(min(left, sys.maxsize if max_new_tokens is None else max_new_tokens))
        options["logit_bias"] = _never_written(self.model, self.tokenizer) | dict(options.get("logit_bias") or ())
        steps = stream_tokens(self.model, [ids], n, stop_ids=[self.template.end_id(self.tokenizer)], **options)
        return self.tokenizer.decode_stream(_ids(steps, on_step))

    def answer(self, messages: Sequence[Message], max_new_tokens: int | None = None, **options: Any) -> str:
        """The whole of what `stream` gives."""
        return "".join(self.stream(messages, max_new_tokens, **options))


def _ids(steps: Iterable[Step], on_step: Callable[[Step], None] | None) -> Iterator[int]:
    for step in steps:
        if step.ids[0] >= 0:
            if on_step is not None:
                on_step(step)
            yield int(step.ids[0])


class Chat:
    """A conversation under way.

    What no longer fits into the context is dropped from its front, a question and its answer at a time; a system message stays.
    """

    def __init__(self, assistant: Assistant, system: str = "", **options: Any) -> None:
        self.assistant, self.system, self.options = assistant, system, options
        self.messages: list[dict[str, str]] = []  # without the system message
        self.dropped = 0  # messages, before the last answer
        self.steps: list[Step] = []  # of the last answer

    def ask(self, text: str) -> Iterator[str]:
        """The answer to a question, in pieces. Stopped before its end, what was written of it stays in the conversation."""
        self.messages.append({"role": "user", "content": text})
        return self._answer()

    def retry(self) -> Iterator[str]:
        """Another answer to the last question. ConfigError if there is none."""
        if not self.messages:
            raise ConfigError("nothing has been asked yet")
        if self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        return self._answer()

    def undo(self) -> bool:
        """Take back the last question and its answer; False if there is none."""
        n = len(self.messages)
        while self.messages and self.messages.pop()["role"] != "user":
            pass
        return len(self.messages) < n

    def _answer(self) -> Iterator[str]:
        kept, self.steps, written = list(self.messages), [], ""
        context = self.assistant.model.config.context_length
        room = min(self.options.get("max_new_tokens", _LEAST_ROOM), (context or sys.maxsize) // 2)
        try:
            while len(kept) > 1 and self.assistant.room(self._with_system(kept)) < room:
                del kept[:2]
            pieces = self.assistant.stream(self._with_system(kept), on_step=self.steps.append, **self.options)
            self.dropped, self.messages = len(self.messages) - len(kept), kept  # now that there is room
            for piece in pieces:
                written += piece
                yield piece
        finally:
            if written.strip():
                self.messages.append({"role": "assistant", "content": written})
            else:  # a question without an answer is no conversation
                self.messages.pop()

    def _with_system(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *messages]

    def why(self, n: int = 5) -> list[tuple[bytes, list[tuple[bytes, float]]]]:
        """For each token of the last answer the `n` likeliest at its place, with their probabilities by the model alone."""
        tokens = self.assistant.tokenizer.tokens
        found = []
        for step in self.steps:
            p = np.exp(log_softmax(step.logits)[0])
            best = np.argsort(-p, kind="stable")[:n].tolist()
            listed = [(tokens[i] if i < len(tokens) else b"", float(p[i])) for i in best]
            found.append((tokens[int(step.ids[0])], listed))
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation, as a line of OpenAI's chat format."""
        told = json.dumps({"messages": self._with_system(self.messages)}, ensure_ascii=False)
        with storing(Path(path)):
            replace_file(Path(path), [(told + "\n").encode()])

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on with the first conversation of a file. DataError if it is none."""
        messages = read_conversations(path).rows[0]
        self.system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
        self.messages = messages


def template_named(name: str) -> Template:
    if name not in TEMPLATES:
        raise ConfigError(f"template is {name!r:.80}: use one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]
