"""Ctrl-C at a convenient moment: the step under way is finished, so that weights are never left half changed."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class InterruptAfterStep:
    """Inside `with`, the first Ctrl-C only sets `requested`, for the loop to look at; a second one interrupts at once.

    In any other thread than the main one, where no signal can be caught, `requested` stays False.
    """

    requested = False

    def __enter__(self) -> InterruptAfterStep:
        if threading.current_thread() is threading.main_thread():
            self._previous: Any = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
