"""Times the plain forward passes over the digits, or a build over them, in a process of its own.

`python -m bench.activations.build_time plain|bare|build INPUTS DATA PATH` writes one JSON object. A process each, for
whichever ran second would find an allocator that the first one has taught to keep its memory, and be faster by half.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import torch

import neuralartifactdb as nadb
from bench.activations.ours import capture_of
from bench.activations.workloads import BATCH_SIZE, Workload, digits_workload

__all__ = ["STORAGE", "main"]

STORAGE = 0.2


def _plain(workload: Workload, path: Path) -> dict[str, float]:
    """A user's loop over a DataLoader."""
    loader = torch.utils.data.DataLoader(workload.dataset, batch_size=BATCH_SIZE)
    start = time.perf_counter()
    with torch.no_grad():
        for batch in loader:
            workload.model(batch)
    return {"seconds": time.perf_counter() - start}


def _bare(workload: Workload, path: Path) -> dict[str, float]:
    """The forward passes alone, over slices of one tensor."""
    inputs = torch.from_numpy(workload.inputs[0])
    start = time.perf_counter()
    with torch.no_grad():
        for first in range(0, workload.n_inputs, BATCH_SIZE):
            workload.model(inputs[first : first + BATCH_SIZE])
    return {"seconds": time.perf_counter() - start}


def _build(workload: Workload, path: Path) -> dict[str, float]:
    """A build with its commit; first its plan, which calibrates and probes and does nothing else."""
    arguments = (workload.model, workload.dataset, list(workload.layers))
    shutil.rmtree(path, ignore_errors=True)
    with nadb.open(path) as db:
        start = time.perf_counter()
        db.index_activations(*arguments, storage=STORAGE, capture=capture_of(workload), progress=False, explain=True)
        planned = time.perf_counter()
        db.index_activations(*arguments, storage=STORAGE, capture=capture_of(workload), progress=False)
        done = time.perf_counter()
    shutil.rmtree(path)
    return {"calibration": planned - start, "seconds": done - planned}


def main(arguments: list[str]) -> None:
    """Runs one side and reports."""
    run = {"plain": _plain, "bare": _bare, "build": _build}[arguments[0]]
    workload = digits_workload(int(arguments[1]), Path(arguments[2]))
    sys.stdout.write(json.dumps(run(workload, Path(arguments[3]))))


if __name__ == "__main__":
    main(sys.argv[1:])
