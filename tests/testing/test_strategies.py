"""The strategies draw what they say, all of it, from nothing but hypothesis, and shrink to examples that can be read."""

import math

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from tinygrad_llm.engine import Tensor
from tinygrad_llm.errors import ConfigError
from tinygrad_llm.models import architectures, make_model
from tinygrad_llm.testing import strategies as tgst

few = settings(max_examples=50, deadline=None)
quiet = settings(max_examples=2000, deadline=None, database=None)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def simplest(strategy, condition=lambda example: True):
    return find(strategy, condition, settings=quiet)


def any_of(strategy, condition):
    """An example that meets a condition: the first one, for the simplest takes long to be found."""
    return find(strategy, condition, settings=settings(quiet, phases=[Phase.generate]))


@given(tgst.shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
def test_shapes_keep_their_bounds(shape):
    assert 1 <= len(shape) <= 2
    assert all(0 <= n <= 3 for n in shape)


@given(tgst.broadcastable_shapes(3))
def test_broadcastable_shapes_broadcast(shapes):
    assert len(shapes) == 3
    np.broadcast_shapes(*shapes)


@given(tgst.matmul_shapes())
def test_matmul_shapes_multiply(shapes):
    x, y = (np.ones(shape) for shape in shapes)
    assert np.all(x @ y == x.shape[-1])


@given(st.data(), tgst.shapes())
def test_axes_can_be_summed_over(data, shape):
    x = np.ones(shape)
    axis = data.draw(tgst.axes(Tensor(x)))
    assert x.sum(axis).sum() == x.size


def test_axes_come_in_every_form():
    for wanted in (None, 1, -2, (), (0, 2), (-1,)):
        assert simplest(tgst.axes((2, 3, 4)), lambda axis, wanted=wanted: axis == wanted) == wanted


@given(st.data(), tgst.shapes(min_side=0))
def test_indices_index(data, shape):
    x = np.arange(math.prod(shape)).reshape(shape)
    assert set(np.ravel(x[data.draw(tgst.indices(x))])) <= set(x.ravel())


@given(st.data(), tgst.shapes())
def test_indices_without_repeats_name_each_element_once(data, shape):
    x = np.arange(math.prod(shape)).reshape(shape)
    found = np.ravel(x[data.draw(tgst.indices(x, repeats=False))])
    assert len(np.unique(found)) == found.size


def test_indices_come_in_every_form():
    forms = tgst.indices((3, 4))
    assert simplest(forms, lambda i: isinstance(i, np.ndarray) and i.dtype == bool and i.any()).sum() == 1
    assert simplest(forms, lambda i: isinstance(i, np.ndarray) and i.dtype != bool).tolist() == [0]
    assert len(simplest(forms, lambda i: isinstance(i, tuple) and any(isinstance(p, np.ndarray) for p in i))) == 2
    repeated = simplest(forms, lambda i: isinstance(i, np.ndarray) and i.dtype != bool and len(np.unique(i)) < i.size)
    assert repeated.tolist() == [0, 0]
    basic = forms.filter(lambda i: isinstance(i, tuple) and not isinstance(i[0], np.ndarray))
    simplest(basic, lambda i: any(isinstance(p, slice) and (p.step or 1) < 0 for p in i))
    simplest(basic, lambda i: None in i and Ellipsis in i)


@dtypes
@given(st.data())
def test_spaced_has_no_ties_and_no_zeros(dtype, data):
    x = data.draw(tgst.arrays(tgst.shapes(min_dims=1, max_side=8), dtype, "spaced"))
    magnitudes = np.sort(np.abs(x), axis=None)
    assert magnitudes[0] > 0.249
    assert magnitudes[-1] < 2.251
    assert np.all(np.diff(magnitudes) > 0.99 / x.size)


@dtypes
@given(st.data())
def test_tiny_and_huge_reach_the_ends_of_the_dtype(dtype, data):
    tiny = data.draw(tgst.arrays((5,), dtype, "tiny"))
    huge = data.draw(tgst.arrays((5,), dtype, "huge"))
    with np.errstate(over="ignore", under="ignore"):
        assert np.all(tiny * tiny == 0)
        assert np.all(huge * huge == math.inf)
    assert np.all(tiny != 0)
    assert np.all(np.isfinite(huge))
    assert np.all(np.isfinite(2 * (huge / 2)))


@dtypes
def test_tiny_has_subnormals_and_normals(dtype):
    least = np.finfo(dtype).tiny
    for condition in (lambda x: np.all(np.abs(x) < least), lambda x: np.all(np.abs(x) >= least)):
        simplest(tgst.arrays((1,), dtype, "tiny"), condition)


@dtypes
@given(st.data())
def test_near_ties_are_ties_up_to_rounding(dtype, data):
    x = data.draw(tgst.arrays((9,), dtype, "near_ties"))
    x = np.sort(x)
    assert np.sum(np.diff(x) > 4 * np.finfo(dtype).eps * np.abs(x[1:])) <= 2


def test_near_ties_are_near_and_also_exact():
    pairs = tgst.arrays((2,), np.float64, "near_ties")
    x = simplest(pairs, lambda x: x[0] != x[1])
    assert abs(x[0] - x[1]) < 1e-14
    simplest(pairs, lambda x: x[0] == x[1])


@given(tgst.arrays(tgst.shapes(), regime="masked_rows", layout=tgst.LAYOUTS))
def test_masked_rows_hide_at_least_one_row(x):
    assert np.all(x < math.inf)
    assert np.any(np.all(x.reshape(-1, x.shape[-1] if x.ndim else 1) == -math.inf, axis=-1))


@given(tgst.arrays(regime="constant"))
def test_constant_is_constant(x):
    assert np.all(x == x.flat[0])


@given(tgst.arrays((3, 2), layout="broadcast"), st.data())
def test_layouts_are_what_they_say(x, data):
    assert 0 in x.strides
    assert not x.flags.writeable
    f, strided, backwards, locked = (
        data.draw(tgst.arrays((3, 2), layout=name)) for name in ("F", "strided", "negative_stride", "read_only")
    )
    assert f.flags.f_contiguous
    assert not f.flags.c_contiguous
    assert strided.strides == (64, 16)
    assert np.isnan(strided.base).any()
    assert all(stride < 0 for stride in backwards.strides)
    assert not locked.flags.writeable
    assert all(a.flags.writeable for a in (f, strided, backwards))


@dtypes
@given(st.data())
def test_a_layout_moves_the_numbers_and_changes_none(dtype, data):
    shape = data.draw(tgst.shapes(min_side=0))
    x = data.draw(tgst.arrays(shape, dtype, tgst.REGIMES, tgst.LAYOUTS))
    assert isinstance(x, np.ndarray)
    assert x.shape == shape
    assert x.dtype == dtype
    assert not np.isnan(x).any()


def test_a_layout_holds_the_numbers_of_the_contiguous_array():
    """The same choices but for the layout: seed 0 is the ramp in each of them."""
    for layout in tgst.LAYOUTS[:-1]:
        x = simplest(tgst.arrays((2, 3), layout=layout))
        assert x.tolist() == [[0.5, -1.0, 1.5], [-2.0, 2.5, -3.0]]
    assert simplest(tgst.arrays((2, 3), layout="broadcast")).tolist() == [[0.5, -1.0, 1.5]] * 2


@given(tgst.tensors(layout=tgst.LAYOUTS[:-1]), tgst.tensors((2,), np.float32, requires_grad=False))
def test_tensors_are_leaves(x, y):
    assert x.requires_grad
    assert x.node is None
    assert x.dtype == np.float64
    assert not y.requires_grad
    assert y.dtype == np.float32


def test_values_come_from_a_drawn_seed_and_not_from_numpys_global_state():
    seen = []

    @settings(max_examples=100, deadline=None, database=None)
    @given(tgst.arrays((8, 16, 16)))
    def collect(x):
        state = np.random.get_state()[1]
        seen.append((x.tobytes(), state.tobytes()))
        assert len(np.unique(x)) == x.size  # no ties, which the stock strategy has in every example

    collect()
    assert len({values for values, _ in seen}) > 50
    assert len({state for _, state in seen}) == 1  # what the tests of others draw from: the same for every example


def test_examples_shrink_to_what_can_be_read():
    assert simplest(tgst.tensors()).data.tolist() == 0.5
    assert simplest(tgst.arrays(), lambda x: x.size >= 2).tolist() == [0.5, -1.0]
    assert simplest(tgst.arrays(), lambda x: x.ndim == 3).shape == (1, 1, 1)
    assert simplest(tgst.arrays((2,), layout=tgst.LAYOUTS), lambda x: x.sum() != 0).flags.c_contiguous
    assert simplest(tgst.arrays((3,), regime=("masked_rows", "generic"))).tolist() == [0.5, -1.0, 1.5]
    assert simplest(tgst.arrays((3,), regime="constant")).tolist() == [1.0, 1.0, 1.0]
    assert simplest(tgst.broadcastable_shapes(), lambda shapes: shapes[0] != shapes[1]) in [((), (1,)), ((1,), ())]
    assert simplest(tgst.token_batches(50, 8), lambda ids: 7 in ids).tolist() == [[7]]
    assert simplest(tgst.causal_masks(), lambda mask: not mask.any(-1).all()).tolist() == [[[[False]]]]
    assert simplest(tgst.texts(), lambda text: "🙂" in text) == "🙂"
    config = simplest(tgst.gpt_configs(), lambda config: config.n_layers == 2)
    assert (config.vocab_size, config.context_length, config.emb_dim, config.n_heads) == (2, 1, 2, 1)


@few
@given(st.one_of(tgst.gpt_configs(3000), *(tgst.model_configs(name, 3000) for name in architectures())))
def test_configs_stay_in_the_budget_and_build(config):
    assert make_model(config.architecture, config).n_parameters() == config.n_parameters() <= 3000
    assert config.drop_rate == 0


@few
@given(tgst.gpt_configs(2000, n_heads=3, tie_weights=True, vocab_size=11), tgst.gpt_configs(5000, emb_dim=12))
def test_gpt_configs_keep_what_is_fixed(fixed, other):
    assert (fixed.n_heads, fixed.tie_weights, fixed.vocab_size) == (3, True, 11)
    assert other.emb_dim == 12


@pytest.mark.parametrize("name", ["n_layers", "n_heads", "emb_dim", "context_length", "vocab_size"])
def test_gpt_configs_vary_every_size(name):
    any_of(tgst.gpt_configs(), lambda config: getattr(config, name) >= 3)
    any_of(tgst.model_configs("llama"), lambda config: getattr(config, name) >= 3)


@pytest.mark.parametrize(
    ("name", "value"), [("n_kv_heads", 2), ("head_dim", 4), ("window", 1), ("tie_weights", False), ("out_bias", True)]
)
def test_model_configs_vary_what_gpt_2_has_not(name, value):
    any_of(tgst.model_configs("llama"), lambda config: getattr(config, name) == value)


@pytest.mark.parametrize("parts", [(True, True, True), (True, False, True), (True, False, False), (False, True, False)])
def test_model_configs_of_bert_have_any_of_its_heads(parts):
    names = ("pooler", "masked_words", "next_sentence")
    any_of(tgst.model_configs("bert"), lambda config: tuple(getattr(config, n) for n in names) == parts)


@given(tgst.token_batches(7, 5, max_batch=2))
def test_token_batches_fit(ids):
    assert ids.dtype == np.int64
    assert 1 <= ids.shape[0] <= 2
    assert 1 <= ids.shape[1] <= 5
    assert ids.min() >= 0
    assert ids.max() < 7


@given(tgst.causal_masks(5))
def test_causal_masks_hide_the_future(mask):
    one, n_queries, n_keys = mask.shape[1:]
    assert one == 1
    assert n_queries <= n_keys <= 5
    for t in range(n_queries):
        assert not mask[:, :, t, t + n_keys - n_queries + 1 :].any()
    for row in mask[:, 0]:  # padding hides a key from every query that comes late enough to see it
        for s in range(n_keys):
            late = row[max(0, s - (n_keys - n_queries)) :, s]
            assert late.all() or not late.any()


@given(tgst.texts(surrogates=False))
def test_texts_without_surrogates_are_unicode(text):
    assert text.encode("utf-8").decode("utf-8") == text


@pytest.mark.parametrize("piece", ["\ud83d", "\0", "<|endoftext|>", "\r\n", "\u05e9", "🙂", "\u202e"])
def test_texts_hold_what_trips_tokenizers(piece):
    assert piece in simplest(tgst.texts(), lambda text: piece in text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tgst.tensors(regime="spacd"), "regime 'spacd' is not one of generic, spaced"),
        (lambda: tgst.tensors(layout=("C", "G")), "layout 'G' is not one of C, F"),
        (lambda: tgst.tensors(dtype=np.int64), "dtype is int64: use np.float32 or np.float64"),
        (lambda: tgst.tensors(regime=tgst.REGIMES, layout="broadcast"), "leave one out"),
        (lambda: tgst.gpt_configs(10), "has 78 parameters, max_parameters is 10"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
