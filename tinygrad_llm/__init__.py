"""A large language model from scratch in NumPy, with every derivative in plain sight.

import tinygrad_llm as tg
x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                                   # array([2., 4., 6.], dtype=float32)
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import nn, ops, unfused
from .engine import Op, Tensor, composed, no_grad
from .rng import manual_seed

if _TYPE_CHECKING:
    from . import debug, generation, models, optim, text, training

__all__ = [
    "Op",
    "Tensor",
    "composed",
    "debug",
    "generation",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "text",
    "training",
]


def __getattr__(name: str) -> _Any:
    """The larger submodules are loaded when they are first used."""
    if name in ("debug", "generation", "models", "optim", "text", "training"):
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
