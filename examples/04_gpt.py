"""python examples/04_gpt.py [--quick]        about ten seconds on two cores; two with --quick

Needs the extra gpt2: .venv/bin/pip install -e '.[gpt2]'

Chapter 4: a GPT, from its parts up: normalisation, GELU, shortcuts, the block that repeats, and the whole model in four
sizes. It has learned nothing yet; what it writes at the end is noise, but with the book's seed it is the book's noise.

What to watch:
- without shortcuts the gradient fades on its way to the first layer; with them it arrives;
- where the parameters are: most in the feed-forward layers and, in the small model, in the two tables of tokens;
- what a model costs can be told from its sizes alone, before a byte of it is allocated.

--quick leaves out the model of 124 million parameters, which takes 0.65 GB and most of the time.
"""

import sys
from itertools import pairwise

import numpy as np

import tinygrad_llm as tg
from tinygrad_llm import nn, ops
from tinygrad_llm.models import GPTModel, preset
from tinygrad_llm.models.estimate import estimate
from tinygrad_llm.text import GPT2Tokenizer

np.set_printoptions(precision=4, suppress=True)
try:
    tokenizer = GPT2Tokenizer()
except tg.errors.TokenizerError as error:
    sys.exit(str(error))


def beside(what, book, ours):
    """One line: a figure of the book, and what came out here."""
    print(f"  {what}\n    book {book}\n    ours {ours}")


def rounded(array):
    return [[round(number, 4) for number in row] for row in np.atleast_2d(array).tolist()]


print("1. Layer normalisation (4.2): whatever a layer puts out, the next one gets mean 0 and variance 1")
tg.manual_seed(123)
x = tg.Tensor(tg.rng.get_generator().randn(2, 5))
out = ops.relu(nn.Linear(5, 6)(x))  # (2, 6)
book = [[0.226, 0.347, 0.0, 0.2216, 0.0, 0.0], [0.2133, 0.2394, 0.0, 0.5198, 0.3297, 0.0]]
beside("a linear layer and ReLU", book, rounded(out.data))
beside("mean of each row", [[0.1324, 0.217]], rounded(out.mean(axis=-1).data))
beside("variance of each row (divided by n - 1)", [[0.0231, 0.0398]], rounded(out.var(axis=-1, ddof=1).data))
normed = nn.LayerNorm(6)(out).data
print(f"  normalised: means {normed.mean(axis=-1)}, variances (divided by n) {normed.var(axis=-1)}")

print("\n2. GELU (4.3): like ReLU, but smooth, and not quite deaf to what is negative")
x = tg.Tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
y = ops.gelu(x)
y.sum().backward()
print(f"  x      {x.data}\n  GELU   {y.data}\n  slope  {x.grad}\n  ReLU   {ops.relu(x).data}")

print("\n3. Shortcuts (4.4): five layers, one input, and how large the gradient of each layer's weights is")


class DeepNetwork(nn.Module):
    """Linear layers with GELU, each with or without a shortcut round it where the widths agree."""

    def __init__(self, sizes, shortcut):
        self.shortcut = shortcut
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.GELU()) for a, b in pairwise(sizes))

    def forward(self, x):
        for layer in self.layers:
            y = layer(x)
            x = x + y if self.shortcut and x.shape == y.shape else y
        return x


BOOK = {
    False: [0.00020173587836325169, 0.0001201116101583466, 0.0007152041653171182, 0.001398873864673078, 0.005049646366387606],
    True: [0.22169792652130127, 0.20694105327129364, 0.32896995544433594, 0.2665732502937317, 1.3258541822433472],
}  # fmt: skip
for shortcut in (False, True):
    tg.manual_seed(123)
    network = DeepNetwork([3, 3, 3, 3, 3, 1], shortcut)
    y = network(tg.Tensor([[1.0, 0.0, -1.0]]))
    ((y - 0.0) ** 2).mean().backward()
    print(f"  {'with' if shortcut else 'without'} shortcuts:    book          ours")
    for i, layer in enumerate(network.layers):
        print(f"    layers.{i}.0.weight   {BOOK[shortcut][i]:.10f}  {np.abs(layer[0].weight.grad).mean():.10f}")

