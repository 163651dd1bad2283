"""Standard input, output and error as a command finds them: closed, on a full disk, or with nobody at the other end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any


class OutputLost(OSError):
    """Standard output can no longer be written; an error of its own, so that it is not taken for one of a file."""


class Output:
    """Standard output. Once something could not be written, nothing more is: every attempt raises OutputLost."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lost: OutputLost | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        return self._try(self._stream.write, text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[..., Any], *args: Any) -> Any:
        if self._lost is None:
            try:
                return act(*args)
            except OSError as error:
                self._lost = OutputLost(error.errno, error.strerror)
                # What was not written stays in Python's buffer, and would be complained of when it exits.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        raise self._lost


class Remarks(Output):
    """Standard error. What cannot be said there is not said: the exit code remains."""

    def _try(self, act: Callable[..., Any], *args: Any) -> Any:
        try:
            return super()._try(act, *args)
        except OutputLost:
            return 0


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside, all three are there, for Python has None for a closed one, and letters that they lack become question marks."""
    with ExitStack() as stack:
        for name in ("stdin", "stdout", "stderr"):
            if getattr(sys, name) is None:
                stack.callback(setattr, sys, name, None)
                setattr(sys, name, stack.enter_context(open(os.devnull, "r" if name == "stdin" else "w")))
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        stack.enter_context(redirect_stdout(Output(sys.stdout)))  # type: ignore[type-var]
        stack.enter_context(redirect_stderr(Remarks(sys.stderr)))  # type: ignore[type-var]
        yield
