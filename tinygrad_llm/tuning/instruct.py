"""Fine-tuning on instructions (the book's chapter 7): a language model learns to answer.

run = instruct("instruction-data.json", init_from="gpt2", template="alpaca", out="runs/assistant")
run = instruct(kinds="upper,spell,last,reverse,passive", out="runs/lessons")     # lessons of the package, from fresh weights
run.before.exact_match, run.after.exact_match

Letters in shape comments: B batch, T tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, CorruptCheckpoint, DataError
from ..evaluation.answers import AnswerScores, most_frequent
from ..evaluation.losses import mean_loss
from ..files import replace_file
from ..models import LanguageModel, make_model
from ..rng import get_generator
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config
from ..runs.loggers import Logger
from ..text import CharTokenizer, Tokenizer
from ..text.conversations import Conversations, count_answers, read_conversations
from ..text.templates import Template
from ..text.view import visible
from ..training.step import NEXT_TOKEN, Batch
from ..training.task import Finished
from .assistant import Assistant, template_named, write_answers
from .exercises import BUNDLED, Part, parts_of
from .options import InstructOptions
from .run import TuningTask, begin, check_same, data_of, go_on, load_base
from .splits import by_length

ANSWERS_FILE = "answers.jsonl"
_IGNORED = -100  # a target that does not count
_SEEN = 128  # rows of each part that are judged while training goes on
_ASKED = 200  # of the test part, before training and after

Row = tuple[list[int], list[bool]]  # the ids of a conversation, and which of them the model is to write


def collate(
    rows: Sequence[Sequence[int]], pad: int, counted: Sequence[Sequence[bool]] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (B, T) of rows of ids, filled up to the longest: a target is the token after its input, or -100.

    As the book's (listing 7.5): the first `pad` after a row is a target, the end that the model is to learn, and those after it
    are not. With `counted`, which of a row's own tokens are targets, no pad is one: the rows end with marks of their own.
    """
    longest = max(map(len, rows)) + (counted is None)
    ids = np.full((len(rows), longest), pad, np.int64)  # (B, T + 1)
    targets = np.full((len(rows), longest), _IGNORED, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        if counted is None:
            targets[i, : len(row) + 1] = [*row, pad]
        else:
            targets[i, : len(row)] = np.where(counted[i], row, _IGNORED)
    return ids[:, :-1], targets[:, 1:]


class Instruction(TuningTask):
    """Answer what is asked; the loss that is shown is that of answers alone, on questions that were kept from training."""

    name, objective = "instruct", NEXT_TOKEN

    def __init__(
        self, parts: tuple[Part, Part, Part], said: list[str], options: InstructOptions, tokenizer: Tokenizer
    ) -> None:
        self.train, self.test, self.validation = parts
        self.said, self.options, self.tokenizer = said, options, tokenizer
        self.template = template_named(options.template)
        self.chance = math.log(tokenizer.vocab_size)
        self.pad_id = self.template.end_id(tokenizer)
        rows = [self._encode(part) for part in parts]
        longest = max(len(ids) for ids, _ in rows[0])
        self.max_length = options.max_length or min(longest - 1, options.context_length)
        learned = Conversations(self.train.conversations)
        self.counts = count_answers(self.template, tokenizer, learned, self.max_length)
        if not self.counts.has_end.any():
            raise DataError(
                f"max_length is {self.max_length}: of {len(learned)} texts none has the end of its answer within it, so a model "
                "would never learn to stop: give it more (--max-length), or fresh weights a longer --context-length"
            )
        self.rows, self.val_rows = ([_cut(row, self.max_length) for row in part] for part in (rows[0], rows[2]))
        self.rows, self.val_rows = ([row for row in part if any(row[1][1:])] for part in (self.rows, self.val_rows))
        self.n_asked = min(_ASKED, len(self.test)) if self.test.asks else 0
        self.before: list[str] | None = None  # answers before the first step
        self.max_new_tokens = max(sum(is_answer) for part in rows for _, is_answer in part)

    def _encode(self, part: Part) -> list[Row]:
        return [self.template.encode(self.tokenizer, messages) for messages in part.conversations]

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.options.batch_size)

    def epoch(self, model: LanguageModel) -> Iterator[Batch]:
        """Batches in the order of PyTorch's DataLoader; of `bucket` batches in a row, texts of like length go together."""
        order = get_generator().shuffle_order(len(self.rows))
        lengths = np.array([len(ids) for ids, _ in self.rows])
        for chosen in by_length(order, lengths, self.options.batch_size, self.options.bucket):
            yield self._batch([self.rows[i] for i in chosen], self.options.mask_instruction)

    def _batch(self, rows: Sequence[Row], masked: bool) -> tuple[np.ndarray, np.ndarray]:
        counted = [is_answer if masked else [True] * len(ids) for ids, is_answer in rows]
        return collate([ids for ids, _ in rows], self.pad_id, counted)

    def evaluate(self, model: LanguageModel, final: bool) -> dict[str, float]:
        """The loss on the tokens of answers, of some rows of both parts; at the end of all for validation."""
        if self.before is None:
            self.before = self.answer_test(model)[1]
        n, size = None if final else _SEEN, self.options.batch_size
        losses = {}
        for name, rows in {"train_loss": self.rows[:_SEEN], "val_loss": self.val_rows[:n]}.items():
            losses[name] = mean_loss(model, (self._batch(rows[i : i + size], True) for i in range(0, len(rows), size)))
        return losses

    def sample(self, model: LanguageModel, step: int, final: bool) -> str:
        """An answer to a question of validation, another one each time."""
        if not self.validation.asks:
            return ""
        i = step % len(self.validation)
        asked = self.validation.questions[i][-1]["content"]
        (found,) = self._answer(model, Part([self.validation.conversations[i]]))
        return f"{asked} {found}\n(right: {self.validation.answers[i]})"

    def _answer(self, model: LanguageModel, part: Part) -> list[str]:
        return write_answers(model, self.tokenizer, self.template, part.questions, self.max_new_tokens)

    def answer_test(self, model: LanguageModel) -> tuple[Part, list[str]]:
        """The questions of the test that are asked before and after training, and the answers."""
        asked = self.test.first(self.n_asked)
        return asked, self._answer(model, asked)

    def about(self) -> dict[str, Any]:
        parts = [part.conversations for part in (self.train, self.test, self.validation)]
        data = {"texts": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}
        options = self.options
        how = [options.batch_size, options.bucket, options.mask_instruction, self.max_length]
        return {"data": data, "batches": [data["texts"], *how]}

    def state(self) -> dict[str, Any]:
        return {"before": self.before}

    def restore(self, state: dict[str, Any]) -> None:
        before = state.get("before")
        if not isinstance(before, list) or len(before) != self.n_asked or not all(map(_is_text, before)):
            raise CorruptCheckpoint(
                f"task_state: before is {before!r:.80}: it must be the answers before the first step"
            )
        self.before = before

    def n_bytes(self) -> int:
        """Memory that the texts take, and their ids."""
        return sum(64 * len(ids) for ids, _ in self.rows + self.val_rows)

    def introduce(self) -> list[str]:
        lines = [*self.said, *self.counts.lines()]
        if not self.options.mask_instruction:
            lines.append(
                "What is asked is in the loss as well: mask_instruction leaves it out, so that the figures above hold."
            )
        return [line for each in lines for line in textwrap.wrap(each, 100)]

    def conclude(self, finished: Finished) -> InstructResult:
        """Ask the questions kept for testing once more, and put the answers beside those before training."""
        asked, found = self.answer_test(finished.model)
        folder = finished.folder
        told = [
            {"question": messages[-1]["content"], **_input_of(messages[-1]), "expected": expected, "answer": answer}
            for messages, expected, answer in zip(asked.questions, asked.answers, found, strict=True)
        ]
        replace_file(folder / ANSWERS_FILE, [(json.dumps(each, ensure_ascii=False) + "\n").encode() for each in told])
        commonest = most_frequent(self.train.lessons or [], asked.lessons or [])
        learned = self.train.look_ups().first(_ASKED)
        return InstructResult(
            folder=folder,
            model=finished.model,
            tokenizer=self.tokenizer,
            template=self.template,
            metrics=finished.metrics,
            before=asked.score(self.before or [""] * len(asked)) if told else None,
            after=asked.score(found) if told else None,
            most_frequent=asked.score(commonest) if commonest else None,
            memorised=learned.score(self._answer(finished.model, learned)).exact_match if len(learned) else None,
            examples=told[:3],
            seconds=finished.seconds,
            tokens_per_second=finished.tokens_per_second,
        )


