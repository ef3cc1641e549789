"""Memory of a query, in a process of its own: at most the block cache's budget and 100 MB more (issue 3)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import neuralartifactdb as nadb
from bench.masks.ours import build
from bench.masks.queries import KINDS, Question, scored
from bench.masks.query_memory import MORE_KINDS, OTHER
from bench.masks.report import Report
from bench.masks.workloads import Workload
from bench.tables import Table, median_and_worst
from neuralartifactdb.storage.directory import DEFAULT_CACHE_BYTES

__all__ = ["run_memory"]

_ALLOWED_ABOVE_CACHE = 100_000_000
_APPENDED_BYTES = 128 << 20
_QUERIES = 3


def run_memory(report: Report) -> None:
    """Asks queries of each kind over every workload."""
    allowed = DEFAULT_CACHE_BYTES + _ALLOWED_ABOVE_CACHE
    table = Table(
        "Memory of a query",
        "The kernel's high-water mark of a process of its own above that of the open database, in MB, "
        f"{allowed / 1e6:,.0f} allowed; the block cache may take {DEFAULT_CACHE_BYTES / 1e6:,.0f} of them. "
        f"Median (worst) of {_QUERIES} queries. IoU of two: of two models' masks of an input. Other mask: counts where "
        "another collection's mask of the input is bright, both read. where=: masks of one model, from table().",
        ("workload", "query", "masks read", "MB above"),
    )
    for workload in report.workloads:
        worst = _measured(workload, report.scratch / f"{workload.name}-memory.nadb", table)
        report.goal(
            f"{workload.name}: a query of any kind takes at most the block cache and 100 MB",
            f"{worst / 1e6:,.0f} MB of {allowed / 1e6:,.0f} at worst",
            worst <= allowed,
        )
    report.tables.append(table)


def _measured(workload: Workload, path: Path, table: Table) -> int:
    """The most bytes that a query took, over a database that is made for it and removed: it is large."""
    ours = build(workload, path)
    try:
        ours.close()
        _append_objects(workload, path)
        questions = {kind: [question for question, _ in scored(workload, kind, _QUERIES)] for kind in KINDS}
        questions |= dict.fromkeys(MORE_KINDS, questions["filter, box"])
        worst = 0
        for kind, asked in questions.items():
            found = [_ask(path, kind, question) for question in asked]
            above = np.array([one["above_bytes"] for one in found])
            worst = max(worst, int(above.max()))
            read = median_and_worst(one["masks_read"] for one in found)
            table.add(workload.name, kind, read, median_and_worst(np.round(above / 1e6)))
    finally:
        ours.delete()
    return worst


def _ask(path: Path, kind: str, question: Question) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.masks.query_memory", str(path), kind, json.dumps(asdict(question))],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _append_objects(workload: Workload, path: Path) -> None:
    """One mask of each input, of the object's box."""
    step = max(1, _APPENDED_BYTES // workload.mask_bytes)
    across = np.arange(workload.side)
    with nadb.open(path) as db:
        masks = db.create_masks(OTHER, dtype="uint8")
        for first in range(0, workload.n_inputs, step):
            x0, y0, x1, y1 = workload.boxes[first : first + step][: workload.n_inputs - first].T[:, :, None]
            rows = (across >= y0) & (across < y1)
            columns = (across >= x0) & (across < x1)
            pixels = (rows[:, :, None] & columns[:, None, :]).astype(np.uint8) * np.uint8(255)
            masks.append(pixels, input_id=np.arange(first, first + len(pixels)), progress=False)
