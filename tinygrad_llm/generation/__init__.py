"""From a model to text: one token after another."""

from .generate import generate, stream_text, stream_tokens
from .sampling import sample_next

__all__ = ["generate", "sample_next", "stream_text", "stream_tokens"]
