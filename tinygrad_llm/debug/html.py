"""What a notebook shows: tensors, modules, steps, optimizers and checks as a few lines of HTML, with every text escaped.

Arrays come as pictures (debug/picture.py), of a sample where they are large, so that any size is cheap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tape.display import in_words, summarise
from .attention import heads
from .picture import NEGATIVE, POSITIVE, png

if TYPE_CHECKING:
    from ..engine import Tensor
    from ..nn import Module
    from ..nn.activations import Cache
    from ..optim import Optimizer
    from ..tape.step import Step, Walk
    from ..testing.gradcheck import GradcheckResult

_WRITTEN = 8  # rows and columns of numbers at most; larger arrays are drawn
_DRAWN = 64  # rows and columns of a drawn sample at most
_ENTRIES = 8  # of a gradcheck
_ROWS = 100  # of other tables
_HEADS = 4  # of attention


def tensor_html(tensor: Tensor) -> str:
    """The line that repr() gives, and the values: written up to 8 x 8, else drawn."""
    line = f"<code>{escape(repr(tensor))}</code>"
    x = tensor.data
    if x.size == 0 or x.dtype.kind == "c":
        return line
    shape = _rows_and_columns(x)
    return line + (_numbers(x.reshape(shape)) if max(shape) <= _WRITTEN else _drawing(x))


def step_html(step: Step) -> str:
    """Name and formula, then what the forward took, made and saved, g, and the gradients, in numbers and drawn."""
    rows: list[tuple[str, str, Any]] = []
    if step.walk.repeats:
        rows += [(name, "goes in", value) for name, value in step.args.items()]
        rows.append((step.variable or "out", "comes out", step.out))
    rows.append(("g", "arrives", step.grad_out))
    rows += [(name, "saved", value) for name, value in step.saved.items()]
    for h, head in enumerate(heads(step)[:_HEADS]):
        rows += [(name, f"inside head {h}", matrix) for name, matrix in head.items()]
    rows += [(name, "passed on", gradient) for name, gradient in step.inputs.items()]
    title, *places = map(escape, step.described())
    return (
        f"<b>{title}</b> &nbsp; step {step.i + 1} of {step.n} &nbsp; <code>{escape(step.worked)}</code><br>"
        f"<small>{', '.join(places)}</small>" + _table(("", "", "shape", "values", ""), (_row(*row) for row in rows))
    )


def module_html(module: Module, name: str = "") -> str:
    """A tree that unfolds: modules with how many numbers they learn, parameters with their shapes."""
    head = f"{escape(name)} <b>{escape(type(module).__name__)}</b> &nbsp; {module.n_parameters():,} parameters"
    own = [
        f"<div><code>{escape(key)} {value.shape} {value.dtype}</code></div>"
        for key, value in vars(module).items()
        if hasattr(value, "requires_grad")
    ]
    children = [module_html(child, child_name) for child_name, child in module.named_children()]
    if not own and not children:
        return f"<div>{head}</div>"
    opened = "" if name else " open"
    return f'<details{opened}><summary>{head}</summary><div style="margin-left:1.5em">{"".join(own + children)}</div></details>'


def optimizer_html(optimizer: Optimizer) -> str:
    """The line that repr() gives, and the options of each group."""
    rows = []
    for group in optimizer.param_groups:
        params, options = group["params"], [str(value) for name, value in group.items() if name != "params"]
        rows.append((str(len(params)), f"{sum(p.data.size for p in params):,}", *options))
    names = [name for name in optimizer.param_groups[0] if name != "params"]
    return f"<code>{escape(repr(optimizer))}</code>" + table_html([("parameters", "numbers", *names), *rows])


def walk_html(walk: Walk) -> str:
    """The nodes in the order of the backward."""
    rows = [(walk.names[node], str(node.shape), node.site) for node in reversed(walk.nodes)]
    return f"<code>{escape(repr(walk))}</code>" + table_html([("node", "shape", "made at"), *rows])


def cache_html(cache: Cache) -> str:
    """Each activation, and its gradient, in numbers and drawn."""
    rows = []
    for name, array in islice(cache.items(), _ROWS):
        rows.append(_row(name, "", array))
        if name in cache.grads:
            rows.append(_row("", "gradient", cache.grads[name]))
    more = f"<small>and {len(cache) - _ROWS} more</small>" if len(cache) > _ROWS else ""
    head = f"<code>{escape(repr(cache))}</code>"
    return head + _table(("", "", "shape", "values", ""), rows) + more


def gradcheck_html(result: GradcheckResult) -> str:
    """The verdict, and the derivatives that are wrong or at a kink, the worst first."""
    sign, colour = ("✓", "#047857") if result else ("✗", "#c81e1e")
    text = str(result).split("\n")[0]
    entries = [*result.mismatches, *result.kinks]
    rows = [
        (
            escape(entry.argument),
            escape(str(list(entry.index) if isinstance(entry.index, tuple) else entry.index)),
            "Σ v f" if entry.output is None else str(entry.output),
            f"{entry.analytic:.9g}",
            f"{entry.numeric:.9g}" if entry.kink is None else f"{entry.kink[0]:.6g} | {entry.kink[1]:.6g}",
            f"{entry.relative_error:.2g}" if entry.kink is None else "kink",
        )
        for entry in entries[:_ENTRIES]
    ]
    more = f"<small>and {len(entries) - _ENTRIES} more</small>" if len(entries) > _ENTRIES else ""
    header = ("argument", "index", "output", "analytic", "numeric", "relative error")
    table = _table(header, rows) + more if rows else ""
    return f'<b style="color:{colour}">{sign}</b> {escape(text)}{table}'


def _row(name: str, role: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, np.ndarray):
        return escape(name), role, "", escape(in_words(value)), ""
    picture = _drawing(value, 96) if value.size > 1 else ""
    return f"<code>{escape(name)}</code>", role, str(value.shape), escape(summarise(value)), picture


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells are HTML already."""
    head = "".join(f'<th style="text-align:left">{cell}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table_html(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the first of them the header; of many the first hundred."""
    header, *shown = ([escape(cell) for cell in row] for row in rows[: _ROWS + 1])
    more = f"<small>and {len(rows) - _ROWS - 1} more</small>" if len(rows) > _ROWS + 1 else ""
    return _table(header, shown) + more


def _numbers(x: np.ndarray) -> str:
    """A table of numbers, the stronger coloured the larger they are."""
    finite = np.abs(x[np.isfinite(x)]).astype(np.float64)
    largest = float(finite.max(initial=0)) or 1.0
    rows = ""
    for row in x.tolist():
        rows += "<tr>"
        for value in row:
            red, green, blue = NEGATIVE if value < 0 else POSITIVE
            share = 0.8 * math.sqrt(abs(value) / largest) if math.isfinite(value) else 0
            rows += f'<td style="background:rgba({red},{green},{blue},{share:.2f})">{value:.4g}</td>'
        rows += "</tr>"
    return f"<table>{rows}</table>"


def _drawing(x: np.ndarray, width: int = 256) -> str:
    """The array as an image: rows of its last axis, at most 64 x 64 of them, evenly spread."""
    rows, columns = _rows_and_columns(x)
    down, across = (np.unique(np.linspace(0, n - 1, min(n, _DRAWN)).astype(np.int64)) for n in (rows, columns))
    leading = np.unravel_index(down, x.shape[:-1]) if x.ndim > 1 else ()
    index = (*(axis[:, None] for axis in leading), across)
    picked = x[index].reshape(len(down), len(across))
    size = [max(12, width * n // max(picked.shape)) for n in picked.shape]
    whole = picked.size == x.size
    part = "" if whole else f"{len(down)} x {len(across)} of {rows:,} x {columns:,} elements, evenly spread"
    return (
        f'<div><img src="{png(picked)}" alt="{part or "all elements"}" title="{part}" style="height:{size[0]}px;'
        f'width:{size[1]}px;image-rendering:pixelated;border:1px solid #8884;margin:4px 0">'
        + (f"<br><small>{part}</small>" if part and width > 200 else "")
        + "</div>"
    )


def _rows_and_columns(x: np.ndarray) -> tuple[int, int]:
    columns = x.shape[-1] if x.ndim else 1
    return (x.size // columns if columns else 0), columns
