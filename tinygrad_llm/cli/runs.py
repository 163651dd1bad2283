"""`tinygrad-llm runs [FOLDER ...]`: runs beside each other."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from ..runs.records import RunRecord

HELP = "list runs beside each other: size, steps, losses, and the options that differ"
SORTS = ("name", "best", "last", "size", "tokens", "time")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", default=["runs"], metavar="FOLDER", help="runs, or folders that hold runs (default: runs)"
    )
    parser.add_argument(
        "--sort",
        choices=SORTS,
        default="name",
        help="name, best (lowest validation loss), last (validation loss), size, tokens, time (newest first; default: name)",
    )
    parser.add_argument("--plot", metavar="FILE.png", help="draw the curves of all of them into one picture")
    parser.add_argument("--json", action="store_true", help="print the runs as JSON")


def run(args: argparse.Namespace) -> int:
    from ..runs.plots import plot_runs
    from ..runs.records import differing_options, find_runs, read_run

    records, problems = [], []
    for folder in find_runs(args.folders):
        try:
            records.append(read_run(folder))
        except CheckpointError as error:
            problems.append(str(error))
    records.sort(key=lambda record: _key(record, args.sort))
    if args.json:
        print(json.dumps({"runs": [record.summary() for record in records], "problems": problems}))
    else:
        if records:
            print(_table(records, differing_options(records)))
        elif not problems:
            print(f"No runs in {', '.join(args.folders)}: tinygrad-llm pretrain makes one.")
        for problem in problems:
            print(problem)
    if args.plot is not None:
        if not any(record.rows for record in records):
            raise ConfigError(f"--plot {args.plot}: there is no evaluation to draw")
        if not plot_runs(args.plot, {record.name: record.rows for record in records if record.rows}):
            raise ConfigError("--plot: matplotlib is not there: pip install matplotlib, or the extra [plot]")
        print(f"Drawn: {args.plot}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _key(record: RunRecord, sort: str) -> tuple:
    value = {
        "name": 0,
        "best": record.best_val_loss,
        "last": record.val_loss,
        "size": record.n_parameters,
        "tokens": record.tokens,
        "time": record.seconds_ago,
    }[sort]
    return value is None, value or 0, record.name


def _table(records: list[RunRecord], differing: list[str]) -> str:
    """One line a run, and after it, indented, the options by which it differs from the others."""
    rows = [("run", "parameters", "steps", "tokens", "lowest val", "last val", "state")]
    for record in records:
        steps = f"{record.step:,}" + ("" if record.total_steps is None else f" of {record.total_steps:,}")
        best = "-" if record.best_val_loss is None else f"{record.best_val_loss:.3f} at {record.best_step:,}"
        last = "-" if record.val_loss is None else f"{record.val_loss:.3f}"
        state = record.state if record.state == "finished" else f"{record.state}, {_ago(record.seconds_ago)}"
        rows.append((record.name, f"{record.n_parameters:,}", steps, f"{record.tokens:,}", best, last, state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for i, (name, *numbers, state) in enumerate(rows):
        cells = [name.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:-1], strict=True)), state]
        lines.append("  ".join(cells).rstrip())
        if i and differing:
            options = records[i - 1].options
            lines.append("    " + ", ".join(f"{name} {_brief(options[name])}" for name in differing if name in options))
    return "\n".join(lines)


def _brief(value: object) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text or "-"
    return text if len(text) <= 40 else text[:37] + "..."


def _ago(seconds: float) -> str:
    for unit, size in {"days": 86400, "hours": 3600, "min": 60}.items():
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
