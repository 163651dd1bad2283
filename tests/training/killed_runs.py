"""python killed_runs.py FOLDER INSTANTS: kill a run of 20 steps with SIGKILL again and again, resume it, and compare every bit.

A process of its own, without threads, forks one for each run, so that nothing is imported twice. It prints how often a run was
killed where, and exits with 1 and a line for the first run that did not end as the one that was left in peace.
"""

import gc
import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from itertools import count
from pathlib import Path

os.environ["TINYGRAD_LLM_THREADS"] = "1"
sys.modules["matplotlib"] = None

import tqdm  # noqa: E402

tqdm.tqdm.monitor_interval = 0  # its thread
os.fsync = lambda file: None  # here processes die, not machines: what was written stays

from tinygrad_llm import files  # noqa: E402
from tinygrad_llm.training import loop, pretrain, resume  # noqa: E402

TEXT = "the cat sat on the mat and the rat sat on the hat; " * 4
OPTIONS = {"tokenizer": "char", "context_length": 8, "emb_dim": 8, "n_heads": 2, "n_layers": 1, "drop_rate": 0.1}
OPTIONS |= {"epochs": 4, "batch_size": 6, "stride": 6, "eval_every": 3, "eval_batches": 1, "sample_tokens": 1}
OPTIONS |= {"save_every": 1, "keep": 1, "accumulate": 3}
STEPS = 20
CALLS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "truncate")


class Instants:
    """Counts what is done to files, and kills the process at the `fatal`-th, a write when half is written."""

    def __init__(self, fatal=0):
        self.n, self.fatal = count(1), fatal
        for name in CALLS:
            setattr(os, name, self.counted(getattr(os, name)))
        files.open = self.open

    def pass_one(self):
        self.last = next(self.n)
        return self.last == self.fatal

    def counted(self, function):
        def call(*args, **options):
            if self.pass_one():
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    def open(self, *args):
        file = open(*args)  # noqa: SIM115
        write = file.raw.write

        class Counted:
            def __enter__(_):
                return _

            def __exit__(_, *error):
                file.close()

            def write(_, part):
                if self.pass_one():
                    write(part[: len(part) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(part)

            flush, fileno = file.flush, file.fileno

        return Counted()


def go(run, text):
    """Begin the run, or go on with it, as its user would."""
    if (run / "config.json").exists():
        resume(run, report=lambda line: None)
    else:
        pretrain(text, out=run, report=lambda line: None, **OPTIONS)


def in_fork(prepare, run, text):
    """`go` in a process of its own; the signal that ended it, 0 if none did."""
    child = os.fork()
    if not child:
        try:
            prepare()
            go(run, text)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def wait(child):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL, -signal.SIGPROF):
        sys.exit(f"a run that should go on ended with {code}")
    return -code


def kill_after_step(k):
    taken, step = count(1), loop.train_step

    def fatal(*args, **options):
        loss = step(*args, **options)
        if next(taken) == k:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    loop.train_step = fatal


def results(run):
    names = ["metrics.jsonl", "samples.txt", "model.safetensors", "config.json", "tokenizer.txt", "latest"]
    names += [
        f"step-{STEPS:06}/{name}" for name in ("model.safetensors", "optimizer.safetensors", "trainer_state.json")
    ]
    return {name: (run / name).read_bytes() for name in names}


def main(folder, n_instants):
    text, run = folder / "text.txt", folder / "run"
    text.write_text(TEXT)
    report, peace = folder / "instants", folder / "peace" / "run"

    def counting():
        instants = Instants()
        real = os._exit

        def leave(code):
            report.write_text(str(instants.last))
            real(code)

        os._exit = leave

    gc.freeze()  # or each process would copy most of this one's memory
    wait(in_fork(counting, peace, text))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    expected, n = results(peace), int(report.read_text())
    rng = random.Random(7)
    killed = dict.fromkeys(("step", "instant", "again", "moment"), 0)

    def kill(kind, prepare):
        """Run on until the end, or until what `prepare` has set up kills the run."""
        killed[kind] += wait(in_fork(prepare, run, text)) != 0

    def compare(what):
        """Let the run come to its end, compare it, and take it away."""
        if not (run / "model.safetensors").exists():
            go(run, text)
        differing = [name for name, data in results(run).items() if data != expected[name]]
        left = [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
        if differing or left:
            sys.exit(f"killed {what}: {differing} differ, {left} are left")
        shutil.rmtree(run)

    for k in range(1, STEPS + 1):
        kill("step", lambda k=k: kill_after_step(k))
        shutil.copytree(run, folder / str(k))
        compare(f"after step {k}")
    for _ in range(n_instants):  # most of them near the end, so that little is left to do
        start = rng.choice([16, 17, 17, 18, 18, 18, 19, 19, 19]) if rng.random() > 0.05 else 0
        if start:
            shutil.copytree(folder / str(start), run)
        instants = n // STEPS * min(STEPS - start, 4)
        fatal, again = rng.randint(1, instants), rng.randint(1, instants)
        kill("instant", lambda k=fatal: Instants(k))
        if rng.random() < 0.2:
            kill("again", lambda k=again: Instants(k))
        compare(f"at instants {fatal} and {again} from step {start}")
    for _ in range(10):
        moment = rng.uniform(
            0.001, used.ru_utime + used.ru_stime
        )  # by the clock of the process; no one handles the signal
        kill("moment", lambda s=moment: signal.setitimer(signal.ITIMER_PROF, s))
        compare(f"after {moment} seconds")
    print(json.dumps(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
