"""Runs the bench: `python -m bench.masks.run --size small|standard|full [--only SECTION ...] [--sets NAME ...]
[--scans NAME ...]`.

Prints tables, and writes one JSON file with every record and one Markdown file, by default under bench-data/results/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.command import bench_command, run_sections
from bench.masks.report import SCANS, SIZES, Report
from bench.masks.sections.bounds import run_bounds
from bench.masks.sections.building import run_build
from bench.masks.sections.cells import run_cells
from bench.masks.sections.limit import run_limit
from bench.masks.sections.memory import run_memory
from bench.masks.sections.session import run_session

__all__ = ["SECTIONS", "main", "run"]


def _cells(report: Report) -> None:
    for workload in report.workloads:
        run_cells(report, workload)


SECTIONS: dict[str, Callable[[Report], None]] = {
    "cells": _cells,
    "limit": run_limit,
    "session": run_session,
    "build": run_build,
    "bounds": run_bounds,
    "memory": run_memory,
}
"""By name, in the order in which they run."""


def run(size: str, only: list[str], data: Path, sets: Sequence[str] = (), scans: Sequence[str] = ()) -> Report:
    """Runs sections over data sets against full scans (all, where a list is empty) and prints each one's tables.

    Raises:
        ValueError: there is no such data set at this size, or no such scan.
    """
    chosen = SIZES[size]
    names = {f"{n}x{side}": (n, side) for n, side in chosen.sets}
    if unknown := [name for name in sets if name not in names]:
        raise ValueError(f"--sets must name some of {', '.join(names)}, got {', '.join(unknown)}")
    if sets:
        chosen = replace(chosen, sets=tuple(names[name] for name in sets))
    if unknown := [name for name in scans if name not in SCANS]:
        raise ValueError(f"--scans must name some of {', '.join(SCANS)}, got {', '.join(unknown)}")
    report = Report(chosen, data, tuple(scans) or SCANS)
    run_sections(report, SECTIONS, only)
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 if a goal was missed."""
    lists = {
        "sets": "such as 2000x224; all by default",
        "scans": f"competitors that read every mask, of {', '.join(SCANS)}; all by default",
    }
    return bench_command(
        "bench.masks.run", __doc__, list(SIZES), list(SECTIONS), run, arguments, prefix="masks-", lists=lists
    )


if __name__ == "__main__":
    raise SystemExit(main())
