"""python -m tinygrad_llm.debug PROGRAM [ARGS]: a program in pdb, in which each press goes from your line to the maths."""

from __future__ import annotations

import argparse
import os
import pdb
import sys
import traceback
from types import CodeType, ModuleType

from ..errors import DataError, TinygradLLMError
from .stepper import Stepper
from .vscode import write_launch

_NAME = "python -m tinygrad_llm.debug"
_ABOUT = """Run PROGRAM in pdb, or in ipdb where that is installed: `s` goes from your line to the first line of an op's maths,
and from the end of an op to the next one. The debugger ends with the program, `run` begins it again, an error opens it there."""


def main() -> int:
    parser = argparse.ArgumentParser(prog=_NAME, description=_ABOUT, allow_abbrev=False)
    parser.add_argument("program", nargs="?", metavar="PROGRAM", help="a file of Python")
    parser.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="what the program finds in sys.argv")
    parser.add_argument(
        "--write-vscode",
        nargs="?",
        const=".",
        metavar="FOLDER",
        help="instead: write FOLDER/.vscode/launch.json (FOLDER: here), with which F11 does in VS Code what `s` does in pdb",
    )
    options = parser.parse_args()
    try:
        if options.write_vscode is not None and options.program is None:
            print(write_launch(options.write_vscode))
            return 0
        if options.program is None or options.write_vscode is not None:
            raise DataError(f"give a PROGRAM, or --write-vscode (see {_NAME} --help)")
        if sys.stdin is None:
            raise DataError("standard input is closed: a debugger needs it for its prompt")
        code = compiled(options.program)
    except TinygradLLMError as error:
        print(f"{_NAME}: {error}", file=sys.stderr)
        return 2
    if not getattr(sys.flags, "safe_path", False):  # of Python 3.11 and later
        sys.path[0] = os.path.dirname(os.path.realpath(options.program))
    sys.argv = [options.program, *options.args]
    stepper = Stepper()
    while True:
        try:
            return run(stepper, code)
        except pdb.Restart:
            print(f"{options.program} begins again")


def compiled(program: str) -> CodeType:
    """The code of a file, or DataError."""
    try:
        with open(program, "rb") as file:
            return compile(file.read(), os.path.abspath(program), "exec", dont_inherit=True)
    except OSError as error:
        raise DataError(f"{program}: {error.strerror}") from error
    except SyntaxError as error:
        raise DataError(f"{program}:{error.lineno}: {error.msg}") from error
    except ValueError as error:  # null bytes, before Python 3.12
        raise DataError(f"{program}: {error}") from error


def run(stepper: Stepper, code: CodeType) -> int:
    """The exit code of a program, run as `__main__`."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    module.__file__ = code.co_filename
    module.__dict__["__builtins__"] = __builtins__
    try:
        stepper.run(code, module.__dict__)
    except (SystemExit, pdb.Restart):
        raise
    except BaseException as error:
        traceback.print_exception(type(error), error, error.__traceback__)
        stepper.reset()
        stepper.interaction(None, error.__traceback__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
