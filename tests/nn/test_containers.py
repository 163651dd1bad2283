"""ModuleList and ModuleDict: what is in them belongs to the module, and what is in a plain list or dict is refused."""

import copy

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import nn
from tinygrad_llm.errors import ConfigError, StateDictError
from tinygrad_llm.optim import SGD
from tinygrad_llm.rng import Generator


class Branches(nn.Module):
    """Two layers one after the other, and two heads beside each other."""

    def __init__(self, rng=None):
        rng = rng or Generator(3)
        self.layers = nn.ModuleList(nn.Linear(4, 4, rng=rng) for _ in range(2))
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 3, rng=rng), "b": nn.Sequential(nn.Linear(4, 3, rng=rng))})

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).tanh()
        return self.heads["a"](x) * self.heads["b"](x)


class Plain(nn.Module):
    """The same with an attribute for each, which the containers stand for."""

    def __init__(self):
        rng = Generator(3)
        self.first, self.second = nn.Linear(4, 4, rng=rng), nn.Linear(4, 4, rng=rng)
        self.a, self.b = nn.Linear(4, 3, rng=rng), nn.Linear(4, 3, rng=rng)

    def forward(self, x):
        x = self.second(self.first(x).tanh()).tanh()
        return self.a(x) * self.b(x)


NAMES = [  # those of PyTorch for the same module
    "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias",
    "heads.a.weight", "heads.a.bias", "heads.b.0.weight", "heads.b.0.bias",
]  # fmt: skip
X = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


def linears(n):
    return [nn.Linear(2, 2) for _ in range(n)]


# ---- in a module


def test_names_and_paths():
    model = Branches()
    assert [name for name, _ in model.named_parameters()] == list(model.state_dict()) == NAMES
    paths = ["", "layers", "layers.0", "layers.1", "heads", "heads.a", "heads.b", "heads.b.0"]
    assert [path for path, _ in model.named_modules()] == paths
    assert model.n_parameters() == 2 * 20 + 2 * 15


def test_what_is_in_them_learns_like_attributes():
    models = Branches(), Plain()
    for model in models:
        optimizer = SGD(model.parameters(), lr=0.1)
        before = [p.data.copy() for p in model.parameters()]
        for _ in range(3):
            optimizer.zero_grad()
            (model(tg.Tensor(X)) ** 2).sum().backward()
            optimizer.step()
        assert all((p.data != old).any() for p, old in zip(model.parameters(), before, strict=True))
    for ours, theirs in zip(*(model.parameters() for model in models), strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data, strict=True)


def test_modes_dtypes_and_state_dicts_reach_them():
    model, other = Branches(), Branches(Generator(4))
    assert not any(module.training for _, module in model.eval().named_modules())
    assert all(module.training for _, module in model.train().named_modules())
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other(tg.Tensor(X)).data, model(tg.Tensor(X)).data)
    with pytest.raises(StateDictError, match=r"unexpected heads\.c\.weight .*did you mean heads\.a\.weight"):
        other.load_state_dict({name.replace("heads.a", "heads.c"): array for name, array in model.state_dict().items()})
    assert {p.dtype for p in model.astype(np.float64).parameters()} == {np.dtype(np.float64)}
    twin = copy.deepcopy(model)
    assert [name for name, _ in twin.named_parameters()] == NAMES
    assert twin.layers[0] is not model.layers[0]


def test_hooks_and_activations_have_their_paths():
    model, seen = Branches(), []
    with model.layers[1].on_forward(lambda module, args, out: seen.append(out.shape)):
        _, cache = model.run_with_cache(tg.Tensor(X), names="*", grads=True, loss=lambda out: out.sum())
    assert seen == [(5, 4)]
    assert {"layers.0", "layers.1", "heads.a", "heads.b", "heads.b.0"} <= set(cache)
    expected = model.layers[0](tg.Tensor(X)).data
    np.testing.assert_array_equal(cache["layers.0"], expected)
    assert cache.grads["layers.0"].shape == expected.shape


