"""What came of a run, told honestly: a small model learns a short text by heart, which is not learning to write."""

from __future__ import annotations

import math
import shlex
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..evaluation.losses import (
    bits_per_byte,
    copied_run,
    split_words,
    unigram_cross_entropy,
    unigram_entropy,
    words_or_characters,
)
from ..models import LanguageModel
from ..runs.curve import judge_validation
from ..text import Tokenizer
from ..text.corpus import Corpus
from .task import Finished


@dataclass(frozen=True)
class Continued:
    """What continued pretraining gained on its own text, and what it cost on general text, in nats per token."""

    init_from: str
    domain_before: float  # on the validation part of the run's text
    domain_after: float
    general_text: str | None  # None where there is none that the tokenizer knows
    general_before: float | None
    general_after: float | None

    def lines(self) -> list[str]:
        lines = [
            f"Continued from {self.init_from}:       before     after",
            f"  loss on this text's validation part  {self.domain_before:8.3f}  {self.domain_after:8.3f}",
        ]
        if self.general_before is not None:
            lines.append(f"  loss on {self.general_text!s:29.29}{self.general_before:8.3f}  {self.general_after:8.3f}")
        return lines


@dataclass(frozen=True)
class PretrainResult:
    """What a run leaves besides its folder. Losses are nats per token, after the last step unless named `best_`."""

    folder: Path
    model: LanguageModel
    tokenizer: Tokenizer
    metrics: list[dict[str, float]]  # the rows of metrics.jsonl
    train_loss: float
    val_loss: float
    best_val_loss: float
    best_step: int
    val_bits_per_byte: float
    chance_loss: float  # ln V: all tokens alike
    unigram_train_loss: float  # knowing how often each token comes, on the training text
    unigram_val_loss: float  # and on the validation text
    prompt: str
    sample: str  # written at the end, the prompt first
    copied: str  # the longest run of words after the prompt that the training text has word for word
    seconds: float
    tokens_per_second: float
    entropy: float | None = None  # of the validation text itself, where that is known
    continued: Continued | None = None  # for a run that began from the weights of others

    def summary(self) -> dict[str, Any]:
        """All but the model, the tokenizer and the rows, as plain data."""
        values = {name: value for name, value in vars(self).items() if name not in ("model", "tokenizer", "metrics")}
        continued = self.continued and asdict(self.continued)
        return values | {"folder": str(self.folder), "steps": self.metrics[-1]["step"], "continued": continued}

    def lines(self) -> list[str]:
        """The summary as text for the terminal."""
        written, copied = (len(split_words(text)) for text in (self.sample.removeprefix(self.prompt), self.copied))
        unit = words_or_characters(self.sample)
        command = f"tinygrad-llm generate {shlex.quote(str(self.folder))} --prompt {shlex.quote(self.prompt)}"
        return [
            "",
            *(f"  {line}" for paragraph in self.sample.splitlines() for line in textwrap.wrap(paragraph, 98)),
            "",
            f"Trained in {self.seconds:.0f} s, {self.tokens_per_second:,.0f} tokens a second.",
            "                      training  validation",
            f"  loss at the end     {self.train_loss:8.3f}  {self.val_loss:10.3f}   ({self.val_bits_per_byte:.2f} bits per byte)",
            f"  lowest validation             {self.best_val_loss:10.3f}   (after step {self.best_step})",
            *([] if self.entropy is None else [f"  the text's own entropy        {self.entropy:10.3f}"]),
            f"  token counts alone  {self.unigram_train_loss:8.3f}  {self.unigram_val_loss:10.3f}",
            f"  chance              {self.chance_loss:8.3f}  {self.chance_loss:10.3f}",
            *textwrap.wrap(self.verdict(), 100),
            *textwrap.wrap(
                f"Of the {written} {unit} above after the prompt, the longest run copied from the training text is {copied}: "
                f'"{textwrap.shorten(self.copied, 200) if unit == "words" else self.copied[:200]}"',
                100,
            ),
            f"In {self.folder}: {', '.join(sorted(file.name for file in self.folder.iterdir()))}",
            f"To let it write: {command}",
        ]

    def verdict(self) -> str:
        """How training and validation loss relate, in words."""
        found = judge_validation(self.metrics, self.unigram_val_loss)
        text = f"{found.text}: {found.advice}." if found.advice else f"{found.text}."
        return text[0].upper() + text[1:]


def judge(finished: Finished, corpus: Corpus, prompt: str) -> PretrainResult:
    """Put a finished run beside what guessing reaches, and its last sample beside the training text."""
    metrics, sample = finished.metrics, finished.sample
    last, best = metrics[-1], min(metrics, key=lambda row: row["val_loss"])
    val_bytes = sum(len(text.encode()) for text in corpus.val_texts)
    vocab_size = corpus.tokenizer.vocab_size
    return PretrainResult(
        folder=finished.folder,
        model=finished.model,
        tokenizer=corpus.tokenizer,
        metrics=metrics,
        train_loss=last["train_loss"],
        val_loss=last["val_loss"],
        best_val_loss=best["val_loss"],
        best_step=int(best["step"]),
        val_bits_per_byte=bits_per_byte(last["val_loss"], len(corpus.val_ids), val_bytes),
        chance_loss=math.log(vocab_size),
        unigram_train_loss=unigram_entropy(corpus.train_ids),
        unigram_val_loss=unigram_cross_entropy(corpus.train_ids, corpus.val_ids, vocab_size),
        prompt=prompt,
        sample=sample,
        copied=copied_run(sample.removeprefix(prompt), corpus.train_texts),
        seconds=finished.seconds,
        tokens_per_second=finished.tokens_per_second,
        entropy=corpus.entropy,
    )
