"""`tinygrad-llm prefer ACTION`: answers put in order, what is learned from that, and what came of it."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..tuning.options import DPOOptions, FeedbackOptions, GRPOOptions, PPOOptions, RewardOptions
from . import tuning, weights
from .flags import given
from .terminal import printable, read_line

if TYPE_CHECKING:
    from ..tuning.compare import BestOf, Comparison
    from ..tuning.preferences import Prompts

HELP = (
    "learn from what is preferred: label answers, train on them (reward, dpo, ppo, grpo), and compare what came of it"
)
_REWARD = "a run of `prefer reward`, reviews (their true score), exact (the column answer), or MODULE:FUNCTION"
_PROMPTS = 'JSON lines of {"prompt": ...} and further columns for the reward, or lessons by their kind, as review'


class Action(NamedTuple):
    """One of the words after `prefer`: as a command has, its help, its arguments, and what it does."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, help=", ".join(ACTIONS))
    for name, action in ACTIONS.items():
        subparser = actions.add_parser(name, help=action.help, description=action.help, allow_abbrev=False)
        action.add_arguments(subparser)
        subparser.set_defaults(parser=subparser)  # for the nearest option to one that does not exist


def run(args: argparse.Namespace) -> int:
    return ACTIONS[args.action].run(args)


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", help="folder of a run of instruct, or other weights with --template")
    parser.add_argument(
        "--prompts",
        required=True,
        metavar="FILE|KIND",
        help=_PROMPTS,
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="JSON lines of prompt, responses and ranking, written at once with each; one that is there is gone on with",
    )
    parser.add_argument(
        "--by",
        metavar="REWARD",
        help=f"who judges: {_REWARD} (default: you)",
    )
    parser.add_argument(
        "--noise", type=float, default=0.0, metavar="FLOAT", help="with --by: chance of an error (default: 0)"
    )
    parser.add_argument("--n", type=int, default=2, metavar="K", help="answers to each prompt (default: 2)")
    parser.add_argument(
        "--examples", type=int, default=0, metavar="INT", help="so many prompts (default: all of a file, 1000 lessons)"
    )
    parser.add_argument(
        "--repeat", type=float, default=0.1, metavar="FLOAT", help="share that you are asked again (default: 0.1)"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="FLOAT", help="1 takes the odds of the model (default: 1)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="INT", help="of an answer (default: what is left of the context)"
    )
    parser.add_argument(
        "--seed", type=int, default=123, metavar="INT", help="of prompts, answers and errors (default: 123)"
    )
    parser.add_argument(
        "--template", metavar="NAME", help="how questions and answers are written down (default: the run's)"
    )
    weights.add_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the counts as JSON, and all else on stderr")


