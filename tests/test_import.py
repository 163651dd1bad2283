"""What `import tinygrad_llm` may do: load NumPy and the standard library, and nothing else."""

import json
import subprocess
import sys

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
start = time.perf_counter()
import tinygrad_llm
seconds = time.perf_counter() - start
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
    assert seconds < 1.0  # far below on an idle machine; the bound is for a busy one


def test_submodules_come_with_their_first_use():
    names = "tg.training.pretrain, tg.text.story, tg.optim.AdamW, tg.models.GPTModel, tg.generation.generate"
    lines = f"import tinygrad_llm as tg; {names}"
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=60)
    import pytest

    import tinygrad_llm as tg

    with pytest.raises(AttributeError, match="no attribute 'trainign'"):
        tg.trainign  # noqa: B018
