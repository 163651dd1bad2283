"""The comparison with PyTorch, with a program in PyTorch's place."""

import json
import os

import pytest
from benchmarks import beside_pytorch


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for a Python with PyTorch")
def test_all_programs_take_turns_and_ratios_are_of_medians(tmp_path, capsys, monkeypatch):
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
echo "$2 malloc:$MALLOC_MMAP_MAX_" >> {tmp_path / "turns"}
echo '{{"ms": [1.0, 500.0, 900.0], "peak_mb": 7.0, "loss": 1.0, "version": "9"}}'
"""
    )
    python.chmod(0o755)
    beside_pytorch.main(["nano", "--python", str(python), "--rounds", "2", "--steps", "1", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert (tmp_path / "turns").read_text().split("\n")[:-1] == 2 * ["tuned malloc:", "tuned malloc:0", "book malloc:"]
    assert printed["ms"] | {"ours": 0} == {"ours": 0, "tuned": 500.0, "tuned, our malloc": 500.0, "book": 500.0}
    assert printed["our_tokens_per_second_over_theirs"]["book"] == 500 / printed["ms"]["ours"]
    assert printed["peak_mb"]["tuned"] == 7.0 < printed["peak_mb"]["ours"]


def test_a_python_without_pytorch_is_said_in_one_line(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named torch' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit, match=r"pytorch_twins\.py tuned .* failed: No module named torch"):
        beside_pytorch.main(["nano", "--python", str(python), "--steps", "1"])
