"""Preferences: answers to one prompt of which one is better than another, and prompts that a policy is to answer.

    preferences = read_preferences("pairs.jsonl")
    preferences.said                              # ["JSON lines", "encoding utf-8", "pairs: prompt, chosen, rejected", ...]
    row = preferences.rows[0]
    row.prompt, row.answers[row.pairs[0][0]]      # what was asked, the better answer of the first pair

Forms, told apart by the keys of the first record; all but the last may have a "margin", by how much the one is better:

    {"prompt", "responses", "ranking"}                        K answers, the rank of each from 1 (Ouyang et al. 2022, §3.5)
    {"instruction", "input", "output", "chosen", "rejected"}  the book's file (chapter 7); the output is not used
    {"prompt", "chosen", "rejected"}                          texts, or lists of messages, which may begin with the prompt
    {"chosen", "rejected"}                                    with the prompt in both: texts, HH-RLHF's dialogues, messages
    {"prompt", "completion", "label"}                         one answer alone, as for KTO: refused
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..checks import is_integer, is_number
from ..errors import DataError
from ..text.conversations import chat_messages
from ..text.record_forms import Form, LeftOut, read_records
from ..text.templates import check_content, check_messages

Messages = list[dict[str, str]]

_DIALOGUE, _TURN = re.compile(r"\s*Human:"), re.compile(r"(?:^|\n\n)(Human|Assistant):")
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_RESERVED = ("prompts", "completions", "completion_ids")  # what a reward function is called with beside the columns


@dataclass(frozen=True)
class Preference:
    """Answers to one prompt. A ranking's pairs stay together, so that a prompt is read once and weighs as much as another."""

    prompt: Messages  # which end with a user's
    answers: list[str]
    pairs: list[tuple[int, int]]  # (better, worse): indices of answers; of two that tie, or are the same, there is none
    margins: list[float]  # of each pair; 0 where the file says nothing


@dataclass(frozen=True)
class Preferences:
    """Rows, their places in the file, and lines about where they came from."""

    rows: list[Preference]
    where: list[str]
    said: list[str]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Prompts:
    """Conversations that wait for an answer, and what else the file says of each: column -> a value for every prompt."""

    prompts: list[Messages]
    columns: dict[str, list[Any]]
    where: list[str]
    said: list[str]

    def __len__(self) -> int:
        return len(self.prompts)


def read_preferences(path: str | os.PathLike[str], encoding: str | None = None) -> Preferences:
    """The preferences of a file: a JSON array, or JSON lines, of one of the forms above. The encoding is found, unless given.

    Where the prompt is in both texts, it is what they have in common up to the white space before the first word that differs
    (TRL cuts between letters); of dialogues and messages, all before the last answer. Records are left out, counted and named in
    `said` whose answers are the same or empty, go apart before the last one or all tie, that end with a question or call tools.

    DataError, with file, record and field, as `read_conversations`; for a ranking with a gap, or of another length than the
    responses; for a margin that is no number; for a file of answers without a pair; and where nothing is left.
    """
    found = read_records(path, encoding, _FORMS, "a preference", "preferences")
    n_pairs = sum(len(row.pairs) for row in found.rows)
    longest = max(len(row.answers) for row in found.rows)
    more = f", up to {longest} answers to a prompt" if longest > 2 else ""
    found.said.append(f"{len(found.rows):,} prompts, {n_pairs:,} pairs of a better and a worse answer{more}")
    return Preferences(found.rows, found.where, found.said)


def read_prompts(path: str | os.PathLike[str], encoding: str | None = None) -> Prompts:
    """The prompts of a file of {"prompt", ...}, texts or lists of messages; all else becomes columns, None where absent.

    DataError as `read_preferences`; for a prompt that ends with an answer; for a column with the name of something that a
    reward function gets from training.
    """

    def read(record: dict[str, Any], here: str) -> tuple[tuple[Messages, dict[str, Any]], list[str]]:
        prompt, unused = _prompt(record["prompt"], f"{here}: prompt")
        prompt = check_messages(prompt, f"{here}: prompt")
        if prompt[-1]["role"] != "user":
            raise DataError(f"{here}: prompt: it ends with an answer: end it with what is asked")
        if taken := [name for name in _RESERVED if name in record]:
            raise DataError(f"{here}: {taken[0]!r} is what a reward function gets from training: rename the column")
        more = {key: value for key, value in record.items() if key != "prompt"}
        names.update(dict.fromkeys(more))
        return (prompt, more), unused

    names = dict[str, None]()
    found = read_records(path, encoding, [Form("prompts", ("prompt",), read, open=True)], "a prompt", "prompts")
    columns = {name: [more.get(name) for _, more in found.rows] for name in names}
    said = [*found.said, f"{len(found.rows):,} prompts" + (f", with {', '.join(columns)}" if columns else "")]
    return Prompts([prompt for prompt, _ in found.rows], columns, found.where, said)


