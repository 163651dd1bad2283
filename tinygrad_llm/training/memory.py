"""What a training run takes of the machine's memory: an estimate before it begins, and a plain word when it was too much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..checks import byte_size
from ..errors import ConfigError, OutOfMemory
from ..models.gpt import GPTConfig


def estimate_memory(config: GPTConfig, batch_size: int) -> int:
    """Bytes of weights, gradients, AdamW's two moments and the activations of a step, roughly."""
    weights = 16 * config.n_parameters()
    logits = 3 * config.vocab_size
    blocks = config.n_layers * (20 * config.emb_dim + 3 * config.n_heads * config.context_length)
    return weights + 4 * batch_size * config.context_length * (logits + blocks)


def check_memory(config: GPTConfig, batch_size: int) -> None:
    """ConfigError when the estimate exceeds this machine's memory."""
    needed = estimate_memory(config, batch_size)
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return
    if needed > there:
        raise ConfigError(
            f"training {config.n_parameters():,} parameters on batches of {batch_size} x {config.context_length} tokens needs "
            f"about {byte_size(needed)}, this machine has {byte_size(there)}: use a smaller preset, context_length or "
            "batch_size"
        )


@contextmanager
def explain_memory(config: GPTConfig, batch_size: int) -> Iterator[None]:
    """Inside, a MemoryError becomes an OutOfMemory with the estimate and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # a thread that finds no room for its stack is a RuntimeError
        if isinstance(error, OutOfMemory) or (not isinstance(error, MemoryError) and "new thread" not in str(error)):
            raise
        raise OutOfMemory(
            f"out of memory: training {config.n_parameters():,} parameters on batches of {batch_size} x "
            f"{config.context_length} tokens needs about {byte_size(estimate_memory(config, batch_size))}: use a "
            "smaller batch_size, context_length or preset, or close other programs"
        ) from error
