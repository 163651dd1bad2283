"""First weights that are drawn in another way than PyTorch draws each layer."""

from __future__ import annotations

import numpy as np

from ..rng import Generator, Zeros


def truncated_normal(rng: Generator, shape: tuple[int, ...], std: float = 0.02) -> np.ndarray:
    """N(0, std²) of which all beyond two deviations is drawn again (TensorFlow's truncated_normal_initializer); float32."""
    drawn = rng.normal(0.0, std, shape)
    while (far := np.abs(drawn) > 2 * std).any():
        drawn[far] = rng.normal(0.0, std, (int(far.sum()),))
    return drawn


def orthogonal(rng: Generator, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Rows or columns of length `gain` at right angles: Q of a normal matrix, with the signs of R (Saxe et al. 2013); float32."""
    if isinstance(rng, Zeros):  # which have no angles; and the decomposition of a large table takes a minute
        return rng.normal(0.0, 1.0, shape)
    rows, columns = shape
    q, r = np.linalg.qr(rng.normal(0.0, 1.0, (max(shape), min(shape))))
    q *= gain * np.sign(np.diag(r))
    return np.ascontiguousarray(q if rows >= columns else q.T)
