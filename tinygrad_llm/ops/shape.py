"""The same numbers in another arrangement. The backward puts each gradient back where its number came from."""

import math

import numpy as np

from ..engine import Op, Tensor
from ..errors import ConfigError, ShapeError
from .elementwise import sum_to


def reshape_forward(x, *, shape):
    """y = x in another shape; one length may be -1"""
    try:
        return x.reshape(shape), (x.shape,)
    except ValueError:
        raise ShapeError(f"reshape: x is {x.shape}, {x.size} elements, which do not fit into {shape}") from None


def reshape_backward(g, shape):
    """dx = g in the shape of x"""
    return (g.reshape(shape),)


reshape = Op(reshape_forward, reshape_backward, view=True)


def transpose_forward(x, *, axes=None):
    """y = x with its axes in the order `axes`, reversed when None"""
    if axes is None:
        axes = tuple(range(x.ndim))[::-1]
    return x.transpose(axes), (tuple(np.argsort([a % x.ndim for a in axes])),)


def transpose_backward(g, inverse):
    """dx = g with the axes put back"""
    return (g.transpose(inverse),)


transpose = Op(transpose_forward, transpose_backward, view=True)


def swapaxes_forward(x, *, axis1, axis2):
    """y = x with two axes exchanged"""
    return x.swapaxes(axis1, axis2), (axis1, axis2)


def swapaxes_backward(g, axis1, axis2):
    """dx = g with them exchanged again"""
    return (g.swapaxes(axis1, axis2),)


swapaxes = Op(swapaxes_forward, swapaxes_backward, view=True)


def expand_dims_forward(x, *, axis):
    """y = x with axes of length 1 put in"""
    return np.expand_dims(x, axis), (x.shape,)


def expand_dims_backward(g, shape):
    """dx = g without them"""
    return (g.reshape(shape),)


expand_dims = Op(expand_dims_forward, expand_dims_backward, view=True)


def squeeze_forward(x, *, axis=None):
    """y = x without its axes of length 1, or without those named"""
    return x.squeeze(axis), (x.shape,)


def squeeze_backward(g, shape):
    """dx = g with them"""
    return (g.reshape(shape),)


squeeze = Op(squeeze_forward, squeeze_backward, view=True)


def broadcast_to_forward(x, *, shape):
    """y = x repeated along new axes and axes of length 1, without copying"""
    return np.broadcast_to(x, shape), (x.shape,)


def broadcast_to_backward(g, shape):
    """dx = Σ g over the copies"""
    return (sum_to(g, shape),)


broadcast_to = Op(broadcast_to_forward, broadcast_to_backward, view=True)


def concatenate_forward(*arrays, axis=0):
    """y = the arrays one behind the other along an axis"""
    if not arrays:
        raise ShapeError("concatenate: no tensors were given: pass at least one")
    return np.concatenate(arrays, axis), ([a.shape[axis] for a in arrays], axis)


def concatenate_backward(g, lengths, axis):
    """dx = its own stretch of g"""
    return tuple(np.split(g, np.cumsum(lengths)[:-1], axis))


concatenate = Op(concatenate_forward, concatenate_backward, view=True)


def stack_forward(*arrays, axis=0):
    """y = the arrays side by side along a new axis"""
    if not arrays:
        raise ShapeError("stack: no tensors were given: pass at least one")
    return np.stack(arrays, axis), (axis,)


def stack_backward(g, axis):
    """dx = its own slice of g"""
    return tuple(np.moveaxis(g, axis, 0))


stack = Op(stack_forward, stack_backward, view=True)


def split(x: Tensor, sections: int | list[int], axis: int = 0) -> list[Tensor]:
    """Parts of x along an axis: `sections` equal ones, or parts of the lengths in the list."""
    length = x.shape[axis]
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ShapeError(f"split: an axis of length {length} does not split into {sections} equal sections")
        sections = [length // sections] * sections
    if int(np.sum(sections)) != length:
        raise ShapeError(f"split: sections {sections} add up to {int(np.sum(sections))}, the axis has length {length}")
    ends = np.cumsum(sections)
    before = (slice(None),) * (axis % x.ndim)
    return [getitem(x, index=(*before, slice(int(end) - n, int(end)))) for end, n in zip(ends, sections, strict=True)]


def getitem_forward(x, *, index):
    """y = x[index]: slices, integers, integer arrays, boolean masks"""
    return x[index], (x.shape, index)


def getitem_backward(g, shape, index):
    """dx = g at the index and 0 elsewhere; where the index names an element twice, both gradients are added"""
    if _is_basic(index):
        dx = np.zeros(shape, g.dtype)
        dx[index] = g
        return (dx,)
    positions = np.arange(math.prod(shape)).reshape(shape)[index]
    dx = np.bincount(positions.reshape(-1), weights=g.reshape(-1), minlength=math.prod(shape))
    return (dx.reshape(shape).astype(g.dtype),)


getitem = Op(getitem_forward, getitem_backward, view=True)


def _is_basic(index) -> bool:
    """Whether an index names no element twice: made of slices, integers, None and Ellipsis, or one boolean mask."""
    parts = index if isinstance(index, tuple) else (index,)
    basic = (slice, int, np.integer, type(None), type(...))
    return all(isinstance(p, basic) or (isinstance(p, np.ndarray) and p.dtype == bool) for p in parts)


def set_at_forward(x, value, *, index):
    """y = x, but `value` at the index; an index that names an element twice is refused"""
    if not _is_basic(index):
        positions = np.arange(x.size).reshape(x.shape)[index]
        if len(np.unique(positions)) != positions.size:
            raise ConfigError(
                "t.at(index).set(value): the index names an element twice, so which value wins is not defined"
            )
    y = x.copy()
    y[index] = value
    return y, (value.shape, index)


def set_at_backward(g, value_shape, index):
    """dx = g away from the index, 0 at it;  dvalue = g at the index"""
    dx = g.copy()
    dx[index] = 0
    return dx, sum_to(g[index].copy(), value_shape)


set_at = Op(set_at_forward, set_at_backward)
