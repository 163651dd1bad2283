"""Log-probabilities of tokens, entropy, and three estimates of a KL."""

import math

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError
from tinygrad_llm.models import make_model
from tinygrad_llm.models.gpt import GPTConfig
from tinygrad_llm.testing import gradcheck
from tinygrad_llm.tuning.sequences import entropy, k1, k2, k3, token_logprobs

IDS = np.array([[1, 5, 2, 2, 0], [6, 0, 4, 3, 1]])


@pytest.fixture
def model():
    tg.manual_seed(1)
    sizes = {"vocab_size": 7, "context_length": 5, "emb_dim": 4, "n_heads": 2, "n_layers": 1, "drop_rate": 0.0}
    return make_model("gpt", GPTConfig(**sizes)).astype(np.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2])
def test_token_logprobs(model, temperature):
    found = token_logprobs(model, IDS, temperature)
    with tg.no_grad():
        log_p = scipy.special.log_softmax(model(IDS).data / temperature, -1)
    for b in range(2):
        for t in range(4):
            assert found.data[b, t] == pytest.approx(log_p[b, t, IDS[b, t + 1]], rel=1e-12)
    assert found.shape == (2, 4)
    logits = np.random.default_rng(0).standard_normal((2, 4, 7))
    assert gradcheck(lambda logits: token_logprobs(lambda ids: logits, IDS, temperature), logits)


def test_what_cannot_be_scored(model):
    for temperature in (0, -1, math.inf, math.nan):
        with pytest.raises(ConfigError, match="token_logprobs: temperature"):
            token_logprobs(model, IDS, temperature)
    for ids in (IDS[:, :1], IDS[0]):
        with pytest.raises(DataError, match="two tokens or more"):
            token_logprobs(model, ids)
    with pytest.raises(DataError, match="7"):
        token_logprobs(model, IDS + 1)


def test_entropy():
    assert entropy(np.zeros((2, 3, 8))) == pytest.approx(np.full((2, 3), math.log(8)))
    assert entropy(np.array([[0.0, -math.inf, -math.inf], [1e4, 0.0, -1e4]])) == pytest.approx([0, 0])


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_estimates_of_the_kl(n, seed):
    """In the mean over what π draws, k1 and k3 are the KL; k2 and k3 are never negative; all are 0 where π is ref."""
    log_p, log_q = scipy.special.log_softmax(np.random.default_rng(seed).standard_normal((2, n)), -1)
    kl = scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)).sum()
    assert np.exp(log_p) @ k1(log_p, log_q) == pytest.approx(kl, abs=1e-12)
    assert np.exp(log_p) @ k3(log_p, log_q) == pytest.approx(kl, abs=1e-12)
    assert (k3(log_p, log_q) >= -1e-15).all()
    np.testing.assert_allclose(k2(log_p, log_q), (log_p - log_q) ** 2 / 2)
    for estimate in (k1, k2, k3):
        assert not estimate(log_p, log_p).any()


@pytest.mark.parametrize("estimate", [k1, k2, k3])
def test_gradients(estimate):
    p, q = np.random.default_rng(0).standard_normal((2, 2, 3))
    assert gradcheck(lambda p: estimate(p, q), p)
