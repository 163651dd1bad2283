"""Checkpointing changes what is kept, and nothing else."""

import gc
import tracemalloc

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.nn import FeedForward, Linear, Sequential, TransformerBlock, checkpoint
from tinygrad_llm.tape.observer import Observer
from tinygrad_llm.training import train_step


def make_block(drop_rate=0.3):
    tg.manual_seed(1)
    return TransformerBlock(16, 2, 8, drop_rate)


def run(block, call):
    """Output and all gradients of call(block, x), from the same seed and cotangent each time."""
    rng = np.random.default_rng(2)
    x = tg.Tensor(rng.standard_normal((2, 8, 16)).astype(np.float32), requires_grad=True)
    block.zero_grad()
    tg.manual_seed(3)
    y = call(block, x)
    y.backward(rng.standard_normal(y.shape))
    return [y.data, x.grad, *(p.grad for p in block.parameters())]


def plainly(block, x):
    seed = tg.rng.get_generator().random64()
    with tg.rng.use_generator(tg.rng.Generator(seed)):
        return block(x)


@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_values_and_gradients_are_the_same_bits(drop_rate):
    block = make_block(drop_rate)
    for ours, expected in zip(run(block, checkpoint), run(block, plainly), strict=True):
        assert ours.tobytes() == expected.tobytes()


def test_composed_values_and_gradients_are_the_same():
    block = make_block()
    expected = run(block, plainly)
    with tg.composed():
        for ours, other in zip(run(block, checkpoint), expected, strict=True):
            np.testing.assert_allclose(ours, other, rtol=2e-4, atol=1e-5)


def test_frozen_parameters_and_inputs_get_no_gradient():
    block = make_block()
    block.norm1.scale.requires_grad = False
    x = tg.Tensor(np.ones((1, 8, 16), np.float32))
    checkpoint(block, x).sum().backward()
    assert x.grad is None
    assert block.norm1.scale.grad is None
    assert block.norm2.scale.grad is not None


def checked(block, x):
    """The verdict on a checkpointed block, and what was seen of the check from outside."""
    seen = []

    class Watch(Observer):
        def before_forward(self, op):
            seen.append(op.name)

    (step,) = checkpoint(block, x).backward_steps(np.random.default_rng(5).standard_normal(x.shape), into={})
    with Watch():
        assert step.walk.inputs(step.node)[0] is x.data  # after the forward has run again
        verdict = step.check()
    assert seen == []
    return verdict


@pytest.mark.parametrize("drop_rate", [0.0, 0.3])
def test_a_step_of_a_checkpointed_block_is_checked(drop_rate):
    block = make_block(drop_rate)
    x = tg.Tensor(np.random.default_rng(2).standard_normal((1, 4, 16)).astype(np.float32), requires_grad=True)
    before = {name: (p.data, p.data.copy()) for name, p in block.named_parameters()}
    verdict = checked(block, x)
    assert verdict.verdict == "ok", str(verdict)
    assert verdict.name == "checkpoint#1"
    assert verdict.compared > 8 * len(before)
    for name, p in block.named_parameters():
        assert p.data is before[name][0]
        assert p.grad is None
        np.testing.assert_array_equal(p.data, before[name][1])
    block.ff.on_forward(lambda module, args, out: out * 2)  # a part of what the block computes
    block.norm1.scale.requires_grad = False
    verdict = checked(block, x)
    assert verdict.verdict == "ok", str(verdict)


def test_what_is_wrong_in_a_checkpointed_block_is_found():
    feed_forward = FeedForward(3)
    feed_forward.layers[1].on_backward(lambda module, g: 1.01 * g)
    verdict = checked(feed_forward, tg.Tensor(np.ones((2, 3), np.float32), requires_grad=True))
    assert verdict.verdict == "wrong"
    assert "checkpoint_backward says" in str(verdict)


def test_only_the_input_is_kept():
    def kept(call):
        x = tg.Tensor(np.ones((64, 64), np.float32), requires_grad=True)
        gc.collect()
        tracemalloc.start()
        y = call(deep, x)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size, y

    deep = Sequential(*(Linear(64, 64) for _ in range(20)))
    whole, checkpointed = kept(lambda module, x: module(x))[0], kept(checkpoint)[0]
    assert whole > 20 * 64 * 64 * 4
    assert checkpointed < 3 * 64 * 64 * 4


@pytest.mark.parametrize("threads", [1, 2])
def test_a_gpt_that_checkpoints_its_blocks_learns_the_same_and_keeps_less(threads):
    ids = np.random.default_rng(4).integers(0, 11, (4, 33))
    found = []
    for checkpoint_blocks in (False, True):
        tg.manual_seed(1)
        model = GPTModel(GPTConfig(11, 32, 32, 2, 8, drop_rate=0.0))
        model.checkpoint_blocks = checkpoint_blocks
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        train_step(model, optimizer, ids[:, :-1], ids[:, 1:], threads=threads)  # what is made once is made here
        gc.collect()
        tracemalloc.start()
        loss = train_step(model, optimizer, ids[:, :-1], ids[:, 1:], threads=threads)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found.append((loss, peak, {name: p.grad for name, p in model.named_parameters()}))
    (loss, peak, gradients), (their_loss, their_peak, theirs) = found
    assert loss == their_loss
    for name, g in gradients.items():
        np.testing.assert_array_equal(theirs[name], g, err_msg=name)
    assert their_peak < 0.7 * peak
