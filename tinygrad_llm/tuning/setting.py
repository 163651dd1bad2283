"""What stays as it is while a policy learns from its own answers: prompts, what rewards and judges, and what is beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..models import LanguageModel
from ..rng import get_generator
from ..text import Tokenizer
from ..text.conversations import read_conversations
from ..text.lessons import lessons
from ..text.templates import Template
from .exercises import lesson_kinds, messages_of, prompts_of
from .feedback import check_fingerprints, open_reference
from .instruct import collate
from .options import OnlineOptions
from .preferences import Prompts
from .reward import open_reward
from .rewards import Reward
from .run import data_of


@dataclass(frozen=True)
class Setting:
    """What stays as it is while a policy learns."""

    train: Prompts
    held_out: Prompts
    tokenizer: Tokenizer
    template: Template
    reward: Reward
    judge: Reward | None
    reference: LanguageModel
    said: list[str]

    def beside(self) -> dict[str, Any]:
        """What of it may be weights."""
        return {"reward": self.reward, "judge": self.judge, "reference": self.reference}


def open_setting(
    data: str | os.PathLike[str], tokenizer: Tokenizer, template: Template, options: OnlineOptions
) -> Setting:
    """Prompts, reward, judge and reference of a run."""
    train, held_out, said = prompts_of(data, options)
    reward = open_reward(options.reward)
    judge = open_reward(options.judge) if options.judge else None
    reference = open_reference(options.reference, tokenizer)
    return Setting(train, held_out, tokenizer, template, reward, judge, reference, said)


def reopen_setting(config: dict[str, Any], tokenizer: Tokenizer, options: OnlineOptions) -> Setting:
    """That of a run that is resumed. CheckpointError where weights beside it are no longer what they were."""
    setting = open_setting(data_of(config), tokenizer, Template.from_dict(config.get("template")), options)
    check_fingerprints(config, options, **setting.beside())
    return setting


class Beside:
    """Conversations of which some are read beside something else, in every step."""

    def __init__(self, rows: list[tuple[list[int], list[bool]]], pad: int) -> None:
        self.rows, self.pad = rows, pad

    @classmethod
    def read(cls, data: str, template: Template, tokenizer: Tokenizer, options: OnlineOptions) -> Beside:
        """Those of a file, or lessons of some kinds."""
        if kinds := lesson_kinds(data):
            found = [messages_of(lesson) for lesson in lessons(options.seed, 2000 * len(kinds), "train", kinds)]
        else:
            found = [
                row for row in read_conversations(data, options.encoding or None).rows if row[-1]["role"] != "user"
            ]
        rows = [template.encode(tokenizer, messages) for messages in found]
        fitting = [row for row in rows if len(row[0]) <= options.context_length]
        if not fitting:
            raise DataError(f"{data}: no conversation that fits into {options.context_length} tokens")
        return cls(fitting, template.end_id(tokenizer))

    def some(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, targets and weights (n, T) of conversations drawn with the current generator: the weights make a mean over tokens
        of answers."""
        chosen = [self.rows[i] for i in get_generator().randint(0, len(self.rows), (n,)).tolist()]
        ids, targets = collate([ids for ids, _ in chosen], self.pad, [is_answer for _, is_answer in chosen])
        counted = targets != -100
        return ids, targets, (counted / counted.sum()).astype(np.float32)
