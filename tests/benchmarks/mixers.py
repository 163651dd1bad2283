"""WKV and the convolution of Hyena, forward and backward, beside plain PyTorch, in turn, each in processes of its own. Medians.

    .venv/bin/python tests/benchmarks/mixers.py --python PYTHON_WITH_TORCH [--lengths 256 4096] [--rounds 3] [--json]

PyTorch's WKV goes from token to token, as models of RWKV-4 do where there is no graphics card, and autograd back; its convolution
is torch.fft. float32, one thread each; CPU time, which says the same on a busy machine.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

OPS = ("wkv", "fft_conv")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def inputs(op: str, b: int, t: int, c: int) -> list:
    """Arrays of the op, and a gradient of its result."""
    import numpy as np

    draw = np.random.default_rng(0).standard_normal
    shapes = {
        "wkv": [(b, t, c), (b, t, c), (c,), (c,), (b, t, c)],
        "fft_conv": [(b, c, t), (c, t), (c,), (b, c, t)],
    }
    return [draw(shape).astype(np.float32) for shape in shapes[op]]


def ours(op: str, arrays: list):
    """() -> the gradients."""
    import tinygrad_llm as tg

    *arrays, g = arrays
    function = getattr(tg.ops, op)

    def step() -> list:
        leaves = [tg.Tensor(array, requires_grad=True) for array in arrays]
        function(*leaves).backward(g)
        return [leaf.grad for leaf in leaves]

    return step


def pytorch(op: str, arrays: list):
    """() -> the gradients."""
    import torch

    torch.set_num_threads(1)
    *values, g = map(torch.tensor, arrays)

    def wkv(k, v, decay, first):
        w, a, b = -decay.exp(), torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0])
        p, out = torch.full_like(a, -1e38), []
        for kt, vt in zip(k.unbind(1), v.unbind(1), strict=True):
            q = torch.maximum(p, first + kt)
            before, now = (p - q).exp(), (first + kt - q).exp()
            out.append((before * a + now * vt) / (before * b + now))
            q = torch.maximum(p + w, kt)
            before, now = (p + w - q).exp(), (kt - q).exp()
            a, b, p = before * a + now * vt, before * b + now, q
        return torch.stack(out, 1)

    def fft_conv(u, h, d):
        n = 2 * u.shape[-1]
        y = torch.fft.irfft(torch.fft.rfft(u, n) * torch.fft.rfft(h, n), n)[..., : u.shape[-1]]
        return y + d[:, None] * u

    function = {"wkv": wkv, "fft_conv": fft_conv}[op]

    def step() -> list:
        leaves = [value.clone().requires_grad_() for value in values]
        return [grad.numpy() for grad in torch.autograd.grad(function(*leaves), leaves, g)]

    return step


PROGRAMS = {"ours": ours, "pytorch": pytorch}


def once(program: str, op: str, sizes: list[int], seconds: float) -> dict:
    """The median ms of a forward and backward, and the sum of each gradient's absolute values, which must not differ."""
    import resource

    step = PROGRAMS[program](op, inputs(op, *sizes))
    gradients, times = step(), []
    while len(times) < 3 or sum(times) < seconds:
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sums = [float(abs(g).sum(dtype="f8")) for g in gradients]
    return {"ms": 1000 * statistics.median(times), "peak_mb": peak, "sums": sums}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="one that has PyTorch (default: this one)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 4096], help="tokens (default: 256 4096)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: 8)")
    parser.add_argument("--channels", type=int, default=128, help="(default: 128)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one turn (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: 3)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", nargs=2, metavar=("PROGRAM", "OP"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        print(json.dumps(once(*args.once, [args.batch_size, args.lengths[0], args.channels], args.seconds)))
        return
    rows = []
    for op in OPS:
        for t in args.lengths:
            turns: dict[str, list] = {program: [] for program in PROGRAMS}
            for _ in range(args.rounds):
                for program, done in turns.items():
                    python = args.python if program == "pytorch" else sys.executable
                    sizes = ["--lengths", t, "--batch-size", args.batch_size, "--channels", args.channels]
                    command = [python, __file__, "--once", program, op, *sizes, "--seconds", args.seconds]
                    output = subprocess.run(
                        list(map(str, command)),
                        capture_output=True,
                        text=True,
                        env=os.environ | ONE_THREAD,
                        check=False,
                    )
                    if output.returncode:
                        sys.exit(f"{program}: {(output.stderr.strip().splitlines() or ['no message'])[-1]}")
                    done.append(json.loads(output.stdout))
            ms = {program: statistics.median(turn["ms"] for turn in done) for program, done in turns.items()}
            peak = {program: max(turn["peak_mb"] for turn in done) for program, done in turns.items()}
            pairs = zip(turns["ours"][0]["sums"], turns["pytorch"][0]["sums"], strict=True)
            apart = max(abs(a - b) / b for a, b in pairs)
            rows.append({"op": op, "tokens": t, "ms": ms, "peak_mb": peak, "times_faster": ms["pytorch"] / ms["ours"],
                         "gradients_apart": apart})  # fmt: skip
    if args.json:
        print(json.dumps(rows))
        return
    print(f"batch {args.batch_size}, {args.channels} channels, medians of {args.rounds} turns")
    for row in rows:
        ms, peak = row["ms"], row["peak_mb"]
        timed = "   ".join(f"{program} {ms[program]:8.1f} ms {peak[program]:6,.0f} MB" for program in ms)
        apart = f"gradients {row['gradients_apart']:.0e} apart"
        print(f"  {row['op']:9} T {row['tokens']:5,}  {timed}   {row['times_faster']:5.1f} times   {apart}")


if __name__ == "__main__":
    main()
