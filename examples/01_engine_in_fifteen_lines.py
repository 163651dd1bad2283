"""python examples/01_engine_in_fifteen_lines.py        a second

Backprop once more, bare: the fifteen lines of `backward` go over the same recorded nodes and call the same derivatives as
`loss.backward()`, and its gradients are equal to the bit. What the engine adds is what a program needs and the idea does not:
hooks, breakpoints, memory that is freed on the way, errors that name your line.

What to watch:
- a node has its op, its parents, and what the forward saved for the backward: that is the whole tape;
- the chain rule is one line: what an op sends to a parent is added to what the parent was sent before;
- the newest node comes first, so that all that was made from a node has sent its part before the node's own turn comes.
"""

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm import ops
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.tape.node import Node


def backward(loss, arrived=lambda node, parent, dx, so_far: None):
    """{leaf: d(loss)/d(leaf)} for every leaf that the loss was made from; `arrived` is told of each part as it is sent."""
    nodes, found = set(), [loss.node]
    for node in found:  # which grows meanwhile: nodes, leaves, and None where no gradient is wanted
        if isinstance(node, Node) and node not in nodes:
            nodes.add(node)
            found += node.parents
    gradients = {loss.node: np.ones_like(loss.data)}  # d(loss)/d(loss)
    for node in sorted(nodes, key=lambda node: node.serial, reverse=True):
        if node not in gradients:
            continue  # nothing was sent this far
        g = gradients.pop(node)  # complete
        for parent, dx in zip(node.parents, node.op.backward(g, *node.saved, **node.asked(reuse=False)), strict=True):
            if parent is not None and dx is not None:
                gradients[parent] = np.asarray(gradients[parent] + dx) if parent in gradients else dx
                arrived(node, parent, dx, gradients[parent])
    return gradients


def partial_sums():
    """a = 2, b = a + a, c = b + b: every use sends a part of its own, and two parts make the gradient."""
    a = tg.Tensor(2.0, requires_grad=True, name="a")
    b = a + a
    c = b + b
    names = {a: "a", b.node: "b", c.node: "c"}
    print("1. a = 2, b = a + a, c = b + b\n")
    print("   turn of  sends  to  which has so far")

    def row(node, parent, dx, so_far):
        print(f"   {names[node]:7}  {dx!s:5}  {names[parent]:2}  {so_far}")

    gradients = backward(c, row)
    print(f"\n   dc/da = {gradients[a]}. Had b's turn come when it had 1, a would have been sent half of it.")


def gpt():
    """A GPT with dropout, whose backward draws nothing: which elements were dropped was saved."""
    tg.manual_seed(0)
    model = GPTModel(GPTConfig(vocab_size=50, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.1))
    ids = np.random.default_rng(0).integers(0, 50, (2, 9))
    loss = ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:])
    ours = backward(loss)
    loss.backward()
    equal = sum(ours[parameter].tobytes() == parameter.grad.tobytes() for parameter in model.parameters())
    print("\n2. A GPT with dropout, fifteen lines beside loss.backward()")
    print(f"   equal to the bit: {equal} of {len(ours)} gradients")


if __name__ == "__main__":
    partial_sums()
    gpt()
