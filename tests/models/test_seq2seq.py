"""The original Transformer: configuration, published parameter counts, initial values, masks, and the decoder with its state.

Its numbers are compared with transformers' and PyTorch's in tests/weights/test_load_marian.py and test_torch_transformer.py.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, ContextLengthError, DataError, DTypeError
from tinygrad_llm.generation import beam_search, generate
from tinygrad_llm.models import TransformerConfig, TransformerModel, preset
from tinygrad_llm.nn.positions import sinusoids
from tinygrad_llm.ops import cross_entropy
from tinygrad_llm.rng import Generator

SMALL = TransformerConfig(
    vocab_size=11, context_length=9, emb_dim=8, n_heads=2, n_layers=2, hidden_dim=5, drop_rate=0.5
)
SOURCE, TARGET = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 10]]), np.array([[0, 7, 8, 2], [0, 1, 1, 3]])
TABLES = {"all": ["tok_emb"], "target": ["tok_emb", "src_emb"], "none": ["tok_emb", "src_emb", "out_head"]}


def small(**changes):
    return dataclasses.replace(SMALL, **changes)


def made(seed=1, **changes):
    """In float64, in evaluation mode, with weights that are nowhere zero."""
    model = TransformerModel(small(**changes), rng=Generator(seed)).astype(np.float64).eval()
    stream = np.random.default_rng(seed)
    for p in model.parameters():
        p.data = p.data + 0.3 * stream.standard_normal(p.shape)
    return model


@pytest.fixture(scope="module", params=[{}, {"norm_first": True, "share": "none", "head_bias": True, "positions": "halves"}],
                ids=["as published", "pre-norm"])  # fmt: skip
def model(request):
    return made(**request.param)


def run(model, source, target, mask=None):
    with tg.no_grad():
        return model(source, target, mask).data


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


# ---- configuration


@pytest.mark.parametrize(("changes", "message"), [
    ({"n_layers": 0}, "TransformerConfig: n_layers is 0: it must be a positive integer"),
    ({"n_decoder_layers": -1}, "n_decoder_layers is -1"),
    ({"hidden_dim": 1.5}, r"hidden_dim is 1\.5"),
    ({"source_vocab_size": "3"}, "source_vocab_size is '3'"),
    ({"n_heads": 3}, "n_heads 3 does not divide emb_dim 8"),
    ({"source_vocab_size": 12}, "source_vocab_size is 12 and vocab_size 11: they share no table: use share='target' or 'none'"),
    ({"share": "both"}, "share is 'both': use one of all, target, none"),
    ({"positions": "learned"}, "positions is 'learned': use one of interleaved, halves, none"),
    ({"activation": "tanh"}, "activation is 'tanh': use one of gelu, gelu_erf, relu, silu"),
    ({"init": "zeros"}, "init is 'zeros': use one of xavier, pytorch"),
    ({"norm_first": 1}, "norm_first is 1: it must be True or False"),
    ({"final_norms": "no"}, "final_norms is 'no'"),
    ({"scale_embedding": None}, "scale_embedding is None"),
    ({"start_id": 11}, "start_id is 11: ids go to 10"),
    ({"end_id": -1}, "end_id is -1"),
    ({"pad_id": True}, "pad_id is True"),
    ({"drop_rate": 1.5}, r"drop_rate is 1\.5"),
    ({"norm_eps": -1.0}, r"norm_eps is -1\.0"),
])  # fmt: skip
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)


def test_a_config_is_plain_data():
    config = TransformerConfig(
        vocab_size=np.int64(11), emb_dim=np.int16(8), n_heads=np.uint8(2), n_decoder_layers=np.int8(1)
    )
    assert TransformerConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_a_model_that_no_laptop_holds_is_refused_before_it_is_made():
    with pytest.raises(ConfigError, match=r"parameters need .* TiB"):
        TransformerModel(TransformerConfig(emb_dim=10**7))


def test_counts_are_the_published_ones():
    """Vaswani et al. 2017 round base and big to 65M and 213M; the Annotated Transformer's make_model(11, 11, 2)."""
    assert preset("transformer-base").n_parameters() == 63_082_496
    assert preset("transformer-big").n_parameters() == 214_245_376
    annotated = TransformerConfig(11, 5000, 512, 8, 2, norm_first=True, share="none", head_bias=True)
    assert annotated.n_parameters() == 14_731_787


configs = st.builds(
    small,
    emb_dim=st.sampled_from([2, 6, 8]),
    n_layers=st.integers(1, 2),
    n_decoder_layers=st.sampled_from([None, 1, 3]),
    hidden_dim=st.sampled_from([None, 3]),
    final_norms=st.sampled_from([None, False, True]),
    norm_first=st.booleans(),
    positions=st.sampled_from(["interleaved", "halves", "none"]),
    share=st.sampled_from(["all", "target", "none"]),
    head_bias=st.booleans(),
    activation=st.sampled_from(["relu", "silu"]),
)


