"""Two-digit addition: a model half taught, then GRPO on whether its sums are right, beside being taught on for as long.

python tests/benchmarks/grpo.py [--seeds 1 2 3] [--out runs]     # prints a row for each seed
"""

import argparse
import math
import time
from pathlib import Path

from tinygrad_llm.evaluation.answers import wilson_interval
from tinygrad_llm.tuning import grpo
from tinygrad_llm.tuning.assistant import Assistant, write_answers
from tinygrad_llm.tuning.exercises import all_prompts
from tinygrad_llm.tuning.instruct import instruct

STEPS = 3000  # in which addition is learned: it comes suddenly
TAUGHT = {"kinds": "addition", "mask_instruction": True, "examples": 8000, "report": lambda line: None}


def accuracy(run, held_out):
    """The share of likeliest answers that are right."""
    assistant = Assistant.load(run)
    found = write_answers(assistant.model, assistant.tokenizer, assistant.template, held_out.prompts, 8)
    return sum(one.strip() == right for one, right in zip(found, held_out.columns["answer"], strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument(
        "--enough", type=float, default=0.35, help="share of sums right at which teaching ends (default: 0.35)"
    )
    parser.add_argument("--rounds", type=int, default=160, help="of GRPO (default: 160)")
    args = parser.parse_args()
    print(
        "| seed | taught | after GRPO | s | sampled reward | groups without spread | taught as long again | 95 % interval |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for seed in args.seeds:
        run_taught, more = (args.out / f"addition-{name}-{seed}" for name in ("taught", "more"))
        tried = all_prompts("addition", 200, seed, "validation")
        held_out = all_prompts("addition", 400, seed, "test")
        begun = time.monotonic()
        instruct(out=run_taught, max_steps=STEPS, save_every=100, keep=STEPS, seed=seed, **TAUGHT)
        a_step = (time.monotonic() - begun) / STEPS
        steps = range(100, STEPS + 1, 100)
        taught = next(path for n in steps if accuracy(path := run_taught / f"step-{n:06}", tried) >= 200 * args.enough)
        options = {"epochs": args.rounds, "max_new_tokens": 8, "missing_end": 0.0, "eval_answers": 32, "seed": seed}
        begun = time.monotonic()
        run = grpo.train(
            "addition", init_from=taught, reward="exact", out=args.out / f"addition-grpo-{seed}",
            report=lambda line: None, **options
        )  # fmt: skip
        seconds = time.monotonic() - begun
        steps = math.ceil(seconds / a_step)
        instruct(
            init_from=taught, out=more, max_steps=steps, batch_size=32, lr=3e-3, seed=seed, drop_rate=0.0, **TAUGHT
        )
        right = [accuracy(path, held_out) for path in (taught, run.finished.folder, more)]
        rows = run.finished.metrics
        low, high = wilson_interval(right[1], 400)
        print(
            f"| {seed} | {right[0] / 400:.3f} | {right[1] / 400:.3f} | {seconds:.0f} | {rows[1]['reward']:.2f} to "
            f"{rows[-1]['reward']:.2f} | {rows[1]['frac_reward_zero_std']:.2f} to {rows[-1]['frac_reward_zero_std']:.2f} | "
            f"{right[2] / 400:.3f} | {low:.3f}-{high:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
