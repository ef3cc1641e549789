"""Builds an index of a very wide layer in a process of its own and says how much memory that took above the baseline.

`python -m bench.activations.build_memory NEURONS INPUTS PATH` writes one JSON object. Peak memory is the kernel's own
high-water mark of this process; `ru_maxrss` is of no use, since a child starts with its parent's.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from numpy.typing import NDArray

import neuralartifactdb as nadb
from bench.process_memory import peak_bytes

__all__ = ["main"]

_PATTERNS = 16


def main(arguments: list[str]) -> None:
    """Builds and reports."""
    n_neurons, n_inputs, path = int(arguments[0]), int(arguments[1]), arguments[2]
    rng = np.random.default_rng(0)
    patterns = np.maximum(rng.standard_normal((_PATTERNS, n_neurons), dtype=np.float32), 0)
    scale = rng.uniform(0.5, 1.5, n_inputs).astype(np.float32)
    largest_batch = 0

    def evaluate(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        nonlocal largest_batch
        largest_batch = max(largest_batch, len(ids))
        rows = patterns[ids % _PATTERNS]
        rows *= scale[ids, None]
        return rows

    with nadb.open(path) as db:
        baseline = peak_bytes()
        start = time.perf_counter()
        db.index_function("wide", evaluate, n_inputs, n_neurons, fingerprint="1", storage=0.2, progress=False)
        seconds = time.perf_counter() - start
        found = {
            "above_bytes": peak_bytes() - baseline,
            "batch_bytes": 4 * n_neurons * largest_batch,
            "seconds": seconds,
            "index_bytes": db.nbytes,
            "budget_bytes": int(0.2 * 4 * n_inputs * n_neurons),
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
