from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.generation import generate, stream_text
from tinygrad_llm.generation.text import before_stop
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import BPETokenizer

BYTES = BPETokenizer([])


class Scripted:
    """A model that writes what it is told: the logits of a script, one hot."""

    def __init__(self, script):
        self.config, self.training = GPTConfig(257, 4, 2, 1, 1), False
        self.script, self.n_rows = iter(script), None

    def make_state(self, batch_size):
        return self

    def of_rows(self, rows):
        return self

    def __call__(self, ids, state=None, last_only=False):
        logits = np.zeros((1, 1, 257), np.float32)
        logits[0, 0, next(self.script)] = 1
        return tg.Tensor(logits)


def write(script, n=None, **options):
    script = script.encode() if isinstance(script, str) else script
    return list(stream_text(Scripted(script), BYTES, "x", len(script) if n is None else n, **options))


def test_text_is_streamed_in_whole_characters():
    assert write("né🙂!") == ["n", "é", "🙂", "!"]
    assert write("a🙂", 3) == ["a", "\ufffd"]  # cut off within the character
    assert write("", 0) == []


def test_pieces_are_the_text_of_the_tokens():
    tg.manual_seed(5)
    model = GPTModel(GPTConfig(257, 6, 16, 2, 1))
    pieces = list(stream_text(model, BYTES, "ab", 120, 2.0, rng=Generator(3)))
    ids = generate(model, [BYTES.encode("ab")], 120, 2.0, rng=Generator(3))[0]
    assert "".join(pieces) == BYTES.decode(ids[2:])
    assert all(pieces)


def test_a_stop_string_across_tokens():
    assert "".join(write("one\n\ntwo", stop=["\n\n"])) == "one"
    assert "".join(write("one END", stop=["END", "zzz"])) == "one "
    assert "".join(write("END", stop=["END"])) == ""
    assert "".join(write("one EN", stop=["END"])) == "one EN"
    assert "".join(write("🙂ab", stop=["🙂a"])) == ""
    assert write("one EN", stop=["END"])[:4] == ["o", "n", "e", " "]  # only what may begin it is held back


@given(
    text=st.text("abc", max_size=20),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.sets(st.integers(1, 19)),
)
def test_stop_strings_do_not_depend_on_the_borders_of_tokens(text, stop, cuts):
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    expected = text
    for end in range(len(text) + 1):  # by definition: letter by letter until the text ends in a stop string
        ending = [string for string in stop if text[:end].endswith(string)]
        if ending:
            expected = text[: end - max(map(len, ending))]
            break
    assert "".join(before_stop(pieces, stop)) == expected


def test_of_several_stop_strings_the_first_to_be_complete_ends_the_text():
    assert list(before_stop(["abc"], ["abc", "b"])) == list(before_stop(["a", "b", "c"], ["abc", "b"])) == ["a"]
    assert list(before_stop(["xab."], ["b", "ab"])) == ["x"]


def test_the_first_token_may_be_the_end():
    assert write([256, 65], stop_ids=[256]) == []


def test_the_mark_in_a_prompt_is_text():
    seen = []

    class Listening(Scripted):
        def __call__(self, ids, **options):
            seen.extend(ids[0].tolist())
            return super().__call__(ids)

    list(stream_text(Listening(b"a"), BYTES, "<|endoftext|>", 1))
    assert 256 not in seen
    assert bytes(seen) == b"<|endoftext|>"[-4:]  # the last of it that the context of 4 holds


def test_each_step_is_shown_before_its_text():
    seen = []
    assert write("ab", on_step=seen.append) == ["a", "b"]
    assert [int(step.ids[0]) for step in seen] == [97, 98]


@pytest.mark.parametrize("stop", ["text", [""], ["a", ""], [1]])
def test_bad_stop_strings(stop):
    with pytest.raises(ConfigError, match="stop is"):
        write("abc", stop=stop)


def test_an_empty_prompt_is_refused():
    with pytest.raises(DataError, match="prompt is empty"):
        stream_text(Scripted(b""), BYTES, "", 3)
