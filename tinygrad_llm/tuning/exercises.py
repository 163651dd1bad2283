"""What an assistant learns from: conversations of a file, or lessons of the package, in three parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError
from ..evaluation.answers import AnswerScores, answer_scores
from ..text.conversations import read_conversations
from ..text.lessons import Lesson, check_answer, lessons
from .options import InstructOptions

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
        train, test, validation = (Part([_messages_of(lesson) for lesson in part], part) for part in made)
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


def _messages_of(lesson: Lesson) -> list[dict[str, str]]:
    asked = {"role": "user", "content": lesson.instruction} | ({"input": lesson.input} if lesson.input else {})
    return [asked, {"role": "assistant", "content": lesson.answer}]