def test_they_are_shown_with_what_is_in_them():
    assert repr(Branches()) == (
        "Branches()\n"
        "  (layers): ModuleList()\n"
        "    (0): Linear(weight (4, 4), bias (4,))\n"
        "    (1): Linear(weight (4, 4), bias (4,))\n"
        "  (heads): ModuleDict()\n"
        "    (a): Linear(weight (3, 4), bias (3,))\n"
        "    (b): Sequential()\n"
        "      (0): Linear(weight (3, 4), bias (3,))"
    )
    html = Branches()._repr_html_()
    assert all(words in html for words in ("layers <b>ModuleList</b>", "heads <b>ModuleDict</b>", "a <b>Linear</b>"))
    with pytest.raises(TypeError, match=r"ModuleList has no forward\(\)"):
        nn.ModuleList()(1)


# ---- as a list and as a dict


MORE = linears(3)
CHANGES = {
    "append": lambda items: items.append(MORE[0]),
    "extend": lambda items: items.extend(iter(MORE)),
    "insert": lambda items: items.insert(1, MORE[0]),
    "insert before the last": lambda items: items.insert(-1, MORE[0]),
    "insert far off": lambda items: items.insert(99, MORE[0]),
    "set": lambda items: items.__setitem__(1, MORE[0]),
    "set the last": lambda items: items.__setitem__(-1, MORE[0]),
    "delete": lambda items: items.__delitem__(0),
    "delete the last": lambda items: items.__delitem__(-1),
    "delete some": lambda items: items.__delitem__(slice(1, None, 2)),
}


@pytest.mark.parametrize("kind", [nn.ModuleList, lambda items: nn.Sequential(*items)], ids=["ModuleList", "Sequential"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_list_changes_as_pythons_does_and_numbers_follow(kind, change):
    plain = linears(4)
    ours = kind(plain)
    CHANGES[change](ours)
    CHANGES[change](plain)
    assert len(ours) == len(plain)
    assert all(a is b for a, b in zip(ours, plain, strict=True))
    names = [f"{i}.{what}" for i in range(len(plain)) for what in ("weight", "bias")]
    assert [name for name, _ in ours.named_parameters()] == names
    assert all(p is q for p, q in zip(ours.parameters(), (p for m in plain for p in m.parameters()), strict=True))


def test_indices_slices_and_membership():
    plain = linears(12)  # so that "10" comes after "9"
    for ours in (nn.ModuleList(plain), nn.Sequential(*plain)):
        assert all(ours[i] is plain[i] for i in range(-12, 12))
        for part in (slice(2, 5), slice(None, None, -1), slice(-3, None), slice(5, 5)):
            assert type(ours[part]) is type(ours)
            assert all(a is b for a, b in zip(ours[part], plain[part], strict=True))
        assert plain[3] in ours
        assert MORE[0] not in ours
        assert [*reversed(ours)] == plain[::-1]
        with pytest.raises(IndexError):
            ours[12]
    x = tg.Tensor(np.ones((1, 2), np.float32))
    np.testing.assert_array_equal(nn.Sequential(*plain)[:2](x).data, plain[1](plain[0](x)).data)


def test_a_dict_changes_as_pythons_does():
    plain = dict(zip("cab", linears(3), strict=True))
    ours = nn.ModuleDict(plain.items())
    for one in (ours, plain):
        one["d"] = MORE[0]
        one["a"] = MORE[1]
        del one["c"]
        one.update({"e": MORE[2]})
    assert len(ours) == len(plain) == 4
    assert [*ours] == [*ours.keys()] == [*plain]
    assert [*ours.items()] == [*plain.items()]
    assert [*ours.values()] == [*plain.values()]
    assert ("a" in ours, "c" in ours, 3 in ours) == (True, False, False)
    for missing in (lambda: ours["c"], lambda: ours.__delitem__("c"), lambda: ours["training"]):
        with pytest.raises(KeyError):
            missing()
    assert not nn.ModuleDict().eval().keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda layers, heads: layers.append(tg.ops.gelu), r"ModuleList: item 2 is Op\(gelu\): it must be a Module"),
        (lambda layers, heads: layers.extend([MORE[0], None]), "item 3 is None"),
        (lambda layers, heads: layers.insert(0, [MORE[0]]), "item 0 is "),
        (lambda layers, heads: layers.__setitem__(1, np.ones(2)), "item 1 is array"),
        (lambda layers, heads: heads.update({"c": MORE[0], "d": 3}), "ModuleDict: 'd' is 3: it must be a Module"),
        (lambda layers, heads: heads.update({"c": MORE[0], "d.e": MORE[1]}), "'d.e' cannot be a key: use a string"),
        (lambda layers, heads: heads.__setitem__("", MORE[0]), "'' cannot be a key"),
        (lambda layers, heads: heads.__setitem__(3, MORE[0]), "3 cannot be a key"),
        (lambda layers, heads: heads.__setitem__("items", MORE[0]), "'items' is an attribute of every ModuleDict"),
        (lambda layers, heads: heads.__setitem__("training", MORE[0]), "choose another key"),
    ],
)
def test_what_cannot_be_in_them_is_refused_and_nothing_changes(change, words):
    model = Branches()
    before = [*model.layers], [*model.heads.items()]
    with pytest.raises(ConfigError, match=words):
        change(model.layers, model.heads)
    assert ([*model.layers], [*model.heads.items()]) == before
    assert [name for name, _ in model.named_parameters()] == NAMES


