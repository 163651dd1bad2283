"""What `import tinygrad_llm` may do, load NumPy and the standard library and nothing else, and what can be reached then."""

import importlib
import importlib.metadata
import inspect
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

import tinygrad_llm as tg

AUDIT = """
import json, sys, threading, time
import numpy, numpy.random
before, seen = set(sys.modules), []
def hook(event, args):
    if event.split(".")[0] in ("socket", "subprocess", "urllib", "ftplib", "http", "shutil", "tempfile"):
        seen.append(event)
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append(f"open {args[0]} {args[1]}")
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.putenv", "os.system", "os.fork", "_thread.start_new_thread"):
        seen.append(event)
sys.addaudithook(hook)
threads = threading.active_count()
start = time.process_time()
import tinygrad_llm
seconds = time.process_time() - start
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
others = sorted(loaded - set(sys.stdlib_module_names) - {"tinygrad_llm", "numpy"})
print(json.dumps({"seen": seen, "others": others, "threads": threading.active_count() - threads, "seconds": seconds,
                  "submodules": [name for name in ("training", "text", "generation") if f"tinygrad_llm.{name}" in sys.modules]}))
"""


def audit() -> dict:
    command = [sys.executable, "-B", "-X", "pycache_prefix=", "-c", AUDIT]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_import_loads_numpy_alone_and_does_nothing():
    result = audit()
    assert result["others"] == []
    assert result["seen"] == []
    assert result["threads"] == 0
    assert result["submodules"] == []  # they come with their first use


def test_import_is_quick():
    seconds = min(audit()["seconds"] for _ in range(3))
    print(f"import tinygrad_llm after numpy: {1000 * seconds:.0f} ms")
    assert seconds < 0.3  # a fifth of that on an idle machine


PUBLIC = ("debug", "doctor", "errors", "evaluation", "formats", "generation", "models", "nn", "ops", "optim")
PUBLIC += ("rng", "runs", "testing", "text", "training", "tuning", "weights")


def test_submodules_come_with_their_first_use():
    lines = f"import tinygrad_llm as tg\nfor name in {PUBLIC}:\n  print(name in dir(tg), getattr(tg, name).__name__)"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"True tinygrad_llm.{name}" for name in PUBLIC]


def test_all_that_is_public_is_listed():
    assert {*PUBLIC, "Op", "Tensor", "composed", "manual_seed", "no_grad"} == set(tg.__all__)
    assert set(tg.__all__) | {"__version__", "engine", "tape"} <= set(dir(tg))
    with pytest.raises(AttributeError, match="no attribute 'trainign'"):
        tg.trainign  # noqa: B018


def test_a_module_is_found_under_its_name():
    """`import tinygrad_llm.ops.loss as m` binds that file, or the function that a package offers under its file's name."""
    names = [m.name for m in pkgutil.walk_packages(tg.__path__, "tinygrad_llm.") if not m.name.endswith("__main__")]
    assert len(names) > 100
    for name in names:
        module = importlib.import_module(name)
        bound = tg
        for part in name.split(".")[1:]:
            bound = getattr(bound, part)
        offered = not isinstance(bound, ModuleType) and bound.__module__ == name
        assert bound is module or (offered and (inspect.isfunction(bound) or inspect.isclass(bound))), name


def test_every_folder_is_a_package():
    """Without an __init__.py a folder can be imported from the checkout, and is left out of what is installed."""
    folders = {path.parent for path in Path(tg.__path__[0]).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_a_bare_checkout_knows_its_version_and_trains(tmp_path):
    """Nobody has installed it: the folder is there, and the packages that it needs."""
    shutil.copytree(tg.__path__[0], tmp_path / "tinygrad_llm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "site").mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "tinygrad_llm" not in path.name:
            (tmp_path / "site" / path.name).symlink_to(path)
    (tmp_path / "text.txt").write_text("the cat sat on the mat; " * 20)

    def run(*words):
        command = [sys.executable, "-S", "-m", "tinygrad_llm", *words]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("--version") == f"tinygrad-llm {tg.__version__}\n"
    sizes = "--tokenizer char --context-length 8 --emb-dim 8 --n-heads 2 --n-layers 1 --epochs 1"
    run("pretrain", "text.txt", "--out", "run", *sizes.split())
    state = next((tmp_path / "run").glob("step-*/trainer_state.json"))
    assert json.loads(state.read_text())["versions"]["tinygrad_llm"] == tg.__version__


def test_what_is_installed_has_the_version_of_the_package():
    assert importlib.metadata.version("tinygrad-llm") == tg.__version__
