"""Runs the bench: `python -m bench.activations.run --size small|standard|full [--only SECTION ...]`.

Prints tables, and writes one JSON file with every record and one Markdown file, by default under bench-data/results/.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from bench.activations.report import SIZES, Report
from bench.activations.sections.bounds import run_bounds
from bench.activations.sections.building import run_added_time, run_linearity, run_memory
from bench.activations.sections.cell_goals import goals_of_counts, goals_of_times
from bench.activations.sections.cells import run_cells, run_tight
from bench.activations.sections.footprint import run_footprint
from bench.activations.sections.kept import run_kept
from bench.activations.sections.session import run_session
from bench.activations.sections.space import run_space
from bench.activations.workloads import Workload, digits_workload, text_workload
from bench.command import bench_command, run_sections

__all__ = ["SECTIONS", "main", "run"]


@cache
def _digits(n: int, data: Path) -> Workload:
    return digits_workload(n, data)


def _few(report: Report) -> Workload:
    return _digits(report.size.digits, report.data)


def _many(report: Report) -> Workload:
    return _digits(report.size.many_digits or report.size.digits, report.data)


def _digits_cells(report: Report) -> None:
    size = report.size
    found = run_cells(report, _few(report), n_queries=size.n_queries, repeats=size.recompute_repeats)
    goals_of_counts(report, found)
    goals_of_times(report, found, 100)


def _many_digits_cells(report: Report) -> None:
    size = report.size
    if size.many_digits:
        found = run_cells(report, _many(report), n_queries=size.many_queries, repeats=size.many_repeats, slow_queries=2)
        goals_of_times(report, found, 500)


def _text_cells(report: Report) -> None:
    size = report.size
    workload = text_workload(report.data, n=size.sentences, epochs=size.text_epochs)
    slow_queries = None if size.name == "full" else 5
    run_cells(report, workload, n_queries=size.n_queries, repeats=size.recompute_repeats, slow_queries=slow_queries)


SECTIONS: dict[str, Callable[[Report], None]] = {
    "digits": _digits_cells,
    "tight": lambda report: run_tight(report, _few(report)),
    "text": _text_cells,
    "many-digits": _many_digits_cells,
    "session": lambda report: run_session(report, _few(report)),
    "auto": lambda report: run_kept(report, _few(report)),
    "space": lambda report: run_space(report, _few(report)),
    "build": lambda report: run_added_time(report, _many(report)),
    "memory": run_memory,
    "linearity": lambda report: run_linearity(report, _few(report)),
    "bounds": run_bounds,
    "footprint": run_footprint,
}
"""By name, in the order in which they run."""


def run(size: str, only: list[str], data: Path) -> Report:
    """Runs sections (all, if `only` is empty) and prints each one's tables."""
    report = Report(SIZES[size], data)
    if size == "small":
        torch.set_num_threads(1)  # its batches are tiny, and threads that wait for each other slow a busy machine down
    run_sections(report, SECTIONS, only)
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 if a goal was missed."""
    return bench_command("bench.activations.run", __doc__, list(SIZES), list(SECTIONS), run, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
