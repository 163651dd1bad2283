"""What an assistant learns from: conversations of a file, or lessons of the package, in three parts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import check_integer
from ..errors import DataError
from ..evaluation.answers import AnswerScores, answer_scores
from ..text.conversations import read_conversations
from ..text.lessons import LESSONS, Lesson, check_answer, lessons
from .options import FeedbackOptions, InstructOptions, OnlineOptions
from .preferences import Preference, Prompts, read_preferences, read_prompts

BUNDLED = "lessons"  # the name of the data that comes with the package


@dataclass(frozen=True)
class Part:
    """Conversations, whose last message is an answer, or texts without questions; those of the package are made of lessons."""

    conversations: list[list[dict[str, str]]]
    lessons: list[Lesson] | None = None

    def __len__(self) -> int:
        return len(self.conversations)

    def first(self, n: int) -> Part:
        return Part(self.conversations[:n], self.lessons and self.lessons[:n])

    def look_ups(self) -> Part:
        """Those whose answers cannot be found out, only known."""
        chosen = [i for i, lesson in enumerate(self.lessons or []) if LESSONS[lesson.kind].look_up]
        return Part(
            [self.conversations[i] for i in chosen], [self.lessons[i] for i in chosen] if self.lessons else None
        )

    @property
    def asks(self) -> bool:
        """Whether there are questions, which texts have not."""
        return self.conversations[0][-1]["role"] == "assistant"

    @property
    def questions(self) -> list[list[dict[str, str]]]:
        return [messages[:-1] for messages in self.conversations]

    @property
    def answers(self) -> list[str]:
        return [messages[-1]["content"] for messages in self.conversations]

    def score(self, found: Sequence[str]) -> AnswerScores:
        """Answers beside the right ones."""
        if self.lessons is None:
            return answer_scores(self.answers, found)
        right = [check_answer(lesson, answer) for lesson, answer in zip(self.lessons, found, strict=True)]
        return answer_scores(self.answers, found, [lesson.kind for lesson in self.lessons], right)


def parts_of(
    data: str | os.PathLike[str] | None, options: InstructOptions
) -> tuple[tuple[Part, Part, Part], list[str]]:
    """What to train on, to test on and to validate with, and lines about it."""
    if data is None or str(data) == BUNDLED:
        kinds = options.kinds.split(",")
        n_of = {"train": options.examples or 4000 * len(kinds), "test": 40 * len(kinds), "validation": 20 * len(kinds)}
        made = [lessons(options.seed, n, split, kinds) for split, n in n_of.items()]
        train, test, validation = (
            Part([messages_of(lesson, part is made[0]) for lesson in part], part) for part in made
        )
        told = ", ".join(f"{n:,} {split}" for split, n in n_of.items())
        return (train, test, validation), [
            f"Lessons that come with the package, of the kinds {', '.join(kinds)}: {told}."
        ]
    found = read_conversations(data, options.encoding or None)
    rows = [row for row in found.rows if row[-1]["role"] != "user"]
    n_train, n_test = int(0.85 * len(rows)), int(0.1 * len(rows))
    train, test, validation = (
        Part(rows[:n_train]),
        Part(rows[n_train : n_train + n_test]),
        Part(rows[n_train + n_test :]),
    )
    if not (train and test and validation):
        raise DataError(
            f"{data}: {len(rows)} texts or conversations that end with an answer: 20 are needed, for three parts"
        )
    said = [f"{data}: {'; '.join(found.said)}."]
    if len(rows) < len(found):
        said.append(f"{len(found) - len(rows):,} do not end with an answer, and are left out.")
    if 0 < options.examples < n_train:
        train = train.first(options.examples)
    what = "conversations" if train.asks else "texts without questions"
    sizes = f"{len(train):,} {what} to train on, {len(test):,} to test on, {len(validation):,} to validate with."
    return (train, test, validation), [*said, sizes]


def messages_of(lesson: Lesson, further: bool = False) -> list[dict[str, str]]:
    """A lesson as a conversation; `further`: with what is asked about the same input after it, for more to learn of each text."""
    asked = {"role": "user", "content": lesson.instruction}
    if LESSONS[lesson.kind].asked_last:
        asked["content"] = f"{lesson.input}\n{lesson.instruction}"
    elif lesson.input:
        asked["input"] = lesson.input
    messages = [asked, {"role": "assistant", "content": lesson.answer}]
    for question, answer in lesson.more if further else ():
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def lesson_kinds(data: str | os.PathLike[str]) -> list[str]:
    """The kinds of lessons that are named, as "addition" or "upper,spell"; none where this is a file. DataError for neither."""
    kinds = str(data).split(",")
    if Path(data).exists():
        return []
    if not all(kind in LESSONS for kind in kinds):
        raise DataError(f"{data}: no such file, nor a kind of lessons: these are {', '.join(LESSONS)}")
    return kinds


def all_prompts(data: str | os.PathLike[str], examples: int = 0, seed: int = 123, split: str = "train") -> Prompts:
    """The first `examples` prompts of a file, or of lessons of some kinds, as "addition" or "upper,spell", with the column
    "answer" (0: all of the file, or 1,000). DataError for a file that is none of prompts, or is not there."""
    check_integer("examples", examples, least=0)
    if kinds := lesson_kinds(data):
        return _prompts_from(lessons(seed, examples or 1000, split, kinds))
    found = read_prompts(data)
    return _part(found, range(min(examples or len(found), len(found))))


def prompts_of(data: str | os.PathLike[str], options: OnlineOptions) -> tuple[Prompts, Prompts, list[str]]:
    """Prompts to learn on and held-out ones, and lines about them: of a file, of which the last tenth is held out, or those of
    the lessons of some kinds, as "addition" or "upper,spell", with the column "answer"."""
    if kinds := lesson_kinds(data):
        n_of = {"train": options.examples or 2000 * len(kinds), "test": 4 * options.eval_answers}
        train, held_out = (_prompts_from(lessons(options.seed, n, split, kinds)) for split, n in n_of.items())
        return train, held_out, [f"Prompts of the package's lessons, {', '.join(kinds)}: {len(train):,} to learn on."]
    found = read_prompts(data, options.encoding or None)
    n_held_out = max(1, len(found) // 10)
    n_train = len(found) - n_held_out
    if not n_train:
        raise DataError(f"{data}: one prompt alone: one more is needed, which is held out")
    train, held_out = (_part(found, rows) for rows in (range(n_train), range(n_train, len(found))))
    if 0 < options.examples < n_train:
        train = _part(found, range(options.examples))
    return (
        train,
        held_out,
        [f"{data}: {'; '.join(found.said)}.", f"{len(train):,} prompts to learn on, {n_held_out:,} held out."],
    )


def _prompts_from(made: list[Lesson]) -> Prompts:
    messages = [messages_of(lesson)[:1] for lesson in made]
    columns = {"answer": [lesson.answer for lesson in made], "kind": [lesson.kind for lesson in made]}
    return Prompts(messages, columns, [f"lesson {i + 1}" for i in range(len(made))], [])


def _part(prompts: Prompts, rows: Iterable[int]) -> Prompts:
    chosen = list(rows)
    columns = {name: [column[i] for i in chosen] for name, column in prompts.columns.items()}
    return Prompts([prompts.prompts[i] for i in chosen], columns, [prompts.where[i] for i in chosen], prompts.said)


def preferences_of(
    data: str | os.PathLike[str], options: FeedbackOptions
) -> tuple[tuple[list[Preference], list[Preference], list[Preference]], list[str]]:
    """Of a file, what to learn from (eight tenths), to test on and to validate with (one each), and lines about it."""
    found = read_preferences(data, options.encoding or None)
    rows = found.rows
    if len(rows) < 10:
        raise DataError(f"{data}: {len(rows)} prompts with a better and a worse answer: 10 are needed, for three parts")
    n_held_out = len(rows) // 10
    n_train = len(rows) - 2 * n_held_out
    parts = (rows[:n_train], rows[n_train:-n_held_out], rows[-n_held_out:])
    if 0 < options.examples < n_train:
        parts = (rows[: options.examples], *parts[1:])
    sizes = f"{len(parts[0]):,} prompts to learn from, {n_held_out:,} to test on, {n_held_out:,} to validate with."
    return parts, [f"{data}: {'; '.join(found.said)}.", sizes]


def preferences_sum(parts: Sequence[Sequence[Preference]]) -> str:
    """SHA-256 of all that is learned from and tried on."""
    told = [[[row.prompt, row.answers, row.pairs, row.margins] for row in part] for part in parts]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
