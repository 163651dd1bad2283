"""The commands of the pages are run as printed (.ci/as_printed.py), and what is not as printed is noticed."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def runner(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("as_printed", ROOT / ".ci" / "as_printed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return module


GOOD = {
    "a script": "```bash\ntest -d .venv\necho here\n```",
    "a script that is only parsed": "```bash no-run\nfalse\n```",
    "a program and its output": "```python\nprint(1 + 1)\n```\n\nwhich is\n\n```\n2\n```",
    "a session": "```console\n$ python -m pdb program.py\n(Pdb) n\n...\n(Pdb) p x + 1\n4\n(Pdb) q\n```",
    "long lines": "```console\n$ echo a long line\na long\n    line\n```",
    "data": '```json\n{"a": 1}\n```',
}
BAD = {
    "a script": "```bash\nfalse\ntrue\n```",
    "a script that is only parsed": "```bash no-run\nif\n```",
    "a program": "```python\n1 / 0\n```",
    "another output": "```python\nprint(1 + 1)\n```\n```\n3\n```",
    "another order": "```console\n$ printf 'a\\nb\\n'\nb\na\n```",
    "a session": "```console\n$ python -m pdb program.py\n(Pdb) b y.backward\n(Pdb) q\n```",
    "data": "```json\n{a: 1}\n```",
    "another language": "```pycon\n>>> 1\n```",
    "a word too many": "```bash maybe\ntrue\n```",
}


@pytest.mark.parametrize("page", GOOD.values(), ids=GOOD)
def test_what_is_as_printed_passes(runner, tmp_path, page):
    (tmp_path / "program.py").write_text("x = 3\nx = 4\n")
    runner.run_page(runner.blocks("page", page))


@pytest.mark.parametrize("page", BAD.values(), ids=BAD)
def test_what_is_not_as_printed_fails(runner, tmp_path, page):
    (tmp_path / "program.py").write_text("x = 3\nx = 4\n")
    with pytest.raises((runner.NotAsPrinted, ValueError)):
        runner.run_page(runner.blocks("page", page))


def test_an_example_runs_or_says_what_to_install(runner, tmp_path):
    (tmp_path / "examples").mkdir()
    example = tmp_path / "examples" / "00_one.py"
    for good in ("import sys; assert sys.argv[1:] == ['--quick']", "import sys; sys.exit('one: pip install two')"):
        example.write_text(good)
        runner.run_examples()
    for bad in ("import none", "import sys; sys.exit('install it')"):
        example.write_text(bad)
        with pytest.raises(runner.NotAsPrinted):
            runner.run_examples()


def test_long_commands_are_made_shorter(runner):
    assert runner.shortened("python -m pdb examples/00_a.py") == "python -m pdb examples/00_a.py --quick"
    assert (
        runner.shortened(".venv/bin/tinygrad-llm pretrain a.txt") == ".venv/bin/tinygrad-llm pretrain --epochs 1 a.txt"
    )
    assert runner.shortened("tinygrad-llm report pretrain") == "tinygrad-llm report pretrain"


@pytest.mark.parametrize("name", ["README.md", "examples/README.md", "CONTRIBUTING.md"])
def test_every_block_of_our_pages_can_be_parsed(runner, name):
    found = runner.blocks(name, (ROOT / name).read_text())
    assert found
    runner.run_page([block._replace(words=[*block.words[:1], "no-run"]) if block.words else block for block in found])


def test_the_readme_has_one_command_to_run_it_and_one_to_test_it(runner):
    parts = (ROOT / "README.md").read_text().split("\n## ")
    for title, program in (("Run it", "/tinygrad-llm pretrain"), ("Test it", "/python -m pytest")):
        (part,) = [part for part in parts if part.startswith(f"{title}\n")]
        (block,) = runner.blocks(title, part)
        assert block.words == ["bash"]
        assert block.body.count("\n") == 1
        assert block.body.startswith("python3 -m venv .venv && ")
        assert program in block.body
