"""What must hold for every input and every seed: no stored number, no second implementation, only properties of the maths.

Each of these has been seen to fail when the line that it watches is broken. Letters: B batch, T queries, S keys, C features,
V classes.
"""

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm import ops
from tinygrad_llm.errors import GraphError
from tinygrad_llm.models import LanguageModel, architectures, make_model
from tinygrad_llm.nn.lora import LoRAConfig, inject, merge, unmerge
from tinygrad_llm.optim import SGD, AdamW, clip_grad_norm
from tinygrad_llm.rng import Generator
from tinygrad_llm.testing import strategies
from tinygrad_llm.testing.strategies import arrays, causal_masks, shapes, tensors, token_batches
from tinygrad_llm.training.step import loss_and_gradients, shard_batch, train_step

FINITE = ("generic", "spaced", "near_ties", "constant")
seeds = st.integers(0, 2**32 - 1)
rows = shapes(min_dims=1, max_dims=3, max_side=5)  # the last axis is the one that is normalised
wide_rows = st.tuples(st.integers(1, 3), st.integers(2, 6))
scales = st.sampled_from([0.25, 3.0, 100.0])
shifts = st.sampled_from([-50.0, 0.5, 7.0])
close = {"rtol": 1e-9, "atol": 1e-12}


def made(config, seed):
    return make_model(config.architecture, config, Generator(seed)).astype(np.float64).eval()


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- language models


@st.composite
def models_and_ids(draw, **fixed):
    """A model in float64, of any architecture, and ids (B, T) that fit it."""
    architecture = draw(st.sampled_from(architectures(LanguageModel)))
    config = draw(strategies.model_configs(architecture, 4000, **{"emb_dim": 8, "context_length": 6} | fixed))
    return made(config, draw(seeds)), draw(token_batches(config.vocab_size, config.context_length))


def rounding(model):
    """What a later token may change, of the largest number: nothing, but for what a Fourier transform leaves."""
    return 1e-12 if hasattr(model.config, "order") else 0


@given(models_and_ids(), st.data())
def test_logits_do_not_depend_on_the_future(model_and_ids, data):
    model, ids = model_and_ids
    t = data.draw(st.integers(0, ids.shape[1] - 1), "t")
    changed = ids.copy()
    changed[:, t + 1 :] = model.config.vocab_size - 1 - ids[:, t + 1 :]
    with tg.no_grad():
        logits = model(ids).data  # (B, T, V)
        assert np.isfinite(logits).all()
        left = rounding(model) * np.abs(logits).max()
        np.testing.assert_allclose(model(changed).data[:, : t + 1], logits[:, : t + 1], rtol=0, atol=left)
        np.testing.assert_allclose(model(ids[:, : t + 1]).data, logits[:, : t + 1], **close)


@given(models_and_ids(), st.data())
def test_no_gradient_flows_to_the_future(model_and_ids, data):
    model, ids = model_and_ids
    t = data.draw(st.integers(0, ids.shape[1] - 1), "t")
    window_of = getattr(model.config, "window_of", lambda layer: None)
    windows = [window_of(layer) for layer in range(model.config.n_layers)]
    reach = t + 1 if None in windows else sum(w - 1 for w in windows) + 1  # tokens back to which t can see
    read = {}
    model.tok_emb.forward = lambda ids: read.setdefault(
        "x", tg.Tensor(model.tok_emb.weight.data[ids], requires_grad=True)
    )
    logits = model(ids)
    (logits[:, t] * normal(0, logits.shape[::2])).sum().backward()
    per_position = np.abs(read["x"].grad).max((0, 2))  # (T,)
    left = rounding(model) * per_position.max()
    assert np.all(per_position[max(0, t + 1 - reach) : t + 1] > left)
    assert np.all(per_position[: max(0, t + 1 - reach)] <= left)
    assert np.all(per_position[t + 1 :] <= left)


