"""What a model costs before it exists: parameters, FLOPs and memory of each module, by formula. Nothing is allocated.

    estimate(PRESETS["124M"]).parameters                            # 163,009,536
    estimate(PRESETS["gpt3-175B"]).training_cost(300e9).dollars     # 4.8 million, 4.68 of them for the weights
    estimate(preset("llama2-7B", context_length=32768, n_kv_heads=8), bytes_per_number=2).kv_cache_bytes    # 4.29e9

What a module takes, the configuration of each architecture says (`costs`).

The conventions, and where they come from:

- A FLOP is one addition or multiplication. Forward, each parameter that a token meets takes two (one multiplication, one
  addition; lookups in a table none), and each of the T keys that a query meets 4 C: scores and weighted sum. Backward
  takes twice as much. So training takes 6 N + 12 L C T for each token, N without the position table and, if the head is
  not tied, the token table (Kaplan et al. 2020 §2.1; Chowdhery et al. 2022, appendix B). The keys that the causal mask
  hides are counted, as is usual.
- Activations are what this package keeps from the forward for the backward: the result of each norm before scale and
  shift, the input of each linear layer, queries, keys, values and result of attention, P only up to 256 tokens, and a
  number for each logit. Dropout, and what saves memory (checkpointing, a loss that is cut into rows), are not counted.
- Training in float32 takes 16 bytes a parameter besides: the weight, its gradient and AdamW's two moments. `TrainingMemory`
  puts all that a run needs beside what this machine, or the container, has.
- The KV cache keeps 2 T H_kv d numbers in each layer, or as many as its window sees (nn.KVCache keeps all).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checks import byte_size, check_integer, is_number
from ..errors import ConfigError, OutOfMemory
from .base import Config

TRAINING_TOKENS = {"gpt3-175B": 300e9}  # Brown et al. 2020, table 2.1


@dataclass(frozen=True)
class ModuleCost:
    """One module, `copies` times in the model; the other numbers are those of one copy, and bytes for the whole batch."""

    name: str
    copies: int = 1
    parameters: int = 0
    flops_per_token: int = 0  # forward
    activation_bytes: int = 0  # kept for the backward
    kv_cache_bytes: int = 0


@dataclass(frozen=True)
class TrainingCost:
    """What it takes to train on so many tokens."""

    tokens: float
    flops: float
    gpu_days: float
    dollars: float


@dataclass(frozen=True)
class Estimate:
    """The costs of a model: of each module, and of all together."""

    config: Config
    batch_size: int
    bytes_per_number: int
    modules: tuple[ModuleCost, ...]

    def total(self, what: str) -> int:
        """The sum over all copies of all modules of "parameters", "flops_per_token", ..."""
        return sum(module.copies * getattr(module, what) for module in self.modules)

    @property
    def parameters(self) -> int:
        return self.total("parameters")

    @property
    def weight_bytes(self) -> int:
        return self.parameters * self.bytes_per_number

    @property
    def activation_bytes(self) -> int:
        return self.total("activation_bytes")

    @property
    def kv_cache_bytes(self) -> int:
        return self.total("kv_cache_bytes")

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and AdamW's two moments in float32, and the activations."""
        return 16 * self.parameters + self.activation_bytes

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward: 6 N + 12 L C T."""
        return 3 * self.total("flops_per_token")

    @property
    def attention_flops_per_token(self) -> int:
        """The part of the training FLOPs that is not spent on parameters: 12 L C T."""
        return 3 * sum(
            module.copies * module.flops_per_token for module in self.modules if module.name.endswith(".att")
        )

    def training_cost(self, tokens: float, tflops: float = 28.0, price: float = 1.5) -> TrainingCost:
        """The cost of training on `tokens` on GPUs that do `tflops` 10^12 FLOPs a second for `price` dollars an hour.

        The defaults are those of the estimate behind GPT-3's 4.6 million dollars (Lambda, 2020): a V100's 28 teraflops
        at the lowest price of the time.
        """
        for name, value in {"tokens": tokens, "tflops": tflops, "price": price}.items():
            if not is_number(value) or not 0 < value < math.inf:
                raise ConfigError(f"estimate: {name} is {value!r}: it must be a positive number")
        flops = float(tokens) * self.training_flops_per_token
        gpu_days = flops / (tflops * 1e12) / 86400
        return TrainingCost(float(tokens), flops, gpu_days, gpu_days * 24 * price)

    def to_dict(self) -> dict[str, Any]:
        totals = ("parameters", "weight_bytes", "activation_bytes", "training_bytes", "kv_cache_bytes")
        flops = ("training_flops_per_token", "attention_flops_per_token")
        return asdict(self) | {name: getattr(self, name) for name in (*totals, *flops)}


def estimate(config: Config, *, batch_size: int = 1, bytes_per_number: int = 4) -> Estimate:
    """The costs of a model for a batch of whole contexts; 4 bytes a number are float32, 2 float16 or bfloat16."""
    batch_size = check_integer("estimate: batch_size", batch_size)
    bytes_per_number = check_integer("estimate: bytes_per_number", bytes_per_number)
    n_tokens = batch_size * (config.context_length or 1)
    modules = (
        ModuleCost(
            cost.name,
            cost.copies,
            cost.parameters,
            2 * cost.parameters if cost.flops is None else cost.flops,
            cost.kept * n_tokens * bytes_per_number,
            cost.cached * batch_size * bytes_per_number,
        )
        for cost in config.costs()
    )
    return Estimate(config, batch_size, bytes_per_number, tuple(modules))


# ---- beside what there is

# The control groups of a container, version 2 and 1: where they are, what they allow, what they hold, what of that is cache.
_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@dataclass(frozen=True)
class TrainingMemory:
    """What training takes: a model with its optimizer, the activations of the sequences of a batch that are under way `at_once`,
    and the text."""

    config: Config
    batch_size: int
    at_once: int
    text_bytes: int = 0

    @property
    def n_bytes(self) -> int:
        return estimate(self.config, batch_size=self.at_once).training_bytes + self.text_bytes

    def __str__(self) -> str:
        n_parameters, t = self.config.n_parameters(), self.config.context_length
        batches = f"batches of {self.batch_size} x {t} tokens"
        return f"training {n_parameters:,} parameters on {batches} needs about {byte_size(self.n_bytes)}"

    def check(self, report: Callable[[str], None]) -> None:
        """ConfigError where it is hopeless, more than twice of what there is; a report where it is more than is free."""
        there, free = memory_there()
        remedy = "use a smaller batch_size, context_length or preset"
        if self.n_bytes > 2 * there:
            raise ConfigError(f"{self}, {byte_size(int(there))} are there: {remedy}")
        if self.n_bytes > free:
            report(f"{self}, {byte_size(int(free))} are free: {remedy}, or close other programs, if it does not fit.")

    @contextmanager
    def explain(self) -> Iterator[None]:
        """Inside, a MemoryError becomes an OutOfMemory with the estimate and what to do."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            # a thread that finds no room for its stack is a RuntimeError
            if isinstance(error, OutOfMemory) or (
                not isinstance(error, MemoryError) and "new thread" not in str(error)
            ):
                raise
            raise OutOfMemory(
                f"out of memory: {self}: use a smaller batch_size, context_length or preset, or close other programs"
            ) from error


