"""Modules, and the layers made of them."""

from .attention import MultiHeadAttention
from .checkpointing import checkpoint
from .layers import GELU, Dropout, Embedding, LayerNorm, Linear, RMSNorm
from .module import Module, ModuleDict, ModuleList, Parameter, Sequential
from .rotary import Rotary
from .state import KVCache
from .transformer import FeedForward, SwiGLU, TransformerBlock

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "FeedForward",
    "KVCache",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "Rotary",
    "Sequential",
    "SwiGLU",
    "TransformerBlock",
    "checkpoint",
]
