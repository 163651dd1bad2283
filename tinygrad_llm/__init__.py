"""A large language model from scratch in NumPy, with every derivative in plain sight.

import tinygrad_llm as tg
x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
(x * x).sum().backward()
x.grad                                                   # array([2., 4., 6.], dtype=float32)
"""

from . import ops
from .engine import Op, Tensor, composed, no_grad

__all__ = ["Op", "Tensor", "composed", "no_grad", "ops"]
