import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError, DTypeError, GraphError, ShapeError
from tinygrad_llm.generation import Step, explain_tokens, generate, stream_tokens, token_logprobs
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.rng import Generator


@pytest.fixture(scope="module")
def model():
    tg.manual_seed(5)
    return GPTModel(GPTConfig(vocab_size=257, context_length=6, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.3))


@pytest.fixture(scope="module")
def exact():
    """In float64, with a longer context."""
    tg.manual_seed(6)
    return GPTModel(GPTConfig(23, 12, 16, 2, 3, drop_rate=0.3, qkv_bias=True)).astype(np.float64)


def last_logits(model, ids):
    """By definition: the whole context through the model, without dropout."""
    model.eval()
    logits = model(np.array([ids[-6:]])).data[0, -1]
    model.train()
    return logits


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_takes_the_highest_logit_each_time_and_crops_to_the_context(model, use_cache):
    prompts = [[1, 2, 3], [250, 7, 9]]
    out = generate(model, prompts, 9, use_cache=use_cache)
    assert out.dtype == np.int64
    for prompt, row in zip(prompts, out, strict=True):
        expected = list(prompt)
        for _ in range(9):  # three tokens fit, then the context is full and slides
            expected.append(int(last_logits(model, expected).argmax()))
        assert row.tolist() == expected


def test_prompts_of_different_lengths_are_as_if_alone(model):
    prompts = [[1, 2, 3], [9], [250, 7, 9, 11, 30, 31, 32, 33]]
    for use_cache in (True, False):
        together = generate(model, prompts, 7, use_cache=use_cache)
        for prompt, row in zip(prompts, together, strict=True):
            alone = generate(model, [prompt], 7, use_cache=False)[0].tolist()
            assert row.tolist() == alone + [-1] * (15 - len(alone))


rows = st.lists(st.lists(st.integers(0, 22), min_size=1, max_size=9), min_size=1, max_size=4)


@given(prompts=rows, n=st.integers(0, 9), stops=st.lists(st.integers(0, 22), max_size=6), seed=st.integers(0, 99))
def test_cache_is_no_cache(exact, prompts, n, stops, seed):
    options = {"temperature": 1.0, "top_p": 0.9, "stop_ids": stops, "repetition_penalty": 1.3}
    cached, uncached = (
        generate(exact, prompts, n, rng=Generator(seed), use_cache=use_cache, **options) for use_cache in (True, False)
    )
    assert cached.tolist() == uncached.tolist()


@given(
    ids=st.integers(1, 12).flatmap(
        lambda t: st.lists(st.lists(st.integers(0, 22), min_size=t, max_size=t), min_size=1, max_size=3)
    ),
    cuts=st.sets(st.integers(1, 11)),
)
def test_cached_logits_are_those_of_every_prefix_however_it_is_cut(exact, ids, cuts):
    ids = np.array(ids)
    exact.eval()
    borders = [0, *sorted(cut for cut in cuts if cut < ids.shape[1]), ids.shape[1]]
    state = exact.make_state(len(ids))
    with tg.no_grad():
        pieces = [exact(ids[:, a:b], state=state).data for a, b in itertools.pairwise(borders)]
        for end in range(1, ids.shape[1] + 1):
            full = exact(ids[:, :end]).data
            np.testing.assert_allclose(np.concatenate(pieces, 1)[:, :end], full, rtol=1e-9, atol=1e-11)
        last = exact(ids, last_only=True).data
        np.testing.assert_allclose(last, full[:, -1:], rtol=1e-9, atol=1e-11)


def test_float32_logits_agree_within_rounding():
    tg.manual_seed(0)
    model = GPTModel(GPTConfig(101, 48, 64, 4, 4, drop_rate=0.0)).eval()
    ids = np.random.default_rng(0).integers(0, 101, (2, 48))
    state = model.make_state(2)
    with tg.no_grad():
        cached = np.concatenate([model(ids[:, i : i + 1], state=state).data for i in range(48)], 1)
        np.testing.assert_allclose(cached, model(ids).data, atol=1e-5)


def test_a_state_that_is_full_is_left_as_it_was(exact):
    exact.eval()
    ids = np.arange(12)[None]
    state = exact.make_state()
    with tg.no_grad():
        exact(ids[:, :10], state=state)
        with pytest.raises(ContextLengthError, match="10 tokens and 3 more, there is room for 12"):
            exact(np.array([[1, 2, 3]]), state=state)
        np.testing.assert_allclose(exact(ids[:, 10:], state=state).data, exact(ids).data[:, 10:], rtol=1e-9, atol=1e-11)


