"""Conversations to learn from: files as people have them, and what of each is in the loss.

    conversations = read_conversations("instruction-data.json")   # Alpaca, OpenAI's chat, ShareGPT, pairs, texts: found out
    conversations.said                                            # ["a JSON array", "encoding utf-8", ...]
    counts = count_answers(TEMPLATES["alpaca"], tokenizer, conversations, max_length=256)
    print(*counts.lines(), sep="\\n")

Forms, told apart by the keys of the first record:

    {"messages": [{"role", "content"}, ...]}               OpenAI's chat format
    {"conversations": [{"from", "value"}, ...]}            ShareGPT
    {"instruction", "input", "output"}                     Alpaca (Taori et al. 2023), the book's chapter 7
    {"prompt", "completion"}                               texts, or lists of messages
    {"text"}                                               a text without roles

Each becomes a list of messages as templates.py has them: an Alpaca record keeps its input apart, as the "input" of the user's
message, and may have none; a text is one message of the role "text". In pairs of lists every answer counts, also in a prompt.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checks import check_integer
from ..errors import DataError, TokenizerError
from .record_forms import Form, LeftOut, few, objects, read_records
from .templates import ROLES, Template, check_content, check_messages
from .tokenizers import Tokenizer

_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant"}
_TOOLS = {
    "tool",
    "function",
    "function_call",
    "function_response",
    "observation",
}  # roles of messages to and from programs
_CALLS = ("tool_calls", "function_call")


@dataclass(frozen=True)
class Conversations:
    """Lists of messages, a row each. `where` are their places in the file, `said` lines about where they came from.

    Without `where` rows are called "row 1", "row 2", ... DataError for messages that `check_messages` refuses.
    """

    rows: list[list[dict[str, str]]]
    where: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        where = list(self.where) or [f"row {i}" for i in range(1, len(self.rows) + 1)]
        if len(where) != len(self.rows):
            raise DataError(f"Conversations: where has {len(where)} places: {len(self.rows)} rows need one each")
        object.__setattr__(self, "where", where)
        rows = [check_messages(row, f"{place}: messages") for row, place in zip(self.rows, where, strict=True)]
        object.__setattr__(self, "rows", rows)

    def __len__(self) -> int:
        return len(self.rows)


def read_conversations(path: str | os.PathLike[str], encoding: str | None = None) -> Conversations:
    """The conversations of a file: a JSON array, or JSON lines, of one of the forms above.

    `encoding` is found (UTF-8, UTF-16, cp1252), unless given. Keys that are not used are named in `said`, once. Conversations
    with calls of tools are left out, and counted there. The content of a chat's message may be a list of parts of text.

    DataError, with file, record and field, for a record of another form than the first, an unknown role, an answer first, an
    empty answer, two messages of a role in a row, a content that is not text; for what is not JSON, an empty file, bytes that are
    not of the encoding, a line of more than 1 MiB (an array: 256 MiB).
    """
    found = read_records(path, encoding, _FORMS, "a conversation", "conversations")
    rows, said = found.rows, found.said
    n_inputs = sum("input" in message for row in rows for message in row)
    more = f", {n_inputs:,} with an input, {len(rows) - n_inputs:,} without" if found.form.name == "Alpaca" else ""
    n_answers = sum(message["role"] in ("assistant", "text") for row in rows for message in row)
    said.append(f"{len(rows):,} conversations, {n_answers:,} answers{more}")
    return Conversations(rows, found.where, said)


# ---- the forms: a record, and where it stands, to messages and the keys within them that are not used


_Read = tuple[list[dict[str, str]], list[str]]


def _read_alpaca(record: dict[str, Any], here: str) -> _Read:
    user = {"role": "user", "content": check_content(record["instruction"], f"{here}: instruction")}
    if record.get("input") is not None:
        user["input"] = check_content(record["input"], f"{here}: input")
    return check_messages([user, _answer(record["output"], f"{here}: output")], here), []


def _read_pair(record: dict[str, Any], here: str) -> _Read:
    prompt, completion = record["prompt"], record["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        raise DataError(f"{here}: prompt and completion: one is a list of messages and one is not: make them alike")
    if not isinstance(prompt, list):
        user = {"role": "user", "content": check_content(prompt, f"{here}: prompt")}
        return [user, _answer(completion, f"{here}: completion")], []
    before, unused = chat_messages(prompt, f"{here}: prompt")
    after, more = chat_messages(completion, f"{here}: completion")
    return check_messages(before + after, f"{here}: prompt + completion"), unused + more


def _read_chat(record: dict[str, Any], here: str) -> _Read:
    messages, unused = chat_messages(record["messages"], f"{here}: messages")
    return check_messages(messages, f"{here}: messages"), unused


def _read_sharegpt(record: dict[str, Any], here: str) -> _Read:
    turns, here = record["conversations"], f"{here}: conversations"
    messages, unused = [], list[str]()
    for turn, place in objects(turns, here):
        speaker = turn.get("from")
        if isinstance(speaker, str) and speaker in _TOOLS:
            raise LeftOut("call tools")
        if not isinstance(speaker, str) or _SPEAKERS.get(speaker, speaker) not in ROLES:
            known = ", ".join([*ROLES, *_SPEAKERS])
            raise DataError(f"{place}: from is {speaker!r:.80}: it must be one of {known}")
        content = check_content(turn.get("value"), f"{place}: value")
        messages.append({"role": _SPEAKERS.get(speaker, speaker), "content": content})
        unused += [key for key in turn if key not in ("from", "value")]
    return check_messages(messages, here), unused


def _read_text(record: dict[str, Any], here: str) -> _Read:
    text = check_content(record["text"], f"{here}: text")
    if not text.strip():
        raise DataError(f"{here}: text: it is empty: drop the record, or write one")
    return [{"role": "text", "content": text}], []


# in the order in which they are looked for: an Alpaca record may have a text too, a chat a prompt
_FORMS = (
    Form("chat", ("messages",), _read_chat),
    Form("ShareGPT", ("conversations",), _read_sharegpt),
    Form("Alpaca", ("instruction", "input", "output"), _read_alpaca, optional=("input",)),
    Form("pairs", ("prompt", "completion"), _read_pair),
    Form("texts", ("text",), _read_text),
)


def chat_messages(messages: Any, here: str) -> _Read:
    """Messages as OpenAI's interface has them, not yet checked as a conversation."""
    made, unused = list[dict[str, Any]](), list[str]()
    for message, place in objects(messages, here):
        role = message.get("role")
        if (isinstance(role, str) and role in _TOOLS) or any(message.get(key) for key in _CALLS):
            raise LeftOut("call tools")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(_text_of_part(part, f"{place}: content[{i}]") for i, part in enumerate(content))
        made.append({"role": role, "content": content})
        unused += [key for key in message if key not in ("role", "content")]
    return made, unused


