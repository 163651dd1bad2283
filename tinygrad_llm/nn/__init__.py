"""Modules, and the layers made of them."""

from .attention import MultiHeadAttention
from .checkpointing import checkpoint
from .layers import GELU, Dropout, Embedding, LayerNorm, Linear, ReLU, RMSNorm, SiLU
from .module import Module, ModuleDict, ModuleList, Parameter, Sequential
from .rotary import Rotary
from .state import KVCache
from .transformer import DecoderBlock, EncoderBlock, FeedForward, SwiGLU, TransformerBlock

__all__ = [
    "GELU",
    "DecoderBlock",
    "Dropout",
    "Embedding",
    "EncoderBlock",
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
    "ReLU",
    "Rotary",
    "Sequential",
    "SiLU",
    "SwiGLU",
    "TransformerBlock",
    "checkpoint",
]
