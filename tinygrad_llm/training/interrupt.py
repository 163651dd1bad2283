"""Ctrl-C, SIGTERM and a closed terminal at a convenient moment: after the step under way, so that a run can be left whole."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any


class InterruptAfterStep:
    """Inside `with`, the first SIGINT, SIGTERM or SIGHUP only sets `requested`, for the loop to look at; a second ends it.

    Under nohup SIGHUP is ignored, and still is. In any other thread than the main one, where no signal can be caught,
    `requested` stays None.
    """

    requested: int | None = None  # the number of the signal

    def __enter__(self) -> InterruptAfterStep:
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            heeded = [signal.SIGINT, signal.SIGTERM]
            if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                heeded.append(signal.SIGHUP)
            self._previous = {number: signal.signal(number, self._handle) for number in heeded}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def error(self) -> BaseException:
        """What to raise once the work is in order: Python ends with 130 for it, or with 143 or 129."""
        number = self.requested or signal.SIGINT
        return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)

    def _handle(self, number: int, frame: Any) -> None:
        if self.requested is not None:
            raise self.error()
        self.requested = number
