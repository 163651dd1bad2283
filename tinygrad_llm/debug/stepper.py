"""pdb, passing through what only carries the maths: it stops in your own file, in layers' forwards, and in the lines of ops."""

from __future__ import annotations

import pdb
import sys
from typing import Any

# What a step passes through, by name of module: the tape and what calls it, and everything that is not of the package's maths.
SKIPPED = (
    "tinygrad_llm.engine",
    "tinygrad_llm.tape.*",
    "tinygrad_llm.nn.module",
    "tinygrad_llm.parallel",
    "tinygrad_llm.checks",
    "tinygrad_llm.errors",
    "tinygrad_llm.debug.*",
    "numpy",
    "numpy.*",
    "contextlib",
    "copy",
    "pkgutil",
    "runpy",
    "importlib.*",
)


class Stepper(pdb.Pdb):
    """pdb with a list of modules in which `s` and `n` never stop; breakpoints there do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(skip=SKIPPED, **options)


def set_trace() -> None:
    """Open the debugger at the line after this call."""
    Stepper().set_trace(sys._getframe(1))
