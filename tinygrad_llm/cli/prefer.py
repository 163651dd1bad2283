"""`tinygrad-llm prefer label RUN`: answers put in order, by a person or by a reward, to learn from what is preferred."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from . import weights
from .terminal import printable, read_line

HELP = "learn from what is preferred: label answers in order"


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
        help='JSON lines of {"prompt": ...} and further columns for the reward, or lessons by their kind, as review',
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
        help="who judges: reviews (their true score), exact (the column answer), or MODULE:FUNCTION (default: you)",
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
    from ..tuning.rewards import reward_named

    reward = None if args.by is None else reward_named(args.by)
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


ACTIONS = {"label": Action("put a model's answers in order, or have a reward do it", _add_label, _label)}
