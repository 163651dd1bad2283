"""Module: names, modes, dtypes and state dicts."""

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.errors import ConfigError, DTypeError, StateDictError


class Tower(nn.Module):
    """Two linear layers, a shared one, a parameter of its own and things that are not parameters."""

    def __init__(self):
        self.first = nn.Linear(3, 4)
        self.gain = nn.Parameter(np.ones(4, np.float32))
        self.rest = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Sequential(nn.LayerNorm(4)))
        self.again = self.first
        self.table = np.zeros(3)
        self.note = "not a parameter"

    def forward(self, x):
        return self.rest(self.first(x) * self.gain)


NAMES = [
    "gain",
    "first.weight",
    "first.bias",
    "rest.0.weight",
    "rest.0.bias",
    "rest.2.0.scale",
    "rest.2.0.shift",
]
SHARED = ["again.weight", "again.bias"]


def copies(module):
    return {name: array.copy() for name, array in module.state_dict().items()}


def assert_same(module, arrays):
    state = module.state_dict()
    assert state.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(state[name], array, strict=True, err_msg=name)


# ---- names


def test_parameters_come_once_in_the_order_of_assignment():
    tower = Tower()
    assert [name for name, _ in tower.named_parameters()] == NAMES
    assert [id(p) for p in tower.parameters()] == [id(p) for _, p in tower.named_parameters()]
    assert len({id(p) for p in tower.parameters()}) == len(NAMES)
    assert tower.n_parameters() == 4 + 3 * 4 + 4 + 4 * 4 + 4 + 4 + 4
    assert list(tower.state_dict()) == NAMES + SHARED


def test_modules_come_with_their_paths():
    tower = Tower()
    paths = [path for path, _ in tower.named_modules()]
    assert paths == ["", "first", "rest", "rest.0", "rest.1", "rest.2", "rest.2.0", "again"]
    assert dict(tower.named_modules())["rest.2.0"] is tower.rest[2][0]
    assert [name for name, _ in tower.named_children()] == ["first", "rest", "again"]


def test_a_replaced_or_deleted_attribute_is_forgotten():
    tower = Tower()
    tower.rest = nn.Linear(4, 2, bias=False)
    del tower.gain
    tower.again = None
    assert [name for name, _ in tower.named_parameters()] == ["first.weight", "first.bias", "rest.weight"]


def test_sequential_runs_in_order_and_refuses_functions():
    layers = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
    x = tg.Tensor(np.ones((5, 2), np.float32))
    assert len(layers) == 3
    assert [*layers] == [layers[0], layers[1], layers[2]]
    np.testing.assert_array_equal(layers(x).data, layers[2](tg.ops.gelu(layers[0](x))).data)
    with pytest.raises(ConfigError, match="item 1 is Op"):
        nn.Sequential(nn.Linear(2, 3), tg.ops.gelu)


def test_more_than_ten_layers_keep_their_order():
    layers = nn.Sequential(*(nn.LayerNorm(1) for _ in range(12)))
    assert [name for name, _ in layers.named_parameters()][::2] == [f"{i}.scale" for i in range(12)]


def test_a_module_without_forward_says_so():
    with pytest.raises(TypeError, match=r"Module has no forward\(\)"):
        nn.Module()(1)


def test_repr_shows_the_tree():
    assert repr(nn.FeedForward(2)) == (
        "FeedForward()\n"
        "  (layers): Sequential()\n"
        "    (0): Linear(weight (8, 2), bias (8,))\n"
        "    (1): GELU()\n"
        "    (2): Linear(weight (2, 8), bias (2,))"
    )


# ---- modes, gradients, dtype


def test_train_and_eval_reach_every_module():
    tower = Tower()
    assert all(module.training for _, module in tower.named_modules())
    assert tower.eval() is tower
    assert not any(module.training for _, module in tower.named_modules())
    assert tower.train() is tower
    assert all(module.training for _, module in tower.named_modules())
    tower.rest.eval()
    assert [path for path, m in tower.named_modules() if not m.training] == [
        "rest", "rest.0", "rest.1", "rest.2", "rest.2.0",
    ]  # fmt: skip


def test_zero_grad_forgets_every_gradient():
    tower = Tower().eval()
    (tower(tg.Tensor(np.ones((2, 3), np.float32))) ** 2).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in tower.parameters())
    tower.zero_grad()
    assert all(p.grad is None for p in tower.parameters())


