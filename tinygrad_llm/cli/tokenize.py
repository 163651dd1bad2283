"""`tinygrad-llm tokenize [TEXT]`: how a tokenizer cuts a text, one colour a token and its id below.

`--explain` shows each merge, `--compare` several tokenizers side by side, `--train` makes one of files of yours.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DataError, TokenizerError

if TYPE_CHECKING:
    from ..text import BPETokenizer, Tokenizer
    from ..text.byte_level import MergeStep

HELP = "show the tokens of a text, one colour each, with their ids below; or train and compare tokenizers"
TOKENIZERS = ("bpe", "char", "word", "wordpiece", "gpt2")
_LEARNED = (None, "bpe", "wordpiece")  # those of a chosen size, None for bpe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "text", nargs="?", metavar="TEXT", help="the text to cut (default: what comes on standard input)"
    )
    parser.add_argument("--file", "--text", dest="file", metavar="FILE", help="cut the text of this UTF-8 file")
    parser.add_argument(
        "--run",
        dest="folder",
        metavar="RUN",
        help="with the tokenizer of a trained run, for example runs/story, or of a folder or file of published weights",
    )
    parser.add_argument(
        "--tokenizer",
        choices=TOKENIZERS,
        help="gpt2, or one learned from the bundled story: bpe, char, word, wordpiece (default: bpe)",
    )
    parser.add_argument(
        "--vocab-size", type=int, metavar="INT", help="entries of the bpe or wordpiece tokenizer (default: 512)"
    )
    parser.add_argument(
        "--pattern",
        metavar="REGEX",
        help="of the bpe tokenizer: gpt2, gpt4, or a regular expression of your own, that cuts text into the pieces within which "
        "it is merged (default: gpt2)",
    )
    parser.add_argument(
        "--special",
        action="store_true",
        help="take special tokens in the text, such as <|endoftext|>, for what they are",
    )
    parser.add_argument(
        "--add-special",
        action="append",
        default=[],
        metavar="MARK",
        help="give the tokenizer one more special token, such as '<|user|>'; may be given several times",
    )
    parser.add_argument(
        "--explain", action="store_true", help="show how each piece of the text becomes tokens, one merge at a time"
    )
    parser.add_argument(
        "--compare",
        metavar="NAMES",
        help="bytes per token of several tokenizers on the text: gpt2, runs, and folders with a tokenizer, separated by commas",
    )
    parser.add_argument(
        "--train",
        nargs="+",
        metavar="FILE",
        help="learn a bpe tokenizer, or with --tokenizer wordpiece one of these, from these UTF-8 files, for --out",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="store the tokenizer there, for --run, --compare, or `tinygrad-llm pretrain --tokenizer FOLDER`",
    )
    parser.add_argument("--json", action="store_true", help="print ids and tokens, or what else there is, as JSON")


def run(args: argparse.Namespace) -> int:
    from ..text.byte_level import BPETokenizer
    from ..text.view import show_tokens, visible, wants_color

    _check(args)
    if args.out is not None:
        return _store(args)
    if args.compare is not None:
        return _compare(args)
    text = _text(args)
    tokenizer = _tokenizer(args)
    if args.explain:
        if not isinstance(tokenizer, BPETokenizer):
            raise ConfigError("--explain shows merges: take a tokenizer that has them, bpe or gpt2")
        return _explain(tokenizer, text, args.json)
    ids = tokenizer.encode(text, tokenizer.special if args.special else ())
    tokens = [tokenizer.tokens[i] for i in ids]
    if args.json:
        print(json.dumps({"ids": ids, "tokens": [visible(token) for token in tokens]}, ensure_ascii=False))
        return 0
    if ids:
        print(show_tokens(tokens, ids, shutil.get_terminal_size().columns, wants_color(sys.stdout)))
    size = len(text.encode())
    print(f"{len(ids):,} tokens, {len(text):,} characters, {size:,} bytes, vocabulary {tokenizer.vocab_size:,}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """ConfigError for options that do not go together."""
    if args.train is not None and args.out is None:
        raise ConfigError("--train makes a tokenizer: say where to store it with --out FOLDER")
    if args.train is not None and (args.folder is not None or args.tokenizer not in _LEARNED):
        raise ConfigError("--train learns a bpe or wordpiece tokenizer: leave out --run and any other --tokenizer")
    if args.pattern is not None and (args.folder is not None or args.tokenizer not in (None, "bpe")):
        raise ConfigError("--pattern is for the bpe tokenizer only")
    if args.out is not None and (
        args.text is not None or args.file is not None or args.explain or args.compare is not None
    ):
        raise ConfigError("--out stores a tokenizer: leave out the text, --explain and --compare")
    if args.explain and (args.special or args.compare is not None):
        raise ConfigError("--explain is about the text between special tokens: leave out --special and --compare")
    own = (
        args.folder is not None or args.tokenizer is not None or args.vocab_size is not None or args.pattern is not None
    )
    if args.compare is not None and (own or args.add_special):
        raise ConfigError("--compare names its tokenizers: leave out what makes another one")


def _store(args: argparse.Namespace) -> int:
    from ..files import check_writable
    from ..text.byte_level import BPETokenizer
    from ..text.tokenizers import TOKENIZER_FILE

    folder = Path(args.out)
    if (folder / TOKENIZER_FILE).exists():
        raise ConfigError(f"{folder} has a tokenizer already, whose ids may be in use: choose another folder")
    check_writable(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    about: dict[str, Any] = {"folder": str(folder)}
    tokenizer = _tokenizer(args) if args.train is None else _train(args, about)
    tokenizer.save(folder)
    about |= {"vocab_size": tokenizer.vocab_size, "special": tokenizer.special}
    if isinstance(tokenizer, BPETokenizer):
        about["merges"] = len(tokenizer.merges)
    if args.json:
        print(json.dumps(about))
        return 0
    if args.train is not None:
        read = f"{about['files']:,} files, {about['documents']:,} documents, {about['bytes']:,} bytes"
        what = f"{about['merges']:,} merges" if "merges" in about else f"{tokenizer.vocab_size:,} pieces"
        print(f"Learned {what} from {read}.")
        if tokenizer.vocab_size < (args.vocab_size or 512):
            print(
                f"No more pairs occur twice: the vocabulary is {tokenizer.vocab_size:,}, not {args.vocab_size or 512:,}."
            )
    marks = ", ".join(f"{mark} {i}" for mark, i in tokenizer.special.items())
    print(f"In {folder / TOKENIZER_FILE}: vocabulary {tokenizer.vocab_size:,}, special tokens {marks}.")
    return 0


def _train(args: argparse.Namespace, about: dict[str, Any]) -> Tokenizer:
    """The tokenizer learned from the files, one after the other; `about` is told what they hold."""
    from ..checks import check_integer
    from ..text import END_OF_TEXT, BPETokenizer, WordPieceTokenizer, read_text
    from ..text.corpus import split_at

    about |= {"files": len(args.train), "documents": 0, "bytes": 0}

    def texts() -> Iterator[str]:
        for file in args.train:
            text = read_text(file)
            about["bytes"] += len(text.encode())
            for document in split_at([text], [END_OF_TEXT, *args.add_special]):
                about["documents"] += bool(document.strip())
                yield document

    n = len(args.add_special)
    if args.tokenizer == "wordpiece":
        vocab_size = 512 if args.vocab_size is None else args.vocab_size
        return WordPieceTokenizer.train(texts(), vocab_size - n).add_special(args.add_special)
    what = "vocab_size (256 bytes, special tokens and merges)"
    vocab_size = check_integer(what, 512 if args.vocab_size is None else args.vocab_size, least=257 + n)
    return BPETokenizer.train(texts(), vocab_size - n, _pattern(args)).add_special(args.add_special)


def _compare(args: argparse.Namespace) -> int:
    """How many bytes of one text each tokenizer puts into a token."""
    from ..text import GPT2Tokenizer
    from ..weights.tokenizer_files import read_tokenizer

    tokenizers: dict[str, Tokenizer] = {}
    for name in args.compare.split(","):
        tokenizer = GPT2Tokenizer() if name == "gpt2" else read_tokenizer(Path(name)) if name else None
        if tokenizer is None:
            raise ConfigError(f"--compare: {name!r}: neither gpt2 nor a folder with a tokenizer")
        tokenizers[name] = tokenizer
    text = _text(args)
    size = len(text.encode())
    if not text:
        raise DataError("--compare: the text is empty")
    rows: list[dict[str, Any]] = []
    for name, tokenizer in tokenizers.items():
        row: dict[str, Any] = {"tokenizer": name, "kind": tokenizer.name, "vocab_size": tokenizer.vocab_size}
        try:
            ids = tokenizer.encode(text, tokenizer.special if args.special else ())
            row |= {"tokens": len(ids), "bytes_per_token": size / len(ids), "different": len(set(ids))}
        except TokenizerError as error:  # a character that it does not know
            row |= {"tokens": None, "bytes_per_token": None, "different": None, "error": str(error)}
        rows.append(row)
    if args.json:
        print(json.dumps({"characters": len(text), "bytes": size, "tokenizers": rows}))
        return 0
    width = max(9, *map(len, tokenizers))
    print(f"{'tokenizer':<{width}}  vocabulary     tokens  bytes per token  different tokens")
    for row in rows:
        line = f"{row['tokenizer']:<{width}}  {row['vocab_size']:>10,}"
        if row["tokens"] is None:
            print(f"{line}  {row['error']}")
        else:
            print(f"{line} {row['tokens']:>10,} {row['bytes_per_token']:>16.2f} {row['different']:>17,}")
    print(f"on {len(text):,} characters, {size:,} bytes")
    return 0


def _explain(tokenizer: BPETokenizer, text: str, as_json: bool) -> int:
    """Each merge of each piece; after the last piece, the ids that they come to."""
    from ..text.view import visible

    def tokens(step: MergeStep) -> list[str]:
        return [visible(tokenizer.tokens[i]) for i in step.ids]

    steps = list(tokenizer.explain_merges(text)) if as_json else tokenizer.explain_merges(text)
    rows: list[dict[str, Any]] = []
    ids: list[int] = []
    piece: list[int] = []
    for step in steps:
        if step.pair is None:
            ids += piece
            pair = None
        else:
            pair = [visible(tokenizer.tokens[i]) for i in step.pair]
        piece = step.ids
        if as_json:
            rows.append({"piece": step.piece, "rank": step.rank, "pair": pair, "tokens": tokens(step), "ids": step.ids})
        elif pair is None:
            print(f"{visible(step.piece)!r}\n  {'|'.join(tokens(step))}")
        else:
            print(f"  {'|'.join(tokens(step))}   merge {step.rank:,}: {pair[0]} + {pair[1]}")
    ids += piece
    print(json.dumps({"ids": ids, "merges": rows}, ensure_ascii=False) if as_json else f"ids {' '.join(map(str, ids))}")
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


def _tokenizer(args: argparse.Namespace) -> Tokenizer:
    from ..text import (
        BPETokenizer,
        CharTokenizer,
        GPT2Tokenizer,
        WordPieceTokenizer,
        WordTokenizer,
        load_tokenizer,
        story,
    )
    from ..weights.tokenizer_files import read_tokenizer

    if args.folder is not None and args.tokenizer is not None:
        raise ConfigError("--run and --tokenizer together: a run has its own tokenizer")
    if args.vocab_size is not None and (args.folder is not None or args.tokenizer not in _LEARNED):
        raise ConfigError("--vocab-size is for the bpe and wordpiece tokenizers only")
    vocab_size = 512 if args.vocab_size is None else args.vocab_size
    tokenizer: Tokenizer
    if args.folder is not None:
        path = Path(args.folder)
        folder = path.parent if path.is_file() else path
        tokenizer = read_tokenizer(folder) or load_tokenizer(folder)  # which says what is missing
    elif args.tokenizer == "gpt2":
        tokenizer = GPT2Tokenizer()
    elif args.tokenizer == "char":
        tokenizer = CharTokenizer.train(story())
    elif args.tokenizer == "word":
        tokenizer = WordTokenizer.train(story())
    elif args.tokenizer == "wordpiece":
        tokenizer = WordPieceTokenizer.train(story(), vocab_size)
    else:
        tokenizer = BPETokenizer.train(story(), vocab_size, _pattern(args))
    return tokenizer.add_special(args.add_special)


def _pattern(args: argparse.Namespace) -> str:
    from ..text.bpe import GPT4_SPLIT_PATTERN, SPLIT_PATTERN

    pattern = "gpt2" if args.pattern is None else args.pattern
    return {"gpt2": SPLIT_PATTERN, "gpt4": GPT4_SPLIT_PATTERN}.get(pattern, pattern)
