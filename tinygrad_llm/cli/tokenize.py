"""`tinygrad-llm tokenize [TEXT]`: how a tokenizer cuts a text, one colour a token and its id below."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..text import Tokenizer
    from ..text.word import SimpleTokenizerV1

HELP = "show the tokens of a text, one colour each, with their ids below"
TOKENIZERS = ("bpe", "char", "word", "gpt2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text", nargs="?", metavar="TEXT", help="the text to cut (default: what comes on standard input)"
    )
    parser.add_argument("--file", metavar="FILE", help="cut the text of this UTF-8 file")
    parser.add_argument(
        "--run", dest="folder", metavar="RUN", help="with the tokenizer of a trained run, for example runs/story"
    )
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        help="gpt2, or one learned from the bundled story: bpe, char, word (default: bpe)",
    )
    parser.add_argument("--vocab-size", type=int, metavar="INT", help="entries of the bpe tokenizer (default: 512)")
    parser.add_argument(
        "--special", action="store_true", help="take <|endoftext|> in the text for the mark between documents"
    )
    parser.add_argument("--json", action="store_true", help="print ids and tokens as JSON")


def run(args: argparse.Namespace) -> int:
    from ..text.tokenizers import END_OF_TEXT
    from ..text.view import show_tokens, visible, wants_color
    from ..text.word import SimpleTokenizerV1

    text = _text(args)
    tokenizer = _tokenizer(args)
    if isinstance(tokenizer, SimpleTokenizerV1):  # for which the mark is a word like any other
        ids = tokenizer.encode(text)
    else:
        ids = tokenizer.encode(text, allowed_special={END_OF_TEXT} if args.special else ())
    tokens = [tokenizer.tokens[i] for i in ids]
    if args.json:
        print(json.dumps({"ids": ids, "tokens": [visible(token) for token in tokens]}, ensure_ascii=False))
        return 0
    if ids:
        print(show_tokens(tokens, ids, shutil.get_terminal_size().columns, wants_color(sys.stdout)))
    size = len(text.encode())
    print(f"{len(ids):,} tokens, {len(text):,} characters, {size:,} bytes, vocabulary {tokenizer.vocab_size:,}")
    return 0


def _text(args: argparse.Namespace) -> str:
    from ..text import read_text

    if args.text is not None and args.file is not None:
        raise ConfigError("TEXT and --file together: give one of them")
    if args.file is not None:
        return read_text(args.file)
    if args.text is not None:
        return args.text
    if sys.stdin.isatty():
        raise ConfigError("no text: give TEXT, --file FILE, or a text on standard input")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: not UTF-8 at byte {error.start}") from error


def _tokenizer(args: argparse.Namespace) -> Tokenizer | SimpleTokenizerV1:
    from ..text import BPETokenizer, CharTokenizer, GPT2Tokenizer, load_tokenizer, story
    from ..text.word import SimpleTokenizerV2

    if args.folder is not None and args.tokenizer is not None:
        raise ConfigError("--run and --tokenizer together: a run has its own tokenizer")
    if args.vocab_size is not None and (args.folder is not None or args.tokenizer not in (None, "bpe")):
        raise ConfigError("--vocab-size is for the bpe tokenizer only")
    if args.folder is not None:
        return load_tokenizer(args.folder)
    if args.tokenizer == "gpt2":
        return GPT2Tokenizer()
    if args.tokenizer == "char":
        return CharTokenizer.train(story())
    if args.tokenizer == "word":
        return SimpleTokenizerV2.train(story())
    return BPETokenizer.train(story(), 512 if args.vocab_size is None else args.vocab_size)
