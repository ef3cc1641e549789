"""Competitor (d): faiss-cpu's flat index over the group's columns of the full materialisation.

A vector index holds fixed dimensions, but the group is known only when the question comes; so the columns are taken
out and added to a fresh flat index within the query. Euclidean distance for nearest; inner product with a vector of
ones for the largest sum. faiss computes in float32, so answers are checked within its rounding; on one thread, because
with two, version 1.15 takes differences of squared norms and returns wrong neighbours where distances are small.
"""

from __future__ import annotations

import time
from typing import Any

import faiss  # type: ignore[import-untyped,unused-ignore]
import numpy as np

from bench.activations.answers import Answer, Query
from bench.activations.workloads import Workload

__all__ = ["FaissFlat"]


class FaissFlat:
    """Flat search over the group's columns; the storage is 1.0.

    Attributes:
        search_seconds: of the last query, the part that only searched (the columns taken out and added beforehand).
    """

    name = "faiss flat"

    def __init__(self, workload: Workload) -> None:
        self._columns = {layer: workload.columns(layer) for layer in workload.layers}
        self.search_seconds = 0.0

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        start = time.perf_counter()
        vectors = np.ascontiguousarray(self._columns[query.layer][query.group].T)
        size = vectors.shape[1]
        index: Any
        if query.kind == "nearest":
            index, asked = faiss.IndexFlatL2(size), vectors[query.target : query.target + 1]
        else:
            index, asked = faiss.IndexFlatIP(size), np.ones((1, size), dtype=np.float32)
        index.add(vectors)
        ready = time.perf_counter()
        found, ids = index.search(asked, query.k)
        end = time.perf_counter()
        faiss.omp_set_num_threads(threads)
        self.search_seconds = end - ready
        scores = found[0].astype(np.float64)
        if query.kind == "nearest":
            scores = np.sqrt(np.maximum(scores, 0.0))  # faiss gives squares
        return Answer(ids[0].astype(np.int64), scores, 0, 0, end - start)
