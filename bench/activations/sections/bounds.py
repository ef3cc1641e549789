"""How fast an index bounds a group of neurons: both ends for every input, one thread, codes in memory and not.

Issue 2: at most 2 ns per input and neuron at 1,000,000 inputs, before SIMD.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import neuralartifactdb as nadb
from bench.activations.answers import Query
from bench.activations.ours import Ours
from bench.activations.report import Report
from bench.activations.sections.cells import STORAGE
from bench.tables import Table, milliseconds
from neuralartifactdb import _core

__all__ = ["run_bounds"]

_AT_MOST = 2.0
_NEURONS = 64
_REPEATS = 7


@contextmanager
def _one_thread() -> Iterator[None]:
    before = os.environ.get("NADB_THREADS")
    os.environ["NADB_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NADB_THREADS"]
        else:
            os.environ["NADB_THREADS"] = before


@contextmanager
def _timed_kernel() -> Iterator[list[float]]:
    """Collects the seconds of each call of the kernel that turns codes into bounds."""
    kernel = _core.code_bounds
    spent: list[float] = []

    def timed(*arguments: Any, **options: Any) -> None:
        start = time.perf_counter()
        kernel(*arguments, **options)
        spent.append(time.perf_counter() - start)

    _core.code_bounds = timed
    try:
        yield spent
    finally:
        _core.code_bounds = kernel


def run_bounds(report: Report) -> None:
    """Times the intervals of all inputs for groups of several sizes."""
    n = report.size.bounds_inputs
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.standard_normal((n, _NEURONS), dtype=np.float32), 0)
    path = report.scratch / "bounds.nadb"
    shutil.rmtree(path, ignore_errors=True)
    db = nadb.open(path, evaluated_bytes=0)
    db.index_arrays("wide", rows, storage=STORAGE, progress=False)
    ours = Ours(db, "ours")
    bits = db.activations["wide"].bits
    table = Table(
        "Bounds of a group of neurons",
        f"{n:,} inputs, {bits} bits, half of the activations 0; both ends for every input, one thread, "
        f"best of {_REPEATS}. First: codes read from the page cache and their checksums verified; again: from the "
        "block cache.",
        (
            "query",
            "neurons",
            "first, ms",
            "again, ms",
            "kernel alone, ms",
            "ns per input and neuron",
            "kernel alone, ns",
        ),
    )
    worst = 0.0
    with _one_thread():
        for kind in ("nearest", "highest"):
            for size in (1, 3, 10, 50):
                group = rng.choice(_NEURONS, size, replace=False)
                db.close()
                db = nadb.open(path, evaluated_bytes=0)
                db.attach_array("wide", rows)
                ours = Ours(db, "ours")
                query = Query(kind, "SimHigh", "wide", 0, group)
                whole, kernel = [], []
                for _ in range(1 + _REPEATS):
                    with _timed_kernel() as spent:
                        start = time.perf_counter()
                        for _ in ours.bound_blocks(query):
                            pass
                        whole.append(time.perf_counter() - start)
                    kernel.append(sum(spent))
                everything, alone = (min(held[1:]) / (n * size) * 1e9 for held in (whole, kernel))
                worst = max(worst, alone) if size >= 3 else worst
                shown = [milliseconds(held) for held in (whole[0], min(whole[1:]), min(kernel[1:]))]
                table.add(kind, size, *shown, f"{everything:.2f}", f"{alone:.2f}")
    db.close()
    report.tables.append(table)
    report.goal(
        "group bounds: <= 2 ns per input and neuron, kernel, 3 neurons and more",
        f"{worst:.2f} ns at worst",
        worst <= _AT_MOST,
    )