def _text_of_part(part: Any, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        what = part.get("type") if isinstance(part, dict) else part
        raise DataError(f"{where} is {what!r:.80}: parts must be of the type 'text': drop the record, or the part")
    return check_content(part.get("text"), f"{where}: text")


def _answer(value: Any, where: str) -> dict[str, str]:
    if not check_content(value, where).strip():
        raise DataError(f"{where}: an empty answer teaches nothing: drop the record, or write one")
    return {"role": "assistant", "content": value}


# ---- what is in the loss


@dataclass(frozen=True, eq=False)
class AnswerCounts:
    """What a loss would see of N conversations, in arrays (N,). A row of n tokens gives min(n - 1, max_length) pairs of an
    input and its target, which is the next token; a target counts where it belongs to an answer.
    """

    where: list[str]  # the places of the rows
    max_length: int
    tokens: np.ndarray  # int64: before anything is cut off
    supervised: np.ndarray  # int64: targets that count
    truncated: np.ndarray  # bool: more than max_length + 1 tokens
    has_end: np.ndarray  # bool: an end of an answer is among the targets that count

    @property
    def n_supervised(self) -> int:
        """Targets that count, of all rows."""
        return int(self.supervised.sum())

    def lines(self) -> list[str]:
        """A line of totals, and one for each kind of row that deserves a look, with the places of the first."""
        longest = int(self.tokens.argmax())
        n_targets = int(np.minimum(self.tokens - 1, self.max_length).sum())
        share = self.n_supervised / max(n_targets, 1)
        lines = [
            f"{len(self.where):,} conversations, {int(self.tokens.sum()):,} tokens, the longest {self.tokens[longest]:,} "
            f"({self.where[longest]}); {self.n_supervised:,} of {n_targets:,} targets in the loss ({share:.1%})"
        ]
        for rows, what in (
            (self.truncated, f"cut off after {self.max_length:,} tokens"),
            (self.supervised == 0, "with nothing in the loss, which teach nothing"),
            (~self.has_end & (self.supervised > 0), "without an end of an answer in the loss"),
        ):
            if rows.any():
                places = [self.where[i] for i in np.flatnonzero(rows)]
                lines.append(f"{len(places):,} {what}: {few(places)}")
        return lines


def count_answers(
    template: Template, tokenizer: Tokenizer, conversations: Conversations, max_length: int, last_only: bool = False
) -> AnswerCounts:
    """How many tokens of each conversation are in the loss, when inputs are `max_length` tokens at most, cut at the end.

    `last_only`: of each conversation the last answer alone. DataError for no conversations; else as `template.encode`, with the
    place of the conversation.
    """
    check_integer("count_answers: max_length", max_length)
    if not len(conversations):
        raise DataError("count_answers: there are no conversations")
    end = template.end_id(tokenizer)
    rows = []
    for messages, place in zip(conversations.rows, conversations.where, strict=True):
        try:
            ids, is_answer = template.encode(tokenizer, messages, last_only=last_only)
        except (DataError, TokenizerError) as error:
            raise type(error)(f"{place}: {error}") from None
        targets = [
            i for i, counts in zip(ids[1 : max_length + 1], is_answer[1 : max_length + 1], strict=True) if counts
        ]
        rows.append((len(ids), len(targets), len(ids) > max_length + 1, end in targets))
    tokens, supervised, truncated, has_end = (np.array(column) for column in zip(*rows, strict=True))
    return AnswerCounts(conversations.where, max_length, tokens, supervised, truncated, has_end)
