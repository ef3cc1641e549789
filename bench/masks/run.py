"""Runs the bench: `python -m bench.masks.run --size small|standard|full [--only SECTION ...]`.

Prints tables, and writes one JSON file with every record and one Markdown file, by default under bench-data/results/.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.masks.report import SIZES, Report
from bench.masks.sections.bounds import run_bounds
from bench.masks.sections.building import run_build
from bench.masks.sections.cells import run_cells
from bench.masks.sections.limit import run_limit
from bench.masks.sections.memory import run_memory
from bench.masks.sections.session import run_session

__all__ = ["SECTIONS", "main", "run"]

_log = logging.getLogger("neuralartifactdb")


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


def run(size: str, only: list[str], data: Path) -> Report:
    """Runs sections (all, if `only` is empty) and prints each one's tables."""
    report = Report(SIZES[size], data)
    for name, section in SECTIONS.items():
        if only and name not in only:
            continue
        before, start = len(report.tables), time.perf_counter()
        section(report)
        for table in report.tables[before:]:
            sys.stdout.write(table.to_text() + "\n\n")
        sys.stdout.write(f"-- {name}: {time.perf_counter() - start:.1f} s\n\n")
        sys.stdout.flush()
    sys.stdout.write(report.goals_table().to_text() + "\n")
    return report


def main(arguments: list[str] | None = None) -> int:
    """The command line; exit code 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.masks.run", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="standard")
    parser.add_argument(
        "--only", nargs="+", choices=list(SECTIONS), default=[], metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="masks, databases and results")
    parser.add_argument("--json", type=Path, help="instead of DATA/results/masks-SIZE.json")
    parser.add_argument("--markdown", type=Path, help="instead of DATA/results/masks-SIZE.md")
    parser.add_argument("--verbose", action="store_true", help="log what is being measured")
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
        _log.setLevel(logging.INFO)
    report = run(options.size, options.only, options.data)
    names = options.only or list(SECTIONS)
    results = options.data / "results"
    for path, text in (
        (options.json or results / f"masks-{options.size}.json", report.to_json(names)),
        (options.markdown or results / f"masks-{options.size}.md", report.to_markdown(names)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"wrote {path}\n")
    return 1 if any(goal.met is False for goal in report.goals) else 0


if __name__ == "__main__":
    raise SystemExit(main())
