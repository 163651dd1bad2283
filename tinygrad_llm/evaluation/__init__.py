"""How good a model is: losses, the bundled tasks, what of a text is copied; scores of classes, answers, translations."""

from .answers import AnswerScores, answer_scores, most_frequent
from .evaluate import Evaluation, evaluate_run
from .losses import bits_per_byte, longest_copied_run, mean_loss, unigram_cross_entropy, unigram_entropy
from .scores import Scores, classification_scores
from .translation import TranslationScores, translation_baselines, translation_scores

__all__ = [
    "AnswerScores",
    "Evaluation",
    "Scores",
    "TranslationScores",
    "answer_scores",
    "bits_per_byte",
    "classification_scores",
    "evaluate_run",
    "longest_copied_run",
    "mean_loss",
    "most_frequent",
    "translation_baselines",
    "translation_scores",
    "unigram_cross_entropy",
    "unigram_entropy",
]
