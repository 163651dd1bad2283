"""The models that are timed, and the work of one step; shared by both sides, and free of either's library."""

from typing import NamedTuple


class Size(NamedTuple):
    vocab_size: int
    context_length: int
    emb_dim: int
    n_heads: int
    n_layers: int
    batch_size: int


SIZES = {
    "nano": Size(65, 64, 128, 4, 4, 12),
    "mini": Size(512, 128, 192, 6, 6, 8),
    "124M": Size(50257, 256, 768, 12, 12, 2),
    "124M-1024": Size(50257, 1024, 768, 12, 12, 1),
}
STEPS = {
    "nano": 60,
    "mini": 20,
    "124M": 5,
    "124M-1024": 4,
}  # steps timed in one process, after as many to warm up, at most 10
LEARNING_RATE, WEIGHT_DECAY = 4e-4, 0.1
