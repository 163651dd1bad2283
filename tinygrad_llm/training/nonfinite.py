"""A step whose loss or gradient is not finite, or whose loss explodes: what it takes to see it happen again.

RUN/nonfinite-step-000123/ is a checkpoint of the moment before step 123, weights untouched, with the batch
(batch.safetensors) and its backward as a page (report.html).
"""

from __future__ import annotations

import inspect
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..checks import check_integer
from ..debug import report
from ..errors import ConfigError, NonFiniteError, StorageError, TinygradLLMError
from ..formats.safetensors import read_arrays
from ..models import build_model
from ..optim import AdamW, decay_groups
from ..rng import Generator, Zeros, use_generator
from ..runs.checkpoint import STATE_FILE, load_checkpoint, verify_checkpoint, write_checkpoint
from ..runs.fields import a_number, an_object_of, naming
from ..text import load_tokenizer
from .step import NEXT_TOKEN, Batch, Objective, train_step

if TYPE_CHECKING:
    from .loop import TrainingLoop

_OPTIONS = an_object_of(  # of which a step depends
    {**dict.fromkeys(("lr", "max_norm", "spike"), a_number), "accumulate": check_integer}, others=True
)
_BATCH_FILE, _PAGE_FILE = "batch.safetensors", "report.html"
RECENT = 20  # losses that a spike stands out from


def highest_loss(losses: Sequence[float], spike: float, chance: float) -> float:
    """Above it, a loss has exploded: `spike` times the median of the last ones, and 1 nat worse than chance."""
    if not spike or len(losses) < RECENT:
        return math.inf
    return max(spike * statistics.median(losses), chance + 1)


def leave_evidence(loop: TrainingLoop, batch: Batch, error: NonFiniteError) -> NoReturn:
    """Write the folder, and raise the error with its name; `loop.state.rng` is from before the step."""
    step = loop.state.step + 1
    folder = loop.folder / f"nonfinite-step-{step:06}"
    contents = loop.contents()
    contents["about"] |= {"error": str(error), "chance": loop.task.chance}
    try:
        write_checkpoint(folder, **contents, batch=dict(zip(_names(loop.task.objective), batch, strict=True)))
        hint = f"tinygrad_llm.training.reproduce({str(folder)!r}) takes the step again{_draw(loop, batch, folder)}"
    except StorageError as problem:
        hint = f"what led to it could not be kept ({problem})"
    raise type(error)(f"step {step}: {error}; no weight was changed, and {hint}") from error


def _names(objective: Objective) -> list[str]:
    """What the objective calls the arrays of a batch: ids and targets."""
    return list(inspect.signature(objective.loss).parameters)[1:]


def _draw(loop: TrainingLoop, batch: Batch, folder: Path) -> str:
    """Write the page, and say so."""
    objective = loop.task.objective
    text: dict[str, Any] = {}
    if objective is NEXT_TOKEN:
        text = {"model": loop.model, "ids": batch[0], "tokenizer": load_tokenizer(loop.folder)}
    try:
        with use_generator(Generator(0)) as rng:
            rng.set_state(loop.state.rng)
            loss = objective.loss(loop.model, *batch) / max(1, objective.count(*batch))
            page = report(loss, folder / _PAGE_FILE, **text)
        return f", {page.path} shows it"
    except (TinygradLLMError, MemoryError) as problem:
        return f" (no {_PAGE_FILE}: {problem})"


def reproduce(
    folder: str | os.PathLike[str], *, objective: Objective = NEXT_TOKEN, threads: int | None = None
) -> float:
    """Take the step again that left `folder`, RUN/nonfinite-step-...: the same NonFiniteError, to the bit.

    `objective` is that of the run's task. In a debugger, or within `with tg.debug.anomaly():`, it shows the op in which the
    first NaN or infinity appears. Returns the loss in case this step, here, is finite.
    """
    folder = Path(folder)
    verify_checkpoint(folder)
    checkpoint = load_checkpoint(folder)
    about, batch = checkpoint.about, read_arrays(folder / _BATCH_FILE)
    if batch.keys() != set(_names(objective)):
        raise ConfigError(
            f"{folder}: its batch holds {', '.join(batch)}, the objective takes {', '.join(_names(objective))}: "
            f"pass that of its task, {about.get('task', 'pretrain')}"
        )
    options = about["training"]
    with naming(folder / STATE_FILE):
        _OPTIONS("training", options)
        model = build_model(about, Zeros())
        model.load_state_dict(checkpoint.weights)
        optimizer = AdamW(decay_groups(model.parameters(), options.get("decay", "all")), lr=options["lr"])
        optimizer.load_state_dict(checkpoint.optimizer)
    with use_generator(Generator(0)) as rng:
        rng.set_state(checkpoint.state.rng)
        return train_step(
            model,
            optimizer,
            *(batch[name] for name in _names(objective)),
            objective=objective,
            max_norm=options["max_norm"] or math.inf,
            max_loss=highest_loss(
                checkpoint.state.losses, options["spike"], about.get("chance", math.log(model.config.vocab_size))
            ),
            accumulate=options["accumulate"],
            threads=threads,
        )
