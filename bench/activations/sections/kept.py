"""`storage="auto"` on small data keeps every activation: is it as fast as NumPy on the same columns in memory?"""

from __future__ import annotations

import shutil
import time

import numpy as np

import neuralartifactdb as nadb
from bench.activations.answers import check_answer, reference_scores
from bench.activations.materialised import ColumnsInMemory
from bench.activations.ours import Ours
from bench.activations.queries import GROUP_KINDS, KINDS, cell
from bench.activations.report import Report
from bench.activations.workloads import Workload
from bench.tables import Table, milliseconds

__all__ = ["run_kept"]

_SLOWER_AT_MOST = 1e-3


def run_kept(report: Report, workload: Workload) -> None:
    """Both answer each query in turn, files warm; the layer is the middle one."""
    layer = workload.middle
    path = report.scratch / f"{workload.name}.kept.nadb"
    shutil.rmtree(path, ignore_errors=True)
    db = nadb.open(path)
    start = time.perf_counter()
    db.index_arrays(layer, workload.rows(layer), progress=False)
    ours = Ours(db, "ours, auto", time.perf_counter() - start)
    numpy_columns = ColumnsInMemory(workload, [layer])
    table = Table(
        f"storage='auto' against NumPy: {workload.name}",
        f"{workload.n_inputs:,} inputs, {layer}, k = 20, every activation kept; milliseconds, medians, both in turn. "
        "NumPy has the columns in memory; ours reads them through its block cache, the first time from the page cache.",
        ("query", "neurons", "NumPy", "ours, again", "ours, first time", "slower by"),
    )
    worst = 0.0
    for kind in KINDS:
        for size in report.size.groups:
            theirs: list[float] = []
            first: list[float] = []
            again: list[float] = []
            for group_kind in GROUP_KINDS:
                for query in cell(workload, layer, kind, group_kind, size, report.size.n_queries, seed=1):
                    scores = reference_scores(np.asarray(workload.columns(layer)[query.group]), query)
                    for held, competitor in (
                        (theirs, numpy_columns),
                        (first, ours),
                        (theirs, numpy_columns),
                        (again, ours),
                    ):
                        answer = competitor.answer(query)
                        check_answer(answer, scores, query, name=competitor.name)
                        held.append(answer.seconds)
            slower = float(np.median(again) - np.median(theirs))
            worst = max(worst, slower)
            times = [milliseconds(float(np.median(held))) for held in (theirs, again, first)]
            table.add(kind, size, *times, milliseconds(slower))
    table.notes.append(f"Indexing took {ours.seconds:.2f} s, {db.nbytes / (1 << 20):,.1f} MiB on disk.")
    report.tables.append(table)
    what = f"auto, {workload.name}: at most 1 ms slower than NumPy in memory"
    report.goal(what, f"{milliseconds(worst)} ms at worst", worst <= _SLOWER_AT_MOST)
    ours.close()
