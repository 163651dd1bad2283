"""Who else hears how a run goes: `pretrain(..., loggers=[TensorBoard(), ...])`.

The run itself keeps metrics.jsonl and samples.txt. For any other tracker, override what it should hear of:

    class WandB(Logger):
        def start(self, folder, config, step):
            self.run = wandb.init(project="tinygrad-llm", name=f"{folder.name} from {step}", config=config)
        def log_step(self, step, loss, lr):
            self.run.log({"loss": loss, "lr": lr}, step=step)
        def log_evaluation(self, row):
            self.run.log(dict(row), step=row["step"])
        def finish(self):
            self.run.finish()

    class MLflow(Logger):
        def start(self, folder, config, step):
            mlflow.start_run(run_name=f"{folder.name} from {step}")
            mlflow.log_params(config["training"])
        def log_step(self, step, loss, lr):
            mlflow.log_metrics({"loss": loss, "lr": lr}, step=step)
        def log_evaluation(self, row):
            mlflow.log_metrics(dict(row), step=row["step"])
        def finish(self):
            mlflow.end_run()

Neither tracker can take back what it was told. So these two make another run of each part of a run that was resumed, which
doubles no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """What a run tells, in its own thread and in this order; a subclass overrides what it wants to hear. An error in it ends
    the run."""

    def start(self, folder: Path, config: dict[str, Any], step: int) -> None:
        """A run begins (`step` 0), or goes on after `step`: whatever was logged of later steps did not happen. `config` is
        what config.json holds."""

    def log_step(self, step: int, loss: float, lr: float) -> None:
        """Step number `step` (from 1) is done: the loss of its batch before it, and its learning rate."""

    def log_evaluation(self, row: Mapping[str, float]) -> None:
        """A row of metrics.jsonl: "step", "epoch", "tokens", "lr", "train_loss", "val_loss", and after the first step the
        "gradient_norm" before clipping and the "update_ratio", how far the weights went as a share of themselves."""

    def log_sample(self, step: int, text: str) -> None:
        """What the model wrote after `step`, the prompt first."""

    def finish(self) -> None:
        """The run ends: done, interrupted or failed."""
