"""The losses of a run, or of several, as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from ..errors import ConfigError
from ..files import replace_file, storing


def plot_losses(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]], baselines: Mapping[str, float]
) -> bool:
    """Draw "train_loss" and "val_loss" of `rows` over "step", and each baseline as a dotted line: a PNG, which takes the place of
    an older one. False without matplotlib."""
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
    picture = BytesIO()
    figure.savefig(picture)
    replace_file(Path(path), [picture.getbuffer()])
    return True


def plot_runs(path: str | os.PathLike[str], runs: Mapping[str, Sequence[Mapping[str, float]]]) -> bool:
    """Draw the validation losses of several runs, name -> rows, and their training losses, dashed. False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for i, (name, rows) in enumerate(runs.items()):
        tokens = [row["tokens"] for row in rows]
        color, marker = f"C{i % 10}", "o" if len(rows) == 1 else ""
        axes.plot(tokens, [row["val_loss"] for row in rows], color=color, marker=marker, label=name)
        axes.plot(tokens, [row["train_loss"] for row in rows], color=color, linestyle="--", linewidth=0.8, alpha=0.6)
    axes.set(xlabel="tokens", ylabel="loss (nats per token)")
    axes.legend(title="validation (dashed: training)", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    with storing(Path(path)):
        try:
            figure.savefig(path)
        except ValueError as error:  # a kind of picture that there is not
            raise ConfigError(f"{path}: {error}") from error
    return True
