import random
import tracemalloc
from itertools import pairwise

import pytest

from tinygrad_llm.errors import ConfigError, DataError, TokenizerError
from tinygrad_llm.evaluation.losses import all_windows
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.text import BPETokenizer, CharTokenizer, load_tokenizer, story
from tinygrad_llm.text.corpus import TrainingWindows, encode_texts, read_corpus, split_texts


def test_several_files_are_kept_apart_by_the_end_mark(tmp_path):
    rhyme, other = tmp_path / "rhyme.txt", tmp_path / "other.txt"
    rhyme.write_text("The cat sat on the mat, and the dog dug up the log. " * 20)
    other.write_text("A hen and a wren and a pen. " * 40)
    corpus = read_corpus([rhyme, other], "bpe", context_length=64, vocab_size=300)
    tokenizer = corpus.tokenizer
    assert corpus.train_ids.count(tokenizer.eot_id) == corpus.val_ids.count(tokenizer.eot_id) == 1
    assert tokenizer.decode(corpus.train_ids) == "<|endoftext|>".join(corpus.train_texts)
    assert tokenizer.decode(corpus.val_ids) == "<|endoftext|>".join(corpus.val_texts)
    assert corpus.train_texts[1] + corpus.val_texts[1] == other.read_text()


def test_overlapping_windows_show_every_token_in_every_position():
    windows = TrainingWindows(list(range(41)), context_length=4, batch_size=2, stride=3)
    seen = set()
    with use_generator(Generator(0)):
        for _ in range(30):
            batches = list(windows.epoch())
            assert len(batches) == len(windows)
            for ids, targets in batches:
                assert (targets == ids + 1).all()
                seen |= {(int(token), position) for row in ids for position, token in enumerate(row)}
    assert {(token, position) for token in range(8, 32) for position in range(4)} <= seen


def test_windows_side_by_side_stay_where_they_are():
    windows = TrainingWindows(list(range(41)), context_length=4, batch_size=2)
    for _ in range(3):
        starts = {int(row[0]) for ids, _ in windows.epoch() for row in ids}
        assert starts == set(range(0, 40, 4))


def test_a_kind_of_tokenizer_that_there_is_not():
    with pytest.raises(ConfigError, match="tokenizer is 'words': use one of bpe, char, word, wordpiece, gpt2"):
        read_corpus([], "words", context_length=8)


def test_the_memory_of_a_text_and_its_windows(tmp_path):
    """The most that is held when an epoch of overlapping windows is under way, beside what the corpus says."""
    path, tokenizer = tmp_path / "text.txt", read_corpus([], "bpe", context_length=16).tokenizer
    tokenizer.encode("once, so that what is loaded by it does not count")
    path.write_text(" ".join(random.Random(0).choices(story().split(), k=100_000)))
    tracemalloc.start()
    try:
        corpus = read_corpus([path], tokenizer, context_length=16)
        windows = TrainingWindows(corpus.train_ids, 16, 8, 2)
        evaluated = all_windows(corpus.train_ids, 16, 8)
        next(iter(windows.epoch()))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(windows) > len(evaluated) > 0
    assert 0.5 < held / corpus.n_bytes < 1.5


# ---- special tokens in the files

MARK, USER = "<|endoftext|>", "<|user|>"
TALES = [f"A cat and {n} mice sat on mat {n * n}.\n" for n in range(60)]


@pytest.fixture
def tales(tmp_path):
    path = tmp_path / "tales.txt"
    path.write_text(MARK.join(TALES) + MARK)
    return path


@pytest.mark.parametrize("kind", ["bpe", "char", "gpt2"])
def test_the_mark_in_a_file_ends_a_document(tales, kind):
    corpus = read_corpus([tales], kind, context_length=8, vocab_size=300)
    tokenizer = corpus.tokenizer
    ids = corpus.train_ids + corpus.val_ids
    assert ids.count(tokenizer.eot_id) == len(TALES)
    assert tokenizer.decode(ids) == tales.read_text()
    documents, document = [], []
    for i in corpus.train_ids:
        if i == tokenizer.eot_id:
            documents.append(tokenizer.decode(document))
            document = []
        else:
            document.append(i)
    assert documents == TALES[: len(documents)]
    assert len(documents) > 50
    assert corpus.introduce_marks() == ["<|endoftext|> stands in the text 60 times: each is the end of a document."]


def test_nothing_is_learned_from_the_letters_of_a_mark(tales):
    plain = tales.with_name("plain.txt")
    for mark in (MARK, USER):
        tales.write_text(mark.join(TALES))
        plain.write_text("".join(TALES))
        bpe = read_corpus([tales], "bpe", context_length=8, vocab_size=400, special_tokens=[USER]).tokenizer
        assert not any(mark[:3].encode() in token for token in bpe.tokens[: 256 + len(bpe.merges)])
        assert bpe.vocab_size <= 400
        char = read_corpus([tales], "char", context_length=8, special_tokens=[USER]).tokenizer
        assert char.alphabet == "".join(sorted(set("".join(TALES))))


