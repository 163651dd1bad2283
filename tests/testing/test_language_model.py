"""The contract of language models: each architecture keeps it, and each fault that is planted is named by its property."""

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm.errors import GraphError
from tinygrad_llm.models import GPTConfig, GPTModel, make_model
from tinygrad_llm.nn import Linear, Parameter
from tinygrad_llm.nn.state import KVCache, LayerCache
from tinygrad_llm.rng import Generator
from tinygrad_llm.testing import check_language_model
from tinygrad_llm.testing.language_model import PROPERTIES

SIZES = {"vocab_size": 13, "context_length": 8, "emb_dim": 12, "n_heads": 3, "n_layers": 2, "drop_rate": 0.0}


def make(rng, **changes):
    return make_model("gpt", SIZES | changes, rng).astype(np.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_weights": True, "init": "gpt2", "qkv_bias": True},
        {"context_length": 3, "n_layers": 1, "hidden_dim": 5},
        {"bias": False},
    ],
    ids=str,
)
def test_gpt_keeps_the_contract(changes, seed):
    check_language_model(lambda rng: make(rng, **changes), seed=seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_heads": 4, "n_kv_heads": 2, "head_dim": 4, "window": 2, "init": "pytorch"},
        {"tie_weights": True, "n_heads": 2, "n_kv_heads": 1, "qkv_bias": True, "out_bias": True, "bias": True},
        {"context_length": 3, "n_layers": 1, "window": 1},
    ],
    ids=str,
)
def test_llama_keeps_the_contract(changes, seed):
    sizes = SIZES | {"hidden_dim": 7} | changes
    check_language_model(lambda rng: make_model("llama", sizes, rng).astype(np.float64), seed=seed)


@pytest.mark.parametrize(
    ("architecture", "sizes", "learned"),
    [
        ("gpt", SIZES, "att.W_value"),
        ("rwkv", {"vocab_size": 13, "emb_dim": 6}, "att.value"),
        ("hyena", {"vocab_size": 13, "emb_dim": 6, "context_length": 8}, "att.in_proj"),
    ],
)
def test_what_learns_in_one_place_alone_learns_nothing_through_a_state(architecture, sizes, learned):
    """As with LoRA on a model of one block, whose keys need no gradient."""
    model = make_model(architecture, sizes | {"n_layers": 1}, Generator(0))
    for name, p in model.named_parameters():
        p.requires_grad = learned in name
    with pytest.raises(GraphError, match="nothing can be learned through it"):
        model(np.array([[1, 2, 3]]), state=model.make_state(1))


def sees_the_future(model):
    for block in model.trf_blocks:
        att = block.att
        att.forward = lambda x, cache=None, att=att: att.out_proj(
            tg.ops.attention(att.W_query(x), att.W_key(x), att.W_value(x), n_heads=3, causal=False)
        )


def rows_meet(model):
    features = model.features
    model.features = lambda ids, *, state=None: features(ids, state=state) + 1e-3 * features(ids[:1, :1]).data


def forgets_positions(model):
    make_state = model.make_state

    def with_state(batch_size=1, capacity=None):
        state = make_state(batch_size, capacity)
        state.positions = lambda b, n: np.arange(n)
        return state

    model.make_state = with_state


def head_without_norm(model):
    model.head = lambda x: model.out_head(x)
    model.forward = lambda ids, *, state=None, last_only=False: model.out_head(
        model.final_norm(model.features(ids, state=state)[:, -1:] if last_only else model.features(ids, state=state))
    )


def learns_nothing_in_a_layer(model):
    layer = model.trf_blocks[0].ff.layers[0]
    layer.forward = lambda x: tg.Tensor(Linear.forward(layer, x).data)


def grows_by_another_row(model):
    resize = model.resize_vocabulary

    def resized(n):
        resize(n)
        model.out_head.weight.data[-1, 0] += 1e-3

    model.resize_vocabulary = resized


