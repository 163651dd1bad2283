"""Questions on unseen tales: the tales' model tuned to answer, beside its like from random weights and the commonest answers.

python tests/benchmarks/questions.py [--base runs/tales] [--seeds 1 2 3]      # 300 questions; a table by what is asked
"""

import argparse
import time
from pathlib import Path

from tinygrad_llm.evaluation.answers import most_frequent
from tinygrad_llm.text.lessons import lessons
from tinygrad_llm.training import pretrain
from tinygrad_llm.tuning.assistant import write_answers
from tinygrad_llm.tuning.exercises import Part, messages_of
from tinygrad_llm.tuning.instruct import instruct

TUNED = {"lr": 1.5e-3, "drop_rate": 0.0, "weight_decay": 0.0, "mask_instruction": True}
LENGTH = {"max_steps": 1500, "examples": 12000, "eval_every": 500}
ASKED = ("Who is", "Who went", "Where did they", "Where did", "What was it", "What was in", "How did", "How does")


def what_is_asked(question):
    return next(words for words in ASKED if question.startswith(words))


def shares(test, answers):
    """The share of right answers to each question."""
    right = {words: [] for words in ASKED}
    for lesson, answer in zip(test, answers, strict=True):
        right[what_is_asked(lesson.instruction)].append(answer.strip() == lesson.answer)
    total = sum(map(sum, right.values())) / len(test)
    return [sum(each) / len(each) for each in right.values()] + [total]


def untrained(folder):
    """A run with the tokenizer and the sizes of the tales' model, before its first step."""
    pretrain(preset="tales", out=folder, max_steps=1, lr=1e-12, report=lambda line: None)
    return folder


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--base", type=Path, default=Path("runs/tales"))
parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
args = parser.parse_args()
test = lessons(7, 300, "test", ["question"])
print(f"{'':22}" + "".join(f"{words:>15}" for words in ASKED) + f"{'all':>8}{'s':>6}")


def show(name, answers, seconds=0.0):
    *each, total = shares(test, answers)
    print(f"{name:22}" + "".join(f"{share:15.2f}" for share in each) + f"{total:8.3f}{seconds:6.0f}", flush=True)


show("commonest answer", most_frequent(lessons(1, 3000, "train", ["question"]), test))
for name, base in {"tales' model": args.base, "random weights": untrained(Path("runs/bench/untrained"))}.items():
    for seed in args.seeds:
        start = time.perf_counter()
        run = instruct(
            kinds="question",
            init_from=base,
            out=f"runs/bench/questions-{seed}",
            seed=seed,
            report=lambda line: None,
            **TUNED,
            **LENGTH,
        )
        seconds = time.perf_counter() - start
        part = Part([messages_of(lesson) for lesson in test], test)
        show(f"{name}, seed {seed}", write_answers(run.model, run.tokenizer, run.template, part.questions, 20), seconds)
