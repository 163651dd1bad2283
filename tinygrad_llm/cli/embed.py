"""`tinygrad-llm embed RUN FILE`: vectors of texts, and which texts are nearest to another one."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from . import weights

if TYPE_CHECKING:
    import numpy as np

    from ..tuning.encoder import Encoder

HELP = "turn texts into vectors, by a BERT, and find the nearest ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="RUN", help="folder of a run of pretrain --architecture bert, or a BERT of transformers"
    )
    parser.add_argument("file", metavar="FILE", help="a text a line, in UTF-8")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="where the vectors go, for numpy.load: float32, a row for each line (default: nowhere)",
    )
    parser.add_argument("--query", metavar="TEXT", help="a text whose nearest lines are to be found (default: none)")
    parser.add_argument("--top", type=int, default=5, metavar="INT", help="how many lines are nearest (default: 5)")
    weights.add_argument(parser, default="last")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def run(args: argparse.Namespace) -> int:
    import io
    from pathlib import Path

    import numpy as np

    from ..checks import check_integer
    from ..debug.report import check_path
    from ..errors import ConfigError, DataError
    from ..files import replace_file
    from ..text import read_text
    from ..tuning.encoder import Encoder, nearest
    from .terminal import printable

    if args.out is None and args.query is None:
        raise ConfigError("say where the vectors go with --out FILE, or what to look for with --query TEXT")
    check_integer("--top", args.top)
    out = None if args.out is None else check_path(args.out)
    texts = read_text(args.file).splitlines()
    if not texts:
        raise DataError(f"{args.file}: no text there: give one a line")
    encoder = Encoder.load(args.folder, args.checkpoint, args.adapter)
    try:
        rows, n_cut = encoder.rows(texts)
    except DataError as error:
        raise DataError(f"{args.file}: {error}") from None
    if n_cut:
        most = encoder.model.config.context_length - 2
        print(f"{n_cut:,} of {len(rows):,} texts are longer than {most} tokens: cut off there.", file=sys.stderr)
    query = None if args.query is None else _embed_query(encoder, args.query)
    vectors = encoder.embed_rows(rows)  # (N, C)
    about = {"texts": len(vectors), "width": vectors.shape[1], "out": args.out, "cut": n_cut}
    if out is not None:
        buffer = io.BytesIO()
        np.save(buffer, vectors, allow_pickle=False)
        replace_file(Path(out), [buffer.getvalue()])
    found = [] if query is None else nearest(vectors, query, args.top)
    if args.json:
        lines = [{"line": i + 1, "text": texts[i], "cosine": cosine} for i, cosine in found]
        print(
            json.dumps(about | ({} if query is None else {"query": args.query, "nearest": lines}), ensure_ascii=False)
        )
        return 0
    if out is not None:
        print(f"{len(vectors):,} vectors of {vectors.shape[1]} numbers are in {args.out}.")
    for i, cosine in found:
        print(f"{cosine:7.4f}  line {i + 1}: {printable(texts[i])}")
    return 0


def _embed_query(encoder: Encoder, text: str) -> np.ndarray:
    from ..errors import DataError

    try:
        return encoder.embed([text])[0]  # (C,)
    except DataError:
        raise DataError(f"--query {text!r:.60}: no token there: give a text") from None