@given(configs, st.sampled_from([None, 13]))
def test_a_model_has_as_many_parameters_as_its_configuration_says(config, n_source):
    if config.share != "all":
        config = dataclasses.replace(config, source_vocab_size=n_source)
    model = TransformerModel(config, rng=Generator(1))
    assert model.n_parameters() == config.n_parameters()
    assert model(SOURCE, TARGET).shape == (2, 4, 11)


# ---- positions


def test_sines_and_cosines():
    """The values of width 4, by hand: sin p, cos p, sin p/100, cos p/100."""
    known = [
        [0, 1, 0, 1],
        [0.84147098, 0.54030231, 0.00999983, 0.99995000],
        [0.90929743, -0.41614684, 0.01999867, 0.99980001],
    ]
    np.testing.assert_allclose(sinusoids(3, 4), known, atol=5e-9)
    np.testing.assert_allclose(sinusoids(3, 4, "halves"), np.array(known)[:, [0, 2, 1, 3]], atol=5e-9)
    for form in ("interleaved", "halves"):
        even, odd = sinusoids(50, 8, form), sinusoids(50, 7, form)
        np.testing.assert_allclose((even**2).sum(1), 4, rtol=1e-14)  # of each pair 1
        assert odd.shape == (50, 7)
    np.testing.assert_allclose(sinusoids(50, 7)[:, ::2], sinusoids(50, 7, "halves")[:, :4], rtol=0)


def test_every_position_is_told_from_every_other():
    table = sinusoids(512, 16)
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1) + 9 * np.eye(512)
    assert distances.min() > 0.1


def test_tokens_are_scaled_and_positions_added():
    """Before the first block: √C table[id] + position, or without either."""
    for changes in ({}, {"scale_embedding": False}, {"positions": "none"}, {"positions": "halves"}):
        model = made(**changes)
        scale = math.sqrt(8) if model.config.scale_embedding else 1.0
        form = model.config.positions
        added = 0.0 if form == "none" else sinusoids(9, 8, form)[:5]
        inputs: list = []
        with model.encoder[0].on_forward(lambda module, args, out, inputs=inputs: inputs.append(args[0].data)):
            run(model, SOURCE, TARGET)
        close(inputs[0], scale * model.tok_emb.weight.data[SOURCE] + added)


# ---- initial values


def test_initial_values():
    """Matrices are uniform within ±√(6 / (I + O)), tables normal of variance 1/C; norms begin as nothing."""
    config = TransformerConfig(
        vocab_size=400, context_length=4, emb_dim=64, n_heads=2, n_layers=1, share="none", head_bias=True
    )
    model = TransformerModel(config, rng=Generator(1))
    for name, p in model.named_parameters():
        if name in ("tok_emb.weight", "src_emb.weight"):
            assert abs(p.data.std() * 8 - 1) < 0.02, name
        elif p.ndim == 2:
            bound = math.sqrt(6 / sum(p.shape))
            assert 0.98 * bound < abs(p.data).max() <= bound, name
            assert abs(p.data.std() * math.sqrt(3) / bound - 1) < 0.03, name
        elif "norm" in name:
            assert (p.data == name.endswith("scale")).all(), name
        assert p.dtype == np.float32
    plain = TransformerModel(dataclasses.replace(config, init="pytorch"), rng=Generator(1))
    assert abs(plain.tok_emb.weight.data.std() - 1) < 0.02
    assert abs(plain.decoder[0].cross_att.W_key.weight.data).max() <= 1 / 8


@pytest.mark.parametrize("share", TABLES)
def test_shared_tables_are_one(share):
    model = made(share=share)
    assert {f"{name}.weight" for name in TABLES[share]} <= {name for name, _ in model.named_parameters()}
    assert (model.src_emb.weight is model.tok_emb.weight) == (share == "all")
    assert (model.out_head.weight is model.tok_emb.weight) == (share != "none")


# ---- what a token sees


def test_a_source_without_tokens_is_as_a_memory_of_nothing(model):
    """Each token then gathers zeros, and the cross-attention adds the bias of its output alone; nothing is NaN."""
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    blind = run(model, SOURCE, TARGET, mask)
    hooks = [
        block.cross_att.on_forward(lambda module, args, out: 0 * out + module.out_proj.bias) for block in model.decoder
    ]
    without = run(model, SOURCE, TARGET)
    for hook in hooks:
        hook.remove()
    close(blind[1], without[1])
    assert abs(blind[0] - without[0]).max() > 0.01
    with np.errstate(all="raise"):
        loss = cross_entropy(model(SOURCE, TARGET, mask), targets=TARGET)
        loss.backward()
    for name, p in model.named_parameters():
        assert np.isfinite(p.grad).all(), name
    model.zero_grad()


