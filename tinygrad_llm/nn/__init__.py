"""Modules, and the layers made of them."""

from .attention import MultiHeadAttention
from .checkpointing import checkpoint
from .layers import GELU, Dropout, Embedding, LayerNorm, Linear, RMSNorm
from .module import Module, Parameter, Sequential
from .state import KVCache
from .transformer import FeedForward, TransformerBlock

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "FeedForward",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "TransformerBlock",
    "checkpoint",
]
