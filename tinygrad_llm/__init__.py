"""A large language model from scratch in NumPy, with every derivative in plain sight.

import tinygrad_llm as tg
x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                                   # array([2., 4., 6.], dtype=float32)
"""

from . import nn, ops
from .engine import Op, Tensor, composed, no_grad
from .rng import manual_seed

__all__ = ["Op", "Tensor", "composed", "manual_seed", "nn", "no_grad", "ops"]
