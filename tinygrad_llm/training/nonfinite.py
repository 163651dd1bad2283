"""A step whose loss or gradient is not finite, or whose loss explodes: what it takes to see it happen again.

RUN/nonfinite-step-000123/ is a checkpoint of the moment before step 123, weights untouched, with the batch
(batch.safetensors) and its backward as a page (report.html).
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import NonFiniteError, StorageError, TinygradLLMError
from ..formats.safetensors import read_arrays
from ..models import make_model
from ..ops import cross_entropy
from ..optim import AdamW
from ..rng import Generator, Zeros, use_generator
from ..runs.checkpoint import load_checkpoint, verify_checkpoint, write_checkpoint
from .step import train_step

if TYPE_CHECKING:
    from .loop import TrainingLoop

_BATCH_FILE, _PAGE_FILE = "batch.safetensors", "report.html"
RECENT = 20  # losses that a spike stands out from


def highest_loss(losses: Sequence[float], spike: float, vocab_size: int) -> float:
    """Above it, a loss has exploded: `spike` times the median of the last ones, and 1 nat worse than chance."""
    if not spike or len(losses) < RECENT:
        return math.inf
    return max(spike * statistics.median(losses), math.log(vocab_size) + 1)


def leave_evidence(loop: TrainingLoop, ids: Any, targets: Any, error: NonFiniteError) -> NoReturn:
    """Write the folder, and raise the error with its name; `loop.state.rng` is from before the step."""
    step = loop.state.step + 1
    folder = loop.folder / f"nonfinite-step-{step:06}"
    try:
        write_checkpoint(
            folder,
            weights={name: parameter.data for name, parameter in loop.model.named_parameters()},
            optimizer=loop.optimizer.state_dict(),
            state=loop.state,
            about=loop.about | {"error": str(error)},
            batch={"ids": ids, "targets": targets},
        )
        hint = (
            f"tinygrad_llm.training.reproduce({str(folder)!r}) takes the step again{_draw(loop, ids, targets, folder)}"
        )
    except StorageError as problem:
        hint = f"what led to it could not be kept ({problem})"
    raise type(error)(f"step {step}: {error}; no weight was changed, and {hint}") from error


def _draw(loop: TrainingLoop, ids: Any, targets: Any, folder: Path) -> str:
    """Write the page, and say so."""
    from ..debug import report  # which writes with files of this folder

    try:
        with use_generator(Generator(0)) as rng:
            rng.set_state(loop.state.rng)
            loss = cross_entropy(loop.model(ids), targets=targets)
            page = report(loss, folder / _PAGE_FILE, model=loop.model, ids=ids, tokenizer=loop.corpus.tokenizer)
        return f", {page.path} shows it"
    except (TinygradLLMError, MemoryError) as problem:
        return f" (no {_PAGE_FILE}: {problem})"


def reproduce(folder: str | os.PathLike[str], *, threads: int | None = None) -> float:
    """Take the step again that left `folder`, RUN/nonfinite-step-...: the same NonFiniteError, to the bit.

    In a debugger, or within `with tg.debug.anomaly():`, it shows the op in which the first NaN or infinity appears.
    Returns the loss in case this step, here, is finite.
    """
    folder = Path(folder)
    verify_checkpoint(folder)
    checkpoint = load_checkpoint(folder)
    options, batch = checkpoint.about["training"], read_arrays(folder / _BATCH_FILE)
    model = make_model(checkpoint.about.get("architecture", "gpt"), checkpoint.about["model"], Zeros())
    model.load_state_dict(checkpoint.weights)
    optimizer = AdamW(model.parameters(), lr=options["lr"])
    optimizer.load_state_dict(checkpoint.optimizer)
    with use_generator(Generator(0)) as rng:
        rng.set_state(checkpoint.state.rng)
        return train_step(
            model,
            optimizer,
            batch["ids"],
            batch["targets"],
            max_norm=options["max_norm"] or math.inf,
            max_loss=highest_loss(checkpoint.state.losses, options["spike"], model.config.vocab_size),
            accumulate=options["accumulate"],
            threads=threads,
        )
