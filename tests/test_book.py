"""The book's printed figures for chapters 2 to 4, to its digits, and untrained GPTs beside PyTorch's.

PyTorch's values are those of PyTorch 2.13 on the book's modules, float32, in evaluation mode.
"""

import numpy as np
import pytest

import tinygrad_llm as tg
from tinygrad_llm import nn, ops
from tinygrad_llm.models import GPTModel, preset
from tinygrad_llm.models.estimate import estimate
from tinygrad_llm.nn import attention_ladder as ladder
from tinygrad_llm.text import GPT2Tokenizer, SlidingWindowDataset, train_val_split

FOUR_DIGITS = {"rtol": 0, "atol": 5.1e-5}  # what is printed with four digits, and float32's rounding

INPUTS = [
    [0.43, 0.15, 0.89],
    [0.55, 0.87, 0.66],
    [0.57, 0.85, 0.64],
    [0.22, 0.58, 0.33],
    [0.77, 0.25, 0.10],
    [0.05, 0.80, 0.55],
]


def assert_printed(tensor, figures):
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor.data, figures, **FOUR_DIGITS)


# ---- chapter 2


def test_the_ids_of_the_book():
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terracesof someunknownPlace."
    ids = [
        15496,
        11,
        466,
        345,
        588,
        8887,
        30,
        220,
        50256,
        554,
        262,
        4252,
        18250,
        8812,
        2114,
        1659,
        617,
        34680,
        27271,
        13,
    ]
    assert GPT2Tokenizer().encode(text, allowed_special={"<|endoftext|>"}) == ids


@pytest.mark.parametrize(
    ("length", "stride", "windows"),
    [(256, 256, (18, 2)), (256, 128, (35, 3)), (4, 4, (1152, 133)), (4, 1, (4608, 530))],
)
def test_windows_of_as_many_tokens(length, stride, windows):
    """The book's story has 4,612 tokens to train on and 534 to validate with; their number decides the windows."""
    assert tuple(len(SlidingWindowDataset(range(n), length, stride)) for n in (4612, 534)) == windows


def test_the_split_is_by_characters():
    train, val = train_val_split("x" * 20_479)
    assert (len(train), len(val)) == (18_431, 2_048)


def test_the_embedding():
    tg.manual_seed(123)
    assert_printed(nn.Embedding(6, 3)(3), [-0.4015, 0.9666, -1.1481])


# ---- chapter 3