@dataclass(frozen=True)
class InstructResult:
    """What a run leaves besides its folder. Scores are of the likeliest answers to questions that were kept from training."""

    folder: Path
    model: LanguageModel
    tokenizer: Tokenizer
    template: Template
    metrics: list[dict[str, float]]  # the rows of metrics.jsonl
    before: AnswerScores | None  # None for texts without questions, as `after`
    after: AnswerScores | None
    most_frequent: (
        AnswerScores | None
    )  # of always giving the commonest answer of the kind; None where there are no kinds
    memorised: float | None  # of look-ups, the share of those learned from that come back; None where there are none
    examples: list[dict[str, str]]
    seconds: float
    tokens_per_second: float

    def summary(self) -> dict[str, Any]:
        """As plain data; shares are fractions of 1."""
        last = self.metrics[-1]
        return {
            "folder": str(self.folder),
            "steps": last["step"],
            "before": self.before and self.before.to_dict(),
            "after": self.after and self.after.to_dict(),
            "most_frequent": self.most_frequent and self.most_frequent.to_dict(),
            "memorised": self.memorised,
            "template": self.template.name,
            "train_loss": last["train_loss"],
            "val_loss": last["val_loss"],
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        last = self.metrics[-1]
        lines = [
            "",
            f"Trained in {self.seconds:.0f} s, {self.tokens_per_second:,.0f} tokens a second; loss on the tokens of answers "
            f"{last['train_loss']:.3f}, in validation {last['val_loss']:.3f}.",
        ]
        by_rote = "Always the commonest answer of its kind"
        for when, scores in {"Before": self.before, by_rote: self.most_frequent, "After": self.after}.items():
            if scores is not None:
                lines += [f"{when}:", *(f"  {line}" for line in scores.lines())]
        if self.memorised is not None:
            lines.append(
                f"Of look-ups that it learned, {self.memorised:.3f} come back: memorised. Those of the test it has never seen."
            )
        for example in self.examples:
            # of a text with a question below it, the question
            told = example["question"].rpartition("\n")[2], example["answer"], example["expected"]
            asked, answer, expected = (textwrap.shorten(each, 90) for each in told)
            lines += [f"  {asked}", f"    {answer}" + ("" if answer == expected else f"   (right: {expected})")]
        question = shlex.quote(self.examples[0]["question"][:60]) if self.examples else "..."
        return [
            *lines,
            f"In {self.folder}: {', '.join(sorted(file.name for file in self.folder.iterdir()))}",
            f"To ask it: tinygrad-llm chat {shlex.quote(str(self.folder))} -p {question}",
        ]


def _input_of(message: Mapping[str, str]) -> dict[str, str]:
    return {"input": message["input"]} if "input" in message else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _cut(row: Row, max_length: int) -> Row:
    """So much of a row that it makes `max_length` inputs."""
    ids, is_answer = row
    return ids[: max_length + 1], is_answer[: max_length + 1]


def instruct(
    data: str | os.PathLike[str] | None = None,
    *,
    init_from: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> InstructResult:
    """Train a language model to answer, and leave a run folder that `Assistant.load` reads.

    `data` is a file (`read_conversations`); without one, lessons that come with the package, of the `kinds` that options name.
    With `init_from` it begins from the weights and the tokenizer there, which are given the marks of the template that they lack;
    otherwise from fresh weights and a tokenizer of characters. Of a file, the first 85 % are to train on, the next 10 to test on
    and the rest to validate with, as in the book. `options` are those of InstructOptions. `report`, `loggers`, the signals and
    resuming (`resume_instruction`) are as for `pretrain`.
    """
    model, task, chosen = _prepare(data, init_from, options)
    config = chosen.model_config(model, task.tokenizer.vocab_size)

    def make() -> LanguageModel:
        return make_model(config.architecture, config) if model is None else model

    more = {"template": task.template.to_dict()}
    return begin(task, chosen, config, make, data or BUNDLED, init_from, out, report, loggers, **more)


def _prepare(
    data: str | os.PathLike[str] | None, init_from: str | os.PathLike[str] | None, options: dict[str, Any]
) -> tuple[LanguageModel | None, Instruction, InstructOptions]:
    """The model to begin from, if any, with rows for the template's marks; the task; and its options, complete."""
    model, tokenizer = (None, None) if init_from is None else load_base(init_from)
    chosen = InstructOptions.choose(model, **options)
    parts, said = parts_of(data, chosen)
    template = template_named(chosen.template)
    if tokenizer is None:
        texts = (template.render(messages) for part in parts for messages in part.conversations)
        tokenizer = CharTokenizer.train("".join(texts))
    lacking = template.lacks(tokenizer)
    whole = chosen.lora_config().whole if chosen.lora else ()
    if lacking and model is not None and chosen.train != "all" and "tok_emb" not in whole:
        raise ConfigError(
            f"template is {template.name!r} and train is {chosen.train!r}: {', '.join(lacking)} would be new tokens, whose rows "
            "have to learn too: use train=all, whole=tok_emb+out_head in lora, or the template plain"
        )
    tokenizer = tokenizer.add_special(lacking)
    if model is not None and tokenizer.vocab_size > model.config.vocab_size:
        model.resize_vocabulary(tokenizer.vocab_size)
    if lacking:
        said.append(f"Special tokens added for the template {template.name}: {', '.join(lacking)}.")
    task = Instruction(parts, said, chosen, tokenizer)
    task.options = replace(chosen, max_length=task.max_length)
    return model, task, task.options


def show_rows(
    data: str | os.PathLike[str] | None = None,
    *,
    init_from: str | os.PathLike[str] | None = None,
    dim: bool = False,
    **options: Any,
) -> list[str]:
    """What `instruct` would train on: the lines about the texts, and three of them as the model will see them.

    What is not in the loss is dimmed, or without `dim` in [brackets].
    """
    _, task, chosen = _prepare(data, init_from, options)
    begin_dim, end_dim = ("\x1b[2m", "\x1b[22m") if dim else ("[", "]")
    lines = task.introduce()
    for ids, is_answer in task.rows[:3]:
        counted = is_answer if chosen.mask_instruction else [True] * len(ids)
        shown = ""
        for counts, group in groupby(zip(ids, counted, strict=True), itemgetter(1)):
            text = "".join(visible(task.tokenizer.tokens[i]) for i, _ in group)
            shown += text if counts else f"{begin_dim}{text}{end_dim}"
        lines += ["", f"{sum(counted)} of {len(ids)} tokens in the loss:", *textwrap.wrap(shown, 100)]
    return lines


def evaluate_assistant(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | int | None = None,
    adapter: str | os.PathLike[str] | None = None,
    encoding: str = "",
) -> tuple[str, Part, list[str]]:
    """Ask a run of `instruct` the questions that it kept for testing, or those of a file: what these are, and the answers.

    `part.score(answers)` scores them. DataError for texts that are no longer what they were.
    """
    assistant = Assistant.load(run, checkpoint, adapter)
    if data is not None:
        rows = [row for row in read_conversations(data, encoding or None).rows if row[-1]["role"] == "assistant"]
        if not rows:
            raise DataError(f"{data}: no conversation there ends with an answer")
        name, asked = str(data), Part(rows)
    else:
        folder, _ = find_run(run, checkpoint) or (Path(run), "")
        config = load_config(folder)
        with naming(folder / CONFIG_FILE):
            kept, chosen = data_of(config), InstructOptions.of_run(config["training"])
        task = _task_of(config, chosen, assistant.tokenizer)
        check_same(kept, task, config)
        if not task.test.asks:
            raise DataError(
                f"{run}: it learned from texts without questions: name a file of questions with their answers"
            )
        name, asked = "the questions kept for testing", task.test
    room = max(len(assistant.tokenizer.encode(answer)) for answer in asked.answers) + 8
    found = write_answers(assistant.model, assistant.tokenizer, assistant.template, asked.questions, room)
    return name, asked, found


def resume_instruction(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> InstructResult:
    """Go on with a run of `instruct` from its newest whole checkpoint; without changes, to the bit as if never stopped.

    ConfigMismatch for changes of the model, the texts or the seed, DataError for texts that are no longer what they were,
    CheckpointError without a whole checkpoint.
    """

    return go_on(run, InstructOptions, _task_of, report, loggers, changes)


def _task_of(config: dict[str, Any], options: InstructOptions, tokenizer: Tokenizer) -> Instruction:
    return Instruction(*parts_of(data_of(config), options), options, tokenizer)
