"""Training a language model. Read step, then loop; metrics says how well it went."""

from .continued import continue_pretraining
from .metrics import bits_per_byte, longest_copied_run, mean_loss, unigram_cross_entropy, unigram_entropy
from .nonfinite import reproduce
from .options import PretrainOptions
from .pretrain import pretrain
from .result import PretrainResult
from .resume import resume
from .run import load_run
from .step import train_step

__all__ = [
    "PretrainOptions",
    "PretrainResult",
    "bits_per_byte",
    "continue_pretraining",
    "load_run",
    "longest_copied_run",
    "mean_loss",
    "pretrain",
    "reproduce",
    "resume",
    "train_step",
    "unigram_cross_entropy",
    "unigram_entropy",
]
