"""Reading, splitting, windows and batches: against brute force on made text, and every bad input."""

import math
import os

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.rng import Generator, use_generator
from tinygrad_llm.text import DataLoader, SlidingWindowDataset, read_text, story, train_val_split

# ---- reading


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"one\ntwo", "one\ntwo"),
        (b"\xef\xbb\xbfone", "one"),  # a byte-order mark is no text
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
        (b"a\x00b", "a\x00b"),
        ("é e\u0301 😀 שלום\u2028x\x85y".encode(), "é e\u0301 😀 שלום\u2028x\x85y"),
        (b" \n", " \n"),
    ],
)
def test_read_text(data, text, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert read_text(path) == read_text(str(path)) == text
    assert path.read_text(encoding="utf-8-sig") == text  # what Python's own text mode gives


def test_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8: byte 0xef at offset 2") as caught:
        read_text(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_empty_file(data, tmp_path):
    path = tmp_path / "empty.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"empty\.txt: empty"):
        read_text(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read: No such file"):
        read_text(tmp_path / "gone.txt")
    with pytest.raises(DataError, match="not a regular file"):
        read_text(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # would wait for ever
    with pytest.raises(DataError, match="pipe: not a regular file"):
        read_text(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="loop: cannot be read"):
        read_text(tmp_path / "loop")
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_text(tmp_path / ("x" * 300))


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.txt"
    path.write_text("x")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)  # root may read every file, so chmod proves nothing
    with pytest.raises(DataError, match=r"secret\.txt: cannot be read: Permission denied"):
        read_text(path)


def test_the_bundled_story():
    text = story()
    assert 18_000 <= len(text.encode()) <= 25_000
    assert "\r" not in text
    assert not text.startswith("\ufeff")


# ---- splitting


def test_split_of_a_text_as_long_as_the_books_story():
    train, val = train_val_split("x" * 20_479)
    assert (len(train), len(val)) == (18_431, 2_048)


@given(st.text(), st.floats(0.01, 0.99))
def test_split(text, ratio):
    cut = int(ratio * len(text))
    assume(0 < cut < len(text))
    assert train_val_split(text, ratio) == (text[:cut], text[cut:])


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, float("nan")])
def test_ratio_that_cannot_be(ratio):
    with pytest.raises(ConfigError, match="ratio="):
        train_val_split("some text", ratio)


@pytest.mark.parametrize(("text", "ratio"), [("", 0.9), ("a", 0.9), ("abcdefgh", 0.1)])
def test_split_with_an_empty_part(text, ratio):
    with pytest.raises(DataError, match=f"{len(text)} characters"):
        train_val_split(text, ratio)


# ---- windows


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(1, 20), st.integers(1, 25))
def test_windows_equal_brute_force(ids, context_length, stride):
    assume(len(ids) > context_length)
    starts = range(0, len(ids) - context_length, stride)  # the book's loop
    dataset = SlidingWindowDataset(ids, context_length, stride)
    assert len(dataset) == len(starts)
    for i, start in enumerate(starts):
        inputs, targets = dataset[i]
        assert inputs.tolist() == ids[start : start + context_length]
        assert targets.tolist() == ids[start + 1 : start + 1 + context_length]
        assert inputs.dtype == targets.dtype == np.int64
    with pytest.raises(IndexError):
        dataset[len(starts)]
    assert dataset[-1][0].tolist() == dataset[len(starts) - 1][0].tolist()


@pytest.mark.parametrize(
    ("context_length", "stride", "n_train", "n_val"),
    [(256, 256, 18, 2), (256, 128, 35, 3), (4, 4, 1152, 133), (4, 1, 4608, 530)],
)
def test_window_counts_of_the_book(context_length, stride, n_train, n_val):
    # its story has 4,612 tokens to train on and 534 to validate with
    assert len(SlidingWindowDataset(np.arange(4612), context_length, stride)) == n_train
    assert len(SlidingWindowDataset(np.arange(534), context_length, stride)) == n_val


