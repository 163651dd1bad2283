import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork")
def test_a_run_killed_at_any_instant_ends_with_the_same_bits(tmp_path):
    script, instants = Path(__file__).with_name("killed_runs.py"), 200 if NIGHTLY else 30
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(instants)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert (killed["step"], killed["instant"]) == (20, instants)
    assert killed["again"] > instants / 10
