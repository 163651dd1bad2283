"""One row for every op: how to try it, what it should give, and from whom. The references are SciPy's, or plain loops.

A new op needs a row here; the suite is red while a row is missing.
"""

import math

import numpy as np
import scipy.special

import tinygrad_llm as tg
from tinygrad_llm.errors import ConfigError, DataError, DTypeError, ShapeError
from tinygrad_llm.testing import OpSpec

_op = tg.Op.registry
inf = math.inf


def _spec(name, **row):
    return OpSpec(_op[name], **row)


# ---- references -------------------------------------------------------------------------------------------------------------


def _matmul(x, y):
    """The definition, with indices."""
    rows = x if x.ndim > 1 else x[None, :]
    columns = y if y.ndim > 1 else y[:, None]
    lead = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows = np.broadcast_to(rows, lead + rows.shape[-2:])
    columns = np.broadcast_to(columns, lead + columns.shape[-2:])
    z = np.zeros((*lead, rows.shape[-2], columns.shape[-1]))
    for index in np.ndindex(z.shape):
        *b, i, j = index
        z[index] = sum(rows[(*b, i, k)] * columns[(*b, k, j)] for k in range(rows.shape[-1]))
    z = z if y.ndim > 1 else z[..., 0]
    return z if x.ndim > 1 else (z[..., 0] if y.ndim == 1 else z[..., 0, :])


def _linear(x, weight, bias=None):
    y = np.zeros((*x.shape[:-1], len(weight)))
    for index in np.ndindex(y.shape):
        y[index] = math.fsum(x[index[:-1]] * weight[index[-1]]) + (0 if bias is None else bias[index[-1]])
    return y


def _layer_norm(x, scale, shift, eps=1e-5):
    y = np.zeros_like(x)
    for i in np.ndindex(x.shape[:-1]):
        mean = math.fsum(x[i]) / x.shape[-1]
        variance = math.fsum((x[i] - mean) ** 2) / x.shape[-1]
        y[i] = (x[i] - mean) / math.sqrt(variance + eps) * scale + shift
    return y


def _rms_norm(x, scale, eps=1e-5):
    y = np.zeros_like(x)
    for i in np.ndindex(x.shape[:-1]):
        y[i] = x[i] / math.sqrt(math.fsum(x[i] ** 2) / x.shape[-1] + eps) * scale
    return y


def _cross_entropy(logits, targets, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    targets = np.asarray(targets)
    losses, n, v = np.zeros(targets.shape), 0, logits.shape[-1]
    for i in np.ndindex(targets.shape):
        if targets[i] == ignore_index:
            continue
        n += 1
        log_p = scipy.special.log_softmax(logits[i])
        losses[i] = -(1 - label_smoothing) * log_p[targets[i]] - label_smoothing * sum(log_p) / v
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / max(1, n)}[reduction]


def _linear_cross_entropy(x, weight, rows=256, **options):
    return _cross_entropy(np.einsum("...i,vi->...v", x, weight), **options)


