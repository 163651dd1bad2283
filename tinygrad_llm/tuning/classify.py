"""Fine-tuning as a classifier (the book's chapter 6): a head for classes in the place of the one for tokens.

run = classify("SMSSpamCollection", out="runs/spam")                        # from fresh weights, with a tokenizer of words
run = classify("SMSSpamCollection", init_from="gpt2", out="runs/spam")      # the last block, the final norm and the head
run = classify("moods", init_from="runs/tales", lora="r=8,alpha=16")        # what LoRA adds, and the head
run.test.accuracy, run.baselines["naive_bayes"].accuracy

Letters in shape comments: B batch, T tokens, K classes.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Tensor
from ..errors import CheckpointError, ConfigError, DataError
from ..evaluation.baselines import baselines
from ..evaluation.scores import Scores, classification_scores
from ..files import check_writable, lock, remove_stale, replace_file
from ..models import LanguageModel, build_model, describe_model, make_config, make_model
from ..models.heads import add_classifier, class_logits
from ..nn import Module
from ..nn.lora import inject
from ..ops import cross_entropy
from ..rng import Generator, Zeros, get_generator, use_generator
from ..runs.checkpoint import check_room, load_checkpoint, newest_checkpoint, verify_checkpoint
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, FORMAT, find_run, load_config, new_run
from ..runs.loggers import Logger
from ..runs.plots import plot_confusion
from ..text import Tokenizer, WordTokenizer, load_tokenizer, read_labelled
from ..training.loop import TrainingLoop
from ..training.resume import changed_options, refuse_differences, take_up
from ..training.step import Batch, Objective
from ..training.task import Finished, Task
from ..weights.load import load_with_tokenizer
from .options import SIZES, ClassifyOptions
from .predict import Classifier, log_softmax, score_texts
from .splits import Splits, encode_texts, make_splits, pad

PREDICTIONS_FILE, CONFUSION_FILE = "predictions.jsonl", "confusion.png"
_SEEN = 128  # texts of each part that are judged while training goes on
_BASELINES = {
    "majority": "always the largest class",
    "features": "what a person would count, by logistic regression",
    "naive_bayes": "naive Bayes on words",
    "bag_of_words": "which words occur, by logistic regression",
}


def class_loss(
    model: LanguageModel, ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> Tensor:
    losses = cross_entropy(class_logits(model, ids, lengths), targets=labels, reduction="none")  # (b,)
    return (losses * weights).sum()


# The batch brings the weight of each text, and they come to 1 in all: a weighted mean.
OBJECTIVE = Objective(lambda ids, lengths, labels, weights: 1, class_loss)


class Classification(Task):
    """Tell of which class a text is; judged on texts that were kept from training."""

    name, objective = "classify", OBJECTIVE

    def __init__(self, splits: Splits, options: ClassifyOptions, tokenizer: Tokenizer) -> None:
        self.splits, self.options, self.tokenizer = splits, options, tokenizer
        self.chance = math.log(len(splits.classes))
        train, validation, test = (
            encode_texts(tokenizer, part.texts) for part in (splits.train, splits.validation, splits.test)
        )
        longest = max(map(len, train))
        self.max_length = options.max_length or min(longest, options.context_length)
        self.truncated = sum(len(row) > self.max_length for part in (train, validation, test) for row in part)
        self.train, self.validation, self.test = (
            [row[: self.max_length] for row in part] for part in (train, validation, test)
        )
        self.pad_id = tokenizer.eot_id or 0
        self.width = self.max_length if options.position == "padded" else 0

    def __len__(self) -> int:
        return math.ceil(len(self.train) / self.options.batch_size)

    def epoch(self, model: LanguageModel) -> Iterator[Batch]:
        order, size = get_generator().randperm(len(self.train)), self.options.batch_size
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            labels = self.splits.train.labels[chosen]
            weights = self.splits.class_weights[labels]
            ids, lengths = pad([self.train[i] for i in chosen], self.pad_id, self.width)
            yield ids, lengths, labels, (weights / weights.sum()).astype(np.float32)

    def evaluate(self, model: LanguageModel, final: bool) -> dict[str, float]:
        """Loss and accuracy on some texts of both parts, at the end on all."""
        n = None if final else _SEEN
        train_loss, train_accuracy = self._judge(model, self.train[:n], self.splits.train.labels[:n])
        val_loss, val_accuracy = self._judge(model, self.validation[:n], self.splits.validation.labels[:n])
        return {
            "train_loss": train_loss,
            "val_loss": val_loss,
            "train_accuracy": train_accuracy,
            "val_accuracy": val_accuracy,
        }

    def _judge(self, model: LanguageModel, rows: Sequence[Sequence[int]], labels: np.ndarray) -> tuple[float, float]:
        scores = score_texts(model, rows, self.pad_id, self.width)  # (N, K)
        loss = -log_softmax(scores)[np.arange(len(rows)), labels].mean()
        return float(loss), float((scores.argmax(1) == labels).mean())

    def sample(self, model: LanguageModel, step: int, final: bool) -> str:
        """The text of validation that the model is most wrong about."""
        part = self.splits.validation.select(np.arange(min(_SEEN, len(self.validation))))
        p = np.exp(log_softmax(score_texts(model, self.validation[:_SEEN], self.pad_id, self.width)))  # (N, K)
        wrong = np.flatnonzero(p.argmax(1) != part.labels)
        if not len(wrong):
            return f"All {len(part):,} texts of validation are told right."
        i = int(wrong[p[wrong].max(1).argmax()])
        text = textwrap.shorten(part.texts[i], 120)
        taken = f"{part.classes[p[i].argmax()]} ({p[i].max():.2f})"
        told = f"{len(wrong):,} of {len(part):,} texts of validation are told wrong"
        return f"{told}; this {part.classes[part.labels[i]]} is taken for {taken}: {text}"

    def about(self) -> dict[str, Any]:
        data = self.splits.fingerprint()
        return {"data": data, "batches": [data["texts"], self.options.batch_size, self.max_length, self.width]}

    def introduce(self) -> list[str]:
        tokenizer = self.tokenizer
        lines = [
            *self.splits.said,
            f"{tokenizer.name} tokens, {tokenizer.vocab_size:,} different ones; up to {self.max_length} of each text are read.",
        ]
        if self.truncated:
            lines[-1] += f" {self.truncated:,} texts are longer, and cut off there."
        return [line for each in lines for line in textwrap.wrap(each, 100)]

    def conclude(self, finished: Finished) -> ClassifyResult:
        """Judge the model on the texts kept for testing, once, and what is simpler beside it."""
        test, folder = self.splits.test, finished.folder
        p = np.exp(log_softmax(score_texts(finished.model, self.test, self.pad_id, self.width)))  # (N, K)
        scores = classification_scores(test.labels, p, test.classes)
        said = [
            {
                "text": text,
                "label": test.classes[label],
                "predicted": test.classes[row.argmax()],
                "probabilities": row.round(6).tolist(),
            }
            for text, label, row in zip(test.texts, test.labels, p, strict=True)
        ]
        replace_file(
            folder / PREDICTIONS_FILE, [(json.dumps(each, ensure_ascii=False) + "\n").encode() for each in said]
        )
        plot_confusion(folder / CONFUSION_FILE, scores.classes, scores.confusion)
        n_trained = sum(p.size for p in finished.model.parameters() if p.requires_grad)
        return ClassifyResult(
            folder=folder,
            model=finished.model,
            tokenizer=self.tokenizer,
            metrics=finished.metrics,
            test=scores,
            baselines=baselines(self.splits.train, test),
            duplicates_removed=self.splits.duplicates_removed,
            near_duplicates=self.splits.near_duplicates,
            truncated=self.truncated,
            trained_parameters=n_trained,
            parameters=finished.model.n_parameters(),
            seconds=finished.seconds,
            tokens_per_second=finished.tokens_per_second,
        )


@dataclass(frozen=True)
class ClassifyResult:
    """What a run leaves besides its folder. Scores are of the texts kept for testing, after the last step."""

    folder: Path
    model: LanguageModel
    tokenizer: Tokenizer
    metrics: list[dict[str, float]]  # the rows of metrics.jsonl
    test: Scores
    baselines: dict[str, Scores]
    duplicates_removed: int
    near_duplicates: int
    truncated: int
    trained_parameters: int
    parameters: int
    seconds: float
    tokens_per_second: float

    def summary(self) -> dict[str, Any]:
        """As plain data; accuracies are fractions of 1."""
        last = self.metrics[-1]
        return {
            "folder": str(self.folder),
            "steps": last["step"],
            "test_accuracy": self.test.accuracy,
            "test_standard_error": self.test.standard_error,
            "test_size": self.test.n,
            "duplicates_removed": self.duplicates_removed,
            "near_duplicates": self.near_duplicates,
            "truncated": self.truncated,
            "baselines": {name: scores.accuracy for name, scores in self.baselines.items()},
            "test": self.test.to_dict(),
            **{name: last[name] for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy")},
            "trained_parameters": self.trained_parameters,
            "parameters": self.parameters,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        rows = {_BASELINES[name]: scores for name, scores in self.baselines.items()} | {"the model": self.test}
        wide = max(map(len, rows))
        best = max(self.baselines.values(), key=lambda scores: scores.accuracy)
        lines = [
            "",
            f"Trained {self.trained_parameters:,} of {self.parameters:,} parameters in {self.seconds:.0f} s, "
            f"{self.tokens_per_second:,.0f} tokens a second.",
            f"On {self.test.n:,} texts that were kept for testing:",
            f"  {'':{wide}}  accuracy",
            *(
                f"  {name:{wide}}  {scores.accuracy:8.3f} ± {scores.standard_error:.3f}"
                for name, scores in rows.items()
            ),
        ]
        if best.accuracy > self.test.accuracy:
            lines.append("What is simpler does better here.")
        predict = f"tinygrad-llm predict {shlex.quote(str(self.folder))} TEXT"
        return [
            *lines,
            "The model:",
            *(f"  {line}" for line in self.test.lines()),
            f"In {self.folder}: {', '.join(sorted(file.name for file in self.folder.iterdir()))}",
            f"To judge other texts: {predict}",
        ]


def freeze(model: LanguageModel, train: str) -> None:
    """Let only the head, or the last block, the final norm and the head, or all learn."""
    learning: dict[str, list[Module]] = {
        "head": [model.out_head],
        "last_block": [model.trf_blocks[-1], model.final_norm, model.out_head],
        "all": [model],
    }
    for parameter in model.parameters():
        parameter.requires_grad = False
    for module in learning[train]:
        for parameter in module.parameters():
            parameter.requires_grad = True


def classify(
    data: str | os.PathLike[str] = "messages",
    *,
    init_from: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> ClassifyResult:
    """Train a classifier on labelled texts, and leave a run folder that `Classifier.load` reads.

    `data` is a file or folder (`read_labelled`), or what comes with the package: "messages", spam and not, or "moods" in tales.
    With `init_from` it begins from the weights and the tokenizer there (any form that `load_pretrained` reads), otherwise from
    fresh weights and a tokenizer of the words of the texts to learn from. `options` are those of ClassifyOptions. `report`,
    `loggers`, the signals and resuming (`resume_classification`) are as for `pretrain`.
    """
    model, tokenizer = (None, None) if init_from is None else load_with_tokenizer(init_from)
    chosen = ClassifyOptions.choose(model, **options)
    folder = Path(out) if out is not None else Path("runs", Path(data).stem)
    splits = _splits_of(data, chosen)
    if tokenizer is None:
        tokenizer = WordTokenizer.train(splits.train.texts, lower_case=True)
    task = Classification(splits, chosen, tokenizer)
    chosen = task.options = replace(chosen, max_length=task.max_length)
    if model is None:
        sizes = {name: getattr(chosen, name) for name in SIZES}
        config = make_config("gpt", {"vocab_size": tokenizer.vocab_size, "init": "gpt2", **sizes})
    else:
        config = model.config
    config = replace(config, drop_rate=chosen.drop_rate)
    memory = chosen.memory(config, task.max_length, splits.n_bytes())
    memory.check(report)
    check_room(folder, config.n_parameters(), chosen.keep, report)
    chosen.lr_schedule(chosen.max_steps or chosen.epochs * len(task))  # an error now, before anything is written
    with memory.explain(), use_generator(Generator(chosen.seed)):
        tuned = make_model(config.architecture, config, Zeros() if model else None)
        if model is not None:
            tuned.load_state_dict(model.state_dict())
            del model
        add_classifier(tuned, splits.classes, chosen.position, chosen.head_bias, chosen.causal)
        if chosen.train == "lora":
            inject(tuned, chosen.lora_config())
        else:
            freeze(tuned, chosen.train)
        record = {
            "format": FORMAT,
            **describe_model(tuned),
            "task": task.name,
            "training": asdict(chosen),
            "files": [str(data)],
            "data": splits.fingerprint(),
            **({} if init_from is None else {"init_from": str(init_from)}),
        }
        with new_run(folder, record, tokenizer) as previous:
            if previous is not None:
                report(f"The run that was in {folder} is now in {previous}.")
            return TrainingLoop(task, chosen, tuned, folder, report, loggers).run()


def evaluate_classifier(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | int | None = None,
    text: str = "",
    label: str = "",
    encoding: str = "",
) -> tuple[str, Scores]:
    """Judge a run of `classify` on the texts that it kept for testing, or on labelled `data`: what these are, and the scores.

    `text`, `label` and `encoding` are of `data`, as in `read_labelled`. DataError for texts that are no longer what they were.
    """
    classifier = Classifier.load(run, checkpoint)
    if data is not None:
        options = {"text": text or None, "label": label or None, "encoding": encoding or None}
        name, test = str(data), read_labelled(data, classes=classifier.classes, **options)
    elif (found := find_run(run)) and (config := load_config(found[0]))["task"] == Classification.name:
        name, test = "the texts kept for testing", _read_splits(config, found[0]).test
    else:
        raise ConfigError(
            f"{run}: not a run of classify, so no text was kept for testing: give labelled ones (--text FILE)"
        )
    return name, classification_scores(test.labels, classifier.probabilities(test.texts), classifier.classes)


def _read_splits(config: dict[str, Any], folder: Path) -> Splits:
    """The texts of a run, if they are still what they were."""
    with naming(folder / CONFIG_FILE):
        options = ClassifyOptions.of_run(config["training"])
        if len(config.get("files", [])) != 1 or not isinstance(config.get("data"), dict):
            raise ConfigError("files and data do not say what the run learns from")
    (data,) = config["files"]
    splits = _splits_of(data, options)
    if splits.fingerprint() != config["data"]:
        raise DataError(f"{data}: not the texts any more that this run began with: put them back")
    return splits


def _splits_of(data: str | os.PathLike[str], options: ClassifyOptions) -> Splits:
    names = ("balance", "keep_duplicates", "examples", "text", "label", "delimiter", "encoding")
    return make_splits(data, options.seed, **{name: getattr(options, name) for name in names})


# What decides the model, the texts and their parts: in a resumed run they stay.
_FIXED = (
    "train",
    "lora",
    "position",
    "head_bias",
    "causal",
    *SIZES,
    "balance",
    "keep_duplicates",
    "examples",
    "max_length",
    "text",
    "label",
    "delimiter",
    "encoding",
    "decay",
    "seed",
)


def resume_classification(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> ClassifyResult:
    """Go on with a run of `classify` from its newest whole checkpoint; without changes, to the bit as if never stopped.

    ConfigMismatch for changes of the model, the texts or the seed, DataError for texts that are no longer what they were,
    CheckpointError without a whole checkpoint.
    """
    folder = Path(run)
    config = load_config(folder)
    with naming(folder / CONFIG_FILE):
        if config["task"] != Classification.name:
            raise ConfigError(f"task is {config['task']!r:.80}: only {Classification.name!r} goes on here")
        before = ClassifyOptions.of_run(config["training"])
    options = before.changed(**changes)
    refuse_differences(folder, {name: (getattr(before, name), getattr(options, name)) for name in _FIXED})
    with lock(folder):
        remove_stale(folder)
        found = newest_checkpoint(folder, verify_checkpoint, report)
        if found is None:
            raise CheckpointError(
                f"{folder}: no checkpoint there: begin it again, with tinygrad-llm classify --out {folder}"
            )
        splits = _read_splits(config, folder)
        task = Classification(splits, options, load_tokenizer(folder))
        with naming(folder / CONFIG_FILE):
            model = build_model(config | {"model": config["model"] | {"drop_rate": options.drop_rate}}, Zeros())
            if model.classes != splits.classes:
                raise ConfigError(f"head.classes are {model.classes!s:.80}, those of the texts {splits.classes!s:.80}")
        if options.train != "lora":
            freeze(model, options.train)
        memory = options.memory(model.config, task.max_length, splits.n_bytes())
        memory.check(report)
        check_room(folder, model.n_parameters(), options.keep, report)
        check_writable(folder)
        with memory.explain(), use_generator(Generator(0)):
            loop = TrainingLoop(task, options, model, folder, report, loggers)
            changes, told = changed_options(before, options), {"model": model.config.to_dict()}
            return take_up(loop, load_checkpoint(found), before, config, changes, told)
