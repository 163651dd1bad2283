"""The loss of a text, for the commands that look into its backward: of a trained run, or of a tiny GPT."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from . import weights

if TYPE_CHECKING:
    import numpy as np

    from ..engine import Tensor
    from ..models import LanguageModel
    from ..text import Tokenizer

_PROMPT = "Every effort moves you"


class TextLoss(NamedTuple):
    """The mean cross-entropy of all tokens of a text but the first, and what it was made with."""

    loss: Tensor
    model: LanguageModel
    ids: np.ndarray  # (T + 1,)
    tokenizer: Tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="?", metavar="RUN", help="folder of a trained run (default: a tiny GPT with random weights)"
    )
    weights.add_argument(parser)
    parser.add_argument(
        "--prompt", metavar="TEXT", help=f"the text whose loss is differentiated (default: {_PROMPT!r})"
    )
    parser.add_argument(
        "--composed", action="store_true", help="take the fused ops apart: softmax becomes exp, sum and divide"
    )


def open_text(args: argparse.Namespace) -> TextLoss:
    """The loss of `--prompt` under the model of RUN. A text longer than the context is cut, which stderr is told."""
    import numpy as np

    from ..engine import composed
    from ..errors import DataError
    from ..ops import cross_entropy

    model, tokenizer = _open_model(args.folder, weights.chosen(args), args.adapter)
    text = _PROMPT if args.prompt is None else args.prompt
    ids = np.asarray(tokenizer.encode_prompt(text), np.int64)  # (T + 1,)
    if len(ids) < 2:
        raise DataError(
            f"--prompt {text!r} is {len(ids)} token(s): it must be two or more, so that one follows another"
        )
    if len(ids) > (most := (model.config.context_length or sys.maxsize - 1) + 1):
        print(f"The text has {len(ids)} tokens: the first {most} are taken, which fill the context.", file=sys.stderr)
        ids = ids[:most]
    with composed() if args.composed else nullcontext():
        loss = cross_entropy(model(ids[None, :-1]), targets=ids[None, 1:])
    return TextLoss(loss, model, ids, tokenizer)


def _open_model(folder: str | None, checkpoint: str | None, adapter: str | None) -> tuple[LanguageModel, Tokenizer]:
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
