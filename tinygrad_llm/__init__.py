"""A large language model from scratch in NumPy, with every derivative in plain sight.

import tinygrad_llm as tg
x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                                   # array([2., 4., 6.], dtype=float32)
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

__version__ = "0.1.0"  # before the imports: the package's own files read it, and setup.cfg without running any

from . import errors, nn, ops, rng, unfused
from .engine import Op, Tensor, composed, no_grad
from .rng import manual_seed

if _TYPE_CHECKING:
    from . import (
        debug,
        doctor,
        evaluation,
        formats,
        generation,
        models,
        optim,
        runs,
        testing,
        text,
        training,
        tuning,
        weights,
    )

__all__ = [
    "Op",
    "Tensor",
    "composed",
    "debug",
    "doctor",
    "errors",
    "evaluation",
    "formats",
    "generation",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "rng",
    "runs",
    "testing",
    "text",
    "training",
    "tuning",
    "weights",
]


def __getattr__(name: str) -> _Any:
    """The larger submodules are loaded when they are first used."""
    if name in __all__:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