ids = st.integers(0, 10)
texts = st.lists(ids, min_size=1, max_size=6)


@given(source=texts, target=texts, before=st.lists(ids, max_size=3), after=st.lists(ids, max_size=3))
def test_what_fills_up_changes_nothing(model, source, target, before, after):
    """Beside a longer text of either side, and whatever stands where no token is; in a source even in front."""
    expected = run(model, [source], [target])[0]
    mask = np.array([[1] * len(source) + [0] * len(after), [1] * (len(source) + len(after))])
    sources = np.array([source + after, (source + after)[::-1]])
    targets = np.array([target + after, (target + after)[::-1]])
    found = run(model, sources, targets, mask)
    np.testing.assert_allclose(found[0, : len(target)], expected, rtol=1e-11, atol=1e-11)
    assert model.config.positions != "none"  # a source that begins later has other positions, but is seen no less
    moved = run(model, [before + source], [target], [[0] * len(before) + [1] * len(source)])
    assert np.isfinite(moved).all()


@given(target=st.lists(ids, min_size=2, max_size=7), data=st.data())
def test_a_target_depends_on_no_later_token(model, target, data):
    j = data.draw(st.integers(1, len(target) - 1))
    other = [*target]
    other[j] = data.draw(ids)
    np.testing.assert_array_equal(run(model, SOURCE[:1], [target])[:, :j], run(model, SOURCE[:1], [other])[:, :j])


def test_the_gradient_of_earlier_logits_by_a_later_token_is_zero():
    model = made(share="none")
    model(SOURCE[:1], np.array([[0, 1, 2, 3]]))[:, :3].sum().backward()
    assert (model.tok_emb.weight.grad[3] == 0).all()
    assert (abs(model.tok_emb.weight.grad[:3]).max(1) > 0).all()


def test_every_token_of_a_source_is_seen_by_every_other_and_by_the_target(model):
    for j in range(5):
        other = SOURCE.copy()
        other[:, j] = 0
        memory, changed = (model.encode(source).data for source in (SOURCE, other))
        assert (abs(memory - changed).max(-1) > 1e-6).all()
        assert (abs(run(model, SOURCE, TARGET) - run(model, other, TARGET)).max(-1) > 1e-6).all()


# ---- writing with a state


pieces = st.lists(st.integers(1, 3), min_size=1, max_size=4)
sources = st.lists(texts, min_size=1, max_size=3)


def padded(rows):
    longest = max(map(len, rows))
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return np.array([row + [9] * (longest - len(row)) for row in rows]), mask


@given(rows=sources, lengths=pieces, seed=st.integers(0, 99))
def test_cached_logits_are_those_of_the_whole_however_it_is_cut(model, rows, lengths, seed):
    source, mask = padded(rows)
    target = np.random.default_rng(seed).integers(0, 11, (len(rows), min(sum(lengths), 9)))
    reading = model.reading(source, mask)
    state = reading.make_state(len(rows))
    ends = np.cumsum(lengths)
    found = [reading(part, state=state).data for part in np.split(target, ends[ends < target.shape[1]], 1)]
    expected = run(model, source, target, mask)
    close(np.concatenate(found, 1), expected)
    close(reading(target).data, expected)
    close(reading(target, last_only=True).data, expected[:, -1:])


@given(first=sources, second=sources, ages=st.tuples(st.integers(1, 3), st.integers(1, 3)), data=st.data())
def test_states_of_other_sources_join_and_rows_are_chosen(model, first, second, ages, data):
    """Each row goes on as it would by itself, whatever stands beside it, also twice."""
    rows, states, targets = first + second, [], []
    for part, age in zip((first, second), ages, strict=True):
        reading = model.reading(*padded(part))
        states.append(reading.make_state(len(part)))
        begun = [[(3 * i + len(rows)) % 11 for i in range(age)] for _ in part]
        reading(np.array(begun), state=states[-1])
        targets += begun
    states[0].append(states[1])
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
    states[0].select(chosen)
    more = np.array([[k, k + 1] for k in range(len(chosen))])
    found = reading(more, state=states[0]).data
    for k, i in enumerate(chosen):
        expected = run(model, [rows[i]], [targets[i] + more[k].tolist()])
        close(found[k], expected[0, -2:])