# ---- plain lists and dicts


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda m, p: [m, m], r"Module\.parts is a plain list with a Linear in it, .*: use nn\.ModuleList\(\.\.\.\)"),
        (lambda m, p: (m,), r"a plain tuple with a Linear in it, .* nn\.ModuleList"),
        (lambda m, p: {m}, r"a plain set .* nn\.ModuleList"),
        (lambda m, p: {"a": m}, r"a plain dict with a Linear in it, .* nn\.ModuleDict"),
        (lambda m, p: [1, "a", None, [[m]]], r"a plain list with a Linear in it, .* nn\.ModuleList"),
        (lambda m, p: {"a": [m], "b": 2}, r"a plain dict with a Linear in it, .* nn\.ModuleDict"),
        (lambda m, p: [p], r"a plain list with a Parameter in it, .*: give each Parameter an attribute of its own"),
        (lambda m, p: {"a": (p,)}, "a plain dict with a Parameter in it"),
    ],
)
def test_a_plain_container_of_modules_is_refused(value, words):
    model = nn.Module()
    model.parts = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=words):
        model.parts = value(nn.Linear(2, 2), nn.Parameter(np.ones(2, np.float32)))
    assert [name for name, _ in model.named_parameters()] == ["parts.weight", "parts.bias"]


@pytest.mark.parametrize("empty", [[], {}], ids=["list", "dict"])
def test_a_plain_container_filled_later_is_found_when_parameters_are_collected(empty):
    model, inner = nn.Module(), nn.Module()
    model.inner, inner.parts = inner, empty
    assert list(model.parameters()) == []
    inner.parts.append(nn.Linear(2, 2)) if isinstance(empty, list) else inner.parts.update(a=nn.Linear(2, 2))
    for collect in (
        lambda: SGD(model.parameters(), lr=0.1),
        model.state_dict,
        lambda: model.load_state_dict({}),
        model.zero_grad,
        lambda: model.astype(np.float64),
    ):
        with pytest.raises(ConfigError, match=r"Module\.parts is a plain (list|dict) with a Linear in it"):
            collect()
    assert repr(model) == "Module()\n  (inner): Module()"  # the debugger still shows it


def test_other_containers_are_left_alone():
    model, itself = nn.Module(), [1.0]
    itself.append(itself)
    model.itself, model.many, model.sizes = itself, [[0] * 10**5] * 3, {"a": (1, 2)}
    model.tensors = [tg.Tensor([1.0])]
    assert list(model.parameters()) == []