FAULTS = {
    "a larger vocabulary": grows_by_another_row,
    "independent of the future": sees_the_future,
    "rows do not meet": rows_meet,
    "a state in any chunks": forgets_positions,
    "features and head": head_without_norm,
    "every parameter learns": learns_nothing_in_a_layer,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_model_is_named(name):
    def faulty(rng):
        model = make(rng)
        FAULTS[name](model)
        return model

    with pytest.raises(AssertionError, match=rf"^{name}: "):
        check_language_model(faulty)


def test_rows_that_are_appended_in_the_wrong_order_are_named(monkeypatch):
    def append(self, other):
        right(self, other)
        self.select(list(range(len(self.lengths)))[::-1])

    right = KVCache.append
    monkeypatch.setattr(KVCache, "append", append)
    with pytest.raises(AssertionError, match=r"^rows of different ages: "):
        check_language_model(make)


def test_a_state_without_a_mask_for_younger_rows_is_named(monkeypatch):
    extend = LayerCache.extend
    monkeypatch.setattr(LayerCache, "extend", lambda *args: (*extend(*args)[:2], None))
    with pytest.raises(AssertionError, match=r"^rows of different ages: "):
        check_language_model(make)


def test_a_configuration_that_miscounts_is_named(monkeypatch):
    right = GPTConfig.n_parameters
    monkeypatch.setattr(GPTConfig, "n_parameters", lambda self: right(self) + 1)
    with pytest.raises(AssertionError, match=r"^made from its configuration: config\.n_parameters"):
        check_language_model(make)


def test_a_weight_that_the_state_dict_lacks_is_named():
    class Forgetful(GPTModel):
        def state_dict(self):
            return {**super().state_dict(), "final_norm.shift": np.zeros(12)}

    def faulty(rng):
        model = Forgetful(GPTConfig(**SIZES), rng=rng).astype(np.float64)
        model.final_norm.shift.data[...] = 0.5
        return model

    with pytest.raises(AssertionError, match="the model from its saved weights"):
        PROPERTIES["saved and loaded"](faulty, 0)


def test_checkpointed_blocks_that_differ_are_named(monkeypatch):
    monkeypatch.setattr("tinygrad_llm.models.base.checkpoint", lambda block, x: 2 * block(x))
    with pytest.raises(AssertionError, match=r"^checkpointed blocks: "):
        check_language_model(make)


def test_tied_weights_of_which_one_use_gets_no_gradient_are_named():
    def faulty(rng):
        model = make(rng, tie_weights=True)
        table = model.tok_emb
        table.forward = lambda ids: tg.Tensor(tg.ops.embedding(table.weight, ids=ids).data)
        return model

    with pytest.raises(AssertionError, match=r"^tied weights: no gradient"):
        check_language_model(faulty)


def test_a_run_that_cannot_be_resumed_is_named():
    def faulty(rng):
        model = make(rng)
        model.calls, features = 0, model.features

        def drifting(ids, *, state=None):  # what it has computed before is kept outside of weights and state
            model.calls += model.training
            return features(ids, state=state) * (1 + 1e-3 * model.calls)

        model.features = drifting
        return model

    with pytest.raises(AssertionError, match=r"^resumed: "):
        check_language_model(faulty)


def test_models_are_made_by_name_or_refused_with_the_nearest():
    assert tg.models.architectures() == ["bert", "gpt", "hyena", "llama", "rwkv", "seq2seq", "vit"]
    assert tg.models.architectures(tg.models.LanguageModel) == ["gpt", "hyena", "llama", "rwkv"]
    assert make_model("gpt", SIZES).config == GPTConfig(**SIZES)
    assert make_model("gpt", GPTConfig(**SIZES)).architecture == "gpt"
    for architecture in ("gtp", "base", "../gpt", "", None):
        with pytest.raises(tg.errors.ConfigError, match="use one of bert, gpt"):
            make_model(architecture, SIZES)
    with pytest.raises(tg.errors.ConfigError, match=r"no option 'n_layer' \(did you mean n_layers"):
        make_model("gpt", {"n_layer": 2})
    with pytest.raises(tg.errors.ConfigError, match="int is not the configuration of a 'gpt'"):
        make_model("gpt", 3)
    assert isinstance(make_model("gpt", SIZES, tg.rng.Zeros()).tok_emb.weight, Parameter)
