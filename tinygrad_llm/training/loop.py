"""The training loop, from any state to the end: one step, its record, perhaps a checkpoint, and again.

All that decides how it goes on is in the weights, the optimizer and a TrainerState, so a run that was killed and resumed ends
with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from ..errors import NonFiniteError
from ..evaluation.losses import Batch, all_windows, mean_loss
from ..files import append, sync_file
from ..generation import stream_text
from ..models import LanguageModel
from ..optim import AdamW, CosineSchedule
from ..rng import Generator, get_generator
from ..runs.checkpoint import Checkpoint, TrainerState, save_checkpoint, step_of
from ..runs.folder import METRICS_FILE, PLOT_FILE, SAMPLES_FILE, load_config, resume_command, save_model, tokenizer_sum
from ..runs.loggers import Logger
from ..runs.plots import plot_losses
from ..runs.progress import Progress
from ..text.corpus import Corpus, TrainingWindows
from .interrupt import InterruptAfterStep
from .nonfinite import RECENT, highest_loss, leave_evidence
from .options import PretrainOptions
from .result import PretrainResult, judge
from .step import train_step

_SKIPS = 10  # steps without a finite loss or gradient, one after the other, after which skipping them is given up


class TrainingLoop:
    """A run under way: `state` says where it is, `restore` puts it elsewhere, `run` takes it to the end."""

    def __init__(
        self,
        options: PretrainOptions,
        corpus: Corpus,
        windows: TrainingWindows,
        model: LanguageModel,
        folder: Path,
        report: Callable[[str], None],
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.options, self.corpus, self.windows, self.model, self.folder = options, corpus, windows, model, folder
        self.report, self.loggers = report, loggers
        self.optimizer = AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
        context_length = model.config.context_length
        self.train_batches = all_windows(corpus.train_ids, context_length, options.batch_size)
        self.val_batches = all_windows(corpus.val_ids, context_length, options.batch_size)
        self.state = TrainerState(log_bytes={METRICS_FILE: 0, SAMPLES_FILE: 0})
        self.metrics: list[dict[str, float]] = []
        self.saved: Path | None = None  # the newest checkpoint
        self._batches: Iterator[Batch] | None = None  # the rest of the epoch
        self._plan()

    def restore(self, checkpoint: Checkpoint, metrics: list[dict[str, float]]) -> None:
        """Be where the checkpoint was. If the batches are others than they were, an epoch under way begins again."""
        self.model.load_state_dict(checkpoint.weights)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.options.weight_decay
        self.state, self.metrics, self.saved = checkpoint.state, metrics, checkpoint.folder
        get_generator().set_state(self.state.rng)
        if (
            _what_decides_batches(self.about) != _what_decides_batches(checkpoint.about)
            and not self.state.epoch_is_over
        ):
            self.state.batch, self.state.epoch_batches = 0, len(self.windows)
            self.state.epoch_rng = self.state.rng
        self._plan()

    def _plan(self) -> None:
        """What follows from the state and the options: how many steps there are, and their learning rates."""
        state, options = self.state, self.options
        steps_left = state.epoch_batches - state.batch + (options.epochs - state.epoch) * len(self.windows)
        self.total_steps = state.step + steps_left
        self.eval_every = options.eval_every or math.ceil(self.total_steps / 20)
        self.schedule = CosineSchedule(
            options.lr, self.total_steps, round(options.warmup * self.total_steps), min_lr=options.min_lr
        )
        self.about = {
            "model": self.model.config.to_dict(),
            "training": asdict(options),
            "schedule": asdict(self.schedule),
            "data": self.corpus.fingerprint(),
            "tokenizer": tokenizer_sum(self.folder),
            "dtype": str(next(self.model.parameters()).dtype),
        }

    def run(self) -> PretrainResult:
        tokens_left = (self.total_steps - self.state.step) * self.options.batch_size * self.model.config.context_length
        self.progress = Progress(self.state.tokens + tokens_left, self.report, self.state.tokens)
        try:
            with ExitStack() as logging, InterruptAfterStep() as interrupt:
                self.start_loggers(logging)
                self.introduce()
                self.train(interrupt)
                if interrupt.requested is None:
                    result = self.finish()
                if interrupt.requested is not None:
                    raise interrupt.error()
            return result
        except BrokenPipeError:  # nobody reads the record any more: what was learned stays
            self.save()
            raise
        except Exception:
            if self.saved is not None:
                self.progress.line(f"{self.saved} is whole; to go on from there: {resume_command(self.folder)}")
            raise
        finally:
            self.progress.close()

    def start_loggers(self, logging: ExitStack) -> None:
        """Tell each where the run is, and when it ends."""
        for logger in self.loggers:
            logging.callback(logger.finish)
            logger.start(self.folder, load_config(self.folder), self.state.step)

    def train(self, interrupt: InterruptAfterStep) -> None:
        while True:
            if interrupt.requested is None and not self.state.recorded:
                self.record()
            done = self.state.step == self.total_steps
            if done or self.checkpoint_is_due():
                self.save()
            stopped = interrupt.requested is not None  # looked at once: a signal may come between any two lines
            if stopped:
                self.save()
                self.progress.line(
                    f"Interrupted after step {self.state.step} of {self.total_steps}; to go on: {resume_command(self.folder)}"
                )
            if done or stopped:
                return
            self.learn()

    def learn(self) -> None:
        """One step."""
        state, rng, options = self.state, get_generator(), self.options
        if state.epoch_is_over:
            state.epoch, state.batch, state.epoch_batches = state.epoch + 1, 0, len(self.windows)
            state.epoch_rng, self._batches = rng.get_state(), None
        self._batches = self._batches or self.rest_of_epoch()
        ids, targets = next(self._batches)  # (B, T) each
        self.optimizer.set_lr(self.schedule(state.step))
        state.rng = rng.get_state()
        try:
            loss = train_step(
                self.model,
                self.optimizer,
                ids,
                targets,
                max_norm=options.max_norm or math.inf,
                max_loss=highest_loss(state.losses, options.spike, self.model.config.vocab_size),
                accumulate=options.accumulate,
            )
            state.losses = [*state.losses, loss][-RECENT:]
            state.skipped_in_a_row = 0
        except NonFiniteError as error:
            loss = math.nan
            state.skipped, state.skipped_in_a_row = state.skipped + 1, state.skipped_in_a_row + 1
            if options.on_nonfinite == "stop" or state.skipped_in_a_row == _SKIPS:
                leave_evidence(self, ids, targets, error)
            self.progress.line(f"step {state.step + 1} is skipped: {error}")
        state.step, state.batch, state.tokens = state.step + 1, state.batch + 1, state.tokens + ids.size
        state.recorded = False
        self.progress.advance(ids.size, loss)
        for logger in self.loggers:
            logger.log_step(state.step, loss, self.schedule(state.step - 1))

    def rest_of_epoch(self) -> Iterator[Batch]:
        """The batches that are left of the epoch, in the order that was drawn when it began."""
        rng = get_generator()
        now = rng.get_state()
        rng.set_state(self.state.epoch_rng)
        batches = iter(self.windows.epoch())
        for _ in range(self.state.batch):
            next(batches)
        if self.state.batch:
            rng.set_state(now)
        return batches

    def checkpoint_is_due(self) -> bool:
        return self.state.step > 0 and self.state.step % (self.options.save_every or self.eval_every) == 0

    def save(self) -> None:
        """Write a checkpoint, unless that of this step is there."""
        if self.saved is not None and step_of(self.saved) == self.state.step:
            return
        for name in self.state.log_bytes:
            sync_file(self.folder / name)
        self.state.rng = get_generator().get_state()
        self.saved = save_checkpoint(
            self.folder,
            self.options.keep,
            weights={name: parameter.data for name, parameter in self.model.named_parameters()},
            optimizer=self.optimizer.state_dict(),
            state=self.state,
            about=self.about,
        )

    def record(self) -> None:
        """What is due after a step: both losses, and after an epoch a sample."""
        state = self.state
        if state.step % self.eval_every == 0 or state.step == self.total_steps:
            self.evaluate()
        if state.epoch and state.epoch_is_over:
            self.progress.line("  " + " ".join(self.write_sample(self.options.sample_tokens).split()))
        state.recorded = True
        state.log_bytes = {name: (self.folder / name).stat().st_size for name in state.log_bytes}

    def evaluate(self) -> None:
        """Both losses without dropout, on a few batches of each text; after the last step, on all of the validation text."""
        n, state = self.options.eval_batches, self.state
        val_batches = self.val_batches if state.step == self.total_steps else _spread(self.val_batches, n)
        row: dict[str, float] = {
            "step": state.step,
            "epoch": state.epoch,
            "tokens": state.tokens,
            "lr": self.schedule(state.step),
            "train_loss": mean_loss(self.model, _spread(self.train_batches, n)),
            "val_loss": mean_loss(self.model, val_batches),
        }
        if not math.isfinite(row["train_loss"] + row["val_loss"]):
            raise NonFiniteError(
                f"after step {state.step} the training loss is {row['train_loss']}, the validation loss {row['val_loss']}: "
                "lower the learning rate"
            )
        self.metrics.append(row)
        state.val_loss = row["val_loss"]
        append(self.folder / METRICS_FILE, json.dumps(row) + "\n")
        for logger in self.loggers:
            logger.log_evaluation(row)
        self.progress.line(
            f"step {state.step:>{len(str(self.total_steps))}}/{self.total_steps}  epoch {state.epoch}  "
            f"training loss {row['train_loss']:.3f}  validation loss {row['val_loss']:.3f}  {self.progress}"
        )

    def write_sample(self, n_tokens: int) -> str:
        """Let the model go on from the prompt, and keep the text; in a stream of its own, so that training is not touched."""
        options, state = self.options, self.state
        pieces = stream_text(
            self.model,
            self.corpus.tokenizer,
            options.prompt,
            n_tokens,
            options.temperature,
            options.top_k,
            rng=Generator((options.seed + state.step) % 2**64),
        )
        text = options.prompt + "".join(pieces)
        append(self.folder / SAMPLES_FILE, f"--- epoch {state.epoch}, step {state.step}\n{text}\n\n")
        for logger in self.loggers:
            logger.log_sample(state.step, text)
        return text

    def introduce(self) -> None:
        corpus, config, options = self.corpus, self.model.config, self.options
        for line in (
            f"Text: {sum(map(len, corpus.train_texts)):,} characters to learn from, {sum(map(len, corpus.val_texts)):,} "
            f"kept for validation; {corpus.tokenizer.name} tokens: {len(corpus.train_ids):,} and {len(corpus.val_ids):,}, "
            f"{config.vocab_size:,} different ones.",
            f"Model: {config.n_layers} layers, {config.n_heads} heads, width {config.emb_dim}, context "
            f"{config.context_length}: {self.model.n_parameters():,} parameters.",
            f"Training: {options.epochs} epochs of {len(self.windows)} steps of {options.batch_size} x "
            f"{config.context_length} tokens, into {self.folder}.",
        ):
            self.progress.line(line)

    def finish(self) -> PretrainResult:
        """The last sample, the picture, and, at the very end, the weights: they say that the run is finished."""
        seconds, tokens_per_second = self.progress.seconds, self.progress.tokens_per_second
        self.progress.close()
        sample = self.write_sample(4 * self.options.sample_tokens)
        result = judge(
            self.folder, self.model, self.corpus, self.metrics, self.options.prompt, sample, seconds, tokens_per_second
        )
        guesses = {"chance": result.chance_loss, "token counts, on validation": result.unigram_val_loss}
        plotted = plot_losses(self.folder / PLOT_FILE, self.metrics, guesses)
        save_model(self.folder, self.model)
        for line in result.lines():
            self.progress.line(line)
        if not plotted:
            self.progress.line(
                f"No {PLOT_FILE}: matplotlib is not there (pip install matplotlib, or the extra [plot])."
            )
        return result


def _what_decides_batches(about: dict) -> tuple:
    return about["data"]["ids"], about["training"]["batch_size"], about["training"]["stride"]


def _spread(batches: list[Batch], n: int) -> list[Batch]:
    """At most n of the batches, from all over the text."""
    return [batches[i * len(batches) // n] for i in range(n)] if len(batches) > n else batches