def test_stride_is_the_context_length_unless_given():
    dataset = SlidingWindowDataset(list(range(9)), 4)
    assert [inputs.tolist() for inputs, _ in dataset] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_windows_are_read_only_and_apart_from_the_ids_given():
    ids = np.arange(9)
    inputs, _ = SlidingWindowDataset(ids, 4)[0]
    with pytest.raises(ValueError, match="read-only"):
        inputs[0] = 7
    ids[0] = 7
    assert inputs[0] == 0


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_tokens(n):
    with pytest.raises(DataError, match=f"{n} tokens: context_length=4 needs at least 5"):
        SlidingWindowDataset(list(range(n)), 4)
    assert len(SlidingWindowDataset(list(range(5)), 4)) == 1


@pytest.mark.parametrize("size", [0, -1, 1.0, True, "4"])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ConfigError, match=r"^context_length is"):
        SlidingWindowDataset(list(range(9)), size)
    with pytest.raises(ConfigError, match=r"^stride is"):
        SlidingWindowDataset(list(range(9)), 4, size)
    with pytest.raises(ConfigError, match=r"^batch_size is"):
        DataLoader(SlidingWindowDataset(list(range(9)), 4), size)


def test_ids_that_cannot_be():
    with pytest.raises(DataError, match="position 3: -7 is not a token id"):
        SlidingWindowDataset([0, 1, 2, -7, 4, 5], 4)
    for ids in (np.zeros(9), np.zeros((3, 3), int), np.zeros(9, bool), [2**70] * 9, ["a"] * 9):
        with pytest.raises(DataError, match="one row of integers"):
            SlidingWindowDataset(ids, 4)


# ---- batches


def numbered(n):
    """n samples; sample i is inputs [i, i], targets [-i, -i]."""
    return [(np.array([i, i]), np.array([-i, -i])) for i in range(n)]


@given(st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(0, 99))
def test_each_sample_once_in_a_seeded_order(n, batch_size, drop_last, seed):
    assume(n >= batch_size or not drop_last)
    loader = DataLoader(numbered(n), batch_size, shuffle=True, drop_last=drop_last, rng=Generator(seed))
    n_batches = n // batch_size if drop_last else math.ceil(n / batch_size)
    order = Generator(seed).shuffle_order(n).tolist()
    assert sorted(order) == list(range(n))
    batches = list(loader)
    assert len(batches) == len(loader) == n_batches
    seen = np.concatenate([inputs for inputs, _ in batches])[:, 0].tolist()
    assert seen == (order[: n_batches * batch_size] if drop_last else order)
    for inputs, targets in batches[: n // batch_size]:
        assert inputs.shape == (batch_size, 2)
        assert (targets == -inputs).all()


def test_each_pass_has_its_own_order_and_the_current_generator_gives_it():
    loader = DataLoader(numbered(50), 5)
    with use_generator(Generator(123)):
        first, second = ([inputs[:, 0].tolist() for inputs, _ in loader] for _ in range(2))
    with use_generator(Generator(123)):
        again = [inputs[:, 0].tolist() for inputs, _ in loader]
    assert first == again
    assert first != second


def test_without_shuffling_the_order_stays_and_no_number_is_drawn():
    rng = Generator(1)
    loader = DataLoader(numbered(5), 2, shuffle=False, drop_last=False, rng=rng)
    assert [inputs[:, 0].tolist() for inputs, _ in loader] == [[0, 1], [2, 3], [4]]
    assert rng.random64() == Generator(1).random64()


def test_batches_may_be_written():
    loader = DataLoader(SlidingWindowDataset(list(range(9)), 4), 2, shuffle=False)
    inputs, targets = next(iter(loader))
    inputs[:] = 0
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert next(iter(loader))[0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_loader_without_a_batch():
    with pytest.raises(ConfigError, match="batch_size=4 with drop_last=True leaves no batch of 3 samples"):
        DataLoader(numbered(3), 4)
    assert len(DataLoader(numbered(3), 4, drop_last=False)) == 1
    with pytest.raises(ConfigError):
        DataLoader([], 4, drop_last=False)
