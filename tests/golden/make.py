"""python tests/golden/make.py: write the golden files. Commit 9bfe6eb made them; newer code does not make them again.

golden.json       hashes and losses of trained weights, texts, and the end of the run
weights.npz       the same weights, for machines that round otherwise
stopped/          a run that was interrupted in its second epoch
finished/         the same run at its end, without its checkpoints
export/           its model in the form of transformers
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import measure
import numpy as np

from tinygrad_llm.training import load_run, resume
from tinygrad_llm.weights import save_pretrained

HERE = measure.HERE


def main() -> None:
    golden, arrays = {"arithmetic": measure.arithmetic()}, {}
    for name, options in {
        "float32": {},
        "float32, one thread": {"threads": 1},
        "float64, GPT-2": {"dtype": np.float64, "init": "gpt2", "tie_weights": True, "qkv_bias": True},
    }.items():
        losses, model = measure.trained(**options)
        values = model.state_dict()
        golden[name] = {
            "losses": [float(loss).hex() for loss in losses],
            "weights": {key: measure.digest(value) for key, value in values.items()},
        }
        if "threads" not in options:
            arrays |= {f"{name}: {key}": value for key, value in values.items()}
    golden["texts"] = {"float64": measure.texts(model), "float32": measure.texts(measure.trained()[1])}
    np.savez_compressed(HERE / "weights.npz", **arrays)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        measure.begin_run(Path("stopped"), stop=True)
        shutil.copytree("stopped", "run")
        resume("run", report=lambda line: None)
        measure.begin_run(Path("whole"), stop=False)
        weights, whole = load_run("run")[0].state_dict(), load_run("whole")[0].state_dict()
        if any(not np.array_equal(weights[key], whole[key]) for key in whole):
            raise SystemExit("resumed and uninterrupted runs differ")
        golden["run"] = {
            "weights": {key: measure.digest(value) for key, value in weights.items()},
            "metrics": [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()],
            "samples": Path("run/samples.txt").read_text(),
        }
        model, tokenizer = load_run("run")
        save_pretrained(model, "export", tokenizer)
        for checkpoint in Path("run").glob("step-*"):
            shutil.rmtree(checkpoint)
        for name in ("loss.png", "latest"):
            Path("run", name).unlink(missing_ok=True)
        for source, target in {"stopped": "stopped", "run": "finished", "export": "export"}.items():
            shutil.rmtree(HERE / target, ignore_errors=True)
            shutil.copytree(source, HERE / target)
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
