"""The training loop, from any state to the end: one step, its record, perhaps a checkpoint, and again.

All that decides how it goes on is in the weights, the optimizer, the task and a TrainerState, so a run that was killed and
resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import byte_size
from ..errors import CorruptCheckpoint, NonFiniteError, StorageError
from ..files import append, sync_file, truncate
from ..formats.safetensors import read_arrays
from ..models import describe_model
from ..nn import Module
from ..rng import get_generator
from ..runs.checkpoint import (
    BEST_FILE,
    MODEL_FILE,
    STATE_FILE,
    Checkpoint,
    TrainerState,
    best_file_step,
    save_best,
    save_checkpoint,
    step_of,
)
from ..runs.fields import naming
from ..runs.folder import (
    METRICS_FILE,
    PLOT_FILE,
    SAMPLES_FILE,
    SPEED_FILE,
    best_row,
    load_config,
    resume_command,
    save_model,
    tokenizer_sum,
)
from ..runs.loggers import Logger
from ..runs.progress import Progress, lasting
from ..runs.records import read_metrics
from .interrupt import InterruptAfterStep
from .nonfinite import RECENT, highest_loss, leave_evidence
from .options import LoopOptions
from .step import Batch, train_step
from .task import Finished, Task

TASK_FILE = "task.safetensors"  # of a checkpoint: the arrays of Task.state
_SIZES = {"n_layers": "{} layers", "n_heads": "{} heads", "emb_dim": "width {}", "context_length": "context {}"}
_WRITTEN = 8 * 2**30  # bytes of checkpoints that a run writes if nothing else is asked for
_SKIPS = 10  # steps without a finite loss or gradient, one after the other, after which skipping them is given up


class TrainingLoop:
    """A run under way: `state` says where it is, `restore` puts it elsewhere, `run` takes it to the end."""

    def __init__(
        self,
        task: Task,
        options: LoopOptions,
        model: Module,
        folder: Path,
        report: Callable[[str], None] = print,
        loggers: Sequence[Logger] = (),
    ) -> None:
        self.task, self.options, self.model, self.folder = task, options, model, folder
        self.report, self.loggers = lasting(report), loggers
        self.optimizer = options.optimizer(model)
        self.state = TrainerState()
        self.metrics: list[dict[str, float]] = []
        self.saved: Path | None = None  # the newest checkpoint
        self._batches: Iterator[Batch] | None = None  # the rest of the epoch
        self._best: tuple[int, dict[str, np.ndarray]] | None = (
            None  # a step, its weights: the best, and not written yet
        )
        self._plan()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Be where the checkpoint was. If the batches are others than they were, an epoch under way begins again."""
        self.metrics = read_metrics(self.folder, checkpoint.state.log_bytes[METRICS_FILE])
        with naming(checkpoint.folder / MODEL_FILE):
            self.model.load_state_dict(checkpoint.weights)
        with naming(checkpoint.folder / STATE_FILE):
            self.optimizer.load_state_dict(checkpoint.optimizer)
        for group in self.optimizer.param_groups:
            group["betas"], group["eps"] = (self.options.beta1, self.options.beta2), self.options.eps
        self.optimizer.param_groups[0]["weight_decay"] = self.options.weight_decay
        self.state, self.saved = checkpoint.state, checkpoint.folder
        get_generator().set_state(self.state.rng)
        if self.about["batches"] != checkpoint.about.get("batches") and not self.state.epoch_is_over:
            self.state.batch, self.state.epoch_batches = 0, len(self.task)
            self.state.epoch_rng = self.state.rng
        elif self.state.epoch_batches != len(self.task) and not self.state.epoch_is_over:
            raise CorruptCheckpoint(
                f"{checkpoint.folder / STATE_FILE}: state.epoch_batches is {self.state.epoch_batches}: an epoch of these batches "
                f"has {len(self.task)}"
            )
        if not self.state.epoch_is_over:
            self._batches = self.rest_of_epoch()
        arrays = checkpoint.folder / TASK_FILE
        kept = checkpoint.about.get("task_state", {}) | (read_arrays(arrays) if arrays.exists() else {})
        self.task.restore(kept)  # after the batches that were skipped, which may have changed it
        self._plan()

    def _plan(self) -> None:
        """What follows from the state and the options: how many steps there are, and their learning rates."""
        state, options = self.state, self.options
        steps_left = state.epoch_batches - state.batch + (options.epochs - state.epoch) * len(self.task)
        self.total_steps = options.max_steps or state.step + steps_left
        self.eval_every = options.eval_every or math.ceil(self.total_steps / 20)
        moments = 2 * sum(p.data.nbytes for p in self.optimizer.parameters())  # of which what is frozen has none
        self.checkpoint_bytes = moments + sum(p.data.nbytes for p in self.model.parameters())
        most = max(2, _WRITTEN // self.checkpoint_bytes)
        self.save_every = options.save_every or self.eval_every * math.ceil(self.total_steps / most / self.eval_every)
        self.schedule = options.lr_schedule(self.total_steps)
        model: Any = self.model
        self.about = {
            **describe_model(model),
            "task": self.task.name,
            "training": asdict(options),
            "schedule": asdict(self.schedule) | {"total_steps": self.total_steps},
            "tokenizer": tokenizer_sum(self.folder),
            "dtype": str(next(self.model.parameters()).dtype),
            **self.task.about(),
        }

    def rewind(self) -> None:
        """Take out of the folder what was written after the checkpoint that was restored."""
        truncate({self.folder / name: n_bytes for name, n_bytes in self.state.log_bytes.items()})
        # What may be there are the weights at the end of a shorter run; the checkpoint has them.
        (self.folder / MODEL_FILE).unlink(missing_ok=True)
        if (step := best_file_step(self.folder)) is not None and step > self.state.step:
            (self.folder / BEST_FILE).unlink()

    def run(self) -> Any:
        """To the end. Returns what the task concludes."""
        self.progress = Progress(self.total_steps, self.report, self.state.step)
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
        except Exception:
            with suppress(StorageError):
                self.save_best()
            if self.saved is not None:
                how = resume_command(self.folder, self.task.name)
                self.progress.line(f"{self.saved} is whole; to go on from there: {how}")
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
            done = self.state.step == self.total_steps or self.state.stopped
            if done or self.checkpoint_is_due():
                self.save()
            stopped = interrupt.requested is not None  # looked at once: a signal may come between any two lines
            if stopped:
                self.save()
                how = resume_command(self.folder, self.task.name)
                self.progress.line(f"Interrupted after step {self.state.step} of {self.total_steps}; to go on: {how}")
            if done or stopped:
                return
            self.learn()

    def learn(self) -> None:
        """One step."""
        state, rng, options = self.state, get_generator(), self.options
        if state.epoch_is_over:
            state.epoch, state.batch, state.epoch_batches = state.epoch + 1, 0, len(self.task)
            state.epoch_rng, self._batches = rng.get_state(), None
        self._batches = self._batches or self.rest_of_epoch()
        batch = next(self._batches)
        self.optimizer.set_lr(self.schedule(state.step))
        state.rng = rng.get_state()
        try:
            loss = train_step(
                self.model,
                self.optimizer,
                *batch,
                objective=self.task.objective,
                max_norm=options.max_norm or math.inf,
                max_loss=highest_loss(state.losses, options.spike, self.task.chance),
                accumulate=options.accumulate,
                measure=(measure := self.evaluation_is_due(state.step + 1)),
            )
            state.gradient_norm = self.optimizer.gradient_norm
            state.update_ratio = self.optimizer.update_ratio if measure else state.update_ratio
            state.losses = [*state.losses, loss][-RECENT:]
            state.skipped_in_a_row = 0
        except NonFiniteError as error:
            loss = math.nan
            state.skipped, state.skipped_in_a_row = state.skipped + 1, state.skipped_in_a_row + 1
            if options.on_nonfinite == "stop" or state.skipped_in_a_row >= _SKIPS:
                leave_evidence(self, batch, error)
            self.progress.line(f"step {state.step + 1} is skipped: {error}")
        n_tokens = batch[0].size
        state.step, state.batch, state.tokens = state.step + 1, state.batch + 1, state.tokens + n_tokens
        state.recorded = False
        self.progress.advance(n_tokens, loss)
        for logger in self.loggers:
            logger.log_step(state.step, loss, self.schedule(state.step - 1))

    def rest_of_epoch(self) -> Iterator[Batch]:
        """The batches that are left of the epoch, in the order that was drawn when it began."""
        rng = get_generator()
        now = rng.get_state()
        rng.set_state(self.state.epoch_rng)
        batches = iter(self.task.epoch(self.model))
        for _ in range(self.state.batch):
            next(batches)
        if self.state.batch:
            rng.set_state(now)
        return batches

    def evaluation_is_due(self, step: int) -> bool:
        return step % self.eval_every == 0 or step == self.total_steps

    def checkpoint_is_due(self) -> bool:
        return self.state.step > 0 and self.state.step % self.save_every == 0

    def save(self) -> None:
        """Write a checkpoint, unless that of this step is there, and the best weights first: what is after it knows of them."""
        self.save_best()
        if self.saved is not None and step_of(self.saved) == self.state.step:
            return
        for name in self.state.log_bytes:
            sync_file(self.folder / name)
        self.state.rng = get_generator().get_state()
        self.saved = save_checkpoint(self.folder, self.options.keep, **self.contents())
        best, there = best_row(self.metrics), best_file_step(self.folder)
        if best and there is not None and there != best["step"]:  # this checkpoint, or an earlier one, has the best
            (self.folder / BEST_FILE).unlink()

    def save_best(self) -> None:
        if self._best is not None:
            save_best(self.folder, *self._best)
            self._best = None

    def contents(self) -> dict[str, Any]:
        """What a checkpoint holds of this moment."""
        kept = self.task.state()
        arrays = {name: value for name, value in kept.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in kept.items() if name not in arrays}
        return {
            "weights": {name: parameter.data for name, parameter in self.model.named_parameters()},
            "optimizer": self.optimizer.state_dict(),
            "state": self.state,
            "about": self.about | ({"task_state": values} if values else {}),
            **({TASK_FILE.removesuffix(".safetensors"): arrays} if arrays else {}),
        }

    def record(self) -> None:
        """What is due after a step: both losses, and after an epoch a sample."""
        state = self.state
        if self.evaluation_is_due(state.step):
            self.evaluate()
        if state.epoch and state.epoch_is_over and (text := self.sample(final=False)):
            self.progress.line("  " + " ".join(text.split()))
        state.recorded = True
        state.log_bytes = {name: (self.folder / name).stat().st_size for name in state.log_bytes}

    def evaluate(self) -> None:
        """What the task measures, into metrics.jsonl."""
        state = self.state
        final = state.step == self.total_steps
        measured = self.task.evaluate(self.model, final)
        if not final and (reason := self.reason_to_stop(measured)):
            self.progress.line(f"{reason}: the run stops after step {state.step} of {self.total_steps}.")
            state.stopped = True
            measured = self.task.evaluate(self.model, True)
        learning = {"gradient_norm": state.gradient_norm, "update_ratio": state.update_ratio}
        row: dict[str, float] = {
            "step": state.step,
            "epoch": state.epoch,
            "tokens": state.tokens,
            "lr": self.schedule(state.step),
            **measured,
            **{name: value for name, value in learning.items() if value is not None},  # None before the first step
        }
        if not math.isfinite(row["train_loss"] + row["val_loss"]):
            raise NonFiniteError(
                f"after step {state.step} the training loss is {row['train_loss']}, the validation loss {row['val_loss']}: "
                "lower the learning rate"
            )
        self.metrics.append(row)
        state.val_loss = row["val_loss"]
        if best_row(self.metrics) is row:
            kept = state.stopped or state.step in (0, self.total_steps) or self.checkpoint_is_due()
            self._best = None if kept else (state.step, {n: p.data.copy() for n, p in self.model.named_parameters()})
        append(self.folder / METRICS_FILE, json.dumps(row) + "\n")
        if self.progress.tokens:
            speed = {"step": state.step, "tokens_per_second": round(self.progress.tokens_per_second)}
            append(self.folder / SPEED_FILE, json.dumps(speed) + "\n")
        for logger in self.loggers:
            logger.log_evaluation(row)
        more = "".join(
            f"  {name.replace('_', ' ')} {value:.3f}" for name, value in self.task.headline(measured).items()
        )
        self.progress.line(
            f"step {state.step:>{len(str(self.total_steps))}}/{self.total_steps}  epoch {state.epoch}  "
            f"training loss {row['train_loss']:.3f}  validation loss {row['val_loss']:.3f}{more}  {self.progress}"
        )

    def reason_to_stop(self, row: Mapping[str, float]) -> str:
        """What the task says, or that for as many evaluations as are allowed no validation loss was lower."""
        losses, patience = [*(row["val_loss"] for row in self.metrics), row["val_loss"]], self.options.stop_after
        if 0 < patience < len(losses) - losses.index(min(losses)):
            return f"Validation loss has not been lower than {min(losses):.3f} for {patience} evaluations (stop_after)"
        return self.task.is_done(row)

    def sample(self, final: bool) -> str:
        """Let the task show something, and keep it."""
        state = self.state
        text = self.task.sample(self.model, state.step, final)
        if text:
            append(self.folder / SAMPLES_FILE, f"--- epoch {state.epoch}, step {state.step}\n{text}\n\n")
            for logger in self.loggers:
                logger.log_sample(state.step, text)
        return text

    def introduce(self) -> None:
        sizes = ", ".join(
            words.format(self.about["model"][name]) for name, words in _SIZES.items() if name in self.about["model"]
        )
        n_saves = math.ceil(self.total_steps / self.save_every) - self.state.step // self.save_every
        n, learned = self.model.n_parameters(), sum(p.size for p in self.optimizer.parameters())
        some = f", of which {learned:,} are trained" if learned < n else ""
        for line in (
            *self.task.introduce(),
            f"Model: {self.about['architecture']}, {sizes}: {n:,} parameters{some}.",
            f"Training: {self.options.length(len(self.task))}, into {self.folder}.",
            f"Checkpoints: {n_saves} of {byte_size(self.checkpoint_bytes)}, one every {self.save_every} steps; the newest "
            f"{self.options.keep} stay, and the weights of the lowest validation loss.",
        ):
            self.progress.line(line)

    def finish(self) -> Any:
        """The last sample, the picture, and, at the very end, the weights: they say that the run is finished."""
        seconds, tokens_per_second = self.progress.seconds, self.progress.tokens_per_second
        self.progress.close()
        sample = self.sample(final=True)
        result = self.task.conclude(Finished(self.folder, self.model, self.metrics, sample, seconds, tokens_per_second))
        plotted = self.task.plot(self.folder / PLOT_FILE, self.metrics)
        save_model(self.folder, self.model)
        for line in result.lines():
            self.progress.line(line)
        if not plotted:
            self.progress.line(
                f"No {PLOT_FILE}: matplotlib is not there (pip install matplotlib, or the extra [plot])."
            )
        return result