@given(models_and_ids())
def test_a_sequence_does_not_depend_on_the_others_of_its_batch(model_and_ids):
    model, ids = model_and_ids
    with tg.no_grad():
        logits = model(ids).data
        for i in range(len(ids)):
            np.testing.assert_allclose(model(ids[i : i + 1]).data[0], logits[i], **close)


@given(models_and_ids(), st.data())
def test_texts_read_in_pieces_into_one_state_give_what_they_give_whole(model_and_ids, data):
    """Rows of different ages: each has begun by itself with some of its tokens, before they go on side by side."""
    model, ids = model_and_ids
    n = ids.shape[1]
    rest = data.draw(st.integers(1, n), "tokens that they read side by side")
    ages = [data.draw(st.integers(0, n - rest), "age") for _ in ids]
    with tg.no_grad():
        states, expected = [model.make_state(1) for _ in ids], []
        for state, row, age in zip(states, ids, ages, strict=True):
            if age:
                model(row[None, :age], state=state)
            expected.append(model(row[None, : age + rest]).data[0, age:])
        state = states[0]
        for younger in states[1:]:
            state.append(younger)
        together = np.array([row[age : age + rest] for row, age in zip(ids, ages, strict=True)])  # (B, rest)
        found, start = [], 0
        while start < rest:
            n_tokens = data.draw(st.integers(1, rest - start), "piece")
            found.append(model(together[:, start : start + n_tokens], state=state).data)
            start += n_tokens
    np.testing.assert_allclose(np.concatenate(found, 1), expected, rtol=1e-12, atol=1e-12)


@given(models_and_ids(), st.sampled_from([("attn",), ("ff.*",), ("trf_blocks.*",)]), seeds)
def test_lora_is_nothing_at_the_start_and_what_it_learned_can_be_merged(model_and_ids, targets, seed):
    model, ids = model_and_ids
    with tg.no_grad():
        base = model(ids).data
        inject(model, LoRAConfig(r=2, targets=targets), Generator(seed))
        np.testing.assert_array_equal(model(ids).data, base)
        for name, p in model.named_parameters():
            if name.endswith("lora_B"):
                p.data = normal(seed, p.shape)
        beside = model(ids).data
        merge(model)
        np.testing.assert_allclose(model(ids).data, beside, rtol=1e-9, atol=1e-11)
        unmerge(model)
        np.testing.assert_array_equal(model(ids).data, beside)


@given(models_and_ids(tie_weights=True), seeds)
def test_the_gradient_of_a_tied_weight_is_the_sum_of_both_uses(model_and_ids, seed):
    tied, ids = model_and_ids
    untied = made(dataclasses.replace(tied.config, tie_weights=False), 0)
    untied.load_state_dict({**tied.state_dict(), "out_head.weight": tied.tok_emb.weight.data})
    g = normal(seed, (*ids.shape, tied.config.vocab_size))
    for model in (tied, untied):
        (model(ids) * g).sum().backward()
    expected = {name: p.grad for name, p in untied.named_parameters()}
    expected["tok_emb.weight"] = expected["tok_emb.weight"] + expected.pop("out_head.weight")
    for name, p in tied.named_parameters():
        np.testing.assert_allclose(p.grad, expected.pop(name), **close, err_msg=name)
    assert not expected


@given(models_and_ids(), seeds, seeds)
def test_gradients_are_linear_in_what_comes_back(model_and_ids, first, second):
    model, ids = model_and_ids
    logits = model(ids)
    f, g = normal(first, logits.shape), normal(second, logits.shape)
    found = []
    for back in (f, g, 2 * f - 3 * g):
        found.append({})
        logits.backward(back, retain_graph=True, into=found[-1])
    largest = max(np.abs(g).max() for of_one in found for g in of_one.values())
    for p, of_both in found[2].items():
        np.testing.assert_allclose(of_both, 2 * found[0][p] - 3 * found[1][p], rtol=1e-9, atol=1e-12 * largest)


