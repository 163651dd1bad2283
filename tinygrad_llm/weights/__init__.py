"""Public weights in, our weights out."""

from .load import load_pretrained
from .report import LoadReport

__all__ = ["LoadReport", "load_pretrained"]
