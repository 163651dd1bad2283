import itertools

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError, DTypeError
from tinygrad_llm.generation import generate, stream_text, stream_tokens
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator
from tinygrad_llm.text import BPETokenizer


@pytest.fixture(scope="module")
def model():
    tg.manual_seed(5)
    return GPTModel(GPTConfig(vocab_size=257, context_length=6, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.3))


def last_logits(model, ids):
    """By definition: the whole context through the model, without dropout."""
    model.eval()
    logits = model(np.array([ids[-6:]])).data[0, -1]
    model.train()
    return logits


def test_greedy_takes_the_highest_logit_each_time_and_crops_to_the_context(model):
    prompts = [[1, 2, 3], [250, 7, 9]]
    out = generate(model, prompts, 9)
    assert out.dtype == np.int64
    for prompt, row in zip(prompts, out, strict=True):
        expected = list(prompt)
        for _ in range(9):  # three tokens fit, then the context is full and slides
            expected.append(int(last_logits(model, expected).argmax()))
        assert row.tolist() == expected


def test_generation_leaves_the_model_in_its_mode_and_without_gradients(model):
    model.train()
    generate(model, [[1]], 2)
    assert model.training
    assert model.drop_emb.training
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    generate(model, [[1]], 2)
    assert not model.drop_emb.training


def test_a_seed_decides_the_text_and_rows_are_drawn_apart(model):
    def write(seed):
        return generate(model, [[1], [1]], 12, 1.5, rng=Generator(seed)).tolist()

    assert write(1) == write(1)
    assert write(1) != write(2)
    assert write(1)[0] != write(1)[1]
    tg.manual_seed(8)
    first = generate(model, [[1]], 12, 1.5)
    tg.manual_seed(8)
    assert (generate(model, [[1]], 12, 1.5) == first).all()
    assert (generate(model, [[1]], 12, 1.5) != first).any()


def test_greedy_draws_no_random_number(model):
    rng = Generator(3)
    before = rng.get_state()
    generate(model, [[1]], 3, rng=rng)
    assert rng.get_state() == before


def test_a_stream_gives_tokens_as_they_are_chosen(model):
    stream = stream_tokens(model, [[1, 2]], 10**9)
    first = [int(ids[0]) for ids in itertools.islice(stream, 4)]
    assert first == generate(model, [[1, 2]], 4)[0, 2:].tolist()


def test_no_new_tokens(model):
    assert generate(model, [[4, 5]], 0).tolist() == [[4, 5]]


def test_text_is_streamed_in_whole_characters(model):
    tokenizer = BPETokenizer([])  # bytes alone
    pieces = list(stream_text(model, tokenizer, "ab", 120, 2.0, rng=Generator(3)))
    ids = generate(model, [tokenizer.encode("ab")], 120, 2.0, rng=Generator(3))[0]
    assert "".join(pieces) == tokenizer.decode(ids[len(tokenizer.encode("ab")) :])
    assert all(piece for piece in pieces)


class Scripted:
    """A model that writes what it is told: the logits of a script, one hot."""

    def __init__(self, script):
        self.config, self.training = (
            GPTConfig(vocab_size=257, context_length=4, emb_dim=2, n_heads=1, n_layers=1),
            False,
        )
        self.script = iter(script)

    def train(self, mode=True): ...

    def eval(self): ...

    def __call__(self, ids):
        logits = np.zeros((1, 1, 257), np.float32)
        logits[0, 0, next(self.script)] = 1
        return tg.Tensor(logits)


def test_a_character_of_four_bytes_comes_out_at_once():
    tokenizer = BPETokenizer([])
    pieces = list(stream_text(Scripted("né🙂!".encode()), tokenizer, "x", 8))
    assert pieces == ["n", "é", "🙂", "!"]
    pieces = list(stream_text(Scripted("a🙂".encode()), tokenizer, "x", 3))
    assert pieces == ["a", "\ufffd"]  # cut off within the character


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2, 3], DataError, r"shape \(3,\).*\(batch, tokens\)"),
        ([[]], (DataError, DTypeError), "."),
        (np.zeros((1, 0), int), DataError, r"\(1, 0\)"),
        (np.zeros((0, 3), int), DataError, r"\(0, 3\)"),
        ([[1, 257]], DataError, r"id 257 at position \(0, 1\)"),
        ([[-1]], DataError, r"id -1"),
        ([[1.0]], DTypeError, "integers"),
        ([[True]], DTypeError, "integers"),
        ([[1], [2, 3]], DataError, "ragged"),
    ],
)
def test_bad_ids(model, ids, error, message):
    with pytest.raises(error, match=message):
        generate(model, ids, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": -1},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": True},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"top_k": 0},
        {"top_k": -1},
        {"top_k": 2.0},
    ],
)
def test_bad_options_are_refused_before_the_first_token(model, options):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=f"{name} is "):
        stream_tokens(model, [[1]], **({"max_new_tokens": 1} | options))


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(DataError, match="prompt is empty"):
        stream_text(model, BPETokenizer([]), "", 3)
