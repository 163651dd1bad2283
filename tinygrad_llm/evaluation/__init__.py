"""How good a model is: losses, the bundled tasks, what of a text is copied."""

from .evaluate import Evaluation, evaluate_run
from .losses import bits_per_byte, longest_copied_run, mean_loss, unigram_cross_entropy, unigram_entropy

__all__ = [
    "Evaluation",
    "bits_per_byte",
    "evaluate_run",
    "longest_copied_run",
    "mean_loss",
    "unigram_cross_entropy",
    "unigram_entropy",
]
