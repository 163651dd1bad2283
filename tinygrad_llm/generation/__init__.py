"""From a model to text: one token after another. Read sampling, then generate."""

from .beam import Hypothesis, beam_search
from .generate import Step, explain_tokens, generate, stream_tokens, token_logprobs
from .prompts import choose, continuation_logprobs, few_shot, fill
from .sampling import Stage, Strategy, sample_next
from .text import stream_text

__all__ = [
    "Hypothesis",
    "Stage",
    "Step",
    "Strategy",
    "beam_search",
    "choose",
    "continuation_logprobs",
    "explain_tokens",
    "few_shot",
    "fill",
    "generate",
    "sample_next",
    "stream_text",
    "stream_tokens",
    "token_logprobs",
]