def test_attention_without_weights():
    x = tg.Tensor(INPUTS)
    scores = (x @ x.T)[1]
    assert_printed(scores, [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865])
    assert_printed(ops.softmax(scores), [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
    assert_printed(ladder.SimpleAttention()(x)[1], [0.4419, 0.6515, 0.5683])


def test_self_attention_v1():
    x = tg.Tensor(INPUTS)
    tg.manual_seed(123)
    layer = ladder.SelfAttention_v1(3, 2)
    assert_printed((x @ layer.W_query)[1], [0.4306, 1.4551])
    assert_printed(layer(x)[1], [0.3061, 0.8210])


def test_self_attention_v2_and_causal_weights():
    x = tg.Tensor(INPUTS)
    tg.manual_seed(789)
    layer = ladder.SelfAttention_v2(3, 2)
    assert_printed(layer(x)[0], [-0.0739, 0.0713])
    causal = ladder.CausalAttention(3, 2, 6, 0.0)
    # with x1 and x2 turned into unit vectors, the context of x2 is made of its weights
    values = np.linalg.pinv(x.data[:2]).T
    causal.load_state_dict(layer.state_dict() | {"W_value.weight": values})
    assert_printed(causal(x.reshape(1, 6, 3))[0, 1], [0.5517, 0.4483])


def test_several_heads():
    batch = ops.stack(tg.Tensor(INPUTS), tg.Tensor(INPUTS))
    tg.manual_seed(123)
    assert_printed(ladder.MultiHeadAttentionWrapper(3, 2, 6, 0.0, 2)(batch)[0, 0], [-0.4519, 0.2216, 0.4772, 0.1063])
    for layer in (ladder.MultiHeadAttention, nn.MultiHeadAttention):
        tg.manual_seed(123)
        assert_printed(layer(3, 2, 6, 0.0, 2)(batch)[0, 0], [0.3190, 0.4858])


def test_attention_and_its_gradient():
    """f = sum(softmax(x xᵀ) x), computed independently in float64."""
    x = tg.Tensor(np.array(INPUTS), requires_grad=True)
    f = ladder.SimpleAttention()(x).sum()
    f.backward()
    assert f.item() == pytest.approx(9.764117524, abs=5e-10)
    np.testing.assert_allclose(x.grad[0], [0.88780553, 0.91481154, 0.88816311], atol=5e-9)
    np.testing.assert_allclose(x.grad[5], [0.90191237, 0.88288656, 0.88099599], atol=5e-9)


def test_causal_attention_and_its_gradient():
    """The same with a causal mask and divided by √3."""
    x = tg.Tensor(np.array([INPUTS]), requires_grad=True)
    layer = ladder.CausalAttention(3, 3, 6, 0.0).astype(np.float64)
    layer.load_state_dict({f"W_{name}.weight": np.eye(3) for name in ("query", "key", "value")})
    f = layer(x).sum()
    f.backward()
    assert f.item() == pytest.approx(10.115298349, abs=5e-10)
    np.testing.assert_allclose(x.grad[0, 0], [2.14851109, 2.08889579, 2.13421882], atol=5e-9)
    np.testing.assert_allclose(x.grad[0, 5], [0.19877506, 0.20616555, 0.20127914], atol=5e-9)


# ---- chapter 4


def test_linear_relu_and_the_norm():
    tg.manual_seed(123)
    x = tg.Tensor(tg.rng.get_generator().randn(2, 5))
    out = ops.relu(nn.Linear(5, 6)(x))
    assert_printed(out, [[0.2260, 0.3470, 0, 0.2216, 0, 0], [0.2133, 0.2394, 0, 0.5198, 0.3297, 0]])
    assert_printed(out.mean(axis=-1), [0.1324, 0.2170])
    assert_printed(out.var(axis=-1, ddof=1), [0.0231, 0.0398])
    normed = nn.LayerNorm(6)(out)
    assert_printed(normed.mean(axis=-1), [0, 0])
    np.testing.assert_allclose(normed.var(axis=-1).data, [1, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("shortcut", "book"),
    [
        (False, [2.0173587836e-4, 1.2011159560e-4, 7.1520404890e-4, 1.3988736318e-3, 5.0496454351e-3]),
        (True, [0.2216979861, 0.2069411129, 0.3289700150, 0.2665733099, 1.3258544207]),
    ],
)
def test_gradients_with_and_without_shortcuts(shortcut, book):
    """Means of |dL/dW| of five layers, as PyTorch gives them; they agree with the printed ones in the first six digits."""
    tg.manual_seed(123)
    layers = [nn.Linear(3, n) for n in (3, 3, 3, 3, 1)]
    x = tg.Tensor([[1.0, 0.0, -1.0]])
    for layer in layers:
        y = ops.gelu(layer(x))
        x = x + y if shortcut and x.shape == y.shape else y
    ((x - 0.0) ** 2).mean().backward()
    np.testing.assert_allclose([np.abs(layer.weight.grad).mean() for layer in layers], book, rtol=2e-6)


def test_memory_of_the_four_sizes():
    for name, megabytes in {"124M": 621.83, "355M": 1549.58, "774M": 3197.56, "1558M": 6247.68}.items():
        assert round(estimate(preset(name)).weight_bytes / 2**20, 2) == megabytes


def test_an_untrained_gpt2_writes_what_the_books_does():
    """124M, seed 123: its logits and first tokens after "Hello, I am", and its loss, beside those of PyTorch."""
    tg.manual_seed(123)
    model = GPTModel(preset("124M")).eval()
    ids = [15496, 11, 314, 716]
    with tg.no_grad():
        for _ in range(2):
            logits = model(np.array([ids])).data[0]
            ids.append(int(logits[-1].argmax()))
        logits = model(np.array([[6109, 3626, 6100, 345], [6109, 1110, 6622, 257]])).data
        loss = ops.cross_entropy(tg.Tensor(logits), targets=np.array([[3626, 6100, 345, 13], [1110, 6622, 257, 13]]))
    assert ids[4:] == [27018, 24086]  # " Feature", "iman"
    np.testing.assert_allclose(logits[0, 0, :6], [0.0642, 0.2044, -0.1695, 0.0997, -0.5608, 0.3318], **FOUR_DIGITS)
    np.testing.assert_allclose(logits[1, 3, -4:], [0.3869, 1.1915, -0.1643, 0.0370], **FOUR_DIGITS)
    assert loss.item() == pytest.approx(11.0868244, abs=1e-5)
