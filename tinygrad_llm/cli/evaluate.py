"""`tinygrad-llm evaluate PATH`: judge a trained model."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any

from . import weights

HELP = (
    "judge a trained model: loss, perplexity, bits per byte, tasks, and how much it copies; or its classes, answers, "
    "translations, or how it tells pairs apart"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="PATH", help="folder of a run, for example runs/story, or other weights")
    weights.add_argument(parser)
    parser.add_argument(
        "--text",
        nargs="+",
        default=[],
        metavar="FILE",
        help="text to judge it on, for a classifier with labels, for a reward or a translator pairs, for what answers "
        "conversations (default: what the run kept for validation, or for testing; other weights need one)",
    )
    parser.add_argument("--encoding", metavar="STR", help="of the files of --text (default: that of the run's text)")
    parser.add_argument(
        "--shots", type=int, default=0, metavar="INT", help="solved examples before each task (default: 0)"
    )
    parser.add_argument("--sample-tokens", type=int, default=200, metavar="INT", help="tokens to write (default: 200)")
    parser.add_argument("--seed", type=int, default=123, metavar="INT", help="of the sample (default: 123)")
    parser.add_argument(
        "--judge",
        metavar="URL",
        help="let another model score the answers of a run of instruct: an endpoint that speaks OpenAI's chat completions, as "
        "http://127.0.0.1:8080/v1; OPENAI_API_KEY is its key, if it wants one",
    )
    parser.add_argument("--judge-model", metavar="NAME", help="the name of that model")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..runs.folder import find_run, load_config
    from ..weights.load import tells_classes
    from ..weights.peft import classifies

    found = find_run(args.folder)
    task = load_config(found[0])["task"] if found is not None else ""
    answers = task == "instruct" or (task in ("dpo", "ppo", "grpo") and bool(args.text))
    if not answers and (args.judge or args.judge_model):
        raise ConfigError(f"{args.folder}: not a run of instruct: --judge scores answers")
    if answers:
        return _judge_answers(args)
    if task in ("reward", "dpo"):
        return _judge_pairs(args)
    if task == "translate":
        return _judge_translations(args)
    if task in ("ppo", "grpo"):
        raise ConfigError(
            f"{args.folder}: a run of {task} kept no questions with answers: name a file of them with --text, or see what a "
            "reward makes of its answers with prefer compare"
        )
    classes = tells_classes(args.folder) or classifies(args.adapter)
    return _judge_classes(args) if classes else _judge_text(args)


def _judge_answers(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..evaluation.judge import judge
    from ..tuning.instruct import evaluate_assistant

    if len(args.text) > 1:
        raise ConfigError(f"--text has {len(args.text)} files: answers are judged on one with questions")
    if (args.judge is None) != (args.judge_model is None):
        raise ConfigError("--judge and --judge-model go together: an endpoint, and the name of a model there")
    data = args.text[0] if args.text else None
    options = {"checkpoint": weights.chosen(args), "adapter": args.adapter, "encoding": args.encoding or ""}
    name, asked, found = evaluate_assistant(args.folder, data, **options)
    scores, judged = asked.score(found), None
    if args.judge is not None:
        questions = [messages[-1]["content"] for messages in asked.questions]
        judged = judge(questions, asked.answers, found, url=args.judge, model=args.judge_model)
    if args.json:
        print(json.dumps({"text": name, **scores.to_dict(), "judge": judged and judged.to_dict()}))
        return 0
    print(f"On {name}:")
    for line in scores.lines():
        print(f"  {line}")
    if judged is not None:
        mean = "none" if judged.mean is None else f"{judged.mean:.1f}"
        print(f"Judged by {args.judge_model}: {mean} of 100, {judged.unparsed} of {scores.n} without a number")
    return 0


def _say(args: argparse.Namespace, name: str, scores: Any) -> int:
    """What was judged, and the scores, as text or as JSON."""
    if args.json:
        print(json.dumps({"text": name, **scores.to_dict()}))
        return 0
    print(f"On {name}:")
    for line in scores.lines():
        print(f"  {line}")
    return 0


def _judge_pairs(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..tuning.compare import evaluate_pairs

    if len(args.text) > 1:
        raise ConfigError(f"--text has {len(args.text)} files: a reward is judged on one with pairs")
    if args.adapter is not None:
        raise ConfigError(f"--adapter {args.adapter}: pairs are told apart by a run as it is: leave it out")
    data = args.text[0] if args.text else None
    name, scores = evaluate_pairs(args.folder, data, checkpoint=weights.chosen(args), encoding=args.encoding or "")
    return _say(args, name, scores)


def _judge_translations(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..tuning.translate import evaluate_translator

    if args.adapter is not None:
        raise ConfigError(f"--adapter {args.adapter}: a translator takes none: leave it out")
    chosen = weights.chosen(args)
    name, scores = evaluate_translator(args.folder, *args.text, checkpoint=chosen, encoding=args.encoding or "")
    return _say(args, name, scores)


def _judge_classes(args: argparse.Namespace) -> int:
    from ..errors import ConfigError
    from ..tuning.classify import evaluate_classifier

    if len(args.text) > 1:
        raise ConfigError(f"--text has {len(args.text)} files: a classifier is judged on one with labels")
    data = args.text[0] if args.text else None
    options = {"checkpoint": args.checkpoint, "adapter": args.adapter, "encoding": args.encoding or ""}
    name, scores = evaluate_classifier(args.folder, data, **options)
    return _say(args, name, scores)


def _judge_text(args: argparse.Namespace) -> int:
    from ..evaluation.evaluate import evaluate_run
    from ..evaluation.losses import split_words, words_or_characters

    result = evaluate_run(
        args.folder,
        *args.text,
        n_shots=args.shots,
        sample_tokens=args.sample_tokens,
        seed=args.seed,
        encoding=args.encoding,
        checkpoint=weights.chosen(args),
        adapter=args.adapter,
    )
    if args.json:
        print(json.dumps(result.to_dict()))
        return 0
    print(f"On {result.text}, {result.n_tokens:,} tokens:")
    print(f"  loss                {result.loss:10.3f}  nats per token")
    print(f"  perplexity          {result.perplexity:10.1f}")
    print(f"  bits per byte       {result.bits_per_byte:10.3f}")
    if result.last_word_accuracy is not None:
        print(f"  last words right    {result.last_word_accuracy:10.1%}  of {result.n_last_words}")
    if result.choice_accuracy is not None and result.choice_chance is not None:
        chance = f"guessing gives {result.choice_chance:.0%}"
        print(f"  choices right       {result.choice_accuracy:10.1%}  of {result.n_choices}; {chance}")
    if result.copied is not None:
        unit = words_or_characters(result.sample)
        copied = textwrap.shorten(result.copied, 200) if unit == "words" else result.copied[:200]
        print(
            f"Of the {len(split_words(result.sample))} {unit} it wrote, the longest run copied from the training text is ",
            end="",
        )
        print(f'{result.copied_words}: "{copied}"')
    return 0