@st.composite
def batches(draw):
    """A model, ids and targets (B, T) of which some are -100, ignored; at least one counts."""
    model, ids = draw(models_and_ids())
    targets = draw(seeds.map(lambda seed: np.random.default_rng(seed).integers(0, model.config.vocab_size, ids.shape)))
    targets[draw(strategies.arrays(ids.shape)) > 0.5] = -100
    assume((targets != -100).any())
    return model, ids, targets


@given(batches())
def test_accumulated_gradients_equal_those_of_the_big_batch_counted_by_tokens(batch):
    model, ids, targets = batch
    ops.cross_entropy(model(ids), targets=targets).backward()
    whole = {p: p.grad for p in model.parameters()}
    model.zero_grad()
    n = (targets != -100).sum()
    for i in range(len(ids)):  # one sequence at a time, each weighted by how many of its tokens count
        if (counted := (targets[i] != -100).sum()) > 0:
            (ops.cross_entropy(model(ids[i : i + 1]), targets=targets[i : i + 1]) * (counted / n)).backward()
    for p, g in whole.items():
        np.testing.assert_allclose(p.grad, g, rtol=1e-9, atol=1e-13)


@given(batches())
def test_a_batch_in_shards_equals_the_batch_whole(batch):
    model, ids, targets = batch
    loss = ops.cross_entropy(model(ids), targets=targets)
    loss.backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # not even where one of the shards has nothing that counts
        sharded, gradients = loss_and_gradients(model, list(model.parameters()), (ids, targets), shard_batch(ids))
    assert sharded == pytest.approx(loss.item(), rel=1e-12)
    for p in model.parameters():
        np.testing.assert_allclose(gradients[p], p.grad, rtol=1e-9, atol=1e-13)


@given(models_and_ids())
def test_a_batch_in_which_nothing_counts_says_so_once_and_has_no_gradient(model_and_ids):
    model, ids = model_and_ids
    with pytest.warns(UserWarning, match="every target is ignored") as warned:
        loss, gradients = loss_and_gradients(model, [], (ids, np.full(ids.shape, -100)), shard_batch(ids))
    assert len(warned) == 1
    assert loss == 0
    assert all(np.all(g == 0) for g in gradients.values())


@given(batches(), st.integers(1, 3), st.sampled_from([lambda ps: AdamW(ps, lr=0.01), lambda ps: SGD(ps, 0.01, 0.9)]))
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(batch, steps, make):
    whole, ids, targets = batch
    optimizer = make(whole.parameters())
    for _ in range(steps):
        train_step(whole, optimizer, ids, targets, max_norm=1.0, threads=1)
    resumed = made(whole.config, 99)
    resumed.load_state_dict(whole.state_dict())
    other = make(resumed.parameters())
    other.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        losses = [
            train_step(m, o, ids, targets, max_norm=1.0, threads=1) for m, o in ((whole, optimizer), (resumed, other))
        ]
        assert losses[0] == losses[1]
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data)


@given(models_and_ids(), st.integers(1, 12), st.booleans())
def test_a_walk_that_was_abandoned_never_leads_to_wrong_gradients(model_and_ids, n, reuse):
    """A debugger that stops half way: the same loss again is either refused or right."""
    model, ids = model_and_ids

    def make_loss():
        return ops.cross_entropy(model(ids), targets=ids)

    make_loss().backward()
    right = {p: p.grad for p in model.parameters()}
    model.zero_grad()
    loss = make_loss()
    for _, _step in zip(range(n), loss.backward_steps(reuse=reuse), strict=False):
        pass
    assert all(p.grad is None for p in model.parameters())
    try:
        loss.backward()
    except GraphError:
        assert all(p.grad is None for p in model.parameters())
    else:
        for p, g in right.items():
            np.testing.assert_array_equal(p.grad, g)


# ---- attention


