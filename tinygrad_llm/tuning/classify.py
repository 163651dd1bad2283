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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Tensor
from ..errors import ConfigError
from ..evaluation.baselines import baselines
from ..evaluation.scores import Scores, classification_scores
from ..files import replace_file
from ..models import TextModel, make_model
from ..models.heads import add_classifier, class_logits
from ..ops import cross_entropy
from ..rng import get_generator
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config
from ..runs.loggers import Logger
from ..runs.plots import plot_confusion
from ..text import Tokenizer, WordTokenizer, read_labelled
from ..training.step import Batch, Objective
from ..training.task import Finished
from .options import ClassifyOptions
from .predict import Classifier, log_softmax, score_texts
from .run import TuningTask, begin, check_same, data_of, go_on, load_base
from .splits import Splits, cut, encode_texts, frame_texts, make_splits, pad, pad_id_of

PREDICTIONS_FILE, CONFUSION_FILE = "predictions.jsonl", "confusion.png"
_SEEN = 128  # texts of each part that are judged while training goes on
_BASELINES = {
    "majority": "always the largest class",
    "features": "what a person would count, by logistic regression",
    "naive_bayes": "naive Bayes on words",
    "bag_of_words": "which words occur, by logistic regression",
}


def class_loss(
    model: TextModel, ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> Tensor:
    losses = cross_entropy(class_logits(model, ids, lengths), targets=labels, reduction="none")  # (b,)
    return (losses * weights).sum()


# The batch brings the weight of each text, and they come to 1 in all: a weighted mean.
OBJECTIVE = Objective(lambda ids, lengths, labels, weights: 1, class_loss)


class Classification(TuningTask):
    """Tell of which class a text is; judged on texts that were kept from training."""

    name, objective = "classify", OBJECTIVE

    def __init__(self, splits: Splits, options: ClassifyOptions, tokenizer: Tokenizer) -> None:
        self.splits, self.options, self.tokenizer = splits, options, tokenizer
        self.chance = math.log(len(splits.classes))
        self.framed = options.position == "pooled"  # what [CLS] has seen
        encode = frame_texts if self.framed else encode_texts
        train, validation, test = (
            encode(tokenizer, part.texts) for part in (splits.train, splits.validation, splits.test)
        )
        longest = max(map(len, train))
        self.max_length = options.max_length or min(longest, options.context_length)
        self.truncated = sum(len(row) > self.max_length for part in (train, validation, test) for row in part)
        self.train, self.validation, self.test = (
            [cut(row, self.max_length, self.framed) for row in part] for part in (train, validation, test)
        )
        self.pad_id = pad_id_of(tokenizer)
        self.width = self.max_length if options.position == "padded" else 0

    def __len__(self) -> int:
        return math.ceil(len(self.train) / self.options.batch_size)

    def epoch(self, model: TextModel) -> Iterator[Batch]:
        order, size = get_generator().randperm(len(self.train)), self.options.batch_size
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            labels = self.splits.train.labels[chosen]
            weights = self.splits.class_weights[labels]
            ids, lengths = pad([self.train[i] for i in chosen], self.pad_id, self.width)
            yield ids, lengths, labels, (weights / weights.sum()).astype(np.float32)

    def evaluate(self, model: TextModel, final: bool) -> dict[str, float]:
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

    def _judge(self, model: TextModel, rows: Sequence[Sequence[int]], labels: np.ndarray) -> tuple[float, float]:
        scores = score_texts(model, rows, self.pad_id, self.width)  # (N, K)
        loss = -log_softmax(scores)[np.arange(len(rows)), labels].mean()
        return float(loss), float((scores.argmax(1) == labels).mean())

    def sample(self, model: TextModel, step: int, final: bool) -> str:
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

    def n_bytes(self) -> int:
        return self.splits.n_bytes()

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
    model: TextModel
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
    model, tokenizer = (None, None) if init_from is None else load_base(init_from, TextModel)
    chosen = ClassifyOptions.choose(model, **options)
    splits = _splits_of(data, chosen)
    if tokenizer is None:
        tokenizer = WordTokenizer.train(splits.train.texts, lower_case=True)
    task = Classification(splits, chosen, tokenizer)
    chosen = task.options = replace(chosen, max_length=task.max_length)
    config = chosen.model_config(model, tokenizer.vocab_size)

    def make() -> TextModel:
        body = make_model(config.architecture, config) if model is None else model
        return add_classifier(body, splits.classes, chosen.position, chosen.head_bias, chosen.causal)

    return begin(task, chosen, config, make, data, init_from, out, report, loggers)


def evaluate_classifier(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | int | None = None,
    adapter: str | os.PathLike[str] | None = None,
    text: str = "",
    label: str = "",
    encoding: str = "",
) -> tuple[str, Scores]:
    """Judge a run of `classify` on the texts that it kept for testing, or on labelled `data`: what these are, and the scores.

    `text`, `label` and `encoding` are of `data`, as in `read_labelled`. DataError for texts that are no longer what they were.
    """
    classifier = Classifier.load(run, checkpoint, adapter)
    if data is not None:
        options = {"text": text or None, "label": label or None, "encoding": encoding or None}
        name, test = str(data), read_labelled(data, classes=classifier.classes, **options)
    elif (found := find_run(run)) and (config := load_config(found[0]))["task"] == Classification.name:
        with naming(found[0] / CONFIG_FILE):
            kept, chosen = data_of(config), ClassifyOptions.of_run(config["training"])
        task = _task_of(config, chosen, classifier.tokenizer)
        check_same(kept, task, config)
        name, test = "the texts kept for testing", task.splits.test
    else:
        raise ConfigError(
            f"{run}: not a run of classify, so no text was kept for testing: give labelled ones (--text FILE)"
        )
    return name, classification_scores(test.labels, classifier.probabilities(test.texts), classifier.classes)


def _splits_of(data: str | os.PathLike[str], options: ClassifyOptions) -> Splits:
    names = ("balance", "keep_duplicates", "examples", "text", "label", "delimiter", "encoding")
    return make_splits(data, options.seed, **{name: getattr(options, name) for name in names})


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
    return go_on(run, ClassifyOptions, _task_of, report, loggers, changes)


def _task_of(config: dict[str, Any], options: ClassifyOptions, tokenizer: Tokenizer) -> Classification:
    return Classification(_splits_of(data_of(config), options), options, tokenizer)
