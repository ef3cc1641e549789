"""Tables of results: as text on a terminal, as Markdown in the docs, as JSON for machines."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Table", "count", "machine", "median_and_worst", "milliseconds", "seconds", "times"]


@dataclass
class Table:
    """One table of the report.

    Attributes:
        title: what it shows.
        conditions: sizes, storage, cold or warm: what a reader must know to judge the numbers.
        columns: headings.
        rows: cells as text, one list per row.
        notes: remarks under the table, where we lose included.
    """

    title: str
    conditions: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Appends a row.

        Raises:
            ValueError: not as many cells as columns.
        """
        if len(cells) != len(self.columns):
            raise ValueError(f"{self.title}: a row needs {len(self.columns)} cells, got {len(cells)}: {cells}")
        self.rows.append([str(cell) for cell in cells])

    def to_text(self) -> str:
        """For a terminal."""
        lines = [list(self.columns), *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        shown.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join([f"== {self.title}", f"   {self.conditions}", *shown, *(f"   {note}" for note in self.notes)])

    def to_markdown(self) -> str:
        """For the docs."""
        head = "| " + " | ".join(self.columns) + " |"
        rule = "| " + " | ".join("---" for _ in self.columns) + " |"
        body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in self.rows]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join(
            [f"### {self.title}", "", self.conditions, "", head, rule, *body, *([""] if notes else []), *notes]
        )

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


def machine() -> dict[str, str]:
    """What the numbers were taken on: processor, cores, memory, versions."""
    import torch

    processor, memory = platform.processor() or platform.machine(), ""
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = f"{names[0]}, {len(names)} cores" if names else processor
    if meminfo.exists():
        memory = f"{int(meminfo.read_text().split()[1]) / (1 << 20):.0f} GiB"
    packages = ("numpy", "torch", "faiss-cpu", "duckdb", "tiledb")
    return {
        "processor": processor,
        "memory": memory,
        "torch threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{name: found for name in packages if (found := _version(name))},
    }


def _version(name: str) -> str:
    """Of an installed distribution; empty if it is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def count(value: float) -> str:
    """An integer number of inputs, such as 1,038; halves stay."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def median_and_worst(values: Iterable[float]) -> str:
    """Such as `26.5 (45)`."""
    held = list(values)
    return f"{count(float(np.median(held)))} ({count(max(held))})"


def milliseconds(value: float) -> str:
    """Seconds in, such as `1.23 ms`-style numbers out, without the unit."""
    ms = value * 1e3
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def seconds(value: float) -> str:
    """Seconds with three digits."""
    return f"{value:.3g}"


def times(ratio: float) -> str:
    """Such as `120x`."""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.1f}x"
