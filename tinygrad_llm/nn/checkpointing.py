"""Activation checkpointing (Chen et al. 2016): keep only a module's input, and run the module again when its backward comes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..engine import Op, Tensor, no_grad
from ..rng import Generator, get_generator, use_generator
from ..tape.node import scope
from .module import Module


def checkpoint_forward(x, *parameters, module, seed):
    """y = module(x), of which nothing but x is kept"""
    if any(p.data is not array for p, array in zip(module.parameters(), parameters, strict=True)):
        module = _with(parameters, module)  # a check moves the parameters one by one
    with no_grad(), use_generator(Generator(seed)):
        return module(Tensor(x)).data, (x, module, seed)


def checkpoint_backward(g, x, module, seed, needs=(True,)):
    """dx and the gradients of the parameters, from a second forward with the same random numbers"""
    x = Tensor(x, requires_grad=needs[0])
    gradients: dict[Tensor, np.ndarray] = {}
    with use_generator(Generator(seed)):
        module(x).backward(g, into=gradients)
    return (gradients.get(x), *(gradients.get(parameter) for parameter in module.parameters()))


_checkpoint = Op(checkpoint_forward, checkpoint_backward)


@_checkpoint.twin
def _plainly(x: Tensor, *parameters: Tensor, module: Module, seed: int) -> Tensor:
    with use_generator(Generator(seed)):
        return module(x)


def _with(arrays: tuple, module: Module) -> Module:
    """A copy of the module with these parameters, and the hooks that it has."""
    same: dict[int, Any] = {id(m.hooks): m.hooks for _, m in module.named_modules()}
    for parameter, array in zip(module.parameters(), arrays, strict=True):
        same[id(parameter)] = other = copy.copy(parameter)
        other.data = array
    return copy.deepcopy(module, same)


def checkpoint(module: Module, x: Any) -> Tensor:
    """`module(x)` with the same values and gradients, for less memory and about a third more time.

    The activations inside are not kept but made again in the backward. `x` is one tensor, as is the result.
    """
    token = scope.set((scope.get(), module))  # so that the op has the name of the module
    try:
        return _checkpoint(x, *module.parameters(), module=module, seed=get_generator().random64())
    finally:
        scope.reset(token)