print("\n4. The block that repeats (4.5): attention and feed-forward, each normalised first, each with a shortcut")
tg.manual_seed(123)
block = nn.TransformerBlock(768, 12, 1024, drop_rate=0.1)
x = tg.Tensor(tg.rng.get_generator().rand(2, 4, 768))
print(f"  {x.shape} in, {block(x).shape} out")
beside("parameters of its feed-forward layers (exercise 4.1)", "4,722,432", f"{block.ff.n_parameters():,}")
beside("parameters of its attention", "2,360,064", f"{block.att.n_parameters():,}")

print("\n5. Four sizes (4.6, exercise 4.2), counted by formula: nothing is allocated")
print("  size          parameters (book, ours)         tied head (book, ours)      float32 (book, ours), 2^20 bytes")
for name, parameters, tied, megabytes in [
    ("124M", 163_009_536, 124_412_160, 621.83),
    ("355M", 406_212_608, 354_749_440, 1549.58),
    ("774M", 838_220_800, 773_891_840, 3197.56),
    ("1558M", 1_637_792_000, 1_557_380_800, 6247.68),
]:
    e = estimate(preset(name))
    shared = preset(name, tie_weights=True).n_parameters()
    print(
        f"  {name:6} {parameters:15,} {e.parameters:14,} {tied:15,} {shared:14,} "
        f"{megabytes:12,.2f} {e.weight_bytes / 2**20:9,.2f}"
    )

print("\n6. Where it all goes, and what the largest would cost: `tinygrad-llm estimate --preset gpt3-175B` says more")
e = estimate(preset("124M"))
for part in ("emb", ".att", ".ff", "norm", "out_head"):
    n = sum(m.copies * m.parameters for m in e.modules if part in m.name)
    print(f"  {part.strip('.'):9} {n:12,} parameters, {n / e.parameters:6.1%}")
gpt3 = estimate(preset("gpt3-175B"))
cost = gpt3.training_cost(300e9)
beside("GPT-3: parameters", "175 billion", f"{gpt3.parameters / 1e9:.1f} billion")
beside("GPT-3: training on 300 billion tokens", "4.6 million dollars", f"{cost.dollars / 1e6:.1f} million dollars")
without = (1 - gpt3.attention_flops_per_token / gpt3.training_flops_per_token) * cost.dollars
print(f"    of which {without / 1e6:.2f} for the weights alone, as that estimate counts, and the rest for attention")

print("\n7. Writing (4.7): the likeliest next token, again and again")


def generate_greedily(model, ids, max_new_tokens):
    """ids (B, T) -> (B, T + max_new_tokens)"""
    for _ in range(max_new_tokens):
        logits = model(ids[:, -model.config.context_length :]).data[:, -1]  # (B, V)
        ids = np.concatenate([ids, logits.argmax(axis=-1)[:, None]], axis=1)  # (B, T + 1)
    return ids


ids = np.array([tokenizer.encode("Hello, I am")])  # (1, 4)
tg.manual_seed(123)
model = GPTModel(preset("story" if "--quick" in sys.argv else "124M", vocab_size=tokenizer.vocab_size)).eval()
with tg.no_grad():
    written = generate_greedily(model, ids, 6)[0].tolist()
if "--quick" in sys.argv:
    print(f"  a small model that has learned nothing: {tokenizer.decode(written)!r}")
else:
    beside("ids", [15496, 11, 314, 716, 27018, 24086, 47843, 30961, 42348, 7267], written)
    beside("text", "'Hello, I am Featureiman Byeswickattribute argue'", repr(tokenizer.decode(written)))
