"""Memory of a query, in a process of its own: at most the block cache's budget and 100 MB more (issue 3)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from bench.masks.ours import build
from bench.masks.queries import scored
from bench.masks.report import Report
from bench.tables import Table
from neuralartifactdb.storage.directory import DEFAULT_CACHE_BYTES

__all__ = ["run_memory"]

_ALLOWED_ABOVE_CACHE = 100_000_000


def run_memory(report: Report) -> None:
    """Asks a filter over the last workload, which has the most masks."""
    workload = report.workloads[-1]
    path = report.scratch / f"{workload.name}.nadb"
    if not path.exists():
        build(workload, path).close()
    question, _ = next(iter(scored(workload, "filter, box", 1)))
    assert question.box is not None
    arguments = [str(question.low), *map(str, question.box), repr(question.threshold)]
    done = subprocess.run(
        [sys.executable, "-m", "bench.masks.query_memory", str(path), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(done.stdout)
    allowed = DEFAULT_CACHE_BYTES + _ALLOWED_ABOVE_CACHE
    table = Table(
        f"Memory of a query: {workload.name}",
        f"The kernel's high-water mark of a process of its own above that of the open database, in MB; the block cache "
        f"may take {DEFAULT_CACHE_BYTES / 1e6:,.0f}.",
        ("masks", "masks read", "MB above", "allowed"),
    )
    above = found["above_bytes"]
    table.add(f"{workload.n_masks:,}", f"{found['masks_read']:,}", f"{above / 1e6:,.0f}", f"{allowed / 1e6:,.0f}")
    report.tables.append(table)
    report.goal(
        f"{workload.name}: a query takes at most the block cache and 100 MB",
        f"{above / 1e6:,.0f} MB of {allowed / 1e6:,.0f}",
        above <= allowed,
    )
