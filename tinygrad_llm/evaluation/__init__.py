"""How good a model is: losses, the bundled tasks, what of a text is copied; a classifier's scores, what it has to beat."""

from .evaluate import Evaluation, evaluate_run
from .losses import bits_per_byte, longest_copied_run, mean_loss, unigram_cross_entropy, unigram_entropy
from .scores import Scores, classification_scores

__all__ = [
    "Evaluation",
    "Scores",
    "bits_per_byte",
    "classification_scores",
    "evaluate_run",
    "longest_copied_run",
    "mean_loss",
    "unigram_cross_entropy",
    "unigram_entropy",
]
