"""What a run says while it trains: lines for the record and, where someone watches, a bar below them."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable


def lasting(report: Callable[[str], None]) -> Callable[[str], None]:
    """`report` until it cannot be written, then a warning and silence: no training is lost because a terminal went away."""
    lost = False

    def say(line: str) -> None:
        nonlocal lost
        if lost:
            return
        try:
            report(line)
        except OSError as error:
            lost = True
            warnings.warn(
                f"what the run says can no longer be written ({error.strerror or type(error).__name__}): training goes on, and "
                "its records are in its folder",
                RuntimeWarning,
                stacklevel=2,
            )

    return say


class Progress:
    """Counts steps, tokens and time, from step number `step` on.

    With a terminal on stderr it draws a tqdm bar there; `line` goes to `report` either way.
    """

    def __init__(self, total_steps: int, report: Callable[[str], None], step: int = 0) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]  # here, so that it is loaded by a run and not by the package

        self._tqdm, self._report = tqdm, report
        self.total_steps, self.step, self._before = total_steps, step, step
        self.tokens = 0  # of this session
        self._start = time.perf_counter()
        self._bar = tqdm(
            total=total_steps,
            initial=step,
            unit=" steps",
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
            disable=sys.stderr is None or not sys.stderr.isatty(),
        )

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        if self.step == self._before:
            return ""
        left = self.seconds * (self.total_steps - self.step) / (self.step - self._before)
        return f"{self.tokens_per_second:,.0f} tokens/s  {left:.0f} s left"

    def advance(self, tokens: int, loss: float) -> None:
        """Another step is done."""
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self._bar.set_postfix_str(f"loss {loss:.3f}, {self.tokens_per_second:,.0f} tokens/s", refresh=False)
        self._bar.update()

    def line(self, text: str) -> None:
        """Say `text` above the bar."""
        with self._tqdm.external_write_mode(file=sys.stdout):
            self._report(text)

    def close(self) -> None:
        self._bar.close()
