"""Translation (Vaswani et al. 2017): an encoder reads a sentence, a decoder writes it in another language.

run = translate(out="runs/translate")                       # phrases of the package, English to German
run = translate("fra.txt", tokenizer="bpe", out="runs/french")          # a pair a line, a tab between both
run.test.exact_match, run.test.bleu, run.baselines["copy"].exact_match

Letters in shape comments: B batch, S tokens of the source, T of the target.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Tensor
from ..errors import ConfigError, DataError, TokenizerError
from ..evaluation.translation import NO_SACREBLEU, TranslationScores, translation_baselines, translation_scores
from ..files import replace_file
from ..models import make_model
from ..ops import cross_entropy
from ..rng import get_generator
from ..runs.fields import naming
from ..runs.folder import CONFIG_FILE, find_run, load_config
from ..runs.loggers import Logger
from ..runs.plots import Panel, plot_alignments, plot_panels
from ..text import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer
from ..text.pairs import Pair, PairSplits, read_pairs
from ..training.step import Batch, Objective
from ..training.task import Finished
from .parallel_text import PHRASES, pairs_of, patterns_of
from .run import TuningTask, begin, check_same, data_of, go_on
from .splits import by_length
from .translate_options import TranslateOptions
from .translator import Row, Translator, collate, token_losses, write_targets

PREDICTIONS_FILE, ALIGNMENT_FILE = "predictions.jsonl", "alignment.png"
_SEEN = 128  # pairs of each part that are judged while training goes on
_DRAWN, _DRAWN_TOKENS = 3, 24  # pairs of validation whose alignment is drawn, of fewer tokens than that
_BASELINES = {
    "most_frequent": "always the commonest target",
    "copy": "the source as it is",
    "word_by_word": "a word for a word",
}


def count_labels(source: np.ndarray, mask: np.ndarray, target: np.ndarray, labels: np.ndarray) -> int:
    return int((labels != -100).sum())


def target_loss(
    model: Any, source: np.ndarray, mask: np.ndarray, target: np.ndarray, labels: np.ndarray, *, label_smoothing: float
) -> Tensor:
    # Nothing holds on to the logits (B, T, V): the backward of a large vocabulary needs the room.
    return cross_entropy(model(source, target, mask), targets=labels, reduction="sum", label_smoothing=label_smoothing)


def translate_pairs(model: Any, tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[str]:
    """What the model writes to sources; nothing to those that are longer than it reads."""
    rows = [tokenizer.encode(pair.source) for pair in pairs]
    short = [i for i, row in enumerate(rows) if len(row) < model.config.context_length]
    texts = [""] * len(pairs)
    written = write_targets(model, [rows[i] for i in short], unused=tokenizer.unused_ids(model.config.vocab_size))
    for i, (ids, _) in zip(short, written, strict=True):
        texts[i] = "".join(tokenizer.decode_stream(ids))
    return texts


class Translating(TuningTask):
    """Write the target of a source; judged on pairs that were kept from training."""

    name = "translate"

    def __init__(
        self, files: Sequence[str], splits: PairSplits, options: TranslateOptions, tokenizer: Tokenizer
    ) -> None:
        self.files, self.splits, self.options, self.tokenizer = files, splits, options, tokenizer
        self.objective = Objective(count_labels, partial(target_loss, label_smoothing=options.label_smoothing))
        self.chance = math.log(tokenizer.vocab_size)
        self.config = options.model_config(None, tokenizer.vocab_size)
        self.longer = 0  # pairs that are left out
        self.rows, self.val_rows, _ = (
            self._that_fit(part) for part in (splits.train, splits.validation, splits.test)
        )  # of the last none is used: what cannot be encoded is found now
        if not self.rows or not self.val_rows:
            purpose = "validate with" if self.rows else "train on"
            raise DataError(
                f"context_length is {options.context_length}: no pair to {purpose} has so few tokens: give the model more "
                "(--context-length)"
            )
        self.max_length = 1 + max(len(ids) for row in self.rows for ids in row)

    def _that_fit(self, pairs: Sequence[Pair]) -> list[Row]:
        try:
            rows = [Row(*map(self.tokenizer.encode, (pair.source, pair.target))) for pair in pairs]
        except TokenizerError as error:  # of characters
            raise DataError(f"a pair that is kept from training: {error}: take another tokenizer (bpe)") from None
        fit = [row for row in rows if max(map(len, row)) < self.options.context_length]
        self.longer += len(rows) - len(fit)
        return fit

    def __len__(self) -> int:
        return math.ceil(len(self.rows) / self.options.batch_size)

    def epoch(self, model: Any) -> Iterator[Batch]:
        """Rows in an order drawn anew; within `bucket` batches in a row, those of like length go together."""
        order = get_generator().shuffle_order(len(self.rows))
        lengths = np.array([len(row.source) + len(row.target) for row in self.rows])
        for chosen in by_length(order, lengths, self.options.batch_size, self.options.bucket):
            yield collate([self.rows[i] for i in chosen], self.config)

    def evaluate(self, model: Any, final: bool) -> dict[str, float]:
        """Losses of some pairs of both parts, with what is smoothed and without, and of validation how many are written as they
        are to be; at the end on all of validation.
        """
        seen = {"train": self.rows[:_SEEN], "val": self.val_rows[: None if final else _SEEN]}
        row: dict[str, float] = {}
        for name, rows in seen.items():
            loss, nll = token_losses(model, rows, self.options.batch_size, self.options.label_smoothing)
            row |= {f"{name}_loss": loss, f"{name}_nll": nll}
        asked = self.val_rows[:_SEEN]
        written = write_targets(model, [each.source for each in asked], self._room())
        right = [ids == each.target for each, (ids, _) in zip(asked, written, strict=True)]
        return row | {"val_exact_match": float(np.mean(right))}

    def _room(self) -> int:
        """Tokens that a translation may take while training goes on: no text to learn from is as long."""
        return min(self.max_length + 8, self.options.context_length - 1)

    def sample(self, model: Any, step: int, final: bool) -> str:
        """A sentence of validation, another one each time."""
        pair = self.splits.validation[step % len(self.splits.validation)]
        (found,) = translate_pairs(model, self.tokenizer, [pair])
        return f"{pair.source}\n-> {found}\n(right: {pair.target})"

    def plot(self, path: Path, rows: Sequence[dict[str, float]]) -> bool:
        losses = {"train_loss": "training", "val_loss": "validation", "val_nll": "validation, without smoothing"}
        exact = {"val_exact_match": "of validation"}
        return plot_panels(
            path, rows, [Panel("loss (nats per token)", losses, (0, None)), Panel("written as it is", exact, (0, 1.02))]
        )

    def n_bytes(self) -> int:
        return self.splits.n_bytes()

    def about(self) -> dict[str, Any]:
        data = self.splits.fingerprint()
        how = [self.options.batch_size, self.options.bucket, self.options.context_length]
        return {"data": data, "batches": [data["pairs"], *how]}

    def introduce(self) -> list[str]:
        tokenizer = self.tokenizer
        sides = [np.mean([len(row[side]) for row in self.rows]) for side in (0, 1)]
        lines = [
            *self.splits.said,
            f"{tokenizer.name} tokens, {tokenizer.vocab_size:,} different ones for both sides; a source has {sides[0]:.1f} of "
            f"them in the mean, a target {sides[1]:.1f}.",
        ]
        if self.longer:
            lines.append(
                f"{self.longer:,} pairs are left out: they are longer than {self.options.context_length} tokens."
            )
        if self.options.label_smoothing:
            lines.append(
                f"Losses are smoothed: {self.options.label_smoothing:g} of a target's probability is spread over all "
                f"{tokenizer.vocab_size:,} tokens. nll is the loss without that."
            )
        return [line for each in lines for line in textwrap.wrap(each, 100)]

    def conclude(self, finished: Finished) -> TranslateResult:
        """Translate the pairs kept for testing, once, and put what is simpler beside it."""
        folder, test = finished.folder, self.splits.test[: self.options.judged]
        right, sources = [pair.targets for pair in test], [pair.source for pair in test]
        kinds = patterns_of(self.files, test)
        found = translate_pairs(finished.model, self.tokenizer, test)
        told = [
            {"source": pair.source, "expected": pair.target, "translation": text, "exact": text.strip() in pair.targets}
            for pair, text in zip(test, found, strict=True)
        ]
        told.sort(key=lambda each: bool(each["exact"]))  # what is wrong first
        replace_file(
            folder / PREDICTIONS_FILE, [(json.dumps(each, ensure_ascii=False) + "\n").encode() for each in told]
        )
        self._draw(finished.model, folder / ALIGNMENT_FILE)
        return TranslateResult(
            folder=folder,
            model=finished.model,
            tokenizer=self.tokenizer,
            metrics=finished.metrics,
            test=translation_scores(right, found, kinds),
            baselines={
                name: translation_scores(right, texts)
                for name, texts in translation_baselines(self.splits.train, sources).items()
            },
            wrong=[each for each in told[:3] if not each["exact"]],
            longer=self.longer,
            parameters=finished.model.n_parameters(),
            seconds=finished.seconds,
            tokens_per_second=finished.tokens_per_second,
        )

    def _draw(self, model: Any, path: Path) -> None:
        """Where the model looks while it writes some sentences of validation that are not too long for a picture."""
        sources = (pair.source for pair in self.splits.validation)
        short = [source for source in sources if len(self.tokenizer.encode(source)) < self._most_drawn()]
        if short:
            translator = Translator(model, self.tokenizer)
            plot_alignments(path, [translator.align(source).shown() for source in short[:_DRAWN]])

    def _most_drawn(self) -> int:
        return min(_DRAWN_TOKENS, self.options.context_length)


@dataclass(frozen=True)
class TranslateResult:
    """What a run leaves besides its folder. Scores are of the pairs kept for testing, after the last step."""

    folder: Path
    model: Any
    tokenizer: Tokenizer
    metrics: list[dict[str, float]]  # the rows of metrics.jsonl
    test: TranslationScores
    baselines: dict[str, TranslationScores]
    wrong: list[dict[str, Any]]  # some of them
    longer: int  # pairs that were left out
    parameters: int
    seconds: float
    tokens_per_second: float

    def summary(self) -> dict[str, Any]:
        """As plain data; shares are fractions of 1."""
        last = self.metrics[-1]
        losses = ("train_loss", "train_nll", "val_loss", "val_nll", "val_exact_match")
        return {
            "folder": str(self.folder),
            "steps": last["step"],
            "test": self.test.to_dict(),
            "baselines": {name: scores.to_dict() for name, scores in self.baselines.items()},
            "longer": self.longer,
            **{name: last[name] for name in losses},
            "parameters": self.parameters,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
        }

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        last = self.metrics[-1]
        rows = {_BASELINES[name]: scores for name, scores in self.baselines.items()} | {"the model": self.test}
        wide = max(map(len, rows))
        lines = [
            "",
            f"Trained in {self.seconds:.0f} s, {self.tokens_per_second:,.0f} tokens of sources a second; without smoothing the "
            f"loss is {last['train_nll']:.3f}, in validation {last['val_nll']:.3f}.",
            f"On {self.test.n:,} pairs that were kept for testing:",
            f"  {'':{wide}}  exact match    BLEU",
            *(f"  {name:{wide}}  {_figures(scores)}" for name, scores in rows.items()),
            NO_SACREBLEU if self.test.signature is None else f"BLEU {self.test.signature}",
        ]
        if self.test.by_kind:
            lines += ["The model, by the kind of sentence:", *(f"  {line}" for line in self.test.lines()[:-1])]
        for example in self.wrong:
            source, expected, found = (
                textwrap.shorten(example[key], 90) for key in ("source", "expected", "translation")
            )
            lines += [f"  {source}", f"    {found}   (right: {expected})"]
        return [
            *lines,
            f"In {self.folder}: {', '.join(sorted(file.name for file in self.folder.iterdir()))}",
            f"To let it translate: tinygrad-llm predict {shlex.quote(str(self.folder))} TEXT",
        ]


def _figures(scores: TranslationScores) -> str:
    low, high = scores.interval
    bleu = "-" if scores.bleu is None else f"{scores.bleu:.1f}"
    return f"{scores.exact_match:11.3f}  {bleu:>6}   (95 % of {low:.3f} to {high:.3f})"


def translate(
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = PHRASES,
    *,
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **options: Any,
) -> TranslateResult:
    """Train a model to translate, and leave a run folder that `Translator.load` reads.

    `data` is a file of pairs, two files whose lines belong together (`read_pairs`), or "phrases", English and German sentences
    that come with the package. It begins from fresh weights, and a tokenizer of both sides of the pairs to train on. `options`
    are those of TranslateOptions. `report`, `loggers`, the signals and resuming (`resume_translation`) are as for `pretrain`.
    """
    chosen = TranslateOptions.choose(None, **options)
    files = [str(data)] if isinstance(data, (str, os.PathLike)) else [str(file) for file in data]
    splits = pairs_of(files, chosen)
    task = Translating(files, splits, chosen, train_tokenizer(splits.train, chosen))
    config = task.config

    def make() -> Any:
        return make_model(config.architecture, config)

    return begin(task, chosen, config, make, files, None, out, report, loggers)


def train_tokenizer(pairs: Sequence[Pair], options: TranslateOptions) -> Tokenizer:
    """The tokenizer of both sides of pairs."""
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    if options.tokenizer == "bpe":
        return BPETokenizer.train(texts, options.vocab_size)
    return CharTokenizer.train("".join(texts)) if options.tokenizer == "char" else WordTokenizer.train(texts)


def resume_translation(
    run: str | os.PathLike[str],
    *,
    report: Callable[[str], None] = print,
    loggers: Sequence[Logger] = (),
    **changes: Any,
) -> TranslateResult:
    """Go on with a run of `translate` from its newest whole checkpoint; without changes, to the bit as if never stopped.

    ConfigMismatch for changes of the model, the pairs or the seed, DataError for pairs that are no longer what they were,
    CheckpointError without a whole checkpoint.
    """
    return go_on(run, TranslateOptions, _task_of, report, loggers, changes)


def evaluate_translator(
    run: str | os.PathLike[str],
    *files: str | os.PathLike[str],
    checkpoint: str | int | None = None,
    encoding: str = "",
) -> tuple[str, TranslationScores]:
    """Judge a run of `translate` on the pairs that it kept for testing, or on those of a file, or of two: what these are, and the
    scores. DataError for pairs that are no longer what they were.
    """
    translator = Translator.load(run, checkpoint)
    if len(files) > 2:
        raise ConfigError(f"{len(files)} files: give one of pairs, or two whose lines belong together")
    if files:
        name, kinds = " and ".join(map(str, files)), None
        pairs = read_pairs(*files, encoding=encoding or "utf-8").pairs
    else:
        folder, _ = find_run(run, checkpoint) or (Path(run), "")
        config = load_config(folder)
        with naming(folder / CONFIG_FILE):
            kept, chosen = data_of(config, TranslateOptions.most_files), TranslateOptions.of_run(config["training"])
        task = _task_of(config, chosen, translator.tokenizer)
        check_same(kept, task, config)
        name, pairs = "the pairs kept for testing", task.splits.test[: chosen.judged]
        kinds = patterns_of(task.files, pairs)
    found = translate_pairs(translator.model, translator.tokenizer, pairs)
    return name, translation_scores([pair.targets for pair in pairs], found, kinds)


def _task_of(config: dict[str, Any], options: TranslateOptions, tokenizer: Tokenizer) -> Translating:
    files = config["files"]
    return Translating(files, pairs_of(files, options), options, tokenizer)
