"""Building: the histograms alone, and appending durably against writing the pixels durably.

Issue 3: at least 0.5 GB of uint8 pixels per second and core, and at most twice the time of writing the pixels.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np

from bench.masks.ours import COLLECTION, build
from bench.masks.report import Report
from bench.masks.workloads import Workload
from bench.tables import Table, seconds, times
from neuralartifactdb import _core

__all__ = ["run_build"]

_SAMPLE_BYTES = 256 << 20
_AT_LEAST_GB_PER_S = 0.5
_AT_MOST_TIMES_WRITING = 2.0


def run_build(report: Report) -> None:
    """Times both for every workload of the size."""
    table = Table(
        "Building",
        f"uint8 pixels from the page cache; best of {report.size.build_repeats}. Writing: the same pixels to one file, "
        "synced. Append: durable, index and checksums included.",
        ("workload", "grid", "edges", "histograms, one core, GB/s", "writing, s", "append, s", "append / writing"),
    )
    for workload in report.workloads:
        path = report.scratch / f"{workload.name}.build.nadb"
        writing, appending = [], []
        for _ in range(report.size.build_repeats):
            writing.append(_write(workload, path.with_suffix(".raw")))
            ours = build(workload, path)
            appending.append(ours.seconds)
            view = ours.masks._store.at().masks(COLLECTION)
            segment = view.segments[0]
            grid, edges = int(segment.grid), np.array(segment.edges, dtype=np.float64)
            ours.close()
            shutil.rmtree(path)
        speed = max(_histograms(workload, grid, edges) for _ in range(report.size.build_repeats))
        ratio = min(appending) / min(writing)
        table.add(
            workload.name,
            f"{grid} x {grid}",
            len(edges),
            f"{speed:.2f}",
            seconds(min(writing)),
            seconds(min(appending)),
            times(ratio),
        )
        report.goal(
            f"{workload.name}: histograms >= 0.5 GB of pixels per second and core",
            f"{speed:.2f} GB/s",
            speed >= _AT_LEAST_GB_PER_S,
        )
        report.goal(f"{workload.name}: append <= 2 x writing the pixels", times(ratio), ratio <= _AT_MOST_TIMES_WRITING)
    report.tables.append(table)


def _write(workload: Workload, path: Path) -> float:
    start = time.perf_counter()
    with path.open("wb") as file:
        for _, pixels in workload.chunks():
            file.write(pixels)
        file.flush()
        os.fsync(file.fileno())
    spent = time.perf_counter() - start
    path.unlink()
    return spent


def _histograms(workload: Workload, grid: int, edges: np.ndarray) -> float:
    """Gigabytes of pixels per second, one thread, pixels in memory."""
    n = min(workload.n_masks, max(1, _SAMPLE_BYTES // workload.mask_bytes))
    pixels = np.array(workload.pixels()[:n])
    shapes = np.full((n, 2), workload.side, dtype=np.int32)
    out = np.empty((len(edges), n, grid * grid), dtype=np.uint8)
    masks = list(pixels)
    start = time.perf_counter()
    _core.mask_histograms(masks, "uint8", shapes, edges, grid, None, out, threads=1)
    return pixels.nbytes / 1e9 / (time.perf_counter() - start)
