"""Positions that are not learned: sines and cosines of many wavelengths (Vaswani et al. 2017 §3.5)."""

from __future__ import annotations

import numpy as np

from ..checks import check_size

FORMS = ("interleaved", "halves")


def sinusoids(n_positions: int, emb_dim: int, form: str = "interleaved") -> np.ndarray:
    """(n_positions, emb_dim), float64: sin(p ω) and cos(p ω) with ω = 10000^(-2i / emb_dim), from i = 0.

    "interleaved": features 2i and 2i + 1, as in the paper; "halves": all sines, then all cosines, as in Marian.
    """
    check_size("sinusoids", n_positions=n_positions, emb_dim=emb_dim)
    n_sines = (emb_dim + 1) // 2
    angles = np.arange(n_positions)[:, None] * 10000.0 ** (-2 * np.arange(n_sines) / emb_dim)  # (T, C/2)
    table = np.empty((n_positions, emb_dim))
    sines, cosines = (
        (slice(0, None, 2), slice(1, None, 2))
        if form == "interleaved"
        else (
            slice(n_sines),
            slice(n_sines, None),
        )
    )
    table[:, sines], table[:, cosines] = np.sin(angles), np.cos(angles[:, : emb_dim // 2])
    return table
