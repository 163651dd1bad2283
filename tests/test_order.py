"""The order of the package: at module level, a file imports only from what stands before it, so that there is no circle."""

import ast
import re
from pathlib import Path

from tinygrad_llm.models import _find, architectures

PACKAGE = Path(__file__).parent.parent / "tinygrad_llm"
ORDER = [
    "errors",
    "checks",
    "files",
    "rng",
    "parallel",
    "ranks",
    "formats",
    "tape",
    "engine",
    "ops",
    "unfused",
    "schedules",
    "optim",
    "nn",
    "text",
    "models",
    "generation",
    "debug",
    "runs",
    "weights",
    "evaluation",
    "training",
    "tuning",
    "doctor",
    "serve",
    "cli",
]
TESTING = "testing"  # which nothing imports, and which imports anything up to debug


def place(path):
    """Where a file stands: the folder or the file directly in the package; None for what belongs to the package as a whole."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if name in ("__init__", "__main__", "version") else name


def imported(path):
    """(line, place) of every import of our own at module level, but those for type checkers alone."""
    package = ["tinygrad_llm", *path.relative_to(PACKAGE).parent.parts]

    def walk(statements):
        for node in statements:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = [*base, *(node.module.split(".") if node.module else [])]
                if module[0] == "tinygrad_llm":
                    names = [module[1]] if len(module) > 1 else [alias.name for alias in node.names]
                    yield from ((node.lineno, name) for name in names)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    parts = alias.name.split(".")
                    if parts[0] == "tinygrad_llm" and len(parts) > 1:
                        yield node.lineno, parts[1]
            else:
                for field in ("body", "orelse", "finalbody", "handlers"):
                    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        yield from walk(getattr(node, field, []))

    return list(walk(ast.parse(path.read_text(encoding="utf-8")).body))


def test_every_folder_has_its_place():
    there = {place(path) for path in PACKAGE.rglob("*.py")} - {None, TESTING}
    assert there <= set(ORDER)


def test_no_file_imports_what_stands_above_it():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        here = place(path)
        if here is None:
            continue
        highest = ORDER.index("debug" if here == TESTING else here)
        for line, name in imported(path):
            if name.startswith("__") or name == here:
                continue
            if name == TESTING or ORDER.index(name) > highest:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_what_is_imported():
    found = {name for _, name in imported(PACKAGE / "engine.py")}
    assert {"errors", "tape"} <= found
    assert "debug" not in found  # within a function: a notebook asks for it
    assert "ops" in {name for _, name in imported(PACKAGE / "unfused.py")}


def test_contributing_shows_the_house_in_this_order():
    (picture,) = re.findall(r"^```text\n(.*?)^```$", (PACKAGE.parent / "CONTRIBUTING.md").read_text(), re.M | re.S)
    there = {place(path) for path in PACKAGE.rglob("*.py")}
    assert re.findall(r"^\w+", picture, re.M)[::-1] == [name for name in ORDER if name in there]


def test_architectures_are_named_in_their_own_files_alone():
    """GPTModel in models/gpt.py, models/__init__.py, its table in weights/, and docstrings; and so with every architecture."""
    named = {
        architecture: {each.__name__ for each in (_find(architecture), _find(architecture).config_class)}
        for architecture in architectures()
    }
    assert named["gpt"] == {"GPTModel", "GPTConfig"}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        if parts[0] in ("models", "weights") and parts[-1] == "__init__.py":
            continue
        own = path.stem if parts[0] in ("models", "weights") else None
        names = {
            node.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Name)
        }
        for architecture, its_names in named.items():
            assert own == architecture or not names & its_names, path
