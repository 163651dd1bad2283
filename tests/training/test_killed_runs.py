import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork")
def test_a_run_killed_at_any_instant_ends_with_the_same_bits(tmp_path):
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert (killed["step"], killed["instant"]) == (20, 200)
    assert killed["again"] > 20
