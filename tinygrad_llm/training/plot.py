"""The losses of a run as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence


def plot_losses(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]], baselines: Mapping[str, float]
) -> bool:
    """Draw "train_loss" and "val_loss" of `rows` over "step", and each baseline as a dotted line. False without matplotlib."""
    try:
        from matplotlib.figure import Figure  # the class alone: no window, no global state
    except ImportError:
        return False
    steps = [row["step"] for row in rows]
    best = min(rows, key=lambda row: row["val_loss"])
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, [row["train_loss"] for row in rows], color="C0", label="training")
    axes.plot(steps, [row["val_loss"] for row in rows], color="C1", label="validation")
    axes.plot(best["step"], best["val_loss"], "o", color="C1", label=f"lowest validation: {best['val_loss']:.2f}")
    for name, loss in baselines.items():
        axes.axhline(loss, color="gray", linewidth=0.8, linestyle=":")
        axes.annotate(
            name, (1, loss), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="gray", fontsize=8
        )
    axes.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    return True
