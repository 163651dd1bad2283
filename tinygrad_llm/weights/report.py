"""What became of each tensor of a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..formats.source import printable


@dataclass
class LoadReport:
    """How a file's tensors became a model's parameters. `print(report)` shows it; loading fails where it is not complete."""

    path: Path
    form: str  # "GPT-2, names of transformers, safetensors"
    mapped: dict[str, str] = field(default_factory=dict)  # parameter -> tensor of the file
    missing: list[str] = field(default_factory=list)  # tensors that the file lacks; those that may be absent are zeros
    unexpected: list[str] = field(default_factory=list)  # tensors that no parameter wants
    ignored: list[str] = field(default_factory=list)  # tensors that hold nothing learned, or nothing new
    transposed: list[str] = field(default_factory=list)  # tensors stored as (inputs, outputs)
    cast: dict[str, str] = field(default_factory=dict)  # tensor -> "BF16 -> float32"
    notes: list[str] = field(default_factory=list)  # what was assumed, and what is odd

    def __str__(self) -> str:
        n_tensors = len(set(self.mapped.values()))
        lines = [f"{self.path}: {self.form}: {n_tensors} tensors became {len(self.mapped)} parameters"]
        for title in ("missing", "unexpected", "ignored", "transposed", "cast"):
            names = list(getattr(self, title))
            if names:
                first = ", ".join(map(printable, names[:3])) + (", ..." if len(names) > 3 else "")
                kinds = f" ({', '.join(sorted(set(self.cast.values())))})" if title == "cast" else ""
                lines.append(f"  {title:11}{len(names):5}{kinds}: {first}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])
