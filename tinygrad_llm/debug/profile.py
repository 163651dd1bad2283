"""Where the time and the memory of a training step go, op by op."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import byte_size
from ..engine import Op
from ..tape.node import Node
from ..tape.observer import Observer
from ..tape.step import Step
from .explain import table


@dataclass
class OpTime:
    """What one op took in all; seconds are of all threads together."""

    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    bytes: int = 0  # of results and of gradients made


class profile(Observer):
    """`with debug.profile() as p: train_step(...)`, then `print(p)`; `p.ops` has the numbers: op name -> OpTime."""

    def __init__(self) -> None:
        self.ops: dict[str, OpTime] = defaultdict(OpTime)
        self._lock, self._local = threading.Lock(), threading.local()
        super().__init__()

    def before_forward(self, op: Op) -> None:
        self._starts().append(time.perf_counter())

    def after_forward(
        self, op: Op, inputs: tuple, arrays: list, options: dict[str, Any], out: np.ndarray, node: Node | None
    ) -> None:
        seconds = self._seconds()
        with self._lock:
            self.ops[op.name].calls += 1
            self.ops[op.name].forward += seconds
            self.ops[op.name].bytes += out.nbytes if out.base is None else 0

    def before_backward(self, step: Step) -> None:
        self._starts().append(time.perf_counter())

    def after_backward(self, step: Step) -> None:
        seconds = self._seconds()
        with self._lock:
            self.ops[step.op].backward += seconds
            self.ops[step.op].bytes += sum(d.nbytes for d in step.gradients if d is not None and d.base is None)

    def _seconds(self) -> float:
        """How long the innermost op took, without those that it called, which are counted for themselves."""
        starts = self._starts()
        whole = time.perf_counter() - starts.pop()
        starts[:] = [start + whole for start in starts]
        return whole

    def _starts(self) -> list[float]:
        """A stack for each thread: an op may call ops, as checkpointing does."""
        if not hasattr(self._local, "starts"):
            self._local.starts = []
        return self._local.starts

    def __repr__(self) -> str:
        total = sum(t.forward + t.backward for t in self.ops.values()) or 1.0
        rows = [
            (
                name,
                str(t.calls),
                f"{1e3 * t.forward:.2f}",
                f"{1e3 * t.backward:.2f}",
                f"{100 * (t.forward + t.backward) / total:.0f}%",
                byte_size(t.bytes),
            )
            for name, t in sorted(self.ops.items(), key=lambda item: -(item[1].forward + item[1].backward))
        ]
        return table(("op", "calls", "forward ms", "backward ms", "share", "made"), rows, right=(1, 2, 3, 4, 5))