# ---- the forms


_Read = tuple[Preference, list[str]]


def _read_ranking(record: dict[str, Any], here: str) -> _Read:
    responses, ranking = record["responses"], record["ranking"]
    if record.get("repeat"):  # a person was asked again, to see whether they agree with themselves
        raise LeftOut("were judged before")
    if not isinstance(responses, list) or len(responses) < 2:
        raise DataError(f"{here}: responses is {responses!r:.80}: it must be a list of two answers or more")
    if not isinstance(ranking, list) or len(ranking) != len(responses) or not all(map(is_integer, ranking)):
        raise DataError(
            f"{here}: ranking is {ranking!r:.80}: it must be {len(responses)} integers, the rank of each response from 1"
        )
    if wrong := set(range(1, len(set(ranking)) + 1)) ^ set(ranking):
        raise DataError(
            f"{here}: ranking is {ranking!r:.80}: ranks go from 1 without a gap, and those who tie share one: "
            f"see to {min(wrong)}"
        )
    return _answered(record, {f"responses[{i}]": response for i, response in enumerate(responses)}, ranking, here)


def _read_explicit(record: dict[str, Any], here: str) -> _Read:
    return _answered(record, {"chosen": record["chosen"], "rejected": record["rejected"]}, [1, 2], here)


def _answered(record: dict[str, Any], answers: dict[str, Any], ranking: list[int], here: str) -> _Read:
    """A prompt with each of the answers after it: texts, or messages, of which those that begin with a question are all."""
    prompt, unused = _prompt(record["prompt"], f"{here}: prompt")
    of_dialogue = isinstance(record["prompt"], str) and _DIALOGUE.match(
        record["prompt"]
    )  # whose answers begin with a space
    conversations = []
    for name, answer in answers.items():
        if isinstance(answer, list):
            messages, more = chat_messages(answer, f"{here}: {name}")
            unused += more
            begins = bool(messages) and messages[0]["role"] != "assistant"
            conversations.append(messages if begins else [*prompt, *messages])
        else:
            text = check_content(answer, f"{here}: {name}")
            conversations.append([*prompt, {"role": "assistant", "content": text.strip() if of_dialogue else text}])
    return _preference(conversations, ranking, record.get("margin"), here), unused


def _read_book(record: dict[str, Any], here: str) -> _Read:
    user = {"role": "user", "content": check_content(record["instruction"], f"{here}: instruction")}
    if record.get("input") is not None:
        user["input"] = check_content(record["input"], f"{here}: input")
    answers = [check_content(record[key], f"{here}: {key}") for key in ("chosen", "rejected")]
    conversations = [[user, {"role": "assistant", "content": answer}] for answer in answers]
    return _preference(conversations, [1, 2], record.get("margin"), here), []


def _read_implicit(record: dict[str, Any], here: str) -> _Read:
    chosen, rejected = record["chosen"], record["rejected"]
    unused = list[str]()
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise DataError(f"{here}: chosen and rejected: one is a list of messages and one is not: make them alike")
    if isinstance(chosen, list):
        better, unused = chat_messages(chosen, f"{here}: chosen")
        worse, more = chat_messages(rejected, f"{here}: rejected")
        unused += more
    else:
        chosen, rejected = (check_content(record[key], f"{here}: {key}") for key in ("chosen", "rejected"))
        if _DIALOGUE.match(chosen) and _DIALOGUE.match(rejected):
            better, worse = _dialogue(chosen), _dialogue(rejected)
        else:
            begin = _common_words(chosen, rejected)
            prompt = {"role": "user", "content": begin}
            better, worse = (
                [prompt, {"role": "assistant", "content": text[len(begin) :]}] for text in (chosen, rejected)
            )
    return _preference([better, worse], [1, 2], record.get("margin"), here), unused


