"""How fast a training step is, beside its matrix products alone. tests/benchmarks/beside_pytorch.py puts it beside PyTorch's.

Wall time of one step drifts with whatever else the machine does, so the median of many is taken.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import parallel
from ..debug.profile import profile
from ..models import LanguageModel, make_config, make_model
from ..models.estimate import estimate
from ..optim import AdamW
from ..rng import Generator
from ..training.step import shard_batch, train_step

# The twins train with the same numbers (tests/benchmarks/pytorch_twins.py).
LEARNING_RATE, WEIGHT_DECAY = 4e-4, 0.1


@dataclass(frozen=True)
class Workload:
    """One training step of a GPT: its sizes, how many sequences, and how many steps are worth timing."""

    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int
    batch_size: int
    steps: int

    @property
    def tokens(self) -> int:
        return self.batch_size * self.context_length

    @property
    def sizes(self) -> dict[str, Any]:
        names = ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers")
        return {name: getattr(self, name) for name in names}


WORKLOADS = {
    "nano": Workload(65, 64, 128, 4, 4, 12, 60),
    "mini": Workload(512, 128, 192, 6, 6, 8, 20),
    "124M": Workload(50257, 256, 768, 12, 12, 2, 5),
    "124M-1024": Workload(50257, 1024, 768, 12, 12, 1, 4),
}


@dataclass(frozen=True)
class Timing:
    """What one process measured: milliseconds of each step after the warm-up, its peak memory, and the loss at the end."""

    ms: list[float]
    peak_mb: float
    loss: float
    version: str

    @property
    def median(self) -> float:
        return statistics.median(self.ms)


def make(work: Workload, drop_rate: float) -> tuple[LanguageModel, AdamW, np.ndarray, np.ndarray]:
    """A model, its optimizer and one batch, the same for the same workload."""
    model = make_model("gpt", {**work.sizes, "drop_rate": drop_rate}, Generator(123))
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    ids = np.random.default_rng(0).integers(0, work.vocab_size, (work.batch_size, work.context_length + 1))
    return model, optimizer, ids[:, :-1], ids[:, 1:]


def time_steps(
    work: Workload, *, drop_rate: float = 0.0, steps: int | None = None, threads: int | None = None
) -> Timing:
    """Time `train_step`, after as many steps to warm up, at most 10."""
    n = work.steps if steps is None else steps
    model, optimizer, ids, targets = make(work, drop_rate)
    ms, loss = [], 0.0
    for _ in range(min(10, n) + n):
        start = time.perf_counter()
        loss = train_step(model, optimizer, ids, targets, threads=threads)
        ms.append(1000 * (time.perf_counter() - start))
    return Timing(ms[-n:], peak_megabytes(), loss, np.__version__)


def time_products(work: Workload, repeats: int = 5, threads: int | None = None) -> float:
    """Milliseconds that the matrix products of one step take alone, the best of several times: the floor."""
    shards = [s.stop - s.start for s in shard_batch(np.zeros((work.batch_size, work.context_length), np.int8))]
    best = float("inf")
    with parallel.threads(threads, sharing_rows=len(shards) == 1):
        factors = [list(_factors(work, sequences)) for sequences in shards]
        for _ in range(repeats):
            start = time.perf_counter()
            parallel.spread(_multiply, factors)
            best = min(best, 1000 * (time.perf_counter() - start))
    return best


def _factors(work: Workload, sequences: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(how often, x, y) of every product of one shard, forward and backward."""
    c, n, t = work.emb_dim, sequences * work.context_length, work.context_length
    ones = partial(np.ones, dtype=np.float32)
    linear = {(c, c): 4 * work.n_layers, (c, 4 * c): work.n_layers, (4 * c, c): work.n_layers, (c, work.vocab_size): 1}
    for (inputs, outputs), times in linear.items():
        x, w, g = ones((n, inputs)), ones((outputs, inputs)), ones((n, outputs))
        yield from ((times, x, w.T), (times, g, w), (times, g.T, x))
    heads, d, seen = sequences * work.n_heads, c // work.n_heads, (t + 1) // 2  # a query sees half of the keys
    q, k, p = ones((heads, t, d)), ones((heads, seen, d)), ones((heads, t, seen))
    yield from (
        (2 * work.n_layers, q, k.swapaxes(1, 2)),
        (2 * work.n_layers, p, k),
        (2 * work.n_layers, p.swapaxes(1, 2), q),
    )


def _multiply(factors: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> None:
    for times, x, y in factors:
        for _ in range(times):
            if x.ndim == 2:
                parallel.product(x, y)
            else:
                x @ y


def profile_step(work: Workload, drop_rate: float = 0.0) -> profile:
    """The time of each op in one step, after two to warm up."""
    model, optimizer, ids, targets = make(work, drop_rate)
    for _ in range(2):
        train_step(model, optimizer, ids, targets)
    with profile() as times:
        train_step(model, optimizer, ids, targets)
    return times


def flops(work: Workload) -> int:
    """Of one step, by formula: 6 N + 12 L C T for each token."""
    return work.tokens * estimate(make_config("gpt", work.sizes)).training_flops_per_token


def peak_megabytes() -> float:
    """The most memory this process has held so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
