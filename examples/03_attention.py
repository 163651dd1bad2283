"""python examples/03_attention.py [--quick]        a few seconds

Chapter 3: attention, as a ladder of small classes. Each rung adds one thing to the one before it; `tinygrad_llm/nn/
attention_ladder.py` holds them one below the other, to be read as they are climbed.

The six tokens are the book's, "Your journey starts with one step", as vectors of three numbers. With the book's seeds the
random weights are the book's, so every figure can be compared. (Only dropout cannot: PyTorch draws it from a generator that
differs from machine to machine.)

What to watch:
- a weight says how much of one token goes into another; each row of weights sums to 1;
- the causal mask: what comes later has the weight 0, and a change there changes nothing before it;
- rungs that are the same maths give the same numbers.
"""

import math
import sys

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm import nn, ops
from tinygrad_llm.nn import attention_ladder as ladder

np.set_printoptions(precision=4, suppress=True)

INPUTS = [
    [0.43, 0.15, 0.89],  # Your     x1
    [0.55, 0.87, 0.66],  # journey  x2
    [0.57, 0.85, 0.64],  # starts   x3
    [0.22, 0.58, 0.33],  # with     x4
    [0.77, 0.25, 0.10],  # one      x5
    [0.05, 0.80, 0.55],  # step     x6
]


def beside(what, book, ours):
    """One line: a figure of the book, and what came out here."""
    print(f"  {what}\n    book {book}\n    ours {[round(number, 4) for number in ours.data.tolist()]}")


x = tg.Tensor(INPUTS)  # (T, 3)

print("1. Without weights (3.3): how alike is 'journey' to each token?")
scores = x @ x.T  # (T, T)
beside("scores of x2: dot products", [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865], scores[1])
weights = ops.softmax(scores)  # (T, T)
beside("weights: softmax of the scores", [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581], weights[1])
beside("context: the tokens, weighted and summed", [0.4419, 0.6515, 0.5683], ladder.SimpleAttention()(x)[1])

print("\n2. What is asked, what answers, what is said: three learned matrices (3.4)")
tg.manual_seed(123)
v1 = ladder.SelfAttention_v1(3, 2)
beside("the query of x2", [0.4306, 1.4551], (x @ v1.W_query)[1])
beside("the context of x2", [0.3061, 0.8210], v1(x)[1])

print("\n3. The same with linear layers, which start from smaller values (3.4.2)")
tg.manual_seed(789)
v2 = ladder.SelfAttention_v2(3, 2)
beside("the context of x1", [-0.0739, 0.0713], v2(x)[0])
v1.load_state_dict({name.removesuffix(".weight"): array.T for name, array in v2.state_dict().items()})
print(f"  v1 with the weights of v2 (exercise 3.1), largest difference: {np.abs(v1(x).data - v2(x).data).max():.1e}")

print("\n4. Nobody reads ahead (3.5): later scores become -inf, so their weights become 0")
scores = v2.W_query(x) @ v2.W_key(x).T  # (T, T)
visible = ladder.causal_mask(6)
weights = ops.softmax(ops.where(scores / math.sqrt(2), -math.inf, condition=visible))  # (T, T)
beside("weights of x2", [0.5517, 0.4483, 0.0, 0.0, 0.0, 0.0], weights[1])
print("  all of them:\n   ", str(weights.data).replace("\n", "\n    "))

batch = ops.stack(x, x)  # (B, T, 3)
causal = ladder.CausalAttention(3, 2, context_length=6, dropout=0.0)
before = causal(batch).data
batch = batch.at((0, 5)).set(tg.Tensor([9.0, 9.0, 9.0]))
changed = np.abs(causal(batch).data - before).max(axis=-1)[0]  # (T,)
print(f"  'step' replaced: the contexts change by {np.round(changed, 4).tolist()}")

print("\n5. Dropout (3.5.2): in training, half of the weights become 0 and the others twice as large")
tg.manual_seed(123)
print("   ", str(nn.Dropout(0.5)(tg.Tensor(np.ones((6, 6), np.float32))).data).replace("\n", "\n    "))

print("\n6. Several heads (3.6): each looks for something else")
batch = ops.stack(x, x)
tg.manual_seed(123)
wrapper = ladder.MultiHeadAttentionWrapper(3, 2, context_length=6, dropout=0.0, num_heads=2)
beside("two heads side by side, x1", [-0.4519, 0.2216, 0.4772, 0.1063], wrapper(batch)[0, 0])
tg.manual_seed(123)
together = ladder.MultiHeadAttention(3, 2, context_length=6, dropout=0.0, num_heads=2)
beside("one matrix for all heads, cut in two, x1", [0.3190, 0.4858], together(batch)[0, 0])
fused = nn.MultiHeadAttention(3, 2, 6, 0.0, 2)
fused.load_state_dict(together.state_dict())
difference = np.abs(fused(batch).data - together(batch).data).max()
print(f"  nn.MultiHeadAttention, which the model uses, runs on one fused op: largest difference {difference:.1e}")

print("\n7. Beyond the book: the same attention, cheaper")
width, heads, t = (32, 4, 16) if "--quick" in sys.argv else (128, 8, 64)
sizes = {"d_in": width, "d_out": width, "context_length": t, "dropout": 0.0, "num_heads": heads}
x = tg.Tensor(tg.rng.Generator(1).randn(2, t, width))
full = ladder.MultiHeadAttention(**sizes)
state = full.state_dict()

qkv = ladder.FusedAttention(**sizes)
qkv.load_state_dict(
    {
        "W_qkv.weight": np.concatenate([state["W_query.weight"], state["W_key.weight"], state["W_value.weight"]]),
        "out_proj.weight": state["out_proj.weight"],
        "out_proj.bias": state["out_proj.bias"],
    }
)
grouped = ladder.GroupedQueryAttention(**sizes, num_kv_heads=heads)
window = ladder.SlidingWindowAttention(**sizes, window=t)
for layer in (grouped, window):
    layer.load_state_dict(state)
for what, layer in {
    "one matrix for queries, keys and values": qkv,
    "grouped queries, as many key heads as heads": grouped,
    "a window as long as the text": window,
}.items():
    difference = np.abs(layer(x).data - full(x).data).max()
    print(f"  {what:45} equals multi-head attention within {difference:.1e}")
print("  With fewer key heads or a shorter window it is another function, and keeps fewer numbers when generating:")
for what, layer, cached in [
    ("multi-head", full, 2 * t * width),
    ("grouped, 2 key heads", ladder.GroupedQueryAttention(**sizes, num_kv_heads=2), 2 * t * width * 2 // heads),
    ("multi-query, 1 key head", ladder.MultiQueryAttention(**sizes), 2 * t * width // heads),
    ("window of 8 tokens", ladder.SlidingWindowAttention(**sizes, window=8), 2 * 8 * width),
]:
    print(f"    {what:25} {layer.n_parameters():7,} parameters, {cached:7,} numbers cached for {t} tokens")