def _label(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..tuning.assistant import Assistant
    from ..tuning.exercises import all_prompts
    from ..tuning.labelling import HELP as KEYS
    from ..tuning.labelling import Rankings, agreement, by_person, by_reward, rows_of, sampler
    from ..tuning.reward import open_reward

    reward = None if args.by is None else open_reward(args.by)
    if reward is None and args.noise:
        raise ConfigError(f"--noise {args.noise} is for --by: a person errs without it")
    prompts = rows_of(all_prompts(args.prompts, args.examples, args.seed))
    rankings = Rankings(args.out)
    for line in rankings.said:
        print(line, file=sys.stderr)
    assistant = Assistant.load(args.folder, weights.chosen(args), args.adapter, args.template)
    sample = sampler(assistant, args.n, args.temperature, args.seed, args.max_new_tokens)
    before, code = len(rankings.rows), 0
    to = sys.stderr if args.json else sys.stdout
    try:
        if reward is not None:
            by_reward(rankings, prompts, sample, reward, args.noise, args.seed, _every_second())
        else:
            print(f"{len(rankings.left(prompts))} prompts. {KEYS}", file=to)
            show = lambda text: print(printable(text), file=to)  # noqa: E731
            by_person(rankings, prompts, sample, read_line, show, args.repeat, args.seed)
    except KeyboardInterrupt:
        code = 130
    same, n = agreement(rankings.rows)
    ties = sum(len(set(row["ranking"])) == 1 for row in rankings.rows)
    counts = {"judged": len(rankings.rows) - before, "rows": len(rankings.rows), "all_equal": ties}
    left = len(rankings.left(prompts))
    if args.json:
        told = {"out": args.out, **counts, "left": left, "judged_twice": n, "agreement": same / n if n else None}
        print(json.dumps(told))
        return code
    print(
        f"{args.out}: {len(rankings.rows)} rows, {counts['judged']} of them new; all equal in {ties}; {left} prompts are left"
    )
    if n:
        print(f"Of {n} pairs judged twice, {same} were judged alike")
    return code


def _every_second() -> Callable[[int, int], None]:
    """What tells stderr how many are done, once in a second."""
    last = time.monotonic()

    def report(done: int, of: int) -> None:
        nonlocal last
        if done == of or time.monotonic() > last + 1:
            last = time.monotonic()
            print(f"{done} of {of} prompts", file=sys.stderr)

    return report


# ---- training


class Training(NamedTuple):
    """A task of learning from feedback, as an action."""

    options: type[FeedbackOptions]
    data: str  # the name of what it learns from, and its help
    data_help: str

    def action(self, help: str) -> Action:
        return Action(help, self.add_arguments, self.run)

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("data", nargs="?", metavar=self.data, help=self.data_help)
        tuning.add_arguments(parser, self.options, f"runs/ and the name of {self.data}")

    def run(self, args: argparse.Namespace) -> int:
        from ..errors import ConfigError

        task = self.options.task
        module = importlib.import_module(f"..tuning.{task}", __package__)
        if args.resume is None:
            example = f"tinygrad-llm prefer {task} {self.data} --init-from RUN"
            rewarded = self.options in (PPOOptions, GRPOOptions)
            example += " --reward REWARD" if rewarded else ""
            if args.data is None:
                raise ConfigError(f"{self.data} is missing: {example}, or --resume RUN")
            if args.init_from is None:
                raise ConfigError(f"--init-from is missing: it begins with weights that answer already: {example}")
            if rewarded and "reward" not in given(args, self.options):
                raise ConfigError(f"--reward is missing, {_REWARD}: {example}")
        return tuning.run(args, self.options, module.train, module.resume)


_PAIRS_HELP = "JSON array or JSON lines of pairs or rankings, as `prefer label` writes them"


# ---- what came of it


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    """What answers are drawn to, and how."""
    parser.add_argument("--prompts", required=True, metavar="FILE|KIND", help=_PROMPTS)
    parser.add_argument(
        "--examples", type=int, default=0, metavar="INT", help="so many prompts (default: all of a file, 1000 lessons)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=48, metavar="INT", help="tokens of an answer at most (default: 48)"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="FLOAT", help="1 takes the odds of the model (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=123, metavar="INT", help="of prompts and answers (default: 123)")
    parser.add_argument(
        "--template", metavar="NAME", help="how questions and answers are written down (default: the run's)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def _drawing(args: argparse.Namespace) -> dict[str, Any]:
    from ..checks import check_integer, check_number

    return {
        "max_new_tokens": check_integer("max_new_tokens", args.max_new_tokens, least=1),
        "temperature": check_number("temperature", args.temperature),
        "seed": args.seed,
    }


def _prompts(args: argparse.Namespace) -> Prompts:
    """Of lessons those that nobody learned from."""
    from ..tuning.exercises import all_prompts

    return all_prompts(args.prompts, args.examples, args.seed, "test")


def _add_best_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="RUN", help="what answers: a run of instruct, dpo, ppo, grpo, or other weights"
    )
    parser.add_argument("--reward", required=True, metavar="REWARD", help=f"by which the best is kept: {_REWARD}")
    parser.add_argument("--judge", metavar="REWARD", help="by which it is judged besides, in the same words")
    parser.add_argument("--n", type=int, default=16, metavar="N", help="answers to each prompt (default: 16)")
    weights.add_argument(parser)
    _add_drawing(parser)


def _best_of(args: argparse.Namespace) -> int:
    from ..tuning.assistant import Assistant
    from ..tuning.compare import best_of
    from ..tuning.reward import open_reward

    how, prompts = _drawing(args), _prompts(args)
    reward, judge = open_reward(args.reward), open_reward(args.judge) if args.judge else None
    assistant = Assistant.load(args.folder, weights.chosen(args), args.adapter, args.template)
    return _tell(best_of(assistant, prompts, reward, args.n, judge=judge, **how), args)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="A", help="what answers: a run of instruct, dpo, ppo, grpo, or other weights")
    parser.add_argument("other", metavar="B", help="what answers the same, likewise")
    parser.add_argument("--by", metavar="REWARD", help=f"who judges: {_REWARD}")
    parser.add_argument(
        "--judge",
        metavar="URL",
        help="or another model, asked in both orders: an endpoint that speaks OpenAI's chat completions, as "
        "http://127.0.0.1:8080/v1; OPENAI_API_KEY is its key, if it wants one",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the name of that model")
    _add_drawing(parser)


def _compare(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..tuning.assistant import Assistant
    from ..tuning.compare import compare, compare_by_endpoint
    from ..tuning.reward import open_reward

    if (args.by is None) == (args.judge is None):
        raise ConfigError("--by or --judge: give one of them, who judges")
    if (args.judge is None) != (args.judge_model is None):
        raise ConfigError("--judge and --judge-model go together: an endpoint, and the name of a model there")
    how, prompts = _drawing(args), _prompts(args)
    judge = open_reward(args.by) if args.by else None
    a, b = (Assistant.load(folder, template=args.template) for folder in (args.folder, args.other))
    if judge is not None:
        return _tell(compare(a, b, prompts, judge, **how), args)
    how |= {"url": args.judge, "model": args.judge_model}
    every_second = _every_second()
    return _tell(compare_by_endpoint(a, b, prompts, **how, report=lambda done: every_second(done, len(prompts))), args)


def _tell(found: BestOf | Comparison, args: argparse.Namespace) -> int:
    print(json.dumps(found.summary()) if args.json else "\n".join(found.lines()))
    return 0


ACTIONS = {
    "label": Action("put a model's answers in order, or have a reward do it", _add_label, _label),
    "reward": Training(RewardOptions, "PAIRS", _PAIRS_HELP).action("learn to score answers, from pairs or rankings"),
    "dpo": Training(DPOOptions, "PAIRS", _PAIRS_HELP).action("learn to answer from pairs, without a reward"),
    "ppo": Training(PPOOptions, "PROMPTS", _PROMPTS).action(
        "learn from what one's own answers are worth, with a value"
    ),
    "grpo": Training(GRPOOptions, "PROMPTS", _PROMPTS).action(
        "learn from one's own answers beside others to the same prompt"
    ),
    "best-of-n": Action("keep the best of many answers by a reward: what training has to beat", _add_best_of, _best_of),
    "compare": Action("have two models answer, and a judge say whose answers are better", _add_compare, _compare),
}
