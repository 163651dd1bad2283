"""python examples/00_step_through_backprop.py        a second; better: python -m pdb examples/00_step_through_backprop.py

Made for the debugger: four losses, from 2 + 2 to a GPT, whose backward pass you walk through one derivative at a time. Run it
once to read what it prints; then set the breakpoints that it names, and look (README.md beside it, "Step through backprop"). In
pdb, begin with `import tinygrad_llm as tg`: it asks before the page itself has come to that line.
The same walk as a page with a slider: `tinygrad-llm report -o report.html`, or debug.report(loss, "report.html").

What to watch:
- g is dL/d(output) of an op, and what its backward returns is dL/d(input): the chain rule is nothing but handing these on;
- an op's turn comes when everything made from its result has had its own: only then is its g complete;
- the equation is the docstring of every backward, and the names in it are the arguments: `a` in pdb prints them.
"""

from fnmatch import fnmatch

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm import debug, ops
from tinygrad_llm.models.gpt import GPTConfig, GPTModel
from tinygrad_llm.nn import MultiHeadAttention

np.set_printoptions(precision=4, suppress=True)


def walk(loss, only="*"):
    """The loop of backprop in your own frame: set a breakpoint on the print, and look at `step`."""
    for step in loss.backward_steps():
        if fnmatch(step.name, only):
            print(
                f"  {step.i + 1:3}/{step.n} {step.name:34} {step.worked:54.54} {step.check().verdict} "
                f"-> {', '.join(step.inputs)}"
            )


def twice_twice():
    """a = 2, b = a + a, c = b + b: both uses of b must have been gone through before b's own turn comes."""
    a = tg.Tensor(2.0, requires_grad=True, name="a")
    b = a + a
    c = b + b
    print("\n1. a = 2, b = a + a, c = b + b: dc/da is 4")
    print("   Breakpoint: b tg.ops.add.backward, then c, a (arguments), up (who called), c.")
    print(
        "   The first stop is c with g = 1, the second is b with g = 2: 1 from each of its two uses, summed before its turn."
    )
    print("   Another order would have sent b's g on when it was only half there: that is why it is topological.")
    walk(c)
    print(f"   a.grad = {a.grad}")


def neuron():
    """tanh(w x + b), and how far from a target: the smallest thing that learns."""
    w = tg.Tensor([-3.0, 1.0], requires_grad=True, name="w")
    b = tg.Tensor(6.9, requires_grad=True, name="b")
    x = tg.Tensor([2.0, 0.0], name="x")
    y = ((w * x).sum() + b).tanh()
    loss = (y - 1.0) ** 2
    print("\n2. One neuron, (tanh(w x + b) - 1)²")
    print("   Breakpoint: b tg.ops.tanh.backward; there, p 1 - y * y is the slope of tanh.")
    walk(loss)
    print(f"   w.grad = {w.grad}, 0 where x is 0; b.grad = {b.grad}")


def attention():
    """Two heads over three tokens; then the same, taken apart into small ops."""
    tg.manual_seed(0)
    layer = MultiHeadAttention(4, 4, 3, 0.0, 2)
    for name, parameter in layer.named_parameters():
        parameter.name = name
    x = tg.Tensor(np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32), requires_grad=True, name="x")
    print("\n3. Attention, as one op")
    print("   Breakpoint: b tg.ops.attention.backward")
    walk((layer(x) ** 2).sum())
    print("   The same under tg.composed(): softmax is exp, sum and divide, each with its own step")
    print("   Breakpoint: b tg.ops.exp.backward")
    with tg.composed():
        walk((layer(x) ** 2).sum())


def gpt():
    """One training step's backward of a GPT, and three ways to look into it."""
    tg.manual_seed(0)
    model = GPTModel(GPTConfig(vocab_size=50, context_length=8, emb_dim=16, n_heads=2, n_layers=2, drop_rate=0.0))
    ids = np.random.default_rng(0).integers(0, 50, (2, 9))
    print("\n4. A GPT; of its backward the steps in the last block")
    print('   Breakpoint: debug.break_on(name="trf_blocks.1.*") before loss.backward() opens pdb at each of these')
    walk(ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:]), only="trf_blocks.1.*")
    print("\n   The five steps that keep the most memory, from debug.explain(loss):")
    rows = debug.explain(ops.cross_entropy(model(ids[:, :-1]), targets=ids[:, 1:]))
    for row in sorted(rows, key=lambda row: -row.saved_bytes)[:5]:
        print(f"     {row.name:34} {row.saved_bytes:6} bytes, |g| {row.norm:.4f}")
    _, cache = model.run_with_cache(ids[:, :-1], names="*.att.weights", grads=True)
    weights, slope = cache["trf_blocks.0.att.weights"], cache.grads["trf_blocks.0.att.weights"]
    print(
        f"\n   Who looks at whom, first head of the first block (run_with_cache), {weights.shape}:\n{weights[0, 0, :3, :3]}"
    )
    print(f"   and what the loss would have of it, dL/d(weights):\n{slope[0, 0, :3, :3]}")


if __name__ == "__main__":
    twice_twice()
    neuron()
    attention()
    gpt()
