"""The command line of a bench: which sections at which size, printed as they come, and written to two files.

`bench.activations.run` and `bench.masks.run` are this with sections of their own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["bench_command", "run_sections"]

_log = logging.getLogger("neuralartifactdb")


def run_sections(report: Any, sections: Mapping[str, Callable[[Any], None]], only: Sequence[str]) -> None:
    """Runs sections (all, if `only` is empty) and prints each one's tables."""
    for name, section in sections.items():
        if only and name not in only:
            continue
        before, start = len(report.tables), time.perf_counter()
        section(report)
        for table in report.tables[before:]:
            sys.stdout.write(table.to_text() + "\n\n")
        sys.stdout.write(f"-- {name}: {time.perf_counter() - start:.1f} s\n\n")
        sys.stdout.flush()
    sys.stdout.write(report.goals_table().to_text() + "\n")


def bench_command(
    module: str,
    description: str | None,
    sizes: Sequence[str],
    sections: Sequence[str],
    run: Callable[..., Any],
    arguments: list[str] | None,
    *,
    prefix: str = "",
    lists: Mapping[str, str] | None = None,
) -> int:
    """Parses the command line, runs, writes JSON and Markdown; exit code 1 if a goal was missed.

    Args:
        module: that is run, for the usage line.
        description: of the bench.
        sizes: names that `--size` takes.
        sections: names that `--only` takes.
        run: (size, sections asked for, folder of data) -> a report.
        arguments: None for those of the process.
        prefix: of the files' names.
        lists: by name, the help of further options that take several names; given to `run` by that name.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--size", choices=list(sizes), default="standard")
    parser.add_argument(
        "--only", nargs="+", choices=list(sections), default=[], metavar="SECTION", help=", ".join(sections)
    )
    for name, text in (lists or {}).items():
        parser.add_argument(f"--{name}", nargs="+", default=[], metavar="NAME", help=text)
    parser.add_argument("--data", type=Path, default=Path("bench-data"), help="data, databases and results")
    parser.add_argument("--json", type=Path, help=f"instead of DATA/results/{prefix}SIZE.json")
    parser.add_argument("--markdown", type=Path, help=f"instead of DATA/results/{prefix}SIZE.md")
    parser.add_argument("--verbose", action="store_true", help="log what is being measured")
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
        _log.setLevel(logging.INFO)
    report = run(options.size, options.only, options.data, **{name: getattr(options, name) for name in lists or {}})
    names = options.only or list(sections)
    results = options.data / "results"
    for path, text in (
        (options.json or results / f"{prefix}{options.size}.json", report.to_json(names)),
        (options.markdown or results / f"{prefix}{options.size}.md", report.to_markdown(names)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"wrote {path}\n")
    return 1 if any(goal.met is False for goal in report.goals) else 0
