"""python -m tinygrad_llm.debug PROGRAM [ARGS]: a program in pdb, in which each press goes from your line to the maths."""

from __future__ import annotations

import runpy
import sys

from .stepper import Stepper

if __name__ == "__main__":
    del sys.argv[0]
    Stepper().runcall(runpy.run_path, sys.argv[0], run_name="__main__")
