import random
import tracemalloc

import pytest

from tinygrad_llm.errors import ConfigError
from tinygrad_llm.evaluation.losses import all_windows
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.text import story
from tinygrad_llm.text.corpus import TrainingWindows, read_corpus


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
    with pytest.raises(ConfigError, match="tokenizer is 'word': use one of bpe, char, gpt2"):
        read_corpus([], "word", context_length=8)


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
