import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import NonFiniteError
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.training import train_step


def tiny_model() -> GPTModel:
    tg.manual_seed(1)
    return GPTModel(GPTConfig(13, 8, 16, 2, 2, drop_rate=0.0)).astype(np.float64)


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(seed).integers(0, 13, (4, 9))
    return ids[:, :-1], ids[:, 1:].copy()


@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_a_step_is_the_lines_written_out(max_norm):
    stepped, by_hand = tiny_model(), tiny_model()
    optimizers = [tg.optim.AdamW(model.parameters(), lr=1e-2) for model in (stepped, by_hand)]
    for seed in range(3):
        ids, targets = batch(seed)
        targets[1, 3:] = -100  # ignored targets fall unevenly on the rows
        loss = train_step(stepped, optimizers[0], ids, targets, max_norm=max_norm)

        optimizers[1].zero_grad()
        expected = tg.ops.cross_entropy(by_hand(ids), targets=targets)
        expected.backward()
        norm = np.sqrt(sum((p.grad**2).sum() for p in by_hand.parameters()))
        if max_norm is not None:
            assert norm > max_norm
            for p in by_hand.parameters():
                p.grad *= max_norm / (norm + 1e-6)
        optimizers[1].step()
        assert isinstance(loss, float)
        assert loss == pytest.approx(expected.item(), rel=1e-12)
    for (name, p), q in zip(stepped.named_parameters(), by_hand.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-7, atol=1e-9, err_msg=name)


def test_steps_learn_a_batch_by_heart():
    model = tiny_model()
    optimizer = tg.optim.AdamW(model.parameters(), lr=1e-2)
    losses = [train_step(model, optimizer, *batch()) for _ in range(60)]
    assert losses[0] > 2.0
    assert losses[-1] < 0.3


def test_a_loss_that_is_not_finite_changes_nothing():
    model = tiny_model()
    model.out_head.weight.data[3, 2] = np.nan
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        train_step(model, tg.optim.AdamW(model.parameters(), lr=1e-2), *batch())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
