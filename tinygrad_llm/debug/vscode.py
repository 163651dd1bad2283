"""What VS Code must be told for F11 to go from your line to the maths: `python -m tinygrad_llm.debug --write-vscode`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import replace_file
from .stepper import PASSED

# Of Python's library what is met on the way from a line to the maths; all of it would be three hundred names.
_LIBRARY = (
    "concurrent",
    "contextlib",
    "contextvars",
    "copy",
    "functools",
    "importlib",
    "inspect",
    "threading",
    "weakref",
)

CONFIGURATION: dict[str, Any] = {
    "name": "Step through backprop",
    "type": "debugpy",
    "request": "launch",
    "program": "${file}",
    "console": "integratedTerminal",
    "justMyCode": False,  # or breakpoints in installed packages would be passed over, those in ops among them
    "rules": [{"module": module, "include": False} for module in (*PASSED, *_LIBRARY)],
}


def write_launch(folder: str | os.PathLike) -> str:
    """Put the configuration into FOLDER/.vscode/launch.json, beside those that it has; returns what was done, in one line.

    DataError, with the file as it was, where it is not plain JSON; VS Code itself takes comments.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder: give the one that is opened in VS Code")
    path = Path(folder, ".vscode", "launch.json")
    launch: Any = {"version": "0.2.0", "configurations": []}
    if os.path.lexists(path):
        launch = _read(path)
    configurations = launch.setdefault("configurations", [])
    if any(isinstance(other, dict) and other.get("name") == CONFIGURATION["name"] for other in configurations):
        return f"{path} has {CONFIGURATION['name']!r} already: nothing was changed"
    configurations.append(CONFIGURATION)
    path.parent.mkdir(exist_ok=True)
    replace_file(path, [json.dumps(launch, indent=4, ensure_ascii=False).encode(), b"\n"])
    return f"{path} has {CONFIGURATION['name']!r} now: open a program, press F5, and F11 on loss.backward()"


def _read(path: Path) -> dict[str, Any]:
    try:
        launch = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as plain JSON ({error}): remove comments and trailing commas, or move it away"
        ) from error
    if not isinstance(launch, dict) or not isinstance(launch.get("configurations", []), list):
        raise DataError(f"{path} is no launch.json: it must be an object with a list of configurations")
    return launch
