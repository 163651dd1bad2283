"""`tinygrad-llm doctor [RUN]`: is the installation sound, and is a run as it should be?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "look after an installation or a run: versions, gradients, learning, checkpoints, its curve"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{HELP}. Each check says ok; look, which may be as it should; or wrong, and then what to do. It trains models that are "
        "thrown away, and changes nothing. Exit code: 0, or 1 if something is wrong."
    )
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="RUN",
        help="folder of a run, finished or under way (default: the installation alone)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON when all are there")


def run(args: argparse.Namespace) -> int:
    from ..doctor.doctor import examine
    from ..runs.curve import LOOK, OK, WRONG

    def announce(check: str) -> None:
        if not args.json:
            print(f"{check:18} ", end="", flush=True)

    findings = []
    for found in examine(args.folder, announce):
        findings.append(found)
        if not args.json:
            print(found, flush=True)
    verdicts = [found.verdict for found in findings]
    worst = next((verdict for verdict in (WRONG, LOOK) if verdict in verdicts), OK)
    if args.json:
        print(json.dumps({"verdict": worst, "findings": [asdict(found) for found in findings]}))
    return 1 if worst == WRONG else 0
