"""The losses of a run, or of several, as a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import replace_file, storing
from .curve import Rows
from .feedback_curve import points


def plot_losses(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, float]], baselines: Mapping[str, float]
) -> bool:
    """Draw "train_loss" and "val_loss" of `rows` over "step", and each baseline as a dotted line; beside them accuracies, if any:
    a PNG, which takes the place of an older one. False without matplotlib."""
    try:
        from matplotlib.figure import Figure  # the class alone: no window, no global state
    except ImportError:
        return False
    steps = [row["step"] for row in rows]
    best = min(rows, key=lambda row: row["val_loss"])
    judged = "val_accuracy" in rows[-1]
    figure = Figure(figsize=(10 if judged else 7, 4), dpi=120, layout="constrained")
    axes, *others = figure.subplots(1, 2).tolist() if judged else [figure.subplots()]
    axes.plot(steps, [row["train_loss"] for row in rows], color="C0", label="training")
    axes.plot(steps, [row["val_loss"] for row in rows], color="C1", label="validation")
    axes.plot(best["step"], best["val_loss"], "o", color="C1", label=f"lowest validation: {best['val_loss']:.2f}")
    for name, loss in baselines.items():
        axes.axhline(loss, color="gray", linewidth=0.8, linestyle=":")
        axes.annotate(
            name, (1, loss), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="gray", fontsize=8
        )
    axes.set(xlabel="step", ylabel="loss (nats)" if judged else "loss (nats per token)", ylim=(0, None))
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    for beside in others:
        beside.plot(steps, [row["train_accuracy"] for row in rows], color="C0", label="training")
        beside.plot(steps, [row["val_accuracy"] for row in rows], color="C1", label="validation")
        beside.set(xlabel="step", ylabel="accuracy", ylim=(0, 1.02))
        beside.spines[["top", "right"]].set_visible(False)
    _write(figure, path)
    return True


@dataclass(frozen=True)
class Panel:
    """Curves with one axis: the name of a column -> label. Where rows have NAME_interval beside NAME, it becomes a band."""

    ylabel: str
    curves: Mapping[str, str]
    limits: tuple[float | None, float | None] = (None, None)


def plot_panels(path: str | os.PathLike[str], rows: Rows, panels: Sequence[Panel]) -> bool:
    """Draw panels side by side over "step", but those of which the rows hold nothing: a PNG. False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    shown = [panel for panel in panels if any(points(rows, name) for name in panel.curves)]
    figure = Figure(figsize=(max(7, 4.5 * len(shown)), 4), dpi=120, layout="constrained")
    for axes, panel in zip(figure.subplots(1, max(1, len(shown)), squeeze=False)[0], shown, strict=False):
        for i, (name, label) in enumerate(panel.curves.items()):
            if not (found := points(rows, name)):
                continue
            halves = dict(points(rows, f"{name}_interval"))
            steps, values = zip(*found, strict=True)
            low, high = ([y + sign * halves.get(x, 0.0) for x, y in found] for sign in (-1, 1))
            axes.fill_between(steps, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
            axes.plot(steps, values, color=f"C{i}", label=label, marker="o" if len(found) == 1 else "")
        axes.set(xlabel="step", ylabel=panel.ylabel, ylim=panel.limits)
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    _write(figure, path)
    return True


def plot_confusion(path: str | os.PathLike[str], classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> bool:
    """Draw how many texts of each class (a row) were taken for which (a column): a PNG. False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    n, names = len(classes), [name if len(name) <= 20 else name[:19] + "…" for name in classes]
    figure = Figure(figsize=(max(3.5, 1.5 + 0.6 * n), max(3, 1 + 0.6 * n)), dpi=120, layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 20:
        for i, row in enumerate(confusion):
            for j, count in enumerate(row):
                axes.text(
                    j, i, f"{count:,}", ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black"
                )
    axes.set_xticks(range(n), names, rotation=0 if n <= 4 else 90)
    axes.set_yticks(range(n), names)
    axes.set(xlabel="taken for", ylabel="texts of")
    _write(figure, path)
    return True


def plot_alignments(path: str | os.PathLike[str], pairs: Sequence[tuple[Sequence[str], Sequence[str], Any]]) -> bool:
    """Draw, side by side, how much each token of a target (a row) looks at those of its source (columns): a PNG. `pairs` are
    tokens of sources, tokens of targets and weights (T, S) from 0 to 1. False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(max(4, 4.2 * len(pairs)), 4.2), dpi=120, layout="constrained")
    for axes, (source, target, weights) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        # a dollar sign would begin a formula
        axes.set_xticks(range(len(source)), [token.replace("$", r"\$") for token in source], rotation=90)
        axes.set_yticks(range(len(target)), [token.replace("$", r"\$") for token in target])
        axes.set(xlabel="source", ylabel="written")
    _write(figure, path)
    return True


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
    picture = BytesIO()
    figure.savefig(picture)
    replace_file(Path(path), [picture.getbuffer()])


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
