"""Training a language model. Read step, then loop; metrics says how well it went."""

from ..runs.folder import load_run
from .continued import continue_pretraining
from .nonfinite import reproduce
from .pretrain import pretrain
from .pretrain_options import PretrainOptions
from .result import PretrainResult
from .resume import resume
from .step import train_step

__all__ = [
    "PretrainOptions",
    "PretrainResult",
    "continue_pretraining",
    "load_run",
    "pretrain",
    "reproduce",
    "resume",
    "train_step",
]
