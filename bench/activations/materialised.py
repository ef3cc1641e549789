"""Competitor (b): full materialisation. Every activation is kept on disk as float32, then NumPy answers exactly.

In two layouts: row-major, as activations are captured, and column-major, where a group's columns are contiguous, which
is the best that a user of NumPy can do. Files are mapped and warm; the storage is 1.0 by definition.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bench.activations.answers import Answer, Query
from bench.activations.workloads import Workload

__all__ = ["ColumnsInMemory", "MaterialisedColumns", "MaterialisedRows", "numpy_top_k"]


def numpy_top_k(columns: Iterable[NDArray[np.float32]], query: Query) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k best inputs, exactly: float64 sums in the order of the group, partition, then a sort of the few.

    Args:
        columns: float32[n] per neuron of the group.
        query: what is asked.

    Returns:
        (ids int64[k], scores float64[k]), best first, equal scores by id.
    """
    total: NDArray[np.float64] | None = None
    for column in columns:
        term = column.astype(np.float64)
        if query.kind == "nearest":
            term -= term[query.target]
            np.multiply(term, term, out=term)
        if total is None:
            total = term
        else:
            total += term
    if total is None:
        raise ValueError("the group is empty")
    if query.kind == "nearest":
        np.sqrt(total, out=total)
    key = -total if query.kind == "highest" else total
    k = min(query.k, len(key))
    kth = np.partition(key, k - 1)[k - 1]
    ids = np.flatnonzero(key <= kth)  # ascending, so that a stable sort puts equal scores in the order of ids
    ids = ids[np.argsort(key[ids], kind="stable")][:k]
    return ids, total[ids]


class MaterialisedColumns:
    """Column-major float32 on disk."""

    name = "NumPy, columns on disk"

    def __init__(self, workload: Workload) -> None:
        self._columns = {layer: workload.columns(layer) for layer in workload.layers}

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        columns = self._columns[query.layer]
        ids, scores = numpy_top_k((columns[neuron] for neuron in query.group), query)
        return Answer(ids, scores, 0, 0, time.perf_counter() - start)


class MaterialisedRows:
    """Row-major float32 on disk, as captured."""

    name = "NumPy, rows on disk"

    def __init__(self, workload: Workload) -> None:
        self._rows = {layer: workload.rows(layer) for layer in workload.layers}

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        group = np.ascontiguousarray(self._rows[query.layer][:, query.group].T)
        ids, scores = numpy_top_k(group, query)
        return Answer(ids, scores, 0, 0, time.perf_counter() - start)


class ColumnsInMemory:
    """Column-major float32 in memory: what `storage="auto"` is measured against."""

    name = "NumPy, columns in memory"

    def __init__(self, workload: Workload, layers: Iterable[str]) -> None:
        self._columns = {layer: np.array(workload.columns(layer)) for layer in layers}

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        columns = self._columns[query.layer]
        ids, scores = numpy_top_k((columns[neuron] for neuron in query.group), query)
        return Answer(ids, scores, 0, 0, time.perf_counter() - start)