@st.composite
def queries_keys_values(draw, n_queries=None, n_keys=None, batch=None):
    """q (B, T, H d), k and v (B, S, H_kv d), and the options of the heads."""
    group, n_kv_heads, d = (draw(st.integers(1, most)) for most in (3, 2, 3))
    b, t, s = (x or draw(st.integers(1, most)) for x, most in ((batch, 2), (n_queries, 5), (n_keys, 5)))
    q, k, v = (
        draw(tensors((b, n, heads * d))) for n, heads in ((t, group * n_kv_heads), (s, n_kv_heads), (s, n_kv_heads))
    )
    return q, k, v, {"n_heads": group * n_kv_heads, "n_kv_heads": n_kv_heads}


@given(queries_keys_values(), st.data())
def test_attention_is_a_function_of_the_set_of_keys_and_follows_the_order_of_queries(qkv, data):
    q, k, v, heads = qkv
    queries = data.draw(st.permutations(range(q.shape[1])), "queries")
    keys = data.draw(st.permutations(range(k.shape[1])), "keys")
    y = ops.attention(q, k, v, causal=False, **heads).data
    moved = ops.attention(q[:, queries], k[:, keys], v[:, keys], causal=False, **heads).data
    np.testing.assert_allclose(moved, y[:, queries], **close)


@given(queries_keys_values(), shifts)
def test_attention_does_not_notice_one_vector_added_to_all_keys(qkv, shift):
    q, k, v, heads = qkv
    y = ops.attention(q, k, v, causal=False, **heads)
    np.testing.assert_allclose(
        ops.attention(q, k + shift, v, causal=False, **heads).data, y.data, rtol=1e-9, atol=1e-10
    )
    (y * normal(1, y.shape)).sum().backward()
    np.testing.assert_allclose(k.grad.sum(1), 0, atol=1e-12)  # hence, Σ over the keys


@given(queries_keys_values(), st.sampled_from([0.5, -2.0, 1e6]))
def test_attention_is_linear_in_its_values_and_keeps_their_mean(qkv, factor):
    q, k, v, heads = qkv
    y = ops.attention(q, k, v, causal=False, **heads).data
    scaled = ops.attention(q, k, v * factor, causal=False, **heads).data
    np.testing.assert_allclose(scaled, y * factor, rtol=1e-9, atol=abs(factor) * 1e-12)
    ones = ops.attention(q, k, np.ones(v.shape), causal=False, **heads).data
    np.testing.assert_allclose(ones, 1, rtol=1e-12)  # the weights of a query sum to 1


@given(causal_masks(), st.data(), st.sampled_from([1e3, 1e300]))
def test_what_is_masked_is_not_there(mask, data, junk):
    b, _, t, s = mask.shape
    q, k, v, heads = data.draw(queries_keys_values(t, s, b))
    y = ops.attention(q, k, v, mask=mask, **heads)
    (y * normal(1, y.shape)).sum().backward()
    blind, unseen = ~mask.any((1, 3)), ~mask.any((1, 2))  # (B, T) queries without a key, (B, S) keys without a query
    assert np.all(y.data[blind] == 0)
    assert np.all(q.grad[blind] == 0)
    assert np.all(k.grad[unseen] == 0)
    assert np.all(v.grad[unseen] == 0)
    if s > 1 and not blind.all():  # unless one key is all that a query sees, its score does not count
        assert np.any(v.grad != 0)
    hidden = k.data.copy(), v.data.copy()
    for x in hidden:
        x[unseen] = junk
    np.testing.assert_array_equal(ops.attention(q.data, *hidden, mask=mask, **heads).data, y.data)
    np.testing.assert_array_equal(ops.attention(q.data, k.data, v.data, mask=mask, causal=False, **heads).data, y.data)