def _refuse_unpaired(record: dict[str, Any], here: str) -> _Read:
    raise DataError(
        f"{here}: one completion and its label, as for KTO, which is not trained here: put a better and a worse answer to a "
        'prompt into one record, {"prompt", "chosen", "rejected"}'
    )


_FORMS = (
    Form(
        "rankings",
        ("prompt", "responses", "ranking", "margin", "repeat"),
        _read_ranking,
        optional=("margin", "repeat"),
    ),
    Form(
        "instructions with pairs",
        ("instruction", "input", "chosen", "rejected", "margin"),
        _read_book,
        optional=("input", "margin"),
    ),
    Form("pairs", ("prompt", "chosen", "rejected", "margin"), _read_explicit, optional=("margin",)),
    Form("pairs with the prompt in both", ("chosen", "rejected", "margin"), _read_implicit, optional=("margin",)),
    Form("answers without a pair", ("prompt", "completion", "label"), _refuse_unpaired),
)


# ---- to conversations, and from them to pairs


def _prompt(value: Any, here: str) -> tuple[Messages, list[str]]:
    """A prompt's messages, and the keys within them that are not used: of a text one, or those of a dialogue that it is."""
    if isinstance(value, list):
        return chat_messages(value, here)
    text = check_content(value, here)
    if not _DIALOGUE.match(text):
        return [{"role": "user", "content": text}], []
    messages = _dialogue(text)
    if not messages[-1]["content"]:  # it ends with "Assistant:"
        messages.pop()
    return messages, []


def _dialogue(text: str) -> Messages:
    """The messages of a text of HH-RLHF's; turns of one speaker in a row become one."""
    messages = Messages()
    parts = _TURN.split(text.strip())  # what is before the first, a speaker, what was said, a speaker, ...
    for speaker, said in zip(parts[1::2], parts[2::2], strict=True):
        role, content = _SPEAKERS[speaker], said.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{content}"
        else:
            messages.append({"role": role, "content": content})
    return messages


def _common_words(a: str, b: str) -> str:
    """What both texts begin with, up to the end of a word."""
    if a == b:
        return ""
    n = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    while n and any(text[n : n + 1].strip() for text in (a, b)):  # until both have white space there, or end
        n -= 1
    return a[:n].rstrip()


def _preference(conversations: list[Messages], ranking: list[int], margin: Any, here: str) -> Preference:
    """Conversations that are to differ in their last answer alone, with their ranks, as one prompt and its answers."""
    for messages in conversations:
        if any(message["role"] == "assistant" and not str(message["content"]).strip() for message in messages):
            raise LeftOut("have an empty answer")
    checked = [check_messages(messages, f"{here}: messages") for messages in conversations]
    if any(messages[-1]["role"] != "assistant" for messages in checked):
        raise LeftOut("end with a question")
    prompt, answers = checked[0][:-1], [messages[-1]["content"] for messages in checked]
    if any(messages[:-1] != prompt for messages in checked):
        raise LeftOut("go apart before the last answer")
    ranked = [
        (i, j) if ranking[i] < ranking[j] else (j, i)
        for i, j in combinations(range(len(ranking)), 2)
        if ranking[i] != ranking[j]
    ]
    if not ranked:
        raise LeftOut("rank all answers alike")
    margins = _margins(margin, len(ranked), f"{here}: margin")
    kept = [n for n, (better, worse) in enumerate(ranked) if answers[better] != answers[worse]]
    if not kept:
        raise LeftOut("have the same answer twice")
    return Preference(prompt, answers, [ranked[n] for n in kept], [margins[n] for n in kept])


def _margins(margin: Any, n: int, here: str) -> list[float]:
    """One for each pair, of a number for all or a list with one for each, in the order of (0, 1), (0, 2), ..., (1, 2), ..."""
    margins = margin if isinstance(margin, list) else [0.0 if margin is None else margin] * n
    if len(margins) != n:
        raise DataError(f"{here}: has {len(margins)} numbers: the ranking gives {n} pairs, and each needs one")
    for value in margins:
        if not is_number(value) or not abs(value) < 1e300:
            raise DataError(f"{here} is {value!r:.80}: it must be a finite number")
    return [float(value) for value in margins]
