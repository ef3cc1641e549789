"""Bytes on disk against the storage asked for, on real and on awkward data: never above, whatever the data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import neuralartifactdb as nadb
from bench.activations.report import Report
from bench.activations.workloads import Workload
from bench.tables import Table, count

__all__ = ["run_space"]

_FIXED_BYTES = 64 << 10


def _awkward(n: int, n_neurons: int) -> dict[str, NDArray[np.float32]]:
    """Data that strains an index, float32[n, n_neurons] each."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((n, n_neurons), dtype=np.float32)
    one_hot = np.zeros_like(normal)
    one_hot[np.arange(n), rng.integers(n_neurons, size=n)] = 1
    few = rng.integers(3, size=(n, n_neurons)).astype(np.float32)
    heavy = np.exp(3 * normal)
    return {
        "ReLU6": np.clip(4 * normal, 0, 6),
        "constant neurons": np.broadcast_to(normal[:1], normal.shape).copy(),
        "one-hot inputs": one_hot,
        "three values": few,
        "heavy tails": heavy,
        "sorted by class": np.sort(normal, axis=0),
    }


def run_space(report: Report, workload: Workload) -> None:
    """Indexes each data set at several storages; each must fit, files for the database aside."""
    layer = workload.middle
    data: dict[str, NDArray[np.float32]] = {f"{workload.name} {layer}": workload.rows(layer)}
    data.update(_awkward(min(workload.n_inputs, 10_000), 256))
    table = Table(
        "Bytes on disk",
        "All files of the index, as a share of the budget that `storage=` gives it (4 bytes x inputs x neurons x "
        "storage); one more column for the files of the database itself.",
        (
            "data",
            "inputs",
            "neurons",
            "storage 0.05",
            "storage 0.1",
            "storage 0.2",
            "storage 0.5",
            "database files, bytes",
        ),
    )
    worst, fixed = 0.0, 0
    for name, rows in data.items():
        cells = []
        for storage in (0.05, 0.1, 0.2, 0.5):
            path = report.scratch / "space.nadb"
            shutil.rmtree(path, ignore_errors=True)
            with nadb.open(path) as db:
                db.index_arrays("layer", rows, storage=storage, progress=False)
                indexed = db.nbytes
            other = _bytes_of(path) - indexed
            share = indexed / (4 * rows.size * storage)
            worst, fixed = max(worst, share), max(fixed, other)
            cells.append(f"{share:.1%}")
        table.add(name, count(rows.shape[0]), count(rows.shape[1]), *cells, count(other))
    report.tables.append(table)
    report.goal("index bytes <= the storage asked for", f"{worst:.1%} of it at worst", worst <= 1.0)
    report.goal("other files of a database <= 64 KiB", f"{fixed:,} bytes", fixed <= _FIXED_BYTES)


def _bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