@settings(max_examples=8)
@given(rows=sources, stop=ids, use_cache=st.booleans())
def test_generation_from_sources_together_is_that_from_each(model, rows, stop, use_cache):
    """Rows that begin and end at different times, and targets longer than the positions."""
    source, mask = padded(rows)
    prompts = [[0, 1, 2][: 1 + i] for i in range(len(rows))]
    together = generate(model.reading(source, mask), prompts, 12, stop_ids=[stop], use_cache=use_cache)
    for row, text, prompt in zip(rows, together, prompts, strict=True):
        alone = generate(model.reading([row]), [prompt], 12, stop_ids=[stop])[0].tolist()
        assert [i for i in text.tolist() if i >= 0] == alone
        ids = prompt[:]
        for _ in range(12):  # plainly
            best = int(run(model, [row], [ids[-9:]])[0, -1].argmax())
            if best == stop:
                break
            ids.append(best)
        assert alone == ids


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_from_one_of_several_sources(model, use_cache):
    reading = model.reading(SOURCE)
    for i in range(2):
        alone = beam_search(model.reading(SOURCE[i : i + 1]), [0], 5, 3, length_penalty=0.6, stop_ids=[4])
        found = beam_search(reading.of_rows([i]), [0], 5, 3, length_penalty=0.6, stop_ids=[4], use_cache=use_cache)
        assert [h.ids for h in found] == [h.ids for h in alone]
        for hypothesis in found:  # its log-probability, read from the beginning
            ids = [0, *hypothesis.ids, *([4] if hypothesis.ended else [])]
            scores = run(model, SOURCE[i : i + 1], [ids[:-1]])[0]
            logprobs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
            np.testing.assert_allclose(hypothesis.logprob, logprobs[np.arange(len(ids) - 1), ids[1:]].sum(), rtol=1e-9)


def test_reading_drops_nothing_and_leaves_the_model_in_its_mode():
    model = made()
    expected = generate(model.reading(SOURCE), [[0], [0]], 6)
    model.train()
    for _ in range(2):
        np.testing.assert_array_equal(generate(model.reading(SOURCE), [[0], [0]], 6), expected)
    assert all(module.training for _, module in model.named_modules())
    model.eval()
    reading = model.reading(SOURCE)
    generate(reading, [[0], [0]], 2)
    assert not any(module.training for _, module in model.named_modules())


# ---- what cannot be read


@pytest.mark.parametrize(("source", "target", "mask", "error", "message"), [
    (np.ones((2, 10), int), TARGET, None, ContextLengthError, "source has 10 tokens, the positions are 9: pass a shorter text"),
    (SOURCE, np.ones((2, 10), int), None, ContextLengthError, "target has 10 tokens, the positions are 9"),
    ([[11, 1]], [[0]], None, DataError, "source: id 11"),
    (SOURCE, [[0], [-1]], None, DataError, "target: id -1"),
    ([[0.5]], [[0]], None, DTypeError, "source"),
    (np.ones((2, 0), int), TARGET, None, DataError, r"source has shape \(2, 0\): it must be \(batch, tokens\)"),
    (SOURCE, np.ones((2, 0), int), None, DataError, r"target has shape \(2, 0\)"),
    (SOURCE[0], TARGET, None, DataError, r"source has shape \(5,\)"),
    (SOURCE, TARGET[:1], None, DataError, "1 targets for 2 sources: pass one for each"),
    (SOURCE, TARGET, np.ones((2, 4)), DataError, r"source_mask is float64 \(2, 4\): it must be \(2, 5\)"),
    (SOURCE, TARGET, np.full((2, 5), 2), DataError, "source_mask is int64"),
])  # fmt: skip
def test_what_cannot_be_read_is_refused(model, source, target, mask, error, message):
    with pytest.raises(error, match=message):
        model(source, target, mask)


def test_a_reading_writes_as_many_rows_as_it_has_sources(model):
    reading = model.reading(SOURCE)
    with pytest.raises(DataError, match="3 rows for 2 sources"):
        generate(reading, [[0]] * 3, 2)
    with pytest.raises(DataError, match="1 rows for 2 sources"):
        beam_search(reading, [0], 2, 2)
    with pytest.raises(DataError, match="1 rows for 2 sources: write one target for each source"):
        reading.make_state()
    with pytest.raises(DataError, match="1 targets for 2 sources"):
        reading(np.array([[0]]), state=reading.make_state(2))
    with pytest.raises(ContextLengthError, match="1 tokens and 9 new ones, the context length is 9"):
        generate(reading, [[0], [0]], 9, overflow="error")
    state = reading.make_state(2, capacity=2)
    with pytest.raises(ContextLengthError, match="0 tokens and 3 more, there is room for 2"):
        reading(np.array([[0, 1, 2]] * 2), state=state)
