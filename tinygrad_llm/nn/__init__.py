"""Modules, and the layers made of them."""

from .attention import MultiHeadAttention
from .cache import KVCache
from .layers import GELU, Dropout, Embedding, LayerNorm, Linear, RMSNorm
from .module import Module, Parameter, Sequential
from .transformer import FeedForward, TransformerBlock

__all__ = [
    "GELU",
    "KVCache",
    "Dropout",
    "Embedding",
    "FeedForward",
    "LayerNorm",
    "Linear",
    "Module",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "TransformerBlock",
]
