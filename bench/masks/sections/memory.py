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
from bench.masks.query_memory import BY_ATTRIBUTE, BY_OTHER_MASK, OTHER
from bench.masks.report import Report
from bench.masks.workloads import Workload
from bench.tables import Table
from neuralartifactdb.storage.directory import DEFAULT_CACHE_BYTES

__all__ = ["run_memory"]

_ALLOWED_ABOVE_CACHE = 100_000_000
_APPENDED_BYTES = 128 << 20


def run_memory(report: Report) -> None:
    """Asks one query of each kind over the last workload, which has the most masks."""
    workload = report.workloads[-1]
    path = report.scratch / f"{workload.name}.nadb"
    if not path.exists():
        build(workload, path).close()
    _append_objects(workload, path)
    questions = {kind: next(iter(scored(workload, kind, 1)))[0] for kind in KINDS}
    questions[BY_OTHER_MASK] = questions[BY_ATTRIBUTE] = questions["filter, box"]
    allowed = DEFAULT_CACHE_BYTES + _ALLOWED_ABOVE_CACHE
    table = Table(
        f"Memory of a query: {workload.name}",
        "The kernel's high-water mark of a process of its own above that of the open database, in MB, "
        f"{allowed / 1e6:,.0f} allowed; the block cache may take {DEFAULT_CACHE_BYTES / 1e6:,.0f} of them. "
        "Other mask: counts where another collection's mask of the input is bright, both read. where=: masks of one "
        "model, from table().",
        ("query", "masks", "masks read", "MB above"),
    )
    worst = 0
    for kind, question in questions.items():
        found = _ask(path, kind, question)
        worst = max(worst, found["above_bytes"])
        table.add(kind, f"{workload.n_masks:,}", f"{found['masks_read']:,}", f"{found['above_bytes'] / 1e6:,.0f}")
    report.tables.append(table)
    report.goal(
        f"{workload.name}: a query of any kind takes at most the block cache and 100 MB",
        f"{worst / 1e6:,.0f} MB of {allowed / 1e6:,.0f} at worst",
        worst <= allowed,
    )
    with nadb.open(path) as db:
        del db.masks[OTHER]


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
        masks = db.create_masks(OTHER, dtype="uint8", overwrite=True)
        for first in range(0, workload.n_inputs, step):
            x0, y0, x1, y1 = workload.boxes[first : first + step][: workload.n_inputs - first].T[:, :, None]
            rows = (across >= y0) & (across < y1)
            columns = (across >= x0) & (across < x1)
            pixels = (rows[:, :, None] & columns[:, None, :]).astype(np.uint8) * np.uint8(255)
            masks.append(pixels, input_id=np.arange(first, first + len(pixels)), progress=False)
