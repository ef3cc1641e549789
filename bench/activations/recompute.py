"""Competitor (a): recompute everything. The whole dataset through the model, stopped after the layer; then NumPy.

What a user without any tool does for each question. Only the columns of the group are kept, so memory is no issue.
Torch may use fused kernels, as it does for everybody; the values of a transformer then differ in the last bits.
"""

from __future__ import annotations

import time

import numpy as np

from bench.activations.answers import Answer, Query
from bench.activations.forward import stream_rows
from bench.activations.materialised import numpy_top_k
from bench.activations.workloads import BATCH_SIZE, Workload

__all__ = ["Recompute"]


class Recompute:
    """Runs the whole dataset for every query.

    Args:
        workload: the network and its dataset.
        batch_size: inputs per forward pass.
    """

    name = "recompute"

    def __init__(self, workload: Workload, *, batch_size: int = BATCH_SIZE) -> None:
        self._workload = workload
        self._batch_size = batch_size

    def answer(self, query: Query) -> Answer:
        """Answers one query, timed."""
        start = time.perf_counter()
        workload = self._workload
        columns = np.empty((len(query.group), workload.n_inputs), dtype=np.float32)
        batches = 0
        for where, rows in stream_rows(
            workload.model,
            [query.layer],
            workload.inputs,
            batch_size=self._batch_size,
            reduce=workload.reduce,
            fused=True,
        ):
            columns[:, where] = rows[query.layer][:, query.group].T
            batches += 1
        ids, scores = numpy_top_k(columns, query)
        return Answer(ids, scores, workload.n_inputs, batches, time.perf_counter() - start)
