"""A gradient is checked in the memory layout that its input has: strides, offset, and elements that share a place."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import Tensor, ops
from tinygrad_llm.testing import GradcheckError, gradcheck, gradcheck_module, strategies
from tinygrad_llm.testing.layouts import Layout

X = np.random.default_rng(0).standard_normal((3, 4))
LAYOUTS = {
    "C": X.copy(),
    "F": X.copy(order="F"),
    "transposed": X.T,
    "offset": np.concatenate([[9.0, 9.0], X.reshape(-1)])[2:].reshape(3, 4),
    "gaps": np.repeat(np.repeat(X, 2, 0), 2, 1)[::2, ::2],
    "negative strides": X[::-1, ::-1],
    "a column of a larger array": np.stack([X, X + 1], -1)[..., 1],
    "stride 0": np.broadcast_to(X[0], (3, 4)),
    "stride 0 along the last axis": np.broadcast_to(X[:, :1], (3, 4)),
    "windows": np.lib.stride_tricks.sliding_window_view(X.reshape(-1)[:6], 4),
}
SHARED = ("stride 0", "stride 0 along the last axis", "windows")


def address(x):
    return x.__array_interface__["data"][0]


def offset(x):
    """In bytes, into the array that owns the memory."""
    root = x
    while isinstance(root.base, np.ndarray):
        root = root.base
    return address(x) - address(root)


def claiming(op, backward):
    """The op with another backward; it does not enter the registry."""
    claims = copy.copy(op)
    claims.backward = backward
    return claims


# ---- a layout built again ---------------------------------------------------------------------------------------------------


@st.composite
def views(draw):
    """Any view that slicing, transposing and broadcasting can make."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
    x = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape).astype(draw(st.sampled_from("fd")))
    x = np.asarray(x[draw(hnp.basic_indices(shape, allow_newaxis=True))])
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    if draw(st.booleans()):
        x = np.broadcast_to(x, (draw(st.integers(1, 3)), *x.shape))
    return x


