"""Pretraining: a text, a tokenizer, a model, and the loop that makes the model predict the text (the book's chapter 5).

run = pretrain()                                              # the bundled story, into runs/story
run = pretrain("a.txt", "b.txt", preset="124M", epochs=10)    # your own files, into runs/a
run.val_loss, run.sample
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..generation import stream_text
from ..models.gpt import GPTConfig, GPTModel
from ..optim import AdamW, CosineSchedule
from ..rng import Generator, use_generator
from .corpus import Corpus, TrainingWindows, read_corpus
from .interrupt import InterruptAfterStep
from .metrics import Batch, all_windows, mean_loss
from .options import PretrainOptions
from .plot import plot_losses
from .progress import Progress
from .result import PretrainResult, judge
from .run import METRICS_FILE, PLOT_FILE, SAMPLES_FILE, append, save_model, start_run
from .step import train_step


def pretrain(
    *files: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    report: Callable[[str], None] = print,
    **options: Any,
) -> PretrainResult:
    """Train a GPT on UTF-8 text files, or on the bundled story, and leave a run folder that `load_run` reads.

    `out` is the folder (runs/story, or runs/ and the name of the first file), `report` is given each line of the record,
    `options` are those of PretrainOptions. All input is checked before anything is written. Ctrl-C saves the model after
    the step under way and raises KeyboardInterrupt; a second one does not wait.
    """
    chosen = PretrainOptions.for_preset(**options)
    corpus = read_corpus(files, chosen)
    if chosen.prompt:
        corpus.tokenizer.encode(chosen.prompt)  # TokenizerError now rather than after the first epoch
    else:
        chosen = replace(chosen, prompt=corpus.opening())
    config = chosen.model_config(corpus.tokenizer.vocab_size)
    check_memory(config, chosen.batch_size)
    folder = Path(out) if out is not None else Path("runs", Path(files[0]).stem if files else "story")
    windows = TrainingWindows(corpus.train_ids, chosen)
    with use_generator(Generator(chosen.seed)):
        record = {"model": config.to_dict(), "training": asdict(chosen), "files": [str(file) for file in files]}
        previous = start_run(folder, record, corpus.tokenizer)
        if previous is not None:
            report(f"The run that was in {folder} is now in {previous}.")
        return _Pretraining(chosen, corpus, windows, GPTModel(config), folder, report).run()


class _Pretraining:
    """The loop, and what its parts share."""

    def __init__(
        self,
        options: PretrainOptions,
        corpus: Corpus,
        windows: TrainingWindows,
        model: GPTModel,
        folder: Path,
        report: Callable[[str], None],
    ) -> None:
        self.options, self.corpus, self.windows, self.model, self.folder = options, corpus, windows, model, folder
        self.total_steps = options.epochs * len(windows)
        self.eval_every = options.eval_every or math.ceil(self.total_steps / 20)
        self.optimizer = AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        self.schedule = CosineSchedule(
            options.lr, self.total_steps, round(options.warmup * self.total_steps), min_lr=options.min_lr
        )
        context_length = model.config.context_length
        self.train_batches = all_windows(corpus.train_ids, context_length, options.batch_size)
        self.val_batches = all_windows(corpus.val_ids, context_length, options.batch_size)
        self.metrics: list[dict[str, float]] = []
        self.step = self.epoch = 0
        self.progress = Progress(self.total_steps * options.batch_size * context_length, report)

    def run(self) -> PretrainResult:
        try:
            self.introduce()
            with InterruptAfterStep() as interrupt:
                self.train(interrupt)
            if interrupt.requested:
                save_model(self.folder, self.model)
                self.progress.line(f"Interrupted after step {self.step} of {self.total_steps}; saved in {self.folder}.")
                raise KeyboardInterrupt
            return self.finish()
        except BrokenPipeError:  # nobody reads the record any more: what was learned stays
            save_model(self.folder, self.model)
            raise
        finally:
            self.progress.close()

    def train(self, interrupt: InterruptAfterStep) -> None:
        self.evaluate()
        for epoch in range(1, self.options.epochs + 1):
            self.epoch = epoch
            for ids, targets in self.windows.epoch():  # (B, T) each
                self.optimizer.set_lr(self.schedule(self.step))
                loss = train_step(self.model, self.optimizer, ids, targets, max_norm=self.options.max_norm or None)
                self.step += 1
                self.progress.advance(ids.size, loss)
                if interrupt.requested:
                    return
                if self.step % self.eval_every == 0 or self.step == self.total_steps:
                    self.evaluate()
            sample = self.write_sample(self.options.sample_tokens)
            self.progress.line("  " + " ".join(sample.split()))

    def evaluate(self) -> None:
        """Both losses without dropout, on a few batches of each text; after the last step, on all of the validation text."""
        n = self.options.eval_batches
        val_batches = self.val_batches if self.step == self.total_steps else _spread(self.val_batches, n)
        row: dict[str, float] = {
            "step": self.step,
            "epoch": self.epoch,
            "tokens": self.progress.tokens,
            "lr": self.schedule(self.step),
            "train_loss": mean_loss(self.model, _spread(self.train_batches, n)),
            "val_loss": mean_loss(self.model, val_batches),
        }
        self.metrics.append(row)
        append(self.folder / METRICS_FILE, json.dumps(row) + "\n")
        self.progress.line(
            f"step {self.step:>{len(str(self.total_steps))}}/{self.total_steps}  epoch {self.epoch}  "
            f"training loss {row['train_loss']:.3f}  validation loss {row['val_loss']:.3f}  {self.progress}"
        )

    def write_sample(self, n_tokens: int) -> str:
        """Let the model go on from the prompt, and keep the text; in a stream of its own, so that training is not touched."""
        options = self.options
        pieces = stream_text(
            self.model,
            self.corpus.tokenizer,
            options.prompt,
            n_tokens,
            options.temperature,
            options.top_k,
            rng=Generator((options.seed + self.step) % 2**64),
        )
        text = options.prompt + "".join(pieces)
        append(self.folder / SAMPLES_FILE, f"--- epoch {self.epoch}, step {self.step}\n{text}\n\n")
        return text

    def introduce(self) -> None:
        corpus, config = self.corpus, self.model.config
        for line in (
            f"Text: {sum(map(len, corpus.train_texts)):,} characters to learn from, {sum(map(len, corpus.val_texts)):,} "
            f"kept for validation; {corpus.tokenizer.name} tokens: {len(corpus.train_ids):,} and {len(corpus.val_ids):,}, "
            f"{config.vocab_size:,} different ones.",
            f"Model: {config.n_layers} layers, {config.n_heads} heads, width {config.emb_dim}, context "
            f"{config.context_length}: {self.model.n_parameters():,} parameters.",
            f"Training: {self.options.epochs} epochs of {len(self.windows)} steps of {self.options.batch_size} x "
            f"{config.context_length} tokens, into {self.folder}.",
        ):
            self.progress.line(line)

    def finish(self) -> PretrainResult:
        seconds, tokens_per_second = self.progress.seconds, self.progress.tokens_per_second
        self.progress.close()
        save_model(self.folder, self.model)
        sample = self.write_sample(4 * self.options.sample_tokens)
        result = judge(
            self.folder, self.model, self.corpus, self.metrics, self.options.prompt, sample, seconds, tokens_per_second
        )
        guesses = {"chance": result.chance_loss, "token counts, on validation": result.unigram_val_loss}
        plotted = plot_losses(self.folder / PLOT_FILE, self.metrics, guesses)
        for line in result.lines():
            self.progress.line(line)
        if not plotted:
            self.progress.line(
                f"No {PLOT_FILE}: matplotlib is not there (pip install matplotlib, or the extra [plot])."
            )
        return result


def check_memory(config: GPTConfig, batch_size: int) -> None:
    """ConfigError when weights, gradients, AdamW's two moments and the activations of a step exceed this machine's memory."""
    weights = 16 * config.n_parameters()
    logits = 3 * config.vocab_size
    blocks = config.n_layers * (20 * config.emb_dim + 3 * config.n_heads * config.context_length)
    needed = weights + 4 * batch_size * config.context_length * (logits + blocks)
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return
    if needed > there:
        raise ConfigError(
            f"training {config.n_parameters():,} parameters on batches of {batch_size} x {config.context_length} tokens needs "
            f"about {needed / 2**30:,.1f} GiB, this machine has {there / 2**30:,.1f}: use a smaller preset, context_length or "
            "batch_size"
        )


def _spread(batches: list[Batch], n: int) -> list[Batch]:
    """At most n of the batches, from all over the text."""
    return [batches[i * len(batches) // n] for i in range(n)] if len(batches) > n else batches