def memory_there(root: Path = Path("/")) -> tuple[float, float]:
    """Bytes that this process may hold at most, and as things are: what is free, and what it holds already.

    The least of what the machine, the control groups of a container and RLIMIT_AS allow; infinite where the system does not
    say. /proc and /sys are in `root`.
    """
    there = free = math.inf
    size = held = 0
    with suppress(AttributeError, ValueError, OSError):
        page = os.sysconf("SC_PAGE_SIZE")
        there = free = page * os.sysconf("SC_PHYS_PAGES")
        size, held = (page * int(n) for n in (root / "proc/self/statm").read_text().split()[:2])
        free = held + 1024 * _field(root / "proc/meminfo", "MemAvailable:")
    for limit, used in _control_groups(root):
        there, free = min(there, limit), min(free, held + max(0, limit - used))
    with suppress(ImportError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]  # of addresses, many of which hold nothing
        if limit != resource.RLIM_INFINITY:
            there, free = min(there, limit), min(free, held + max(0, limit - size))
    return there, free


def _control_groups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes in use) of the control groups that this process is in, and of those around them, where there is a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        kind, _, name = line.partition(":")[2].partition(":")
        if kind not in _GROUPS:
            continue
        mount, limit, used, cache = _GROUPS[kind]
        group = root / mount / name.strip("/")  # from within a container, a name of the world outside may be no folder
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):  # ValueError: "max"
                most = int((folder / limit).read_text())
                yield most, int((folder / used).read_text()) - _field(folder / "memory.stat", cache)
            if folder == root / mount:
                break


def _field(path: Path, name: str) -> int:
    """The number after a name, in a file of a name and a number in each line. ValueError if it is not there."""
    for line in path.read_text().splitlines():
        if line.split()[:1] == [name]:
            return int(line.split()[1])
    raise ValueError(f"{path}: no {name}")
