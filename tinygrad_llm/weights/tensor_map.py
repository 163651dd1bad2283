"""From the tensors of a file to the parameters of a model, and back, along a list of entries.

First everything is checked by names and shapes alone (`match`); then one tensor after the other is read and becomes a
parameter (`fill`), so that little more memory is needed than the model takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import did_you_mean
from ..errors import StateDictError
from ..formats.source import TensorSource, printable
from ..nn import Module
from .report import LoadReport

_SHOWN = 8  # problems in a message


@dataclass(frozen=True)
class Entry:
    """A tensor of a file, and the parameters that it holds one after the other along their first axis.

    With no parameters it must hold zeros, and is written as zeros. `transposed`: the file has (inputs, outputs).
    """

    theirs: str
    shape: tuple[int, ...]  # in the file
    ours: tuple[str, ...]
    transposed: bool = False
    may_lack: bool = False  # zeros then
    interleaved: int = 0  # heads whose rotary pairs are (2i, 2i + 1) in the file; ours are (i, i + d/2)


def match(
    entries: Sequence[Entry],
    source: TensorSource,
    names: Mapping[str, str],
    ignored: Collection[str],
    report: LoadReport,
) -> None:
    """Fill in `report`; StateDictError lists what does not fit. `names` are those of the entries -> those of the file."""
    wanted = {entry.theirs for entry in entries}
    report.unexpected = [own for name, own in names.items() if name not in wanted and name not in ignored]
    report.ignored = [own for name, own in names.items() if name in ignored and name not in wanted]
    problems, absent = [], {}
    for entry in entries:
        if entry.theirs not in names:
            report.missing.append(entry.theirs)
            if not entry.may_lack:
                absent[entry.theirs] = entry.shape
            continue
        own = names[entry.theirs]
        info = source.infos[own]
        if info.shape != entry.shape:
            problems.append(f"{printable(own)} in {info.file.name}: {_difference(info.shape, entry)}")
        elif info.dtype.upper().startswith(("BOOL", "C64", "COMPLEX")):
            problems.append(f"{printable(own)} in {info.file.name}: holds {info.dtype}, not numbers")
        elif not entry.ours:
            report.ignored.append(own)
        else:
            report.mapped |= dict.fromkeys(entry.ours, own)
            report.transposed += [own] if entry.transposed else []
    unexpected = [name for name in names if name not in wanted and name not in ignored]
    problems += [
        f"unexpected {printable(names[name])} {source.infos[names[name]].shape}"
        + (did_you_mean(name, absent) if i < _SHOWN else "")
        for i, name in enumerate(unexpected)
    ]
    problems += [f"missing {name} {shape}" for name, shape in absent.items()]
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + (
            f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        )
        raise StateDictError(f"{source.path}: does not fit {report.form}: {shown}. Nothing was loaded")


def fill(
    model: Module,
    entries: Sequence[Entry],
    source: TensorSource,
    names: Mapping[str, str],
    report: LoadReport,
    dtype: np.dtype,
) -> int:
    """Read each tensor into the parameters of a new model of zeros; returns how many numbers are NaN or infinite."""
    parameters = dict(model.named_parameters())
    for name in parameters.keys() - report.mapped.keys():  # what the file lacks stays as it was made
        parameters[name].data = parameters[name].data.astype(dtype, copy=False)
    n_bad = 0
    for entry in entries:
        if entry.theirs not in names:
            continue
        own = names[entry.theirs]
        array = source.read(own)
        if not entry.ours:
            if array.any():
                raise StateDictError(f"{source.path}: {printable(own)} must be zeros here. Nothing was loaded")
            continue
        info = source.infos[own]
        if array.dtype != dtype or info.n_bytes != array.nbytes:
            report.cast[own] = f"{info.dtype} -> {dtype}"
            with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite, or is NaN, is counted
                array = array.astype(dtype, copy=False)
        finite = int(np.count_nonzero(np.isfinite(array)))
        if finite != array.size:
            n_bad += array.size - finite
            report.notes.append(
                f"{printable(own)}: {array.size - finite:,} of {array.size:,} numbers are NaN or infinite"
            )
        array = array[0] if array.ndim == 3 else array  # OpenAI's (1, I, O), a convolution of width 1
        array = array.T if entry.transposed else array  # (O, I)
        array = reorder_pairs(array, entry.interleaved, False) if entry.interleaved else array
        for name, part in zip(entry.ours, np.split(array, len(entry.ours)), strict=True):
            part = np.ascontiguousarray(part) if len(entry.ours) == 1 else part.copy()
            parameters[name].data = part.reshape(parameters[name].shape)
    return n_bad


def collect(parameters: Mapping[str, np.ndarray], entry: Entry, dtype: np.dtype) -> np.ndarray:
    """The tensor to be written for an entry: what `fill` would take apart, put together."""
    if not entry.ours:
        return np.zeros(entry.shape, dtype)
    array = (
        np.concatenate([parameters[name] for name in entry.ours]) if len(entry.ours) > 1 else parameters[entry.ours[0]]
    )
    array = reorder_pairs(array, entry.interleaved, True) if entry.interleaved else array
    return np.ascontiguousarray(array.T if entry.transposed else array).reshape(entry.shape)


def reorder_pairs(array: np.ndarray, n_heads: int, interleaved: bool) -> np.ndarray:
    """Rows (H d, ...): those of each rotary pair from (i, i + d/2) to (2i, 2i + 1), or back if not `interleaved`."""
    pairs = (n_heads, 2, -1) if interleaved else (n_heads, -1, 2)
    return array.reshape(*pairs, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal, NaN and the sign of zero included."""
    word = f"u{a.itemsize}"
    return a.dtype == b.dtype and np.array_equal(a.view(word), b.view(word))


def _difference(shape: tuple[int, ...], entry: Entry) -> str:
    text = f"{shape} against {entry.shape}"
    if shape == entry.shape[::-1] and len(shape) == 2:
        text += ": Linear layout, where Conv1D is expected?" if entry.transposed else ": Conv1D layout?"
    return text
