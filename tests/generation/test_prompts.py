import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.generation import choose, continuation_logprobs, few_shot, fill
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.text import BPETokenizer

BYTES = BPETokenizer([])
TEMPLATE = "Question: {question}\nAnswer: {answer}"


@pytest.fixture(scope="module")
def model():
    tg.manual_seed(2)
    return GPTModel(GPTConfig(257, 16, 16, 2, 1, drop_rate=0.2)).astype(np.float64).eval()


def test_a_template_is_filled_once():
    assert (
        fill(TEMPLATE, {"question": "{answer}?", "answer": "{x.__class__}"})
        == "Question: {answer}?\nAnswer: {x.__class__}"
    )
    assert fill("{a}{a} {{", {"a": "1"}) == "11 {{"
    with pytest.raises(ConfigError, match=r"\{answer\}.*values for question"):
        fill(TEMPLATE, {"question": "?"})


def test_few_shot_ends_where_the_model_goes_on():
    examples = [{"question": "2?", "answer": "two"}, {"question": "3?", "answer": "three"}]
    assert few_shot(TEMPLATE, [], {"question": "4?"}) == "Question: 4?\nAnswer:"
    assert few_shot(TEMPLATE, examples, {"question": "4?"}) == (
        "Question: 2?\nAnswer: two\n\nQuestion: 3?\nAnswer: three\n\nQuestion: 4?\nAnswer:"
    )
    assert few_shot("{answer}: {question}", [], {"answer": "x"}) == "x:"


def by_definition(model, prompt, continuation):
    ids = BYTES.encode(prompt + continuation)
    total, n = 0.0, len(BYTES.encode(continuation))
    for end in range(len(ids) - n, len(ids)):
        z = model(np.array([ids[max(0, end - (16 - (len(ids) - 1 - end))) : end]])).data[0, -1]
        total += z[ids[end]] - np.log(np.exp(z).sum())
    return total


@pytest.mark.parametrize("prompt", ["a", "The cat ", "A prompt that is longer than the context"])
def test_continuations_are_scored_by_their_own_tokens(model, prompt):
    choices = [" sat", " é", "xyz!?"]
    for choice, logprobs in zip(choices, continuation_logprobs(model, BYTES, prompt, choices), strict=True):
        assert len(logprobs) == len(choice.encode())
        assert logprobs.sum() == pytest.approx(by_definition(model, prompt, choice), rel=1e-9)


def test_the_likeliest_choice_wins(model):
    choices = [" a", " bcd", " ef", " ghijkl"]
    totals = np.array([by_definition(model, "The", choice) for choice in choices])
    assert choose(model, BYTES, "The", choices) == totals.argmax()
    lengths = [len(choice) for choice in choices]
    assert choose(model, BYTES, "The", choices, per_byte=True) == (totals / lengths).argmax()
    assert totals.argmax() != (totals / lengths).argmax()
    assert choose(model, BYTES, "The", [" b", " b"]) == 0


@pytest.mark.parametrize(("prompt", "choices"), [("", ["a"]), ("a", [""]), ("a", ["x" * 17]), ("a", [])])
def test_what_cannot_be_scored(model, prompt, choices):
    with pytest.raises(DataError):
        choose(model, BYTES, prompt, choices)