@given(views())
def test_a_layout_is_built_again_in_memory_of_its_own(x):
    layout = Layout(x)
    again = layout.array(layout.numbers(x))
    np.testing.assert_array_equal(again, x)
    assert again.dtype == x.dtype
    assert not np.shares_memory(again, x)
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "WRITEABLE"):
        assert again.flags[flag] == x.flags[flag]
    if x.size:
        assert again.strides == x.strides
        assert offset(again) == offset(x)
        assert layout.array(layout.numbers(x), np.complex128).strides == tuple(16 // x.itemsize * s for s in x.strides)


@given(views())
def test_elements_share_a_place_as_in_memory(x):
    layout = Layout(x)
    where = {i: sum(n * stride for n, stride in zip(i, x.strides, strict=True)) for i in np.ndindex(x.shape)}
    assert layout.size == len(set(where.values()))
    assert layout.shared == (layout.size < x.size)
    gradient = np.arange(1.0, x.size + 1).reshape(x.shape)
    total = dict.fromkeys(where.values(), 0.0)
    for index, place in where.items():
        total[place] += gradient[index]
    gathered = layout.gathered(gradient)
    assert gathered.tolist() == [total[where[layout.index(place)]] for place in range(layout.size)]


def test_a_view_of_a_large_array_is_not_built_again_with_it():
    layout = Layout(np.zeros(10**8, np.float32)[10**7 : 10**7 + 5])
    assert layout.length < 10**4
    assert layout.array(np.arange(5.0)).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


# ---- what a function is given -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", ["richardson", "complex"])
def test_every_call_has_the_layout_that_was_given(layout, dtype, method):
    given = (
        LAYOUTS[layout]
        if dtype is np.float64
        else Layout(LAYOUTS[layout]).array(X.reshape(-1)[: _places(layout)], dtype)
    )
    before = given.copy()
    seen = []

    def fn(x):
        seen.append((x.data, [s // x.data.itemsize for s in x.data.strides], offset(x.data) // x.data.itemsize))
        return x * x

    result = gradcheck(fn, Tensor(given, requires_grad=True), method=method)
    assert result
    assert {x.dtype for x, _, _ in seen} >= {np.dtype(dtype), np.dtype(np.float64)}
    apart = [
        x
        for x, strides, start in seen
        if (strides, start) != ([s // given.itemsize for s in given.strides], offset(given) // given.itemsize)
    ]
    copies = [x for x in apart if x.flags.c_contiguous and x.dtype == np.float64]
    assert len(apart) == len(copies) == (layout in SHARED)  # whose gradients are compared with those of a copy, once
    assert len({x.tobytes() for x, _, _ in seen}) > _places(layout)  # each place was moved
    assert all(not np.shares_memory(x, given) for x, _, _ in seen)
    np.testing.assert_array_equal(given, before)


def _places(layout):
    return Layout(LAYOUTS[layout]).size


def test_a_parameter_keeps_its_layout():
    class Model:
        weight = Tensor(X.astype(np.float32).T, requires_grad=True)

        def named_parameters(self):
            return [("weight", self.weight)]

        def astype(self, dtype):
            return self

    model, seen = Model(), set()

    def loss(model):
        seen.add(tuple(s // model.weight.data.itemsize for s in model.weight.data.strides))
        return (model.weight**2.0).sum()

    data = model.weight.data
    assert gradcheck_module(model, loss)
    assert seen == {(1, 4)}
    assert model.weight.data is data


def test_the_numbers_around_a_view_are_not_numbers():
    """An op that reads past its input does not find there by chance what it needs."""
    seen = []

    def fn(x):
        seen.append(x.data.base.copy())
        return x * 2.0

    gradcheck(fn, LAYOUTS["gaps"])
    assert all(np.isnan(buffer).sum() == 48 - 12 for buffer in seen)


# ---- ops that depend on the layout ------------------------------------------------------------------------------------------


def square_forward(x):
    return x * x, (x,)


def in_order_of_memory(g, x):
    """Right for C order: the numbers come in the order of memory, g in that of the axes."""
    return (2 * g * x.ravel(order="K").reshape(x.shape),)


def from_the_start_of_the_buffer(g, x):
    """Right for an array that is all of its buffer, in C order."""
    whole = x if x.base is None else x.base
    return (2 * g * whole.reshape(-1)[: x.size].reshape(x.shape),)


def of_the_first_of_those_that_share(g, x):
    """Right unless elements share a place: then the first has the gradient of all, and their sum is right still."""
    d = 2 * g * x
    for axis, stride in enumerate(x.strides):
        if stride == 0:
            first = d.take([0], axis)
            first[...] = d.sum(axis, keepdims=True)
            d = np.concatenate([first, np.zeros_like(d).take(range(1, x.shape[axis]), axis)], axis)
    return (d,)


def summed_over_those_that_share(g, x):
    """Right unless elements share a place: then each has the gradient of all."""
    d = 2 * g * x
    for axis, stride in enumerate(x.strides):
        if stride == 0:
            d = np.repeat(d.sum(axis, keepdims=True), x.shape[axis], axis)
    return (d,)


class Square:
    """x² on the tape with a backward of one's choice, and no copy of x on the way."""

    def __init__(self, backward):
        self.op = copy.copy(ops.tanh)  # any op of one input
        self.op.name, self.op.forward, self.op.backward = "square", square_forward, backward
        self.op.composed = None
        self.__name__ = "square"

    def __call__(self, x):
        return self.op(x)


@pytest.mark.parametrize(
    ("backward", "wrong"),
    [
        (in_order_of_memory, {"F", "transposed"}),
        (
            from_the_start_of_the_buffer,
            {"F", "transposed", "offset", "gaps", "negative strides", "a column of a larger array"},
        ),
        (of_the_first_of_those_that_share, {"stride 0", "stride 0 along the last axis"}),
        (summed_over_those_that_share, {"stride 0", "stride 0 along the last axis"}),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_an_op_that_depends_on_the_layout_fails_in_just_those_where_it_is_wrong(backward, wrong, dtype):
    square = Square(backward)
    for name, x in LAYOUTS.items():
        if name in SHARED and backward in (in_order_of_memory, from_the_start_of_the_buffer):
            continue  # not even the number of elements is right
        given = Layout(x).array(Layout(x).numbers(x), dtype)
        result = gradcheck(square, given, raise_on_failure=False)
        assert bool(result) == (name not in wrong), (name, result)
        assert gradcheck(square, given.copy())
        assert gradcheck(lambda x: x * x, given)


def test_a_gradient_that_only_adds_up_is_named():
    with pytest.raises(
        GradcheckError, match=r"gradient of .* at \[\d, \d\] depends on the memory layout: .*strides \(0, 1\)"
    ):
        gradcheck(Square(of_the_first_of_those_that_share), LAYOUTS["stride 0"])


@pytest.mark.parametrize("layout", ["F", "offset", "gaps", "negative strides"])
def test_the_reproducer_builds_the_layout(layout):
    square = Square(from_the_start_of_the_buffer)
    result = gradcheck(square, LAYOUTS[layout], raise_on_failure=False)
    assert not result
    names = {"square": square}
    with pytest.raises(GradcheckError) as caught:
        exec("\n".join(line.strip() for line in result.reproducer.splitlines()[1:]), names)
    assert str(caught.value) == str(result)
    assert names["x0"].strides == LAYOUTS[layout].strides


@given(st.data())
def test_our_ops_are_right_in_every_layout(data):
    x = data.draw(strategies.tensors((3, 4), regime="generic", layout=strategies.LAYOUTS))
    w = data.draw(strategies.tensors((2, 4), regime="generic", layout=strategies.LAYOUTS))
    assert gradcheck(ops.linear, x, w)
    assert gradcheck(lambda x: ops.softmax(x, axis=0), x)
    assert gradcheck(lambda x: ops.layer_norm(x, np.ones(4), np.zeros(4)), x)
    assert gradcheck(ops.gelu, x)


def test_elements_that_share_a_place_tie_as_one():
    """max over four places, each of three elements: the three that win move together, to one slope."""
    assert gradcheck(ops.max, LAYOUTS["stride 0"])
    whole = claiming(ops.max, lambda g, x, y, axis: (g * (x == y),))
    with pytest.raises(GradcheckError, match="analytic 3, numeric 1"):
        gradcheck(whole, LAYOUTS["stride 0"])
