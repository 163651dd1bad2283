"""`tinygrad-llm tokenize`: training, comparing and explaining tokenizers. How it shows tokens is in tests/text/test_view.py."""

import json
from pathlib import Path

import pytest
from reference import store

from tinygrad_llm.cli import main
from tinygrad_llm.text import BPETokenizer, CharTokenizer, GPT2Tokenizer, WordPieceTokenizer, load_tokenizer, story
from tinygrad_llm.text.bpe import GPT4_SPLIT_PATTERN
from tinygrad_llm.weights.tokenizer_files import write_tokenizer

MARK, USER = "<|endoftext|>", "<|user|>"
SIZES = "--context-length 16 --emb-dim 8 --n-heads 2 --n-layers 1 --epochs 1 --sample-tokens 2 --stride 0"


@pytest.fixture
def files(tmp_path):
    """The story with an end after each paragraph, in two files."""
    paragraphs = story().split("\n\n")
    middle = len(paragraphs) // 2
    for name, part in {"a.txt": paragraphs[:middle], "b.txt": paragraphs[middle:]}.items():
        (tmp_path / name).write_text(MARK.join(part), encoding="utf-8")
    return [str(tmp_path / name) for name in ("a.txt", "b.txt")]


def told(capsys, *argv):
    assert main(["tokenize", *map(str, argv)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys, *argv):
    capsys.readouterr()
    assert main(["tokenize", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


# ---- --train


def test_a_tokenizer_is_learned_from_files(capsys, files, tmp_path):
    folder = tmp_path / "new" / "tokenizer"
    argv = [
        "--train",
        *files,
        "--vocab-size",
        400,
        "--pattern",
        "gpt4",
        "--add-special",
        USER,
        "--out",
        folder,
        "--json",
    ]
    about = json.loads(told(capsys, *argv))
    paragraphs = story().split("\n\n")
    assert about == {
        "folder": str(folder),
        "files": 2,
        "documents": len(paragraphs),
        "bytes": len(story().encode()) - 2 * (len(paragraphs) - 1) + len(MARK) * (len(paragraphs) - 2),
        "vocab_size": 400,
        "special": {MARK: 398, USER: 399},
        "merges": 142,
    }
    tokenizer = load_tokenizer(folder)
    assert tokenizer.merges == BPETokenizer.train(paragraphs, 399, GPT4_SPLIT_PATTERN).merges
    assert (tokenizer.pattern, tokenizer.special) == (GPT4_SPLIT_PATTERN, about["special"])
    out = told(capsys, f"a{USER}", "--run", folder, "--special", "--json")
    assert json.loads(out)["ids"] == [97, 399]


def test_what_was_learned_is_said(capsys, files, tmp_path):
    out = told(capsys, "--train", *files, "--vocab-size", 300, "--out", tmp_path / "one")
    assert "Learned 43 merges from 2 files" in out
    assert f"vocabulary 300, special tokens {MARK} 299." in out
    (tmp_path / "short.txt").write_text("ab ab")
    out = told(capsys, "--train", tmp_path / "short.txt", "--out", tmp_path / "two")
    assert "No more pairs occur twice: the vocabulary is 258, not 512." in out


def test_special_tokens_are_added_to_a_tokenizer_that_exists(capsys, tmp_path):
    old = CharTokenizer.train(story())
    old.save(tmp_path / "old")
    told(capsys, "--run", tmp_path / "old", "--add-special", USER, "--add-special", "<|x|>", "--out", tmp_path / "new")
    assert load_tokenizer(tmp_path / "new").tokens == old.add_special([USER, "<|x|>"]).tokens
    assert load_tokenizer(tmp_path / "old").tokens == old.tokens


def test_pretraining_takes_the_folder(capsys, files, tmp_path):
    told(capsys, "--train", *files, "--vocab-size", 300, "--out", tmp_path / "tokenizer")
    argv = ["pretrain", files[0], "--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "run")]
    assert main([*argv, *SIZES.split()]) == 0
    out = capsys.readouterr().out
    assert load_tokenizer(tmp_path / "run").tokens == load_tokenizer(tmp_path / "tokenizer").tokens
    assert f"{MARK} stands in the text " in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--train FILE", "--train makes a tokenizer: say where to store it with --out FOLDER"),
        ("--train FILE --out NEW --run OLD", "--train learns a bpe or wordpiece tokenizer"),
        ("--train FILE --out NEW --tokenizer char", "--train learns a bpe or wordpiece tokenizer"),
        ("--train nowhere.txt --out NEW", "nowhere.txt: cannot be read"),
        ("--train FILE nowhere.txt --out NEW", "nowhere.txt: cannot be read"),
        ("--train FILE --out OLD", "has a tokenizer already"),
        ("--train FILE --out FILE", "FILE"),
        ("--train FILE --out NEW --vocab-size 256", "is 256: it must be an integer, 257 or more"),
        (
            "--train FILE --out NEW --vocab-size 258 --add-special x --add-special y",
            "is 258: it must be an integer, 259 or more",
        ),
        ("--train FILE --out NEW --pattern (", "not a regular expression"),
        ("--train FILE --out NEW --add-special <|endoftext|>", "is a special token already"),
        ("--train FILE --out NEW --explain", "--out stores a tokenizer"),
        ("text --out NEW", "--out stores a tokenizer"),
        ("--run OLD --pattern gpt4 text", "--pattern is for the bpe tokenizer only"),
        ("--train FILE --out NEW --tokenizer wordpiece --pattern gpt4", "--pattern is for the bpe tokenizer only"),
        ("--train FILE --out NEW --tokenizer wordpiece --vocab-size 5", "characters and pieces) is 5"),
        ("--run OLD --add-special b text", "'b' is a token of text"),
        ("--explain --tokenizer char text", "--explain shows merges"),
        ("--explain --special text", "--explain is about the text between"),
        ("--compare gpt2,nowhere text", "'nowhere': neither gpt2 nor a folder with a tokenizer"),
        ("--compare gpt2, text", "'': neither gpt2"),
        ("--compare gpt2 --run OLD text", "--compare names its tokenizers"),
        ("--compare gpt2 --text nowhere.txt", "nowhere.txt: cannot be read"),
        ("--compare gpt2 EMPTY", "the text is empty"),
    ],
)
def test_bad_use_is_one_line_and_leaves_nothing(capsys, tmp_path, argv, message):
    (tmp_path / "FILE").write_text("the cat sat on the mat")
    CharTokenizer.train("ab").save(tmp_path / "OLD")
    before = sorted(tmp_path.rglob("*"))
    words = [{"EMPTY": ""}.get(w, str(tmp_path / w) if w in ("FILE", "NEW", "OLD") else w) for w in argv.split()]
    assert message in refused(capsys, *words)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_with_published_weights(capsys, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(store.path("sentencepiece").with_suffix(".model").read_bytes())
    told_of = json.loads(told(capsys, "--run", tmp_path, "--special", "--json", "<s>the lid"))
    assert told_of == {"ids": [1, 262, 287, 295], "tokens": ["<s>", "·the", "·l", "id"]}
    (tmp_path / "model.bin").touch()
    assert told(capsys, "--run", tmp_path / "model.bin", "the lid") == told(capsys, "--run", tmp_path, "the lid")
    assert "tokenizer.txt: not there" in refused(capsys, "--run", tmp_path / "elsewhere", "text")


def test_wordpiece_of_the_story_and_of_files(capsys, files, tmp_path):
    told_of = json.loads(told(capsys, "--tokenizer", "wordpiece", "--json", "The Lid [MASK]"))
    tokenizer = WordPieceTokenizer.train(story(), 512)
    assert told_of["ids"] == tokenizer.encode("the lid [mask]")
    assert told_of["tokens"][:3] == ["·the", "·li", "d"]
    argv = ["--train", *files, "--tokenizer", "wordpiece", "--vocab-size", 300, "--add-special", USER]
    said = told(capsys, *argv, "--out", tmp_path / "a")
    assert said.startswith("Learned 300 pieces from 2 files, ")
    learned = load_tokenizer(tmp_path / "a")
    assert learned.pieces == WordPieceTokenizer.train(story(), 299).pieces
    assert learned.special == dict(zip(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], range(5), strict=True)) | {
        USER: 299
    }
    assert json.loads(told(capsys, *argv, "--json", "--out", tmp_path / "b"))["vocab_size"] == 300
    (tmp_path / "vocab.txt").write_text("[UNK]\n[MASK]\nthe\nli\n##d\n")
    assert json.loads(told(capsys, "--run", tmp_path, "--special", "--json", "The lid[MASK]"))["ids"] == [2, 3, 4, 1]


# ---- --compare


def test_tokenizers_side_by_side(capsys, files, tmp_path):
    told(capsys, "--train", *files, "--vocab-size", 500, "--out", tmp_path / "mine")
    write_tokenizer(tmp_path, CharTokenizer.train("the cat"), 16)  # a tokenizer.json
    names = f"gpt2,{tmp_path / 'mine'},{tmp_path}"
    table = json.loads(told(capsys, "--compare", names, "--text", files[0], "--json"))
    text = Path(files[0]).read_text(encoding="utf-8")
    assert (table["characters"], table["bytes"]) == (len(text), len(text.encode()))
    for row, tokenizer in zip(table["tokenizers"], (GPT2Tokenizer(), load_tokenizer(tmp_path / "mine")), strict=False):
        ids = tokenizer.encode(text)
        assert (row["kind"], row["vocab_size"], row["tokens"]) == (tokenizer.name, tokenizer.vocab_size, len(ids))
        assert row["bytes_per_token"] == pytest.approx(len(text.encode()) / len(ids))
        assert row["different"] == len(set(ids))
    assert "is not among the 6 characters" in table["tokenizers"][2]["error"]
    assert table["tokenizers"][2]["tokens"] is None

    lines = told(capsys, "--compare", names, "--text", files[0]).splitlines()
    assert lines[0].split() == ["tokenizer", "vocabulary", "tokens", "bytes", "per", "token", "different", "tokens"]
    first = table["tokenizers"][0]
    cells = [
        f"{first['vocab_size']:,}",
        f"{first['tokens']:,}",
        f"{first['bytes_per_token']:.2f}",
        f"{first['different']:,}",
    ]
    assert lines[1].split() == ["gpt2", *cells]
    marked = json.loads(told(capsys, "--compare", names, "--text", files[0], "--special", "--json"))
    assert marked["tokenizers"][0]["tokens"] < first["tokens"]


def test_the_book_s_figures_for_the_bytes_of_a_text(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("Every effort moves you")
    (row,) = json.loads(told(capsys, "--compare", "gpt2", "--text", tmp_path / "a.txt", "--json"))["tokenizers"]
    assert (row["tokens"], row["bytes_per_token"], row["different"]) == (4, 5.5, 4)


# ---- --explain


def test_each_merge_is_shown(capsys):
    assert told(capsys, "--explain", " hello\x1b", "--tokenizer", "gpt2") == (
        "'·hello'\n"
        "  ·|h|e|l|l|o\n"
        "  ·|he|l|l|o   merge 2: h + e\n"
        "  ·|he|ll|o   merge 41: l + l\n"
        "  ·he|ll|o   merge 83: · + he\n"
        "  ·hell|o   merge 5,712: ·he + ll\n"
        "  ·hello   merge 23,492: ·hell + o\n"
        "'\\\\x1b'\n"
        "  \\x1b\n"
        "ids 23748 215\n"
    )


def test_the_merges_end_in_the_ids_of_the_text(capsys):
    text = story()[:300]
    told_ids = json.loads(told(capsys, text, "--json"))["ids"]
    explained = json.loads(told(capsys, text, "--explain", "--json"))
    assert explained["ids"] == told_ids == BPETokenizer.train(story(), 512).encode(text)
    assert all((row["rank"] is None) == (row["pair"] is None) for row in explained["merges"])
    assert "".join(row["piece"] for row in explained["merges"] if row["pair"] is None) == text
