"""The loss of a text, for the commands that look into its backward: of a trained run, or of a tiny GPT."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from . import weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from ..debug import AlignedText, TokenTable
    from ..engine import Tensor
    from ..text import Tokenizer

_PROMPT = "Every effort moves you"
_LONGEST = 2**20  # letters of a line of answers that are read


class TextLoss(NamedTuple):
    """The mean cross-entropy of the tokens of a text that count, and what it was made with, of a model that writes."""

    loss: Tensor
    model: Any = None
    ids: np.ndarray | None = None  # (T + 1,)
    tokenizer: Tokenizer | None = None
    counted: np.ndarray | None = None  # (T + 1,) bool: all, or those of an answer; the first token is not foretold
    tables: Sequence[TokenTable] = ()
    alignments: Sequence[AlignedText] = ()  # of a translator, whose ids are those of the target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", metavar="RUN", help="folder of a trained run (default: a tiny GPT with random weights)"
    )
    weights.add_argument(parser)
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help=f"the text whose loss is differentiated (default: {_PROMPT!r}); of a run of ppo or grpo, what is answered (default: "
        "its first held-out prompt), and the loss is that of the answer drawn, as in training; of a run of translate, a source "
        "(default: the first of its test); of a bert, words of it are hidden, and the loss is that of guessing them (default: "
        "some texts of validation)",
    )
    parser.add_argument(
        "--answer",
        metavar="TEXT",
        help="of a run of instruct: the prompt is a question, and the loss is that of the tokens of this answer alone (default: "
        "without --prompt too, the first question of its test; else the prompt is a text); of a run of translate, the target "
        "(default: what it writes)",
    )
    parser.add_argument(
        "--composed", action="store_true", help="take the fused ops apart: softmax becomes exp, sum and divide"
    )


def open_text(args: argparse.Namespace) -> TextLoss:
    """The loss of `--prompt`, or of an answer to it, under the model of RUN; of a run of ppo or grpo, what it learns by from an
    answer of its own. A text longer than the context is cut, which stderr is told."""
    import numpy as np

    from ..engine import composed
    from ..errors import DataError
    from ..ops import cross_entropy

    if args.folder is not None and _learns_from_answers(args.folder):
        return _draw_answer(args)
    if args.folder is not None and _task_of(args.folder) == "translate":
        return _open_pair(args)
    if args.folder is not None and _task_of(args.folder) == "masked_words":
        return _hide_words(args)
    asked, answer = {"content": args.prompt}, args.answer
    if args.prompt is None and answer is None:
        asked, answer = _first_exchange(args.folder)
    if answer is None:
        model, tokenizer = _open_model(args.folder, weights.chosen(args), args.adapter)
        text = _PROMPT if args.prompt is None else args.prompt
        ids = np.asarray(tokenizer.encode_prompt(text), np.int64)  # (T + 1,)
        counted = np.ones(len(ids), bool)
        if len(ids) < 2:
            raise DataError(
                f"--prompt {text!r} is {len(ids)} token(s): it must be two or more, so that one follows another"
            )
    else:
        model, tokenizer, ids, counted = _encode_answer(args, asked, answer)
    if len(ids) > (most := (model.config.context_length or sys.maxsize - 1) + 1):
        print(f"The text has {len(ids)} tokens: the first {most} are taken, which fill the context.", file=sys.stderr)
        ids, counted = ids[:most], counted[:most]
    if not counted[1:].any():
        raise DataError(f"--answer {answer!r:.80}: none of it is within the context of {most - 1} tokens: ask less")
    with composed() if args.composed else nullcontext():
        loss = cross_entropy(model(ids[None, :-1]), targets=np.where(counted, ids, -100)[None, 1:])
    return TextLoss(loss, model, ids, tokenizer, counted)


def _task_of(folder: str) -> str | None:
    """What a run has learned; None for another folder."""
    from ..runs.folder import find_run, load_config

    found = find_run(folder)
    return load_config(found[0])["task"] if found else None


def _learns_from_answers(folder: str) -> bool:
    from ..tuning.one_answer import TASKS

    return _task_of(folder) in TASKS


def _open_pair(args: argparse.Namespace) -> TextLoss:
    """Of a run of translate."""
    from ..engine import composed
    from ..errors import ConfigError
    from ..tuning.one_pair import align_pairs, kept_pairs, pair_loss
    from ..tuning.translator import Translator

    if args.adapter is not None:
        raise ConfigError("--adapter is not for a run of translate: leave it out")
    if args.prompt is None and args.answer is not None:
        raise ConfigError(f"--answer is {args.answer!r:.80}: it goes with a --prompt, the source")
    translator = Translator.load(args.folder, weights.chosen(args))
    pairs = kept_pairs(args.folder) if args.prompt is None else [(args.prompt, args.answer)]
    with composed() if args.composed else nullcontext():
        loss, ids, counted = pair_loss(translator, *pairs[0])
    return TextLoss(
        loss, translator.model, ids, translator.tokenizer, counted, alignments=align_pairs(translator, pairs)
    )


def _hide_words(args: argparse.Namespace) -> TextLoss:
    """Of a run that guesses hidden words."""
    from ..engine import composed
    from ..errors import ConfigError
    from ..tuning.hidden_words import open_hidden

    if args.answer is not None:
        raise ConfigError(
            f"--answer is {args.answer!r:.60}: a model that guesses hidden words answers nothing: leave it out"
        )
    found = open_hidden(args.folder, args.prompt, weights.chosen(args), args.adapter)
    with composed() if args.composed else nullcontext():
        return TextLoss(found.loss(), tables=found.tables)


def _draw_answer(args: argparse.Namespace) -> TextLoss:
    """Of a run of ppo or grpo."""
    from ..engine import composed
    from ..errors import ConfigError
    from ..tuning.one_answer import open_answer

    for option, value in {"--answer": args.answer, "--adapter": args.adapter}.items():
        if value is not None:
            raise ConfigError(f"{option} is not for a run that learns from its own answers: leave it out")
    found = open_answer(args.folder, args.prompt, weights.chosen(args))
    print(found.said, file=sys.stderr)
    with composed() if args.composed else nullcontext():
        return TextLoss(found.loss(), found.policy, found.ids, found.tokenizer, found.counted, [found.table])


def _first_exchange(folder: str | None) -> tuple[dict[str, Any], str | None]:
    """The first question that a run of instruct was tested on, and its right answer, if RUN is one."""
    from ..runs.folder import find_run
    from ..tuning.instruct import ANSWERS_FILE

    found = find_run(folder) if folder else None
    with suppress(OSError, ValueError, LookupError, TypeError):  # then it is a text like any other
        if found:
            with (found[0] / ANSWERS_FILE).open(encoding="utf-8") as file:
                first = json.loads(file.readline(_LONGEST))
            more = {"input": first["input"]} if "input" in first else {}
            return {"content": first["question"], **more}, first["expected"]
    return {"content": None}, None


def _encode_answer(args: argparse.Namespace, asked: dict[str, Any], answer: str) -> Any:
    """Model, tokenizer, ids (T + 1,) and which of them are the answer's."""
    import numpy as np

    from ..errors import ConfigError
    from ..tuning.assistant import Assistant

    if args.folder is None or asked["content"] is None:
        raise ConfigError(f"--answer is {answer!r:.80}: it goes with a run of instruct and a --prompt, the question")
    assistant = Assistant.load(args.folder, weights.chosen(args), args.adapter)
    messages = [{"role": "user", **asked}, {"role": "assistant", "content": answer}]
    ids, is_answer = assistant.template.encode(assistant.tokenizer, messages)
    return assistant.model, assistant.tokenizer, np.array(ids), np.array(is_answer)


def _open_model(folder: str | None, checkpoint: str | None, adapter: str | None) -> tuple[Any, Tokenizer]:
    from ..errors import ConfigError
    from ..models import make_model
    from ..rng import Generator
    from ..text import BPETokenizer
    from ..weights.load import load_with_tokenizer

    if folder is not None:
        return load_with_tokenizer(folder, checkpoint, adapter)
    for option, value in {"--checkpoint": checkpoint, "--adapter": adapter}.items():
        if value is not None:
            raise ConfigError(f"{option} is for the weights of a run: name one, or leave it out")
    tokenizer = BPETokenizer([])  # no merges: every byte is a token
    sizes = {"context_length": 32, "emb_dim": 16, "n_heads": 2, "n_layers": 2, "drop_rate": 0.0}
    model = make_model("gpt", {"vocab_size": tokenizer.vocab_size, **sizes}, Generator(0))
    return model.eval(), tokenizer
