"""python tests/benchmarks/checkpoint.py [--folder DIR] [--repeats N]        a minute or two; needs 4 GB of memory and 6 of disk

Saving a checkpoint of the 124M model with its optimizer, beside a plain write of the same bytes that is flushed to the disk as
well. The two take turns in one process, because a disk is not as fast at all times.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tinygrad_llm.models.gpt import GPTModel, preset
from tinygrad_llm.optim import AdamW
from tinygrad_llm.runs.checkpoint import TrainerState, save_checkpoint


def write_plainly(path, arrays):
    with open(path, "wb") as file:
        for array in arrays:
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    model = GPTModel(preset("124M", init="gpt2"))
    optimizer = AdamW(model.parameters())
    weights = {name: parameter.data for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = parameter.data
    optimizer.step()
    model.zero_grad()
    arrays = [np.ascontiguousarray(array) for array in (*weights.values(), *optimizer.state_dict()["moments"].values())]
    n_bytes = sum(array.nbytes for array in arrays)
    print(f"{n_bytes / 1e9:.2f} GB: weights and two moments of {model.n_parameters():,} parameters")

    plain, ours = [], []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = Path(folder)
        for step in range(args.repeats + 1):
            began = time.perf_counter()
            write_plainly(run / "plain", arrays)
            plain.append(time.perf_counter() - began)
            (run / "plain").unlink()
            began = time.perf_counter()
            saved = save_checkpoint(
                run, 1, TrainerState(step=step), weights=weights, optimizer=optimizer.state_dict(), about={}
            )
            ours.append(time.perf_counter() - began)
            shutil.rmtree(saved)
            print(f"  plain {plain[-1]:6.2f} s   checkpoint {ours[-1]:6.2f} s" + ("" if step else "   (to warm up)"))
    a, b = statistics.median(plain[1:]), statistics.median(ours[1:])
    print(f"median: plain {a:.2f} s ({n_bytes / a / 1e9:.2f} GB/s), checkpoint {b:.2f} s, {b / a:.2f} times as long")


if __name__ == "__main__":
    main()
