"""A frozen parameter costs a step nothing: no gradient, no product for one, no activation kept for one, no moments, no change."""

import math

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.models import make_model
from tinygrad_llm.ops import matrix
from tinygrad_llm.optim import AdamW, decay_groups
from tinygrad_llm.rng import Generator
from tinygrad_llm.tape.node import recorded
from tinygrad_llm.training import train_step
from tinygrad_llm.training.step import frozen_parameters

SIZES = {"vocab_size": 17, "context_length": 8, "emb_dim": 12, "n_heads": 3, "n_layers": 2, "drop_rate": 0.0}
IDS = np.arange(16).reshape(2, 8) % 17


def make(trained=("trf_blocks.1.", "final_norm", "out_head")):
    """The book's way to tune: the last block, the last norm and the head learn."""
    model = make_model("gpt", SIZES, Generator(3))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(trained)
    return model


def saved(loss):
    """node -> the bytes of the arrays it keeps that are no parameters."""
    return {n: [a for a in n.saved or () if isinstance(a, np.ndarray)] for n in recorded(loss.node)}


def test_only_wanted_products_are_computed(monkeypatch):
    model, made = make(("trf_blocks.1.ff.layers.0",)), []
    product = matrix.product
    monkeypatch.setattr(matrix, "product", lambda a, b: made.append((a.shape, b.shape)) or product(a, b))
    loss = tg.ops.cross_entropy(model(IDS), targets=IDS)
    made.clear()
    loss.backward()
    # Back through the head and ff.layers.2 to their inputs, and the one gradient that is wanted.
    assert made == [((16, 17), (17, 12)), ((16, 12), (12, 48)), ((48, 16), (16, 12))]
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "trf_blocks.1.ff.layers.0.weight",
        "trf_blocks.1.ff.layers.0.bias",
    ]


def test_no_activation_is_kept_for_a_frozen_weight():
    layer = nn.Linear(5, 3, rng=Generator(1))
    x = tg.Tensor(np.ones((4, 5), np.float32), requires_grad=True)
    (kept, *_) = layer(x).node.saved
    assert kept is x.data
    layer.weight.requires_grad = False
    y = layer(x)
    assert y.node.saved[0] is None
    y.sum().backward()
    np.testing.assert_allclose(x.grad, np.tile(layer.weight.data.sum(0), (4, 1)), rtol=1e-6)
    np.testing.assert_array_equal(layer.bias.grad, [4, 4, 4])


def test_the_input_of_a_frozen_feed_forward_is_freed():
    loss = tg.ops.cross_entropy(make(("trf_blocks.0.norm1",))(IDS), targets=IDS)
    wide = [
        a for node, arrays in saved(loss).items() if node.op.name == "linear" for a in arrays if a.shape == (2, 8, 48)
    ]
    assert wide == []
    loss = tg.ops.cross_entropy(make(("trf_blocks",))(IDS), targets=IDS)
    wide = [
        a for node, arrays in saved(loss).items() if node.op.name == "linear" for a in arrays if a.shape == (2, 8, 48)
    ]
    assert len(wide) == 2


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_norms_leave_out_the_frozen_scale(norm):
    layer, g = norm(5).astype(np.float64), np.arange(20.0).reshape(4, 5)
    x = tg.Tensor(np.sin(g), requires_grad=True)
    layer(x).backward(g)
    wanted, x.grad = x.grad, None
    for parameter in layer.parameters():
        parameter.requires_grad, parameter.grad = False, None
    (step,) = layer(x).backward_steps(g)
    assert [d is None for d in step.gradients] == [False] + [True] * (len(step.gradients) - 1)
    np.testing.assert_array_equal(step.gradients[0], wanted)


def test_gradients_are_those_of_the_whole_model():
    some, every = make(), make_model("gpt", SIZES, Generator(3))
    for model in (some, every):
        tg.ops.cross_entropy(model(IDS), targets=IDS).backward()
    wanted = dict(every.named_parameters())
    for name, parameter in some.named_parameters():
        if parameter.requires_grad:
            np.testing.assert_array_equal(parameter.grad, wanted[name].grad, err_msg=name)
        else:
            assert parameter.grad is None


def test_a_checkpointed_block_of_frozen_inputs_gives_the_same():
    plain, saving = make(), make()
    saving.checkpoint_blocks = True
    for model in (plain, saving):
        tg.ops.cross_entropy(model(IDS), targets=IDS).backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_leaves_frozen_weights_alone_and_writable(threads):
    model = make()
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    optimizer = AdamW(decay_groups(model.parameters(), "matrices"), lr=0.1, weight_decay=0.5)
    assert {id(p) for p in optimizer.parameters()} == {id(p) for p in model.parameters() if p.requires_grad}
    frozen = frozen_parameters(model)
    assert {id(p) for p in frozen} == {id(p) for p in model.parameters() if not p.requires_grad}
    for _ in range(2):
        train_step(model, optimizer, IDS, np.roll(IDS, -1, 1), max_norm=math.inf, threads=threads)
    for name, p in model.named_parameters():
        assert np.array_equal(p.data, before[name]) == (not p.requires_grad), name
        assert p.data.flags.writeable
    assert sum(a.size for a in optimizer.state_dict()["moments"].values()) == 2 * sum(
        p.size for p in optimizer.parameters()
    )


def test_frozen_weights_are_locked_during_a_step(monkeypatch):
    """So the tape takes no fingerprint of them, and nobody changes them under a shard."""
    model, seen = make(), []
    features = model.features
    monkeypatch.setattr(
        model, "features", lambda ids, **k: seen.append(model.tok_emb.weight.data.flags.writeable) or features(ids, **k)
    )
    optimizer = AdamW(decay_groups(model.parameters()), lr=0.1)
    train_step(model, optimizer, IDS, IDS, threads=1)
    assert seen == [False, False]