def test_astype_is_in_place_and_keeps_sharing():
    tower = Tower().eval()
    before, parameters = copies(tower), list(tower.parameters())
    (tower(tg.Tensor(np.ones((2, 3), np.float32))) ** 2).sum().backward()
    assert tower.astype(np.float64) is tower
    assert all(p is q for p, q in zip(tower.parameters(), parameters, strict=True))
    assert all(p.data.dtype == np.float64 and p.grad is None for p in parameters)
    assert tower.again.weight is tower.first.weight
    assert_same(tower, {name: array.astype(np.float64) for name, array in before.items()})
    assert tower(tg.Tensor(np.ones((2, 3)))).dtype == np.float64
    assert_same(tower.astype("float32"), before)


@pytest.mark.parametrize("dtype", [np.int64, np.float16, bool, complex])
def test_astype_refuses_what_cannot_be_learned(dtype):
    tower = Tower()
    before = copies(tower)
    with pytest.raises(DTypeError, match=r"np\.float32 or np\.float64"):
        tower.astype(dtype)
    assert_same(tower, before)


# ---- state dicts


def test_state_dict_round_trip():
    one, two = Tower(), Tower()
    arrays = copies(one)
    assert any((arrays[name] != array).any() for name, array in two.state_dict().items())
    held = two.first.weight.data
    two.load_state_dict(arrays)
    assert_same(two, arrays)
    assert two.first.weight.data is held  # written into, so that views and optimizers stay right
    arrays["gain"][:] = 7
    assert (two.gain.data == 1).all()


def test_loading_converts_to_the_dtype_of_the_parameters():
    tower = Tower().astype(np.float64)
    tower.load_state_dict({name: array.astype(np.float32) for name, array in copies(tower).items()})
    assert all(p.data.dtype == np.float64 for p in tower.parameters())
    tower.load_state_dict(copies(tower) | {"gain": [1, 2, 3, 4]})
    np.testing.assert_array_equal(tower.gain.data, [1.0, 2.0, 3.0, 4.0], strict=True)


def test_a_shared_parameter_loads_under_any_of_its_names():
    tower, new = Tower(), np.full((4, 3), 0.5, np.float32)
    arrays = copies(tower)
    del arrays["first.weight"]
    tower.load_state_dict(arrays | {"again.weight": new})
    np.testing.assert_array_equal(tower.first.weight.data, new)
    tower.load_state_dict({name: array for name, array in copies(tower).items() if name not in SHARED})


def without(name):
    return lambda arrays: arrays.pop(name)


def renamed(old, new):
    return lambda arrays: arrays.update({new: arrays.pop(old)})


def replaced(**changes):
    return lambda arrays: arrays.update({name.replace("__", "."): value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("rest.0.bias"), r"missing rest\.0\.bias \(4,\)\. Nothing"),
        (replaced(extra=np.zeros((2, 3))), r"unexpected extra \(2, 3\)\. Nothing"),
        (renamed("rest.0.weight", "rest.0.wieght"), r"missing rest\.0\.weight \(4, 4\); unexpected rest\.0\.wieght \(4, 4\) "
         r"\(did you mean rest\.0\.weight\?\)\. Nothing"),
        (replaced(rest__0__weight=np.zeros((4, 5))), r"rest\.0\.weight is \(4, 5\), here it is \(4, 4\)\. Nothing"),
        (replaced(gain=np.ones((4, 1))), r"gain is \(4, 1\), here it is \(4,\)\. Nothing"),
        (replaced(gain=np.float32(1)), r"gain is \(\), here it is \(4,\)\. Nothing"),
        (replaced(gain=np.ones(4, bool)), r"gain holds bool, not numbers\. Nothing"),
        (replaced(gain=np.array(["a"] * 4)), r"gain holds <U1, not numbers\. Nothing"),
        (replaced(gain=np.ones(4, complex)), r"gain holds complex128, not numbers\. Nothing"),
        (replaced(again__weight=np.ones((4, 3))), r"again\.weight differs from first\.weight, here they are one"),
        (lambda arrays: arrays.clear(), r"missing gain \(4,\); missing first\.weight .*; and 1 more\. Nothing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_changes(damage, message):
    tower, other = Tower(), Tower()
    before, arrays = copies(tower), copies(other)
    damage(arrays)
    with pytest.raises(StateDictError, match=message):
        tower.load_state_dict(arrays)
    assert_same(tower, before)
    with pytest.raises(KeyError):  # what PyTorch's users catch is not the only way
        tower.load_state_dict(arrays)
