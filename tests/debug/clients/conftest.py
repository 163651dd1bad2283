"""A Python in whose environment pip has installed the package: built from the checkout as a wheel, as from an index."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    source, python = folder / "source", folder / "env" / "bin" / "python"
    source.mkdir()  # a copy, as building leaves files behind
    for name in ("setup.cfg", "pyproject.toml", "README.md", "_tinygrad_llm_hypothesis.py"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "tinygrad_llm", source / "tinygrad_llm")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", source], check=True)
    (packages,) = (folder / "env").rglob("site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # NumPy, debugpy
    return str(python)