def _attention(q, k, v, n_heads, n_kv_heads=None, causal=True, mask=None, drop_rate=0.0, rng=None):
    """Each head, query and key in turn, as in Vaswani et al. 2017, equation 1."""
    (b, t), s, d = q.shape[:2], k.shape[1], q.shape[2] // n_heads
    shared = n_heads // (n_kv_heads or n_heads)
    mask = np.broadcast_to(True if mask is None else mask, (b, n_heads, t, s))
    y = np.zeros_like(q)
    for bi in range(b):
        for h in range(n_heads):
            mine, theirs = slice(h * d, (h + 1) * d), slice(h // shared * d, (h // shared + 1) * d)
            for i in range(t):
                seen = [j for j in range(s) if mask[bi, h, i, j] and (not causal or j <= i + s - t)]
                if seen:
                    p = scipy.special.softmax([q[bi, i, mine] @ k[bi, j, theirs] / math.sqrt(d) for j in seen])
                    y[bi, i, mine] = sum(w * v[bi, j, theirs] for w, j in zip(p, seen, strict=True))
    return y


def _rotary(x, cos, sin, n_heads, interleaved=False):
    """Pairs as complex numbers, times e^(i angle); the halves convention by putting the features of each pair side by side."""
    d = x.shape[2] // n_heads
    features = np.arange(n_heads * d).reshape(n_heads, d)
    order = features if interleaved else features.reshape(n_heads, 2, d // 2).swapaxes(1, 2)
    order = order.reshape(n_heads, d)
    y = np.zeros_like(x)
    for h in range(n_heads):
        pairs = (x[..., order[h, ::2]] + 1j * x[..., order[h, 1::2]]) * (cos + 1j * sin)
        y[..., order[h, ::2]], y[..., order[h, 1::2]] = pairs.real, pairs.imag
    return y


def _wkv(k, v, decay, first):
    """Both sums from the beginning for every token and feature, all weights less the largest one."""
    y = np.zeros_like(v)
    for b, t, c in np.ndindex(*v.shape):
        exponents = [k[b, i, c] - (t - 1 - i) * math.exp(decay[c]) for i in range(t)] + [k[b, t, c] + first[c]]
        weights = [math.exp(e - max(exponents)) for e in exponents]
        y[b, t, c] = sum(w * v[b, i, c] for i, w in enumerate(weights)) / sum(weights)
    return y


def _fft_conv(u, h, d):
    y = np.zeros_like(u)
    for i in np.ndindex(*u.shape):
        *leading, t = i
        channel = tuple(leading[len(leading) - h.ndim + 1 :])
        y[i] = d[channel] * u[i] + sum(h[(*channel, t - s)] * u[(*leading, s)] for s in range(t + 1))
    return y


def _set_at(x, value, index):
    flat = np.arange(x.size).reshape(x.shape)[index]
    values = np.broadcast_to(value, flat.shape)
    y = x.ravel().tolist()
    for place, number in zip(flat.ravel().tolist(), values.ravel().tolist(), strict=True):
        y[place] = number
    return np.array(y).reshape(x.shape)


# ---- samples ----------------------------------------------------------------------------------------------------------------


def _reductions(**more):
    """x along no axis, one, several, a negative one; kept or not; empty, size 1, 0-d."""

    def samples(rng):
        x = rng.standard_normal((2, 3, 4))
        rows = [
            (x, {}),
            (x, {"axis": 1}),
            (x, {"axis": -1, "keepdims": True}),
            (x, {"axis": (0, 2)}),
            (x, {"axis": (2, -3), "keepdims": True}),
            (x, {"keepdims": True}),
            (rng.standard_normal((1, 1)), {"axis": 0}),
            (rng.standard_normal(()), {}),
            (np.zeros((0, 3)), {"axis": 1}),
        ]
        return [(x, {**options, **more}) for x, options in rows]

    return samples


def _positive_reductions(rng):
    return [(np.abs(x) + 0.1, options) for x, options in _reductions()(rng)]


def _along_an_axis(rng):
    return [
        (rng.standard_normal((2, 5)),),
        (rng.standard_normal((2, 3, 4)), {"axis": 1}),
        (rng.standard_normal((3, 2)), {"axis": 0}),
        (rng.standard_normal((4,)) * 30,),
        (rng.standard_normal((3, 1)),),
        (np.zeros((0, 4)),),
    ]


def _matmuls(rng):
    shapes = [
        ((2, 3), (3, 4)),
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 2, 3), (3, 4)),
        ((2, 3), (4, 3, 2)),
        ((2, 1, 2, 3), (3, 3, 2)),
        ((3,), (2, 3, 2)),
        ((2, 2, 3), (3,)),
        ((1, 1), (1, 1)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ]
    return [tuple(rng.standard_normal(s) for s in pair) for pair in shapes]


def _linears(rng):
    def r(*shape):
        return rng.standard_normal(shape)

    return [
        (r(4, 3), r(2, 3), r(2)),
        (r(2, 3, 4), r(5, 4), r(5)),
        (r(2, 3, 4), r(5, 4), None),
        (r(3), r(2, 3), r(2)),
        (r(1, 1), r(1, 1)),
        (r(0, 3), r(2, 3), r(2)),
    ]


def _norms(shift):
    def samples(rng):
        rows = []
        for shape in [(3, 5), (2, 2, 4), (4,), (2, 8), (0, 4)]:
            parameters = [rng.uniform(0.5, 1.5, shape[-1]) for _ in range(2 if shift else 1)]
            rows.append((rng.standard_normal(shape), *parameters))
        return [*rows, (*rows[0], {"eps": 0.1})]

    return samples


def _cross_entropies(rng):
    x, ids = rng.standard_normal((2, 3, 5)), rng.integers(0, 5, (2, 3))
    some = np.where(rng.random((2, 3)) < 0.5, -100, ids)
    some[0, 0] = 1
    return [
        (x, {"targets": ids}),
        (x, {"targets": some}),
        (x, {"targets": some, "reduction": "sum", "label_smoothing": 0.1}),
        (x, {"targets": some, "reduction": "none"}),
        (x, {"targets": np.where(ids == 2, 2, ids), "ignore_index": 2, "label_smoothing": 0.3}),
        (x[0, 0], {"targets": np.int64(3)}),
        (x[:, 0, :1], {"targets": [0, 0]}),
        (x * 40, {"targets": ids}),
    ]


def _linear_cross_entropies(rng):
    for rows, (logits, options) in zip((1, 2, 256, 3), _cross_entropies(rng), strict=False):
        x = rng.normal(size=(*logits.shape[:-1], 3))
        yield x, rng.normal(size=(logits.shape[-1], 3)), {**options, "rows": rows}


def _attentions(dropout):
    def samples(rng):
        def r(*shape):
            return rng.standard_normal(shape)

        if dropout:
            return [
                (r(1, 3, 4), r(1, 3, 4), r(1, 3, 4), {"n_heads": 2, "drop_rate": 0.4, "rng": np.random.default_rng(5)}),
            ]
        mask = rng.random((1, 2, 3, 3)) < 0.6
        mask[0, 0, 1] = False  # a query that sees no key
        return [
            (r(2, 2, 4), r(2, 2, 4), r(2, 2, 4), {"n_heads": 2}),
            (r(1, 3, 4), r(1, 3, 4), r(1, 3, 4), {"n_heads": 1, "causal": False}),
            (r(1, 2, 4), r(1, 5, 4), r(1, 5, 4), {"n_heads": 2}),
            (r(1, 2, 8), r(1, 2, 4), r(1, 2, 4), {"n_heads": 4, "n_kv_heads": 2}),
            (r(1, 3, 4), r(1, 3, 4), r(1, 3, 4), {"n_heads": 2, "mask": mask}),
            (r(1, 3, 4), r(1, 3, 4), r(1, 3, 4), {"n_heads": 2, "mask": mask, "causal": False}),
            (r(1, 1, 2), r(1, 1, 2), r(1, 1, 2), {"n_heads": 2}),
        ]

    return samples


def _rotaries(rng):
    def turned(x, table, n_heads, interleaved=False):
        angles = rng.uniform(-7, 7, table)
        return x, {"cos": np.cos(angles), "sin": np.sin(angles), "n_heads": n_heads, "interleaved": interleaved}

    x = rng.standard_normal((2, 3, 8))
    return [
        *(turned(x, table, 2, way) for way in (False, True) for table in ((3, 2), (2, 3, 2))),
        turned(x[:1, :, :4], (3, 2), 1),
        turned(x[:, :1, :2], (1, 1), 1, True),
        turned(x[:0], (3, 1), 4),
    ]


def _swiglus(rng):
    return [tuple(rng.uniform(-3, 3, (2, *shape))) for shape in [(3, 4), (2, 1, 3), (1,), (0, 3), ()]]


def _getitems(rng):
    x = rng.standard_normal((3, 4))
    return [
        (x, {"index": 1}),
        (x, {"index": (slice(None), -1)}),
        (x, {"index": (slice(None, None, -2), None, slice(1, 3))}),
        (x, {"index": np.array([0, 2, 2, -1])}),
        (x, {"index": (np.array([[0, 1], [2, 0]]), np.array([3, 3]))}),
        (x, {"index": x > 0}),
        (x, {"index": (..., np.array([True, False, True, False]))}),
        (x, {"index": ([0, 0], slice(1, None))}),
        (x, {"index": (1, 2)}),
        (x, {"index": slice(0, 0)}),
        (rng.standard_normal(()), {"index": ()}),
    ]


def _set_ats(rng):
    x = rng.standard_normal((3, 4))
    return [
        (x, rng.standard_normal(4), {"index": 1}),
        (x, rng.standard_normal(()), {"index": (slice(None), 2)}),
        (x, rng.standard_normal((3, 1)), {"index": (slice(None), slice(0, 2))}),
        (x, rng.standard_normal(2), {"index": (np.array([0, 2]), np.array([1, 1]))}),
        (x, rng.standard_normal(()), {"index": x > 0}),
        (x, rng.standard_normal((1, 4)), {"index": slice(1, 3)}),
    ]


def _joined(rng):
    def r(*shape):
        return rng.standard_normal(shape)

    return [
        (r(2, 3), r(1, 3)),
        (r(2, 3), r(2, 1), r(2, 2), {"axis": 1}),
        (r(2, 1, 2), r(2, 3, 2), {"axis": -2}),
        (r(3),),
        (r(0, 2), r(2, 2)),
    ]


def _stacked(rng):
    return [
        (rng.standard_normal((2, 3)), rng.standard_normal((2, 3))),
        (rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal(3), {"axis": -1}),
        (rng.standard_normal(()), rng.standard_normal(())),
        (rng.standard_normal((2, 3)), {"axis": 1}),
    ]


def _of_shape(*rows):
    """Samples of one array: (shape, options)."""
    return lambda rng: [(rng.standard_normal(shape), options) for shape, options in rows]


def _wheres(rng):
    condition = rng.random((3, 4)) < 0.5
    return [
        (rng.standard_normal((3, 4)), rng.standard_normal((3, 4)), {"condition": condition}),
        (rng.standard_normal((3, 1)), rng.standard_normal(4), {"condition": condition}),
        (rng.standard_normal(()), rng.standard_normal((3, 4)), {"condition": condition}),
        (rng.standard_normal((2, 3, 4)), rng.standard_normal(()), {"condition": condition[0]}),
        (rng.standard_normal(()), rng.standard_normal(()), {"condition": condition}),
    ]


def _powers(rng):
    x = rng.uniform(0.2, 2, (3, 4))
    return [
        (x, np.array(2.0)),
        (x, np.array(-1.5)),
        (x, rng.standard_normal((3, 4))),
        (x, rng.standard_normal(4)),
        (np.array(1.7), rng.standard_normal((2, 3))),
        (x[:, :1], rng.standard_normal((2, 1, 4))),
        (-x, np.array(3.0)),
    ]


_row = np.array([-inf, -inf, -inf])

SPECS = [
    # ---- arithmetic
    _spec("add", elementwise=True, reference=lambda x, y: x - (-y), analytic=True,
          errors=[((np.ones(2), np.ones(3)), ValueError, "shapes (2,) (3,)")]),
    _spec("subtract", elementwise=True, reference=lambda x, y: x + (-y), analytic=True),
    _spec("multiply", elementwise=True, reference=lambda x, y: x / (1 / y), analytic=True),
    _spec("divide", elementwise=True, domain=(0.4, 3), reference=lambda x, y: x * y**-1.0, analytic=True,
          special=[((np.array([1.0, 0.0]), np.array([0.0, 2.0])), [inf, 0.0], ([inf, 0.5], [-inf, 0.0])),
                   ((np.array(1e-200), np.array(1e-200)), 1.0, (1e200, -1e200)),  # divisors whose squares are 0 or infinite
                   ((np.array(0.0), np.array(1e-200)), 0.0, (1e200, 0.0)),
                   ((np.array(1e200), np.array(1e200)), 1.0, (1e-200, -1e-200))]),
    _spec("power", samples=_powers, domain=(0.3, 2), reference=lambda x, y: np.sign(x) ** 3 * np.exp(y * np.log(abs(x))),
          special=[
              ((np.array([0.0, 2.0]), np.array(0.0)), [1.0, 1.0], ([0.0, 0.0], None)),  # x^0 = 1 everywhere, 0^0 too
              ((np.array(0.0), np.array(2.0)), 0.0, (0.0, 0.0)),
              ((np.array([3.0, -3.0, 0.0]), np.array(2.0)), [9.0, 9.0, 0.0], ([6.0, -6.0, 0.0], None)),
          ]),
    _spec("negative", elementwise=True, reference=lambda x: 0 - x, analytic=True),
    _spec("absolute", elementwise=True, reference=lambda x: np.sqrt(x * x),
          special=[((np.array([-2.0, 0.0, 3.0]),), [2.0, 0.0, 3.0], ([-1.0, 0.0, 1.0],))]),
    _spec("exp", elementwise=True, reference=lambda x: np.vectorize(math.exp, otypes=[float])(x), analytic=True,
          special=[((np.array([0.0, -inf, 1e4, -1e4, 90.0]),), [1.0, 0.0, inf, 0.0, math.exp(90)], None)]),
    _spec("log", elementwise=True, domain=(0.2, 5), reference=lambda x: np.vectorize(math.log, otypes=[float])(x),
          analytic=True, special=[((np.array([1.0, 0.0, -1.0]),), [0.0, -inf, math.nan], ([1.0, inf, -1.0],))]),
    _spec("sqrt", elementwise=True, domain=(0.2, 5), reference=lambda x: np.exp(0.5 * np.log(x)), analytic=True,
          special=[((np.array([4.0, 0.0, -1.0]),), [2.0, 0.0, math.nan], ([0.25, inf, math.nan],))]),
    _spec("sin", elementwise=True, reference=lambda x: np.vectorize(math.sin, otypes=[float])(x), analytic=True),
    _spec("cos", elementwise=True, reference=lambda x: np.vectorize(math.cos, otypes=[float])(x), analytic=True),
    _spec("maximum", elementwise=True, reference=lambda x, y: np.where(x > y, x, y),
          special=[((np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])), [2.0, 2.0, 3.0],
                    ([0.0, 0.5, 1.0], [1.0, 0.5, 0.0]))]),
    _spec("minimum", elementwise=True, reference=lambda x, y: np.where(x < y, x, y),
          special=[((np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])), [1.0, 2.0, 2.0],
                    ([1.0, 0.5, 0.0], [0.0, 0.5, 1.0]))]),
    _spec("where", samples=_wheres, reference=lambda x, y, condition: np.choose(condition, [y, x]),
          special=[((np.array([1.0, math.nan]), np.array([math.nan, 4.0]), {"condition": np.array([True, False])}),
                    [1.0, 4.0], ([1.0, 0.0], [0.0, 1.0]))]),
    _spec("clip", samples=_of_shape(((3, 4), {"low": -0.5, "high": 0.5}), ((3,), {"low": 0.1}), ((2, 2), {"high": 0.0}),
                                    ((), {"low": -1.0, "high": 1.0}), ((0, 2), {"low": 0.0}), ((3,), {})),
          reference=lambda x, low=-inf, high=inf: np.minimum(np.maximum(x, low), high),
          special=[((np.array([-1.0, 0.0, 0.5, 1.0, 2.0]), {"low": 0.0, "high": 1.0}), [0.0, 0.0, 0.5, 1.0, 1.0],
                    ([0.0, 1.0, 1.0, 1.0, 0.0],))],  # the bounds themselves let the gradient through
          errors=[((np.ones(2), {"low": 1.0, "high": 0.0}), ConfigError, "low must not be above high"),
                  ((np.ones(2), {"low": math.nan}), ConfigError, "NaN")]),
    # ---- activations
    _spec("tanh", elementwise=True, reference=lambda x: 2 * scipy.special.expit(2 * x) - 1, analytic=True,
          special=[((np.array([0.0, 1e4, -1e4]),), [0.0, 1.0, -1.0], ([1.0, 0.0, 0.0],))]),
    _spec("sigmoid", elementwise=True, reference=scipy.special.expit, analytic=True,
          special=[((np.array([0.0, 1e4, -1e4, 90.0, -90.0]),), [0.5, 1.0, 0.0, 1.0, math.exp(-90)],
                    ([0.25, 0.0, 0.0, math.exp(-90), math.exp(-90)],)),
                   ((np.array([inf, -inf, math.nan]),), [1.0, 0.0, math.nan], ([0.0, 0.0, math.nan],))]),
    _spec("log_sigmoid", elementwise=True, reference=scipy.special.log_expit,
          special=[((np.array([0.0, 1e4, -1e4, 90.0, -90.0]),), [-math.log(2), 0.0, -1e4, -math.exp(-90), -90.0],
                    ([0.5, 0.0, 1.0, math.exp(-90), 1.0],)),
                   ((np.array([inf, -inf, math.nan]),), [0.0, -inf, math.nan], ([0.0, 1.0, math.nan],))]),
    _spec("relu", elementwise=True, reference=lambda x: x * (x > 0),
          special=[((np.array([-1.0, 0.0, 2.0, 1e4]),), [0.0, 0.0, 2.0, 1e4], ([0.0, 0.0, 1.0, 1.0],)),
                   # a NaN is not hidden, and PyTorch lets its gradient through as well
                   ((np.array([inf, -inf, math.nan]),), [inf, 0.0, math.nan], ([1.0, 0.0, 1.0],))]),
    _spec("gelu", elementwise=True, analytic=True,
          reference=lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
          special=[((np.array([0.0, 90.0, -90.0, 1e4, -1e4]),), [0.0, 90.0, 0.0, 1e4, 0.0],
                    ([0.5, 1.0, 0.0, 1.0, 0.0],))]),
    _spec("gelu_erf", elementwise=True, reference=lambda x: x * scipy.special.ndtr(x),
          special=[((np.array([0.0, 90.0, -90.0, 1e4, -1e4]),), [0.0, 90.0, 0.0, 1e4, 0.0],
                    ([0.5, 1.0, 0.0, 1.0, 0.0],))]),
    _spec("erf", elementwise=True, reference=scipy.special.erf, domain=(-6, 6),
          special=[((np.array([0.0, inf, -inf, math.nan, 1e4, 0.46875, 4.0]),),
                    [0.0, 1.0, -1.0, math.nan, 1.0, math.erf(0.46875), math.erf(4.0)], None)]),
    _spec("silu", elementwise=True, reference=lambda x: x * scipy.special.expit(x), analytic=True,
          special=[((np.array([0.0, 90.0, -90.0, 1e4, -1e4]),), [0.0, 90.0, -90 * math.exp(-90), 1e4, 0.0],
                    ([0.5, 1.0, -89 * math.exp(-90), 1.0, 0.0],))]),
    _spec("swiglu", samples=_swiglus, reference=lambda x, y: x * scipy.special.expit(x) * y, analytic=True,
          special=[((np.array([0.0, 90.0, -90.0, 1e4, -1e4]), np.array([3.0, 2.0, 2.0, -1.0, 2.0])),
                    [0.0, 180.0, -180 * math.exp(-90), -1e4, 0.0],
                    ([1.5, 2.0, -178 * math.exp(-90), -1.0, 0.0], [0.0, 90.0, -90 * math.exp(-90), 1e4, 0.0]))],
          errors=[((np.ones((2, 3)), np.ones(3)), ShapeError, "x is (2, 3), y is (3,)")]),
    # ---- reductions
    _spec("sum", samples=_reductions(), reference=lambda x, **k: np.einsum("...->...", x).sum(**k), analytic=True),
    _spec("mean", samples=_reductions(), reference=lambda x, **k: np.average(x, **k) if x.size else x.sum(**k), analytic=True),
    _spec("max", samples=lambda rng: [row for row in _reductions()(rng) if row[0].size],
          reference=lambda x, axis=None, keepdims=False: np.quantile(x, 1.0, axis=axis, keepdims=keepdims),
          special=[((np.array([1.0, 3.0, 3.0]),), 3.0, ([0.0, 0.5, 0.5],)),
                   ((np.array([[2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 0.0, 0.0]]), {"axis": 1}), [2.0, 1.0],
                    ([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]],))],
          errors=[((np.zeros((2, 0)), {"axis": 1}), ValueError, "max")]),
    _spec("var", samples=lambda rng: [row for row in _reductions()(rng) if row[0].size]
          + [(rng.standard_normal((3, 4)), {"axis": 0, "ddof": 1})],
          reference=lambda x, axis=None, keepdims=False, ddof=0: np.var(x, axis, keepdims=keepdims, ddof=ddof),
          special=[((np.full(4, 7.0),), 0.0, (np.zeros(4),))],
          errors=[((np.ones((1, 3)), {"axis": 0, "ddof": 1}), ConfigError, "1 elements with ddof 1")]),
    _spec("norm", samples=_positive_reductions,
          reference=lambda x, axis=None, keepdims=False: np.exp(0.5 * np.log((x**2).sum(axis=axis, keepdims=keepdims))),
          special=[((np.array([3.0, -4.0]),), 5.0, ([0.6, -0.8],)), ((np.zeros(3),), 0.0, (np.zeros(3),)),
                   ((np.array([[0.0, 0.0], [0.0, 2.0]]), {"axis": 1}), [0.0, 2.0], ([[0.0, 0.0], [0.0, 1.0]],))]),
    _spec("logsumexp", samples=lambda rng: [row for row in _reductions()(rng) if row[0].size],
          reference=lambda x, axis=None, keepdims=False: scipy.special.logsumexp(x, axis, keepdims=keepdims),
          special=[((_row,), -inf, (np.zeros(3),)), ((np.array([1e4, -1e4, 1e4]),), 1e4 + math.log(2), ([0.5, 0.0, 0.5],)),
                   ((np.array([[0.0, -inf], [-inf, -inf]]), {"axis": 1}), [0.0, -inf], ([[1.0, 0.0], [0.0, 0.0]],))]),
    # ---- arrangement
    _spec("reshape", samples=_of_shape(((2, 6), {"shape": (3, 4)}), ((2, 6), {"shape": (-1,)}), ((1, 1), {"shape": ()}),
                                       ((0, 2), {"shape": (2, 0, 3)}), ((4,), {"shape": 4})),
          reference=lambda x, shape: np.array(x.ravel().tolist()).reshape(shape), analytic=True,
          errors=[((np.ones((2, 3)), {"shape": (4, 2)}), ShapeError, "x is (2, 3), 6 elements, which do not fit into (4, 2)")]),
    _spec("transpose", samples=_of_shape(((2, 3, 4), {}), ((2, 3, 4), {"axes": (1, 2, 0)}), ((2, 3), {"axes": (-1, 0)}),
                                         ((), {}), ((0, 3), {})),
          reference=lambda x, axes=None: np.einsum({(1, 2, 0): "abc->bca", (-1, 0): "ab->ba"}[axes], x) if axes else
          np.moveaxis(x, range(x.ndim), range(x.ndim)[::-1]), analytic=True),
    _spec("swapaxes", samples=_of_shape(((2, 3, 4), {"axis1": 0, "axis2": -1}), ((2, 3), {"axis1": 1, "axis2": 1})),
          reference=lambda x, axis1, axis2: x.transpose([2, 1, 0] if x.ndim == 3 else [0, 1]), analytic=True),
    _spec("expand_dims", samples=_of_shape(((2, 3), {"axis": 1}), ((2, 3), {"axis": (0, -1)}), ((), {"axis": 0})),
          reference=np.expand_dims, analytic=True),
    _spec("squeeze", samples=_of_shape(((2, 1, 3, 1), {}), ((2, 1, 3, 1), {"axis": 1}), ((1, 1), {"axis": (0, 1)})),
          reference=lambda x, axis=None: np.squeeze(x, axis), analytic=True),
    _spec("broadcast_to", samples=_of_shape(((3, 1), {"shape": (2, 3, 4)}), ((), {"shape": (2, 2)}), ((2,), {"shape": (2,)}),
                                            ((1, 3), {"shape": (0, 3)})),
          reference=lambda x, shape: x + np.zeros(shape), analytic=True),
    _spec("concatenate", samples=_joined, analytic=True,
          reference=lambda *a, axis=0: np.moveaxis(np.array([r for x in a for r in np.moveaxis(x, axis, 0)]), 0, axis),
          errors=[((), ShapeError, "no tensors")]),
    _spec("stack", samples=_stacked, reference=lambda *a, axis=0: np.concatenate([np.expand_dims(x, axis) for x in a], axis),
          analytic=True, errors=[((), ShapeError, "no tensors")]),
    _spec("getitem", samples=_getitems, reference=lambda x, index: np.array(x.tolist())[index], analytic=True),
    _spec("set_at", samples=_set_ats, reference=_set_at, analytic=True,
          errors=[((np.ones(3), np.ones(2), {"index": np.array([1, 1])}), ConfigError, "names an element twice")]),
    # ---- linear
    _spec("matmul", samples=_matmuls, reference=_matmul, analytic=True,
          errors=[((np.ones((2, 3)), np.ones((2, 3))), ShapeError, "x is (2, 3), y is (2, 3)"),
                  ((np.ones(()), np.ones(3)), ShapeError, "x is ()")]),
    _spec("linear", samples=_linears, reference=_linear, analytic=True,
          errors=[((np.ones((4, 7)), np.ones((16, 8))), ShapeError, "linear: x is (4, 7), weight is (16, 8)"),
                  ((np.ones((4, 8)), np.ones((16, 8)), np.ones(8)), ShapeError, "bias must be (16,)")]),
    _spec("embedding", samples=lambda rng: [(rng.standard_normal((5, 3)), {"ids": ids}) for ids in
                                            (np.array([[0, 4, 4], [1, 0, 4]]), np.array(2), np.array([3], np.uint8),
                                             np.zeros((0, 2), int))],
          reference=lambda weight, ids: np.array([weight[i] for i in ids.ravel()]).reshape((*ids.shape, 3)), analytic=True,
          errors=[((np.ones((5, 3)), {"ids": np.array([[0, 1], [5, 0]])}), DataError, "id 5 at position (1, 0)"),
                  ((np.ones((5, 3)), {"ids": np.array([0, -1])}), DataError, "id -1 at position (1,)"),
                  ((np.ones((5, 3)), {"ids": np.array([0, 2**40])}), DataError, str(2**40)),
                  ((np.ones((5, 3)), {"ids": np.array([0.0, 1.0])}), DTypeError, "ids are float64"),
                  ((np.ones((5, 3)), {"ids": np.array([True, False])}), DTypeError, "ids are bool"),
                  ((np.ones((5, 3)), {"ids": [[0, 1], [2]]}), DataError, "ragged"),
                  ((np.ones((5, 3, 2)), {"ids": np.array([0])}), ShapeError, "weight is (5, 3, 2): it must be a table"),
                  ((np.ones(5), {"ids": np.array([0])}), ShapeError, "weight is (5,)"),
                  ((np.ones(()), {"ids": np.array([0])}), ShapeError, "weight is ()")]),
    # ---- normalisation, dropout, softmax and what follows
    _spec("layer_norm", samples=_norms(shift=True), reference=_layer_norm, rtol=1e-11,
          special=[((np.full((2, 4), 7.0), np.ones(4), np.full(4, 0.5)), np.full((2, 4), 0.5), (np.zeros((2, 4)), None, None)),
                   ((np.array([[5.0]]), np.ones(1), np.ones(1)), [[1.0]], ([[0.0]], [0.0], [1.0]))],
          errors=[((np.ones((2, 4)), np.ones(3), np.ones(4)), ShapeError, "must be (4,)")]),
    _spec("rms_norm", samples=_norms(shift=False), reference=_rms_norm, rtol=1e-11,
          special=[((np.zeros((1, 4)), np.ones(4)), np.zeros((1, 4)), ([[1e5**0.5] * 4], np.zeros(4)))],
          errors=[((np.ones((2, 4)), np.ones((2, 4))), ShapeError, "must be (4,)")]),
    _spec("rotary", samples=_rotaries, reference=_rotary, analytic=True,
          special=[((np.array([[[1.0, 2.0, 3.0, 4.0]]]), {"cos": np.zeros((1, 2)), "sin": np.ones((1, 2)), "n_heads": 1}),
                    [[[-3.0, -4.0, 1.0, 2.0]]], ([[[1.0, 1.0, -1.0, -1.0]]],))],  # a quarter turn
          errors=[((np.ones((1, 2, 6)), {"cos": np.ones((2, 1)), "sin": np.ones((2, 1)), "n_heads": 2}), ConfigError, "d even"),
                  ((np.ones((1, 2, 4)), {"cos": np.ones((2, 2)), "sin": np.ones((2, 2)), "n_heads": 0}), ConfigError, "0 heads"),
                  ((np.ones((2, 4)), {"cos": np.ones((2, 2)), "sin": np.ones((2, 2)), "n_heads": 1}), ConfigError, "x is (2, 4)"),
                  ((np.ones((3, 2, 4)), {"cos": np.ones((2, 1)), "sin": np.ones((2, 1)), "n_heads": 1}), ShapeError,
                   "they must be (2, 2) or (3, 2, 2)"),
                  ((np.ones((3, 2, 4)), {"cos": np.ones((3, 2, 2)), "sin": np.ones((2, 2)), "n_heads": 1}), ShapeError,
                   "cos is (3, 2, 2), sin is (2, 2)")]),
    _spec("wkv",
          samples=lambda rng: [tuple(scale * rng.standard_normal(shape) for shape in ((b, t, c), (b, t, c), (c,), (c,)))
                               for b, t, c, scale in [(2, 5, 2, 1), (1, 3, 1, 2), (1, 1, 1, 1), (0, 2, 2, 1)]],
          reference=_wkv, rtol=1e-11,
          special=[((np.array([[[1e3], [-1e3]]]), np.array([[[2.0], [5.0]]]), np.zeros(1), np.zeros(1)), [[[2.0], [2.0]]],
                    (np.zeros((1, 2, 1)), [[[2.0], [0.0]]], [0.0], [0.0])),
                   ((np.array([[[-1e3], [1e3]]]), np.array([[[2.0], [5.0]]]), np.zeros(1), np.zeros(1)), [[[2.0], [5.0]]],
                    (np.zeros((1, 2, 1)), [[[1.0], [1.0]]], [0.0], [0.0]))],
          errors=[((np.ones((2, 3, 4)), np.ones((2, 3, 4)), np.ones(3), np.ones(4)), ShapeError, "decay is (3,)"),
                  ((np.ones((2, 3)), np.ones((2, 3)), np.ones(3), np.ones(3)), ShapeError, "k is (2, 3)"),
                  ((np.ones((2, 3, 4)), np.ones((2, 2, 4)), np.ones(4), np.ones(4)), ShapeError, "v is (2, 2, 4)")]),
    _spec("fft_conv",
          samples=lambda rng: [tuple(rng.standard_normal(shape) for shape in shapes)
                               for shapes in [((2, 3, 5), (3, 5), (3,)), ((3, 4), (3, 4), (3,)), ((6,), (6,), ()),
                                              ((2, 1, 2, 1), (2, 1), (2,)), ((0, 2, 3), (2, 3), (2,))]],
          reference=_fft_conv, rtol=1e-11, domain=(0.5, 3.0),  # where a sum is 0, a transform leaves 1e-17
          errors=[((np.ones((2, 3, 4)), np.ones((3, 5)), np.ones(3)), ShapeError, "u is (2, 3, 4), h is (3, 5)"),
                  ((np.ones((2, 3, 4)), np.ones((3, 4)), np.ones(())), ShapeError, "d is ()"),
                  ((np.ones(()), np.ones(()), np.ones(())), ShapeError, "u is ()"),
                  ((np.ones((2, 0)), np.ones((2, 0)), np.ones(2)), ShapeError, "T is 1 or more")]),
    _spec("dropout",
          samples=lambda rng: [(rng.standard_normal(shape), {"drop_rate": p, "rng": np.random.default_rng(3)})
                               for shape, p in [((3, 4), 0.3), ((5,), 0.0), ((2, 2), 1.0), ((0, 3), 0.5), ((), 0.5)]],
          special=[((np.arange(3.0), {"drop_rate": 0.0, "rng": np.random.default_rng(0)}), [0.0, 1.0, 2.0], (np.ones(3),)),
                   ((np.arange(3.0), {"drop_rate": 1.0, "rng": np.random.default_rng(0)}), np.zeros(3), (np.zeros(3),))],
          errors=[((np.ones(3), {"drop_rate": p, "rng": np.random.default_rng(0)}), ConfigError, f"drop_rate is {p}")
                  for p in (-0.1, 1.1, math.nan)]),
    _spec("softmax", samples=_along_an_axis, reference=lambda x, axis=-1: scipy.special.softmax(x, axis) if x.size else x,
          special=[((_row,), np.zeros(3), (np.zeros(3),)), ((np.array([1e4, -1e4]),), [1.0, 0.0], ([0.0, 0.0],)),
                   ((np.array([0.0, -inf, 0.0]),), [0.5, 0.0, 0.5], (np.zeros(3),)), ((np.array([3.0]),), [1.0], ([0.0],)),
                   ((np.array([[math.nan, 1.0], [1.0, 1.0]]),), [[math.nan] * 2, [0.5, 0.5]], None)]),
    _spec("log_softmax", samples=_along_an_axis,
          reference=lambda x, axis=-1: scipy.special.log_softmax(x, axis) if x.size else x,
          special=[((_row,), _row, ([1.0, 1.0, 1.0],)), ((np.array([1e4, -1e4]),), [0.0, -2e4], ([-1.0, 1.0],)),
                   ((np.array([3.0]),), [0.0], ([0.0],))]),
    _spec("cross_entropy", samples=_cross_entropies, reference=_cross_entropy,
          special=[((np.array([[0.0, 0.0, 0.0, 0.0]]), {"targets": np.array([2])}), math.log(4), ([[0.25, 0.25, -0.75, 0.25]],)),
                   ((np.array([[0.0, 1e4]]), {"targets": np.array([0])}), 1e4, ([[-1.0, 1.0]],)),
                   ((np.array([[0.0, -inf]]), {"targets": np.array([0])}), 0.0, ([[0.0, 0.0]],)),
                   ((np.array([[0.0, -inf]]), {"targets": np.array([1])}), inf, ([[1.0, -1.0]],)),
                   ((np.array([[0.0, -inf]]), {"targets": np.array([0]), "label_smoothing": 0.1}), inf, ([[0.05, -0.05]],))],
          errors=[((np.ones((2, 3)), {"targets": np.array([0, 3])}), DataError, "target 3 at position (1,)"),
                  ((np.ones((2, 3)), {"targets": np.array([-1, 0])}), DataError, "target -1 at position (0,)"),
                  ((np.ones((2, 3)), {"targets": np.array([0.0, 1.0])}), DTypeError, "targets are float64"),
                  ((np.ones((2, 3)), {"targets": np.array([0])}), ShapeError, "targets must be (2,)"),
                  ((np.ones((2, 3)), {"targets": np.array([0, 1]), "reduction": "avg"}), ConfigError, "'avg'"),
                  ((np.ones((2, 3)), {"targets": np.array([0, 1]), "label_smoothing": 1.5}), ConfigError, "label_smoothing")]),
    _spec("linear_cross_entropy", samples=_linear_cross_entropies, reference=_linear_cross_entropy,
          errors=[((np.ones((2, 3)), np.ones((4, 2)), {"targets": np.array([0, 1])}), ShapeError, "the last axis of x must be 2"),
                  ((np.ones((2, 3)), np.ones((4, 3)), {"targets": np.array([0, 4])}), DataError, "target 4 at position (1,)"),
                  ((np.ones((2, 3)), np.ones((4, 3)), {"targets": np.array([0, 1]), "rows": 0}), ConfigError, "rows is 0")]),
    _spec("attention", samples=_attentions(dropout=False), reference=_attention,
          errors=[((np.ones((1, 2, 5)), np.ones((1, 2, 5)), np.ones((1, 2, 5)), {"n_heads": 2}), ConfigError, "5 features in 2"),
                  ((np.ones((1, 2, 4)), np.ones((1, 2, 6)), np.ones((1, 2, 6)), {"n_heads": 2}), ShapeError, "k is (1, 2, 6)"),
                  ((np.ones((1, 2, 4)),) * 3 + ({"n_heads": 2, "drop_rate": 2.0, "rng": None},), ConfigError, "drop_rate")]),
]  # fmt: skip

# A second row for what the first one's reference does not cover.
MORE_SPECS = [_spec("attention", samples=_attentions(dropout=True))]