def test_a_state_refuses_another_batch_other_room_and_a_tape(exact):
    exact.eval()
    state = exact.make_state(2)
    with tg.no_grad():
        exact(np.array([[1], [2]]), state=state)
        with pytest.raises(ShapeError, match="3 rows of ids for a state of 2"):
            exact(np.array([[1], [2], [3]]), state=state)
        with pytest.raises(ShapeError, match="room for 5 tokens, here it is 12"):
            state.append(exact.make_state(1, capacity=5))
    with pytest.raises(GraphError, match="no_grad"):
        exact(np.array([[1], [2]]), state=state)


def test_two_streams_interleaved_do_not_meet(exact):
    streams = [stream_tokens(exact, [prompt], 8) for prompt in ([1, 2, 3], [4])]
    pairs = [[int(step.ids[0]) for step in steps] for steps in zip(*streams, strict=True)]
    assert [p[0] for p in pairs] == generate(exact, [[1, 2, 3]], 8, use_cache=False)[0, 3:].tolist()
    assert [p[1] for p in pairs] == generate(exact, [[4]], 8, use_cache=False)[0, 1:].tolist()


def test_selected_rows_go_on_as_they_would(exact):
    exact.eval()
    ids = np.array([[1, 2, 3], [0, 5, 6], [7, 8, 9]])
    state, younger = exact.make_state(3), exact.make_state(1)
    with tg.no_grad():
        exact(ids, state=state)
        exact(np.array([[5, 6]]), state=younger)
        state.append(younger)
        state.select([3, 2, 3])
        assert state.lengths.tolist() == [2, 3, 2]
        logits = exact(np.array([[4], [4], [10]]), state=state).data[:, 0]
        for row, text in zip(logits, ([5, 6, 4], [7, 8, 9, 4], [5, 6, 10]), strict=True):
            np.testing.assert_allclose(row, exact(np.array([text])).data[0, -1], rtol=1e-9, atol=1e-11)


def test_a_row_ends_before_its_stop_id(model):
    free = generate(model, [[1, 2, 3], [4, 5, 6]], 6)
    stop = int(free[0, 5])  # the third token that the first row would write
    where = free[1, 3:].tolist().index(stop) if stop in free[1, 3:] else 6
    out = generate(model, [[1, 2, 3], [4, 5, 6]], 6, stop_ids=[stop])
    assert out[0, :5].tolist() == free[0, :5].tolist()
    assert (out[0, 5:] == -1).all()
    assert out[1, : 3 + where].tolist() == free[1, : 3 + where].tolist()
    first = int(free[0, 3])
    assert generate(model, [[1, 2, 3]], 6, stop_ids=[first]).tolist() == [[1, 2, 3]]


def test_log_probabilities_are_the_models_own(exact):
    steps = list(stream_tokens(exact, [[1, 2], [3, 4]], 4, 0.7, rng=Generator(1), top_k=3, logit_bias={5: -2.0}))
    texts = [[1, 2, *(int(step.ids[0]) for step in steps)], [3, 4, *(int(step.ids[1]) for step in steps)]]
    for b, text in enumerate(texts):
        np.testing.assert_allclose([step.logprobs[b] for step in steps], token_logprobs(exact, text)[1:], rtol=1e-9)
        exact.eval()
        logits = exact(np.array([text])).data[0]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        wanted = [np.log(p[t, text[t + 1]]) for t in range(len(text) - 1)]
        np.testing.assert_allclose(token_logprobs(exact, text), wanted, rtol=1e-9)
        assert all(np.isfinite(step.distribution[b]).sum() == 3 for step in steps)
    exact.train()
    assert token_logprobs(exact, texts[0]) == pytest.approx(token_logprobs(exact, texts[0]))
    for ids in ([1], [[1, 2]], list(range(14))):
        with pytest.raises(ContextLengthError, match="2 to 13 tokens"):
            token_logprobs(exact, ids)


def test_generation_leaves_the_model_in_its_mode_and_without_gradients(model):
    model.train()
    generate(model, [[1]], 2)
    assert model.training
    assert model.drop_emb.training
    assert all(p.grad is None for p in model.parameters())
    next(stream_tokens(model, [[1]], 2))
    assert model.drop_emb.training
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
    first = [int(step.ids[0]) for step in itertools.islice(stream, 4)]
    assert first == generate(model, [[1, 2]], 4)[0, 2:].tolist()


def test_no_new_tokens(model):
    assert generate(model, [[4, 5]], 0).tolist() == [[4, 5]]
    assert generate(model, [[4, 5], [6]], 0, 1.0).tolist() == [[4, 5], [6, -1]]


def test_an_overflow_can_be_refused(model):
    assert generate(model, [[1, 2]], 4, overflow="error").shape == (1, 6)
    with pytest.raises(ContextLengthError, match="2 tokens and 5 new ones, the context length is 6"):
        generate(model, [[1, 2], [1]], 5, overflow="error")
    with pytest.raises(ConfigError, match="overflow is 'slide'"):
        generate(model, [[1, 2]], 5, overflow="slide")


