"""What README.md and examples/README.md print, run as they print it: `python3 .ci/as_printed.py`, from anywhere.

The README's first command makes the environment .venv, and all that follows runs there, from the root of the checkout: the blocks
of both pages in their order, then every example, which must run or say in one line what to install. The block that installs
the tests comes last. It says what a fenced block holds:

bash       a script
console    `$ command`, what is typed at the prompts that it shows (`(Pdb) c`), and of what it prints these words, in this
           order; `...` stands for others
python     a program; a block without a language after it is all that it prints
text, json nothing to run

With `no-run` behind it, a block is only parsed. Two things are made shorter: examples get `--quick`, and `pretrain` gets
`--epochs 1`.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "examples/README.md")
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"\((?:Pdb|step)\) ")
_TYPED = re.compile(r"^\((?:Pdb|step)\) (.*)$", re.MULTILINE)
_MINUTES = 60


class Block(NamedTuple):
    """One fenced block: where it begins, its words (`bash`, `no-run`), and what stands in it."""

    place: str
    words: list[str]
    body: str


class NotAsPrinted(Exception):
    """A block that does not do what the page says."""


def blocks(page: str, text: str) -> list[Block]:
    return [Block(f"{page}:{text.count(chr(10), 0, m.start()) + 1}", m[1].split(), m[2]) for m in _FENCE.finditer(text)]


def run_page(page: list[Block]) -> None:
    for i, block in enumerate(page):
        print(f"-- {block.place}", flush=True)
        language, *how = block.words or ["text"]
        run = not how
        if how not in ([], ["no-run"]) or language not in ("bash", "console", "python", "json", "text"):
            raise NotAsPrinted(f"{block.place}: {' '.join(block.words)!r} is nothing that {__file__} knows")
        if language == "bash":
            options = "-euo pipefail -c" if run else "-n -c"
            if code := _process(["bash", *options.split(), shortened(block.body)], capture_output=False).returncode:
                raise NotAsPrinted(f"{block.place}: exit code {code}")
        elif language == "console" and run:
            run_console(block)
        elif language == "python":
            ast.parse(block.body, block.place)
            printed = _printed(["python", "-c", block.body], block.place) if run else ""
            following = page[i + 1] if i + 1 < len(page) else block
            if run and not following.words and printed != following.body:
                raise NotAsPrinted(f"{following.place}: printed is\n{printed}")
        elif language == "json":
            json.loads(block.body)


def run_console(block: Block) -> None:
    """Run the command of the first line; type what follows a prompt, and look for all other lines in what is printed."""
    first, _, rest = block.body.partition("\n")
    typed = "".join(line + "\n" for line in _TYPED.findall(rest))
    command = ["bash", "-euo", "pipefail", "-c", shortened(first.removeprefix("$ "))]
    printed = " ".join(_PROMPT.sub("", _printed(command, block.place, typed)).split())
    position = 0
    for lines in re.split(r"^\.\.\.$", _TYPED.sub("...", rest), flags=re.MULTILINE):
        words = " ".join(lines.split())  # however long the lines are
        found = printed.find(words, position)
        if found < 0 or "*** " in printed:  # what pdb says of a line that it does not understand
            raise NotAsPrinted(f"{block.place}: {words!r} does not come, or pdb complains; printed is\n{printed}")
        position = found + len(words)


def run_examples() -> None:
    """Each does what it is there for, or ends with one line that names what to install."""
    for path in sorted((ROOT / "examples").glob("[0-9]*.py")):
        example = path.relative_to(ROOT)
        print(f"-- {example}", flush=True)
        done = _process(["python", str(example), "--quick"])
        said = done.stderr.strip()
        if done.returncode and ("\n" in said or "pip install" not in said):
            raise NotAsPrinted(f"{example}: exit code {done.returncode}\n{done.stdout}{said}")
        if done.returncode:
            print(f"   {said}")


def shortened(command: str) -> str:
    command = re.sub(r"(\bexamples/\w+\.py\b)", r"\1 --quick", command)
    return re.sub(r"(\btinygrad-llm pretrain\b)", r"\1 --epochs 1", command)


def _printed(command: list[str], place: str, typed: str = "") -> str:
    done = _process(command, input=typed)
    if done.returncode:
        raise NotAsPrinted(f"{place}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _process(command: list[str], capture_output: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run as somebody does who has entered .venv: its programs come first, and nothing of another environment is there."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    environment["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    common = {"cwd": ROOT, "env": environment, "timeout": 60 * _MINUTES}
    return subprocess.run(command, capture_output=capture_output, text=True, **common, **options)


def main() -> int:
    readme, examples = (blocks(page, (ROOT / page).read_text(encoding="utf-8")) for page in PAGES)
    tests = [block for block in readme if "pytest" in block.body]
    try:
        run_page([block for block in readme if block not in tests])
        run_page(examples)
        run_examples()
        run_page(tests)
    except (NotAsPrinted, SyntaxError, ValueError, subprocess.TimeoutExpired) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