@given(queries_keys_values(), st.data())
def test_attention_in_padding_equals_attention_without(qkv, data):
    q, k, v, heads = qkv
    before, after = (data.draw(st.integers(0, 3), name) for name in ("before", "after"))
    pad = ((0, 0), (before, after), (0, 0))
    padded = [np.pad(x.data, pad, constant_values=9.0) for x in (k, v)]
    mask = np.pad(np.ones(k.shape[1], bool), pad[1])  # (S,)
    y = ops.attention(q, k, v, causal=False, **heads).data
    np.testing.assert_allclose(ops.attention(q.data, *padded, causal=False, mask=mask, **heads).data, y, **close)


# ---- normalisation


@given(arrays(wide_rows, regime="spaced"), scales, shifts, seeds)
def test_layer_norm_does_not_notice_shift_and_scale(x, a, b, seed):
    scale, shift = normal(seed, (2, x.shape[-1]))
    x = tg.Tensor(x, requires_grad=True)
    y = ops.layer_norm(x, scale, shift, eps=0.0)
    np.testing.assert_allclose(ops.layer_norm(a * x.data + b, scale, shift, eps=0.0).data, y.data, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(ops.layer_norm(-x.data, scale, shift, eps=0.0).data, 2 * shift - y.data, **close)
    (y * normal(seed, y.shape)).sum().backward()
    np.testing.assert_allclose(x.grad.sum(-1), 0, atol=1e-11)  # hence no gradient along a shift
    np.testing.assert_allclose((x.grad * x.data).sum(-1), 0, atol=1e-11)  # nor along a scale


@given(arrays(wide_rows, regime="spaced"), scales, seeds)
def test_rms_norm_does_not_notice_scale(x, a, seed):
    scale = normal(seed, x.shape[-1])
    x = tg.Tensor(x, requires_grad=True)
    y = ops.rms_norm(x, scale, eps=0.0)
    np.testing.assert_allclose(ops.rms_norm(a * x.data, scale, eps=0.0).data, y.data, **close)
    (y * normal(seed, y.shape)).sum().backward()
    np.testing.assert_allclose((x.grad * x.data).sum(-1), 0, atol=1e-11)


@given(arrays(wide_rows, regime=FINITE), scales)
def test_normalised_rows_have_mean_0_and_a_variance_below_1(x, a):
    z = ops.layer_norm(a * x, np.ones(x.shape[-1]), np.zeros(x.shape[-1]), eps=1e-5).data
    variance = (a * x).var(-1)
    np.testing.assert_allclose(z.mean(-1), 0, atol=1e-9)
    np.testing.assert_allclose(z.var(-1), variance / (variance + 1e-5), atol=1e-9)
    square = np.square(a * x).mean(-1)
    z = ops.rms_norm(a * x, np.ones(x.shape[-1]), eps=1e-5).data
    np.testing.assert_allclose(np.square(z).mean(-1), square / (square + 1e-5), **close)


# ---- softmax and cross-entropy


@given(tensors(rows, regime=FINITE, layout=strategies.LAYOUTS[:-1]), shifts, seeds)
def test_softmax_does_not_notice_a_shift(x, b, seed):
    axis = int(np.random.default_rng(seed).integers(-x.ndim, x.ndim))
    p, log_p = ops.softmax(x, axis=axis), ops.log_softmax(x, axis=axis)
    np.testing.assert_allclose(ops.softmax(x.data + b, axis=axis).data, p.data, rtol=1e-10)
    np.testing.assert_allclose(ops.log_softmax(x.data + b, axis=axis).data, log_p.data, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(ops.logsumexp(x.data + b, axis=axis).data, ops.logsumexp(x, axis=axis).data + b, **close)
    np.testing.assert_allclose(p.data.sum(axis), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_p.data), p.data, rtol=1e-10)
    for y in (p, log_p):
        into = {}
        y.backward(normal(seed, y.shape), into=into)
        np.testing.assert_allclose(into[x].sum(axis), 0, atol=1e-12)


@given(tensors(rows, regime=FINITE), seeds)
def test_the_gradient_of_logsumexp_is_softmax(x, seed):
    y = ops.logsumexp(x, axis=-1)
    g = normal(seed, y.shape)
    y.backward(g)
    np.testing.assert_allclose(x.grad, np.expand_dims(g, -1) * ops.softmax(x.data).data, rtol=1e-10)
    np.testing.assert_allclose(x.grad.sum(-1), g, rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_softmax_of_masked_rows_is_zero_and_never_nan(dtype, data):
    x = data.draw(tensors(rows, dtype, "masked_rows"))
    p = ops.softmax(x)
    masked = x.data == -math.inf
    assert p.dtype == dtype
    assert np.all(p.data[masked] == 0)
    empty = masked.all(-1)
    np.testing.assert_allclose(p.data.sum(-1), np.where(empty, 0, 1), rtol=1e-5)
    p.backward(normal(1, p.shape))
    assert np.all(x.grad[masked] == 0)
    assert np.all(np.isfinite(x.grad))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_softmax_of_huge_and_tiny_numbers_is_a_distribution(dtype, data):
    x = data.draw(tensors(rows, dtype, ("huge", "tiny")))
    for y in (ops.softmax(x), ops.log_softmax(x).exp()):
        np.testing.assert_allclose(y.data.sum(-1), 1, rtol=1e-5)
        into = {}
        y.backward(normal(1, y.shape), into=into)
        assert np.all(np.isfinite(into[x]))


@st.composite
def logits_and_targets(draw, regime=FINITE):
    """Logits (..., V) and targets (...), of which some may be -100."""
    x = draw(tensors(rows, regime=regime))
    rng = np.random.default_rng(draw(seeds))
    targets = np.where(rng.random(x.shape[:-1]) < 0.3, -100, rng.integers(0, x.shape[-1], x.shape[:-1]))
    assume((targets != -100).any())
    return x, targets


smoothings = st.sampled_from([0.0, 0.1, 1.0])


@given(logits_and_targets(regime="constant"), smoothings)
def test_the_loss_of_uniform_logits_is_the_log_of_their_number(pair, label_smoothing):
    x, targets = pair
    loss = ops.cross_entropy(x, targets=targets, label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(math.log(x.shape[-1]), rel=1e-12, abs=1e-12)


@given(logits_and_targets(), smoothings, shifts, seeds)
def test_cross_entropy_knows_neither_shift_nor_the_names_of_classes(pair, label_smoothing, b, seed):
    x, targets = pair
    options = {"label_smoothing": label_smoothing}
    loss = ops.cross_entropy(x, targets=targets, **options)
    assert ops.cross_entropy(x.data + b, targets=targets, **options).item() == pytest.approx(
        loss.item(), rel=1e-10, abs=1e-12
    )
    order = np.random.default_rng(seed).permutation(x.shape[-1])
    renamed = np.where(targets == -100, -100, np.argsort(order)[np.maximum(targets, 0)])
    assert ops.cross_entropy(x.data[..., order], targets=renamed, **options).item() == pytest.approx(
        loss.item(), rel=1e-10, abs=1e-12
    )
    loss.backward()
    np.testing.assert_allclose(x.grad.sum(-1), 0, atol=1e-12)
    if label_smoothing == 0:  # the loss falls when a counted target's logit rises
        at_target = np.take_along_axis(x.grad, np.maximum(targets, 0)[..., None], -1)[..., 0]
        assert np.all(at_target[targets != -100] < 0) or x.shape[-1] == 1


@given(logits_and_targets(), smoothings)
def test_ignored_targets_are_not_there(pair, label_smoothing):
    x, targets = pair
    counted = targets != -100
    loss = ops.cross_entropy(x, targets=targets, label_smoothing=label_smoothing)
    alone = tg.Tensor(x.data[counted], requires_grad=True)  # (n, V)
    same = ops.cross_entropy(alone, targets=targets[counted], label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(same.item(), rel=1e-12, abs=1e-13)
    loss.backward()
    same.backward()
    np.testing.assert_allclose(x.grad[counted], alone.grad, rtol=1e-12)
    assert np.all(x.grad[~counted] == 0)


@given(logits_and_targets(), smoothings)
def test_the_three_reductions_agree(pair, label_smoothing):
    x, targets = pair
    each, total, mean = (
        ops.cross_entropy(x, targets=targets, label_smoothing=label_smoothing, reduction=how).data
        for how in ("none", "sum", "mean")
    )
    assert each.sum() == pytest.approx(total, rel=1e-12)
    assert total / (targets != -100).sum() == pytest.approx(mean, rel=1e-12)


# ---- dropout, clipping, optimizers


@given(tensors(regime="spaced"), st.floats(0, 0.9), seeds)
def test_dropout_keeps_or_drops_and_its_gradient_likewise(x, p, seed):
    y = ops.dropout(x, drop_rate=p, rng=np.random.default_rng(seed))
    kept = y.data != 0
    np.testing.assert_allclose(y.data, np.where(kept, x.data / (1 - p), 0), rtol=1e-12)
    y.backward(x.data)
    np.testing.assert_array_equal(x.grad, y.data)  # the same factors, and g is x
    if p == 0:
        assert kept.all()


@given(st.lists(arrays((3,)), min_size=1, max_size=3), st.floats(0.01, 10))
def test_clipping_changes_the_length_and_never_the_direction(gradients, max_norm):
    leaves = [tg.Tensor(np.zeros(3), requires_grad=True) for _ in gradients]
    for leaf, g in zip(leaves, gradients, strict=True):
        leaf.grad = g.copy()
    before = np.concatenate(gradients)
    norm = clip_grad_norm(leaves, max_norm)
    after = np.concatenate([leaf.grad for leaf in leaves])
    assert norm == pytest.approx(np.sqrt(before @ before), rel=1e-12)
    assert np.sqrt(after @ after) <= min(norm, max_norm) * (1 + 1e-12)
    assert after @ before == pytest.approx(np.sqrt(after @ after) * norm, rel=1e-12)
    if norm < max_norm * (1 - 1e-3):
        np.testing.assert_array_equal(after, before)


@given(st.lists(arrays((4,), regime="spaced"), min_size=1, max_size=4), st.sampled_from([1e-4, 3.0, 1e6]))
def test_adamw_does_not_notice_the_scale_of_all_gradients(gradients, factor):
    found = []
    for scale in (1.0, factor):
        p = tg.Tensor(np.ones(4), requires_grad=True)
        optimizer = AdamW([p], lr=0.1, weight_decay=0.0, eps=0.0)
        path = []
        for g in gradients:
            p.grad = scale * g
            optimizer.step()
            path.append(p.data.copy())
        found.append(path)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)
    np.testing.assert_allclose(found[0][0], 1 - 0.1 * np.sign(gradients[0]), rtol=1e-10)  # the first step is ±lr


@given(st.lists(arrays((4,)), min_size=1, max_size=4), st.sampled_from([0.01, 0.5]))
def test_adamws_decay_is_apart_from_its_step(gradients, decay):
    """Without gradients only the decay is left: p (1 - lr decay)^n; with them, the step is the one without decay."""
    p, q, r = (tg.Tensor(np.full(4, 2.0), requires_grad=True) for _ in range(3))
    a, b, c = (AdamW([x], lr=0.1, weight_decay=w) for x, w in ((p, decay), (q, 0.0), (r, decay)))
    for g in gradients:
        before, without = p.data.copy(), q.data.copy()
        p.grad, q.grad, r.grad = g.copy(), g.copy(), np.zeros(4)
        for optimizer in (a, b, c):
            optimizer.step()
        np.testing.assert_allclose(p.data - before * (1 - 0.1 * decay), q.data - without, rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(r.data, 2 * (1 - 0.1 * decay) ** len(gradients), rtol=1e-12)