@pytest.mark.parametrize("strategy", [{"no_repeat_ngram": 1}, {"no_repeat_ngram": 2}])
def test_no_ngram_comes_twice(exact, strategy):
    n = strategy["no_repeat_ngram"]
    text = generate(exact, [[1, 2]], 18, **strategy)[0].tolist()
    ngrams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    assert len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2, 3], DataError, r"shapes \(\).*\(batch, tokens\)"),
        (5, DataError, "int.*\\(batch, tokens\\)"),
        ([], DataError, "shapes of nothing"),
        ([[]], DataError, r"shapes \(0,\)"),
        ([[1], []], DataError, r"\(1,\), \(0,\)"),
        (np.zeros((1, 0), int), DataError, r"\(0,\)"),
        (np.zeros((0, 3), int), DataError, "nothing"),
        ([[1, 257]], DataError, r"row 0: id 257 at position \(1,\)"),
        ([[1], [-1]], DataError, "row 1: id -1"),
        ([[1.0]], DTypeError, "integers"),
        ([[True]], DTypeError, "integers"),
        ([[[1], [2, 3]]], DataError, "ragged"),
    ],
)
def test_bad_ids(model, ids, error, message):
    with pytest.raises(error, match=message):
        generate(model, ids, 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_new_tokens": -1}, ConfigError),
        ({"max_new_tokens": 1.5}, ConfigError),
        ({"max_new_tokens": True}, ConfigError),
        ({"temperature": -0.1}, ConfigError),
        ({"top_p": 0}, ConfigError),
        ({"top_n": 3}, ConfigError),
        ({"stop_ids": [257]}, DataError),
        ({"logit_bias": {257: 1.0}}, DataError),
    ],
)
def test_bad_options_are_refused_before_the_first_token(model, options, error):
    with pytest.raises(error, match=next(iter(options))):
        stream_tokens(model, [[1]], **({"max_new_tokens": 1} | options))


# ---- one token, a stage at a time

EVERY_OPTION = {"logit_bias": {3: 1.5}, "repetition_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1,
    "no_repeat_ngram": 2, "temperature": 0.8, "top_k": 9, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9}  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 4}, EVERY_OPTION], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_the_stages_of_each_token_end_in_the_token_that_is_written(model, options, seed):
    """The stages are recomputed here from the logits alone, in the order that the book and the option's papers give."""
    written = generate(model, [[1, 2, 3]], 8, rng=Generator(seed), **options)[0, 3:].tolist()
    text, stages = [1, 2, 3], []
    for stage in explain_tokens(model, [[1, 2, 3]], 8, rng=Generator(seed), **options):
        if not isinstance(stage, Step):
            stages.append(stage)
            continue
        names = [stage.name for stage in stages]
        asked = [name for name in names if name.split(",")[0] in options and name != "temperature"]
        ending = ["temperature", "cumulative", "draw"] if options.get("temperature") else ["greedy"]
        assert set(names) == {"logits", *asked, *ending}
        assert set(options) - {"temperature"} == {part for name in asked for part in name.split(", ")}
        values = {stage.name: stage.values for stage in stages}
        assert stages[-1].values.tolist() == stage.ids.tolist() == written[len(text) - 3 : len(text) - 2]
        if "temperature" in options:
            p = np.exp(stage.scores[0].astype(float) / options["temperature"])
            np.testing.assert_allclose(np.exp(values["temperature"][0]), p / p.sum(), rtol=1e-6)
            before = [s for s in stages if s.name not in ("cumulative", "draw")][-1].values
            np.testing.assert_allclose(values["cumulative"], np.cumsum(np.exp(before), -1))
            u = stages[-1].setting[0]
            total = values["cumulative"][0, -1]
            assert np.searchsorted(values["cumulative"][0], u * total, side="right") == stage.ids[0]
        np.testing.assert_array_equal(stage.logits, values["logits"])
        text.append(int(stage.ids[0]))
        stages = []
    assert text[3:] == written
    assert not stages


def test_a_stage_keeps_its_numbers_when_the_next_one_is_made(model):
    stages, copies = [], []
    for stage in explain_tokens(model, [[1, 2, 1]], **EVERY_OPTION, rng=Generator(1)):
        if not isinstance(stage, Step):
            stages.append(stage)
            copies.append(stage.values.copy())
    assert len(stages) == 12
    for stage, copy in zip(stages, copies, strict=True):
        np.testing.assert_array_equal(stage.values, copy)


def test_a_bad_option_is_refused_before_the_first_stage(model):
    with pytest.raises(ConfigError, match="top_k"):
        explain_tokens(model, [[1]], top_k=0)