def test_no_document_ends_twice_where_a_file_ends_with_the_mark(tales):
    other = tales.with_name("other.txt")
    other.write_text("A hen and a wren and a pen. " * 20)
    ids = encode_texts(
        CharTokenizer.train(story() + "0123456789"), [tales.read_text(), other.read_text(), tales.read_text()]
    )
    eot = CharTokenizer.train(story() + "0123456789").eot_id
    assert ids.count(eot) == 2 * len(TALES) + 1
    assert not any(one == other == eot for one, other in pairwise(ids))


@pytest.mark.parametrize("back", range(16))
def test_no_mark_is_cut_in_two(tmp_path, back):
    """90 % of 1,000 characters fall on every place in and beside the mark."""
    path, begin = tmp_path / "text.txt", 900 - back
    path.write_text("a" * begin + MARK + "b" * (1000 - begin - len(MARK)))
    _, (train,), (val,) = split_texts([path], 0.1)
    assert train + val == path.read_text()
    assert len(train) == (begin + len(MARK) if 0 < back < len(MARK) else 900)
    assert (MARK in train) != (MARK in val)


def test_a_declared_token_that_is_text_in_the_data_is_counted_and_read_as_the_token(tmp_path):
    path = tmp_path / "talk.txt"
    path.write_text(f"{USER}Who sat on the mat?{MARK}" * 40 + f"and {USER[:-1]} alone")
    corpus = read_corpus([path], "bpe", context_length=8, vocab_size=300, special_tokens=[USER, "mat"])
    tokenizer = corpus.tokenizer
    ids = corpus.train_ids + corpus.val_ids
    for mark in (USER, "mat", MARK):
        assert ids.count(tokenizer.special[mark]) == 40
    assert tokenizer.decode(ids) == path.read_text()
    assert corpus.introduce_marks() == [
        f"{USER} stands in the text 40 times: each is the special token {tokenizer.special[USER]}, not letters.",
        f"mat stands in the text 40 times: each is the special token {tokenizer.special['mat']}, not letters.",
        f"{MARK} stands in the text 40 times: each is the end of a document.",
    ]
    assert corpus.opening() == "Who sat on"  # a prompt is plain text


def test_a_tokenizer_without_the_mark_reads_letters_and_it_is_said(tales):
    tokenizer = CharTokenizer.train(story() + tales.read_text())
    tokenizer.special, tokenizer.eot_id = {}, None  # as some of those made elsewhere
    corpus = read_corpus([tales], tokenizer, context_length=8)
    assert tokenizer.decode(corpus.train_ids) == corpus.train_texts[0]
    assert len(corpus.train_ids) == len(corpus.train_texts[0])
    assert corpus.introduce_marks() == [
        "<|endoftext|> stands in the text 60 times: each is letters like any others, since this char tokenizer has no such token."
    ]


def test_a_text_without_marks_is_as_it_was(tmp_path):
    corpus = read_corpus([], "bpe", context_length=8, vocab_size=400)
    assert corpus.introduce_marks() == []
    assert corpus.tokenizer.merges == BPETokenizer.train(corpus.train_texts[0], 400).merges
    assert corpus.train_ids == corpus.tokenizer.encode(corpus.train_texts[0])


def test_special_tokens_count_in_the_size_of_the_vocabulary():
    corpus = read_corpus([], "bpe", context_length=8, vocab_size=400, special_tokens=[USER, "<|assistant|>"])
    assert corpus.tokenizer.vocab_size == 400
    assert list(corpus.tokenizer.special.values()) == [397, 398, 399]
    with pytest.raises(
        ConfigError, match=r"vocab_size .*2 special tokens.* is 258: it must be an integer, 259 or more"
    ):
        read_corpus([], "bpe", context_length=8, vocab_size=258, special_tokens=[USER, "<|assistant|>"])
    with pytest.raises(TokenizerError, match="is a special token already"):
        read_corpus([], "char", context_length=8, special_tokens=[USER, USER])


def test_the_tokenizer_of_a_folder(tmp_path):
    BPETokenizer.train(story(), 300).add_special([USER]).save(tmp_path)
    corpus = read_corpus([], str(tmp_path), context_length=8, special_tokens=[USER, "<|assistant|>"])
    assert corpus.tokenizer.special == {MARK: 299, USER: 300, "<|assistant|>": 301}
    assert corpus.tokenizer.merges == load_tokenizer(tmp_path).merges


# ---- files that cannot be read


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "short.txt").write_text("ab")
    for name, message in {
        "nowhere.txt": "nowhere.txt: cannot be read",
        "loop": "loop: cannot be read",
        ".": "not a regular file",
        "empty.txt": "empty.txt: empty",
        "short.txt": "short.txt: 1 tokens to train on: context_length 8 needs at least 9",
    }.items():
        with pytest.raises(DataError, match=message):
            read_corpus([tmp_path / name], "char", context_length=8)
